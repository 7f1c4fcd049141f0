//! The broker's own statistics below `$SYS`: kept like retained messages, sent to whoever subscribes.
//!
//! Promises: none of it reaches the journal, counts against `limits.retained_*` or among the retained messages; who subscribes gets
//! the latest values [MQTT5-3.3.1-9], by QoS 0 whatever it asked for. A session that is away is not sent any, so it does not count as
//! drops what it never misses. Clients cannot publish here: `connection` refuses topics with `$`.
//!
//! Does not know: which statistics there are, how often they change.

use super::{Broker, UNLIMITED};
use crate::counters::Tally;
use crate::message::{ClientId, Message, MessageId, Origin, TopicName, Urgency};
use crate::sync::{lock, read, write};
use crate::time::Timestamp;
use motemq_codec::QoS;
use std::sync::Arc;

/// Brings the statistics up to date, before somebody who has just subscribed is sent them.
pub type SystemRefresh = Box<dyn Fn(Timestamp) + Send + Sync>;

impl Broker {
    /// Whether anybody subscribes to something below `$SYS`.
    #[must_use]
    pub fn has_system_readers(&self) -> bool {
        read(&self.router).has_branch(SYSTEM)
    }

    /// Has `refresh` called, under no lock, whenever a new subscription is to be sent statistics; the first one stays.
    pub fn on_system_read(&self, refresh: SystemRefresh) {
        // A broker has one server.
        let _ = self.system_refresh.set(refresh);
    }

    /// Keeps `value` for those who subscribe from now on; `true` when it is another one than before.
    pub fn set_system(&self, topic: &str, value: &str, now: Timestamp) -> bool {
        let is_known = |known: &Arc<Message>| *known.payload == *value.as_bytes();
        if read(&self.system).get(topic).is_some_and(is_known) {
            return false;
        }
        let message = Arc::new(system_message(topic, value, true, now));
        // Nothing limits these, so nothing refuses them.
        let _ = write(&self.system).set(message, &UNLIMITED);
        true
    }

    /// Keeps `value`, and if it is another one than before, sends it to whoever subscribes.
    pub fn publish_system_value(&self, topic: &str, value: &str, now: Timestamp) {
        if self.set_system(topic, value, now) {
            self.send_system(system_message(topic, value, true, now));
        }
    }

    /// Sends an event to whoever subscribes now.
    pub fn publish_system_event(&self, topic: &str, event: &str, now: Timestamp) {
        self.send_system(system_message(topic, event, false, now));
    }

    /// Sessions, connected or not; without looking at each.
    #[must_use]
    pub fn session_count(&self) -> usize {
        lock(&self.registry).sessions.len()
    }

    /// Share groups.
    #[must_use]
    pub fn share_group_count(&self) -> usize {
        read(&self.router).groups().count()
    }

    fn send_system(&self, message: Message) {
        let mut receivers = self.receivers(message.topic.as_str(), None);
        receivers
            .list
            .retain(|receiver| receiver.mailbox.is_online());
        let mut tally = Tally::default();
        self.hand_over(&Arc::new(message), &receivers, None, &mut tally);
        self.counters.add(&mut tally);
    }

    /// The values that a new subscription to `filter` is to be sent, if that is about the statistics.
    pub(super) fn system_values(&self, filter: &str, now: Timestamp) -> Option<Vec<Arc<Message>>> {
        let (first, _) = filter.split_once('/').unwrap_or((filter, ""));
        if first != SYSTEM {
            return None;
        }
        if let Some(refresh) = self.system_refresh.get() {
            refresh(now);
        }
        Some(read(&self.system).matching(filter, now))
    }
}

fn system_message(topic: &str, text: &str, retain: bool, now: Timestamp) -> Message {
    Message {
        topic: TopicName::new(topic),
        payload: text.as_bytes().into(),
        forwarded: Box::default(),
        qos: QoS::AtMostOnce,
        retain,
        publisher: ClientId::new(""),
        origin: Origin::Broker,
        hops: 0,
        received_at: now,
        expires_at: None,
        urgency: Urgency::default(),
        id: MessageId::default(),
        attempts: 0,
    }
}

/// The first level of all statistics.
const SYSTEM: &str = "$SYS";
