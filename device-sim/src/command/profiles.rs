//! `motemq-sim profiles`: what devices there are, and what their messages look like.

use crate::label::Label;
use crate::link::{Preset, share_text, time_text};
use crate::plan::Cohort;
use crate::profile::{self, Cadence, Command, Encoding, Profile, Schedule, Sensor};
use crate::scenario::Overrides;
use crate::text::duration;
use clap::Args;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// The device whose messages are shown.
const DEVICE: u32 = 17;
/// How many messages stand for all.
const SAMPLE: u32 = 200;

#[derive(Args, Debug)]
pub(super) struct ProfilesArguments {
    /// Show messages of this one: a preset, or FILE.toml#NAME for a profile of your own.
    #[arg(value_name = "PROFILE", value_parser = profile::find)]
    profile: Option<Arc<Profile>>,
    /// Print PROFILE as TOML, to start a profile of your own from.
    #[arg(long, requires = "profile")]
    toml: bool,
    /// json, cbor, senml or packed [default: the profile's].
    #[arg(long, value_name = "ENCODING", requires = "profile")]
    encoding: Option<Encoding>,
    /// Mean time between two readings [default: the profile's].
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "profile")]
    every: Option<Duration>,
    /// How many messages.
    #[arg(long, default_value_t = 5, requires = "profile", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Determines times and values.
    #[arg(long, default_value_t = 42, requires = "profile")]
    seed: u64,
}

/// What the command prints.
pub(super) fn profiles(arguments: &ProfilesArguments) -> String {
    let Some(profile) = &arguments.profile else {
        return table(&Profile::presets());
    };
    let every = arguments.every.unwrap_or(profile.every);
    // A schedule without time between readings would have no end.
    let every = every.max(Duration::from_millis(10));
    let mut profile = Profile::clone(&profile.paced(every, profile.jitter));
    profile.encoding = arguments.encoding.unwrap_or(profile.encoding);
    if arguments.toml {
        return profile.to_toml();
    }
    examples(&profile, arguments.seed, arguments.count)
}

/// Two lines for each profile.
fn table(profiles: &[Profile]) -> String {
    let mut text = format!(
        "{:<12}{:>6}{:>9}{:>5}  {:<9}{:>5}{:>6}{:>7}{:>8}  topic\n",
        "profile", "every", "natural", "QoS", "encoding", "json", "cbor", "senml", "packed"
    );
    for profile in profiles {
        let _ = write!(
            text,
            "{:<12}{:>6}{:>9}{:>5}  {:<9}",
            profile.name,
            time_text(profile.every),
            time_text(profile.natural_every),
            profile.qos,
            profile.encoding,
        );
        for (encoding, width) in Encoding::ALL.into_iter().zip([5, 6, 7, 8]) {
            let bytes = mean_bytes(profile, encoding);
            let _ = write!(text, "{bytes:>width$.0}");
        }
        let _ = writeln!(text, "  .../{}\n  {}", profile.topic, profile.what);
    }
    text + "\nevery: between two readings in a run, unless --every says otherwise (vibration: between two bursts of 10;\n\
           water-meter: how long a day takes); natural: in the field. The figures are bytes of a payload.\n\
           motemq-sim profiles PROFILE shows messages, and with --toml what can be changed.\n"
}

/// The mean length of a payload.
fn mean_bytes(profile: &Profile, encoding: Encoding) -> f64 {
    let profile = Profile {
        encoding,
        ..profile.clone()
    };
    let bytes: usize = messages(&profile, 42, SAMPLE)
        .map(|message| message.payload.len())
        .sum();
    bytes as f64 / f64::from(SAMPLE)
}

fn examples(profile: &Profile, seed: u64, count: u32) -> String {
    let mut text = format!(
        "{}: {}\n{} in the run, {} in the field; QoS {}, {}; seed {seed}, device {DEVICE:06}\n\n",
        profile.name,
        profile.what,
        rhythm(profile),
        time_text(profile.natural_every),
        profile.qos,
        profile.encoding,
    );
    for message in messages(profile, seed, count) {
        let _ = writeln!(
            text,
            "{:>9.3}s  {}  .../{:<12}  {} bytes\n  {}",
            message.at.as_secs_f64(),
            time_of_day(profile, message.at),
            profile
                .topic
                .replacen("{leaf}", &format!("{:03}", message.leaf), 1),
            message.payload.len(),
            shown(profile.encoding, &message.payload),
        );
        if !profile.encoding.is_text() {
            let _ = writeln!(
                text,
                "  which says {}",
                String::from_utf8_lossy(&message.json)
            );
        }
    }
    if Sensor::new(profile, seed, DEVICE).is_on().is_some() {
        let command = Command {
            device: DEVICE,
            sequence: 0,
            intended_at: Duration::from_secs(12),
            is_on: true,
        };
        let mut payload = Vec::new();
        command.encode(profile, &mut payload);
        let bytes = payload.len();
        let shown = shown(profile.encoding, &payload);
        let _ = writeln!(text, "\na command to it, {bytes} bytes\n  {shown}");
    }
    text
}

fn rhythm(profile: &Profile) -> String {
    let every = time_text(profile.every);
    match profile.cadence {
        Cadence::Steady => format!("every {every} +- {}", share_text(profile.jitter)),
        Cadence::Bursts { count, gap } => {
            format!("every {every} {count} readings {} apart", time_text(gap))
        }
        Cadence::Daily { .. } => format!("once a day, which takes {every}"),
        Cadence::Events => format!("when something happens, every {every} on average"),
    }
}

/// The series' own time, as the device's clock would show it if it were right.
fn time_of_day(profile: &Profile, at: Duration) -> String {
    let hours = profile.series.start_hour + profile.series_time_s(at) / 3_600.0;
    let minutes = (hours * 60.0) as u64;
    format!(
        "day {} {:02}:{:02}",
        minutes / 1_440 + 1,
        minutes / 60 % 24,
        minutes % 60
    )
}

fn shown(encoding: Encoding, payload: &[u8]) -> String {
    if encoding.is_text() {
        return String::from_utf8_lossy(payload).into_owned();
    }
    payload.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Message {
    at: Duration,
    leaf: u8,
    payload: Vec<u8>,
    /// The same in words.
    json: Vec<u8>,
}

/// When the first reading of the device can fall due in `motemq-sim run --devices N`.
fn ready_at(profile: &Profile, seed: u64) -> Duration {
    let Some(link) = Preset::named("none") else {
        return Duration::ZERO;
    };
    let (qos, every) = (profile.qos, profile.every);
    let profile = Arc::new(profile.clone());
    let cohort = Cohort::new("profiles", 0, DEVICE + 1, profile, link, qos, every);
    let (connects_at, cohorts) = (cohort.connects_at(seed, DEVICE), vec![cohort.clone()]);
    let plan = Overrides::default().plan(cohort.name.clone(), cohorts, Vec::new(), Vec::new());
    connects_at + plan.settle_time(&cohort)
}

/// The first messages of a device, as a run would send them.
fn messages(profile: &Profile, seed: u64, count: u32) -> impl Iterator<Item = Message> {
    let mut schedule = Schedule::new(profile, seed, DEVICE, ready_at(profile, seed));
    let mut sensor = Sensor::new(profile, seed, DEVICE);
    let as_json = Profile {
        encoding: Encoding::Json,
        ..profile.clone()
    };
    (0..count).map(move |sequence| {
        let intended_at = schedule.next_at();
        schedule.advance(profile);
        let reading = sensor.read(profile, intended_at);
        let label = Label {
            device: DEVICE,
            sequence,
            intended_at,
        };
        let (mut payload, mut json) = (Vec::new(), Vec::new());
        profile.encode(&label, &reading, &mut payload);
        as_json.encode(&label, &reading, &mut json);
        Message {
            at: intended_at,
            leaf: profile.leaf(&reading),
            payload,
            json,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_preset_and_fits_a_terminal() {
        let text = table(&Profile::presets());
        for profile in Profile::presets() {
            assert!(text.lines().any(|line| line.starts_with(&profile.name)));
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }

    #[test]
    fn examples_are_as_many_as_asked_for_and_depend_on_the_seed_alone() {
        for profile in Profile::presets() {
            let text = examples(&profile, 42, 7);
            assert_eq!(
                text.matches(" bytes\n").count(),
                if profile.name == "smart-plug" { 8 } else { 7 }
            );
            assert_eq!(text, examples(&profile, 42, 7));
            assert_ne!(text, examples(&profile, 43, 7));
        }
    }

    #[test]
    fn times_are_those_of_a_run_whose_devices_connect_one_after_the_other() {
        let profile = Profile::clone(&Profile::named("power-meter").unwrap());
        let first = messages(&profile, 42, 1).next().unwrap();
        let alone = Schedule::new(&profile, 42, DEVICE, Duration::ZERO);
        // 17 devices at 50/s came before, and the link costs less than a microsecond.
        assert_eq!((first.at - alone.next_at()).as_micros(), 340_000);
    }

    #[test]
    fn binary_payloads_are_shown_as_hexadecimal_digits() {
        let profile = Profile {
            encoding: Encoding::Packed,
            ..Profile::clone(&Profile::named("thermometer").unwrap())
        };
        assert!(examples(&profile, 42, 1).contains("\n  010100000011"));
    }
}
