//! `motemq-sim run`: a fleet against a broker.

use crate::link::{self, Preset};
use crate::output::{Output, OutputArguments};
use crate::plan::{ClientKind, Cohort, Commands, Event, Phase, Plan, Reconnect};
use crate::profile::{self, Profile};
use crate::report::Verdict;
use crate::scenario::{self, Overrides};
use crate::text::{duration, rate, share};
use crate::topic::TopicPattern;
use crate::wire::{Login, Version};
use crate::{Endpoint, Finished, Report, SimError, TlsFiles};
use clap::{Args, ValueEnum};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const EXIT_VIOLATION: u8 = 99;

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    /// A scenario file in TOML; without one, --devices and the options of its group make a fleet of one kind.
    #[arg(value_name = "SCENARIO")]
    scenario: Option<PathBuf>,
    /// The broker: mqtt://HOST:PORT, mqtts://, or over WebSocket ws://, wss:// [default: the scenario's,
    /// mqtt://127.0.0.1:1883].
    #[arg(long, value_name = "URL")]
    broker: Option<Endpoint>,
    /// Authority of the broker's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Certificate that verifier and devices present, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// User name of devices and verifier.
    #[arg(long)]
    username: Option<String>,
    /// Password; better given in the environment variable MOTEMQ_SIM_PASSWORD.
    #[arg(long, requires = "username")]
    password: Option<String>,
    /// How long all devices publish once the last has connected [default: the scenario's, 30s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How long to wait at most for what is on its way at the end [default: the scenario's, 20s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    drain: Option<Duration>,
    /// Determines schedule, readings and losses [default: the scenario's, 42].
    #[arg(long)]
    seed: Option<u64>,
    /// Local addresses to connect from, in turn: more than some 28,000 connections need several.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    source_ip: Vec<IpAddr>,
    #[command(flatten)]
    output: OutputArguments,
    #[command(flatten)]
    fleet: FleetArguments,
}

/// A fleet of one kind.
#[derive(Args, Debug)]
#[group(id = "fleet", multiple = true, conflicts_with = "scenario")]
#[command(next_help_heading = "Fleet without a scenario")]
struct FleetArguments {
    /// Number of devices.
    #[arg(long, default_value_t = 200)]
    devices: u32,
    /// What lies between the devices and the network: see `motemq-sim links`, or FILE.toml#NAME.
    #[arg(long, default_value = "none", value_name = "LINK", value_parser = link::find)]
    link: Arc<Preset>,
    /// What the devices measure: one of `motemq-sim profiles`, or FILE.toml#NAME.
    #[arg(long, default_value = "power-meter", value_name = "PROFILE", value_parser = profile::find)]
    profile: Arc<Profile>,
    /// Where they publish; {run}, {index}, {id}, {site} and {cohort} have places [default: sim/{run}/{index}/MEASURE].
    #[arg(long, value_name = "PATTERN")]
    topic: Option<TopicPattern>,
    /// Mean time between two readings of a device [default: the profile's].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    every: Option<Duration>,
    /// Quality of service of the readings [default: the profile's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: Option<u8>,
    /// The MQTT that devices speak: 3.1.1 or 5.
    #[arg(long, default_value = "3.1.1", value_name = "VERSION")]
    mqtt_version: Version,
    /// Devices name their topic by an alias once the broker knows it (MQTT 5).
    #[arg(long)]
    topic_alias: bool,
    /// Mean time between two commands to a device, which keeps its session [default: none, for smart-plug 3 readings].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    command_every: Option<Duration>,
    /// Quality of service of the commands.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    command_qos: u8,
    /// Devices that connect per second.
    #[arg(long, default_value = "50/s", value_name = "RATE", value_parser = rate)]
    connect_rate: f64,
    /// What a device does when its connection is gone: never, fixed:5s, exp:1s:60s:full [default: exp:1s:60s:half].
    #[arg(long, value_name = "POLICY")]
    reconnect: Option<Reconnect>,
    /// Kill this part of the devices halfway, such as 30% (a storm).
    #[arg(long, value_name = "SHARE", value_parser = share)]
    kill: Option<f64>,
    /// Certificates of the devices, from `motemq-certs batch --manifest FILE`: they name the client ids. The verifier takes the first that no device has, unless there is --cert.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Client stack of the devices.
    #[arg(long, default_value = "simulated")]
    client: Client,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Client {
    /// Small state machines behind the link.
    Simulated,
    /// The crate rumqttc, for up to 200 devices, with --link none.
    Rumqttc,
}

/// Runs the fleet and says what came of it.
pub(super) fn run(arguments: RunArguments) -> Result<(String, ExitCode), SimError> {
    let output = Output::open(&arguments.output)?;
    let plan = plan(arguments)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|_| SimError::Internal("no runtime"))?;
    let Finished { report, unwritten } = runtime.block_on(crate::run_with(plan, output))?;
    for error in &unwritten {
        let _ = writeln!(io::stderr(), "motemq-sim: {error}");
    }
    let code = exit_code(&report);
    let code = match unwritten.is_empty() {
        true => code,
        false => super::at_least_failure(code),
    };
    Ok((report.to_string(), code))
}

fn exit_code(report: &Report) -> ExitCode {
    match report.verdict() {
        Verdict::Broken | Verdict::Missed => ExitCode::from(EXIT_VIOLATION),
        // Nothing was seen to be broken, but nobody should take this for a success.
        Verdict::Unproven => ExitCode::FAILURE,
        Verdict::Kept => ExitCode::SUCCESS,
    }
}

fn plan(arguments: RunArguments) -> Result<Plan, SimError> {
    let password = arguments.password.unwrap_or_else(scenario::password);
    let overrides = Overrides {
        broker: arguments.broker,
        seed: arguments.seed,
        duration: arguments.duration,
        drain_max: arguments.drain,
        tls_files: TlsFiles {
            authority: arguments.cafile,
            certificate: arguments.cert,
            private_key: arguments.key,
        },
        login: arguments
            .username
            .map(|username| Login { username, password }),
        source_addresses: arguments.source_ip,
    };
    match arguments.scenario {
        Some(path) => scenario::read(&path, overrides),
        None => Ok(arguments.fleet.plan(overrides)),
    }
}

impl FleetArguments {
    fn plan(self, overrides: Overrides) -> Plan {
        let (profile, preset) = (self.profile, self.link);
        let every = self.every.unwrap_or(profile.every);
        let qos = self.qos.unwrap_or(profile.qos);
        let name = profile.name.to_string();
        let mut cohort = Cohort::new(&name, 0, self.devices, profile, preset, qos, every);
        if let Some(topic) = self.topic {
            cohort.topic = topic;
        }
        if let Some(every) = self.command_every {
            cohort.take_commands(Commands::new(every, self.command_qos));
        } else if let Some(commands) = &mut cohort.commands {
            commands.qos = self.command_qos;
        }
        cohort.version = self.mqtt_version;
        cohort.topic_alias = self.topic_alias;
        cohort.ramp.connects_per_s = self.connect_rate;
        if let Some(reconnect) = self.reconnect {
            cohort.reconnect = reconnect;
        }
        cohort.tls.manifest = self.manifest;
        cohort.client = match self.client {
            Client::Simulated => ClientKind::Simulated,
            Client::Rumqttc => ClientKind::Rumqttc,
        };
        let halfway = overrides.duration.unwrap_or(scenario::DURATION) / 2;
        let kill = self.kill.map(|share| Phase {
            at: halfway,
            cohort: None,
            share,
            event: Event::Kill(None),
        });
        overrides.plan(name, vec![cohort], kill.into_iter().collect(), Vec::new())
    }
}
