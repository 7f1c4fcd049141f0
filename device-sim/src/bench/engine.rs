//! One thread, one poller, many connections: waits, reads, hands packets on, sends in batches.
//!
//! Promise: a round serves every socket that has news and then sends what was appended in it with one call per
//! socket. There is no task, no lock and no allocation per message.

use super::packets::{self, Frame};
use super::socket::{Down, Handler, Received, Socket, State};
use super::timer::Timer;
use crate::clock::Clock;
use crate::tls::Tls;
use crate::wire::Version;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;
use socket2::{Domain, Protocol, SockAddr, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Room for one read.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Full reads of one socket before the others have their turn.
const READS_MAX: u32 = 4;
/// Waits longer than this need no precise timer.
const COARSE_NS: u64 = 5_000_000;
const TIMER: Token = Token(usize::MAX);

/// Nanoseconds since 1970 that never go back: the wall clock's at the start, then a steady clock's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nanoseconds {
    started: Clock,
    epoch_ns: u64,
}

impl Nanoseconds {
    pub(super) fn start() -> Self {
        let started = Clock::start();
        Self {
            epoch_ns: nanoseconds(started.started_at()),
            started,
        }
    }

    pub(super) fn now(self) -> u64 {
        self.epoch_ns + nanoseconds(self.started.now())
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The connections.
pub(super) struct Sockets {
    list: Vec<Socket>,
    /// Those with bytes to send.
    dirty: Vec<usize>,
}

impl Sockets {
    /// Where packets for this connection are appended; they go out at the end of the round.
    pub(super) fn out(&mut self, token: usize) -> &mut Vec<u8> {
        let socket = &mut self.list[token];
        if !socket.is_dirty {
            socket.is_dirty = true;
            self.dirty.push(token);
        }
        socket.out()
    }

    pub(super) fn get(&self, token: usize) -> &Socket {
        &self.list[token]
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// The connections and what drives them.
pub(super) struct Engine {
    poll: Poll,
    events: Events,
    timer: Timer,
    pub(super) clock: Nanoseconds,
    pub(super) sockets: Sockets,
    scratch: Box<[u8]>,
    /// Sockets that had more to read than one turn allows.
    unread: Vec<usize>,
    version: Version,
    target: Target,
}

/// Where connections go, and from where.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Tls>,
    pub(super) sources: Vec<IpAddr>,
}

impl Engine {
    pub(super) fn new(version: Version, target: Target) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Self {
            timer: Timer::new(poll.registry(), TIMER)?,
            poll,
            events: Events::with_capacity(1_024),
            clock: Nanoseconds::start(),
            sockets: Sockets {
                list: Vec::new(),
                dirty: Vec::new(),
            },
            scratch: vec![0; SCRATCH_BYTES].into(),
            unread: Vec::new(),
            version,
            target,
        })
    }

    /// Begins a connection; its token is the number of connections before it.
    pub(super) fn open(&mut self, connect: Vec<u8>, intended_ns: u64, handler: &mut impl Handler) {
        let token = self.sockets.list.len();
        let made = self.stream(token).and_then(|stream| {
            let tls = self.target.tls.as_ref().map(session).transpose()?;
            Ok((stream, tls))
        });
        match made {
            Ok((stream, tls)) => {
                let socket = Socket::new(stream, tls, connect, intended_ns);
                self.sockets.list.push(socket);
            }
            Err(why) => {
                self.sockets.list.push(Socket::failed(intended_ns));
                handler.down(token, false, why);
            }
        }
    }

    /// Sends what waits, waits for news until `deadline_ns` at most, serves it and sends the answers.
    pub(super) fn round(
        &mut self,
        now_ns: u64,
        deadline_ns: u64,
        handler: &mut impl Handler,
    ) -> io::Result<()> {
        self.flush(handler);
        let mut wait_ns = deadline_ns.saturating_sub(now_ns);
        if !self.unread.is_empty() {
            wait_ns = 0;
        }
        let timeout = if wait_ns == 0 || wait_ns >= COARSE_NS {
            Duration::from_nanos(wait_ns)
        } else {
            self.timer.set(wait_ns)
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for token in std::mem::take(&mut self.unread) {
            self.read(token, false, &mut scratch, handler);
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let token = event.token();
            if token == TIMER {
                continue;
            }
            self.serve(token.0, event, &mut scratch, handler);
        }
        self.events = events;
        self.scratch = scratch;
        self.flush(handler);
        Ok(())
    }

    /// Says goodbye on every connection and closes it.
    pub(super) fn leave(&mut self) {
        for socket in &mut self.sockets.list {
            if socket.state == State::Up {
                socket.out().extend_from_slice(&packets::DISCONNECT);
                // A connection that takes no more bytes ends without a goodbye.
                let _ = socket.flush();
            }
            socket.close();
        }
        self.sockets.dirty.clear();
        self.unread.clear();
    }

    fn serve(
        &mut self,
        token: usize,
        event: &mio::event::Event,
        scratch: &mut [u8],
        handler: &mut impl Handler,
    ) {
        if event.is_writable() || event.is_error() {
            match self.sockets.list[token].writable() {
                Ok(true) => handler.unblocked(&mut self.sockets, token, self.clock.now()),
                Ok(false) => {}
                Err(why) => return self.end(token, why, handler),
            }
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(token, event.is_read_closed(), scratch, handler);
        }
    }

    /// Reads until there is no more, or it is the others' turn. An end behind the data is read, too.
    fn read(
        &mut self,
        token: usize,
        is_closed: bool,
        scratch: &mut [u8],
        handler: &mut impl Handler,
    ) {
        for _ in 0..READS_MAX {
            if self.sockets.list[token].state == State::Down {
                return;
            }
            let (length, is_last) = match self.sockets.list[token].receive(scratch) {
                Ok(Received::More(length)) => (length, false),
                Ok(Received::Last(length)) => (length, !is_closed || length == 0),
                Err(why) => return self.end(token, why, handler),
            };
            let received = scratch.get(..length).unwrap_or_default();
            if let Err(why) = self.feed(token, received, handler) {
                return self.end(token, why, handler);
            }
            if is_last {
                return;
            }
        }
        self.unread.push(token);
    }

    /// Hands on the whole packets of what was received and keeps the rest.
    fn feed(
        &mut self,
        token: usize,
        received: &[u8],
        handler: &mut impl Handler,
    ) -> Result<(), Down> {
        if received.is_empty() {
            return Ok(());
        }
        // All these packets were here when the read returned.
        let now_ns = self.clock.now();
        let mut partial = std::mem::take(&mut self.sockets.list[token].partial);
        if partial.is_empty() {
            let used = self.packets(token, received, now_ns, handler)?;
            partial.extend_from_slice(received.get(used..).unwrap_or_default());
        } else {
            partial.extend_from_slice(received);
            let used = self.packets(token, &partial, now_ns, handler)?;
            partial.drain(..used);
        }
        if partial.is_empty() {
            // An idle connection holds no buffer.
            partial = Vec::new();
        }
        self.sockets.list[token].partial = partial;
        Ok(())
    }

    fn packets(
        &mut self,
        token: usize,
        bytes: &[u8],
        now_ns: u64,
        handler: &mut impl Handler,
    ) -> Result<usize, Down> {
        let mut used = 0;
        while let Some(frame) = packets::frame(bytes.get(used..).unwrap_or_default())? {
            used += frame.length;
            if self.sockets.list[token].state == State::Up {
                handler.packet(&mut self.sockets, token, frame, now_ns)?;
            } else {
                self.greeted(token, frame, now_ns, handler)?;
            }
        }
        Ok(used)
    }

    fn greeted(
        &mut self,
        token: usize,
        frame: Frame<'_>,
        now_ns: u64,
        handler: &mut impl Handler,
    ) -> Result<(), Down> {
        let connack = packets::connack(self.version, frame)?;
        if connack.code != 0 {
            return Err(Down::Refused(connack.code));
        }
        self.sockets.list[token].state = State::Up;
        handler.up(&mut self.sockets, token, &connack, now_ns)
    }

    fn flush(&mut self, handler: &mut impl Handler) {
        let mut dirty = std::mem::take(&mut self.sockets.dirty);
        for token in dirty.drain(..) {
            let socket = &mut self.sockets.list[token];
            socket.is_dirty = false;
            // A blocked socket is heard of when it has room.
            if socket.is_blocked() {
                continue;
            }
            if let Err(why) = socket.flush() {
                self.end(token, why, handler);
            }
        }
        self.sockets.dirty = dirty;
    }

    /// A connection is over.
    pub(super) fn end(&mut self, token: usize, why: Down, handler: &mut impl Handler) {
        let socket = &mut self.sockets.list[token];
        if socket.state != State::Down {
            let was_up = socket.state == State::Up;
            socket.close();
            handler.down(token, was_up, why);
        }
    }

    fn stream(&self, token: usize) -> Result<TcpStream, Down> {
        let address = self.target.address;
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(sources) = std::num::NonZeroUsize::new(self.target.sources.len()) {
            let source = self.target.sources[token % sources];
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
        }
        match socket.connect(&SockAddr::from(address)) {
            Err(error) if !is_in_progress(&error) => return Err(error.into()),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(token), interest)?;
        Ok(stream)
    }
}

fn is_in_progress(error: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(in_progress)
}

fn session(tls: &Tls) -> Result<Box<ClientConnection>, Down> {
    let session = ClientConnection::new(tls.device_config(), tls.server_name.clone());
    let mut session = session.map_err(|error| Down::Tls(error.to_string()))?;
    session.set_buffer_limit(None);
    Ok(Box::new(session))
}
