//! Operations under way: futures that a callback of librados completes.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::error::Errno;
use crate::library::{CompletionPtr, Library, ReadOpPtr, WriteOpPtr};
use crate::pool::Pool;

/// How an attribute's value is compared, byte by byte; an absent one is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// The value given is above the stored one.
    Above,
    /// The value given is not above the stored one.
    NotAbove,
}

/// A condition on an attribute; where it does not hold, the operation fails with [`Errno::CANCELED`].
#[derive(Clone, Copy, Debug)]
pub struct Compare<'a> {
    /// The attribute.
    pub name: &'a CStr,
    /// How its value is compared.
    pub when: When,
    /// With what.
    pub value: &'a [u8],
}

impl Compare<'_> {
    const fn operator(&self) -> u8 {
        match self.when {
            When::Above => 3,
            When::NotAbove => 6,
        }
    }
}

/// What is asked of one object at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read<'a> {
    /// A condition.
    pub compare: Option<Compare<'a>>,
    /// Bytes: the first one's place and how many at most.
    pub range: Option<(u64, usize)>,
    /// How they will be used: flags of librados.
    pub flags: i32,
    /// Whether the size is wanted.
    pub stat: bool,
}

impl Read<'_> {
    /// The bytes will be followed by their neighbours.
    pub const SEQUENTIAL: i32 = 0x8;
    /// The bytes have no neighbours that matter.
    pub const RANDOM: i32 = 0x4;
    /// The bytes will be wanted again.
    pub const WILL_NEED: i32 = 0x10;
    /// The bytes will not be wanted again.
    pub const DONT_NEED: i32 = 0x20;
}

/// What a read gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadAnswer {
    /// The bytes, fewer than asked for at the object's end.
    pub bytes: Vec<u8>,
    /// The object's size, if asked for.
    pub size_bytes: u64,
    /// The object's version, for [`Write::assert_version`].
    pub version: u64,
}

/// What librados fills or reads until an operation's callback.
trait Buffers: Send {
    type Answer;

    /// Called once, after the callback and without an error.
    fn answer(&mut self, version: u64) -> Self::Answer;
}

struct Shared<B> {
    done: AtomicBool,
    returned: AtomicI32,
    version: AtomicU64,
    waker: AtomicWaker,
    /// Kept open until the callback.
    pool: Arc<Pool>,
    buffers: UnsafeCell<B>,
}

// SAFETY: all fields but `buffers` are shareable. Those are touched by whoever submits, before librados has them; by
// librados until the callback; and from then on by the one future alone, which sees `done` first.
unsafe impl<B: Send> Sync for Shared<B> {}

/// An operation under way. It goes on when this is dropped.
pub struct Pending<T>(State<T>);

enum State<T> {
    Failed(Errno),
    Waiting(Box<dyn Wait<T> + Send>),
}

trait Wait<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Errno>>;
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Errno>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Failed(error) => Poll::Ready(Err(*error)),
            State::Waiting(wait) => wait.poll(context),
        }
    }
}

struct Waiter<B>(Arc<Shared<B>>);

impl<B: Buffers> Wait<B::Answer> for Waiter<B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<B::Answer, Errno>> {
        let shared = &self.0;
        if !shared.done.load(Ordering::Acquire) {
            shared.waker.register(context.waker());
            if !shared.done.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        let returned = shared.returned.load(Ordering::Relaxed);
        if let Err(error) = Errno::check(returned) {
            return Poll::Ready(Err(error));
        }
        let version = shared.version.load(Ordering::Relaxed);
        // SAFETY: `done` is set, so librados is done with the buffers; this future is the only one that looks at them
        // from then on, and `&mut self` keeps it alone.
        let buffers = unsafe { &mut *shared.buffers.get() };
        Poll::Ready(Ok(buffers.answer(version)))
    }
}

extern "C" fn complete<B>(completion: CompletionPtr, argument: *mut c_void) {
    // SAFETY: the argument is the reference that `submit` gave away, and each callback runs once.
    let shared = unsafe { Arc::from_raw(argument.cast::<Shared<B>>().cast_const()) };
    let library = shared.pool.library();
    // SAFETY: librados keeps the completion until its callback has returned.
    let (returned, version) = unsafe {
        (
            (library.rados_aio_get_return_value)(completion),
            (library.rados_aio_get_version)(completion),
        )
    };
    shared.returned.store(returned, Ordering::Relaxed);
    shared.version.store(version, Ordering::Relaxed);
    shared.done.store(true, Ordering::Release);
    shared.waker.wake();
    // The last reference may go here: a pool may be destroyed in a callback, and a cluster ends on another thread.
}

/// Gives an operation to librados. `start` gets the buffers at their place and the completion.
fn submit<B: Buffers + 'static>(
    pool: &Arc<Pool>,
    buffers: B,
    start: impl FnOnce(&'static Library, *mut B, CompletionPtr) -> c_int,
) -> Pending<B::Answer> {
    let library = pool.library();
    let shared = Arc::new(Shared {
        done: AtomicBool::new(false),
        returned: AtomicI32::new(0),
        version: AtomicU64::new(0),
        waker: AtomicWaker::new(),
        pool: Arc::clone(pool),
        buffers: UnsafeCell::new(buffers),
    });
    let given = Arc::into_raw(Arc::clone(&shared));
    let mut completion = ptr::null_mut();
    // SAFETY: the callback takes what it gets for the reference given here; the pointer is written on success.
    let made = unsafe {
        (library.rados_aio_create_completion2)(
            given.cast_mut().cast(),
            complete::<B>,
            &raw mut completion,
        )
    };
    let mut started = Errno::check(made);
    if started.is_ok() {
        started = Errno::check(start(library, shared.buffers.get(), completion));
        // SAFETY: librados has a reference of its own where the operation was started; this one is not used again.
        unsafe { (library.rados_aio_release)(completion) };
    }
    if let Err(error) = started {
        // SAFETY: without a start there is no callback, so the reference is still ours.
        drop(unsafe { Arc::from_raw(given) });
        return Pending(State::Failed(error));
    }
    Pending(State::Waiting(Box::new(Waiter(shared))))
}

struct ReadBuffers {
    library: &'static Library,
    operation: ReadOpPtr,
    bytes: Vec<u8>,
    read: usize,
    size_bytes: u64,
    modified: libc::time_t,
    read_returned: c_int,
    stat_returned: c_int,
}

// SAFETY: librados ties an operation to no thread.
unsafe impl Send for ReadBuffers {}

impl Drop for ReadBuffers {
    fn drop(&mut self) {
        // SAFETY: the operation came from `rados_create_read_op` and ended, or never started.
        unsafe { (self.library.rados_release_read_op)(self.operation) };
    }
}

impl Buffers for ReadBuffers {
    type Answer = ReadAnswer;

    fn answer(&mut self, version: u64) -> ReadAnswer {
        let mut bytes = std::mem::take(&mut self.bytes);
        let read = self.read.min(bytes.capacity());
        // SAFETY: librados has written so many bytes from the start on, and no more than there is room for.
        unsafe { bytes.set_len(read) };
        ReadAnswer {
            bytes,
            size_bytes: self.size_bytes,
            version,
        }
    }
}

impl Pool {
    /// Reads from an object.
    pub fn read(self: &Arc<Self>, object: &CStr, read: &Read<'_>) -> Pending<ReadAnswer> {
        let library = self.library();
        let buffers = ReadBuffers {
            library,
            // SAFETY: it needs nothing.
            operation: unsafe { (library.rados_create_read_op)() },
            bytes: Vec::with_capacity(read.range.map_or(0, |(_, len)| len)),
            read: 0,
            size_bytes: 0,
            modified: 0,
            read_returned: 0,
            stat_returned: 0,
        };
        submit(self, buffers, |library, buffers, completion| {
            // SAFETY: nobody else has the buffers yet, and this reference ends before the operation starts.
            let parts = unsafe { &mut *buffers };
            let operation = parts.operation;
            if let Some(compare) = &read.compare {
                // SAFETY: the operation is not started; name and value are copied.
                unsafe {
                    (library.rados_read_op_cmpxattr)(
                        operation,
                        compare.name.as_ptr(),
                        compare.operator(),
                        compare.value.as_ptr().cast(),
                        compare.value.len(),
                    );
                };
            }
            if let Some((offset, len)) = read.range {
                let room = len.min(parts.bytes.capacity());
                // SAFETY: the operation is not started; what it fills stays at its place until the callback, and has
                // room for so many bytes. The flags are for the read just added.
                unsafe {
                    (library.rados_read_op_read)(
                        operation,
                        offset,
                        room,
                        parts.bytes.as_mut_ptr().cast(),
                        &raw mut parts.read,
                        &raw mut parts.read_returned,
                    );
                    (library.rados_read_op_set_flags)(operation, read.flags);
                };
            }
            if read.stat {
                // SAFETY: as above.
                unsafe {
                    (library.rados_read_op_stat)(
                        operation,
                        &raw mut parts.size_bytes,
                        &raw mut parts.modified,
                        &raw mut parts.stat_returned,
                    );
                };
            }
            // SAFETY: all that the operation uses is owned by the buffers, which live until the callback.
            unsafe {
                (library.rados_aio_read_op_operate)(
                    operation,
                    self.pointer,
                    completion,
                    object.as_ptr(),
                    0,
                )
            }
        })
    }

    /// Changes an object, all at once or not at all; `modified` is nanoseconds since the epoch, now when there is none.
    pub fn write(
        self: &Arc<Self>,
        object: &CStr,
        write: Write,
        modified: Option<u64>,
    ) -> Pending<()> {
        submit(self, write, |library, write, completion| {
            // SAFETY: nobody else has the write yet.
            let operation = unsafe { (*write).operation };
            let nanos = modified.unwrap_or_default();
            let mut seconds = libc::time_t::try_from(nanos / 1_000_000_000).unwrap_or(0);
            let start = library.rados_aio_write_op_operate2;
            if let (Some(start), Some(_)) = (start, modified) {
                let mut time = libc::timespec {
                    tv_sec: seconds,
                    tv_nsec: libc::c_long::try_from(nanos % 1_000_000_000).unwrap_or(0),
                };
                // SAFETY: the operation owns copies of all it holds; name and time are read before this returns.
                return unsafe {
                    start(
                        operation,
                        self.pointer,
                        completion,
                        object.as_ptr(),
                        &raw mut time,
                        0,
                    )
                };
            }
            let time = match modified {
                Some(_) => &raw mut seconds,
                None => ptr::null_mut(),
            };
            // SAFETY: as above; null stands for now.
            unsafe {
                (library.rados_aio_write_op_operate)(
                    operation,
                    self.pointer,
                    completion,
                    object.as_ptr(),
                    time,
                    0,
                )
            }
        })
    }

    /// A change of an object, empty yet.
    #[must_use]
    pub fn change(&self) -> Write {
        let library = self.library();
        // SAFETY: it needs nothing.
        let operation = unsafe { (library.rados_create_write_op)() };
        Write { library, operation }
    }
}

/// Changes of one object that are made together.
#[derive(Debug)]
pub struct Write {
    library: &'static Library,
    operation: WriteOpPtr,
}

// SAFETY: librados ties an operation to no thread.
unsafe impl Send for Write {}

impl Drop for Write {
    fn drop(&mut self) {
        // SAFETY: the operation came from `rados_create_write_op` and ended, or never started.
        unsafe { (self.library.rados_release_write_op)(self.operation) };
    }
}

impl Buffers for Write {
    type Answer = ();

    fn answer(&mut self, _version: u64) {}
}

impl Write {
    /// Fails unless the object has this version.
    pub fn assert_version(&mut self, version: u64) {
        // SAFETY: the operation is ours and not started.
        unsafe { (self.library.rados_write_op_assert_version)(self.operation, version) };
    }

    /// Fails unless the condition holds.
    pub fn compare(&mut self, compare: &Compare<'_>) {
        // SAFETY: the operation is ours and not started; name and value are copied.
        unsafe {
            (self.library.rados_write_op_cmpxattr)(
                self.operation,
                compare.name.as_ptr(),
                compare.operator(),
                compare.value.as_ptr().cast(),
                compare.value.len(),
            );
        };
    }

    /// Makes the object, and fails where it exists.
    pub fn create(&mut self) {
        // SAFETY: the operation is ours and not started; there is no category.
        unsafe { (self.library.rados_write_op_create)(self.operation, 1, ptr::null()) };
    }

    /// Sets an attribute.
    pub fn set_attribute(&mut self, name: &CStr, value: &[u8]) {
        // SAFETY: the operation is ours and not started; name and value are copied.
        unsafe {
            (self.library.rados_write_op_setxattr)(
                self.operation,
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
            );
        };
    }

    /// Stores bytes, which are copied.
    pub fn store(&mut self, offset: u64, bytes: &[u8]) {
        // SAFETY: the operation is ours and not started; the bytes are copied before this returns.
        unsafe {
            (self.library.rados_write_op_write)(
                self.operation,
                bytes.as_ptr().cast::<c_char>(),
                bytes.len(),
                offset,
            );
        };
    }

    /// Makes a range zeros; the object does not grow.
    pub fn zero(&mut self, offset: u64, len: u64) {
        // SAFETY: the operation is ours and not started.
        unsafe { (self.library.rados_write_op_zero)(self.operation, offset, len) };
    }

    /// Cuts or grows the object.
    pub fn truncate(&mut self, size_bytes: u64) {
        // SAFETY: the operation is ours and not started.
        unsafe { (self.library.rados_write_op_truncate)(self.operation, size_bytes) };
    }

    /// Removes the object.
    pub fn remove(&mut self) {
        // SAFETY: the operation is ours and not started.
        unsafe { (self.library.rados_write_op_remove)(self.operation) };
    }
}
