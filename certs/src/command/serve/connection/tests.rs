//! The order of packets, against a broker that does what a script says.

use super::super::Arguments;
use super::super::identity::Identity;
use super::*;
use bytes::BytesMut;
use clap::Parser;
use motemq_certs::{Allowed, Authority, Desk, Settings, Validity};
use rumqttc::v5::mqttbytes::Error;
use rumqttc::v5::mqttbytes::v5::ConnAck;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::TempDir;

/// Else a crash between the two loses the request, or its answer.
#[test]
fn a_request_is_acknowledged_after_its_answer_was() {
    let end = against(|broker| {
        broker.send(&request(7, QoS::AtLeastOnce));
        broker.send(&request(8, QoS::AtLeastOnce));
        let first = broker.answer();
        let second = broker.answer();
        broker.send(&acknowledged(second.pkid));
        assert_eq!(broker.acknowledgement(), 8);
        broker.send(&acknowledged(first.pkid));
        assert_eq!(broker.acknowledgement(), 7);
    });
    assert!(matches!(end, End::Lost { worked: true, .. }));
}

#[test]
fn an_answer_that_finds_nobody_ends_the_request_too() {
    against(|broker| {
        broker.send(&request(7, QoS::AtLeastOnce));
        let Packet::PubAck(mut ack) = acknowledged(broker.answer().pkid) else {
            panic!("another packet");
        };
        ack.reason = PubAckReason::NoMatchingSubscribers;
        broker.send(&Packet::PubAck(ack));
        assert_eq!(broker.acknowledgement(), 7);
    });
}

/// Else the broker closes the connection, and sends the request again on the next one, for ever.
#[test]
fn a_request_whose_answer_would_be_too_large_is_dropped() {
    against(|broker| {
        let long = "z".repeat(60_000);
        for spoil in [
            |properties: &mut PublishProperties, long: &str| {
                properties.correlation_data = Some(long.to_owned().into());
            },
            |properties: &mut PublishProperties, long: &str| {
                properties.response_topic = Some(format!("$certs/issued/{long}"));
            },
            |properties: &mut PublishProperties, long: &str| {
                properties.user_properties[0].1 = long.to_owned();
            },
        ] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let Packet::Publish(mut spoilt) = request(7, qos) else {
                    panic!("another packet");
                };
                spoil(spoilt.properties.as_mut().unwrap(), &long);
                broker.send(&Packet::Publish(spoilt));
            }
            assert!(matches!(broker.next(), Some(Packet::PubAck(ack)) if ack.pkid == 7));
        }
        broker.send(&request(8, QoS::AtLeastOnce));
        assert!(broker.answer().payload.len() < 1_024);
    });
}

#[test]
fn an_answer_says_whom_it_is_for_and_has_the_qos_of_the_request() {
    against(|broker| {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            broker.send(&request(7, qos));
            let answer = broker.answer();
            assert_eq!((&*answer.topic, answer.qos), (&b"$certs/response"[..], qos));
            let properties = answer.properties.unwrap();
            assert_eq!(
                properties.response_topic.as_deref(),
                Some("$certs/issued/7")
            );
            assert_eq!(properties.correlation_data.as_deref(), Some(&b"\0\xff"[..]));
            let expected = [
                ("client-id", "meter-1"),
                ("session", "42"),
                ("status", "refused"),
                ("reason", "bad-request"),
            ];
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(properties.user_properties, expected);
        }
    });
}

/// Requests at QoS 0 are limited by nothing in the protocol.
#[test]
fn a_flood_at_qos_0_does_not_end_the_connection() {
    against(|broker| {
        for _ in 0..5_000 {
            broker.send(&request(0, QoS::AtMostOnce));
        }
        broker.send(&request(7, QoS::AtLeastOnce));
        let answer = std::iter::repeat_with(|| broker.answer())
            .find(|answer| answer.qos == QoS::AtLeastOnce)
            .unwrap();
        broker.send(&acknowledged(answer.pkid));
        assert_eq!(broker.acknowledgement(), 7);
    });
}

#[test]
fn a_broker_that_lets_nobody_answer_says_what_to_change() {
    let end = with_broker(|stream| {
        let mut broker = ScriptedBroker::accept(stream);
        broker.subscribed(SubscribeReasonCode::NotAuthorized);
        // Until the service has gone.
        assert_eq!(broker.next(), None);
    });
    let End::Lost { why, worked: false } = end else {
        panic!("another end");
    };
    assert!(why.contains("signer"), "{why}");
}

/// The attacker who takes the service's client id must not pass for a wrong configuration.
#[test]
fn a_broker_that_refuses_the_login_has_the_likely_causes_named() {
    for (code, causes) in [
        (
            ConnectReturnCode::NotAuthorized,
            &["holds the client id", "client_ca", "allow_list", "password"][..],
        ),
        (ConnectReturnCode::ClientIdentifierNotValid, &["--user"]),
        (ConnectReturnCode::Banned, &["motemq ban"]),
    ] {
        let why = describe(&ConnectionError::ConnectionRefused(code), "enrolment");
        for cause in causes {
            assert!(why.contains(cause), "{why}");
        }
    }
}

/// Connects a service to a broker that accepts it and then follows the script.
fn against(script: impl FnOnce(&mut ScriptedBroker) + Send + 'static) -> End {
    with_broker(|stream| {
        let mut broker = ScriptedBroker::accept(stream);
        broker.subscribed(SubscribeReasonCode::Success(QoS::AtLeastOnce));
        script(&mut broker);
    })
}

fn with_broker(script: impl FnOnce(TcpStream) + Send + 'static) -> End {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = thread::spawn(move || script(listener.accept().unwrap().0));
    let directory = tempfile::tempdir().unwrap();
    let (desk, arguments) = site(&directory, port);
    let mut identity = Identity::new(&arguments, lock(&desk).authority()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let end = runtime.block_on(async {
        let options = identity.options(arguments.broker.as_ref().unwrap(), lock(&desk).authority());
        let mut signals = Signals::new().unwrap();
        run(&desk, options.unwrap(), None, &mut signals).await
    });
    broker.join().expect("the script was followed");
    end
}

fn site(directory: &TempDir, port: u16) -> (SharedDesk, Arguments) {
    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }
    let broker = format!("mqtt://127.0.0.1:{port}");
    let Line { arguments } = Line::parse_from(["serve", "--broker", &broker]);
    let authority = Authority::create(directory.path(), "test").unwrap();
    let desk = Desk::open(authority, settings(directory.path())).unwrap();
    (Arc::new(Mutex::new(desk)), arguments)
}

fn settings(dir: &Path) -> Settings {
    Settings {
        own_names: vec!["enrolment".to_owned()],
        key_types: vec!["p256".to_owned()],
        certificates_per_id: 16,
        rate_per_s: 1,
        per_id_interval_s: 0,
        allowed: Allowed::Nothing,
        validity: Validity::Days(30),
        audit: dir.join("audit.jsonl"),
    }
}

/// One that is refused: what is in it does not matter here.
fn request(packet_id: u16, qos: QoS) -> Packet {
    let said = [
        ("client-id", "meter-1"),
        ("session", "42"),
        ("login", "none"),
        ("user", "x"),
    ];
    let properties = PublishProperties {
        response_topic: Some("$certs/issued/7".to_owned()),
        correlation_data: Some(vec![0, 0xff].into()),
        user_properties: said
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..PublishProperties::default()
    };
    let mut publish = Publish::new("$certs/request", qos, "", Some(properties));
    publish.pkid = packet_id;
    Packet::Publish(publish)
}

fn acknowledged(packet_id: u16) -> Packet {
    Packet::PubAck(PubAck::new(packet_id, None))
}

struct ScriptedBroker {
    stream: TcpStream,
    read: BytesMut,
}

impl ScriptedBroker {
    /// Lets the service in.
    fn accept(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = BytesMut::new();
        let mut this = Self { stream, read };
        let Some(Packet::Connect(connect, _, _)) = this.next() else {
            panic!("no CONNECT");
        };
        assert!(!connect.clean_start);
        let properties = connect.properties.unwrap();
        assert_eq!(properties.session_expiry_interval, Some(24 * 60 * 60));
        assert_eq!(properties.receive_maximum, Some(16));
        this.send(&Packet::ConnAck(ConnAck {
            session_present: true,
            code: ConnectReturnCode::Success,
            properties: None,
        }));
        this
    }

    fn subscribed(&mut self, reason: SubscribeReasonCode) {
        let Some(Packet::Subscribe(subscribe)) = self.next() else {
            panic!("no SUBSCRIBE");
        };
        assert_eq!(subscribe.filters[0].path, "$certs/request");
        self.send(&Packet::SubAck(SubAck {
            pkid: subscribe.pkid,
            return_codes: vec![reason],
            properties: None,
        }));
    }

    fn answer(&mut self) -> Publish {
        match self.next() {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("no answer but {other:?}"),
        }
    }

    fn acknowledgement(&mut self) -> u16 {
        // What was answered at QoS 0 may still be on its way.
        loop {
            match self.next() {
                Some(Packet::PubAck(ack)) => return ack.pkid,
                Some(Packet::Publish(publish)) if publish.qos == QoS::AtMostOnce => {}
                other => panic!("no acknowledgement but {other:?}"),
            }
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next packet; `None` when the service has closed.
    fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.read, None) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {
                    let mut bytes = [0; 4096];
                    match self.stream.read(&mut bytes).unwrap() {
                        0 => return None,
                        length => self.read.extend_from_slice(&bytes[..length]),
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
