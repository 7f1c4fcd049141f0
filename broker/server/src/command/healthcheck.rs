//! `motemq healthcheck`: whether the broker of this configuration gives acknowledgements, for the HEALTHCHECK of a container.
//!
//! Asks `/readyz` where the broker can be asked, without a token: at `--url`, else the admin socket, else the HTTP port, else the port for
//! metrics. The first that answers decides. Exit codes: 0 ready, 1 not ready or not there.

use super::{AskArgs, authority, say};
use motemq::api::{Client, ClientError, Door};
use motemq::config::Config;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HealthcheckArgs {
    /// How long the broker may take to answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// One JSON object: {"ready", "at", "message"}.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Example:
  HEALTHCHECK CMD [\"motemq\", \"healthcheck\"]";

/// What came of asking.
pub(crate) struct Health {
    pub(crate) is_ready: bool,
    /// Who answered; `None` for nobody.
    pub(crate) at: Option<String>,
    /// In the broker's words, or why it could not be asked.
    pub(crate) message: String,
}

pub(crate) fn run(args: &HealthcheckArgs, config: &Config, ask: &AskArgs) -> ExitCode {
    let doors = match &ask.url {
        None => doors(config),
        Some(url) => match authority(url) {
            Ok(authority) => vec![http(authority)],
            Err(error) => return crate::fail(&error),
        },
    };
    let health = health(doors, Duration::from_secs(args.timeout));
    if args.json {
        say(serde_json::json!({
            "ready": health.is_ready,
            "at": health.at,
            "message": health.message,
        }));
    } else if health.is_ready {
        say(&health.message);
    } else {
        eprintln!("motemq: {}", health.message);
    }
    match health.is_ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Asks at each door until somebody answers.
pub(crate) fn health(doors: Vec<Door>, time: Duration) -> Health {
    let mut refusals = Vec::new();
    for door in doors {
        let at = door.to_string();
        match Client::new(door).and_then(|client| client.probe("/readyz", time)) {
            Ok((status, text)) => return answered(at, status, text.trim()),
            Err(error @ ClientError::Silent(..)) => {
                return Health {
                    is_ready: false,
                    at: Some(at),
                    message: error.to_string(),
                };
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    let message = match refusals.is_empty() {
        true => "there is no way to ask: set admin.socket or http.bind, or say --url".to_owned(),
        false => format!("{}; start it with motemq run", refusals.join("; ")),
    };
    Health {
        is_ready: false,
        at: None,
        message,
    }
}

fn answered(at: String, status: u16, text: &str) -> Health {
    let is_ready = (200..300).contains(&status);
    let message = match (is_ready, status) {
        (true, _) => "ready".to_owned(),
        (false, 503) => format!("not ready: {text}"),
        (false, _) => format!("what answers at {at} is no MoteMQ: status {status}"),
    };
    Health {
        is_ready,
        at: Some(at),
        message,
    }
}

/// Where the broker of this configuration can be asked.
pub(crate) fn doors(config: &Config) -> Vec<Door> {
    let socket = config.admin_socket().map(Door::Socket);
    let ports = [config.http.bind, config.http.metrics_bind];
    let ports = ports.into_iter().flatten().filter(|bind| bind.port() != 0);
    let ports = ports.map(|bind| http(reachable(bind).to_string()));
    socket.into_iter().chain(ports).collect()
}

/// Where who listens at `bind` is reached from this machine.
pub(crate) fn reachable(bind: SocketAddr) -> SocketAddr {
    let address = match bind.ip() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, bind.port())
}

fn http(authority: String) -> Door {
    let token = String::new();
    Door::Http { authority, token }
}
