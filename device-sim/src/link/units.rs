//! How people write times, ranges of times and bit rates, and how figures are written back.

use crate::text::duration;
use std::time::Duration;

/// Longer times are a mistake.
const TIME_MAX: Duration = Duration::from_secs(366 * 86_400);
const UNITS_MS: [(&str, f64); 5] = [
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
    ("ms", 1.0),
];

/// `840ms`, `10s`, `30m`; at most a year.
pub(super) fn time(text: &str) -> Option<Duration> {
    duration(text).ok().filter(|time| *time <= TIME_MAX)
}

/// `10s to 20s`, or `10s` alone.
pub(super) fn time_range(text: &str) -> Option<(Duration, Duration)> {
    let (shortest, longest) = text.split_once(" to ").unwrap_or((text, text));
    let (shortest, longest) = (time(shortest.trim())?, time(longest.trim())?);
    (shortest <= longest).then_some((shortest, longest))
}

/// `25 kbit/s`, `300 bit/s`, `5 Mbit/s`; a number alone is kbit/s. At least 1 bit/s.
pub(super) fn bits_per_s(text: &str) -> Option<u32> {
    let digits =
        text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '/');
    let unit = match text.strip_prefix(digits)? {
        "bit/s" | "bps" => 1.0,
        "kbit/s" | "kbps" | "" => 1e3,
        "Mbit/s" | "Mbps" => 1e6,
        _ => return None,
    };
    let number: f64 = digits.trim_end().parse().ok()?;
    let bits_per_s = (number * unit).round();
    (1.0..=f64::from(u32::MAX))
        .contains(&bits_per_s)
        .then_some(bits_per_s as u32)
}

/// `840ms`, `10s`, `30m`: the largest unit that says it in whole numbers.
pub(crate) fn time_text(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1_000.0;
    for (unit, unit_ms) in UNITS_MS {
        let number = ms / unit_ms;
        if number >= 1.0 && number.fract() == 0.0 {
            return format!("{number}{unit}");
        }
    }
    format!("{ms}ms")
}

/// `10s to 20s`, or `10s` alone.
pub(crate) fn time_range_text((shortest, longest): (Duration, Duration)) -> String {
    if shortest == longest {
        time_text(shortest)
    } else {
        format!("{} to {}", time_text(shortest), time_text(longest))
    }
}

/// `1 %`.
pub(crate) fn share_text(share: f64) -> String {
    let percent = (share * 1e6).round() / 1e4;
    format!("{percent} %")
}

/// `25 kbit/s`.
pub(crate) fn bits_per_s_text(bits_per_s: Option<u32>) -> String {
    match bits_per_s {
        Some(bits) if bits < 1_000 => format!("{bits} bit/s"),
        Some(bits) if bits < 1_000_000 => format!("{} kbit/s", f64::from(bits) / 1e3),
        Some(bits) => format!("{} Mbit/s", f64::from(bits) / 1e6),
        None => "unlimited".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_has_units() {
        assert_eq!(time("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(time("30 m"), Some(Duration::from_secs(1_800)));
        for wrong in ["", "5", "s", "-1s", "1w", "infd", "1e300d", "9999d"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        let range = (Duration::from_secs(10), Duration::from_secs(20));
        assert_eq!(time_range("10s to 20s"), Some(range));
        assert_eq!(time_range("20s to 10s"), None);
        assert_eq!(bits_per_s("25 kbit/s"), Some(25_000));
        assert_eq!(bits_per_s("0.3"), Some(300));
        assert_eq!(bits_per_s("300bit/s"), Some(300));
        assert_eq!(bits_per_s("5 Mbps"), Some(5_000_000));
        for wrong in ["", "0", "-1 kbit/s", "10 kB/s", "5000 Mbit/s", "NaN"] {
            assert_eq!(bits_per_s(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_what_people_write() {
        assert_eq!(time_text(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(time_text(Duration::from_secs(7_440)), "124m");
        assert_eq!(time_text(Duration::ZERO), "0ms");
        assert_eq!(share_text(0.005), "0.5 %");
        assert_eq!(bits_per_s_text(Some(5_470)), "5.47 kbit/s");
        assert_eq!(bits_per_s_text(Some(250)), "250 bit/s");
    }
}
