//! To the client: replies whose time has come, then deliveries, encoded when the transport takes them.
//!
//! Invariants: never more than about `out_bytes_max` beyond what the transport has taken; a delivery too large for the
//! client ends as if delivered [MQTT5-3.1.2-25]. Does not know: who published.

use super::aliases::{Choice, saved_bytes};
use super::{Answer, Close, Connection, Pending, Phase, Reply, Violation};
use crate::broker::Broker;
use crate::counters::{Basis, Direction, DropReason, PacketKind};
use crate::history::Lost;
use crate::mailbox::{Outgoing, Window};
use crate::message::{Message, TopicName};
use crate::record::{Record, RecordState};
use crate::time::Timestamp;
use motemq_codec::{
    Ack, AckKind, Forwarded, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, SubAck,
    SubscriptionIds, UnsubAck, UserProperties,
};
use std::sync::Arc;

impl Connection {
    /// Appends to `out` what may leave now, until it holds `out_bytes_max` bytes. `true` when there is more.
    pub fn poll_output(
        &mut self,
        broker: &Broker,
        now: Timestamp,
        out_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        self.release_replies(now, out);
        let is_announced = matches!(&self.phase, Phase::Active(active) if active.is_announced);
        let mut more = false;
        while is_announced && self.closed.is_none() {
            self.feed_replay(broker, now);
            self.feed_shared(broker, now);
            let room = self.shared_room();
            more = self.take(broker, now, out);
            // What expired made room for what waits in a share group, and nothing else would ask for it.
            let has_room = !more && room < self.shared_room();
            if !(more || has_room) || out.len() >= out_bytes_max {
                break;
            }
        }
        more
    }

    fn release_replies(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        while self.closed.is_none()
            && let Phase::Active(active) = &mut self.phase
            && let Some(next) = active.replies.front()
        {
            if let Some(record) = &next.awaited {
                match record.state() {
                    RecordState::Pending | RecordState::Writing => {
                        if record.wait(active.session.mailbox().wakeup()) {
                            return;
                        }
                        continue;
                    }
                    RecordState::Failed(_) => return self.close(Close::StoreFailed, out),
                    RecordState::Durable | RecordState::Elided => {}
                }
            }
            if let Some(Pending { reply, awaited }) = active.replies.pop_front() {
                self.touch_traces(now);
                self.send_reply(reply, awaited, out);
            }
        }
    }

    pub(super) fn send_reply(
        &mut self,
        reply: Reply,
        awaited: Option<Arc<Record>>,
        out: &mut Vec<u8>,
    ) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        let (kind, packet_id, answer) = match reply {
            Reply::PubAck(packet_id, answer) => {
                active.unacknowledged = active.unacknowledged.saturating_sub(1);
                (AckKind::PubAck, packet_id, answer)
            }
            Reply::PubRec(packet_id, answer) => {
                if answer.code.is_error() {
                    active.exchanges.retain(|known| *known != packet_id);
                }
                (AckKind::PubRec, packet_id, answer)
            }
            Reply::PubComp(packet_id, code) => {
                active.exchanges.retain(|known| *known != packet_id);
                active.session.lock().finish_removal(packet_id);
                (AckKind::PubComp, packet_id, code.into())
            }
            Reply::ConnAck(welcome) => return self.welcome(&welcome, out),
            Reply::SubAck(packet_id, codes, replay) => {
                active.replay_wishes.extend(replay);
                let suback = SubAck {
                    packet_id,
                    codes: &codes,
                    reason_string: None,
                    user_properties: UserProperties::default(),
                };
                self.tally.packet(Direction::Out, PacketKind::SubAck);
                return self.send_whole(&Packet::SubAck(suback), out);
            }
            Reply::UnsubAck(packet_id, codes) => {
                let unsuback = UnsubAck {
                    packet_id,
                    codes: &codes,
                    reason_string: None,
                    user_properties: UserProperties::default(),
                };
                self.tally.packet(Direction::Out, PacketKind::UnsubAck);
                return self.send_whole(&Packet::UnsubAck(unsuback), out);
            }
        };
        let basis = match awaited.map(|record| record.state()) {
            None => Basis::Volatile,
            Some(RecordState::Elided) => Basis::Elided,
            Some(_) => Basis::Fsynced,
        };
        self.tally.acknowledge(kind, basis);
        let ack = self.acknowledgement(packet_id, kind, answer);
        let _ = ack.encode(kind, self.version, out);
        if self.traces.is_some() {
            self.trace_ack(kind, ack);
        }
    }

    /// An acknowledgement that says what to do about a refusal, if the client wants to know [MQTT5-3.1.2-29] and has room for
    /// it [MQTT5-3.4.2-2] [MQTT5-3.5.2-2].
    fn acknowledgement(&self, packet_id: PacketId, kind: AckKind, answer: Answer) -> Ack<'static> {
        let mut ack = Ack::new(packet_id, answer.code);
        let Phase::Active(active) = &self.phase else {
            return ack;
        };
        if answer.reason.is_some() && active.problem_information {
            ack.reason_string = answer.reason;
            let has_room = ack
                .encoded_len(kind, self.version)
                .is_ok_and(|length| length <= active.packet_bytes_max);
            if !has_room {
                ack.reason_string = None;
            }
        }
        ack
    }

    /// A reply that must not be left out and cannot be made smaller: without room for it the client is lost, and told so as
    /// far as it can be [MQTT5-3.1.2-24].
    fn send_whole(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) {
        let packet_bytes_max = self
            .active()
            .map_or(LARGEST_PACKET, |active| active.packet_bytes_max);
        let fits = packet
            .encoded_len(self.version)
            .is_ok_and(|length| length <= packet_bytes_max);
        if fits {
            self.encode(packet, out);
        } else {
            self.close(Close::Violation(Violation::ReplyTooLarge), out);
        }
    }

    /// Moves retained messages for new subscriptions into the mailbox while it is nearly empty, one subscription after the other.
    fn feed_replay(&mut self, broker: &Broker, now: Timestamp) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        let chunk = REPLAY_CHUNK.min(self.limits.queue_messages_max / 2).max(1);
        let is_idle = active.replay.is_empty() && active.replay_wishes.is_empty();
        if is_idle || active.session.mailbox().depth().0 >= chunk {
            return;
        }
        // One that has nothing must not hold up the next: nothing else would ask for it.
        while active.replay.is_empty()
            && let Some((filter, wish)) = active.replay_wishes.pop_first()
        {
            let tally = &mut self.tally;
            active.replay = broker.retained_for(&active.session, &filter, &wish, now, tally);
        }
        for _ in 0..chunk {
            let Some(replay) = active.replay.pop_front() else {
                active.replay.shrink_to_fit();
                return;
            };
            broker.replay(active.session.mailbox(), replay, &mut self.tally);
        }
    }

    /// Takes what waits in the session's share groups while there is room for it.
    fn feed_shared(&mut self, broker: &Broker, now: Timestamp) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        let mailbox = active.session.mailbox();
        for group in &active.groups {
            group.feed(
                mailbox,
                active.epoch,
                now,
                broker.journal(),
                &mut self.tally,
            );
        }
    }

    /// How many deliveries the session's share groups may give it now.
    fn shared_room(&self) -> usize {
        match &self.phase {
            Phase::Active(active) if !active.groups.is_empty() => active.session.mailbox().room(),
            _ => 0,
        }
    }

    /// Takes deliveries from the mailbox and encodes them. `true` when another call may find more: what arrives later wakes.
    fn take(&mut self, broker: &Broker, now: Timestamp, out: &mut Vec<u8>) -> bool {
        let Phase::Active(active) = &mut self.phase else {
            return false;
        };
        let has_replays = !(active.replay.is_empty() && active.replay_wishes.is_empty());
        let is_fed = has_replays || !active.groups.is_empty();
        let window = Window {
            epoch: active.epoch,
            inflight_max: active.inflight_max,
            count_max: DELIVERIES_CHUNK,
            bytes_max: BYTES_CHUNK,
            now,
        };
        active.refresh_access(broker);
        let mut outgoing = std::mem::take(&mut active.outgoing);
        let session = active.session.clone();
        let mailbox = session.mailbox();
        let taken = mailbox.take(window, broker.journal(), &mut self.tally, &mut outgoing);
        let Ok(is_full) = taken else {
            let close = if mailbox.has_overflowed() {
                Close::QueueOverflow
            } else {
                Close::TakenOver
            };
            self.close(close, out);
            return false;
        };
        let is_any = !outgoing.is_empty();
        for item in outgoing.drain(..) {
            match item {
                Outgoing::PubRel(packet_id) => {
                    self.tally.packet(Direction::Out, PacketKind::PubRel);
                    let ack = Ack::new(packet_id, ReasonCode::Success);
                    let _ = ack.encode(AckKind::PubRel, self.version, out);
                    if self.traces.is_some() {
                        self.touch_traces(now);
                        self.trace_ack(AckKind::PubRel, ack);
                    }
                }
                Outgoing::Publish {
                    message,
                    packet_id,
                    qos,
                    dup,
                    retain,
                    subscription_ids,
                } => {
                    if !self.may_receive(&message.topic) {
                        self.give_up(&message, packet_id, qos, DropReason::NotAuthorized, broker);
                        continue;
                    }
                    let choice = self.choose_alias(&message.topic);
                    let (topic, topic_alias) = match choice {
                        Choice::Name => (message.topic.as_str(), None),
                        Choice::Set(alias) => (message.topic.as_str(), Some(alias)),
                        Choice::Alias(alias) => ("", Some(alias)),
                    };
                    let publish = Publish {
                        dup,
                        qos,
                        retain,
                        topic,
                        packet_id,
                        properties: PublishProperties {
                            message_expiry_s: message.expiry_left_s(now),
                            topic_alias,
                            subscription_ids: SubscriptionIds::from_list(
                                subscription_ids.as_deref().unwrap_or_default(),
                            ),
                            forwarded: Forwarded::from_block(&message.forwarded),
                        },
                        payload: &message.payload,
                    };
                    if self.send_publish(&publish, &message, out) {
                        self.note_alias(choice, &message.topic);
                        self.sample(&publish, &message, now);
                        if broker.traces().is_any() {
                            let topic = message.topic.as_str();
                            self.trace_delivery(publish, topic, broker, now);
                        }
                    } else {
                        self.give_up(&message, packet_id, qos, DropReason::TooLarge, broker);
                    }
                }
            }
        }
        if let Some(active) = self.active()
            && outgoing.capacity() <= DELIVERIES_CHUNK
            && is_any
        {
            active.outgoing = outgoing;
        }
        is_full || is_fed && is_any
    }

    fn may_receive(&mut self, topic: &TopicName) -> bool {
        self.active()
            .is_some_and(|active| active.access.may_receive(topic))
    }

    fn choose_alias(&mut self, topic: &TopicName) -> Choice {
        let active = self.active();
        let aliases = active.and_then(|active| active.outbound_aliases.as_mut());
        aliases.map_or(Choice::Name, |aliases| aliases.choose(topic))
    }

    /// Takes up what a packet that was written tells the client of aliases.
    fn note_alias(&mut self, choice: Choice, topic: &TopicName) {
        match choice {
            Choice::Name => {}
            Choice::Set(alias) => {
                let active = self.active();
                if let Some(aliases) = active.and_then(|active| active.outbound_aliases.as_mut()) {
                    aliases.set(alias, topic);
                }
            }
            Choice::Alias(_) => {
                self.tally.save_by_alias(saved_bytes(topic).unwrap_or(0));
            }
        }
    }

    fn send_publish(
        &mut self,
        publish: &Publish<'_>,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> bool {
        let Phase::Active(active) = &self.phase else {
            return false;
        };
        if active.packet_bytes_max < LARGEST_PACKET {
            let fits = publish
                .encoded_len(self.version)
                .is_ok_and(|length| length <= active.packet_bytes_max);
            if !fits {
                return false;
            }
        }
        if publish.encode(self.version, out).is_err() {
            return false;
        }
        self.tally
            .publish(Direction::Out, publish.qos, message.payload.len());
        self.meters.send(message.payload.len());
        true
    }

    #[cold]
    #[inline(never)]
    fn give_up(
        &mut self,
        message: &Message,
        packet_id: Option<PacketId>,
        qos: QoS,
        reason: DropReason,
        broker: &Broker,
    ) {
        let Phase::Active(active) = &self.phase else {
            return;
        };
        match packet_id {
            Some(packet_id) => {
                let mailbox = active.session.mailbox();
                mailbox.give_up(packet_id, qos, reason, broker.journal(), &mut self.tally);
            }
            None => {
                let (client, lost) = (&active.client_id, Lost::Message(message));
                self.tally.drop_message(reason, client, lost, qos, "");
            }
        }
    }

    /// Counts bytes that the transport has taken.
    pub fn count_sent(&mut self, bytes: usize) {
        self.tally.transfer(Direction::Out, bytes);
        self.meters.bytes_out += bytes as u64;
    }
}

/// Deliveries taken from the mailbox in one go.
const DELIVERIES_CHUNK: usize = 256;
/// No further delivery is taken once these have so many bytes.
const BYTES_CHUNK: usize = 64 << 10;
/// Retained messages moved into the mailbox in one go.
const REPLAY_CHUNK: usize = 256;
/// The largest packet of the wire format; a client that takes it needs no check.
const LARGEST_PACKET: usize = 268_435_460;
