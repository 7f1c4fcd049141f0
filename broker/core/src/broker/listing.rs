//! What whoever operates the broker looks up and changes: sessions, subscriptions, retained messages.
//!
//! Promises: one session is locked at a time, for a moment; a list of all of them is names only. Does not know: who asks, pages.

use super::{Broker, PublishSource, Receipt};
use crate::counters::Tally;
use crate::mailbox::Load;
use crate::message::{ClientId, Expiry, Identity, Message, MessageId, Origin, TopicName, Urgency};
use crate::record::{Record, RecordState};
use crate::sync::{lock, read};
use crate::time::Timestamp;
use crate::wakeup::Wakeup;
use motemq_codec::{QoS, SubscribeOptions, is_shared};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// A session, as of one moment.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    /// Its client.
    pub client_id: ClientId,
    /// Whose it is.
    pub identity: Identity,
    /// The client is connected.
    pub is_connected: bool,
    /// Where it connected last, as far as that is known.
    pub listener: Option<Arc<str>>,
    /// When its connection ended, if it has none.
    pub disconnected_at: Option<Timestamp>,
    /// How long it outlives its connection.
    pub expiry: Expiry,
    /// Subscriptions.
    pub subscriptions: usize,
    /// What waits for it.
    pub load: Load,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// The filter, as the client wrote it.
    pub filter: String,
    /// The granted options; of a share group's member they are the group's to know.
    pub options: Option<SubscribeOptions>,
}

/// A message that an operator publishes.
#[derive(Clone, Debug)]
pub struct OperatorMessage {
    /// Its topic: valid, and not of the broker.
    pub topic: TopicName,
    /// Any bytes.
    pub payload: Box<[u8]>,
    /// Properties in wire form (see `motemq_codec::Forwarded`).
    pub forwarded: Box<[u8]>,
    /// The quality of service.
    pub qos: QoS,
    /// Whether it is retained; without payload it removes what is.
    pub retain: bool,
    /// Seconds until it expires.
    pub expiry_s: Option<u32>,
}

impl Broker {
    /// The clients that have sessions, in no order.
    #[must_use]
    pub fn client_ids(&self) -> Vec<ClientId> {
        lock(&self.registry).sessions.keys().cloned().collect()
    }

    /// The session of a client.
    #[must_use]
    pub fn session_facts(&self, client_id: &str) -> Option<SessionFacts> {
        let session = self.session(client_id)?;
        let state = session.lock();
        Some(SessionFacts {
            client_id: session.client_id().clone(),
            identity: state.identity.clone(),
            is_connected: state.is_connected,
            listener: state.listener.clone(),
            disconnected_at: state.disconnected_at,
            expiry: state.expiry,
            subscriptions: state.filters.len(),
            load: session.mailbox().load(),
        })
    }

    /// What a client subscribes to, by filter.
    #[must_use]
    pub fn subscriptions_of(&self, client_id: &str) -> Option<Vec<SubscriptionFacts>> {
        let session = self.session(client_id)?;
        let state = session.lock();
        let mut filters: Vec<_> = state
            .filters
            .iter()
            .map(|f| f.as_str().to_owned())
            .collect();
        drop(state);
        filters.sort_unstable();
        let router = read(&self.router);
        let facts = filters.into_iter().map(|filter| SubscriptionFacts {
            options: match is_shared(&filter) {
                true => None,
                false => router.options(&filter, session.queue()),
            },
            filter,
        });
        Some(facts.collect())
    }

    /// The retained messages whose topics `filter` matches, in the order of their topics.
    #[must_use]
    pub fn retained_matching(&self, filter: &str, now: Timestamp) -> Vec<Arc<Message>> {
        let mut found = read(&self.retained).matching(filter, now);
        found.sort_unstable_by(|a, b| a.topic.as_str().cmp(b.topic.as_str()));
        found
    }

    /// Who receives `topic` now, with the QoS it was granted, and the filters of the share groups that do.
    #[must_use]
    pub fn readers_of(&self, topic: &str) -> (Vec<(ClientId, QoS)>, Vec<String>) {
        let receivers = self.receivers(topic, None);
        let sessions = receivers.list.iter();
        let mut sessions: Vec<_> = sessions
            .map(|receiver| (receiver.mailbox.owner().clone(), receiver.qos))
            .collect();
        sessions.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        let groups = receivers
            .groups
            .iter()
            .map(|group| group.filter().to_owned());
        (sessions, groups.collect())
    }

    /// Publishes as if a client had; what is to be waited for comes with the receipt.
    #[must_use]
    pub fn publish_for_operator(
        &self,
        publisher: &str,
        message: OperatorMessage,
        now: Timestamp,
    ) -> Receipt {
        let message = Message {
            topic: message.topic,
            payload: message.payload,
            forwarded: message.forwarded,
            qos: message.qos,
            retain: message.retain,
            publisher: ClientId::new(publisher),
            origin: Origin::Client,
            hops: 0,
            received_at: now,
            expires_at: message.expiry_s.map(|seconds| now.plus_s(seconds)),
            urgency: Urgency::default(),
            id: MessageId {
                connection: self.next_connection(),
                sequence: 1,
            },
            attempts: 0,
        };
        let receivers = self.receivers(message.topic.as_str(), None);
        let mut tally = Tally::default();
        let source = PublishSource::default();
        let receipt = self.publish(&Arc::new(message), &receivers, source, &mut tally);
        self.add_own_tally(&mut tally, || now);
        receipt
    }
}

impl Record {
    /// Ends when it is known whether the record is kept: `true` when it is on disk, or nobody needs it any more.
    pub async fn kept(self: Arc<Self>) -> bool {
        let wakeup = Arc::new(Wakeup::default());
        poll_fn(|cx| {
            // Nobody else owns it.
            let _ = wakeup.begin(0, cx.waker());
            match self.wait(&wakeup) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        matches!(self.state(), RecordState::Durable | RecordState::Elided)
    }
}
