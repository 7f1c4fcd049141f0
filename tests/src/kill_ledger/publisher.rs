//! A publisher with a durable session: QoS 1 and 2 mixed, pipelined, everything unanswered sent again after a reconnect.

use super::Shared;
use super::ledger::{Stream, payload, topic};
use super::wire::{Received, Wire};
use crate::power_loss::Chance;
use motemq_codec::{
    AckKind, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An unfinished exchange.
#[derive(Debug)]
struct Exchange {
    packet_id: PacketId,
    qos: QoS,
    number: u64,
    /// PUBREC received: PUBREL is what is sent again.
    is_released: bool,
}

struct Publisher<'a> {
    shared: &'a Shared,
    number: u64,
    next: [u64; 3],
    next_id: u16,
    /// In the order of sending.
    exchanges: VecDeque<Exchange>,
    chance: Chance,
}

pub(super) fn run(shared: &Shared, number: u64, version: ProtocolVersion, chance: Chance) {
    let mut publisher = Publisher {
        shared,
        number,
        next: [0; 3],
        next_id: 0,
        exchanges: VecDeque::new(),
        chance,
    };
    let client_id = format!("publisher-{number}");
    let mut is_known = false;
    while !shared.is_over.load(Ordering::Acquire) {
        if let Ok((mut wire, is_present)) = Wire::connect(shared.port, version, &client_id) {
            shared.ledger.connect(&client_id, is_known, is_present);
            is_known = true;
            if publisher.serve(&mut wire).is_ok() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if publisher.exchanges.is_empty() {
        shared.publishers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Publisher<'_> {
    fn serve(&mut self, wire: &mut Wire) -> io::Result<()> {
        for exchange in &self.exchanges {
            if exchange.is_released {
                wire.acknowledge(AckKind::PubRel, exchange.packet_id)?;
            } else {
                self.publish(wire, exchange, true)?;
            }
        }
        loop {
            if self.shared.is_over.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.shared.is_publishing.load(Ordering::Acquire) {
                while self.exchanges.len() < WINDOW && self.chance.per_mille(800) {
                    self.send_new(wire)?;
                }
            } else if self.exchanges.is_empty() {
                return Ok(());
            }
            while let Some(received) = wire.receive()? {
                self.handle(wire, &received)?;
            }
        }
    }

    fn send_new(&mut self, wire: &mut Wire) -> io::Result<()> {
        let qos = self.chance.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let number = self.next[qos as usize];
        self.next[qos as usize] += 1;
        let exchange = Exchange {
            packet_id: self.free_id(),
            qos,
            number,
            is_released: false,
        };
        self.shared.ledger.send();
        let sent = self.publish(wire, &exchange, false);
        self.exchanges.push_back(exchange);
        sent
    }

    fn publish(&self, wire: &mut Wire, exchange: &Exchange, dup: bool) -> io::Result<()> {
        let topic = topic(self.stream(exchange));
        wire.send(&Packet::Publish(Publish {
            dup,
            qos: exchange.qos,
            retain: false,
            topic: &topic,
            packet_id: Some(exchange.packet_id),
            properties: PublishProperties::default(),
            payload: &payload(exchange.number),
        }))
    }

    fn stream(&self, exchange: &Exchange) -> Stream {
        (self.number, exchange.qos as u8)
    }

    /// Few ids, so that each is soon used again.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.next_id = self.next_id % IDS + 1;
            if let Some(id) = PacketId::new(self.next_id)
                && self
                    .exchanges
                    .iter()
                    .all(|exchange| exchange.packet_id != id)
            {
                return id;
            }
        }
    }

    fn handle(&mut self, wire: &mut Wire, received: &Received) -> io::Result<()> {
        let (kind, packet_id, code) = match received {
            Received::Ack(kind, packet_id, code) => (*kind, *packet_id, *code),
            Received::Disconnect(code) => return Err(io::Error::other(format!("{code:?}"))),
            _ => return Ok(()),
        };
        let index = self
            .exchanges
            .iter()
            .position(|exchange| exchange.packet_id == packet_id);
        let Some(index) = index else {
            return Ok(());
        };
        let stream = self.stream(&self.exchanges[index]);
        let exchange = &mut self.exchanges[index];
        let number = exchange.number;
        let is_refused = code.is_error() && kind != AckKind::PubComp;
        match kind {
            AckKind::PubAck | AckKind::PubRec if is_refused => {
                self.shared
                    .ledger
                    .refuse(format!("{stream:?} number {number}: {code:?}"));
                self.exchanges.remove(index);
            }
            AckKind::PubAck => {
                self.shared.ledger.acknowledge(stream, number);
                self.exchanges.remove(index);
            }
            AckKind::PubRec => {
                exchange.is_released = true;
                self.shared.ledger.acknowledge(stream, number);
                wire.acknowledge(AckKind::PubRel, packet_id)?;
            }
            AckKind::PubComp if exchange.is_released => {
                debug_assert!(code == ReasonCode::Success || code.is_error());
                self.exchanges.remove(index);
            }
            AckKind::PubComp | AckKind::PubRel => {}
        }
        Ok(())
    }
}

/// Unanswered messages at a time.
const WINDOW: usize = 16;
/// Packet ids in use.
const IDS: u16 = 40;
