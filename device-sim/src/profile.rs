//! What a device measures and when: one profile so far, a household's electricity meter.
//!
//! Power follows the day (a base load, a morning and an evening peak) with noise that remembers its last
//! value; energy only ever grows; voltage sags a little under load. The run starts at six in the morning.
//!
//! The same seed gives the same readings at the same times; real time plays no part.

use crate::label::Label;
use crate::seed::{Purpose, rng};
use rand::RngExt;
use rand_pcg::Pcg32;
use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

const DAY_START_H: f64 = 6.0;
/// How much of a deviation the next reading keeps.
const NOISE_MEMORY: f32 = 0.9;
/// How far a reading deviates anew, in parts of the load.
const NOISE_STEP: f32 = 0.12;

/// What devices of one kind have in common.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name on the command line.
    pub name: Cow<'static, str>,
    /// The last level of the topic.
    pub measure: Cow<'static, str>,
    /// Mean time between two readings, unless said otherwise.
    pub every: Duration,
    /// QoS of the readings, unless said otherwise.
    pub qos: u8,
}

impl Profile {
    /// The profile called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Arc<Self>> {
        (name == "power-meter").then(|| {
            Arc::new(Self {
                name: "power-meter".into(),
                measure: "power".into(),
                every: Duration::from_secs(10),
                qos: 1,
            })
        })
    }

    /// Appends the payload of a message.
    pub fn encode(&self, label: &Label, reading: &Reading, payload: &mut Vec<u8>) {
        let micros: u64 = label.intended_at.as_micros().try_into().unwrap_or(u64::MAX);
        let (volts, tenths) = (reading.voltage_dv / 10, reading.voltage_dv % 10);
        // Writing into a Vec cannot fail.
        let _ = write!(
            payload,
            r#"{{"d":{},"n":{},"t":{micros},"w":{},"v":{volts}.{tenths},"e":{}}}"#,
            label.device, label.sequence, reading.power_w, reading.energy_wh
        );
    }
}

/// Who sent a payload, and which of its messages it is; `None` when it is not one of ours.
#[must_use]
pub fn label(payload: &[u8]) -> Option<Label> {
    #[derive(serde::Deserialize)]
    struct Fields {
        d: u32,
        n: u32,
        t: u64,
    }
    let fields: Fields = serde_json::from_slice(payload).ok()?;
    Some(Label {
        device: fields.d,
        sequence: fields.n,
        intended_at: Duration::from_micros(fields.t),
    })
}

/// A device's part of its profile.
#[derive(Debug)]
pub struct Sensor(PowerMeter);

impl Sensor {
    /// That of device `index` in the run with `seed`.
    #[must_use]
    pub fn new(_profile: &Profile, seed: u64, index: u32) -> Self {
        Self(PowerMeter::new(seed, index))
    }

    /// Measures at `at`, which never goes back.
    pub fn read(&mut self, _profile: &Profile, at: Duration) -> Reading {
        self.0.read(at)
    }
}

/// What one message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Power drawn, watts.
    pub power_w: u32,
    /// Mains voltage, tenths of a volt.
    pub voltage_dv: u32,
    /// The register, watt-hours.
    pub energy_wh: u32,
}

/// A household's electricity meter.
#[derive(Debug)]
pub struct PowerMeter {
    rng: Pcg32,
    /// How large the household is; 1 is the mean.
    size: f32,
    /// Present deviation from the daily curve, in parts of the load.
    noise: f32,
    energy_wh: f64,
    read_at: Duration,
}

impl PowerMeter {
    /// The meter of device `index` in the run with `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u32) -> Self {
        let mut rng = rng(seed, index, Purpose::Readings);
        Self {
            size: rng.random_range(0.5..1.8),
            noise: 0.0,
            energy_wh: rng.random_range(100_000.0..90_000_000.0),
            read_at: Duration::ZERO,
            rng,
        }
    }

    /// Reads the meter at `at`, which never goes back.
    pub fn read(&mut self, at: Duration) -> Reading {
        let innovation = self.rng.random_range(-NOISE_STEP..NOISE_STEP);
        self.noise = self.noise * NOISE_MEMORY + innovation;
        let load_w = daily_load_w(at) * f64::from(self.size) * f64::from(1.0 + self.noise).max(0.1);
        let passed = at.saturating_sub(self.read_at);
        self.read_at = at;
        self.energy_wh += load_w * passed.as_secs_f64() / 3_600.0;
        let sag_dv = load_w / 1_000.0 * 6.0;
        let voltage_dv = 2_310.0 - sag_dv + self.rng.random_range(-15.0..15.0);
        Reading {
            power_w: load_w as u32,
            voltage_dv: voltage_dv as u32,
            energy_wh: self.energy_wh as u32,
        }
    }
}

/// The mean household's load at this time of the run's day.
fn daily_load_w(at: Duration) -> f64 {
    let hour = (DAY_START_H + at.as_secs_f64() / 3_600.0) % 24.0;
    let peak = |centre_h: f64, width_h: f64, height_w: f64| {
        let distance = (hour - centre_h) / width_h;
        height_w * (-distance * distance).exp()
    };
    180.0 + peak(7.5, 1.5, 420.0) + peak(12.5, 2.0, 160.0) + peak(19.0, 2.5, 650.0)
}

/// When a device takes its readings: at `every`, give or take `jitter` of it, from a random moment on.
#[derive(Debug)]
pub struct Schedule {
    rng: Pcg32,
    every: Duration,
    jitter: f64,
    next_at: Duration,
}

impl Schedule {
    /// The schedule of device `index`, with its first reading within `every` after `ready_at`.
    #[must_use]
    pub fn new(seed: u64, index: u32, every: Duration, jitter: f64, ready_at: Duration) -> Self {
        let mut rng = rng(seed, index, Purpose::Schedule);
        let next_at = ready_at + every.mul_f64(rng.random());
        Self {
            rng,
            every,
            jitter,
            next_at,
        }
    }

    /// When the next reading is due.
    #[must_use]
    pub fn next_at(&self) -> Duration {
        self.next_at
    }

    /// Goes on to the reading after that one.
    pub fn advance(&mut self) {
        let deviation = self.jitter * (2.0 * self.rng.random::<f64>() - 1.0);
        self.next_at += self.every.mul_f64(1.0 + deviation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_series() {
        let series = |seed, index| {
            let mut meter = PowerMeter::new(seed, index);
            let mut schedule =
                Schedule::new(seed, index, Duration::from_secs(10), 0.3, Duration::ZERO);
            let mut step = || {
                let at = schedule.next_at();
                schedule.advance();
                (at, meter.read(at))
            };
            (0..200).map(|_| step()).collect::<Vec<_>>()
        };
        assert_eq!(series(42, 5), series(42, 5));
        assert_ne!(series(42, 5), series(42, 6));
        assert_ne!(series(42, 5), series(43, 5));
    }

    #[test]
    fn energy_grows_and_evenings_draw_more_than_nights() {
        let mut meter = PowerMeter::new(1, 1);
        let readings: Vec<Reading> = (0..24 * 60)
            .map(|minute| meter.read(Duration::from_secs(minute * 60)))
            .collect();
        assert!(readings.is_sorted_by_key(|reading| reading.energy_wh));
        let mean_w = |from_h: usize| {
            let hour = &readings[(from_h - 6) * 60..(from_h - 5) * 60];
            hour.iter().map(|reading| reading.power_w).sum::<u32>() / 60
        };
        assert!(mean_w(19) > 2 * mean_w(26));
        for reading in readings {
            assert!((2_000..2_400).contains(&reading.voltage_dv));
            assert!(reading.power_w < 10_000);
        }
    }

    #[test]
    fn devices_start_unsynchronised_and_keep_their_mean_period() {
        let every = Duration::from_secs(10);
        let mut firsts: Vec<Duration> = (0..1_000)
            .map(|index| Schedule::new(42, index, every, 0.3, Duration::ZERO).next_at())
            .collect();
        firsts.sort();
        assert!(firsts[100] < Duration::from_secs(2) && firsts[900] > Duration::from_secs(8));
        let mut schedule = Schedule::new(42, 0, every, 0.3, Duration::ZERO);
        for _ in 0..1_000 {
            let before = schedule.next_at();
            schedule.advance();
            let period = schedule.next_at() - before;
            assert!((Duration::from_secs(7)..Duration::from_secs(13)).contains(&period));
        }
        assert!((9_700..10_300).contains(&schedule.next_at().as_secs()));
    }
}
