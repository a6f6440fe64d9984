//! The worlds that were seen, by the digest of each, with what was left to ask and to go wrong when they were.

/// How a world was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Visit {
    First,
    /// It was met before, but with less left.
    Further,
    /// Whatever may follow was gone through.
    Known,
}

/// A table without order, nine bytes a place.
#[derive(Debug)]
pub(super) struct Seen {
    /// Zero where nothing is.
    digests: Vec<u64>,
    /// Bit by bit, what was left.
    left: Vec<u8>,
    count: usize,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self::with_places(1 << 10)
    }

    fn with_places(places: usize) -> Self {
        Self {
            digests: vec![0; places],
            left: vec![0; places],
            count: 0,
        }
    }

    fn place_of(&self, digest: u64) -> usize {
        let mask = self.digests.len() - 1;
        let mut place = digest as usize & mask;
        while self.digests[place] != 0 && self.digests[place] != digest {
            place = (place + 1) & mask;
        }
        place
    }

    /// Notes a world, and `left` to it: operations, up to three, and faults, up to one.
    pub(super) fn visit(&mut self, digest: u64, (ops, faults): (usize, usize)) -> Visit {
        assert!(ops <= 3 && faults <= 1, "more than the table has bits for");
        let digest = digest.max(1);
        let place = self.place_of(digest);
        let known = self.left[place];
        let as_much_or_more = (ops..=3)
            .flat_map(|ops| (faults..=1).map(move |faults| ops * 2 + faults))
            .fold(0, |bits, bit| bits | 1 << bit);
        if known & as_much_or_more != 0 {
            return Visit::Known;
        }
        self.digests[place] = digest;
        self.left[place] = known | 1 << (ops * 2 + faults);
        if known != 0 {
            return Visit::Further;
        }
        self.count += 1;
        if self.count * 4 > self.digests.len() * 3 {
            self.grow();
        }
        Visit::First
    }

    fn grow(&mut self) {
        let mut larger = Self::with_places(self.digests.len() * 2);
        larger.count = self.count;
        for (digest, left) in self.digests.iter().zip(&self.left) {
            if *digest != 0 {
                let place = larger.place_of(*digest);
                larger.digests[place] = *digest;
                larger.left[place] = *left;
            }
        }
        *self = larger;
    }
}

#[test]
fn a_world_is_gone_on_from_again_only_with_more_left() {
    let mut seen = Seen::new();
    for digest in 0..5000 {
        assert_eq!(seen.visit(digest * 0x9e37_79b9, (1, 0)), Visit::First);
    }
    for digest in 0..5000 {
        let digest = digest * 0x9e37_79b9;
        assert_eq!(seen.visit(digest, (0, 0)), Visit::Known);
        assert_eq!(seen.visit(digest, (0, 1)), Visit::Further);
        assert_eq!(seen.visit(digest, (2, 1)), Visit::Further);
        assert_eq!(seen.visit(digest, (1, 1)), Visit::Known);
    }
}
