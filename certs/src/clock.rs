//! The wall clock, read in this one place, and its dates.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A day, in seconds.
pub(crate) const DAY_S: i64 = 24 * 60 * 60;
/// 9999-12-31 23:59:59, which means that a certificate has no end (RFC 5280, 4.1.2.5).
pub(crate) const FOREVER_UNIX_S: i64 = 253_402_300_799;

/// Seconds since 1970; 0 when the clock is set before that.
#[expect(
    clippy::disallowed_methods,
    reason = "the only caller of the clock in this crate"
)]
#[must_use]
pub fn now_unix_s() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

/// The day of a time in seconds since 1970, as `2026-11-23` (UTC).
#[must_use]
pub fn date(unix_s: i64) -> String {
    // Years that start in March end with the day that some of them have; the first of an era of 400 is year 0.
    let days = unix_s.div_euclid(DAY_S) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A time in seconds since 1970, as `2026-11-23T05:14:17Z`.
#[must_use]
pub fn date_time(unix_s: i64) -> String {
    let second = unix_s.rem_euclid(DAY_S);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(unix_s))
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Runs from now on.
    #[expect(
        clippy::disallowed_methods,
        reason = "the only caller of the clock in this crate"
    )]
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has run.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_392_000, "2026-11-23"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
            (FOREVER_UNIX_S, "9999-12-31"),
        ] {
            assert_eq!(date(unix_s), expected, "{unix_s}");
        }
        assert_eq!(date_time(1_795_410_857), "2026-11-23T05:14:17Z");
    }
}
