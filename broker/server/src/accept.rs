//! From a socket to a connection: who may connect, and the handshakes below MQTT.
//!
//! Promises:
//! - The accept loop waits for no peer, and at most a second for room: it counts, looks at limits and addresses, and spawns. PROXY header, TLS and WebSocket
//!   handshake happen in the connection's own task, together within `limits.connect_timeout_s`, and count towards
//!   `limits.unauthenticated_max`.
//! - An address that a listener does not admit costs no handshake: it is refused at accept, or behind a proxy right after the
//!   header.
//! - A connection costs what its own layers cost: the driver is compiled for each kind of socket, and WebSocket, over whichever,
//!   is one more that is boxed.

use crate::audit::AuditLimit;
use crate::auth::{Peer, PeerAddress, PeerCertificate};
use crate::clock;
use crate::config::{Identity, ListenerConfig, Protocol};
use crate::driver::{Deadlines, Driver};
use crate::proxy::{self, Source};
use crate::server::{Listener, Refusal, Server};
use crate::socket::ListeningSocket;
use crate::tls;
use crate::websocket::{self, HandshakeRules, WebSocket};
use ipnet::IpNet;
use motemq_core::Timestamp;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What becomes a connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

type BoxedStream = Box<dyn Stream>;
type BoxedDriver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts connections until the task is dropped.
pub(crate) async fn accept(server: Arc<Server>, listener: Arc<Listener>, socket: ListeningSocket) {
    let mut is_patient = true;
    loop {
        let failed = match &socket {
            ListeningSocket::Tcp(socket) => match socket.accept().await {
                Ok((stream, address)) => {
                    is_patient = has_room(&server, is_patient).await;
                    if is_admitted(&server, &listener, Some(address)) {
                        let address = PeerAddress::Ip(address);
                        spawn(&server, &listener, stream, address);
                    }
                    continue;
                }
                Err(error) => error,
            },
            ListeningSocket::Unix { socket, .. } => match socket.accept().await {
                Ok((stream, _)) => {
                    is_patient = has_room(&server, is_patient).await;
                    if is_admitted(&server, &listener, None) {
                        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                        let address = PeerAddress::Unix { uid };
                        spawn(&server, &listener, stream, address);
                    }
                    continue;
                }
                Err(error) => error,
            },
        };
        // Out of descriptors, most likely: the listener must survive that.
        tracing::warn!(listener = listener.config().name, error = %failed, "cannot accept");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Whether the broker may take another connection without a session; where it `is_patient` it waits for that a moment.
///
/// A fleet that comes back all at once waits in the system's backlog then, in order, instead of being closed again and again: each
/// attempt would cost a device its TLS session. Where no place becomes free within the moment somebody holds them, and what comes is
/// closed at once, until there is room again.
async fn has_room(server: &Server, is_patient: bool) -> bool {
    for _ in 0..ROOM_LOOKS {
        if !server.is_unauthenticated_max() {
            return true;
        }
        if !is_patient {
            return false;
        }
        tokio::time::sleep(ROOM_PAUSE).await;
    }
    false
}

/// Counts a socket and decides whether it is worth a task. A Unix socket has no address.
fn is_admitted(server: &Server, listener: &Listener, address: Option<SocketAddr>) -> bool {
    listener.note_accepted();
    let config = listener.config();
    if let Some(address) = address {
        let ip = address.ip().to_canonical();
        let (is_known, refusal, hint) = match config.proxy_protocol {
            true => (
                contains(&config.proxy_cidrs, ip),
                Refusal::Proxy,
                "not among proxy_cidrs of this listener",
            ),
            false => (admits(config, ip), Refusal::Address, ADDRESS_HINT),
        };
        if !is_known {
            refuse(listener, refusal, &PeerAddress::Ip(address), &hint);
            return false;
        }
    }
    let refusal = if listener.is_full() {
        Refusal::MaxConnections
    } else if server.is_unauthenticated_max() {
        Refusal::UnauthenticatedMax
    } else {
        return true;
    };
    listener.note_refused(refusal);
    tracing::debug!(
        listener = config.name,
        peer = address.map(tracing::field::display),
        reason = refusal.label(),
        "refused: max_connections or limits.unauthenticated_max"
    );
    false
}

/// Whether a client may come from this address; the more careful list wins.
fn admits(config: &ListenerConfig, ip: IpAddr) -> bool {
    !contains(&config.deny_cidrs, ip)
        && (config.allow_cidrs.is_empty() || contains(&config.allow_cidrs, ip))
}

fn contains(networks: &[IpNet], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&ip))
}

/// Counts a refusal, and says so in the log unless there are too many.
fn refuse(listener: &Listener, refusal: Refusal, peer: &PeerAddress, hint: &dyn std::fmt::Display) {
    listener.note_refused(refusal);
    let limit = match refusal {
        Refusal::Address => &ADDRESS_REFUSALS,
        Refusal::Proxy => &PROXY_REFUSALS,
        Refusal::Tls => &TLS_REFUSALS,
        _ => &WEBSOCKET_REFUSALS,
    };
    if let Some(suppressed) = limit.admit() {
        tracing::warn!(
            listener = listener.config().name,
            %peer,
            reason = refusal.label(),
            %hint,
            suppressed,
            "refused connection"
        );
    }
}

fn spawn<S: Transport>(
    server: &Arc<Server>,
    listener: &Arc<Listener>,
    stream: S,
    address: PeerAddress,
) {
    let (serving, lane) = (server.clone(), listener.clone());
    let acceptor = listener.acceptor();
    let config = listener.config();
    if acceptor.is_some() || config.protocol != Protocol::Mqtt || config.proxy_protocol {
        return server.spawn_connection(serve(serving, lane, acceptor, stream, address));
    }
    // Nothing comes before MQTT: the driver is the task.
    let now = clock::now();
    let deadlines = Deadlines {
        silent_by: Some(now + FIRST_BYTE_TIME),
        connect_by: now + server.connect_timeout(),
    };
    let peer = Peer {
        address,
        certificate: PeerCertificate::None,
    };
    listener.count_open().leave();
    server.count_unauthenticated().leave();
    server.spawn_connection(Driver::new(stream, serving, lane, peer, deadlines));
}

async fn serve<S: Transport>(
    server: Arc<Server>,
    listener: Arc<Listener>,
    acceptor: Option<TlsAcceptor>,
    stream: S,
    address: PeerAddress,
) {
    // Boxed apart, so that a connection keeps neither the state of its handshake nor room for a TLS stream it has not.
    let prepared = Box::pin(prepare_in_time(
        &server, &listener, acceptor, stream, address,
    ));
    if let Some(driver) = prepared.await {
        driver.await;
    }
}

async fn prepare_in_time<S: Transport>(
    server: &Arc<Server>,
    listener: &Arc<Listener>,
    acceptor: Option<TlsAcceptor>,
    stream: S,
    address: PeerAddress,
) -> Option<BoxedDriver> {
    let timeout = server.connect_timeout();
    let connect_by = clock::now() + timeout;
    let preparation = Preparation {
        server,
        listener,
        address,
        connect_by,
    };
    let prepared = tokio::time::timeout(timeout, async {
        // A peer that is slow at its handshake has been promised nothing: it does not hold a stop up.
        tokio::select! {
            driver = preparation.run(acceptor, stream) => driver,
            () = server.stopped() => None,
        }
    })
    .await;
    prepared.unwrap_or_else(|_| {
        listener.note_refused(Refusal::Timeout);
        tracing::debug!(listener = listener.config().name, peer = %address, "no handshake within limits.connect_timeout_s");
        None
    })
}

/// What is known while the handshakes run.
struct Preparation<'a> {
    server: &'a Arc<Server>,
    listener: &'a Arc<Listener>,
    address: PeerAddress,
    connect_by: Timestamp,
}

impl Preparation<'_> {
    /// First byte, PROXY header, TLS, WebSocket, in this order, as far as the listener asks for them.
    async fn run<S: Transport>(
        mut self,
        acceptor: Option<TlsAcceptor>,
        mut stream: S,
    ) -> Option<BoxedDriver> {
        let counted = (
            self.listener.count_open(),
            self.server.count_unauthenticated(),
        );
        if !stream.speaks().await {
            return None;
        }
        if self.listener.config().proxy_protocol {
            self.address = self.read_proxy_header(&mut stream).await?;
        }
        let driver = match acceptor {
            None => self.driver_over(stream, PeerCertificate::None).await?,
            Some(acceptor) => {
                let stream = match acceptor.accept(stream).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        self.refuse(Refusal::Tls, &error);
                        return None;
                    }
                };
                let certificate = self.certificate(&stream);
                self.driver_over(stream, certificate).await?
            }
        };
        counted.0.leave();
        counted.1.leave();
        Some(driver)
    }

    /// The driver over what is open now, with WebSocket between where the listener has it.
    async fn driver_over<S: Stream>(
        &self,
        mut stream: S,
        certificate: PeerCertificate,
    ) -> Option<BoxedDriver> {
        let config = self.listener.config();
        if config.protocol == Protocol::Mqtt {
            return Some(self.driver(stream, certificate));
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
                Some(self.driver(socket, certificate))
            }
            Err(refusal) => {
                self.refuse(Refusal::WebSocket, &refusal);
                None
            }
        }
    }

    /// Where the client of a proxy comes from; `None` when there is no usable header or the client is not admitted.
    async fn read_proxy_header<S: Stream>(&self, stream: &mut S) -> Option<PeerAddress> {
        let config = self.listener.config();
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
        let is_admitted = match address {
            PeerAddress::Ip(address) => admits(config, address.ip().to_canonical()),
            // No list can tell.
            _ => config.allow_cidrs.is_empty() && config.deny_cidrs.is_empty(),
        };
        if !is_admitted {
            refuse(self.listener, Refusal::Address, &address, &ADDRESS_HINT);
            return None;
        }
        Some(address)
    }

    /// What the client's certificate says.
    fn certificate<S>(&self, stream: &TlsStream<S>) -> PeerCertificate {
        let tls = self.listener.config().tls.as_ref();
        let kind = tls.map_or(Identity::None, |tls| tls.identity);
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let now_s = i64::try_from(clock::now().as_ms() / 1000).unwrap_or(i64::MAX);
        leaf.map_or(PeerCertificate::None, |leaf| tls::read(leaf, kind, now_s))
    }

    fn refuse(&self, refusal: Refusal, hint: &dyn std::fmt::Display) {
        refuse(self.listener, refusal, &self.address, hint);
    }

    fn driver<S: Stream>(&self, stream: S, certificate: PeerCertificate) -> BoxedDriver {
        let peer = Peer {
            address: self.address,
            certificate,
        };
        let (server, listener) = (self.server.clone(), self.listener.clone());
        let deadlines = Deadlines {
            silent_by: None,
            connect_by: self.connect_by,
        };
        Box::pin(Driver::new(stream, server, listener, peer, deadlines))
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

static ADDRESS_REFUSALS: AuditLimit = AuditLimit::new();
static PROXY_REFUSALS: AuditLimit = AuditLimit::new();
static TLS_REFUSALS: AuditLimit = AuditLimit::new();
static WEBSOCKET_REFUSALS: AuditLimit = AuditLimit::new();
const ADDRESS_HINT: &str = "allow_cidrs or deny_cidrs of this listener";
/// A socket that says nothing for so long is closed.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(10);
/// How often, and after which pauses, the accept loop looks for room: a second.
const ROOM_LOOKS: u32 = 200;
const ROOM_PAUSE: Duration = Duration::from_millis(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
