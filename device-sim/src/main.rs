//! The command line of the fleet simulator.
//!
//! Exit codes: 0 the broker kept its promises; 1 the run could not take place, or nothing arrived; 2 wrong
//! usage; 99 acknowledged messages were lost, QoS 2 was delivered twice, or the order was broken.

use clap::{Args, Parser, Subcommand, ValueEnum};
use motemq_sim::link::{Duplex, PRESETS, Preset};
use motemq_sim::wire::Login;
use motemq_sim::{ClientKind, Endpoint, Plan, Report, SimError, TlsFiles};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const EXIT_VIOLATION: u8 = 99;

/// Simulates fleets of constrained MQTT devices behind narrow links and audits delivery.
#[derive(Debug, Parser)]
#[command(name = "motemq-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a fleet against a broker and report what arrived.
    Run(Box<RunArguments>),
    /// Show the link presets and where their figures come from.
    Links,
}

#[derive(Args, Debug)]
struct RunArguments {
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
    #[arg(long, default_value = "power-meter")]
    profile: Profile,
    /// Mean time between two readings of a device; each varies by 30 %.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = duration)]
    every: Duration,
    /// How long all devices publish once the last has connected.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = duration)]
    duration: Duration,
    /// How long to wait at most for what is on its way at the end.
    #[arg(long, default_value = "20s", value_name = "TIME", value_parser = duration)]
    drain: Duration,
    /// Quality of service of the readings.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
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
enum Profile {
    /// A household's electricity meter.
    PowerMeter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Client {
    /// Small state machines behind the link.
    Simulated,
    /// The crate rumqttc, for up to 200 devices, with --link none.
    Rumqttc,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Links => Ok((links(), ExitCode::SUCCESS)),
        Command::Run(arguments) => run(*arguments),
    };
    match outcome {
        Ok((text, code)) => {
            // A reader that went away does not change the outcome.
            let _ = io::stdout().write_all(text.as_bytes());
            code
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "motemq-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: RunArguments) -> Result<(String, ExitCode), SimError> {
    let json = arguments.json.clone();
    let plan = plan(arguments);
    let runtime = tokio::runtime::Runtime::new().map_err(|_| SimError::Internal("no runtime"))?;
    let report = runtime.block_on(motemq_sim::run(plan))?;
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

fn plan(arguments: RunArguments) -> Plan {
    let Profile::PowerMeter = arguments.profile;
    let password = arguments
        .password
        .or_else(|| std::env::var("MOTEMQ_SIM_PASSWORD").ok())
        .unwrap_or_default();
    Plan {
        run: Plan::new_run_name(),
        endpoint: arguments.broker,
        tls_files: TlsFiles {
            authority: arguments.cafile,
            certificate: arguments.cert,
            private_key: arguments.key,
        },
        login: arguments
            .username
            .map(|username| Login { username, password }),
        client: match arguments.client {
            Client::Simulated => ClientKind::Simulated,
            Client::Rumqttc => ClientKind::Rumqttc,
        },
        devices: arguments.devices,
        preset: arguments.link,
        every: arguments.every,
        duration: arguments.duration,
        drain_max: arguments.drain,
        qos: arguments.qos,
        seed: arguments.seed,
        connects_per_s: arguments.connect_rate,
    }
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

fn links() -> String {
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

fn preset(name: &str) -> Result<Arc<Preset>, String> {
    let names = || PRESETS.each_ref().map(|preset| &*preset.name).join(", ");
    Preset::named(name).ok_or_else(|| format!("known links are {}", names()))
}

/// `500ms`, `30s`, `5m`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match text.strip_prefix(digits) {
        Some("ms") => 0.001,
        Some("s") => 1.0,
        Some("m") => 60.0,
        Some("h") => 3_600.0,
        _ => return Err("write a number with its unit: 500ms, 30s, 5m or 2h".to_owned()),
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{digits:?} is no number"))?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())
}

/// `50/s` or `50`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write a rate per second above 0: 50/s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_rates_have_units() {
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        for wrong in ["", "5", "s", "-1s", "1d", "1e9h1"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("50/s"), Ok(50.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0/s").is_err() && rate("x").is_err());
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
