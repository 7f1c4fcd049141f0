//! A durable subscriber that acknowledges by hand: in order, late, and sometimes not before it goes away.

use super::Shared;
use super::wire::{Received, Wire};
use crate::power_loss::Chance;
use motemq_codec::{
    AckKind, Packet, PacketId, ProtocolVersion, QoS, Subscribe, SubscribeFilter, SubscribeFilters,
    SubscribeOptions, UserProperties,
};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Subscriber<'a> {
    shared: &'a Shared,
    number: u64,
    qos: QoS,
    is_subscribed: bool,
    /// QoS 2 packet ids received and not yet released: what comes with one of them came before.
    taken: BTreeSet<PacketId>,
    /// Acknowledgements not yet sent, in order.
    owed: VecDeque<(AckKind, PacketId)>,
    chance: Chance,
}

pub(super) fn run(
    shared: &Shared,
    number: u64,
    version: ProtocolVersion,
    qos: QoS,
    chance: Chance,
) {
    shared.ledger.add_subscriber();
    let mut subscriber = Subscriber {
        shared,
        number,
        qos,
        is_subscribed: false,
        taken: BTreeSet::new(),
        owed: VecDeque::new(),
        chance,
    };
    let client_id = format!("subscriber-{number}");
    let mut is_known = false;
    while !shared.is_over.load(Ordering::Acquire) {
        if let Ok((mut wire, is_present)) = Wire::connect(shared.port, version, &client_id) {
            shared.ledger.connect(&client_id, is_known, is_present);
            is_known = true;
            // Gone or told to go: the next connection goes on.
            let _ = subscriber.serve(&mut wire);
            subscriber.owed.clear();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Subscriber<'_> {
    fn serve(&mut self, wire: &mut Wire) -> io::Result<()> {
        if !self.is_subscribed {
            self.subscribe(wire)?;
        }
        while !self.shared.is_over.load(Ordering::Acquire) {
            let received = wire.receive()?;
            let is_idle = received.is_none();
            if let Some(received) = received {
                self.handle(&received)?;
            }
            if is_idle || self.chance.per_mille(100) {
                while let Some((kind, packet_id)) = self.owed.pop_front() {
                    wire.acknowledge(kind, packet_id)?;
                }
            }
            let is_draining = self.shared.is_draining.load(Ordering::Acquire);
            if !is_draining && self.is_subscribed && self.chance.below(3000) == 0 {
                // Away without a word.
                std::thread::sleep(Duration::from_millis(self.chance.below(400)));
                return Ok(());
            }
        }
        Ok(())
    }

    fn subscribe(&self, wire: &mut Wire) -> io::Result<()> {
        let Some(packet_id) = PacketId::new(1) else {
            return Ok(());
        };
        let options = SubscribeOptions {
            qos: self.qos,
            ..SubscribeOptions::default()
        };
        let filters = [SubscribeFilter {
            filter: "ledger/+/+",
            options,
        }];
        wire.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::from_list(&filters),
        }))
    }

    fn handle(&mut self, received: &Received) -> io::Result<()> {
        match received {
            Received::Publish {
                qos,
                dup,
                packet_id,
                topic,
                payload,
            } => {
                let Some(packet_id) = *packet_id else {
                    return Ok(());
                };
                let is_exactly_once = *qos == QoS::ExactlyOnce;
                if !is_exactly_once || self.taken.insert(packet_id) {
                    self.shared
                        .ledger
                        .receive(self.number, topic, payload, is_exactly_once, *dup);
                }
                let kind = if is_exactly_once {
                    AckKind::PubRec
                } else {
                    AckKind::PubAck
                };
                self.owed.push_back((kind, packet_id));
            }
            Received::Ack(AckKind::PubRel, packet_id, _) => {
                self.taken.remove(packet_id);
                self.owed.push_back((AckKind::PubComp, *packet_id));
            }
            Received::SubAck(_) => {
                if !self.is_subscribed {
                    self.shared.unsubscribed.fetch_sub(1, Ordering::AcqRel);
                }
                self.is_subscribed = true;
            }
            Received::Disconnect(code) => return Err(io::Error::other(format!("{code:?}"))),
            Received::Ack(..) | Received::ConnAck(..) | Received::Other => {}
        }
        Ok(())
    }
}
