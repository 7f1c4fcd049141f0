//! Wakes the task of one connection, once per batch of reasons.
//!
//! Invariants:
//! - A `wake` after `begin` and before the next `begin` leads to one more run of the owner.
//! - Between two runs at most one real wake happens, however many reasons arrive.
//! - Only the connection of the newest epoch is woken; an older one cannot register again.
//!
//! Does not know: runtimes, sockets, what the reason was.

use crate::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

/// A wake-up shared by everyone who may have news for a connection.
#[derive(Debug, Default)]
pub struct Wakeup {
    scheduled: AtomicBool,
    owner: Mutex<Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    epoch: u64,
    waker: Option<Waker>,
}

impl Wakeup {
    /// Makes sure that the owner runs once more.
    pub fn wake(&self) {
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let owner = lock(&self.owner);
        if let Some(waker) = &owner.waker {
            waker.wake_by_ref();
        }
    }

    /// Starts a run of the owner of `epoch`: news from here on cause another run. `false` when a newer owner exists.
    #[must_use]
    pub fn begin(&self, epoch: u64, waker: &Waker) -> bool {
        let mut owner = lock(&self.owner);
        if epoch < owner.epoch {
            return false;
        }
        owner.epoch = epoch;
        if !owner
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            owner.waker = Some(waker.clone());
        }
        self.scheduled.store(false, Ordering::Release);
        true
    }

    /// Wakes the present owner a last time and bars it from registering again.
    pub(crate) fn fence(&self, epoch: u64) {
        let mut owner = lock(&self.owner);
        if epoch <= owner.epoch {
            return;
        }
        owner.epoch = epoch;
        if let Some(waker) = owner.waker.take() {
            waker.wake();
        }
        self.scheduled.store(false, Ordering::Release);
    }

    /// Forgets the owner of `epoch`, whose connection is gone.
    pub(crate) fn clear(&self, epoch: u64) {
        let mut owner = lock(&self.owner);
        if owner.epoch == epoch {
            owner.waker = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_reasons_between_two_runs_wake_once() {
        let count = Arc::new(Count::default());
        let wakeup = Wakeup::default();
        assert!(wakeup.begin(1, &Waker::from(count.clone())));
        wakeup.wake();
        wakeup.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(wakeup.begin(1, &Waker::from(count.clone())));
        wakeup.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_fenced_owner_is_woken_and_cannot_come_back() {
        let count = Arc::new(Count::default());
        let wakeup = Wakeup::default();
        assert!(wakeup.begin(1, &Waker::from(count.clone())));
        wakeup.fence(2);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(!wakeup.begin(1, Waker::noop()));
        assert!(wakeup.begin(2, Waker::noop()));
    }
}
