//! Volumes: striped files with a header object that says how large they are and how they are laid out.
//!
//! Volume `NAME` is the object `NAME.volume`, its header, and the data objects `NAME.` with 16 hexadecimal digits.
//! What a crash may interrupt is always announced in the header first and carried out after, so that the next
//! command knows what is missing: data without a header does not arise, and bytes that were cut off never return.
//! A volume is written by one client at a time, which [`Volumes::lock`] sees to where a store has several.

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(all(fuzzing, not(test)))]
pub(crate) mod fuzz;
mod header;
mod lock;
mod name;

use std::sync::Arc;

use cachalot::backend::Backend;
use cachalot::{BackendError, ByteRange, Clock, Layout, ObjectName, SystemClock};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

pub(crate) use header::{Header, VolumeState};
pub(crate) use name::VolumeName;

use crate::error::CliError;
use crate::store::{Listing, OpenFor, StoreUrl, read_object, write_object};

/// How many removals, cuts and size questions are under way at once.
const CALLS_IN_FLIGHT: usize = 16;

/// What `volume info` tells.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VolumeInfo {
    pub(crate) name: VolumeName,
    pub(crate) store: String,
    pub(crate) state: VolumeState,
    pub(crate) size_bytes: u64,
    pub(crate) layout: Layout,
    /// In RFC 3339.
    pub(crate) created: String,
    /// The data objects that exist.
    pub(crate) objects: u64,
    /// Their sizes added up; holes in them count.
    pub(crate) object_bytes: u64,
    /// Whether a shrink was interrupted; the next `resize` ends it.
    pub(crate) shrink_unfinished: bool,
    /// Whether one of the header's two copies is damaged or missing.
    pub(crate) one_header_copy_only: bool,
}

/// What `volume list` tells of each volume.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VolumeLine {
    pub(crate) name: VolumeName,
    /// `None` when the header is damaged.
    pub(crate) state: Option<VolumeState>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) layout: Option<Layout>,
}

/// The volumes of a store.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    backend: Arc<dyn Backend>,
    store: String,
}

impl Volumes {
    /// The volumes of the store at `url`.
    pub(crate) fn open(url: &StoreUrl, purpose: OpenFor) -> Result<Self, CliError> {
        Ok(Self {
            backend: url.open(purpose)?,
            store: url.to_string(),
        })
    }

    /// The volumes of a store that is open.
    #[cfg(test)]
    pub(crate) fn of(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            store: "memory:".to_owned(),
        }
    }

    /// The store itself.
    pub(crate) const fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Makes an empty volume.
    pub(crate) async fn create(
        &self,
        name: &VolumeName,
        size_bytes: u64,
        layout: Layout,
    ) -> Result<Header, CliError> {
        self.begin(name, size_bytes, layout, VolumeState::Complete)
            .await
    }

    /// Makes a volume that counts as incomplete until [`Self::complete`].
    pub(crate) async fn begin_import(
        &self,
        name: &VolumeName,
        size_bytes: u64,
        layout: Layout,
    ) -> Result<Header, CliError> {
        self.begin(name, size_bytes, layout, VolumeState::Importing)
            .await
    }

    async fn begin(
        &self,
        name: &VolumeName,
        size_bytes: u64,
        layout: Layout,
        state: VolumeState,
    ) -> Result<Header, CliError> {
        if let Some(found) = self.find(name).await? {
            return Err(CliError::Volume {
                volume: name.to_string(),
                what: in_the_way(found.header.state).to_owned(),
            });
        }
        if self.has_data(name).await? {
            return Err(CliError::Volume {
                volume: name.to_string(),
                what: format!(
                    "has data objects but no header: `cachalot volume remove {} {name}` clears them away",
                    self.store
                ),
            });
        }
        let header = Header {
            generation: 1,
            state,
            size_bytes,
            residue_end: 0,
            layout,
            created_nanos: SystemClock::new().timestamp().0,
        };
        self.store_header(name, &header).await?;
        Ok(header)
    }

    /// Marks an imported volume as complete, once all of its data is safe in the store.
    pub(crate) async fn complete(
        &self,
        name: &VolumeName,
        begun: &Header,
        size_bytes: u64,
    ) -> Result<(), CliError> {
        self.sync().await?;
        let header = Header {
            generation: begun.generation + 1,
            state: VolumeState::Complete,
            size_bytes,
            ..*begun
        };
        self.store_header(name, &header).await
    }

    /// The header of a volume that exists.
    pub(crate) async fn load(&self, name: &VolumeName) -> Result<Header, CliError> {
        Ok(self.require(name).await?.header)
    }

    /// Everything there is to know about a volume.
    pub(crate) async fn info(&self, name: &VolumeName) -> Result<VolumeInfo, CliError> {
        let found = self.require(name).await?;
        let header = found.header;
        let (mut objects, mut object_bytes) = (0, 0);
        let mut pages = self.data_pages(name);
        while let Some(page) = pages.next_page().await? {
            let ours = page
                .into_iter()
                .filter(|object| name.data_number(object).is_some());
            let sizes: Vec<u64> = stream::iter(ours)
                .map(|object| self.size_of(object))
                .buffer_unordered(CALLS_IN_FLIGHT)
                .try_collect()
                .await?;
            objects += sizes.len() as u64;
            object_bytes += sizes.iter().sum::<u64>();
        }
        let created = std::time::UNIX_EPOCH
            .checked_add(std::time::Duration::from_nanos(header.created_nanos))
            .map(|time| humantime::format_rfc3339_seconds(time).to_string());
        Ok(VolumeInfo {
            name: name.clone(),
            store: self.store.clone(),
            state: header.state,
            size_bytes: header.size_bytes,
            layout: header.layout,
            created: created.unwrap_or_default(),
            objects,
            object_bytes,
            shrink_unfinished: header.residue_end > header.size_bytes,
            one_header_copy_only: found.one_copy_only,
        })
    }

    /// All volumes, by name; those with a damaged header too.
    pub(crate) async fn list(&self) -> Result<Vec<VolumeLine>, CliError> {
        let mut lines = Vec::new();
        let mut pages = Listing::new(&*self.backend, "");
        while let Some(page) = pages.next_page().await? {
            for name in page.iter().filter_map(VolumeName::of_header) {
                let header = match self.find(&name).await {
                    Ok(None) => continue,
                    Ok(Some(found)) => Some(found.header),
                    Err(CliError::Damaged { .. }) => None,
                    Err(error) => return Err(error),
                };
                lines.push(VolumeLine {
                    name,
                    state: header.map(|header| header.state),
                    size_bytes: header.map(|header| header.size_bytes),
                    layout: header.map(|header| header.layout),
                });
            }
        }
        lines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(lines)
    }

    /// Changes a volume's size and returns the old one. Growing again after a shrink reads zeros.
    ///
    /// A shrink first puts the new size into the header, together with how far old bytes may still reach; then it
    /// cuts them off; then it clears that mark. Whatever finds the mark cuts before it does anything else.
    pub(crate) async fn resize(
        &self,
        name: &VolumeName,
        size_bytes: u64,
        may_shrink: bool,
    ) -> Result<u64, CliError> {
        let found = self.require(name).await?;
        let mut header = found.header;
        require_complete(name, &header)?;
        let old = header.size_bytes;
        if size_bytes < old && !may_shrink {
            return Err(CliError::Usage(format!(
                "volume {name} has {old} bytes and would lose those above {size_bytes}: add --shrink to allow it"
            )));
        }
        if size_bytes < old {
            header.residue_end = header.residue_end.max(old);
            header.size_bytes = size_bytes;
            header.generation += 1;
            self.store_header(name, &header).await?;
        }
        if header.residue_end > header.size_bytes {
            self.cut(name, &header.layout, header.size_bytes).await?;
            self.sync().await?;
            header.residue_end = 0;
            header.generation += 1;
            self.store_header(name, &header).await?;
        }
        if size_bytes > header.size_bytes || found.one_copy_only {
            header.size_bytes = size_bytes;
            header.generation += 1;
            self.store_header(name, &header).await?;
        }
        Ok(old)
    }

    /// Removes a volume, or what is left of one: data first, header last. Returns how many data objects went.
    pub(crate) async fn remove(&self, name: &VolumeName) -> Result<u64, CliError> {
        let found = match self.find(name).await {
            Err(CliError::Damaged { .. }) => None,
            Ok(None) if !self.has_data(name).await? => return Err(self.no_volume(name)),
            found => found?,
        };
        if let Some(found) = found {
            let header = Header {
                generation: found.header.generation + 1,
                state: VolumeState::Removing,
                ..found.header
            };
            match self.store_header(name, &header).await {
                // Removing makes room, so a full store does not keep it from beginning.
                Err(CliError::Store {
                    source: BackendError::Full,
                    ..
                }) => {}
                stored => stored?,
            }
        }
        let mut removed = 0;
        let mut pages = self.data_pages(name);
        while let Some(page) = pages.next_page().await? {
            let ours = page
                .into_iter()
                .filter(|object| name.data_number(object).is_some());
            removed += stream::iter(ours)
                .map(|object| self.remove_object(object))
                .buffer_unordered(CALLS_IN_FLIGHT)
                .try_fold(0_u64, async |removed, ()| Ok(removed + 1))
                .await?;
        }
        self.sync().await?;
        self.remove_object(name.header_object()?).await?;
        self.sync().await?;
        Ok(removed)
    }

    /// The numbers of the data objects that exist, ascending.
    pub(crate) async fn data_numbers(&self, name: &VolumeName) -> Result<Vec<u64>, CliError> {
        let mut numbers = Vec::new();
        let mut pages = self.data_pages(name);
        while let Some(page) = pages.next_page().await? {
            numbers.extend(page.iter().filter_map(|object| name.data_number(object)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Cuts off all data at and past `size_bytes` of the volume.
    async fn cut(
        &self,
        name: &VolumeName,
        layout: &Layout,
        size_bytes: u64,
    ) -> Result<(), CliError> {
        let mut pages = self.data_pages(name);
        while let Some(page) = pages.next_page().await? {
            let cuts = page.into_iter().filter_map(|object| {
                let keep = layout.object_size_for(size_bytes, name.data_number(&object)?);
                (keep < layout.object_size()).then_some((object, keep))
            });
            stream::iter(cuts)
                .map(|(object, keep)| self.cut_object(object, keep))
                .buffer_unordered(CALLS_IN_FLIGHT)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    async fn cut_object(&self, object: ObjectName, keep_bytes: u64) -> Result<(), CliError> {
        if keep_bytes == 0 {
            return self.remove_object(object).await;
        }
        if self.size_of(object.clone()).await? <= keep_bytes {
            return Ok(());
        }
        self.backend
            .truncate(object.clone(), keep_bytes)
            .await
            .map_err(CliError::store(format!("cut object {object}")))
    }

    async fn remove_object(&self, object: ObjectName) -> Result<(), CliError> {
        match self.backend.remove(object.clone()).await {
            Ok(()) | Err(BackendError::NotFound) => Ok(()),
            Err(error) => Err(CliError::store(format!("remove object {object}"))(error)),
        }
    }

    async fn size_of(&self, object: ObjectName) -> Result<u64, CliError> {
        match self.backend.stat(object.clone()).await {
            Ok(stat) => Ok(stat.size_bytes),
            Err(BackendError::NotFound) => Ok(0),
            Err(error) => Err(CliError::store(format!("look at object {object}"))(error)),
        }
    }

    async fn has_data(&self, name: &VolumeName) -> Result<bool, CliError> {
        let mut pages = self.data_pages(name);
        while let Some(page) = pages.next_page().await? {
            if page.iter().any(|object| name.data_number(object).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn data_pages(&self, name: &VolumeName) -> Listing<'_> {
        Listing::new(&*self.backend, format!("{name}."))
    }

    async fn require(&self, name: &VolumeName) -> Result<header::Found, CliError> {
        self.find(name).await?.ok_or_else(|| self.no_volume(name))
    }

    fn no_volume(&self, name: &VolumeName) -> CliError {
        CliError::NoVolume {
            volume: name.to_string(),
            store: self.store.clone(),
        }
    }

    async fn find(&self, name: &VolumeName) -> Result<Option<header::Found>, CliError> {
        let range = ByteRange::new(0, header::OBJECT_BYTES as u64)?;
        let bytes = read_object(&*self.backend, name.header_object()?, range)
            .await
            .map_err(CliError::store(format!("read the header of volume {name}")))?;
        bytes
            .map(|bytes| Header::decode(&bytes))
            .transpose()
            .map_err(|what| CliError::Damaged {
                volume: name.to_string(),
                what,
            })
    }

    async fn store_header(&self, name: &VolumeName, header: &Header) -> Result<(), CliError> {
        for offset in header::COPY_OFFSETS {
            let object = name.header_object()?;
            write_object(&*self.backend, object, offset, vec![header.encode()])
                .await
                .map_err(CliError::store(format!(
                    "write the header of volume {name}"
                )))?;
            self.sync().await?;
        }
        Ok(())
    }

    async fn sync(&self) -> Result<(), CliError> {
        self.backend
            .sync()
            .await
            .map_err(CliError::store("make the store's data safe on its disk"))
    }
}

/// Refuses a volume whose import or removal has not ended.
pub(crate) fn require_complete(name: &VolumeName, header: &Header) -> Result<(), CliError> {
    let what = match header.state {
        VolumeState::Complete => return Ok(()),
        VolumeState::Importing => {
            "is incomplete, its import has not ended: import it again with --overwrite, or remove it"
        }
        VolumeState::Removing => "is half removed: remove it again to end that",
    };
    Err(CliError::Volume {
        volume: name.to_string(),
        what: what.to_owned(),
    })
}

const fn in_the_way(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Complete => "exists already: choose another name, or remove it first",
        VolumeState::Importing => {
            "exists already, left by an import that has not ended: import with --overwrite, or remove it first"
        }
        VolumeState::Removing => "exists already, half removed: remove it again to end that",
    }
}

#[cfg(test)]
mod tests;
