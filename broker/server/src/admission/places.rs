//! Connections that have no session yet: how many, whose they are, and who gives way when there are too many.
//!
//! Promises:
//! - A newcomer always gets a place. When all are taken, the oldest connection of the address that holds most of them gives way: who
//!   opens connections and says nothing competes with himself. Among addresses with the same number, the oldest connection goes.
//! - But a fleet that comes back all at once is not made to drive itself out: while connections get through, newcomers are told to
//!   wait. Waiting costs patience; each connection that gets a session gives [`PATIENCE_EARNED`] of it back, up to [`PATIENCE_MAX`].
//!   Those who hold a siege earn none, so the wait is over soon, and does not begin again.
//! - A newcomer costs two look-ups in trees, whatever the number of places.
//!
//! Does not know: sockets, listeners, what the owner of a place does when it has to give way.

use super::address::AddressKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    table: Mutex<Table>,
    held: AtomicUsize,
    places_max: AtomicUsize,
    patience_us: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    holders: HashMap<AddressKey, BTreeMap<u64, Arc<Holder>>>,
    /// Each address by how many places it has, then by its oldest one: the last is the next to give way.
    order: BTreeSet<(usize, Reverse<u64>, AddressKey)>,
}

/// What table and owner of a place share.
#[derive(Debug, Default)]
pub(crate) struct Holder(Mutex<Notice>);

#[derive(Debug, Default)]
struct Notice {
    is_evicted: bool,
    owner: Option<Waker>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    number: u64,
    key: AddressKey,
    holder: Arc<Holder>,
}

impl Places {
    /// None is taken.
    pub(crate) fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            held: AtomicUsize::new(0),
            places_max: AtomicUsize::new(places_max),
            patience_us: AtomicU64::new(PATIENCE_MAX.as_micros() as u64),
            evicted: AtomicU64::new(0),
        })
    }

    /// Changes how many places there are; who has one keeps it.
    pub(crate) fn set_max(&self, places_max: usize) {
        self.places_max.store(places_max, Ordering::Relaxed);
    }

    /// Whether all places are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.held() >= self.places_max.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How often somebody had to give way.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Takes a place for a newcomer; where all are taken somebody else has to give way.
    pub(crate) fn take(self: &Arc<Self>, key: AddressKey) -> Place {
        let holder = Arc::<Holder>::default();
        let mut table = self.lock();
        let evicted = if self.is_full() {
            table.remove_next()
        } else {
            self.held.fetch_add(1, Ordering::Relaxed);
            None
        };
        let number = table.next;
        table.next += 1;
        table.insert(key, number, holder.clone());
        drop(table);
        if let Some(evicted) = evicted {
            self.note_evicted(&evicted);
        }
        Place {
            places: self.clone(),
            number,
            key,
            holder,
        }
    }

    /// Has somebody give way who would be the next to; `false` where nobody holds a place.
    pub(crate) fn evict(&self) -> bool {
        let evicted = self.lock().remove_next();
        if let Some(evicted) = &evicted {
            self.held.fetch_sub(1, Ordering::Relaxed);
            self.note_evicted(evicted);
        }
        evicted.is_some()
    }

    fn note_evicted(&self, holder: &Holder) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
        holder.evict();
    }

    /// Whether there is patience left for a wait.
    pub(crate) fn is_patient(&self) -> bool {
        self.patience_us.load(Ordering::Relaxed) > 0
    }

    /// Somebody has waited for so long.
    pub(crate) fn note_waited(&self, time: Duration) {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let relaxed = Ordering::Relaxed;
        let spend = |left: u64| Some(left.saturating_sub(time_us));
        let _ = self.patience_us.fetch_update(relaxed, relaxed, spend);
    }

    /// A connection has got its session.
    fn note_success(&self) {
        let relaxed = Ordering::Relaxed;
        let patience_max = PATIENCE_MAX.as_micros() as u64;
        let earned = PATIENCE_EARNED.as_micros() as u64;
        let earn = |left: u64| (left < patience_max).then(|| (left + earned).min(patience_max));
        let _ = self.patience_us.fetch_update(relaxed, relaxed, earn);
    }

    /// Has every owner look at its place again.
    pub(crate) fn wake_all(&self) {
        for holders in self.lock().holders.values() {
            holders.values().for_each(|holder| holder.wake());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, key: AddressKey, number: u64, holder: Arc<Holder>) {
        let places = self.holders.entry(key).or_default();
        let before = rank(key, places);
        places.insert(number, holder);
        let after = rank(key, places);
        self.reorder(before, after);
    }

    fn remove(&mut self, key: AddressKey, number: u64) -> Option<Arc<Holder>> {
        let places = self.holders.get_mut(&key)?;
        let before = rank(key, places);
        let removed = places.remove(&number);
        let after = rank(key, places);
        if places.is_empty() {
            self.holders.remove(&key);
        }
        self.reorder(before, after);
        removed
    }

    /// The oldest place of the address that has most.
    fn remove_next(&mut self) -> Option<Arc<Holder>> {
        let &(_, Reverse(number), key) = self.order.last()?;
        self.remove(key, number)
    }

    fn reorder(&mut self, before: Option<Rank>, after: Option<Rank>) {
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.extend(after);
    }
}

type Rank = (usize, Reverse<u64>, AddressKey);

fn rank(key: AddressKey, places: &BTreeMap<u64, Arc<Holder>>) -> Option<Rank> {
    let (&oldest, _) = places.first_key_value()?;
    Some((places.len(), Reverse(oldest), key))
}

impl Place {
    /// What tells that the place was taken away.
    pub(crate) fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// The address has become known: behind a proxy the client's own counts.
    pub(crate) fn move_to(&mut self, key: AddressKey) {
        if key == self.key {
            return;
        }
        let mut table = self.places.lock();
        if let Some(holder) = table.remove(self.key, self.number) {
            table.insert(key, self.number, holder);
        }
        self.key = key;
    }

    /// The connection has its session and needs no place any more.
    pub(crate) fn succeed(self) {
        self.places.note_success();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever had to give way is not there any more.
        if self.places.lock().remove(self.key, self.number).is_some() {
            self.places.held.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Holder {
    /// Whether the place was taken away; if not, `owner` is woken when that happens.
    pub(crate) fn is_evicted(&self, owner: &Waker) -> bool {
        let mut notice = self.lock();
        let is_known = |known: &Waker| known.will_wake(owner);
        if !notice.owner.as_ref().is_some_and(is_known) {
            notice.owner = Some(owner.clone());
        }
        notice.is_evicted
    }

    fn evict(&self) {
        self.lock().is_evicted = true;
        self.wake();
    }

    fn wake(&self) {
        let owner = self.lock().owner.clone();
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So much waiting is paid for at the start, and never more.
pub(crate) const PATIENCE_MAX: Duration = Duration::from_millis(500);
/// So much more waiting does a connection pay for that gets its session.
pub(crate) const PATIENCE_EARNED: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(place: &Place) -> bool {
        place.holder.is_evicted(Waker::noop())
    }

    fn key(number: u32) -> AddressKey {
        AddressKey::V4(number)
    }

    #[test]
    fn who_holds_most_gives_way_with_his_oldest() {
        let places = Places::new(5);
        let single = places.take(key(1));
        let crowd: Vec<_> = (0..3).map(|_| places.take(key(2))).collect();
        let pair = places.take(key(3));
        assert!(places.is_full());
        let newcomer = places.take(key(3));
        assert!(is_evicted(&crowd[0]) && !is_evicted(&crowd[1]));
        assert_eq!((places.held(), places.evicted()), (5, 1));
        // Two each: the older of the two oldest.
        let next = places.take(key(4));
        assert!(is_evicted(&crowd[1]) && !is_evicted(&pair));
        let last = places.take(key(5));
        assert!(is_evicted(&pair));
        for kept in [&single, &crowd[2], &newcomer, &next, &last] {
            assert!(!is_evicted(kept));
        }
        drop((single, crowd, pair, newcomer, next, last));
        assert_eq!(places.held(), 0);
        let table = places.lock();
        assert!(table.holders.is_empty() && table.order.is_empty());
    }

    #[test]
    fn behind_a_proxy_the_clients_address_counts() {
        let places = Places::new(3);
        let mut first = places.take(key(9));
        let crowd = [places.take(key(9)), places.take(key(9))];
        first.move_to(key(1));
        let _newcomer = places.take(key(2));
        assert!(!is_evicted(&first) && is_evicted(&crowd[0]));
        // What was taken away does not come back.
        let [mut gone, _rest] = crowd;
        gone.move_to(key(3));
        assert_eq!(places.held(), 3);
        drop(gone);
        assert_eq!(places.held(), 3);
    }

    #[test]
    fn patience_is_spent_by_waiting_and_earned_by_success() {
        let places = Places::new(1);
        places.note_waited(PATIENCE_MAX);
        assert!(!places.is_patient());
        places.take(key(1)).succeed();
        assert!(places.is_patient());
        places.note_waited(PATIENCE_EARNED);
        assert!(!places.is_patient());
        drop(places.take(key(1)));
        assert!(!places.is_patient());
    }

    #[test]
    fn an_owner_hears_of_it() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let places = Places::new(1);
        let place = places.take(key(1));
        let flag = Arc::new(Flag(false.into()));
        assert!(!place.holder.is_evicted(&flag.clone().into()));
        let _newcomer = places.take(key(2));
        assert!(flag.0.load(Ordering::Relaxed));
        assert!(is_evicted(&place));
    }
}
