//! The locks and atomics that threads share here. `scripts/models.sh` builds them as those of a model checker, which
//! then decides who runs when.

#[cfg(not(all(test, any(model = "shuttle", model = "loom"))))]
mod shipped {
    pub(in crate::actors) use std::sync::atomic;
    pub(in crate::actors) use std::thread_local;

    pub(in crate::actors) use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

    /// How many threads there may be at a time.
    pub(in crate::actors) fn threads() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }
}

#[cfg(all(test, any(model = "shuttle", model = "loom")))]
mod modelled {
    use std::fmt;
    use std::sync::PoisonError;

    #[cfg(model = "loom")]
    use loom::sync as locks;
    #[cfg(model = "shuttle")]
    use shuttle::sync as locks;

    pub(in crate::actors) use locks::{RwLockReadGuard, RwLockWriteGuard, atomic};
    #[cfg(model = "shuttle")]
    pub(in crate::actors) use shuttle::thread_local;

    /// As the shipped one: a lock is not poisoned by a panic.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(locks::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(locks::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> locks::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Mutex")
        }
    }

    /// As the shipped one: a lock is not poisoned by a panic.
    #[derive(Default)]
    pub(crate) struct RwLock<T>(locks::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(locks::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T> fmt::Debug for RwLock<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("RwLock")
        }
    }

    /// Loom's does not know constants.
    #[cfg(model = "loom")]
    macro_rules! modelled_local {
        ($(#[$doc:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
            loom::thread_local! { $(#[$doc])* static $name: $kind = $value; }
        };
        ($(#[$doc:meta])* static $name:ident: $kind:ty = $value:expr;) => {
            loom::thread_local! { $(#[$doc])* static $name: $kind = $value; }
        };
    }
    #[cfg(model = "loom")]
    pub(in crate::actors) use modelled_local as thread_local;

    /// The same on every machine.
    pub(in crate::actors) const fn threads() -> usize {
        2
    }
}

#[cfg(all(test, any(model = "shuttle", model = "loom")))]
pub(super) use modelled::*;
#[cfg(not(all(test, any(model = "shuttle", model = "loom"))))]
pub(super) use shipped::*;
