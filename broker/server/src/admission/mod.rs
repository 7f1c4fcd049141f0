//! How many may connect, and how fast: places without a session, connections and connects by address, connects a second.
//!
//! Promises:
//! - Every table is bounded: places by `limits.unauthenticated_max`, counts by the connections that are open, rates by
//!   `limits.addresses_max`.
//! - Limits by address hold for addresses that are known: not for Unix sockets, nor behind a proxy that does not say.
//! - Some descriptors are kept for files: connections never take the last ones of the process.
//!
//! Does not know: sockets, lists of networks, credentials.

mod address;
mod places;
mod rate;
mod recent;

pub(crate) use address::AddressKey;
pub(crate) use places::{Holder, Place};
pub(crate) use rate::Rate;
pub(crate) use recent::Recent;

use crate::clock;
use crate::config::LimitsConfig;
use crate::listener::Refusal;
use places::Places;
use rate::Bucket;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is counted of connections before they are anybody's.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Places>,
    open: Arc<Open>,
    rate: Rate,
    rates: Mutex<Recent<AddressKey, Bucket>>,
    connect_rate_max: AtomicU32,
    address_connect_rate_max: AtomicU32,
    address_connections_max: AtomicU32,
    addresses_max: AtomicUsize,
    /// Connections for which the process has descriptors.
    descriptors_max: usize,
}

/// Open connections.
#[derive(Debug, Default)]
struct Open {
    all: AtomicUsize,
    by_address: Mutex<HashMap<AddressKey, u32>>,
}

/// A connection that is counted while this lives.
#[derive(Debug)]
pub(crate) struct Entry {
    open: Arc<Open>,
    /// By its address too.
    key: Option<AddressKey>,
}

impl Admission {
    /// Nobody is there yet.
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let admission = Self {
            places: Places::new(0),
            open: Arc::default(),
            rate: Rate::default(),
            rates: Mutex::default(),
            connect_rate_max: AtomicU32::new(0),
            address_connect_rate_max: AtomicU32::new(0),
            address_connections_max: AtomicU32::new(0),
            addresses_max: AtomicUsize::new(0),
            descriptors_max: descriptors_max(),
        };
        admission.set_limits(limits);
        admission
    }

    /// Changes the limits; who is there stays.
    pub(crate) fn set_limits(&self, limits: &LimitsConfig) {
        let relaxed = Ordering::Relaxed;
        self.places.set_max(limits.unauthenticated_max as usize);
        self.connect_rate_max
            .store(limits.connect_rate_max, relaxed);
        self.address_connect_rate_max
            .store(limits.address_connect_rate_max, relaxed);
        self.address_connections_max
            .store(limits.address_connections_max, relaxed);
        self.addresses_max
            .store(limits.addresses_max as usize, relaxed);
    }

    /// The places of connections without a session.
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Waits while all places are taken, as long as that is worth it (`places.rs`).
    ///
    /// A fleet that comes back all at once waits in the system's backlog then, in order, instead of being driven out again and again:
    /// each attempt would cost a device its TLS session.
    pub(crate) async fn wait_for_room(&self) {
        while self.places.is_full() && self.places.is_patient() {
            let began = clock::monotonic();
            tokio::time::sleep(ROOM_PAUSE).await;
            self.places
                .note_waited(clock::monotonic().saturating_sub(began));
        }
    }

    /// Whether connects come too fast, over all listeners.
    pub(crate) fn admits_rate(&self) -> bool {
        let rate = self.connect_rate_max.load(Ordering::Relaxed);
        rate == 0 || self.rate.admit(clock::monotonic(), rate)
    }

    /// Counts a connection of this address.
    ///
    /// # Errors
    /// When it has too many already, or they come too fast.
    pub(crate) fn admit_address(&self, entry: &mut Entry, key: AddressKey) -> Result<(), Refusal> {
        if !key.is_known() {
            return Ok(());
        }
        let relaxed = Ordering::Relaxed;
        let rate = self.address_connect_rate_max.load(relaxed);
        if rate > 0 {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = rates.entry(key, self.addresses_max.load(relaxed));
            if !bucket.admit(clock::monotonic(), rate) {
                return Err(Refusal::AddressConnectRate);
            }
        }
        let connections_max = self.address_connections_max.load(relaxed);
        if connections_max > 0 {
            let mut counts = self.open.lock();
            let count = counts.entry(key).or_default();
            if *count >= connections_max {
                return Err(Refusal::AddressConnections);
            }
            *count += 1;
            entry.key = Some(key);
        }
        Ok(())
    }

    /// Counts a connection. Where that leaves too few descriptors, somebody without a session gives way.
    ///
    /// # Errors
    /// When there is nobody.
    pub(crate) fn enter(&self) -> Result<Entry, Refusal> {
        let open = self.open.all.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            open: self.open.clone(),
            key: None,
        };
        match open < self.descriptors_max || self.places.evict() {
            true => Ok(entry),
            false => Err(Refusal::Descriptors),
        }
    }
}

impl Open {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AddressKey, u32>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.all.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.key else { return };
        let mut counts = self.open.lock();
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

/// How many connections leave enough descriptors for the store, tools, scrapes and files that are read again.
fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    limit.saturating_sub(DESCRIPTORS_RESERVED).max(limit / 4)
}

/// How long a look for room takes.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// Descriptors that are never a client's.
const DESCRIPTORS_RESERVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: LimitsConfig) -> Admission {
        Admission::new(&limits)
    }

    fn enter(admission: &Admission, key: AddressKey) -> Result<Entry, Refusal> {
        let mut entry = admission.enter()?;
        admission.admit_address(&mut entry, key)?;
        Ok(entry)
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let admission = admission(LimitsConfig {
            address_connections_max: 2,
            ..LimitsConfig::default()
        });
        let (one, other) = (AddressKey::V4(1), AddressKey::V4(2));
        let held = [
            enter(&admission, one).unwrap(),
            enter(&admission, one).unwrap(),
        ];
        assert_eq!(
            enter(&admission, one).unwrap_err(),
            Refusal::AddressConnections
        );
        let _other = enter(&admission, other).unwrap();
        let _local = [0; 3].map(|_| enter(&admission, AddressKey::Local).unwrap());
        drop(held);
        let _again = enter(&admission, one).unwrap();
        assert_eq!(admission.open.lock().len(), 2);
        assert_eq!(admission.open.all.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn an_address_connects_so_often_in_a_second() {
        let admission = admission(LimitsConfig {
            address_connect_rate_max: 3,
            ..LimitsConfig::default()
        });
        let one = AddressKey::V4(1);
        let refused = (0..10).filter(|_| enter(&admission, one).is_err()).count();
        // A third of a second may pass meanwhile.
        assert!((5..=7).contains(&refused), "{refused}");
        assert!(enter(&admission, AddressKey::V4(2)).is_ok());
    }
}
