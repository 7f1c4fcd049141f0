//! From the client: publishes with their acknowledgements, subscriptions, and its answers to our publishes.
//!
//! Invariants: a QoS 2 packet id is forwarded once between its PUBLISH and its PUBREL, also across connections
//! [MQTT5-4.3.3-10]; PUBCOMP promises that the id is free on disk too, so a PUBREL that repeats one still being removed
//! waits for the same record. Does not know: who receives, what a record contains.

use super::access::DeniedAction;
use super::routes::Route;
use super::throttle::Pace;
use super::{Active, Answer, Close, Connection, Denial, Pending, Phase, Reply, Violation};
use crate::acl::Rights;
use crate::action::Action;
use crate::broker::{Broker, PublishSource, Receipt, Wish, is_reserved};
use crate::counters::{Direction, DropReason, Limit, Occasion, PacketKind};
use crate::enrolment::is_of_enrolment;
use crate::history::LossReason;
use crate::login::Scope;
use crate::mailbox::{Fenced, Handled, Settlement};
use crate::message::{Message, MessageId, Origin, TopicName, Urgency};
use crate::record::Record;
use crate::session::Inbound;
use crate::share_group::ShareGroup;
use crate::time::Timestamp;
use motemq_codec::{
    Ack, AckKind, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, Subscribe, Unsubscribe,
    parse_subscription,
};
use std::borrow::Cow;
use std::sync::Arc;

impl Connection {
    pub(super) fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally
            .publish(Direction::In, publish.qos, publish.payload.len());
        self.meters.receive(publish.payload.len());
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Violation::SubscriptionIdInPublish);
        }
        if publish.qos > self.rules.qos_max {
            return Err(Violation::QoSNotSupported);
        }
        let alias = self.resolve_alias(publish)?;
        let topic = alias.as_deref().unwrap_or(publish.topic);
        if let Pace::Drop(reason) = self.pace(publish, broker, now)? {
            self.drop_own(reason, publish, topic);
            return Ok(());
        }
        let is_too_large = publish.payload.len() > self.limits.payload_bytes_max as usize;
        let too_large = (
            ReasonCode::QuotaExceeded,
            "the payload is above limits.payload_bytes_max",
        );
        if is_too_large {
            self.tally.reach(Limit::PayloadBytes);
        }
        let is_enrolment = is_of_enrolment(topic);
        let refusal = self
            .publish_refusal(topic, is_enrolment, broker)
            .or_else(|| is_too_large.then_some(too_large))
            .or_else(|| self.memory_refusal(publish, broker));
        let receive_maximum = usize::from(self.limits.receive_maximum.get());
        let version = self.version;
        let Some(active) = self.active() else {
            return Ok(());
        };
        // Takes the session's lock, which QoS 2 holds while it routes.
        active.refresh_access(broker);
        if publish.qos != QoS::AtMostOnce && version == ProtocolVersion::V5 {
            let is_known = publish
                .packet_id
                .is_some_and(|id| active.exchanges.contains(&id));
            if !is_known && active.unacknowledged + active.exchanges.len() >= receive_maximum {
                return Err(Violation::ReceiveMaximumExceeded);
            }
        }
        if let Some((code, reason)) = refusal {
            self.tally.note(Occasion::PublishRefused);
            self.note_refused_for(publish, topic, reason);
            if self.traces.is_some() {
                self.trace_refusal(topic, code, reason);
            }
            if code == ReasonCode::NotAuthorized && self.acknowledges_denied() {
                return self.answer(publish, ReasonCode::Success.into(), None, out);
            }
            let reason = Some(reason);
            return self.answer(publish, Answer { code, reason }, None, out);
        }
        match publish.packet_id {
            Some(packet_id) if publish.qos == QoS::ExactlyOnce => {
                self.publish_exactly_once(publish, topic, packet_id, broker, now, out)
            }
            _ => {
                let source = PublishSource::default();
                let receipt = match is_enrolment {
                    true => self.relay(publish, topic, source, broker, now),
                    false => self.route(publish, topic, source, broker, now),
                };
                self.answer_receipt(publish, receipt, out)
            }
        }
    }

    /// The topic that the client's alias stands for, when the packet has none itself [MQTT5-3.3.2-12].
    fn resolve_alias(&mut self, publish: &Publish<'_>) -> Result<Option<Box<str>>, Violation> {
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(None);
        };
        if alias.get() > self.limits.topic_alias_max {
            return Err(Violation::TopicAliasTooLarge);
        }
        let Some(active) = self.active() else {
            return Ok(None);
        };
        let index = usize::from(alias.get());
        if publish.topic.is_empty() {
            let known = active.aliases.get(index).cloned().flatten();
            return known.map(Some).ok_or(Violation::TopicAliasUnknown);
        }
        if active.aliases.len() <= index {
            active.aliases.resize(index + 1, None);
        }
        if let Some(place) = active.aliases.get_mut(index) {
            *place = Some(publish.topic.into());
        }
        Ok(None)
    }

    /// Topics that this client may not publish to, whatever the ACL says.
    #[inline]
    fn publish_refusal(
        &mut self,
        topic: &str,
        is_enrolment: bool,
        broker: &Broker,
    ) -> Option<(ReasonCode, &'static str)> {
        if is_enrolment && broker.enrolment().is_some() {
            return None;
        }
        match self.scope() {
            Scope::Full | Scope::Operator => self.topic_refusal(topic),
            Scope::Enrolment => Some((
                ReasonCode::NotAuthorized,
                "this login may only ask for a certificate, at $certs/csr",
            )),
        }
    }

    /// Topics that nobody may publish to: too deep, or owned by the broker (contracts section 7).
    #[inline]
    pub(super) fn topic_refusal(&mut self, topic: &str) -> Option<(ReasonCode, &'static str)> {
        if topic.starts_with('$') {
            return Some((
                ReasonCode::NotAuthorized,
                "topics that start with $ are the broker's own",
            ));
        }
        let levels_max = self.limits.topic_levels_max;
        // What is shorter cannot have as many; counting costs three instructions a byte.
        let is_too_deep = topic.len() >= levels_max
            && topic.bytes().filter(|byte| *byte == b'/').count() >= levels_max;
        if !is_too_deep {
            return None;
        }
        self.tally.reach(Limit::TopicLevels);
        Some((
            ReasonCode::TopicNameInvalid,
            "the topic has more levels than limits.topic_levels_max",
        ))
    }

    /// While memory is all but used up nothing that waits is taken, where the version can say so, and nothing to be retained.
    fn memory_refusal(
        &mut self,
        publish: &Publish<'_>,
        broker: &Broker,
    ) -> Option<(ReasonCode, &'static str)> {
        let pressure = broker.pressure();
        pressure.bytes_rate()?;
        let is_kept = publish.retain && !publish.payload.is_empty();
        let is_refused = is_kept && pressure.refuses_connections()
            || self.version == ProtocolVersion::V5 && pressure.drops_qos0();
        if !is_refused {
            return None;
        }
        self.tally.reach(Limit::Memory);
        let reason = "the broker's memory is nearly used up: limits.memory_bytes_max";
        Some((ReasonCode::QuotaExceeded, reason))
    }

    fn publish_exactly_once(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        packet_id: PacketId,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let Some(active) = self.active() else {
            return Ok(());
        };
        if !active.exchanges.contains(&packet_id) {
            active.exchanges.push(packet_id);
        }
        let session = active.session.clone();
        let epoch = active.epoch;
        let mut state = session.lock();
        if state.epoch != epoch {
            drop(state);
            self.close(Close::TakenOver, out);
            return Ok(());
        }
        if let Some(Inbound::Taken(record)) = state.inbound.get(&packet_id) {
            let record = record.clone();
            drop(state);
            return self.answer(publish, ReasonCode::Success.into(), record, out);
        }
        let source = PublishSource {
            inbound: state.is_stored.then(|| (session.queue(), packet_id)),
            will_of: None,
        };
        let receipt;
        if is_of_enrolment(topic) {
            // It is answered into the session itself, or into that of another client. Who asks twice is answered twice.
            drop(state);
            receipt = self.relay(publish, topic, PublishSource::default(), broker, now);
            state = session.lock();
            if state.epoch != epoch {
                drop(state);
                self.close(Close::TakenOver, out);
                return Ok(());
            }
        } else {
            receipt = self.route(publish, topic, source, broker, now);
        }
        if let Receipt::Accepted { awaited, .. } = &receipt {
            state
                .inbound
                .insert(packet_id, Inbound::Taken(awaited.clone()));
        }
        drop(state);
        self.answer_receipt(publish, receipt, out)
    }

    fn route(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        source: PublishSource,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        let connection = self.number;
        let Phase::Active(active) = &mut self.phase else {
            return Receipt::Unavailable;
        };
        let queue = active.session.queue();
        let rights = active.access.rights();
        let Route { receivers, rights } = active.routes.find(topic, queue, broker, rights);
        if !rights.allows(publish.qos, publish.retain) {
            return self.deny_publish(publish, topic);
        }
        let mut forwarded = Vec::new();
        if !publish.properties.forwarded.is_empty() {
            forwarded.reserve_exact(publish.properties.forwarded.len());
            publish.properties.forwarded.write_to(&mut forwarded);
        }
        let topic = receivers.topic.clone();
        let forwarded = forwarded.into_boxed_slice();
        let payload = publish.payload.into();
        let message = active.message(connection, publish, topic, payload, forwarded, now);
        let message = Arc::new(message);
        let receipt = broker.publish(&message, &receivers, source, &mut self.tally);
        if let Receipt::Refused(code) = receipt {
            self.note_refused(publish, message.topic.as_str(), code);
        }
        receipt
    }

    fn deny_publish(&mut self, publish: &Publish<'_>, topic: &str) -> Receipt {
        self.tally.note(Occasion::PublishDenied);
        let rights = self.rights();
        let why = || {
            let why = |rights: &Rights| rights.explain_publish(topic, publish.qos, publish.retain);
            rights
                .as_ref()
                .map_or_else(String::new, |rights| why(rights).text)
        };
        self.lose_own(LossReason::PublishDenied, publish, topic, || why().into());
        if rights.is_some() {
            if self.traces.is_some() {
                self.trace_refusal(topic, ReasonCode::NotAuthorized, &why());
            }
            self.note_denial(DeniedAction::Publish, topic, why);
        }
        match self.acknowledges_denied() {
            true => Receipt::Accepted {
                code: ReasonCode::Success,
                awaited: None,
            },
            false => Receipt::Refused(ReasonCode::NotAuthorized),
        }
    }

    /// Counts a message that comes too fast.
    #[cold]
    #[inline(never)]
    fn drop_own(&mut self, reason: DropReason, publish: &Publish<'_>, topic: &str) {
        if let Phase::Active(active) = &self.phase {
            let client = &active.client_id;
            self.tally.drop_own(reason, client, topic, publish.qos);
        }
    }

    /// Tells the history that a limit refused a message.
    #[cold]
    #[inline(never)]
    fn note_refused(&mut self, publish: &Publish<'_>, topic: &str, code: ReasonCode) {
        let why = Answer::from(code).reason.unwrap_or_default();
        self.note_refused_for(publish, topic, why);
    }

    #[cold]
    #[inline(never)]
    fn note_refused_for(&mut self, publish: &Publish<'_>, topic: &str, why: &'static str) {
        self.lose_own(LossReason::PublishRefused, publish, topic, || why.into());
    }

    /// Tells the history of a message that does not get any further.
    #[cold]
    fn lose_own(
        &mut self,
        reason: LossReason,
        publish: &Publish<'_>,
        topic: &str,
        detail: impl FnOnce() -> Cow<'static, str>,
    ) {
        if let Phase::Active(active) = &self.phase {
            let client = &active.client_id;
            self.tally
                .lose_own(reason, client, topic, publish.qos, detail);
        }
    }

    /// Whether the client is told that a publish was taken although it was denied.
    fn acknowledges_denied(&mut self) -> bool {
        !self.can_refuse_publishes()
            && self
                .rights()
                .is_some_and(|rights| rights.acknowledges_denied())
    }

    /// Whether an acknowledgement can say no, so that the client need not be disconnected.
    pub(super) fn can_refuse_publishes(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    fn rights(&mut self) -> Option<Rights> {
        self.active()?.access.rights().cloned()
    }

    pub(super) fn note_denial(
        &mut self,
        action: DeniedAction,
        topic: &str,
        why: impl FnOnce() -> String,
    ) {
        self.denial
            .get_or_insert_with(|| Denial::new(action, topic, &why()));
    }

    fn answer_receipt(
        &mut self,
        publish: &Publish<'_>,
        receipt: Receipt,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        match receipt {
            Receipt::Accepted { code, awaited } => self.answer(publish, code.into(), awaited, out),
            Receipt::Refused(code) => self.answer(publish, code.into(), None, out),
            Receipt::Unavailable => {
                self.close(Close::StoreFailed, out);
                Ok(())
            }
        }
    }

    /// The acknowledgement of a publish; a refusal that the version cannot express ends the connection.
    fn answer(
        &mut self,
        publish: &Publish<'_>,
        answer: Answer,
        awaited: Option<Arc<Record>>,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let Some(packet_id) = publish.packet_id else {
            return Ok(());
        };
        if answer.code.is_error() && !self.can_refuse_publishes() {
            let reason = answer.reason.unwrap_or("refused");
            return Err(Violation::PublishRefused(answer.code, reason));
        }
        if let Some(active) = self.active()
            && publish.qos == QoS::AtLeastOnce
        {
            active.unacknowledged += 1;
        }
        let reply = match publish.qos {
            QoS::ExactlyOnce => Reply::PubRec(packet_id, answer),
            _ => Reply::PubAck(packet_id, answer),
        };
        self.reply(reply, awaited, out);
        Ok(())
    }

    pub(super) fn handle_pubrel(
        &mut self,
        ack: &Ack<'_>,
        broker: &Broker,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::PubRel);
        let packet_id = ack.packet_id;
        let Some(active) = self.active() else {
            return Ok(());
        };
        let session = active.session.clone();
        let epoch = active.epoch;
        let mut state = session.lock();
        if state.epoch != epoch {
            drop(state);
            self.close(Close::TakenOver, out);
            return Ok(());
        }
        let (code, awaited) = match state.inbound.get(&packet_id).cloned() {
            Some(Inbound::Taken(_)) => {
                let record = state.is_stored.then(|| {
                    broker.submit(Action::InboundRemoved {
                        queue: session.queue(),
                        packet_id,
                    })
                });
                state
                    .inbound
                    .insert(packet_id, Inbound::Removing(record.clone()));
                (ReasonCode::Success, record)
            }
            Some(Inbound::Removing(record)) => (ReasonCode::Success, record),
            // [MQTT5-4.3.3-11]
            None => (ReasonCode::PacketIdentifierNotFound, None),
        };
        drop(state);
        self.reply(Reply::PubComp(packet_id, code), awaited, out);
        Ok(())
    }

    pub(super) fn handle_puback(
        &mut self,
        ack: &Ack<'_>,
        broker: &Broker,
        now: Timestamp,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::PubAck);
        self.note_round_trip(ack.packet_id, QoS::AtLeastOnce, broker, now);
        let outcome = outcome(ack.code);
        let Phase::Active(active) = &self.phase else {
            return Ok(());
        };
        let mailbox = active.session.mailbox();
        let handled = mailbox.handle_puback(
            active.epoch,
            ack.packet_id,
            outcome,
            broker.journal(),
            &mut self.tally,
        );
        // An acknowledgement for nothing changes nothing; it happens after a reconnect.
        self.note_fence(handled);
        Ok(())
    }

    pub(super) fn handle_pubrec(
        &mut self,
        ack: &Ack<'_>,
        broker: &Broker,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::PubRec);
        let outcome = outcome(ack.code);
        let Phase::Active(active) = &self.phase else {
            return Ok(());
        };
        let mailbox = active.session.mailbox();
        let handled = mailbox.handle_pubrec(
            active.epoch,
            ack.packet_id,
            outcome,
            broker.journal(),
            &mut self.tally,
        );
        let code = match self.note_fence(handled) {
            Some(Handled::SendPubRel) => ReasonCode::Success,
            Some(Handled::UnknownPacketId) if !ack.code.is_error() => {
                ReasonCode::PacketIdentifierNotFound
            }
            _ => return Ok(()),
        };
        self.tally.packet(Direction::Out, PacketKind::PubRel);
        let release = Ack::new(ack.packet_id, code);
        let _ = release.encode(AckKind::PubRel, self.version, out);
        if self.traces.is_some() {
            self.trace_ack(AckKind::PubRel, release);
        }
        Ok(())
    }

    pub(super) fn handle_pubcomp(
        &mut self,
        ack: &Ack<'_>,
        broker: &Broker,
        now: Timestamp,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::PubComp);
        self.note_round_trip(ack.packet_id, QoS::ExactlyOnce, broker, now);
        let Phase::Active(active) = &self.phase else {
            return Ok(());
        };
        let mailbox = active.session.mailbox();
        let handled = mailbox.handle_pubcomp(
            active.epoch,
            ack.packet_id,
            broker.journal(),
            &mut self.tally,
        );
        self.note_fence(handled);
        Ok(())
    }

    fn note_fence(&mut self, handled: Result<Handled, Fenced>) -> Option<Handled> {
        if handled.is_err() {
            self.closed.get_or_insert(Close::TakenOver);
        }
        handled.ok()
    }

    pub(super) fn handle_subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        broker: &Broker,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::Subscribe);
        let qos_max = self.rules.qos_max;
        let Some(active) = self.active() else {
            return Ok(());
        };
        let wishes: Vec<_> = subscribe
            .filters
            .iter()
            .map(|wish| Wish {
                filter: wish.filter,
                options: wish.options,
                subscription_id: subscribe.subscription_id,
            })
            .collect();
        let session = active.session.clone();
        let epoch = active.epoch;
        let Ok(subscribed) = broker.subscribe(&session, epoch, &wishes, qos_max, &mut self.tally)
        else {
            self.close(Close::TakenOver, out);
            return Ok(());
        };
        self.set_groups(subscribed.groups);
        if let Some(denied) = denied_wish(&subscribed.codes, &wishes) {
            let rights = broker.rights_of(&session);
            let why = || match (&rights, parse_subscription(denied.filter)) {
                (Some(rights), Ok(parsed)) if !is_reserved(parsed.filter.as_str()) => {
                    let filter = parsed.filter.as_str();
                    let qos = denied.options.qos;
                    rights.explain_subscribe(filter, parsed.share, qos).text
                }
                _ => "topics that start with $ are the broker's own".to_owned(),
            };
            self.note_denial(DeniedAction::Subscribe, denied.filter, why);
        }
        let codes = subscribed
            .codes
            .iter()
            .map(|code| self.suback_code(*code))
            .collect();
        let reply = Reply::SubAck(subscribe.packet_id, codes, subscribed.replay);
        self.reply(reply, subscribed.awaited, out);
        Ok(())
    }

    /// 3.1.1 knows one failure only [MQTT3-3.8.4-5].
    fn suback_code(&self, code: ReasonCode) -> u8 {
        if code.is_error() && self.version != ProtocolVersion::V5 {
            return ReasonCode::UnspecifiedError as u8;
        }
        code as u8
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        broker: &Broker,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        self.tally.packet(Direction::In, PacketKind::Unsubscribe);
        let Some(active) = self.active() else {
            return Ok(());
        };
        let session = active.session.clone();
        let filters = unsubscribe.filters.iter();
        let epoch = active.epoch;
        let Ok(unsubscribed) = broker.unsubscribe(&session, epoch, filters, &mut self.tally) else {
            self.close(Close::TakenOver, out);
            return Ok(());
        };
        self.set_groups(unsubscribed.groups);
        let codes = unsubscribed.codes.iter().map(|code| *code as u8).collect();
        let reply = Reply::UnsubAck(unsubscribe.packet_id, codes);
        self.reply(reply, unsubscribed.awaited, out);
        Ok(())
    }

    fn set_groups(&mut self, groups: Vec<Arc<ShareGroup>>) {
        if let Some(active) = self.active() {
            active.groups = groups;
        }
    }

    fn reply(&mut self, reply: Reply, awaited: Option<Arc<Record>>, out: &mut Vec<u8>) {
        let Some(active) = self.active() else { return };
        if active.replies.is_empty() && awaited.is_none() {
            self.send_reply(reply, None, out);
        } else {
            active.replies.push_back(Pending { reply, awaited });
        }
    }

    pub(super) fn active(&mut self) -> Option<&mut Active> {
        match &mut self.phase {
            Phase::Active(active) => Some(active),
            _ => None,
        }
    }
}

impl Active {
    /// The next message of the connection with this number: what `publish` says, with this topic, payload and properties.
    #[inline]
    pub(super) fn message(
        &mut self,
        connection: u64,
        publish: &Publish<'_>,
        topic: TopicName,
        payload: Box<[u8]>,
        forwarded: Box<[u8]>,
        now: Timestamp,
    ) -> Message {
        self.messages += 1;
        let expiry_s = publish.properties.message_expiry_s;
        Message {
            topic,
            payload,
            forwarded,
            qos: publish.qos,
            retain: publish.retain,
            publisher: self.client_id.clone(),
            origin: Origin::Client,
            hops: 0,
            received_at: now,
            expires_at: expiry_s.map(|seconds| now.plus_s(seconds)),
            urgency: Urgency::default(),
            id: MessageId {
                connection,
                sequence: self.messages,
            },
            attempts: 0,
        }
    }
}

fn denied_wish<'a>(codes: &[ReasonCode], wishes: &[Wish<'a>]) -> Option<Wish<'a>> {
    let place = codes
        .iter()
        .position(|code| *code == ReasonCode::NotAuthorized)?;
    wishes.get(place).copied()
}

fn outcome(code: ReasonCode) -> Settlement {
    if code.is_error() {
        Settlement::Dropped(DropReason::Rejected)
    } else {
        Settlement::Accepted
    }
}
