//! The same links between any real client and any broker: bytes are held back on their way through.
//!
//! Each connection has a link of its own. The client's system has opened the connection before this program hears
//! of it; so that it still costs what it would, the broker is dialled once SYN has crossed, and the client's
//! first bytes are taken once SYN-ACK has crossed back. An end of stream crosses the link too, and closes that
//! direction alone.
//!
//! Invariants:
//! - No more than [`WINDOW_BYTES`] and one read wait in each direction; beyond that the sender's socket backs up.
//! - No more connections than the plan says at once; further ones wait in the system's backlog.
//! - Whoever closes, the other side hears of it after the link's delay, unless the network has forgotten the
//!   connection: then nobody hears of anything, as with real address translation.
//!
//! Does not know: TLS, MQTT. What is inside goes through as it is.

use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::error::SimError;
use crate::link::{Direction, Link, Preset};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

/// TCP's window without scaling.
const WINDOW_BYTES: usize = 64 * 1024;
/// Reads take about so much, in whole segments.
const READ_BYTES: usize = 8 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const DIRECTIONS: [Direction; 2] = [Direction::Up, Direction::Down];

/// What a proxy does.
#[derive(Clone, Debug)]
pub struct ProxyPlan {
    /// Where it listens; port 0 takes any.
    pub listen: String,
    /// Where it connects to; what the scheme says of TLS does not matter.
    pub broker: Endpoint,
    /// What is between the two.
    pub preset: Arc<Preset>,
    /// Determines losses and jitter of each connection.
    pub seed: u64,
    /// How many connections at once; at least one.
    pub connections_max: usize,
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    plan: Arc<ProxyPlan>,
    listener: TcpListener,
}

/// What one connection, or all of them, sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the client sent and that crossed the link.
    pub up_bytes: u64,
    /// Bytes that the broker sent and that crossed the link.
    pub down_bytes: u64,
    /// On the link, with headers, frames and retransmissions.
    pub up_wire_bytes: u64,
    /// On the link, with headers, frames and retransmissions.
    pub down_wire_bytes: u64,
}

/// A connection that is over.
#[derive(Debug)]
pub struct Ended {
    /// Which it was, from 0.
    pub index: u32,
    /// The client's address.
    pub client: SocketAddr,
    /// How long it lasted.
    pub took: Duration,
    /// What it carried.
    pub traffic: Traffic,
    /// Why it ended.
    pub cause: Cause,
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Cause {
    /// Both sides were done.
    Closed,
    /// The broker could not be reached.
    Unreachable(io::Error),
    /// One side was gone before it had everything.
    Broken(io::Error),
    /// The proxy was told to stop.
    Stopped,
}

impl Proxy {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be used, or the link carries no TCP connections.
    pub async fn bind(plan: ProxyPlan) -> Result<Self, SimError> {
        if plan.preset.has_gateway {
            return Err(SimError::Options(
                "this link ends at a gateway and carries no TCP connections: take another one, or `motemq-sim run`",
            ));
        }
        let listener =
            TcpListener::bind(&plan.listen)
                .await
                .map_err(|source| SimError::Listen {
                    address: plan.listen.clone(),
                    source,
                })?;
        let plan = Arc::new(plan);
        Ok(Self { plan, listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Carries connections until `stop` is complete, and says of each when it is over; returns what all of them carried.
    pub async fn run(self, stop: impl Future<Output = ()>, mut over: impl FnMut(Ended)) -> Traffic {
        let (stopper, stopped) = watch::channel(false);
        let clock = Clock::start();
        let mut connections = JoinSet::new();
        let mut total = Traffic::default();
        let mut next_index = 0;
        let mut stop = std::pin::pin!(stop);
        loop {
            let has_room = connections.len() < self.plan.connections_max.max(1);
            tokio::select! {
                () = &mut stop => break,
                Some(Ok(ended)) = connections.join_next() => total.add(ended, &mut over),
                accepted = self.listener.accept(), if has_room => {
                    let Ok((stream, client)) = accepted else {
                        // A client that was gone at once is none; a limit of the system passes.
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let connection = Connection::new(&self.plan, clock, next_index, client);
                    connections.spawn(connection.run(stream, stopped.clone()));
                    next_index += 1;
                }
            }
        }
        // Who is gone already needs no word.
        let _ = stopper.send(true);
        while let Some(ended) = connections.join_next().await {
            if let Ok(ended) = ended {
                total.add(ended, &mut over);
            }
        }
        total
    }
}

impl Traffic {
    fn add(&mut self, ended: Ended, over: &mut impl FnMut(Ended)) {
        let Self {
            up_bytes,
            down_bytes,
            up_wire_bytes,
            down_wire_bytes,
        } = ended.traffic;
        self.up_bytes += up_bytes;
        self.down_bytes += down_bytes;
        self.up_wire_bytes += up_wire_bytes;
        self.down_wire_bytes += down_wire_bytes;
        over(ended);
    }
}

/// One connection.
struct Connection {
    plan: Arc<ProxyPlan>,
    clock: Clock,
    index: u32,
    client: SocketAddr,
    started: Duration,
    link: Link,
    /// Up and down.
    pipes: [Pipe; 2],
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// What has crossed the link and waits for the socket.
    outgoing: Box<[u8]>,
    written: usize,
    /// The sender will send no more.
    is_read_out: bool,
    /// When the end of the stream has crossed the link.
    end_arrives_at: Option<Duration>,
    /// The receiver knows of the end.
    is_closed: bool,
    bytes: u64,
}

impl Connection {
    fn new(plan: &Arc<ProxyPlan>, clock: Clock, index: u32, client: SocketAddr) -> Self {
        Self {
            link: Link::new(plan.preset.clone(), plan.seed, index),
            plan: plan.clone(),
            clock,
            index,
            client,
            started: clock.now(),
            pipes: [Pipe::default(), Pipe::default()],
        }
    }

    async fn run(mut self, client: TcpStream, mut stopped: watch::Receiver<bool>) -> Ended {
        let cause = tokio::select! {
            cause = self.carry(client) => cause,
            _ = stopped.wait_for(|stopped| *stopped) => Cause::Stopped,
        };
        let wire_bytes = DIRECTIONS.map(|direction| self.link.wire_bytes(direction));
        Ended {
            index: self.index,
            client: self.client,
            took: self.clock.now().saturating_sub(self.started),
            traffic: Traffic {
                up_bytes: self.pipes[0].bytes,
                down_bytes: self.pipes[1].bytes,
                up_wire_bytes: wire_bytes[0],
                down_wire_bytes: wire_bytes[1],
            },
            cause,
        }
    }

    async fn carry(&mut self, client: TcpStream) -> Cause {
        let broker = match self.open().await {
            Ok(broker) => broker,
            Err(error) => return Cause::Unreachable(error),
        };
        // Without it small segments may wait a little longer.
        let _ = client.set_nodelay(true);
        let _ = broker.set_nodelay(true);
        match self.pump([client, broker]).await {
            Ok(()) => Cause::Closed,
            Err(error) => Cause::Broken(error),
        }
    }

    /// TCP's handshake.
    async fn open(&mut self) -> io::Result<TcpStream> {
        self.cross(Direction::Up).await;
        let broker = (self.plan.broker.host.as_str(), self.plan.broker.port);
        let connected = TcpStream::connect(broker).await;
        self.cross(Direction::Down).await;
        connected
    }

    /// Waits until a bare header has crossed the link.
    async fn cross(&mut self, direction: Direction) {
        let arrives_at = self.link.carry(direction, self.clock.now(), 0);
        sleep_until(self.clock.instant(arrives_at)).await;
    }

    /// Moves bytes until both directions are closed.
    async fn pump(&mut self, mut streams: [TcpStream; 2]) -> io::Result<()> {
        let segment_bytes = self.plan.preset.segment_bytes_max();
        let mut buffer = vec![0; segment_bytes * (READ_BYTES / segment_bytes).max(1)];
        loop {
            let now = self.clock.now();
            for direction in DIRECTIONS {
                self.deliver(direction, now, &mut streams).await?;
            }
            if self.pipes.iter().all(|pipe| pipe.is_closed) {
                return Ok(());
            }
            let [client, broker] = &streams;
            let next = self.next_arrival();
            let at = self.clock.instant(next.unwrap_or(now));
            tokio::select! {
                ready = client.readable(), if self.has_room(Direction::Up) => {
                    ready?;
                    self.read(Direction::Up, client, &mut buffer);
                }
                ready = broker.readable(), if self.has_room(Direction::Down) => {
                    ready?;
                    self.read(Direction::Down, broker, &mut buffer);
                }
                ready = broker.writable(), if self.is_blocked(Direction::Up) => ready?,
                ready = client.writable(), if self.is_blocked(Direction::Down) => ready?,
                () = sleep_until(at), if next.is_some() => {}
            }
        }
    }

    /// Writes what has arrived, and the end of the stream after it.
    async fn deliver(
        &mut self,
        direction: Direction,
        now: Duration,
        streams: &mut [TcpStream; 2],
    ) -> io::Result<()> {
        let pipe = &mut self.pipes[direction as usize];
        let [client, broker] = streams;
        let receiver = match direction {
            Direction::Up => broker,
            Direction::Down => client,
        };
        loop {
            let unwritten = pipe.outgoing.get(pipe.written..).unwrap_or_default();
            if unwritten.is_empty() {
                let Some(segment) = self.link.pop(direction, now) else {
                    break;
                };
                pipe.bytes += segment.len() as u64;
                pipe.outgoing = segment;
                pipe.written = 0;
                continue;
            }
            match receiver.try_write(unwritten) {
                Ok(length) => pipe.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let has_ended = pipe.end_arrives_at.is_some_and(|at| at <= now);
        if has_ended && !pipe.is_closed && self.link.next_arrival(direction).is_none() {
            pipe.is_closed = true;
            // Who is gone needs no end of stream.
            let _ = receiver.shutdown().await;
        }
        Ok(())
    }

    /// Takes what the sender has sent and puts it on the link.
    fn read(&mut self, direction: Direction, sender: &TcpStream, buffer: &mut [u8]) {
        let now = self.clock.now();
        let length = match sender.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Reset is an end, too.
            Ok(0) | Err(_) => {
                self.end(direction, now);
                return;
            }
            Ok(length) => length,
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        self.link.push(direction, now, bytes);
    }

    fn end(&mut self, direction: Direction, now: Duration) {
        let is_dead = self.link.is_dead(now);
        let arrives_at = (!is_dead).then(|| self.link.carry(direction, now, 0));
        let pipe = &mut self.pipes[direction as usize];
        pipe.is_read_out = true;
        pipe.end_arrives_at = arrives_at;
        if is_dead && self.pipes.iter().all(|pipe| pipe.is_read_out) {
            // Both have given up, each on its own.
            for pipe in &mut self.pipes {
                pipe.is_closed = true;
            }
        }
    }

    fn has_room(&self, direction: Direction) -> bool {
        let pipe = &self.pipes[direction as usize];
        !pipe.is_read_out && self.link.queued_bytes(direction) < WINDOW_BYTES
    }

    fn is_blocked(&self, direction: Direction) -> bool {
        let pipe = &self.pipes[direction as usize];
        pipe.written < pipe.outgoing.len()
    }

    /// When there is something to write next, sockets that are full aside.
    fn next_arrival(&self) -> Option<Duration> {
        let arrival = |direction: Direction| {
            let pipe = &self.pipes[direction as usize];
            let end = pipe.end_arrives_at.filter(|_| !pipe.is_closed);
            let next = self.link.next_arrival(direction).or(end);
            next.filter(|_| !self.is_blocked(direction))
        };
        DIRECTIONS.into_iter().filter_map(arrival).min()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, client, took_s) = (self.index, self.client, self.took.as_secs_f64());
        let (traffic, cause) = (self.traffic, &self.cause);
        write!(
            formatter,
            "connection {index} from {client}: {took_s:.2} s, {traffic}, {cause}"
        )
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "up {} bytes ({} on the link), down {} ({})",
            self.up_bytes, self.up_wire_bytes, self.down_bytes, self.down_wire_bytes
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => formatter.write_str("closed"),
            Self::Unreachable(error) => write!(formatter, "the broker cannot be reached: {error}"),
            Self::Broken(error) => write!(formatter, "broken: {error}"),
            Self::Stopped => formatter.write_str("stopped"),
        }
    }
}
