//! `motemq clients`, `motemq client` and `motemq subs`: who is there, what waits for them, and how to part with them.
//!
//! Exit codes: 0 done, 1 the broker could not be asked or did not do it, 4 there is no such client. Results go to standard output, reasons
//! to standard error. With `--json` each line is one JSON object; `client show` is one document.

use super::{AskArgs, Table, ago, broker, clean, refused, say};
use clap::{Args, Subcommand, ValueEnum};
use motemq::api::{
    Client, ClientError, ClientItem, ClientQuery, ClientSort, ClientState, Page, SubscriptionItem,
    SubscriptionQuery, segment, with_params,
};
use motemq::clock;
use motemq::config::Config;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct ClientsArgs {
    /// Client identifiers: `*` is any text, `?` any character.
    #[arg(value_name = "GLOB")]
    id: Option<String>,
    /// Of this user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// At this listener.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only these.
    #[arg(long)]
    state: Option<State>,
    /// The order: by identifier, or the most first.
    #[arg(long, default_value = "id")]
    sort: Sort,
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Copy, Clone, ValueEnum)]
enum State {
    Connected,
    Offline,
}

#[derive(Copy, Clone, ValueEnum)]
enum Sort {
    Id,
    QueueMessages,
    QueueBytes,
    Inflight,
    Subscriptions,
}

#[derive(Subcommand)]
pub(crate) enum ClientCommand {
    /// Show all that is known of a client.
    Show {
        /// Its identifier.
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// End its connection; it may come back.
    Kick {
        /// Its identifier.
        id: String,
    },
    /// End its session, with its subscriptions and the messages that wait for it.
    Purge {
        /// Its identifier.
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct SubsArgs {
    /// Of these clients: `*` is any text, `?` any character.
    #[arg(long, value_name = "GLOB")]
    client: Option<String>,
    /// With exactly this filter.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn list(args: &ClientsArgs, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let mut query = ClientQuery {
        id: args.id.clone(),
        user: args.user.clone(),
        listener: args.listener.clone(),
        state: args.state.map(|state| match state {
            State::Connected => ClientState::Connected,
            State::Offline => ClientState::Offline,
        }),
        sort: Some(match args.sort {
            Sort::Id => ClientSort::Id,
            Sort::QueueMessages => ClientSort::QueueMessages,
            Sort::QueueBytes => ClientSort::QueueBytes,
            Sort::Inflight => ClientSort::Inflight,
            Sort::Subscriptions => ClientSort::Subscriptions,
        }),
        ..ClientQuery::default()
    };
    let mut clients = Vec::new();
    while clients.len() < args.limit {
        query.limit = Some((args.limit - clients.len()).min(PAGE));
        let page: Page<ClientItem> = match broker.get(&with_params("/clients", &query)) {
            Ok(page) => page,
            Err(error) => return refused(&error),
        };
        clients.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    match args.json {
        true => lines(&clients),
        false => table(&clients),
    }
    if query.after.is_some() && !args.json {
        eprintln!("there are more: --limit is {}", args.limit);
    }
    ExitCode::SUCCESS
}

fn table(clients: &[ClientItem]) {
    let now_ms = clock::now().as_ms();
    let mut table = Table::new(&[
        "CLIENT",
        "USER",
        "STATE",
        "LISTENER",
        "PEER",
        "MQTT",
        "FOR",
        "SUBS",
        "QUEUED",
        "IN FLIGHT",
    ]);
    for client in clients {
        let since = match client.state {
            ClientState::Connected => client.connected_at_ms,
            ClientState::Offline => client.disconnected_at_ms,
        };
        table.row([
            clean(&client.client_id),
            clean(client.user.as_deref().unwrap_or("-")),
            match client.state {
                ClientState::Connected => "connected".to_owned(),
                ClientState::Offline => "offline".to_owned(),
            },
            client.listener.clone().unwrap_or_else(|| "-".to_owned()),
            client.peer.clone().unwrap_or_else(|| "-".to_owned()),
            version(client.version).to_owned(),
            since.map_or_else(|| "-".to_owned(), |at| ago(now_ms.saturating_sub(at))),
            client.subscriptions.to_string(),
            client.queue_messages.to_string(),
            client.inflight.to_string(),
        ]);
    }
    table.show();
}

fn version(number: Option<u8>) -> &'static str {
    match number {
        Some(3) => "3.1",
        Some(4) => "3.1.1",
        Some(5) => "5",
        _ => "-",
    }
}

pub(crate) fn client(command: ClientCommand, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let done = match command {
        ClientCommand::Show { id, json } => show(&broker, &id, json),
        ClientCommand::Kick { id } => {
            broker.delete(&format!("/clients/{}/connection", segment(&id)))
        }
        ClientCommand::Purge { id } => broker.delete(&format!("/clients/{}", segment(&id))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

fn show(broker: &Client, id: &str, json: bool) -> Result<(), ClientError> {
    let shown: Value = broker.get(&format!("/clients/{}", segment(id)))?;
    if json {
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return Ok(());
    }
    let mut table = Table::new(&[]);
    if let Value::Object(fields) = &shown {
        for (name, value) in fields {
            table.pairs(name, value);
        }
    }
    table.show();
    Ok(())
}

pub(crate) fn subs(args: &SubsArgs, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let mut query = SubscriptionQuery {
        client: args.client.clone(),
        filter: args.filter.clone(),
        limit: Some(PAGE),
        after: None,
    };
    let mut table = Table::new(&["CLIENT", "FILTER", "QOS"]);
    loop {
        let page: Page<SubscriptionItem> = match broker.get(&with_params("/subscriptions", &query))
        {
            Ok(page) => page,
            Err(error) => return refused(&error),
        };
        if args.json {
            lines(&page.items);
        }
        for item in &page.items {
            table.row([
                clean(item.client_id.as_deref().unwrap_or("-")),
                clean(&item.filter),
                item.qos
                    .map_or_else(|| "-".to_owned(), |qos| qos.to_string()),
            ]);
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if !args.json {
        table.show();
    }
    ExitCode::SUCCESS
}

/// One JSON object a line.
pub(super) fn lines<T: serde::Serialize>(items: &[T]) {
    for item in items {
        say(serde_json::to_string(item).unwrap_or_default());
    }
}

/// Items asked for at a time.
pub(super) const PAGE: usize = 500;
