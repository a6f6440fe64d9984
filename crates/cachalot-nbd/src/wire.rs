//! The bytes of the protocol, apart from where they come from and go to.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest READ, WRITE and CACHE.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;
/// The longest data of an option that is looked at.
pub const OPTION_BYTES_MAX: u32 = 64 << 10;
/// What a request's header takes.
pub const REQUEST_BYTES: usize = 28;
/// What an option's header takes.
pub const OPTION_HEADER_BYTES: usize = 16;
/// The number that `base:allocation` has on this server.
pub const ALLOCATION_ID: u32 = 1;
/// The one context of metadata that there is.
pub const ALLOCATION: &str = "base:allocation";

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Options of the handshake.
pub mod option {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Answers to options.
pub mod answer {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    pub const ERR_INVALID: u32 = 0x8000_0003;
    pub const ERR_TLS_REQD: u32 = 0x8000_0005;
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    pub const ERR_TOO_BIG: u32 = 0x8000_0009;
}

/// Kinds of information about an export.
pub mod info {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const EXPORT: u16 = 0;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Commands.
pub mod command {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of commands.
pub mod flag {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 2;
    pub const DF: u16 = 4;
    pub const REQ_ONE: u16 = 8;
    pub const FAST_ZERO: u16 = 16;
}

/// What an error is called on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum NbdError {
    /// Not allowed: the export is read-only.
    NotPermitted = 1,
    /// The store failed.
    Io = 5,
    /// The request makes no sense.
    Invalid = 22,
    /// No room, or past the end of the export.
    NoSpace = 28,
    /// The request is longer than the server takes.
    Overflow = 75,
    /// Not possible in the way that was asked.
    NotSupported = 95,
    /// The server ends, or may write no more.
    Shutdown = 108,
}

impl NbdError {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// What a peer sent is not this protocol, and what follows can't be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the network block device protocol: {0}")]
pub struct Garbage(pub &'static str);

/// An option's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// Which one.
    pub option: u32,
    /// How long the data behind it is.
    pub len: u32,
}

/// A request's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Flags of [`flag`].
    pub flags: u16,
    /// One of [`command`], or what a client made up.
    pub command: u16,
    /// By which the client knows the answer.
    pub cookie: u64,
    /// Where.
    pub offset: u64,
    /// How much.
    pub len: u32,
}

impl Request {
    /// Whether a flag is set.
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What a client asks of an export before it uses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoRequest {
    /// The export.
    pub name: String,
    /// The kinds of information that it wants.
    pub kinds: Vec<u16>,
}

/// The contexts of metadata that a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaRequest {
    /// The export.
    pub name: String,
    /// What it looks for.
    pub queries: Vec<String>,
}

/// Reads an option's header.
///
/// # Errors
/// [`Garbage`] where it is none.
pub fn option_header(mut bytes: &[u8]) -> Result<OptionHeader, Garbage> {
    let short = |_| Garbage("a short option");
    if bytes.try_get_u64().map_err(short)? != OPTION_MAGIC {
        return Err(Garbage("an option without its magic number"));
    }
    Ok(OptionHeader {
        option: bytes.try_get_u32().map_err(short)?,
        len: bytes.try_get_u32().map_err(short)?,
    })
}

/// Reads a request's header.
///
/// # Errors
/// [`Garbage`] where it is none.
pub fn request(mut bytes: &[u8]) -> Result<Request, Garbage> {
    let short = |_| Garbage("a short request");
    if bytes.try_get_u32().map_err(short)? != REQUEST_MAGIC {
        return Err(Garbage("a request without its magic number"));
    }
    Ok(Request {
        flags: bytes.try_get_u16().map_err(short)?,
        command: bytes.try_get_u16().map_err(short)?,
        cookie: bytes.try_get_u64().map_err(short)?,
        offset: bytes.try_get_u64().map_err(short)?,
        len: bytes.try_get_u32().map_err(short)?,
    })
}

/// Writes a request's header, as clients do.
#[must_use]
pub fn request_bytes(request: &Request) -> Bytes {
    let mut out = BytesMut::with_capacity(REQUEST_BYTES);
    out.put_u32(REQUEST_MAGIC);
    out.put_u16(request.flags);
    out.put_u16(request.command);
    out.put_u64(request.cookie);
    out.put_u64(request.offset);
    out.put_u32(request.len);
    out.freeze()
}

/// Writes an option, as clients do.
#[must_use]
pub fn option_bytes(option: u32, data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(OPTION_MAGIC);
    out.put_u32(option);
    out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    out.put_slice(data);
    out.freeze()
}

fn text(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
    let text = bytes.get(..len)?;
    *bytes = bytes.get(len..)?;
    String::from_utf8(text.to_vec()).ok()
}

/// Reads the data of INFO and GO; `None` where it does not hold together.
#[must_use]
pub fn info_request(mut bytes: &[u8]) -> Option<InfoRequest> {
    let name = text(&mut bytes)?;
    let count = bytes.try_get_u16().ok()?;
    if bytes.len() != usize::from(count) * 2 {
        return None;
    }
    let kinds = (0..count).map_while(|_| bytes.try_get_u16().ok()).collect();
    Some(InfoRequest { name, kinds })
}

/// Reads the data of the options about contexts of metadata; `None` where it does not hold together.
#[must_use]
pub fn meta_request(mut bytes: &[u8]) -> Option<MetaRequest> {
    let name = text(&mut bytes)?;
    let count = bytes.try_get_u32().ok()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        // Each takes bytes of the data, so that a count which lies costs nothing.
        queries.push(text(&mut bytes)?);
    }
    bytes.is_empty().then_some(MetaRequest { name, queries })
}

/// What the server says first: fixed newstyle, and no zeroes behind the answer to `EXPORT_NAME`.
#[must_use]
pub fn greeting() -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(GREETING);
    out.put_u64(OPTION_MAGIC);
    out.put_u16(3);
    out.freeze()
}

/// An answer to an option.
#[must_use]
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64(OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    out.put_slice(data);
    out.freeze()
}

/// The answer of a command that brings no data, and the head of one that does.
#[must_use]
pub fn simple_reply(cookie: u64, error: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_u32(SIMPLE_REPLY_MAGIC);
    out.put_u32(error);
    out.put_u64(cookie);
    out.freeze()
}

/// Kinds of chunks.
pub mod chunk {
    #![expect(missing_docs, reason = "the protocol's own names")]
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = 0x8001;
}

/// The head of a chunk, with `payload` at its front; `more` bytes follow that the caller sends.
#[must_use]
pub fn chunk_head(cookie: u64, (kind, is_last): (u16, bool), payload: &[u8], more: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(20 + payload.len());
    out.put_u32(CHUNK_MAGIC);
    out.put_u16(u16::from(is_last));
    out.put_u16(kind);
    out.put_u64(cookie);
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.put_u32(len.saturating_add(more));
    out.put_slice(payload);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_written() {
        let sent = Request {
            flags: flag::FUA,
            command: command::WRITE,
            cookie: u64::MAX,
            offset: 1 << 40,
            len: 4096,
        };
        assert_eq!(request(&request_bytes(&sent)), Ok(sent));
        let header = option_header(&option_bytes(option::GO, b"abc")).unwrap();
        assert_eq!((header.option, header.len), (option::GO, 3));
    }

    #[test]
    fn anything_cut_short_is_refused() {
        let sent = option_bytes(option::GO, b"");
        for end in 0..sent.len() {
            assert!(option_header(&sent[..end]).is_err(), "{end}");
        }
        let mut data = BytesMut::new();
        data.put_u32(4);
        data.put_slice(b"disk");
        let named = data.clone();
        data.put_u16(1);
        data.put_u16(info::BLOCK_SIZE);
        for end in 0..data.len() {
            assert!(info_request(&data[..end]).is_none(), "{end}");
        }
        assert_eq!(info_request(&data).unwrap().kinds, [info::BLOCK_SIZE]);
        let mut data = named;
        data.put_u32(u32::MAX);
        assert!(meta_request(&data).is_none());
    }
}
