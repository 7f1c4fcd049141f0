//! A device's own part of a profile: where its values are and how they go on.
//!
//! Invariants:
//! - Readings depend on the seed, the device's number, the profile and the times of the readings only.
//! - Registers never go back; while a sensor is stuck, its register stands still.
//! - A sensor has no more than 96 bytes: there are many.

use super::measure::{Measure, Reading};
use super::series::{DeviceClock, Measured, Trace, normal};
use super::{Command, Profile};
use crate::seed::{Purpose, rng};
use rand::RngExt;
use rand_pcg::Pcg32;
use std::time::Duration;

const DAY_S: f64 = 86_400.0;
/// A degree of latitude.
const DEGREE_M: f64 = 111_195.0;
/// What a plug draws that is switched off.
const STANDBY_W: f64 = 0.3;
/// How long a battery lasts for one per cent.
const BATTERY_PERCENT_S: f64 = 20.0 * DAY_S;
/// Below this voltage a meter raises its alarm: 230 V less 10 %.
const UNDERVOLTAGE_V: f64 = 207.0;
/// The part of a meter's readings with a sag of [`SAG_V`].
const SAGS: f64 = 0.000_5;
const SAG_V: f64 = 30.0;
const UNDERVOLTAGE: f64 = 0.0;
const OVERLOAD: f64 = 1.0;
const LEAK: f64 = 0.0;

/// Where things move, for positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Latitude of the area's centre, degrees.
    pub latitude: f64,
    /// Its longitude, degrees.
    pub longitude: f64,
    /// Who is farther away turns back.
    pub radius_km: f64,
    /// Mean time from one stop to the next.
    pub drive: Duration,
    /// Mean time of a stop.
    pub stop: Duration,
}

/// A device's sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    rng: Pcg32,
    /// Time of the last reading, in the series.
    read_at_s: f64,
    trace: Trace,
    clock: DeviceClock,
    /// Per cent at the start.
    battery: u8,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Plain,
    Register(f64),
    Position {
        latitude: f64,
        longitude: f64,
        heading: f32,
        stop_left_s: f32,
    },
    Switch {
        is_on: bool,
        energy_wh: f64,
        command: Option<u32>,
    },
    Bay {
        is_taken: bool,
        changed_at_s: f64,
    },
    Leaves {
        next: u8,
        salt: u64,
    },
}

/// From the last reading to this one, in the series.
#[derive(Clone, Copy, Debug)]
struct Passed {
    now_s: f64,
    seconds: f64,
}

impl Sensor {
    /// The sensor of device `index` in the run with `seed`.
    #[must_use]
    pub fn new(profile: &Profile, seed: u64, index: u32) -> Self {
        let mut rng = rng(seed, index, Purpose::Readings);
        Self {
            read_at_s: 0.0,
            trace: Trace::new(&profile.series, &mut rng),
            clock: DeviceClock::new(&profile.series, &mut rng),
            battery: rng.random_range(60..=100),
            state: State::new(profile, &mut rng),
            rng,
        }
    }

    /// Takes a reading at `at` of the run, which never goes back.
    pub fn read(&mut self, profile: &Profile, at: Duration) -> Reading {
        let from_s = self.read_at_s;
        let now_s = profile.series_time_s(at).max(from_s);
        self.read_at_s = now_s;
        let measured = self
            .trace
            .step(&profile.series, &mut self.rng, from_s, now_s);
        let passed = Passed {
            now_s,
            seconds: now_s - from_s,
        };
        let values = self.values(profile, measured, passed);
        let mut reading = Reading::new(profile.measure, &values);
        if profile.has_timestamp {
            reading.clock_s = Some(self.clock.shown_s(&profile.series, now_s));
        }
        reading
    }

    /// Obeys a command; `true` when the device takes commands and this is not one that it has already obeyed.
    ///
    /// The next reading says the new state and the command's sequence.
    pub fn apply(&mut self, command: &Command) -> bool {
        let State::Switch {
            is_on,
            command: last,
            ..
        } = &mut self.state
        else {
            return false;
        };
        // A repetition, which may come after newer ones, changes nothing.
        if *last >= Some(command.sequence) {
            return false;
        }
        *last = Some(command.sequence);
        *is_on = command.is_on;
        true
    }

    /// Whether it is switched on; `None` when it is no switch.
    #[must_use]
    pub fn is_on(&self) -> Option<bool> {
        match self.state {
            State::Switch { is_on, .. } => Some(is_on),
            _ => None,
        }
    }

    fn values(
        &mut self,
        profile: &Profile,
        measured: Measured,
        passed: Passed,
    ) -> [Option<f64>; 5] {
        let battery = f64::from(self.battery) - passed.now_s / BATTERY_PERCENT_S;
        let rng = &mut self.rng;
        // Stuck sensors draw as much as others.
        let small = normal(rng);
        let passed_s = if measured.is_stuck {
            0.0
        } else {
            passed.seconds
        };
        match (&mut self.state, profile.measure) {
            (State::Register(energy_wh), Measure::Power) => {
                *energy_wh += measured.level * passed_s / 3_600.0;
                power(measured, small, *energy_wh, rng)
            }
            (State::Register(litres), _) => {
                // A leak runs for an hour.
                let hours = if measured.is_spike {
                    passed_s.min(3_600.0)
                } else {
                    passed_s
                } / 3_600.0;
                let used = measured.level * hours;
                *litres += used;
                let alarm = measured.is_spike.then_some(LEAK);
                [Some(*litres), Some(used), alarm, Some(battery), None]
            }
            (State::Position { .. }, _) => self.moved(profile, measured, passed_s, battery),
            (
                State::Switch {
                    is_on,
                    energy_wh,
                    command,
                },
                _,
            ) => {
                let draws_w = if *is_on { measured.level } else { STANDBY_W };
                *energy_wh += draws_w * passed_s / 3_600.0;
                let is_on = f64::from(u8::from(*is_on));
                [
                    Some(is_on),
                    Some(draws_w),
                    Some(*energy_wh),
                    command.map(f64::from),
                    None,
                ]
            }
            (
                State::Bay {
                    is_taken,
                    changed_at_s,
                },
                _,
            ) => {
                let since_s = passed.now_s - *changed_at_s;
                if !measured.is_stuck {
                    *is_taken = !*is_taken;
                    *changed_at_s = passed.now_s;
                }
                let is_taken = f64::from(u8::from(*is_taken));
                [Some(is_taken), Some(since_s), Some(battery), None, None]
            }
            (State::Leaves { next, salt }, _) => {
                let leaf = *next;
                *next = (leaf + 1) % profile.leaves.max(1);
                // A leaf's own place is a fixed number, not a state.
                let place = mixed(*salt, leaf);
                let (warmer, farther) = (part(place), part(place.rotate_left(32)));
                let degrees = measured.level + (warmer - 0.5) * 2.0 * profile.series.offset;
                let rssi = -50.0 - 45.0 * farther + small * 2.0;
                let humidity = humidity(profile, degrees, small);
                [
                    Some(leaf.into()),
                    Some(degrees),
                    Some(humidity),
                    Some(rssi),
                    None,
                ]
            }
            (State::Plain, Measure::Vibration) => vibration(measured, small),
            (State::Plain, _) => {
                let humidity = humidity(profile, measured.level, small);
                [
                    Some(measured.level),
                    Some(humidity),
                    Some(battery),
                    None,
                    None,
                ]
            }
        }
    }

    /// Goes on along the track.
    fn moved(
        &mut self,
        profile: &Profile,
        measured: Measured,
        passed_s: f64,
        battery: f64,
    ) -> [Option<f64>; 5] {
        let track = &profile.track;
        let [stops, long]: [f64; 2] = self.rng.random();
        let turn = normal(&mut self.rng);
        let State::Position {
            latitude,
            longitude,
            heading,
            stop_left_s,
        } = &mut self.state
        else {
            return [None; 5];
        };
        let stands_s = f64::from(*stop_left_s).min(passed_s);
        *stop_left_s -= stands_s as f32;
        let drives_s = passed_s - stands_s;
        let is_standing = *stop_left_s > 0.0;
        let east_m = (*longitude - track.longitude) * DEGREE_M * track.latitude.to_radians().cos();
        let north_m = (*latitude - track.latitude) * DEGREE_M;
        if drives_s > 0.0 {
            let wobble = 15.0 * (drives_s / 10.0).sqrt().min(6.0) * turn;
            let is_outside = east_m.hypot(north_m) > track.radius_km * 1_000.0;
            let towards = if is_outside {
                (-east_m).atan2(-north_m).to_degrees()
            } else {
                f64::from(*heading)
            };
            *heading = (towards + wobble).rem_euclid(360.0) as f32;
            let way_m = measured.level * drives_s;
            let (sine, cosine) = f64::from(*heading).to_radians().sin_cos();
            *latitude += way_m * cosine / DEGREE_M;
            *longitude += way_m * sine / (DEGREE_M * track.latitude.to_radians().cos());
            if stops < drives_s / track.drive.as_secs_f64().max(1.0) {
                *stop_left_s = (track.stop.as_secs_f64() * 2.0 * long) as f32;
            }
        }
        let speed = if is_standing { 0.0 } else { measured.level };
        // 359.7 is north.
        let heading = f64::from(*heading).round() % 360.0;
        [
            Some(*latitude),
            Some(*longitude),
            Some(speed),
            Some(heading),
            Some(battery),
        ]
    }
}

impl State {
    fn new(profile: &Profile, rng: &mut Pcg32) -> Self {
        match profile.measure {
            Measure::Temperature | Measure::Vibration => Self::Plain,
            Measure::Power => Self::Register(rng.random_range(100_000.0..90_000_000.0)),
            Measure::Volume => Self::Register(rng.random_range(5_000.0..900_000.0)),
            Measure::Position => {
                let track = &profile.track;
                // Anywhere in the square within the circle.
                let half_m = track.radius_km * 700.0;
                let (north_m, east_m) = (
                    rng.random_range(-1.0..1.0) * half_m,
                    rng.random_range(-1.0..1.0) * half_m,
                );
                let narrowed_m = DEGREE_M * track.latitude.to_radians().cos();
                Self::Position {
                    latitude: track.latitude + north_m / DEGREE_M,
                    longitude: track.longitude + east_m / narrowed_m,
                    heading: rng.random_range(0.0..360.0),
                    stop_left_s: 0.0,
                }
            }
            Measure::Switch => Self::Switch {
                is_on: rng.random(),
                energy_wh: rng.random_range(0.0..500_000.0),
                command: None,
            },
            Measure::Occupancy => Self::Bay {
                is_taken: rng.random(),
                changed_at_s: 0.0,
            },
            Measure::Leaf => Self::Leaves {
                next: 0,
                salt: rng.random(),
            },
        }
    }
}

fn power(measured: Measured, small: f64, energy_wh: f64, rng: &mut Pcg32) -> [Option<f64>; 5] {
    let sag_v = if rng.random_bool(SAGS) { SAG_V } else { 0.0 };
    let voltage_v = 231.0 - measured.level / 1_000.0 * 1.5 + small - sag_v;
    let alarm = if measured.is_spike {
        Some(OVERLOAD)
    } else {
        (voltage_v < UNDERVOLTAGE_V).then_some(UNDERVOLTAGE)
    };
    [
        Some(measured.level),
        Some(voltage_v),
        Some(energy_wh),
        alarm,
        None,
    ]
}

/// Velocity of a motor at 1,490 turns a minute; peak and warmth follow it.
fn vibration(measured: Measured, small: f64) -> [Option<f64>; 5] {
    let rms_mm_s = measured.level;
    let frequency_hz = 24.8 + 0.1 * small;
    let peak_m_s2 = rms_mm_s * 0.001 * std::f64::consts::TAU * frequency_hz * 2_f64.sqrt() * 3.0;
    let temperature = 28.0 + 6.0 * rms_mm_s + 0.3 * small;
    [
        Some(rms_mm_s),
        Some(peak_m_s2),
        Some(frequency_hz),
        Some(temperature),
        None,
    ]
}

/// Warm air is drier: three points for each degree above the base.
fn humidity(profile: &Profile, degrees: f64, small: f64) -> f64 {
    (55.0 - 3.0 * (degrees - profile.series.base) + small).clamp(5.0, 100.0)
}

/// A fixed number for each leaf: the finaliser of SplitMix64.
fn mixed(salt: u64, leaf: u8) -> u64 {
    let mut mixed = salt.wrapping_add(u64::from(leaf).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The low half, as 0 to 1.
fn part(number: u64) -> f64 {
    f64::from(number as u32) / f64::from(u32::MAX)
}
