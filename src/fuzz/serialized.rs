//! Values read from text that others wrote: configurations, listings, names, plans of faults.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::actors::message::SetDump;
use crate::backend::{FaultPlan, Throttle};
use crate::cache::{CacheDump, CacheStats};
use crate::config::{CacheConfig, Limits};
use crate::engine::Layout;
use crate::types::{ByteRange, OFFSET_BYTES_MAX, ObjectKey, ObjectName, SnapContext, SnapId};

/// Text is refused, or read as a value that could have been made in code, and that prints as text of the same value.
pub(crate) fn serialized(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else {
        return;
    };
    match kind % 11 {
        0 => check(text, |config: &CacheConfig| {
            if let Ok(limits) = Limits::try_from(config) {
                assert!(limits.target_dirty_bytes <= limits.max_dirty_bytes);
                assert!(limits.max_dirty_bytes <= limits.max_bytes && limits.max_bytes > 0);
            }
        }),
        1 => check(text, |layout: &Layout| {
            let (unit, count) = (layout.stripe_unit(), layout.stripe_count());
            assert_eq!(Layout::new(unit, count, layout.object_size()), Ok(*layout));
        }),
        2 => check(text, |range: &ByteRange| {
            assert!(range.start() < range.end() && range.end() <= OFFSET_BYTES_MAX);
        }),
        3 => check(text, |name: &ObjectName| {
            assert_eq!(ObjectName::new(name.as_str()).as_ref(), Ok(name));
        }),
        4 => check(text, |context: &SnapContext| {
            let made = SnapContext::new(context.seq, context.snaps.clone());
            assert_eq!(made.as_ref(), Ok(context));
        }),
        5 => check(text, |_: &SnapId| ()),
        6 => check(text, |_: &ObjectKey| ()),
        // The last digit of a fraction may change.
        7 => drop(printed::<FaultPlan>(text)),
        8 => check(text, |_: &Throttle| ()),
        9 => check(text, |_: &SetDump| ()),
        _ => {
            check(text, |_: &CacheDump| ());
            check(text, |_: &CacheStats| ());
        }
    }
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &[u8], sound: impl Fn(&T)) {
    if let Some((value, again)) = printed::<T>(text) {
        sound(&value);
        assert_eq!(again, value, "read from what it was printed as");
    }
}

/// What the text is read as, and what that is read as once it was printed.
fn printed<T: Serialize + DeserializeOwned>(text: &[u8]) -> Option<(T, T)> {
    let value = serde_json::from_slice::<T>(text).ok()?;
    let printed = serde_json::to_string(&value).expect("what was read can be printed");
    let again = serde_json::from_str(&printed).expect("what was printed can be read");
    Some((value, again))
}
