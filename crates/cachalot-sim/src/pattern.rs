//! What the simulated callers write: bytes that tell who wrote them, and where.

/// Names what wrote a sector; 0 is nobody, whose bytes are zeros.
pub(crate) type Stamp = u32;

/// Zeros.
pub(crate) const NOBODY: Stamp = 0;

/// The eight bytes that a sector repeats.
const fn tag(stamp: Stamp, sector: u32) -> [u8; 8] {
    if stamp == NOBODY {
        return [0; 8];
    }
    // SplitMix64's finalizer: every bit of the input reaches every byte of the tag.
    let mut bits = ((stamp as u64) << 32 | sector as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)).to_le_bytes()
}

/// Appends a sector's bytes.
pub(crate) fn append(out: &mut Vec<u8>, stamp: Stamp, sector: u32, unit: usize) {
    let tag = tag(stamp, sector);
    out.extend(tag.iter().cycle().take(unit));
}

/// Whether these are the sector's bytes as `stamp` wrote them.
pub(crate) fn is_of(bytes: &[u8], stamp: Stamp, sector: u32) -> bool {
    let tag = tag(stamp, sector);
    let chunks = bytes.chunks_exact(8);
    let rest = chunks.remainder();
    rest == tag.get(..rest.len()).unwrap_or_default()
        && chunks.into_iter().all(|chunk| chunk == tag)
}

/// The byte at this place of a sector as `stamp` wrote it.
pub(crate) const fn byte(stamp: Stamp, sector: u32, at: usize) -> u8 {
    tag(stamp, sector)[at % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_who_wrote_them_and_where() {
        for unit in [1, 7, 8, 100] {
            let mut bytes = Vec::new();
            append(&mut bytes, 5, 9, unit);
            assert_eq!(bytes.len(), unit);
            assert!(is_of(&bytes, 5, 9));
            assert!((0..unit).all(|at| bytes[at] == byte(5, 9, at)));
            if unit > 4 {
                assert!(!is_of(&bytes, 6, 9) && !is_of(&bytes, 5, 8) && !is_of(&bytes, NOBODY, 9));
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                assert!(!is_of(&bytes, 5, 9));
            }
        }
    }
}
