//! One connection: the wire in both directions, and the driver that a server would have for it.
//!
//! The driver does what the server's does: it runs when it is woken, when bytes arrive, when its output was taken; it
//! shows the machine its input, checks credentials, takes output while there is room, and lets go at the end.

use super::dice::Dice;
use super::ledger::{Broken, Rule, broken};
use super::saboteur::Fault;
use motemq_codec::{Decoded, Packet, PacketId, ProtocolVersion, QoS, decode};
use motemq_core::{
    AssignedIds, Broker, Close, Connection, ConnectionRules, Event, Identity, Room, Timestamp,
    Verdict,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Set when the driver must run.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A packet from the broker on its way to the client.
#[derive(Clone, Debug)]
pub struct OnWire {
    /// The whole packet.
    pub bytes: Vec<u8>,
    /// When the broker wrote it.
    pub written_ms: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub client: usize,
    /// The client's version.
    pub version: ProtocolVersion,
    machine: Connection,
    flag: Arc<Flag>,
    waker: Waker,
    /// Written by the client, not yet arrived.
    pub up: Vec<u8>,
    /// Arrived, not yet consumed.
    received: Vec<u8>,
    /// To the client.
    pub down: VecDeque<OnWire>,
    down_bytes: usize,
    /// The client has gone away; what it has written may still arrive.
    pub is_abandoned: bool,
    /// The broker has let go of it.
    pub is_finished: bool,
    /// Time and tick at which CONNECT was accepted.
    pub accepted: bool,
    is_announced: bool,
    /// QoS 1 and 2 packet ids that the broker has sent and the client has not yet answered to the end.
    in_flight: BTreeSet<u16>,
    /// The client's Receive Maximum.
    pub receive_maximum: usize,
    /// Messages may not be read while congested.
    out_bytes_max: usize,
}

/// What a run of the driver leads to.
#[derive(Debug, Default)]
pub struct Ran {
    /// CONNECT was accepted in this run.
    pub accepted: bool,
    /// The connection has ended in this run; why.
    pub finished: Option<Close>,
}

/// The surroundings of a run.
pub struct Surroundings<'a> {
    /// The broker.
    pub broker: &'a Broker,
    /// Chance.
    pub dice: &'a mut Dice,
    /// Virtual time.
    pub now: Timestamp,
    /// The rule that is broken on purpose.
    pub fault: Fault,
}

impl Link {
    /// A new connection of `client`.
    pub fn new(
        client: usize,
        version: ProtocolVersion,
        receive_maximum: usize,
        around: &mut Surroundings<'_>,
    ) -> Self {
        let rules = ConnectionRules {
            qos_max: QoS::ExactlyOnce,
            listener: None,
            publish_rate: None,
            assigned_ids: AssignedIds::Random,
        };
        let flag = Arc::new(Flag::default());
        Self {
            client,
            version,
            machine: Connection::new(rules, around.broker, around.now),
            waker: Waker::from(flag.clone()),
            flag,
            up: Vec::new(),
            received: Vec::new(),
            down: VecDeque::new(),
            down_bytes: 0,
            is_abandoned: false,
            is_finished: false,
            accepted: false,
            is_announced: false,
            in_flight: BTreeSet::new(),
            receive_maximum,
            out_bytes_max: around.dice.pick(&[40, 200, 2000]),
        }
    }

    /// Whether the driver has a reason to run.
    pub fn is_woken(&self) -> bool {
        !self.is_finished && self.flag.0.load(Ordering::Relaxed)
    }

    /// The driver misses its wake-up, for a mutant.
    pub fn oversleep(&self) {
        self.flag.0.store(false, Ordering::Relaxed);
    }

    /// Wakes the driver, as a socket does.
    pub fn wake(&self) {
        self.flag.0.store(true, Ordering::Relaxed);
    }

    /// Whether everything that the client wrote was taken by the machine.
    pub fn is_consumed(&self) -> bool {
        self.up.is_empty() && self.received.is_empty()
    }

    /// The client's Receive Maximum counts this exchange no more.
    pub fn answered(&mut self, packet_id: PacketId) {
        self.in_flight.remove(&packet_id.get());
    }

    /// `count` bytes arrive at the broker.
    pub fn arrive(&mut self, count: usize) {
        let count = count.min(self.up.len());
        self.received.extend(self.up.drain(..count));
        self.wake();
    }

    /// Takes the next packet off the wire.
    pub fn read(&mut self) -> Option<OnWire> {
        let packet = self.down.pop_front()?;
        self.down_bytes -= packet.bytes.len();
        self.wake();
        Some(packet)
    }

    /// One run of the driver.
    ///
    /// # Errors
    /// A rule of the protocol that the broker broke on the wire.
    pub fn run(&mut self, around: &mut Surroundings<'_>) -> Result<Ran, Broken> {
        let mut ran = Ran::default();
        if self.is_finished {
            return Ok(ran);
        }
        self.flag.0.store(false, Ordering::Relaxed);
        let mut out = Vec::new();
        self.machine.begin(&self.waker, &mut out);
        self.machine.handle_timeout(around.now, &mut out);
        loop {
            let is_congested =
                around.broker.room() == Room::Congested && self.machine.session().is_some();
            let mut progress = 0;
            if is_congested {
                self.machine.wait_for_room(around.broker);
            } else if !self.received.is_empty() {
                let shown = std::mem::take(&mut self.received);
                let (done, event) =
                    self.machine
                        .handle_bytes(&shown, around.broker, around.now, &mut out);
                self.received
                    .extend_from_slice(shown.get(done.consumed..).unwrap_or_default());
                progress = done.consumed;
                if let Some(Event::Authenticate(_)) = event {
                    let verdict = Verdict::Accepted {
                        login: Identity::Anonymous.into(),
                        entropy: around.dice.below(usize::MAX) as u128,
                    };
                    self.machine
                        .handle_verdict(verdict, around.broker, around.now, &mut out);
                    self.machine.begin(&self.waker, &mut out);
                    if self.machine.session().is_some() {
                        self.accepted = true;
                        ran.accepted = true;
                    }
                    progress += 1;
                }
            }
            self.flush(around, &mut out)?;
            if self.down_bytes < self.out_bytes_max && self.machine.closed().is_none() {
                let budget = around.dice.pick(&[1, 64, 1000]);
                let was_paused = self.machine.is_paused();
                let more = self
                    .machine
                    .poll_output(around.broker, around.now, budget, &mut out);
                self.flush(around, &mut out)?;
                if more {
                    self.wake();
                }
                // What had to wait for CONNACK, or for replies, is taken now.
                if was_paused && !self.machine.is_paused() {
                    progress += 1;
                }
            }
            if progress == 0 || self.machine.closed().is_some() {
                break;
            }
        }
        self.machine.flush_tally(around.broker, || around.now);
        if let Some(close) = self.machine.closed().cloned() {
            self.finish(around);
            ran.finished = Some(close);
        }
        Ok(ran)
    }

    /// The connection has ended, for the broker too.
    pub fn finish(&mut self, around: &mut Surroundings<'_>) {
        if self.is_finished {
            return;
        }
        if around.fault == Fault::WillsForgotten
            && self.machine.closed().is_none()
            && around.dice.chance(500)
        {
            let mut out = Vec::new();
            let disconnect = [0xe0, 0x00];
            let _ = self
                .machine
                .handle_bytes(&disconnect, around.broker, around.now, &mut out);
        }
        self.machine.finish(around.broker, around.now);
        self.is_finished = true;
    }

    /// The broker is gone: the connection is, too.
    pub fn kill(&mut self) {
        self.is_finished = true;
    }

    /// Puts whole packets on the wire and checks what can be checked there.
    fn flush(&mut self, around: &mut Surroundings<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let first = self.down.len();
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let length = match decode(rest, self.version, usize::MAX) {
                Ok(Decoded::Packet { packet, length }) => {
                    self.check(&packet)?;
                    length
                }
                other => {
                    return broken(
                        Rule::Protocol,
                        format!("the broker wrote {rest:02x?}: {other:?}"),
                    );
                }
            };
            let (packet, behind) = rest.split_at(length);
            self.down_bytes += packet.len();
            self.down.push_back(OnWire {
                bytes: packet.to_vec(),
                written_ms: around.now.as_ms(),
            });
            rest = behind;
        }
        out.clear();
        self.tamper(first, around);
        Ok(())
    }

    fn check(&mut self, packet: &Packet<'_>) -> Result<(), Broken> {
        if !self.is_announced && !matches!(packet, Packet::ConnAck(_)) {
            return broken(Rule::Protocol, format!("the first packet is {packet:?}"));
        }
        match packet {
            Packet::ConnAck(_) if self.is_announced => {
                broken(Rule::Protocol, "a second CONNACK".to_owned())
            }
            Packet::ConnAck(_) => {
                self.is_announced = true;
                Ok(())
            }
            Packet::Publish(publish) => {
                let Some(packet_id) = publish.packet_id else {
                    return Ok(());
                };
                if !self.in_flight.insert(packet_id.get()) {
                    return broken(
                        Rule::Protocol,
                        format!("packet id {packet_id} is in use: {publish:?}"),
                    );
                }
                if self.in_flight.len() > self.receive_maximum {
                    return broken(
                        Rule::Protocol,
                        format!(
                            "{} in flight, {} allowed",
                            self.in_flight.len(),
                            self.receive_maximum
                        ),
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The filters between broker and client, for the mutants.
    fn tamper(&mut self, first: usize, around: &mut Surroundings<'_>) {
        let kind = |packet: &OnWire| packet.bytes.first().map_or(0, |byte| byte >> 4);
        match around.fault {
            Fault::PublishesSwapped | Fault::AcksSwapped => {
                let wanted = if around.fault == Fault::PublishesSwapped {
                    3
                } else {
                    4
                };
                for index in first + 1..self.down.len() {
                    let both =
                        kind(&self.down[index]) == wanted && kind(&self.down[index - 1]) == wanted;
                    if both && around.dice.chance(300) {
                        self.down.swap(index, index - 1);
                    }
                }
            }
            Fault::PublishRepeated => {
                if self.down.len() > first
                    && self
                        .down
                        .back()
                        .is_some_and(|last| kind(last) == 3 && last.bytes[0] & 6 == 0)
                    && around.dice.chance(100)
                    && let Some(last) = self.down.back().cloned()
                {
                    self.down_bytes += last.bytes.len();
                    self.down.push_back(last);
                }
            }
            Fault::SessionPresentFlipped => {
                for packet in self.down.range_mut(first..) {
                    if packet.bytes.starts_with(&[0x20])
                        && packet.bytes.get(3) == Some(&0)
                        && around.dice.chance(200)
                    {
                        packet.bytes[2] ^= 1;
                    }
                }
            }
            _ => {}
        }
    }
}
