//! How a measured value goes on in time: daily curve, noise, drift, spikes and a sensor that is stuck.
//!
//! ```text
//! level = offset + factor * (base + swing * curve(time of day) + noise) + drift, held to min..max
//! ```
//!
//! Offset, factor and drift are drawn once for each device; noise is an AR(1) process. Each reading draws
//! the same amount of randomness whatever the parameters say, so that changing one leaves the others' draws.
//! Time is the profile's, which may pass faster than the run's: see [`super::Profile::series_time_s`].

use rand::{Rng, RngExt};
use rand_pcg::Pcg32;
use std::time::Duration;

const DAY_S: f64 = 86_400.0;
/// Midnight of 2026-01-01, UTC: the day on which every run begins.
const FIRST_DAY_S: f64 = 1_767_225_600.0;
/// A curve's mean over a long time is taken from this many places.
const MEAN_PLACES_MAX: f64 = 24.0;

/// The parameters of a profile's main value, in that value's unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The level at which the curve is 0.
    pub base: f64,
    /// What the curve adds where it is 1.
    pub swing: f64,
    /// The shape of a day.
    pub curve: Curve,
    /// The hour at which a sine is highest.
    pub peak_hour: f64,
    /// The time of day at which a run begins, hours.
    pub start_hour: f64,
    /// Devices differ by up to this much, up or down.
    pub offset: f64,
    /// Devices differ by up to this part of the level, up or down.
    pub scale: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
    /// How much of the noise the next reading keeps, 0 to below 1.
    pub memory: f64,
    /// Devices drift away by up to this much a day, up or down.
    pub drift_per_day: f64,
    /// The part of the readings that are spikes.
    pub spikes: f64,
    /// How far a spike is off.
    pub spike_size: f64,
    /// The part of the readings at which a sensor becomes stuck.
    pub stuck: f64,
    /// How many readings it then repeats.
    pub stuck_for: u16,
    /// Device clocks are wrong by up to this much.
    pub clock_skew: Duration,
    /// Device clocks are fast or slow by up to this many millionths.
    pub clock_drift_ppm: f64,
    /// No value is lower.
    pub min: f64,
    /// No value is higher.
    pub max: f64,
}

/// The shape of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Always 0.
    Flat,
    /// From -1 to 1 with its peak at `peak_hour`.
    Sine,
    /// A household's electricity: small peaks in the morning and at noon, 1 at 19:00.
    Household,
    /// A household's water: 1 at 7:00, less at noon and in the evening.
    Water,
    /// Two working shifts: 1 from 6:00 to 22:00.
    Shifts,
}

impl Curve {
    /// All of them by name.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("flat", Self::Flat),
        ("sine", Self::Sine),
        ("household", Self::Household),
        ("water", Self::Water),
        ("shifts", Self::Shifts),
    ];

    fn at(self, hour: f64, peak_hour: f64) -> f64 {
        let peak = |centre: f64, width: f64, height: f64| {
            let distance = (hour - centre) / width;
            height * (-distance * distance).exp()
        };
        match self {
            Self::Flat => 0.0,
            Self::Sine => ((hour - peak_hour) / 24.0 * std::f64::consts::TAU).cos(),
            Self::Household => peak(7.5, 1.5, 0.65) + peak(12.5, 2.0, 0.25) + peak(19.0, 2.5, 1.0),
            Self::Water => peak(7.0, 1.2, 1.0) + peak(12.5, 1.5, 0.4) + peak(19.5, 2.0, 0.7),
            Self::Shifts if (6.0..22.0).contains(&hour) => 1.0,
            Self::Shifts => 0.0,
        }
    }
}

impl Series {
    /// The time of day at this time of the series, hours.
    pub(crate) fn hour(&self, at_s: f64) -> f64 {
        (self.start_hour + at_s / 3_600.0).rem_euclid(24.0)
    }

    /// The curve's mean between two times.
    fn curve_mean(&self, from_s: f64, to_s: f64) -> f64 {
        // Whole days have the same mean, so that one stands for all.
        let from_s = from_s.max(to_s - DAY_S);
        let places = ((to_s - from_s) / 3_600.0)
            .ceil()
            .clamp(1.0, MEAN_PLACES_MAX);
        let step_s = (to_s - from_s) / places;
        let mut sum = 0.0;
        for place in 0..places as u32 {
            let at_s = from_s + (f64::from(place) + 0.5) * step_s;
            sum += self.curve.at(self.hour(at_s), self.peak_hour);
        }
        sum / places
    }
}

/// Where a device's main value is.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    offset: f32,
    factor: f32,
    drift_per_day: f32,
    noise: f32,
    /// What is repeated while the sensor is stuck.
    held: f32,
    stuck_left: u16,
}

/// One step of the main value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// What the sensor shows.
    pub(crate) level: f64,
    /// It shows something that is not so.
    pub(crate) is_spike: bool,
    /// It shows what it showed before.
    pub(crate) is_stuck: bool,
}

impl Trace {
    pub(crate) fn new(series: &Series, rng: &mut Pcg32) -> Self {
        let mut within = |most: f64| (rng.random_range(-1.0..1.0) * most) as f32;
        Self {
            offset: within(series.offset),
            factor: 1.0 + within(series.scale),
            drift_per_day: within(series.drift_per_day),
            noise: within(series.noise),
            held: 0.0,
            stuck_left: 0,
        }
    }

    /// The mean level between two times, with one step of the noise.
    pub(crate) fn step(
        &mut self,
        series: &Series,
        rng: &mut Pcg32,
        from_s: f64,
        to_s: f64,
    ) -> Measured {
        let innovation = series.noise * (1.0 - series.memory * series.memory).sqrt() * normal(rng);
        let [spikes, sticks, upwards]: [f64; 3] = rng.random();
        self.noise = (f64::from(self.noise) * series.memory + innovation) as f32;
        if self.stuck_left > 0 {
            self.stuck_left -= 1;
            return Measured {
                level: self.held.into(),
                is_spike: false,
                is_stuck: true,
            };
        }
        let shape = series.base + series.swing * series.curve_mean(from_s, to_s);
        let drift = f64::from(self.drift_per_day) * to_s / DAY_S;
        let is_spike = spikes < series.spikes;
        let spike = match (is_spike, upwards < 0.5) {
            (false, _) => 0.0,
            // Where nothing is below zero, there is no spike downwards either.
            (true, true) if series.min < 0.0 => -series.spike_size,
            (true, _) => series.spike_size,
        };
        let level = f64::from(self.offset)
            + f64::from(self.factor) * (shape + f64::from(self.noise))
            + drift;
        let level = (level.max(series.min) + spike).clamp(series.min, series.max) as f32;
        if sticks < series.stuck {
            self.stuck_left = series.stuck_for;
            self.held = level;
        }
        Measured {
            level: level.into(),
            is_spike,
            is_stuck: false,
        }
    }
}

/// A device's own clock.
#[derive(Clone, Debug)]
pub(crate) struct DeviceClock {
    ahead_s: f32,
    fast_ppm: f32,
}

impl DeviceClock {
    pub(crate) fn new(series: &Series, rng: &mut Pcg32) -> Self {
        let mut within = |most: f64| (rng.random_range(-1.0..1.0) * most) as f32;
        Self {
            ahead_s: within(series.clock_skew.as_secs_f64()),
            fast_ppm: within(series.clock_drift_ppm),
        }
    }

    /// What it shows, seconds since 1970.
    pub(crate) fn shown_s(&self, series: &Series, at_s: f64) -> u32 {
        let true_s = FIRST_DAY_S + series.start_hour * 3_600.0 + at_s;
        let wrong_s = f64::from(self.ahead_s) + at_s * f64::from(self.fast_ppm) / 1e6;
        (true_s + wrong_s) as u32
    }
}

/// A number with mean 0 and standard deviation 1, never beyond 3.5: outliers are for spikes alone.
pub(crate) fn normal(rng: &mut Pcg32) -> f64 {
    let bits = rng.next_u64();
    let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xFFFF).sum();
    // Four uniform numbers of 0 to 1 have the mean 2 and the variance 1/3.
    (sum as f64 / 65_535.0 - 2.0) * 3_f64.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::presets::STILL;
    use crate::seed::{Purpose, rng};

    const QUIET: Series = Series {
        base: 20.0,
        stuck_for: 0,
        clock_skew: Duration::ZERO,
        clock_drift_ppm: 0.0,
        min: -100.0,
        max: 100.0,
        ..STILL
    };

    #[test]
    fn a_quiet_series_stays_at_its_base() {
        for measured in steps(&QUIET, 1_000) {
            assert_eq!(measured.level, 20.0);
            assert!(!measured.is_spike && !measured.is_stuck);
        }
    }

    #[test]
    fn noise_has_its_deviation_and_its_memory() {
        let series = Series {
            noise: 2.0,
            memory: 0.9,
            ..QUIET
        };
        let levels: Vec<f64> = levels(&series, 50_000)
            .iter()
            .map(|level| level - 20.0)
            .collect();
        let variance = mean(levels.iter().map(|level| level * level));
        assert!((1.8..2.2).contains(&variance.sqrt()), "{variance}");
        let kept = mean(levels.windows(2).map(|pair| pair[0] * pair[1])) / variance;
        assert!((0.88..0.92).contains(&kept), "{kept}");
    }

    #[test]
    fn spikes_occur_as_often_as_configured_and_go_both_ways() {
        let series = Series {
            spikes: 0.01,
            spike_size: 30.0,
            ..QUIET
        };
        let steps = steps(&series, 50_000);
        let count = |level: f64| steps.iter().filter(|step| step.level == level).count();
        let (up, down) = (count(50.0), count(-10.0));
        assert_eq!(steps.iter().filter(|step| step.is_spike).count(), up + down);
        assert!((420..580).contains(&(up + down)), "{up} {down}");
        assert!(up.abs_diff(down) < 100);
    }

    #[test]
    fn a_stuck_sensor_repeats_as_many_readings_as_configured() {
        let series = Series {
            noise: 1.0,
            stuck: 0.002,
            stuck_for: 20,
            ..QUIET
        };
        let steps = steps(&series, 100_000);
        let stuck = steps.iter().filter(|step| step.is_stuck).count();
        // 100,000 * 0.002 * 20 / (1 + 0.002 * 20)
        assert!((3_200..4_500).contains(&stuck), "{stuck}");
        let runs = steps.chunk_by(|one, other| one.level == other.level);
        let longest: Vec<usize> = runs.map(<[_]>::len).filter(|length| *length > 3).collect();
        assert!(longest.iter().all(|length| (length - 1).is_multiple_of(20)));
    }

    #[test]
    fn one_parameter_leaves_the_draws_of_the_others() {
        let noisy = Series {
            noise: 1.0,
            ..QUIET
        };
        let spiky = Series {
            spikes: 0.1,
            spike_size: 50.0,
            ..noisy
        };
        let (plain, spiky) = (levels(&noisy, 1_000), steps(&spiky, 1_000));
        for (plain, spiky) in plain.iter().zip(&spiky) {
            assert!(spiky.is_spike || spiky.level == *plain);
        }
    }

    #[test]
    fn drift_adds_up_day_by_day_and_a_sine_follows_the_day() {
        let series = Series {
            drift_per_day: 1.0,
            ..QUIET
        };
        let mut rng = rng(1, 1, Purpose::Readings);
        let mut trace = Trace::new(&series, &mut rng);
        let mut level = |day: f64| {
            let at_s = day * DAY_S;
            trace.step(&series, &mut rng, at_s, at_s).level - 20.0
        };
        let (first, tenth) = (level(1.0), level(10.0));
        assert!(first != 0.0 && (tenth / first - 10.0).abs() < 0.001);
        let sine = Series {
            swing: 5.0,
            curve: Curve::Sine,
            ..QUIET
        };
        let mut trace = Trace::new(&sine, &mut rng);
        let mut at_hour = |hour: f64| {
            let at_s = (hour - 6.0) * 3_600.0;
            trace.step(&sine, &mut rng, at_s, at_s).level
        };
        assert!((at_hour(15.0) - 25.0).abs() < 0.01);
        assert!((at_hour(27.0) - 15.0).abs() < 0.01);
    }

    #[test]
    fn the_mean_over_a_day_does_not_depend_on_where_it_begins() {
        let series = Series {
            curve: Curve::Water,
            ..QUIET
        };
        let noon = series.curve_mean(21_600.0, 21_600.0 + DAY_S);
        let night = series.curve_mean(64_800.0, 64_800.0 + 3.0 * DAY_S);
        assert!((noon - night).abs() < 0.01, "{noon} {night}");
    }

    #[test]
    fn clocks_are_wrong_by_no_more_than_configured() {
        let series = Series {
            clock_skew: Duration::from_secs(60),
            clock_drift_ppm: 100.0,
            ..QUIET
        };
        let start_s = 1_767_225_600 + 6 * 3_600;
        let mut most = 0;
        for index in 0..1_000 {
            let mut rng = rng(1, index, Purpose::Readings);
            let clock = DeviceClock::new(&series, &mut rng);
            let wrong_s = clock.shown_s(&series, 0.0).abs_diff(start_s);
            assert!(wrong_s <= 60);
            most = most.max(wrong_s);
            let after_s = clock
                .shown_s(&series, 10.0 * DAY_S)
                .abs_diff(start_s + 864_000);
            assert!(after_s <= 60 + 87);
        }
        assert!(most > 55);
    }

    fn steps(series: &Series, count: u32) -> Vec<Measured> {
        let mut rng = rng(42, 7, Purpose::Readings);
        let mut trace = Trace::new(series, &mut rng);
        let step = |at| trace.step(series, &mut rng, f64::from(at), f64::from(at) + 1.0);
        (0..count).map(step).collect()
    }

    fn levels(series: &Series, count: u32) -> Vec<f64> {
        steps(series, count).iter().map(|step| step.level).collect()
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = values.len() as f64;
        values.sum::<f64>() / count
    }
}
