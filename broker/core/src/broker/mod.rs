//! The only place that knows sessions, router, retained messages and journal together; and the publish seam.
//!
//! Invariants:
//! - A publish crosses to its receivers in the caller's task: match, append to the mailboxes, submit one record.
//! - Nothing that must be durable is reported as done before its record is; the caller waits for [`Receipt`]'s record.
//! - A session's subscriptions are in the router before anyone is told that it is present.
//! - QoS 0 without retain, and receivers that are not durable, cause no record.
//!
//! Does not know: packets, sockets, clocks.

mod access;
mod enrolment;
mod lifecycle;
mod listing;
mod publish;
mod shared;
mod subscribe;
mod system;
mod traces;

pub(crate) use lifecycle::{AttachRequest, Ending};
pub use listing::{OperatorMessage, SessionFacts, SubscriptionFacts};
pub(crate) use subscribe::{Replay, ReplayWish, Wish, is_reserved};
pub use system::SystemRefresh;

use crate::acl::Acl;
use crate::action::{Action, QueueId};
use crate::counters::{Counters, Tally};
use crate::deadline::Deadlines;
use crate::enrolment::Enrolment;
use crate::history::{HISTORY_BYTES_MAX, History};
use crate::image::Image;
use crate::journal::{Asker, BacklogRequest, Journal, Room};
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::message::{ClientId, Identity, Message};
use crate::pressure::Pressure;
use crate::profile::LimitSet;
use crate::record::Record;
use crate::retained::Retained;
use crate::router::{Receivers, Router, Subscription};
use crate::session::{Inbound, Session, SessionState};
use crate::sync::{lock, read, write};
use crate::time::Timestamp;
use crate::trace::Traces;
use foldhash::fast::RandomState;
use lifecycle::Registry;
use motemq_codec::{PacketId, ProtocolVersion, ReasonCode, is_shared};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

/// The broker.
pub struct Broker {
    /// Taken for a moment, under any other lock.
    limits: RwLock<Arc<LimitSet>>,
    /// Taken for a moment, under any other lock.
    acl: RwLock<Arc<Acl>>,
    acl_generation: AtomicU64,
    /// Taken for a moment, under any other lock.
    enrolment: RwLock<Option<Arc<Enrolment>>>,
    pressure: Pressure,
    traces: Traces,
    journal: Arc<dyn Journal>,
    keeps: Keeps,
    counters: Counters,
    history: Arc<History>,
    registry: Mutex<Registry>,
    deadlines: Mutex<Deadlines>,
    router: RwLock<Router>,
    /// Counts changes of the router; what was looked up before a change is stale.
    generation: AtomicU64,
    retained: RwLock<Retained>,
    /// The statistics below `$SYS`, apart: they are nobody's retained messages. No lock is taken under this one.
    system: RwLock<Retained>,
    system_refresh: OnceLock<SystemRefresh>,
    /// One publish to a retained topic at a time, so that memory and journal agree on the last one.
    retained_stripes: Box<[Mutex<()>]>,
    stripe_hasher: RandomState,
    next_queue: AtomicU64,
    next_connection: AtomicU64,
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
        let mut retained = Retained::default();
        retained.set_limits(&limits);
        let mut registry = Registry::default();
        registry.recount(&limits);
        Self {
            limits: RwLock::new(Arc::new(limits.into())),
            acl: RwLock::default(),
            acl_generation: AtomicU64::new(1),
            enrolment: RwLock::default(),
            pressure: Pressure::default(),
            traces: Traces::default(),
            journal,
            keeps,
            counters: Counters::default(),
            history: Arc::new(History::new(HISTORY_BYTES_MAX)),
            registry: Mutex::new(registry),
            deadlines: Mutex::default(),
            router: RwLock::default(),
            generation: AtomicU64::new(1),
            retained: RwLock::new(retained),
            system: RwLock::default(),
            system_refresh: OnceLock::new(),
            retained_stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            stripe_hasher: RandomState::default(),
            next_queue: AtomicU64::new(1),
            next_connection: AtomicU64::new((u64::from(boot) << 32) + 1),
        }
    }

    fn restore(&self, mut image: Image, now: Timestamp) {
        self.next_queue
            .store(image.next_queue.max(1), Ordering::Relaxed);
        self.restore_groups(&mut image);
        let Image {
            sessions,
            mut subscriptions,
            mut queues,
            inbound,
            retained,
            next_queue: _,
        } = image;
        for row in sessions.into_values() {
            if !row.expiry.is_durable() {
                self.journal
                    .submit(Record::new(Action::SessionEnded { queue: row.queue }));
                continue;
            }
            let queue = queues.remove(&row.queue).unwrap_or_default();
            let limits = self.limits_of(None, &row.identity, &row.client_id);
            let sent_below = row.disconnected_at.map(|_| row.sent_below);
            // A queue that was folded away when it was empty has forgotten how far it had come.
            let next_sequence = queue.next_sequence.max(row.sent_below);
            let mailbox = Mailbox::restored(
                row.queue,
                row.client_id.clone(),
                &limits,
                queue.refs,
                next_sequence,
                sent_below,
            );
            let mut state = SessionState::new(row.identity, row.attributes, row.expiry, limits);
            state.epoch = row.epoch;
            state.is_stored = true;
            // A session connected at the crash counts as disconnected now (contracts section 5).
            state.disconnected_at = Some(row.disconnected_at.map_or(now, |at| at.min(now)));
            state.sent_below = row.sent_below;
            state.will = row.will;
            let session = Session::new(row.client_id, mailbox, 0, state);
            let known = subscriptions.remove(&row.queue).unwrap_or_default();
            let mut state = session.lock();
            for stored in known.into_values() {
                let wish = Wish {
                    filter: &stored.filter,
                    options: stored.options,
                    subscription_id: stored.subscription_id,
                };
                self.route(&session, &mut state, wish);
                state.add_filter(&stored.filter);
            }
            let ids = inbound.range((row.queue, PACKET_ID_MIN)..=(row.queue, PACKET_ID_MAX));
            state.inbound = ids.map(|(_, id)| (*id, Inbound::Taken(None))).collect();
            self.set_deadline(&session, &mut state);
            drop(state);
            lock(&self.registry)
                .sessions
                .insert(session.client_id().clone(), session);
        }
        lock(&self.registry).recount(&self.limits());
        self.end_empty_groups();
        let mut kept = write(&self.retained);
        for (_, message) in retained.into_values() {
            // What was accepted under an earlier limit stays.
            let _ = kept.set(message, &UNLIMITED);
        }
    }

    /// Makes what was asked for and granted a route.
    fn route(&self, session: &Session, state: &mut SessionState, wish: Wish<'_>) {
        if is_shared(wish.filter) {
            return self.join(session, state, wish);
        }
        let subscription = Subscription {
            mailbox: session.mailbox().clone(),
            options: wish.options,
            subscription_id: wish.subscription_id.and_then(NonZeroU32::new),
        };
        write(&self.router).subscribe(wish.filter, subscription);
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        read(&self.limits).common.clone()
    }

    /// The limits of a client that connects through `listener`, as far as that is known.
    pub(crate) fn limits_of(
        &self,
        listener: Option<&str>,
        identity: &Identity,
        client_id: &ClientId,
    ) -> Arc<Limits> {
        read(&self.limits).of(listener, identity, client_id)
    }

    /// Changes the limits: for queues from the next delivery on, for connections from their next CONNECT on, because they
    /// have been told theirs. What is above a new limit stays.
    pub fn set_limits(&self, limits: impl Into<LimitSet>) {
        let set = Arc::new(limits.into());
        let limits = set.common.clone();
        let sessions: Vec<_> = {
            let mut registry = lock(&self.registry);
            // Together: who connects meets the limits with what is counted for them.
            *write(&self.limits) = set.clone();
            registry.recount(&limits);
            registry.sessions.values().cloned().collect()
        };
        write(&self.retained).set_limits(&limits);
        for session in sessions {
            let mut state = session.lock();
            let listener = state.listener.as_deref();
            state.limits = set.of(listener, &state.identity, session.client_id());
            session.mailbox().set_limits(&state.limits);
        }
        self.set_group_limits(&limits);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What happened lately.
    #[must_use]
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Takes up what a run has counted and lost. `now` is asked only if something was lost.
    #[inline]
    pub(crate) fn add_tally(
        &self,
        tally: &mut Tally,
        version: ProtocolVersion,
        number: u64,
        now: impl FnOnce() -> Timestamp,
    ) {
        if tally.has_exceptions() {
            self.note_losses(tally, now);
            self.counters.add_exceptions(tally, version, number);
        }
        self.counters.add_regular(tally, version, number);
    }

    /// Takes up what the broker has counted and lost by itself.
    pub(crate) fn add_own_tally(&self, tally: &mut Tally, now: impl FnOnce() -> Timestamp) {
        self.add_tally(tally, ProtocolVersion::V5, 0, now);
    }

    #[cold]
    #[inline(never)]
    fn note_losses(&self, tally: &mut Tally, now: impl FnOnce() -> Timestamp) {
        let Some(losses) = tally.take_losses() else {
            return;
        };
        if let Some(obituary) = self.history.note_losses(losses, now()) {
            let wanted = obituary.wanted();
            let asker = Asker::History(Box::new(obituary));
            self.journal.read_backlog(BacklogRequest { asker, wanted });
        }
    }

    /// How hard clients are held back while memory is short.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
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

    /// Sums over the sessions, taken one session after the other.
    #[must_use]
    pub fn session_totals(&self) -> SessionTotals {
        let sessions: Vec<_> = lock(&self.registry).sessions.values().cloned().collect();
        let mut totals = SessionTotals::default();
        for session in sessions {
            let load = session.mailbox().load();
            totals.sessions += 1;
            totals.connected += usize::from(load.is_online);
            totals.in_flight += load.in_flight;
            if load.messages == 0 {
                continue;
            }
            totals.queued_messages += load.messages;
            totals.queued_bytes += load.bytes;
            totals.queued_messages_max = totals.queued_messages_max.max(load.messages);
            totals.queued_bytes_max = totals.queued_bytes_max.max(load.bytes);
            // What is in the store was received before its session went away, or since.
            let oldest_at = load.oldest_at.or_else(|| session.lock().disconnected_at);
            totals.oldest_at = totals.oldest_at.into_iter().chain(oldest_at).min();
        }
        let (messages, bytes) = self.groups_depth();
        totals.queued_messages += messages;
        totals.queued_bytes += bytes;
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

    pub(crate) fn submit(&self, action: Action) -> Arc<Record> {
        let record = Record::new(action);
        self.journal.submit(record.clone());
        record
    }

    /// Wakes every connection, to look at what does not come through its mailbox.
    pub fn wake_all(&self) {
        let mut sessions: Vec<_> = lock(&self.registry).sessions.values().cloned().collect();
        // An order that does not depend on how the map hashes, so that a simulation can be repeated.
        sessions.sort_unstable_by_key(|session| session.queue());
        for session in sessions {
            session.mailbox().wakeup().wake();
        }
    }

    /// The session of a client.
    #[must_use]
    pub fn session(&self, client_id: &str) -> Option<Arc<Session>> {
        lock(&self.registry)
            .sessions
            .get(&ClientId::new(client_id))
            .cloned()
    }
}

/// Sums over the sessions.
#[derive(Copy, Clone, Debug, Default)]
pub struct SessionTotals {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Sessions with a connection.
    pub connected: usize,
    /// Messages waiting to be sent, in share groups too.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Those of the session that has most.
    pub queued_messages_max: usize,
    /// Their bytes in the session that has most of these.
    pub queued_bytes_max: usize,
    /// When the oldest that waits in a session was received; of those whose oldest is in the store, since when the client is away.
    pub oldest_at: Option<Timestamp>,
    /// Deliveries of QoS 1 and 2 that clients have not acknowledged.
    pub in_flight: usize,
}

const STRIPES: u64 = 64;
const PACKET_ID_MIN: PacketId = const { PacketId::new(1).unwrap() };
const PACKET_ID_MAX: PacketId = const { PacketId::new(u16::MAX).unwrap() };
static UNLIMITED: std::sync::LazyLock<Limits> = std::sync::LazyLock::new(|| Limits {
    retained_messages_max: usize::MAX,
    retained_bytes_max: usize::MAX,
    ..Limits::default()
});
