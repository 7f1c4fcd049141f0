//! The process: listeners, the deadline task, and an orderly stop.
//!
//! A connection's handshakes happen in its own task, under a deadline; the accept loop only counts and spawns.

use crate::audit::AuditLimit;
use crate::auth::{Authenticator, Peer, PeerCertificate};
use crate::clock;
use crate::config::{self, Config, ListenerConfig};
use crate::driver::Driver;
use crate::http;
use crate::store::StoreError;
use crate::store::engine::EngineOptions;
use crate::store::file::FileLimits;
use crate::store::journal::{Opened, RedbJournal, StoreDurability, StoreOptions};
use crate::tls;
use motemq_codec::QoS;
use motemq_core::{Broker, Close, DropReason, Limits, QueueFull, ShareRedispatch, ShareStrategy};
use rand::RngExt as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// The broker with everything that connections share.
#[derive(Debug)]
pub struct Server {
    broker: BrokerCell,
    journal: Option<Arc<RedbJournal>>,
    authenticator: Authenticator,
    listeners: Vec<Arc<Listener>>,
    unauthenticated: AtomicUsize,
    unauthenticated_max: usize,
    connect_timeout: Duration,
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
    open: AtomicUsize,
    connected: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    tls_failed: AtomicU64,
    closed: Mutex<BTreeMap<&'static str, u64>>,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password file or the SCRAM file.
    #[error(transparent)]
    Passwords(#[from] crate::password::PasswordFileError),
    /// A certificate or key.
    #[error("listener {listener}: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: tls::TlsError,
    },
    /// An address.
    #[error("{what} cannot use {address}: {source}; {}", bind_advice(source))]
    Bind {
        /// What wanted the address.
        what: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

fn bind_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE): grant it, or set another bind"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: set another bind"
        }
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
            let opened = RedbJournal::open(
                dir,
                store_options(&config.persistence),
                rand::rng().random(),
                clock::monotonic,
                move |error| {
                    tracing::error!(%error, "the store has failed: nothing is acknowledged any more");
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
    let authenticator = Authenticator::new(&config.auth)?;
    let mut tasks = tokio::task::JoinSet::new();
    let mut bound = Vec::new();
    for listener in &config.listeners {
        bound.push(bind(listener).await?);
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
        authenticator,
        listeners,
        unauthenticated: AtomicUsize::new(0),
        unauthenticated_max: config.limits.unauthenticated_max as usize,
        connect_timeout: Duration::from_secs(config.limits.connect_timeout_s.into()),
        stop,
        is_stopping: AtomicBool::new(false),
        connections: Mutex::default(),
        panics: AtomicU64::new(0),
    });
    let mut http = None;
    for address in config.http.bind.into_iter().chain(config.http.metrics_bind) {
        let bound = http::serve(server.clone(), address, &mut tasks).await?;
        http.get_or_insert(bound);
    }
    let mut addresses = Vec::new();
    for ((socket, acceptor), listener) in bound.into_iter().zip(&server.listeners) {
        let name = listener.config.name.clone();
        let address = socket.local_addr().unwrap_or(listener.config.bind);
        addresses.push((name, address));
        tasks.spawn(accept(server.clone(), listener.clone(), socket, acceptor));
    }
    tasks.spawn(watch_deadlines(server.clone()));
    tasks.spawn(watch_losses(server.clone()));
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
    Authenticator::new(&config.auth)?;
    if let Some(dir) = &config.data_dir
        && dir.exists()
        && !dir.is_dir()
    {
        return Err(StoreError::NotAFolder(dir.clone()).into());
    }
    for listener in &config.listeners {
        if let Some(tls) = &listener.tls {
            tls::server_config(tls).map_err(|source| StartError::Tls {
                listener: listener.name.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

impl Running {
    /// The listeners' names and the addresses they really have.
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
        if tokio::time::timeout(DRAIN_TIME, drain).await.is_err() {
            tracing::warn!(
                left = connections.len(),
                "some connections did not end in time"
            );
        }
        connections.shutdown().await;
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
    pub fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// The listeners.
    #[must_use]
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
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
        Self {
            config,
            open: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            tls_failed: AtomicU64::new(0),
            closed: Mutex::default(),
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ListenerConfig {
        &self.config
    }

    pub(crate) fn qos_max(&self) -> QoS {
        QoS::from_bits(self.config.qos_max).unwrap_or(QoS::ExactlyOnce)
    }

    pub(crate) fn note_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_closed(&self, close: &Close, was_connected: bool) {
        if was_connected {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
        if let Close::Refused(_) | Close::ReauthenticationFailed(..) = close {
            self.refused.fetch_add(1, Ordering::Relaxed);
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

    /// Clients refused so far, by CONNACK or because a limit was reached.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// TLS handshakes that failed.
    #[must_use]
    pub fn tls_failed(&self) -> u64 {
        self.tls_failed.load(Ordering::Relaxed)
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

async fn bind(listener: &ListenerConfig) -> Result<(TcpListener, Option<TlsAcceptor>), StartError> {
    let acceptor = listener
        .tls
        .as_ref()
        .map(tls::server_config)
        .transpose()
        .map_err(|source| StartError::Tls {
            listener: listener.name.clone(),
            source,
        })?
        .map(TlsAcceptor::from);
    let bind_error = |source| StartError::Bind {
        what: format!("listener {}", listener.name),
        address: listener.bind,
        source,
    };
    let socket = listen(listener.bind).map_err(bind_error)?;
    Ok((socket, acceptor))
}

/// A listening socket with room for a fleet that comes back at once.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    server: Arc<Server>,
    listener: Arc<Listener>,
    socket: TcpListener,
    acceptor: Option<TlsAcceptor>,
) {
    loop {
        let (stream, address) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the listener must survive that.
                tracing::warn!(listener = listener.config.name, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        listener.accepted.fetch_add(1, Ordering::Relaxed);
        let is_over = listener.open.load(Ordering::Relaxed)
            >= listener.config.max_connections as usize
            || server.unauthenticated() >= server.unauthenticated_max;
        if is_over {
            listener.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(listener = listener.config.name, peer = %address, "refused: max_connections or limits.unauthenticated_max");
            continue;
        }
        let (serving, lane) = (server.clone(), listener.clone());
        let acceptor = acceptor.clone();
        let mut connections = server.lock_connections();
        connections.spawn(async move { serve(serving, lane, acceptor, stream, address).await });
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                server.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Counts a connection while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(
    server: Arc<Server>,
    listener: Arc<Listener>,
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let _open = Counted::new(&listener.open);
    // Boxed apart, so that a connection keeps neither the state of its handshake nor room for a TLS stream it has not.
    let prepared = Box::pin(prepare(&server, &listener, acceptor, stream, address));
    if let Some(driver) = prepared.await {
        driver.await;
    }
}

/// The handshakes below MQTT: first byte, TLS, the name in the certificate.
async fn prepare(
    server: &Arc<Server>,
    listener: &Arc<Listener>,
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
    let started = clock::now();
    let connect_by = started + server.connect_timeout;
    // Latency matters more than segment count for packets of this size.
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    let peeked = tokio::time::timeout(
        FIRST_BYTE_TIME.min(server.connect_timeout),
        stream.peek(&mut first),
    );
    let count = Counted::new(&server.unauthenticated);
    if !matches!(peeked.await, Ok(Ok(1..))) {
        return None;
    }
    let Some(acceptor) = acceptor else {
        // From here on the driver counts.
        std::mem::forget(count);
        let peer = Peer {
            address,
            certificate: PeerCertificate::None,
        };
        let (server, listener) = (server.clone(), listener.clone());
        return Some(Box::pin(Driver::new(
            stream, server, listener, peer, connect_by,
        )));
    };
    let handshake = tokio::time::timeout(server.connect_timeout, acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if let Some(suppressed) = TLS_FAILURES.admit() {
                tracing::warn!(listener = listener.config.name, peer = %address, %error, suppressed, "TLS handshake failed");
            }
            listener.tls_failed.fetch_add(1, Ordering::Relaxed);
            listener.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Err(_) => return None,
    };
    std::mem::forget(count);
    let kind = listener
        .config
        .tls
        .as_ref()
        .map_or(config::Identity::None, |tls| tls.identity);
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let certificate = match leaf {
        Some(leaf) if kind != config::Identity::None => {
            let now_s = i64::try_from(started.as_ms() / 1000).unwrap_or(i64::MAX);
            tls::identity(leaf, kind, now_s)
                .map_or(PeerCertificate::Unusable, PeerCertificate::Name)
        }
        _ => PeerCertificate::None,
    };
    let peer = Peer {
        address,
        certificate,
    };
    let (server, listener) = (server.clone(), listener.clone());
    Some(Box::pin(Driver::new(
        stream, server, listener, peer, connect_by,
    )))
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
            counters.publish_refused.load(Ordering::Relaxed),
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

fn core_limits(config: &Config) -> Limits {
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
        retained_messages_max: limits.retained_messages_max as usize,
        retained_bytes_max: size(limits.retained_bytes_max),
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
/// Failed TLS handshakes in the log.
static TLS_FAILURES: AuditLimit = AuditLimit::new();
/// A socket that says nothing for so long is closed.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(10);
/// How often losses are looked for.
const LOSSES_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a stop waits for the connections.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// The deadline table is looked at this often at least.
const DEADLINE_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Connections that the kernel may hold before they are accepted.
const BACKLOG: i32 = 4096;
