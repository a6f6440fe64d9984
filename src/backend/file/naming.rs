//! Where an object's file lies: names become hashes, hashes become places in the tree.
//!
//! The file of a name is `LEAF/HASH`: `HASH` is the name's XXH3-128 (seed 0) in 32 hexadecimal digits, `LEAF` the
//! first three of them. Names whose hashes are equal form a chain: `HASH`, `HASH.1`, `HASH.2`, without gaps.

use twox_hash::XxHash3_128;

/// Turns a name into a number. Part of the disk format.
pub(super) type NameHash = fn(&[u8]) -> u128;

/// The hash that stores use; tests take weaker ones to make names collide.
pub(super) fn name_hash(name: &[u8]) -> u128 {
    XxHash3_128::oneshot(name)
}

/// One of the 4096 directories that hold the objects' files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Leaf(u16);

impl Leaf {
    /// The directory for the files of a hash.
    pub(super) fn of(hash: u128) -> Self {
        Self(u16::try_from(hash >> 116).unwrap_or(0))
    }

    /// The directory of this name; `None` for one that no store has.
    pub(super) fn parse(file_name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(file_name).ok()?;
        let leaf = Self(u16::from_str_radix(text, 16).ok()?);
        (leaf.file_name() == text).then_some(leaf)
    }

    /// What the directory is called.
    pub(super) fn file_name(self) -> String {
        format!("{:03x}", self.0)
    }
}

/// A place for an object's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) hash: u128,
    /// The place in the chain of names with this hash.
    pub(super) number: u32,
}

impl Slot {
    /// The head of a hash's chain.
    pub(super) const fn first(hash: u128) -> Self {
        Self { hash, number: 0 }
    }

    /// The next place in the chain.
    pub(super) const fn next(self) -> Self {
        Self {
            hash: self.hash,
            number: self.number.saturating_add(1),
        }
    }

    pub(super) fn leaf(self) -> Leaf {
        Leaf::of(self.hash)
    }

    /// The path below the directory of objects.
    pub(super) fn path(self) -> String {
        let Self { hash, number } = self;
        let leaf = self.leaf().file_name();
        if number == 0 {
            format!("{leaf}/{hash:032x}")
        } else {
            format!("{leaf}/{hash:032x}.{number}")
        }
    }

    /// The place that a file in a leaf stands for; `None` for a file that no store puts there.
    pub(super) fn parse(leaf: Leaf, file_name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(file_name).ok()?;
        let (hash, number) = match text.split_once('.') {
            Some((hash, number)) => (hash, number.parse().ok()?),
            None => (text, 0),
        };
        let hash = u128::from_str_radix(hash, 16).ok()?;
        let slot = Self { hash, number };
        let canonical = slot.path();
        (canonical
            .strip_prefix(&leaf.file_name())?
            .strip_prefix('/')?
            == text)
            .then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash is part of the disk format: it must never change.
    #[test]
    fn places_are_fixed() {
        let slot = Slot::first(name_hash(b"rbd_data.1"));
        assert_eq!(slot.path(), "54f/54fe7a4f1135760f28c39985863959ab");
        assert_eq!(name_hash(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn places_read_back_from_their_paths() {
        for slot in [
            Slot::first(0),
            Slot::first(u128::MAX),
            Slot::first(0xabc << 116).next(),
        ] {
            let path = slot.path();
            let (_, file_name) = path.split_once('/').unwrap();
            assert_eq!(Slot::parse(slot.leaf(), file_name.as_bytes()), Some(slot));
        }
    }

    #[test]
    fn directories_read_back_from_their_names() {
        for number in [0, 0xabc, 0xfff] {
            let leaf = Leaf(number);
            assert_eq!(Leaf::parse(leaf.file_name().as_bytes()), Some(leaf));
        }
        for odd in [&b""[..], b"ABC", b"0abc", b"+ab", b"ab", b"\xff\xfe\xfd"] {
            assert_eq!(Leaf::parse(odd), None);
        }
    }

    #[test]
    fn files_that_are_not_ours_stand_for_nothing() {
        let hash = format!("{:032x}", 0xabc_u128 << 116);
        let leaf = Leaf::of(0xabc << 116);
        assert!(Slot::parse(leaf, hash.as_bytes()).is_some());
        for odd in [
            "".to_owned(),
            "core".to_owned(),
            hash.to_uppercase(),
            format!("{hash}.0"),
            format!("{hash}.01"),
            format!("{hash}.+1"),
            format!("{hash}.1.1"),
            format!("{hash}.99999999999"),
            format!("+{}", &hash[1..]),
            hash[1..].to_owned(),
        ] {
            assert_eq!(Slot::parse(leaf, odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(Slot::parse(leaf, b"\xff\xfe"), None);
        assert_eq!(Slot::parse(Leaf::of(0), hash.as_bytes()), None);
    }
}
