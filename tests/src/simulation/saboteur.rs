//! A journal, and rules that can be broken on purpose between it and the broker.
//!
//! Without a [`Fault`] it is the [`SimJournal`] and nothing else. With one, the broker's records are exchanged for changed
//! ones, or reported as durable too early, or lost: mutants of the broker made without touching its code.

use motemq_codec::QoS;
use motemq_core::{
    Action, BacklogRequest, Journal, JournalFailure, QueueId, Record, RecordState, RetainedEffect,
    Room, SimDisk, SimJournal, SimJournalRules, Wakeup,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// One rule to break, to see that the checker notices.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Every rule holds.
    #[default]
    None,
    /// Control: records count as durable when submitted.
    AcknowledgesBeforeCommit,
    /// Control: commits return before the disk has them.
    FsyncLies,
    /// Control: a message received at QoS 2 is delivered before its id is durable; PUBREC waits as it should.
    QoS2DeliveredBeforeDurable,
    /// PUBREC and PUBACK leave before the record is durable; nothing else does.
    PublishAcknowledgedEarly,
    /// PUBCOMP leaves before the removal of the inbound id is durable.
    PubCompEarly,
    /// The removal of an inbound id is never stored.
    InboundRemovedLost,
    /// A QoS 2 publish is stored without its inbound id.
    InboundIdLost,
    /// "PUBREC received" is never stored.
    ReleaseLost,
    /// Half of the publishes are stored without their first receiver.
    ReceiverLost,
    /// Retained messages are not stored.
    RetainedLost,
    /// A will is stored as published but not removed.
    WillNotRemoved,
    /// Wills are not stored with their sessions.
    WillLost,
    /// Subscriptions are acknowledged and not stored.
    SubscriptionLost,
    /// A share group's QoS 2 delivery goes to its member before the store has it there.
    MoveEarly,
    /// What a share group gave to a member stays the group's in the store.
    MoveLost,
    /// What a share group got back stays the member's in the store.
    MoveBackLost,
    /// Sessions are announced before they are stored.
    SessionPutEarly,
    /// The end of a session is not stored.
    SessionEndedLost,
    /// Messages are stored without their expiry.
    ExpiryLost,
    /// Between broker and client: neighbouring PUBLISHes change places.
    PublishesSwapped,
    /// Between broker and client: neighbouring acknowledgements change places.
    AcksSwapped,
    /// Between broker and client: a PUBLISH is sent twice.
    PublishRepeated,
    /// Between broker and client: CONNACK says the opposite about the session.
    SessionPresentFlipped,
    /// The broker's timers run two seconds early.
    TimersEarly,
    /// The broker's timers never run.
    TimersDead,
    /// A connection that ends abruptly is reported with a normal DISCONNECT.
    WillsForgotten,
    /// Wake-ups are lost now and then.
    WakeUpsLost,
}

impl Fault {
    /// The journal's own lies.
    fn rules(self) -> SimJournalRules {
        SimJournalRules {
            acknowledges_before_commit: self == Self::AcknowledgesBeforeCommit,
            fsync_lies: self == Self::FsyncLies,
        }
    }

    fn touches_records(self) -> bool {
        matches!(
            self,
            Self::QoS2DeliveredBeforeDurable
                | Self::PublishAcknowledgedEarly
                | Self::PubCompEarly
                | Self::InboundRemovedLost
                | Self::InboundIdLost
                | Self::ReleaseLost
                | Self::ReceiverLost
                | Self::RetainedLost
                | Self::WillNotRemoved
                | Self::WillLost
                | Self::SubscriptionLost
                | Self::MoveEarly
                | Self::MoveLost
                | Self::MoveBackLost
                | Self::SessionPutEarly
                | Self::SessionEndedLost
                | Self::ExpiryLost
        )
    }
}

/// The journal of a simulation.
#[derive(Debug)]
pub struct Saboteur {
    /// What really keeps the records.
    pub inner: Arc<SimJournal>,
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The broker's record and the one that is stored in its place.
    pairs: VecDeque<(Arc<Record>, Arc<Record>)>,
    /// Counts publishes, for faults that hit some of them.
    publishes: u64,
    wills: Vec<(QueueId, Arc<motemq_core::Will>)>,
}

/// What becomes of a record.
enum Fate {
    Stored(Action),
    /// Reported as durable at once, stored when its turn comes.
    StoredLater(Action),
    Lost,
}

impl Saboteur {
    /// A journal over what an earlier one left.
    #[must_use]
    pub fn new(fault: Fault, disk: SimDisk) -> Arc<Self> {
        Arc::new(Self {
            inner: SimJournal::new(fault.rules(), disk),
            fault,
            state: Mutex::default(),
        })
    }

    /// Ends a commit and tells the broker.
    pub fn end_commit(&self) {
        self.inner.end_commit();
        self.settle();
    }

    /// Fails everything unfinished.
    pub fn fail(&self, failure: JournalFailure) {
        self.inner.fail(failure);
        self.settle();
    }

    /// Cuts the power.
    #[must_use]
    pub fn lose_power(&self, survivors: usize) -> SimDisk {
        let disk = self.inner.lose_power(survivors);
        self.settle();
        disk
    }

    /// Whether every record that was exchanged has reached the disk.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.lock().pairs.is_empty()
    }

    /// Passes the outcome of exchanged records on.
    fn settle(&self) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        state.pairs.retain(|(outer, stored)| match stored.state() {
            RecordState::Pending | RecordState::Writing => true,
            RecordState::Failed(failure) => {
                woken.extend(outer.fail(failure));
                false
            }
            RecordState::Durable | RecordState::Elided => {
                if matches!(outer.state(), RecordState::Writing) {
                    woken.extend(outer.finish(stored.position().unwrap_or(0)));
                }
                false
            }
        });
        drop(state);
        woken.iter().for_each(|wakeup| wakeup.wake());
    }

    fn fate(&self, action: Action) -> Fate {
        let mut state = self.lock();
        match (self.fault, action) {
            (Fault::QoS2DeliveredBeforeDurable, Action::Publish(publish))
                if publish.message.qos == QoS::ExactlyOnce =>
            {
                Fate::StoredLater(Action::Publish(publish))
            }
            (Fault::PublishAcknowledgedEarly, Action::Publish(publish)) => {
                Fate::StoredLater(Action::Publish(publish))
            }
            (Fault::PubCompEarly, action @ Action::InboundRemoved { .. })
            | (Fault::SessionPutEarly, action @ Action::SessionPut(_)) => Fate::StoredLater(action),
            (Fault::MoveEarly, action @ Action::Move { .. }) => Fate::StoredLater(action),
            (Fault::MoveLost, Action::Move { to, .. }) if !to.queue.is_share_group() => Fate::Lost,
            (Fault::MoveBackLost, Action::Move { to, .. }) if to.queue.is_share_group() => {
                Fate::Lost
            }
            (Fault::InboundRemovedLost, Action::InboundRemoved { .. })
            | (Fault::ReleaseLost, Action::Release { .. })
            | (Fault::SubscriptionLost, Action::Subscribed { .. })
            | (Fault::SessionEndedLost, Action::SessionEnded { .. }) => Fate::Lost,
            (Fault::InboundIdLost, Action::Publish(mut publish)) => {
                publish.inbound = None;
                Fate::Stored(Action::Publish(publish))
            }
            (Fault::ReceiverLost, Action::Publish(mut publish)) => {
                state.publishes += 1;
                if !publish.refs.is_empty() && state.publishes.is_multiple_of(2) {
                    publish.refs.remove(0);
                }
                Fate::Stored(Action::Publish(publish))
            }
            (Fault::RetainedLost, Action::Publish(mut publish)) => {
                publish.retained = RetainedEffect::None;
                Fate::Stored(Action::Publish(publish))
            }
            (Fault::WillNotRemoved, Action::Publish(mut publish)) => {
                publish.will_of = None;
                Fate::Stored(Action::Publish(publish))
            }
            (Fault::WillNotRemoved, Action::SessionPut(mut row)) => {
                // The row keeps the will that its connection came with.
                match &row.will {
                    Some(will) => state.wills.push((row.queue, will.clone())),
                    None if row.disconnected_at.is_some() => {
                        let known = state
                            .wills
                            .iter()
                            .rev()
                            .find(|(queue, _)| *queue == row.queue);
                        row.will = known.map(|(_, will)| will.clone());
                    }
                    None => {}
                }
                Fate::Stored(Action::SessionPut(row))
            }
            (Fault::WillLost, Action::SessionPut(mut row)) => {
                row.will = None;
                Fate::Stored(Action::SessionPut(row))
            }
            (Fault::ExpiryLost, Action::Publish(mut publish)) => {
                let mut message = motemq_core::Message::clone(&publish.message);
                message.expires_at = None;
                publish.message = Arc::new(message);
                Fate::Stored(Action::Publish(publish))
            }
            (_, action) => Fate::Stored(action),
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "a test whose thread panicked has failed already"
    )]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl Journal for Saboteur {
    fn submit(&self, record: Arc<Record>) {
        if !self.fault.touches_records() {
            return self.inner.submit(record);
        }
        let Some(action) = record.begin_writing() else {
            return;
        };
        let mut woken = Vec::new();
        match self.fate(action) {
            Fate::Stored(action) => {
                let stored = Record::new(action);
                self.lock().pairs.push_back((record, stored.clone()));
                self.inner.submit(stored);
            }
            Fate::StoredLater(action) => {
                let stored = Record::new(action);
                woken = record.finish(0);
                self.lock().pairs.push_back((record, stored.clone()));
                self.inner.submit(stored);
            }
            Fate::Lost => woken = record.finish(0),
        }
        woken.iter().for_each(|wakeup| wakeup.wake());
        self.settle();
    }

    fn room(&self) -> Room {
        self.inner.room()
    }

    fn wait_for_room(&self, wakeup: &Arc<Wakeup>) {
        self.inner.wait_for_room(wakeup);
    }

    fn read_backlog(&self, request: BacklogRequest) {
        self.inner.read_backlog(request);
    }
}
