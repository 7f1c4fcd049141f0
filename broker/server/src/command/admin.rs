//! `motemq ban` and `motemq reload`: what an operator asks the running broker for.
//!
//! Exit codes: 0 done, 1 could not be done (nothing has changed). Results go to standard output, reasons to standard error.

use clap::{Subcommand, ValueEnum};
use motemq::admin::{self, Answer, Request};
use motemq::ban::Subject;
use motemq::config::Config;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum BanCommand {
    /// Ban; whoever it is about is disconnected.
    Add {
        /// What VALUE is.
        kind: Kind,
        /// An address or network (10.0.0.0/8), a client identifier, or a user name.
        value: String,
        /// For how long: 90s, 10m, 12h or 7d; without it until it is ended.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        for_s: Option<u64>,
        /// Why, for `motemq ban ls`.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// End a ban.
    Rm {
        /// What VALUE is.
        kind: Kind,
        /// As it was banned.
        value: String,
    },
    /// List the bans that hold.
    Ls,
}

#[derive(Copy, Clone, ValueEnum)]
pub(crate) enum Kind {
    Address,
    Client,
    User,
}

pub(crate) fn ban(command: BanCommand, config: &Config) -> ExitCode {
    let subject = |kind, value: String| match kind {
        Kind::Client => Ok(Subject::Client(value)),
        Kind::User => Ok(Subject::User(value)),
        Kind::Address => value
            .parse::<IpAddr>()
            .map(|ip| ip.to_canonical().into())
            .or_else(|_| value.parse())
            .map(|network: ipnet::IpNet| Subject::Address(network.trunc()))
            .map_err(|_| format!("{value} is no address and no network such as 10.0.0.0/8")),
    };
    let request = match command {
        BanCommand::Ls => Ok(Request::Bans),
        BanCommand::Rm { kind, value } => subject(kind, value).map(Request::Unban),
        BanCommand::Add {
            kind,
            value,
            for_s,
            reason,
        } => subject(kind, value).map(|subject| Request::Ban {
            subject,
            for_s,
            reason,
        }),
    };
    match request.and_then(|request| ask(config, &request)) {
        Ok(Answer::Banned) => ExitCode::SUCCESS,
        Ok(Answer::Bans(bans)) => {
            for (ban, left_s) in bans {
                let by = if ban.is_automatic { " (by itself)" } else { "" };
                let left =
                    left_s.map_or_else(|| "until ended".to_owned(), |s| format!("{s} s left"));
                say(&format!("{}\t{left}\t{}{by}", ban.subject, ban.reason));
            }
            ExitCode::SUCCESS
        }
        other => refused(other),
    }
}

pub(crate) fn reload(config: &Config) -> ExitCode {
    match ask(config, &Request::Reload) {
        Ok(Answer::Reloaded { changed, waiting }) => {
            changed.iter().for_each(|line| say(line));
            if !waiting.is_empty() {
                say(&format!(
                    "changed, but needs a restart: {}",
                    waiting.join(", ")
                ));
            }
            say("the configuration and its files were reloaded");
            ExitCode::SUCCESS
        }
        Ok(Answer::NotReloaded { mistakes }) => {
            mistakes.iter().for_each(|line| eprintln!("{line}"));
            eprintln!("motemq: nothing was reloaded: everything stays as it was");
            ExitCode::FAILURE
        }
        other => refused(other),
    }
}

fn ask(config: &Config, request: &Request) -> Result<Answer, String> {
    let socket = config.admin_socket().ok_or(
        "there is no admin socket to ask the broker at: set admin.socket, to an absolute path where there is no data_dir",
    )?;
    admin::ask(&socket, request).map_err(|error| error.to_string())
}

fn refused(answer: Result<Answer, String>) -> ExitCode {
    let why = match answer {
        Ok(Answer::Failed { message, .. }) | Err(message) => message,
        Ok(_) => "the broker is of another release".to_owned(),
    };
    eprintln!("motemq: {why}");
    ExitCode::FAILURE
}

fn say(line: &str) {
    // Whoever closed standard output has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a number with s, m, h or d, such as 10m".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|s| *s > 0)
        .ok_or_else(wrong)
}
