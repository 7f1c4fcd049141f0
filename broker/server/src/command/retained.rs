//! `motemq retained` and `motemq status`: what is kept at topics, and the broker in numbers.
//!
//! Exit codes: 0 done, 1 the broker could not be asked or did not do it, 4 nothing is retained there. `get` writes the payload and nothing
//! else.

use super::clients::{PAGE, lines};
use super::{AskArgs, Table, ago, broker, clean, refused, say};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Subcommand;
use motemq::api::{Client, ClientError, Page, RetainedItem, RetainedQuery, segment, with_params};
use motemq::clock;
use motemq::config::Config;
use serde_json::Value;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum RetainedCommand {
    /// List retained messages.
    Ls {
        /// With topics that this filter matches.
        #[arg(default_value = "#")]
        filter: String,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Write the payload of the message that is retained at a topic.
    Get {
        /// The topic.
        topic: String,
        /// The whole message, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove the message that is retained at a topic.
    Rm {
        /// The topic.
        topic: String,
    },
}

pub(crate) fn run(command: RetainedCommand, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let done = match command {
        RetainedCommand::Ls {
            filter,
            limit,
            json,
        } => list(&broker, filter, limit, json),
        RetainedCommand::Get { topic, json } => get(&broker, &topic, json),
        RetainedCommand::Rm { topic } => broker.delete(&format!("/retained/{}", segment(&topic))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refused(&error),
    }
}

fn list(broker: &Client, filter: String, limit: usize, json: bool) -> Result<(), ClientError> {
    let mut query = RetainedQuery {
        filter: Some(filter),
        ..RetainedQuery::default()
    };
    let now_ms = clock::now().as_ms();
    let mut table = Table::new(&["TOPIC", "BYTES", "QOS", "AGE", "PUBLISHER"]);
    let mut left = limit;
    while left > 0 {
        query.limit = Some(left.min(PAGE));
        let page: Page<RetainedItem> = broker.get(&with_params("/retained", &query))?;
        left = left.saturating_sub(page.items.len());
        if json {
            lines(&page.items);
        }
        for item in &page.items {
            table.row([
                clean(&item.topic),
                item.payload_bytes.to_string(),
                item.qos.to_string(),
                ago(now_ms.saturating_sub(item.received_at_ms)),
                clean(&item.publisher),
            ]);
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    if !json {
        table.show();
        if query.after.is_some() {
            eprintln!("there are more: --limit is {limit}");
        }
    }
    Ok(())
}

fn get(broker: &Client, topic: &str, json: bool) -> Result<(), ClientError> {
    let item: RetainedItem = broker.get(&format!("/retained/{}", segment(topic)))?;
    if json {
        say(serde_json::to_string_pretty(&item).unwrap_or_default());
        return Ok(());
    }
    let payload = match (item.payload, item.payload_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(text)) => BASE64.decode(text).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    // Whoever closed standard output has seen enough.
    let _ = std::io::stdout().write_all(&payload);
    Ok(())
}

pub(crate) fn status(json: bool, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let status: Value = match broker.get("/status") {
        Ok(status) => status,
        Err(error) => return refused(&error),
    };
    if json {
        say(serde_json::to_string_pretty(&status).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let mut table = Table::new(&[]);
    if let Value::Object(fields) = &status {
        for (name, value) in fields {
            table.pairs(name, value);
        }
    }
    table.show();
    ExitCode::SUCCESS
}
