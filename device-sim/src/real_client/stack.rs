//! rumqttc's two clients, one for MQTT 3.1.1 and one for 5, behind the same few words.
//!
//! Does not know: readings, labels, the ledger, when a run ends.

use crate::plan::Cohort;
use crate::wire::{self, Login, Session, Version};
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason, PubCompReason, PubRecReason};
use rumqttc::{
    ConnectionError, Event, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;

/// What waits in rumqttc for its task, beyond which it takes nothing.
const REQUESTS_MAX: usize = 64;
/// What its client for MQTT 5 may have in flight: what that for 3.1.1 has anyway. It reserves room for all of it.
const IN_FLIGHT_MAX: u16 = 100;

/// What a device's client is told before it connects.
pub(super) struct Setup<'a> {
    pub(super) client_id: String,
    /// Where it connects to; with TLS also what the broker's certificate must name.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) cohort: &'a Cohort,
    pub(super) login: Option<&'a Login>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// The half that takes messages.
pub(super) enum Client {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The half that speaks with the broker, as long as it is polled.
pub(super) enum Events {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The broker accepted the device.
    Connected { has_session: bool },
    /// A message, or a repetition, went out under this packet id; 0 is QoS 0.
    Sent(u16),
    /// The broker has taken the message.
    Acknowledged(u16),
    /// The broker has not taken the message.
    Rejected(u16),
    /// DISCONNECT went out.
    Left,
    /// There is no connection, or no longer; with CONNACK's return code if that is why.
    Failed(Option<u8>),
    /// What changes nothing.
    Other,
}

impl Setup<'_> {
    /// A client, which connects when its events are first polled.
    pub(super) fn open(self) -> (Client, Events) {
        match self.cohort.version {
            Version::V4 => {
                let (client, events) = rumqttc::AsyncClient::new(self.options_4(), REQUESTS_MAX);
                (Client::V4(client), Events::V4(Box::new(events)))
            }
            Version::V5 => {
                let (client, events) = v5::AsyncClient::new(self.options_5(), REQUESTS_MAX);
                (Client::V5(client), Events::V5(Box::new(events)))
            }
        }
    }

    fn options_4(self) -> MqttOptions {
        let (cohort, transport) = (self.cohort, transport(self.tls));
        let mut options = MqttOptions::new(self.client_id, self.host, self.port);
        options.set_transport(transport);
        options.set_keep_alive(Duration::from_secs(cohort.keep_alive_s.into()));
        options.set_clean_session(cohort.session == Session::Clean);
        if let Some(login) = self.login {
            options.set_credentials(&login.username, &login.password);
        }
        options
    }

    fn options_5(self) -> v5::MqttOptions {
        let (cohort, transport) = (self.cohort, transport(self.tls));
        let mut options = v5::MqttOptions::new(self.client_id, self.host, self.port);
        options.set_transport(transport);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
        options.set_keep_alive(Duration::from_secs(cohort.keep_alive_s.into()));
        options.set_clean_start(cohort.session == Session::Clean);
        if cohort.session == Session::Kept {
            let expiry_s = cohort.expiry_s.unwrap_or(wire::EXPIRY_S);
            options.set_session_expiry_interval(Some(expiry_s));
        }
        if let Some(login) = self.login {
            options.set_credentials(&login.username, &login.password);
        }
        options
    }
}

fn transport(tls: Option<Arc<ClientConfig>>) -> Transport {
    match tls {
        Some(config) => Transport::tls_with_config(TlsConfiguration::Rustls(config)),
        None => Transport::tcp(),
    }
}

impl Client {
    /// Hands a message over; `false` when there is no room for it.
    pub(super) fn publish(&self, topic: String, qos: u8, payload: Vec<u8>) -> bool {
        match self {
            Self::V4(client) => {
                let qos = match qos {
                    0 => QoS::AtMostOnce,
                    1 => QoS::AtLeastOnce,
                    _ => QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
            Self::V5(client) => {
                let qos = match qos {
                    0 => v5::mqttbytes::QoS::AtMostOnce,
                    1 => v5::mqttbytes::QoS::AtLeastOnce,
                    _ => v5::mqttbytes::QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
        }
    }

    /// Asks to leave; `false` when there is no room for the wish.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Self::V4(client) => client.try_disconnect().is_ok(),
            Self::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Events {
    /// Waits for the next event. To be polled to its end: rumqttc starts a connection anew when its future is
    /// dropped.
    pub(super) async fn next(&mut self) -> News {
        match self {
            Self::V4(events) => match events.poll().await {
                Ok(event) => news_4(&event),
                // The codes of 3.1.1 are numbered as they are on the wire.
                Err(ConnectionError::ConnectionRefused(code)) => News::Failed(Some(code as u8)),
                Err(_) => News::Failed(None),
            },
            Self::V5(events) => match events.poll().await {
                Ok(event) => news_5(&event),
                Err(v5::ConnectionError::ConnectionRefused(code)) => News::Failed(refusal(code)),
                Err(_) => News::Failed(None),
            },
        }
    }
}

fn news_4(event: &Event) -> News {
    match event {
        Event::Incoming(Packet::ConnAck(ack)) => News::Connected {
            has_session: ack.session_present,
        },
        Event::Incoming(Packet::PubAck(ack)) => News::Acknowledged(ack.pkid),
        Event::Incoming(Packet::PubComp(complete)) => News::Acknowledged(complete.pkid),
        Event::Outgoing(outgoing) => news_of_outgoing(outgoing),
        Event::Incoming(_) => News::Other,
    }
}

fn news_5(event: &v5::Event) -> News {
    use v5::mqttbytes::v5::Packet;
    let ended = |id, is_taken| match is_taken {
        true => News::Acknowledged(id),
        false => News::Rejected(id),
    };
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => News::Connected {
            has_session: ack.session_present,
        },
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            use PubAckReason::{NoMatchingSubscribers, Success};
            ended(
                ack.pkid,
                matches!(ack.reason, Success | NoMatchingSubscribers),
            )
        }
        v5::Event::Incoming(Packet::PubRec(ack)) => {
            use PubRecReason::{NoMatchingSubscribers, Success};
            match ack.reason {
                Success | NoMatchingSubscribers => News::Other,
                _ => News::Rejected(ack.pkid),
            }
        }
        v5::Event::Incoming(Packet::PubComp(complete)) => {
            ended(complete.pkid, complete.reason == PubCompReason::Success)
        }
        v5::Event::Outgoing(outgoing) => news_of_outgoing(outgoing),
        v5::Event::Incoming(_) => News::Other,
    }
}

fn news_of_outgoing(outgoing: &Outgoing) -> News {
    match outgoing {
        Outgoing::Publish(id) => News::Sent(*id),
        Outgoing::Disconnect => News::Left,
        _ => News::Other,
    }
}

/// The code on the wire of those refusals that people meet.
fn refusal(code: ConnectReturnCode) -> Option<u8> {
    match code {
        ConnectReturnCode::UnsupportedProtocolVersion => Some(0x84),
        ConnectReturnCode::ClientIdentifierNotValid => Some(0x85),
        ConnectReturnCode::BadUserNamePassword => Some(0x86),
        ConnectReturnCode::NotAuthorized => Some(0x87),
        ConnectReturnCode::ServerUnavailable => Some(0x88),
        ConnectReturnCode::ServerBusy => Some(0x89),
        ConnectReturnCode::Banned => Some(0x8A),
        ConnectReturnCode::QuotaExceeded => Some(0x97),
        ConnectReturnCode::ConnectionRateExceeded => Some(0x9F),
        _ => None,
    }
}
