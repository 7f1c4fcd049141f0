//! A7, A8, A9: topics that are deep, filters that are crooked, and names that belong to the broker.

use crate::framing::assert_grown_below;
use crate::site::Site;
use motemq_codec::{Packet, ProtocolVersion, QoS, ReasonCode, Unsubscribe, UnsubscribeFilters};
use motemq_codec::{UserProperties, Will};
use motemq_tests::peer::{Got, Hello, options, packet_id, publish, subscribe};
use motemq_tests::socket::Client;

const TOPIC_FILTER_INVALID: u8 = ReasonCode::TopicFilterInvalid as u8;

#[test]
fn a7_topics_deeper_than_the_limit_are_refused_wherever_they_stand() {
    let site = Site::start();
    let slashes = "/".repeat(65_535);
    let deep = "a/".repeat(128) + "a";
    for topic in [slashes.as_str(), &deep] {
        let mut client = Client::connect(site.port(), &Hello::clean("deep"));
        for (qos, answer) in [(1, "PUBACK"), (2, "PUBREC")] {
            for retain in [false, true] {
                let Packet::Publish(mut packet) = publish(topic, "x", qos, 9) else {
                    continue;
                };
                packet.retain = retain;
                client.send(&Packet::Publish(packet));
                let expected = Got::Ack(answer, 9, ReasonCode::TopicNameInvalid);
                assert_eq!(client.take(), Some(expected));
            }
        }
        client.publish(topic, "x", 0, 0);
        assert_eq!(client.subscribe(topic, 1), TOPIC_FILTER_INVALID);
        for filter in [
            topic.replace('a', "+"),
            format!("{}/#", &topic[..65_000.min(topic.len())]),
            format!("$share/g/{}", &topic[..65_000.min(topic.len())]),
        ] {
            assert_eq!(client.subscribe(&filter, 1), TOPIC_FILTER_INVALID);
        }
        assert_eq!(client.ping(), Some(Vec::new()));
        assert_eq!(
            refused_will(&site, ProtocolVersion::V5, topic),
            Some(ReasonCode::TopicNameInvalid)
        );
        // 3.1.1 cannot say it of a publish, so the connection ends.
        let mut client = Client::connect(site.port(), &Hello::v3("deep", true));
        assert_eq!(client.subscribe(topic, 1), 0x80);
        client.publish(topic, "x", 1, 9);
        assert_eq!(client.take(), None);
    }
    // At the limit it works.
    let deepest = "a/".repeat(127) + "a";
    let mut client = Client::connect(site.port(), &Hello::clean("deep"));
    assert_eq!(client.subscribe(&deepest.replace('a', "+"), 0), 0);
    client.publish(&deepest, "there", 0, 0);
    assert_eq!(client.take_publish().payload, "there");
    site.finish();
}

#[test]
fn a7_many_deep_filters_are_limited_and_the_same_again_costs_no_more() {
    let site = Site::start_with("subscription_bytes_max = \"4MiB\"");
    let before = site.memory();
    subscribe_deep(&site);
    let first = site.memory();
    // The table keeps its places for later filters; a second flood finds them.
    subscribe_deep(&site);
    println!("memory: {before} before");
    assert_grown_below(&site, first, 20 << 20);
    site.finish();
}

/// One client subscribes to as many filters of 61 levels as it may, then leaves.
fn subscribe_deep(site: &Site) {
    let mut client = Client::connect(site.port(), &Hello::clean("deep"));
    // 10,000 are allowed (limits.subscriptions_max); one more is not.
    for batch in 0..101 {
        let filters: Vec<_> = (0..100)
            .map(|index| format!("{batch}/{index}{}", "/+/x".repeat(30)))
            .collect();
        let filters: Vec<_> = filters
            .iter()
            .map(|filter| (filter.as_str(), options(0)))
            .collect();
        client.send(&subscribe(1, &filters, None));
        let expected = if batch < 100 {
            0
        } else {
            ReasonCode::QuotaExceeded as u8
        };
        assert_eq!(client.take(), Some(Got::SubAck(1, vec![expected; 100])));
    }
    assert_eq!(site.metric("mqtt_broker_subscriptions"), 10_001.0);
    drop(client);
    site.await_metric("mqtt_broker_subscriptions", |count| count == 1.0);
}

#[test]
fn a8_crooked_shared_filters_are_refused_and_later_publishes_pass() {
    let site = Site::start();
    let mut client = Client::connect(site.port(), &Hello::clean("crooked"));
    let crooked = [
        "$share/",
        "$share/ab",
        "$share/ab/",
        "$share//x",
        "$share/+/x",
        "$share/#/x",
        "$share/a+/x",
        "$share/a#/x",
        "$share/g/a#",
        "$share/g/+a",
        "a#",
        "#/a",
        "a+/b",
    ];
    for filter in crooked {
        assert_eq!(
            client.subscribe(filter, 1),
            TOPIC_FILTER_INVALID,
            "{filter}"
        );
        client.publish("ab", "x", 0, 0);
        client.publish("x", "x", 0, 0);
        assert_eq!(client.ping(), Some(Vec::new()), "{filter}");
    }
    assert_eq!(
        client.subscribe("$share", 1),
        ReasonCode::NotAuthorized as u8
    );
    // No Local and a share group do not go together [MQTT5-3.8.3-4].
    let mut no_local = Client::connect(site.port(), &Hello::clean("no-local"));
    no_local.send_bytes(b"\x82\x0f\x00\x01\x00\x00\x09$share/g/\x05");
    assert!(matches!(no_local.take(), Some(Got::Disconnect(_))));
    // Shared and not shared are two subscriptions: each goes by itself, in any order.
    for (first, second) in [("$share/g/mix", "mix"), ("mix", "$share/g/mix")] {
        for filter in [first, second] {
            assert_eq!(client.subscribe(filter, 0), 0);
        }
        assert_eq!(
            unsubscribe(&mut client, &["$share/h/mix", "$share/g/mi"]),
            [0x11, 0x11]
        );
        client.publish("mix", "twice", 0, 0);
        assert_eq!(client.ping().map(|got| got.len()), Some(2));
        assert_eq!(unsubscribe(&mut client, &[first]), [0]);
        client.publish("mix", "once", 0, 0);
        assert_eq!(client.ping().map(|got| got.len()), Some(1));
        assert_eq!(unsubscribe(&mut client, &[second, second]), [0, 0x11]);
        client.publish("mix", "never", 0, 0);
        assert_eq!(client.ping().map(|got| got.len()), Some(0));
    }
    site.finish();
}

fn unsubscribe(client: &mut Client, filters: &[&str]) -> Vec<u8> {
    client.send(&Packet::Unsubscribe(Unsubscribe {
        packet_id: packet_id(3),
        user_properties: UserProperties::default(),
        filters: UnsubscribeFilters::from_list(filters),
    }));
    match client.take() {
        Some(Got::UnsubAck(3, codes)) => codes,
        other => panic!("{other:?} for UNSUBSCRIBE {filters:?}"),
    }
}

#[test]
fn a9_topics_that_start_with_a_dollar_are_not_the_clients() {
    let site = Site::start();
    // [MQTT5-4.7.2-1]
    let mut listener = Client::connect(site.port(), &Hello::clean("listener"));
    for filter in ["#", "+/x", "+/broker/#", "+"] {
        assert_eq!(listener.subscribe(filter, 0), 0);
    }
    let topics = [
        "$foo",
        "$foo/x",
        "$SYS/broker/x",
        "$CONTROL/x",
        "$share/g/x",
        "$",
        "$/x",
    ];
    for topic in topics {
        let mut client = Client::connect(site.port(), &Hello::clean("dollar"));
        for retain in [false, true] {
            let Packet::Publish(mut packet) = publish(topic, "forged", 1, 9) else {
                continue;
            };
            packet.retain = retain;
            client.send(&Packet::Publish(packet));
            let expected = Got::Ack("PUBACK", 9, ReasonCode::NotAuthorized);
            assert_eq!(client.take(), Some(expected), "{topic}");
        }
        client.publish(topic, "forged", 0, 0);
        client.publish(topic, "forged", 2, 9);
        let expected = Got::Ack("PUBREC", 9, ReasonCode::NotAuthorized);
        assert_eq!(client.take(), Some(expected), "{topic}");
        assert_eq!(
            refused_will(&site, ProtocolVersion::V5, topic),
            Some(ReasonCode::NotAuthorized)
        );
        assert!(refused_will(&site, ProtocolVersion::V3_1_1, topic).is_some());
        let mut old = Client::connect(site.port(), &Hello::v3("dollar", true));
        old.publish(topic, "forged", 1, 9);
        assert_eq!(old.take(), None, "{topic}");
        // Nobody sees it, not even who asks for exactly this.
        let mut client = Client::connect(site.port(), &Hello::clean("dollar"));
        client.subscribe(topic, 0);
        assert_eq!(client.ping(), Some(Vec::new()), "{topic}");
    }
    assert_eq!(site.metric("mqtt_broker_retained_messages"), 0.0);
    let got = listener.ping().expect("the listener stays");
    let forged = |got: &Got| matches!(got, Got::Publish(publish) if publish.payload == "forged");
    assert!(!got.iter().any(forged), "{got:?}");
    site.finish();
}

/// Connects with a will to `topic`; the code it is refused with.
fn refused_will(site: &Site, version: ProtocolVersion, topic: &str) -> Option<ReasonCode> {
    let hello = Hello {
        version,
        will: Some(Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic,
            payload: b"forged",
            delay_s: 0,
            message_expiry_s: None,
            forwarded: motemq_codec::Forwarded::from_block(&[]),
        }),
        ..Hello::clean("testator")
    };
    let mut client = Client::open(site.port(), version);
    client.send_bytes(&hello.bytes());
    let got = client.take_all();
    match got.as_slice() {
        [Got::ConnAck(false, code)] if code.is_error() => Some(*code),
        [] => None,
        other => panic!("{other:?} for a will to {topic}"),
    }
}
