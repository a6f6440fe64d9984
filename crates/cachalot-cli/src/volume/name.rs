//! Volume names, and the names of the objects that make up a volume.

use std::fmt;
use std::str::FromStr;

use cachalot::ObjectName;
use serde::Serialize;

use crate::error::CliError;
use crate::store::object_name;

const HEADER_SUFFIX: &str = ".volume";
const NUMBER_DIGITS: usize = 16;

/// A volume's name: 1 to 200 letters, digits, dots, dashes and underscores, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct VolumeName(String);

impl FromStr for VolumeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let goes_on_well = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts_well && goes_on_well && text.len() <= 200 {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no volume name: use 1 to 200 of a-z A-Z 0-9 . _ - and begin with a letter or digit"
        ))
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl VolumeName {
    /// What the names of the data objects start with, before the dot.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The object that holds the header.
    pub(super) fn header_object(&self) -> Result<ObjectName, CliError> {
        object_name(format!("{}{HEADER_SUFFIX}", self.0))
    }

    /// The volume whose header this object is; `None` for any other object.
    pub(super) fn of_header(object: &ObjectName) -> Option<Self> {
        object
            .as_str()
            .strip_suffix(HEADER_SUFFIX)
            .and_then(|name| name.parse().ok())
    }

    /// The number of one of this volume's data objects; `None` for any other object.
    pub(super) fn data_number(&self, object: &ObjectName) -> Option<u64> {
        let digits = object
            .as_str()
            .strip_prefix(&self.0)
            .and_then(|rest| rest.strip_prefix('.'))?;
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != NUMBER_DIGITS || !digits.bytes().all(hexadecimal) {
            return None;
        }
        u64::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    #[test]
    fn volume_names_are_plain_and_tell_their_objects_from_others() {
        for good in ["a", "disk.img", "0-x_Y", "a.volume"] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        let long = "x".repeat(201);
        for bad in ["", ".a", "-a", "a/b", "a b", "ä", "a\n", long.as_str()] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
        let object = |text: &str| ObjectName::new(text).unwrap();
        let a = name("a");
        assert_eq!(a.data_number(&object("a.00000000000000ff")), Some(255));
        for other in [
            "a.volume",
            "a.00000000000000FF",
            "a.0ff",
            "a.b.00000000000000ff",
            "ab.00000000000000ff",
            "a.+0000000000000ff",
        ] {
            assert_eq!(a.data_number(&object(other)), None, "{other}");
        }
        let header = VolumeName::of_header(&object("a.volume.volume"));
        assert_eq!(header, Some(name("a.volume")));
    }
}
