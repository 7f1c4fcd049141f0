//! What clients make of what they read, as the specification tells a correct client.

use super::*;

impl World {
    pub(super) fn read_some(&mut self) -> Result<(), Broken> {
        let number = self.dice.below(self.clients.len());
        let count = self.dice.between(1, 8);
        for _ in 0..count {
            if !self.read_one(number)? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn read_one(&mut self, number: usize) -> Result<bool, Broken> {
        let Some(index) = self.clients[number].link else {
            return Ok(false);
        };
        let is_held = self.fault == Fault::QoS2DeliveredBeforeDurable
            && !self.journal.is_settled()
            && self.links[index]
                .down
                .front()
                .is_some_and(|packet| packet.bytes[0] >> 4 == 5);
        if is_held {
            return Ok(false);
        }
        let Some(packet) = self.links[index].read() else {
            if self.links[index].is_finished {
                self.tell(|| format!("c{number} sees the end of link {index}"));
                self.clients[number].cut();
                return Ok(true);
            }
            return Ok(false);
        };
        self.next_tick();
        let version = self.links[index].version;
        let Ok(Decoded::Packet {
            packet: decoded, ..
        }) = decode(&packet.bytes, version, usize::MAX)
        else {
            return broken(Rule::Protocol, "undecodable".to_owned());
        };
        self.tell(|| format!("c{number} link {index} < {decoded:?}"));
        self.handle(number, index, &decoded, packet.written_ms)?;
        Ok(true)
    }

    pub(super) fn expect(&mut self, number: usize, got: Expected) -> Result<(), Broken> {
        let wanted = self.clients[number].expected.pop_front();
        if wanted.as_ref() == Some(&got) {
            return Ok(());
        }
        broken(
            Rule::Protocol,
            format!("client {number} got {got:?} in place of {wanted:?}"),
        )
    }

    pub(super) fn handle(
        &mut self,
        number: usize,
        index: usize,
        packet: &Packet<'_>,
        written_ms: u64,
    ) -> Result<(), Broken> {
        match packet {
            Packet::ConnAck(connack) => {
                self.handle_connack(number, index, connack.session_present, connack.code)
            }
            Packet::Publish(publish) => self.handle_publish(number, publish, written_ms),
            Packet::PubAck(ack) => {
                self.expect(number, Expected::PubAck(ack.packet_id.get()))?;
                self.acknowledged(number, ack, true)
            }
            Packet::PubRec(ack) => {
                self.expect(number, Expected::PubRec(ack.packet_id.get()))?;
                self.acknowledged(number, ack, ack.code.is_error())?;
                if !ack.code.is_error() {
                    let client = &mut self.clients[number];
                    if let Some(exchange) = client.exchange(ack.packet_id.get()) {
                        exchange.is_released = true;
                    }
                    client
                        .acks
                        .push_back((AckKind::PubRel, ack.packet_id, false));
                }
                Ok(())
            }
            Packet::PubComp(ack) => {
                let id = ack.packet_id.get();
                self.expect(number, Expected::PubComp(id))?;
                let client = &mut self.clients[number];
                let releases = client.exchange(id).map_or(0, |exchange| exchange.releases);
                client.outbound.retain(|known| known.packet_id != id);
                if ack.code.is_error() && releases < 2 {
                    return broken(
                        Rule::AcknowledgedLost,
                        format!("client {number}: PUBREC {id} was given, and PUBREL finds nothing"),
                    );
                }
                Ok(())
            }
            Packet::PubRel(ack) => {
                let client = &mut self.clients[number];
                client.inbound.remove(&ack.packet_id.get());
                client
                    .acks
                    .push_back((AckKind::PubComp, ack.packet_id, false));
                Ok(())
            }
            Packet::SubAck(suback) => {
                let id = suback.packet_id.get();
                self.expect(number, Expected::SubAck(id))?;
                self.subscribed(number, id, suback.codes)
            }
            Packet::UnsubAck(unsuback) => {
                let id = unsuback.packet_id.get();
                self.expect(number, Expected::UnsubAck(id))?;
                let client = &mut self.clients[number];
                if let Some(place) = client
                    .changing
                    .iter()
                    .position(|known| known.packet_id == id)
                {
                    for (filter, _) in client.changing.remove(place).filters {
                        client.filters.remove(&filter);
                        if let Some(group) = group_of_filter(&filter) {
                            self.shares
                                .left(number, client.incarnation, group, id, self.tick);
                        }
                    }
                }
                Ok(())
            }
            Packet::PingResp | Packet::Disconnect(_) => Ok(()),
            other => broken(Rule::Protocol, format!("a client got {other:?}")),
        }
    }

    pub(super) fn handle_connack(
        &mut self,
        number: usize,
        index: usize,
        present: bool,
        code: ReasonCode,
    ) -> Result<(), Broken> {
        if code != ReasonCode::Success {
            if present {
                return broken(
                    Rule::SessionPresent,
                    format!("refused with {code:?} and a session"),
                );
            }
            return Ok(());
        }
        if let Some(expected) = self.expected_present[index]
            && expected != present
        {
            return broken(
                Rule::SessionPresent,
                format!(
                    "client {number} link {index}: {present}, must be {expected}: {:?}",
                    self.lives[number]
                ),
            );
        }
        self.lives[number].confirm(index);
        let client = &mut self.clients[number];
        client.is_online = true;
        client.must_clean = false;
        client.connections += 1;
        let is_stale = client
            .stale_since
            .take()
            .is_some_and(|stale| stale != index)
            && client.has_state();
        let is_nothing = client.incarnation > 0 && client.connections == 1;
        if present
            && client.version == ProtocolVersion::V5
            && number != WATCHER
            && (is_stale || is_nothing)
        {
            // What it would resume is not this session: it closes and begins anew (3.2.2-4 of MQTT 5).
            client.must_clean = true;
            self.abandon(number);
            return Ok(());
        }
        if present {
            self.resume(number);
        } else {
            if !client.asked.clean_start {
                client.forget_session();
            }
            client.connections = 1;
        }
        if number == WATCHER && !self.clients[number].filters.contains_key("will/#") {
            self.send_subscribe(number, vec![("will/#".to_owned(), QoS::ExactlyOnce)]);
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, number: usize) {
        for exchange in self.clients[number].outbound.clone() {
            self.next_tick();
            if exchange.is_released {
                let client = &mut self.clients[number];
                client
                    .expected
                    .push_back(Expected::PubComp(exchange.packet_id));
                if let Some(known) = client.exchange(exchange.packet_id) {
                    known.releases += 1;
                }
                if let Some(id) = PacketId::new(exchange.packet_id) {
                    self.send(number, &Packet::PubRel(Ack::new(id, ReasonCode::Success)));
                }
            } else {
                self.ledger.published[exchange.publish].resends += 1;
                self.send_publish(number, exchange.publish, Some(exchange.packet_id), true);
            }
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        number: usize,
        ack: &Ack<'_>,
        ends: bool,
    ) -> Result<(), Broken> {
        let id = ack.packet_id.get();
        let tick = self.tick;
        let now_ms = self.now.as_ms();
        let client = &mut self.clients[number];
        let Some(exchange) = client.exchange(id) else {
            return broken(
                Rule::Protocol,
                format!("client {number}: {ack:?} for nothing"),
            );
        };
        let publish = exchange.publish;
        if ends {
            client.outbound.retain(|known| known.packet_id != id);
        }
        let message = &mut self.ledger.published[publish];
        if ack.code.is_error() {
            message.is_refused = true;
        } else {
            message.acknowledged.get_or_insert((tick, now_ms));
        }
        Ok(())
    }

    pub(super) fn subscribed(
        &mut self,
        number: usize,
        id: u16,
        codes: &[u8],
    ) -> Result<(), Broken> {
        let tick = self.tick;
        let client = &mut self.clients[number];
        let Some(place) = client
            .changing
            .iter()
            .position(|known| known.packet_id == id)
        else {
            return broken(Rule::Protocol, format!("SUBACK {id} for nothing"));
        };
        let changing = client.changing.remove(place);
        if changing.filters.len() != codes.len() {
            return broken(Rule::Protocol, format!("{codes:?} for {changing:?}"));
        }
        for ((filter, wanted), code) in changing.filters.into_iter().zip(codes) {
            let Some(qos) = QoS::from_bits(*code) else {
                continue;
            };
            if qos != wanted {
                return broken(
                    Rule::Protocol,
                    format!("{qos:?} granted, {wanted:?} wanted"),
                );
            }
            client.filters.insert(filter.clone(), qos);
            if let Some(group) = group_of_filter(&filter) {
                self.shares
                    .granted(number, client.incarnation, group, id, tick);
            }
            // A SUBSCRIBE or UNSUBSCRIBE for the same filter may be on its way already.
            let is_replaced = client
                .changing
                .iter()
                .any(|c| c.filters.iter().any(|(f, _)| *f == filter));
            self.ledger.subscribed.push(Subscribed {
                client: number,
                incarnation: client.incarnation,
                filter,
                qos,
                from: tick,
                until: is_replaced.then_some(tick),
            });
        }
        Ok(())
    }

    pub(super) fn handle_publish(
        &mut self,
        number: usize,
        publish: &Publish<'_>,
        written_ms: u64,
    ) -> Result<(), Broken> {
        let id = if publish.payload.is_empty() {
            None
        } else {
            self.ledger.find(publish.payload)
        };
        if id.is_none() && !publish.payload.is_empty() {
            return broken(Rule::Protocol, format!("nobody published {publish:?}"));
        }
        let client = &mut self.clients[number];
        if publish.dup && client.connections == 1 {
            return broken(
                Rule::Protocol,
                format!("DUP on the first connection of a session: {publish:?}"),
            );
        }
        let mut is_repeated = false;
        // Now and then a client refuses a message; it has seen it all the same.
        let refuses = client.version == ProtocolVersion::V5 && self.dice.chance(10);
        if let Some(packet_id) = publish.packet_id {
            if publish.qos == QoS::ExactlyOnce {
                let message = id.unwrap_or(usize::MAX);
                match client.inbound.get(&packet_id.get()) {
                    Some(known) if *known != message => {
                        return broken(
                            Rule::Protocol,
                            format!(
                                "client {number}: QoS 2 packet id {packet_id} reused before PUBREL"
                            ),
                        );
                    }
                    Some(_) => is_repeated = true,
                    None if !refuses => {
                        client.inbound.insert(packet_id.get(), message);
                    }
                    None => {}
                }
                client
                    .acks
                    .push_back((AckKind::PubRec, packet_id, refuses && !is_repeated));
            } else {
                client.acks.push_back((AckKind::PubAck, packet_id, refuses));
            }
        }
        let Some(message) = id else { return Ok(()) };
        if is_repeated {
            return Ok(());
        }
        if group_of_topic(publish.topic).is_some() {
            self.deliver_shared(number, publish, message, refuses)?;
        }
        let client = &self.clients[number];
        self.ledger.deliver(Delivered {
            publish: message,
            client: number,
            incarnation: client.incarnation,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            written_ms,
            expiry_s: publish.properties.message_expiry_s,
            is_refused: refuses,
        })
    }
}
