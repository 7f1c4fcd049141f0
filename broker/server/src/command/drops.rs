//! `motemq drops`: where did my message go.
//!
//! Exit codes: 0 answered (also when nothing was lost), 1 the broker could not be asked. Results go to standard output, reasons to standard
//! error.

use super::{AskArgs, ago, broker, clean, refused, say};
use clap::Args;
use motemq::api::{Client, ClientError, with_params};
use motemq::clock;
use motemq::config::Config;
use motemq::events::{EventItem, EventPage, EventQuery, meaning};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct DropsArgs {
    /// Messages for, or from, these clients: `*` is any text, `?` any character.
    #[arg(long, value_name = "GLOB")]
    client: Option<String>,
    /// Messages with a topic that this filter matches.
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// Messages that were lost for this reason, such as queue_full.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Not longer ago: 90s, 10m, 12h or 7d.
    #[arg(long, value_name = "TIME", value_parser = super::admin::seconds)]
    since: Option<u64>,
    /// At most so many events, the latest.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DropsArgs, config: &Config, ask: &AskArgs) -> ExitCode {
    let broker = match broker(config, ask) {
        Ok(broker) => broker,
        Err(error) => return crate::fail(&error),
    };
    let since = args.since.map(|seconds| {
        clock::now()
            .as_ms()
            .saturating_sub(seconds.saturating_mul(1000))
    });
    let query = EventQuery {
        client: args.client.clone(),
        topic: args.topic.clone(),
        kind: Some("dropped,suppressed".to_owned()),
        reason: args.reason.clone(),
        since_ms: since,
        ..EventQuery::default()
    };
    let events = match fetch(&broker, query, args.limit) {
        Ok(events) => events,
        Err(error) => return refused(&error),
    };
    let text = match args.json {
        true => events
            .iter()
            .filter_map(|event| serde_json::to_string(event).ok())
            .fold(String::new(), |text, line| text + &line + "\n"),
        false => told(&events, clock::now().as_ms()),
    };
    say(text.trim_end());
    ExitCode::SUCCESS
}

fn fetch(
    broker: &Client,
    mut query: EventQuery,
    limit: usize,
) -> Result<Vec<EventItem>, ClientError> {
    let mut events = Vec::new();
    while events.len() < limit {
        query.limit = Some((limit - events.len()).min(PAGE));
        let EventPage { items, next } = broker.get(&with_params("/events", &query))?;
        events.extend(items);
        query.after = next;
        if query.after.is_none() {
            break;
        }
    }
    Ok(events)
}

/// The events in words, and what would change them.
fn told(events: &[EventItem], now_ms: u64) -> String {
    if events.is_empty() {
        return "nothing of that kind was lost, as far as is kept (history.bytes_max)\n".to_owned();
    }
    let mut text = String::new();
    for event in events {
        let ago = ago(now_ms.saturating_sub(event.at_ms));
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{ago:>8} ago  {:<15}  {}",
            event.reason,
            sentence(event)
        );
    }
    let reasons: BTreeSet<_> = events.iter().map(|event| &*event.reason).collect();
    text.push('\n');
    for reason in reasons {
        if let Some(meaning) = meaning(reason) {
            let _ = writeln!(
                text,
                "{reason}: {}. To change: {}.",
                meaning.what, meaning.key
            );
        }
    }
    text
}

fn sentence(event: &EventItem) -> String {
    let mut text = match (event.kind.as_str(), event.count) {
        ("suppressed", count) if event.client_id.is_empty() => {
            return format!("{count} more, of many clients, are not kept one by one");
        }
        ("suppressed", count) => {
            let client = clean(&event.client_id);
            return format!("{count} more at {client} in the same second are not kept one by one");
        }
        (_, 1) => "a message".to_owned(),
        (_, count) => format!("{count} messages"),
    };
    if let Some(topic) = &event.topic {
        let _ = write!(text, " to {}", clean(topic));
    }
    if let Some(qos) = event.qos {
        let _ = write!(text, " (QoS {qos})");
    }
    match &event.publisher {
        Some(publisher) if *publisher == event.client_id => {
            let _ = write!(text, " of {} went to nobody", clean(publisher));
        }
        Some(publisher) => {
            let (from, to) = (clean(publisher), clean(&event.client_id));
            let _ = write!(text, " from {from} did not reach {to}");
        }
        None => {
            let _ = write!(text, " did not reach {}", clean(&event.client_id));
        }
    }
    if let Some(detail) = &event.detail {
        let _ = write!(text, ": {}", clean(detail));
    }
    text
}

/// Events that are asked for at a time.
const PAGE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventItem {
        EventItem {
            at_ms: 1_000,
            kind: "dropped".to_owned(),
            client_id: "meter-17".to_owned(),
            reason: "queue_full".to_owned(),
            topic: Some("home/power".to_owned()),
            qos: Some(1),
            publisher: Some("bridge".to_owned()),
            peer: None,
            detail: Some("queue_messages_max".to_owned()),
            count: 1,
        }
    }

    #[test]
    fn it_says_which_message_at_which_client_why_and_which_key() {
        let text = told(&[event()], 126_000);
        assert_eq!(
            text,
            "2 m 05 s ago  queue_full       a message to home/power (QoS 1) from bridge did not reach meter-17: queue_messages_max\n\
             \n\
             queue_full: the queue of the client was full. To change: limits.queue_messages_max, limits.queue_bytes_max, limits.queue_full.\n"
        );
    }

    #[test]
    fn what_is_its_publishers_own_went_to_nobody() {
        let event = EventItem {
            client_id: "bridge".to_owned(),
            reason: "no_subscriber".to_owned(),
            detail: None,
            count: 60,
            ..event()
        };
        let expected = "60 messages to home/power (QoS 1) of bridge went to nobody";
        assert_eq!(sentence(&event), expected);
    }

    #[test]
    fn nothing_that_a_client_says_reaches_the_terminal() {
        let event = EventItem {
            client_id: "\u{1b}[2J".to_owned(),
            ..event()
        };
        assert!(!sentence(&event).contains('\u{1b}'));
    }
}
