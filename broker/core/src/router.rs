//! Subscriptions to mailboxes and share groups.
//!
//! Invariants: a session has at most one subscription per filter [MQTT5-3.8.4-3]; a session whose filters overlap is one
//! receiver with the highest QoS and every identifier [MQTT5-3.3.4-2]. What a look-up found holds for one generation of
//! the table. Does not know: packets, sessions, QoS rules beyond the number.

use crate::action::QueueId;
use crate::mailbox::Mailbox;
use crate::message::TopicName;
use crate::share_group::ShareGroup;
use crate::subscribers::Subscribers;
use crate::trie::TopicTrie;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use motemq_codec::{QoS, SubscribeOptions};
use smallvec::SmallVec;
use std::num::NonZeroU32;
use std::sync::Arc;

/// One session's interest in one filter.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Where messages go.
    pub mailbox: Arc<Mailbox>,
    /// The granted options.
    pub options: SubscribeOptions,
    /// The identifier to send along; never 0.
    pub subscription_id: Option<NonZeroU32>,
}

/// One session's interest in one topic.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Where the message goes.
    pub mailbox: Arc<Mailbox>,
    /// The highest granted quality of service.
    pub qos: QoS,
    /// Keep the publisher's RETAIN flag [MQTT5-3.3.1-13].
    pub retain_as_published: bool,
    /// The identifiers of all matching subscriptions [MQTT5-3.3.4-4].
    pub subscription_ids: Option<Arc<[u32]>>,
}

/// Who receives one topic from one publisher.
#[derive(Debug)]
pub struct Receivers {
    /// The topic.
    pub topic: TopicName,
    /// The receivers, one per session.
    pub list: SmallVec<[Receiver; 1]>,
    /// The share groups, beside the sessions' own subscriptions (MQTT 5.0 section 4.8.2).
    pub groups: Box<[Arc<ShareGroup>]>,
    /// What it took to find them: nodes and subscriptions looked at.
    pub(crate) work: usize,
}

impl Receivers {
    /// One receiver, whatever it subscribes to.
    pub(crate) fn only(topic: TopicName, receiver: Receiver) -> Self {
        Self {
            topic,
            list: SmallVec::from([receiver]),
            groups: Box::default(),
            work: 0,
        }
    }

    /// Whether nobody receives the topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.groups.is_empty()
    }
}

/// The subscription table.
#[derive(Debug, Default)]
pub struct Router {
    trie: TopicTrie<Subscribers>,
    subscriptions: usize,
    /// By `$share/name/filter`.
    groups: HashMap<Box<str>, Arc<ShareGroup>, RandomState>,
}

impl Router {
    /// Adds or replaces the subscription of a session to `filter`; `true` when it is new.
    pub fn subscribe(&mut self, filter: &str, subscription: Subscription) -> bool {
        let is_new = self.trie.entry(filter).put(subscription);
        self.subscriptions += usize::from(is_new);
        is_new
    }

    /// Removes the subscription of a session to `filter`; `false` when there was none.
    pub fn unsubscribe(&mut self, filter: &str, queue: QueueId) -> bool {
        let Some(known) = self.trie.get_mut(filter) else {
            return false;
        };
        if !known.remove(queue) {
            return false;
        }
        if known.is_empty() {
            self.trie.remove(filter);
        }
        self.subscriptions -= 1;
        true
    }

    /// The share group of `$share/name/filter`.
    #[must_use]
    pub fn group(&self, filter: &str) -> Option<&Arc<ShareGroup>> {
        self.groups.get(filter)
    }

    /// All share groups.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<ShareGroup>> {
        self.groups.values()
    }

    /// Adds a share group.
    pub fn add_group(&mut self, group: Arc<ShareGroup>) {
        self.trie
            .entry(group.topic_filter())
            .add_group(group.clone());
        self.groups.insert(group.filter().into(), group);
    }

    /// Removes a share group.
    pub fn remove_group(&mut self, group: &Arc<ShareGroup>) {
        self.groups.remove(group.filter());
        let filter = group.topic_filter();
        let Some(known) = self.trie.get_mut(filter) else {
            return;
        };
        known.remove_group(group);
        if known.is_empty() {
            self.trie.remove(filter);
        }
    }

    /// Whether there are filters whose first level is `level`, which is no wildcard; those of share groups too.
    #[must_use]
    pub fn has_branch(&self, level: &str) -> bool {
        self.trie.has_branch(level)
    }

    /// Subscriptions in the table; a share group counts once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions + self.groups.len()
    }

    /// Whether nobody subscribes to anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the session with this queue was granted for `filter`.
    #[must_use]
    pub fn options(&self, filter: &str, queue: QueueId) -> Option<SubscribeOptions> {
        let sessions = self.trie.get(filter)?.sessions().iter();
        let mut own = sessions.filter(|subscription| subscription.mailbox.queue() == queue);
        own.next().map(|subscription| subscription.options)
    }

    /// Who receives `topic` from the session with queue `publisher`.
    #[must_use]
    pub fn receivers(&self, topic: &str, publisher: Option<QueueId>) -> Receivers {
        let mut found = Found::default();
        let mut groups = Vec::new();
        let looked_at = self.trie.matches(topic, |subscribers| {
            groups.extend(subscribers.groups().iter().cloned());
            found.add(subscribers.sessions(), publisher);
        });
        found.give_identifiers();
        Receivers {
            topic: TopicName::new(topic),
            list: found.list,
            groups: groups.into_boxed_slice(),
            work: looked_at + found.merged,
        }
    }
}

/// The receivers found so far, one per session.
#[derive(Default)]
struct Found {
    list: SmallVec<[Receiver; 1]>,
    /// Their places in the list, once there are many.
    places: HashMap<QueueId, usize, RandomState>,
    /// The identifiers of those that have several, by place.
    identifiers: Option<Box<HashMap<usize, Vec<u32>, RandomState>>>,
    merged: usize,
}

impl Found {
    /// Adds those who subscribe to one more matching filter. Nobody is in `sessions` twice.
    fn add(&mut self, sessions: &[Subscription], publisher: Option<QueueId>) {
        let before = self.list.len();
        if before > FEW && self.places.len() < before {
            let known = self.list.iter().enumerate().skip(self.places.len());
            self.places
                .extend(known.map(|(place, known)| (known.mailbox.queue(), place)));
        }
        if before == 0 {
            self.list.reserve_exact(sessions.len());
        }
        for subscription in sessions {
            // [MQTT5-3.8.3-3]
            if subscription.options.no_local && publisher == Some(subscription.mailbox.queue()) {
                continue;
            }
            match self.earlier(subscription, before) {
                Some(place) => self.merge(place, subscription),
                None => self.list.push(Receiver::new(subscription)),
            }
        }
    }

    /// The place of the session among the first `before` of the list.
    fn earlier(&self, subscription: &Subscription, before: usize) -> Option<usize> {
        if before > FEW {
            return self.places.get(&subscription.mailbox.queue()).copied();
        }
        self.list
            .iter()
            .take(before)
            .position(|known| Arc::ptr_eq(&known.mailbox, &subscription.mailbox))
    }

    /// One more subscription of the receiver at `place`.
    fn merge(&mut self, place: usize, subscription: &Subscription) {
        self.merged += 1;
        let Some(receiver) = self.list.get_mut(place) else {
            return;
        };
        receiver.qos = receiver.qos.max(subscription.options.qos);
        receiver.retain_as_published |= subscription.options.retain_as_published;
        if let Some(id) = subscription.subscription_id {
            let known = receiver.subscription_ids.as_deref().unwrap_or_default();
            let identifiers = self.identifiers.get_or_insert_default().entry(place);
            identifiers.or_insert_with(|| known.to_vec()).push(id.get());
        }
    }

    /// Shares the identifiers of those that have several, once all are known.
    fn give_identifiers(&mut self) {
        for (place, identifiers) in self.identifiers.take().into_iter().flat_map(|all| *all) {
            if let Some(receiver) = self.list.get_mut(place) {
                receiver.subscription_ids = Some(identifiers.into());
            }
        }
    }
}

/// Receivers among whom one is found sooner by looking at each.
const FEW: usize = 16;

impl Receiver {
    fn new(subscription: &Subscription) -> Self {
        Self {
            mailbox: subscription.mailbox.clone(),
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            subscription_ids: subscription.subscription_id.map(|id| Arc::from([id.get()])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::message::ClientId;

    #[test]
    fn a_session_whose_filters_overlap_is_one_receiver_however_many_there_are() {
        // [MQTT5-3.3.4-2] [MQTT5-3.3.4-4]
        for sessions in [1, FEW, FEW + 1, 100] {
            let mailboxes: Vec<_> = (0..sessions).map(mailbox).collect();
            let mut router = Router::default();
            // The first session has two filters, the others three.
            for (filter, qos) in [("a/#", 0), ("a/b", 2), ("a/+", 1)] {
                for mailbox in mailboxes.iter().skip(usize::from(qos == 0)) {
                    assert!(router.subscribe(filter, subscription(mailbox, qos)));
                }
            }
            let receivers = router.receivers("a/b", None);
            assert_eq!(receivers.list.len(), sessions);
            let first = mailboxes.first().map(|mailbox| mailbox.queue());
            for receiver in &receivers.list {
                assert_eq!(receiver.qos, QoS::ExactlyOnce);
                let filters = 3 - usize::from(Some(receiver.mailbox.queue()) == first);
                let ids = receiver.subscription_ids.as_ref();
                assert_eq!(ids.map(|ids| ids.len()), Some(filters));
            }
        }
    }

    #[test]
    fn no_local_leaves_out_the_publisher_alone() {
        // [MQTT5-3.8.3-3]
        let mut router = Router::default();
        let (publisher, other) = (mailbox(1), mailbox(2));
        for mailbox in [&publisher, &other] {
            let mut subscription = subscription(mailbox, 0);
            subscription.options.no_local = true;
            router.subscribe("a", subscription);
        }
        let receivers = router.receivers("a", Some(publisher.queue()));
        let queues: Vec<_> = receivers.list.iter().map(|r| r.mailbox.queue()).collect();
        assert_eq!(queues, [other.queue()]);
    }

    fn mailbox(number: usize) -> Arc<Mailbox> {
        let owner = ClientId::new(&number.to_string());
        Mailbox::new(QueueId::session(number as u64), owner, &Limits::default())
    }

    fn subscription(mailbox: &Arc<Mailbox>, qos: u8) -> Subscription {
        Subscription {
            mailbox: mailbox.clone(),
            options: SubscribeOptions {
                qos: QoS::from_bits(qos).unwrap(),
                ..SubscribeOptions::default()
            },
            subscription_id: NonZeroU32::new(u32::from(qos) + 1),
        }
    }
}
