//! What was lost in one run of a connection, on its way from under the locks to the history.
//!
//! Invariants: bounded, and nothing is copied but counts of what is shared: losses that repeat the last one are counted with it, more
//! than [`LOSSES_MAX`] only in number. Does not know: time, the ring.

use crate::counters::DropReason;
use crate::message::{ClientId, Message, TopicName};
use motemq_codec::QoS;
use std::borrow::Cow;

/// Why a message did not arrive, in the words of the history.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LossReason {
    /// It was on its way to its receivers.
    Dropped(DropReason),
    /// The ACL does not let the publisher send it.
    PublishDenied,
    /// A limit or rule of the publisher stood against it.
    PublishRefused,
    /// The session that it waited in has ended.
    SessionEnded,
}

impl LossReason {
    /// All reasons.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let others = [
            Self::PublishDenied,
            Self::PublishRefused,
            Self::SessionEnded,
        ];
        let dropped = DropReason::ALL.into_iter().map(Self::Dropped);
        dropped.chain(others).collect()
    }

    /// Its name: that of the metric where there is one.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dropped(reason) => reason.label(),
            Self::PublishDenied => "publish_denied",
            Self::PublishRefused => "publish_refused",
            Self::SessionEnded => "session_ended",
        }
    }
}

/// What is known of a message that is lost.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Lost<'a> {
    /// All of it.
    Message(&'a Message),
    /// Where the store has it, or had it.
    Stored(u64),
    /// Nothing.
    Unknown,
}

/// Messages that one client did not get, or that did not get further than its publisher, for one reason.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) reason: LossReason,
    pub(crate) client: ClientId,
    /// Where the store may know the topic.
    pub(crate) position: Option<u64>,
    pub(crate) topic: Option<TopicName>,
    pub(crate) publisher: Option<ClientId>,
    pub(crate) qos: Option<QoS>,
    pub(crate) count: u32,
    pub(crate) detail: Cow<'static, str>,
}

impl Loss {
    fn is_of(&self, reason: LossReason, client: &ClientId, topic: Option<&str>) -> bool {
        let own = self.topic.as_ref().map(TopicName::as_str);
        let is_known = self.position.is_none();
        is_known && self.reason == reason && self.client == *client && own == topic
    }
}

/// The losses of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    pub(crate) list: Vec<Loss>,
    /// Those of the publisher itself that are in the list and had their topic copied.
    copied: u32,
    /// Those of this publisher that are not.
    pub(crate) more_of: Option<(ClientId, LossReason, u32)>,
    /// All others that are not.
    pub(crate) more: u32,
}

impl Losses {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        // The other counts begin when the list is full.
        self.list.is_empty()
    }

    /// Notes messages that `client` does not get.
    pub(crate) fn note(
        &mut self,
        reason: LossReason,
        client: &ClientId,
        lost: Lost<'_>,
        qos: QoS,
        detail: &'static str,
    ) {
        let (message, position) = match lost {
            Lost::Message(message) => (Some(message), None),
            Lost::Stored(position) => (None, Some(position)),
            Lost::Unknown => (None, None),
        };
        let topic = message.map(|message| message.topic.as_str());
        let publisher = message.map(|message| &message.publisher);
        if position.is_none() && self.repeats(reason, client, topic, publisher) {
            return;
        }
        if self.list.len() >= LOSSES_MAX {
            self.more = self.more.saturating_add(1);
            return;
        }
        self.list.push(Loss {
            reason,
            client: client.clone(),
            position,
            topic: message.map(|message| message.topic.clone()),
            publisher: message.map(|message| message.publisher.clone()),
            qos: Some(qos),
            count: 1,
            detail: detail.into(),
        });
    }

    /// Notes that so many messages went with something of `client`.
    pub(crate) fn note_many(&mut self, reason: LossReason, client: &ClientId, count: u32) {
        self.list.push(Loss {
            reason,
            client: client.clone(),
            position: None,
            topic: None,
            publisher: None,
            qos: None,
            count,
            detail: "".into(),
        });
    }

    /// Notes a message that did not get further than its publisher. Its topic is copied, for the first few.
    pub(crate) fn note_own(
        &mut self,
        reason: LossReason,
        publisher: &ClientId,
        topic: &str,
        qos: QoS,
        detail: impl FnOnce() -> Cow<'static, str>,
    ) {
        if self.repeats(reason, publisher, Some(topic), Some(publisher)) {
            return;
        }
        if self.copied >= COPIES_MAX {
            let more = self
                .more_of
                .get_or_insert_with(|| (publisher.clone(), reason, 0));
            more.2 = more.2.saturating_add(1);
            return;
        }
        self.copied += 1;
        self.list.push(Loss {
            reason,
            client: publisher.clone(),
            position: None,
            topic: Some(TopicName::new(super::event::cut(topic))),
            publisher: Some(publisher.clone()),
            qos: Some(qos),
            count: 1,
            detail: detail(),
        });
    }

    fn repeats(
        &mut self,
        reason: LossReason,
        client: &ClientId,
        topic: Option<&str>,
        publisher: Option<&ClientId>,
    ) -> bool {
        let Some(last) = self.list.last_mut() else {
            return false;
        };
        let is_same = last.is_of(reason, client, topic) && last.publisher.as_ref() == publisher;
        last.count = last.count.saturating_add(is_same.into());
        is_same
    }
}

/// Losses that one run of a connection can name.
const LOSSES_MAX: usize = 1024;
/// Of those, how many may have a topic of their own.
const COPIES_MAX: u32 = 8;
