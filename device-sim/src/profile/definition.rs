//! Profiles that users write in TOML: what they are based on, and what differs.
//!
//! ```toml
//! [[profile]]
//! name = "my-meter"
//! based_on = "power-meter"
//! encoding = "cbor"
//! every = "30s"
//!
//! [profile.series]
//! noise = 120.0
//! spikes = "1 %"
//! ```
//!
//! Invariant: a [`Profile`] made here has figures that the schedule and the series can work with.

use super::presets::presets;
use super::schedule::Cadence;
use super::series::{Curve, Series};
use super::{Encoding, Measure, Profile, Track};
use crate::link::{share_text, time_text};
use crate::named::Reference;
use crate::text::{duration, share};
use crate::topic::TopicPattern;
use serde::Deserialize;
use std::fmt::{self, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const EVERY: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(30 * 86_400);
const ANY: RangeInclusive<f64> = -1e9..=1e9;
const NOT_NEGATIVE: RangeInclusive<f64> = 0.0..=1e9;
const A_DAY: Duration = Duration::from_secs(86_400);

/// A profile as a user wrote it; what is not given is as in the preset it is based on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What the profile is called.
    pub name: String,
    /// The preset that says the rest.
    pub based_on: String,
    what: Option<String>,
    encoding: Option<String>,
    every: Option<String>,
    natural_every: Option<String>,
    jitter: Option<Figure>,
    cadence: Option<String>,
    burst_count: Option<u16>,
    burst_gap: Option<String>,
    daily_hour: Option<f64>,
    daily_window: Option<String>,
    qos: Option<u8>,
    topic: Option<String>,
    timestamp: Option<bool>,
    speed: Option<Figure>,
    leaves: Option<u8>,
    #[serde(default)]
    series: SeriesDefinition,
    #[serde(default)]
    track: TrackDefinition,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesDefinition {
    base: Option<f64>,
    swing: Option<f64>,
    curve: Option<String>,
    peak_hour: Option<f64>,
    start_hour: Option<f64>,
    offset: Option<f64>,
    scale: Option<Figure>,
    noise: Option<f64>,
    memory: Option<f64>,
    drift_per_day: Option<f64>,
    spikes: Option<Figure>,
    spike_size: Option<f64>,
    stuck: Option<Figure>,
    stuck_for: Option<u16>,
    clock_skew: Option<String>,
    clock_drift_ppm: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrackDefinition {
    latitude: Option<f64>,
    longitude: Option<f64>,
    radius_km: Option<f64>,
    drive: Option<String>,
    stop: Option<String>,
}

/// A number, or text with its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or text with a unit")]
enum Figure {
    Number(f64),
    Text(String),
}

/// A profile that cannot be used, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A value that cannot be read, or that no profile can have.
    #[error("profile {profile:?}: {key} = {value}: write {wanted}")]
    Figure {
        /// The profile's name.
        profile: String,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What to write instead.
        wanted: &'static str,
    },
    /// No preset is called so.
    #[error("there is no profile {0:?}: known are {names}, or name a file: profiles.toml#NAME", names = names())]
    Unknown(String),
    /// The file cannot be read.
    #[error("{path}: {problem}")]
    File {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// The profile that a user names: a preset, or `FILE.toml#NAME` for one of the `[[profile]]` tables of a file,
/// where a file with one profile needs no name.
///
/// # Errors
/// There is no such profile, or it cannot be used.
pub fn find(text: &str) -> Result<Arc<Profile>, ProfileError> {
    if let Some(profile) = Profile::named(text) {
        return Ok(profile);
    }
    let Some(reference) = Reference::parse(text) else {
        return Err(ProfileError::Unknown(text.to_owned()));
    };
    let definition = definition_in(reference).map_err(|problem| ProfileError::File {
        path: reference.path.to_owned(),
        problem,
    })?;
    Ok(Arc::new(definition.profile()?))
}

fn definition_in(reference: Reference<'_>) -> Result<Definition, String> {
    /// What else a scenario has is not looked at.
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        profile: Vec<Definition>,
    }
    let file: File = toml::from_str(&reference.read()?).map_err(|error| error.to_string())?;
    let example = "motemq-sim profiles power-meter --toml";
    reference.choose(&file.profile, |profile| &profile.name, "profile", example)
}

fn names() -> String {
    let names: Vec<String> = presets().into_iter().map(|profile| profile.name).collect();
    names.join(", ")
}

impl Definition {
    /// What the definition says.
    ///
    /// # Errors
    /// The first key that cannot be used, and what to write instead.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        let base = Profile::named(&self.based_on)
            .ok_or_else(|| ProfileError::Unknown(self.based_on.clone()))?;
        let mut profile = Profile {
            name: self.name.clone(),
            ..Profile::clone(&base)
        };
        if let Some(what) = &self.what {
            profile.what.clone_from(what);
        }
        self.set_message(&mut profile)?;
        self.set_times(&mut profile)?;
        self.set_cadence(&mut profile)?;
        self.set_level(&mut profile.series)?;
        self.set_faults(&mut profile.series)?;
        self.set_track(&mut profile)?;
        Ok(profile)
    }

    /// What a message looks like and where it goes.
    fn set_message(&self, profile: &mut Profile) -> Result<(), ProfileError> {
        if let Some(encoding) = &self.encoding {
            let wanted = "\"json\", \"cbor\", \"senml\" or \"packed\"";
            let unknown = |_| self.wrong("encoding", format!("{encoding:?}"), wanted);
            profile.encoding = encoding.parse::<Encoding>().map_err(unknown)?;
        }
        if let Some(qos) = self.qos {
            if qos > 2 {
                return Err(self.wrong("qos", qos, "0, 1 or 2"));
            }
            profile.qos = qos;
        }
        if let Some(topic) = &self.topic {
            let pattern = topic.replacen("{leaf}", "0", 1);
            if pattern.contains('{') || pattern.parse::<TopicPattern>().is_err() {
                let wanted = "the end of a topic, such as \"power\", without + and #";
                return Err(self.wrong("topic", format!("{topic:?}"), wanted));
            }
            profile.topic.clone_from(topic);
        }
        if let Some(leaves) = self.leaves {
            if leaves == 0 {
                return Err(self.wrong("leaves", leaves, "1 to 255"));
            }
            profile.leaves = leaves;
        }
        profile.has_timestamp = self.timestamp.unwrap_or(profile.has_timestamp);
        Ok(())
    }

    fn set_times(&self, profile: &mut Profile) -> Result<(), ProfileError> {
        let wanted = "a time of 10ms to 30d, such as \"30s\"";
        for (key, text, time) in [
            ("every", &self.every, &mut profile.every),
            (
                "natural_every",
                &self.natural_every,
                &mut profile.natural_every,
            ),
        ] {
            self.set_time(time, key, text, EVERY, wanted)?;
        }
        let wanted = "a share, such as \"30 %\"";
        self.set_share(&mut profile.jitter, "jitter", &self.jitter, wanted)?;
        profile.speed = match &self.speed {
            None => profile.speed,
            Some(Figure::Text(text)) if text == "natural" => None,
            Some(Figure::Number(speed)) if (1e-3..=1e6).contains(speed) => Some(*speed),
            Some(other) => {
                let wanted = "\"natural\", or a number such as 1.0 for the run's own time";
                return Err(self.wrong("speed", other, wanted));
            }
        };
        Ok(())
    }

    fn set_cadence(&self, profile: &mut Profile) -> Result<(), ProfileError> {
        let is_bursts = matches!(profile.cadence, Cadence::Bursts { .. });
        let is_daily = matches!(profile.cadence, Cadence::Daily { .. });
        let bursts = Cadence::Bursts {
            count: 10,
            gap: Duration::from_millis(200),
        };
        let daily = Cadence::Daily {
            hour: 0.0,
            window_h: 24.0,
        };
        profile.cadence = match self.cadence.as_deref() {
            None => profile.cadence,
            Some("bursts") if is_bursts => profile.cadence,
            Some("daily") if is_daily => profile.cadence,
            Some("bursts") => bursts,
            Some("daily") => daily,
            Some("steady") => Cadence::Steady,
            Some("events") => Cadence::Events,
            Some(other) => {
                let wanted = "\"steady\", \"bursts\", \"daily\" or \"events\"";
                return Err(self.wrong("cadence", format!("{other:?}"), wanted));
            }
        };
        match &mut profile.cadence {
            Cadence::Bursts { count, gap } => {
                *count = self.burst_count.unwrap_or(*count);
                let wanted = "a time, such as \"200ms\"";
                self.set_time(gap, "burst_gap", &self.burst_gap, EVERY, wanted)?;
                if *count == 0 || *gap * u32::from(*count) > profile.every {
                    let wanted = "at least 1, and no more than fit into `every` with their gaps";
                    return Err(self.wrong("burst_count", *count, wanted));
                }
            }
            Cadence::Daily { hour, window_h } => {
                let wanted = "an hour from 0 to 24, such as 2.5";
                self.set_number(hour, "daily_hour", self.daily_hour, 0.0..=24.0, wanted)?;
                let mut window = Duration::from_secs_f64(*window_h * 3_600.0);
                let wanted = "a time of at most a day, such as \"4h\"";
                let range = Duration::ZERO..=A_DAY;
                self.set_time(
                    &mut window,
                    "daily_window",
                    &self.daily_window,
                    range,
                    wanted,
                )?;
                *window_h = window.as_secs_f64() / 3_600.0;
            }
            Cadence::Steady | Cadence::Events => {}
        }
        self.check_cadence_keys(profile.cadence)
    }

    /// A key that would change nothing is a mistake.
    fn check_cadence_keys(&self, cadence: Cadence) -> Result<(), ProfileError> {
        let has_bursts = self.burst_count.is_some() || self.burst_gap.is_some();
        if has_bursts && !matches!(cadence, Cadence::Bursts { .. }) {
            return Err(self.wrong("burst_count", "(given)", "cadence = \"bursts\" beside it"));
        }
        let has_daily = self.daily_hour.is_some() || self.daily_window.is_some();
        if has_daily && !matches!(cadence, Cadence::Daily { .. }) {
            return Err(self.wrong("daily_hour", "(given)", "cadence = \"daily\" beside it"));
        }
        Ok(())
    }

    /// Where the main value is.
    fn set_level(&self, series: &mut Series) -> Result<(), ProfileError> {
        let given = &self.series;
        if let Some(name) = &given.curve {
            let wanted = "\"flat\", \"sine\", \"household\", \"water\" or \"shifts\"";
            let known = Curve::NAMES.into_iter().find(|(known, _)| known == name);
            let unknown = || self.wrong("series.curve", format!("{name:?}"), wanted);
            series.curve = known.ok_or_else(unknown)?.1;
        }
        let number = "a number";
        let positive = "a number that is not negative";
        let hour = "an hour from 0 to 24, such as 6.5";
        let hours = 0.0..=24.0;
        for (key, value, target, range, wanted) in [
            ("series.base", given.base, &mut series.base, ANY, number),
            ("series.swing", given.swing, &mut series.swing, ANY, number),
            (
                "series.peak_hour",
                given.peak_hour,
                &mut series.peak_hour,
                hours.clone(),
                hour,
            ),
            (
                "series.start_hour",
                given.start_hour,
                &mut series.start_hour,
                hours,
                hour,
            ),
            (
                "series.offset",
                given.offset,
                &mut series.offset,
                NOT_NEGATIVE,
                positive,
            ),
            (
                "series.noise",
                given.noise,
                &mut series.noise,
                NOT_NEGATIVE,
                positive,
            ),
            (
                "series.memory",
                given.memory,
                &mut series.memory,
                0.0..=0.9999,
                "0 to 0.9999",
            ),
            ("series.min", given.min, &mut series.min, ANY, number),
            ("series.max", given.max, &mut series.max, ANY, number),
        ] {
            self.set_number(target, key, value, range, wanted)?;
        }
        if series.min > series.max {
            return Err(self.wrong("series.max", series.max, "no less than series.min"));
        }
        let wanted = "a share, such as \"60 %\"";
        self.set_share(&mut series.scale, "series.scale", &given.scale, wanted)
    }

    /// What is wrong with it.
    fn set_faults(&self, series: &mut Series) -> Result<(), ProfileError> {
        let given = &self.series;
        let share = "a share of the readings, such as \"0.1 %\"";
        self.set_share(&mut series.spikes, "series.spikes", &given.spikes, share)?;
        self.set_share(&mut series.stuck, "series.stuck", &given.stuck, share)?;
        let positive = "a number that is not negative";
        for (key, value, target, range) in [
            (
                "series.drift_per_day",
                given.drift_per_day,
                &mut series.drift_per_day,
                NOT_NEGATIVE,
            ),
            (
                "series.spike_size",
                given.spike_size,
                &mut series.spike_size,
                NOT_NEGATIVE,
            ),
            (
                "series.clock_drift_ppm",
                given.clock_drift_ppm,
                &mut series.clock_drift_ppm,
                NOT_NEGATIVE,
            ),
        ] {
            self.set_number(target, key, value, range, positive)?;
        }
        series.stuck_for = given.stuck_for.unwrap_or(series.stuck_for);
        self.set_time(
            &mut series.clock_skew,
            "series.clock_skew",
            &given.clock_skew,
            Duration::ZERO..=Duration::from_secs(366 * 86_400),
            "a time of at most 366d, such as \"5s\"",
        )
    }

    fn set_track(&self, profile: &mut Profile) -> Result<(), ProfileError> {
        let given = &self.track;
        let track = &mut profile.track;
        for (key, value, target, range, wanted) in [
            (
                "track.latitude",
                given.latitude,
                &mut track.latitude,
                -80.0..=80.0,
                "degrees, -80 to 80",
            ),
            (
                "track.longitude",
                given.longitude,
                &mut track.longitude,
                -180.0..=180.0,
                "degrees, -180 to 180",
            ),
            (
                "track.radius_km",
                given.radius_km,
                &mut track.radius_km,
                0.1..=500.0,
                "0.1 to 500",
            ),
        ] {
            self.set_number(target, key, value, range, wanted)?;
        }
        let wanted = "a time of at most 30d, such as \"10m\"";
        self.set_time(&mut track.drive, "track.drive", &given.drive, EVERY, wanted)?;
        let range = Duration::ZERO..=*EVERY.end();
        self.set_time(&mut track.stop, "track.stop", &given.stop, range, wanted)
    }

    fn set_number(
        &self,
        target: &mut f64,
        key: &'static str,
        given: Option<f64>,
        range: RangeInclusive<f64>,
        wanted: &'static str,
    ) -> Result<(), ProfileError> {
        match given {
            None => Ok(()),
            Some(number) if range.contains(&number) => {
                *target = number;
                Ok(())
            }
            Some(number) => Err(self.wrong(key, number, wanted)),
        }
    }

    fn set_time(
        &self,
        target: &mut Duration,
        key: &'static str,
        given: &Option<String>,
        range: RangeInclusive<Duration>,
        wanted: &'static str,
    ) -> Result<(), ProfileError> {
        let Some(text) = given else {
            return Ok(());
        };
        let time = duration(text).ok().filter(|time| range.contains(time));
        *target = time.ok_or_else(|| self.wrong(key, format!("{text:?}"), wanted))?;
        Ok(())
    }

    fn set_share(
        &self,
        target: &mut f64,
        key: &'static str,
        given: &Option<Figure>,
        wanted: &'static str,
    ) -> Result<(), ProfileError> {
        let Some(figure) = given else {
            return Ok(());
        };
        let read = match figure {
            Figure::Number(number) => share(&number.to_string()),
            Figure::Text(text) => share(text),
        };
        *target = read.map_err(|_| self.wrong(key, figure, wanted))?;
        Ok(())
    }

    fn wrong(
        &self,
        key: &'static str,
        value: impl fmt::Display,
        wanted: &'static str,
    ) -> ProfileError {
        ProfileError::Figure {
            profile: self.name.clone(),
            key,
            value: value.to_string(),
            wanted,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

impl Profile {
    /// A `[[profile]]` table that says the same as this profile, key by key, to start an own one from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        self.write_toml(&mut text);
        text
    }

    fn write_toml(&self, text: &mut String) {
        let speed = self
            .speed
            .map_or_else(|| "\"natural\"".to_owned(), |speed| format!("{speed:?}"));
        let base = Self::presets()
            .into_iter()
            .find(|preset| preset.measure == self.measure);
        let base = base.map_or_else(|| self.name.clone(), |base| base.name);
        // Writing into a String cannot fail.
        let mut line = |key: &str, value: &dyn fmt::Display, comment: &str| {
            // A table's head has no value.
            let pair = match value.to_string() {
                none if none.is_empty() => key.to_owned(),
                value => format!("{key} = {value}"),
            };
            let _ = match comment {
                "" => writeln!(text, "{pair}"),
                comment => writeln!(text, "{pair:<34}# {comment}"),
            };
        };
        line("[[profile]]\nname", &format!("\"my-{}\"", self.name), "");
        line(
            "based_on",
            &format!("{base:?}"),
            "what is left out below is as there",
        );
        line("what", &format!("{:?}", self.what), "");
        line(
            "encoding",
            &format!("\"{}\"", self.encoding),
            "json, cbor, senml or packed",
        );
        line("qos", &self.qos, "");
        line(
            "topic",
            &format!("{:?}", self.topic),
            "the end of the topic",
        );
        line(
            "timestamp",
            &self.has_timestamp,
            "whether the device sends its own time",
        );
        line(
            "every",
            &quoted(self.every),
            "between two readings in the run",
        );
        line(
            "natural_every",
            &quoted(self.natural_every),
            "and in the field",
        );
        line(
            "speed",
            &speed,
            "of the series: natural_every / every, or 1.0 for the run's time",
        );
        line(
            "jitter",
            &format!("\"{}\"", share_text(self.jitter)),
            "how much `every` varies",
        );
        match self.cadence {
            Cadence::Steady => line("cadence", &"\"steady\"", "steady, bursts, daily or events"),
            Cadence::Events => line("cadence", &"\"events\"", "steady, bursts, daily or events"),
            Cadence::Bursts { count, gap } => {
                line("cadence", &"\"bursts\"", "steady, bursts, daily or events");
                line("burst_count", &count, "readings of a burst");
                line("burst_gap", &quoted(gap), "between two of them");
            }
            Cadence::Daily { hour, window_h } => {
                let window = Duration::from_secs_f64(window_h * 3_600.0);
                line(
                    "cadence",
                    &"\"daily\"",
                    "steady, bursts, daily or events; a day takes `every`",
                );
                line(
                    "daily_hour",
                    &format!("{hour:?}"),
                    "each device has its own time from there on",
                );
                line("daily_window", &quoted(window), "and within this time");
            }
        }
        if self.measure == Measure::Leaf {
            line("leaves", &self.leaves, "how many leaf nodes");
        }
        self.series.write_toml(&mut line);
        if self.measure == Measure::Position {
            self.track.write_toml(&mut line);
        }
    }
}

impl Series {
    fn write_toml(&self, line: &mut impl FnMut(&str, &dyn fmt::Display, &str)) {
        let curve = Curve::NAMES
            .into_iter()
            .find(|(_, curve)| *curve == self.curve);
        let curve = curve.map_or("flat", |(name, _)| name);
        let number = |number: f64| format!("{number:?}");
        let share = |share: f64| format!("\"{}\"", share_text(share));
        line(
            "
[profile.series]",
            &"",
            "the main value, in its unit",
        );
        line("base", &number(self.base), "where the curve is 0");
        line(
            "swing",
            &number(self.swing),
            "what the curve adds where it is 1",
        );
        line(
            "curve",
            &format!("{curve:?}"),
            "flat, sine, household, water or shifts",
        );
        line(
            "peak_hour",
            &number(self.peak_hour),
            "when a sine is highest",
        );
        line(
            "start_hour",
            &number(self.start_hour),
            "the time of day at which a run begins",
        );
        line(
            "offset",
            &number(self.offset),
            "devices differ by up to this",
        );
        line(
            "scale",
            &share(self.scale),
            "and by up to this part of the level",
        );
        line("noise", &number(self.noise), "standard deviation");
        line(
            "memory",
            &number(self.memory),
            "how much of it the next reading keeps",
        );
        line(
            "drift_per_day",
            &number(self.drift_per_day),
            "devices drift away by up to this",
        );
        line("spikes", &share(self.spikes), "of the readings");
        line(
            "spike_size",
            &number(self.spike_size),
            "how far they are off",
        );
        line(
            "stuck",
            &share(self.stuck),
            "of the readings stop the sensor",
        );
        line("stuck_for", &self.stuck_for, "for so many readings");
        line(
            "clock_skew",
            &quoted(self.clock_skew),
            "device clocks are wrong by up to this",
        );
        line(
            "clock_drift_ppm",
            &number(self.clock_drift_ppm),
            "and fast or slow by up to this",
        );
        line("min", &number(self.min), "");
        line("max", &number(self.max), "");
    }
}

impl Track {
    fn write_toml(&self, line: &mut impl FnMut(&str, &dyn fmt::Display, &str)) {
        line("\n[profile.track]", &"", "where things move");
        line(
            "latitude",
            &format!("{:?}", self.latitude),
            "centre of the area",
        );
        line("longitude", &format!("{:?}", self.longitude), "");
        line(
            "radius_km",
            &format!("{:?}", self.radius_km),
            "who is farther away turns back",
        );
        line("drive", &quoted(self.drive), "mean time from stop to stop");
        line("stop", &quoted(self.stop), "mean time of a stop");
    }
}

fn quoted(time: Duration) -> String {
    format!("\"{}\"", time_text(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_says_what_differs_and_keeps_the_rest() {
        let profile = read(
            "[[profile]]
             name = \"my-meter\"
             based_on = \"power-meter\"
             encoding = \"cbor\"
             every = \"30s\"
             jitter = 0.1
             cadence = \"bursts\"
             burst_count = 4
             speed = 1
             topic = \"energy/total\"
             [profile.series]
             noise = 120
             spikes = \"1 %\"
             clock_skew = \"1h\"
             [profile.track]
             radius_km = 5",
        );
        let profile = profile.unwrap();
        let base = Profile::named("power-meter").unwrap();
        let expected = Profile {
            name: "my-meter".to_owned(),
            encoding: Encoding::Cbor,
            every: Duration::from_secs(30),
            jitter: 0.1,
            cadence: Cadence::Bursts {
                count: 4,
                gap: Duration::from_millis(200),
            },
            speed: Some(1.0),
            topic: "energy/total".to_owned(),
            series: Series {
                noise: 120.0,
                spikes: 0.01,
                clock_skew: Duration::from_secs(3_600),
                ..base.series.clone()
            },
            track: Track {
                radius_km: 5.0,
                ..base.track.clone()
            },
            ..Profile::clone(&base)
        };
        assert_eq!(profile, expected);
    }

    #[test]
    fn every_preset_written_as_toml_is_itself() {
        for preset in Profile::presets() {
            let again = read(&preset.to_toml()).unwrap();
            let name = format!("my-{}", preset.name);
            assert_eq!(again, Profile { name, ..preset });
        }
    }

    /// So that the text has every key, and every key is a real one.
    #[test]
    fn the_toml_of_a_preset_has_every_key() {
        let text = Profile::presets()
            .iter()
            .map(Profile::to_toml)
            .collect::<String>();
        let unknown = |table: &str| {
            let text = format!("name = \"a\"\nbased_on = \"b\"\n{table}");
            let error = toml::from_str::<Definition>(&text).unwrap_err().to_string();
            let (_, keys) = error.split_once("expected one of").unwrap();
            let keys = keys.split('`').skip(1).step_by(2);
            keys.map(str::to_owned).collect::<Vec<String>>()
        };
        for table in ["no = 1", "[series]\nno = 1", "[track]\nno = 1"] {
            let keys = unknown(table);
            assert!(keys.len() >= 5);
            for key in keys
                .iter()
                .filter(|key| !["series", "track"].contains(&&***key))
            {
                assert!(text.contains(&format!("\n{key} = ")), "{key}");
            }
        }
    }

    #[test]
    fn errors_name_the_key_and_what_to_write() {
        for (lines, expected) in [
            (
                "encoding = \"xml\"",
                "encoding = \"xml\": write \"json\", \"cbor\", \"senml\" or \"packed\"",
            ),
            (
                "every = \"5\"",
                "every = \"5\": write a time of 10ms to 30d",
            ),
            ("every = \"1ms\"", "every = \"1ms\": write"),
            ("jitter = \"200 %\"", "jitter = \"200 %\": write a share"),
            ("qos = 3", "qos = 3: write 0, 1 or 2"),
            (
                "topic = \"a/#\"",
                "topic = \"a/#\": write the end of a topic",
            ),
            ("topic = \"{run}\"", "topic = \"{run}\": write"),
            ("cadence = \"weekly\"", "cadence = \"weekly\": write"),
            (
                "burst_count = 5",
                "burst_count = (given): write cadence = \"bursts\"",
            ),
            (
                "cadence = \"bursts\"\nburst_count = 1000",
                "burst_count = 1000: write at least 1",
            ),
            (
                "daily_window = \"2h\"",
                "daily_hour = (given): write cadence = \"daily\"",
            ),
            (
                "cadence = \"daily\"\ndaily_window = \"2d\"",
                "daily_window = \"2d\": write",
            ),
            ("speed = \"fast\"", "speed = \"fast\": write \"natural\""),
            ("leaves = 0", "leaves = 0: write 1 to 255"),
            (
                "[profile.series]\ncurve = \"moon\"",
                "series.curve = \"moon\": write \"flat\"",
            ),
            (
                "[profile.series]\nmemory = 1",
                "series.memory = 1: write 0 to 0.9999",
            ),
            ("[profile.series]\nnoise = nan", "series.noise = NaN: write"),
            (
                "[profile.series]\nmax = -1",
                "series.max = -1: write no less than series.min",
            ),
            (
                "[profile.series]\nstuck = 2",
                "series.stuck = 2: write a share",
            ),
            (
                "[profile.track]\nlatitude = 91",
                "track.latitude = 91: write degrees",
            ),
        ] {
            let error = read(&format!(
                "[[profile]]\nname = \"a\"\nbased_on = \"power-meter\"\n{lines}"
            ));
            let error = error.unwrap_err();
            assert!(
                error.starts_with("profile \"a\": ") && error.contains(expected),
                "{error}"
            );
        }
        let error = read("[[profile]]\nname = \"a\"\nbased_on = \"toaster\"").unwrap_err();
        assert!(error.contains("no profile \"toaster\": known are thermometer, power-meter"));
        let error = read("[[profile]]\nname = \"a\"\nbased_on = \"parking\"\nevry = \"1s\"");
        let error = error.unwrap_err();
        assert!(
            error.contains("line 4") && error.contains("unknown field `evry`"),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_named_with_the_profile_in_it() {
        let path =
            std::env::temp_dir().join(format!("motemq-profiles-{}.toml", std::process::id()));
        let two = Profile::named("parking").unwrap().to_toml()
            + &Profile::named("gateway").unwrap().to_toml();
        std::fs::write(&path, two).unwrap();
        let named = |name: &str| find(&format!("{}{name}", path.display()));
        let found = named("#my-gateway");
        let (several, missing) = (named("").unwrap_err(), named("#no").unwrap_err());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.unwrap().topic, "leaf/{leaf}/temperature");
        assert!(
            several.to_string().contains("my-parking, my-gateway"),
            "{several}"
        );
        assert!(
            missing.to_string().contains("has no profile \"no\""),
            "{missing}"
        );
        assert!(matches!(find("toaster"), Err(ProfileError::Unknown(_))));
        assert!(matches!(find("none.toml"), Err(ProfileError::File { .. })));
    }

    fn read(text: &str) -> Result<Profile, String> {
        #[derive(Deserialize)]
        struct File {
            profile: Vec<Definition>,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        file.profile[0].profile().map_err(|error| error.to_string())
    }
}
