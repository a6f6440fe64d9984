//! A connection to a cluster.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use crate::error::{ConnectError, Errno};
use crate::exit::{self, Connected};
use crate::library::{ClusterPtr, Library, library};
use crate::threads;

/// How a cluster is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectOptions {
    /// Its `ceph.conf`; those of the usual places when there is none.
    pub conf: Option<PathBuf>,
    /// The user without `client.` in front; `admin` when there is none.
    pub id: Option<String>,
    /// Options by name, as in `ceph.conf`, that are set.
    pub set: Vec<(String, String)>,
    /// Options by name that are set where they have just this value: name, value, new value.
    pub replace: Vec<(String, String, String)>,
}

/// A connection to a cluster, shared by its pools and the operations under way.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Handle>);

#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) library: &'static Library,
    pub(crate) pointer: ClusterPtr,
    connected: Option<Connected>,
}

// SAFETY: librados locks what a cluster handle holds; all of its calls may come from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// A handle on its way to the thread that shuts it down.
struct Leaving(&'static Library, ClusterPtr, Option<Connected>);

// SAFETY: nobody else has the handle any more, and librados lets any thread but its own shut it down.
unsafe impl Send for Leaving {}

impl Leaving {
    fn shut_down(self) {
        let Self(library, pointer, connected) = self;
        // SAFETY: the pointer came from `rados_create2`, this is the last use of it, all pools of it are destroyed, and
        // this thread is not one of librados'.
        unsafe { (library.rados_shutdown)(pointer) };
        if let Some(connected) = connected {
            connected.shut_down();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        exit::prepare();
        let leaving = Leaving(self.library, self.pointer, self.connected.take());
        // The last reference may go in a callback, where shutting down would wait for itself. Without a thread the
        // connection stays open, which is better than a deadlock.
        drop(threads::spawn("cachalot-rados-end", || leaving.shut_down()));
    }
}

fn text(what: &'static str, text: impl Into<Vec<u8>>) -> Result<CString, ConnectError> {
    CString::new(text).map_err(|_nul| ConnectError::Nul { what })
}

impl Cluster {
    /// Connects. Blocks until the cluster answers or `client_mount_timeout` is over.
    ///
    /// # Errors
    /// A missing library, a bad configuration, a cluster that can't be reached or refuses the user.
    pub fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let library = library()?;
        let name = text("the name of the cluster", "ceph")?;
        let id = options.id.as_deref().unwrap_or("admin");
        let user = text("the user", format!("client.{id}"))?;
        let mut pointer = ptr::null_mut();
        // SAFETY: the strings end in NUL and are copied; the pointer is written only on success.
        let made =
            unsafe { (library.rados_create2)(&raw mut pointer, name.as_ptr(), user.as_ptr(), 0) };
        Errno::check(made).map_err(ConnectError::at("set up a client"))?;
        let handle = Handle {
            library,
            pointer,
            connected: Some(Connected::count()),
        };
        handle.configure(options)?;
        // SAFETY: the handle is set up, and not connected yet.
        let connected = unsafe { (library.rados_connect)(pointer) };
        exit::prepare();
        Errno::check(connected).map_err(ConnectError::at("connect to the cluster"))?;
        Ok(Self(Arc::new(handle)))
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.0
    }

    /// The addresses that this client is known by.
    ///
    /// # Errors
    /// Any of librados.
    pub fn addresses(&self) -> Result<String, Errno> {
        let Handle {
            library, pointer, ..
        } = *self.0;
        let mut found: *mut c_char = ptr::null_mut();
        // SAFETY: the handle is connected; on success the pointer is a NUL-terminated string that we free.
        Errno::check(unsafe { (library.rados_getaddrs)(pointer, &raw mut found) })?;
        if found.is_null() {
            return Ok(String::new());
        }
        // SAFETY: as above.
        let addresses = unsafe { CStr::from_ptr(found) }
            .to_string_lossy()
            .into_owned();
        // SAFETY: it came from librados, and is not used again.
        unsafe { (library.rados_buffer_free)(found) };
        Ok(addresses)
    }

    /// Makes the cluster refuse whatever another client sends from now on, for so many seconds. Blocks until this
    /// client's next operations carry the change.
    ///
    /// # Errors
    /// Any of librados: `EINVAL` for what is no address, `EACCES` where this client may not.
    pub fn blocklist(&self, address: &CStr, seconds: u32) -> Result<(), Errno> {
        let Handle {
            library, pointer, ..
        } = *self.0;
        let add = library.rados_blocklist_add.or(library.rados_blacklist_add);
        let add = add.ok_or(Errno(libc::ENOSYS))?;
        let mut address = address.to_bytes_with_nul().to_vec();
        // SAFETY: the handle is connected; the text ends in NUL and is only read.
        let added = unsafe { add(pointer, address.as_mut_ptr().cast(), seconds) };
        Errno::check(added).map(drop)
    }
}

impl Handle {
    fn configure(&self, options: &ConnectOptions) -> Result<(), ConnectError> {
        let conf = options.conf.as_ref();
        let conf =
            conf.map(|path| text("the path of ceph.conf", path.as_os_str().as_encoded_bytes()));
        let conf = conf.transpose()?;
        let path = conf.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: the handle is not connected yet; the path ends in NUL, or is null for the usual places.
        let read = unsafe { (self.library.rados_conf_read_file)(self.pointer, path) };
        Errno::check(read).map_err(ConnectError::at("read ceph.conf"))?;
        for (name, value, new) in &options.replace {
            let name = text("an option", name.as_bytes())?;
            if self.option(&name).as_deref() == Some(value.as_str()) {
                self.set(&name, new)?;
            }
        }
        for (name, value) in &options.set {
            self.set(&text("an option", name.as_bytes())?, value)?;
        }
        Ok(())
    }

    fn set(&self, name: &CStr, value: &str) -> Result<(), ConnectError> {
        let value = text("an option's value", value)?;
        // SAFETY: both end in NUL and are copied.
        let set =
            unsafe { (self.library.rados_conf_set)(self.pointer, name.as_ptr(), value.as_ptr()) };
        Errno::check(set).map_err(ConnectError::at("set an option"))?;
        Ok(())
    }

    fn option(&self, name: &CStr) -> Option<String> {
        let mut value = [0_u8; 256];
        let room = value.len();
        // SAFETY: at most `room` bytes are written, with a NUL among them on success.
        let found = unsafe {
            (self.library.rados_conf_get)(
                self.pointer,
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                room,
            )
        };
        Errno::check(found).ok()?;
        let value = CStr::from_bytes_until_nul(&value).ok()?;
        Some(value.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the library the error says which is missing, and with it what else is.
    #[test]
    fn what_is_missing_is_an_ordinary_error() {
        let options = ConnectOptions {
            conf: Some("/nowhere/ceph.conf".into()),
            ..ConnectOptions::default()
        };
        let error = Cluster::connect(&options).unwrap_err();
        match &error {
            ConnectError::Library { .. } => assert!(error.to_string().contains("librados2")),
            ConnectError::Librados { source, .. } => assert_eq!(*source, Errno::NOT_FOUND),
            ConnectError::Nul { .. } | ConnectError::Thread(_) => panic!("{error}"),
        }
        let options = ConnectOptions {
            id: Some("a\0b".to_owned()),
            ..ConnectOptions::default()
        };
        let error = Cluster::connect(&options).unwrap_err();
        assert!(matches!(
            error,
            ConnectError::Library { .. } | ConnectError::Nul { .. }
        ));
    }
}
