//! What may outlive a connection: one client's subscriptions, queue, inbound packet ids and will.
//!
//! Invariants: a session belongs to one identity for life; at most one connection, the one of the newest epoch, acts on
//! it. Does not know: who receives what the client publishes, packets, sockets.

use crate::action::{QueueId, SessionRow, Will};
use crate::connection::Hints;
use crate::limits::Limits;
use crate::login::{Attributes, Principal, Scope};
use crate::mailbox::Mailbox;
use crate::message::{ClientId, Expiry, Identity};
use crate::record::Record;
use crate::share_group::ShareGroup;
use crate::short_text::ShortText;
use crate::sync::lock;
use crate::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashSet;
use motemq_codec::PacketId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// A client's session.
#[derive(Debug)]
pub struct Session {
    client_id: ClientId,
    mailbox: Arc<Mailbox>,
    /// The number of the connection that it began with; 0 when it was before the broker's start.
    opened_by: u64,
    state: Mutex<SessionState>,
}

#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) identity: Identity,
    /// As of its last login.
    pub(crate) attributes: Arc<Attributes>,
    /// What its login is good for.
    pub(crate) scope: Scope,
    /// Counts connections; the newest owns the session.
    pub(crate) epoch: u64,
    pub(crate) expiry: Expiry,
    /// What its client may use.
    pub(crate) limits: Arc<Limits>,
    /// Where it connected last, as far as that is known.
    pub(crate) listener: Option<Arc<str>>,
    /// The store has a row for the session.
    pub(crate) is_stored: bool,
    pub(crate) is_connected: bool,
    pub(crate) disconnected_at: Option<Timestamp>,
    /// Deliveries below this sequence were sent; set when a connection ends.
    pub(crate) sent_below: u64,
    /// The filters it subscribes to, as the client wrote them; the router and the store know the options.
    pub(crate) filters: HashSet<ShortText, RandomState>,
    /// Bytes of the filters.
    pub(crate) filter_bytes: usize,
    /// The share groups among them.
    pub(crate) groups: Vec<Arc<ShareGroup>>,
    pub(crate) will: Option<Arc<Will>>,
    /// Topics worth an alias on the next connection.
    pub(crate) alias_hints: Hints,
    pub(crate) inbound: BTreeMap<PacketId, Inbound>,
    /// The session's place in the deadline table.
    pub(crate) deadline: Option<Timestamp>,
}

/// An inbound QoS 2 packet id [MQTT5-4.3.3-10].
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    /// PUBLISH received; PUBREC may leave when the record is durable (`None`: nothing to wait for).
    Taken(Option<Arc<Record>>),
    /// PUBREL received; PUBCOMP may leave when the record is durable.
    Removing(Option<Arc<Record>>),
}

impl Session {
    pub(crate) fn new(
        client_id: ClientId,
        mailbox: Arc<Mailbox>,
        opened_by: u64,
        state: SessionState,
    ) -> Arc<Self> {
        Arc::new(Self {
            client_id,
            mailbox,
            opened_by,
            state: Mutex::new(state),
        })
    }

    /// The client identifier.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.lock().identity.clone()
    }

    /// Where the session's messages wait.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The number of the connection that it began with; 0 when it was before the broker's start.
    pub(crate) fn opened_by(&self) -> u64 {
        self.opened_by
    }

    pub(crate) fn queue(&self) -> QueueId {
        self.mailbox.queue()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionState> {
        lock(&self.state)
    }
}

impl SessionState {
    pub(crate) fn new(
        identity: Identity,
        attributes: Arc<Attributes>,
        expiry: Expiry,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            identity,
            attributes,
            scope: Scope::Full,
            epoch: 0,
            expiry,
            limits,
            listener: None,
            is_stored: false,
            is_connected: false,
            disconnected_at: None,
            sent_below: 0,
            filters: HashSet::default(),
            filter_bytes: 0,
            groups: Vec::new(),
            will: None,
            alias_hints: Hints::default(),
            inbound: BTreeMap::new(),
            deadline: None,
        }
    }

    /// Whose use it counts as: who may only enrol uses up nothing of others.
    pub(crate) fn counted_as(&self) -> &Identity {
        match self.scope {
            Scope::Full | Scope::Operator => &self.identity,
            Scope::Enrolment => &Identity::Anonymous,
        }
    }

    /// Notes a filter that it subscribes to; `true` when it is new.
    pub(crate) fn add_filter(&mut self, filter: &str) -> bool {
        let is_new = self.filters.insert(ShortText::new(filter.as_bytes()));
        if is_new {
            self.filter_bytes += filter.len();
        }
        is_new
    }

    /// Forgets a filter; `false` when it did not subscribe to it.
    pub(crate) fn remove_filter(&mut self, filter: &str) -> bool {
        let was_there = self.filters.remove(filter.as_bytes());
        if was_there {
            self.filter_bytes -= filter.len();
        }
        was_there
    }

    /// PUBCOMP leaves: the packet id may name a new exchange from now on [MQTT5-4.3.3-12].
    pub(crate) fn finish_removal(&mut self, packet_id: PacketId) {
        if let Some(Inbound::Removing(_)) = self.inbound.get(&packet_id) {
            self.inbound.remove(&packet_id);
        }
    }

    /// Whom the ACL judges.
    pub(crate) fn principal(&self, session: &Session) -> Arc<Principal> {
        Arc::new(Principal {
            client_id: session.client_id.clone(),
            identity: self.identity.clone(),
            attributes: self.attributes.clone(),
        })
    }

    pub(crate) fn row(&self, session: &Session) -> Box<SessionRow> {
        Box::new(SessionRow {
            queue: session.queue(),
            client_id: session.client_id.clone(),
            identity: self.identity.clone(),
            attributes: self.attributes.clone(),
            epoch: self.epoch,
            expiry: self.expiry,
            disconnected_at: self.disconnected_at,
            sent_below: self.sent_below,
            will: self.will.clone(),
        })
    }
}
