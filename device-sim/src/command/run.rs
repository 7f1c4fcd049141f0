//! `motemq-sim run`: a fleet against a broker.

use crate::link::{PRESETS, Preset};
use crate::plan::{ClientKind, Cohort, Jitter, Plan, Ramp, RampShape, Reconnect};
use crate::profile::Profile;
use crate::text::{duration, rate};
use crate::wire::{Login, Session};
use crate::{Endpoint, Report, SimError, TlsFiles};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const EXIT_VIOLATION: u8 = 99;
const JITTER: f64 = 0.3;
/// What a reconnecting device does unless said otherwise.
const RECONNECT: Reconnect = Reconnect::Exponential {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
    jitter: Jitter::Half,
};

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    /// The broker: mqtt://HOST:PORT or mqtts://HOST:PORT.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883", value_name = "URL")]
    broker: Endpoint,
    /// Authority of the broker's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// Certificate that the devices present, PEM.
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
    /// Number of devices.
    #[arg(long, default_value_t = 200)]
    devices: u32,
    /// What lies between the devices and the network; see `motemq-sim links`.
    #[arg(long, default_value = "none", value_name = "PRESET", value_parser = preset)]
    link: Arc<Preset>,
    /// What the devices measure.
    #[arg(long, default_value = "power-meter", value_name = "PROFILE", value_parser = profile)]
    profile: Arc<Profile>,
    /// Mean time between two readings of a device, which varies by 30 % [default: the profile's].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    every: Option<Duration>,
    /// How long all devices publish once the last has connected.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    duration: Duration,
    /// How long to wait at most for what is on its way at the end.
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = duration)]
    drain: Duration,
    /// Quality of service of the readings [default: the profile's].
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: Option<u8>,
    /// Determines schedule, readings and losses.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Devices that connect per second, such as 50/s.
    #[arg(long, default_value = "50/s", value_name = "RATE", value_parser = rate)]
    connect_rate: f64,
    /// Client stack of the devices.
    #[arg(long, default_value = "simulated")]
    client: Client,
    /// Write the report as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    let json = arguments.json.clone();
    let plan = plan(arguments)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|_| SimError::Internal("no runtime"))?;
    let report = runtime.block_on(crate::run(plan))?;
    if let Some(path) = json {
        write_json(&path, &report)?;
    }
    Ok((report.to_string(), exit_code(&report)))
}

fn exit_code(report: &Report) -> ExitCode {
    if !report.violations.is_empty() {
        ExitCode::from(EXIT_VIOLATION)
    } else if report.published > 0 && report.delivered == 0 {
        // Nothing was promised and nothing broken, but nobody should take this for a success.
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn plan(arguments: RunArguments) -> Result<Plan, SimError> {
    let password = arguments
        .password
        .or_else(|| std::env::var("MOTEMQ_SIM_PASSWORD").ok())
        .unwrap_or_default();
    let every = arguments.every.unwrap_or(arguments.profile.every);
    let qos = arguments.qos.unwrap_or(arguments.profile.qos);
    let topic = format!("sim/{{run}}/{{index}}/{}", arguments.profile.measure);
    let cohort = Cohort {
        name: arguments.profile.name.to_string(),
        first: 0,
        devices: arguments.devices,
        profile: arguments.profile,
        preset: arguments.link,
        client: match arguments.client {
            Client::Simulated => ClientKind::Simulated,
            Client::Rumqttc => ClientKind::Rumqttc,
        },
        topic: topic
            .parse()
            .map_err(|error| SimError::Plan(format!("{error}")))?,
        every,
        jitter: JITTER,
        qos,
        ramp: Ramp {
            connects_per_s: arguments.connect_rate,
            shape: RampShape::Linear,
        },
        reconnect: RECONNECT,
        session: Session::needed_for(qos),
        keep_alive_s: keep_alive_s(every),
    };
    Ok(Plan {
        run: Plan::new_run_name(),
        name: cohort.name.clone(),
        digest: String::new(),
        endpoint: arguments.broker,
        tls_files: TlsFiles {
            authority: arguments.cafile,
            certificate: arguments.cert,
            private_key: arguments.key,
        },
        login: arguments
            .username
            .map(|username| Login { username, password }),
        source_addresses: Vec::new(),
        cohorts: vec![cohort],
        phases: Vec::new(),
        thresholds: Vec::new(),
        duration: arguments.duration,
        drain_max: arguments.drain,
        seed: arguments.seed,
    })
}

/// Longer than any pause between two readings, so that no pings are needed.
fn keep_alive_s(every: Duration) -> u16 {
    let keep_alive_s = (every.as_secs() * 5 / 2).max(60);
    u16::try_from(keep_alive_s).unwrap_or(u16::MAX)
}

fn write_json(path: &Path, report: &Report) -> Result<(), SimError> {
    let failed = |source| SimError::Report {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_vec_pretty(report).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(failed)
}

fn preset(name: &str) -> Result<Arc<Preset>, String> {
    let names = || PRESETS.each_ref().map(|preset| &*preset.name).join(", ");
    Preset::named(name).ok_or_else(|| format!("known links are {}", names()))
}

fn profile(name: &str) -> Result<Arc<Profile>, String> {
    Profile::named(name).ok_or_else(|| "no such profile: see `motemq-sim profiles`".to_owned())
}
