//! Sessions from the first CONNECT to their end: take-over, wills, expiry.
//!
//! Invariants: at most one connection holds a session; whoever held it before is fenced and woken. A will that is due is
//! published before its session's end is recorded. Does not know: packets, who matches what.

use super::{Broker, Keeps, PublishSource};
use crate::action::{Action, QueueId, Will};
use crate::counters::{Limit, Occasion, Tally};
use crate::journal::Room;
use crate::limits::Limits;
use crate::login::{Login, Scope};
use crate::mailbox::Mailbox;
use crate::message::{ClientId, Expiry, Identity, Origin};
use crate::rate::SharedRate;
use crate::record::{Record, RecordState};
use crate::session::{Session, SessionState};
use crate::share_group::ShareGroup;
use crate::short_text::ShortText;
use crate::sync::{lock, write};
use crate::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use motemq_codec::{ReasonCode, is_shared};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A session taken up by a connection.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The session.
    pub(crate) session: Arc<Session>,
    /// The connection's number in the session; a lower one is fenced.
    pub(crate) epoch: u64,
    /// An earlier session goes on [MQTT5-3.2.2-3].
    pub(crate) session_present: bool,
    /// The share groups that the session is in.
    pub(crate) groups: Vec<Arc<ShareGroup>>,
    /// What the clients of its identity together may publish in a second, if that is limited.
    pub(crate) publish_rate: Option<Arc<SharedRate>>,
    /// CONNACK may leave when this is durable.
    pub(crate) awaited: Option<Arc<Record>>,
}

/// What a client asks for when it connects.
#[derive(Debug)]
pub(crate) struct AttachRequest {
    pub(crate) client_id: ClientId,
    /// The connection's number.
    pub(crate) connection: u64,
    pub(crate) login: Login,
    pub(crate) clean_start: bool,
    pub(crate) expiry: Expiry,
    /// Unacknowledged QoS 1 and 2 messages that the client may have.
    pub(crate) inflight_max: u16,
    pub(crate) will: Option<Arc<Will>>,
    /// What the client may use.
    pub(crate) limits: Arc<Limits>,
    /// Where it connects.
    pub(crate) listener: Option<Arc<str>>,
}

/// How a connection ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// DISCONNECT with 0x00: the will is discarded [MQTT5-3.14.4-3].
    Normal,
    /// Anything else: the will is published [MQTT5-3.1.2-8].
    WithWill,
}

/// The sessions, and those that have ended but not yet on disk.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) sessions: HashMap<ClientId, Arc<Session>, RandomState>,
    /// Ends that may not be durable yet, oldest first: CONNACK of a new session of the same client waits for them.
    endings: VecDeque<(ClientId, Arc<Record>)>,
    /// Sessions that can only enrol.
    applicants: usize,
    /// What identities have; only while something limits it.
    identities: Option<HashMap<Identity, Use, RandomState>>,
}

/// What the clients of one identity have together.
#[derive(Debug, Default)]
struct Use {
    sessions: usize,
    connections: usize,
    publish_rate: Option<Arc<SharedRate>>,
}

impl Broker {
    /// Takes up or creates the session of a client; an older connection of it is fenced first.
    ///
    /// # Errors
    /// 0x87 when the session belongs to another identity or scope; 0x97 when there is no room for another session or connection.
    pub(crate) fn attach(
        &self,
        request: AttachRequest,
        now: Timestamp,
        tally: &mut Tally,
    ) -> Result<Attached, ReasonCode> {
        let mut registry = lock(&self.registry);
        let is_durable = request.expiry.is_durable() && self.keeps == Keeps::Store;
        // What exists may go on, and so drain; a new session would take room. Refused before anything is taken over.
        let refuses_new = is_durable && self.journal.room() == Room::Full;
        let mut present = None;
        let limits = self.limits();
        if !registry.sessions.contains_key(&request.client_id) {
            let refusal = match request.login.scope {
                _ if refuses_new => Some(Limit::Store),
                Scope::Full | Scope::Operator => {
                    registry.session_limit(&request.login.identity, &limits)
                }
                Scope::Enrolment => {
                    let enrolment = self.enrolment();
                    let applicants_max = enrolment.map_or(0, |enrolment| enrolment.applicants_max);
                    (registry.applicants >= applicants_max).then_some(Limit::Applicants)
                }
            };
            if let Some(limit) = refusal {
                tally.reach(limit);
                return Err(ReasonCode::QuotaExceeded);
            }
        }
        if let Some(old) = registry.sessions.get(&request.client_id).cloned() {
            let mut state = old.lock();
            let is_same =
                state.scope == request.login.scope && state.identity == request.login.identity;
            if !is_same {
                return Err(ReasonCode::NotAuthorized);
            }
            let has_ended = due_times(&state).1.is_some_and(|at| at <= now);
            let goes_on = !request.clean_start && state.expiry.is_durable() && !has_ended;
            if refuses_new && !goes_on {
                tally.reach(Limit::Store);
                return Err(ReasonCode::QuotaExceeded);
            }
            // A take-over needs no other connection than the one it ends.
            if !state.is_connected && registry.is_connection_max(&state.identity, &limits) {
                tally.reach(Limit::IdentityConnections);
                return Err(ReasonCode::QuotaExceeded);
            }
            registry.note_connection(state.counted_as(), state.is_connected, -1);
            self.displace(&old, &mut state, goes_on, now, tally);
            if goes_on {
                present = Some(old.clone());
            } else {
                self.end(&mut registry, &old, &mut state, tally);
            }
        }
        let session_present = present.is_some();
        let session = present.unwrap_or_else(|| self.create(&request));
        let mut state = session.lock();
        if !session_present {
            registry.note_session(&state, 1);
        }
        registry.note_connection(state.counted_as(), true, 1);
        let publish_rate = registry.publish_rate(state.counted_as(), &limits);
        state.epoch += 1;
        state.expiry = request.expiry;
        self.set_attributes(&session, &mut state, request.login.attributes, tally);
        if !Arc::ptr_eq(&state.limits, &request.limits) {
            session.mailbox().set_limits(&request.limits);
            state.limits = request.limits;
        }
        state.listener = request.listener;
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
        session
            .mailbox()
            .attach(epoch, is_durable, request.inflight_max);
        self.come_online(&session, &state, is_durable);
        let groups = state.groups.clone();
        drop(state);
        registry.sessions.insert(request.client_id, session.clone());
        Ok(Attached {
            session,
            epoch,
            session_present,
            groups,
            publish_rate,
            awaited,
        })
    }

    fn create(&self, request: &AttachRequest) -> Arc<Session> {
        let queue = QueueId::session(self.next_queue.fetch_add(1, Ordering::Relaxed));
        let mailbox = Mailbox::new(queue, request.client_id.clone(), &request.limits);
        let mut state = SessionState::new(
            request.login.identity.clone(),
            request.login.attributes.clone(),
            request.expiry,
            request.limits.clone(),
        );
        state.scope = request.login.scope;
        Session::new(
            request.client_id.clone(),
            mailbox,
            request.connection,
            state,
        )
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
            tally.note(Occasion::Takeover);
            // Wakes the old owner, before its waker is forgotten.
            session.mailbox().wakeup().fence(state.epoch + 1);
            self.go_offline(session, state, tally);
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
        registry.note_connection(state.counted_as(), true, -1);
        self.go_offline(session, &state, tally);
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
            self.end(&mut registry, session, &mut state, tally);
            return;
        }
        if state.is_stored {
            // Not awaited: if it is lost, the session merely counts as disconnected at the restart.
            let row = state.row(session);
            self.journal.submit(Record::new(Action::SessionPut(row)));
        }
        self.set_deadline(session, &mut state);
    }

    /// Ends a session because an operator wants it: a connection that it still has is over, its will is published. What is to be
    /// waited for until it stays away; `None` when there is no such session.
    pub fn end_session(&self, client_id: &str, now: Timestamp) -> Option<Option<Arc<Record>>> {
        let client_id = ClientId::new(client_id);
        let mut tally = Tally::default();
        let mut registry = lock(&self.registry);
        let session = registry.sessions.get(&client_id).cloned()?;
        let mut state = session.lock();
        registry.note_connection(state.counted_as(), state.is_connected, -1);
        self.displace(&session, &mut state, false, now, &mut tally);
        self.end(&mut registry, &session, &mut state, &mut tally);
        drop(state);
        let awaited = registry.ending_of(&client_id);
        drop(registry);
        self.add_own_tally(&mut tally, || now);
        Some(awaited)
    }

    /// Removes a session and everything it owns.
    fn end(
        &self,
        registry: &mut Registry,
        session: &Arc<Session>,
        state: &mut SessionState,
        tally: &mut Tally,
    ) {
        registry.sessions.remove(session.client_id());
        registry.note_session(state, -1);
        self.remove_deadline(session, state);
        let filters = std::mem::take(&mut state.filters);
        state.filter_bytes = 0;
        if !filters.is_empty() {
            let mut router = write(&self.router);
            let filters = filters.iter().map(ShortText::as_str);
            for filter in filters.filter(|filter| !is_shared(filter)) {
                router.unsubscribe(filter, session.queue());
            }
        }
        self.leave_all(session, state, tally);
        if !filters.is_empty() {
            // The last change of the router comes first: what is looked up from here on must not name what has left.
            self.generation.fetch_add(1, Ordering::Release);
        }
        state.inbound.clear();
        state.will = None;
        session.mailbox().clear(self.journal(), tally);
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
        let topic = message.topic.as_str();
        let rights = self.rights(session, state);
        if rights.is_some_and(|rights| !rights.publish(topic).allows(message.qos, message.retain)) {
            tally.note(Occasion::WillDenied);
            if state.is_stored {
                // The row must not keep it for the next start.
                self.submit(Action::SessionPut(state.row(session)));
            }
            return;
        }
        let receivers = self.receivers(topic, Some(session.queue()));
        let source = PublishSource {
            inbound: None,
            will_of: state.is_stored.then(|| session.queue()),
        };
        tally.note(Occasion::WillPublished);
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
                tally.note(Occasion::SessionExpired);
                self.end(&mut registry, &session, &mut state, &mut tally);
            } else {
                self.set_deadline(&session, &mut state);
            }
        }
        self.add_own_tally(&mut tally, || now);
    }

    pub(super) fn set_deadline(&self, session: &Arc<Session>, state: &mut SessionState) {
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
}

impl Registry {
    /// Counts what identities have anew, if something limits it.
    pub(super) fn recount(&mut self, limits: &Limits) {
        let is_limited = limits.identity_sessions_max > 0
            || limits.identity_connections_max > 0
            || !limits.identity_publish_rate.is_unlimited();
        let before = self.identities.take();
        if !is_limited {
            return;
        }
        self.identities = Some(HashMap::default());
        let sessions: Vec<_> = self.sessions.values().cloned().collect();
        for session in sessions {
            let state = session.lock();
            self.note_use(state.counted_as(), 1);
            self.note_connection(state.counted_as(), state.is_connected, 1);
        }
        // Who has a rate shares it with those who connect later.
        let rates = before.into_iter().flatten();
        for (identity, known) in rates {
            let entry = self
                .identities
                .as_mut()
                .and_then(|all| all.get_mut(&identity));
            if let (Some(entry), Some(rate)) = (entry, known.publish_rate) {
                rate.set_limit(limits.identity_publish_rate);
                entry.publish_rate = Some(rate);
            }
        }
    }

    /// What another session of `identity` would exceed.
    fn session_limit(&self, identity: &Identity, limits: &Limits) -> Option<Limit> {
        if self.sessions.len() - self.applicants >= limits.sessions_max {
            return Some(Limit::Sessions);
        }
        let sessions = self.used_by(identity).map_or(0, |used| used.sessions);
        if limits.identity_sessions_max > 0 && sessions >= limits.identity_sessions_max {
            return Some(Limit::IdentitySessions);
        }
        self.is_connection_max(identity, limits)
            .then_some(Limit::IdentityConnections)
    }

    fn is_connection_max(&self, identity: &Identity, limits: &Limits) -> bool {
        let connections = self.used_by(identity).map_or(0, |used| used.connections);
        limits.identity_connections_max > 0 && connections >= limits.identity_connections_max
    }

    fn used_by(&self, identity: &Identity) -> Option<&Use> {
        self.identities.as_ref()?.get(identity)
    }

    fn note_session(&mut self, state: &SessionState, change: isize) {
        if state.scope == Scope::Enrolment {
            self.applicants = self.applicants.saturating_add_signed(change);
        }
        self.note_use(state.counted_as(), change);
    }

    fn note_use(&mut self, identity: &Identity, change: isize) {
        self.note(identity, |used| {
            used.sessions = used.sessions.saturating_add_signed(change);
        });
    }

    fn note_connection(&mut self, identity: &Identity, is_connected: bool, change: isize) {
        if is_connected {
            self.note(identity, |used| {
                used.connections = used.connections.saturating_add_signed(change);
            });
        }
    }

    /// Anonymous clients have nothing in common.
    fn note(&mut self, identity: &Identity, change: impl FnOnce(&mut Use)) {
        let Some(identities) = &mut self.identities else {
            return;
        };
        if *identity == Identity::Anonymous {
            return;
        }
        let used = identities.entry(identity.clone()).or_default();
        change(used);
        if used.sessions == 0 && used.connections == 0 {
            identities.remove(identity);
        }
    }

    fn publish_rate(&mut self, identity: &Identity, limits: &Limits) -> Option<Arc<SharedRate>> {
        if limits.identity_publish_rate.is_unlimited() {
            return None;
        }
        let used = self.identities.as_mut()?.get_mut(identity)?;
        let new = || Arc::new(SharedRate::new(limits.identity_publish_rate));
        Some(used.publish_rate.get_or_insert_with(new).clone())
    }

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
