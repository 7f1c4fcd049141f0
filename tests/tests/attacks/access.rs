//! B2 to B6, and A9 under an ACL: what may be published, subscribed to and delivered, on every way and after every change.
//!
//! These brokers run in this process, because their access rules change while they run.

use motemq::config::Sources;
use motemq::reload::Reloader;
use motemq::server;
use motemq_codec::{AckKind, Forwarded, Packet, ProtocolVersion, QoS, ReasonCode, Will};
use motemq_core::Occasion;
use motemq_tests::in_process::InProcess;
use motemq_tests::peer::{Got, Hello, publish};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized as u8;

#[test]
fn b2_a_will_that_may_not_be_published_is_refused_at_connect() {
    let site = Site::start(
        "[everyone]\nallow publish wills/%c\nallow publish plain qos=0 retain=no\nallow subscribe #",
    );
    let first = Client::connect(site.port(), &Hello::clean("victim"));
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        for (topic, qos, retain, is_allowed) in [
            ("wills/victim", QoS::AtLeastOnce, true, true),
            ("wills/other", QoS::AtMostOnce, false, false),
            ("wills", QoS::AtMostOnce, false, false),
            ("plain", QoS::AtMostOnce, false, true),
            ("plain", QoS::AtLeastOnce, false, false),
            ("plain", QoS::AtMostOnce, true, false),
            ("$SYS/x", QoS::AtMostOnce, false, false),
        ] {
            let hello = Hello {
                version,
                will: Some(will(topic, qos, retain)),
                ..Hello::clean("victim")
            };
            let mut client = Client::open(site.port(), version);
            client.send_bytes(&hello.bytes());
            match client.take() {
                Some(Got::ConnAck(_, ReasonCode::Success)) => assert!(is_allowed, "{topic}"),
                Some(Got::ConnAck(_, _)) => {
                    assert!(!is_allowed, "{topic}");
                    client.await_end();
                }
                other => panic!("{other:?} for a will to {topic}"),
            }
        }
    }
    drop(first);
    site.stop();
}

#[test]
fn b2_a_refused_will_disturbs_nobody() {
    let site = Site::start("[everyone]\nallow all own/#");
    let mut first = Client::connect(site.port(), &Hello::durable("victim"));
    assert_eq!(first.subscribe("own/#", 1), 1);
    let mut second = Client::open(site.port(), ProtocolVersion::V5);
    let hello = Hello {
        will: Some(will("forbidden", QoS::AtMostOnce, false)),
        ..Hello::clean("victim")
    };
    second.send_bytes(&hello.bytes());
    assert_eq!(
        second.take(),
        Some(Got::ConnAck(false, ReasonCode::NotAuthorized))
    );
    first.publish("own/x", "there", 1, 1);
    let got = [first.take(), first.take()];
    assert!(
        got.iter().any(|got| matches!(got, Some(Got::Publish(_)))),
        "{got:?}"
    );
    site.stop();
}

#[test]
fn b2_a_will_whose_right_was_revoked_is_not_published() {
    let rules = "[everyone]\nallow subscribe wills/#\nallow publish wills/%c\n";
    let mut site = Site::start(rules);
    let mut watcher = Client::connect(site.port(), &Hello::clean("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 0), 0);
    for (name, is_revoked) in [("kept", false), ("revoked", true)] {
        let topic = format!("wills/{name}");
        let hello = Hello {
            will: Some(will(&topic, QoS::AtMostOnce, true)),
            ..Hello::clean(name)
        };
        let client = Client::connect(site.port(), &hello);
        if is_revoked {
            site.change(&format!("{rules}deny publish wills/revoked\n"));
        }
        drop(client);
        if is_revoked {
            let counters = site.broker.running().server().broker().counters();
            site.await_that(|| counters.noted(Occasion::WillDenied) == 1);
            assert_eq!(watcher.ping(), Some(Vec::new()));
        } else {
            assert_eq!(watcher.take_publish().topic, topic);
        }
    }
    site.stop();
}

#[test]
fn b3_a_specific_deny_holds_for_live_retained_and_queued_messages() {
    let site = Site::start(
        "[client boss]\nallow all #\n[client reader]\nallow subscribe #\ndeny subscribe secret/#\ndeny subscribe +/secret\n",
    );
    let mut boss = Client::connect(site.port(), &Hello::clean("boss"));
    let mut reader = Client::connect(site.port(), &Hello::durable("reader"));
    let topics = ["secret", "secret/a", "b/secret", "c", "b/c"];
    // Retained.
    for topic in topics {
        retain(&mut boss, topic, "retained");
    }
    assert_eq!(reader.subscribe("#", 1), 1);
    assert_eq!(topics_of(&mut reader), ["b/c", "c"]);
    // Live, at every QoS.
    for qos in 0..3 {
        for topic in topics {
            send(&mut boss, topic, qos);
        }
        assert_eq!(topics_of(&mut reader), ["b/c", "c"], "QoS {qos}");
    }
    // Queued.
    drop(reader);
    site.await_connected(1);
    for topic in topics {
        send(&mut boss, topic, 1);
    }
    let (mut reader, is_present) = Client::connect_for(site.port(), &Hello::durable("reader"));
    assert!(is_present);
    assert_eq!(topics_of(&mut reader), ["b/c", "c"]);
    // A filter for nothing but what is denied is refused.
    for filter in ["secret/#", "secret/a", "secret/+", "a/secret", "+/secret"] {
        assert_eq!(reader.subscribe(filter, 1), NOT_AUTHORIZED, "{filter}");
    }
    site.stop();
}

#[test]
fn b3_a_right_revoked_on_a_live_session_ends_its_deliveries_at_once() {
    let rules = "[client boss]\nallow all #\n[client reader]\n";
    let mut site = Site::start(&format!("{rules}allow subscribe a/#\n"));
    let mut boss = Client::connect(site.port(), &Hello::clean("boss"));
    let mut reader = Client::connect(site.port(), &Hello::durable("reader"));
    assert_eq!(reader.subscribe("a/#", 1), 1);
    for qos in 0..3 {
        site.change(&format!("{rules}allow subscribe b/#\n"));
        send(&mut boss, "a/x", qos);
        assert_eq!(topics_of(&mut reader), [""; 0], "QoS {qos}");
        // The subscription was not given up: who may again gets what comes from then on.
        site.change(&format!("{rules}allow subscribe a/#\n"));
        send(&mut boss, "a/x", qos);
        assert_eq!(topics_of(&mut reader), ["a/x"], "QoS {qos}");
    }
    site.stop();
}

#[test]
fn b3_a_right_revoked_while_the_client_is_away_holds_for_queued_and_in_flight_messages() {
    let rules = "[client boss]\nallow all #\n[client reader]\n";
    for qos in [1, 2] {
        let mut site = Site::start(&format!("{rules}allow subscribe #\n"));
        let mut boss = Client::connect(site.port(), &Hello::clean("boss"));
        let mut reader = Client::connect(site.port(), &Hello::durable("reader"));
        assert_eq!(reader.subscribe("#", qos), qos);
        send(&mut boss, "a/in-flight", qos);
        send(&mut boss, "b/in-flight", qos);
        // Received and not acknowledged.
        assert_eq!(reader.take_publish().topic, "a/in-flight");
        assert_eq!(reader.take_publish().topic, "b/in-flight");
        drop(reader);
        site.await_connected(1);
        send(&mut boss, "a/queued", qos);
        send(&mut boss, "b/queued", qos);
        site.change(&format!("{rules}allow subscribe b/#\n"));
        let (mut reader, is_present) = Client::connect_for(site.port(), &Hello::durable("reader"));
        assert!(is_present);
        assert_eq!(
            topics_of(&mut reader),
            ["b/in-flight", "b/queued"],
            "QoS {qos}"
        );
        // Nothing is left that would come when the right does.
        site.change(&format!("{rules}allow subscribe #\n"));
        assert_eq!(topics_of(&mut reader), [""; 0]);
        send(&mut boss, "a/new", qos);
        assert_eq!(topics_of(&mut reader), ["a/new"]);
        site.stop();
    }
}

#[test]
fn b3_a_publisher_whose_right_was_revoked_is_refused_at_once() {
    let mut site = Site::start("[everyone]\nallow all a/#\n");
    let mut client = Client::connect(site.port(), &Hello::clean("c"));
    assert_eq!(
        publish_code(&mut client, "a/x"),
        ReasonCode::NoMatchingSubscribers
    );
    site.change("[everyone]\nallow all b/#\n");
    assert_eq!(publish_code(&mut client, "a/x"), ReasonCode::NotAuthorized);
    site.change("[everyone]\nallow all a/#\n");
    assert_eq!(
        publish_code(&mut client, "a/x"),
        ReasonCode::NoMatchingSubscribers
    );
    site.stop();
}

#[test]
fn b3_a_shared_subscription_is_left_when_its_right_is_revoked() {
    let rules = "[client boss]\nallow all #\n[client one]\nallow subscribe jobs/#\n[client two]\nallow subscribe jobs/#\n";
    let mut site = Site::start(rules);
    let mut boss = Client::connect(site.port(), &Hello::clean("boss"));
    let [mut one, mut two] = ["one", "two"].map(|name| {
        let mut client = Client::connect(site.port(), &Hello::durable(name));
        assert_eq!(client.subscribe("$share/g/jobs/#", 1), 1);
        client
    });
    // What the other may not have would be lost to this one.
    site.change(&format!("{rules}deny subscribe jobs/secret\n"));
    for _ in 0..10 {
        send(&mut boss, "jobs/secret", 1);
    }
    assert_eq!(topics_of(&mut one).len(), 10);
    assert_eq!(topics_of(&mut two), [""; 0]);
    assert_eq!(two.subscribe("$share/g/jobs/#", 1), NOT_AUTHORIZED);
    assert_eq!(two.subscribe("$share/g/jobs/other", 1), 1);
    site.stop();
}

#[test]
fn b4_a_client_id_with_wildcards_or_levels_is_nobody() {
    let site = Site::start(
        "[everyone]\nallow all devices/%c/#\nallow all %c/x\n[client boss]\nallow publish devices/#\n",
    );
    for id in ["#", "+", "a/b", "a+", ".*", "$SYS", "good"] {
        let mut client = Client::connect(site.port(), &Hello::clean(id));
        let is_name = matches!(id, ".*" | "$SYS" | "good");
        for topic in ["devices/victim/up", "devices/a/b/up", "a/x", "devices"] {
            assert_eq!(
                publish_code(&mut client, topic),
                ReasonCode::NotAuthorized,
                "{id} {topic}"
            );
        }
        for filter in [
            "devices/#",
            "devices/+/up",
            "devices/victim/#",
            "#",
            "+/x",
            "$SYS/x",
        ] {
            assert_eq!(client.subscribe(filter, 1), NOT_AUTHORIZED, "{id} {filter}");
        }
        let own = format!("devices/{id}/up").replace(['+', '#'], "x");
        let code = publish_code(&mut client, &own);
        assert_eq!(code == ReasonCode::NoMatchingSubscribers, is_name, "{id}");
    }
    site.stop();
}

#[test]
fn b5_a_broker_does_not_start_with_rules_that_it_cannot_use() {
    let good = "[everyone]\nallow all #\n";
    for broken in [
        "",
        "# nothing\n",
        "[everyone]\n",
        "[everyone]\nallow everything\n",
        "topic #\n",
    ] {
        let site = Files::new(broken);
        assert!(site.start().is_err(), "{broken:?}");
    }
    let site = Files::new(good);
    std::fs::remove_file(site.path("acl.conf")).unwrap();
    assert!(site.start().is_err(), "absent");
    let site = Files::new(good);
    let mode = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(site.path("acl.conf"), mode).unwrap();
    assert!(site.start().is_err(), "writable by everybody");
    let site = Files::new(good);
    site.configure("acl_file = \"acl.conf\"\nmosquitto_acl_file = \"acl.conf\"\n");
    assert!(site.start().is_err(), "two files");
    assert!(Files::new(good).start().is_ok());
}

#[test]
fn b5_a_reload_with_rules_that_it_cannot_use_keeps_the_old_ones() {
    let rules = "[everyone]\nallow all a/#\n";
    let mut site = Site::start(rules);
    let mut client = Client::connect(site.port(), &Hello::clean("c"));
    for broken in [
        "",
        "# nothing\n",
        "[everyone]\n",
        "[everyone]\nallow all #\nalow all b\n",
    ] {
        std::fs::write(site.files.path("acl.conf"), broken).unwrap();
        assert!(!site.reload(), "{broken:?}");
        assert!(!site.broker.running().server().is_reloaded());
        assert_eq!(
            publish_code(&mut client, "a/x"),
            ReasonCode::NoMatchingSubscribers
        );
        assert_eq!(publish_code(&mut client, "b/x"), ReasonCode::NotAuthorized);
        assert_eq!(client.subscribe("#", 0), NOT_AUTHORIZED);
    }
    std::fs::remove_file(site.files.path("acl.conf")).unwrap();
    assert!(!site.reload());
    assert_eq!(publish_code(&mut client, "b/x"), ReasonCode::NotAuthorized);
    site.stop();
}

#[test]
fn b6_a_filter_broader_than_what_is_allowed_is_refused() {
    let site = Site::start(
        "[everyone]\nallow subscribe home/kitchen/#\nallow subscribe home/+/light qos<=1\nallow subscribe caf\u{E9}\n",
    );
    let mut client = Client::connect(site.port(), &Hello::clean("c"));
    for filter in [
        "#",
        "+/#",
        "/#",
        "home/#",
        "home/+/#",
        "home/+/+",
        "+/kitchen/x",
        "HOME/kitchen/x",
        "Home/Kitchen/#",
        "home/kitchen /x",
        "/home/kitchen/x",
        "home//light/",
        "cafe\u{301}",
        "$SYS/#",
        "$share/g/#",
        "$share/g/home/#",
    ] {
        assert_eq!(client.subscribe(filter, 2), NOT_AUTHORIZED, "{filter}");
    }
    for (filter, granted) in [
        ("home/kitchen", 2),
        ("home/kitchen/#", 2),
        ("home/kitchen/+/x", 2),
        ("home/kitchen/light", 2),
        ("home/+/light", 1),
        ("home//light", 1),
        ("caf\u{E9}", 2),
        ("$share/g/home/kitchen/#", 2),
    ] {
        assert_eq!(client.subscribe(filter, 2), granted, "{filter}");
    }
    // 3.1.1 knows one code for all of it.
    let mut old = Client::connect(site.port(), &Hello::v3("old", true));
    assert_eq!(old.subscribe("#", 2), 0x80);
    assert_eq!(old.subscribe("home/kitchen/#", 2), 2);
    site.stop();
}

#[test]
fn a9_dollar_topics_need_a_rule_of_their_own_and_are_never_written() {
    let site = Site::start(
        "[everyone]\nallow all #\nallow all +/#\n[client admin]\nallow all $SYS/#\nallow all $x/#\n",
    );
    let mut client = Client::connect(site.port(), &Hello::clean("c"));
    let mut admin = Client::connect(site.port(), &Hello::clean("admin"));
    for filter in ["$SYS/#", "$SYS/broker/uptime", "$x/#", "$CONTROL/x"] {
        assert!(client.subscribe(filter, 0) >= 0x80, "{filter}");
    }
    assert_eq!(admin.subscribe("$SYS/#", 0), 0);
    assert_eq!(client.subscribe("#", 0), 0);
    for topic in ["$SYS/x", "$x/y", "$CONTROL/x", "$share/g/x"] {
        for client in [&mut client, &mut admin] {
            assert_eq!(
                publish_code(client, topic),
                ReasonCode::NotAuthorized,
                "{topic}"
            );
        }
    }
    assert_eq!(client.ping(), Some(Vec::new()));
    site.stop();
}

/// The files of a broker with access rules.
struct Files(TempDir);

impl Files {
    fn new(rules: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path("acl.conf"), rules).unwrap();
        files.configure("acl_file = \"acl.conf\"\n");
        files
    }

    fn configure(&self, auth: &str) {
        let configuration = format!(
            "data_dir = \"data\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
             [auth]\n{auth}[http]\nbind = \"\"\n"
        );
        std::fs::write(self.path("motemq.toml"), configuration).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a broker that ends at once.
    fn start(&self) -> Result<(), server::StartError> {
        let file = self.path("motemq.toml");
        let sources = Sources {
            file: Some(&file),
            ..Sources::default()
        };
        let config = motemq::config::load(&sources).unwrap();
        let checked = server::check(&config);
        let runtime = motemq::runtime::build().unwrap();
        let started = runtime.block_on(async {
            server::start(config).await?.stop().await;
            Ok(())
        });
        assert_eq!(checked.is_ok(), started.is_ok());
        started
    }
}

/// A broker with access rules that can be changed.
struct Site {
    broker: InProcess,
    reloader: Reloader,
    files: Files,
}

impl Site {
    fn start(rules: &str) -> Self {
        let files = Files::new(rules);
        let (broker, reloader) = InProcess::from_file(&files.path("motemq.toml"));
        Self {
            broker,
            reloader,
            files,
        }
    }

    fn port(&self) -> u16 {
        self.broker.address("mqtt").port()
    }

    fn change(&mut self, rules: &str) {
        std::fs::write(self.files.path("acl.conf"), rules).unwrap();
        assert!(self.reload());
    }

    fn reload(&mut self) -> bool {
        let server = self.broker.running().server().clone();
        self.reloader.reload(&server)
    }

    fn await_connected(&self, count: usize) {
        let broker = self.broker.running().server().broker();
        self.await_that(|| broker.session_totals().connected == count);
    }

    fn await_that(&self, is_so: impl Fn() -> bool) {
        let watch = Stopwatch::start();
        while !is_so() {
            assert!(watch.elapsed() < PATIENCE, "it does not come to that");
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        self.broker.stop();
    }
}

fn will(topic: &str, qos: QoS, retain: bool) -> Will<'_> {
    Will {
        qos,
        retain,
        topic,
        payload: b"gone",
        delay_s: 0,
        message_expiry_s: None,
        forwarded: Forwarded::default(),
    }
}

/// Publishes and waits until the broker has it.
fn send(client: &mut Client, topic: &str, qos: u8) {
    client.publish(topic, "m", qos, 5);
    settle(client, qos);
}

fn retain(client: &mut Client, topic: &str, payload: &str) {
    let Packet::Publish(mut packet) = publish(topic, payload, 1, 5) else {
        panic!("no PUBLISH");
    };
    packet.retain = true;
    client.send(&Packet::Publish(packet));
    settle(client, 1);
}

fn settle(client: &mut Client, qos: u8) {
    match qos {
        0 => assert_eq!(client.ping(), Some(Vec::new())),
        1 => {
            assert!(matches!(client.take(), Some(Got::Ack("PUBACK", 5, code)) if !code.is_error()))
        }
        _ => {
            assert!(matches!(client.take(), Some(Got::Ack("PUBREC", 5, code)) if !code.is_error()));
            client.ack(AckKind::PubRel, 5);
            assert!(matches!(client.take(), Some(Got::Ack("PUBCOMP", 5, _))));
        }
    }
}

/// The code of the PUBACK for a PUBLISH; the broker's own statistics may come before it.
fn publish_code(client: &mut Client, topic: &str) -> ReasonCode {
    client.publish(topic, "x", 1, 9);
    loop {
        match client.take() {
            Some(Got::Ack("PUBACK", 9, code)) => return code,
            Some(Got::Publish(own)) if own.topic.starts_with("$SYS/broker/") => {}
            other => panic!("{other:?} for a PUBLISH to {topic}"),
        }
    }
}

/// The topics of what waits for a client, in alphabetical order; acknowledges it.
fn topics_of(client: &mut Client) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        let waiting = client.ping().expect("an open connection");
        let count = waiting.len();
        for got in waiting {
            match got {
                Got::Publish(publish) => {
                    match publish.qos {
                        0 => {}
                        1 => client.ack(AckKind::PubAck, publish.id),
                        _ => client.ack(AckKind::PubRec, publish.id),
                    }
                    topics.push(publish.topic);
                }
                Got::Ack("PUBREL", id, _) => client.ack(AckKind::PubComp, id),
                other => panic!("{other:?} for a subscriber"),
            }
        }
        if count == 0 {
            topics.sort();
            return topics;
        }
    }
}
