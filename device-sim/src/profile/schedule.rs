//! When a device takes its readings: steadily, in bursts, once a day or when something happens.
//!
//! Readings are due in the open model: nothing that a broker or a link does moves them. Devices start
//! unsynchronised. Only the seed, the device's number and the profile count.

use super::Profile;
use crate::seed::{Purpose, rng};
use rand::RngExt;
use rand_pcg::Pcg32;
use std::time::Duration;

/// How many events are considered before one is taken.
const EVENTS_CONSIDERED_MAX: u32 = 100;
/// How much more happens by day than on average, and less by night.
const EVENTS_SWING: f64 = 0.8;
const EVENTS_PEAK_HOUR: f64 = 14.0;

/// In what rhythm readings fall due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cadence {
    /// One after `every`, give or take the jitter.
    Steady,
    /// `count` at once, `gap` apart; from one burst to the next it is `every`, give or take the jitter.
    Bursts {
        /// Readings of a burst.
        count: u16,
        /// Between two of them.
        gap: Duration,
    },
    /// One a day, and `every` is how long a day takes in the run; each device has its own time between `hour`
    /// and `window_h` later, and is late by up to the jitter's part of a day.
    Daily {
        /// Where the window begins, 0 to 24.
        hour: f64,
        /// How long it is, up to 24.
        window_h: f64,
    },
    /// At random, on average one in `every`, most at two in the afternoon; the jitter does not matter.
    Events,
}

/// When a device takes its readings.
#[derive(Debug)]
pub struct Schedule {
    rng: Pcg32,
    /// Without the jitter of a daily reading.
    due_at: Duration,
    next_at: Duration,
    left_in_burst: u16,
}

impl Schedule {
    /// The schedule of device `index`; no reading is due before `ready_at`.
    #[must_use]
    pub fn new(profile: &Profile, seed: u64, index: u32, ready_at: Duration) -> Self {
        let mut rng = rng(seed, index, Purpose::Schedule);
        let part: f64 = rng.random();
        let every = profile.every;
        let due_at = match profile.cadence {
            Cadence::Daily { hour, window_h } => {
                let slot_h = hour + window_h * part - profile.series.start_hour;
                let slot = every.mul_f64(slot_h.rem_euclid(24.0) / 24.0);
                let days = ready_at.saturating_sub(slot).as_secs_f64() / every.as_secs_f64();
                slot + every.mul_f64(days.ceil())
            }
            Cadence::Steady | Cadence::Bursts { .. } | Cadence::Events => {
                ready_at + every.mul_f64(part)
            }
        };
        let mut schedule = Self {
            rng,
            due_at,
            next_at: due_at,
            left_in_burst: 0,
        };
        match profile.cadence {
            Cadence::Bursts { count, .. } => schedule.left_in_burst = count.saturating_sub(1),
            Cadence::Daily { .. } => schedule.be_late(profile),
            Cadence::Steady | Cadence::Events => {}
        }
        schedule
    }

    /// When the next reading is due.
    #[must_use]
    pub fn next_at(&self) -> Duration {
        self.next_at
    }

    /// Goes on to the reading after that one.
    pub fn advance(&mut self, profile: &Profile) {
        match profile.cadence {
            Cadence::Steady => {
                let pause = self.varied(profile);
                self.next_at += pause;
            }
            Cadence::Bursts { gap, .. } if self.left_in_burst > 0 => {
                self.left_in_burst -= 1;
                self.next_at += gap;
            }
            Cadence::Bursts { count, gap } => {
                let others = count.saturating_sub(1);
                let pause = self.varied(profile).saturating_sub(gap * others.into());
                self.next_at += pause.max(gap);
                self.left_in_burst = others;
            }
            Cadence::Daily { .. } => {
                self.due_at += profile.every;
                self.be_late(profile);
            }
            Cadence::Events => self.next_at = self.next_event(profile),
        }
    }

    fn varied(&mut self, profile: &Profile) -> Duration {
        let part: f64 = self.rng.random_range(-1.0..1.0);
        profile.every.mul_f64(1.0 + part * profile.jitter)
    }

    fn be_late(&mut self, profile: &Profile) {
        let part: f64 = self.rng.random();
        self.next_at = self.due_at + profile.every.mul_f64(part * profile.jitter);
    }

    /// A Poisson process whose rate follows the day, by thinning one that has its highest rate all day.
    fn next_event(&mut self, profile: &Profile) -> Duration {
        let mut at = self.next_at;
        for _ in 0..EVENTS_CONSIDERED_MAX {
            let [pause, taken]: [f64; 2] = self.rng.random();
            // 1 - pause is never 0.
            let pause = -(1.0 - pause).ln() / (1.0 + EVENTS_SWING);
            at += profile.every.mul_f64(pause);
            let hour = profile.series.hour(profile.series_time_s(at));
            let angle = (hour - EVENTS_PEAK_HOUR) / 24.0 * std::f64::consts::TAU;
            let rate = 1.0 + EVENTS_SWING * angle.cos();
            if taken * (1.0 + EVENTS_SWING) < rate {
                break;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn devices_start_unsynchronised_and_keep_their_mean_period() {
        let profile = profile(Cadence::Steady, 0.3);
        let mut firsts: Vec<Duration> = (0..1_000)
            .map(|index| Schedule::new(&profile, 42, index, Duration::ZERO).next_at())
            .collect();
        firsts.sort();
        assert!(firsts[100] < Duration::from_secs(2) && firsts[900] > Duration::from_secs(8));
        let times = times(&profile, 1_000);
        for period in periods(&times) {
            assert!((Duration::from_secs(7)..Duration::from_secs(13)).contains(&period));
        }
        assert!((9_700..10_300).contains(&times[999].as_secs()));
    }

    #[test]
    fn without_jitter_the_period_is_exact() {
        for period in periods(&times(&profile(Cadence::Steady, 0.0), 100)) {
            assert_eq!(period, EVERY);
        }
    }

    #[test]
    fn a_burst_has_its_count_and_its_gaps() {
        let gap = Duration::from_millis(200);
        let times = times(&profile(Cadence::Bursts { count: 8, gap }, 0.1), 800);
        for (index, period) in periods(&times).into_iter().enumerate() {
            if index % 8 == 7 {
                assert!((7_600..9_600).contains(&period.as_millis()), "{period:?}");
            } else {
                assert_eq!(period, gap);
            }
        }
        for pair in times.chunks(8).collect::<Vec<_>>().windows(2) {
            let between = (pair[1][0] - pair[0][0]).as_secs_f64();
            assert!((8.99..11.01).contains(&between), "{between}");
        }
    }

    #[test]
    fn a_daily_reading_keeps_to_its_window() {
        let daily = Cadence::Daily {
            hour: 2.0,
            window_h: 3.0,
        };
        let profile = Profile {
            every: Duration::from_secs(24),
            ..profile(daily, 0.0)
        };
        let mut firsts = Vec::new();
        for index in 0..200 {
            let ready_at = Duration::from_secs(30);
            let mut schedule = Schedule::new(&profile, 42, index, ready_at);
            let first = schedule.next_at();
            assert!((ready_at..ready_at + profile.every).contains(&first));
            for day in 0..5 {
                assert_eq!(schedule.next_at(), first + profile.every * day);
                // One second is an hour, and the run begins at six.
                let hour = (6.0 + schedule.next_at().as_secs_f64()) % 24.0;
                assert!((1.999..5.001).contains(&hour), "{hour}");
                schedule.advance(&profile);
            }
            firsts.push(first);
        }
        firsts.sort();
        assert!(firsts[199] - firsts[0] > Duration::from_millis(2_800));
    }

    #[test]
    fn events_keep_their_mean_and_happen_by_day() {
        let profile = Profile {
            natural_every: Duration::from_secs(3_600),
            every: Duration::from_secs(3_600),
            ..profile(Cadence::Events, 0.0)
        };
        let times = times(&profile, 24_000);
        let days = times[23_999].as_secs_f64() / 86_400.0;
        assert!((960.0..1_040.0).contains(&days), "{days}");
        let by_day = |at: &&Duration| (8.0..20.0).contains(&profile.series.hour(at.as_secs_f64()));
        let share = times.iter().filter(by_day).count() as f64 / 24_000.0;
        // 1/2 * (1 + 0.8 * 2 / pi) is 0.755.
        assert!((0.71..0.78).contains(&share), "{share}");
    }

    fn profile(cadence: Cadence, jitter: f64) -> Profile {
        Profile {
            cadence,
            jitter,
            every: EVERY,
            ..Profile::clone(&Profile::named("thermometer").unwrap())
        }
    }

    fn times(profile: &Profile, count: usize) -> Vec<Duration> {
        let mut schedule = Schedule::new(profile, 42, 0, Duration::ZERO);
        let mut next = || {
            let at = schedule.next_at();
            schedule.advance(profile);
            at
        };
        (0..count).map(|_| next()).collect()
    }

    fn periods(times: &[Duration]) -> Vec<Duration> {
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}
