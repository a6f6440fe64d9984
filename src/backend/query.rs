//! What stands behind the question mark of a store's address.

use std::fmt;

/// Writes `?key=value&key=value` of those that have a value; nothing if none has.
pub(super) fn write_query(
    f: &mut fmt::Formatter<'_>,
    pairs: &[(&str, &Option<String>)],
) -> fmt::Result {
    let given = pairs
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)));
    for (number, (key, value)) in given.enumerate() {
        let mark = if number == 0 { '?' } else { '&' };
        write!(f, "{mark}{key}={value}")?;
    }
    Ok(())
}
