//! `$SYS/broker/...`: who gets the statistics, when, and what they do not touch.

#![expect(clippy::expect_used, reason = "tests may fail by panicking")]

use motemq::config::{
    AnonymousAccess, Bind, Config, ListenerConfig, Sources, SysConfig, load_with_settings,
};
use motemq_codec::ReasonCode;
use motemq_core::{Direction, DropReason, Limits, Occasion, PacketKind};
use motemq_tests::in_process::{InProcess, no_http};
use motemq_tests::peer::{Bench, Got, Hello, Peer};
use motemq_tests::socket::Client;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

/// [MQTT5-3.3.1-9] for what nobody published.
#[test]
fn who_subscribes_gets_the_values_at_once_and_then_what_changes() {
    let mut bench = Bench::default();
    bench
        .broker
        .set_system("$SYS/broker/uptime", "1 seconds", bench.now);
    bench
        .broker
        .set_system("$SYS/broker/version", "x", bench.now);
    let reader = bench.connect(&Hello::clean("reader"));
    assert!(!bench.broker.has_system_readers());
    bench.subscribe(reader, "$SYS/#", 2);
    assert!(bench.broker.has_system_readers());
    let version = bench.take_publish(reader);
    let uptime = bench.take_publish(reader);
    assert_eq!((version.qos, version.retain), (0, true));
    let mut got = [
        (version.topic.as_str(), version.payload.as_str()),
        (uptime.topic.as_str(), uptime.payload.as_str()),
    ];
    got.sort_unstable();
    assert_eq!(
        got,
        [
            ("$SYS/broker/uptime", "1 seconds"),
            ("$SYS/broker/version", "x")
        ]
    );
    bench
        .broker
        .publish_system_value("$SYS/broker/version", "x", bench.now);
    bench
        .broker
        .publish_system_value("$SYS/broker/uptime", "2 seconds", bench.now);
    bench.settle();
    let changed = bench.take_publish(reader);
    assert_eq!(
        (changed.payload.as_str(), changed.retain),
        ("2 seconds", false)
    );
    assert_eq!(bench.payloads(reader), [""; 0]);
    bench.unsubscribe(reader, "$SYS/#");
    assert!(!bench.broker.has_system_readers());
}

/// [MQTT5-4.7.2-1]
#[test]
fn a_wildcard_at_the_start_is_not_about_the_statistics() {
    let mut bench = Bench::default();
    bench
        .broker
        .set_system("$SYS/broker/uptime", "1 seconds", bench.now);
    let reader = bench.connect(&Hello::clean("reader"));
    for filter in ["#", "+/broker/uptime", "+/#"] {
        bench.subscribe(reader, filter, 0);
    }
    bench
        .broker
        .publish_system_value("$SYS/broker/uptime", "2 seconds", bench.now);
    bench.settle();
    assert_eq!(bench.payloads(reader), [""; 0]);
    assert!(!bench.broker.has_system_readers());
}

#[test]
fn statistics_are_nobodys_retained_messages_and_end_with_the_process() {
    let mut bench = Bench::new(Limits {
        retained_messages_max: 1,
        ..Limits::default()
    });
    bench.broker.set_system("$SYS/broker/a", "1", bench.now);
    bench.broker.set_system("$SYS/broker/b", "1", bench.now);
    assert_eq!(bench.broker.retained_size(), (0, 0));
    let peer = bench.connect(&Hello::durable("peer"));
    bench.retain(peer, "t", "x", 1, 1);
    assert_eq!(
        bench.take(peer),
        Some(Got::Ack("PUBACK", 1, ReasonCode::NoMatchingSubscribers))
    );
    bench.subscribe(peer, "$SYS/#", 1);
    assert_eq!(bench.payloads(peer).len(), 2);
    bench.restart(usize::MAX);
    let peer = bench.connect(&Hello::durable("peer"));
    bench.settle();
    assert_eq!(bench.payloads(peer), [""; 0]);
    bench.subscribe(peer, "$SYS/#", 1);
    assert_eq!(bench.payloads(peer), [""; 0]);
}

#[test]
fn a_session_that_is_away_misses_them_without_counting_drops() {
    let mut bench = Bench::default();
    let reader = bench.connect(&Hello::durable("reader"));
    bench.subscribe(reader, "$SYS/#", 2);
    bench.cut(reader);
    bench
        .broker
        .publish_system_value("$SYS/broker/uptime", "2 seconds", bench.now);
    let dropped = |bench: &Bench| bench.broker.counters().dropped(DropReason::OfflineQoS0);
    assert_eq!(dropped(&bench), 0);
    let reader = bench.connect(&Hello::durable("reader"));
    bench.settle();
    assert_eq!(bench.payloads(reader), [""; 0]);
}

/// Contracts section 7: neither set, nor cleared, nor by a QoS that is not answered.
#[test]
fn nobody_writes_them() {
    let mut bench = Bench::default();
    bench
        .broker
        .set_system("$SYS/broker/uptime", "1 seconds", bench.now);
    let peer = bench.connect(&Hello::clean("peer"));
    for (id, payload) in [(1, "forged"), (2, "")] {
        bench.retain(peer, "$SYS/broker/uptime", payload, 1, id);
        let refused = Got::Ack("PUBACK", id, ReasonCode::NotAuthorized);
        assert_eq!(bench.take(peer), Some(refused));
    }
    let value = |bench: &mut Bench, peer: Peer| {
        bench.subscribe(peer, "$SYS/#", 0);
        bench.payloads(peer)
    };
    assert_eq!(value(&mut bench, peer), ["1 seconds"]);
    let quiet = bench.connect(&Hello::clean("quiet"));
    bench.retain(quiet, "$SYS/broker/uptime", "forged", 0, 0);
    let reader = bench.connect(&Hello::clean("reader"));
    assert_eq!(value(&mut bench, reader), ["1 seconds"]);
}

/// Every topic that mosquitto 2.0.11 and 2.1.2 have, but for `packet/out`, which counts packets in a buffer that this broker does not have.
const TOPICS: &str = "bytes/received bytes/sent clients/active clients/connected clients/disconnected clients/expired
    clients/inactive clients/maximum clients/total connections/socket/count heap/current heap/maximum messages/received messages/sent
    messages/stored publish/bytes/received publish/bytes/sent publish/messages/dropped publish/messages/received
    publish/messages/sent shared_subscriptions/count store/messages/bytes store/messages/count subscriptions/count uptime version";
const LOADS: &str = "bytes/received bytes/sent connections messages/received messages/sent publish/dropped publish/received
    publish/sent sockets";

#[test]
fn there_are_the_topics_of_mosquitto_in_its_formats() {
    let broker = start(SysConfig::default());
    let port = broker.address("mqtt").port();
    assert!(!broker.running().server().broker().has_system_readers());
    let mut old = Client::connect(port, &Hello::durable("gone"));
    old.publish("a", "payload", 0, 0);
    old.ping().unwrap();
    drop(old);
    let mut reader = Client::connect(port, &Hello::v3("reader", true));
    assert_eq!(reader.subscribe("$SYS/#", 2), 2);
    let values = values(&mut reader);
    let topics = TOPICS
        .split_whitespace()
        .map(|topic| format!("$SYS/broker/{topic}"));
    let retained = "$SYS/broker/retained messages/count".to_owned();
    let loads = LOADS.split_whitespace().flat_map(|load| {
        ["1min", "5min", "15min"].map(|period| format!("$SYS/broker/load/{load}/{period}"))
    });
    let mut expected: Vec<String> = topics.chain([retained]).chain(loads).collect();
    expected.sort_unstable();
    assert_eq!(values.keys().cloned().collect::<Vec<_>>(), expected);
    let value = |topic: &str| values[&format!("$SYS/broker/{topic}")].as_str();
    assert!(value("version").starts_with("MoteMQ version "));
    let (uptime, unit) = value("uptime").split_once(' ').unwrap();
    assert!(uptime.parse::<u64>().is_ok() && unit == "seconds");
    assert_eq!(value("clients/total"), "2");
    assert_eq!(value("clients/maximum"), "2");
    assert_eq!(value("publish/messages/received"), "1");
    assert_eq!(value("publish/bytes/received"), "7");
    assert_eq!(value("subscriptions/count"), "1");
    assert_eq!(value("connections/socket/count"), "2");
    assert!(value("heap/current").parse::<u64>().unwrap() > 1_000_000);
    for (topic, value) in values.iter().filter(|(topic, _)| topic.contains("/load/")) {
        let decimals = value.split_once('.').map(|(_, decimals)| decimals.len());
        assert_eq!(decimals, Some(2), "{topic} {value}");
    }
    broker.stop();
}

/// What mosquitto counts as messages: packets of every type.
#[test]
fn packets_of_every_type_are_messages_and_sessions_that_expire_are_counted() {
    let mut bench = Bench::default();
    let peer = bench.connect(&Hello::durable("peer"));
    bench.subscribe(peer, "a", 0);
    bench.publish(peer, "a", "x", 1, 1);
    assert_eq!(bench.take_all(peer).len(), 2);
    bench.cut(peer);
    let counters = bench.broker.counters();
    let all = |direction, kinds: [PacketKind; 11]| -> u64 {
        let counts = kinds.iter().map(|kind| counters.packets(direction, *kind));
        counts.sum()
    };
    // CONNECT, SUBSCRIBE, PUBLISH; CONNACK, SUBACK, PUBLISH, PUBACK.
    assert_eq!(all(Direction::In, PacketKind::IN), 3);
    assert_eq!(all(Direction::Out, PacketKind::OUT), 4);
    assert_eq!(counters.noted(Occasion::SessionExpired), 0);
    bench.pass(3_600_000);
    assert_eq!(bench.broker.counters().noted(Occasion::SessionExpired), 1);
}

#[test]
fn what_changes_comes_every_interval() {
    let config = SysConfig {
        interval_s: 1,
        client_events: false,
    };
    let broker = start(config);
    let port = broker.address("mqtt").port();
    let mut reader = Client::connect(port, &Hello::clean("reader"));
    reader.subscribe("$SYS/broker/uptime", 0);
    reader.subscribe("$SYS/broker/version", 0);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(reader.take_publish().topic);
    }
    let count = |topic: &str| seen.iter().filter(|seen| seen.ends_with(topic)).count();
    assert_eq!((count("version"), count("uptime")), (1, 3));
    broker.stop();
}

#[test]
fn with_an_interval_of_zero_there_is_nothing() {
    let config = SysConfig {
        interval_s: 0,
        client_events: false,
    };
    let broker = start(config);
    let port = broker.address("mqtt").port();
    let mut reader = Client::connect(port, &Hello::clean("reader"));
    assert_eq!(reader.subscribe("$SYS/#", 0), 0);
    assert_eq!(reader.ping(), Some(Vec::new()));
    broker.stop();
}

#[test]
fn clients_that_come_and_go_are_events_for_who_wishes_them() {
    let config = SysConfig {
        interval_s: 0,
        client_events: true,
    };
    let broker = start(config);
    let port = broker.address("mqtt").port();
    let mut reader = Client::connect(port, &Hello::clean("reader"));
    reader.subscribe("$SYS/broker/clients/+/+", 0);
    let client = Client::connect(port, &Hello::v3("a/b", true));
    let connected = reader.take_publish();
    assert_eq!(connected.topic, "$SYS/broker/clients/a%2Fb/connected");
    assert!(!connected.retain);
    let event: serde_json::Value = serde_json::from_str(&connected.payload).unwrap();
    assert_eq!(event["client_id"], "a/b");
    assert_eq!(event["user"], serde_json::Value::Null);
    assert_eq!(
        (&event["listener"], &event["version"]),
        (&"mqtt".into(), &4.into())
    );
    assert!(event["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(event["at_ms"].as_u64().unwrap() > 1_700_000_000_000);
    drop(client);
    let gone = reader.take_publish();
    assert_eq!(gone.topic, "$SYS/broker/clients/a%2Fb/disconnected");
    let event: serde_json::Value = serde_json::from_str(&gone.payload).unwrap();
    assert!(event["reason"].is_string(), "{event}");
    broker.stop();
}

#[test]
fn with_access_rules_only_a_line_that_names_them_lets_them_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "[everyone]\nallow all #\n[client admin]\nallow subscribe $SYS/#\n";
    std::fs::write(folder.path().join("acl"), rules).unwrap();
    let file = folder.path().join("motemq.toml");
    let text = "data_dir = \"\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
        [auth]\nacl_file = \"acl\"\n[http]\nbind = \"\"\n";
    std::fs::write(&file, text).unwrap();
    let sources = Sources {
        file: Some(&file),
        ..Sources::default()
    };
    let broker = InProcess::start(load_with_settings(&sources).unwrap().0);
    let port = broker.address("mqtt").port();
    let mut other = Client::connect(port, &Hello::clean("other"));
    for filter in ["$SYS/#", "$SYS/broker/uptime", "$share/g/$SYS/#"] {
        assert_eq!(other.subscribe(filter, 0), 0x87, "{filter}");
    }
    let mut admin = Client::connect(port, &Hello::clean("admin"));
    assert_eq!(admin.subscribe("$SYS/#", 0), 0);
    assert!(values(&mut admin).len() > 50);
    broker.stop();
}

/// What waits for a client that has subscribed, by topic.
fn values(client: &mut Client) -> BTreeMap<String, String> {
    let got = client.ping().expect("an open connection").into_iter();
    let publishes = got.filter_map(|got| match got {
        Got::Publish(publish) => Some((publish.topic, publish.payload)),
        _ => None,
    });
    publishes.collect()
}

fn start(sys: SysConfig) -> InProcess {
    InProcess::start(Config {
        data_dir: None,
        listeners: vec![ListenerConfig {
            bind: Bind::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            anonymous: AnonymousAccess::Allowed,
            ..ListenerConfig::default()
        }],
        http: no_http(),
        sys,
        ..Config::default()
    })
}
