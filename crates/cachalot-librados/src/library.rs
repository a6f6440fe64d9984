//! The functions of `librados.so.2`, found at run time.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library as Loaded;

use crate::error::ConnectError;

/// A `rados_t`.
pub(crate) type ClusterPtr = *mut c_void;
/// A `rados_ioctx_t`.
pub(crate) type IoCtxPtr = *mut c_void;
/// A `rados_completion_t`.
pub(crate) type CompletionPtr = *mut c_void;
/// A `rados_write_op_t`.
pub(crate) type WriteOpPtr = *mut c_void;
/// A `rados_read_op_t`.
pub(crate) type ReadOpPtr = *mut c_void;
/// A `rados_list_ctx_t`.
pub(crate) type ListPtr = *mut c_void;
/// A `rados_callback_t`.
pub(crate) type Callback = extern "C" fn(CompletionPtr, *mut c_void);

macro_rules! library {
    (needed { $($name:ident($($argument:ty),*) $(-> $answer:ty)?;)* }
     optional { $($extra:ident($($given:ty),*) $(-> $gives:ty)?;)* }) => {
        /// The functions, as `rados/librados.h` declares them.
        #[derive(Debug)]
        pub(crate) struct Library {
            $(pub(crate) $name: unsafe extern "C" fn($($argument),*) $(-> $answer)?,)*
            $(pub(crate) $extra: Option<unsafe extern "C" fn($($given),*) $(-> $gives)?>,)*
        }

        impl Library {
            fn find(loaded: &Loaded) -> Result<Self, libloading::Error> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the type is that of the function of this name in `rados/librados.h`, and the
                        // library is never unloaded, so that the pointer stays good.
                        *unsafe { loaded.get(concat!(stringify!($name), "\0").as_bytes()) }?
                    },)*
                    $($extra: {
                        // SAFETY: as above; an absent one is none.
                        let found = unsafe { loaded.get(concat!(stringify!($extra), "\0").as_bytes()) };
                        found.ok().map(|symbol| *symbol)
                    },)*
                })
            }
        }
    };
}

library! {
    needed {
        rados_create2(*mut ClusterPtr, *const c_char, *const c_char, u64) -> c_int;
        rados_conf_read_file(ClusterPtr, *const c_char) -> c_int;
        rados_conf_set(ClusterPtr, *const c_char, *const c_char) -> c_int;
        rados_conf_get(ClusterPtr, *const c_char, *mut c_char, usize) -> c_int;
        rados_connect(ClusterPtr) -> c_int;
        rados_shutdown(ClusterPtr);
        rados_getaddrs(ClusterPtr, *mut *mut c_char) -> c_int;
        rados_buffer_free(*mut c_char);
        rados_ioctx_create(ClusterPtr, *const c_char, *mut IoCtxPtr) -> c_int;
        rados_ioctx_destroy(IoCtxPtr);
        rados_ioctx_set_namespace(IoCtxPtr, *const c_char);
        rados_ioctx_snap_set_read(IoCtxPtr, u64);
        rados_ioctx_selfmanaged_snap_set_write_ctx(IoCtxPtr, u64, *mut u64, c_int) -> c_int;
        rados_ioctx_selfmanaged_snap_create(IoCtxPtr, *mut u64) -> c_int;
        rados_ioctx_selfmanaged_snap_remove(IoCtxPtr, u64) -> c_int;
        rados_ioctx_selfmanaged_snap_rollback(IoCtxPtr, *const c_char, u64) -> c_int;
        rados_aio_create_completion2(*mut c_void, Callback, *mut CompletionPtr) -> c_int;
        rados_aio_get_return_value(CompletionPtr) -> c_int;
        rados_aio_get_version(CompletionPtr) -> u64;
        rados_aio_release(CompletionPtr);
        rados_create_write_op() -> WriteOpPtr;
        rados_release_write_op(WriteOpPtr);
        rados_write_op_assert_version(WriteOpPtr, u64);
        rados_write_op_cmpxattr(WriteOpPtr, *const c_char, u8, *const c_char, usize);
        rados_write_op_setxattr(WriteOpPtr, *const c_char, *const c_char, usize);
        rados_write_op_create(WriteOpPtr, c_int, *const c_char);
        rados_write_op_write(WriteOpPtr, *const c_char, usize, u64);
        rados_write_op_zero(WriteOpPtr, u64, u64);
        rados_write_op_truncate(WriteOpPtr, u64);
        rados_write_op_remove(WriteOpPtr);
        rados_aio_write_op_operate(WriteOpPtr, IoCtxPtr, CompletionPtr, *const c_char, *mut libc::time_t, c_int) -> c_int;
        rados_create_read_op() -> ReadOpPtr;
        rados_release_read_op(ReadOpPtr);
        rados_read_op_cmpxattr(ReadOpPtr, *const c_char, u8, *const c_char, usize);
        rados_read_op_read(ReadOpPtr, u64, usize, *mut c_char, *mut usize, *mut c_int);
        rados_read_op_stat(ReadOpPtr, *mut u64, *mut libc::time_t, *mut c_int);
        rados_read_op_set_flags(ReadOpPtr, c_int);
        rados_aio_read_op_operate(ReadOpPtr, IoCtxPtr, CompletionPtr, *const c_char, c_int) -> c_int;
        rados_getxattr(IoCtxPtr, *const c_char, *const c_char, *mut c_char, usize) -> c_int;
        rados_setxattr(IoCtxPtr, *const c_char, *const c_char, *const c_char, usize) -> c_int;
        rados_nobjects_list_open(IoCtxPtr, *mut ListPtr) -> c_int;
        rados_nobjects_list_next2(ListPtr, *mut *const c_char, *mut *const c_char, *mut *const c_char, *mut usize, *mut usize, *mut usize) -> c_int;
        rados_nobjects_list_close(ListPtr);
        rados_lock_exclusive(IoCtxPtr, *const c_char, *const c_char, *const c_char, *const c_char, *mut libc::timeval, u8) -> c_int;
        rados_unlock(IoCtxPtr, *const c_char, *const c_char, *const c_char) -> c_int;
        rados_break_lock(IoCtxPtr, *const c_char, *const c_char, *const c_char, *const c_char) -> c_int;
        rados_list_lockers(IoCtxPtr, *const c_char, *const c_char, *mut c_int, *mut c_char, *mut usize, *mut c_char, *mut usize, *mut c_char, *mut usize, *mut c_char, *mut usize) -> isize;
    }
    optional {
        rados_aio_write_op_operate2(WriteOpPtr, IoCtxPtr, CompletionPtr, *const c_char, *mut libc::timespec, c_int) -> c_int;
        rados_blocklist_add(ClusterPtr, *mut c_char, u32) -> c_int;
        rados_blacklist_add(ClusterPtr, *mut c_char, u32) -> c_int;
        rados_set_pool_full_try(IoCtxPtr);
        rados_set_osdmap_full_try(IoCtxPtr);
    }
}

/// The library, loaded by the first call.
pub(crate) fn library() -> Result<&'static Library, ConnectError> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| load().map_err(|error| error.to_string()));
    let missing = |what: &String| ConnectError::Library { what: what.clone() };
    library.as_ref().map_err(missing)
}

fn load() -> Result<Library, libloading::Error> {
    // SAFETY: librados' initializers start nothing and need nothing but their own memory; it stays loaded, so its
    // destructors run when the process ends, which `exit` sees to.
    let loaded = unsafe { Loaded::new("librados.so.2") }?;
    let found = Library::find(&loaded);
    // Its threads and thread-locals may outlive every cluster.
    std::mem::forget(loaded);
    found
}
