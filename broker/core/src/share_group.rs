//! A shared subscription (MQTT 5.0 section 4.8.2): sessions that receive the messages of one filter by turns.
//!
//! A message is offered to one online member at once; what nobody can take waits in the group's own queue, the backlog,
//! from which members feed when they have room. A delivery keeps its place in the backlog's numbering for life: that is
//! how it comes back in order when a member leaves, and how the store knows it. Only a QoS 2 delivery to a durable member
//! is moved to that member's own queue, before it is sent, because nobody else may have it then [MQTT5-4.8.2-4].
//!
//! Invariants:
//! - Each message is with one member, or in the backlog, never both.
//! - While the backlog holds anything, newer messages queue behind it.
//! - The group is durable while one member's session is: what comes meanwhile is stored. Its queue stays in the store until
//!   the last member leaves, because what is in memory may have its body there only.
//!
//! Does not know: packets, who publishes, what a member does with a delivery.

use crate::action::{Action, QueueId, StoredSubscription};
use crate::counters::{DropReason, Limit, Tally};
use crate::history::Lost;
use crate::journal::Journal;
use crate::limits::{Limits, ShareStrategy};
use crate::mailbox::{Mailbox, Offer, Place, Returned, Unplaced};
use crate::message::Message;
use crate::record::Record;
use crate::sync::lock;
use crate::time::Timestamp;
use crate::wakeup::Wakeup;
use foldhash::fast::FixedState;
use motemq_codec::{QoS, RetainHandling, SubscribeOptions};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

/// The sessions that share one filter under one name.
#[derive(Debug)]
pub struct ShareGroup {
    /// `$share/name/filter`.
    filter: Box<str>,
    backlog: Arc<Mailbox>,
    strategy: ShareStrategy,
    /// Wakes the online members.
    waker: Waker,
    online: Arc<Online>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    /// Whose turn is next, among the members.
    turn: usize,
    draws: u64,
    /// The highest quality of service that a member was granted.
    qos_max: QoS,
    is_durable: bool,
    /// The store has its queue.
    is_stored: bool,
}

/// The wake-ups of the members that are connected.
#[derive(Debug, Default)]
struct Online(Mutex<Vec<Arc<Wakeup>>>);

impl Wake for Online {
    fn wake(self: Arc<Self>) {
        lock(&self.0).iter().for_each(|member| member.wake());
    }
}

#[derive(Clone, Debug)]
struct Member {
    mailbox: Arc<Mailbox>,
    options: SubscribeOptions,
    subscription_ids: Option<Arc<[u32]>>,
    is_online: bool,
    /// Its session is in the store.
    is_durable: bool,
}

/// What a group needs to know of a session that joins.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    pub(crate) mailbox: &'a Arc<Mailbox>,
    pub(crate) options: SubscribeOptions,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) is_online: bool,
    pub(crate) is_durable: bool,
}

impl ShareGroup {
    /// A group without members whose backlog is `backlog`.
    pub(crate) fn new(filter: &str, backlog: Arc<Mailbox>, strategy: ShareStrategy) -> Arc<Self> {
        let online = Arc::new(Online::default());
        Arc::new(Self {
            filter: filter.into(),
            backlog,
            strategy,
            waker: Waker::from(online.clone()),
            online,
            state: Mutex::default(),
        })
    }

    /// Changes the limits of the backlog; how the group chooses stays.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        self.backlog.set_limits(limits);
    }

    /// `$share/name/filter`.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The filter that messages must match.
    #[must_use]
    pub fn topic_filter(&self) -> &str {
        self.filter.splitn(3, '/').nth(2).unwrap_or_default()
    }

    /// The durable name of the backlog.
    #[must_use]
    pub(crate) fn queue(&self) -> QueueId {
        self.backlog.queue()
    }

    /// Messages that wait for a member, and their bytes.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        self.backlog.depth()
    }

    /// Whether a message received at `qos` must be durable for this group.
    #[must_use]
    pub(crate) fn needs_store(&self, qos: QoS) -> bool {
        let state = lock(&self.state);
        qos.min(state.qos_max) != QoS::AtMostOnce && state.is_durable
    }

    /// The limit for which the backlog would refuse another message under the `refuse` policy.
    #[must_use]
    pub(crate) fn refuses(&self, bytes: usize) -> Option<Limit> {
        self.backlog.refuses(bytes)
    }

    /// Adds a session, or replaces its options; `true` when it is new.
    pub(crate) fn join(&self, joining: Joining<'_>, journal: &dyn Journal) -> bool {
        let mut state = lock(&self.state);
        let member = Member {
            mailbox: joining.mailbox.clone(),
            options: joining.options,
            subscription_ids: joining.subscription_id.map(|id| Arc::from([id])),
            is_online: joining.is_online,
            is_durable: joining.is_durable,
        };
        let known = state.position(joining.mailbox.queue());
        match known.and_then(|index| state.members.get_mut(index)) {
            Some(before) => *before = member,
            None => state.members.push(member),
        }
        self.note_members(&mut state, journal);
        known.is_none()
    }

    /// Takes the connection state of a member's session over.
    pub(crate) fn set_online(
        &self,
        queue: QueueId,
        is_online: bool,
        is_durable: bool,
        journal: &dyn Journal,
    ) {
        let mut state = lock(&self.state);
        if let Some(index) = state.position(queue)
            && let Some(member) = state.members.get_mut(index)
        {
            member.is_online = is_online;
            member.is_durable = is_durable;
        }
        self.note_members(&mut state, journal);
    }

    /// Removes a session. `true` when it was the last: then what waited is gone, and the group must leave the router.
    pub(crate) fn leave(&self, queue: QueueId, journal: &dyn Journal, tally: &mut Tally) -> bool {
        let mut state = lock(&self.state);
        if let Some(index) = state.position(queue) {
            state.members.remove(index);
            if index < state.turn {
                state.turn -= 1;
            }
        }
        self.note_members(&mut state, journal);
        if state.members.is_empty() {
            self.backlog.clear(journal, tally);
        }
        state.members.is_empty()
    }

    /// The group as the store has it: durable, its members still to join.
    pub(crate) fn restore_durable(&self) {
        let mut state = lock(&self.state);
        state.is_durable = true;
        state.is_stored = true;
        drop(state);
        self.backlog.set_durable(true);
    }

    /// Whether no session shares a restored group; then its queue in the store ends.
    pub(crate) fn end_if_empty(&self, journal: &dyn Journal) -> bool {
        let mut state = lock(&self.state);
        if state.members.is_empty() {
            self.note_members(&mut state, journal);
        }
        state.members.is_empty()
    }

    /// Takes up what follows from the members: the grant, who is to be woken, and whether the group has a queue in the store.
    fn note_members(&self, state: &mut State, journal: &dyn Journal) {
        let members = state.members.iter();
        state.qos_max = members
            .clone()
            .map(|member| member.options.qos)
            .max()
            .unwrap_or_default();
        *lock(&self.online.0) = members
            .clone()
            .filter(|member| member.is_online)
            .map(|member| member.mailbox.wakeup().clone())
            .collect();
        let is_durable = members.clone().any(|member| member.is_durable);
        if is_durable != state.is_durable {
            state.is_durable = is_durable;
            self.backlog.set_durable(is_durable);
        }
        let queue = self.queue();
        let action = match (state.is_stored, state.members.is_empty()) {
            (false, _) if is_durable => Action::Subscribed {
                queue,
                subscriptions: vec![self.own_subscription()],
            },
            (true, true) => Action::SessionEnded { queue },
            _ => return,
        };
        state.is_stored = !state.is_stored;
        journal.submit(Record::new(action));
    }

    /// What makes the group known to the store.
    fn own_subscription(&self) -> StoredSubscription {
        StoredSubscription {
            filter: self.filter.clone(),
            options: SubscribeOptions {
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::DoNotSend,
            },
            subscription_id: None,
        }
    }

    /// Gives a message to one member, or to the backlog.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        message: &Arc<Message>,
        record: Option<&Arc<Record>>,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let mut state = lock(&self.state);
        let mut qos = message.qos.min(state.qos_max);
        if qos != message.qos && qos == QoS::AtMostOnce && !self.backlog.is_empty() {
            // It has come down to QoS 0 while older messages wait: behind them all the same.
            qos = message.qos;
        }
        let mut unplaced = Unplaced {
            message,
            record,
            qos,
            sequence: None,
            is_durable: false,
        };
        if qos != QoS::AtMostOnce {
            // A QoS 2 delivery that must survive is moved to its member before it is sent; that starts in the backlog.
            let waits = qos == QoS::ExactlyOnce && state.is_durable;
            if !self.backlog.number(&mut unplaced, waits, journal, tally) {
                return;
            }
        }
        if self.offer(&mut state, &unplaced, tally) {
            return;
        }
        match unplaced.sequence {
            Some(_) => self.backlog.queue_numbered(&unplaced, journal, tally),
            None => self.drop_message(&state, message, tally),
        }
    }

    /// Offers a delivery to the members in the order of the strategy.
    fn offer(
        self: &Arc<Self>,
        state: &mut State,
        unplaced: &Unplaced<'_>,
        tally: &mut Tally,
    ) -> bool {
        let count = state.members.len();
        let strategy = self.strategy;
        let first = match strategy {
            ShareStrategy::RoundRobin | ShareStrategy::Sticky => state.turn,
            ShareStrategy::Random => state.draw(self.queue()),
            ShareStrategy::HashClient => state.highest(unplaced.message.publisher.as_str()),
            ShareStrategy::HashTopic => state.highest(unplaced.message.topic.as_str()),
        };
        // Whoever has a claim to the message queues it; the others take it only within their window.
        let has_claim = !matches!(strategy, ShareStrategy::RoundRobin | ShareStrategy::Random);
        for step in 0..count {
            let index = (first + step) % count;
            let Some(member) = state.members.get(index).filter(|member| member.is_online) else {
                continue;
            };
            let offer = Offer {
                group: self,
                unplaced,
                qos: unplaced.qos.min(member.options.qos),
                retain: unplaced.message.retain && member.options.retain_as_published,
                subscription_ids: member.subscription_ids.clone(),
                is_queued: has_claim,
            };
            if member.mailbox.offer(offer, tally) {
                let is_sticky = strategy == ShareStrategy::Sticky;
                state.turn = if is_sticky { index } else { index + 1 };
                return true;
            }
        }
        false
    }

    /// Feeds a member with room from the backlog.
    pub(crate) fn feed(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: u64,
        now: Timestamp,
        journal: &dyn Journal,
        tally: &mut Tally,
    ) {
        let mut room = mailbox.room();
        // Without room it comes again when an acknowledgement has made some; with room it is told of what arrives later.
        if room == 0 {
            return;
        }
        let _ = self.backlog.wakeup().begin(1, &self.waker);
        if self.backlog.is_empty() {
            return;
        }
        // What is newer must not reach the member before what is taken here.
        let state = lock(&self.state);
        let Some(member) = state.member(mailbox.queue()) else {
            return;
        };
        let needs_bodies = member.options.qos == QoS::AtMostOnce;
        if needs_bodies {
            room = room.min(mailbox.volatile_room());
        }
        for pulled in self.backlog.pull(room, needs_bodies, now, journal, tally) {
            let place = Place {
                epoch,
                group: self,
                options: member.options,
                subscription_ids: member.subscription_ids.clone(),
                is_durable: member.is_durable,
            };
            if let Err(returned) = mailbox.place(pulled, place, journal, tally) {
                self.backlog.take_back(*returned, journal);
            }
        }
    }

    /// Takes back what a member that left has not had.
    pub(crate) fn take_back(&self, returned: Returned, journal: &dyn Journal) {
        let state = lock(&self.state);
        if state.members.is_empty() {
            returned.discard(journal);
        } else {
            self.backlog.take_back(returned, journal);
        }
    }

    /// Hands a QoS 0 message of a member that left to another.
    pub(crate) fn pass_on(
        self: &Arc<Self>,
        message: &Arc<Message>,
        barrier: Option<&Arc<Record>>,
        tally: &mut Tally,
    ) {
        let unplaced = Unplaced {
            message,
            record: barrier,
            qos: QoS::AtMostOnce,
            sequence: None,
            is_durable: false,
        };
        let mut state = lock(&self.state);
        if !self.offer(&mut state, &unplaced, tally) {
            self.drop_message(&state, message, tally);
        }
    }
}

impl ShareGroup {
    #[cold]
    fn drop_message(&self, state: &State, message: &Message, tally: &mut Tally) {
        let (reason, owner) = (state.drop_reason(), self.backlog.owner());
        tally.drop_message(reason, owner, Lost::Message(message), QoS::AtMostOnce, "");
    }
}

impl State {
    fn position(&self, queue: QueueId) -> Option<usize> {
        self.members
            .iter()
            .position(|member| member.mailbox.queue() == queue)
    }

    fn member(&self, queue: QueueId) -> Option<&Member> {
        self.members.get(self.position(queue)?)
    }

    /// Why nobody took a QoS 0 message.
    fn drop_reason(&self) -> DropReason {
        match self.members.iter().any(|member| member.is_online) {
            true => DropReason::SlowReader,
            false => DropReason::OfflineQoS0,
        }
    }

    /// A member drawn by lot; the draw is a hash of how many there were, since the core has no random numbers.
    fn draw(&mut self, queue: QueueId) -> usize {
        self.draws += 1;
        let lot = FixedState::default().hash_one((queue.as_u64(), self.draws));
        let members = self.members.len().max(1) as u64;
        usize::try_from(lot % members).unwrap_or(0)
    }

    /// The online member with the highest hash for `key`: when one comes or goes, only its own keys move.
    fn highest(&self, key: &str) -> usize {
        let hasher = FixedState::default();
        let online = self.members.iter().enumerate();
        online
            .filter(|(_, member)| member.is_online)
            .max_by_key(|(_, member)| hasher.hash_one((key, member.mailbox.queue().as_u64())))
            .map_or(0, |(index, _)| index)
    }
}
