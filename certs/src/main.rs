//! The command line of the certificate authority: names in, files out.
//!
//! Exit codes: 0 done, 1 not done (the message says what to change), 2 wrong usage.

mod command;

use clap::{Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
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
    /// Create the authority: ca.crt and ca.key; with an intermediate also root.crt and root.key.
    Init(command::init::Arguments),
    /// Issue the broker's certificate: server.crt and server.key.
    Server(command::server::Arguments),
    /// Issue a device's certificate: devices/ID.crt and devices/ID.key.
    Device(command::device::Arguments),
    /// Issue the certificates of many devices; the same command again goes on where it was stopped.
    Batch(command::batch::Arguments),
    /// List what was issued.
    Ls(command::ls::Arguments),
    /// Sign a key that stays where it was made: devices/ID.crt from a certificate signing request.
    SignCsr(command::sign_csr::Arguments),
    /// Issue a certificate that devices enrol with: claims/NAME.crt and claims/NAME.key.
    Claim(command::claim::Arguments),
    /// Issue certificates that take the place of those that end.
    Renew(command::renew::Arguments),
    /// Take certificates back: enters them into ca.crl, which the broker reads.
    Revoke(command::revoke::Arguments),
    /// Say what is in a file, or what a broker shows: certificates, requests, lists, keys.
    Inspect(command::inspect::Arguments),
    /// Check certificates: chain, validity, usage, revocation, key; exit code 1 when something is not good.
    Verify(command::verify::Arguments),
    /// Write the list of revoked certificates, ca.crl, anew, or show it.
    Crl(command::crl::Arguments),
    /// Make one-time tokens, with which devices enrol.
    Token(command::token::Arguments),
    /// Answer enrolment requests: those that a broker passes on, and those over HTTPS (EST).
    Serve(command::serve::Arguments),
}

fn main() -> ExitCode {
    let Arguments { out, command } = Arguments::parse();
    let done = match &command {
        Command::Init(arguments) => command::init::run(&out, arguments),
        Command::Server(arguments) => command::server::run(&out, arguments),
        Command::Device(arguments) => command::device::run(&out, arguments),
        Command::Batch(arguments) => command::batch::run(&out, arguments),
        Command::Ls(arguments) => command::ls::run(&out, arguments),
        Command::SignCsr(arguments) => command::sign_csr::run(&out, arguments),
        Command::Claim(arguments) => command::claim::run(&out, arguments),
        Command::Renew(arguments) => command::renew::run(&out, arguments),
        Command::Revoke(arguments) => command::revoke::run(&out, arguments),
        Command::Inspect(arguments) => command::inspect::run(&out, arguments),
        Command::Verify(arguments) => command::verify::run(&out, arguments),
        Command::Crl(arguments) => command::crl::run(&out, arguments),
        Command::Token(arguments) => command::token::run(&out, arguments),
        Command::Serve(arguments) => return command::serve::run(&out, arguments),
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
