//! `motemq-sim proxy` in real time, with mosquitto_pub in front of it and mosquitto behind.

use super::programs::{Mosquitto, Running};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Figures of a preset, as the README's sources have them.
struct Link {
    name: &'static str,
    up_bits_per_s: f64,
    down_bits_per_s: f64,
    round_trip_s: f64,
    segment_bytes: usize,
    payload_bytes: usize,
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_payload_takes_its_theoretical_time_over_gprs() {
    check(&Link {
        name: "gprs",
        up_bits_per_s: 20e3,
        down_bits_per_s: 50e3,
        round_trip_s: 0.5,
        segment_bytes: 1_360,
        payload_bytes: 9_000,
    });
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_payload_takes_its_theoretical_time_over_2g() {
    check(&Link {
        name: "2g-regular",
        up_bits_per_s: 50e3,
        down_bits_per_s: 250e3,
        round_trip_s: 0.3,
        segment_bytes: 1_360,
        payload_bytes: 25_000,
    });
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_payload_takes_its_theoretical_time_over_lte_m() {
    check(&Link {
        name: "lte-m",
        up_bits_per_s: 375e3,
        down_bits_per_s: 300e3,
        round_trip_s: 0.1,
        segment_bytes: 1_388,
        payload_bytes: 200_000,
    });
}

impl Link {
    /// SYN and SYN-ACK, CONNECT and CONNACK, PUBLISH and PUBACK: three round trips, and what is on the air.
    fn theory_s(&self) -> f64 {
        let connect = 10 + 2 + "timed".len() + 2;
        let publish = 4 + 2 + "t".len() + 2 + self.payload_bytes;
        let up_bytes = 40 + connect + 40 + publish + 40 * publish.div_ceil(self.segment_bytes);
        let down_bytes = 40 + (40 + 4) + (40 + 4);
        let up_s = up_bytes as f64 * 8.0 / self.up_bits_per_s;
        let down_s = down_bytes as f64 * 8.0 / self.down_bits_per_s;
        3.0 * self.round_trip_s + up_s + down_s
    }
}

/// Within 5 %, in the best of three attempts: the machine may be busy. Never earlier.
fn check(link: &Link) {
    let folder = tempfile::tempdir().unwrap();
    let mosquitto = Mosquitto::start();
    let (_proxy, proxy_port) = proxy(link.name, mosquitto.port);
    let payload = folder.path().join("payload");
    std::fs::write(&payload, vec![b'x'; link.payload_bytes]).unwrap();
    let theory_s = link.theory_s();
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let ratio = publish(proxy_port, &payload).as_secs_f64() / theory_s;
        println!(
            "{}: {:.2} s, in theory {theory_s:.2} s",
            link.name,
            ratio * theory_s
        );
        assert!(ratio >= 0.95, "{}: {ratio}", link.name);
        ratios.push(ratio);
        if ratio <= 1.05 {
            return;
        }
    }
    panic!("{}: {ratios:?} times the theory's {theory_s} s", link.name);
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn publish(port: u16, payload: &Path) -> Duration {
    let started = Instant::now();
    let status = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(["-i", "timed", "-t", "t", "-q", "1", "-f"])
        .arg(payload)
        .status();
    assert!(status.unwrap().success());
    started.elapsed()
}

fn proxy(link: &str, broker_port: u16) -> (Running, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_motemq-sim"));
    let broker = format!("127.0.0.1:{broker_port}");
    command.args(["proxy", "--listen", "127.0.0.1:0", "--no-chance"]);
    command.args(["--broker", &broker, "--link", link]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut proxy = Running(command.spawn().unwrap());
    let mut line = String::new();
    let mut errors = BufReader::new(proxy.0.stderr.take().unwrap());
    errors.read_line(&mut line).unwrap();
    let (address, _) = line.split_once(" -> ").unwrap();
    let (_, port) = address.rsplit_once(':').unwrap();
    (proxy, port.parse().unwrap())
}
