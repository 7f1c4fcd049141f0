//! How much one client, one identity and one listener may use, one small script each, in virtual time.

use motemq_codec::{ProtocolVersion, ReasonCode};
use motemq_core::{
    Close, DropReason, Identity, LimitSet, Limits, PressureLevel, Profile, RateFull, RateLimit,
    SharedRate, Verdict, Violation,
};
use motemq_tests::peer::{Bench, Got, Hello, Peer, options, subscribe};
use std::sync::Arc;

const V5: ProtocolVersion = ProtocolVersion::V5;
const REFUSED: ReasonCode = ReasonCode::QuotaExceeded;

fn user(name: &str) -> Verdict {
    Verdict::Accepted {
        login: Identity::User(name.into()).into(),
        entropy: 1,
    }
}

fn messages(messages: u32) -> RateLimit {
    RateLimit { messages, bytes: 0 }
}

/// A reader of everything, and a publisher.
fn pair(bench: &mut Bench) -> (Peer, Peer) {
    let reader = bench.connect(&Hello::clean("reader"));
    bench.subscribe(reader, "#", 1);
    (reader, bench.connect(&Hello::clean("publisher")))
}

/// Ten messages a second, policy `delay`: what is more waits, in order, and nothing of it is lost.
#[test]
fn a_publisher_above_its_rate_is_read_later() {
    let mut bench = Bench::new(Limits {
        publish_rate: messages(10),
        ..Limits::default()
    });
    let (reader, publisher) = pair(&mut bench);
    let all: Vec<String> = (1..=40).map(|id| id.to_string()).collect();
    for (id, payload) in (1..).zip(&all) {
        bench.publish(publisher, "t", payload, 1, id);
    }
    let mut received = bench.payloads(reader);
    // A second's worth, and the one that used it up.
    assert_eq!(received, all[..11]);
    for tenths in 1..=29 {
        bench.pass(100);
        received.extend(bench.payloads(reader));
        assert_eq!(received.len(), 11 + tenths, "{tenths}");
    }
    assert_eq!(received, all);
    assert_eq!(bench.closed(publisher), None);
}

/// A client that is not read is not silent: its keep-alive does not run.
#[test]
fn a_publisher_that_waits_is_not_ended_for_silence() {
    let mut bench = Bench::new(Limits {
        publish_rate: RateLimit {
            messages: 0,
            bytes: 10,
        },
        ..Limits::default()
    });
    let publisher = bench.connect(&Hello {
        keep_alive_s: 2,
        ..Hello::clean("publisher")
    });
    // With the topic 100 bytes, and a second message that waits until they are paid for, after 9 seconds.
    bench.publish(publisher, "t", &"x".repeat(99), 0, 0);
    bench.publish(publisher, "t", "", 0, 0);
    bench.pass(8_900);
    assert_eq!(bench.closed(publisher), None);
    // Then it is heard, and silent.
    bench.pass(2_900);
    assert_eq!(bench.closed(publisher), None);
    bench.pass(400);
    let silent = Close::Violation(Violation::KeepAliveTimeout);
    assert_eq!(bench.closed(publisher), Some(silent));
}

/// Policy `drop-qos0`: QoS 0 above the rate is dropped and counted, QoS 1 waits.
#[test]
fn qos_0_above_the_rate_is_dropped_where_the_policy_says_so() {
    let mut bench = Bench::new(Limits {
        publish_rate: messages(2),
        publish_rate_full: RateFull::DropQoS0,
        ..Limits::default()
    });
    let (reader, publisher) = pair(&mut bench);
    for payload in ["1", "2", "3", "4", "5"] {
        bench.publish(publisher, "t", payload, 0, 0);
    }
    assert_eq!(bench.payloads(reader), ["1", "2", "3"]);
    bench.publish(publisher, "t", "6", 1, 6);
    bench.publish(publisher, "t", "7", 1, 7);
    assert!(bench.payloads(reader).is_empty());
    bench.pass(600);
    assert_eq!(bench.payloads(reader), ["6"]);
    bench.pass(500);
    assert_eq!(bench.payloads(reader), ["7"]);
    bench.cut(publisher);
    let counters = bench.broker.counters();
    assert_eq!(counters.dropped(DropReason::RateExceeded), 2);
}

/// Policy `disconnect`: DISCONNECT with 0x96.
#[test]
fn a_publisher_above_its_rate_is_thrown_out_where_the_policy_says_so() {
    let mut bench = Bench::new(Limits {
        publish_rate: messages(2),
        publish_rate_full: RateFull::Disconnect,
        ..Limits::default()
    });
    let (reader, publisher) = pair(&mut bench);
    for payload in ["1", "2", "3", "4"] {
        bench.publish(publisher, "t", payload, 0, 0);
    }
    let told = Got::Disconnect(ReasonCode::MessageRateTooHigh);
    assert_eq!(bench.take_all(publisher), [told]);
    assert_eq!(bench.payloads(reader), ["1", "2", "3"]);
}

/// A rate of an identity is for all its clients together, a rate of a listener for all of those; others have their own.
#[test]
fn clients_of_one_identity_share_its_rate() {
    let mut bench = Bench::new(Limits {
        identity_publish_rate: messages(10),
        ..Limits::default()
    });
    let (reader, anonymous) = pair(&mut bench);
    bench.verdict = user("u");
    let twins = ["a", "b"].map(|id| bench.connect(&Hello::clean(id)));
    for round in 0..20 {
        for twin in twins {
            bench.publish(twin, "t", &round.to_string(), 0, 0);
        }
    }
    // One more may be on its way on each connection.
    let together = bench.payloads(reader).len();
    assert!((11..=12).contains(&together), "{together}");
    for _ in 0..20 {
        bench.publish(anonymous, "t", "x", 0, 0);
    }
    assert_eq!(bench.payloads(reader).len(), 20);
}

#[test]
fn clients_of_one_listener_share_its_rate() {
    let mut bench = Bench::default();
    let (reader, free) = pair(&mut bench);
    bench.publish_rate = Some(Arc::new(SharedRate::new(messages(10))));
    let twins = ["a", "b"].map(|id| bench.connect(&Hello::clean(id)));
    for _ in 0..20 {
        for twin in twins {
            bench.publish(twin, "t", "x", 0, 0);
        }
        bench.publish(free, "t", "free", 0, 0);
    }
    let received = bench.payloads(reader);
    let together = received.iter().filter(|payload| *payload == "x").count();
    assert!((11..=12).contains(&together), "{together}");
    assert_eq!(received.len() - together, 20);
}

/// At `sessions_max` a new session is refused and an old one taken up.
#[test]
fn sessions_end_at_their_limit_and_old_ones_go_on() {
    let mut bench = Bench::new(Limits {
        sessions_max: 2,
        ..Limits::default()
    });
    let a = bench.connect(&Hello::durable("a"));
    bench.connect(&Hello::clean("b"));
    let c = bench.open(V5);
    bench.send_bytes(c, &Hello::clean("c").bytes());
    assert_eq!(bench.take(c), Some(Got::ConnAck(false, REFUSED)));
    bench.cut(a);
    assert!(bench.connect_for(&Hello::durable("a")).1);
    // A new session in the place of the old one is no more than before.
    assert!(!bench.connect_for(&Hello::clean("a")).1);
}

/// Sessions and connections of an identity: a take-over needs no other connection, an end makes room, a reload counts anew.
#[test]
fn an_identity_has_so_many_sessions_and_connections() {
    let mut bench = Bench::default();
    bench.verdict = user("u");
    let a = bench.connect(&Hello::durable("a"));
    let limits = Limits {
        identity_sessions_max: 2,
        identity_connections_max: 1,
        ..Limits::default()
    };
    bench.broker.set_limits(Arc::new(limits));
    let try_connect = |bench: &mut Bench, id: &str| {
        let new = bench.open(V5);
        bench.send_bytes(new, &Hello::durable(id).bytes());
        match bench.take(new) {
            Some(Got::ConnAck(_, code)) => (new, code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(try_connect(&mut bench, "b").1, REFUSED);
    let (a_again, code) = try_connect(&mut bench, "a");
    assert_eq!(code, ReasonCode::Success);
    assert_eq!(bench.closed(a), Some(Close::TakenOver));
    bench.cut(a);
    assert_eq!(
        try_connect(&mut bench, "b").1,
        REFUSED,
        "a is connected still"
    );
    bench.cut(a_again);
    let (b, code) = try_connect(&mut bench, "b");
    assert_eq!(code, ReasonCode::Success);
    bench.cut(b);
    assert_eq!(try_connect(&mut bench, "c").1, REFUSED, "two sessions");
    bench.verdict = user("other");
    assert_eq!(try_connect(&mut bench, "d").1, ReasonCode::Success);
}

/// What a client may retain counts what it published last: to replace or clear a message makes room, for whoever had it.
#[test]
fn a_client_retains_so_much() {
    let mut bench = Bench::new(Limits {
        client_retained_messages_max: 2,
        ..Limits::default()
    });
    let [a, b] = ["a", "b"].map(|id| bench.connect(&Hello::clean(id)));
    let mut retain = |peer: Peer, topic: &str, payload: &str| {
        bench.retain(peer, topic, payload, 1, 1);
        match bench.take(peer) {
            Some(Got::Ack("PUBACK", 1, code)) => !code.is_error(),
            other => panic!("{other:?}"),
        }
    };
    assert!(retain(a, "1", "x") && retain(a, "2", "x"));
    assert!(!retain(a, "3", "x"));
    assert!(retain(a, "2", "y"), "it is its own");
    assert!(retain(b, "2", "z"), "it is b's now");
    assert!(retain(a, "3", "x"));
    assert!(!retain(a, "4", "x"));
    assert!(retain(b, "1", ""));
    assert!(retain(a, "4", "x"));
}

/// Filters are counted by their bytes too; those that go make room.
#[test]
fn filters_of_a_client_have_so_many_bytes() {
    let mut bench = Bench::new(Limits {
        subscription_bytes_max: 10,
        ..Limits::default()
    });
    let peer = bench.connect(&Hello::clean("a"));
    let filters = ["aaaaa", "bbbbb", "c", "aaaaa"].map(|filter| (filter, options(0)));
    bench.send(peer, &subscribe(1, &filters, None));
    let codes = vec![0, 0, REFUSED as u8, 0];
    assert_eq!(bench.take(peer), Some(Got::SubAck(1, codes)));
    bench.unsubscribe(peer, "aaaaa");
    bench.subscribe(peer, "c", 0);
}

/// A profile holds for the clients that it is for, by listener, user and client identifier, from their CONNECT on; for queues at once.
#[test]
fn some_clients_have_limits_of_their_own() {
    let mut bench = Bench::default();
    let own = Arc::new(Limits {
        payload_bytes_max: 10,
        subscriptions_max: 1,
        queue_messages_max: 2,
        session_expiry_max_s: 60,
        ..Limits::default()
    });
    let set = |queue_messages_max: usize| {
        let limits = Limits {
            queue_messages_max,
            ..(*own).clone()
        };
        LimitSet {
            common: Arc::new(Limits::default()),
            profiles: vec![Profile::new(["lan"], ["meter-*"], ["m*"], Arc::new(limits))],
        }
    };
    bench.broker.set_limits(set(2));
    let mut fits = |listener: &str, verdict: Verdict, id: &str| {
        bench.listener = Some(listener.into());
        bench.verdict = verdict;
        let peer = bench.connect(&Hello::durable(id));
        let filters = ["a", "b"].map(|filter| (filter, options(1)));
        bench.send(peer, &subscribe(1, &filters, None));
        let subscribed = bench.take(peer);
        bench.publish(peer, "t", &"x".repeat(11), 1, 1);
        let published = bench.take(peer);
        bench.cut(peer);
        let is_refused = subscribed == Some(Got::SubAck(1, vec![1, REFUSED as u8]));
        assert_eq!(
            is_refused,
            published == Some(Got::Ack("PUBACK", 1, REFUSED))
        );
        !is_refused
    };
    assert!(!fits("lan", user("meter-7"), "m1"));
    assert!(fits("wan", user("meter-7"), "m2"));
    assert!(fits("lan", user("operator"), "m3"));
    assert!(fits("lan", user("meter-7"), "x"));
    let queued = |bench: &mut Bench| {
        let publisher = bench.connect(&Hello::clean("publisher"));
        for id in 1..=9 {
            bench.publish(publisher, "a", "x", 1, id);
        }
        bench.cut(publisher);
        let session = bench.broker.session("m1").unwrap();
        session.mailbox().depth().0
    };
    assert_eq!(queued(&mut bench), 2);
    bench.broker.set_limits(set(4));
    assert_eq!(queued(&mut bench), 4);
    bench.broker.set_limits(Arc::new(Limits::default()));
    assert_eq!(queued(&mut bench), 13);
}

/// While memory is short: first those who send most wait, then new clients are refused with 0x89, then QoS 0 is dropped.
#[test]
fn memory_pressure_holds_back_in_this_order() {
    let mut bench = Bench::default();
    let (reader, light) = pair(&mut bench);
    let heavy = bench.connect(&Hello::clean("heavy"));
    let publish = |bench: &mut Bench, peer, count, payload: &str| {
        for _ in 0..count {
            bench.publish(peer, "t", payload, 0, 0);
        }
        bench.payloads(reader).len()
    };
    let large = "x".repeat(1000);
    bench
        .broker
        .pressure()
        .set(PressureLevel::SlowPublishers, 2000);
    assert_eq!(publish(&mut bench, light, 10, "x"), 10);
    let taken = publish(&mut bench, heavy, 10, &large);
    assert!((2..=3).contains(&taken), "{taken}");
    bench.connect(&Hello::clean("new"));

    bench
        .broker
        .pressure()
        .set(PressureLevel::RefuseConnections, 2000);
    let new = bench.open(V5);
    bench.send_bytes(new, &Hello::clean("newer").bytes());
    let busy = Got::ConnAck(false, ReasonCode::ServerBusy);
    assert_eq!(bench.take(new), Some(busy));
    assert_eq!(publish(&mut bench, light, 10, "x"), 10);

    bench.broker.pressure().set(PressureLevel::DropQoS0, 2000);
    assert_eq!(publish(&mut bench, light, 10, "x"), 0);
    // What would have to be kept is refused where the version can say so.
    bench.publish(light, "t", "x", 1, 1);
    assert_eq!(bench.take(light), Some(Got::Ack("PUBACK", 1, REFUSED)));
    assert!(bench.payloads(reader).is_empty());

    bench.broker.pressure().set(PressureLevel::None, 0);
    bench.pass(1000);
    let waited = bench.payloads(reader).len() as u64;
    assert_eq!(waited + taken as u64, 10, "what waited is not lost");
    assert_eq!(publish(&mut bench, light, 1, "x"), 1);
    assert_eq!(bench.closed(heavy), None);
    bench.cut(light);
    let counters = bench.broker.counters();
    assert_eq!(counters.dropped(DropReason::MemoryFull), 10);
}

/// A rate that several share is not overdrawn by newcomers: their first message waits as everybody's next one does, and what one
/// message overdraws holds the others up for two seconds at most.
#[test]
fn a_shared_rate_is_not_overdrawn_by_those_who_come_and_go() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::clean("reader"));
    bench.subscribe(reader, "#", 0);
    let rate = RateLimit {
        messages: 0,
        bytes: 1000,
    };
    bench.publish_rate = Some(Arc::new(SharedRate::new(rate)));
    for number in 0..20 {
        let guest = bench.connect(&Hello::clean(&format!("guest-{number}")));
        bench.publish(guest, "t", &"x".repeat(50_000), 0, 0);
        bench.cut(guest);
    }
    assert_eq!(bench.payloads(reader).len(), 1);
    let victim = bench.connect(&Hello::clean("victim"));
    bench.publish(victim, "t", "here", 0, 0);
    // It is read for everything else.
    bench.pass(2_100);
    assert_eq!(bench.payloads(reader), ["here"]);
}

/// However often a filter stands in SUBSCRIBE packets, its retained messages are sent once for those that wait.
#[test]
fn a_filter_that_is_subscribed_again_and_again_replays_once() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::clean("a"));
    for topic in ["1", "2", "3"] {
        bench.retain(peer, topic, "x", 0, 0);
    }
    let filters = vec![("#", options(0)); 1000];
    bench.send(peer, &subscribe(1, &filters, None));
    assert_eq!(bench.take(peer), Some(Got::SubAck(1, vec![0; 1000])));
    assert_eq!(bench.payloads(peer).len(), 3);
}
