//! The small key beside an object's blocks: that it exists, how long it is, and how it was last cut.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use crate::error::BackendError;
use crate::types::{ObjectName, Truncation};

/// What an object's head says. Nothing is stored past `size_bytes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Head {
    pub(super) size_bytes: u64,
    /// The number of the newest truncation that a write brought (rule R-17).
    pub(super) truncation_seq: u64,
}

const FIRST_LINE: &str = "cachalot object 1";

impl Head {
    /// As stored: lines of text, readable with any tool.
    pub(super) fn encode(&self, name: &ObjectName) -> Bytes {
        let text = self.lines(name.as_str());
        let sum = XxHash3_64::oneshot(text.as_bytes());
        Bytes::from(format!("{FIRST_LINE}\nsum {sum:016x}\n{text}"))
    }

    fn lines(self, name: &str) -> String {
        let Self {
            size_bytes,
            truncation_seq,
        } = self;
        format!("size {size_bytes}\ntruncation {truncation_seq}\nname {name}")
    }

    /// The head and the object's name.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, ObjectName), BackendError> {
        Self::parse(bytes).ok_or(BackendError::Corrupt {
            what: "an object's head",
        })
    }

    fn parse(bytes: &[u8]) -> Option<(Self, ObjectName)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix("\nsum ")?;
        let (sum, rest) = rest.split_once('\n')?;
        if u64::from_str_radix(sum, 16).ok()? != XxHash3_64::oneshot(rest.as_bytes()) {
            return None;
        }
        let (size, rest) = rest.strip_prefix("size ")?.split_once('\n')?;
        let (seq, rest) = rest.strip_prefix("truncation ")?.split_once('\n')?;
        let head = Self {
            size_bytes: size.parse().ok()?,
            truncation_seq: seq.parse().ok()?,
        };
        let name = ObjectName::new(rest.strip_prefix("name ")?).ok()?;
        Some((head, name))
    }

    /// Where a read under this truncation ends.
    pub(super) fn readable_end(&self, truncation: Truncation) -> u64 {
        if truncation.seq > self.truncation_seq {
            self.size_bytes.min(truncation.size_bytes)
        } else {
            self.size_bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_as_it_was_and_damage_is_seen() {
        let name = ObjectName::new("odd\nname").unwrap();
        let head = Head {
            size_bytes: u64::MAX >> 1,
            truncation_seq: 7,
        };
        let bytes = head.encode(&name);
        assert_eq!(Head::decode(&bytes), Ok((head, name)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(Head::decode(&damaged).is_err(), "byte {at}");
        }
        assert!(Head::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
