//! `motemq-sim links`: the link presets and where their figures come from.

use crate::link::{Duplex, PRESETS};

/// The table.
pub(super) fn links() -> String {
    let mut text = format!(
        "{:<8}{:>14}{:>14}{:>18}{:>8}{:>7}   {}\n",
        "link", "down", "up", "round trip", "loss", "MTU", "radio"
    );
    for preset in &PRESETS {
        let radio = match (preset.duplex, preset.wake_up) {
            (Duplex::Half, Some(_)) => "half duplex, sleeps when idle",
            (Duplex::Half, None) => "half duplex",
            (Duplex::Full, Some(_)) => "sleeps when idle",
            (Duplex::Full, None) => "-",
        };
        text += &format!(
            "{:<8}{:>14}{:>14}{:>18}{:>8}{:>7}   {radio}\n        {}\n",
            preset.name,
            rate_text(preset.down_bits_per_s),
            rate_text(preset.up_bits_per_s),
            format!(
                "{} +- {} ms",
                preset.round_trip.as_millis(),
                preset.round_trip_jitter.as_millis()
            ),
            format!("{} %", preset.loss * 100.0),
            preset.mtu_bytes,
            preset.sources,
        );
    }
    text
}

fn rate_text(bits_per_s: Option<u32>) -> String {
    match bits_per_s {
        Some(bits_per_s) => format!("{} kbit/s", f64::from(bits_per_s) / 1_000.0),
        None => "unlimited".to_owned(),
    }
}
