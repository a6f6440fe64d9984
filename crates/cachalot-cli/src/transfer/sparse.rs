//! Which parts of a file or block hold data: holes in files, and runs of zeros in memory.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Zeros are looked for in steps of this many bytes.
const PAGE_BYTES: usize = 4096;
/// A run of zeros shorter than this is kept as data: one large write is cheaper than two small ones.
const HOLE_BYTES_MIN: usize = 16 << 10;

/// The ranges of a block that hold data, ascending; zeros between them are left out.
pub(crate) fn data_runs(block: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, page) in block.chunks(PAGE_BYTES).enumerate() {
        if is_zero(page) {
            continue;
        }
        let start = number * PAGE_BYTES;
        let end = start + page.len();
        match runs.last_mut() {
            Some(last) if start - last.end < HOLE_BYTES_MIN => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

fn is_zero(page: &[u8]) -> bool {
    // Without an early exit the compiler looks at many bytes at once.
    page.iter().fold(0, |seen, byte| seen | byte) == 0
}

/// The next range of `file` at or past `from` that may hold data, `None` when only a hole is left before `end`.
///
/// A file system that knows no holes gives everything up to `end`.
pub(crate) fn next_data(file: &File, from: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    if from >= end {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(from..end)),
        Err(error) => return Err(error.into()),
    };
    let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    let range = start..hole.min(end);
    Ok((!range.is_empty()).then_some(range))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn zeros_are_left_out_but_short_runs_of_them_are_not() {
        let mut block = vec![0_u8; 256 << 10];
        assert_eq!(data_runs(&block), []);
        block[5000] = 1;
        block[20_000] = 1;
        block[200_000] = 1;
        assert_eq!(data_runs(&block), [4096..20_480, 196_608..200_704]);
        let short = data_runs(&[1; 100]);
        assert!(short.len() == 1 && short[0] == (0..100), "{short:?}");
        block.truncate(200_001);
        assert_eq!(data_runs(&block), [4096..20_480, 196_608..200_001]);
    }

    #[test]
    fn the_data_of_a_sparse_file_is_found_and_its_last_hole_is_not() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(b"x", 3 << 20).unwrap();
        let range = next_data(&file, 0, 8 << 20).unwrap().unwrap();
        assert!(range.contains(&(3 << 20)), "{range:?}");
        assert_eq!(next_data(&file, 8 << 20, 8 << 20).unwrap(), None);
        let after = next_data(&file, range.end, 8 << 20).unwrap();
        assert!(after.is_none() || range.end - range.start == 8 << 20);
    }
}
