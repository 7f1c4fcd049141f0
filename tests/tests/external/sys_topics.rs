//! Tools that know mosquitto's `$SYS`: mosquitto_sub, and an exporter from PyPI (`mqtt-exporter`), unchanged.

use motemq_tests::kill_ledger::broker::{Broker, binary, free_port};
use motemq_tests::socket::{PATIENCE, Stopwatch};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};

/// So many topics has mosquitto 2.0.11 at least.
const LEAST: usize = 51;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mosquitto_sub_finds_the_topics_and_formats_of_mosquitto() {
    let broker = start();
    let ours = statistics(broker.port());
    let port = free_port().unwrap();
    let _mosquitto = mosquitto(port);
    let theirs = statistics(port);
    assert!(theirs.len() >= LEAST, "{theirs:#?}");
    for (topic, value) in &theirs {
        let own = ours.get(topic).expect(topic);
        assert_eq!(shape(own), shape(value), "{topic}: {own} and {value}");
    }
    // And what 2.1 has added, but for packet/out.
    let added: Vec<_> = ours
        .keys()
        .filter(|topic| !theirs.contains_key(*topic))
        // mosquitto has it from its second update on.
        .filter(|topic| !topic.ends_with("clients/maximum"))
        .collect();
    assert_eq!(added, ["$SYS/broker/connections/socket/count"]);
}

/// Values that are numbers, as its configuration asks: topics in full.
#[test]
#[ignore = "needs programs that .ci/run installs"]
fn an_exporter_for_prometheus_shows_them() {
    let broker = start();
    let port = free_port().unwrap();
    let child = Command::new("mqtt-exporter")
        .env("MQTT_PORT", broker.port().to_string())
        .env("MQTT_TOPIC", "$SYS/#")
        .env("KEEP_FULL_TOPIC", "True")
        .env("PROMETHEUS_ADDRESS", "127.0.0.1")
        .env("PROMETHEUS_PORT", port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _exporter = Running(child);
    publish(broker.port(), 7);
    let expected = [
        "mqtt_connected{topic=\"$sys_broker_clients\"} 1.0",
        "mqtt_received{topic=\"$sys_broker_publish_messages\"} 7.0",
        "mqtt_count{topic=\"$sys_broker_subscriptions\"} 1.0",
        "mqtt_1min{topic=\"$sys_broker_load_publish_received\"}",
    ];
    let watch = Stopwatch::start();
    loop {
        let metrics = scrape(port);
        let missing: Vec<_> = expected
            .iter()
            .filter(|line| !metrics.contains(**line))
            .collect();
        if missing.is_empty() {
            let is_value =
                |line: &&str| line.contains("$sys_broker_") && !line.starts_with("mqtt_message");
            let values = metrics.lines().filter(is_value).count();
            // All but version and uptime, which are no numbers.
            assert!(values >= LEAST, "{values} in {metrics}");
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "{missing:?} in {metrics}");
        std::thread::yield_now();
    }
}

fn start() -> Broker {
    let mut broker = Broker::new(&binary()).unwrap();
    let text = format!(
        "data_dir = \"\"\n[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:{}\"\nanonymous = true\n[http]\nbind = \"\"\n[sys]\ninterval_s = 1\n",
        broker.port()
    );
    broker.configure(&text).unwrap();
    broker.start().unwrap();
    broker
}

fn mosquitto(port: u16) -> Running {
    // Debian has it where only root's PATH leads.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let child = Command::new("mosquitto")
        .env("PATH", path)
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let watch = Stopwatch::start();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(watch.elapsed() < PATIENCE, "mosquitto does not listen");
        std::thread::yield_now();
    }
    running
}

/// What mosquitto_sub prints for the values that are there.
fn statistics(port: u16) -> BTreeMap<String, String> {
    let port = port.to_string();
    let output = Command::new("mosquitto_sub")
        .args([
            "-p",
            &port,
            "-t",
            "$SYS/#",
            "--retained-only",
            "-W",
            "3",
            "-F",
            "%t\t%p",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs
        .map(|(topic, value)| (topic.to_owned(), value.to_owned()))
        .collect()
}

/// A value with a 0 for each number, and without the name of a product.
fn shape(value: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(value) {
        return "0".to_owned();
    }
    match (value.split_once('.'), value.split_once(' ')) {
        (_, Some((_, unit))) if value.contains("version") => {
            unit.split(' ').next().unwrap_or_default().to_owned()
        }
        (_, Some((number, unit))) if digits(number) => format!("0 {unit}"),
        (Some((whole, decimals)), None) if digits(whole) && digits(decimals) => {
            format!("0.{}", "0".repeat(decimals.len()))
        }
        _ => value.to_owned(),
    }
}

fn publish(port: u16, count: usize) {
    let port = port.to_string();
    for _ in 0..count {
        let status = Command::new("mosquitto_pub")
            .args(["-p", &port, "-t", "a", "-m", "x"])
            .status();
        assert!(status.unwrap().success());
    }
}

/// `/metrics` of the exporter; empty while it does not listen.
fn scrape(port: u16) -> String {
    let mut text = String::new();
    if let Ok(mut socket) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        if socket.write_all(request).is_ok() {
            let _ = socket.read_to_string(&mut text);
        }
    }
    text
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A child that is already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
