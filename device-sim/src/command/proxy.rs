//! `motemq-sim proxy`: a link between any client and any broker.

use crate::link::{self, Preset};
use crate::proxy::{Ended, Proxy, ProxyPlan};
use crate::signals::Signals;
use crate::{Endpoint, SimError};
use clap::Args;
use std::io::{self, Write};
use std::sync::Arc;

#[derive(Args, Debug)]
pub(super) struct ProxyArguments {
    /// Where clients connect to.
    #[arg(long, default_value = "127.0.0.1:1884", value_name = "HOST:PORT")]
    listen: String,
    /// Where the broker is; TLS goes through as it is.
    #[arg(long, default_value = "127.0.0.1:1883", value_name = "HOST:PORT")]
    broker: Endpoint,
    /// What lies between the two: see `motemq-sim links`, or FILE.toml#NAME.
    #[arg(long, value_name = "LINK", value_parser = link::find)]
    link: Arc<Preset>,
    /// Leave out what chance does: losses, jitter and outages.
    #[arg(long)]
    no_chance: bool,
    /// Determines losses and jitter of each connection.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Connections at once; further ones wait.
    #[arg(long, default_value_t = 1_000, value_name = "NUMBER")]
    connections_max: usize,
}

/// Carries connections until an interrupt, with a line for each that is over; returns the totals.
pub(super) fn proxy(arguments: ProxyArguments) -> Result<String, SimError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|_| SimError::Internal("no runtime"))?;
    runtime.block_on(carry(arguments))
}

async fn carry(arguments: ProxyArguments) -> Result<String, SimError> {
    let mut signals =
        Signals::listen().map_err(|_| SimError::Internal("signals cannot be listened to"))?;
    let preset = match arguments.no_chance {
        true => Arc::new(arguments.link.without_chance()),
        false => arguments.link,
    };
    let broker = arguments.broker;
    let (name, target) = (
        preset.name.clone(),
        format!("{}:{}", broker.host, broker.port),
    );
    let proxy = Proxy::bind(ProxyPlan {
        listen: arguments.listen,
        broker,
        preset,
        seed: arguments.seed,
        connections_max: arguments.connections_max,
    })
    .await?;
    let address = proxy
        .address()
        .map_err(|_| SimError::Internal("the listener has no address"))?;
    // Nobody reads a closed standard error or output; the connections go on.
    let _ = writeln!(
        io::stderr(),
        "{address} -> {name} -> {target}; Ctrl-C ends it"
    );
    let mut connections = 0;
    let over = |ended: Ended| {
        connections += 1;
        let _ = writeln!(io::stdout(), "{ended}");
    };
    let total = proxy.run(signals.next(), over).await;
    Ok(format!("total of {connections} connections: {total}\n"))
}
