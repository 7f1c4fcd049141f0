//! Random streams: one per device and purpose, all from the run's seed.
//!
//! Purposes have streams of their own so that a segment more or less on the way down, which depends on the
//! broker's timing, changes neither the schedule nor the readings.

use rand_pcg::Pcg32;

/// What a stream is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// When readings are taken.
    Schedule = 0,
    /// What they say.
    Readings = 1,
    /// Losses and jitter on the way up.
    Uplink = 2,
    /// Losses and jitter on the way down.
    Downlink = 3,
    /// When a lost connection is tried again.
    Reconnect = 4,
    /// When it is sent commands.
    Commands = 5,
    /// When it first connects, and what happens to it.
    Fate = 6,
    /// When there is no coverage.
    Outages = 7,
}

/// The stream of device `index` for `purpose`.
pub(crate) fn rng(seed: u64, index: u32, purpose: Purpose) -> Pcg32 {
    let stream = u64::from(index) * 8 + purpose as u64;
    Pcg32::new(mix(seed ^ mix(stream)), stream)
}

/// The finaliser of SplitMix64: neighbouring numbers become unlike.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
