//! The drop ledger: whatever does not arrive is named with reason, topic, receiver and publisher. Small scripts in virtual time.

use motemq_codec::{AckKind, Packet, ReasonCode};
use motemq_core::{
    Acl, EventFilter, EventKind, Limits, PressureLevel, QueueFull, RateFull, RateLimit,
};
use motemq_tests::peer::{Bench, Hello, Peer, publish};
use std::sync::Arc;

/// Reason, client, topic, publisher and count of what did not arrive, in the order in which it happened.
fn ledger(bench: &Bench) -> Vec<(String, String, String, String, u32)> {
    let snapshot = bench.broker.history().snapshot(bench.now);
    let filter = EventFilter {
        kinds: &[EventKind::Dropped],
        ..EventFilter::default()
    };
    let told = snapshot.latest_first(&filter).map(|event| {
        let texts = [event.reason, event.client_id, event.topic, event.publisher];
        let [reason, client, topic, publisher] = texts.map(str::to_owned);
        (reason, client, topic, publisher, event.count)
    });
    let mut told: Vec<_> = told.collect();
    told.reverse();
    told
}

fn lost(
    reason: &str,
    client: &str,
    topic: &str,
    count: u32,
) -> (String, String, String, String, u32) {
    let texts = [reason, client, topic, "publisher"];
    let [reason, client, topic, publisher] = texts.map(str::to_owned);
    (reason, client, topic, publisher, count)
}

fn small_queue(queue_full: QueueFull) -> Limits {
    Limits {
        queue_messages_max: 2,
        queue_full,
        ..Limits::default()
    }
}

/// A durable reader that is away.
fn absent(bench: &mut Bench, qos: u8) {
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "#", qos);
    bench.cut(reader);
}

fn publisher(bench: &mut Bench) -> Peer {
    bench.connect(&Hello::clean("publisher"))
}

#[test]
fn what_a_full_queue_gives_up_is_named_by_each_policy() {
    for (policy, dropped) in [
        (QueueFull::DropOldest, "t/1"),
        (QueueFull::DropNewest, "t/3"),
    ] {
        let mut bench = Bench::new(small_queue(policy));
        absent(&mut bench, 1);
        let publisher = publisher(&mut bench);
        for id in 1..=3 {
            bench.publish(publisher, &format!("t/{id}"), "x", 1, id);
        }
        assert_eq!(ledger(&bench), [lost("queue_full", "reader", dropped, 1)]);
    }
}

/// Whose body is in the store only: it is read back to say what it was.
#[test]
fn what_a_full_queue_gives_up_is_named_even_if_only_the_store_knows_it() {
    let mut bench = Bench::new(Limits {
        mailbox_memory_bytes: 1,
        ..small_queue(QueueFull::DropOldest)
    });
    absent(&mut bench, 1);
    let publisher = publisher(&mut bench);
    for id in 1..=4 {
        bench.publish(publisher, &format!("t/{id}"), "x", 1, id);
    }
    let told = ["t/1", "t/2"].map(|topic| lost("queue_full", "reader", topic, 1));
    assert_eq!(ledger(&bench), told);
}

#[test]
fn a_reader_that_does_not_take_its_qos_0_is_slow() {
    for policy in [QueueFull::DropOldest, QueueFull::DropNewest] {
        let mut bench = Bench::new(small_queue(policy));
        let reader = bench.connect(&Hello::clean("reader"));
        bench.subscribe(reader, "#", 0);
        bench.set_slow(reader, true);
        let publisher = publisher(&mut bench);
        for _ in 0..5 {
            bench.publish(publisher, "t", "x", 0, 0);
        }
        let told = ledger(&bench);
        let of_one = lost("slow_reader", "reader", "t", 1);
        assert_eq!(told, vec![of_one; 3]);
    }
}

#[test]
fn too_large_expired_and_rejected_messages_are_named() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello {
        packet_bytes_max: Some(40),
        ..Hello::durable("reader")
    });
    bench.subscribe(reader, "#", 1);
    let publisher = publisher(&mut bench);
    bench.publish(publisher, "large", &"x".repeat(100), 1, 1);
    bench.publish(publisher, "large/0", &"x".repeat(100), 0, 0);
    bench.publish(publisher, "rejected", "x", 1, 2);
    let id = bench.take_publish(reader).id;
    bench.ack(reader, AckKind::PubAck, id, ReasonCode::UnspecifiedError);
    bench.cut(reader);
    let Packet::Publish(mut packet) = publish("expired", "x", 1, 3) else {
        unreachable!()
    };
    packet.properties.message_expiry_s = Some(10);
    bench.send(publisher, &Packet::Publish(packet));
    bench.pass(11_000);
    bench.connect(&Hello::durable("reader"));
    let told = [
        lost("too_large", "reader", "large", 1),
        lost("too_large", "reader", "large/0", 1),
        lost("rejected", "reader", "rejected", 1),
        lost("expired", "reader", "expired", 1),
    ];
    assert_eq!(ledger(&bench), told);
}

#[test]
fn qos_0_for_an_absent_session_is_named() {
    let mut bench = Bench::default();
    absent(&mut bench, 1);
    let publisher = publisher(&mut bench);
    bench.publish(publisher, "t", "x", 0, 0);
    assert_eq!(ledger(&bench), [lost("qos0_offline", "reader", "t", 1)]);
}

#[test]
fn what_ends_with_its_session_is_counted() {
    let mut bench = Bench::default();
    absent(&mut bench, 1);
    let publisher = publisher(&mut bench);
    for id in 1..=3 {
        bench.publish(publisher, "t", "x", 1, id);
    }
    bench.pass(3_600_000);
    let told = ledger(&bench);
    let (reason, client, .., count) = &told[0];
    assert_eq!(
        (reason.as_str(), client.as_str(), *count),
        ("session_ended", "reader", 3)
    );
}

#[test]
fn a_topic_without_subscriber_is_the_publisher_s_own_and_told_once_a_minute() {
    let mut bench = Bench::default();
    let publisher = publisher(&mut bench);
    for _ in 0..70 {
        bench.publish(publisher, "nobody", "x", 0, 0);
        bench.publish(publisher, "nobody/else", "x", 0, 0);
        bench.pass(1_000);
    }
    let told: Vec<_> = ["nobody", "nobody/else"]
        .into_iter()
        .flat_map(|topic| [1, 60].map(|count| lost("no_subscriber", "publisher", topic, count)))
        .collect();
    let mut found = ledger(&bench);
    found.sort_by(|one, other| (&one.2, one.4).cmp(&(&other.2, other.4)));
    assert_eq!(found, told);
}

#[test]
fn what_the_acl_denies_is_named_at_the_publisher_and_at_the_receiver() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::clean("reader"));
    bench.subscribe(reader, "#", 1);
    let publisher = publisher(&mut bench);
    let acl =
        Acl::parse("[everyone]\nallow subscribe open\nallow publish open\nallow publish closed\n");
    bench.broker.set_acl(Arc::new(acl.unwrap()));
    bench.publish(publisher, "secret", "x", 0, 0);
    bench.publish(publisher, "closed", "x", 1, 1);
    bench.publish(publisher, "open", "x", 1, 2);
    let told = [
        lost("publish_denied", "publisher", "secret", 1),
        lost("not_authorized", "reader", "closed", 1),
    ];
    assert_eq!(ledger(&bench), told);
}

#[test]
fn what_a_limit_of_the_publisher_stops_is_named() {
    let mut bench = Bench::new(Limits {
        publish_rate: RateLimit {
            messages: 2,
            bytes: 0,
        },
        publish_rate_full: RateFull::DropQoS0,
        payload_bytes_max: 50,
        ..Limits::default()
    });
    let reader = bench.connect(&Hello::clean("reader"));
    bench.subscribe(reader, "#", 0);
    let publisher = publisher(&mut bench);
    for _ in 0..5 {
        bench.publish(publisher, "t", "x", 0, 0);
    }
    bench.pass(10_000);
    bench.publish(publisher, "large", &"x".repeat(51), 0, 0);
    bench.publish(publisher, "$SYS/own", "x", 0, 0);
    bench.broker.pressure().set(PressureLevel::DropQoS0, 1);
    bench.pass(10_000);
    bench.publish(publisher, "pressed", "x", 0, 0);
    let told = [
        lost("rate_exceeded", "publisher", "t", 1),
        lost("rate_exceeded", "publisher", "t", 1),
        lost("publish_refused", "publisher", "large", 1),
        lost("publish_refused", "publisher", "$SYS/own", 1),
        lost("memory_full", "publisher", "pressed", 1),
    ];
    assert_eq!(ledger(&bench), told);
}

/// The receiver of what a share group loses is the group.
#[test]
fn what_a_share_group_loses_is_named_with_the_group() {
    let mut bench = Bench::new(small_queue(QueueFull::DropNewest));
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "$share/g/#", 1);
    bench.cut(reader);
    let publisher = publisher(&mut bench);
    for id in 1..=3 {
        bench.publish(publisher, "t", "x", 1, id);
    }
    bench.publish(publisher, "t/0", "x", 0, 0);
    let told = [
        lost("queue_full", "$share/g/#", "t", 1),
        lost("qos0_offline", "$share/g/#", "t/0", 1),
    ];
    assert_eq!(ledger(&bench), told);
}

/// A body that the store has lost.
#[test]
fn what_cannot_be_read_back_is_counted_for_its_receiver() {
    let mut bench = Bench::default();
    absent(&mut bench, 1);
    let publisher = publisher(&mut bench);
    bench.publish(publisher, "t", "x", 1, 1);
    bench.restart(usize::MAX);
    bench.holds_commits = true;
    let reader = bench.open(Hello::durable("reader").version);
    bench.send_bytes(reader, &Hello::durable("reader").bytes());
    // CONNACK is out and the body asked for, not read.
    while bench.journal.begin_commit(usize::MAX) > 0 {
        bench.journal.end_commit();
    }
    bench.settle();
    let mailbox = bench.broker.session("reader").unwrap().mailbox().clone();
    mailbox.handle_backlog(vec![(0, None), (1, None)]);
    bench.settle();
    let told = ledger(&bench);
    let (reason, client, ..) = &told[0];
    assert_eq!((reason.as_str(), client.as_str()), ("unreadable", "reader"));
}
