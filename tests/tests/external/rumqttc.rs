//! rumqttc at MQTT 3.1.1.

use super::site::Site;
use rumqttc::{
    Client, Connection, Event, LastWill, MqttOptions, Packet, QoS, TlsConfiguration, Transport,
};
use std::time::Duration;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn rumqttc_over_tcp() {
    let site = Site::start();
    check_rumqttc(site.broker.port(), &|_| ());
    check_rumqttc_filters(site.broker.port(), &|_| ());
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn rumqttc_over_mutual_tls() {
    let site = Site::start();
    let secure = |options: &mut MqttOptions| {
        options.set_transport(transport(&site));
    };
    check_rumqttc(site.tls_port, &secure);
    check_rumqttc_filters(site.tls_port, &secure);
}

/// Mutual TLS.
pub(super) fn transport(site: &Site) -> Transport {
    // The error says that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let [ca, certificate, key] = site.files().map(|file| std::fs::read(file).unwrap());
    Transport::tls_with_config(TlsConfiguration::Simple {
        ca,
        alpn: None,
        client_auth: Some((certificate, key)),
    })
}

fn check_rumqttc(port: u16, transport: &dyn Fn(&mut MqttOptions)) {
    let connect = |client_id: &str| {
        let mut options = MqttOptions::new(client_id, "localhost", port);
        options.set_clean_session(false);
        transport(&mut options);
        Client::new(options, 100)
    };
    let (subscriber, mut connection) = connect("rumqttc-subscriber");
    subscriber.subscribe("rumqttc/#", QoS::ExactlyOnce).unwrap();
    until(&mut connection, |packet| {
        matches!(packet, Packet::SubAck(_))
    });
    subscriber.disconnect().unwrap();
    until_closed(&mut connection);

    let (publisher, mut publishing) = connect("rumqttc-publisher");
    let qualities = [QoS::AtLeastOnce, QoS::ExactlyOnce];
    for number in 0..20_u8 {
        let qos = qualities[usize::from(number % 2)];
        publisher
            .publish("rumqttc/t", qos, false, [number])
            .unwrap();
    }
    publisher
        .publish("rumqttc/retained", QoS::AtLeastOnce, true, *b"kept")
        .unwrap();
    let mut acknowledged = 0;
    until(&mut publishing, |packet| {
        acknowledged += usize::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
        acknowledged == 21
    });

    let (_subscriber, mut connection) = connect("rumqttc-subscriber");
    let mut numbers = Vec::new();
    let mut was_present = false;
    until(&mut connection, |packet| {
        match packet {
            Packet::ConnAck(ack) => was_present = ack.session_present,
            Packet::Publish(publish) if publish.topic == "rumqttc/t" => {
                numbers.push(publish.payload[0])
            }
            _ => {}
        }
        numbers.len() == 20
    });
    assert!(was_present);
    for parity in 0..2 {
        let of_one_qos = numbers.iter().filter(|number| *number % 2 == parity);
        assert!(of_one_qos.is_sorted(), "{numbers:?}");
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..20));

    let (late, mut connection) = connect("rumqttc-late");
    late.subscribe("rumqttc/retained", QoS::AtMostOnce).unwrap();
    until(
        &mut connection,
        |packet| matches!(packet, Packet::Publish(publish) if publish.retain && &*publish.payload == b"kept"),
    );
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

fn until_closed(connection: &mut Connection) {
    while let Ok(Ok(_)) = connection.recv_timeout(PATIENCE) {}
}

/// A will, a wildcard, and a filter given up again.
fn check_rumqttc_filters(port: u16, transport: &dyn Fn(&mut MqttOptions)) {
    let connect = |client_id: &str, will: Option<LastWill>| {
        let mut options = MqttOptions::new(client_id, "localhost", port);
        if let Some(will) = will {
            options.set_last_will(will);
        }
        transport(&mut options);
        Client::new(options, 100)
    };
    let (watcher, mut watching) = connect("rumqttc-watcher", None);
    watcher.subscribe("filters/+/c", QoS::ExactlyOnce).unwrap();
    watcher.subscribe("filters/off", QoS::ExactlyOnce).unwrap();
    watcher.unsubscribe("filters/off").unwrap();
    until(&mut watching, |packet| {
        matches!(packet, Packet::UnsubAck(_))
    });

    let will = LastWill::new("filters/will/c", "gone", QoS::AtLeastOnce, false);
    let (_victim, mut connection) = connect("rumqttc-victim", Some(will));
    until(&mut connection, |packet| {
        matches!(packet, Packet::ConnAck(_))
    });
    drop(connection); // without DISCONNECT
    let mut received = Vec::new();
    let mut next = |count: usize| {
        until(&mut watching, |packet| {
            if let Packet::Publish(publish) = packet {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                received.push((publish.topic.clone(), payload));
            }
            received.len() == count
        });
        received.clone()
    };
    next(1);
    let (publisher, mut publishing) = connect("rumqttc-filters", None);
    for topic in ["filters/off", "filters/a/b", "filters/a/c", "filters/z/c"] {
        publisher
            .publish(topic, QoS::ExactlyOnce, false, topic)
            .unwrap();
    }
    let mut acknowledged = 0;
    until(&mut publishing, |packet| {
        acknowledged += usize::from(matches!(packet, Packet::PubComp(_)));
        acknowledged == 4
    });
    let expected = [
        ("filters/will/c", "gone"),
        ("filters/a/c", "filters/a/c"),
        ("filters/z/c", "filters/z/c"),
    ];
    let expected = expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned()));
    assert_eq!(next(3), expected);
}

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
