//! PUBLISH to a client: which, how often, under which id, until when.

use super::{OK, V5, clean_hellos, durable_hellos};
use motemq_codec::AckKind;
use motemq_core::Limits;
use motemq_tests::peer::{Bench, Got, Hello};

/// [MQTT5-3.3.2-3] [MQTT3-3.3.2-3]: what arrives has the topic it was published to, and only where the filter matches.
#[test]
fn a_client_gets_what_its_filters_match_and_nothing_else() {
    let topics = ["a", "a/b", "a/b/c", "b", "a/x/c", "/a", "a/"];
    for hello in clean_hellos("a") {
        for (filter, expected) in [
            ("a", &["a"][..]),
            ("a/+", &["a/b", "a/"]),
            ("a/#", &["a", "a/b", "a/b/c", "a/x/c", "a/"]),
            ("a/+/c", &["a/b/c", "a/x/c"]),
            ("+/a", &["/a"]),
            ("c", &[]),
        ] {
            let mut bench = Bench::default();
            let peer = bench.connect(&hello);
            bench.subscribe(peer, filter, 0);
            let publisher = bench.connect(&Hello::clean("p"));
            for topic in topics {
                bench.publish(publisher, topic, topic, 0, 0);
            }
            let got: Vec<_> = std::iter::from_fn(|| bench.take(peer))
                .map(|got| match got {
                    Got::Publish(publish) => (publish.topic, publish.payload),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|topic| ((*topic).to_owned(), (*topic).to_owned()))
                .collect();
            assert_eq!(got, expected, "{filter}");
        }
    }
}

/// [MQTT5-3.8.4-8] [MQTT3-3.8.4-6] [MQTT5-3.3.4-2] [MQTT3-3.3.5-1]: the lower QoS of message and grant, live and retained; with several
/// subscriptions the highest grant.
#[test]
fn a_message_is_delivered_with_the_lower_qos_of_message_and_grant() {
    for hello in clean_hellos("a") {
        for granted in 0..=2 {
            for sent in 0..=2 {
                let mut bench = Bench::default();
                let peer = bench.connect(&hello);
                bench.subscribe(peer, "t", granted);
                let wide = bench.connect(&Hello {
                    id: "wide",
                    ..hello.clone()
                });
                bench.subscribe(wide, "#", 0);
                bench.subscribe(wide, "t", granted);
                let publisher = bench.connect(&Hello::clean("p"));
                bench.retain(publisher, "t", "x", sent, u16::from(sent));
                bench.ack(publisher, AckKind::PubRel, 2, OK);
                let late = bench.connect(&Hello {
                    id: "late",
                    ..hello.clone()
                });
                bench.subscribe(late, "t", granted);
                for reader in [peer, wide, late] {
                    let got = bench.take_publish(reader);
                    assert_eq!(got.qos, sent.min(granted), "{sent} for {granted}");
                    assert_eq!(bench.take_all(reader), []);
                }
            }
        }
    }
}

/// [MQTT5-4.3.1-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2] [MQTT3-4.3.1-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]: the first time a message goes out
/// with DUP 0, and with an id of its own where it has one [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT3-2.3.1-4].
#[test]
fn a_new_delivery_has_dup_0_and_an_unused_id() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 2);
        let publisher = bench.connect(&Hello::clean("p"));
        let mut ids = Vec::new();
        for round in 1..=60 {
            let qos = u8::try_from(round % 3).unwrap();
            bench.publish(publisher, "t", "x", qos, if qos == 0 { 0 } else { round });
            bench.ack(publisher, AckKind::PubRel, round, OK);
            let got = bench.take_publish(peer);
            assert_eq!((got.qos, got.dup), (qos, false));
            assert_eq!(got.id == 0, qos == 0);
            if qos > 0 {
                assert!(!ids.contains(&got.id), "{} is in use", got.id);
                ids.push(got.id);
            }
        }
    }
}

/// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-3.3.1-1] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT3-3.3.1-1]
/// [MQTT3-2.3.1-3] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1]: what is unacknowledged is sent again on the next
/// connection, and the next, under its id, in its order, DUP 1; once PUBREC came it is PUBREL; once acknowledged it is nothing.
#[test]
fn what_is_unacknowledged_is_sent_again_until_it_is_acknowledged() {
    for hello in durable_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 2);
        let publisher = bench.connect(&Hello::clean("p"));
        for (id, qos) in [(1, 2), (2, 1), (3, 2)] {
            bench.publish(publisher, "t", &id.to_string(), qos, id);
        }
        let first: Vec<_> = (0..3).map(|_| bench.take_publish(peer)).collect();
        bench.cut(peer);
        let peer = bench.connect(&hello);
        for before in &first {
            let again = bench.take_publish(peer);
            assert!(again.dup);
            assert_eq!(
                (again.id, &again.payload, again.qos),
                (before.id, &before.payload, before.qos)
            );
        }
        // The first is released, the second done.
        bench.ack(peer, AckKind::PubRec, first[0].id, OK);
        bench.ack(peer, AckKind::PubAck, first[1].id, OK);
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBREL", first[0].id, OK)]);
        for _ in 0..2 {
            bench.restart(0);
            let peer = bench.connect(&hello);
            assert_eq!(bench.take(peer), Some(Got::Ack("PUBREL", first[0].id, OK)));
            assert_eq!(bench.take_publish(peer).id, first[2].id);
            assert_eq!(bench.take_all(peer), []);
        }
        let peer = bench.connect(&hello);
        bench.take_all(peer);
        bench.ack(peer, AckKind::PubComp, first[0].id, OK);
        bench.ack(peer, AckKind::PubRec, first[2].id, OK);
        bench.ack(peer, AckKind::PubComp, first[2].id, OK);
        let peer = bench.connect(&hello);
        assert_eq!(bench.take_all(peer), []);
    }
}

/// [MQTT3-3.3.1-6] [MQTT3-3.3.1-5] [MQTT5-3.3.1-9]: a new subscription gets the last retained message of each matching topic, with its
/// QoS.
#[test]
fn a_new_subscription_gets_the_last_retained_message_of_each_topic() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let publisher = bench.connect(&Hello::clean("p"));
        bench.retain(publisher, "t/1", "old", 1, 1);
        bench.retain(publisher, "t/1", "new", 1, 2);
        bench.retain(publisher, "t/2", "two", 0, 0);
        bench.retain(publisher, "else", "three", 0, 0);
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t/#", 2);
        let mut got: Vec<_> = (0..2)
            .map(|_| bench.take_publish(peer))
            .map(|publish| (publish.payload, publish.qos, publish.retain))
            .collect();
        got.sort();
        let expected = [("new".to_owned(), 1, true), ("two".to_owned(), 0, true)];
        assert_eq!(got, expected);
        assert_eq!(bench.take_all(peer), []);
    }
}

/// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6]: every topic is ordered, for each QoS.
#[test]
fn messages_of_one_topic_and_qos_arrive_in_their_order() {
    for hello in clean_hellos("a") {
        for qos in 0..=2 {
            let mut bench = Bench::default();
            let peer = bench.connect(&hello);
            bench.subscribe(peer, "t/#", 2);
            let publisher = bench.connect(&Hello::clean("p"));
            let count = Limits::default().inflight_messages_max.min(90);
            for number in 1..=count {
                let id = if qos == 0 { 0 } else { number };
                bench.publish(publisher, "t/x", &number.to_string(), qos, id);
                bench.ack(publisher, AckKind::PubRel, number, OK);
            }
            let expected: Vec<_> = (1..=count).map(|number| number.to_string()).collect();
            assert_eq!(bench.payloads(peer), expected, "QoS {qos}");
        }
    }
}

/// [MQTT5-4.9.0-1]: the quota of a connection starts at the client's Receive Maximum, or at the broker's own limit where that is lower.
#[test]
fn the_send_quota_starts_at_the_lower_of_both_limits() {
    for (receive_maximum, expected) in [(Some(1), 1), (Some(3), 3), (Some(500), 5), (None, 5)] {
        let mut bench = Bench::new(Limits {
            inflight_messages_max: 5,
            ..Limits::default()
        });
        let peer = bench.connect(&Hello {
            receive_maximum,
            version: V5,
            ..Hello::clean("a")
        });
        bench.subscribe(peer, "t", 1);
        let publisher = bench.connect(&Hello::clean("p"));
        for id in 1..=9 {
            bench.publish(publisher, "t", "x", 1, id);
        }
        assert_eq!(bench.take_all(peer).len(), expected);
    }
}
