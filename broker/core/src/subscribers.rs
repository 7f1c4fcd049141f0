//! Who subscribes to one filter: one session most of the time, a whole fleet now and then.
//!
//! Invariants: a session is in the list once [MQTT5-3.8.4-3]. A list beyond [`LIST_MAX`] has an index with every session
//! of it, so adding or removing one costs the same however many there are. Does not know: the filter, what is delivered.

use crate::action::QueueId;
use crate::router::Subscription;
use crate::share_group::ShareGroup;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Who subscribes to one filter; 16 bytes, with one session in them.
#[derive(Debug, Default)]
pub(crate) enum Subscribers {
    #[default]
    Nobody,
    One(Subscription),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(crate) struct Many {
    sessions: Vec<Subscription>,
    index: Option<Index>,
    groups: Box<[Arc<ShareGroup>]>,
}

/// Places in a list of sessions by queue.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<u32>,
    hasher: RandomState,
}

/// Sessions among which one is found by looking at each.
const LIST_MAX: usize = 32;

impl Subscribers {
    pub(crate) fn sessions(&self) -> &[Subscription] {
        match self {
            Self::Nobody => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => &many.sessions,
        }
    }

    pub(crate) fn groups(&self) -> &[Arc<ShareGroup>] {
        match self {
            Self::Nobody | Self::One(_) => &[],
            Self::Many(many) => &many.groups,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions().is_empty() && self.groups().is_empty()
    }

    /// Adds or replaces the subscription of a session; `true` when it is new.
    pub(crate) fn put(&mut self, subscription: Subscription) -> bool {
        match self {
            Self::Nobody => {
                *self = Self::One(subscription);
                true
            }
            Self::One(one) if one.mailbox.queue() == subscription.mailbox.queue() => {
                *one = subscription;
                false
            }
            Self::One(_) | Self::Many(_) => {
                let mut many = self.take();
                let is_new = many.put(subscription);
                *self = Self::Many(many);
                is_new
            }
        }
    }

    /// Removes the subscription of a session; `false` when there was none.
    pub(crate) fn remove(&mut self, queue: QueueId) -> bool {
        match self {
            Self::One(one) if one.mailbox.queue() == queue => {
                *self = Self::Nobody;
                true
            }
            Self::Nobody | Self::One(_) => false,
            Self::Many(many) => many.remove(queue),
        }
    }

    pub(crate) fn add_group(&mut self, group: Arc<ShareGroup>) {
        let mut many = self.take();
        let others = std::mem::take(&mut many.groups).into_iter();
        many.groups = others.chain([group]).collect();
        *self = Self::Many(many);
    }

    pub(crate) fn remove_group(&mut self, group: &Arc<ShareGroup>) {
        if let Self::Many(many) = self {
            let others = std::mem::take(&mut many.groups).into_iter();
            many.groups = others.filter(|other| !Arc::ptr_eq(other, group)).collect();
        }
    }

    /// All there is, in the form that has room for more.
    fn take(&mut self) -> Box<Many> {
        match std::mem::take(self) {
            Self::Nobody => Box::default(),
            Self::One(one) => Box::new(Many {
                sessions: vec![one],
                ..Many::default()
            }),
            Self::Many(many) => many,
        }
    }
}

impl Many {
    fn put(&mut self, subscription: Subscription) -> bool {
        let queue = subscription.mailbox.queue();
        if let Some(known) = self.place(queue).and_then(|at| self.sessions.get_mut(at)) {
            *known = subscription;
            return false;
        }
        self.sessions.push(subscription);
        if self.index.is_some() || self.sessions.len() > LIST_MAX {
            let index = self.index.get_or_insert_default();
            for place in index.places.len()..self.sessions.len() {
                index.add(place, &self.sessions);
            }
        }
        true
    }

    fn remove(&mut self, queue: QueueId) -> bool {
        let Some(place) = self.place(queue) else {
            return false;
        };
        let last = self.sessions.len() - 1;
        if let Some(index) = &mut self.index {
            index.remove(place, &self.sessions);
            if place != last {
                index.remove(last, &self.sessions);
            }
        }
        self.sessions.swap_remove(place);
        if let Some(index) = &mut self.index
            && place != last
        {
            index.add(place, &self.sessions);
        }
        if self.sessions.len() < LIST_MAX / 2 {
            self.index = None;
        }
        if self.sessions.len() < self.sessions.capacity() / 4 {
            self.sessions.shrink_to(self.sessions.len() * 2);
        }
        true
    }

    fn place(&self, queue: QueueId) -> Option<usize> {
        match &self.index {
            Some(index) => index.find(queue, &self.sessions),
            None => self
                .sessions
                .iter()
                .position(|known| known.mailbox.queue() == queue),
        }
    }
}

impl Index {
    fn find(&self, queue: QueueId, sessions: &[Subscription]) -> Option<usize> {
        let is_it = |place: &u32| queue_at(sessions, *place) == Some(queue);
        let place = self.places.find(self.hasher.hash_one(Some(queue)), is_it)?;
        Some(*place as usize)
    }

    fn add(&mut self, place: usize, sessions: &[Subscription]) {
        #[expect(
            clippy::expect_used,
            reason = "four billion sessions do not fit in memory"
        )]
        let place = u32::try_from(place).expect("fewer than 2^32 sessions");
        let Self { places, hasher } = self;
        let hash_of = |place: &u32| hasher.hash_one(queue_at(sessions, *place));
        places.insert_unique(hash_of(&place), place, hash_of);
    }

    fn remove(&mut self, place: usize, sessions: &[Subscription]) {
        let queue = sessions.get(place).map(|known| known.mailbox.queue());
        let hash = self.hasher.hash_one(queue);
        if let Ok(entry) = self
            .places
            .find_entry(hash, |known| *known as usize == place)
        {
            entry.remove();
        }
    }
}

fn queue_at(sessions: &[Subscription], place: u32) -> Option<QueueId> {
    let known = sessions.get(place as usize)?;
    Some(known.mailbox.queue())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::mailbox::Mailbox;
    use crate::message::ClientId;
    use motemq_codec::SubscribeOptions;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn one_subscriber_needs_no_more_than_its_subscription() {
        assert_eq!(size_of::<Subscription>(), 16);
        assert_eq!(size_of::<Option<Subscribers>>(), 16);
    }

    #[test]
    fn the_index_goes_when_the_list_is_short_again() {
        let mut subscribers = Subscribers::default();
        for number in 0..100 {
            assert!(subscribers.put(subscription(number)));
        }
        for number in 0..99 {
            assert!(subscribers.remove(QueueId::session(number)));
        }
        let Subscribers::Many(many) = &subscribers else {
            unreachable!("there were many");
        };
        assert!(many.index.is_none());
        assert!(many.sessions.capacity() < 16);
    }

    proptest! {
        #[test]
        fn a_session_is_in_the_list_once_however_it_grows_and_shrinks(
            changes in proptest::collection::vec((0_u64..60, prop::bool::weighted(0.6)), 0..300),
        ) {
            let mut subscribers = Subscribers::default();
            let mut expected = BTreeSet::new();
            for (number, is_added) in changes {
                if is_added {
                    prop_assert_eq!(subscribers.put(subscription(number)), expected.insert(number));
                } else {
                    let queue = QueueId::session(number);
                    prop_assert_eq!(subscribers.remove(queue), expected.remove(&number));
                }
                let sessions = subscribers.sessions();
                let known: BTreeSet<_> = sessions.iter().map(|one| one.mailbox.queue().number()).collect();
                prop_assert_eq!(sessions.len(), known.len());
                prop_assert_eq!(&known, &expected);
            }
        }
    }

    fn subscription(number: u64) -> Subscription {
        Subscription {
            mailbox: Mailbox::new(
                QueueId::session(number),
                ClientId::new("c"),
                &Limits::default(),
            ),
            options: SubscribeOptions::default(),
            subscription_id: None,
        }
    }
}
