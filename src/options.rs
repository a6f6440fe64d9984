//! What a set is opened with.

use serde::{Deserialize, Serialize};

use crate::engine::Layout;
use crate::error::RequestError;
use crate::request::{Missing, Shape};
use crate::types::{OFFSET_BYTES_MAX, ObjectKey, SetId, SnapContext, Truncation};

/// What a set is opened with.
///
/// ```
/// use cachalot::{Layout, SetOptions};
///
/// let options = SetOptions::new("disk-7").layout(Layout::new(64 << 10, 4, 4 << 20)?).file_bytes(10 << 30);
/// # Ok::<(), cachalot::RequestError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetOptions {
    pub(crate) id: SetId,
    pub(crate) prefix: Option<String>,
    pub(crate) layout: Option<Layout>,
    pub(crate) file_bytes: Option<u64>,
    pub(crate) missing: Missing,
    pub(crate) context: SnapContext,
    pub(crate) truncation: Truncation,
    #[serde(default)]
    pub(crate) write_through_until_flush: bool,
}

impl SetOptions {
    /// A set of this name, with objects of 4 MiB that are named after it.
    #[must_use]
    pub fn new(id: impl Into<SetId>) -> Self {
        Self {
            id: id.into(),
            prefix: None,
            layout: Some(Layout::default()),
            file_bytes: None,
            missing: Missing::default(),
            context: SnapContext::default(),
            truncation: Truncation::default(),
            write_through_until_flush: false,
        }
    }

    /// What numbered objects are called before their number; the set's name unless set.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// How the set's file is striped over its objects, which also bounds their size.
    #[must_use]
    pub const fn layout(mut self, layout: Layout) -> Self {
        self.layout = Some(layout);
        self
    }

    /// The set has no file: its objects are addressed one by one, and may be of any size.
    #[must_use]
    pub const fn no_layout(mut self) -> Self {
        self.layout = None;
        self
    }

    /// The size of the set's file, past which file-offset calls are refused; unbounded unless set.
    #[must_use]
    pub const fn file_bytes(mut self, file_bytes: u64) -> Self {
        self.file_bytes = Some(file_bytes);
        self
    }

    /// What reads of objects give that don't exist; zeros unless set.
    #[must_use]
    pub const fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }

    /// The snapshot context of writes that bring none; no snapshots unless set.
    #[must_use]
    pub fn snap_context(mut self, context: SnapContext) -> Self {
        self.context = context;
        self
    }

    /// How far the set's file was last truncated, as the application remembers it.
    #[must_use]
    pub const fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = truncation;
        self
    }

    /// Every write is answered by the store, with its error, until a caller first flushes anything of the set;
    /// from then on writes are absorbed. For guests of which it is not known whether they ever flush: those that
    /// don't lose nothing that was acknowledged. Off unless set.
    ///
    /// Raises the latency of writes to that of the store until then. A close is not a flush.
    #[must_use]
    pub const fn write_through_until_flush(mut self, is_on: bool) -> Self {
        self.write_through_until_flush = is_on;
        self
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            prefix: self
                .prefix
                .clone()
                .unwrap_or_else(|| self.id.as_str().to_owned()),
            object_bytes_max: self
                .layout
                .map_or(OFFSET_BYTES_MAX, |layout| layout.object_size()),
            missing: self.missing,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RequestError> {
        self.shape().name_of(&ObjectKey::Number(u64::MAX)).map(drop)
    }
}
