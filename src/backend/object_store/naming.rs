//! Names to keys, such that keys sort as names do.
//!
//! Letters, digits, `-`, `.` and `_` stand for themselves, except for a dot at either end. Any other byte is written
//! behind the greatest plain byte below it as `~` and two hexadecimal digits, or as `!` and the digits when there is
//! none: `a b` is `a!20b`, `a/b` is `a.~2fb`. `~` sorts behind all that may follow a plain byte, `!` before it, so the
//! order stays. A name whose key would be longer than [`PLAIN_MAX`] is cut there and gets a hash; such names are
//! sorted by the name that their head holds.

use ::object_store::path::Path;
use twox_hash::XxHash3_128;

use crate::error::BackendError;
use crate::types::ObjectName;

/// The longest key of a name that is written out. Keys end at 1024 bytes in all stores.
pub(super) const PLAIN_MAX: usize = 640;
/// What a cut key has more: `~` and a hash.
const CUT_MORE: usize = 33;
/// The longest prefix of a store.
pub(super) const PREFIX_MAX: usize = 256;

/// Below the store's prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// What a key says of the name behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KeyName {
    /// All of it.
    Whole(ObjectName),
    /// Only how the key starts, because the name is long.
    Cut(String),
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn escape(byte: u8, key: &mut String) {
    match (0..byte).rev().find(|below| is_plain(*below)) {
        Some(below) => {
            key.push(char::from(below));
            key.push('~');
        }
        None => key.push('!'),
    }
    key.push_str(&format!("{byte:02x}"));
}

fn written_out(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    let last = name.len().saturating_sub(1);
    for (at, byte) in name.bytes().enumerate() {
        let is_outer_dot = byte == b'.' && (at == 0 || at == last);
        if is_plain(byte) && !is_outer_dot {
            key.push(char::from(byte));
        } else {
            escape(byte, &mut key);
        }
    }
    key
}

/// The key of a name.
pub(super) fn key_of(name: &str) -> String {
    let mut key = written_out(name);
    if key.len() > PLAIN_MAX {
        key.truncate(PLAIN_MAX);
        key.push_str(&format!("~{:032x}", XxHash3_128::oneshot(name.as_bytes())));
    }
    key
}

/// Where a cut key was cut; `None` for one that is whole.
pub(super) fn cut_part(key: &str) -> Option<&str> {
    (key.len() == PLAIN_MAX + CUT_MORE)
        .then(|| key.get(..PLAIN_MAX))
        .flatten()
}

/// The name behind a key; `None` when it is not one of ours.
pub(super) fn name_of(key: &str) -> Option<KeyName> {
    if let Some(part) = cut_part(key) {
        return Some(KeyName::Cut(part.to_owned()));
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (*first, after.first()) {
            (b'!', _) => {
                bytes.push(hex(after.get(..2)?)?);
                rest = after.get(2..)?;
            }
            (_, Some(b'~')) => {
                bytes.push(hex(after.get(1..3)?)?);
                rest = after.get(3..)?;
            }
            (plain, _) if is_plain(plain) => {
                bytes.push(plain);
                rest = after;
            }
            _ => return None,
        }
    }
    let name = ObjectName::new(String::from_utf8(bytes).ok()?).ok()?;
    (key_of(name.as_str()) == key).then_some(KeyName::Whole(name))
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The greatest key below all keys that start so: where a listing of them begins.
fn just_below(key: &str) -> Option<String> {
    let (last, before) = key.as_bytes().split_last()?;
    let mut below = String::from_utf8(before.to_vec()).ok()?;
    below.push(char::from(last.checked_sub(1)?));
    // No key of ours holds two of these in a row.
    below.push_str("~~");
    Some(below)
}

impl Keys {
    /// The keys below a prefix, which has no slash at either end.
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    fn path(&self, below: &str) -> Result<Path, BackendError> {
        let whole = if self.prefix.is_empty() {
            below.to_owned()
        } else {
            format!("{}/{below}", self.prefix)
        };
        Path::parse(whole).map_err(|error| {
            tracing::warn!(%error, "a key that no store takes");
            let operation = "such a name";
            BackendError::Unsupported { operation }
        })
    }

    /// The key that says what the store is.
    pub(super) fn marker(&self) -> Result<Path, BackendError> {
        self.path("cachalot-store")
    }

    pub(super) fn heads(&self) -> Result<Path, BackendError> {
        self.path("head")
    }

    pub(super) fn head(&self, name: &ObjectName) -> Result<Path, BackendError> {
        self.path(&format!("head/{}", key_of(name.as_str())))
    }

    /// The head behind a key found by listing.
    pub(super) fn head_at(&self, key: &str) -> Result<Path, BackendError> {
        self.path(&format!("head/{key}"))
    }

    /// From where a listing of the names that start with `prefix` begins, exclusively.
    pub(super) fn heads_from(&self, prefix: &str) -> Result<Option<Path>, BackendError> {
        let key = key_of(prefix);
        just_below(cut_part(&key).unwrap_or(&key))
            .map(|key| self.head_at(&key))
            .transpose()
    }

    /// From where a listing of the names that follow `name` begins, exclusively. Of a name that is cut, others may
    /// stand on either side of its key: these come again.
    pub(super) fn heads_after(&self, name: &ObjectName) -> Result<Path, BackendError> {
        let key = key_of(name.as_str());
        self.head_at(cut_part(&key).unwrap_or(&key))
    }

    pub(super) fn blocks(&self, name: &ObjectName) -> Result<Path, BackendError> {
        self.path(&format!("block/{}", key_of(name.as_str())))
    }

    pub(super) fn block(&self, name: &ObjectName, number: u64) -> Result<Path, BackendError> {
        self.path(&format!("block/{}/{number:016x}", key_of(name.as_str())))
    }

    pub(super) fn writers(&self, name: &ObjectName) -> Result<Path, BackendError> {
        self.path(&format!("writer/{}", key_of(name.as_str())))
    }

    pub(super) fn writer(&self, name: &ObjectName, epoch: u64) -> Result<Path, BackendError> {
        self.path(&format!("writer/{}/{epoch:016}", key_of(name.as_str())))
    }
}

/// The last part of a path.
pub(super) fn last_part(path: &Path) -> &str {
    path.as_ref().rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_are_their_own_keys() {
        for name in ["volume.0000000000000007", "a-b_c.D", "x"] {
            assert_eq!(key_of(name), name);
        }
        assert_eq!(key_of("a b"), "a!20b");
        assert_eq!(key_of("a/b"), "a.~2fb");
        assert_eq!(key_of(".."), "-~2e-~2e");
    }

    #[test]
    fn a_listing_starts_right_below_its_prefix() {
        let from = |prefix| just_below(&key_of(prefix)).unwrap();
        for (prefix, before, inside) in [
            ("b", "azz", "b"),
            ("vol.", "vol-z", "vol."),
            ("vol.", "vol", "vol.0"),
            ("\u{1}", "", "\u{1}"),
        ] {
            assert!(key_of(before) < from(prefix), "{before:?} {prefix:?}");
            assert!(from(prefix) < key_of(inside), "{inside:?} {prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_sort_as_names_do(one in "[ -~é🐋\u{1}]{1,6}", other in "[-./!~a-z ]{1,6}") {
            prop_assert_eq!(key_of(&one).cmp(&key_of(&other)), one.cmp(&other));
        }

        #[test]
        fn a_key_gives_its_name_back(name in "[^\u{0}]{1,20}") {
            let name = ObjectName::new(name).unwrap();
            prop_assert_eq!(name_of(&key_of(name.as_str())), Some(KeyName::Whole(name)));
        }

        #[test]
        fn every_key_is_a_path(name in "[^\u{0}]{1,300}") {
            let name = ObjectName::new(name).unwrap();
            let keys = Keys::new("some/where");
            for path in [keys.head(&name), keys.block(&name, 7), keys.writer(&name, 1)] {
                prop_assert!(path.unwrap().as_ref().len() <= 1024);
            }
        }
    }
}
