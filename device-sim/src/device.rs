//! One simulated device: schedule, meter, MQTT and TLS on one side of its link, the socket on the other.
//!
//! TCP's handshake crosses the link as two bare headers; the real socket is opened when the first of them
//! would have reached the network. From then on bytes touch the socket only after they crossed the link, and
//! reach the device only after they crossed it the other way.
//!
//! Invariants:
//! - [`Device::poll`] does all that can be done at `now` and returns when it wants to be called next; the
//!   socket's waker calls it earlier.

use crate::connection::{Connection, Failure};
use crate::connects::Handshake;
use crate::imprint::{Arrival, Imprint};
use crate::keep_alive::KeepAlive;
use crate::label::Label;
use crate::ledger::Digest;
use crate::link::{Direction, Link};
use crate::plan::{Event, Jitter, Reconnect};
use crate::profile::{Command, Schedule, Sensor};
use crate::publisher::{End, Offer, Publisher};
use crate::receiver::{Heard, Receiver};
use crate::seed::{Purpose, rng};
use crate::websocket::WebSocket;
use crate::wire::{ConnAck, Connect, Packet, Session};
use crate::world::{Stage, Troop, World};
use rand::RngExt;
use rand_pcg::Pcg32;
use rustls::{ClientConfig, ClientConnection};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// How long a device waits for CONNACK: a TLS handshake on the slowest links takes more than a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// How long a device without keep-alive waits for an answer.
const PATIENCE_WITHOUT_KEEP_ALIVE: Duration = Duration::from_secs(90);
/// The reason code of MQTT 5 for it.
const QOS_NOT_SUPPORTED: u8 = 0x9B;

/// A device and its connection.
pub(crate) struct Device {
    index: u32,
    /// Its cohort's place in the world.
    troop: usize,
    schedule: Schedule,
    sensor: Sensor,
    next_sequence: u32,
    publisher: Publisher,
    /// Listens to commands, if the cohort has any.
    receiver: Option<Box<Receiver>>,
    link: Link,
    contact: Contact,
    /// Connections that failed since the last success.
    failures: u32,
    /// The first phase that may still hit the device.
    next_phase: u16,
    /// The phase that last told the device how to come back.
    told_by: Option<u16>,
    /// When its connection was lost, until it has another.
    lost_at: Option<Duration>,
    attempt: Attempt,
    backoff: Pcg32,
    /// Holds the device's TLS session tickets.
    tls_config: Option<Arc<ClientConfig>>,
}

/// What an attempt to connect has cost so far is the difference to this.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    began_at: Duration,
    up_bytes: u64,
    down_bytes: u64,
}

enum Contact {
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

impl Device {
    /// Device `index`; `None` when no cohort has it.
    pub(crate) fn new(world: &World, index: u32) -> Option<Self> {
        let troop_index = world.troop_index(index)?;
        let troop = world.troops.get(troop_index)?;
        let cohort = &troop.cohort;
        let seed = world.plan.seed;
        let connects_at = cohort.connects_at(seed, index);
        let ready_at = connects_at + world.plan.settle_time(cohort);
        Some(Self {
            index,
            troop: troop_index,
            schedule: Schedule::new(&cohort.profile, seed, index, ready_at),
            sensor: Sensor::new(&cohort.profile, seed, index),
            next_sequence: 0,
            publisher: Publisher::new(),
            receiver: cohort.commands.as_ref().map(|_| Box::default()),
            link: Link::new(cohort.preset.clone(), seed, index),
            contact: Contact::Down(connects_at),
            failures: 0,
            next_phase: 0,
            told_by: None,
            lost_at: None,
            attempt: Attempt::default(),
            backoff: rng(seed, index, Purpose::Reconnect),
            tls_config: (troop.tls.as_ref()).map(|tls| tls.config_for(troop.identity(index))),
        })
    }

    /// Its cohort.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index came from this world when the device was made"
    )]
    fn troop<'a>(&self, world: &'a World) -> &'a Troop {
        &world.troops[self.troop]
    }

    /// Does all that is due and returns when there is more; `scratch` is for anyone's use.
    pub(crate) fn poll(
        &mut self,
        world: &World,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Option<Duration> {
        let directions = [Direction::Up, Direction::Down];
        let before = directions.map(|direction| self.link.wire_bytes(direction));
        self.take_readings(world, now);
        self.suffer(world, now);
        while self.advance(world, now, context) {}
        self.pump_contact(world, now, context, scratch);
        let after = directions.map(|direction| self.link.wire_bytes(direction));
        self.troop(world).tally.record_bytes(before, after);
        let next_phase = world.phases.next(self.index, self.next_phase);
        [
            self.next_reading(world),
            next_phase.map(|(_, scene)| scene.at),
            self.next_on_connection(world),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Leaves in good order, without the link's delays.
    pub(crate) fn finish(&mut self, world: &World, context: &mut Context<'_>) {
        let contact = std::mem::replace(&mut self.contact, Contact::Down(Duration::MAX));
        let is_there =
            matches!(&contact, Contact::Open(connection) if connection.answer_by.is_none());
        if let (Some(post), false) = (&self.troop(world).post, is_there) {
            post.ledger().excuse(self.index);
        }
        let Contact::Open(mut connection) = contact else {
            return;
        };
        if connection.answer_by.is_none() && connection.outgoing.is_empty() {
            // The process ends: who does not hear the farewell sees the socket close.
            let _ = connection.say_farewell(context);
        }
    }

    fn take_readings(&mut self, world: &World, now: Duration) {
        while let Some(intended_at) = self.next_reading(world).filter(|at| *at <= now) {
            self.schedule.advance(&self.troop(world).cohort.profile);
            self.take_reading(world, intended_at, now);
        }
    }

    /// Takes one reading, at `now` instead of `intended_at`.
    fn take_reading(&mut self, world: &World, intended_at: Duration, now: Duration) {
        let troop = self.troop(world);
        let profile = &troop.cohort.profile;
        let label = Label {
            device: self.index,
            sequence: self.next_sequence,
            intended_at,
        };
        self.next_sequence += 1;
        let reading = self.sensor.read(profile, intended_at);
        let mut payload = Vec::new();
        profile.encode(&label, &reading, &mut payload);
        let client_id = world.client_id(self.index);
        let leaf = profile.leaf(&reading);
        let frame = troop.template.fill(self.index, &client_id, leaf, &payload);
        let mut imprint = Imprint::default();
        let offer = match frame {
            Ok(frame) => {
                imprint = Imprint::of_frame(&frame, &payload);
                self.publisher.offer(label, frame)
            }
            Err(_) => Offer::Refused,
        };
        // When a command is obeyed, and so what a reading says of it, depends on the broker.
        let determined = match troop.post {
            None => payload.as_slice(),
            Some(_) => &[],
        };
        let message = Digest::of(&label, determined);
        let mut ledger = troop.ledger();
        ledger.record_published(message, now.saturating_sub(intended_at));
        match offer {
            Offer::Accepted => ledger.record_sent(&label, imprint),
            Offer::Refused => ledger.record_overflowed(),
        }
    }

    /// Whatever phases do to the device by `now`.
    fn suffer(&mut self, world: &World, now: Duration) {
        while let Some((number, scene)) = world.phases.next(self.index, self.next_phase)
            && scene.at <= now
        {
            self.next_phase = number + 1;
            let tally = &self.troop(world).tally;
            match scene.event {
                Event::Kill(reconnect) => {
                    tally.killed.fetch_add(1, Ordering::Relaxed);
                    self.told_by = reconnect.map(|_| number).or(self.told_by);
                    self.die(world, now);
                }
                Event::Partition(time) => {
                    tally.partitioned.fetch_add(1, Ordering::Relaxed);
                    self.link.set_down(now, scene.at + time);
                }
            }
        }
    }

    /// Loses its connection, and what is on its way, without a word.
    fn die(&mut self, world: &World, now: Duration) {
        match self.drop_contact(world, now) {
            Contact::Open(connection) => connection.break_off(),
            // It was down already, and comes back when it would have.
            Contact::Down(until) => self.contact = Contact::Down(until),
            Contact::Opening(_) | Contact::Dialing(_) | Contact::Accepted(..) => {}
        }
    }

    fn next_reading(&self, world: &World) -> Option<Duration> {
        let at = self.schedule.next_at();
        (at < world.publish_until()).then_some(at)
    }

    /// Goes on towards an open connection; `true` when there may be another step.
    fn advance(&mut self, world: &World, now: Duration, context: &mut Context<'_>) -> bool {
        match &mut self.contact {
            Contact::Down(until) if *until <= now => {
                self.attempt = Attempt {
                    began_at: now,
                    up_bytes: self.link.wire_bytes(Direction::Up),
                    down_bytes: self.link.wire_bytes(Direction::Down),
                };
                let arrives_at = self.link.carry(Direction::Up, now, 0);
                self.contact = Contact::Opening(arrives_at);
                true
            }
            Contact::Opening(until) if *until <= now => {
                let source = world.source_address(self.index);
                self.contact = Contact::Dialing(Box::pin(dial(world.address, source)));
                true
            }
            Contact::Dialing(connecting) => match connecting.as_mut().poll(context) {
                Poll::Pending => false,
                Poll::Ready(Ok(stream)) => {
                    // Without it the socket may wait a little longer; nothing else changes.
                    let _ = stream.set_nodelay(true);
                    let arrives_at = self.link.carry(Direction::Down, now, 0);
                    self.contact = Contact::Accepted(stream, arrives_at);
                    true
                }
                Poll::Ready(Err(error)) => {
                    self.fail(world, now, &error.into());
                    false
                }
            },
            Contact::Accepted(_, until) if *until <= now => {
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
        let contact = std::mem::replace(&mut self.contact, Contact::Down(now));
        let Contact::Accepted(stream, _) = contact else {
            return Ok(());
        };
        let answer_by = self.attempt.began_at + ANSWER_TIMEOUT;
        let tls = match (&self.tls_config, &self.troop(world).tls) {
            (Some(config), Some(tls)) => {
                let name = tls.server_name.clone();
                let tls = ClientConnection::new(config.clone(), name)?;
                Some(Box::new(tls))
            }
            _ => None,
        };
        let endpoint = &world.plan.endpoint;
        let websocket = match endpoint.websocket_path {
            Some(_) => Some(Box::new(WebSocket::new(endpoint)?)),
            None => None,
        };
        let cohort = &self.troop(world).cohort;
        let connect = Connect {
            version: cohort.version,
            client_id: &world.client_id(self.index),
            session: cohort.session,
            expiry_s: cohort.expiry_s,
            keep_alive_s: cohort.keep_alive_s,
            login: world.plan.login.as_ref(),
        }
        .encode()?;
        let connection = Connection::new(stream, tls, websocket, cohort.version, answer_by);
        let mut connection = Box::new(connection);
        connection.write(&mut self.link, now, &connect)?;
        self.contact = Contact::Open(connection);
        Ok(())
    }

    /// Pumps an open connection, which is out of its place meanwhile.
    fn pump_contact(
        &mut self,
        world: &World,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) {
        match std::mem::replace(&mut self.contact, Contact::Down(Duration::MAX)) {
            Contact::Open(mut connection) => {
                let pumped = self.pump(&mut connection, world, now, context, scratch);
                self.contact = Contact::Open(connection);
                if let Err(failure) = pumped {
                    self.fail(world, now, &failure);
                }
            }
            contact => self.contact = contact,
        }
    }

    /// Moves bytes in both directions until none moves.
    fn pump(
        &mut self,
        connection: &mut Connection,
        world: &World,
        now: Duration,
        context: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Failure> {
        connection.keep_alive(&mut self.link, now)?;
        loop {
            if connection.answer_by.is_none() {
                // A segment of its own for each message, however many are due at once.
                let mut message = Vec::new();
                while self.publisher.transmit(&mut message)? {
                    connection.write(&mut self.link, now, &message)?;
                    connection.sent(now, self.publisher.awaits_answer());
                    message.clear();
                }
            }
            connection.link_to_socket(&mut self.link, now, context)?;
            connection.socket_to_link(&mut self.link, now, context, scratch)?;
            let Some(segment) = self.link.pop(Direction::Down, now) else {
                break;
            };
            connection.receive(&segment)?;
            connection.flush(&mut self.link, now)?;
            while let Some(packet) = connection.reader.next_packet()? {
                self.handle(connection, world, now, &packet)?;
            }
        }
        if connection.ends_at.is_some_and(|at| at <= now)
            && self.link.next_arrival(Direction::Down).is_none()
        {
            return Err(Failure::Io);
        }
        Ok(())
    }

    /// Does what a packet asks for.
    fn handle(
        &mut self,
        connection: &mut Connection,
        world: &World,
        now: Duration,
        packet: &Packet,
    ) -> Result<(), Failure> {
        let troop = self.troop(world);
        let mut answer = Vec::new();
        match packet {
            Packet::ConnAck(connack) => {
                accept(connection, troop, connack, now)?;
                self.welcome(connection, world, now, connack, &mut answer)?;
            }
            Packet::Disconnect { reason, .. } => return Err(Failure::Disconnected(*reason)),
            _ => match self.publisher.handle(packet, &mut answer)? {
                Some(End::Acknowledged(label)) => troop.ledger().record_acknowledged(&label, now),
                Some(End::Rejected(_, reason)) => {
                    troop.tally.rejection.store(reason, Ordering::Relaxed);
                    troop.ledger().record_rejected();
                }
                None => self.listen(world, now, packet, &mut answer)?,
            },
        }
        let is_owed = self.publisher.awaits_answer();
        connection.heard(now, *packet == Packet::PingResp, is_owed);
        if !answer.is_empty() {
            connection.write(&mut self.link, now, &answer)?;
            connection.sent(now, is_owed);
        }
        Ok(())
    }

    /// The broker accepted the connection.
    fn welcome(
        &mut self,
        connection: &Connection,
        world: &World,
        now: Duration,
        connack: &ConnAck,
        answer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let troop = self.troop(world);
        self.link.set_accepted();
        self.failures = 0;
        let took = now.saturating_sub(self.attempt.began_at);
        let up = self.link.wire_bytes(Direction::Up) - self.attempt.up_bytes;
        let down = self.link.wire_bytes(Direction::Down) - self.attempt.down_bytes;
        let handshake = connection.handshake();
        troop.connects().record(handshake, took, (up, down));
        if let Some(lost_at) = self.lost_at.take() {
            troop.tally.reconnects.fetch_add(1, Ordering::Relaxed);
            let away = now.saturating_sub(lost_at);
            troop.connects().record_return(away);
        } else {
            let due_at = troop.cohort.connects_at(world.plan.seed, self.index);
            let took = now.saturating_sub(due_at);
            troop.connects().record_first(took);
        }
        let cohort = &troop.cohort;
        let given_up = self.publisher.connected(connack, cohort.topic_alias);
        troop.ledger().record_given_up(given_up.len() as u64);
        if let (Some(receiver), Some(post)) = (&mut self.receiver, &troop.post) {
            if !connack.session_present {
                post.set_subscribed(self.index, false);
            }
            let filter = post.filter(self.index, &world.client_id(self.index));
            let qos = post.commands.qos;
            receiver.connected(connack, cohort.version, &filter, qos, answer)?;
        }
        Ok(())
    }

    /// Takes what concerns the subscription to commands, and obeys.
    fn listen(
        &mut self,
        world: &World,
        now: Duration,
        packet: &Packet,
        answer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let troop = self.troop(world);
        let (Some(receiver), Some(post)) = (&mut self.receiver, &troop.post) else {
            return Ok(());
        };
        match receiver.handle(packet, answer)? {
            Heard::Nothing => {}
            Heard::Subscribed => post.set_subscribed(self.index, true),
            Heard::Unsubscribed(code) => troop.tally.refusal.store(code, Ordering::Relaxed),
            Heard::Message(delivery, granted) => match Command::decode(delivery.payload()) {
                Some(command) => {
                    let arrival = Arrival::of(delivery, granted);
                    let is_new = post.record_delivered(self.index, &command, &arrival, now);
                    if is_new && self.sensor.apply(&command) {
                        self.take_reading(world, now, now);
                    }
                }
                None => {
                    let arrival = Arrival::of(delivery, granted);
                    post.ledger().record_delivered(None, &arrival, now);
                }
            },
        }
        Ok(())
    }

    /// Drops the connection and decides when to try again.
    fn fail(&mut self, world: &World, now: Duration, failure: &Failure) {
        self.troop(world).tally.record_failure(match failure {
            Failure::Refused(code) | Failure::Disconnected(code) => Some(*code),
            _ => None,
        });
        drop(self.drop_contact(world, now));
    }

    /// Takes the connection away from the device, which decides when to try again.
    fn drop_contact(&mut self, world: &World, now: Duration) -> Contact {
        let troop = self.troop(world);
        if let Contact::Open(connection) = &self.contact
            && connection.answer_by.is_none()
        {
            troop.tally.up.fetch_sub(1, Ordering::Relaxed);
            self.lost_at = Some(now);
        }
        self.link.clear();
        let told = self.told_by.and_then(|phase| world.phases.reconnect(phase));
        let pause = self.pause(told.unwrap_or(troop.cohort.reconnect));
        self.failures += 1;
        let until = pause.map_or(Duration::MAX, |pause| now + pause);
        if let Some(post) = &troop.post {
            if troop.cohort.session == Session::Clean {
                post.set_subscribed(self.index, false);
            }
            if pause.is_none() {
                post.ledger().excuse(self.index);
            }
        }
        std::mem::replace(&mut self.contact, Contact::Down(until))
    }

    /// How long the device stays away; `None` is for good.
    fn pause(&mut self, reconnect: Reconnect) -> Option<Duration> {
        match reconnect {
            Reconnect::Never => None,
            Reconnect::Fixed(pause) => Some(pause),
            Reconnect::Exponential { base, cap, jitter } => {
                let ceiling = base.saturating_mul(1 << self.failures.min(20)).min(cap);
                let part = match jitter {
                    Jitter::None => 1.0,
                    Jitter::Half => self.backoff.random_range(0.5..1.0),
                    Jitter::Full => self.backoff.random_range(0.0..1.0),
                };
                Some(ceiling.mul_f64(part))
            }
        }
    }

    fn next_on_connection(&self, world: &World) -> Option<Duration> {
        match &self.contact {
            // Who has nothing left to send or to hear stays away once publishing is over.
            Contact::Down(_)
                if world.stage() != Stage::Publishing
                    && self.publisher.is_idle()
                    && self.receiver.is_none() =>
            {
                None
            }
            Contact::Down(Duration::MAX) => None,
            Contact::Down(until) | Contact::Opening(until) | Contact::Accepted(_, until) => {
                Some(*until)
            }
            Contact::Dialing(_) => None,
            Contact::Open(connection) => {
                let up = self.link.next_arrival(Direction::Up);
                // The socket's waker comes first when it is full.
                let up = up.filter(|_| connection.outgoing.is_empty());
                let down = self.link.next_arrival(Direction::Down);
                // What came before it comes first.
                let end = connection
                    .ends_at
                    .filter(|at| down.is_none() && *at < Duration::MAX);
                let keep_alive = connection.keep_alive_at();
                [up, down, end, keep_alive].into_iter().flatten().min()
            }
        }
    }
}

async fn dial(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(source) = source else {
        return TcpStream::connect(address).await;
    };
    let socket = match source {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

/// The broker answered CONNECT.
fn accept(
    connection: &mut Connection,
    troop: &Troop,
    connack: &ConnAck,
    now: Duration,
) -> Result<(), Failure> {
    let cohort = &troop.cohort;
    if connack.code != 0 {
        return Err(Failure::Refused(connack.code));
    }
    if cohort.qos > connack.maximum_qos {
        return Err(Failure::Refused(QOS_NOT_SUPPORTED));
    }
    if connection.answer_by.is_none() {
        return Err(Failure::Wire);
    }
    let keep_alive_s = connack.server_keep_alive_s.unwrap_or(cohort.keep_alive_s);
    let interval = Duration::from_secs(keep_alive_s.into());
    let patience = cohort.patience.unwrap_or(match keep_alive_s {
        0 => PATIENCE_WITHOUT_KEEP_ALIVE,
        _ => interval * 3 / 2,
    });
    connection.accepted(KeepAlive::new(interval, patience, now));
    let tally = &troop.tally;
    tally.up.fetch_add(1, Ordering::Relaxed);
    tally.connects.fetch_add(1, Ordering::Relaxed);
    match connection.handshake() {
        Handshake::Resumed => tally.tls_resumed.fetch_add(1, Ordering::Relaxed),
        Handshake::Full => tally.tls_full.fetch_add(1, Ordering::Relaxed),
        Handshake::Plain => 0,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_its_connection_takes_less_than_a_kilobyte() {
        let device_bytes = size_of::<Device>();
        let connection_bytes = size_of::<Connection>();
        assert!(
            device_bytes + connection_bytes < 1_024,
            "device {device_bytes}, connection {connection_bytes}"
        );
    }
}
