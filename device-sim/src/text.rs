//! How people write times, rates and shares: `30s`, `50/s`, `30 %`.

use std::time::Duration;

const UNITS: [(&str, f64); 5] = [
    ("ms", 0.001),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3_600.0),
    ("d", 86_400.0),
];

const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `500ms`, `30s`, `5m`, `2h`, `1d`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is no time: write a number with its unit: 500ms, 30s, 5m, 2h or 1d");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let (_, unit_s) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    let number: f64 = digits.trim_end().parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * unit_s).map_err(|_| wrong())?;
    if time > LONGEST {
        return Err(format!("{text:?} is longer than ten years"));
    }
    Ok(time)
}

/// `50/s` or `50`.
///
/// # Errors
/// What to write instead.
pub fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.trim_end().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err(format!(
            "{text:?} is no rate: write a number above 0 per second: 50/s"
        )),
    }
}

/// `30 %` or `0.3`, as 0 to 1.
///
/// # Errors
/// What to write instead.
pub fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent
            .trim_end()
            .parse::<f64>()
            .map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!(
            "{text:?} is no share: write 0 % to 100 %, or 0 to 1"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rates_and_shares_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("5 m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(duration("1d"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "5", "s", "-1s", "1w", "1e9h1", "infd", "9999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("50/s"), Ok(50.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0/s").is_err() && rate("x").is_err());
        assert_eq!(share("30 %"), Ok(0.3));
        assert_eq!(share("0.3"), Ok(0.3));
        assert!(share("101 %").is_err() && share("-1%").is_err() && share("NaN").is_err());
    }
}
