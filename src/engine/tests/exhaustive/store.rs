//! The store beneath one small object, by the tags of the writes that its bytes come from.

use super::oracle::{INITIAL, LEN, Part, ZEROS, byte};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Store {
    object: Option<Object>,
    /// The first write copies a parent of this length before it changes anything.
    parent_len: usize,
}

#[derive(Clone, Debug)]
struct Object {
    tags: [usize; LEN],
    len: usize,
}

impl Object {
    fn of(len: usize) -> Self {
        let mut tags = [ZEROS; LEN];
        tags[..len].fill(INITIAL);
        Self { tags, len }
    }
}

/// What a fetch brings: bytes, or the news that there is no object.
pub(super) type Fetched = Option<Vec<u8>>;

impl Store {
    pub(super) fn new(len: Option<usize>, parent_len: usize) -> Self {
        Self {
            object: len.map(Object::of),
            parent_len,
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        self.object.is_none()
    }

    /// Whether a first write would bring a parent's bytes into view.
    pub(super) const fn has_hidden_parent(&self) -> bool {
        self.object.is_none() && self.parent_len > 0
    }

    pub(super) const fn parent_len(&self) -> usize {
        self.parent_len
    }

    pub(super) fn tags(&self) -> [usize; LEN] {
        self.object
            .as_ref()
            .map_or([ZEROS; LEN], |object| object.tags)
    }

    /// The object's length, if there is one.
    pub(super) fn len(&self) -> Option<usize> {
        self.object.as_ref().map(|object| object.len)
    }

    /// The answer is short at the end of the object.
    pub(super) fn read(&self, (start, end): Part) -> Fetched {
        let object = self.object.as_ref()?;
        let end = end.min(object.len).max(start);
        Some((start..end).map(|at| byte(object.tags[at], at)).collect())
    }

    pub(super) fn write(&mut self, cells: &[(usize, usize)]) {
        let parent_len = self.parent_len;
        let object = self.object.get_or_insert_with(|| Object::of(parent_len));
        for (at, tag) in cells {
            object.tags[*at] = *tag;
            object.len = object.len.max(at + 1);
        }
    }

    /// Makes a range zeros without growing the object.
    pub(super) fn discard(&mut self, (start, end): Part) {
        if let Some(object) = &mut self.object {
            object.tags[start..end].fill(ZEROS);
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if let Some(object) = &mut self.object {
            object.tags[len..].fill(ZEROS);
            object.len = object.len.min(len);
        }
    }
}
