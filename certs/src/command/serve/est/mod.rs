//! Enrolment over HTTPS (EST, RFC 7030): takes connections, and hands what is asked over them to the desk.
//!
//! Limits: so many connections at a time (more wait in the system's backlog), each for so long, wherever it stands then, so that
//! nobody has a place by saying little; headers and bodies of a signing request's size.
//!
//! Does not know: who is given a certificate.

mod complaints;
mod exchange;
mod problem;
mod tls;

use super::{ServeError, SharedDesk, log};
use complaints::Complaints;
use exchange::Counter;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use motemq_certs::now_unix_s;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Answer EST (RFC 7030, HTTPS) at this address, such as 0.0.0.0:8443.
    #[arg(long = "est", id = "est", value_name = "ADDR:PORT")]
    address: Option<SocketAddr>,
    /// The certificate for EST, as PEM, with the intermediate if there is one; read again when it changes [default: server.crt beside the authority].
    #[arg(
        long = "est-cert",
        id = "est_cert",
        value_name = "FILE",
        requires = "est"
    )]
    certificate: Option<PathBuf>,
    /// Its key [default: server.key beside the authority].
    #[arg(
        long = "est-key",
        id = "est_key",
        value_name = "FILE",
        requires = "est"
    )]
    key: Option<PathBuf>,
    /// Connections for EST at a time; more wait.
    #[arg(long = "est-connections", id = "est_connections", value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Seconds after which a connection for EST ends, from its beginning.
    #[arg(long = "est-timeout", id = "est_timeout", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout_s: u32,
}

/// Listens for clients of EST.
pub(super) struct Listener {
    socket: TcpListener,
    tls: Tls,
    counter: Arc<Counter>,
    places: Arc<Semaphore>,
    timeout: Duration,
    complaints: Complaints,
}

impl Listener {
    /// Listens, if the arguments say where.
    pub(super) async fn open(
        dir: &Path,
        arguments: &Arguments,
        desk: &SharedDesk,
    ) -> Result<Option<Self>, ServeError> {
        let Some(address) = arguments.address else {
            return Ok(None);
        };
        let beside = |name: &str| dir.join(name);
        let certificate = arguments.certificate.clone();
        let key = arguments.key.clone();
        let tls = Tls::open(
            dir,
            certificate.unwrap_or_else(|| beside("server.crt")),
            key.unwrap_or_else(|| beside("server.key")),
            super::lock(desk).authority(),
        )?;
        let refused = |source| ServeError::Listen { address, source };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        log(&format!("EST at https://{bound}{}", exchange::ROOT));
        Ok(Some(Self {
            socket,
            tls,
            counter: Arc::new(Counter::new(Arc::clone(desk))),
            places: Arc::new(Semaphore::new(arguments.connections as usize)),
            timeout: Duration::from_secs(arguments.timeout_s.into()),
            complaints: Complaints::default(),
        }))
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(mut self) -> Infallible {
        let mut connections: JoinSet<Result<(), String>> = JoinSet::new();
        loop {
            let place = self.place().await;
            let (stream, address) = self.accept().await;
            while let Some(ended) = connections.try_join_next() {
                if let Ok(Err(why)) = ended {
                    self.complain(&why);
                }
            }
            let serving = serve_one(
                stream,
                address.ip(),
                self.tls.acceptor(now_unix_s()),
                Arc::clone(&self.counter),
                place,
            );
            let limit = self.timeout;
            connections.spawn(async move {
                // Whoever was cut knows; at most it asks again.
                timeout(limit, serving).await.unwrap_or(Ok(()))
            });
        }
    }

    /// `None` never: the semaphore is not closed.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.places.available_permits() == 0 {
            self.complain("all connections are taken, others wait (--est-connections)");
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok(accepted) => return accepted,
                // Out of descriptors, most likely.
                Err(error) => {
                    self.complain(&format!("no connection can be taken: {error}"));
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn complain(&mut self, why: &str) {
        if let Some(line) = self.complaints.line(why, now_unix_s()) {
            log(&line);
        }
    }
}

/// One connection, from the handshake on. What goes wrong in HTTP is the client's matter.
async fn serve_one(
    stream: TcpStream,
    address: IpAddr,
    acceptor: TlsAcceptor,
    counter: Arc<Counter>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<(), String> {
    // Small answers in one piece: nothing to wait for.
    let _ = stream.set_nodelay(true);
    let stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| format!("the handshake with {address} failed: {error}"))?;
    let certificate = tls::peer(stream.get_ref().1);
    let service = service_fn(|request| {
        let (counter, certificate) = (&counter, certificate.clone());
        async move { Ok::<_, Infallible>(counter.answer(address, certificate, request).await) }
    });
    let _ = http1::Builder::new()
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .header_read_timeout(None) // the connection's own is shorter
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(place);
    Ok(())
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Lines of a request before its body: a method, a path, a token.
const HEADER_BYTES_MAX: usize = 4 * 1024;
const HEADERS_MAX: usize = 32;
/// The least that hyper takes.
const BUFFER_BYTES_MAX: usize = 8 * 1024;
