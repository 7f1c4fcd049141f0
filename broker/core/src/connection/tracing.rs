//! What a connection shows to those who trace it.
//!
//! Promise: a packet is shown where it was decoded, before it is handled, or when it was encoded, so a trace has them in the
//! order of the wire. What is no packet is shown, too: a publish that was refused, and the end. All of it is off the path of a
//! connection that nobody traces.
//!
//! Does not know: what is wanted of it, how it is described.

use super::{Close, Connection, Phase};
use crate::broker::Broker;
use crate::time::Timestamp;
use crate::trace::{
    ConnectionTraces, Fields, Header, TracedDirection, TracedValue, describe, describe_ack,
    describe_publish, name_of, text,
};
use motemq_codec::{Ack, AckKind, Auth, Packet, Publish, ReasonCode, UserProperties};

impl Connection {
    /// Shows a packet of the client. Somebody traces somebody.
    #[cold]
    pub(super) fn trace_inbound(&mut self, packet: Packet<'_>, broker: &Broker, now: Timestamp) {
        match &packet {
            Packet::Connect(connect) if matches!(self.phase, Phase::AwaitConnect) => {
                self.version = connect.version;
                self.refresh_traces(broker, connect.client_id, now);
            }
            _ => self.refresh_known_traces(broker, now),
        }
        let Some(traces) = &self.traces else { return };
        let topic = match &packet {
            Packet::Publish(publish) => Some(self.topic_of(publish)),
            _ => None,
        };
        let header = self.header(TracedDirection::In, name_of(&packet), topic);
        traces.show(&header, |payload_bytes_max| {
            describe(&packet, topic, self.version.level(), payload_bytes_max)
        });
    }

    /// The topic, or what the client's alias stands for; empty for an alias that stands for nothing.
    fn topic_of<'a>(&'a self, publish: &Publish<'a>) -> &'a str {
        let Phase::Active(active) = &self.phase else {
            return publish.topic;
        };
        let known = publish.properties.topic_alias.and_then(|alias| {
            let known = active.aliases.get(usize::from(alias.get()));
            known.and_then(Option::as_deref)
        });
        match publish.topic {
            "" => known.unwrap_or_default(),
            topic => topic,
        }
    }

    /// Shows a delivery, whose topic an alias may stand for. By value, so that the path without a trace need not have it in memory.
    #[cold]
    pub(super) fn trace_delivery(
        &mut self,
        publish: Publish<'_>,
        topic: &str,
        broker: &Broker,
        now: Timestamp,
    ) {
        self.refresh_known_traces(broker, now);
        let Some(traces) = &self.traces else { return };
        let header = self.header(TracedDirection::Out, "PUBLISH", Some(topic));
        traces.show(&header, |payload_bytes_max| {
            describe_publish(&publish, topic, payload_bytes_max)
        });
    }

    /// Shows a packet to the client without a topic.
    #[cold]
    pub(super) fn trace_outbound(&mut self, packet: &Packet<'_>) {
        if let Phase::Active(active) = &self.phase {
            ConnectionTraces::set_client(&mut self.traces, active.client_id.as_str());
        }
        if self
            .traces
            .as_ref()
            .is_some_and(|traces| traces.are_closed())
        {
            self.traces = None;
        }
        let header = self.header(TracedDirection::Out, name_of(packet), None);
        let level = self.version.level();
        let fields = |_| describe(packet, None, level, 0);
        match (&mut self.traces, packet) {
            (None, _) => {}
            // It is known when the connection ends how late it is.
            (Some(traces), Packet::Disconnect(_)) => traces.show_last(&header, fields),
            (Some(traces), _) => traces.show(&header, fields),
        }
    }

    /// Shows an acknowledgement to the client; by value, as a delivery.
    #[cold]
    pub(super) fn trace_ack(&self, kind: AckKind, ack: Ack<'_>) {
        let Some(traces) = &self.traces else { return };
        let name = match kind {
            AckKind::PubAck => "PUBACK",
            AckKind::PubRec => "PUBREC",
            AckKind::PubRel => "PUBREL",
            AckKind::PubComp => "PUBCOMP",
        };
        let header = self.header(TracedDirection::Out, name, None);
        traces.show(&header, |_| describe_ack(&ack, self.version.level()));
    }

    /// Shows an AUTH to the client.
    #[cold]
    pub(super) fn trace_auth(&mut self, code: ReasonCode, data: &[u8]) {
        let enhanced = self.enhanced();
        let method = enhanced.map(|enhanced| enhanced.method.clone());
        let auth = Auth {
            code,
            authentication_method: method.as_deref(),
            authentication_data: Some(data).filter(|data| !data.is_empty()),
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        self.trace_outbound(&Packet::Auth(auth));
    }

    /// Shows that a publish was refused, and why: where it was QoS 0 nothing else says so.
    #[cold]
    pub(super) fn trace_refusal(&self, topic: &str, code: ReasonCode, why: &str) {
        let Some(traces) = &self.traces else { return };
        let header = self.header(TracedDirection::None, "refused", Some(topic));
        traces.show(&header, |_| {
            vec![
                ("topic", text(topic)),
                ("reason_code", TracedValue::Number(code as u64)),
                ("reason", TracedValue::Word(code.words())),
                ("detail", text(why)),
            ]
        });
    }

    /// Shows how the connection ended.
    #[cold]
    pub(super) fn trace_end(&mut self, broker: &Broker, now: Timestamp) {
        if broker.traces().is_any() {
            self.refresh_known_traces(broker, now);
        }
        if let Some(traces) = &mut self.traces {
            traces.set_now(now);
            traces.finish();
        }
        let (Some(traces), Some(close)) = (&self.traces, &self.closed) else {
            return;
        };
        let header = self.header(TracedDirection::None, "closed", None);
        traces.show(&header, |_| describe_end(close));
    }

    /// What is shown from here on happens at `now`.
    #[inline]
    pub(super) fn touch_traces(&mut self, now: Timestamp) {
        if let Some(traces) = &mut self.traces {
            traces.set_now(now);
        }
    }

    /// Takes up what traces there are now, and the time.
    fn refresh_known_traces(&mut self, broker: &Broker, now: Timestamp) {
        let client_id: Box<str> = match &self.phase {
            Phase::Active(active) => active.client_id.as_str().into(),
            Phase::Authenticating(hello) => hello.client_id.as_str().into(),
            Phase::AwaitConnect => return self.refresh_unknown_traces(broker, now),
        };
        self.refresh_traces(broker, &client_id, now);
    }

    /// Between CONNECT and the verdict, or its end, the identifier is what the traces say.
    fn refresh_unknown_traces(&mut self, broker: &Broker, now: Timestamp) {
        match self.traces.is_some() {
            true => self.touch_traces(now),
            false => self.refresh_traces(broker, "", now),
        }
    }

    fn refresh_traces(&mut self, broker: &Broker, client_id: &str, now: Timestamp) {
        let (traces, as_of) = (&mut self.traces, &mut self.traced_as_of);
        ConnectionTraces::refresh(traces, as_of, broker.traces(), client_id, now);
    }

    fn header<'a>(
        &self,
        direction: TracedDirection,
        name: &'static str,
        topic: Option<&'a str>,
    ) -> Header<'a> {
        Header {
            connection: self.number,
            level: self.version.level(),
            direction,
            name,
            topic,
        }
    }
}

fn describe_end(close: &Close) -> Fields {
    let mut fields = vec![("reason", TracedValue::Word(close.label()))];
    let detail = match close {
        Close::NormalWithWill => Some("the client wants its will published".to_owned()),
        Close::Refused(code) => Some(code.words().to_owned()),
        Close::ReauthenticationFailed(_, reason)
        | Close::LoginEnded(reason)
        | Close::Dismissed(_, reason) => Some((*reason).to_owned()),
        Close::Violation(violation) => Some(violation.to_string()),
        Close::QueueOverflow => Some("the queue is full: limits.queue_full".to_owned()),
        Close::Lost => Some("the client closed the connection, or the network failed".to_owned()),
        Close::Normal | Close::TakenOver | Close::StoreFailed | Close::ServerShutdown => None,
    };
    fields.extend(detail.map(|detail| ("detail", text(&detail))));
    fields
}
