//! A run in a line a second, for logs and dumb terminals.

use super::view::View;
use crate::report::time_text;

const COLUMNS_MAX: usize = 120;

/// The line; at most [`COLUMNS_MAX`] characters.
pub(super) fn line(view: &View<'_>) -> String {
    let counts = &view.counts;
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), time_text);
    let last = view.last();
    let mut line = format!(
        "{:>4} s {:<10} up {}/{}  sent {} {:.0}/s",
        view.now.as_secs(),
        view.phase.0,
        view.up,
        view.world.plan.devices(),
        short(counts.published),
        view.rate(|sample| sample.published),
    );
    if view.is_acknowledged {
        let p99 = time(last.and_then(|sample| sample.ack_p99_s));
        line += &format!("  acked {} p99 {p99}", short(counts.acknowledged));
    }
    let p99 = time(last.and_then(|sample| sample.delivery_p99_s));
    line += &format!(
        "  arrived {} p99 {p99}  lost {} dup {} reord {}  fail {}",
        short(counts.delivered),
        short(counts.lost),
        short(counts.duplicated),
        short(counts.reordered),
        short(view.failures),
    );
    if counts.altered > 0 {
        line += &format!("  ALTERED {}", short(counts.altered));
    }
    if let Some(refused) = &view.refused {
        line += &format!("  {refused}");
    }
    line.chars().take(COLUMNS_MAX).collect()
}

/// A count in at most six characters.
pub(super) fn short(count: u64) -> String {
    match count {
        0..=99_999 => count.to_string(),
        100_000..=9_999_999 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::record::Recorder;
    use crate::report::sample::world;
    use std::time::Duration;

    #[test]
    fn a_line_says_what_matters_and_fits() {
        let world = world("trackers");
        let mut recorder = Recorder::new();
        let now = Duration::from_secs(1);
        recorder.record(&world, now);
        let line = line(&View::new(&world, &recorder, now));
        assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
        assert_eq!(
            line,
            "   1 s connecting up 30/30  sent 100 100/s  acked 100 p99 1.67 s  arrived 98 p99 833 ms  \
             lost 2 dup 3 reord 0  fail 0"
        );
    }

    #[test]
    fn large_counts_stay_short() {
        for (count, text) in [(99_999, "99999"), (123_456, "123k"), (12_345_678, "12M")] {
            assert_eq!(short(count), text);
        }
    }
}
