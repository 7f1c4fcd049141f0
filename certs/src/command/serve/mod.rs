//! `serve`: the enrolment service, an MQTT client that holds the issuing key so that the broker need not; over EST, a server.
//!
//! Ends with 0 when told to (SIGTERM, SIGINT) and with 1 when it cannot start; a broker that is away is waited for.
//!
//! There is one desk for both. All runs on one thread, so nobody waits for its lock.

mod address;
mod connection;
mod est;
mod identity;

use address::Address;
use connection::{End, Signals};
use identity::Identity;
use motemq_certs::{Allowed, Authority, CertsError, DEVICE_DAYS, Desk, Settings, Validity};
use std::future::pending;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("over").args(["broker", "est"]).required(true).multiple(true))]
pub(crate) struct Arguments {
    /// The broker: mqtts://HOST[:8883], mqtt://HOST[:1883] on this machine, or unix:PATH.
    #[arg(long, value_name = "URL")]
    broker: Option<Address>,
    #[command(flatten)]
    est: est::Arguments,
    /// The service's name: its client id, the common name of its certificate, and `[enrolment] signer` of the broker.
    #[arg(long, default_value = "enrolment")]
    name: String,
    /// Whom to trust as the broker's issuer [default: the authority, root.crt and ca.crt].
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca: Option<PathBuf>,
    /// Log in with this name and a password instead of a certificate.
    #[arg(long, requires_all = ["password_file", "broker"])]
    user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Ids that devices with a claim certificate may have: one per line, * for any characters. Read again when it changes.
    #[arg(long, value_name = "FILE", conflicts_with = "allow_any")]
    allow: Option<PathBuf>,
    /// Let a claim certificate enrol any id that never had a certificate. Every holder of a claim can then take any free name, also
    /// one that access rules speak about.
    #[arg(long)]
    allow_any: bool,
    /// Validity of the certificates, in days, or `forever`.
    #[arg(long, default_value_t = Validity::Days(DEVICE_DAYS))]
    days: Validity,
    /// Kinds of keys that are certified: p256, p384, ed25519, rsa (every size), rsa2048, rsa3072, rsa4096.
    #[arg(long, value_delimiter = ',', default_value = "p256,p384,ed25519", value_parser = ["p256", "p384", "ed25519", "rsa", "rsa2048", "rsa3072", "rsa4096"])]
    keys: Vec<String>,
    /// Valid certificates that one id may have at a time; more are refused.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    certificates_per_id: u16,
    /// Requests per second in the long run, each for renewals, with tokens, with claims and for all others; more are refused.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds that a device waits between requests; earlier ones are refused. 0 for none.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    per_id_interval: u32,
    /// Where each decision is written down [default: enrolment.jsonl beside the authority].
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> ExitCode {
    match serve(dir, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Why the service cannot start, or go on.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Certs(#[from] CertsError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{} holds no certificate: name the file of the authority that issued the broker's", .0.display())]
    NoAuthority(PathBuf),
    #[error("{} is empty: its first line must be the password", .0.display())]
    NoPassword(PathBuf),
    #[error("cannot listen at {address}: {source}; choose another address or port (--est)")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "EST needs a certificate and its key, and {} {why}: issue one with `motemq-certs --out {} server HOST`, or name others with --est-cert and --est-key",
        path.display(), dir.display()
    )]
    EstFile {
        path: PathBuf,
        why: String,
        dir: PathBuf,
    },
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

fn serve(dir: &Path, arguments: &Arguments) -> Result<(), ServeError> {
    let allowed = match &arguments.allow {
        Some(path) => Allowed::File(path.clone()),
        None if arguments.allow_any => Allowed::Anything,
        None => Allowed::Nothing,
    };
    if allowed == Allowed::Nothing {
        log("claim certificates enrol nobody: neither --allow nor --allow-any is given");
    }
    if allowed == Allowed::Anything {
        log(
            "warning: --allow-any lets every holder of a claim certificate take any free name, also names that access rules speak about: \
             --allow names those that are meant",
        );
    }
    let own_names = arguments.user.iter().chain([&arguments.name]);
    let settings = Settings {
        own_names: own_names.cloned().collect(),
        key_types: arguments.keys.clone(),
        certificates_per_id: arguments.certificates_per_id.into(),
        rate_per_s: arguments.rate,
        per_id_interval_s: arguments.per_id_interval,
        allowed,
        validity: arguments.days,
        audit: match &arguments.audit {
            Some(path) => path.clone(),
            None => dir.join("enrolment.jsonl"),
        },
    };
    let desk = Desk::open(Authority::open(dir)?, settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve_until_told_to_stop(
        dir,
        arguments,
        &Arc::new(Mutex::new(desk)),
    ))
}

async fn serve_until_told_to_stop(
    dir: &Path,
    arguments: &Arguments,
    desk: &SharedDesk,
) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let listener = est::Listener::open(dir, &arguments.est, desk).await?;
    let over_mqtt = async {
        match &arguments.broker {
            Some(broker) => answer_broker(broker, arguments, desk, &mut signals).await?,
            None => signals.came().await,
        }
        log("stopped");
        Ok(())
    };
    let over_est = async {
        match listener {
            Some(listener) => listener.serve().await,
            None => pending().await,
        }
    };
    tokio::select! {
        stopped = over_mqtt => stopped,
        never = over_est => match never {},
    }
}

/// Answers what a broker passes on, until told to stop.
async fn answer_broker(
    broker: &Address,
    arguments: &Arguments,
    desk: &SharedDesk,
    signals: &mut Signals,
) -> Result<(), ServeError> {
    let mut identity = Identity::new(arguments, lock(desk).authority())?;
    let mut pause = PAUSE_MIN;
    loop {
        let options = identity.options(broker, lock(desk).authority())?;
        let renew_in = identity.renew_in();
        match connection::run(desk, options, renew_in, signals).await {
            End::Stopped => return Ok(()),
            End::Renew => pause = PAUSE_MIN,
            End::Lost { why, worked } => {
                if worked {
                    pause = PAUSE_MIN;
                }
                log(&format!("{broker}: {why}; again in {} s", pause.as_secs()));
                if signals.came_within(pause).await {
                    return Ok(());
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// The desk, for all who bring requests.
type SharedDesk = Arc<Mutex<Desk>>;

/// After a panic the desk is as before: it reads its files again for each decision.
fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line for people; the journal knows when.
fn log(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "motemq-certs: {text}");
}

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
