//! A pool and namespace as one client sees it, and the calls that block.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, Handle};
use crate::error::Errno;
use crate::library::{IoCtxPtr, Library, ListPtr};

/// What a [`Pool`] reads, and under what it writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolView {
    /// The namespace; empty for the one without a name.
    pub namespace: CString,
    /// The snapshot that is read; the head when there is none.
    pub read_snap: Option<u64>,
    /// The number of the newest snapshot and all there are, newest first, that writes are made under.
    pub write_under: Option<(u64, Vec<u64>)>,
}

/// A pool and namespace. It never changes.
#[derive(Debug)]
pub struct Pool {
    pub(crate) pointer: IoCtxPtr,
    // Behind the pointer: the pool is destroyed before its cluster goes.
    cluster: Arc<Handle>,
}

// SAFETY: only setting what an ioctx reads and writes under is not safe from several threads, and that is done before
// a pool is given out.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rados_ioctx_create`, and nobody has it any more; what is under way holds a
        // reference of its own inside librados. The cluster is still open.
        unsafe { (self.cluster.library.rados_ioctx_destroy)(self.pointer) };
    }
}

/// Whether a lock is to be taken, or one that we have prolonged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    /// Takes it; fails where anybody has it.
    New,
    /// Prolongs it; fails where we have it no more.
    Again,
}

/// The flag of `rados_lock_exclusive` that makes it fail unless we hold the lock.
pub const RENEW_HELD: u8 = 2;

/// A client that holds a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Locker {
    /// Its name, as `client.4123`.
    pub client: CString,
    /// What it gave as its cookie.
    pub cookie: CString,
    /// Its address.
    pub address: CString,
}

impl Pool {
    /// A view of a pool.
    ///
    /// # Errors
    /// [`Errno::NOT_FOUND`] where there is no such pool; any of librados.
    pub fn open(cluster: &Cluster, name: &CStr, view: &PoolView) -> Result<Self, Errno> {
        let cluster = Arc::clone(cluster.handle());
        let library = cluster.library;
        let mut pointer = ptr::null_mut();
        // SAFETY: the cluster is connected, the name ends in NUL and is copied; the pointer is written on success.
        let made = unsafe {
            (library.rados_ioctx_create)(cluster.pointer, name.as_ptr(), &raw mut pointer)
        };
        Errno::check(made)?;
        let pool = Self { pointer, cluster };
        // SAFETY: nobody else has the pool yet; the namespace ends in NUL and is copied.
        unsafe { (library.rados_ioctx_set_namespace)(pointer, view.namespace.as_ptr()) };
        // Else librados holds writes back, and what frees room too, for as long as a pool is full.
        let full_try = library.rados_set_pool_full_try;
        if let Some(full_try) = full_try.or(library.rados_set_osdmap_full_try) {
            // SAFETY: nobody else has the pool yet.
            unsafe { full_try(pointer) };
        }
        if let Some(snap) = view.read_snap {
            // SAFETY: nobody else has the pool yet.
            unsafe { (library.rados_ioctx_snap_set_read)(pointer, snap) };
        }
        if let Some((seq, snaps)) = &view.write_under {
            let mut snaps = snaps.clone();
            let count = c_int::try_from(snaps.len()).unwrap_or(c_int::MAX);
            // SAFETY: nobody else has the pool yet; `count` numbers are read and copied.
            let set = unsafe {
                (library.rados_ioctx_selfmanaged_snap_set_write_ctx)(
                    pointer,
                    *seq,
                    snaps.as_mut_ptr(),
                    count,
                )
            };
            Errno::check(set)?;
        }
        Ok(pool)
    }

    pub(crate) fn library(&self) -> &'static Library {
        self.cluster.library
    }

    /// Calls `each` with every name of the namespace, in no order. Blocks.
    ///
    /// # Errors
    /// Any of librados.
    pub fn list(&self, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let library = self.library();
        let mut list: ListPtr = ptr::null_mut();
        // SAFETY: the pool is open; the pointer is written on success.
        Errno::check(unsafe { (library.rados_nobjects_list_open)(self.pointer, &raw mut list) })?;
        let outcome = loop {
            let mut name: *const c_char = ptr::null();
            let mut len = 0;
            let none = ptr::null_mut::<*const c_char>();
            let no_len = ptr::null_mut::<usize>();
            // SAFETY: the list is open; null is allowed for what is not asked for.
            let next = unsafe {
                (library.rados_nobjects_list_next2)(
                    list,
                    &raw mut name,
                    none,
                    none,
                    &raw mut len,
                    no_len,
                    no_len,
                )
            };
            match Errno::check(next) {
                Err(Errno::NOT_FOUND) => break Ok(()),
                Err(error) => break Err(error),
                Ok(_) if name.is_null() => {}
                // SAFETY: the name has `len` bytes and stays until the next call on this list.
                Ok(_) => each(unsafe { std::slice::from_raw_parts(name.cast(), len) }),
            }
        };
        // SAFETY: the list is open and not used again.
        unsafe { (library.rados_nobjects_list_close)(list) };
        outcome
    }

    /// Takes or prolongs the exclusive lock `lock` of an object, which is made where it is absent. Blocks.
    ///
    /// # Errors
    /// [`Errno::BUSY`] where another client has it, [`Errno::NOT_FOUND`] where it was to be prolonged and is not
    /// ours; any of librados.
    pub fn lock(
        &self,
        object: &CStr,
        (lock, cookie): (&CStr, &CStr),
        lease: Duration,
        taking: Taking,
    ) -> Result<(), Errno> {
        let mut duration = libc::timeval {
            tv_sec: libc::time_t::try_from(lease.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_usec: lease.subsec_micros().into(),
        };
        let flags = match taking {
            Taking::New => 0,
            Taking::Again => RENEW_HELD,
        };
        // SAFETY: the pool is open; the texts end in NUL and, like the duration, are only read before it returns.
        let locked = unsafe {
            (self.library().rados_lock_exclusive)(
                self.pointer,
                object.as_ptr(),
                lock.as_ptr(),
                cookie.as_ptr(),
                c"".as_ptr(),
                &raw mut duration,
                flags,
            )
        };
        Errno::check(locked).map(drop)
    }

    /// Gives a lock back. Blocks.
    ///
    /// # Errors
    /// [`Errno::NOT_FOUND`] where it is not ours; any of librados.
    pub fn unlock(&self, object: &CStr, lock: &CStr, cookie: &CStr) -> Result<(), Errno> {
        // SAFETY: the pool is open; the texts end in NUL and are only read before it returns.
        let unlocked = unsafe {
            (self.library().rados_unlock)(
                self.pointer,
                object.as_ptr(),
                lock.as_ptr(),
                cookie.as_ptr(),
            )
        };
        Errno::check(unlocked).map(drop)
    }

    /// Takes a lock from whoever has it. Blocks.
    ///
    /// # Errors
    /// [`Errno::NOT_FOUND`] where that one has it no more; any of librados.
    pub fn break_lock(&self, object: &CStr, lock: &CStr, locker: &Locker) -> Result<(), Errno> {
        // SAFETY: the pool is open; the texts end in NUL and are only read before it returns.
        let broken = unsafe {
            (self.library().rados_break_lock)(
                self.pointer,
                object.as_ptr(),
                lock.as_ptr(),
                locker.client.as_ptr(),
                locker.cookie.as_ptr(),
            )
        };
        Errno::check(broken).map(drop)
    }

    /// Who has a lock. Blocks.
    ///
    /// # Errors
    /// Any of librados.
    pub fn lockers(&self, object: &CStr, lock: &CStr) -> Result<Vec<Locker>, Errno> {
        let mut room = 4096_usize;
        loop {
            let mut texts = [
                vec![0_u8; room],
                vec![0; room],
                vec![0; room],
                vec![0; room],
            ];
            let mut lens = [room; 4];
            let mut exclusive: c_int = 0;
            let [tag, clients, cookies, addresses] = &mut texts;
            let [tag_len, clients_len, cookies_len, addresses_len] = &mut lens;
            // SAFETY: the pool is open; each buffer has as many bytes as its length says, and no more are written.
            let found = unsafe {
                (self.library().rados_list_lockers)(
                    self.pointer,
                    object.as_ptr(),
                    lock.as_ptr(),
                    &raw mut exclusive,
                    tag.as_mut_ptr().cast(),
                    tag_len,
                    clients.as_mut_ptr().cast(),
                    clients_len,
                    cookies.as_mut_ptr().cast(),
                    cookies_len,
                    addresses.as_mut_ptr().cast(),
                    addresses_len,
                )
            };
            match Errno::check(c_int::try_from(found).unwrap_or(c_int::MIN)) {
                Err(Errno::NEWER) if room < 1 << 20 => room *= 4,
                Err(Errno::NOT_FOUND) => return Ok(Vec::new()),
                Err(error) => return Err(error),
                Ok(count) => {
                    let [_, clients, cookies, addresses] = &texts;
                    let (clients, cookies) = (split(clients, count), split(cookies, count));
                    let both = clients.zip(cookies).zip(split(addresses, count));
                    let lockers = both.map(|((client, cookie), address)| Locker {
                        client,
                        cookie,
                        address,
                    });
                    return Ok(lockers.collect());
                }
            }
        }
    }

    /// The value of an attribute of an object, at most 4 KiB of it. Blocks.
    ///
    /// # Errors
    /// [`Errno::NOT_FOUND`], or `ENODATA` without the attribute; any of librados.
    pub fn attribute(&self, object: &CStr, name: &CStr) -> Result<Vec<u8>, Errno> {
        let mut value = vec![0_u8; 4096];
        // SAFETY: the pool is open; at most as many bytes are written as the buffer has.
        let found = unsafe {
            (self.library().rados_getxattr)(
                self.pointer,
                object.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        value.truncate(Errno::check(found)?);
        Ok(value)
    }

    /// Sets an attribute of an object, which is made where it is absent. Blocks.
    ///
    /// # Errors
    /// Any of librados.
    pub fn set_attribute(&self, object: &CStr, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        // SAFETY: the pool is open; the value's bytes are only read before it returns.
        let set = unsafe {
            (self.library().rados_setxattr)(
                self.pointer,
                object.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
            )
        };
        Errno::check(set).map(drop)
    }

    /// Takes a snapshot's number from the monitors. Blocks.
    ///
    /// # Errors
    /// `EINVAL` where the pool has snapshots of the other kind; any of librados.
    pub fn create_snapshot(&self) -> Result<u64, Errno> {
        let mut number = 0;
        // SAFETY: the pool is open; the number is written on success.
        let made = unsafe {
            (self.library().rados_ioctx_selfmanaged_snap_create)(self.pointer, &raw mut number)
        };
        Errno::check(made)?;
        Ok(number)
    }

    /// Gives a snapshot up; what it alone needs is freed in time. Blocks.
    ///
    /// # Errors
    /// Any of librados.
    pub fn remove_snapshot(&self, number: u64) -> Result<(), Errno> {
        // SAFETY: the pool is open.
        let removed =
            unsafe { (self.library().rados_ioctx_selfmanaged_snap_remove)(self.pointer, number) };
        Errno::check(removed).map(drop)
    }

    /// Makes an object's head what it was at a snapshot, as a write under this view's snapshots. Blocks.
    ///
    /// # Errors
    /// Any of librados.
    pub fn roll_back(&self, object: &CStr, number: u64) -> Result<(), Errno> {
        // SAFETY: the pool is open; the name ends in NUL and is only read before it returns.
        let rolled = unsafe {
            (self.library().rados_ioctx_selfmanaged_snap_rollback)(
                self.pointer,
                object.as_ptr(),
                number,
            )
        };
        Errno::check(rolled).map(drop)
    }
}

/// The texts of a buffer, each with a NUL behind it.
fn split(texts: &[u8], count: usize) -> impl Iterator<Item = CString> {
    let texts = texts.split(|byte| *byte == 0).take(count);
    texts.map(|text| CString::new(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart_by_the_nul_behind_each() {
        let texts: Vec<CString> = split(b"client.4\0client.5\0\0\0", 2).collect();
        assert_eq!(texts, [c"client.4".to_owned(), c"client.5".to_owned()]);
        assert_eq!(split(b"\0\0", 0).count(), 0);
    }
}
