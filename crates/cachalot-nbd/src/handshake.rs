//! The handshake: which export, and in which manner.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::export::Export;
use crate::server::ConnectionError;
use crate::wire::{self, answer, info, option};

/// Exports by name; the first is also the one without a name.
pub type Exports = BTreeMap<String, Arc<dyn Export>>;

/// How many options a client may send.
const OPTIONS_MAX: usize = 256;

/// What client and server agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) export: Arc<dyn Export>,
    pub(crate) is_structured: bool,
    pub(crate) has_allocation: bool,
}

fn find<'a>(exports: &'a Exports, name: &str) -> Option<&'a Arc<dyn Export>> {
    if name.is_empty() {
        return exports.values().next();
    }
    exports.get(name)
}

/// What the export can do: flush, FUA, trim, zeroes (fast or refused), caching and many connections to each client;
/// then whether it is read-only, and whether answers may be asked for whole.
fn transmission_flags(export: &dyn Export, is_structured: bool) -> u16 {
    let mut flags = 0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x100 | 0x400 | 0x800;
    if export.is_read_only() {
        flags |= 0x2;
    }
    if is_structured {
        flags |= 0x80;
    }
    flags
}

struct Handshake<'a, S> {
    stream: &'a mut S,
    exports: &'a Exports,
    is_structured: bool,
    /// The export that the context of allocation was chosen for.
    allocation_of: Option<String>,
    /// Nothing is told before the client has asked for encryption.
    demands_tls: bool,
    no_zeroes: bool,
}

/// How a handshake, or the part of it before encryption, came to its end.
pub(crate) enum Negotiated {
    /// The client ended it.
    Ended,
    /// Encryption begins now, and the handshake goes on behind it; whether the client takes no padding.
    Tls {
        /// The client wants no padding behind an export that is asked for in the old way.
        no_zeroes: bool,
    },
    /// Requests come now.
    Transmission(Agreed),
}

/// Greets a client and goes through its options. With `demands_tls` nothing is told before it asks for encryption.
pub(crate) async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &Exports,
    demands_tls: bool,
) -> Result<Negotiated, ConnectionError> {
    stream.write_all(&wire::greeting()).await?;
    stream.flush().await?;
    let client_flags = stream.read_u32().await?;
    if client_flags & !3 != 0 || client_flags & 1 == 0 {
        return Err(wire::Garbage("flags of a client that are not known").into());
    }
    options(stream, exports, (demands_tls, client_flags & 2 != 0)).await
}

/// Goes through the options of a client that was greeted.
pub(crate) async fn options<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &Exports,
    (demands_tls, no_zeroes): (bool, bool),
) -> Result<Negotiated, ConnectionError> {
    let mut handshake = Handshake {
        stream,
        exports,
        is_structured: false,
        allocation_of: None,
        demands_tls,
        no_zeroes,
    };
    for _ in 0..OPTIONS_MAX {
        if let Some(end) = handshake.option().await? {
            return Ok(end);
        }
    }
    Err(wire::Garbage("options without end").into())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handshake<'_, S> {
    /// Answers one option. `None` if another comes behind it.
    async fn option(&mut self) -> Result<Option<Negotiated>, ConnectionError> {
        let mut header = [0; wire::OPTION_HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let header = wire::option_header(&header)?;
        if header.len > wire::OPTION_BYTES_MAX {
            self.reply(header.option, answer::ERR_TOO_BIG, b"").await?;
            return Err(wire::Garbage("an option that is too long").into());
        }
        let mut data = vec![0; usize::try_from(header.len).unwrap_or_default()];
        self.stream.read_exact(&mut data).await?;
        match header.option {
            option::ABORT => {
                self.reply(header.option, answer::ACK, b"").await?;
                return Ok(Some(Negotiated::Ended));
            }
            option::STARTTLS if self.demands_tls && data.is_empty() => {
                self.reply(header.option, answer::ACK, b"").await?;
                let no_zeroes = self.no_zeroes;
                return Ok(Some(Negotiated::Tls { no_zeroes }));
            }
            // There is no way to say so to one that asks for an export in this way.
            option::EXPORT_NAME if self.demands_tls => {
                return Err(wire::Garbage("an export before encryption").into());
            }
            unencrypted if self.demands_tls => {
                self.reply(unencrypted, answer::ERR_TLS_REQD, b"").await?;
            }
            option::EXPORT_NAME => return self.export_name(&data).await.map(Some),
            option::LIST if data.is_empty() => self.list().await?,
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.is_structured = true;
                self.reply(header.option, answer::ACK, b"").await?;
            }
            option::LIST | option::STRUCTURED_REPLY => {
                self.reply(header.option, answer::ERR_INVALID, b"").await?;
            }
            option::INFO | option::GO => return self.info(header.option, &data).await,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta(header.option, &data).await?;
            }
            unknown => self.reply(unknown, answer::ERR_UNSUP, b"").await?,
        }
        Ok(None)
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<(), ConnectionError> {
        let reply = wire::option_reply(option, kind, data);
        self.stream.write_all(&reply).await?;
        self.stream.flush().await?;
        Ok(())
    }

    fn agreed(&self, export: &Arc<dyn Export>, name: &str) -> Agreed {
        Agreed {
            export: Arc::clone(export),
            is_structured: self.is_structured,
            has_allocation: self.is_structured && self.allocation_of.as_deref() == Some(name),
        }
    }

    async fn export_name(&mut self, data: &[u8]) -> Result<Negotiated, ConnectionError> {
        let name = String::from_utf8_lossy(data).into_owned();
        let exports = self.exports;
        let Some(export) = find(exports, &name) else {
            return Err(wire::Garbage("an export that is not there").into());
        };
        let mut out = BytesMut::new();
        out.put_u64(export.size_bytes());
        out.put_u16(transmission_flags(&**export, self.is_structured));
        if !self.no_zeroes {
            out.put_bytes(0, 124);
        }
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(Negotiated::Transmission(self.agreed(export, &name)))
    }

    async fn list(&mut self) -> Result<(), ConnectionError> {
        let exports = self.exports;
        for name in exports.keys() {
            let mut out = BytesMut::new();
            out.put_u32(u32::try_from(name.len()).unwrap_or_default());
            out.put_slice(name.as_bytes());
            self.reply(option::LIST, answer::SERVER, &out).await?;
        }
        self.reply(option::LIST, answer::ACK, b"").await
    }

    async fn info(
        &mut self,
        option: u32,
        data: &[u8],
    ) -> Result<Option<Negotiated>, ConnectionError> {
        let Some(request) = wire::info_request(data) else {
            self.reply(option, answer::ERR_INVALID, b"").await?;
            return Ok(None);
        };
        let exports = self.exports;
        let Some(export) = find(exports, &request.name) else {
            self.reply(option, answer::ERR_UNKNOWN, b"").await?;
            return Ok(None);
        };
        let mut out = BytesMut::new();
        out.put_u16(info::EXPORT);
        out.put_u64(export.size_bytes());
        out.put_u16(transmission_flags(&**export, self.is_structured));
        self.reply(option, answer::INFO, &out).await?;
        out.clear();
        out.put_u16(info::BLOCK_SIZE);
        out.put_u32(1);
        out.put_u32(export.preferred_block());
        out.put_u32(wire::PAYLOAD_BYTES_MAX);
        self.reply(option, answer::INFO, &out).await?;
        self.reply(option, answer::ACK, b"").await?;
        if option == option::GO {
            return Ok(Some(Negotiated::Transmission(
                self.agreed(export, &request.name),
            )));
        }
        Ok(None)
    }

    async fn meta(&mut self, option: u32, data: &[u8]) -> Result<(), ConnectionError> {
        let is_set = option == option::SET_META_CONTEXT;
        if is_set {
            self.allocation_of = None;
        }
        let request = wire::meta_request(data).filter(|_| self.is_structured);
        let Some(request) = request else {
            return self.reply(option, answer::ERR_INVALID, b"").await;
        };
        if find(self.exports, &request.name).is_none() {
            return self.reply(option, answer::ERR_UNKNOWN, b"").await;
        }
        let lists_all = !is_set && request.queries.is_empty();
        let matches = |query: &String| query == wire::ALLOCATION || !is_set && query == "base:";
        if lists_all || request.queries.iter().any(matches) {
            let mut out = BytesMut::new();
            out.put_u32(if is_set { wire::ALLOCATION_ID } else { 0 });
            out.put_slice(wire::ALLOCATION.as_bytes());
            self.reply(option, answer::META_CONTEXT, &out).await?;
            if is_set {
                self.allocation_of = Some(request.name);
            }
        }
        self.reply(option, answer::ACK, b"").await
    }
}
