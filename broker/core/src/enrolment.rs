//! Enrolment over MQTT: the topics by which a client asks for a certificate and gets it.
//!
//! A client publishes its request to [`CSR`]. The broker says who asked, in user properties that only it can make, and hands the
//! request to whoever subscribes to [`REQUEST`], which only the configured signer may. The signer publishes its answer to [`RESPONSE`],
//! and it goes to the session that asked, alone, as a message on [`ISSUED`] or below.
//!
//! Invariants: nobody else can publish to any of these topics, so what a client receives on [`ISSUED`] is the signer's answer to
//! it, or the broker's own refusal. The broker keeps nothing between request and answer.
//!
//! Does not know: certificates. The signer (`motemq-certs serve`) decides.

use crate::action::QueueId;
use crate::login::{Attributes, Principal, Scope};
use crate::message::{ClientId, Identity};
use crate::session::Session;
use motemq_codec::{Forwarded, ForwardedBlock};
use std::fmt;

/// Who signs, and what may be asked of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enrolment {
    /// The user name by which the enrolment service logs in.
    pub signer: Box<str>,
    /// Largest request, in bytes of payload and of everything that goes with it: names, token, correlation data.
    pub request_bytes_max: usize,
    /// Requests of one connection in an hour.
    pub requests_max: u32,
    /// Connections at a time that can only enrol.
    pub applicants_max: usize,
    /// How long such a connection may last, in seconds.
    pub connection_max_s: u32,
}

impl Enrolment {
    /// Whether this login is the signer's. A certificate must say that it is a service's: devices may have any name.
    pub(crate) fn is_signer(
        &self,
        scope: Scope,
        identity: &Identity,
        attributes: &Attributes,
    ) -> bool {
        if scope != Scope::Full || identity.name() != Some(&self.signer) {
            return false;
        }
        let uri = || {
            attributes
                .fields
                .iter()
                .find(|(name, _)| &**name == "san-uri")
        };
        match identity {
            Identity::Certificate(_) => uri().is_some_and(|(_, uri)| **uri == self.service_uri()),
            Identity::User(_) | Identity::Anonymous => true,
        }
    }

    /// The alternative name of the signer's certificate, as `motemq-certs` writes it.
    fn service_uri(&self) -> String {
        let mut uri = String::from("urn:mqtt:service:");
        for byte in self.signer.bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => uri.push(char::from(byte)),
                false => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri
    }
}

/// Where clients publish their requests.
pub(crate) const CSR: &str = "$certs/csr";
/// Where the signer receives them.
pub(crate) const REQUEST: &str = "$certs/request";
/// Where the signer publishes its answers.
pub(crate) const RESPONSE: &str = "$certs/response";
/// Where clients receive theirs; a response topic may name something below.
pub(crate) const ISSUED: &str = "$certs/issued";

/// Whether publishing to `topic` is part of an enrolment.
#[inline]
pub(crate) fn is_of_enrolment(topic: &str) -> bool {
    topic.as_bytes().first() == Some(&b'$') && (topic == CSR || topic == RESPONSE)
}

/// Whether answers may come on `topic`; also for filters.
pub(crate) fn is_issued(topic: &str) -> bool {
    let below = topic.strip_prefix(ISSUED);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// The name of a session that can only enrol: one that no client identifier is [MQTT5-1.5.4-2], and of one connection, so that whoever
/// asks for a certificate never meets, nor keeps away, the client it is for, or another that asks for the same.
pub(crate) fn session_key(connection: u64) -> ClientId {
    ClientId::new(&format!("\0{connection}"))
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) client_id: &'a ClientId,
    pub(crate) principal: &'a Principal,
    pub(crate) is_enrolling: bool,
    pub(crate) session: SessionName,
}

/// Which session asked: unique over restarts, also for sessions that end with their connections.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionName {
    pub(crate) queue: QueueId,
    pub(crate) opened_by: u64,
}

impl SessionName {
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            queue: session.queue(),
            opened_by: session.opened_by(),
        }
    }

    /// Whether this is the session's name. One that outlived a restart has forgotten what it began with, and has a queue of its own.
    pub(crate) fn is_of(self, session: &Session) -> bool {
        let opened_by = session.opened_by();
        self.queue == session.queue() && (opened_by == self.opened_by || opened_by == 0)
    }

    fn parse(text: &str) -> Option<Self> {
        let (queue, opened_by) = text.split_once('-')?;
        Some(Self {
            queue: QueueId::session(queue.parse().ok()?),
            opened_by: opened_by.parse().ok()?,
        })
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.queue.number(), self.opened_by)
    }
}

impl Applicant<'_> {
    /// What the signer is told: the client's own response topic, correlation data, content type and token, and who it is.
    pub(crate) fn request_properties(&self, forwarded: &Forwarded<'_>) -> Box<[u8]> {
        let mut block = echo(forwarded);
        if let Some(topic) = forwarded.response_topic() {
            block.response_topic(topic);
        }
        let tokens = forwarded.user_properties();
        let token = tokens.iter().find(|(name, _)| *name == "token");
        if let Some((name, value)) = token {
            block.user_property(name, value);
        }
        block.user_property("client-id", self.client_id.as_str());
        block.user_property("session", &self.session.to_string());
        block.user_property("login", self.login());
        if let Some(user) = self.principal.user() {
            block.user_property("user", user);
        }
        for (name, value) in &self.principal.attributes.fields {
            match &**name {
                "serial" => block.user_property("certificate-serial", value),
                "fingerprint" => block.user_property("certificate-fingerprint", value),
                _ => {}
            }
        }
        block.into_bytes()
    }

    fn login(&self) -> &'static str {
        match (&self.principal.identity, self.is_enrolling) {
            (Identity::Certificate(_), true) => "claim",
            (_, true) | (Identity::Anonymous, _) => "none",
            (Identity::Certificate(_), false) => "certificate",
            (Identity::User(_), false) => "user",
        }
    }
}

/// An answer of the signer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The client that asked.
    pub(crate) client_id: ClientId,
    /// Its session.
    pub(crate) session: SessionName,
    /// Where the answer goes.
    pub(crate) topic: &'a str,
    /// What goes along.
    pub(crate) properties: Box<[u8]>,
}

impl<'a> Answer<'a> {
    /// From what the signer published; `None` when that does not say whom it answers.
    pub(crate) fn read(forwarded: &Forwarded<'a>) -> Option<Self> {
        let properties = forwarded.user_properties();
        let value = |wanted| {
            let mut all = properties.iter();
            all.find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
        };
        let topic = forwarded.response_topic().unwrap_or(ISSUED);
        if !is_issued(topic) {
            return None;
        }
        let mut block = echo(forwarded);
        for (name, value) in properties.iter() {
            if !OF_THE_BROKER.contains(&name) {
                block.user_property(name, value);
            }
        }
        Some(Self {
            client_id: ClientId::new(value("client-id")?),
            session: SessionName::parse(value("session")?)?,
            topic,
            properties: block.into_bytes(),
        })
    }
}

/// What goes along with a refusal of the broker's own.
pub(crate) fn refusal_properties(forwarded: &Forwarded<'_>, word: &str) -> Box<[u8]> {
    let mut block = ForwardedBlock::default();
    if let Some(data) = forwarded.correlation_data() {
        block.correlation_data(data);
    }
    block.content_type("application/json");
    block.user_property("status", "refused");
    block.user_property("reason", word);
    block.into_bytes()
}

/// What belongs to the exchange and not to one of its two ways.
fn echo(forwarded: &Forwarded<'_>) -> ForwardedBlock {
    let mut block = ForwardedBlock::default();
    if let Some(data) = forwarded.correlation_data() {
        block.correlation_data(data);
    }
    if let Some(text) = forwarded.content_type() {
        block.content_type(text);
    }
    block
}

/// User properties that are between broker and signer.
const OF_THE_BROKER: [&str; 7] = [
    "client-id",
    "session",
    "login",
    "user",
    "certificate-serial",
    "certificate-fingerprint",
    "token",
];
