//! Shared subscriptions, one small script each, in virtual time (MQTT 5.0 section 4.8.2, contracts section 3).

use motemq_codec::{AckKind, ReasonCode, RetainHandling, SubscribeOptions};
use motemq_core::{Limits, QueueFull, ShareRedispatch, ShareStrategy};
use motemq_tests::peer::{Bench, Got, Hello, Peer, options, subscribe};

const OK: ReasonCode = ReasonCode::Success;

/// A bench with `members` clean members of `$share/g/t` at `qos`, and a publisher.
fn group(limits: Limits, members: usize, qos: u8) -> (Bench, Vec<Peer>, Peer) {
    let mut bench = Bench::new(limits);
    let members = (0..members)
        .map(|number| {
            let member = bench.connect(&Hello::clean(&format!("m{number}")));
            bench.subscribe(member, "$share/g/t", qos);
            member
        })
        .collect();
    let publisher = bench.connect(&Hello::clean("p"));
    (bench, members, publisher)
}

fn strategy(share_strategy: ShareStrategy) -> Limits {
    Limits {
        share_strategy,
        ..Limits::default()
    }
}

fn publish_many(bench: &mut Bench, publisher: Peer, qos: u8, count: u16) {
    for number in 1..=count {
        let id = if qos == 0 { 0 } else { number };
        bench.publish(publisher, "t", &number.to_string(), qos, id);
        if qos == 2 {
            bench.ack(publisher, AckKind::PubRel, id, OK);
        }
    }
    bench.take_all(publisher);
}

/// The payloads that wait for a peer, each acknowledged to the end.
fn finish(bench: &mut Bench, peer: Peer) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Some(got) = bench.take(peer) {
        match got {
            Got::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => bench.ack(peer, AckKind::PubAck, publish.id, OK),
                    _ => bench.ack(peer, AckKind::PubRec, publish.id, OK),
                }
                payloads.push(publish.payload);
            }
            Got::Ack(kind, id, _) => {
                assert_eq!(kind, "PUBREL");
                bench.ack(peer, AckKind::PubComp, id, OK);
            }
            other => assert_eq!(Some(other), None),
        }
    }
    payloads
}

/// Trap 59. Each message goes to one member.
#[test]
fn members_receive_by_turns() {
    for qos in 0..=2 {
        let (mut bench, members, publisher) = group(Limits::default(), 3, qos);
        publish_many(&mut bench, publisher, qos, 6);
        assert_eq!(finish(&mut bench, members[0]), ["1", "4"], "QoS {qos}");
        assert_eq!(finish(&mut bench, members[1]), ["2", "5"], "QoS {qos}");
        assert_eq!(finish(&mut bench, members[2]), ["3", "6"], "QoS {qos}");
    }
}

/// Trap 59. `$share/g/t` and `t` of one client are two subscriptions, and groups of other names and filters are other groups.
#[test]
fn a_shared_subscription_stands_beside_the_others() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.subscribe_with(peer, "$share/g/t", options(0), Some(1));
    bench.subscribe_with(peer, "t", options(0), Some(2));
    bench.subscribe_with(peer, "$share/h/t", options(0), Some(3));
    bench.subscribe_with(peer, "$share/g/+", options(0), Some(4));
    bench.publish(peer, "t", "x", 0, 0);
    let mut ids: Vec<_> = std::iter::from_fn(|| bench.take(peer))
        .map(|got| match got {
            Got::Publish(publish) => publish.subscription_ids,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    ids.sort();
    assert_eq!(ids, [[1], [2], [3], [4]]);
}

/// Trap 32. [MQTT5-3.3.1-9]: no retained messages for a shared subscription (section 3.8.3.1).
#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    bench.retain(peer, "t", "kept", 0, 0);
    let always = SubscribeOptions {
        retain_handling: RetainHandling::SendAlways,
        ..options(0)
    };
    bench.subscribe_with(peer, "$share/g/t", always, None);
    assert_eq!(bench.take_all(peer), []);
}

/// Retain As Published and the subscription identifier are the member's own.
#[test]
fn options_are_those_of_the_member() {
    let mut bench = Bench::default();
    let plain = bench.connect(&Hello::clean("plain"));
    bench.subscribe_with(plain, "$share/g/t", options(1), Some(7));
    let keeps = bench.connect(&Hello::clean("keeps"));
    let as_published = SubscribeOptions {
        retain_as_published: true,
        ..options(0)
    };
    bench.subscribe_with(keeps, "$share/g/t", as_published, None);
    let publisher = bench.connect(&Hello::clean("p"));
    for id in 1..=2 {
        bench.retain(publisher, "t", "x", 1, id);
    }
    let first = bench.take_publish(plain);
    assert_eq!(
        (first.qos, first.retain, first.subscription_ids),
        (1, false, vec![7])
    );
    let second = bench.take_publish(keeps);
    assert_eq!(
        (second.qos, second.retain, second.subscription_ids),
        (0, true, vec![])
    );
}

/// [MQTT5-3.8.4-3]: subscribing again replaces the options, and adds no second member.
#[test]
fn subscribing_again_replaces_the_membership() {
    let (mut bench, members, publisher) = group(Limits::default(), 2, 0);
    bench.subscribe_with(members[0], "$share/g/t", options(0), Some(9));
    publish_many(&mut bench, publisher, 0, 2);
    assert_eq!(bench.take_publish(members[0]).subscription_ids, [9]);
    assert_eq!(finish(&mut bench, members[1]), ["2"]);
}

#[test]
fn strategies_choose_as_they_say() {
    let counts = |share_strategy, topics: &[&str]| {
        let mut bench = Bench::new(strategy(share_strategy));
        let members: Vec<_> = (0..4)
            .map(|number| {
                let member = bench.connect(&Hello::clean(&format!("m{number}")));
                bench.subscribe(member, "$share/g/#", 0);
                member
            })
            .collect();
        let publisher = bench.connect(&Hello::clean("p"));
        for topic in topics {
            bench.publish(publisher, topic, topic, 0, 0);
        }
        let mut counts: Vec<_> = members
            .iter()
            .map(|member| bench.payloads(*member))
            .collect();
        counts.sort_by_key(Vec::len);
        counts
    };
    let same = ["t"; 40];
    let topics: Vec<String> = (0..40).map(|number| format!("t/{number}")).collect();
    let different: Vec<&str> = topics.iter().map(String::as_str).collect();
    let lens = |counts: Vec<Vec<String>>| counts.iter().map(Vec::len).collect::<Vec<_>>();

    assert_eq!(
        lens(counts(ShareStrategy::RoundRobin, &same)),
        [10, 10, 10, 10]
    );
    assert_eq!(lens(counts(ShareStrategy::Sticky, &same)), [0, 0, 0, 40]);
    assert_eq!(
        lens(counts(ShareStrategy::HashClient, &different)),
        [0, 0, 0, 40]
    );
    assert_eq!(lens(counts(ShareStrategy::HashTopic, &same)), [0, 0, 0, 40]);
    let spread = lens(counts(ShareStrategy::HashTopic, &different));
    assert!(spread.iter().all(|count| *count > 0), "{spread:?}");
    let random = lens(counts(ShareStrategy::Random, &same));
    assert!(random.iter().all(|count| *count > 0), "{random:?}");
}

/// A member with a full window is passed over; what nobody can take waits for the first acknowledgement.
#[test]
fn a_busy_member_is_passed_over_and_the_backlog_goes_to_who_is_free() {
    let mut bench = Bench::default();
    let members: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|id| {
            let hello = Hello {
                receive_maximum: Some(1),
                ..Hello::clean(id)
            };
            let member = bench.connect(&hello);
            bench.subscribe(member, "$share/g/t", 1);
            member
        })
        .collect();
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 5);
    let held = bench.take_publish(members[0]);
    assert_eq!(held.payload, "1");
    assert_eq!(finish(&mut bench, members[1]), ["2", "3", "4", "5"]);
    bench.ack(members[0], AckKind::PubAck, held.id, OK);
    assert_eq!(bench.take_all(members[0]), []);
}

/// What a member that leaves has not had goes to the others: QoS 1 also when it was sent (contracts section 3).
#[test]
fn a_member_that_disconnects_leaves_its_messages_to_the_others() {
    let (mut bench, members, publisher) = group(Limits::default(), 2, 1);
    publish_many(&mut bench, publisher, 1, 4);
    assert_eq!(bench.payloads(members[0]), ["1", "3"]);
    bench.cut(members[0]);
    assert_eq!(finish(&mut bench, members[1]), ["2", "4", "1", "3"]);
}

/// QoS 0 that was not sent goes to another member too.
#[test]
fn an_unsent_qos_0_message_of_a_member_that_leaves_goes_to_another() {
    let (mut bench, members, publisher) = group(Limits::default(), 2, 0);
    bench.set_slow(members[0], true);
    publish_many(&mut bench, publisher, 0, 3);
    bench.cut(members[0]);
    assert_eq!(bench.payloads(members[1]), ["2", "1", "3"]);
}

/// With `session-end` a durable member's unacknowledged QoS 1 messages wait for its return, and go to the others when its
/// session ends.
#[test]
fn redispatch_can_wait_for_the_end_of_the_session() {
    let limits = Limits {
        share_redispatch: ShareRedispatch::AtSessionEnd,
        ..Limits::default()
    };
    for returns in [true, false] {
        let mut bench = Bench::new(limits.clone());
        let durable = bench.connect(&Hello::durable("d"));
        bench.subscribe(durable, "$share/g/t", 1);
        let other = bench.connect(&Hello::clean("o"));
        bench.subscribe(other, "$share/g/t", 1);
        let publisher = bench.connect(&Hello::clean("p"));
        publish_many(&mut bench, publisher, 1, 1);
        assert_eq!(bench.payloads(durable), ["1"]);
        bench.cut(durable);
        assert_eq!(bench.take_all(other), []);
        if returns {
            let durable = bench.connect(&Hello::durable("d"));
            let again = bench.take_publish(durable);
            assert_eq!((again.payload.as_str(), again.dup), ("1", true));
        } else {
            bench.pass(3_600_000);
            assert_eq!(finish(&mut bench, other), ["1"]);
        }
    }
}

/// [MQTT5-4.8.2-4]: a QoS 2 delivery that was begun is completed with its member when it returns, and with nobody else;
/// [MQTT5-4.8.2-5]: nobody gets it when the session ends.
#[test]
fn a_begun_qos_2_delivery_stays_with_its_member() {
    for returns in [true, false] {
        let mut bench = Bench::default();
        let durable = bench.connect(&Hello::durable("d"));
        bench.subscribe(durable, "$share/g/t", 2);
        let other = bench.connect(&Hello::clean("o"));
        bench.subscribe(other, "$share/g/t", 2);
        let publisher = bench.connect(&Hello::clean("p"));
        publish_many(&mut bench, publisher, 2, 2);
        let begun: Vec<_> = bench
            .take_all(durable)
            .into_iter()
            .map(|got| match got {
                Got::Publish(publish) => (publish.id, publish.payload),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert!(!begun.is_empty());
        let others = finish(&mut bench, other);
        assert_eq!(begun.len() + others.len(), 2);
        bench.cut(durable);
        assert_eq!(bench.take_all(other), []);
        if returns {
            let durable = bench.connect(&Hello::durable("d"));
            for (id, payload) in begun {
                let again = bench.take_publish(durable);
                assert_eq!((again.id, again.payload, again.dup), (id, payload, true));
            }
        } else {
            bench.pass(3_600_000);
            assert_eq!(bench.take_all(other), []);
        }
    }
}

/// The same across power loss: the assignment to the member is durable before the PUBLISH leaves.
#[test]
fn a_begun_qos_2_delivery_stays_with_its_member_across_power_loss() {
    let mut bench = Bench::default();
    let durable = bench.connect(&Hello::durable("d"));
    bench.subscribe(durable, "$share/g/t", 2);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 2, 1);
    let begun = bench.take_publish(durable);
    bench.restart(0);
    let other = bench.connect(&Hello::durable("o"));
    bench.subscribe(other, "$share/g/t", 2);
    assert_eq!(bench.take_all(other), []);
    let durable = bench.connect(&Hello::durable("d"));
    let again = bench.take_publish(durable);
    assert_eq!(
        (again.id, again.payload, again.dup),
        (begun.id, begun.payload, true)
    );
}

/// A QoS 2 delivery that was assigned but not sent goes back when its member leaves, and is not lost by power loss.
#[test]
fn an_assigned_but_unsent_qos_2_delivery_goes_to_another() {
    for power_loss in [false, true] {
        let mut bench = Bench::default();
        let durable = bench.connect(&Hello::durable("d"));
        bench.subscribe(durable, "$share/g/t", 2);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.set_slow(durable, true);
        publish_many(&mut bench, publisher, 2, 3);
        bench.set_slow(durable, false);
        bench.set_slow(durable, true);
        bench.cut(durable);
        let begun = bench
            .take_all(durable)
            .iter()
            .filter(|got| matches!(got, Got::Publish(_)))
            .count();
        if power_loss {
            bench.restart(0);
        }
        let other = bench.connect(&Hello::durable("o"));
        bench.subscribe(other, "$share/g/t", 2);
        let durable = bench.connect(&Hello::durable("d"));
        let total = finish(&mut bench, other).len() + finish(&mut bench, durable).len();
        assert_eq!(total, 3, "{begun} begun");
    }
}

/// With durable members the group queues while nobody is online (contracts section 3), also across power loss.
#[test]
fn a_durable_group_queues_while_nobody_is_online() {
    for qos in 1..=2 {
        let mut bench = Bench::default();
        let a = bench.connect(&Hello::durable("a"));
        bench.subscribe(a, "$share/g/t", qos);
        let b = bench.connect(&Hello::durable("b"));
        bench.subscribe(b, "$share/g/t", qos);
        bench.cut(a);
        bench.cut(b);
        let publisher = bench.connect(&Hello::clean("p"));
        publish_many(&mut bench, publisher, qos, 4);
        bench.restart(0);
        let b = bench.connect(&Hello::durable("b"));
        assert_eq!(finish(&mut bench, b), ["1", "2", "3", "4"], "QoS {qos}");
        // What was settled stays settled.
        bench.restart(0);
        let a = bench.connect(&Hello::durable("a"));
        assert_eq!(bench.take_all(a), []);
    }
}

/// Acknowledged means stored: PUBACK waits for the commit when the group is durable, even if the member at hand is not.
#[test]
fn puback_waits_for_the_store_of_a_durable_group() {
    let mut bench = Bench::default();
    let durable = bench.connect(&Hello::durable("d"));
    bench.subscribe(durable, "$share/g/t", 1);
    bench.cut(durable);
    let clean = bench.connect(&Hello::clean("c"));
    bench.subscribe(clean, "$share/g/t", 1);
    let publisher = bench.connect(&Hello::clean("p"));
    bench.holds_commits = true;
    bench.publish(publisher, "t", "1", 1, 1);
    assert_eq!(bench.take_all(publisher), []);
    let delivery = bench.take_publish(clean);
    // The receiver's acknowledgement elides the record.
    bench.ack(clean, AckKind::PubAck, delivery.id, OK);
    assert!(matches!(
        bench.take(publisher),
        Some(Got::Ack("PUBACK", 1, _))
    ));
    // Without it the message survives the loss of power, and goes to who is there.
    bench.publish(publisher, "t", "2", 1, 2);
    bench.commit();
    assert!(matches!(
        bench.take(publisher),
        Some(Got::Ack("PUBACK", 2, _))
    ));
    bench.holds_commits = false;
    bench.restart(0);
    let durable = bench.connect(&Hello::durable("d"));
    assert_eq!(finish(&mut bench, durable), ["2"]);
}

/// The queue limits hold for the group's own queue.
#[test]
fn the_backlog_of_a_group_is_bounded() {
    for queue_full in [
        QueueFull::DropOldest,
        QueueFull::DropNewest,
        QueueFull::Refuse,
        QueueFull::Disconnect,
    ] {
        let mut bench = Bench::new(Limits {
            queue_messages_max: 2,
            queue_full,
            ..Limits::default()
        });
        let member = bench.connect(&Hello::durable("d"));
        bench.subscribe(member, "$share/g/t", 1);
        bench.cut(member);
        let publisher = bench.connect(&Hello::clean("p"));
        bench.publish(publisher, "t", "1", 1, 1);
        bench.publish(publisher, "t", "2", 1, 2);
        bench.take_all(publisher);
        bench.publish(publisher, "t", "3", 1, 3);
        let code = match bench.take(publisher) {
            Some(Got::Ack("PUBACK", 3, code)) => code,
            other => panic!("PUBACK expected, got {other:?}"),
        };
        let member = bench.connect(&Hello::durable("d"));
        let kept = finish(&mut bench, member);
        match queue_full {
            QueueFull::DropOldest | QueueFull::Disconnect => {
                assert_eq!((code, kept), (OK, vec!["2".to_owned(), "3".to_owned()]));
            }
            QueueFull::DropNewest => {
                assert_eq!((code, kept), (OK, vec!["1".to_owned(), "2".to_owned()]));
            }
            QueueFull::Refuse => {
                assert_eq!(code, ReasonCode::QuotaExceeded);
                assert_eq!(kept, ["1", "2"]);
            }
        }
    }
}

/// A message that expires in the group's queue is not delivered [MQTT5-3.3.2-5].
#[test]
fn messages_expire_in_the_backlog() {
    let mut bench = Bench::default();
    let member = bench.connect(&Hello::durable("d"));
    bench.subscribe(member, "$share/g/t", 1);
    bench.cut(member);
    let publisher = bench.connect(&Hello::clean("p"));
    let motemq_codec::Packet::Publish(mut packet) = motemq_tests::peer::publish("t", "1", 1, 1)
    else {
        unreachable!()
    };
    packet.properties.message_expiry_s = Some(5);
    bench.send(publisher, &motemq_codec::Packet::Publish(packet));
    bench.publish(publisher, "t", "2", 1, 2);
    bench.pass(6_000);
    let member = bench.connect(&Hello::durable("d"));
    assert_eq!(finish(&mut bench, member), ["2"]);
}

/// A member that unsubscribes finishes what was sent [MQTT5-3.10.4-3] and leaves the rest to the others; after the last
/// one the group is gone, with its queue.
#[test]
fn unsubscribing_leaves_the_group() {
    let mut bench = Bench::default();
    let hello = Hello {
        receive_maximum: Some(1),
        ..Hello::durable("a")
    };
    let a = bench.connect(&hello);
    bench.subscribe(a, "$share/g/t", 1);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 2);
    let first = bench.take_publish(a);
    let b = bench.connect(&Hello::durable("b"));
    // A message may precede SUBACK (section 3.8.4).
    bench.send(b, &subscribe(1, &[("$share/g/t", options(1))], None));
    let second = bench.take_publish(b);
    assert_eq!(second.payload, "2");
    assert_eq!(bench.take(b), Some(Got::SubAck(1, vec![1])));
    bench.ack(b, AckKind::PubAck, second.id, OK);
    assert_eq!(
        bench.unsubscribe(a, "$share/g/t"),
        Some(Got::UnsubAck(2, vec![0]))
    );
    bench.ack(a, AckKind::PubAck, first.id, OK);
    bench.cut(b);
    publish_many(&mut bench, publisher, 1, 1);
    let b = bench.connect(&Hello::durable("b"));
    assert_eq!(bench.payloads(b), ["1"]);
    assert_eq!(
        bench.unsubscribe(b, "$share/g/t"),
        Some(Got::UnsubAck(2, vec![0]))
    );
    assert_eq!(bench.broker.subscriptions(), 0);
    bench.restart(0);
    assert_eq!(bench.broker.subscriptions(), 0);
    let b = bench.connect(&Hello::durable("b"));
    bench.subscribe(b, "$share/g/t", 1);
    assert_eq!(bench.take_all(b), []);
}

/// What the last member was given and has not read yet is not lost by its UNSUBSCRIBE. (A client found it: MQTT.js read its
/// messages late and missed the last four.)
#[test]
fn the_last_member_gets_what_it_was_given_before_it_unsubscribes() {
    for qos in 0..=2 {
        let (mut bench, members, publisher) = group(Limits::default(), 1, qos);
        bench.set_slow(members[0], true);
        publish_many(&mut bench, publisher, qos, 3);
        bench.unsubscribe(members[0], "$share/g/t");
        bench.set_slow(members[0], false);
        let payloads: Vec<_> = bench
            .take_all(members[0])
            .into_iter()
            .filter_map(|got| match got {
                Got::Publish(publish) => Some(publish.payload),
                _ => None,
            })
            .collect();
        assert_eq!(payloads, ["1", "2", "3"], "QoS {qos}");
    }
}

/// [MQTT5-4.8.2-6]: a refusal by PUBACK or PUBREC ends the delivery; nobody else gets it.
#[test]
fn a_refused_delivery_goes_to_nobody_else() {
    for qos in 1..=2 {
        let (mut bench, members, publisher) = group(Limits::default(), 2, qos);
        publish_many(&mut bench, publisher, qos, 1);
        let delivery = bench.take_publish(members[0]);
        let kind = if qos == 1 {
            AckKind::PubAck
        } else {
            AckKind::PubRec
        };
        bench.ack(members[0], kind, delivery.id, ReasonCode::QuotaExceeded);
        bench.cut(members[0]);
        assert_eq!(bench.take_all(members[1]), []);
    }
}

/// Traps 55 and 59. [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]: malformed share names get a code, and spoil nothing.
#[test]
fn malformed_share_names_are_refused() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    let filters = [
        "$share/g",
        "$share//t",
        "$share/+/t",
        "$share/a#/t",
        "$share/g/",
        "$share/g/t",
    ];
    let filters = filters.map(|filter| (filter, options(1)));
    bench.send(peer, &subscribe(1, &filters, None));
    let refused = ReasonCode::TopicFilterInvalid as u8;
    assert_eq!(
        bench.take(peer),
        Some(Got::SubAck(
            1,
            vec![refused, refused, refused, refused, refused, 1]
        ))
    );
}

/// [MQTT5-4.8.2-3] Mixed grants: a message for the group is stored at the highest grant and delivered at the member's own.
#[test]
fn a_qos_0_member_feeds_from_the_backlog_too() {
    let mut bench = Bench::new(Limits {
        mailbox_memory_bytes: 1,
        ..Limits::default()
    });
    let durable = bench.connect(&Hello::durable("d"));
    bench.subscribe(durable, "$share/g/t", 1);
    bench.cut(durable);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 3);
    let low = bench.connect(&Hello::clean("low"));
    bench.subscribe(low, "$share/g/t", 0);
    bench.settle();
    let got: Vec<_> = bench
        .take_all(low)
        .into_iter()
        .map(|got| match got {
            Got::Publish(publish) => (publish.payload, publish.qos),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(
        got,
        [
            ("1".to_owned(), 0),
            ("2".to_owned(), 0),
            ("3".to_owned(), 0)
        ]
    );
    bench.restart(0);
    let durable = bench.connect(&Hello::durable("d"));
    assert_eq!(bench.take_all(durable), []);
}

/// A take-over is a departure and a return: nothing is lost, nothing comes twice but unacknowledged QoS 1.
#[test]
fn a_take_over_keeps_the_membership() {
    let mut bench = Bench::default();
    let a = bench.connect(&Hello::durable("a"));
    bench.subscribe(a, "$share/g/t", 1);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 2);
    bench.take_all(a);
    let again = bench.connect(&Hello::durable("a"));
    assert_eq!(finish(&mut bench, again), ["1", "2"]);
    publish_many(&mut bench, publisher, 1, 1);
    assert_eq!(finish(&mut bench, again), ["1"]);
}

/// A QoS 2 message for a member with QoS 0 leaves when the group's queue has lost it: a power loss in between gave it to a
/// second member.
#[test]
fn a_qos_2_message_leaves_at_qos_0_after_its_end_is_durable() {
    let mut bench = Bench::default();
    let durable = bench.connect(&Hello::durable("d"));
    bench.subscribe(durable, "$share/g/t", 2);
    bench.cut(durable);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 2, 1);
    bench.holds_commits = true;
    let low = bench.connect(&Hello::clean("low"));
    bench.subscribe(low, "$share/g/t", 0);
    assert_eq!(bench.take_all(low), []);
    bench.commit();
    assert_eq!(bench.payloads(low), ["1"]);
    bench.restart(0);
    bench.holds_commits = false;
    let durable = bench.connect(&Hello::durable("d"));
    assert_eq!(bench.take_all(durable), []);
}

/// What waits for the commit of its packet id waits at the next member too: the first one left, and the second had it at once.
#[test]
fn a_message_that_is_passed_on_still_waits_for_its_record() {
    let (mut bench, members, _) = group(Limits::default(), 2, 0);
    let publisher = bench.connect(&Hello::durable("q"));
    bench.holds_commits = true;
    bench.publish(publisher, "t", "x", 2, 1);
    bench.cut(members[0]);
    assert_eq!(bench.take_all(members[1]), []);
    bench.commit();
    assert_eq!(bench.payloads(members[1]), ["x"]);
}

/// A member that has left its last group still has what it was sent; it was lost when that member's session ended.
#[test]
fn what_a_former_member_never_acknowledged_goes_to_the_others() {
    let (mut bench, members, publisher) = group(Limits::default(), 2, 1);
    publish_many(&mut bench, publisher, 1, 1);
    assert_eq!(bench.take_publish(members[0]).payload, "1");
    bench.unsubscribe(members[0], "$share/g/t");
    assert_eq!(bench.take_all(members[1]), []);
    bench.cut(members[0]);
    assert_eq!(finish(&mut bench, members[1]), ["1"]);
}

/// The bodies of what waits may be in the store only: they went with the last durable member, and its group waited on.
#[test]
fn a_backlog_outlives_the_last_durable_member() {
    let mut bench = Bench::new(Limits {
        mailbox_memory_bytes: 0,
        ..Limits::default()
    });
    let durable = bench.connect(&Hello::durable("d"));
    bench.subscribe(durable, "$share/g/t", 1);
    bench.cut(durable);
    let slow = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::clean("slow")
    });
    bench.subscribe(slow, "$share/g/t", 1);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 3);
    bench.connect(&Hello::clean("d"));
    assert_eq!(finish(&mut bench, slow), ["1", "2", "3"]);
}

/// A message that came before the group was durable is stored before a durable member gets it at QoS 2: after a power loss
/// the broker had forgotten a packet id that the client had not.
#[test]
fn a_durable_member_gets_no_qos_2_packet_id_that_the_store_does_not_know() {
    let mut bench = Bench::default();
    let slow = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::clean("slow")
    });
    bench.subscribe(slow, "$share/g/t", 2);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 2, 2);
    let durable = bench.connect(&Hello::durable("d"));
    bench.holds_commits = true;
    bench.send(durable, &subscribe(1, &[("$share/g/t", options(2))], None));
    assert_eq!(bench.take_all(durable), []);
    bench.commit();
    assert_eq!(bench.take(durable), Some(Got::SubAck(1, vec![2])));
    let first = bench.take_publish(durable);
    assert_eq!(first.payload, "2");
    bench.restart(0);
    bench.holds_commits = false;
    let durable = bench.connect(&Hello::durable("d"));
    let again = bench.take_publish(durable);
    assert_eq!(
        (again.payload, again.id, again.dup),
        (first.payload, first.id, true)
    );
}

/// As above, but the durable member goes before the store has it: the others get it.
#[test]
fn a_first_storing_that_is_not_finished_is_undone() {
    let mut bench = Bench::default();
    let slow = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::clean("slow")
    });
    bench.subscribe(slow, "$share/g/t", 2);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 2, 2);
    let durable = bench.connect(&Hello::durable("d"));
    bench.holds_commits = true;
    bench.send(durable, &subscribe(1, &[("$share/g/t", options(2))], None));
    bench.cut(durable);
    bench.holds_commits = false;
    bench.commit();
    assert_eq!(finish(&mut bench, slow), ["1", "2"]);
    bench.restart(0);
    let durable = bench.connect(&Hello::durable("d"));
    assert_eq!(bench.take_all(durable), []);
}

/// [MQTT5-4.6.0-5]: what comes after the last grant above QoS 0 is gone stays behind what waits.
#[test]
fn a_lower_grant_does_not_let_messages_overtake() {
    let mut bench = Bench::default();
    let member = bench.connect(&Hello {
        receive_maximum: Some(1),
        ..Hello::clean("m")
    });
    bench.subscribe(member, "$share/g/t", 1);
    let publisher = bench.connect(&Hello::clean("p"));
    publish_many(&mut bench, publisher, 1, 2);
    let first = bench.take_publish(member);
    bench.subscribe(member, "$share/g/t", 0);
    bench.publish(publisher, "t", "3", 1, 3);
    assert_eq!(bench.take_all(member), []);
    bench.ack(member, AckKind::PubAck, first.id, OK);
    assert_eq!(bench.payloads(member), ["2", "3"]);
}
