//! The subcommands of `motemq` that are more than a call.

pub(crate) mod acl;
pub(crate) mod admin;
pub(crate) mod clients;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod drops;
pub(crate) mod healthcheck;
pub(crate) mod import;
pub(crate) mod man;
pub(crate) mod mqtt;
pub(crate) mod passwd;
pub(crate) mod retained;
pub(crate) mod store;
mod table;
pub(crate) mod trace;

use motemq::api::{Client, ClientError, Door};
use motemq::config::Config;
use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
pub(crate) use table::Table;

/// Which running broker a command asks.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AskArgs {
    /// Ask the broker at this HTTP port instead of the admin socket of the configuration: http://host:9883.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// The file with the token that the HTTP port asks for (data_dir/api.token of the broker).
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        requires = "url",
        env = "MOTEMQ_TOKEN_FILE"
    )]
    token_file: Option<PathBuf>,
}

/// The running broker.
pub(crate) fn broker(config: &Config, args: &AskArgs) -> Result<Client, String> {
    let door = match &args.url {
        None => Door::Socket(config.admin_socket().ok_or(
            "there is no admin socket to ask the broker at: set admin.socket, to an absolute path where there is no data_dir, or say --url",
        )?),
        Some(url) => Door::Http {
            authority: authority(url)?,
            token: token(config, args)?,
        },
    };
    Client::new(door).map_err(|error| error.to_string())
}

/// Host and port of `http://host:port`.
fn authority(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains('/') {
        return Err(format!(
            "{url} is no address of a broker: give --url http://HOST:9883 (https and paths are a proxy's: use ssh -L to reach a broker far away)"
        ));
    }
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match has_port {
        true => Ok(rest.to_owned()),
        false => Ok(format!("{rest}:9883")),
    }
}

fn token(config: &Config, args: &AskArgs) -> Result<String, String> {
    let file = args.token_file.clone().or_else(|| config.token_file());
    let file = file.ok_or("the HTTP port asks for a token: give --token-file FILE")?;
    let token = std::fs::read_to_string(&file);
    let token = token.map_err(|error| {
        format!(
            "{}: {error}; give --token-file FILE with the token of that broker (its data_dir/api.token)",
            file.display()
        )
    })?;
    Ok(token.trim().to_owned())
}

/// Says on standard output.
pub(crate) fn say(what: impl Display) {
    // Whoever closed standard output has seen enough.
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Says on standard error why it did not work; the exit code that goes with it.
pub(crate) fn refused(error: &ClientError) -> std::process::ExitCode {
    if let ClientError::Refused(body) = error {
        body.details.iter().for_each(|line| eprintln!("{line}"));
    }
    eprintln!("motemq: {error}");
    std::process::ExitCode::from(match error.code() {
        Some("not_found") => NOT_FOUND,
        Some("damaged_store") => DAMAGED,
        _ => 1,
    })
}

/// Has Ctrl-C end the process as if its work were done, for commands that run until then.
pub(crate) fn exit_on_interrupt() {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Without it Ctrl-C ends the process all the same, as a signal.
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            std::process::exit(0);
        }
    };
    let _ = std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(wait);
}

/// Without what could reach the terminal.
pub(crate) fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

/// A time that has passed.
pub(crate) fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The store or backup is damaged.
pub(crate) const DAMAGED: u8 = 3;
/// What a command is about is not there.
pub(crate) const NOT_FOUND: u8 = 4;
