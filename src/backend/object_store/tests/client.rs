//! A client in memory that fails, holds and remembers.

use std::collections::BTreeSet;

use ::object_store::memory::InMemory;
use ::object_store::path::Path;
use ::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// What a request did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Did {
    Get,
    Put,
    Delete,
    List,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<(Did, String)>,
    /// Requests that change something are refused once so many were made.
    changes_left: Option<usize>,
    /// Of so many requests all but one fail as in a storm of 503.
    storm: usize,
    is_away: bool,
    /// Listings begin with the first key, wherever they should.
    lists_all: bool,
    putting: BTreeSet<String>,
    put_twice_at_once: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) inner: InMemory,
    state: Mutex<State>,
    /// Puts of blocks wait for one of these.
    gate: Semaphore,
    is_gated: bool,
}

impl Client {
    pub(super) fn over(inner: &InMemory) -> Self {
        Self {
            inner: inner.clone(),
            state: Mutex::default(),
            gate: Semaphore::new(0),
            is_gated: false,
        }
    }

    pub(super) fn gated(inner: &InMemory) -> Self {
        let is_gated = true;
        Self {
            is_gated,
            ..Self::over(inner)
        }
    }

    pub(super) fn let_through(&self, puts: usize) {
        self.gate.add_permits(puts);
    }

    /// Takes back what was let through and not used.
    pub(super) fn take_permits(&self) {
        self.gate.forget_permits(usize::MAX >> 3);
    }

    /// Lets so many requests that change something pass, and none after.
    pub(super) fn stop_after(&self, changes: usize) {
        self.state.lock().changes_left = Some(changes);
    }

    pub(super) fn storm(&self, one_of: usize) {
        self.state.lock().storm = one_of;
    }

    pub(super) fn set_away(&self, is_away: bool) {
        self.state.lock().is_away = is_away;
    }

    pub(super) fn list_all(&self) {
        self.state.lock().lists_all = true;
    }

    /// What was asked since the last call, with the last part of each key.
    pub(super) fn take_log(&self) -> Vec<(Did, String)> {
        std::mem::take(&mut self.state.lock().log)
    }

    pub(super) fn put_twice_at_once(&self) -> Vec<String> {
        self.state.lock().put_twice_at_once.clone()
    }

    fn start(&self, did: Did, path: &Path) -> Result<()> {
        let mut state = self.state.lock();
        state.log.push((did, path.to_string()));
        let fails =
            state.is_away || (state.storm > 1 && !state.log.len().is_multiple_of(state.storm));
        if fails {
            return Err(Error::Generic {
                store: "test",
                source: "slow down".into(),
            });
        }
        if matches!(did, Did::Put | Did::Delete)
            && let Some(left) = &mut state.changes_left
        {
            if *left == 0 {
                return Err(Error::PermissionDenied {
                    path: path.to_string(),
                    source: "stopped".into(),
                });
            }
            *left -= 1;
        }
        if did == Did::Put && !state.putting.insert(path.to_string()) {
            state.put_twice_at_once.push(path.to_string());
        }
        Ok(())
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("test")
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.start(Did::Put, location)?;
        if self.is_gated && location.as_ref().contains("block/") {
            self.gate.acquire().await.unwrap().forget();
        }
        let answer = self.inner.put_opts(location, payload, opts).await;
        self.state.lock().putting.remove(location.as_ref());
        answer
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.start(Did::Get, location)?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.start(Did::Delete, &Path::from("some")) {
            Ok(()) => self.inner.delete_stream(locations),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.start(Did::List, prefix.unwrap()) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let lists_all = self.state.lock().lists_all;
        self.list(prefix)
            .try_filter(move |meta| std::future::ready(lists_all || meta.location > offset))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
