//! A request for a certificate on its way to the signer, and the answer on its way back.
//!
//! What is refused here is said twice: as a message that looks like a refusal of the signer, which clients of every version can
//! read, and to MQTT 5 clients in the acknowledgement.

use super::access::DeniedAction;
use super::{Active, Connection, Phase};
use crate::broker::{Broker, PublishSource, Receipt};
use crate::counters::{Limit, Occasion};
use crate::enrolment::{
    Answer, Applicant, CSR, Enrolment, ISSUED, REQUEST, SessionName, is_issued, refusal_properties,
};
use crate::login::Scope;
use crate::mailbox::Mailbox;
use crate::message::{Message, TopicName};
use crate::router::{Receiver, Receivers};
use crate::time::Timestamp;
use motemq_codec::{Publish, QoS, ReasonCode};
use std::sync::Arc;

/// What a connection has asked within an hour.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Requests {
    since: Option<Timestamp>,
    count: u32,
}

/// Why a request does not reach the signer.
#[derive(Copy, Clone, Debug)]
struct Refusal {
    code: ReasonCode,
    word: &'static str,
    message: &'static str,
}

/// What goes on, and to whom.
#[derive(Debug)]
struct Relayed {
    receivers: Receivers,
    payload: Box<[u8]>,
    properties: Box<[u8]>,
}

impl Requests {
    /// Counts one; `false` when that is too many.
    fn add(&mut self, requests_max: u32, now: Timestamp) -> bool {
        let since = *self.since.get_or_insert(now);
        if since.plus_s(WINDOW_S) <= now {
            *self = Self {
                since: Some(now),
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count <= requests_max
    }
}

impl Connection {
    /// Hands on what was published to one of the topics of enrolment.
    pub(super) fn relay(
        &mut self,
        publish: &Publish<'_>,
        topic: &str,
        source: PublishSource,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        let Some(enrolment) = broker.enrolment() else {
            return Receipt::Refused(ReasonCode::NotAuthorized);
        };
        if topic == CSR {
            return self.relay_request(publish, &enrolment, source, broker, now);
        }
        let is_signer = |active: &mut Active| active.session.lock().is_signer(&enrolment);
        match self.active().is_some_and(is_signer) {
            true => self.relay_answer(publish, source, broker, now),
            false => {
                self.tally.note(Occasion::PublishDenied);
                self.note_denial(DeniedAction::Publish, topic, || NOT_THE_SIGNER.to_owned());
                Receipt::Refused(ReasonCode::NotAuthorized)
            }
        }
    }

    fn relay_request(
        &mut self,
        publish: &Publish<'_>,
        enrolment: &Enrolment,
        source: PublishSource,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        let receivers = broker.receivers(REQUEST, None);
        let Phase::Active(active) = &mut self.phase else {
            return Receipt::Unavailable;
        };
        let principal = active.session.lock().principal(&active.session);
        let applicant = Applicant {
            client_id: &active.client_id,
            principal: &principal,
            is_enrolling: active.scope == Scope::Enrolment,
            session: SessionName::of(&active.session),
        };
        let properties = applicant.request_properties(&publish.properties.forwarded);
        let bytes = publish.payload.len() + properties.len();
        if let Some(refusal) = self.request_refusal(publish, bytes, enrolment, &receivers, now) {
            return self.refuse_request(publish, refusal, broker, now);
        }
        let relayed = Relayed {
            receivers,
            payload: publish.payload.into(),
            properties,
        };
        let receipt = self.hand_on(publish, relayed, source, broker, now);
        if let Receipt::Refused(_) = receipt {
            return self.refuse_request(publish, BUSY, broker, now);
        }
        self.tally.note(Occasion::EnrolmentRelayed);
        receipt
    }

    fn request_refusal(
        &mut self,
        publish: &Publish<'_>,
        bytes: usize,
        enrolment: &Enrolment,
        receivers: &Receivers,
        now: Timestamp,
    ) -> Option<Refusal> {
        let forwarded = &publish.properties.forwarded;
        let active = self.active()?;
        if !active.requests.add(enrolment.requests_max, now) {
            self.tally.reach(Limit::EnrolmentRequests);
            return Some(TOO_MANY);
        }
        if bytes > enrolment.request_bytes_max {
            self.tally.reach(Limit::EnrolmentRequestBytes);
            return Some(TOO_LARGE);
        }
        if publish.retain {
            return Some(RETAINED);
        }
        if !forwarded.response_topic().is_none_or(is_issued) {
            return Some(RESPONSE_TOPIC);
        }
        // Whatever its policy is where its queue is full: nothing that was acknowledged gives way to what comes later.
        let qos = publish.qos;
        let is_full = |receiver: &Receiver| !receiver.mailbox.has_room(qos, bytes);
        let is_away = |receiver: &Receiver| !receiver.mailbox.is_online();
        match &*receivers.list {
            [] => Some(UNAVAILABLE),
            all if qos == QoS::AtMostOnce && all.iter().all(is_away) => Some(UNAVAILABLE),
            all => all.iter().any(is_full).then_some(BUSY),
        }
    }

    fn refuse_request(
        &mut self,
        publish: &Publish<'_>,
        refusal: Refusal,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        self.tally.note(Occasion::EnrolmentRefused);
        self.note_denial(DeniedAction::Enrol, CSR, || refusal.message.to_owned());
        let Phase::Active(active) = &self.phase else {
            return Receipt::Unavailable;
        };
        let forwarded = &publish.properties.forwarded;
        let topic = forwarded.response_topic().filter(|topic| is_issued(topic));
        let Refusal { word, message, .. } = refusal;
        let payload = format!(r#"{{"error":"{word}","message":"{message}"}}"#);
        let relayed = Relayed {
            receivers: only(active.session.mailbox().clone(), topic.unwrap_or(ISSUED)),
            payload: payload.into_bytes().into(),
            properties: refusal_properties(forwarded, word),
        };
        let told = self.hand_on(publish, relayed, PublishSource::default(), broker, now);
        match (told, self.can_refuse_publishes()) {
            (Receipt::Unavailable, _) => Receipt::Unavailable,
            (_, true) => Receipt::Refused(refusal.code),
            (_, false) => Receipt::Accepted {
                code: ReasonCode::Success,
                awaited: None,
            },
        }
    }

    fn relay_answer(
        &mut self,
        publish: &Publish<'_>,
        source: PublishSource,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        let Some(answer) = Answer::read(&publish.properties.forwarded) else {
            return Receipt::Refused(ReasonCode::PayloadFormatInvalid);
        };
        let Some(mailbox) = broker.applicant(&answer.client_id, answer.session) else {
            self.tally.note(Occasion::EnrolmentUnclaimed);
            return Receipt::Accepted {
                code: ReasonCode::NoMatchingSubscribers,
                awaited: None,
            };
        };
        self.tally.note(Occasion::EnrolmentAnswered);
        let relayed = Relayed {
            receivers: only(mailbox, answer.topic),
            payload: publish.payload.into(),
            properties: answer.properties,
        };
        self.hand_on(publish, relayed, source, broker, now)
    }

    /// Sends on what `publish` is about.
    fn hand_on(
        &mut self,
        publish: &Publish<'_>,
        relayed: Relayed,
        source: PublishSource,
        broker: &Broker,
        now: Timestamp,
    ) -> Receipt {
        let connection = self.number;
        let Phase::Active(active) = &mut self.phase else {
            return Receipt::Unavailable;
        };
        let Relayed {
            receivers,
            payload,
            properties,
        } = relayed;
        let topic = receivers.topic.clone();
        let message = Arc::new(Message {
            qos: publish.qos.min(QoS::AtLeastOnce),
            retain: false,
            ..active.message(connection, publish, topic, payload, properties, now)
        });
        broker.publish(&message, &receivers, source, &mut self.tally)
    }
}

/// One session, whatever it subscribes to.
fn only(mailbox: Arc<Mailbox>, topic: &str) -> Receivers {
    Receivers::only(
        TopicName::new(topic),
        Receiver {
            mailbox,
            qos: QoS::ExactlyOnce,
            retain_as_published: false,
            subscription_ids: None,
        },
    )
}

const WINDOW_S: u32 = 3_600;

const NOT_THE_SIGNER: &str = "only the login named by enrolment.signer answers";

const TOO_MANY: Refusal = Refusal {
    code: ReasonCode::QuotaExceeded,
    word: "too-many-requests",
    message: "too many requests of this connection within an hour (enrolment.requests_max): try again later",
};
const TOO_LARGE: Refusal = Refusal {
    code: ReasonCode::QuotaExceeded,
    word: "too-large",
    message: "the request is larger than enrolment.request_bytes_max: send one CSR, without anything else",
};
const RETAINED: Refusal = Refusal {
    code: ReasonCode::NotAuthorized,
    word: "retained",
    message: "a request cannot be retained: publish it without the RETAIN flag",
};
const RESPONSE_TOPIC: Refusal = Refusal {
    code: ReasonCode::TopicNameInvalid,
    word: "response-topic",
    message: "answers come on $certs/issued or below it: choose such a response topic, or none",
};
const UNAVAILABLE: Refusal = Refusal {
    code: ReasonCode::ImplementationSpecificError,
    word: "unavailable",
    message: "the enrolment service has not connected to the broker: try again later",
};
const BUSY: Refusal = Refusal {
    code: ReasonCode::QuotaExceeded,
    word: "busy",
    message: "too many requests wait for the enrolment service: try again later",
};
