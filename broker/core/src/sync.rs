//! Locks whose poisoning ends the process.
//!
//! A panic under one of these locks means that a shared invariant may be broken; going on could acknowledge what is
//! lost. The store is crash-safe and a supervisor restarts the process, so every later user of the lock panics too.

use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[expect(
    clippy::expect_used,
    reason = "a poisoned shared lock ends the process (contracts section 6)"
)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a holder of this lock panicked")
}

#[expect(
    clippy::expect_used,
    reason = "a poisoned shared lock ends the process (contracts section 6)"
)]
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect("a holder of this lock panicked")
}

#[expect(
    clippy::expect_used,
    reason = "a poisoned shared lock ends the process (contracts section 6)"
)]
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect("a holder of this lock panicked")
}
