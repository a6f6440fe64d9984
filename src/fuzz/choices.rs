//! Bytes read as choices.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets reckon with small numbers"
)]

/// Choices that follow from bytes. The same bytes give the same choices, small choices take few bytes, and once the
/// bytes are used up every choice is the first one.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    bytes: Vec<u8>,
    at: usize,
}

impl Choices {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }

    /// Whether all bytes are used up.
    pub(crate) fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, count: usize) -> u64 {
        (0..count).fold(0, |number, _| {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            number << 8 | u64::from(byte)
        })
    }

    /// A number below `bound`, which is above zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let bits = u64::BITS - (bound - 1).leading_zeros();
        self.take(bits.div_ceil(8) as usize) % bound
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == bound - 1
    }

    pub(crate) fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Any number, most often a small one or one beside a power of two.
    pub(crate) fn number(&mut self) -> u64 {
        let kind = self.take(1);
        match kind % 4 {
            0 => self.take(1),
            1 => self.take(3),
            2 => {
                let near = i64::from((self.take(1) as u8).cast_signed());
                (1u64 << (kind / 4)).wrapping_add_signed(near)
            }
            _ => self.take(8),
        }
    }

    /// The bytes that are left.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}
