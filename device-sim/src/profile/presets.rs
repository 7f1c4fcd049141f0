//! The profiles that come with the program.
//!
//! Cadences are what such devices do in the field; `every` is what shows something within a minute.

use super::Profile;
use super::encoding::Encoding;
use super::measure::Measure;
use super::schedule::Cadence;
use super::sensor::Track;
use super::series::{Curve, Series};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) const STILL: Series = Series {
    base: 0.0,
    swing: 0.0,
    curve: Curve::Flat,
    peak_hour: 15.0,
    start_hour: 6.0,
    offset: 0.0,
    scale: 0.0,
    noise: 0.0,
    memory: 0.0,
    drift_per_day: 0.0,
    spikes: 0.0,
    spike_size: 0.0,
    stuck: 0.0,
    stuck_for: 10,
    clock_skew: Duration::from_secs(5),
    clock_drift_ppm: 20.0,
    min: 0.0,
    max: 1_000_000.0,
};

pub(crate) fn presets() -> Vec<Profile> {
    vec![
        thermometer(),
        power_meter(),
        gps_tracker(),
        smart_plug(),
        water_meter(),
        vibration(),
        parking(),
        gateway(),
    ]
}

/// What the others change.
fn plain(name: &str, what: &str, measure: Measure, topic: &str) -> Profile {
    Profile {
        name: name.to_owned(),
        what: what.to_owned(),
        measure,
        encoding: Encoding::Json,
        natural_every: MINUTE,
        every: Duration::from_secs(10),
        jitter: 0.3,
        cadence: Cadence::Steady,
        qos: 1,
        topic: topic.to_owned(),
        has_timestamp: false,
        speed: None,
        series: STILL,
        track: Track {
            latitude: 48.137_2,
            longitude: 11.575_6,
            radius_km: 30.0,
            drive: 10 * MINUTE,
            stop: 5 * MINUTE,
        },
        leaves: 100,
    }
}

fn thermometer() -> Profile {
    Profile {
        natural_every: 5 * MINUTE,
        qos: 0,
        series: Series {
            base: 20.0,
            swing: 3.0,
            curve: Curve::Sine,
            offset: 2.0,
            noise: 0.25,
            memory: 0.8,
            drift_per_day: 0.02,
            spikes: 0.000_5,
            spike_size: 25.0,
            stuck: 0.000_2,
            min: -40.0,
            max: 85.0,
            ..STILL
        },
        ..plain(
            "thermometer",
            "temperature and humidity of a room; the next reading makes a lost one good",
            Measure::Temperature,
            "temperature",
        )
    }
}

fn power_meter() -> Profile {
    Profile {
        natural_every: 15 * MINUTE,
        has_timestamp: true,
        series: Series {
            base: 180.0,
            swing: 650.0,
            curve: Curve::Household,
            scale: 0.6,
            noise: 60.0,
            memory: 0.7,
            spikes: 0.000_5,
            spike_size: 9_000.0,
            stuck: 0.000_05,
            min: 15.0,
            max: 15_000.0,
            ..STILL
        },
        ..plain(
            "power-meter",
            "a household's electricity meter: the register every 15 minutes, alarms of overload and undervoltage",
            Measure::Power,
            "power",
        )
    }
}

fn gps_tracker() -> Profile {
    Profile {
        natural_every: Duration::from_secs(30),
        encoding: Encoding::Cbor,
        has_timestamp: true,
        series: Series {
            base: 13.0,
            scale: 0.2,
            noise: 4.0,
            memory: 0.8,
            stuck: 0.001,
            max: 38.0,
            ..STILL
        },
        ..plain(
            "gps-tracker",
            "a delivery van: position, speed and heading, with stops",
            Measure::Position,
            "position",
        )
    }
}

fn smart_plug() -> Profile {
    Profile {
        series: Series {
            base: 60.0,
            scale: 0.9,
            noise: 4.0,
            memory: 0.9,
            min: 0.5,
            max: 3_680.0,
            ..STILL
        },
        ..plain(
            "smart-plug",
            "a socket that is switched by commands and reports its state and what it draws",
            Measure::Switch,
            "state",
        )
    }
}

fn water_meter() -> Profile {
    Profile {
        natural_every: 24 * HOUR,
        every: Duration::from_secs(30),
        jitter: 0.0,
        cadence: Cadence::Daily {
            hour: 0.0,
            window_h: 24.0,
        },
        encoding: Encoding::Packed,
        has_timestamp: true,
        series: Series {
            base: 1.0,
            swing: 35.0,
            curve: Curve::Water,
            scale: 0.8,
            noise: 1.5,
            memory: 0.5,
            spikes: 0.001,
            spike_size: 800.0,
            stuck: 0.000_1,
            clock_skew: Duration::from_secs(120),
            clock_drift_ppm: 50.0,
            max: 5_000.0,
            ..STILL
        },
        ..plain(
            "water-meter",
            "a battery-powered water meter that sends its register once a day, and an alarm of a leak",
            Measure::Volume,
            "volume",
        )
    }
}

fn vibration() -> Profile {
    Profile {
        natural_every: 10 * MINUTE,
        every: Duration::from_secs(20),
        jitter: 0.1,
        cadence: Cadence::Bursts {
            count: 10,
            gap: Duration::from_millis(200),
        },
        encoding: Encoding::Packed,
        qos: 0,
        series: Series {
            base: 0.2,
            swing: 2.0,
            curve: Curve::Shifts,
            scale: 0.4,
            noise: 0.15,
            memory: 0.6,
            drift_per_day: 0.02,
            spikes: 0.002,
            spike_size: 8.0,
            max: 50.0,
            ..STILL
        },
        ..plain(
            "vibration",
            "a machine's vibration: bursts of 10 readings, louder while shifts work",
            Measure::Vibration,
            "vibration",
        )
    }
}

fn parking() -> Profile {
    Profile {
        natural_every: 40 * MINUTE,
        every: Duration::from_secs(20),
        jitter: 0.0,
        cadence: Cadence::Events,
        encoding: Encoding::Cbor,
        series: Series {
            stuck: 0.001,
            stuck_for: 2,
            ..STILL
        },
        ..plain(
            "parking",
            "a parking bay that speaks when a car comes or goes, mostly by day",
            Measure::Occupancy,
            "occupancy",
        )
    }
}

fn gateway() -> Profile {
    Profile {
        natural_every: Duration::from_secs(3),
        every: Duration::from_secs(3),
        encoding: Encoding::SenMl,
        has_timestamp: true,
        series: Series {
            base: 20.0,
            swing: 3.0,
            curve: Curve::Sine,
            offset: 2.0,
            noise: 0.2,
            memory: 0.8,
            spikes: 0.000_5,
            spike_size: 25.0,
            min: -40.0,
            max: 85.0,
            ..STILL
        },
        ..plain(
            "gateway",
            "speaks for 100 thermometers, each every 5 minutes, on a topic of the leaf's own",
            Measure::Leaf,
            "leaf/{leaf}/temperature",
        )
    }
}
