//! Values as people write them in a scenario file.

use crate::plan::{Jitter, Reconnect};
use crate::text::{duration, rate, share};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// A time with its unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Duration);

/// Events per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub(super) f64);

/// 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(pub(super) f64);

/// Anything with a written form of its own.
#[derive(Clone, Debug)]
pub(super) struct Written<T>(pub(super) T);

/// What a device does when its connection is gone: a line as on the command line, or a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy(pub(super) Reconnect);

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(f64),
    Whole(i64),
    Truth(bool),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LineOrTable {
    Line(String),
    Table(PolicyTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    policy: String,
    after: Option<Time>,
    base: Option<Time>,
    cap: Option<Time>,
    jitter: Option<String>,
}

impl Time {
    pub(super) fn or(time: Option<Self>, default: Duration) -> Duration {
        time.map_or(default, |time| time.0)
    }
}

impl TextOrNumber {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.into_text();
        duration(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.into_text();
        rate(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.into_text();
        share(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<'de, T> Deserialize<'de> for Written<T>
where
    T: FromStr,
    T::Err: Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TextOrNumber::deserialize(deserializer)?.into_text();
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = match LineOrTable::deserialize(deserializer) {
            Ok(LineOrTable::Line(line)) => line,
            Ok(LineOrTable::Table(table)) => {
                return table.policy().map(Self).map_err(D::Error::custom);
            }
            Err(_) => String::new(),
        };
        line.parse().map(Self).map_err(D::Error::custom)
    }
}

impl PolicyTable {
    fn policy(self) -> Result<Reconnect, String> {
        let base = Time::or(self.base, Duration::from_secs(1));
        let cap = Time::or(self.cap, Duration::from_secs(60));
        match (self.policy.as_str(), self.after) {
            ("never" | "none", None) => Ok(Reconnect::Never),
            ("fixed", Some(after)) => Ok(Reconnect::Fixed(after.0)),
            ("fixed", None) => Err("policy = \"fixed\" needs after = \"5s\"".to_owned()),
            ("exp", None) => {
                let jitter = self.jitter.map_or(Ok(Jitter::Full), |text| text.parse())?;
                Reconnect::exponential(base, cap, jitter)
            }
            (_, Some(_)) => Err("only policy = \"fixed\" has after".to_owned()),
            (policy, None) => Err(format!(
                "policy {policy:?} is unknown: write \"never\", \"fixed\" or \"exp\""
            )),
        }
    }
}
