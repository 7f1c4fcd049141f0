//! Subscriptions to mailboxes and share groups.
//!
//! Invariants: a session has at most one subscription per filter [MQTT5-3.8.4-3]; a session whose filters overlap is one
//! receiver with the highest QoS and every identifier [MQTT5-3.3.4-2]. What a look-up found holds for one generation of
//! the table. Does not know: packets, sessions, QoS rules beyond the number.

use crate::action::QueueId;
use crate::mailbox::Mailbox;
use crate::message::TopicName;
use crate::share_group::ShareGroup;
use crate::trie::TopicTrie;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use motemq_codec::{QoS, SubscribeOptions};
use std::sync::Arc;

/// One session's interest in one filter.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Where messages go.
    pub mailbox: Arc<Mailbox>,
    /// The granted options.
    pub options: SubscribeOptions,
    /// The identifier to send along.
    pub subscription_id: Option<u32>,
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
    pub list: Box<[Receiver]>,
    /// The share groups, beside the sessions' own subscriptions (MQTT 5.0 section 4.8.2).
    pub groups: Box<[Arc<ShareGroup>]>,
}

impl Receivers {
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

/// Who subscribes to one filter.
#[derive(Debug, Default)]
struct Subscribers {
    sessions: Vec<Subscription>,
    groups: Box<[Arc<ShareGroup>]>,
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty()
    }
}

impl Router {
    /// Adds or replaces the subscription of a session to `filter`; `true` when it is new.
    pub fn subscribe(&mut self, filter: &str, subscription: Subscription) -> bool {
        let known = &mut self.trie.entry(filter).sessions;
        let queue = subscription.mailbox.queue();
        if let Some(before) = known
            .iter_mut()
            .find(|other| other.mailbox.queue() == queue)
        {
            *before = subscription;
            return false;
        }
        known.push(subscription);
        self.subscriptions += 1;
        true
    }

    /// Removes the subscription of a session to `filter`; `false` when there was none.
    pub fn unsubscribe(&mut self, filter: &str, queue: QueueId) -> bool {
        let Some(known) = self.trie.get_mut(filter) else {
            return false;
        };
        let Some(index) = known
            .sessions
            .iter()
            .position(|other| other.mailbox.queue() == queue)
        else {
            return false;
        };
        known.sessions.swap_remove(index);
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
        let known = self.trie.entry(group.topic_filter());
        let others = std::mem::take(&mut known.groups).into_iter();
        known.groups = others.chain([group.clone()]).collect();
        self.groups.insert(group.filter().into(), group);
    }

    /// Removes a share group.
    pub fn remove_group(&mut self, group: &Arc<ShareGroup>) {
        self.groups.remove(group.filter());
        let filter = group.topic_filter();
        let Some(known) = self.trie.get_mut(filter) else {
            return;
        };
        let others = std::mem::take(&mut known.groups).into_iter();
        known.groups = others.filter(|other| !Arc::ptr_eq(other, group)).collect();
        if known.is_empty() {
            self.trie.remove(filter);
        }
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

    /// Who receives `topic` from the session with queue `publisher`.
    #[must_use]
    pub fn receivers(&self, topic: &str, publisher: Option<QueueId>) -> Receivers {
        let mut list: Vec<Receiver> = Vec::new();
        let mut places: HashMap<QueueId, usize, RandomState> = HashMap::default();
        let mut groups = Vec::new();
        self.trie.matches(topic, |subscribers| {
            groups.extend(subscribers.groups.iter().cloned());
            for subscription in &subscribers.sessions {
                let queue = subscription.mailbox.queue();
                // [MQTT5-3.8.3-3]
                if subscription.options.no_local && publisher == Some(queue) {
                    continue;
                }
                match places.get(&queue).and_then(|place| list.get_mut(*place)) {
                    Some(receiver) => receiver.merge(subscription),
                    None => {
                        places.insert(queue, list.len());
                        list.push(Receiver::new(subscription));
                    }
                }
            }
        });
        Receivers {
            topic: TopicName::new(topic),
            list: list.into_boxed_slice(),
            groups: groups.into_boxed_slice(),
        }
    }
}

impl Receiver {
    fn new(subscription: &Subscription) -> Self {
        Self {
            mailbox: subscription.mailbox.clone(),
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            subscription_ids: subscription.subscription_id.map(|id| Arc::from([id])),
        }
    }

    fn merge(&mut self, subscription: &Subscription) {
        self.qos = self.qos.max(subscription.options.qos);
        self.retain_as_published |= subscription.options.retain_as_published;
        if let Some(id) = subscription.subscription_id {
            let known = self
                .subscription_ids
                .iter()
                .flat_map(|ids| ids.iter().copied());
            self.subscription_ids = Some(known.chain([id]).collect());
        }
    }
}
