//! rumqttc at MQTT 5, whose client is another one.

use super::rumqttc::{PATIENCE, transport};
use super::site::Site;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWill, LastWillProperties, Packet, Publish, PublishProperties,
};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn rumqttc_5_over_tcp() {
    let site = Site::start();
    Check {
        port: site.broker.port(),
        transport: &|_| (),
    }
    .all();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn rumqttc_5_over_mutual_tls() {
    let site = Site::start();
    Check {
        port: site.tls_port,
        transport: &|options| {
            options.set_transport(transport(&site));
        },
    }
    .all();
}

struct Check<'a> {
    port: u16,
    transport: &'a dyn Fn(&mut MqttOptions),
}

impl Check<'_> {
    fn all(&self) {
        self.live();
        self.retained();
        self.will_wildcard_and_unsubscribe();
        self.resume();
    }

    fn connect(&self, client_id: &str) -> (Client, Connection) {
        self.connect_with(client_id, |_| ())
    }

    fn connect_with(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut MqttOptions),
    ) -> (Client, Connection) {
        let mut options = MqttOptions::new(client_id, "localhost", self.port);
        (self.transport)(&mut options);
        change(&mut options);
        Client::new(options, 100)
    }

    fn live(&self) {
        let (_subscriber, mut connection) = self.subscribed("five-subscriber", "live/#");
        let (publisher, mut publishing) = self.connect("five-publisher");
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publisher
                .publish_with_properties("live/t", qos, false, "payload", properties())
                .unwrap();
        }
        until(&mut publishing, |packet| {
            matches!(packet, Packet::PubComp(_))
        });
        for publish in publishes(&mut connection, 3) {
            assert_eq!(publish.properties, Some(properties()));
            assert_eq!(&*publish.payload, b"payload");
        }
    }

    fn retained(&self) {
        let (publisher, mut publishing) = self.connect("five-publisher");
        publisher
            .publish_with_properties("kept", QoS::AtLeastOnce, true, "payload", properties())
            .unwrap();
        until(&mut publishing, |packet| {
            matches!(packet, Packet::PubAck(_))
        });
        let (late, mut connection) = self.connect("five-late");
        late.subscribe("kept", QoS::ExactlyOnce).unwrap();
        for publish in publishes(&mut connection, 1) {
            assert!(publish.retain);
            assert_eq!(publish.properties, Some(properties()));
            assert_eq!(&*publish.payload, b"payload");
        }
    }

    fn will_wildcard_and_unsubscribe(&self) {
        let (watcher, mut watching) = self.subscribed("five-watcher", "filters/+/c");
        watcher.subscribe("filters/off", QoS::ExactlyOnce).unwrap();
        watcher.unsubscribe("filters/off").unwrap();
        until(&mut watching, |packet| {
            matches!(packet, Packet::UnsubAck(_))
        });
        let will_properties = LastWillProperties {
            delay_interval: None,
            payload_format_indicator: Some(1),
            message_expiry_interval: None,
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers/7".to_owned()),
            correlation_data: Some("question-7".into()),
            user_properties: properties().user_properties,
        };
        let will = LastWill::new(
            "filters/will/c",
            "gone",
            QoS::AtLeastOnce,
            false,
            Some(will_properties),
        );
        let (_victim, mut connection) = self.connect_with("five-victim", |options| {
            options.set_last_will(will);
        });
        until(&mut connection, |packet| {
            matches!(packet, Packet::ConnAck(_))
        });
        drop(connection); // without DISCONNECT
        for publish in publishes(&mut watching, 1) {
            assert_eq!(&*publish.topic, b"filters/will/c");
            assert_eq!(&*publish.payload, b"gone");
            assert_eq!(publish.properties, Some(properties()));
        }
        let (publisher, mut publishing) = self.connect("five-publisher");
        for topic in ["filters/off", "filters/a/b", "filters/a/c", "filters/z/c"] {
            publisher
                .publish(topic, QoS::ExactlyOnce, false, topic)
                .unwrap();
        }
        until_acknowledged(&mut publishing, 4);
        let received = publishes(&mut watching, 2);
        for (publish, topic) in received.iter().zip(["filters/a/c", "filters/z/c"]) {
            assert_eq!(&*publish.topic, topic.as_bytes());
            assert_eq!(&*publish.payload, topic.as_bytes());
        }
    }

    fn resume(&self) {
        let durable = || {
            self.connect_with("five-durable", |options| {
                options.set_clean_start(false);
                let mut wish = ConnectProperties::new();
                wish.session_expiry_interval = Some(3600);
                options.set_connect_properties(wish);
            })
        };
        let (subscriber, mut connection) = durable();
        subscriber.subscribe("queue/t", QoS::ExactlyOnce).unwrap();
        until(&mut connection, |packet| {
            matches!(packet, Packet::SubAck(_))
        });
        drop((subscriber, connection)); // without DISCONNECT
        let (publisher, mut publishing) = self.connect("five-publisher");
        let qualities = [QoS::AtLeastOnce, QoS::ExactlyOnce];
        for number in 0..20_u8 {
            let qos = qualities[usize::from(number % 2)];
            publisher
                .publish_with_properties("queue/t", qos, false, vec![number], properties())
                .unwrap();
        }
        until_acknowledged(&mut publishing, 20);
        let (_subscriber, mut connection) = durable();
        let mut was_present = false;
        until(&mut connection, |packet| {
            if let Packet::ConnAck(ack) = packet {
                was_present = ack.session_present;
            }
            matches!(packet, Packet::ConnAck(_))
        });
        assert!(was_present);
        let received = publishes(&mut connection, 20);
        for (parity, qos) in (0..).zip(qualities) {
            let numbers = received
                .iter()
                .filter(|publish| publish.qos == qos)
                .map(|publish| publish.payload[0]);
            assert!(numbers.eq((0..20).filter(|number| number % 2 == parity)));
        }
        for publish in received {
            assert_eq!(publish.properties, Some(properties()));
        }
    }

    fn subscribed(&self, client_id: &str, filter: &str) -> (Client, Connection) {
        let (subscriber, mut connection) = self.connect(client_id);
        subscriber.subscribe(filter, QoS::ExactlyOnce).unwrap();
        until(&mut connection, |packet| {
            matches!(packet, Packet::SubAck(_))
        });
        (subscriber, connection)
    }
}

fn properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("answers/7".to_owned()),
        correlation_data: Some("question-7".into()),
        user_properties: vec![
            ("unit".to_owned(), "kWh".to_owned()),
            ("unit".to_owned(), "again".to_owned()),
        ],
        ..PublishProperties::default()
    }
}

fn until(connection: &mut Connection, mut is_done: impl FnMut(&Packet) -> bool) {
    loop {
        let event = connection.recv_timeout(PATIENCE).expect("an event in time");
        if let Event::Incoming(packet) = event.expect("a connection")
            && is_done(&packet)
        {
            return;
        }
    }
}

fn until_acknowledged(connection: &mut Connection, count: usize) {
    let mut acknowledged = 0;
    until(connection, |packet| {
        acknowledged += usize::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
        acknowledged == count
    });
}

fn publishes(connection: &mut Connection, count: usize) -> Vec<Publish> {
    let mut received = Vec::new();
    until(connection, |packet| {
        if let Packet::Publish(publish) = packet {
            received.push(publish.clone());
        }
        received.len() == count
    });
    received
}
