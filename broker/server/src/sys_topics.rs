//! `$SYS/broker/...`: the broker's statistics as mosquitto names and writes them, for the tools that know these.
//!
//! Promises: every value comes from the counters that `/metrics` shows. Every `sys.interval_s`, on multiples of it by the clock, what
//! has changed is published while somebody subscribes; while nobody does, only the averages go on. Whoever subscribes then gets
//! values of that moment. Load averages are events per minute, weighted as in mosquitto: the older, the less, by e in each period.
//!
//! Does not know: who may read them (the ACL), how they are kept (`core/src/broker/system.rs`).

use crate::auth::PeerAddress;
use crate::clock;
use crate::config::SysConfig;
use crate::server::Server;
use motemq_codec::ProtocolVersion;
use motemq_core::{Broker, Direction, DropReason, Occasion, PacketKind, Timestamp};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is published, and how often.
#[derive(Debug)]
pub(crate) struct SysTopics {
    interval: Duration,
    has_client_events: bool,
    state: Mutex<State>,
}

/// What the values need of the time before.
#[derive(Debug)]
struct State {
    /// When the averages were taken forward, and what had been counted by then.
    at: Duration,
    counted: [u64; LOADS.len()],
    loads: [Load; LOADS.len()],
    clients_max: usize,
    memory_bytes_max: u64,
    /// The values that are kept are those of the last interval.
    is_fresh: bool,
}

/// Averages of events per minute, one for each of [`PERIODS`].
#[derive(Copy, Clone, Default, PartialEq, Debug)]
struct Load([f64; PERIODS.len()]);

impl Load {
    /// Takes in `events` of the last `elapsed`.
    fn advance(&mut self, events: u64, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        let now = events as f64 / minutes;
        for (load, (_, period_minutes)) in self.0.iter_mut().zip(PERIODS) {
            *load = now + (-minutes / period_minutes).exp() * (*load - now);
        }
    }
}

/// A client that came or went.
#[derive(Debug)]
pub(crate) struct ClientEvent<'a> {
    pub(crate) client_id: &'a str,
    /// Empty: anonymous.
    pub(crate) user: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) peer: &'a PeerAddress,
    pub(crate) version: ProtocolVersion,
    pub(crate) kind: ClientEventKind,
}

/// What happened to it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum ClientEventKind {
    /// Its CONNECT was accepted.
    Connected,
    /// Its connection has ended, for this reason.
    Disconnected(&'static str),
}

impl SysTopics {
    pub(crate) fn new(config: &SysConfig) -> Self {
        Self {
            interval: Duration::from_secs(config.interval_s.into()),
            has_client_events: config.client_events,
            state: Mutex::new(State {
                at: clock::monotonic(),
                counted: [0; LOADS.len()],
                loads: [Load::default(); LOADS.len()],
                clients_max: 0,
                memory_bytes_max: 0,
                is_fresh: false,
            }),
        }
    }

    /// Has whoever subscribes get values of now.
    pub(crate) fn follow(server: &Arc<Server>) {
        let known = Arc::downgrade(server);
        server.broker().on_system_read(Box::new(move |now| {
            if let Some(server) = known.upgrade() {
                server.sys_topics().refresh(&server, now);
            }
        }));
    }

    /// Takes the averages forward; publishes what has changed, if anybody subscribes.
    fn tick(&self, server: &Server) {
        let broker = server.broker();
        let mut state = self.lock();
        state.advance(server);
        state.is_fresh = broker.has_system_readers();
        if !state.is_fresh {
            return;
        }
        let now = clock::now();
        for (topic, value) in state.values(server) {
            broker.publish_system_value(&topic, &value, now);
        }
    }

    /// Somebody has subscribed: the values that are kept must be of now, unless they are of the last interval.
    fn refresh(&self, server: &Server, now: Timestamp) {
        let mut state = self.lock();
        if state.is_fresh {
            return;
        }
        state.is_fresh = true;
        for (topic, value) in state.values(server) {
            server.broker().set_system(&topic, &value, now);
        }
    }

    /// Tells whoever subscribes that a client came or went (`sys.client_events`).
    pub(crate) fn note_client(&self, broker: &Broker, event: &ClientEvent<'_>) {
        if !self.has_client_events || !broker.has_system_readers() {
            return;
        }
        let now = clock::now();
        let (name, reason) = match event.kind {
            ClientEventKind::Connected => ("connected", None),
            ClientEventKind::Disconnected(reason) => ("disconnected", Some(reason)),
        };
        let topic = format!("{CLIENTS}{}/{name}", topic_level(event.client_id));
        if topic.len() > TOPIC_BYTES_MAX {
            return;
        }
        let mut text = json!({
            "client_id": event.client_id,
            "user": (!event.user.is_empty()).then_some(event.user),
            "listener": event.listener,
            "peer": event.peer.to_string(),
            "version": match event.version {
                ProtocolVersion::V3_1 => 3,
                ProtocolVersion::V3_1_1 => 4,
                ProtocolVersion::V5 => 5,
            },
            "at_ms": now.as_ms(),
        });
        if let Some(reason) = reason {
            text["reason"] = reason.into();
        }
        broker.publish_system_event(&topic, &text.to_string(), now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, server: &Server) {
        let now = clock::monotonic();
        let elapsed = now.saturating_sub(self.at);
        self.at = now;
        let counted = LOADS.map(|(_, count)| count(server));
        for ((load, before), after) in self.loads.iter_mut().zip(self.counted).zip(counted) {
            // A listener that was removed takes its counts along.
            load.advance(after.saturating_sub(before), elapsed);
        }
        self.counted = counted;
        self.clients_max = self.clients_max.max(server.broker().session_count());
        self.memory_bytes_max = self.memory_bytes_max.max(server.memory().used_bytes());
    }

    /// Every topic with its present value.
    fn values(&mut self, server: &Server) -> Vec<(String, String)> {
        let broker = server.broker();
        let counters = broker.counters();
        let sessions = broker.session_totals();
        let offline = sessions.sessions - sessions.connected;
        let (retained, retained_bytes) = broker.retained_size();
        let memory_bytes = server.memory().used_bytes();
        self.clients_max = self.clients_max.max(sessions.sessions);
        self.memory_bytes_max = self.memory_bytes_max.max(memory_bytes);
        let stored = (sessions.queued_messages + retained) as u64;
        let stored_bytes = (sessions.queued_bytes + retained_bytes) as u64;
        let uptime_s = clock::monotonic().as_secs();
        let mut values = vec![
            (
                "version",
                format!("MoteMQ version {}", env!("CARGO_PKG_VERSION")),
            ),
            ("uptime", format!("{uptime_s} seconds")),
        ];
        let numbers: [(&str, u64); 25] = [
            ("clients/total", sessions.sessions as u64),
            ("clients/maximum", self.clients_max as u64),
            ("clients/connected", sessions.connected as u64),
            ("clients/active", sessions.connected as u64),
            ("clients/disconnected", offline as u64),
            ("clients/inactive", offline as u64),
            ("clients/expired", counters.noted(Occasion::SessionExpired)),
            ("connections/socket/count", sockets(server)),
            ("messages/received", packets_in(server)),
            ("messages/sent", packets_out(server)),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            ("store/messages/bytes", stored_bytes),
            ("subscriptions/count", broker.subscriptions() as u64),
            (
                "shared_subscriptions/count",
                broker.share_group_count() as u64,
            ),
            ("retained messages/count", retained as u64),
            ("heap/current", memory_bytes),
            ("heap/maximum", self.memory_bytes_max),
            ("publish/messages/dropped", dropped(server)),
            ("publish/messages/received", publish_in(server)),
            ("publish/messages/sent", publish_out(server)),
            (
                "publish/bytes/received",
                counters.all_payload_bytes(Direction::In),
            ),
            (
                "publish/bytes/sent",
                counters.all_payload_bytes(Direction::Out),
            ),
            ("bytes/received", bytes_in(server)),
            ("bytes/sent", bytes_out(server)),
        ];
        values.extend(numbers.map(|(name, number)| (name, number.to_string())));
        let values = values.into_iter();
        let values = values.map(|(name, value)| (format!("{BROKER}{name}"), value));
        let loads = LOADS.iter().zip(self.loads).flat_map(|((name, _), load)| {
            let periods = load.0.into_iter().zip(PERIODS);
            periods.map(move |(load, (period, _))| {
                (
                    format!("{BROKER}load/{name}/{period}"),
                    format!("{load:.2}"),
                )
            })
        });
        values.chain(loads).collect()
    }
}

/// Publishes every interval, until it is dropped.
pub(crate) async fn watch(server: Arc<Server>) {
    let topics = server.sys_topics();
    loop {
        tokio::time::sleep(until_next(topics.interval, clock::now())).await;
        topics.tick(&server);
    }
}

/// The time to the next multiple of `interval`.
fn until_next(interval: Duration, now: Timestamp) -> Duration {
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(interval_ms - now.as_ms() % interval_ms)
}

/// A client identifier as one level of a topic: what would be a wildcard or another level, as in a URL.
fn topic_level(client_id: &str) -> String {
    let mut level = String::with_capacity(client_id.len());
    for character in client_id.chars() {
        match character {
            '/' => level.push_str("%2F"),
            '+' => level.push_str("%2B"),
            '#' => level.push_str("%23"),
            '%' => level.push_str("%25"),
            other => level.push(other),
        }
    }
    level
}

/// Packets of all types.
fn packets(server: &Server, direction: Direction) -> u64 {
    let counters = server.broker().counters();
    let kinds = match direction {
        Direction::In => PacketKind::IN,
        Direction::Out => PacketKind::OUT,
    };
    let counts = kinds.iter().map(|kind| counters.packets(direction, *kind));
    counts.sum()
}

fn packets_in(server: &Server) -> u64 {
    packets(server, Direction::In)
}

fn packets_out(server: &Server) -> u64 {
    packets(server, Direction::Out)
}

/// CONNECTs, as `load/connections` counts them.
fn connects(server: &Server) -> u64 {
    let counters = server.broker().counters();
    counters.packets(Direction::In, PacketKind::Connect)
}

fn publish_in(server: &Server) -> u64 {
    let counters = server.broker().counters();
    counters.packets(Direction::In, PacketKind::Publish)
}

fn publish_out(server: &Server) -> u64 {
    let counters = server.broker().counters();
    counters.packets(Direction::Out, PacketKind::Publish)
}

fn bytes_in(server: &Server) -> u64 {
    server.broker().counters().bytes(Direction::In)
}

fn bytes_out(server: &Server) -> u64 {
    server.broker().counters().bytes(Direction::Out)
}

/// What a limit took, as in mosquitto; not what expired, was refused by its receiver or came for nobody.
fn dropped(server: &Server) -> u64 {
    let counters = server.broker().counters();
    let by_limits = [
        DropReason::QueueFull,
        DropReason::TooLarge,
        DropReason::RateExceeded,
        DropReason::MemoryFull,
    ];
    by_limits
        .iter()
        .map(|reason| counters.dropped(*reason))
        .sum()
}

fn sockets(server: &Server) -> u64 {
    let listeners = server.listeners();
    listeners.iter().map(|listener| listener.accepted()).sum()
}

/// Reads a count.
type Count = fn(&Server) -> u64;

const BROKER: &str = "$SYS/broker/";
const CLIENTS: &str = "$SYS/broker/clients/";
/// A topic has at most so many bytes.
const TOPIC_BYTES_MAX: usize = 65_535;
/// What has averages: the name, and what is counted.
const LOADS: [(&str, Count); 9] = [
    ("messages/received", packets_in),
    ("messages/sent", packets_out),
    ("publish/dropped", dropped),
    ("publish/received", publish_in),
    ("publish/sent", publish_out),
    ("bytes/received", bytes_in),
    ("bytes/sent", bytes_out),
    ("sockets", sockets),
    ("connections", connects),
];
/// The periods of averages: the name, and how many minutes.
const PERIODS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_its_own_average_and_a_burst_fades_by_e_in_its_period() {
        let interval = Duration::from_secs(10);
        let mut load = Load::default();
        for _ in 0..1_000 {
            load.advance(20, interval);
        }
        for average in load.0 {
            assert!((average - 120.0).abs() < 0.01, "{load:?}");
        }
        for _ in 0..6 {
            load.advance(0, interval);
        }
        let expected = [(-1.0_f64).exp(), (-0.2_f64).exp(), (-1.0_f64 / 15.0).exp()];
        for (average, share) in load.0.iter().zip(expected) {
            assert!((average - 120.0 * share).abs() < 0.01, "{load:?}");
        }
    }

    /// What mosquitto 2.0.11 published (23 November 2026) for one CONNECT, with 11 s between its updates.
    #[test]
    fn averages_are_those_of_mosquitto() {
        let interval = Duration::from_secs(11);
        let mut load = Load::default();
        load.advance(1, interval);
        let shown = load.0.map(|average| format!("{average:.2}"));
        assert_eq!(shown, ["0.91", "0.20", "0.07"]);
        load.advance(0, interval);
        assert_eq!(format!("{:.2}", load.0[0]), "0.76");
    }

    #[test]
    fn publishing_comes_on_multiples_of_the_interval() {
        let at = |ms| Timestamp::default() + Duration::from_millis(ms);
        let pause = |ms| until_next(Duration::from_secs(10), at(ms)).as_millis();
        assert_eq!((pause(0), pause(1), pause(19_999)), (10_000, 9_999, 1));
    }

    #[test]
    fn a_client_identifier_is_one_level_without_wildcards() {
        assert_eq!(topic_level("a/b+c#d%2F"), "a%2Fb%2Bc%23d%252F");
        assert_eq!(topic_level("meter-7 é"), "meter-7 é");
    }
}
