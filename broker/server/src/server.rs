//! The process: its listeners and what they count, the deadline task, and an orderly stop.
//!
//! Does not know: how a connection comes to be (`accept.rs`), what it does (`driver.rs`).

use crate::accept::accept;
use crate::acl_file::{AclFileError, LoadedAcl};
use crate::admin::{self, AdminSocket};
use crate::auth::{AuthError, Authenticator, CheckLine};
use crate::clock;
use crate::config::{self, Bind, Config, ListenerConfig};
use crate::http;
use crate::memory::{self, Memory};
use crate::socket::ListeningSocket;
use crate::store::StoreError;
use crate::store::engine::EngineOptions;
use crate::store::file::FileLimits;
use crate::store::journal::{Opened, RedbJournal, StoreDurability, StoreOptions};
use crate::tls;
use crate::tls_sessions::TlsSessions;
use crate::websocket::{Violation, ViolationCounters};
use arc_swap::{ArcSwap, ArcSwapOption};
use motemq_codec::QoS;
use motemq_core::{
    Broker, Close, DropReason, Limits, Occasion, QueueFull, RateFull, RateLimit, ShareRedispatch,
    ShareStrategy, SharedRate,
};
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The broker with everything that connections share.
#[derive(Debug)]
pub struct Server {
    broker: BrokerCell,
    journal: Option<Arc<RedbJournal>>,
    authenticator: ArcSwap<Authenticator>,
    /// How often logins that are live had to be asked about again.
    login_generation: AtomicU64,
    password_checks: Arc<CheckLine>,
    listeners: Vec<Arc<Listener>>,
    tls_sessions: Arc<TlsSessions>,
    unauthenticated: AtomicUsize,
    memory: Memory,
    websocket_head_bytes_max: usize,
    websocket_frame_bytes_max: u64,
    /// The server's own limits, which can change while it runs.
    unauthenticated_max: AtomicUsize,
    connect_timeout_s: AtomicU32,
    stop_timeout_s: AtomicU32,
    /// The last reload took effect; so does the start.
    is_reloaded: AtomicBool,
    stop: watch::Sender<Stop>,
    /// As `stop`, for connections to look at.
    is_stopping: AtomicBool,
    connections: Mutex<tokio::task::JoinSet<()>>,
    panics: AtomicU64,
}

struct BrokerCell(Broker);

impl std::fmt::Debug for BrokerCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

/// Whether the server is to stop.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It runs.
    No,
    /// Somebody asked for it.
    Asked,
    /// The store has failed.
    StoreFailed,
}

/// One listener and what it counts.
#[derive(Debug)]
pub struct Listener {
    config: ListenerConfig,
    /// For connections made from now on.
    tls: ArcSwapOption<rustls::ServerConfig>,
    open: AtomicUsize,
    connected: AtomicUsize,
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    violations: Arc<ViolationCounters>,
    closed: Mutex<BTreeMap<&'static str, u64>>,
    /// What all its clients together may publish.
    publish_rate: Option<Arc<SharedRate>>,
}

/// Why a listener refused a connection or client.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `max_connections` of the listener.
    MaxConnections,
    /// `limits.unauthenticated_max`.
    UnauthenticatedMax,
    /// `allow_cidrs` or `deny_cidrs`.
    Address,
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
    pub const ALL: [Self; 8] = [
        Self::MaxConnections,
        Self::UnauthenticatedMax,
        Self::Address,
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
            Self::Address => "address",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
        }
    }
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source of users.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The access rules.
    #[error(transparent)]
    Acl(#[from] AclFileError),
    /// A certificate or key.
    #[error("listener {listener}: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: tls::TlsError,
    },
    /// The admin socket.
    #[error(
        "the admin socket {path} cannot be made: {source}; set admin.socket to another path (at most 107 bytes), or to \"\" for none"
    )]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address.
    #[error(
        "{what} cannot use {address}: {source}; {}",
        bind_advice(address, source)
    )]
    Bind {
        /// What wanted the address.
        what: String,
        /// The address.
        address: Bind,
        /// What the system said.
        source: std::io::Error,
    },
}

fn bind_advice(address: &Bind, error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match (address, error.kind()) {
        (Bind::Ip(_), ErrorKind::PermissionDenied) => {
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE): grant it, or set another bind"
        }
        (Bind::Ip(_), ErrorKind::AddrNotAvailable) => {
            "this machine has no such address: set another bind"
        }
        (Bind::Unix(_), ErrorKind::PermissionDenied) => {
            "the broker's user must be able to write to the folder"
        }
        (Bind::Unix(_), ErrorKind::NotFound) => "create its folder, or set another bind",
        (Bind::Unix(_), ErrorKind::InvalidInput) => {
            "the path of a socket has at most 107 bytes: set a shorter bind"
        }
        (Bind::Unix(_), ErrorKind::AlreadyExists) => "move the file away, or set another bind",
        _ => "stop what uses it, or set another bind",
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Running {
    server: Arc<Server>,
    tasks: tokio::task::JoinSet<()>,
    addresses: Vec<(String, SocketAddr)>,
    http: Option<SocketAddr>,
}

/// Starts everything; returns when all listeners accept.
///
/// # Errors
/// When the store cannot be opened, a file is wrong or an address is taken. Nothing runs then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let limits = Arc::new(core_limits(&config));
    let (stop, _) = watch::channel(Stop::No);
    let (broker, journal) = match &config.data_dir {
        None => (Broker::without_store(limits), None),
        Some(dir) => {
            let failed = stop.clone();
            let folder = dir.clone();
            let opened = RedbJournal::open(
                dir,
                store_options(&config.persistence),
                rand::rng().random(),
                clock::monotonic,
                move |error| {
                    tracing::error!(store = %folder.join("store.redb").display(), %error, "the store has failed: nothing is acknowledged any more");
                    failed.send_replace(Stop::StoreFailed);
                },
            )?;
            let Opened {
                journal,
                image,
                boot,
            } = opened;
            let broker = Broker::new(limits, journal.clone(), image, boot, clock::now());
            (broker, Some(journal))
        }
    };
    if config.persistence.durability == config::Durability::Relaxed {
        tracing::warn!(
            "persistence.durability is relaxed: a crash loses what was acknowledged last"
        );
    }
    let password_checks = CheckLine::new(config.limits.password_checks_per_address_max);
    let authenticator = Authenticator::new(&config.auth, password_checks.clone())?;
    LoadedAcl::load(&config.auth)?.apply(&broker);
    let sessions_max = config.limits.tls_sessions_max as usize;
    let tls_sessions = TlsSessions::open(config.data_dir.as_deref(), sessions_max);
    let mut tasks = tokio::task::JoinSet::new();
    let mut bound = Vec::new();
    for listener in &config.listeners {
        let tls = read_tls(listener, &tls_sessions)?;
        let socket = ListeningSocket::bind(listener).map_err(|source| StartError::Bind {
            what: format!("listener {}", listener.name),
            address: listener.bind.clone(),
            source,
        })?;
        bound.push((socket, tls));
    }
    let listeners = config
        .listeners
        .iter()
        .cloned()
        .map(Listener::new)
        .map(Arc::new)
        .collect();
    let server = Arc::new(Server {
        broker: BrokerCell(broker),
        journal,
        authenticator: ArcSwap::from_pointee(authenticator),
        login_generation: AtomicU64::new(0),
        password_checks,
        listeners,
        tls_sessions,
        unauthenticated: AtomicUsize::new(0),
        memory: Memory::default(),
        websocket_head_bytes_max: config.limits.websocket_head_bytes_max as usize,
        websocket_frame_bytes_max: match config.limits.websocket_frame_bytes_max {
            0 => config.limits.packet_bytes_max.into(),
            bytes => bytes.into(),
        },
        unauthenticated_max: AtomicUsize::new(0),
        connect_timeout_s: AtomicU32::new(0),
        stop_timeout_s: AtomicU32::new(0),
        is_reloaded: AtomicBool::new(true),
        stop,
        is_stopping: AtomicBool::new(false),
        connections: Mutex::default(),
        panics: AtomicU64::new(0),
    });
    server.set_limits(&config.limits);
    if let Some(path) = config.admin_socket().filter(|_| server.journal.is_some()) {
        let socket = AdminSocket::bind(&path)?;
        tasks.spawn(admin::serve(server.clone(), socket));
    }
    let mut http = None;
    for address in config.http.bind.into_iter().chain(config.http.metrics_bind) {
        let bound = http::serve(server.clone(), address, &config.http, &mut tasks).await?;
        http.get_or_insert(bound);
    }
    let mut addresses = Vec::new();
    for ((socket, tls), listener) in bound.into_iter().zip(&server.listeners) {
        listener.tls.store(tls);
        if let Some(address) = socket.address() {
            addresses.push((listener.config.name.clone(), address));
        }
        tasks.spawn(accept(server.clone(), listener.clone(), socket));
    }
    tasks.spawn(watch_deadlines(server.clone()));
    tasks.spawn(server.tls_sessions.clone().write_regularly());
    tasks.spawn(watch_losses(server.clone()));
    tasks.spawn(memory::watch(server.clone()));
    Ok(Running {
        server,
        tasks,
        addresses,
        http,
    })
}

/// Checks what a configuration names, without starting anything.
///
/// # Errors
/// The first file that is missing or wrong.
pub fn check(config: &Config) -> Result<(), StartError> {
    Authenticator::new(&config.auth, CheckLine::new(1))?;
    LoadedAcl::load(&config.auth)?;
    if let Some(dir) = &config.data_dir
        && dir.exists()
        && !dir.is_dir()
    {
        return Err(StoreError::NotAFolder(dir.clone()).into());
    }
    for listener in &config.listeners {
        read_tls(listener, &TlsSessions::in_memory(0))?;
    }
    Ok(())
}

impl Running {
    /// The names of the TCP listeners, WebSocket among them, and the addresses they really have.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The address of the HTTP port.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Stops: tells the clients, waits for them until a deadline, commits what is left.
    pub async fn stop(mut self) {
        self.server.stop.send_if_modified(|stop| {
            let is_first = *stop == Stop::No;
            if is_first {
                *stop = Stop::Asked;
            }
            is_first
        });
        self.server.is_stopping.store(true, Ordering::Release);
        self.server.broker().wake_all();
        self.tasks.shutdown().await;
        let mut connections = std::mem::take(&mut *self.server.lock_connections());
        let drain = async { while connections.join_next().await.is_some() {} };
        let stop_timeout_s = self.server.stop_timeout_s.load(Ordering::Relaxed);
        let stop_timeout = Duration::from_secs(stop_timeout_s.into());
        if tokio::time::timeout(stop_timeout, drain).await.is_err() {
            tracing::warn!(
                left = connections.len(),
                "some connections did not end within limits.stop_timeout_s"
            );
        }
        connections.shutdown().await;
        let sessions = self.server.tls_sessions.clone();
        let _ = tokio::task::spawn_blocking(move || sessions.write()).await;
        if let Some(journal) = self.server.journal.clone() {
            let _ = tokio::task::spawn_blocking(move || journal.stop()).await;
        }
    }
}

impl Server {
    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker.0
    }

    /// The store, if there is one.
    #[must_use]
    pub fn journal(&self) -> Option<&RedbJournal> {
        self.journal.as_deref()
    }

    /// Who checks credentials.
    #[must_use]
    pub fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.load_full()
    }

    /// Who checks credentials from now on.
    pub(crate) fn set_authenticator(&self, authenticator: Authenticator) {
        self.authenticator.store(Arc::new(authenticator));
    }

    /// Where password checks wait.
    pub(crate) fn password_checks(&self) -> &Arc<CheckLine> {
        &self.password_checks
    }

    /// Lets every connection ask whether its login still stands, those that are idle too; after what decides about it has changed.
    pub(crate) fn ask_logins_again(&self) {
        // Released by the registry's lock: who attaches a session after it was walked through sees the new number.
        self.login_generation.fetch_add(1, Ordering::Release);
        self.broker().wake_all();
    }

    /// Another number says that logins must be asked about again.
    pub(crate) fn login_generation(&self) -> u64 {
        self.login_generation.load(Ordering::Relaxed)
    }

    /// Changes the limits that are the server's own.
    pub(crate) fn set_limits(&self, limits: &config::LimitsConfig) {
        let relaxed = Ordering::Relaxed;
        self.unauthenticated_max
            .store(limits.unauthenticated_max as usize, relaxed);
        self.connect_timeout_s
            .store(limits.connect_timeout_s, relaxed);
        self.stop_timeout_s.store(limits.stop_timeout_s, relaxed);
        self.password_checks
            .set_per_address_max(limits.password_checks_per_address_max);
        self.memory.set_max(limits.memory_bytes_max);
    }

    /// The memory of the process.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Notes how a reload ended.
    pub(crate) fn note_reload(&self, has_taken_effect: bool) {
        self.is_reloaded.store(has_taken_effect, Ordering::Relaxed);
    }

    /// Whether the last reload took effect; without one, yes.
    #[must_use]
    pub fn is_reloaded(&self) -> bool {
        self.is_reloaded.load(Ordering::Relaxed)
    }

    /// The sessions that TLS clients may resume.
    pub(crate) fn tls_sessions(&self) -> &Arc<TlsSessions> {
        &self.tls_sessions
    }

    /// The listeners.
    #[must_use]
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// When a connection that starts now has to have sent its CONNECT.
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s.load(Ordering::Relaxed).into())
    }

    /// The largest request head of a WebSocket client.
    pub(crate) fn websocket_head_bytes_max(&self) -> usize {
        self.websocket_head_bytes_max
    }

    /// The largest frame of a WebSocket client.
    pub(crate) fn websocket_frame_bytes_max(&self) -> u64 {
        self.websocket_frame_bytes_max
    }

    /// Whether the broker has as many connections without a session as it may.
    pub(crate) fn is_unauthenticated_max(&self) -> bool {
        self.unauthenticated() >= self.unauthenticated_max.load(Ordering::Relaxed)
    }

    /// Counts a connection without a session while the outcome lives.
    pub(crate) fn count_unauthenticated(&self) -> Counted<'_> {
        Counted::new(&self.unauthenticated)
    }

    /// Spawns the task of a connection, and joins those that have ended.
    pub(crate) fn spawn_connection(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut connections = self.lock_connections();
        connections.spawn(connection);
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Connections that have not got their CONNACK yet.
    #[must_use]
    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated.load(Ordering::Relaxed)
    }

    /// A connection has its session, or has ended without one.
    pub(crate) fn note_authenticated(&self) {
        self.unauthenticated.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connection tasks that ended by a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Waits until the server is to stop, and says why.
    pub async fn stop_reason(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        match stop.wait_for(|stop| *stop != Stop::No).await {
            Ok(stop) => *stop,
            Err(_) => Stop::Asked,
        }
    }

    /// Whether the server is to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Ends when the server is to stop.
    pub fn stopped(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            let _ = stop.wait_for(|stop| *stop != Stop::No).await;
        }
    }

    fn lock_connections(&self) -> std::sync::MutexGuard<'_, tokio::task::JoinSet<()>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    fn new(config: ListenerConfig) -> Self {
        let publish_rate = RateLimit {
            messages: config.publish_rate_max,
            bytes: config.publish_bytes_rate_max,
        };
        let is_limited = !publish_rate.is_unlimited();
        Self {
            publish_rate: is_limited.then(|| Arc::new(SharedRate::new(publish_rate))),
            config,
            tls: ArcSwapOption::empty(),
            open: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            violations: Arc::default(),
            closed: Mutex::default(),
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ListenerConfig {
        &self.config
    }

    /// The handshake for a new connection; none where there is no TLS.
    pub(crate) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.load_full().map(TlsAcceptor::from)
    }

    /// Certificate, key and authorities for connections made from now on.
    pub(crate) fn set_tls(&self, tls: Arc<rustls::ServerConfig>) {
        self.tls.store(Some(tls));
    }

    pub(crate) fn qos_max(&self) -> QoS {
        QoS::from_bits(self.config.qos_max).unwrap_or(QoS::ExactlyOnce)
    }

    /// What all its clients together may publish in a second, if that is limited.
    pub(crate) fn publish_rate(&self) -> Option<Arc<SharedRate>> {
        self.publish_rate.clone()
    }

    pub(crate) fn note_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the listener has as many connections as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.open.load(Ordering::Relaxed) >= self.config.max_connections as usize
    }

    /// Counts a connection while the outcome lives.
    pub(crate) fn count_open(&self) -> Counted<'_> {
        Counted::new(&self.open)
    }

    /// Where its WebSocket clients' mistakes are counted.
    pub(crate) fn violations(&self) -> &Arc<ViolationCounters> {
        &self.violations
    }

    /// The driver of a connection is gone.
    pub(crate) fn note_gone(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn note_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_closed(&self, close: &Close, was_connected: bool) {
        if was_connected {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
        if let Close::Refused(_) | Close::ReauthenticationFailed(..) = close {
            self.note_refused(Refusal::Connect);
        }
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        *closed.entry(close.label()).or_default() += 1;
    }

    /// Clients connected now.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Sockets accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections and clients refused so far, for this reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed.
    #[must_use]
    pub fn tls_failed(&self) -> u64 {
        self.refused(Refusal::Tls)
    }

    /// How often WebSocket clients broke this rule.
    #[must_use]
    pub fn violated(&self, violation: Violation) -> u64 {
        self.violations.of(violation)
    }

    /// Connections ended so far, by reason.
    #[must_use]
    pub fn closed(&self) -> BTreeMap<&'static str, u64> {
        self.closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn read_tls(
    listener: &ListenerConfig,
    sessions: &Arc<TlsSessions>,
) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    tls::server_config(listener, sessions).map_err(|source| StartError::Tls {
        listener: listener.name.clone(),
        source,
    })
}

/// Counts something while it lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    /// The driver that the connection has now ends the count.
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Publishes wills and ends sessions on time, to a tenth of a second.
async fn watch_deadlines(server: Arc<Server>) {
    loop {
        let now = clock::now();
        let pause = match server.broker().poll_timeout() {
            Some(at) if at <= now => {
                server.broker().handle_timeout(now);
                continue;
            }
            Some(at) => at.since(now).min(DEADLINE_PAUSE_MAX),
            None => DEADLINE_PAUSE_MAX,
        };
        tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
    }
}

/// Says in the log, now and then, that messages were lost to a limit: the metrics say it at once. Expiry, refusals by the
/// receiver and QoS 0 for absent clients are no losses.
async fn watch_losses(server: Arc<Server>) {
    let mut known = [0; 4];
    loop {
        tokio::time::sleep(LOSSES_INTERVAL).await;
        let counters = server.broker().counters();
        let now = [
            counters.dropped(DropReason::QueueFull),
            counters.dropped(DropReason::TooLarge),
            counters.dropped(DropReason::Unreadable),
            counters.noted(Occasion::PublishRefused),
        ];
        if now != known {
            let [queue_full, too_large, unreadable, refused] =
                std::array::from_fn(|kind| now[kind] - known[kind]);
            tracing::warn!(
                queue_full,
                too_large,
                unreadable,
                refused,
                "messages were dropped or refused: queue_full is limits.queue_messages_max or queue_bytes_max of a receiver, too_large a receiver's own maximum, refused a limit of the publisher or the store"
            );
            known = now;
        }
    }
}

pub(crate) fn core_limits(config: &Config) -> Limits {
    let (limits, shared) = (&config.limits, &config.shared_subscriptions);
    let mqtt = &config.mqtt;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Limits {
        packet_bytes_max: limits.packet_bytes_max,
        payload_bytes_max: limits.payload_bytes_max,
        connect_packet_bytes_max: limits.connect_packet_bytes_max,
        receive_maximum: NonZeroU16::new(limits.receive_maximum).unwrap_or(NonZeroU16::MIN),
        inflight_messages_max: limits.inflight_messages_max,
        queue_messages_max: limits.queue_messages_max as usize,
        queue_bytes_max: size(limits.queue_bytes_max),
        queue_full: match limits.queue_full {
            config::QueueFull::DropOldest => QueueFull::DropOldest,
            config::QueueFull::DropNewest => QueueFull::DropNewest,
            config::QueueFull::Refuse => QueueFull::Refuse,
            config::QueueFull::Disconnect => QueueFull::Disconnect,
        },
        mailbox_memory_bytes: size(limits.mailbox_memory_bytes),
        session_expiry_max_s: limits.session_expiry_max_s,
        keep_alive_max_s: limits.keep_alive_max_s,
        topic_levels_max: usize::from(limits.topic_levels_max),
        topic_alias_max: limits.topic_alias_max,
        subscriptions_max: limits.subscriptions_max as usize,
        subscription_bytes_max: size(limits.subscription_bytes_max),
        publish_rate: RateLimit {
            messages: limits.publish_rate_max,
            bytes: limits.publish_bytes_rate_max,
        },
        identity_publish_rate: RateLimit {
            messages: limits.identity_publish_rate_max,
            bytes: limits.identity_publish_bytes_rate_max,
        },
        publish_rate_full: match limits.publish_rate_full {
            config::RateFull::Delay => RateFull::Delay,
            config::RateFull::DropQoS0 => RateFull::DropQoS0,
            config::RateFull::Disconnect => RateFull::Disconnect,
        },
        sessions_max: limits.sessions_max as usize,
        identity_sessions_max: limits.identity_sessions_max as usize,
        identity_connections_max: limits.identity_connections_max as usize,
        retained_messages_max: limits.retained_messages_max as usize,
        retained_bytes_max: size(limits.retained_bytes_max),
        client_retained_messages_max: limits.client_retained_messages_max as usize,
        client_retained_bytes_max: size(limits.client_retained_bytes_max),
        output_bytes_max: size(limits.output_bytes_max),
        share_strategy: match shared.strategy {
            config::ShareStrategy::RoundRobin => ShareStrategy::RoundRobin,
            config::ShareStrategy::Random => ShareStrategy::Random,
            config::ShareStrategy::Sticky => ShareStrategy::Sticky,
            config::ShareStrategy::HashClient => ShareStrategy::HashClient,
            config::ShareStrategy::HashTopic => ShareStrategy::HashTopic,
        },
        share_redispatch: match shared.redispatch {
            config::ShareRedispatch::Disconnect => ShareRedispatch::AtDisconnect,
            config::ShareRedispatch::SessionEnd => ShareRedispatch::AtSessionEnd,
        },
        response_information: mqtt.response_information.as_str().into(),
    }
}

fn store_options(persistence: &config::PersistenceConfig) -> StoreOptions {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    StoreOptions {
        engine: EngineOptions {
            two_phase_commit: persistence.two_phase_commit,
            journal_bytes_max: persistence.journal_bytes_max,
            fold_rows_max: persistence.fold_rows_max as usize,
            fold_time_max: Duration::from_millis(persistence.fold_ms_max.into()),
        },
        file: FileLimits {
            reserve_bytes: persistence.reserve_bytes,
            store_bytes_max: persistence.store_bytes_max,
        },
        commit_delay: Duration::from_millis(persistence.commit_delay_ms.into()),
        queue_bytes_max: size(persistence.journal_queue_bytes_max),
        cache_bytes: size(persistence.cache_bytes),
        injected_sync_delay: injected_sync_delay(),
        durability: match persistence.durability {
            config::Durability::Commit => StoreDurability::Commit,
            config::Durability::Relaxed => StoreDurability::Relaxed,
        },
    }
}

/// `MOTEMQ_INJECT_SYNC_MS` slows every commit down, to see how the broker behaves on a slow disk.
fn injected_sync_delay() -> Duration {
    let wish = std::env::var(INJECT_SYNC)
        .ok()
        .and_then(|ms| ms.parse().ok());
    wish.map_or(Duration::ZERO, Duration::from_millis)
}

/// The environment variable that slows commits down; not part of the configuration.
pub const INJECT_SYNC: &str = "MOTEMQ_INJECT_SYNC_MS";
/// How often losses are looked for.
const LOSSES_INTERVAL: Duration = Duration::from_secs(10);
/// The deadline table is looked at this often at least.
const DEADLINE_PAUSE_MAX: Duration = Duration::from_millis(100);
