//! What a request asks of its export, and the bytes that answer it.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::export::{Export, ZeroHow};
use crate::handshake::Agreed;
use crate::wire::{self, NbdError, Request, chunk, command, flag};

/// How many stretches a `BLOCK_STATUS` is answered with.
const STATUSES_MAX: usize = 4096;
/// The smallest run of zeros that a structured answer tells as a hole.
const HOLE_BYTES_MIN: usize = 4096;

/// The answer, in buffers that are sent one behind the other.
pub(crate) type Answer = VecDeque<Bytes>;

/// Why a request is not even tried.
pub(crate) fn refusal(request: &Request, agreed: &Agreed) -> Option<NbdError> {
    let (allowed, changes) = match request.command {
        command::READ if agreed.is_structured => (flag::DF, false),
        command::READ | command::CACHE => (0, false),
        command::FLUSH => (0, false),
        command::WRITE | command::TRIM => (flag::FUA, true),
        command::WRITE_ZEROES => (flag::FUA | flag::NO_HOLE | flag::FAST_ZERO, true),
        command::BLOCK_STATUS if agreed.has_allocation => (flag::REQ_ONE, false),
        _ => return Some(NbdError::Invalid),
    };
    // FUA on what changes nothing is allowed, and asks for nothing.
    if request.flags & !(allowed | flag::FUA) != 0 {
        return Some(NbdError::Invalid);
    }
    if request.command == command::FLUSH {
        return (request.offset != 0 || request.len != 0).then_some(NbdError::Invalid);
    }
    if changes && agreed.export.is_read_only() {
        return Some(NbdError::NotPermitted);
    }
    if request.command == command::READ && request.len > wire::PAYLOAD_BYTES_MAX {
        return Some(NbdError::Overflow);
    }
    let end = request.offset.checked_add(u64::from(request.len));
    if end.is_none_or(|end| end > agreed.export.size_bytes()) {
        return Some(if changes {
            NbdError::NoSpace
        } else {
            NbdError::Invalid
        });
    }
    (request.len == 0).then_some(NbdError::Invalid)
}

/// Does what is asked.
pub(crate) async fn answer(agreed: &Agreed, request: Request, data: Bytes) -> Answer {
    let done = perform(agreed, &request, data).await;
    done.unwrap_or_else(|error| failed(agreed, &request, error))
}

/// Whether the answer to a command is made of chunks.
const fn is_chunked(agreed: &Agreed, request: &Request) -> bool {
    agreed.is_structured && matches!(request.command, command::READ | command::BLOCK_STATUS)
}

pub(crate) fn failed(agreed: &Agreed, request: &Request, error: NbdError) -> Answer {
    let reply = if is_chunked(agreed, request) {
        let mut payload = BytesMut::new();
        payload.put_u32(error.number());
        payload.put_u16(0);
        wire::chunk_head(request.cookie, (chunk::ERROR, true), &payload, 0)
    } else {
        wire::simple_reply(request.cookie, error.number())
    };
    VecDeque::from([reply])
}

async fn perform(agreed: &Agreed, request: &Request, data: Bytes) -> Result<Answer, NbdError> {
    let export: &dyn Export = &*agreed.export;
    let (offset, len) = (request.offset, u64::from(request.len));
    let is_durable = request.has(flag::FUA);
    match request.command {
        command::READ => {
            let pieces = export.read(offset, len).await?;
            if pieces.iter().map(Bytes::len).sum::<usize>() as u64 != len {
                return Err(NbdError::Io);
            }
            return Ok(if agreed.is_structured {
                structured(request, pieces)
            } else {
                let head = wire::simple_reply(request.cookie, 0);
                std::iter::once(head).chain(pieces).collect()
            });
        }
        command::BLOCK_STATUS => {
            let statuses = export.status(offset, len).await?;
            return Ok(VecDeque::from([status_reply(request, &statuses)]));
        }
        command::WRITE => export.write(offset, data, is_durable).await?,
        command::FLUSH => export.flush().await?,
        command::TRIM => export.trim(offset, len).await?,
        command::WRITE_ZEROES => {
            let how = ZeroHow {
                no_hole: request.has(flag::NO_HOLE),
                fast_only: request.has(flag::FAST_ZERO),
            };
            export.zero(offset, len, how).await?;
        }
        command::CACHE => export.cache(offset, len).await?,
        _ => return Err(NbdError::Invalid),
    }
    if is_durable && matches!(request.command, command::TRIM | command::WRITE_ZEROES) {
        export.flush().await?;
    }
    Ok(VecDeque::from([wire::simple_reply(request.cookie, 0)]))
}

/// A read's answer in chunks, with its zeros as holes unless it must be whole.
fn structured(request: &Request, pieces: Vec<Bytes>) -> Answer {
    let mut out = VecDeque::new();
    let whole = request.has(flag::DF);
    let mut at = request.offset;
    let end = at + u64::from(request.len);
    let mut run: Vec<Bytes> = Vec::new();
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        let is_hole =
            !whole && piece.len() >= HOLE_BYTES_MIN && piece.iter().all(|byte| *byte == 0);
        if !is_hole {
            run.push(piece);
            continue;
        }
        if !run.is_empty() {
            at = push_data(&mut out, request.cookie, at, (&mut run, false));
        }
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let mut payload = BytesMut::new();
        payload.put_u64(at);
        payload.put_u32(len);
        at += u64::from(len);
        let kind = (chunk::OFFSET_HOLE, at == end);
        out.push_back(wire::chunk_head(request.cookie, kind, &payload, 0));
    }
    if !run.is_empty() {
        push_data(&mut out, request.cookie, at, (&mut run, true));
    }
    out
}

/// A chunk of data; with `true` the last chunk of its answer.
fn push_data(
    out: &mut Answer,
    cookie: u64,
    at: u64,
    (run, is_last): (&mut Vec<Bytes>, bool),
) -> u64 {
    let len: usize = run.iter().map(Bytes::len).sum();
    let more = u32::try_from(len).unwrap_or(u32::MAX);
    let kind = (chunk::OFFSET_DATA, is_last);
    out.push_back(wire::chunk_head(cookie, kind, &at.to_be_bytes(), more));
    out.extend(run.drain(..));
    at + len as u64
}

fn status_reply(request: &Request, statuses: &[crate::export::Status]) -> Bytes {
    let limit = if request.has(flag::REQ_ONE) {
        1
    } else {
        STATUSES_MAX
    };
    let mut payload = BytesMut::new();
    payload.put_u32(wire::ALLOCATION_ID);
    for status in statuses.iter().take(limit) {
        payload.put_u32(u32::try_from(status.len).unwrap_or(u32::MAX));
        // HOLE and ZERO.
        payload.put_u32(if status.is_hole { 3 } else { 0 });
    }
    let kind = (chunk::BLOCK_STATUS, true);
    wire::chunk_head(request.cookie, kind, &payload, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk of an answer: its kind, whether it is the last, and how many bytes of the export it stands for.
    fn chunks_of(flags: u16, pieces: Vec<Bytes>) -> Vec<(u16, bool, usize)> {
        let len = pieces.iter().map(Bytes::len).sum::<usize>();
        let request = Request {
            flags,
            command: command::READ,
            cookie: 7,
            offset: 4096,
            len: u32::try_from(len).unwrap(),
        };
        let mut rest: &[u8] = &structured(&request, pieces)
            .into_iter()
            .flatten()
            .collect::<Vec<u8>>();
        let (mut found, mut at) = (Vec::new(), request.offset);
        while let Some((head, behind)) = rest.split_at_checked(20) {
            let is_last = u16::from_be_bytes(head[4..6].try_into().unwrap()) == 1;
            let kind = u16::from_be_bytes(head[6..8].try_into().unwrap());
            let payload = u32::from_be_bytes(head[16..].try_into().unwrap()) as usize;
            let (payload, behind) = behind.split_at(payload);
            assert_eq!(payload[..8], at.to_be_bytes());
            let covered = match kind {
                chunk::OFFSET_DATA => payload.len() - 8,
                _ => u32::from_be_bytes(payload[8..].try_into().unwrap()) as usize,
            };
            at += covered as u64;
            found.push((kind, is_last, covered));
            rest = behind;
        }
        found
    }

    #[test]
    fn an_answer_ends_with_the_last_of_its_data_or_holes() {
        let (data, zeros) = (Bytes::from(vec![1; 5000]), Bytes::from(vec![0; 8192]));
        let nothing = Bytes::new();
        let (data_kind, hole_kind) = (chunk::OFFSET_DATA, chunk::OFFSET_HOLE);
        for (pieces, chunks) in [
            (vec![&data, &nothing, &data], vec![(data_kind, 10_000)]),
            (vec![&zeros], vec![(hole_kind, 8192)]),
            (
                vec![&data, &zeros, &nothing],
                vec![(data_kind, 5000), (hole_kind, 8192)],
            ),
            (
                vec![&zeros, &data, &zeros, &data],
                vec![
                    (hole_kind, 8192),
                    (data_kind, 5000),
                    (hole_kind, 8192),
                    (data_kind, 5000),
                ],
            ),
        ] {
            let pieces: Vec<Bytes> = pieces.into_iter().cloned().collect();
            let len = pieces.iter().map(Bytes::len).sum();
            let last = chunks.len() - 1;
            let numbered = chunks.into_iter().enumerate();
            let expected: Vec<_> = numbered
                .map(|(at, (kind, len))| (kind, at == last, len))
                .collect();
            assert_eq!(chunks_of(0, pieces.clone()), expected);
            assert_eq!(chunks_of(flag::DF, pieces), [(data_kind, true, len)]);
        }
    }
}
