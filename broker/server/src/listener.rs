//! Listeners: what their configuration says, and what they count.
//!
//! A [`Gate`] is a listening socket. The [`Listener`] behind it is what holds for connections made from now on; a reload puts
//! another one there. A connection keeps the one that it came through until it has looked whether it may stay
//! ([`Listener::may_keep`]). What is counted goes on from one to the next.
//!
//! Does not know: how a connection comes to be (`accept.rs`).

use crate::admission::Rate;
use crate::api::Token;
use crate::auth::{Peer, PeerAddress};
use crate::config::{Bind, ClientIds, ListenerConfig, Protocol};
use crate::socket::ListeningSocket;
use crate::tls::ListenerTls;
use crate::tls_counts::{Outcome, TlsCounts};
use crate::websocket::{Violation, ViolationCounters};
use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use motemq_codec::{ProtocolVersion, QoS, ReasonCode};
use motemq_core::{AssignedIds, Close, Identity, RateLimit, SharedRate};
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// A listening socket, and the listener that holds for who comes next.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: ArcSwap<Listener>,
    /// Until it is closed.
    socket: ArcSwapOption<ListeningSocket>,
    address: Option<SocketAddr>,
    accepting: Mutex<Option<AbortHandle>>,
}

impl Gate {
    pub(crate) fn new(listener: Listener, socket: ListeningSocket) -> Arc<Self> {
        Arc::new(Self {
            listener: ArcSwap::from_pointee(listener),
            address: socket.address(),
            socket: ArcSwapOption::from_pointee(socket),
            accepting: Mutex::default(),
        })
    }

    /// What holds for who comes next.
    pub(crate) fn listener(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    /// Something else holds for who comes next.
    pub(crate) fn set_listener(&self, listener: Listener) {
        self.listener.store(Arc::new(listener));
    }

    /// The socket; `None` once it is closed.
    pub(crate) fn socket(&self) -> Option<Arc<ListeningSocket>> {
        self.socket.load_full()
    }

    /// The address that the socket really has.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Which task accepts here.
    pub(crate) fn set_accepting(&self, task: AbortHandle) {
        *self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Accepts no more; the socket closes with the task that accepts.
    pub(crate) fn close(&self) {
        self.socket.store(None);
        let mut accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = accepting.take() {
            task.abort();
        }
    }
}

/// One listener and what it counts.
#[derive(Debug)]
pub struct Listener {
    config: ListenerConfig,
    /// That of the configuration, for sessions to keep.
    name: Arc<str>,
    tls: Option<ListenerTls>,
    /// What all its clients together may publish.
    publish_rate: Option<Arc<SharedRate>>,
    /// Its clients are operators, who show this.
    token: Option<Token>,
    counts: Arc<Counts>,
}

/// What a listener counts; it outlives a change of the configuration.
#[derive(Debug)]
struct Counts {
    open: AtomicUsize,
    /// By version, as in [`VERSIONS`].
    connected: [AtomicUsize; VERSIONS.len()],
    opened: [AtomicU64; VERSIONS.len()],
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// By reason, as in [`CONNECT_REFUSALS`], and others.
    connects_refused: [AtomicU64; CONNECT_REFUSALS.len() + 1],
    violations: Arc<ViolationCounters>,
    /// By reason, as in [`Close::LABELS`].
    closed: [AtomicU64; Close::LABELS.len()],
    rate: Rate,
    tls: TlsCounts,
}

/// Why a listener refused a connection or client.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `max_connections` of the listener.
    MaxConnections,
    /// `limits.unauthenticated_max`: a newcomer took the place.
    UnauthenticatedMax,
    /// `limits.connect_rate_max`.
    ConnectRate,
    /// `connect_rate_max` of the listener.
    ListenerConnectRate,
    /// `limits.address_connect_rate_max`.
    AddressConnectRate,
    /// `limits.address_connections_max`.
    AddressConnections,
    /// The process may open no more files.
    Descriptors,
    /// `allow_cidrs` or `deny_cidrs`.
    Address,
    /// The address, client or user is banned.
    Banned,
    /// `proxy_cidrs`, or no usable PROXY protocol header.
    Proxy,
    /// The TLS handshake failed.
    Tls,
    /// The WebSocket handshake failed.
    WebSocket,
    /// `limits.connect_timeout_s` passed before CONNECT could come.
    Timeout,
    /// The CONNECT was refused.
    Connect,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::MaxConnections,
        Self::UnauthenticatedMax,
        Self::ConnectRate,
        Self::ListenerConnectRate,
        Self::AddressConnectRate,
        Self::AddressConnections,
        Self::Descriptors,
        Self::Address,
        Self::Banned,
        Self::Proxy,
        Self::Tls,
        Self::WebSocket,
        Self::Timeout,
        Self::Connect,
    ];

    /// The value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::UnauthenticatedMax => "unauthenticated_max",
            Self::ConnectRate => "connect_rate_max",
            Self::ListenerConnectRate => "listener_connect_rate_max",
            Self::AddressConnectRate => "address_connect_rate_max",
            Self::AddressConnections => "address_connections_max",
            Self::Descriptors => "descriptors",
            Self::Address => "address",
            Self::Banned => "banned",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
        }
    }

    /// What an operator changes to have it otherwise.
    #[must_use]
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections of this listener",
            Self::UnauthenticatedMax => "limits.unauthenticated_max",
            Self::ConnectRate => "limits.connect_rate_max",
            Self::ListenerConnectRate => "connect_rate_max of this listener",
            Self::AddressConnectRate => "limits.address_connect_rate_max",
            Self::AddressConnections => "limits.address_connections_max",
            Self::Descriptors => {
                "the process's limit of open files: ulimit -n, LimitNOFILE of the service"
            }
            Self::Address => "allow_cidrs or deny_cidrs of this listener",
            Self::Banned => "motemq ban rm; automatic ones: [ban]",
            Self::Proxy => "proxy_cidrs of this listener",
            Self::Tls => "[listeners.tls] of this listener",
            Self::WebSocket => "websocket_paths or allow_origins of this listener",
            Self::Timeout => "limits.connect_timeout_s",
            Self::Connect => "[auth], or anonymous of this listener",
        }
    }
}

impl Listener {
    /// A listener that has counted nothing.
    pub(crate) fn new(config: ListenerConfig, tls: Option<ListenerTls>) -> Self {
        let counts = Arc::new(Counts {
            open: AtomicUsize::new(0),
            connected: Default::default(),
            opened: Default::default(),
            accepted: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            connects_refused: Default::default(),
            violations: Arc::default(),
            closed: Default::default(),
            rate: Rate::default(),
            tls: TlsCounts::default(),
        });
        Self {
            publish_rate: publish_rate(&config),
            name: config.name.as_str().into(),
            config,
            tls,
            token: None,
            counts,
        }
    }

    /// The HTTP port as a listener: its clients are operators with the token of the API.
    pub(crate) fn of_operators(address: SocketAddr, max_connections: u32, token: Token) -> Self {
        let config = ListenerConfig {
            name: OPERATORS.to_owned(),
            bind: address.into(),
            protocol: Protocol::Ws,
            max_connections,
            ..ListenerConfig::default()
        };
        Self {
            token: Some(token),
            ..Self::new(config, None)
        }
    }

    /// What its clients show, where they are operators.
    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The same listener after a change.
    pub(crate) fn changed(&self, config: ListenerConfig, tls: Option<ListenerTls>) -> Self {
        let is_same = self.config.publish_rate_max == config.publish_rate_max
            && self.config.publish_bytes_rate_max == config.publish_bytes_rate_max;
        Self {
            publish_rate: match is_same {
                true => self.publish_rate.clone(),
                false => publish_rate(&config),
            },
            name: config.name.as_str().into(),
            config,
            tls,
            token: None,
            counts: self.counts.clone(),
        }
    }

    /// Whether `other` is this listener before or after a change.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ListenerConfig {
        &self.config
    }

    /// Its name.
    pub(crate) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Its TLS.
    pub(crate) fn tls(&self) -> Option<&ListenerTls> {
        self.tls.as_ref()
    }

    /// Whether somebody who proved to be `identity` may have this client identifier; an empty one is assigned.
    pub(crate) fn allows_client_id(&self, client: &str, identity: &Identity) -> bool {
        match (self.config.client_id, identity.name()) {
            (ClientIds::Any, _) => true,
            (ClientIds::User, Some(user)) => client.is_empty() || client == user,
            (ClientIds::User, None) => false,
        }
    }

    /// What clients without an identifier get.
    pub(crate) fn assigned_ids(&self) -> AssignedIds {
        match self.config.client_id {
            ClientIds::Any => AssignedIds::Random,
            ClientIds::User => AssignedIds::User,
        }
    }

    pub(crate) fn qos_max(&self) -> QoS {
        QoS::from_bits(self.config.qos_max).unwrap_or(QoS::ExactlyOnce)
    }

    /// What all its clients together may publish in a second, if that is limited.
    pub(crate) fn publish_rate(&self) -> Option<Arc<SharedRate>> {
        self.publish_rate.clone()
    }

    /// Whether a client may come from this address; the more careful list wins.
    pub(crate) fn admits_ip(&self, ip: IpAddr) -> bool {
        let config = &self.config;
        !contains(&config.deny_cidrs, ip)
            && (config.allow_cidrs.is_empty() || contains(&config.allow_cidrs, ip))
    }

    /// As [`admits_ip`](Self::admits_ip); no list can tell of what has no address.
    pub(crate) fn admits(&self, address: &PeerAddress) -> bool {
        let config = &self.config;
        match address {
            PeerAddress::Ip(address) => self.admits_ip(address.ip().to_canonical()),
            PeerAddress::Unix { .. } => true,
            PeerAddress::Unknown => config.allow_cidrs.is_empty() && config.deny_cidrs.is_empty(),
        }
    }

    /// Whether somebody who is connected may stay as far as lists say, which change without the listener.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn tolerates(&self, peer: &Peer) -> Result<(), (ReasonCode, &'static str)> {
        match (&self.tls, peer.certificate_ids.as_deref()) {
            (Some(tls), Some(certificates)) => {
                let tolerated = tls.tolerates(certificates);
                tolerated.map_err(|why| (ReasonCode::NotAuthorized, why.reason()))
            }
            _ => Ok(()),
        }
    }

    /// Whether somebody who came through `before` may stay now that this listener is in its place.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn may_keep(
        &self,
        before: &Self,
        peer: &Peer,
    ) -> Result<(), (ReasonCode, &'static str)> {
        if !self.admits(&peer.address) {
            let reason = "the address is not admitted any more: allow_cidrs, deny_cidrs";
            return Err((ReasonCode::AdministrativeAction, reason));
        }
        match (&self.tls, &before.tls) {
            (Some(tls), Some(before)) => tls.may_keep(before, peer.certificate_ids.as_deref()),
            (None, None) => Ok(()),
            _ => Err((
                ReasonCode::AdministrativeAction,
                "the listener's TLS was switched on or off",
            )),
        }
    }

    pub(crate) fn note_accepted(&self) {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_refused(&self, refusal: Refusal) {
        self.counts.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether connects come slowly enough for `connect_rate_max`.
    pub(crate) fn admits_rate(&self) -> bool {
        let rate = self.config.connect_rate_max;
        rate == 0 || self.counts.rate.admit(crate::clock::monotonic(), rate)
    }

    /// Whether the listener has more connections than it may.
    pub(crate) fn is_beyond_max(&self) -> bool {
        self.counts.open.load(Ordering::Relaxed) > self.config.max_connections as usize
    }

    /// Where its WebSocket clients' mistakes are counted.
    pub(crate) fn violations(&self) -> &Arc<ViolationCounters> {
        &self.counts.violations
    }

    pub(crate) fn note_connected(&self, version: ProtocolVersion) {
        let at = place(version);
        self.counts.connected[at].fetch_add(1, Ordering::Relaxed);
        self.counts.opened[at].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an end; `connected` is the version of a client that was connected.
    pub(crate) fn note_closed(&self, close: &Close, connected: Option<ProtocolVersion>) {
        let counts = &self.counts;
        if let Some(version) = connected {
            counts.connected[place(version)].fetch_sub(1, Ordering::Relaxed);
        }
        if let Close::Refused(code) | Close::ReauthenticationFailed(code, _) = close {
            self.note_refused(match code {
                ReasonCode::Banned => Refusal::Banned,
                _ => Refusal::Connect,
            });
            let known = CONNECT_REFUSALS.iter().position(|(known, _)| known == code);
            let at = known.unwrap_or(CONNECT_REFUSALS.len());
            counts.connects_refused[at].fetch_add(1, Ordering::Relaxed);
        }
        let label = Close::LABELS
            .iter()
            .position(|label| *label == close.label());
        if let Some(at) = label {
            counts.closed[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Clients connected now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected_by_version()
            .map(|(_, connected, _)| connected)
            .sum()
    }

    /// By version: clients connected now, and clients that have connected so far.
    pub fn connected_by_version(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
        let (now, all) = (&self.counts.connected, &self.counts.opened);
        let counts = now.iter().zip(all);
        VERSIONS
            .into_iter()
            .zip(counts)
            .map(|(version, (now, all))| {
                let relaxed = Ordering::Relaxed;
                (version, now.load(relaxed), all.load(relaxed))
            })
    }

    /// What its clients' bytes travel in.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match (&self.config.bind, self.config.protocol, &self.tls) {
            (Bind::Unix(_), Protocol::Mqtt, None) => "unix",
            (_, Protocol::Mqtt, None) => "tcp",
            (_, Protocol::Mqtt, Some(_)) => "tls",
            (_, Protocol::Ws, None) => "ws",
            (_, Protocol::Ws, Some(_)) => "wss",
        }
    }

    /// Sockets accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Connections and clients refused so far, for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.counts.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// CONNECTs and re-authentications refused so far, by what the reason code says.
    pub fn connects_refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let labels = CONNECT_REFUSALS.into_iter().map(|(_, label)| label);
        let counts = self.counts.connects_refused.iter();
        labels
            .chain(["other"])
            .zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// What it counts of TLS handshakes.
    pub(crate) fn tls_counts(&self) -> &TlsCounts {
        &self.counts.tls
    }

    /// TLS handshakes completed: full ones, and those that resumed a session.
    #[must_use]
    pub fn handshakes(&self) -> [(&'static str, u64); 2] {
        [Outcome::Full, Outcome::Resumed]
            .map(|kind| (kind.label(), self.counts.tls.completed_as(kind)))
    }

    /// TLS handshakes that failed.
    #[must_use]
    pub fn tls_failed(&self) -> u64 {
        self.refused(Refusal::Tls)
    }

    /// How often WebSocket clients broke this rule.
    #[must_use]
    pub fn violated(&self, violation: Violation) -> u64 {
        self.counts.violations.of(violation)
    }

    /// Connections ended so far, by reason.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.counts.closed.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        Close::LABELS.into_iter().zip(counts)
    }
}

/// A connection that its listener counts as open while this lives.
#[derive(Debug)]
pub(crate) struct OpenAt(Arc<Listener>);

impl OpenAt {
    /// Counts a connection.
    pub(crate) fn new(listener: Arc<Listener>) -> Self {
        listener.counts.open.fetch_add(1, Ordering::Relaxed);
        Self(listener)
    }

    /// The listener has changed, and the connection goes on.
    pub(crate) fn follow(&mut self, changed: Arc<Listener>) {
        debug_assert!(changed.is_same(&self.0), "it is counted there");
        self.0 = changed;
    }
}

impl Deref for OpenAt {
    type Target = Arc<Listener>;

    fn deref(&self) -> &Arc<Listener> {
        &self.0
    }
}

impl Drop for OpenAt {
    fn drop(&mut self) {
        self.0.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn publish_rate(config: &ListenerConfig) -> Option<Arc<SharedRate>> {
    let rate = RateLimit {
        messages: config.publish_rate_max,
        bytes: config.publish_bytes_rate_max,
    };
    (!rate.is_unlimited()).then(|| Arc::new(SharedRate::new(rate)))
}

/// The place of a version in [`VERSIONS`].
fn place(version: ProtocolVersion) -> usize {
    match version {
        ProtocolVersion::V3_1 => 0,
        ProtocolVersion::V3_1_1 => 1,
        ProtocolVersion::V5 => 2,
    }
}

/// The name of the HTTP port as a listener; no other has it.
pub(crate) const OPERATORS: &str = "http";
/// The values of the metrics' `version` label.
const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5"];
/// Why CONNECTs are refused, and the values of the metric's `reason` label.
const CONNECT_REFUSALS: [(ReasonCode, &str); 11] = [
    (
        ReasonCode::UnsupportedProtocolVersion,
        "unsupported_version",
    ),
    (ReasonCode::ClientIdentifierNotValid, "bad_client_id"),
    (ReasonCode::BadUserNameOrPassword, "bad_credentials"),
    (ReasonCode::BadAuthenticationMethod, "bad_method"),
    (ReasonCode::NotAuthorized, "not_authorized"),
    (ReasonCode::Banned, "banned"),
    (ReasonCode::ServerBusy, "server_busy"),
    (ReasonCode::QuotaExceeded, "quota_exceeded"),
    (ReasonCode::PacketTooLarge, "packet_too_large"),
    (ReasonCode::TopicNameInvalid, "bad_will_topic"),
    (ReasonCode::QoSNotSupported, "will_qos"),
];

/// Whether one of the networks has the address.
pub(crate) fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}
