//! D1: connections that say nothing, or half of something, and never more.

use crate::site::Site;
use motemq_codec::ProtocolVersion;
use motemq_tests::peer::Hello;
use motemq_tests::socket::{Client, Stopwatch};
use std::time::Duration;

#[test]
fn d1_a_siege_of_half_open_connections_keeps_nobody_out() {
    let site = Site::start_with(&format!("unauthenticated_max = {PLACES}"));
    let mut besiegers = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..5 * PLACES {
        let mut besieger = Client::open(site.port(), ProtocolVersion::V5);
        let half: &[u8] = match round % 4 {
            0 => b"",
            1 => b"\x10",
            2 => b"\x10\x7f\x00\x04MQTT\x05",
            // Not one byte of TLS belongs here, but who knows.
            _ => b"\x16\x03\x01\x02\x00",
        };
        besieger.send_bytes(half);
        besiegers.push(besieger);
        if round % 50 == 49 {
            let watch = Stopwatch::start();
            drop(Client::connect(site.port(), &Hello::clean("newcomer")));
            slowest = slowest.max(watch.elapsed());
        }
    }
    println!("the slowest newcomer took {slowest:?}");
    // A second on a machine that does nothing else (bench/siege.py); without a place it would be two minutes.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(site.metric("mqtt_broker_connections_unauthenticated") <= PLACES as f64);
    site.await_metric("mqtt_broker_connections_evicted_total", |count| {
        count >= (2 * PLACES) as f64
    });
    assert!(site.memory() < 100 << 20);
    // Those that gave way were told so by the end of the connection.
    besiegers[0].await_end();
    drop(besiegers);
    site.await_metric("mqtt_broker_connections_unauthenticated", |count| {
        count == 0.0
    });
    site.finish();
}

/// Few enough that five times as many sockets fit everywhere.
const PLACES: usize = 100;
