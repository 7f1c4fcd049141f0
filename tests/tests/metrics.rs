//! `/metrics`: what is declared is shown, what is shown is declared, and the numbers are those of what happened.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::metrics::{render, table};
use motemq::reload::Reloader;
use motemq_certs::{Authority, KeyType, Order, Validity};
use motemq_codec::{AckKind, ProtocolVersion, ReasonCode};
use motemq_tests::in_process::{InProcess, tls_config};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::revocation::write_list;
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[test]
fn every_declared_metric_is_shown_and_every_shown_one_declared() {
    let site = Site::start();
    let page = site.page();
    let declared: BTreeSet<_> = table::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(declared.len(), table::ALL.len(), "a name is declared twice");
    let shown: BTreeSet<_> = page.families.keys().map(String::as_str).collect();
    assert_eq!(declared, shown);
    for metric in table::ALL {
        let family = &page.families[metric.name];
        assert_eq!(family.help, metric.help);
        assert_eq!(family.kind, metric.kind.label());
        assert!(!family.samples.is_empty(), "{}", metric.name);
        for (series, value) in &family.samples {
            let mut labels = labels(series);
            labels.retain(|label| label != "le");
            assert_eq!(labels, metric.labels, "{series}");
            assert!(!value.is_nan(), "{series}");
        }
    }
    site.stop();
}

#[test]
fn names_say_the_unit_and_what_only_grows_ends_in_total() {
    for metric in table::ALL {
        let name = metric.name;
        let is_total = name.ends_with("_total");
        assert_eq!(is_total, metric.kind == table::Kind::Counter, "{name}");
        assert!(
            name.starts_with("mqtt_broker_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(metric.help.ends_with('.'), "{name}");
        let is_forbidden =
            |label: &&&str| ["client", "client_id", "topic", "user", "peer"].contains(*label);
        assert_eq!(metric.labels.iter().find(is_forbidden), None, "{name}");
    }
}

#[test]
fn the_documentation_lists_every_metric() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/METRICS.md");
    let wanted = document();
    if std::fs::read_to_string(&file).is_ok_and(|text| text == wanted) {
        return;
    }
    let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("METRICS.md");
    std::fs::write(&fresh, wanted).unwrap();
    panic!(
        "deploy/METRICS.md is not what the table says: cp {} deploy/METRICS.md",
        fresh.display()
    );
}

#[test]
fn many_clients_make_as_many_series_as_one() {
    let site = Site::start();
    let mut first = site.connect(ProtocolVersion::V5, "first");
    first.subscribe("a/#", 2);
    let page = site.page();
    let before = page.series();
    let mut clients = Vec::new();
    for number in 0..60 {
        let versions = [
            ProtocolVersion::V3_1,
            ProtocolVersion::V3_1_1,
            ProtocolVersion::V5,
        ];
        let id = format!("c{number}");
        let mut client = match number % 10 {
            9 => site.connect_tls(&id, 20 * number),
            _ => site.connect(versions[number as usize % 3], &id),
        };
        client.subscribe(&format!("own/{id}"), (number % 3) as u8);
        for qos in 0..3 {
            client.publish(&format!("a/{id}"), "x", qos, u16::from(qos));
        }
        client.publish(&format!("nobody/{id}"), "x", 0, 0);
        assert!(client.ping().is_some());
        clients.push(client);
    }
    // Some leave, one is refused, one breaks a rule.
    clients.truncate(50);
    let mut refused = Client::open_tls(
        site.port("mqtts"),
        tls_config(&site.path("pki/ca.crt"), None),
        ProtocolVersion::V5,
    );
    refused.await_end();
    let mut broken = site.connect(ProtocolVersion::V5, "broken");
    broken.send_bytes(&[0xf0, 0]);
    broken.await_end();
    let after = site.page();
    assert_eq!(after.series(), before);
    assert!(after.value("mqtt_broker_packets_total{direction=\"in\",type=\"connect\"}") >= 62.0);
    site.stop();
}

#[test]
fn messages_are_counted_by_direction_quality_and_version() {
    let site = Site::start();
    let mut subscriber = site.connect(ProtocolVersion::V3_1_1, "s");
    subscriber.subscribe("t/#", 1);
    let mut publisher = site.connect(ProtocolVersion::V5, "p");
    publisher.publish("t/1", "four", 2, 1);
    assert!(matches!(publisher.take(), Some(Got::Ack("PUBREC", ..))));
    // Received and not yet done with, sent and not yet acknowledged.
    let delivered = subscriber.take_publish();
    let page = site
        .await_page(|page| page.value("mqtt_broker_inflight_messages{direction=\"in\"}") == 1.0);
    assert_eq!(
        page.value("mqtt_broker_inflight_messages{direction=\"out\"}"),
        1.0
    );
    publisher.ack(AckKind::PubRel, 1);
    assert!(matches!(publisher.take(), Some(Got::Ack("PUBCOMP", ..))));
    subscriber.ack(AckKind::PubAck, delivered.id);
    publisher.publish("nobody", "", 0, 0);
    assert!(subscriber.ping().is_some() && publisher.ping().is_some());
    let page =
        site.await_page(|page| page.value("mqtt_broker_ack_rtt_seconds_count{qos=\"1\"}") == 1.0);
    for (series, expected) in [
        (
            "mqtt_broker_publish_total{direction=\"in\",qos=\"2\",version=\"5\"}",
            1.0,
        ),
        (
            "mqtt_broker_publish_total{direction=\"out\",qos=\"1\",version=\"3.1.1\"}",
            1.0,
        ),
        (
            "mqtt_broker_publish_payload_bytes_total{direction=\"in\",qos=\"2\",version=\"5\"}",
            4.0,
        ),
        (
            "mqtt_broker_publish_payload_bytes_total{direction=\"out\",qos=\"1\",version=\"3.1.1\"}",
            4.0,
        ),
        (
            "mqtt_broker_packets_total{direction=\"in\",type=\"publish\"}",
            2.0,
        ),
        (
            "mqtt_broker_packets_total{direction=\"in\",type=\"pubrel\"}",
            1.0,
        ),
        (
            "mqtt_broker_packets_total{direction=\"in\",type=\"puback\"}",
            1.0,
        ),
        (
            "mqtt_broker_packets_total{direction=\"out\",type=\"pubcomp\"}",
            1.0,
        ),
        (
            "mqtt_broker_packets_total{direction=\"out\",type=\"suback\"}",
            1.0,
        ),
        (
            "mqtt_broker_messages_dropped_total{reason=\"no_subscriber\"}",
            1.0,
        ),
        ("mqtt_broker_delivery_latency_seconds_count{qos=\"1\"}", 1.0),
        ("mqtt_broker_inflight_messages{direction=\"in\"}", 0.0),
        ("mqtt_broker_inflight_messages{direction=\"out\"}", 0.0),
        (
            "mqtt_broker_connections{listener=\"mqtt\",transport=\"tcp\",version=\"3.1.1\"}",
            1.0,
        ),
        (
            "mqtt_broker_connections_opened_total{listener=\"mqtt\",transport=\"tcp\",version=\"5\"}",
            1.0,
        ),
    ] {
        assert_eq!(page.value(series), expected, "{series}");
    }
    for histogram in [
        "mqtt_broker_delivery_latency_seconds_sum{qos=\"1\"}",
        "mqtt_broker_ack_rtt_seconds_sum{qos=\"1\"}",
    ] {
        let seconds = page.value(histogram);
        assert!(
            seconds > 0.0 && seconds < PATIENCE.as_secs_f64(),
            "{histogram} {seconds}"
        );
    }
    site.stop();
}

#[test]
fn the_worst_queue_and_the_oldest_message_are_shown() {
    let site = Site::start();
    for (id, filter) in [("long", "q/long"), ("short", "q/short")] {
        let mut client = Client::connect(site.port("mqtt"), &Hello::durable(id));
        client.subscribe(filter, 1);
    }
    site.await_page(|page| page.value("mqtt_broker_sessions{state=\"offline\"}") == 2.0);
    let mut publisher = site.connect(ProtocolVersion::V5, "p");
    for (id, topic) in (1..).zip(["q/long", "q/long", "q/short", "q/long"]) {
        publisher.publish(topic, "0123456789", 1, id);
        assert!(matches!(publisher.take(), Some(Got::Ack("PUBACK", ..))));
    }
    let page = site.page();
    assert_eq!(page.value("mqtt_broker_session_queue_messages"), 4.0);
    assert_eq!(page.value("mqtt_broker_session_queue_messages_max"), 3.0);
    let bytes = page.value("mqtt_broker_session_queue_bytes_max");
    assert_eq!(bytes, 3.0 * (6 + 10) as f64);
    let oldest = page.value("mqtt_broker_session_queue_oldest_seconds");
    assert!(oldest > 0.0 && oldest < PATIENCE.as_secs_f64(), "{oldest}");
    assert!(page.value("mqtt_broker_storage_commit_records_count") > 0.0);
    assert!(page.value("mqtt_broker_storage_file_bytes") > 0.0);
    site.stop();
}

#[test]
fn a_client_that_does_not_read_is_a_slow_consumer_until_it_is_gone() {
    let site = Site::start();
    let mut idle = site.connect(ProtocolVersion::V5, "idle");
    idle.subscribe("flood", 0);
    let mut publisher = site.connect(ProtocolVersion::V5, "p");
    let payload = "x".repeat(100_000);
    // More than the buffers of both sockets hold.
    for _ in 0..300 {
        publisher.publish("flood", &payload, 0, 0);
    }
    assert!(publisher.ping().is_some());
    let page = site.await_page(|page| page.value("mqtt_broker_slow_consumers") == 1.0);
    assert!(page.value("mqtt_broker_mailbox_stalls_total") >= 1.0);
    drop(idle);
    site.await_page(|page| page.value("mqtt_broker_slow_consumers") == 0.0);
    site.stop();
}

#[test]
fn handshakes_and_the_certificates_of_connected_clients_are_counted() {
    let site = Site::start();
    let soon = site.connect_tls("soon", 5);
    let later = site.connect_tls("later", 60);
    let page = site.page();
    let within = |page: &Page| {
        let of = |days| {
            page.value(&format!(
                "mqtt_broker_client_certs_expiring{{within=\"{days}\"}}"
            ))
        };
        ["7d", "30d", "90d"].map(of)
    };
    assert_eq!(within(&page), [1.0, 1.0, 2.0]);
    let full = "listener=\"mqtts\",result=\"full\"";
    assert_eq!(
        page.value(&format!(
            "mqtt_broker_tls_handshakes_total{{{full},version=\"1.3\"}}"
        )),
        2.0
    );
    assert_eq!(
        page.value(&format!(
            "mqtt_broker_tls_handshake_duration_seconds_count{{{full}}}"
        )),
        2.0
    );
    // A ClientHello and a client certificate each way, twice.
    for direction in ["in", "out"] {
        let series = format!(
            "mqtt_broker_tls_handshake_bytes_total{{listener=\"mqtts\",direction=\"{direction}\"}}"
        );
        let bytes = page.value(&series);
        assert!((1_000.0..10_000.0).contains(&bytes), "{series} {bytes}");
    }
    drop((soon, later));
    site.await_page(|page| within(page) == [0.0; 3]);
    site.stop();
}

#[test]
fn reloads_are_counted_and_the_last_one_judged() {
    let mut site = Site::start();
    let values = |page: &Page| {
        let of = |series| page.value(series);
        [
            "mqtt_broker_config_last_reload_successful",
            "mqtt_broker_config_reloads_total{result=\"success\"}",
            "mqtt_broker_config_reloads_total{result=\"failure\"}",
        ]
        .map(of)
    };
    let time = "mqtt_broker_config_last_reload_success_timestamp_seconds";
    let page = site.page();
    assert_eq!(values(&page), [1.0, 0.0, 0.0]);
    let started = page.value(time);
    let text = std::fs::read_to_string(site.path("motemq.toml")).unwrap();
    std::fs::write(site.path("motemq.toml"), "nonsense = 1").unwrap();
    assert!(!site.reload());
    assert_eq!(values(&site.page()), [0.0, 0.0, 1.0]);
    assert_eq!(site.page().value(time), started);
    std::fs::write(site.path("motemq.toml"), text).unwrap();
    assert!(site.reload());
    assert_eq!(values(&site.page()), [1.0, 1.0, 1.0]);
    assert!(site.page().value(time) > started);
    site.stop();
}

#[test]
fn every_thread_of_the_runtime_says_how_late_it_is() {
    let site = Site::start();
    site.await_page(|page| page.value("mqtt_broker_event_loop_lag_seconds_count") >= 1.0);
    site.stop();
}

/// A page, taken apart.
#[derive(Debug, Default)]
struct Page {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<(String, f64)>,
}

impl Page {
    /// A family is written in one piece: help, type, samples.
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                let family = Family {
                    help: help.to_owned(),
                    ..Family::default()
                };
                let known = page.families.insert(name.to_owned(), family);
                assert!(known.is_none(), "{name} comes twice");
                current = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, current);
                page.families.get_mut(name).unwrap().kind = kind.to_owned();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let family = page.families.get_mut(&current).unwrap();
                let suffix = name.strip_prefix(current.as_str()).unwrap();
                let is_part = match family.kind.as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                    _ => suffix.is_empty(),
                };
                assert!(is_part, "{series} among {current}");
                family
                    .samples
                    .push((series.to_owned(), value.parse().unwrap()));
            }
        }
        page
    }

    fn series(&self) -> BTreeSet<&str> {
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples.map(|(series, _)| series.as_str()).collect()
    }

    fn value(&self, wanted: &str) -> f64 {
        let mut samples = self.families.values().flat_map(|family| &family.samples);
        let found = samples.find(|(series, _)| series == wanted);
        found.unwrap_or_else(|| panic!("no {wanted}")).1
    }
}

/// The names of a series' labels.
fn labels(series: &str) -> Vec<String> {
    let Some((_, labels)) = series.split_once('{') else {
        return Vec::new();
    };
    let labels = labels.trim_end_matches('}').split("\",");
    let name = |label: &str| label.split_once('=').unwrap().0.to_owned();
    labels.map(name).collect()
}

/// `deploy/METRICS.md`.
fn document() -> String {
    let mut text = "# Metrics\n\n\
        What `http://127.0.0.1:9883/metrics` shows. Made from `broker/server/src/metrics/table.rs`; a test compares them.\n\n\
        Names follow the conventions of Prometheus: units in the name, counters end in `_total`. Label values come from closed sets \
        (listeners are those of the configuration), so the number of series does not depend on the clients. Numbers about one client \
        are in the API and in `motemq client show`.\n\n\
        | Metric | Type | Unit | Labels | What it says |\n|---|---|---|---|---|\n"
        .to_owned();
    for metric in table::ALL {
        text += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            metric.name,
            metric.kind.label(),
            metric.unit(),
            metric.labels.join(", "),
            metric.help
        );
    }
    text
}

/// A broker that has everything there are metrics for.
struct Site {
    folder: TempDir,
    authority: Authority,
    broker: InProcess,
    reloader: Reloader,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("pki"), "test").unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let files = ["server.crt", "server.key"].map(path);
        server.write(&files[0], &files[1]).unwrap();
        write_list(&path("pki"), &path("crl.pem"), &[], 2040);
        std::fs::write(path("inventory.jsonl"), "").unwrap();
        let tls = "[listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\nclient_ca = \"pki/ca.crt\"\n";
        let text = format!(
            "data_dir = \"data\"\n[admin]\nsocket = \"\"\n[http]\nbind = \"\"\n\
             [[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n\
             [[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n{tls}crl = \"crl.pem\"\n\
             [[listeners]]\nname = \"wss\"\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\n{tls}allow_list = \"inventory.jsonl\"\n"
        );
        std::fs::write(path("motemq.toml"), text).unwrap();
        let (broker, reloader) = InProcess::from_file(&path("motemq.toml"));
        Self {
            folder,
            authority,
            broker,
            reloader,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn port(&self, listener: &str) -> u16 {
        self.broker.address(listener).port()
    }

    fn connect(&self, version: ProtocolVersion, id: &str) -> Client {
        let hello = Hello {
            version,
            ..Hello::clean(id)
        };
        Client::connect(self.port("mqtt"), &hello)
    }

    /// A client whose certificate ends after so many days.
    fn connect_tls(&self, id: &str, days: u32) -> Client {
        let order = Order::device(id)
            .unwrap()
            .valid(Validity::Days(days.max(1)));
        let issued = self.authority.issue(&order, KeyType::P256).unwrap();
        let config = tls_config(&self.path("pki/ca.crt"), Some(&issued));
        let mut client = Client::open_tls(self.port("mqtts"), config, ProtocolVersion::V5);
        client.send_bytes(&Hello::clean(id).bytes());
        let connack = client.take();
        assert!(
            matches!(connack, Some(Got::ConnAck(_, ReasonCode::Success))),
            "{connack:?}"
        );
        client
    }

    fn reload(&mut self) -> bool {
        let server = self.broker.running().server().clone();
        self.reloader.reload_and_report(&server).is_ok()
    }

    fn page(&self) -> Page {
        Page::read(&render(self.broker.running().server()))
    }

    fn await_page(&self, is_reached: impl Fn(&Page) -> bool) -> Page {
        let watch = Stopwatch::start();
        loop {
            let page = self.page();
            if is_reached(&page) {
                return page;
            }
            assert!(watch.elapsed() < PATIENCE, "{page:#?}");
        }
    }

    fn stop(self) {
        self.broker.stop();
    }
}
