//! `motemq ban` and `motemq reload`: what an operator asks the running broker for.
//!
//! Exit codes: 0 done, 1 could not be done (nothing has changed). Results go to standard output, reasons to standard error.

use super::{AskArgs, broker, refused, say};
use clap::{Subcommand, ValueEnum};
use motemq::api::{self, BanItem, BanOrder, Page, ReloadReport, segment};
use motemq::clock;
use motemq::config::Config;
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
    Ls {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Copy, Clone, ValueEnum)]
pub(crate) enum Kind {
    Address,
    Client,
    User,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Client => "client",
            Self::User => "user",
        }
    }
}

impl From<Kind> for api::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Address => Self::Address,
            Kind::Client => Self::Client,
            Kind::User => Self::User,
        }
    }
}

pub(crate) fn ban(command: BanCommand, config: &Config, args: &AskArgs) -> ExitCode {
    let broker = match broker(config, args) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let done = match command {
        BanCommand::Ls { json } => broker.get("/bans").map(|page| show(&page, json)),
        BanCommand::Rm { kind, value } => {
            broker.delete(&format!("/bans/{}/{}", kind.name(), segment(&value)))
        }
        BanCommand::Add {
            kind,
            value,
            for_s,
            reason,
        } => {
            let kind = kind.into();
            let order = BanOrder {
                kind,
                value,
                for_s,
                reason,
            };
            broker.post("/bans", &order)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

fn show(page: &Page<BanItem>, json: bool) {
    if json {
        return say(serde_json::to_string(&page.items).unwrap_or_default());
    }
    let now_ms = clock::now().as_ms();
    for ban in &page.items {
        let by = if ban.is_automatic { " (by itself)" } else { "" };
        let left = ban.until_ms.map_or_else(
            || "until ended".to_owned(),
            |until_ms| format!("{} s left", until_ms.saturating_sub(now_ms) / 1000),
        );
        let what = match (ban.kind, &ban.address) {
            (api::Kind::Address, _) => format!("address {}", ban.value),
            (api::Kind::Client, _) => format!("client {:?}", ban.value),
            (_, None) => format!("user {:?}", ban.value),
            (_, Some(address)) => format!("user {:?} from {address}", ban.value),
        };
        say(format_args!("{what}\t{left}\t{}{by}", ban.reason));
    }
}

pub(crate) fn reload(config: &Config, args: &AskArgs) -> ExitCode {
    let broker = match broker(config, args) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    match broker.post::<ReloadReport>("/reload", &()) {
        Ok(ReloadReport { changed, waiting }) => {
            changed.iter().for_each(say);
            if !waiting.is_empty() {
                say(format_args!(
                    "changed, but needs a restart: {}",
                    waiting.join(", ")
                ));
            }
            say("the configuration and its files were reloaded");
            ExitCode::SUCCESS
        }
        Err(error) => refused(&error),
    }
}

/// A time such as `10m`, in seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
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
