//! What a device measures, when it says so and how it is written: profiles, their sensors and payloads.
//!
//! A [`Profile`] holds what all devices of a kind share, a [`Sensor`] the little that each has of its own.
//! A run's hours are short and a meter's days are long: the series passes faster than the run by the ratio
//! of the natural time between readings to the run's, so that each message is as far from the last as it is
//! in the field, and a water meter has its days within minutes. `speed` says otherwise.
//!
//! There are two times in a payload. The label's is the run's own, when the message should have been sent,
//! and always true: latency counts from it. The device's clock (`ts`, SenML's `bt`), if the profile sends it,
//! is the series' time on 2026-01-01, and wrong by the clock's skew and drift: it is data like all else.
//!
//! The same seed gives the same readings at the same times; real time plays no part.

mod command;
mod definition;
mod encoding;
mod measure;
mod presets;
mod schedule;
mod sensor;
mod series;

pub use command::Command;
pub use definition::{Definition, ProfileError, find};
pub use encoding::{Encoding, label};
pub use measure::{Field, Measure, Reading, Shape, Unit, Width};
pub use schedule::{Cadence, Schedule};
pub use sensor::{Sensor, Track};
pub use series::{Curve, Series};

use crate::label::Label;
use std::sync::Arc;
use std::time::Duration;

/// What all devices of a kind share.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// What such a device is, in one line.
    pub what: String,
    /// What it measures.
    pub measure: Measure,
    /// How its payloads are written.
    pub encoding: Encoding,
    /// Time between two readings in the field.
    pub natural_every: Duration,
    /// Time between two readings in the run; see [`Cadence`] for what lies between.
    pub every: Duration,
    /// How much the time between two readings varies, in parts of it.
    pub jitter: f64,
    /// In what rhythm readings fall due.
    pub cadence: Cadence,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The end of its topic, after the device.
    pub topic: String,
    /// Whether payloads carry the device's own time.
    pub has_timestamp: bool,
    /// How much faster than the run the series passes; `None` is `natural_every / every`.
    pub speed: Option<f64>,
    /// The main value's course.
    pub series: Series,
    /// Where things move, for positions.
    pub track: Track,
    /// How many leaf nodes a gateway speaks for.
    pub leaves: u8,
}

impl Profile {
    /// The preset of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Arc<Self>> {
        let mut presets = presets::presets().into_iter();
        presets.find(|profile| profile.name == name).map(Arc::new)
    }

    /// All presets.
    #[must_use]
    pub fn presets() -> Vec<Self> {
        presets::presets()
    }

    /// The same with this time between readings and this jitter.
    #[must_use]
    pub fn paced(self: &Arc<Self>, every: Duration, jitter: f64) -> Arc<Self> {
        if self.every == every && self.jitter == jitter {
            return self.clone();
        }
        Arc::new(Self {
            every,
            jitter,
            ..Self::clone(self)
        })
    }

    /// How far the series is when the run is at `at`, seconds.
    #[must_use]
    pub fn series_time_s(&self, at: Duration) -> f64 {
        let natural = || self.natural_every.as_secs_f64() / self.every.as_secs_f64().max(1e-3);
        at.as_secs_f64() * self.speed.unwrap_or_else(natural)
    }

    /// Appends a message's payload.
    pub fn encode(&self, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
        encoding::encode(self.encoding, self.measure, label, reading, payload);
    }

    /// Which leaf a reading is of; 0 for devices without leaves.
    #[must_use]
    pub fn leaf(&self, reading: &Reading) -> u8 {
        reading.leaf(self.measure).unwrap_or(0)
    }

    /// The mean time between two messages of a device in the run.
    #[must_use]
    pub fn message_every(&self) -> Duration {
        match self.cadence {
            Cadence::Bursts { count, .. } => self.every / u32::from(count.max(1)),
            Cadence::Steady | Cadence::Daily { .. } | Cadence::Events => self.every,
        }
    }
}

#[cfg(test)]
mod tests;
