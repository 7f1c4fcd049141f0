//! Links that users write in TOML: what they are based on, and what differs.
//!
//! ```toml
//! [[link]]
//! name = "meter-in-basement"
//! based_on = "nb-iot"
//! up = "5 kbit/s"
//! loss = "4 %"
//! nat_timeout = "none"
//! ```
//!
//! Invariant: a [`Preset`] made here keeps the promises of `preset.rs`.

use super::preset::{Duplex, DutyCycle, Frames, JitterShape, Outages, Preset, WakeUp};
use super::presets::PRESETS;
use super::units;
use crate::named::Reference;
use crate::text::share;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const NONE: &str = "none";

/// A link as a user wrote it; what is not given is as in the preset it is based on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What the link is called.
    pub name: String,
    /// The preset that says the rest.
    pub based_on: String,
    down: Option<Figure>,
    up: Option<Figure>,
    round_trip: Option<Figure>,
    jitter: Option<Figure>,
    jitter_shape: Option<Figure>,
    loss: Option<Figure>,
    duplex: Option<Figure>,
    mtu: Option<Figure>,
    headers: Option<Figure>,
    frames: Option<FramesOrNone>,
    sleeps_after: Option<Figure>,
    wakes_in: Option<Figure>,
    nat_timeout: Option<Figure>,
    outage_every: Option<Figure>,
    outage_lasts: Option<Figure>,
    duty_cycle: Option<Figure>,
    duty_window: Option<Figure>,
    gateway: Option<bool>,
    sources: Option<String>,
}

/// A number, or text with its unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or text with a unit")]
enum Figure {
    Integer(u32),
    Float(f64),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", or { payload, fragment, overhead, fragment_overhead, compressed } in bytes"
)]
enum FramesOrNone {
    None(String),
    Frames(FramesDefinition),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FramesDefinition {
    payload: u16,
    fragment: u16,
    overhead: u16,
    fragment_overhead: u16,
    compressed: u16,
}

/// A link that cannot be used, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A figure that cannot be read, or that the model cannot have.
    #[error("link {link:?}: {key} = {value}: write {wanted}")]
    Figure {
        /// The link's name.
        link: String,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What to write instead.
        wanted: &'static str,
    },
    /// No preset is called so.
    #[error("there is no link {0:?}: known are {names}, or name a file: links.toml#NAME", names = names())]
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

/// The link that a user names: a preset, or `FILE.toml#NAME` for one of the `[[link]]` tables of a file, where a
/// file with one link needs no name.
///
/// # Errors
/// There is no such link, or it cannot be used.
pub fn find(text: &str) -> Result<Arc<Preset>, LinkError> {
    if let Some(preset) = Preset::named(text) {
        return Ok(preset);
    }
    let Some(reference) = Reference::parse(text) else {
        return Err(LinkError::Unknown(text.to_owned()));
    };
    let definition = definition_in(reference).map_err(|problem| LinkError::File {
        path: reference.path.to_owned(),
        problem,
    })?;
    Ok(Arc::new(definition.preset()?))
}

fn definition_in(reference: Reference<'_>) -> Result<Definition, String> {
    /// What else a scenario has is not looked at.
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        link: Vec<Definition>,
    }
    let file: File = toml::from_str(&reference.read()?).map_err(|error| error.to_string())?;
    let example = "motemq-sim links --toml nb-iot";
    reference.choose(&file.link, |link| &link.name, "link", example)
}

fn names() -> String {
    PRESETS.each_ref().map(|preset| &*preset.name).join(", ")
}

impl Definition {
    /// What the definition says.
    ///
    /// # Errors
    /// The first key that cannot be used, and what to write instead.
    pub fn preset(&self) -> Result<Preset, LinkError> {
        let base = Preset::named(&self.based_on)
            .ok_or_else(|| LinkError::Unknown(self.based_on.clone()))?;
        let mut preset = (*base).clone();
        preset.name = Cow::Owned(self.name.clone());
        if let Some(sources) = &self.sources {
            preset.sources = Cow::Owned(sources.clone());
        } else {
            preset.sources = Cow::Owned(format!("based on {}: {}", base.name, base.sources));
        }
        self.set_transfer(&mut preset)?;
        self.set_packets(&mut preset)?;
        self.set_radio(&mut preset)?;
        self.set_network(&mut preset)?;
        Ok(preset)
    }

    /// Rates, round trip, losses.
    fn set_transfer(&self, preset: &mut Preset) -> Result<(), LinkError> {
        let rate = "a rate such as \"25 kbit/s\", or \"unlimited\"";
        let bits_per_s = |text: &str| match text {
            "unlimited" => Some(None),
            text => units::bits_per_s(text).map(Some),
        };
        let time = "a time such as \"840ms\" or \"2s\"";
        self.set(
            &mut preset.down_bits_per_s,
            "down",
            &self.down,
            rate,
            bits_per_s,
        )?;
        self.set(&mut preset.up_bits_per_s, "up", &self.up, rate, bits_per_s)?;
        self.set(
            &mut preset.round_trip,
            "round_trip",
            &self.round_trip,
            time,
            units::time,
        )?;
        self.set(
            &mut preset.round_trip_jitter,
            "jitter",
            &self.jitter,
            time,
            units::time,
        )?;
        if preset.round_trip_jitter > preset.round_trip {
            let value = units::time_text(preset.round_trip_jitter);
            let wanted = "a time no longer than round_trip";
            return Err(self.wrong("jitter", format!("{value:?}"), wanted));
        }
        let wanted = "\"even\" or \"long-tail\"";
        self.set(
            &mut preset.jitter_shape,
            "jitter_shape",
            &self.jitter_shape,
            wanted,
            |text| match text {
                "even" => Some(JitterShape::Even),
                "long-tail" => Some(JitterShape::LongTail),
                _ => None,
            },
        )?;
        let wanted = "a share below 50 %, such as \"1 %\"";
        self.set(&mut preset.loss, "loss", &self.loss, wanted, |text| {
            share(text).ok().filter(|loss| *loss < 0.5)
        })?;
        self.set(
            &mut preset.duplex,
            "duplex",
            &self.duplex,
            "\"half\" or \"full\"",
            |text| match text {
                "half" => Some(Duplex::Half),
                "full" => Some(Duplex::Full),
                _ => None,
            },
        )
    }

    /// Packets and frames.
    fn set_packets(&self, preset: &mut Preset) -> Result<(), LinkError> {
        let wanted = "bytes, 68 to 65535 and more than headers";
        self.set(&mut preset.mtu_bytes, "mtu", &self.mtu, wanted, |text| {
            text.parse()
                .ok()
                .filter(|bytes| (68..=65_535).contains(bytes))
        })?;
        let wanted = "bytes: 40 for IPv4 and TCP, 60 for IPv6 and TCP";
        self.set(
            &mut preset.header_bytes,
            "headers",
            &self.headers,
            wanted,
            |text| text.parse().ok().filter(|bytes| *bytes < preset.mtu_bytes),
        )?;
        match &self.frames {
            None => {}
            Some(FramesOrNone::None(none)) if none == NONE => preset.frames = None,
            Some(FramesOrNone::Frames(frames)) if frames.payload > 0 && frames.fragment > 0 => {
                preset.frames = Some(Frames {
                    payload_bytes: frames.payload.into(),
                    fragment_bytes: frames.fragment.into(),
                    overhead_bytes: frames.overhead.into(),
                    fragment_overhead_bytes: frames.fragment_overhead.into(),
                    compressed_bytes: frames.compressed.into(),
                });
            }
            Some(other) => {
                let wanted = "\"none\", or payload and fragment of at least 1 byte";
                return Err(self.wrong("frames", format!("{other:?}"), wanted));
            }
        }
        Ok(())
    }

    /// When the radio sleeps and how much it may send.
    fn set_radio(&self, preset: &mut Preset) -> Result<(), LinkError> {
        let range = "a time or a range such as \"10s to 20s\", or \"none\"";
        let mut idle_after = preset.wake_up.map(|wake_up| wake_up.idle_after);
        let mut delay = preset.wake_up.map(|wake_up| wake_up.delay);
        self.set(
            &mut idle_after,
            "sleeps_after",
            &self.sleeps_after,
            range,
            time_range,
        )?;
        self.set(&mut delay, "wakes_in", &self.wakes_in, range, time_range)?;
        preset.wake_up = match (idle_after, delay) {
            (Some(idle_after), Some(delay)) => Some(WakeUp { idle_after, delay }),
            (Some(_), None) if self.wakes_in.is_none() => {
                return Err(self.wrong("wakes_in", "(missing)", "it beside sleeps_after"));
            }
            (None, Some(_)) if self.sleeps_after.is_none() => {
                return Err(self.wrong("sleeps_after", "(missing)", "it beside wakes_in"));
            }
            _ => None,
        };
        let mut part = preset.duty_cycle.map(|duty_cycle| duty_cycle.share);
        let an_hour = Duration::from_secs(3_600);
        let mut window = preset.duty_cycle.map_or(an_hour, |cycle| cycle.window);
        let wanted = "a share of at least 0.01 %, such as \"1 %\", or \"none\"";
        self.set(
            &mut part,
            "duty_cycle",
            &self.duty_cycle,
            wanted,
            |text| match text {
                NONE => Some(None),
                text => share(text).ok().filter(|share| *share >= 1e-4).map(Some),
            },
        )?;
        let wanted = "a time such as \"1h\"; \"0s\" for silence after each segment";
        self.set(
            &mut window,
            "duty_window",
            &self.duty_window,
            wanted,
            units::time,
        )?;
        preset.duty_cycle = part.map(|share| DutyCycle { share, window });
        Ok(())
    }

    /// What the network forgets and where it ends.
    fn set_network(&self, preset: &mut Preset) -> Result<(), LinkError> {
        let wanted = "a time such as \"30m\", or \"none\"";
        self.set(
            &mut preset.nat_timeout,
            "nat_timeout",
            &self.nat_timeout,
            wanted,
            time_or_none,
        )?;
        let mut every = preset.outages.map(|outages| outages.every);
        let mut lasts = preset.outages.map(|outages| outages.lasts);
        let wanted = "a time of at least 1s such as \"10m\", or \"none\"";
        self.set(
            &mut every,
            "outage_every",
            &self.outage_every,
            wanted,
            |text| {
                let a_second = Some(Duration::from_secs(1));
                time_or_none(text).filter(|every| every.is_none() || *every >= a_second)
            },
        )?;
        let wanted = "a time or a range such as \"5s to 70s\", or \"none\"";
        self.set(
            &mut lasts,
            "outage_lasts",
            &self.outage_lasts,
            wanted,
            time_range,
        )?;
        preset.outages = match (every, lasts) {
            (Some(every), Some(lasts)) => Some(Outages { every, lasts }),
            (Some(_), None) if self.outage_lasts.is_none() => {
                return Err(self.wrong("outage_lasts", "(missing)", "it beside outage_every"));
            }
            (None, Some(_)) if self.outage_every.is_none() => {
                return Err(self.wrong("outage_every", "(missing)", "it beside outage_lasts"));
            }
            _ => None,
        };
        preset.has_gateway = self.gateway.unwrap_or(preset.has_gateway);
        Ok(())
    }

    /// Puts what the figure says in its place, if it is given.
    fn set<T>(
        &self,
        place: &mut T,
        key: &'static str,
        figure: &Option<Figure>,
        wanted: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<(), LinkError> {
        let text = match figure {
            None => return Ok(()),
            Some(Figure::Integer(number)) => number.to_string(),
            Some(Figure::Float(number)) => number.to_string(),
            Some(Figure::Text(text)) => text.trim().to_owned(),
        };
        *place = read(&text).ok_or_else(|| self.wrong(key, format!("{text:?}"), wanted))?;
        Ok(())
    }

    fn wrong(
        &self,
        key: &'static str,
        value: impl Into<String>,
        wanted: &'static str,
    ) -> LinkError {
        LinkError::Figure {
            link: self.name.clone(),
            key,
            value: value.into(),
            wanted,
        }
    }
}

fn time_or_none(text: &str) -> Option<Option<Duration>> {
    match text {
        NONE => Some(None),
        text => units::time(text).map(Some),
    }
}

fn time_range(text: &str) -> Option<Option<(Duration, Duration)>> {
    match text {
        NONE => Some(None),
        text => units::time_range(text).map(Some),
    }
}

impl Preset {
    /// The figures as a `[[link]]` that a scenario can have, to start an own one from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let is_preset = PRESETS.iter().any(|preset| preset.name == self.name);
        let based_on = if is_preset { &*self.name } else { NONE };
        let optional = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
        let wake_up = |part: fn(WakeUp) -> (Duration, Duration)| {
            optional(self.wake_up.map(part).map(units::time_range_text))
        };
        let every = self.outages.map(|outages| units::time_text(outages.every));
        let lasts = self.outages.map(|outages| outages.lasts);
        let share = self.duty_cycle.map(|cycle| units::share_text(cycle.share));
        let shape = match self.jitter_shape {
            JitterShape::Even => "even",
            JitterShape::LongTail => "long-tail",
        };
        let duplex = match self.duplex {
            Duplex::Half => "half",
            Duplex::Full => "full",
        };
        let mut text = format!(
            "[[link]]\nname = \"my-{}\"\nbased_on = {based_on:?}\n",
            self.name
        );
        text += "# Keep the lines that differ from the base; what is not said is as there.\n";
        for (key, value) in [
            ("down", units::bits_per_s_text(self.down_bits_per_s)),
            ("up", units::bits_per_s_text(self.up_bits_per_s)),
            ("round_trip", units::time_text(self.round_trip)),
            ("jitter", units::time_text(self.round_trip_jitter)),
            ("jitter_shape", shape.to_owned()),
            ("loss", units::share_text(self.loss)),
            ("duplex", duplex.to_owned()),
            ("sleeps_after", wake_up(|wake_up| wake_up.idle_after)),
            ("wakes_in", wake_up(|wake_up| wake_up.delay)),
            (
                "nat_timeout",
                optional(self.nat_timeout.map(units::time_text)),
            ),
            ("outage_every", optional(every)),
            ("outage_lasts", optional(lasts.map(units::time_range_text))),
            ("duty_cycle", optional(share)),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} = \"{value}\"");
        }
        if let Some(duty_cycle) = self.duty_cycle {
            let window = units::time_text(duty_cycle.window);
            let _ = writeln!(text, "duty_window = \"{window}\"");
        }
        let _ = writeln!(
            text,
            "mtu = {}\nheaders = {}",
            self.mtu_bytes, self.header_bytes
        );
        let _ = match self.frames {
            None => writeln!(text, "frames = \"none\""),
            Some(frames) => writeln!(
                text,
                "frames = {{ payload = {}, fragment = {}, overhead = {}, fragment_overhead = {}, compressed = {} }}",
                frames.payload_bytes,
                frames.fragment_bytes,
                frames.overhead_bytes,
                frames.fragment_overhead_bytes,
                frames.compressed_bytes,
            ),
        };
        let _ = writeln!(
            text,
            "gateway = {}\nsources = {:?}",
            self.has_gateway, self.sources
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_differs_from_its_base_in_what_it_says() {
        let text = "name = \"meter-in-basement\"\nbased_on = \"nb-iot\"\nup = 5\ndown = \"2.5 kbit/s\"\n\
                    loss = \"4 %\"\nround_trip = \"2s\"\nnat_timeout = \"none\"\nsleeps_after = \"5s\"\n\
                    outage_every = \"1h\"\noutage_lasts = \"10s to 60s\"\n";
        let nb_iot = Preset::named("nb-iot").unwrap();
        let wake_up = nb_iot.wake_up.unwrap();
        let expected = Preset {
            name: "meter-in-basement".into(),
            up_bits_per_s: Some(5_000),
            down_bits_per_s: Some(2_500),
            loss: 0.04,
            round_trip: Duration::from_secs(2),
            nat_timeout: None,
            wake_up: Some(WakeUp {
                idle_after: (Duration::from_secs(5), Duration::from_secs(5)),
                ..wake_up
            }),
            outages: Some(Outages {
                every: Duration::from_secs(3_600),
                lasts: (Duration::from_secs(10), Duration::from_secs(60)),
            }),
            sources: format!("based on nb-iot: {}", nb_iot.sources).into(),
            ..(*nb_iot).clone()
        };
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn every_preset_can_be_written_and_read() {
        for preset in &PRESETS {
            let written = preset.to_toml();
            // Behind "[[link]]".
            let (_, text) = written.split_once('\n').unwrap();
            let name = format!("my-{}", preset.name).into();
            let expected = Preset {
                name,
                ..preset.clone()
            };
            assert_eq!(read(text).unwrap(), expected, "{written}");
        }
    }

    #[test]
    fn an_error_names_the_link_the_key_and_what_to_write() {
        for (line, key) in [
            ("up = \"fast\"", "up"),
            ("down = 0", "down"),
            ("round_trip = 840", "round_trip"),
            ("jitter = \"2s\"", "jitter"),
            ("jitter_shape = \"wild\"", "jitter_shape"),
            ("loss = 1", "loss"),
            ("duplex = \"both\"", "duplex"),
            ("mtu = 20", "mtu"),
            ("headers = 1400", "headers"),
            ("sleeps_after = \"20s to 10s\"", "sleeps_after"),
            ("wakes_in = \"soon\"", "wakes_in"),
            ("nat_timeout = \"never\"", "nat_timeout"),
            ("outage_every = \"10m\"", "outage_lasts"),
            ("outage_lasts = \"10s\"", "outage_every"),
            (
                "outage_every = \"1ms\"\noutage_lasts = \"1s\"",
                "outage_every",
            ),
            ("duty_cycle = 0", "duty_cycle"),
            ("duty_window = \"?\"", "duty_window"),
            ("frames = \"some\"", "frames"),
        ] {
            let text = format!("name = \"mine\"\nbased_on = \"nb-iot\"\n{line}");
            match read(&text) {
                Err(LinkError::Figure {
                    link, key: found, ..
                }) => assert_eq!((link.as_str(), found), ("mine", key), "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        let error = read("name = \"mine\"\nbased_on = \"nb-iot\"\nup = \"fast\"").unwrap_err();
        let expected =
            "link \"mine\": up = \"fast\": write a rate such as \"25 kbit/s\", or \"unlimited\"";
        assert_eq!(error.to_string(), expected);
        let error = read("name = \"mine\"\nbased_on = \"nb-lot\"").unwrap_err();
        assert_eq!(error, LinkError::Unknown("nb-lot".to_owned()));
        let typo = "name = \"mine\"\nbased_on = \"nb-iot\"\nlatency = \"1s\"";
        let error = toml::from_str::<Definition>(typo).unwrap_err();
        assert!(error.to_string().contains("latency"), "{error}");
    }

    #[test]
    fn a_link_is_found_in_the_table_or_in_a_file() {
        let path =
            std::env::temp_dir().join(format!("motemq-sim-links-{}.toml", std::process::id()));
        let file = path.to_str().unwrap();
        let link =
            |name: &str| format!("[[link]]\nname = {name:?}\nbased_on = \"gprs\"\nup = 9.6\n");
        std::fs::write(&path, link("a")).unwrap();
        assert_eq!(find(file).unwrap().up_bits_per_s, Some(9_600));
        std::fs::write(&path, format!("seed = 42\n{}{}", link("a"), link("b"))).unwrap();
        assert_eq!(find(&format!("{file}#b")).unwrap().name, "b");
        let ambiguous = find(file).unwrap_err().to_string();
        let unknown = find(&format!("{file}#c")).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(
            ambiguous.ends_with("#NAME, with one of a, b"),
            "{ambiguous}"
        );
        assert!(
            unknown.ends_with("has no link \"c\", but a, b"),
            "{unknown}"
        );
        assert_eq!(find("gprs").unwrap().name, "gprs");
        assert!(matches!(find("gprss"), Err(LinkError::Unknown(_))));
        assert!(matches!(find(file), Err(LinkError::File { .. })));
    }

    fn read(text: &str) -> Result<Preset, LinkError> {
        toml::from_str::<Definition>(text).unwrap().preset()
    }
}
