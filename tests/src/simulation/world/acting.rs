//! What clients do of their own accord: connect, publish, acknowledge, subscribe, leave.

use super::*;

impl World {
    pub(super) fn act(&mut self) {
        let client = self.dice.below(self.clients.len());
        if self.clients[client].link.is_none() {
            if self.dice.chance(800) {
                self.connect(client);
            }
            return;
        }
        if !self.clients[client].is_online {
            if self.dice.chance(10) {
                self.abandon(client);
            }
            return;
        }
        match self.dice.below(100) {
            0..50 => self.publish(client),
            50..75 => {
                let count = self.dice.between(1, 4);
                self.acknowledge(client, count);
            }
            75..85 => self.subscribe(client),
            85..88 => self.unsubscribe(client),
            88..91 => self.send(client, &Packet::PingReq),
            91..93 => self.disconnect(client),
            93..96 => self.abandon(client),
            96..97 => {
                // Another connection takes over while the old one still stands.
                self.clients[client].cut();
                self.connect(client);
            }
            97 if self.sharing != Sharing::No => self.unsubscribe(client),
            _ => {}
        }
    }

    pub(super) fn connect(&mut self, number: usize) {
        let (clean_start, expiry_s) = {
            let client = &self.clients[number];
            client.wish(&mut self.dice, EXPIRY_MAX_S)
        };
        let clean_start = clean_start && number != WATCHER || self.traffic == Traffic::Volatile;
        let version = self.clients[number].version;
        let is_v5 = version == ProtocolVersion::V5;
        let receive_maximum = self.dice.pick(&[1, 2, 5, 65_535]);
        let receive_maximum = if is_v5 { receive_maximum } else { 65_535 };
        let index = self.links.len();
        let mut around = surroundings(&self.broker, &mut self.dice, self.now, self.fault);
        self.links
            .push(Link::new(number, version, receive_maximum, &mut around));
        self.carried.push(Vec::new());
        self.leaving.push(None);
        self.expected_present.push(None);
        self.counts.connections += 1;
        let will = self
            .dice
            .chance(300)
            .then(|| self.make_will(number, is_v5, expiry_s));
        let client = &mut self.clients[number];
        if clean_start {
            // Its own state goes before the broker's.
            client.forget_session();
            client.must_clean = true;
        }
        client.asked = Asked {
            clean_start,
            expiry_s,
            will,
        };
        client.link = Some(index);
        client.is_online = false;
        self.asked.push(client.asked.clone());
        let name = client.name.clone();
        let will = will.map(|will| {
            let life = &self.ledger.wills[will];
            (self.ledger.published[life.publish].clone(), life.delay_s)
        });
        let connect = Connect {
            version,
            client_id: &name,
            clean_start,
            keep_alive_s: 0,
            username: None,
            password: None,
            will: will.as_ref().map(|(message, delay_s)| Will {
                qos: message.qos,
                retain: false,
                topic: &message.topic,
                payload: message.payload.as_bytes(),
                delay_s: *delay_s,
                message_expiry_s: None,
                forwarded: Forwarded::default(),
            }),
            properties: ConnectProperties {
                session_expiry_s: is_v5.then_some(expiry_s),
                receive_maximum: u16::try_from(receive_maximum)
                    .ok()
                    .and_then(NonZeroU16::new),
                ..ConnectProperties::default()
            },
        };
        self.tell(|| format!("c{number} link {index} {connect:?}"));
        self.write(index, &Packet::Connect(Box::new(connect)));
    }

    pub(super) fn make_will(&mut self, number: usize, is_v5: bool, expiry_s: u32) -> usize {
        let tick = self.tick;
        let delay_s = if is_v5 {
            self.dice.pick(&[0, 0, 3, 10, 40])
        } else {
            0
        };
        let client = &mut self.clients[number];
        client.wills += 1;
        let qos = self.dice.pick(&[
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
        ]);
        let publish = self.ledger.publish(Published {
            client: number,
            topic: format!("will/{}", client.name),
            qos,
            retain: false,
            sequence: client.wills,
            payload: format!("will.{}.{}", client.name, client.wills),
            expiry_s: None,
            sent: tick,
            resends: 0,
            acknowledged: None,
            is_refused: false,
            over: None,
        });
        self.ledger.wills.push(WillLife {
            publish,
            client: number,
            fate: WillFate::Waiting,
            due_ms: None,
            owed_ms: None,
            delay_s,
            is_kept: false,
            ended: None,
            expiry_s,
        });
        self.ledger.wills.len() - 1
    }

    pub(super) fn publish(&mut self, number: usize) {
        let receive_maximum = usize::from(self.limits.receive_maximum.get());
        let can_wait = self.clients[number].outbound.len() < receive_maximum;
        let qos = self
            .dice
            .pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let qos = if can_wait { qos } else { QoS::AtMostOnce };
        let is_retained = self.traffic == Traffic::Mixed && self.dice.chance(200);
        let topic = if is_retained {
            self.dice.pick(&RETAINED_TOPICS)
        } else if self.sharing != Sharing::No && self.dice.chance(600) {
            self.dice.pick(&SHARED_TOPICS)
        } else {
            self.dice.pick(&TOPICS)
        };
        let is_clear = is_retained && self.dice.chance(200);
        let is_v5 = self.clients[number].version == ProtocolVersion::V5;
        let expires = is_v5 && !is_retained && self.dice.chance(150);
        let expiry_s = expires.then(|| self.dice.pick(&[1_u32, 3, 20]));
        let client = &mut self.clients[number];
        let count = client
            .sequences
            .entry((topic.to_owned(), qos as u8))
            .or_insert(0);
        *count += 1;
        let sequence = *count;
        let payload = if is_clear {
            String::new()
        } else {
            format!("{}.{topic}.q{}.{sequence}", client.name, qos as u8)
        };
        let packet_id = (qos != QoS::AtMostOnce).then(|| client.free_packet_id());
        let sent = self.next_tick();
        let publish = self.ledger.publish(Published {
            client: number,
            topic: topic.to_owned(),
            qos,
            retain: is_retained,
            sequence,
            payload,
            expiry_s,
            sent,
            resends: 0,
            acknowledged: None,
            is_refused: false,
            over: None,
        });
        if let Some(packet_id) = packet_id {
            self.clients[number].outbound.push_back(Outbound {
                packet_id,
                publish,
                is_released: false,
                releases: 0,
            });
        }
        self.send_publish(number, publish, packet_id, false);
    }

    pub(super) fn send_publish(
        &mut self,
        number: usize,
        publish: usize,
        packet_id: Option<u16>,
        dup: bool,
    ) {
        let message = self.ledger.published[publish].clone();
        let client = &mut self.clients[number];
        let Some(link) = client.link else { return };
        match (packet_id, message.qos) {
            (Some(id), QoS::AtLeastOnce) => client.expected.push_back(Expected::PubAck(id)),
            (Some(id), QoS::ExactlyOnce) => client.expected.push_back(Expected::PubRec(id)),
            _ => {}
        }
        self.carried[link].push(publish);
        self.ledger.published[publish].over = None;
        let mut payload = message.payload.clone();
        if !payload.is_empty() && self.dice.chance(200) {
            payload.push_str(&"~".repeat(self.dice.below(300)));
        }
        let packet = Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            packet_id: packet_id.and_then(PacketId::new),
            properties: PublishProperties {
                message_expiry_s: message.expiry_s,
                ..PublishProperties::default()
            },
            payload: payload.as_bytes(),
        };
        self.send(number, &Packet::Publish(packet));
    }

    pub(super) fn acknowledge(&mut self, number: usize, count: usize) {
        for _ in 0..count {
            let client = &mut self.clients[number];
            let Some((kind, packet_id, is_refused)) = client.acks.pop_front() else {
                return;
            };
            let Some(link) = client.link else { return };
            if kind == AckKind::PubRel {
                client
                    .expected
                    .push_back(Expected::PubComp(packet_id.get()));
                if let Some(exchange) = client.exchange(packet_id.get()) {
                    exchange.releases += 1;
                }
            }
            let code = if is_refused {
                ReasonCode::QuotaExceeded
            } else {
                ReasonCode::Success
            };
            let ack = Ack::new(packet_id, code);
            let packet = match kind {
                AckKind::PubAck => Packet::PubAck(ack),
                AckKind::PubRec => Packet::PubRec(ack),
                AckKind::PubRel => Packet::PubRel(ack),
                AckKind::PubComp => Packet::PubComp(ack),
            };
            if matches!(kind, AckKind::PubAck | AckKind::PubComp) || is_refused {
                self.links[link].answered(packet_id);
            }
            self.next_tick();
            self.send(number, &packet);
        }
    }

    pub(super) fn subscribe(&mut self, number: usize) {
        let count = self.dice.between(1, 2);
        let mut filters: Vec<(String, QoS)> = Vec::new();
        if number == WATCHER && !self.clients[number].filters.contains_key("will/#") {
            filters.push(("will/#".to_owned(), QoS::ExactlyOnce));
        }
        for _ in 0..count {
            if self.sharing != Sharing::No && self.dice.chance(600) {
                self.share(&mut filters);
                continue;
            }
            let filter = self.dice.pick(&FILTERS);
            // Topics of groups are for their members.
            if filter == "#" && self.sharing != Sharing::No {
                continue;
            }
            let qos = self.dice.pick(&[
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
            ]);
            if filters.iter().all(|(known, _)| known != filter) {
                filters.push((filter.to_owned(), qos));
            }
        }
        if !filters.is_empty() {
            self.send_subscribe(number, filters);
        }
    }

    fn share(&mut self, filters: &mut Vec<(String, QoS)>) {
        let filter = self.dice.pick(&SHARED_FILTERS);
        let qos = match self.sharing {
            Sharing::AtMostOnce => self.dice.pick(&[QoS::AtMostOnce, QoS::ExactlyOnce]),
            _ => self.dice.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]),
        };
        if filters.iter().all(|(known, _)| known != filter) {
            filters.push((filter.to_owned(), qos));
        }
    }

    pub(super) fn send_subscribe(&mut self, number: usize, filters: Vec<(String, QoS)>) {
        let tick = self.next_tick();
        let incarnation = self.clients[number].incarnation;
        for (filter, _) in &filters {
            self.end_subscription(number, incarnation, filter, tick);
        }
        let client = &mut self.clients[number];
        let packet_id = client.free_packet_id();
        for group in filters
            .iter()
            .filter_map(|(filter, _)| group_of_filter(filter))
        {
            self.shares
                .asks(number, incarnation, group, packet_id, tick);
        }
        client.expected.push_back(Expected::SubAck(packet_id));
        client.changing.push(Changing {
            packet_id,
            filters: filters.clone(),
        });
        let list: Vec<_> = filters
            .iter()
            .map(|(filter, qos)| SubscribeFilter {
                filter,
                options: SubscribeOptions {
                    qos: *qos,
                    ..SubscribeOptions::default()
                },
            })
            .collect();
        let Some(packet_id) = PacketId::new(packet_id) else {
            return;
        };
        self.send(
            number,
            &Packet::Subscribe(Subscribe {
                packet_id,
                subscription_id: None,
                user_properties: UserProperties::default(),
                filters: SubscribeFilters::from_list(&list),
            }),
        );
    }

    pub(super) fn end_subscription(
        &mut self,
        number: usize,
        incarnation: u32,
        filter: &str,
        tick: u64,
    ) {
        for known in &mut self.ledger.subscribed {
            let is_it = known.client == number
                && known.incarnation == incarnation
                && known.filter == filter;
            if is_it && known.until.is_none() {
                known.until = Some(tick);
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, number: usize) {
        let known: Vec<_> = self.clients[number]
            .filters
            .keys()
            .filter(|filter| *filter != "will/#")
            .cloned()
            .collect();
        if known.is_empty() {
            return;
        }
        let filter = known[self.dice.below(known.len())].clone();
        let tick = self.next_tick();
        let incarnation = self.clients[number].incarnation;
        self.end_subscription(number, incarnation, &filter, tick);
        let client = &mut self.clients[number];
        let packet_id = client.free_packet_id();
        if let Some(group) = group_of_filter(&filter) {
            self.shares
                .leaves(number, incarnation, group, packet_id, tick);
        }
        client.expected.push_back(Expected::UnsubAck(packet_id));
        client.changing.push(Changing {
            packet_id,
            filters: vec![(filter.clone(), QoS::AtMostOnce)],
        });
        let list = [filter.as_str()];
        let Some(packet_id) = PacketId::new(packet_id) else {
            return;
        };
        self.send(
            number,
            &Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: UserProperties::default(),
                filters: UnsubscribeFilters::from_list(&list),
            }),
        );
    }

    pub(super) fn disconnect(&mut self, number: usize) {
        let Some(link) = self.clients[number].link else {
            return;
        };
        let is_v5 = self.clients[number].version == ProtocolVersion::V5;
        let is_fickle = self.clients[number].kind == Kind::Fickle;
        let keeps_will = is_v5 && self.dice.chance(300);
        let mut packet = Disconnect::new(if keeps_will {
            ReasonCode::DisconnectWithWill
        } else {
            ReasonCode::Success
        });
        let mut expiry_s = None;
        if is_fickle && self.clients[number].asked.expiry_s > 0 && self.dice.chance(300) {
            expiry_s = Some(self.dice.pick(&[0, 7, 50_000]));
        }
        packet.session_expiry_s = expiry_s;
        self.leaving[link] = Some(Leaving { expiry_s });
        self.send(number, &Packet::Disconnect(packet));
        let client = &mut self.clients[number];
        if let Some(expiry_s) = expiry_s {
            client.asked.expiry_s = expiry_s;
        }
        client.cut();
        self.links[link].is_abandoned = true;
    }

    pub(super) fn abandon(&mut self, number: usize) {
        let Some(link) = self.clients[number].link else {
            return;
        };
        self.tell(|| format!("c{number} vanishes from link {link}"));
        self.clients[number].cut();
        self.links[link].is_abandoned = true;
    }

    pub(super) fn send(&mut self, number: usize, packet: &Packet<'_>) {
        let Some(link) = self.clients[number].link else {
            return;
        };
        self.tell(|| format!("c{number} link {link} > {packet:?}"));
        self.write(link, packet);
    }

    pub(super) fn write(&mut self, link: usize, packet: &Packet<'_>) {
        let link = &mut self.links[link];
        let written = packet.encode(link.version, &mut link.up);
        debug_assert!(written.is_ok(), "{packet:?}");
    }
}
