//! The figures of a kind of link, and what follows from them without chance: bytes on the wire, time on air.
//!
//! Invariants, which `definition.rs` checks for links that users write:
//! - A segment has room for at least one byte of payload.
//! - Shares are 0 to 1; the jitter is no longer than the round trip; ranges are not empty.
//!
//! Does not know: chance, the clock, what is on its way.

use super::presets::PRESETS;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// RFC 6298: no retransmission earlier than this.
const RETRANSMISSION_MIN: Duration = Duration::from_secs(1);
/// RFC 6298 lets a sender stop doubling here.
const RETRANSMISSION_MAX: Duration = Duration::from_secs(60);

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

/// How round trips scatter around their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitterShape {
    /// Evenly, by at most the jitter: slots that one waits for.
    Even,
    /// Never less than the mean without the jitter, and beyond that exponentially: queues and repetitions.
    LongTail,
}

/// What an idle radio costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeUp {
    /// The shortest and longest inactivity after which the radio sleeps; a device keeps one value.
    pub idle_after: (Duration, Duration),
    /// The shortest and longest time until it is connected again.
    pub delay: (Duration, Duration),
}

/// Holes in the coverage, at times that do not depend on the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outages {
    /// Mean time between the end of one and the start of the next, exponentially distributed.
    pub every: Duration,
    /// The shortest and longest.
    pub lasts: (Duration, Duration),
}

/// How much of the time a device may send. It holds time credits, which fill at `share` and are full at
/// first; a segment is sent once there are enough for it, or all there can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DutyCycle {
    /// 0 to 1.
    pub share: f64,
    /// Credits are full when nothing was sent for so long. Zero: after each segment the sender is silent for
    /// its time on air times (1 / share - 1).
    pub window: Duration,
}

/// Link-layer frames that are smaller than packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The largest packet, after header compression, that goes into one frame.
    pub payload_bytes: usize,
    /// What a frame carries of a larger one.
    pub fragment_bytes: usize,
    /// Header, security and check of each frame.
    pub overhead_bytes: usize,
    /// What a frame with a fragment has in addition.
    pub fragment_overhead_bytes: usize,
    /// What header compression takes away from each packet.
    pub compressed_bytes: usize,
}

/// A kind of link.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// Its name on the command line.
    pub name: Cow<'static, str>,
    /// Rate towards the device, bits per second; `None` is unlimited.
    pub down_bits_per_s: Option<u32>,
    /// Rate towards the network, bits per second; `None` is unlimited.
    pub up_bits_per_s: Option<u32>,
    /// Mean round trip without serialisation.
    pub round_trip: Duration,
    /// How far the round trip scatters.
    pub round_trip_jitter: Duration,
    /// And in which way.
    pub jitter_shape: JitterShape,
    /// Probability that a segment is lost, 0 to 1.
    pub loss: f64,
    /// Whether both directions share the air.
    pub duplex: Duplex,
    /// Largest IP packet in bytes.
    pub mtu_bytes: usize,
    /// TCP and IP headers of a segment: 40 with IPv4, 60 with IPv6.
    pub header_bytes: usize,
    /// Frames that packets are cut into; `None` where rate and MTU say it all.
    pub frames: Option<Frames>,
    /// What an idle radio costs.
    pub wake_up: Option<WakeUp>,
    /// Idle time after which the network forgets a TCP connection.
    pub nat_timeout: Option<Duration>,
    /// Holes in the coverage.
    pub outages: Option<Outages>,
    /// How much of the time the device may send.
    pub duty_cycle: Option<DutyCycle>,
    /// A gateway holds the TCP connection: only what is sent on an accepted one crosses the air.
    pub has_gateway: bool,
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
        if self.has_gateway {
            return Duration::ZERO;
        }
        let wake_up = self
            .wake_up
            .map_or(Duration::ZERO, |wake_up| wake_up.delay.1);
        let down = self.down_bits_per_s.unwrap_or(u32::MAX);
        let bits_per_s = self.up_bits_per_s.unwrap_or(u32::MAX).min(down);
        let on_air = Duration::from_secs_f64(f64::from(bytes) * 8.0 / f64::from(bits_per_s));
        let jitter = match self.jitter_shape {
            JitterShape::Even => self.round_trip_jitter,
            JitterShape::LongTail => 2 * self.round_trip_jitter,
        };
        wake_up + round_trips * (self.round_trip + jitter) + on_air
    }

    /// The same without what chance does: losses, jitter and outages.
    #[must_use]
    pub fn without_chance(&self) -> Self {
        Self {
            loss: 0.0,
            round_trip_jitter: Duration::ZERO,
            outages: None,
            ..self.clone()
        }
    }

    /// Payload of the largest segment.
    #[must_use]
    pub fn segment_bytes_max(&self) -> usize {
        self.mtu_bytes.saturating_sub(self.header_bytes).max(1)
    }

    /// Bytes on the wire of one segment with this payload; zero is a bare header.
    #[must_use]
    pub fn wire_bytes(&self, payload_bytes: usize) -> usize {
        let packet_bytes = payload_bytes + self.header_bytes;
        let Some(frames) = self.frames else {
            return packet_bytes;
        };
        let packet_bytes = packet_bytes.saturating_sub(frames.compressed_bytes);
        if packet_bytes <= frames.payload_bytes {
            return packet_bytes + frames.overhead_bytes;
        }
        let fragments = packet_bytes.div_ceil(frames.fragment_bytes.max(1));
        packet_bytes + fragments * (frames.overhead_bytes + frames.fragment_overhead_bytes)
    }

    /// Bytes on the wire of a transfer, in as few segments as possible.
    #[must_use]
    pub fn transfer_wire_bytes(&self, payload_bytes: usize) -> usize {
        let segment_bytes = self.segment_bytes_max();
        let rest = match payload_bytes % segment_bytes {
            0 => 0,
            rest => self.wire_bytes(rest),
        };
        payload_bytes / segment_bytes * self.wire_bytes(segment_bytes) + rest
    }

    /// How long this many bytes on the wire take.
    #[must_use]
    pub fn time_on_air(&self, direction: Direction, wire_bytes: usize) -> Duration {
        match self.bits_per_s(direction) {
            Some(bits_per_s) => {
                Duration::from_secs_f64(wire_bytes as f64 * 8.0 / f64::from(bits_per_s))
            }
            None => Duration::ZERO,
        }
    }

    fn bits_per_s(&self, direction: Direction) -> Option<u32> {
        match direction {
            Direction::Up => self.up_bits_per_s,
            Direction::Down => self.down_bits_per_s,
        }
    }

    /// TCP's timeout before it sends a segment for the `retry`th time again, from 0: the mean round trip
    /// plus four mean deviations, doubled each time.
    pub(crate) fn retransmission_timeout(&self, retry: u32) -> Duration {
        let deviations = match self.jitter_shape {
            JitterShape::Even => 2,
            JitterShape::LongTail => 3,
        };
        let first = (self.round_trip + deviations * self.round_trip_jitter).max(RETRANSMISSION_MIN);
        (first * 2_u32.pow(retry.min(16))).min(RETRANSMISSION_MAX.max(first))
    }

    /// When TCP first tries again at or after `until` what it sent in vain at `sent_at`.
    pub(super) fn retry_at(&self, sent_at: Duration, until: Duration) -> Duration {
        let mut at = sent_at;
        let mut retry = 0;
        while at < until {
            at += self.retransmission_timeout(retry);
            retry += 1;
        }
        at
    }
}
