//! Prometheus metrics while a run lasts: `GET /metrics`, text format 0.0.4.
//!
//! Invariants: base units, counters end in `_total`, labels are the cohort and its link; at most
//! [`CONNECTIONS_MAX`] connections are served at the same time, none waits longer than [`HEAD_TIMEOUT`].

use crate::SimError;
use crate::world::{Troop, World};
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const CONNECTIONS_MAX: usize = 16;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// After a listener's error, such as too few file descriptors.
const RETRY: Duration = Duration::from_millis(200);
const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the histograms, seconds: from a broker beside us to the slowest link.
const BOUNDS_S: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

type Value = fn(&Troop) -> u64;

/// Name, help, and where it comes from.
const FAMILIES: [(&str, Kind, &str, Value); 20] = [
    ("devices", Kind::Gauge, "Devices of the cohort.", |troop| {
        troop.cohort.devices.into()
    }),
    (
        "devices_connected",
        Kind::Gauge,
        "Devices that are connected.",
        |troop| troop.tally.up.load(Ordering::Relaxed).into(),
    ),
    (
        "connections_total",
        Kind::Counter,
        "Connections that the broker accepted.",
        |troop| load(&troop.tally.connects),
    ),
    (
        "connection_failures_total",
        Kind::Counter,
        "Connections that failed or broke.",
        |troop| load(&troop.tally.failures),
    ),
    (
        "reconnects_total",
        Kind::Counter,
        "Connections after the loss of one.",
        |troop| load(&troop.tally.reconnects),
    ),
    (
        "killed_total",
        Kind::Counter,
        "How often a phase killed a device.",
        |troop| load(&troop.tally.killed),
    ),
    (
        "partitioned_total",
        Kind::Counter,
        "How often a phase cut the link of a device.",
        |troop| load(&troop.tally.partitioned),
    ),
    (
        "readings_total",
        Kind::Counter,
        "Readings that devices meant to send.",
        |troop| troop.ledger().counts().published,
    ),
    (
        "readings_overflowed_total",
        Kind::Counter,
        "Readings dropped by devices whose buffer was full.",
        |troop| troop.ledger().counts().overflowed,
    ),
    (
        "readings_late_total",
        Kind::Counter,
        "Readings that the simulator took more than 50 ms late.",
        |troop| troop.ledger().counts().late,
    ),
    (
        "messages_acknowledged_total",
        Kind::Counter,
        "Messages that the broker acknowledged.",
        |troop| troop.ledger().counts().acknowledged,
    ),
    (
        "messages_delivered_total",
        Kind::Counter,
        "Messages that reached the verifier, each counted once.",
        |troop| troop.ledger().counts().delivered,
    ),
    (
        "messages_missing",
        Kind::Gauge,
        "Acknowledged messages that have not reached the verifier so far.",
        |troop| troop.ledger().counts().lost,
    ),
    (
        "messages_duplicated_total",
        Kind::Counter,
        "Deliveries of what had been delivered before.",
        |troop| troop.ledger().counts().duplicated,
    ),
    (
        "messages_reordered_total",
        Kind::Counter,
        "First deliveries after that of a later message of the same device.",
        |troop| troop.ledger().counts().reordered,
    ),
    (
        "messages_altered_total",
        Kind::Counter,
        "First deliveries that differ from what was sent.",
        |troop| troop.ledger().counts().altered,
    ),
    (
        "uplink_bytes_total",
        Kind::Counter,
        "Bytes from devices on the link, with TCP and IP headers and retransmissions.",
        |troop| load(&troop.tally.up_bytes),
    ),
    (
        "downlink_bytes_total",
        Kind::Counter,
        "Bytes to devices on the link, with TCP and IP headers and retransmissions.",
        |troop| load(&troop.tally.down_bytes),
    ),
    (
        "tls_full_handshakes_total",
        Kind::Counter,
        "Full TLS handshakes.",
        |troop| load(&troop.tally.tls_full),
    ),
    (
        "tls_resumed_handshakes_total",
        Kind::Counter,
        "Resumed TLS sessions.",
        |troop| load(&troop.tally.tls_resumed),
    ),
];

type Times = fn(&Troop) -> Histogram<u64>;

const HISTOGRAMS: [(&str, &str, Times); 5] = [
    (
        "publish_ack_seconds",
        "From when a reading was due to its acknowledgement at the device.",
        |troop| troop.ledger().ack_latency.clone(),
    ),
    (
        "delivery_seconds",
        "From when a reading was due to its first delivery at the verifier.",
        |troop| troop.ledger().delivery_latency.clone(),
    ),
    (
        "generator_lag_seconds",
        "How late the simulator itself took a reading.",
        |troop| troop.ledger().generator_lag.clone(),
    ),
    (
        "connect_seconds",
        "From when a device should have begun to connect to its first accepted connection.",
        |troop| troop.connects().first.clone(),
    ),
    (
        "reconnect_seconds",
        "From when a connection was lost to the next accepted one.",
        |troop| troop.connects().away.clone(),
    ),
];

/// Takes the address before the run.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, SimError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| SimError::Metrics { address, source })
}

/// Serves until `servers` is dropped.
pub(super) fn serve(
    listener: TcpListener,
    world: Arc<World>,
    servers: &mut JoinSet<()>,
) -> Result<(), SimError> {
    let address = listener.local_addr();
    let listener =
        tokio::net::TcpListener::from_std(listener).map_err(|source| SimError::Metrics {
            address: address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            source,
        })?;
    servers.spawn(accept_all(listener, world));
    Ok(())
}

async fn accept_all(listener: tokio::net::TcpListener, world: Arc<World>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        let world = world.clone();
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let answer = answer(&world, &request);
                async { Ok::<_, Infallible>(answer) }
            });
            // Who hangs up in the middle gets no answer.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(place);
        });
    }
}

fn answer(world: &World, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, render(world)),
        (&Method::GET | &Method::HEAD, _) => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let content = HeaderValue::from_static(CONTENT);
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}

/// The text of this moment.
pub(super) fn render(world: &World) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in FAMILIES {
        let kind = if kind == Kind::Counter {
            "counter"
        } else {
            "gauge"
        };
        head(&mut text, name, kind, help);
        for troop in &world.troops {
            let (labels, value) = (labels(troop), value(troop));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "mqtt_sim_{name}{{{labels}}} {value}");
        }
    }
    for (name, help, times) in HISTOGRAMS {
        head(&mut text, name, "histogram", help);
        for troop in &world.troops {
            write_histogram(&mut text, name, &labels(troop), &times(troop));
        }
    }
    for (name, kind, help, value) in [
        (
            "messages_foreign_total",
            "counter",
            "Deliveries that were not the run's.",
            world.counts().foreign,
        ),
        (
            "messages_garbled_total",
            "counter",
            "Deliveries on topics of the run that are no message of any device.",
            load(&world.verifier.garbled),
        ),
        (
            "verifier_reconnects_total",
            "counter",
            "How often the verifier's connection broke.",
            load(&world.verifier.reconnects),
        ),
    ] {
        head(&mut text, name, kind, help);
        let _ = writeln!(text, "mqtt_sim_{name} {value}");
    }
    if let Some(bytes) = crate::report::resident_bytes() {
        let help = "Memory of the simulator.";
        head(&mut text, "resident_memory_bytes", "gauge", help);
        let _ = writeln!(text, "mqtt_sim_resident_memory_bytes {bytes}");
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP mqtt_sim_{name} {help}");
    let _ = writeln!(text, "# TYPE mqtt_sim_{name} {kind}");
}

fn write_histogram(text: &mut String, name: &str, labels: &str, times: &Histogram<u64>) {
    for bound_s in BOUNDS_S {
        let below = times.count_between(0, (bound_s * 1e6) as u64);
        let _ = writeln!(
            text,
            "mqtt_sim_{name}_bucket{{{labels},le=\"{bound_s}\"}} {below}"
        );
    }
    let count = times.len();
    let sum_s = times.mean() * count as f64 / 1e6;
    let _ = writeln!(
        text,
        "mqtt_sim_{name}_bucket{{{labels},le=\"+Inf\"}} {count}"
    );
    let _ = writeln!(text, "mqtt_sim_{name}_sum{{{labels}}} {sum_s}");
    let _ = writeln!(text, "mqtt_sim_{name}_count{{{labels}}} {count}");
}

fn labels(troop: &Troop) -> String {
    let (cohort, link) = (&troop.cohort.name, &troop.cohort.preset.name);
    format!("cohort=\"{}\",link=\"{}\"", escape(cohort), escape(link))
}

/// As the text format wants label values.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{HOSTILE, world};
    use std::collections::{BTreeMap, BTreeSet};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let samples = parse(&render(&world(HOSTILE)));
        let of = |name: &str, cohort: &str| {
            let found = samples.iter().find(|(sample, labels, _)| {
                sample == name && labels.get("cohort").map(String::as_str) == Some(cohort)
            });
            found.unwrap().2
        };
        assert_eq!(of("mqtt_sim_devices", "meters"), 20.0);
        assert_eq!(of("mqtt_sim_devices", HOSTILE), 10.0);
        assert_eq!(of("mqtt_sim_messages_missing", "meters"), 2.0);
        assert_eq!(of("mqtt_sim_publish_ack_seconds_count", "meters"), 50.0);
        let sum = of("mqtt_sim_delivery_seconds_sum", HOSTILE);
        assert!((sum - 0.017 * 1_225.0).abs() < 0.05, "{sum}");
    }

    #[test]
    fn buckets_grow_to_the_count_and_hold_what_is_below_their_bound() {
        let samples = parse(&render(&world("trackers")));
        let buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter(|(name, labels, _)| {
                name == "mqtt_sim_delivery_seconds_bucket" && labels["cohort"] == "trackers"
            })
            .map(|(_, labels, value)| (labels["le"].parse().unwrap(), *value))
            .collect();
        assert!(buckets.is_sorted());
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 50.0)));
        // A delivery every 17 ms from 0 on.
        assert!(buckets.contains(&(0.1, 6.0)), "{buckets:?}");
    }

    #[tokio::test]
    async fn metrics_are_served_and_nothing_else() {
        let world = std::thread::spawn(|| world("trackers")).join().unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut servers = JoinSet::new();
        serve(listener, Arc::new(world), &mut servers).unwrap();
        for (request, status, content) in [
            ("GET /metrics", "200 OK", "mqtt_sim_readings_total{"),
            ("GET /", "404 Not Found", "see /metrics"),
            ("POST /metrics", "405 Method Not Allowed", "only GET"),
        ] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")),
                "{response}"
            );
            assert!(response.contains(content), "{response}");
        }
    }

    #[test]
    fn a_taken_address_is_an_error_before_the_run() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(first.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("--metrics"), "{error}");
    }

    type Parsed = Vec<(String, BTreeMap<String, String>, f64)>;

    /// A strict reader of the text format: every sample after its HELP and TYPE, families in one piece, no
    /// sample twice, names and labels as the convention has them.
    fn parse(text: &str) -> Parsed {
        let mut seen = BTreeSet::new();
        let mut families = BTreeSet::new();
        let (mut family, mut kind) = (String::new(), String::new());
        let mut samples = Vec::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(families.insert(name.to_owned()), "{name} twice");
                assert!(help.ends_with('.'));
                family = name.to_owned();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of_kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert_eq!(of_kind == "counter", name.ends_with("_total"), "{name}");
                kind = of_kind.to_owned();
                continue;
            }
            let end = line.find(['{', ' ']).unwrap();
            let (name, mut rest) = line.split_at(end);
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            );
            let suffix = name.strip_prefix(family.as_str()).unwrap();
            match kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
                _ => assert_eq!(suffix, ""),
            }
            let mut labels = BTreeMap::new();
            if let Some(mut inside) = rest.strip_prefix('{') {
                loop {
                    let (label, value, after) = parse_label(inside);
                    assert!(["cohort", "link", "le"].contains(&label.as_str()));
                    assert!(labels.insert(label, value).is_none());
                    inside = match after.strip_prefix(',') {
                        Some(more) => more,
                        None => break rest = after.strip_prefix('}').unwrap(),
                    };
                }
            }
            let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
            assert!(seen.insert((name.to_owned(), labels.clone())), "{line}");
            samples.push((name.to_owned(), labels, value));
        }
        samples
    }

    fn parse_label(text: &str) -> (String, String, &str) {
        let (label, rest) = text.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut letters = rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => return (label.to_owned(), value, &rest[at + 1..]),
                '\\' => value.push(match letters.next().unwrap().1 {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        panic!("the value of {label} has no end");
    }
}
