//! From a socket to a connection: who may connect, and the handshakes below MQTT.
//!
//! Promises:
//! - The accept loop waits for no peer, and for room only while it is worth it (`admission/places.rs`): it counts, looks at limits
//!   and addresses, and spawns. PROXY header, TLS and WebSocket handshake happen in the connection's own task, together within
//!   `limits.connect_timeout_s`, and count towards `limits.unauthenticated_max`.
//! - An address that a listener does not admit costs no handshake: it is refused at accept, or behind a proxy right after the
//!   header.
//! - A connection costs what its own layers cost: the driver is compiled for each kind of socket, and WebSocket, over whichever,
//!   is one more that is boxed.

use crate::admission::{Entry, Holder, Place};
use crate::audit::Refused;
use crate::auth::{Peer, PeerAddress, PeerCertificate};
use crate::client_certificate::{self, Shown};
use crate::clock;
use crate::config::Protocol;
use crate::driver::{Deadlines, Driver};
use crate::listener::{Gate, Listener, OpenAt, Refusal, contains};
use crate::meters::{Layered, Layers};
use crate::proxy::{self, Source};
use crate::server::Server;
use crate::socket::ListeningSocket;
use crate::tls::{self, ListenerTls};
use crate::tls_counts::{Counted, Outcome};
use crate::tls_handshake;
use crate::websocket::{self, HandshakeRules, WebSocket};
use motemq_core::Timestamp;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What becomes a connection.
trait Stream: AsyncRead + AsyncWrite + Layered + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Layered + Unpin + Send + 'static> Stream for S {}

type BoxedStream = Box<dyn Stream>;

impl Layered for BoxedStream {
    fn layers(&self) -> Layers {
        (**self).layers()
    }
}
type BoxedDriver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection holds from the moment it is accepted.
pub(crate) struct Admitted {
    /// Counts it while it is open.
    pub(crate) entry: Entry,
    /// Its place until it has a session.
    pub(crate) place: Place,
    /// As of when it was admitted.
    pub(crate) generation: u64,
}

/// Accepts connections until the task is dropped.
pub(crate) async fn accept(server: Arc<Server>, gate: Arc<Gate>) {
    let Some(socket) = gate.socket() else { return };
    loop {
        let failed = match &*socket {
            ListeningSocket::Tcp(socket) => match socket.accept().await {
                Ok((stream, address)) => {
                    let address = PeerAddress::Ip(address);
                    take(&server, &gate, stream, address).await;
                    continue;
                }
                Err(error) => error,
            },
            ListeningSocket::Unix { socket, .. } => match socket.accept().await {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                    take(&server, &gate, stream, PeerAddress::Unix { uid }).await;
                    continue;
                }
                Err(error) => error,
            },
        };
        // Out of descriptors, most likely: the listener must survive that. Whoever has no session yet gives way.
        let listener = gate.listener();
        tracing::warn!(listener = listener.config().name, error = %failed, "cannot accept");
        if !server.admission().places().evict() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Counts a socket, and has a task see to it if it is admitted.
async fn take<S: Transport>(
    server: &Arc<Server>,
    gate: &Arc<Gate>,
    stream: S,
    address: PeerAddress,
) {
    server.admission().wait_for_room().await;
    // Taken together: whoever comes through a listener that was replaced meanwhile looks at it again.
    let generation = server.generation();
    let listener = OpenAt::new(gate.listener());
    listener.note_accepted();
    match admit(server, &listener, address) {
        Ok(entry) => {
            let place = server.admission().places().take(address.into());
            let admitted = Admitted {
                entry,
                place,
                generation,
            };
            spawn(server, listener, stream, address, admitted);
        }
        Err((refusal, rule)) => refuse(server, &listener, refusal, &address, &rule),
    }
}

/// Decides whether a socket is worth a task.
fn admit(
    server: &Server,
    listener: &Listener,
    address: PeerAddress,
) -> Result<Entry, (Refusal, &'static str)> {
    let config = listener.config();
    let ip = match address {
        PeerAddress::Ip(address) => Some(address.ip().to_canonical()),
        _ => None,
    };
    if config.proxy_protocol {
        if ip.is_some_and(|ip| !contains(&config.proxy_cidrs, ip)) {
            let rule = "not among proxy_cidrs of this listener";
            return Err((Refusal::Proxy, rule));
        }
    } else {
        admit_address(server, listener, address)?;
    }
    let mut entry = server
        .admission()
        .enter()
        .map_err(|refusal| (refusal, LIMIT))?;
    if !config.proxy_protocol {
        let counted = server.admission().admit_address(&mut entry, address.into());
        counted.map_err(|refusal| (refusal, LIMIT))?;
    }
    // Those of a listener and of all come last: who is refused for his address does not use them up.
    let refusal = if listener.is_beyond_max() {
        Refusal::MaxConnections
    } else if !listener.admits_rate() {
        Refusal::ListenerConnectRate
    } else if !server.admission().admits_rate() {
        Refusal::ConnectRate
    } else {
        return Ok(entry);
    };
    Err((refusal, LIMIT))
}

/// Whether a client may come from this address.
fn admit_address(
    server: &Server,
    listener: &Listener,
    address: PeerAddress,
) -> Result<(), (Refusal, &'static str)> {
    if !listener.admits(&address) {
        return Err((Refusal::Address, "the lists of this listener"));
    }
    if server.bans().has_address(&address) {
        return Err((Refusal::Banned, "the address is banned"));
    }
    Ok(())
}

/// Counts a refusal, and says so in the log unless there are too many.
fn refuse(
    server: &Server,
    listener: &Listener,
    refusal: Refusal,
    peer: &PeerAddress,
    rule: &dyn std::fmt::Display,
) {
    listener.note_refused(refusal);
    Refused {
        history: server.broker().history(),
        what: "connection",
        reason: refusal.label(),
        peer,
        listener: &listener.config().name,
        client: "",
        user: "",
        rule,
        key: refusal.key(),
    }
    .log();
}

fn spawn<S: Transport>(
    server: &Arc<Server>,
    listener: OpenAt,
    stream: S,
    address: PeerAddress,
    admitted: Admitted,
) {
    let serving = server.clone();
    let config = listener.config();
    if listener.tls().is_some() || config.protocol != Protocol::Mqtt || config.proxy_protocol {
        return server.spawn_connection(serve(serving, listener, stream, address, admitted));
    }
    // Nothing comes before MQTT: the driver is the task.
    let now = clock::now();
    let deadlines = Deadlines {
        silent_by: Some(now + FIRST_BYTE_TIME),
        connect_by: now + server.connect_timeout(),
    };
    let peer = Peer {
        address,
        listener: listener.name(),
        certificate: PeerCertificate::None,
        certificate_ids: None,
        history: server.broker().history().clone(),
    };
    let driver = Driver::new(stream, serving, listener, peer, deadlines, admitted);
    server.spawn_connection(driver);
}

async fn serve<S: Transport>(
    server: Arc<Server>,
    listener: OpenAt,
    stream: S,
    address: PeerAddress,
    admitted: Admitted,
) {
    // Boxed apart, so that a connection keeps neither the state of its handshake nor room for a TLS stream it has not.
    let prepared = Box::pin(prepare_in_time(server, listener, stream, address, admitted));
    if let Some(driver) = prepared.await {
        driver.await;
    }
}

async fn prepare_in_time<S: Transport>(
    server: Arc<Server>,
    listener: OpenAt,
    stream: S,
    address: PeerAddress,
    admitted: Admitted,
) -> Option<BoxedDriver> {
    let timeout = server.connect_timeout();
    let connect_by = clock::now() + timeout;
    let holder = admitted.place.holder().clone();
    let lane = listener.clone();
    let stopping = server.clone();
    let serving = server.clone();
    let preparation = Preparation {
        server,
        listener,
        address,
        admitted,
        connect_by,
    };
    let prepared = tokio::time::timeout(timeout, async {
        // A peer that is slow at its handshake has been promised nothing: it does not hold a stop up, and gives way.
        tokio::select! {
            // What the peer has sent comes first.
            biased;
            driver = preparation.run(stream) => driver,
            () = gives_way(&holder, &stopping) => {
                if !stopping.is_stopping() {
                    refuse(&stopping, &lane, Refusal::UnauthenticatedMax, &address, &GAVE_WAY);
                }
                None
            }
        }
    })
    .await;
    prepared.unwrap_or_else(|_| {
        refuse(&serving, &lane, Refusal::Timeout, &address, &NO_HANDSHAKE);
        None
    })
}

/// A connection that is to be, of an HTTP request for an upgrade: admitted and counted as others are.
pub(crate) struct Upgrade(Preparation);

impl Upgrade {
    /// `None` when it is refused.
    pub(crate) async fn admit(
        server: &Arc<Server>,
        listener: &Arc<Listener>,
        address: PeerAddress,
    ) -> Option<Self> {
        server.admission().wait_for_room().await;
        let generation = server.generation();
        let listener = OpenAt::new(listener.clone());
        listener.note_accepted();
        match admit(server, &listener, address) {
            Ok(entry) => Some(Self(Preparation {
                server: server.clone(),
                listener,
                address,
                admitted: Admitted {
                    entry,
                    place: server.admission().places().take(address.into()),
                    generation,
                },
                connect_by: clock::now() + server.connect_timeout(),
            })),
            Err((refusal, rule)) => {
                refuse(server, &listener, refusal, &address, &rule);
                None
            }
        }
    }

    /// Runs the connection over the bytes that follow the upgrade.
    pub(crate) async fn run<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Layered + Unpin + Send + 'static,
    {
        let frame_bytes_max = self.0.server.websocket_frame_bytes_max();
        let counters = self.0.listener.violations().clone();
        let socket = WebSocket::new(stream, Vec::new(), frame_bytes_max, counters);
        let socket: BoxedStream = Box::new(socket);
        self.0.driver(socket, Shown::nothing()).await;
    }
}

/// Ends when the place is given to somebody else, or the server stops.
async fn gives_way(holder: &Holder, server: &Server) {
    poll_fn(
        |cx| match holder.is_evicted(cx.waker()) || server.is_stopping() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        },
    )
    .await;
}

/// What is known while the handshakes run.
struct Preparation {
    server: Arc<Server>,
    listener: OpenAt,
    address: PeerAddress,
    admitted: Admitted,
    connect_by: Timestamp,
}

impl Preparation {
    /// First byte, PROXY header, TLS, WebSocket, in this order, as far as the listener asks for them.
    async fn run<S: Transport>(mut self, mut stream: S) -> Option<BoxedDriver> {
        if !stream.speaks().await {
            return None;
        }
        if self.listener.config().proxy_protocol {
            self.address = self.read_proxy_header(&mut stream).await?;
            self.admitted.place.move_to(self.address.into());
        }
        match self.listener.tls() {
            None => self.driver_over(stream, Shown::nothing()).await,
            Some(tls) => {
                let began = clock::monotonic();
                let result = tls_handshake::accept(tls, Counted::new(stream)).await;
                let duration = clock::monotonic().saturating_sub(began);
                let stream = match result {
                    Ok(stream) => stream,
                    Err(error) => {
                        let counts = self.listener.tls_counts();
                        counts.note_duration(Outcome::Failed, duration);
                        self.refuse(Refusal::Tls, &error);
                        return None;
                    }
                };
                let (counted, session) = stream.get_ref();
                let counts = self.listener.tls_counts();
                counts.note_completed(session, counted, duration);
                let shown = self.shown(tls, &stream)?;
                self.driver_over(stream, shown).await
            }
        }
    }

    /// The driver over what is open now, with WebSocket between where the listener has it.
    async fn driver_over<S: Stream>(self, mut stream: S, shown: Shown) -> Option<BoxedDriver> {
        let config = self.listener.config();
        if config.protocol == Protocol::Mqtt {
            return Some(self.driver(stream, shown));
        }
        let rules = HandshakeRules {
            head_bytes_max: self.server.websocket_head_bytes_max(),
            paths: &config.websocket_paths,
            allow_origins: &config.allow_origins,
        };
        match websocket::accept(&mut stream, rules).await {
            Ok(early) => {
                let frame_bytes_max = self.server.websocket_frame_bytes_max();
                let counters = self.listener.violations().clone();
                let socket = WebSocket::new(stream, early, frame_bytes_max, counters);
                let socket: BoxedStream = Box::new(socket);
                Some(self.driver(socket, shown))
            }
            Err(refusal) => {
                self.refuse(Refusal::WebSocket, &refusal);
                None
            }
        }
    }

    /// Where the client of a proxy comes from; `None` when there is no usable header or the client is not admitted.
    async fn read_proxy_header<S: Stream>(&mut self, stream: &mut S) -> Option<PeerAddress> {
        let address = match proxy::read_header(stream).await {
            Ok(Source::Client(address)) => PeerAddress::Ip(address),
            // It only looks whether we are alive, and it is one of `proxy_cidrs`.
            Ok(Source::Proxy) => return Some(self.address),
            Ok(Source::Unknown) => PeerAddress::Unknown,
            Err(error) => {
                self.refuse(Refusal::Proxy, &error);
                return None;
            }
        };
        let admission = self.server.admission();
        let counted = admit_address(&self.server, &self.listener, address).and_then(|()| {
            let entry = &mut self.admitted.entry;
            let counted = admission.admit_address(entry, address.into());
            counted.map_err(|refusal| (refusal, LIMIT))
        });
        match counted {
            Ok(()) => Some(address),
            Err((refusal, rule)) => {
                refuse(&self.server, &self.listener, refusal, &address, &rule);
                None
            }
        }
    }

    /// What the client has shown, read once; `None` when that does not admit it. A resumed session was not verified.
    fn shown<S>(&self, tls: &ListenerTls, stream: &TlsStream<S>) -> Option<Shown> {
        let (_, session) = stream.get_ref();
        let certificates = session.peer_certificates().unwrap_or_default();
        let now_s = tls::now_s();
        let Some(shown) = client_certificate::read(certificates, tls.identity(), now_s) else {
            self.refuse(Refusal::Tls, &"the client certificate cannot be read");
            return None;
        };
        let ids = shown.ids.as_deref().unwrap_or_default();
        if let (Err(why), Some(own)) = (tls.admits(ids, now_s), ids.first()) {
            self.refuse(Refusal::Tls, &format_args!("{}: {own}", why.reason()));
            return None;
        }
        Some(shown)
    }

    fn refuse(&self, refusal: Refusal, rule: &dyn std::fmt::Display) {
        refuse(&self.server, &self.listener, refusal, &self.address, rule);
    }

    fn driver<S: Stream>(self, stream: S, shown: Shown) -> BoxedDriver {
        let peer = Peer {
            address: self.address,
            listener: self.listener.name(),
            certificate: shown.certificate,
            certificate_ids: shown.ids,
            history: self.server.broker().history().clone(),
        };
        let deadlines = Deadlines {
            silent_by: None,
            connect_by: self.connect_by,
        };
        let (server, listener, admitted) = (self.server, self.listener, self.admitted);
        Box::pin(Driver::new(
            stream, server, listener, peer, deadlines, admitted,
        ))
    }
}

/// What a listening socket accepts.
trait Transport: Stream {
    /// Waits for the first byte; `false` when there will be none, or not soon.
    fn speaks(&self) -> impl Future<Output = bool> + Send;
}

impl Transport for TcpStream {
    async fn speaks(&self) -> bool {
        let mut first = [0];
        let peeked = tokio::time::timeout(FIRST_BYTE_TIME, self.peek(&mut first));
        matches!(peeked.await, Ok(Ok(1..)))
    }
}

impl Transport for UnixStream {
    async fn speaks(&self) -> bool {
        let readable = tokio::time::timeout(FIRST_BYTE_TIME, self.readable());
        matches!(readable.await, Ok(Ok(())))
    }
}

/// The rule behind most refusals.
const LIMIT: &str = "the limit is reached";
pub(crate) const GAVE_WAY: &str =
    "gave way to a newcomer: oldest connection without a session, of the address with most of them";
pub(crate) const NO_HANDSHAKE: &str = "no complete handshake and CONNECT in time";
/// A socket that says nothing for so long is closed. At the edge of NB-IoT's coverage a ClientHello takes 15 s to
/// come, and a lost segment makes that half a minute.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(60);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
