//! One action on its way to the disk, shared by those who wait for it.
//!
//! A record is pending, writing, durable, elided or failed (contracts section 4). Invariants:
//! - Only a pending record is elided, and only if it was received at QoS 1, changes nothing else, and every durable
//!   receiver has acknowledged it. So an acknowledgement already given is never elided.
//! - A delivery that ends while its record is pending leaves the record; one that ends later needs an action of its own.
//! - Whoever waits is woken exactly when the record leaves the pending and writing states.
//!
//! Does not know: who waits, what the journal does with it.

use crate::action::{Action, PublishAction, QueueId, QueueRef};
use crate::journal::JournalFailure;
use crate::message::{Message, Origin};
use crate::sync::lock;
use crate::wakeup::Wakeup;
use motemq_codec::QoS;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How far a record has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RecordState {
    /// Not yet taken by the journal.
    Pending,
    /// Being written.
    Writing,
    /// On disk.
    Durable,
    /// Not needed any more: everyone it was for has acknowledged it.
    Elided,
    /// The journal could not promise it. No acknowledgement may follow.
    Failed(JournalFailure),
}

/// An action and its state.
#[derive(Debug)]
pub struct Record {
    message: Option<Arc<Message>>,
    state: AtomicU8,
    /// The position in the journal; valid once durable.
    position: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Taken by the journal when it starts writing.
    action: Option<Action>,
    /// The publisher may still add receivers.
    is_open: bool,
    elidable: Elidable,
    waiting: Vec<Arc<Wakeup>>,
}

/// Whether a record may be dropped once all its receivers have acknowledged.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Elidable {
    /// Received at QoS 1, not retained, no will.
    Yes,
    /// It carries more than deliveries.
    No,
}

/// What ending a delivery asks of its owner.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum SettleNeeds {
    /// Nothing: the record never mentions the delivery.
    Nothing,
    /// A settle action must follow the record.
    Action,
}

impl Record {
    /// A record for an action that is complete.
    #[must_use]
    pub fn new(action: Action) -> Arc<Self> {
        Self::build(action, false, Elidable::No)
    }

    /// A record for a message whose receivers are still being added.
    #[must_use]
    pub(crate) fn open(action: PublishAction, elidable: Elidable) -> Arc<Self> {
        Self::build(Action::Publish(action), true, elidable)
    }

    fn build(action: Action, is_open: bool, elidable: Elidable) -> Arc<Self> {
        let message = match &action {
            Action::Publish(publish) => Some(publish.message.clone()),
            _ => None,
        };
        Arc::new(Self {
            message,
            state: AtomicU8::new(PENDING),
            position: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                action: Some(action),
                is_open,
                elidable,
                waiting: Vec::new(),
            }),
        })
    }

    /// The message, if the action has one.
    #[must_use]
    pub fn message(&self) -> Option<&Arc<Message>> {
        self.message.as_ref()
    }

    /// Whether deliveries wait for the commit: a message received at QoS 2, or a will (contracts section 3); or the end of the
    /// same delivery elsewhere.
    #[must_use]
    pub(crate) fn is_barrier(&self) -> bool {
        self.message
            .as_ref()
            .is_none_or(|message| message.qos == QoS::ExactlyOnce || message.origin == Origin::Will)
    }

    /// How far the record has come.
    #[must_use]
    pub fn state(&self) -> RecordState {
        match self.state.load(Ordering::Acquire) {
            PENDING => RecordState::Pending,
            WRITING => RecordState::Writing,
            DURABLE => RecordState::Durable,
            ELIDED => RecordState::Elided,
            UNKNOWN => RecordState::Failed(JournalFailure::Unknown),
            FENCED => RecordState::Failed(JournalFailure::Fenced),
            _ => RecordState::Failed(JournalFailure::Unavailable),
        }
    }

    /// Where the record is stored, once it is durable.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        (self.state() == RecordState::Durable).then(|| self.position.load(Ordering::Acquire))
    }

    /// Adds a durable receiver. Only while the record is open, so never after the journal has taken it.
    pub(crate) fn add(&self, queue_ref: QueueRef) {
        let mut inner = lock(&self.inner);
        assert!(
            inner.is_open,
            "receivers are added before the record is submitted"
        );
        if let Some(Action::Publish(publish)) = &mut inner.action {
            publish.refs.push(queue_ref);
        }
    }

    /// Ends the adding of receivers. `true` when the record must go to the journal.
    pub(crate) fn close(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.is_open = false;
        !self.elide_if_unneeded(&mut inner)
    }

    /// Notes that a delivery has ended.
    pub(crate) fn settle(&self, queue: QueueId, sequence: u64) -> SettleNeeds {
        let mut inner = lock(&self.inner);
        let Some(Action::Publish(publish)) = &mut inner.action else {
            return SettleNeeds::Action;
        };
        publish
            .refs
            .retain(|entry| entry.queue != queue || entry.sequence != sequence);
        let elided = self.elide_if_unneeded(&mut inner);
        let waiting = if elided {
            std::mem::take(&mut inner.waiting)
        } else {
            Vec::new()
        };
        drop(inner);
        waiting.iter().for_each(|wakeup| wakeup.wake());
        SettleNeeds::Nothing
    }

    fn elide_if_unneeded(&self, inner: &mut Inner) -> bool {
        let unneeded = match &inner.action {
            Some(Action::Publish(publish)) => {
                !inner.is_open && publish.refs.is_empty() && inner.elidable == Elidable::Yes
            }
            _ => false,
        };
        if unneeded {
            inner.action = None;
            self.state.store(ELIDED, Ordering::Release);
        }
        unneeded
    }

    /// Asks for a wake-up when the record leaves the pending and writing states; `false` when it has.
    #[must_use]
    pub fn wait(&self, wakeup: &Arc<Wakeup>) -> bool {
        let mut inner = lock(&self.inner);
        if self.state.load(Ordering::Acquire) > WRITING {
            return false;
        }
        if !inner.waiting.iter().any(|known| Arc::ptr_eq(known, wakeup)) {
            inner.waiting.push(wakeup.clone());
        }
        true
    }

    /// Whether what waits for this record must wait on: until it is durable or elided, and for good once it has failed.
    #[must_use]
    pub(crate) fn holds_back(&self, wakeup: &Arc<Wakeup>) -> bool {
        self.wait(wakeup) || matches!(self.state(), RecordState::Failed(_))
    }

    /// Takes the action for writing; `None` when the record was elided.
    #[must_use]
    pub fn begin_writing(&self) -> Option<Action> {
        let mut inner = lock(&self.inner);
        let action = inner.action.take()?;
        self.state.store(WRITING, Ordering::Release);
        Some(action)
    }

    /// Marks the record as stored at `position`; returns those to wake. (Wake after a whole batch is marked.)
    #[must_use]
    pub fn finish(&self, position: u64) -> Vec<Arc<Wakeup>> {
        let mut inner = lock(&self.inner);
        self.position.store(position, Ordering::Release);
        self.state.store(DURABLE, Ordering::Release);
        std::mem::take(&mut inner.waiting)
    }

    /// Marks the record as one that nobody can promise; returns those to wake.
    #[must_use]
    pub fn fail(&self, failure: JournalFailure) -> Vec<Arc<Wakeup>> {
        let mut inner = lock(&self.inner);
        if self.state.load(Ordering::Acquire) <= WRITING {
            let state = match failure {
                JournalFailure::Unknown => UNKNOWN,
                JournalFailure::Fenced => FENCED,
                JournalFailure::Unavailable => UNAVAILABLE,
            };
            self.state.store(state, Ordering::Release);
        }
        std::mem::take(&mut inner.waiting)
    }
}

const PENDING: u8 = 0;
const WRITING: u8 = 1;
const DURABLE: u8 = 2;
const ELIDED: u8 = 3;
const UNKNOWN: u8 = 4;
const FENCED: u8 = 5;
const UNAVAILABLE: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::RetainedEffect;

    #[test]
    fn a_pending_record_is_elided_when_every_receiver_has_acknowledged() {
        let record = with_refs(Elidable::Yes, &[1, 2]);
        assert!(record.close());
        assert_eq!(record.settle(QueueId::session(1), 7), SettleNeeds::Nothing);
        assert_eq!(record.state(), RecordState::Pending);
        assert_eq!(record.settle(QueueId::session(2), 7), SettleNeeds::Nothing);
        assert_eq!(record.state(), RecordState::Elided);
        assert!(record.begin_writing().is_none());
    }

    #[test]
    fn an_open_record_is_not_elided_by_its_first_receiver() {
        let record = with_refs(Elidable::Yes, &[1]);
        let _ = record.settle(QueueId::session(1), 7);
        assert_eq!(record.state(), RecordState::Pending);
        assert!(!record.close());
        assert_eq!(record.state(), RecordState::Elided);
    }

    #[test]
    fn a_record_that_is_being_written_is_not_elided() {
        let record = with_refs(Elidable::Yes, &[1]);
        assert!(record.close());
        assert!(record.begin_writing().is_some());
        assert_eq!(record.settle(QueueId::session(1), 7), SettleNeeds::Action);
        assert_eq!(record.state(), RecordState::Writing);
    }

    #[test]
    fn a_record_with_more_than_deliveries_is_written_without_them() {
        let record = with_refs(Elidable::No, &[1]);
        assert!(record.close());
        assert_eq!(record.settle(QueueId::session(1), 7), SettleNeeds::Nothing);
        match record.begin_writing() {
            Some(Action::Publish(publish)) => assert!(publish.refs.is_empty()),
            other => panic!("expected the publish, got {other:?}"),
        }
    }

    fn with_refs(elidable: Elidable, queues: &[u64]) -> Arc<Record> {
        let message = Arc::new(Message::sample("t"));
        let record = Record::open(
            PublishAction {
                message,
                refs: Vec::new(),
                retained: RetainedEffect::None,
                inbound: None,
                will_of: None,
            },
            elidable,
        );
        for queue in queues {
            record.add(QueueRef {
                queue: QueueId::session(*queue),
                sequence: 7,
                qos: QoS::AtLeastOnce,
                retain: false,
                subscription_ids: None,
            });
        }
        record
    }
}
