//! Putting the bytes of extents where they belong in a caller's buffer (rule R-01).

use smallvec::SmallVec;

use crate::buf::{Piece, ReadBuf};
use crate::types::Place;

/// Bytes with the place where they belong.
pub(crate) type Parts = SmallVec<[(Place, ReadBuf); 1]>;

/// Cuts an extent's bytes into the places where they belong.
pub(crate) fn split_by_place(places: &[Place], bytes: ReadBuf, parts: &mut Parts) {
    if let [place] = places {
        parts.push((*place, bytes));
        return;
    }
    let mut pieces = bytes.pieces().iter();
    let mut rest: Option<Piece> = None;
    for place in places {
        let mut part = ReadBuf::default();
        let mut wanted = place.len;
        while wanted > 0 {
            let Some(piece) = rest.take().or_else(|| pieces.next().cloned()) else {
                break;
            };
            let len = piece.len() as u64;
            if len > wanted {
                rest = Some(piece.part(wanted, len - wanted));
            }
            part.push(piece.part(0, wanted));
            wanted -= len.min(wanted);
        }
        parts.push((*place, part));
    }
}

/// Puts bytes into the order of their places.
pub(crate) fn join_places(mut parts: Parts) -> ReadBuf {
    if parts.len() == 1
        && let Some((_, only)) = parts.pop()
    {
        return only;
    }
    parts.sort_by_key(|(place, _)| place.offset);
    let mut joined = ReadBuf::default();
    for (_, part) in parts {
        for piece in part.pieces() {
            joined.push(piece.clone());
        }
    }
    joined
}
