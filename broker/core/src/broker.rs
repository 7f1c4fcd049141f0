//! The only place that knows sessions, router, retained messages and journal together; and the publish seam.
//!
//! Invariants:
//! - A publish crosses to its receivers in the caller's task: match, append to the mailboxes, submit one record.
//! - Nothing that must be durable is reported as done before its record is; the caller waits for [`Receipt`]'s record.
//! - A session's subscriptions are in the router before anyone is told that it is present.
//! - QoS 0 without retain, and receivers that are not durable, cause no record.
//!
//! Does not know: packets, sockets, clocks.

use crate::action::{Action, PublishAction, QueueId, RetainedEffect, StoredSubscription, Will};
use crate::counters::{Counters, Tally};
use crate::deadline::Deadlines;
use crate::image::Image;
use crate::journal::{Journal, Room};
use crate::limits::Limits;
use crate::mailbox::{Fenced, Mailbox, Push};
use crate::message::{ClientId, Expiry, Identity, Message, Origin};
use crate::record::{Elidable, Record, RecordState};
use crate::retained::Retained;
use crate::router::{Receivers, Router, Subscription};
use crate::session::{Inbound, Session, SessionState};
use crate::sync::{lock, read, write};
use crate::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use motemq_codec::{
    PacketId, QoS, ReasonCode, RetainHandling, SubscribeOptions, parse_subscription,
};
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

/// The broker.
pub struct Broker {
    limits: Arc<Limits>,
    journal: Arc<dyn Journal>,
    keeps: Keeps,
    counters: Counters,
    registry: Mutex<Registry>,
    deadlines: Mutex<Deadlines>,
    router: RwLock<Router>,
    /// Counts changes of the router; what was looked up before a change is stale.
    generation: AtomicU64,
    retained: RwLock<Retained>,
    /// One publish to a retained topic at a time, so that memory and journal agree on the last one.
    retained_stripes: Box<[Mutex<()>]>,
    stripe_hasher: RandomState,
    next_queue: AtomicU64,
    next_connection: AtomicU64,
}

/// The sessions, and those that have ended but not yet on disk.
#[derive(Debug, Default)]
struct Registry {
    sessions: HashMap<ClientId, Arc<Session>, RandomState>,
    /// Ends that may not be durable yet, oldest first: CONNACK of a new session of the same client waits for them.
    endings: VecDeque<(ClientId, Arc<Record>)>,
}

/// Whether the broker has a store.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Keeps {
    Store,
    Nothing,
}

/// What a publish brings along besides the message.
#[derive(Copy, Clone, Debug, Default)]
pub struct PublishSource {
    /// The durable publisher's QoS 2 packet id.
    pub inbound: Option<(QueueId, PacketId)>,
    /// The stored session whose will this is.
    pub will_of: Option<QueueId>,
}

/// The answer to a publish.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// Accepted; acknowledge with `code` when `awaited` (if any) is durable or elided.
    Accepted {
        /// 0x00, or 0x10 when nobody subscribes.
        code: ReasonCode,
        /// The record to wait for.
        awaited: Option<Arc<Record>>,
    },
    /// Not accepted, and nothing of it happened.
    Refused(ReasonCode),
    /// The store has failed: no answer may be given.
    Unavailable,
}

/// A session taken up by a connection.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The session.
    pub(crate) session: Arc<Session>,
    /// The connection's number in the session; a lower one is fenced.
    pub(crate) epoch: u64,
    /// An earlier session goes on [MQTT5-3.2.2-3].
    pub(crate) session_present: bool,
    /// CONNACK may leave when this is durable.
    pub(crate) awaited: Option<Arc<Record>>,
}

/// What a client asks for when it connects.
#[derive(Debug)]
pub(crate) struct AttachRequest {
    pub(crate) client_id: ClientId,
    pub(crate) identity: Identity,
    pub(crate) clean_start: bool,
    pub(crate) expiry: Expiry,
    pub(crate) will: Option<Arc<Will>>,
}

/// How a connection ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// DISCONNECT with 0x00: the will is discarded [MQTT5-3.14.4-3].
    Normal,
    /// Anything else: the will is published [MQTT5-3.1.2-8].
    WithWill,
}

/// One filter of a SUBSCRIBE.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) filter: &'a str,
    pub(crate) options: SubscribeOptions,
    pub(crate) subscription_id: Option<u32>,
}

/// A retained message to send for a new subscription.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) subscription_id: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    pub(crate) codes: Vec<ReasonCode>,
    pub(crate) replay: Vec<Replay>,
    pub(crate) awaited: Option<Arc<Record>>,
}

#[derive(Debug, Default)]
pub(crate) struct Unsubscribed {
    pub(crate) codes: Vec<ReasonCode>,
    pub(crate) awaited: Option<Arc<Record>>,
}

impl Broker {
    /// A broker that keeps its facts in `journal` and starts with what `image` holds. `boot` counts the starts of the
    /// store, so that message ids stay unique.
    #[must_use]
    pub fn new(
        limits: Arc<Limits>,
        journal: Arc<dyn Journal>,
        image: Image,
        boot: u32,
        now: Timestamp,
    ) -> Self {
        let broker = Self::build(limits, journal, Keeps::Store, boot);
        broker.restore(image, now);
        broker
    }

    /// A broker that keeps nothing on disk.
    #[must_use]
    pub fn without_store(limits: Arc<Limits>) -> Self {
        Self::build(
            limits,
            Arc::new(crate::journal::NoJournal),
            Keeps::Nothing,
            0,
        )
    }

    fn build(limits: Arc<Limits>, journal: Arc<dyn Journal>, keeps: Keeps, boot: u32) -> Self {
        Self {
            limits,
            journal,
            keeps,
            counters: Counters::default(),
            registry: Mutex::default(),
            deadlines: Mutex::default(),
            router: RwLock::default(),
            generation: AtomicU64::new(1),
            retained: RwLock::default(),
            retained_stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            stripe_hasher: RandomState::default(),
            next_queue: AtomicU64::new(1),
            next_connection: AtomicU64::new((u64::from(boot) << 32) + 1),
        }
    }

    fn restore(&self, image: Image, now: Timestamp) {
        let Image {
            sessions,
            mut subscriptions,
            mut queues,
            inbound,
            retained,
            next_queue,
        } = image;
        self.next_queue.store(next_queue.max(1), Ordering::Relaxed);
        for row in sessions.into_values() {
            if !row.expiry.is_durable() {
                self.journal
                    .submit(Record::new(Action::SessionEnded { queue: row.queue }));
                continue;
            }
            let queue = queues.remove(&row.queue).unwrap_or_default();
            let refs = queue.refs.into_values().collect();
            let limits = self.limits.clone();
            let sent_below = row.disconnected_at.map(|_| row.sent_below);
            let mailbox =
                Mailbox::restored(row.queue, limits, refs, queue.next_sequence, sent_below);
            let mut state = SessionState::new(row.identity, row.expiry);
            state.epoch = row.epoch;
            state.is_stored = true;
            // A session connected at the crash counts as disconnected now (contracts section 5).
            state.disconnected_at = Some(row.disconnected_at.map_or(now, |at| at.min(now)));
            state.sent_below = row.sent_below;
            state.will = row.will;
            let session = Session::new(row.client_id, mailbox, state);
            let known = subscriptions.remove(&row.queue).unwrap_or_default();
            let mut state = session.lock();
            for stored in known.into_values() {
                self.route(&session, &stored);
                let options = (stored.options, stored.subscription_id);
                state.subscriptions.insert(stored.filter, options);
            }
            let ids = inbound.range((row.queue, PACKET_ID_MIN)..=(row.queue, PACKET_ID_MAX));
            state.inbound = ids.map(|(_, id)| (*id, Inbound::Taken(None))).collect();
            self.set_deadline(&session, &mut state);
            drop(state);
            lock(&self.registry)
                .sessions
                .insert(session.client_id().clone(), session);
        }
        let mut kept = write(&self.retained);
        for (_, message) in retained.into_values() {
            // What was accepted under an earlier limit stays.
            let _ = kept.set(message, &UNLIMITED);
        }
    }

    fn route(&self, session: &Session, stored: &StoredSubscription) -> bool {
        let subscription = Subscription {
            mailbox: session.mailbox().clone(),
            options: stored.options,
            subscription_id: stored.subscription_id,
        };
        write(&self.router).subscribe(&stored.filter, subscription)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    /// Whether the journal takes more; connections stop reading while it does not.
    #[must_use]
    pub fn room(&self) -> Room {
        self.journal.room()
    }

    /// A number for a new connection, unique over restarts of the store.
    #[must_use]
    pub fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Sessions, those of them connected, and the messages and bytes that wait in them.
    #[must_use]
    pub fn session_totals(&self) -> SessionTotals {
        let sessions: Vec<_> = lock(&self.registry).sessions.values().cloned().collect();
        let mut totals = SessionTotals::default();
        for session in sessions {
            let (messages, bytes) = session.mailbox().depth();
            totals.sessions += 1;
            totals.connected += usize::from(session.lock().is_connected);
            totals.queued_messages += messages;
            totals.queued_bytes += bytes;
        }
        totals
    }

    /// Subscriptions in the router.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        read(&self.router).len()
    }

    /// Retained messages and their bytes.
    #[must_use]
    pub fn retained_size(&self) -> (usize, usize) {
        read(&self.retained).size()
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<Arc<Message>> {
        read(&self.retained).get(topic).cloned()
    }

    /// The generation of the subscription table; receivers looked up under another one are stale.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Looks up who receives `topic`. Read [`generation`](Self::generation) before, to know how long it holds.
    #[must_use]
    pub fn receivers(&self, topic: &str, publisher: Option<QueueId>) -> Receivers {
        read(&self.router).receivers(topic, publisher)
    }

    /// The publish seam: hands `message` to its receivers and to the store.
    pub fn publish(
        &self,
        message: &Arc<Message>,
        receivers: &Receivers,
        source: PublishSource,
        tally: &mut Tally,
    ) -> Receipt {
        let retained = match (message.retain, message.payload.is_empty()) {
            (false, _) => RetainedEffect::None,
            (true, true) => RetainedEffect::Clear,
            (true, false) => RetainedEffect::Set,
        };
        let needs_record = self.keeps == Keeps::Store
            && (retained != RetainedEffect::None
                || source.inbound.is_some()
                || source.will_of.is_some()
                || message.qos != QoS::AtMostOnce
                    && receivers.list.iter().any(|receiver| {
                        receiver.qos != QoS::AtMostOnce && receiver.mailbox.is_durable()
                    }));
        if let Some(refusal) = self.refusal(message, receivers, needs_record) {
            tally.publish_refused += 1;
            return refusal;
        }
        // Two publishes to one retained topic must reach memory and journal in the same order.
        let _stripe = (retained != RetainedEffect::None).then(|| self.lock_stripe(message));
        match retained {
            RetainedEffect::None => {}
            RetainedEffect::Set => {
                if write(&self.retained)
                    .set(message.clone(), &self.limits)
                    .is_err()
                {
                    tally.publish_refused += 1;
                    return Receipt::Refused(ReasonCode::QuotaExceeded);
                }
            }
            RetainedEffect::Clear => {
                write(&self.retained).clear(message.topic.as_str());
            }
        }
        let record = needs_record.then(|| {
            let plain = retained == RetainedEffect::None
                && source.will_of.is_none()
                && message.qos == QoS::AtLeastOnce;
            let action = PublishAction {
                message: message.clone(),
                refs: Vec::new(),
                retained,
                inbound: source.inbound,
                will_of: source.will_of,
            };
            Record::open(action, if plain { Elidable::Yes } else { Elidable::No })
        });
        self.hand_over(message, receivers, record.as_ref(), tally);
        if let Some(record) = &record
            && record.close()
        {
            self.journal.submit(record.clone());
        }
        let code = if receivers.list.is_empty() {
            tally.unrouted += 1;
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        Receipt::Accepted {
            code,
            awaited: record,
        }
    }

    fn hand_over(
        &self,
        message: &Arc<Message>,
        receivers: &Receivers,
        record: Option<&Arc<Record>>,
        tally: &mut Tally,
    ) {
        for receiver in &receivers.list {
            let push = Push {
                message,
                record,
                qos: message.qos.min(receiver.qos),
                retain: message.retain && receiver.retain_as_published,
                subscription_ids: receiver.subscription_ids.clone(),
            };
            receiver.mailbox.push(push, self.journal(), tally);
        }
    }

    fn refusal(
        &self,
        message: &Message,
        receivers: &Receivers,
        needs_record: bool,
    ) -> Option<Receipt> {
        if needs_record {
            match self.journal.room() {
                Room::Open | Room::Congested => {}
                Room::Full => return Some(Receipt::Refused(ReasonCode::QuotaExceeded)),
                Room::Failed(_) => return Some(Receipt::Unavailable),
            }
        }
        let is_refused = message.qos != QoS::AtMostOnce
            && receivers.list.iter().any(|receiver| {
                receiver.qos != QoS::AtMostOnce && receiver.mailbox.refuses(message.size_bytes())
            });
        is_refused.then_some(Receipt::Refused(ReasonCode::QuotaExceeded))
    }

    fn lock_stripe(&self, message: &Message) -> std::sync::MutexGuard<'_, ()> {
        let hash = self.stripe_hasher.hash_one(message.topic.as_str());
        let index = usize::try_from(hash % STRIPES).unwrap_or(0);
        #[expect(
            clippy::indexing_slicing,
            reason = "the index is below the number of stripes"
        )]
        lock(&self.retained_stripes[index])
    }

    /// Takes up or creates the session of a client; an older connection of it is fenced first.
    ///
    /// # Errors
    /// 0x87 when the session belongs to another identity; 0x97 when the store has no room for another session.
    pub(crate) fn attach(
        &self,
        request: AttachRequest,
        now: Timestamp,
        tally: &mut Tally,
    ) -> Result<Attached, ReasonCode> {
        let mut registry = lock(&self.registry);
        let is_durable = request.expiry.is_durable() && self.keeps == Keeps::Store;
        let mut present = None;
        if let Some(old) = registry.sessions.get(&request.client_id).cloned() {
            let mut state = old.lock();
            if state.identity != request.identity {
                return Err(ReasonCode::NotAuthorized);
            }
            let has_ended = due_times(&state).1.is_some_and(|at| at <= now);
            let goes_on = !request.clean_start && state.expiry.is_durable() && !has_ended;
            self.displace(&old, &mut state, goes_on, now, tally);
            if goes_on {
                present = Some(old.clone());
            } else {
                self.end(&mut registry, &old, &mut state);
            }
        }
        // What exists may go on, and so drain; a new session would take room.
        if present.is_none() && is_durable && self.journal.room() == Room::Full {
            return Err(ReasonCode::QuotaExceeded);
        }
        let session_present = present.is_some();
        let session = present.unwrap_or_else(|| self.create(&request));
        let mut state = session.lock();
        state.epoch += 1;
        state.expiry = request.expiry;
        state.is_connected = true;
        state.disconnected_at = None;
        state.will = request.will;
        let mut awaited = registry.ending_of(&request.client_id);
        if is_durable || state.is_stored {
            state.is_stored = true;
            let record = Record::new(Action::SessionPut(state.row(&session)));
            self.journal.submit(record.clone());
            awaited = Some(record);
        }
        let epoch = state.epoch;
        session.mailbox().attach(epoch, is_durable);
        drop(state);
        registry.sessions.insert(request.client_id, session.clone());
        Ok(Attached {
            session,
            epoch,
            session_present,
            awaited,
        })
    }

    fn create(&self, request: &AttachRequest) -> Arc<Session> {
        let queue = QueueId::session(self.next_queue.fetch_add(1, Ordering::Relaxed));
        let mailbox = Mailbox::new(queue, self.limits.clone());
        let state = SessionState::new(request.identity.clone(), request.expiry);
        Session::new(request.client_id.clone(), mailbox, state)
    }

    /// Ends the hold of an older connection, and publishes or cancels its will [MQTT5-3.1.4-3] [MQTT5-3.1.3-9].
    fn displace(
        &self,
        session: &Arc<Session>,
        state: &mut SessionState,
        goes_on: bool,
        now: Timestamp,
        tally: &mut Tally,
    ) {
        self.remove_deadline(session, state);
        let was_connected = state.is_connected;
        if was_connected {
            tally.takeovers += 1;
            // Wakes the old owner, before its waker is forgotten.
            session.mailbox().wakeup().fence(state.epoch + 1);
            state.sent_below = session.mailbox().detach(state.epoch, tally);
            state.is_connected = false;
        }
        // Only a connection before the delay has passed cancels the will, whether or not the timer has run since.
        let since = state.disconnected_at.unwrap_or(now);
        let is_due = !goes_on
            || state
                .will
                .as_ref()
                .is_some_and(|will| since.plus_s(will.delay_s) <= now);
        if is_due {
            self.publish_will(session, state, now, tally);
        }
        state.will = None;
        state.epoch += 1;
    }

    /// Ends the connection of `epoch`. A newer connection makes this a matter of no consequence.
    pub(crate) fn detach(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        ending: Ending,
        expiry: Option<Expiry>,
        now: Timestamp,
        tally: &mut Tally,
    ) {
        let mut registry = lock(&self.registry);
        let mut state = session.lock();
        if state.epoch != epoch || !state.is_connected {
            return;
        }
        state.sent_below = session.mailbox().detach(epoch, tally);
        state.is_connected = false;
        state.disconnected_at = Some(now);
        state.expiry = expiry.unwrap_or(state.expiry);
        if ending == Ending::Normal {
            state.will = None;
        }
        let ends = !state.expiry.is_durable();
        if ends || state.will.as_ref().is_some_and(|will| will.delay_s == 0) {
            self.publish_will(session, &mut state, now, tally);
        }
        if ends {
            self.end(&mut registry, session, &mut state);
            return;
        }
        if state.is_stored {
            // Not awaited: if it is lost, the session merely counts as disconnected at the restart.
            let row = state.row(session);
            self.journal.submit(Record::new(Action::SessionPut(row)));
        }
        self.set_deadline(session, &mut state);
    }

    /// Removes a session and everything it owns.
    fn end(&self, registry: &mut Registry, session: &Arc<Session>, state: &mut SessionState) {
        registry.sessions.remove(session.client_id());
        self.remove_deadline(session, state);
        let subscriptions = std::mem::take(&mut state.subscriptions);
        if !subscriptions.is_empty() {
            let mut router = write(&self.router);
            for filter in subscriptions.keys() {
                router.unsubscribe(filter, session.queue());
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
        state.inbound.clear();
        state.will = None;
        session.mailbox().clear();
        if state.is_stored {
            let queue = session.queue();
            let record = self.submit(Action::SessionEnded { queue });
            registry.note_ending(session.client_id().clone(), record);
        }
    }

    fn publish_will(
        &self,
        session: &Session,
        state: &mut SessionState,
        now: Timestamp,
        tally: &mut Tally,
    ) {
        let Some(will) = state.will.take() else {
            return;
        };
        let mut message = will.message.clone();
        message.origin = Origin::Will;
        message.received_at = now;
        message.expires_at = will.message_expiry_s.map(|seconds| now.plus_s(seconds));
        let receivers = self.receivers(message.topic.as_str(), Some(session.queue()));
        let source = PublishSource {
            inbound: None,
            will_of: state.is_stored.then(|| session.queue()),
        };
        tally.wills_published += 1;
        // A refused will (the store or the retained limit is full) is counted as a refused publish.
        let _ = self.publish(&Arc::new(message), &receivers, source, tally);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        lock(&self.deadlines).next()
    }

    /// Publishes wills and ends sessions whose time has come.
    pub fn handle_timeout(&self, now: Timestamp) {
        let mut tally = Tally::default();
        loop {
            let due = lock(&self.deadlines).pop_due(now);
            let Some(session) = due else { break };
            let mut registry = lock(&self.registry);
            let mut state = session.lock();
            if state.is_connected || state.deadline.is_none_or(|at| at > now) {
                continue;
            }
            state.deadline = None;
            let (will_at, end_at) = due_times(&state);
            if will_at.is_some_and(|at| at <= now) || end_at.is_some_and(|at| at <= now) {
                self.publish_will(&session, &mut state, now, &mut tally);
            }
            if end_at.is_some_and(|at| at <= now) {
                self.end(&mut registry, &session, &mut state);
            } else {
                self.set_deadline(&session, &mut state);
            }
        }
        self.counters.add(&mut tally);
    }

    fn set_deadline(&self, session: &Arc<Session>, state: &mut SessionState) {
        let (will_at, end_at) = due_times(state);
        state.deadline = will_at.into_iter().chain(end_at).min();
        if let Some(at) = state.deadline {
            lock(&self.deadlines).add(at, session);
        }
    }

    fn remove_deadline(&self, session: &Session, state: &mut SessionState) {
        if let Some(at) = state.deadline.take() {
            lock(&self.deadlines).remove(at, session.queue());
        }
    }

    /// Adds subscriptions; a code per wish, in order [MQTT5-3.8.4-6].
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        wishes: &[Wish<'_>],
        qos_max: QoS,
        now: Timestamp,
    ) -> Result<Subscribed, Fenced> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(Fenced);
        }
        let mut result = Subscribed::default();
        let mut stored = Vec::new();
        let mut replays = Vec::new();
        for wish in wishes {
            if let Err(code) = self.check_wish(wish, &state) {
                result.codes.push(code);
                continue;
            }
            let mut options = wish.options;
            options.qos = options.qos.min(qos_max);
            let subscription = StoredSubscription {
                filter: wish.filter.into(),
                options,
                subscription_id: wish.subscription_id,
            };
            self.route(session, &subscription);
            let before = state
                .subscriptions
                .insert(wish.filter.into(), (options, wish.subscription_id));
            // [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]
            let wants_retained = match options.retain_handling {
                RetainHandling::SendAlways => true,
                RetainHandling::SendIfNew => before.is_none(),
                RetainHandling::DoNotSend => false,
            };
            if wants_retained {
                replays.push((wish.filter, options.qos, wish.subscription_id));
            }
            stored.push(subscription);
            result.codes.push(granted(options.qos));
        }
        if !stored.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        if state.is_stored && !stored.is_empty() {
            let action = Action::Subscribed {
                queue: session.queue(),
                subscriptions: stored,
            };
            result.awaited = Some(self.submit(action));
        }
        drop(state);
        let retained = read(&self.retained);
        for (filter, qos, subscription_id) in replays {
            for message in retained.matching(filter, now) {
                result.replay.push(Replay {
                    qos: message.qos.min(qos),
                    message,
                    subscription_id,
                });
            }
        }
        Ok(result)
    }

    fn check_wish(&self, wish: &Wish<'_>, state: &SessionState) -> Result<(), ReasonCode> {
        let parsed = parse_subscription(wish.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if parsed.share.is_some() {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if wish.filter.split('/').count() > self.limits.topic_levels_max {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if wish.filter.starts_with('$') && !is_readable_system_topic(wish.filter) {
            return Err(ReasonCode::NotAuthorized);
        }
        let is_new = !state.subscriptions.contains_key(wish.filter);
        if is_new && state.subscriptions.len() >= self.limits.subscriptions_max {
            return Err(ReasonCode::QuotaExceeded);
        }
        if state.is_stored && self.journal.room() == Room::Full {
            return Err(ReasonCode::QuotaExceeded);
        }
        Ok(())
    }

    /// Removes subscriptions; a code per filter, in order [MQTT5-3.11.3-1].
    pub(crate) fn unsubscribe<'a>(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        filters: impl Iterator<Item = &'a str>,
    ) -> Result<Unsubscribed, Fenced> {
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(Fenced);
        }
        let mut result = Unsubscribed::default();
        let mut removed: Vec<Box<str>> = Vec::new();
        for filter in filters {
            if state.subscriptions.remove(filter).is_some() {
                write(&self.router).unsubscribe(filter, session.queue());
                removed.push(filter.into());
                result.codes.push(ReasonCode::Success);
            } else {
                result.codes.push(ReasonCode::NoSubscriptionExisted);
            }
        }
        if !removed.is_empty() {
            self.generation.fetch_add(1, Ordering::Release);
        }
        if state.is_stored && !removed.is_empty() {
            let action = Action::Unsubscribed {
                queue: session.queue(),
                filters: removed,
            };
            result.awaited = Some(self.submit(action));
        }
        Ok(result)
    }

    /// Sends a retained message to one subscriber; durable if its session is.
    pub(crate) fn replay(&self, mailbox: &Mailbox, replay: Replay, tally: &mut Tally) {
        let needs_record =
            self.keeps == Keeps::Store && replay.qos != QoS::AtMostOnce && mailbox.is_durable();
        let record = needs_record.then(|| {
            let action = PublishAction {
                message: replay.message.clone(),
                refs: Vec::new(),
                retained: RetainedEffect::None,
                inbound: None,
                will_of: None,
            };
            Record::open(action, Elidable::Yes)
        });
        let push = Push {
            message: &replay.message,
            record: record.as_ref(),
            qos: replay.qos,
            retain: true,
            subscription_ids: replay.subscription_id.map(|id| Arc::from([id])),
        };
        mailbox.push(push, self.journal(), tally);
        if let Some(record) = record
            && record.close()
        {
            self.journal.submit(record);
        }
    }

    pub(crate) fn submit(&self, action: Action) -> Arc<Record> {
        let record = Record::new(action);
        self.journal.submit(record.clone());
        record
    }

    /// Ends every connection's hold, as if all clients had vanished; used by tests that stop a broker.
    #[must_use]
    pub fn session(&self, client_id: &str) -> Option<Arc<Session>> {
        lock(&self.registry)
            .sessions
            .get(&ClientId::new(client_id))
            .cloned()
    }
}

impl Registry {
    fn note_ending(&mut self, client_id: ClientId, record: Arc<Record>) {
        self.forget_durable_endings();
        self.endings.push_back((client_id, record));
    }

    fn forget_durable_endings(&mut self) {
        while let Some((_, oldest)) = self.endings.front()
            && oldest.state() == RecordState::Durable
        {
            self.endings.pop_front();
        }
    }

    /// The newest end of a session of this client that is not durable.
    fn ending_of(&mut self, client_id: &ClientId) -> Option<Arc<Record>> {
        self.forget_durable_endings();
        let mut endings = self.endings.iter().rev();
        let (_, record) = endings.find(|(known, _)| known == client_id)?;
        (record.state() != RecordState::Durable).then(|| record.clone())
    }
}

/// Sums over the sessions.
#[derive(Copy, Clone, Debug, Default)]
pub struct SessionTotals {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Sessions with a connection.
    pub connected: usize,
    /// Messages waiting to be sent.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// When the will is due, and when the session ends: the will at the latest then [MQTT5-3.1.2-8].
fn due_times(state: &SessionState) -> (Option<Timestamp>, Option<Timestamp>) {
    let Some(since) = state.disconnected_at else {
        return (None, None);
    };
    let will_at = state.will.as_ref().map(|will| since.plus_s(will.delay_s));
    let end_at = match state.expiry {
        Expiry::WithConnection => Some(since),
        Expiry::AfterSeconds(seconds) => Some(since + Duration::from_secs(seconds.into())),
        Expiry::Never => None,
    };
    (will_at, end_at)
}

fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// Whether clients may subscribe to this topic or filter with `$` (contracts section 7).
fn is_readable_system_topic(filter: &str) -> bool {
    filter == "$SYS" || filter.starts_with("$SYS/")
}

const STRIPES: u64 = 64;
const PACKET_ID_MIN: PacketId = const { PacketId::new(1).unwrap() };
const PACKET_ID_MAX: PacketId = const { PacketId::new(u16::MAX).unwrap() };
static UNLIMITED: std::sync::LazyLock<Limits> = std::sync::LazyLock::new(|| Limits {
    retained_messages_max: usize::MAX,
    retained_bytes_max: usize::MAX,
    ..Limits::default()
});
