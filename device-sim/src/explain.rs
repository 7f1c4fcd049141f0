//! What a schedule of readings costs on a link: bytes and seconds of each step, bytes per device and month.
//!
//! Packets are made with `mqttbytes` and cross a [`Link`] without losses, jitter and sleep. The TLS handshakes are
//! those of our broker with certificates of `motemq-certs`, measured flight by flight
//! (`tests/tests/handshake_bytes.rs` holds the sums): mutual TLS, X25519, P-256, certificates issued by the
//! authority itself, one ticket. A certificate's length varies with the names in it, by some bytes.
//!
//! Not counted, as in the link: pure TCP acknowledgements.

use crate::link::{Direction, Link, Preset};
use crate::wire::WireError;
use Direction::{Down, Up};
use bytes::BytesMut;
use mqttbytes::{Error, Protocol, QoS, v4, v5};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// Days that a month has here.
const MONTH_DAYS: u32 = 30;
/// CONNACK of our broker with its default configuration, MQTT 5: what it allows, as properties.
const CONNACK_5_BYTES: usize = 16;
const CONNACK_4_BYTES: usize = 4;
/// PUBACK, PUBREC, PUBREL and PUBCOMP without a reason.
const ACK_BYTES: usize = 4;
const PING_BYTES: usize = 2;
const DISCONNECT_BYTES: usize = 2;

/// What protects the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Security {
    /// Nothing.
    #[serde(rename = "none")]
    None,
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Handshake {
    /// With certificates.
    Full,
    /// With what is left of an earlier one.
    Resumed,
}

/// What is to be explained.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// Time between two readings.
    pub every_s: f64,
    /// Bytes of a reading.
    pub payload_bytes: usize,
    /// TLS or not.
    pub tls: Security,
    /// MQTT's keep alive.
    pub keep_alive_s: u16,
    /// Whether it is MQTT 5; else 3.1.1.
    pub is_mqtt_5: bool,
    /// Where readings go.
    pub topic: String,
    /// Who sends them.
    pub client_id: String,
}

/// One step, and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What is sent.
    pub name: String,
    /// Bytes of TLS and MQTT that the device sends.
    pub up_bytes: usize,
    /// Bytes of TLS and MQTT that it receives.
    pub down_bytes: usize,
    /// The same on the link.
    pub up_wire_bytes: u64,
    /// The same on the link.
    pub down_wire_bytes: u64,
    /// From the first byte to the last, the radio being awake and nothing lost.
    pub seconds: f64,
}

/// Bytes on the link in a month.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Month {
    /// How the device connects; `None` stays connected, with one full handshake.
    pub reconnects: Option<Handshake>,
    /// QoS of the readings.
    pub qos: u8,
    /// Whether the topic goes as an alias after the first time.
    pub has_alias: bool,
    /// Up and down together.
    pub wire_bytes: u64,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The link's name.
    pub link: String,
    /// What was asked.
    pub question: Question,
    /// What each step costs.
    pub steps: Vec<Step>,
    /// Readings in 30 days.
    pub readings: u32,
    /// What they cost.
    pub months: Vec<Month>,
}

/// Bytes that go one way at once; zero are a bare header.
type Flight = (Direction, usize);

/// TCP's handshake.
const SYN: [Flight; 2] = [(Up, 0), (Down, 0)];
const FIN: [Flight; 2] = [(Up, 0), (Down, 0)];

impl Security {
    /// What a record adds to a packet.
    fn record_bytes(self) -> usize {
        match self {
            Self::None => 0,
            // Header, nonce, tag; header, type, tag.
            Self::Tls12 => 5 + 8 + 16,
            Self::Tls13 => 5 + 1 + 16,
        }
    }

    /// The flights of a handshake; the last one may have CONNECT with it if it goes up.
    fn flights(self, handshake: Handshake) -> &'static [Flight] {
        match (self, handshake) {
            (Self::None, _) => &[],
            (Self::Tls13, Handshake::Full) => &[(Up, 241), (Down, 748), (Up, 538)],
            (Self::Tls13, Handshake::Resumed) => &[(Up, 336), (Down, 219), (Up, 80)],
            (Self::Tls12, Handshake::Full) => &[(Up, 167), (Down, 654), (Up, 557), (Down, 51)],
            (Self::Tls12, Handshake::Resumed) => &[(Up, 199), (Down, 141), (Up, 51)],
        }
    }

    /// The ticket, which comes before the first answer.
    fn ticket_bytes(self) -> Option<usize> {
        (self == Self::Tls13).then_some(103)
    }

    /// An alert that says good-bye.
    fn close_bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Tls12 | Self::Tls13 => self.record_bytes() + 2,
        }
    }
}

/// Explains.
///
/// # Errors
/// A packet cannot be encoded: topic or client id are too long.
pub fn explain(link: &Preset, question: Question) -> Result<Explanation, WireError> {
    let explainer = Explainer {
        preset: Arc::new(Preset {
            wake_up: None,
            nat_timeout: None,
            duty_cycle: None,
            ..link.without_chance()
        }),
        question: &question,
    };
    let steps = explainer.steps()?;
    let readings = (f64::from(MONTH_DAYS) * DAY.as_secs_f64() / question.every_s) as u32;
    let months = explainer.months(readings)?;
    Ok(Explanation {
        link: link.name.to_string(),
        steps,
        readings,
        months,
        question,
    })
}

struct Explainer<'a> {
    preset: Arc<Preset>,
    question: &'a Question,
}

impl Explainer<'_> {
    fn steps(&self) -> Result<Vec<Step>, WireError> {
        let mut steps = Vec::new();
        if !self.preset.has_gateway {
            steps.push(self.step("TCP connect", &SYN));
            for (name, handshake) in [("full", Handshake::Full), ("resumed", Handshake::Resumed)] {
                let mut flights = self.question.tls.flights(handshake).to_vec();
                flights.extend(self.question.tls.ticket_bytes().map(|bytes| (Down, bytes)));
                if !flights.is_empty() {
                    steps.push(self.step(&format!("TLS handshake, {name}"), &flights));
                }
            }
            let connect = [(Up, self.connect_bytes()?), (Down, self.connack_bytes())];
            steps.push(self.step("CONNECT, CONNACK", &connect));
            if self.question.tls != Security::None {
                let full = self.connecting(Handshake::Full)?;
                steps.push(self.step("all of this with a full TLS", &full));
                let resumed = self.connecting(Handshake::Resumed)?;
                steps.push(self.step("all of this with a resumed TLS", &resumed));
            }
        }
        let names = [
            "PUBLISH QoS 0",
            "PUBLISH QoS 1, PUBACK",
            "PUBLISH QoS 2 and three answers",
        ];
        for (qos, name) in (0..).zip(names) {
            steps.push(self.step(name, &self.publish(qos, Topic::Written)?));
        }
        if self.question.is_mqtt_5 {
            let flights = self.publish(1, Topic::Known)?;
            steps.push(self.step("PUBLISH QoS 1 by topic alias", &flights));
        }
        steps.push(self.step("PINGREQ, PINGRESP", &self.ping()));
        if !self.preset.has_gateway {
            steps.push(self.step("DISCONNECT, close", &self.farewell()));
        }
        Ok(steps)
    }

    fn months(&self, readings: u32) -> Result<Vec<Month>, WireError> {
        let mut months = Vec::new();
        let handshakes: &[_] = match self.question.tls {
            _ if self.preset.has_gateway => &[None],
            Security::None => &[None, Some(Handshake::Full)],
            _ => &[None, Some(Handshake::Resumed), Some(Handshake::Full)],
        };
        let columns = [(0, false), (1, false), (2, false), (1, true)];
        for reconnects in handshakes {
            for (qos, has_alias) in columns {
                if has_alias && !self.question.is_mqtt_5 {
                    continue;
                }
                let wire_bytes = match reconnects {
                    None => self.stay(readings, qos, has_alias)?,
                    Some(handshake) => self.reconnect(*handshake, readings, qos, has_alias)?,
                };
                months.push(Month {
                    reconnects: *reconnects,
                    qos,
                    has_alias,
                    wire_bytes,
                });
            }
        }
        Ok(months)
    }

    /// A month on one connection.
    fn stay(&self, readings: u32, qos: u8, has_alias: bool) -> Result<u64, WireError> {
        let first = match has_alias {
            true => Topic::Introduced,
            false => Topic::Written,
        };
        let later = match has_alias {
            true => Topic::Known,
            false => Topic::Written,
        };
        let publish_bytes = self.wire_bytes(&self.publish(qos, first)?)
            + u64::from(readings.saturating_sub(1)) * self.wire_bytes(&self.publish(qos, later)?);
        let ping_bytes = u64::from(readings) * self.pings() * self.wire_bytes(&self.ping());
        let connect_bytes = match self.preset.has_gateway {
            true => 0,
            false => self.wire_bytes(&self.connecting(Handshake::Full)?),
        };
        Ok(connect_bytes + publish_bytes + ping_bytes)
    }

    /// A month with a connection for each reading.
    fn reconnect(
        &self,
        handshake: Handshake,
        readings: u32,
        qos: u8,
        has_alias: bool,
    ) -> Result<u64, WireError> {
        let topic = match has_alias {
            true => Topic::Introduced,
            false => Topic::Written,
        };
        let first_bytes = self.wire_bytes(&self.connecting(Handshake::Full)?);
        let later_bytes = self.wire_bytes(&self.connecting(handshake)?);
        let rest_bytes =
            self.wire_bytes(&self.publish(qos, topic)?) + self.wire_bytes(&self.farewell());
        let later = u64::from(readings.saturating_sub(1));
        Ok(first_bytes + later * later_bytes + u64::from(readings) * rest_bytes)
    }

    /// Pings between two readings.
    fn pings(&self) -> u64 {
        let keep_alive_s = f64::from(self.question.keep_alive_s);
        if keep_alive_s == 0.0 {
            return 0;
        }
        ((self.question.every_s / keep_alive_s).ceil() as u64).saturating_sub(1)
    }

    /// From SYN to CONNACK. CONNECT goes with the end of the handshake where that is the device's.
    fn connecting(&self, handshake: Handshake) -> Result<Vec<Flight>, WireError> {
        let mut flights = SYN.to_vec();
        flights.extend_from_slice(self.question.tls.flights(handshake));
        let connect_bytes = self.connect_bytes()?;
        match flights.last_mut() {
            Some((Up, bytes)) => *bytes += connect_bytes,
            _ => flights.push((Up, connect_bytes)),
        }
        flights.extend(self.question.tls.ticket_bytes().map(|bytes| (Down, bytes)));
        flights.push((Down, self.connack_bytes()));
        Ok(flights)
    }

    fn publish(&self, qos: u8, topic: Topic) -> Result<Vec<Flight>, WireError> {
        let ack = self.sealed(ACK_BYTES);
        let mut flights = vec![(Up, self.sealed(self.publish_bytes(qos, topic)?))];
        match qos {
            0 => {}
            1 => flights.push((Down, ack)),
            _ => flights.extend([(Down, ack), (Up, ack), (Down, ack)]),
        }
        Ok(flights)
    }

    fn ping(&self) -> [Flight; 2] {
        let bytes = self.sealed(PING_BYTES);
        [(Up, bytes), (Down, bytes)]
    }

    fn farewell(&self) -> Vec<Flight> {
        let bytes = self.sealed(DISCONNECT_BYTES) + self.question.tls.close_bytes();
        let mut flights = vec![(Up, bytes)];
        flights.extend(FIN);
        flights
    }

    fn connect_bytes(&self) -> Result<usize, WireError> {
        let Question {
            client_id,
            keep_alive_s,
            ..
        } = self.question;
        if client_id.len() > usize::from(u16::MAX) {
            return Err(WireError::TooLong(client_id.len()));
        }
        let packet_bytes = match self.question.is_mqtt_5 {
            true => {
                let mut connect = v5::Connect::new(client_id);
                connect.protocol = Protocol::V5;
                connect.keep_alive = *keep_alive_s;
                encoded_bytes(|buffer| connect.write(buffer))?
            }
            false => {
                let mut connect = v4::Connect::new(client_id);
                connect.keep_alive = *keep_alive_s;
                encoded_bytes(|buffer| connect.write(buffer))?
            }
        };
        Ok(self.sealed(packet_bytes))
    }

    fn connack_bytes(&self) -> usize {
        self.sealed(match self.question.is_mqtt_5 {
            true => CONNACK_5_BYTES,
            false => CONNACK_4_BYTES,
        })
    }

    fn publish_bytes(&self, qos: u8, topic: Topic) -> Result<usize, WireError> {
        let quality = match qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let pkid = u16::from(qos > 0);
        let payload = vec![0; self.question.payload_bytes];
        let name = match topic {
            Topic::Written | Topic::Introduced => self.question.topic.as_str(),
            Topic::Known => "",
        };
        if name.len() > usize::from(u16::MAX) {
            return Err(WireError::TooLong(name.len()));
        }
        if !self.question.is_mqtt_5 {
            let mut publish = v4::Publish::new(name, quality, payload);
            publish.pkid = pkid;
            return encoded_bytes(|buffer| publish.write(buffer));
        }
        let mut publish = v5::Publish::new(name, quality, payload);
        publish.pkid = pkid;
        publish.properties = match topic {
            Topic::Written => None,
            Topic::Introduced | Topic::Known => Some(v5::PublishProperties {
                payload_format_indicator: None,
                message_expiry_interval: None,
                topic_alias: Some(1),
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
                subscription_identifiers: Vec::new(),
                content_type: None,
            }),
        };
        encoded_bytes(|buffer| publish.write(buffer))
    }

    /// A packet as TLS carries it.
    fn sealed(&self, packet_bytes: usize) -> usize {
        packet_bytes + self.question.tls.record_bytes()
    }

    fn wire_bytes(&self, flights: &[Flight]) -> u64 {
        let step = self.step("", flights);
        step.up_wire_bytes + step.down_wire_bytes
    }

    /// Sends the flights, each way as soon as the last one of the other way has arrived.
    fn step(&self, name: &str, flights: &[Flight]) -> Step {
        let mut link = Link::new(self.preset.clone(), 0, 0);
        link.set_accepted();
        let segment_bytes = self.preset.segment_bytes_max();
        let mut now = Duration::ZERO;
        let mut arrived_at = now;
        let mut last = None;
        for (direction, bytes) in flights {
            if last.is_some_and(|last| last != *direction) {
                now = arrived_at;
            }
            last = Some(*direction);
            let mut left = *bytes;
            loop {
                let payload_bytes = left.min(segment_bytes);
                arrived_at = link.carry(*direction, now, payload_bytes);
                left -= payload_bytes;
                if left == 0 {
                    break;
                }
            }
        }
        let bytes = |wanted| {
            let wanted = flights.iter().filter(|(direction, _)| *direction == wanted);
            wanted.map(|(_, bytes)| bytes).sum()
        };
        Step {
            name: name.to_owned(),
            up_bytes: bytes(Up),
            down_bytes: bytes(Down),
            up_wire_bytes: link.wire_bytes(Up),
            down_wire_bytes: link.wire_bytes(Down),
            seconds: arrived_at.as_secs_f64(),
        }
    }
}

/// How a publish says its topic.
#[derive(Clone, Copy)]
enum Topic {
    /// In full, without an alias.
    Written,
    /// In full, with the alias for later.
    Introduced,
    /// By the alias alone.
    Known,
}

fn encoded_bytes(
    write: impl FnOnce(&mut BytesMut) -> Result<usize, Error>,
) -> Result<usize, WireError> {
    let mut buffer = BytesMut::new();
    write(&mut buffer).map_err(WireError::Encode)?;
    Ok(buffer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_the_bytes_of_the_specification_and_the_seconds_of_the_link() {
        let explanation = explain(&link(), question(Security::None, false)).unwrap();
        let steps: Vec<_> = explanation
            .steps
            .iter()
            .map(|step| {
                let wire_bytes = (step.up_wire_bytes, step.down_wire_bytes);
                (
                    step.name.as_str(),
                    step.up_bytes,
                    step.down_bytes,
                    wire_bytes,
                )
            })
            .collect();
        // Fixed header 2, lengths of strings 2 each, packet id 2.
        let expected = [
            ("TCP connect", 0, 0, (40, 40)),
            ("CONNECT, CONNACK", 12 + 2 + 5, 4, (59, 44)),
            ("PUBLISH QoS 0", 2 + 2 + 3 + 60, 0, (107, 0)),
            ("PUBLISH QoS 1, PUBACK", 2 + 2 + 3 + 2 + 60, 4, (109, 44)),
            ("PUBLISH QoS 2 and three answers", 69 + 4, 8, (153, 88)),
            ("PINGREQ, PINGRESP", 2, 2, (42, 42)),
            ("DISCONNECT, close", 2, 0, (82, 40)),
        ];
        assert_eq!(steps, expected);
        // 2 Mbit/s up, 1 Mbit/s down, 100 ms.
        let seconds = |name| {
            let mut steps = explanation.steps.iter();
            steps.find(|step| step.name == name).unwrap().seconds
        };
        assert_near(seconds("PUBLISH QoS 0"), 0.05 + 107.0 * 8.0 / 2e6);
        let both = 0.1 + 109.0 * 8.0 / 2e6 + 44.0 * 8.0 / 1e6;
        assert_near(seconds("PUBLISH QoS 1, PUBACK"), both);
        let four = 0.2 + 153.0 * 8.0 / 2e6 + 88.0 * 8.0 / 1e6;
        assert_near(seconds("PUBLISH QoS 2 and three answers"), four);
    }

    #[test]
    fn records_aliases_and_mqtt_5_change_a_publish_by_what_they_add() {
        let up_bytes = |tls, is_mqtt_5, name: &str| {
            let explanation = explain(&link(), question(tls, is_mqtt_5)).unwrap();
            let mut steps = explanation.steps.iter();
            steps.find(|step| step.name == name).unwrap().up_bytes
        };
        let written = "PUBLISH QoS 1, PUBACK";
        assert_eq!(up_bytes(Security::None, false, written), 69);
        assert_eq!(up_bytes(Security::None, true, written), 70);
        assert_eq!(up_bytes(Security::Tls12, true, written), 70 + 29);
        assert_eq!(up_bytes(Security::Tls13, true, written), 70 + 22);
        // Three bytes of topic go, three of the property come.
        let alias = "PUBLISH QoS 1 by topic alias";
        assert_eq!(up_bytes(Security::None, true, alias), 70);
        let sums = [
            (Security::Tls13, "TLS handshake, full", (779, 851)),
            (Security::Tls13, "TLS handshake, resumed", (416, 322)),
            (Security::Tls12, "TLS handshake, full", (724, 705)),
            (Security::Tls12, "TLS handshake, resumed", (250, 141)),
        ];
        for (tls, name, expected) in sums {
            let explanation = explain(&link(), question(tls, true)).unwrap();
            let mut steps = explanation.steps.iter();
            let step = steps.find(|step| step.name == name).unwrap();
            assert_eq!((step.up_bytes, step.down_bytes), expected);
        }
    }

    #[test]
    fn a_month_is_the_sum_of_its_steps() {
        let explanation = explain(&link(), question(Security::Tls13, true)).unwrap();
        assert_eq!(explanation.readings, 30 * 24 * 4);
        let month = |reconnects, qos, has_alias| {
            let mut months = explanation.months.iter();
            let month = months.find(|month| {
                (month.reconnects, month.qos, month.has_alias) == (reconnects, qos, has_alias)
            });
            month.unwrap().wire_bytes
        };
        // SYN, SYN-ACK; three flights, CONNECT with the last; ticket; CONNACK.
        let rest = (103 + 40) + (16 + 22 + 40);
        let full = 80 + (241 + 40) + (748 + 40) + (538 + 20 + 22 + 40) + rest;
        let resumed = 80 + (336 + 40) + (219 + 40) + (80 + 20 + 22 + 40) + rest;
        let publish = (70 + 22 + 40) + (4 + 22 + 40);
        let farewell = 2 + 22 + 24 + 40 + 80;
        let pings = 2 * (2 + 22 + 40);
        let readings = 2_880;
        assert_eq!(month(None, 1, false), full + readings * (publish + pings));
        let reconnecting = full + (readings - 1) * resumed + readings * (publish + farewell);
        assert_eq!(month(Some(Handshake::Resumed), 1, false), reconnecting);
        let reconnecting = readings * (full + publish + farewell);
        assert_eq!(month(Some(Handshake::Full), 1, false), reconnecting);
        // The first time three bytes more; "a/b" is as long as the property.
        assert_eq!(month(None, 1, true), month(None, 1, false) + 3);
        assert_eq!(
            month(None, 0, false),
            full + readings * (68 + 22 + 40 + pings)
        );
    }

    #[test]
    fn behind_a_gateway_only_publishes_cross_the_air() {
        let lorawan = Preset::named("lorawan-dr5").unwrap();
        let explanation = explain(&lorawan, question(Security::Tls13, true)).unwrap();
        assert!(
            explanation
                .steps
                .iter()
                .all(|step| !step.name.contains("CONNECT"))
        );
        assert!(
            explanation
                .months
                .iter()
                .all(|month| month.reconnects.is_none())
        );
    }

    fn link() -> Preset {
        Preset {
            up_bits_per_s: Some(2_000_000),
            down_bits_per_s: Some(1_000_000),
            ..(*Preset::named("lte-m").unwrap()).clone()
        }
    }

    fn question(tls: Security, is_mqtt_5: bool) -> Question {
        Question {
            every_s: 900.0,
            payload_bytes: 60,
            tls,
            // A ping between two readings.
            keep_alive_s: 600,
            is_mqtt_5,
            topic: "a/b".to_owned(),
            client_id: "meter".to_owned(),
        }
    }

    fn assert_near(measured: f64, expected: f64) {
        assert!(
            (measured - expected).abs() < 1e-6,
            "{measured}, expected {expected}"
        );
    }
}
