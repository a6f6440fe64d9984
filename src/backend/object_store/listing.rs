//! Names in order, from the keys of heads.

use super::head::Head;
use super::naming::{KeyName, cut_part, last_part, name_of};
use super::requests::{Caller, PAGE_KEYS};
use super::store::Store;
use crate::backend::ListPage;
use crate::error::BackendError;
use crate::types::ObjectName;

/// What is asked of a listing.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) prefix: String,
    pub(super) after: Option<ObjectName>,
    pub(super) names_max: usize,
}

impl Query {
    fn takes(&self, name: &ObjectName) -> bool {
        name.as_str().starts_with(&self.prefix) && self.after.as_ref() < Some(name)
    }
}

impl Store {
    pub(super) async fn list(
        &self,
        caller: &Caller,
        query: &Query,
    ) -> Result<ListPage, BackendError> {
        let below = self.keys.heads()?;
        let from = self.keys.heads_from(&query.prefix)?;
        let after = query.after.as_ref();
        let after = after.map(|name| self.keys.heads_after(name)).transpose()?;
        let mut from = from.max(after);
        let mut names = Vec::new();
        // Names that were cut at the same place wait here for their neighbours.
        let mut cut: Vec<ObjectName> = Vec::new();
        let mut cut_at = String::new();
        loop {
            let wanted = query.names_max.saturating_add(2).min(PAGE_KEYS);
            let keys = self
                .requests
                .list(caller, &below, from.as_ref(), wanted)
                .await?;
            for key in keys.iter().map(last_part) {
                if cut_part(key) != Some(cut_at.as_str()) {
                    cut.sort_unstable();
                    names.append(&mut cut);
                }
                match name_of(key) {
                    Some(KeyName::Whole(name)) => names.push(name),
                    Some(KeyName::Cut(part)) => {
                        cut_at = part;
                        cut.extend(self.name_in_head(caller, key).await?);
                    }
                    None => {}
                }
            }
            let is_end = keys.len() < wanted;
            if is_end {
                cut.sort_unstable();
                names.append(&mut cut);
            }
            let is_past = names.last().is_some_and(|name| {
                *name.as_str() > *query.prefix && !name.as_str().starts_with(&query.prefix)
            });
            names.retain(|name| query.takes(name));
            if is_end || is_past || names.len() > query.names_max {
                let more = names.len() > query.names_max;
                names.truncate(query.names_max);
                return Ok(ListPage { names, more });
            }
            from = keys.into_iter().next_back();
        }
    }

    async fn name_in_head(
        &self,
        caller: &Caller,
        key: &str,
    ) -> Result<Option<ObjectName>, BackendError> {
        let path = self.keys.head_at(key)?;
        let bytes = self.requests.get(caller, &path, None).await?;
        let found = bytes.map(|bytes| Head::decode(&bytes)).transpose()?;
        Ok(found.map(|(_, name)| name))
    }
}
