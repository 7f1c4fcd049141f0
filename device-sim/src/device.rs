//! One simulated device: schedule, meter, MQTT and TLS on one side of its link, the socket on the other.
//!
//! TCP's handshake crosses the link as two bare headers; the real socket is opened when the first of them
//! would have reached the network. From then on bytes touch the socket only after they crossed the link, and
//! reach the device only after they crossed it the other way.
//!
//! Invariants:
//! - [`Device::poll`] does all that can be done at `now` and returns when it wants to be called next; the
//!   socket's waker calls it earlier.
//! - No more than [`RECEIVE_WINDOW_BYTES`] wait on the way down: beyond that the broker's socket backs up.

use crate::link::{Direction, Link};
use crate::profile::{PowerMeter, Schedule};
use crate::publisher::{Offer, Publisher};
use crate::run::{Phase, World};
use crate::seed::{Purpose, rng};
use crate::wire::{self, Label, Packet, Reader, Session, WireError};
use rand::RngExt;
use rand_pcg::Pcg32;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a device's TCP stack would hold for it.
const RECEIVE_WINDOW_BYTES: usize = 8 * 1024;
/// How long a device waits for CONNACK: a TLS handshake on the slowest links takes most of a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A device and its connection.
pub(crate) struct Device {
    index: u32,
    schedule: Schedule,
    meter: PowerMeter,
    next_sequence: u32,
    publisher: Publisher,
    link: Link,
    stage: Stage,
    /// Connections that failed since the last success.
    failures: u32,
    backoff: Pcg32,
    /// Holds the device's TLS session tickets.
    tls_config: Option<Arc<ClientConfig>>,
}

enum Stage {
    /// No connection until then.
    Down(Duration),
    /// The first segment is on its way until then.
    Opening(Duration),
    /// The real socket connects.
    Dialing(Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>),
    /// The answer to the first segment is on its way until then.
    Accepted(TcpStream, Duration),
    /// Bytes flow.
    Open(Box<Connection>),
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    reader: Reader,
    /// What has crossed the link and waits for the socket.
    outgoing: Vec<u8>,
    /// `None` once the broker has accepted us, else until when it may.
    answer_by: Option<Duration>,
    /// The broker closed its side; what it sent before is still on its way.
    is_ended: bool,
}

/// Why a connection ends.
#[derive(Debug)]
enum Failure {
    Io,
    Tls,
    Wire,
    Refused(u8),
    Unanswered,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<rustls::Error> for Failure {
    fn from(_: rustls::Error) -> Self {
        Self::Tls
    }
}

impl From<WireError> for Failure {
    fn from(_: WireError) -> Self {
        Self::Wire
    }
}

impl Device {
    pub(crate) fn new(world: &World, index: u32) -> Self {
        let plan = &world.plan;
        let connects_at = plan.connects_at(index);
        let ready_at = connects_at + plan.settle_time();
        Self {
            index,
            schedule: Schedule::new(plan.seed, index, plan.every, ready_at),
            meter: PowerMeter::new(plan.seed, index),
            next_sequence: 0,
            publisher: Publisher::new(plan.qos),
            link: Link::new(plan.preset.clone(), plan.seed, index),
            stage: Stage::Down(connects_at),
            failures: 0,
            backoff: rng(plan.seed, index, Purpose::Reconnect),
            tls_config: world.tls.as_ref().map(|tls| tls.device_config()),
        }
    }

    /// Does all that is due and returns when there is more; `scratch` is for anyone's use.
    pub(crate) fn poll(
        &mut self,
        world: &World,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Option<Duration> {
        self.take_readings(world, now);
        while self.advance(world, now, context) {}
        if matches!(self.stage, Stage::Open(_))
            && let Err(failure) = self.pump(world, now, context, scratch)
        {
            self.fail(world, now, &failure);
        }
        [self.next_reading(world), self.next_on_connection(world)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Leaves in good order, without the link's delays.
    pub(crate) fn finish(&mut self, world: &World, context: &mut Context<'_>) {
        for (direction, total) in [
            (Direction::Up, &world.tally.up_bytes),
            (Direction::Down, &world.tally.down_bytes),
        ] {
            total.fetch_add(self.link.wire_bytes(direction), Ordering::Relaxed);
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Down(Duration::MAX));
        let Stage::Open(mut connection) = stage else {
            return;
        };
        if connection.answer_by.is_none() && connection.outgoing.is_empty() {
            // The process ends: who does not hear the farewell sees the socket close.
            let _ = connection.say_farewell(context);
        }
    }

    fn take_readings(&mut self, world: &World, now: Duration) {
        while let Some(intended_at) = self.next_reading(world).filter(|at| *at <= now) {
            self.schedule.advance();
            let label = Label {
                device: self.index,
                sequence: self.next_sequence,
                intended_at,
            };
            self.next_sequence += 1;
            let reading = self.meter.read(intended_at);
            let offer = self
                .publisher
                .offer(label, world.template.fill(&label, &reading));
            let mut ledger = world.ledger();
            ledger.record_published(now - intended_at);
            if offer == Offer::Refused {
                ledger.record_overflowed();
            }
        }
    }

    fn next_reading(&self, world: &World) -> Option<Duration> {
        let at = self.schedule.next_at();
        (at < world.publish_until()).then_some(at)
    }

    /// Goes on towards an open connection; `true` when there may be another step.
    fn advance(&mut self, world: &World, now: Duration, context: &mut Context<'_>) -> bool {
        match &mut self.stage {
            Stage::Down(until) if *until <= now => {
                let arrives_at = self.link.carry(Direction::Up, now, 0);
                self.stage = Stage::Opening(arrives_at);
                true
            }
            Stage::Opening(until) if *until <= now => {
                self.stage = Stage::Dialing(Box::pin(TcpStream::connect(world.address)));
                true
            }
            Stage::Dialing(connecting) => match connecting.as_mut().poll(context) {
                Poll::Pending => false,
                Poll::Ready(Ok(stream)) => {
                    // Without it the socket may wait a little longer; nothing else changes.
                    let _ = stream.set_nodelay(true);
                    let arrives_at = self.link.carry(Direction::Down, now, 0);
                    self.stage = Stage::Accepted(stream, arrives_at);
                    true
                }
                Poll::Ready(Err(error)) => {
                    self.fail(world, now, &error.into());
                    false
                }
            },
            Stage::Accepted(_, until) if *until <= now => {
                if let Err(failure) = self.open(world, now) {
                    self.fail(world, now, &failure);
                }
                true
            }
            _ => false,
        }
    }

    /// The device knows that TCP is open: starts TLS if there is any, and sends CONNECT.
    fn open(&mut self, world: &World, now: Duration) -> Result<(), Failure> {
        let stage = std::mem::replace(&mut self.stage, Stage::Down(now));
        let Stage::Accepted(stream, _) = stage else {
            return Ok(());
        };
        let tls = match (&self.tls_config, &world.tls) {
            (Some(config), Some(tls)) => {
                let name = tls.server_name.clone();
                let tls = ClientConnection::new(config.clone(), name)?;
                Some(Box::new(tls))
            }
            _ => None,
        };
        let mut connection = Box::new(Connection {
            stream,
            tls,
            reader: Reader::default(),
            outgoing: Vec::new(),
            answer_by: Some(now + ANSWER_TIMEOUT),
            is_ended: false,
        });
        let plan = &world.plan;
        let connect = wire::connect(
            &plan.client_id(self.index),
            plan.session(),
            plan.keep_alive_s(),
            plan.login.as_ref(),
        )?;
        connection.write(&mut self.link, now, &connect)?;
        self.stage = Stage::Open(connection);
        Ok(())
    }

    /// Moves bytes in both directions until none moves.
    fn pump(
        &mut self,
        world: &World,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Failure> {
        let Stage::Open(connection) = &mut self.stage else {
            return Ok(());
        };
        if connection
            .answer_by
            .is_some_and(|answer_by| answer_by <= now)
        {
            return Err(Failure::Unanswered);
        }
        loop {
            if connection.answer_by.is_none() {
                // A segment of its own for each message, however many are due at once.
                let mut message = Vec::new();
                while self.publisher.transmit(&world.template, &mut message) {
                    connection.write(&mut self.link, now, &message)?;
                    message.clear();
                }
            }
            connection.link_to_socket(&mut self.link, now, context)?;
            connection.socket_to_link(&mut self.link, now, context, scratch)?;
            let Some(segment) = self.link.pop(Direction::Down, now) else {
                break;
            };
            connection.decrypt(&segment)?;
            connection.flush_tls(&mut self.link, now)?;
            while let Some(packet) = connection.reader.next_packet()? {
                let mut answer = Vec::new();
                if let Packet::ConnAck { code, .. } = packet {
                    connection.accept(world, code)?;
                    self.failures = 0;
                    self.publisher.resume(&mut answer)?;
                } else if let Some(label) = self.publisher.handle(&packet, &mut answer)? {
                    world.ledger().record_acknowledged(&label, now);
                }
                connection.write(&mut self.link, now, &answer)?;
            }
        }
        if connection.is_ended && self.link.next_arrival(Direction::Down).is_none() {
            return Err(Failure::Io);
        }
        Ok(())
    }

    /// Drops the connection and decides when to try again.
    fn fail(&mut self, world: &World, now: Duration, failure: &Failure) {
        if let Stage::Open(connection) = &self.stage
            && connection.answer_by.is_none()
        {
            world.tally.up.fetch_sub(1, Ordering::Relaxed);
        }
        world.tally.record_failure(match failure {
            Failure::Refused(code) => Some(*code),
            _ => None,
        });
        self.link.clear();
        let ceiling = (BACKOFF_MIN * 2_u32.pow(self.failures.min(6))).min(BACKOFF_MAX);
        self.failures += 1;
        let pause = ceiling.mul_f64(self.backoff.random_range(0.5..1.0));
        self.stage = Stage::Down(now + pause);
    }

    fn next_on_connection(&self, world: &World) -> Option<Duration> {
        match &self.stage {
            // Who has nothing left to send stays away once publishing is over.
            Stage::Down(_) if world.phase() != Phase::Publishing && self.publisher.is_idle() => {
                None
            }
            Stage::Down(until) | Stage::Opening(until) | Stage::Accepted(_, until) => Some(*until),
            Stage::Dialing(_) => None,
            Stage::Open(connection) => {
                let up = self.link.next_arrival(Direction::Up);
                // The socket's waker comes first when it is full.
                let up = up.filter(|_| connection.outgoing.is_empty());
                let down = self.link.next_arrival(Direction::Down);
                [up, down, connection.answer_by].into_iter().flatten().min()
            }
        }
    }
}

impl Connection {
    /// The device's side sends MQTT bytes.
    fn write(&mut self, link: &mut Link, now: Duration, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.tls {
            None => link.push(Direction::Up, now, bytes),
            Some(tls) => tls.writer().write_all(bytes)?,
        }
        self.flush_tls(link, now)
    }

    /// Puts what TLS wants to send on the link.
    fn flush_tls(&mut self, link: &mut Link, now: Duration) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records)?;
        }
        link.push(Direction::Up, now, &records);
        Ok(())
    }

    /// The device's side receives bytes.
    fn decrypt(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let Some(tls) = &mut self.tls else {
            self.reader.push(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets()?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            if !plain.is_empty() {
                tls.reader().read_exact(&mut plain)?;
                self.reader.push(&plain);
            }
            if state.peer_has_closed() {
                self.is_ended = true;
            }
        }
        Ok(())
    }

    fn link_to_socket(
        &mut self,
        link: &mut Link,
        now: Duration,
        context: &mut Context<'_>,
    ) -> Result<(), Failure> {
        loop {
            if self.outgoing.is_empty() {
                let Some(segment) = link.pop(Direction::Up, now) else {
                    return Ok(());
                };
                self.outgoing = segment.into();
            }
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write(context, &self.outgoing) {
                Poll::Pending => return Ok(()),
                Poll::Ready(written) => {
                    self.outgoing.drain(..written?);
                }
            }
            if self.outgoing.is_empty() {
                self.outgoing = Vec::new();
            }
        }
    }

    fn socket_to_link(
        &mut self,
        link: &mut Link,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Failure> {
        while !self.is_ended && link.queued_bytes(Direction::Down) < RECEIVE_WINDOW_BYTES {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            }
            self.is_ended = buffer.filled().is_empty();
            link.push(Direction::Down, now, buffer.filled());
        }
        Ok(())
    }

    /// The broker answered CONNECT.
    fn accept(&mut self, world: &World, code: u8) -> Result<(), Failure> {
        if code != 0 {
            return Err(Failure::Refused(code));
        }
        if self.answer_by.take().is_none() {
            return Err(Failure::Wire);
        }
        let tally = &world.tally;
        tally.up.fetch_add(1, Ordering::Relaxed);
        tally.connects.fetch_add(1, Ordering::Relaxed);
        match self.tls.as_ref().and_then(|tls| tls.handshake_kind()) {
            Some(HandshakeKind::Resumed) => tally.tls_resumed.fetch_add(1, Ordering::Relaxed),
            Some(_) => tally.tls_full.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        Ok(())
    }

    fn say_farewell(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let mut bytes = wire::disconnect()?;
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&bytes)?;
            tls.send_close_notify();
            bytes.clear();
            while tls.wants_write() {
                tls.write_tls(&mut bytes)?;
            }
        }
        match Pin::new(&mut self.stream).poll_write(context, &bytes) {
            Poll::Ready(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl crate::run::Plan {
    /// QoS 2 needs the broker's memory of packet ids to survive a reconnect; nothing else does.
    pub(crate) fn session(&self) -> Session {
        if self.qos == 2 {
            Session::Kept
        } else {
            Session::Clean
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_its_connection_takes_less_than_a_kilobyte() {
        let device_bytes = size_of::<Device>();
        let connection_bytes = size_of::<Connection>();
        assert!(
            device_bytes + connection_bytes < 640,
            "device {device_bytes}, connection {connection_bytes}"
        );
    }
}
