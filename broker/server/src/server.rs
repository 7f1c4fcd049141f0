//! The process: its listeners and what they count, the deadline task, and an orderly stop.
//!
//! Does not know: how a connection comes to be (`accept.rs`), what it does (`driver.rs`).

use crate::accept::accept;
use crate::acl_file::{AclFileError, LoadedAcl};
use crate::admission::Admission;
use crate::allow_list::Followed;
use crate::api::{AdminSocket, Token, TokenError};
use crate::auth::{AuthError, Authenticator, CheckLine};
use crate::ban::Bans;
use crate::clock;
use crate::config::{self, Bind, Config, EnrolmentConfig, HistoryConfig};
use crate::http;
use crate::listener::Gate;
use crate::memory::{self, Memory};
use crate::meters::{self, ConnectionFacts, Inquiries};
use crate::reload::{Mistakes, Reloaded};
use crate::socket::ListeningSocket;
use crate::store::StoreError;
use crate::store::engine::EngineOptions;
use crate::store::file::FileLimits;
use crate::store::journal::{Opened, RedbJournal, StoreDurability, StoreOptions};
use crate::sys_topics::{self, SysTopics};
use crate::tls::{self, TlsState};
use crate::tls_sessions::TlsSessions;
use crate::trace::Traces;
use crate::vitals::{Vitals, watch_loop_lag};
use arc_swap::ArcSwap;
use motemq_core::{
    Broker, DropReason, Enrolment, LimitSet, Limits, Occasion, Profile, QueueFull, RateFull,
    RateLimit, ShareRedispatch, ShareStrategy,
};
use rand::RngExt as _;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

pub use crate::listener::{Listener, Refusal};

/// The broker with everything that connections share.
#[derive(Debug)]
pub struct Server {
    broker: BrokerCell,
    journal: Option<Arc<RedbJournal>>,
    authenticator: ArcSwap<Authenticator>,
    password_checks: Arc<CheckLine>,
    gates: ArcSwap<Vec<Arc<Gate>>>,
    tls: TlsState,
    admission: Admission,
    bans: Bans,
    /// Whoever reads the configuration again, if anybody does.
    reloader: Mutex<Option<mpsc::Sender<ReloadRequest>>>,
    /// Counts changes after which connections look whether they may stay.
    generation: AtomicU64,
    memory: Memory,
    inquiries: Inquiries,
    sys_topics: SysTopics,
    websocket_head_bytes_max: usize,
    websocket_frame_bytes_max: u64,
    /// The server's own limits, which can change while it runs.
    connect_timeout_s: AtomicU32,
    stop_timeout_s: AtomicU32,
    /// The last reload took effect; so does the start.
    is_reloaded: AtomicBool,
    vitals: Arc<Vitals>,
    stop: watch::Sender<Stop>,
    /// As `stop`, for connections to look at.
    is_stopping: AtomicBool,
    connections: Mutex<tokio::task::JoinSet<()>>,
    /// One for each gate.
    accepting: Mutex<tokio::task::JoinSet<()>>,
    /// The HTTP port, where operators connect.
    operators: OnceLock<Arc<Listener>>,
    runtime: tokio::runtime::Handle,
    panics: AtomicU64,
    traces: Traces,
}

/// A wish for a reload; what came of it is the answer.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, Mistakes>>;

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
    /// What an operator had banned.
    #[error("the bans from before cannot be read: {0}")]
    Bans(String),
    /// A certificate or key.
    #[error("listener {listener}: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: tls::TlsError,
    },
    /// The token of the API.
    #[error(transparent)]
    Token(#[from] TokenError),
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
    http: Option<SocketAddr>,
}

/// Starts everything; returns when all listeners accept.
///
/// # Errors
/// When the store cannot be opened, a file is wrong or an address is taken. Nothing runs then.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let limit_set = core_limits(&config);
    let limits = limit_set.common.clone();
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
    broker.set_limits(limit_set);
    set_history(&broker, &config.history);
    if config.persistence.durability == config::Durability::Relaxed {
        tracing::warn!(
            "persistence.durability is relaxed: a crash loses what was acknowledged last"
        );
    }
    let password_checks = CheckLine::new(config.limits.password_checks_per_address_max);
    let authenticator = Authenticator::new(&config.auth, password_checks.clone())?
        .with_enrolment(&config.enrolment);
    LoadedAcl::load(&config.auth)?.apply(&broker);
    broker.set_enrolment(core_enrolment(&config.enrolment));
    let sessions_max = config.limits.tls_sessions_max as usize;
    let tls_state = TlsState::new(TlsSessions::open(config.data_dir.as_deref(), sessions_max));
    let mut tasks = tokio::task::JoinSet::new();
    let mut gates = Vec::new();
    for listener in &config.listeners {
        let tls = read_tls(listener, &tls_state)?;
        if let Some(tls) = &tls {
            tls::warn(listener, tls);
        }
        let socket = bind(listener)?;
        gates.push(Gate::new(Listener::new(listener.clone(), tls), socket));
    }
    let server = Arc::new(Server {
        broker: BrokerCell(broker),
        journal,
        authenticator: ArcSwap::from_pointee(authenticator),
        password_checks,
        gates: ArcSwap::default(),
        tls: tls_state,
        admission: Admission::new(&config.limits),
        bans: Bans::open(&config).map_err(StartError::Bans)?,
        reloader: Mutex::default(),
        generation: AtomicU64::new(0),
        memory: Memory::default(),
        inquiries: Inquiries::default(),
        sys_topics: SysTopics::new(&config.sys),
        websocket_head_bytes_max: config.limits.websocket_head_bytes_max as usize,
        websocket_frame_bytes_max: match config.limits.websocket_frame_bytes_max {
            0 => config.limits.packet_bytes_max.into(),
            bytes => bytes.into(),
        },
        connect_timeout_s: AtomicU32::new(0),
        stop_timeout_s: AtomicU32::new(0),
        is_reloaded: AtomicBool::new(true),
        vitals: Arc::default(),
        stop,
        is_stopping: AtomicBool::new(false),
        connections: Mutex::default(),
        accepting: Mutex::default(),
        operators: OnceLock::new(),
        runtime: tokio::runtime::Handle::current(),
        panics: AtomicU64::new(0),
        traces: Traces::new(config.trace.clone()),
    });
    server.set_limits(&config.limits);
    if let Some(path) = config.admin_socket() {
        let socket = AdminSocket::bind(&path)?;
        http::serve_socket(&server, socket, &config.http, &mut tasks);
    }
    let mut http = None;
    if let Some(address) = config.http.bind {
        let token = config.token_file().map(|path| Token::open(&path));
        let token = token.transpose()?;
        http = Some(http::serve(
            &server,
            address,
            &config.http,
            token,
            &mut tasks,
        )?);
    }
    if let Some(address) = config.http.metrics_bind {
        let bound = http::serve_metrics(&server, address, &config.http, &mut tasks)?;
        http.get_or_insert(bound);
    }
    server.set_gates(gates);
    tasks.spawn(watch_deadlines(server.clone()));
    tasks.spawn(server.tls.sessions.clone().write_regularly());
    tasks.spawn(watch_losses(server.clone()));
    tasks.spawn(memory::watch(server.clone()));
    if config.sys.interval_s > 0 {
        SysTopics::follow(&server);
        tasks.spawn(sys_topics::watch(server.clone()));
    }
    tasks.spawn(watch_expiry(server.clone()));
    for _ in 0..server.runtime.metrics().num_workers() {
        tasks.spawn(watch_loop_lag(server.vitals.clone()));
    }
    Ok(Running {
        server,
        tasks,
        http,
    })
}

/// Checks what a configuration names, without starting anything. What comes back works, but somebody should look at it.
///
/// # Errors
/// The first file that is missing or wrong.
pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
    Authenticator::new(&config.auth, CheckLine::new(1))?;
    LoadedAcl::load(&config.auth)?;
    if let Some(dir) = &config.data_dir
        && dir.exists()
        && !dir.is_dir()
    {
        return Err(StoreError::NotAFolder(dir.clone()).into());
    }
    let state = TlsState::new(TlsSessions::in_memory(0));
    let mut warnings = Vec::new();
    for listener in &config.listeners {
        if let (Some(tls), Some(config)) = (read_tls(listener, &state)?, &listener.tls) {
            let found = tls.warnings(config).into_iter();
            warnings.extend(found.map(|warning| format!("listener {}: {warning}", listener.name)));
        }
    }
    Ok(warnings)
}

impl Running {
    /// The names of the TCP listeners, WebSocket among them, and the addresses they really have.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let gates = self.server.gates.load();
        let address =
            |gate: &Arc<Gate>| Some((gate.listener().config().name.clone(), gate.address()?));
        gates.iter().filter_map(address).collect()
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
        self.server.wake_all();
        self.tasks.shutdown().await;
        self.server
            .gates
            .load()
            .iter()
            .for_each(|gate| gate.close());
        let mut accepting = std::mem::take(&mut *lock(&self.server.accepting));
        accepting.shutdown().await;
        let mut connections = std::mem::take(&mut *lock(&self.server.connections));
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
        let sessions = self.server.tls.sessions.clone();
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

    /// What the connection of a client is and costs; `None` when it has none, or does not answer in time.
    pub async fn connection_facts(&self, client_id: &str) -> Option<ConnectionFacts> {
        let session = self.broker().session(client_id)?;
        let answer = self.inquiries.ask(client_id)?;
        session.mailbox().wakeup().wake();
        tokio::time::timeout(meters::PATIENCE, answer)
            .await
            .ok()?
            .ok()
    }

    /// Ends the connection of a client. `false` when it has none, or does not end in time.
    pub(crate) async fn end_connection(&self, client_id: &str) -> bool {
        let Some(session) = self.broker().session(client_id) else {
            return false;
        };
        let Some(answer) = self.inquiries.end(client_id) else {
            return false;
        };
        session.mailbox().wakeup().wake();
        matches!(
            tokio::time::timeout(meters::PATIENCE, answer).await,
            Ok(Ok(()))
        )
    }

    /// Who asks for facts.
    pub(crate) fn inquiries(&self) -> &Inquiries {
        &self.inquiries
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

    /// Changes the limits that are the server's own.
    pub(crate) fn set_limits(&self, limits: &config::LimitsConfig) {
        let relaxed = Ordering::Relaxed;
        self.admission.set_limits(limits);
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

    /// The statistics below `$SYS`.
    pub(crate) fn sys_topics(&self) -> &SysTopics {
        &self.sys_topics
    }

    /// What traces share.
    pub(crate) fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Notes how a reload ended.
    pub(crate) fn note_reload(&self, has_taken_effect: bool) {
        self.is_reloaded.store(has_taken_effect, Ordering::Relaxed);
        self.vitals.note_reload(has_taken_effect);
    }

    /// What the process counts of itself.
    #[must_use]
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Whether the last reload took effect; without one, yes.
    #[must_use]
    pub fn is_reloaded(&self) -> bool {
        self.is_reloaded.load(Ordering::Relaxed)
    }

    /// What the TLS of all listeners has in common.
    pub(crate) fn tls(&self) -> &TlsState {
        &self.tls
    }

    /// Reads what inventories say now; whoever is not admitted any more goes.
    pub(crate) fn follow_allow_lists(&self) {
        if self.tls.allow_lists.follow() == Followed::Lost {
            self.note_change();
        }
    }

    /// The listeners; the HTTP port comes last.
    #[must_use]
    pub fn listeners(&self) -> Vec<Arc<Listener>> {
        let gates = self.gates.load();
        let listeners = gates.iter().map(|gate| gate.listener());
        listeners.chain(self.operators.get().cloned()).collect()
    }

    /// Operators connect here.
    pub(crate) fn set_operators(&self, listener: Arc<Listener>) {
        let _ = self.operators.set(listener);
    }

    /// What has become of a listener; `None` when it was removed.
    pub(crate) fn listener_now(&self, known: &Listener) -> Option<Arc<Listener>> {
        let mut listeners = self.listeners().into_iter();
        listeners.find(|listener| listener.is_same(known))
    }

    /// Where connections come in.
    pub(crate) fn gates(&self) -> Arc<Vec<Arc<Gate>>> {
        self.gates.load_full()
    }

    /// Connections come in there from now on; those that are new begin to accept, those that are gone stop.
    pub(crate) fn set_gates(self: &Arc<Self>, gates: Vec<Arc<Gate>>) {
        let before = self.gates();
        let is_in = |gates: &[Arc<Gate>], gate: &Arc<Gate>| {
            gates.iter().any(|known| Arc::ptr_eq(known, gate))
        };
        let mut accepting = lock(&self.accepting);
        for gate in gates.iter().filter(|gate| !is_in(&before, gate)) {
            let task = accept(self.clone(), gate.clone());
            gate.set_accepting(accepting.spawn_on(task, &self.runtime));
        }
        for gate in before.iter().filter(|gate| !is_in(&gates, gate)) {
            gate.close();
        }
        while accepting.try_join_next().is_some() {}
        self.gates.store(Arc::new(gates));
    }

    /// The runtime, for sockets that a reload binds.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    /// Who is shut out.
    pub(crate) fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Asks for a reload, and waits for what comes of it; `None` where nobody can.
    pub(crate) async fn ask_for_reload(&self) -> Option<Result<Reloaded, Mistakes>> {
        let reloader = lock(&self.reloader).clone()?;
        let (done, result) = oneshot::channel();
        reloader.send(done).await.ok()?;
        result.await.ok()
    }

    /// Who asks for a reload from now on.
    #[must_use]
    pub fn reload_requests(&self) -> mpsc::Receiver<ReloadRequest> {
        let (sender, requests) = mpsc::channel(1);
        *lock(&self.reloader) = Some(sender);
        requests
    }

    /// Who may connect at all.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// How many changes there were after which connections look whether they may stay.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Has every connection look whether it may stay.
    pub(crate) fn note_change(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    /// Has every connection run once.
    fn wake_all(&self) {
        self.broker().wake_all();
        self.admission.places().wake_all();
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

    /// Spawns the task of a connection, and joins those that have ended.
    pub(crate) fn spawn_connection(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut connections = lock(&self.connections);
        connections.spawn_on(connection, &self.runtime);
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Connections that have not got their CONNACK yet.
    #[must_use]
    pub fn unauthenticated(&self) -> usize {
        self.admission.places().held()
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
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens where a listener is to.
pub(crate) fn bind(listener: &config::ListenerConfig) -> Result<ListeningSocket, StartError> {
    ListeningSocket::bind(listener).map_err(|source| StartError::Bind {
        what: format!("listener {}", listener.name),
        address: listener.bind.clone(),
        source,
    })
}

fn read_tls(
    listener: &config::ListenerConfig,
    state: &TlsState,
) -> Result<Option<tls::ListenerTls>, StartError> {
    tls::of_listener(listener, state).map_err(|source| StartError::Tls {
        listener: listener.name.clone(),
        source,
    })
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
    let mut known = [0; 5];
    loop {
        tokio::time::sleep(LOSSES_INTERVAL).await;
        let counters = server.broker().counters();
        let now = [
            counters.dropped(DropReason::QueueFull),
            counters.dropped(DropReason::SlowReader),
            counters.dropped(DropReason::TooLarge),
            counters.dropped(DropReason::Unreadable),
            counters.noted(Occasion::PublishRefused),
        ];
        if now != known {
            let [queue_full, slow_reader, too_large, unreadable, refused] =
                std::array::from_fn(|kind| now[kind] - known[kind]);
            tracing::warn!(
                queue_full,
                slow_reader,
                too_large,
                unreadable,
                refused,
                "messages were dropped or refused: queue_full and slow_reader (QoS 0) are limits.queue_messages_max or queue_bytes_max of a receiver, too_large a receiver's own maximum, refused a limit of the publisher or the store; which ones: motemq drops"
            );
            known = now;
        }
    }
}

/// Says in the log, every day, which certificates and lists are to be renewed; the metrics say it at once.
async fn watch_expiry(server: Arc<Server>) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        for listener in server.listeners() {
            if let Some(tls) = listener.tls() {
                tls::warn(listener.config(), tls);
            }
        }
    }
}

/// How much is kept of what happened.
pub(crate) fn set_history(broker: &Broker, config: &HistoryConfig) {
    let bytes_max = usize::try_from(config.bytes_max).unwrap_or(usize::MAX);
    broker.history().set_bytes_max(bytes_max);
}

/// The limits of everybody, as the core has them.
pub(crate) fn core_enrolment(config: &EnrolmentConfig) -> Option<Enrolment> {
    config.is_on().then(|| Enrolment {
        signer: config.signer.as_str().into(),
        request_bytes_max: config.request_bytes_max as usize,
        requests_max: config.requests_max,
        applicants_max: config.applicants_max as usize,
        connection_max_s: config.connection_max_s,
    })
}

pub(crate) fn core_limits(config: &Config) -> LimitSet {
    let profile = |profile: &config::ProfileConfig| {
        Profile::new(
            profile.listeners.iter().map(String::as_str),
            profile.users.iter().map(String::as_str),
            profile.clients.iter().map(String::as_str),
            Arc::new(limits_of(config, &profile.limits)),
        )
    };
    LimitSet {
        common: Arc::new(limits_of(config, &config.limits)),
        profiles: config.profiles.iter().map(profile).collect(),
    }
}

fn limits_of(config: &Config, limits: &config::LimitsConfig) -> Limits {
    let shared = &config.shared_subscriptions;
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
/// How often it is looked what is to be renewed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// The deadline table is looked at this often at least.
const DEADLINE_PAUSE_MAX: Duration = Duration::from_millis(100);
