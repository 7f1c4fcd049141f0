//! A client that has nothing to do with the siege, and one that comes anew again and again.

use crate::peer::{Got, Hello};
use crate::socket::{Client, Stopwatch};
use motemq_codec::AckKind;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Both, in threads of their own.
#[derive(Debug)]
pub(super) struct Bystander {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

/// What they saw since somebody asked last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rounds: Times,
    pub(super) newcomers: Times,
    /// Newcomers who did not get a CONNACK with success.
    pub(super) refused: u64,
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many percent do not exceed.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut times = self.0.clone();
        times.sort_unstable();
        let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times
            .get(place)
            .map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Acquire)
    }
}

impl Bystander {
    pub(super) fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let (one, other) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || go_round(port, &one)),
            std::thread::spawn(move || come_anew(port, &other)),
        ];
        Self { shared, threads }
    }

    pub(super) fn take_seen(&self) -> Seen {
        let mut seen = Seen::default();
        self.shared.note(|now| std::mem::swap(now, &mut seen));
        seen
    }

    /// Says what went wrong, if anything did.
    pub(super) fn finish(self) -> Option<String> {
        self.shared.is_over.store(true, Ordering::Release);
        let ended: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        let is_fine = ended.iter().all(Result::is_ok);
        (!is_fine).then(|| "the bystander was disconnected, or got what it should not".to_owned())
    }
}

/// PUBLISH at QoS 1 to itself, until it is back; a ping.
///
/// # Panics
/// When anything else comes.
fn go_round(port: u16, shared: &Shared) {
    let mut client = Client::connect(port, &Hello::durable("bystander"));
    assert_eq!(client.subscribe("bystander/own", 1), 1);
    while shared.goes_on() {
        let watch = Stopwatch::start();
        client.publish("bystander/own", "here", 1, 7);
        let (mut is_acknowledged, mut is_back) = (false, false);
        while !(is_acknowledged && is_back) {
            match client.take() {
                Some(Got::Ack("PUBACK", 7, code)) => {
                    assert!(!code.is_error());
                    is_acknowledged = true;
                }
                Some(Got::Publish(publish)) => {
                    client.ack(AckKind::PubAck, publish.id);
                    is_back = true;
                }
                other => assert!(other.is_none() && is_back, "{other:?}"),
            }
        }
        shared.note(|seen| seen.rounds.0.push(watch.elapsed()));
        assert_eq!(client.ping(), Some(Vec::new()));
        std::thread::sleep(PACE);
    }
}

/// Connects, waits for CONNACK, goes.
fn come_anew(port: u16, shared: &Shared) {
    let connect = Hello::clean("newcomer").bytes();
    while shared.goes_on() {
        let watch = Stopwatch::start();
        let answer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&connect)?;
            let mut answer = [0; 4];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        });
        let is_welcome = matches!(answer, Ok([0x20, _, _, 0]));
        shared.note(|seen| match is_welcome {
            true => seen.newcomers.0.push(watch.elapsed()),
            false => seen.refused += 1,
        });
        std::thread::sleep(10 * PACE);
    }
}

const PACE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);
