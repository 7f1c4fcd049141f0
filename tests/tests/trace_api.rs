//! Traces over real sockets: what the API streams, when it ends, and what a reader that does not read is told.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::api::{Client, ClientError, Door};
use motemq::config::{AnonymousAccess, Bind, Config};
use motemq_tests::in_process::{InProcess, expect, no_http};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;

#[test]
fn a_trace_shows_each_packet_as_one_object_and_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(config(dir.path()));
    let mut devices = Vec::new();
    let mut events = Vec::new();
    let take = |event: Value| {
        if text(&event, "kind") == "begin" {
            devices.push(Device::connect(&broker, "pump-1"));
            devices.push(Device::connect(&broker, "meter-17"));
        }
        events.push(event);
    };
    follow(dir.path(), "client=meter-*&for_s=1", take).unwrap();
    broker.stop();
    let kinds: Vec<_> = events.iter().map(|event| text(event, "kind")).collect();
    assert_eq!(kinds, ["begin", "packet", "packet", "end"], "{events:#?}");
    let connect = &events[1];
    assert_eq!(text(connect, "packet"), "CONNECT");
    assert_eq!(text(connect, "direction"), "in");
    assert_eq!(text(connect, "client_id"), "meter-17");
    assert_eq!(connect["version"], 4);
    assert_eq!(connect["keep_alive_s"], 60);
    assert_eq!(text(&events[2], "packet"), "CONNACK");
    assert_eq!(text(&events[2], "reason"), "success");
    assert_eq!(events[3]["packets"], 2);
    assert_eq!(events[3]["packets_lost"], 0);
}

#[test]
fn a_trace_outlives_the_time_that_other_connections_have() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.http.connection_timeout_s = 1;
    let broker = InProcess::start(config);
    let mut last = None;
    follow(dir.path(), "client=*&for_s=3", |event| last = Some(event)).unwrap();
    assert_eq!(text(&last.unwrap(), "kind"), "end");
    broker.stop();
}

#[test]
fn a_reader_that_does_not_read_is_told_what_it_missed_and_holds_nobody_up() {
    // More than the sockets between take.
    const MESSAGES: u64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.trace.queue_packets_max = 16;
    config.trace.packets_rate_max = 1_000_000;
    let broker = InProcess::start(config);
    let reader = open(dir.path(), "topic=t&payload_bytes=1024");
    let mut device = Device::connect(&broker, "a");
    for _ in 0..MESSAGES {
        device.publish(&[b'x'; 1_000]);
    }
    device.ping();
    let (mut shown, mut lost) = (0, 0);
    for event in reader {
        match text(&event, "kind") {
            "packet" => shown += 1,
            "lost" => lost += event["packets"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
        if shown + lost == MESSAGES {
            break;
        }
    }
    assert!(lost > 0 && shown > 16, "{shown} shown, {lost} lost");
    broker.stop();
}

#[test]
fn there_are_so_many_traces_at_a_time_and_one_that_nobody_reads_any_more_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.trace.streams_max = 1;
    let broker = InProcess::start(config);
    let reader = open(dir.path(), "topic=t");
    let refused = follow(dir.path(), "client=*&for_s=1", drop).unwrap_err();
    assert_eq!(refused.code(), Some("busy"));
    let refused = refused.to_string();
    assert!(refused.contains("trace.streams_max"), "{refused}");
    let metrics = motemq::metrics::render(broker.running().server());
    for line in [
        "mqtt_broker_traces 1\n",
        "mqtt_broker_traces_refused_total 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    drop(reader);
    // The broker hears of it soon, but not at once.
    while follow(dir.path(), "client=*&for_s=1", drop).is_err() {
        std::thread::yield_now();
    }
    broker.stop();
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(config(dir.path()));
    for (query, expected) in [
        ("for_s=1", "neither client nor topic"),
        ("topic=a/%23/b", "topic: "),
        ("topic=a&for_s=0", "for_s: 1 to 3600"),
        ("topic=a&payload_bytes=1025", "payload_bytes: 0 to 1024"),
        ("topic=a&clint=b", "clint"),
    ] {
        let refused = follow(dir.path(), query, drop).unwrap_err();
        assert_eq!(refused.code(), Some("invalid"), "{refused}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    broker.stop();
}

#[test]
fn a_stop_of_the_broker_ends_the_trace() {
    let dir = tempfile::tempdir().unwrap();
    let broker = InProcess::start(config(dir.path()));
    let mut reader = open(dir.path(), "client=*&for_s=3600");
    let _device = Device::connect(&broker, "a");
    broker.stop();
    // It ends; whether the last event made it is not promised.
    while reader.next().is_some() {}
}

/// Follows a trace to its end.
fn follow(dir: &Path, query: &str, mut take: impl FnMut(Value)) -> Result<(), ClientError> {
    let client = Client::new(Door::Socket(dir.join("admin.sock")))?;
    client.follow(&format!("/trace?{query}"), |event| {
        take(serde_json::from_str(event).unwrap());
        ControlFlow::Continue(())
    })
}

/// A trace that is open, and whose events are read when they are asked for.
fn open(dir: &Path, query: &str) -> impl Iterator<Item = Value> + use<> {
    let mut socket = UnixStream::connect(dir.join("admin.sock")).unwrap();
    let request = format!("GET /api/v1/trace?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let lines: Lines<_> = BufReader::new(socket).lines();
    let mut events = lines.map_while(Result::ok).filter_map(|line| {
        let event = line.strip_prefix("data: ")?;
        Some(serde_json::from_str::<Value>(event).unwrap())
    });
    assert_eq!(text(&events.next().unwrap(), "kind"), "begin");
    events
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}

struct Device(TcpStream);

impl Device {
    fn connect(broker: &InProcess, id: &str) -> Self {
        let mut socket = TcpStream::connect(broker.address("mqtt")).unwrap();
        let length = u8::try_from(id.len()).unwrap();
        let mut connect = vec![0x10, 12 + length, 0, 4];
        connect.extend(b"MQTT\x04\x02\x00\x3C\x00");
        connect.push(length);
        connect.extend(id.as_bytes());
        socket.write_all(&connect).unwrap();
        expect(&mut socket, &[0x20, 2, 0, 0]);
        Self(socket)
    }

    /// To the topic `t`, with QoS 0.
    fn publish(&mut self, payload: &[u8]) {
        let length = u16::try_from(3 + payload.len()).unwrap();
        let low = u8::try_from(length % 128).unwrap() | 0x80;
        let mut packet = vec![0x30, low, u8::try_from(length / 128).unwrap()];
        packet.extend(b"\x00\x01t");
        packet.extend(payload);
        self.0.write_all(&packet).unwrap();
    }

    /// The broker has taken all that was sent before.
    fn ping(&mut self) {
        self.0.write_all(&[0xC0, 0]).unwrap();
        let mut answer = [0; 2];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0xD0, 0]);
    }
}

fn config(data_dir: &Path) -> Config {
    let mut config = Config {
        data_dir: Some(data_dir.to_owned()),
        http: no_http(),
        ..Config::default()
    };
    for listener in &mut config.listeners {
        listener.bind = Bind::Ip("127.0.0.1:0".parse().unwrap());
        listener.anonymous = AnonymousAccess::Allowed;
    }
    config
}
