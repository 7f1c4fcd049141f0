//! The command line of the certificate authority: names in, files out.
//!
//! Exit codes: 0 done, 1 not done (the message says what to change), 2 wrong usage.

use clap::{Parser, Subcommand};
use motemq_certs::{Authority, CertsError, DEVICE_DAYS, Entry, Issued, Kind, SERVER_DAYS, record};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Issues the certificates of an MQTT broker and of its devices.
#[derive(Debug, Parser)]
#[command(name = "motemq-certs", version)]
struct Arguments {
    /// Directory of the authority and of what it issues.
    #[arg(long, global = true, default_value = "pki", value_name = "DIR")]
    out: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the authority: ca.crt and ca.key.
    Init {
        /// Name of the authority, shown by certificate viewers.
        #[arg(long, default_value = "MoteMQ CA")]
        name: String,
    },
    /// Issue the broker's certificate: server.crt and server.key.
    Server {
        /// DNS names and IP addresses under which clients reach the broker.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Validity in days.
        #[arg(long, default_value_t = SERVER_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_524))]
        days: u32,
    },
    /// Issue a device's certificate: devices/ID.crt and devices/ID.key.
    Device {
        /// Identity of the device: its common name and client id.
        id: String,
        /// Validity in days.
        #[arg(long, default_value_t = DEVICE_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_524))]
        days: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Command::Init { name } => init(&arguments.out, name),
        Command::Server { names, days } => server(&arguments.out, names, *days),
        Command::Device { id, days } => device(&arguments.out, id, *days),
    };
    match done {
        Ok(text) => {
            // A reader that went away is no reason to fail: the files are written.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "motemq-certs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn init(dir: &Path, name: &str) -> Result<String, CertsError> {
    let authority = Authority::create(dir, name)?;
    let out = match dir.to_str() {
        Some("pki") => String::new(),
        _ => format!(" --out {}", dir.display()),
    };
    Ok(format!(
        "authority    {name}\n\
         certificate  {}\n\
         private key  {}   keep it secret, back it up\n\
         SHA-256      {}\n\
         next         motemq-certs{out} server localhost 127.0.0.1\n\
         \x20            motemq-certs{out} device meter-000001\n",
        authority.certificate_path().display(),
        dir.join("ca.key").display(),
        authority.fingerprint_sha256(),
    ))
}

fn server(dir: &Path, names: &[String], days: u32) -> Result<String, CertsError> {
    let issued = Authority::open(dir)?.issue_server_for(names, days)?;
    let id = names.first().map_or("", String::as_str);
    keep(dir, &dir.join("server"), id, Kind::Server, &issued)
}

fn device(dir: &Path, id: &str, days: u32) -> Result<String, CertsError> {
    let issued = Authority::open(dir)?.issue_device_for(id, days)?;
    let stem = dir.join("devices").join(id);
    keep(dir, &stem, id, Kind::Device, &issued)
}

/// Writes the files `stem.crt` and `stem.key` and the inventory; returns what to tell the user.
fn keep(
    dir: &Path,
    stem: &Path,
    id: &str,
    kind: Kind,
    issued: &Issued,
) -> Result<String, CertsError> {
    let certificate = with_suffix(stem, ".crt");
    let private_key = with_suffix(stem, ".key");
    issued.write(&certificate, &private_key)?;
    record(dir, &Entry::issued(id, kind, issued))?;
    Ok(format!(
        "certificate  {}\n\
         private key  {}\n\
         serial       {}\n\
         SHA-256      {}\n",
        certificate.display(),
        private_key.display(),
        issued.serial_hex,
        issued.fingerprint_sha256,
    ))
}

/// `stem` may contain dots, which `Path::with_extension` would cut off.
fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
