//! A narrow radio link between a device and its broker, computed instead of waited for.
//!
//! Bytes go in with the time of day, and come out in order when the link would have delivered them. The
//! model: segments of at most one MTU, each with its headers and frames, leave one after another at the link's
//! rate (a token bucket one segment deep); half the round trip with its jitter follows; a lost segment arrives
//! after TCP's retransmission timeout and holds up what is behind it; a half-duplex link sends in one direction
//! at a time; an idle radio needs time to connect before the first segment; a duty cycle makes the device wait;
//! what is sent during an outage arrives with the first retransmission after it; a connection that was idle
//! for too long is forgotten by the network, and what is sent on it is lost both ways.
//!
//! Not modelled: pure TCP acknowledgements, congestion windows, neighbours in the same cell, the gateway's own
//! duty cycle.
//!
//! For the device that uses it: after [`Link::clear`] call [`Link::carry`] for SYN and SYN-ACK; call
//! [`Link::set_accepted`] when the broker has accepted the session (links with a gateway change then from the
//! wire to the air); a partition of a scenario is [`Link::set_down`]; a device that expects an answer may ask
//! [`Link::is_dead`], but a real one notices only by its own timeout.
//!
//! Does not know: sockets, TLS, MQTT, the clock. The same seed and the same bytes give the same times.

mod definition;
mod preset;
mod presets;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod theory;
mod units;

pub use definition::{Definition, LinkError, find};
pub use preset::{Direction, Duplex, DutyCycle, Frames, JitterShape, Outages, Preset, WakeUp};
pub use presets::PRESETS;
pub(crate) use units::{bits_per_s_text, share_text, time_range_text, time_text};

use crate::seed::{Purpose, rng};
use rand::RngExt;
use rand_pcg::Pcg32;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A segment that was lost this often gets through: TCP would give up only much later.
const LOSSES_MAX: u32 = 8;
/// A partition is over after that.
const DOWN_MAX: Duration = Duration::from_secs(366 * 86_400);
/// A long tail ends after so many times the jitter.
const TAIL_MAX: f64 = 8.0;

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
    /// When the network last saw the connection; `None` while there is none.
    mapped_at: Option<Duration>,
    /// The end of the partition.
    down_until: Duration,
    /// Up and down, the same in both, which may be at different times; `None` without outages.
    holes: Option<Box<[Hole; 2]>>,
    /// `None` without a duty cycle.
    credits: Option<Box<Credits>>,
    is_accepted: bool,
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

/// The present or next outage.
#[derive(Debug)]
struct Hole {
    from: Duration,
    until: Duration,
    rng: Pcg32,
}

/// Time on air that a duty cycle still allows.
#[derive(Debug, Default)]
struct Credits {
    /// Seconds that were used and have not flowed back yet, as of `at`.
    used_s: f64,
    at: Duration,
}

impl Link {
    /// The link of device `index` in the run with `seed`.
    #[must_use]
    pub fn new(preset: Arc<Preset>, seed: u64, index: u32) -> Self {
        let pipe = |purpose| Pipe {
            segments: VecDeque::new(),
            queued_bytes: 0,
            air_free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            wire_bytes: 0,
            rng: rng(seed, index, purpose),
        };
        let mut up = pipe(Purpose::Uplink);
        let down = pipe(Purpose::Downlink);
        let idle_after = preset.wake_up.map_or(Duration::MAX, |wake_up| {
            between(&mut up.rng, wake_up.idle_after)
        });
        let hole = |outages| Hole::first(outages, rng(seed, index, Purpose::Outages));
        Self {
            holes: preset
                .outages
                .map(|outages| Box::new([hole(outages), hole(outages)])),
            credits: preset.duty_cycle.map(|_| Box::default()),
            preset,
            pipes: [up, down],
            idle_after,
            active_until: None,
            mapped_at: None,
            down_until: Duration::ZERO,
            is_accepted: false,
        }
    }

    /// Accepts `bytes` at one end; they come out of [`Link::pop`] at the other, unless the link is dead.
    pub fn push(&mut self, direction: Direction, now: Duration, bytes: &[u8]) {
        let is_dead = self.is_dead(now);
        for bytes in bytes.chunks(self.preset.segment_bytes_max()) {
            if is_dead {
                self.lose(direction, bytes.len());
                continue;
            }
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

    /// Forgets what is on its way: the connection is gone, and the next one is the network's first.
    pub fn clear(&mut self) {
        for pipe in &mut self.pipes {
            pipe.segments = VecDeque::new();
            pipe.queued_bytes = 0;
            pipe.last_arrival = Duration::ZERO;
        }
        self.mapped_at = None;
        self.is_accepted = false;
    }

    /// The broker has accepted the session. Where a gateway holds it, what follows crosses the air.
    pub fn set_accepted(&mut self) {
        self.is_accepted = true;
    }

    /// Whether the network has forgotten the connection: all that is sent on it is lost, until
    /// [`Link::clear`].
    #[must_use]
    pub fn is_dead(&self, now: Duration) -> bool {
        match (self.preset.nat_timeout, self.mapped_at) {
            (Some(timeout), Some(mapped_at)) => now > mapped_at.saturating_add(timeout),
            _ => false,
        }
    }

    /// Nothing crosses from `now` to `until`: what is on its way arrives with TCP's first try after that.
    pub fn set_down(&mut self, now: Duration, until: Duration) {
        let until = until.min(now + DOWN_MAX);
        self.down_until = self.down_until.max(until);
        let retried_at = self.preset.retry_at(now, until);
        let arrives_at = retried_at + self.preset.round_trip / 2;
        for pipe in &mut self.pipes {
            for segment in &mut pipe.segments {
                if segment.arrives_at > now {
                    segment.arrives_at = segment.arrives_at.max(arrives_at);
                    pipe.last_arrival = pipe.last_arrival.max(segment.arrives_at);
                }
            }
        }
    }

    /// Sends one segment of `payload_bytes` and returns when it arrives. Zero bytes are a bare header, as
    /// in TCP's handshake, which makes the network know the connection.
    pub fn carry(&mut self, direction: Direction, now: Duration, payload_bytes: usize) -> Duration {
        if self.preset.has_gateway && !self.is_accepted {
            let pipe = &mut self.pipes[direction as usize];
            pipe.last_arrival = pipe.last_arrival.max(now);
            return pipe.last_arrival;
        }
        let wire_bytes = self.preset.wire_bytes(payload_bytes);
        let awake_at = self.awake_at(direction, now);
        let losses = self.losses(direction);
        let transmissions = losses + 1;
        let on_air = self.preset.time_on_air(direction, wire_bytes) * transmissions;

        let free_at = awake_at.max(*self.air_free_at(direction));
        let allowed_at = self.allowed_at(direction, free_at, on_air);
        let sent_at = self.covered_at(direction, allowed_at, on_air) + on_air;
        *self.air_free_at(direction) = sent_at;
        self.active_until = self.active_until.max(Some(sent_at));
        self.mapped_at = self.mapped_at.max(Some(sent_at));

        let preset = &self.preset;
        let waited = (0..losses)
            .map(|retry| preset.retransmission_timeout(retry))
            .sum::<Duration>();
        let pipe = &mut self.pipes[direction as usize];
        pipe.wire_bytes += wire_bytes as u64 * u64::from(transmissions);
        let arrives_at = sent_at + waited + one_way(preset, &mut pipe.rng);
        pipe.last_arrival = pipe.last_arrival.max(arrives_at);
        pipe.last_arrival
    }

    /// The device sends what the network will not forward; the network sends nothing.
    fn lose(&mut self, direction: Direction, payload_bytes: usize) {
        if direction == Direction::Up {
            let wire_bytes = self.preset.wire_bytes(payload_bytes);
            self.pipes[direction as usize].wire_bytes += wire_bytes as u64;
        }
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

    /// From `at` on, when the duty cycle allows the device so much time on air; takes the credits.
    fn allowed_at(&mut self, direction: Direction, at: Duration, on_air: Duration) -> Duration {
        match (self.preset.duty_cycle, &mut self.credits) {
            (Some(duty_cycle), Some(credits)) if direction == Direction::Up => {
                credits.spend(duty_cycle, at, on_air)
            }
            _ => at,
        }
    }

    /// From `at` on, when so much time on air crosses without an outage.
    fn covered_at(&mut self, direction: Direction, at: Duration, on_air: Duration) -> Duration {
        let preset = &self.preset;
        let mut at = preset.retry_at(at, self.down_until);
        let (Some(outages), Some(holes)) = (preset.outages, &mut self.holes) else {
            return at;
        };
        let hole = &mut holes[direction as usize];
        let mut tries = 0;
        while hole.until <= at || hole.from < at + on_air && tries < LOSSES_MAX {
            if at < hole.until {
                at = preset.retry_at(at, hole.until);
                tries += 1;
            }
            hole.go_on(outages);
        }
        preset.retry_at(at, self.down_until)
    }

    fn air_free_at(&mut self, direction: Direction) -> &mut Duration {
        let air = match self.preset.duplex {
            Duplex::Half => Direction::Up,
            Duplex::Full => direction,
        };
        &mut self.pipes[air as usize].air_free_at
    }
}

impl Hole {
    fn first(outages: Outages, rng: Pcg32) -> Self {
        let mut hole = Self {
            from: Duration::ZERO,
            until: Duration::ZERO,
            rng,
        };
        hole.go_on(outages);
        hole
    }

    fn go_on(&mut self, outages: Outages) {
        self.from = self.until + outages.every.mul_f64(exponential(&mut self.rng));
        self.until = self.from + between(&mut self.rng, outages.lasts);
    }
}

impl Credits {
    /// From `at` on, when there are credits for `on_air`, or all that there can be; takes them.
    fn spend(&mut self, duty_cycle: DutyCycle, at: Duration, on_air: Duration) -> Duration {
        let DutyCycle { share, window } = duty_cycle;
        if share >= 1.0 {
            return at;
        }
        let flowed_back_s = at.saturating_sub(self.at).as_secs_f64() * share;
        let used_s = (self.used_s - flowed_back_s).max(0.0);
        let usable_s = (window.as_secs_f64() * share - on_air.as_secs_f64()).max(0.0);
        let wait_s = ((used_s - usable_s) / share).max(0.0);
        let at = at + Duration::from_secs_f64(wait_s);
        self.used_s = used_s - wait_s * share + on_air.as_secs_f64();
        self.at = at;
        at
    }
}

/// Half a round trip, with its jitter.
fn one_way(preset: &Preset, rng: &mut Pcg32) -> Duration {
    let (mean, jitter) = (preset.round_trip, preset.round_trip_jitter);
    if jitter.is_zero() {
        return mean / 2;
    }
    let shortest = mean.saturating_sub(jitter);
    let round_trip = match preset.jitter_shape {
        JitterShape::Even => between(rng, (shortest, mean + jitter)),
        JitterShape::LongTail => shortest + jitter.mul_f64(exponential(rng)),
    };
    round_trip / 2
}

/// Exponentially distributed with mean 1.
fn exponential(rng: &mut Pcg32) -> f64 {
    let even: f64 = rng.random();
    (-(1.0 - even).ln()).min(TAIL_MAX)
}

fn between(rng: &mut Pcg32, (shortest, longest): (Duration, Duration)) -> Duration {
    shortest + (longest - shortest).mul_f64(rng.random())
}
