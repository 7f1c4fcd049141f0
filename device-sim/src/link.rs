//! A narrow radio link between a device and its broker, computed instead of waited for.
//!
//! Bytes go in with the time of day, and come out in order when the link would have delivered them. The
//! model: segments of at most one MTU, each with 40 bytes of TCP and IP headers, leave one after another at
//! the link's rate (a token bucket one segment deep); half the round trip with its jitter follows; a lost
//! segment arrives after TCP's retransmission timeout and holds up what is behind it; a half-duplex link
//! sends in one direction at a time; an idle radio needs time to connect before the first segment.
//!
//! Not modelled: pure TCP acknowledgements, congestion windows, neighbours in the same cell.
//!
//! Does not know: sockets, TLS, MQTT, the clock. The same seed and the same bytes give the same times.

use crate::seed::{Purpose, rng};
use rand::RngExt;
use rand_pcg::Pcg32;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// TCP and IPv4 headers of a segment.
const HEADER_BYTES: usize = 40;
/// RFC 6298: no retransmission earlier than this.
const RETRANSMISSION_MIN: Duration = Duration::from_secs(1);
/// RFC 6298 lets a sender stop doubling here.
const RETRANSMISSION_MAX: Duration = Duration::from_secs(60);
/// A segment that was lost this often gets through: TCP would give up only much later.
const LOSSES_MAX: u32 = 8;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the device to the network.
    Up = 0,
    /// From the network to the device.
    Down = 1,
}

/// Whether both directions share the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplex {
    /// One direction at a time.
    Half,
    /// Both at once.
    Full,
}

/// What an idle radio costs.
#[derive(Clone, Copy, Debug)]
pub struct WakeUp {
    /// The shortest and longest inactivity after which the radio sleeps; a device keeps one value.
    pub idle_after: (Duration, Duration),
    /// The shortest and longest time until it is connected again.
    pub delay: (Duration, Duration),
}

/// A kind of link.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Its name on the command line.
    pub name: Cow<'static, str>,
    /// Rate towards the device, bits per second; `None` is unlimited.
    pub down_bits_per_s: Option<u32>,
    /// Rate towards the network, bits per second; `None` is unlimited.
    pub up_bits_per_s: Option<u32>,
    /// Mean round trip without serialisation.
    pub round_trip: Duration,
    /// The round trip varies evenly by this much in both directions.
    pub round_trip_jitter: Duration,
    /// Probability that a segment is lost, 0 to 1.
    pub loss: f64,
    /// Whether both directions share the air.
    pub duplex: Duplex,
    /// Largest IP packet in bytes.
    pub mtu_bytes: usize,
    /// What an idle radio costs.
    pub wake_up: Option<WakeUp>,
    /// Where the figures come from.
    pub sources: Cow<'static, str>,
}

impl Preset {
    /// The preset called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Arc<Self>> {
        let preset = PRESETS.iter().find(|preset| preset.name == name)?;
        Some(Arc::new(preset.clone()))
    }

    /// Time that a device needs at most, losses aside, to wake up and exchange this much with the broker.
    #[must_use]
    pub fn settle_time(&self, round_trips: u32, bytes: u32) -> Duration {
        let wake_up = self
            .wake_up
            .map_or(Duration::ZERO, |wake_up| wake_up.delay.1);
        let bits_per_s = self.down_bits_per_s.unwrap_or(u32::MAX);
        let on_air = Duration::from_secs_f64(f64::from(bytes) * 8.0 / f64::from(bits_per_s));
        wake_up + round_trips * (self.round_trip + self.round_trip_jitter) + on_air
    }

    fn bits_per_s(&self, direction: Direction) -> Option<u32> {
        match direction {
            Direction::Up => self.up_bits_per_s,
            Direction::Down => self.down_bits_per_s,
        }
    }

    /// TCP's first retransmission timeout: the mean plus four deviations.
    fn retransmission_timeout(&self) -> Duration {
        (self.round_trip + 2 * self.round_trip_jitter).max(RETRANSMISSION_MIN)
    }
}

/// All presets, the ideal link last.
pub static PRESETS: [Preset; 3] = [
    Preset {
        name: Cow::Borrowed("nb-iot"),
        down_bits_per_s: Some(20_000),
        up_bits_per_s: Some(25_000),
        round_trip: Duration::from_millis(840),
        round_trip_jitter: Duration::from_millis(400),
        loss: 0.01,
        duplex: Duplex::Half,
        mtu_bytes: 1_358,
        wake_up: Some(WakeUp {
            idle_after: (Duration::from_secs(10), Duration::from_secs(20)),
            delay: (Duration::from_millis(1_500), Duration::from_secs(3)),
        }),
        sources: Cow::Borrowed(
            "good coverage; sustained rates a tenth of the 170-250 kbit/s peaks (Anritsu); \
                  837 ms measured (Ugwuanyi et al., Electronics 2021, 10(18) 2224); \
                  IP MTU at most 1600 (3GPP TS 36.323, 4.3.1)",
        ),
    },
    Preset {
        name: Cow::Borrowed("lte-m"),
        down_bits_per_s: Some(300_000),
        up_bits_per_s: Some(375_000),
        round_trip: Duration::from_millis(100),
        round_trip_jitter: Duration::from_millis(50),
        loss: 0.005,
        duplex: Duplex::Full,
        mtu_bytes: 1_428,
        wake_up: None,
        sources: Cow::Borrowed(
            "about 375 kbit/s (Pycom documentation); latency 50-100 ms, at most 1 Mbit/s \
                  (Arduino documentation; AWS LPWAN whitepaper)",
        ),
    },
    Preset {
        name: Cow::Borrowed("none"),
        down_bits_per_s: None,
        up_bits_per_s: None,
        round_trip: Duration::ZERO,
        round_trip_jitter: Duration::ZERO,
        loss: 0.0,
        duplex: Duplex::Full,
        mtu_bytes: 1_500,
        wake_up: None,
        sources: Cow::Borrowed("no link: bytes go straight to the socket"),
    },
];

/// One device's link, with what is on its way.
#[derive(Debug)]
pub struct Link {
    preset: Arc<Preset>,
    /// Up and down.
    pipes: [Pipe; 2],
    /// Inactivity after which this device's radio sleeps.
    idle_after: Duration,
    /// When the radio last sent or received; `None` before the first time.
    active_until: Option<Duration>,
}

#[derive(Debug)]
struct Pipe {
    segments: VecDeque<Segment>,
    queued_bytes: usize,
    /// Until when the air is taken; a half-duplex link uses that of the up pipe for both.
    air_free_at: Duration,
    /// Nothing overtakes.
    last_arrival: Duration,
    wire_bytes: u64,
    rng: Pcg32,
}

#[derive(Debug)]
struct Segment {
    arrives_at: Duration,
    bytes: Box<[u8]>,
}

impl Link {
    /// The link of device `index` in the run with `seed`.
    #[must_use]
    pub fn new(preset: Arc<Preset>, seed: u64, index: u32) -> Self {
        let mut up = Pipe::new(rng(seed, index, Purpose::Uplink));
        let idle_after = preset.wake_up.map_or(Duration::MAX, |wake_up| {
            between(&mut up.rng, wake_up.idle_after)
        });
        let down = Pipe::new(rng(seed, index, Purpose::Downlink));
        Self {
            preset,
            pipes: [up, down],
            idle_after,
            active_until: None,
        }
    }

    /// Accepts `bytes` at one end; they come out of [`Link::pop`] at the other.
    pub fn push(&mut self, direction: Direction, now: Duration, bytes: &[u8]) {
        for bytes in bytes.chunks(self.preset.mtu_bytes - HEADER_BYTES) {
            let arrives_at = self.carry(direction, now, bytes.len());
            let pipe = &mut self.pipes[direction as usize];
            pipe.queued_bytes += bytes.len();
            pipe.segments.push_back(Segment {
                arrives_at,
                bytes: bytes.into(),
            });
        }
    }

    /// Takes the oldest segment that has arrived by `now`.
    pub fn pop(&mut self, direction: Direction, now: Duration) -> Option<Box<[u8]>> {
        let pipe = &mut self.pipes[direction as usize];
        let segment = pipe
            .segments
            .pop_front_if(|segment| segment.arrives_at <= now)?;
        pipe.queued_bytes -= segment.bytes.len();
        if pipe.segments.is_empty() {
            pipe.segments.shrink_to_fit();
        }
        Some(segment.bytes)
    }

    /// When [`Link::pop`] has something next.
    #[must_use]
    pub fn next_arrival(&self, direction: Direction) -> Option<Duration> {
        let oldest = self.pipes[direction as usize].segments.front()?;
        Some(oldest.arrives_at)
    }

    /// Payload bytes on their way.
    #[must_use]
    pub fn queued_bytes(&self, direction: Direction) -> usize {
        self.pipes[direction as usize].queued_bytes
    }

    /// Bytes sent so far, with headers and retransmissions.
    #[must_use]
    pub fn wire_bytes(&self, direction: Direction) -> u64 {
        self.pipes[direction as usize].wire_bytes
    }

    /// Forgets what is on its way: the connection is gone.
    pub fn clear(&mut self) {
        for pipe in &mut self.pipes {
            pipe.segments = VecDeque::new();
            pipe.queued_bytes = 0;
            pipe.last_arrival = Duration::ZERO;
        }
    }

    /// Sends one segment of `payload_bytes` and returns when it arrives. Zero bytes are a bare header, as
    /// in TCP's handshake.
    pub fn carry(&mut self, direction: Direction, now: Duration, payload_bytes: usize) -> Duration {
        let wire_bytes = payload_bytes + HEADER_BYTES;
        let on_air = match self.preset.bits_per_s(direction) {
            Some(bits_per_s) => {
                Duration::from_secs_f64(wire_bytes as f64 * 8.0 / f64::from(bits_per_s))
            }
            None => Duration::ZERO,
        };
        let awake_at = self.awake_at(direction, now);
        let losses = self.losses(direction);
        let transmissions = losses + 1;

        let air = self.air_free_at(direction);
        *air = awake_at.max(*air) + on_air * transmissions;
        let sent_at = *air;
        self.active_until = self.active_until.max(Some(sent_at));

        let timeout = self.preset.retransmission_timeout();
        let waited = (0..losses)
            .map(|retry| (timeout * 2_u32.pow(retry)).min(RETRANSMISSION_MAX))
            .sum::<Duration>();
        let preset = &self.preset;
        let pipe = &mut self.pipes[direction as usize];
        pipe.wire_bytes += wire_bytes as u64 * u64::from(transmissions);
        let arrives_at = sent_at + waited + one_way(preset, &mut pipe.rng);
        pipe.last_arrival = pipe.last_arrival.max(arrives_at);
        pipe.last_arrival
    }

    /// When the radio can send; wakes it up if it sleeps.
    fn awake_at(&mut self, direction: Direction, now: Duration) -> Duration {
        let Some(wake_up) = self.preset.wake_up else {
            return now;
        };
        let asleep = match self.active_until {
            Some(active_until) => now > active_until + self.idle_after,
            None => true,
        };
        if !asleep {
            return now;
        }
        now + between(&mut self.pipes[direction as usize].rng, wake_up.delay)
    }

    /// How often the next segment is lost before it gets through.
    fn losses(&mut self, direction: Direction) -> u32 {
        let loss = self.preset.loss;
        if loss == 0.0 {
            return 0;
        }
        let rng = &mut self.pipes[direction as usize].rng;
        let mut losses = 0;
        while losses < LOSSES_MAX && rng.random_bool(loss) {
            losses += 1;
        }
        losses
    }

    fn air_free_at(&mut self, direction: Direction) -> &mut Duration {
        let air = match self.preset.duplex {
            Duplex::Half => Direction::Up,
            Duplex::Full => direction,
        };
        &mut self.pipes[air as usize].air_free_at
    }
}

impl Pipe {
    fn new(rng: Pcg32) -> Self {
        Self {
            segments: VecDeque::new(),
            queued_bytes: 0,
            air_free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            wire_bytes: 0,
            rng,
        }
    }
}

/// Half a round trip, with its jitter.
fn one_way(preset: &Preset, rng: &mut Pcg32) -> Duration {
    if preset.round_trip_jitter.is_zero() {
        return preset.round_trip / 2;
    }
    let shortest = preset.round_trip.saturating_sub(preset.round_trip_jitter);
    let longest = preset.round_trip + preset.round_trip_jitter;
    between(rng, (shortest, longest)) / 2
}

fn between(rng: &mut Pcg32, (shortest, longest): (Duration, Duration)) -> Duration {
    shortest + (longest - shortest).mul_f64(rng.random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_takes_its_bytes_divided_by_the_rate() {
        let lossless = Preset {
            loss: 0.0,
            wake_up: None,
            ..(*nb_iot()).clone()
        };
        let mut link = Link::new(Arc::new(lossless.clone()), 1, 0);
        let payload_bytes = 100_000;
        link.push(Direction::Up, Duration::ZERO, &vec![0; payload_bytes]);
        let arrived_at = drain(&mut link, Direction::Up, payload_bytes);
        let wire_bytes = link.wire_bytes(Direction::Up);
        assert_eq!(wire_bytes, 100_000 + 40 * 76);
        let in_theory =
            Duration::from_secs_f64(wire_bytes as f64 * 8.0 / 25_000.0) + lossless.round_trip / 2;
        assert_near(arrived_at, in_theory, 0.05);
    }

    #[test]
    fn the_mean_round_trip_is_that_of_the_preset() {
        for preset in &PRESETS[..2] {
            let lossless = Preset {
                loss: 0.0,
                wake_up: None,
                ..preset.clone()
            };
            let mut link = Link::new(Arc::new(lossless.clone()), 1, 0);
            let mut now = Duration::ZERO;
            let mut sum = Duration::ZERO;
            for _ in 0..2_000 {
                let there = link.carry(Direction::Up, now, 0);
                let back = link.carry(Direction::Down, there, 0);
                sum += back - now;
                now = back + Duration::from_secs(1);
            }
            let up_s = 320.0 / f64::from(preset.up_bits_per_s.unwrap());
            let down_s = 320.0 / f64::from(preset.down_bits_per_s.unwrap());
            let in_theory = preset.round_trip + Duration::from_secs_f64(up_s + down_s);
            assert_near(sum / 2_000, in_theory, 0.05);
        }
    }

    #[test]
    fn a_lost_segment_costs_a_timeout_and_holds_up_the_next() {
        let lossy = Preset {
            loss: 1.0,
            wake_up: None,
            ..(*nb_iot()).clone()
        };
        let mut link = Link::new(Arc::new(lossy.clone()), 1, 0);
        let first = link.carry(Direction::Up, Duration::ZERO, 0);
        let timeout = lossy.retransmission_timeout();
        assert!(first > timeout * 7, "{first:?}");
        link.preset = Arc::new(Preset { loss: 0.0, ..lossy });
        assert_eq!(link.carry(Direction::Up, Duration::ZERO, 0), first);
    }

    #[test]
    fn segments_are_lost_as_often_as_the_preset_says() {
        let mut link = Link::new(nb_iot(), 7, 0);
        let segments = 50_000;
        for second in 0..segments {
            link.carry(Direction::Down, Duration::from_secs(second), 0);
        }
        let lost = link.wire_bytes(Direction::Down) / 40 - segments;
        assert!((400..600).contains(&lost), "{lost}");
    }

    #[test]
    fn an_idle_radio_wakes_up_first() {
        let mut link = Link::new(
            Arc::new(Preset {
                loss: 0.0,
                ..PRESETS[0].clone()
            }),
            1,
            0,
        );
        let first = link.carry(Direction::Up, Duration::ZERO, 0);
        assert!(first >= Duration::from_millis(1_500 + 220), "{first:?}");
        let awake = first + Duration::from_secs(5);
        let second = link.carry(Direction::Up, awake, 0);
        assert!(second - awake < Duration::from_millis(700));
        let asleep = second + Duration::from_secs(21);
        let third = link.carry(Direction::Up, asleep, 0);
        assert!(third - asleep >= Duration::from_millis(1_500 + 220));
    }

    #[test]
    fn half_duplex_directions_wait_for_each_other() {
        let still = Preset {
            loss: 0.0,
            wake_up: None,
            round_trip_jitter: Duration::ZERO,
            ..(*nb_iot()).clone()
        };
        let full = Preset {
            duplex: Duplex::Full,
            ..still.clone()
        };
        let down_after_up = |preset| {
            let mut link = Link::new(Arc::new(preset), 1, 0);
            link.carry(Direction::Up, Duration::ZERO, 1_000);
            link.carry(Direction::Down, Duration::ZERO, 0)
        };
        let waited = down_after_up(still) - down_after_up(full);
        assert_near(
            waited,
            Duration::from_secs_f64(1_040.0 * 8.0 / 25_000.0),
            0.001,
        );
    }

    #[test]
    fn bytes_come_out_in_order_and_never_early() {
        let mut link = Link::new(nb_iot(), 3, 9);
        let sent: Vec<u8> = (0..=255).cycle().take(9_000).collect();
        for (step, bytes) in sent.chunks(700).enumerate() {
            link.push(
                Direction::Down,
                Duration::from_millis(step as u64 * 10),
                bytes,
            );
        }
        let mut received = Vec::new();
        while let Some(at) = link.next_arrival(Direction::Down) {
            assert!(
                link.pop(Direction::Down, at - Duration::from_nanos(1))
                    .is_none()
            );
            received.extend_from_slice(&link.pop(Direction::Down, at).unwrap());
        }
        assert_eq!(received, sent);
        assert_eq!(link.queued_bytes(Direction::Down), 0);
    }

    #[test]
    fn one_seed_gives_one_link() {
        let times = |seed, index| {
            let mut link = Link::new(nb_iot(), seed, index);
            let carry = |second| link.carry(Direction::Up, Duration::from_secs(second), 100);
            (0..500).map(carry).collect::<Vec<_>>()
        };
        assert_eq!(times(42, 1), times(42, 1));
        assert_ne!(times(42, 1), times(42, 2));
        assert_ne!(times(42, 1), times(43, 1));
    }

    #[test]
    fn the_ideal_link_delivers_at_once() {
        let mut link = Link::new(Preset::named("none").unwrap(), 1, 0);
        let now = Duration::from_secs(5);
        link.push(Direction::Up, now, &[1; 5_000]);
        assert_eq!(drain(&mut link, Direction::Up, 5_000), now);
    }

    fn nb_iot() -> Arc<Preset> {
        Preset::named("nb-iot").unwrap()
    }

    /// Takes everything out and returns when the last byte arrived.
    fn drain(link: &mut Link, direction: Direction, bytes: usize) -> Duration {
        let mut last = Duration::ZERO;
        let mut taken = 0;
        while let Some(at) = link.next_arrival(direction) {
            last = at;
            taken += link.pop(direction, at).unwrap().len();
        }
        assert_eq!(taken, bytes);
        last
    }

    fn assert_near(measured: Duration, expected: Duration, tolerance: f64) {
        let ratio = measured.as_secs_f64() / expected.as_secs_f64();
        assert!(
            (ratio - 1.0).abs() <= tolerance,
            "{measured:?}, expected {expected:?}"
        );
    }
}
