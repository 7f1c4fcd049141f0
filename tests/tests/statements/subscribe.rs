//! SUBSCRIBE and UNSUBSCRIBE.

use super::{OK, V5, clean_hellos};
use motemq_codec::{AckKind, Packet, Unsubscribe, UnsubscribeFilters, UserProperties};
use motemq_tests::peer::{Bench, Got, Hello, Peer, options, packet_id, subscribe};

fn unsubscribe(bench: &mut Bench, peer: Peer, id: u16, filters: &[&str]) -> Option<Got> {
    let packet = Unsubscribe {
        packet_id: packet_id(id),
        user_properties: UserProperties::default(),
        filters: UnsubscribeFilters::from_list(filters),
    };
    bench.send(peer, &Packet::Unsubscribe(packet));
    bench.take(peer)
}

/// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT5-2.2.1-6]
/// [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2] [MQTT3-2.3.1-7]: one SUBACK with the
/// id of the SUBSCRIBE and a code for each filter in turn; the filters act as if they had come one by one, so the last of two equal
/// ones counts.
#[test]
fn several_filters_are_subscriptions_one_after_the_other() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        let filters = [
            ("one", options(2)),
            ("bad+", options(1)),
            ("two", options(1)),
            ("one", options(0)),
            ("three", options(2)),
        ];
        bench.send(peer, &subscribe(4711, &filters, None));
        let failure = if hello.version == V5 { 0x8f } else { 0x80 };
        assert_eq!(
            bench.take_all(peer),
            [Got::SubAck(4711, vec![2, failure, 1, 0, 2])]
        );
        let publisher = bench.connect(&Hello::clean("p"));
        for (topic, id, qos) in [("one", 1, 0), ("two", 2, 1), ("three", 3, 2)] {
            bench.publish(publisher, topic, "x", 2, id);
            let got = bench.take_publish(peer);
            assert_eq!((got.topic.as_str(), got.qos), (topic, qos));
            assert_eq!(bench.take_all(peer), []);
        }
    }
}

/// [MQTT5-3.10.4-1] [MQTT5-3.10.4-2] [MQTT3-3.10.4-1] [MQTT3-3.10.4-2]: a subscription is ended by the very characters that made it, and
/// nothing new is delivered for it.
#[test]
fn unsubscribe_ends_the_subscription_of_exactly_that_filter() {
    for hello in clean_hellos("a") {
        for subscribed in ["a/b", "a/+", "a/#", "#"] {
            let mut bench = Bench::default();
            let peer = bench.connect(&hello);
            bench.subscribe(peer, subscribed, 1);
            let others = ["a/b", "a/+", "a/#", "#", "A/b", "a/b/", "a", "+/b"];
            for other in others.iter().filter(|other| **other != subscribed) {
                unsubscribe(&mut bench, peer, 9, &[other]);
            }
            let publisher = bench.connect(&Hello::clean("p"));
            bench.publish(publisher, "a/b", "still", 1, 1);
            assert_eq!(bench.payloads(peer), ["still"], "{subscribed}");
            unsubscribe(&mut bench, peer, 9, &[subscribed]);
            bench.publish(publisher, "a/b", "no more", 1, 2);
            assert_eq!(bench.take_all(peer), [], "{subscribed}");
        }
    }
}

/// [MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT5-3.11.3-2] [MQTT5-2.2.1-6] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5]
/// [MQTT3-3.10.4-6] [MQTT3-2.3.1-7]: one UNSUBACK with the id of the UNSUBSCRIBE, also where nothing was there; the filters act one by
/// one, so the second of two equal ones finds nothing.
#[test]
fn several_filters_are_unsubscribed_one_after_the_other() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "one", 0);
        bench.subscribe(peer, "two", 0);
        bench.subscribe(peer, "three", 0);
        let answer = unsubscribe(&mut bench, peer, 4711, &["one", "none", "one", "two"]);
        let codes = if hello.version == V5 {
            vec![0, 0x11, 0x11, 0]
        } else {
            vec![]
        };
        assert_eq!(answer, Some(Got::UnsubAck(4711, codes)));
        for topic in ["one", "two", "three"] {
            bench.publish(peer, topic, topic, 0, 0);
        }
        assert_eq!(bench.payloads(peer), ["three"]);
        let none = if hello.version == V5 {
            vec![0x11]
        } else {
            vec![]
        };
        assert_eq!(
            unsubscribe(&mut bench, peer, 1, &["none"]),
            Some(Got::UnsubAck(1, none))
        );
    }
}

/// [MQTT5-3.10.4-3] [MQTT3-3.10.4-3]: what was begun is completed after UNSUBSCRIBE, also on the next connection.
#[test]
fn a_delivery_that_was_begun_is_completed_after_unsubscribe() {
    for hello in [Hello::durable("a"), Hello::v3("a", false)] {
        let mut bench = Bench::default();
        let peer = bench.connect(&hello);
        bench.subscribe(peer, "t", 2);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.publish(publisher, "t", "1", 1, 1);
        bench.publish(publisher, "t", "2", 2, 2);
        let [one, two] = [bench.take_publish(peer), bench.take_publish(peer)];
        unsubscribe(&mut bench, peer, 9, &["t"]);
        bench.ack(peer, AckKind::PubRec, two.id, OK);
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBREL", two.id, OK)]);
        bench.cut(peer);
        let peer = bench.connect(&hello);
        let again = bench.take_publish(peer);
        assert_eq!((again.id, again.dup), (one.id, true));
        assert_eq!(bench.take_all(peer), [Got::Ack("PUBREL", two.id, OK)]);
        bench.ack(peer, AckKind::PubAck, one.id, OK);
        bench.ack(peer, AckKind::PubComp, two.id, OK);
        let peer = bench.connect(&hello);
        assert_eq!(bench.take_all(peer), []);
    }
}

/// [MQTT5-3.8.4-4] [MQTT3-3.8.4-3]: subscribing again sends retained messages again and loses none of the live ones.
#[test]
fn subscribing_again_sends_retained_messages_again_and_loses_nothing() {
    for hello in clean_hellos("a") {
        let mut bench = Bench::default();
        let publisher = bench.connect(&Hello::clean("p"));
        bench.retain(publisher, "t", "kept", 0, 0);
        let peer = bench.connect(&Hello {
            receive_maximum: (hello.version == V5).then_some(1),
            ..hello.clone()
        });
        bench.subscribe(peer, "t", 1);
        assert_eq!(bench.payloads(peer), ["kept"]);
        bench.publish(publisher, "t", "1", 1, 1);
        bench.publish(publisher, "t", "2", 1, 2);
        let one = bench.take_publish(peer);
        let mut rest = bench.take_all(peer);
        bench.subscribe(peer, "t", 1);
        rest.extend(bench.take_all(peer));
        bench.ack(peer, AckKind::PubAck, one.id, OK);
        rest.extend(bench.take_all(peer));
        let mut payloads: Vec<_> = rest
            .into_iter()
            .map(|got| match got {
                Got::Publish(publish) => publish.payload,
                other => panic!("{other:?}"),
            })
            .collect();
        payloads.sort();
        assert_eq!(payloads, ["2", "kept"]);
    }
}
