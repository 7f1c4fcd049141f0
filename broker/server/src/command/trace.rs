//! `motemq trace`: the packets of clients as they come and go, one line each.
//!
//! Times are UTC, as in the broker's log. What clients say is shown without characters that would steer the terminal. Exit codes: 0 it
//! ended by itself or by Ctrl-C, 1 could not be done.

use super::admin::seconds;
use super::{AskArgs, broker, exit_on_interrupt, refused};
use clap::Args;
use motemq::api::{Client, segment};
use motemq::config::Config;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TraceArgs {
    /// Clients whose packets are shown; * is any text, ? one character.
    #[arg(long, value_name = "GLOB", required_unless_present = "topic")]
    client: Option<String>,
    /// Topics whose publishes and deliveries are shown; with --client those clients' packets without a topic are shown, too.
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// For how long: 90s, 10m, 1h.
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = seconds)]
    for_s: u64,
    /// Bytes shown of each payload, 0 to 1024.
    #[arg(long, value_name = "N", default_value_t = 64)]
    payload_bytes: u32,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  motemq trace --client 'meter-*' --for 10m
  motemq trace --topic 'fleet/+/status' --payload-bytes 256
  motemq trace --client meter-17 --json | jq 'select(.packet == \"CONNECT\")'";

pub(crate) fn run(args: &TraceArgs, config: &Config, ask: &AskArgs) -> ExitCode {
    exit_on_interrupt();
    match broker(config, ask) {
        Ok(broker) => follow(&broker, args),
        Err(error) => crate::fail(&error),
    }
}

fn follow(broker: &Client, args: &TraceArgs) -> ExitCode {
    let mut path = format!(
        "/trace?for_s={}&payload_bytes={}",
        args.for_s, args.payload_bytes
    );
    for (name, value) in [("client", &args.client), ("topic", &args.topic)] {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", segment(value));
        }
    }
    let mut is_over = false;
    let followed = broker.follow(&path, |event| {
        let Ok(Value::Object(event)) = serde_json::from_str(event) else {
            return ControlFlow::Continue(());
        };
        is_over = text(&event, "kind") == "end";
        let line = match args.json {
            true => Some(Value::Object(event).to_string()),
            false => line(&event),
        };
        let Some(line) = line else {
            return ControlFlow::Continue(());
        };
        match writeln!(std::io::stdout(), "{line}") {
            Ok(()) => ControlFlow::Continue(()),
            // Whoever closed standard output has seen enough.
            Err(_) => {
                is_over = true;
                ControlFlow::Break(())
            }
        }
    });
    match followed {
        Ok(()) if is_over => ExitCode::SUCCESS,
        Ok(()) => crate::fail(&"the broker went away before the trace was over"),
        Err(error) => refused(&error),
    }
}

/// An event as a person reads it.
fn line(event: &Map<String, Value>) -> Option<String> {
    let at_ms = event.get("at_ms").and_then(Value::as_u64).unwrap_or(0);
    let client = match text(event, "client_id") {
        "" => "-".to_owned(),
        client => clean(client),
    };
    let what = match text(event, "kind") {
        "packet" => {
            let arrow = match text(event, "direction") {
                "in" => "<-",
                _ => "->",
            };
            format!("{arrow} {client} {}", packet(event))
        }
        "refused" => format!(
            "-- {client} refused PUBLISH to {}: {} ({})",
            clean(text(event, "topic")),
            text(event, "reason"),
            clean(text(event, "detail")),
        ),
        "closed" => match text(event, "detail") {
            "" => format!("-- {client} closed: {}", text(event, "reason")),
            detail => format!(
                "-- {client} closed: {} ({})",
                text(event, "reason"),
                clean(detail)
            ),
        },
        "lost" => format!("-- {} packets not shown", grouped(number(event, "packets"))),
        "end" => format!(
            "-- end: {} packets shown, {} not shown",
            grouped(number(event, "packets")),
            grouped(number(event, "packets_lost")),
        ),
        _ => return None,
    };
    Some(format!("{} {what}", time_of_day(at_ms)))
}

fn packet(event: &Map<String, Value>) -> String {
    let name = text(event, "packet");
    let mut line = match name {
        "PUBLISH" => format!("PUBLISH {}", message(event)),
        _ => name.to_owned(),
    };
    if let Some(id) = event.get("packet_id").filter(|_| name != "PUBLISH") {
        let _ = write!(line, " id={id}");
    }
    if let Some(reason) = event.get("reason").and_then(Value::as_str) {
        let _ = match number(event, "reason_code") {
            code @ 0x80.. => write!(line, " {reason} (0x{code:02x})"),
            _ => write!(line, " {reason}"),
        };
    }
    for (name, value) in event {
        let is_shown = name != "version" || text(event, "packet") == "CONNECT";
        if is_shown && !SHOWN_ELSEWHERE.contains(&name.as_str()) {
            let _ = match (name.as_str(), value) {
                ("will", Value::Object(will)) => write!(line, " will=({})", message(will)),
                _ => write!(line, " {name}={}", shown(value)),
            };
        }
    }
    if let Some(Value::Object(properties)) = event.get("properties") {
        let _ = write!(line, " [{}]", fields(properties));
    }
    line
}

/// A PUBLISH, or a will.
fn message(of: &Map<String, Value>) -> String {
    let mut line = format!("qos{}", number(of, "qos"));
    for flag in ["dup", "retain"] {
        if of.get(flag) == Some(&Value::Bool(true)) {
            let _ = write!(line, " {flag}");
        }
    }
    if let Some(id) = of.get("packet_id") {
        let _ = write!(line, " id={id}");
    }
    let topic = clean(text(of, "topic"));
    let _ = write!(line, " {topic} {} B", number(of, "payload_bytes"));
    if let Some(payload) = of.get("payload").and_then(Value::as_str) {
        let _ = write!(line, " {}", clean(payload));
    } else if let Some(payload) = of.get("payload_hex").and_then(Value::as_str) {
        let _ = write!(line, " 0x{payload}");
    }
    if of.contains_key("payload_is_cut") {
        line.push('…');
    }
    line
}

fn fields(fields: &Map<String, Value>) -> String {
    let field = |(name, value): (&String, &Value)| format!("{name}={}", shown(value));
    fields.iter().map(field).collect::<Vec<_>>().join(" ")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(object) => match object.get("filter") {
            Some(Value::String(filter)) => {
                format!("{} qos{}", clean(filter), number(object, "qos"))
            }
            _ => format!("({})", fields(object)),
        },
        other => other.to_string(),
    }
}

fn text<'a>(of: &'a Map<String, Value>, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(of: &Map<String, Value>, name: &str) -> u64 {
    of.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// Without characters that nobody sees or that steer a terminal.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => clean.push(character),
            _ => clean.extend(character.escape_debug()),
        }
    }
    clean
}

/// The time of day in UTC.
fn time_of_day(at_ms: u64) -> String {
    let (s, ms) = (at_ms / 1_000, at_ms % 1_000);
    let (h, m, s) = (s / 3_600 % 24, s / 60 % 60, s % 60);
    format!("{h:02}:{m:02}:{s:02}.{ms:03}")
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// What a line has in a place of its own, or not at all.
const SHOWN_ELSEWHERE: [&str; 18] = [
    "kind",
    "at_ms",
    "client_id",
    "connection",
    "direction",
    "packet",
    "packet_id",
    "qos",
    "dup",
    "retain",
    "topic",
    "payload_bytes",
    "payload",
    "payload_hex",
    "payload_is_cut",
    "reason_code",
    "reason",
    "properties",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: &str, expected: &str) {
        let event = serde_json::from_str(event).unwrap();
        assert_eq!(line(&event).unwrap_or_default(), expected);
    }

    #[test]
    fn a_publish_is_one_line() {
        let event = r#"{"kind":"packet","at_ms":1763899445123,"client_id":"meter-17","connection":4,"version":5,"direction":"in",
            "packet":"PUBLISH","packet_id":5,"qos":1,"dup":false,"retain":true,"topic":"fleet/17/t","payload_bytes":23,
            "payload":"{\"t\":21.5}","payload_is_cut":true,"properties":{"content_type":"text/plain","user_properties":[["a","b"]]}}"#;
        let expected = "12:04:05.123 <- meter-17 PUBLISH qos1 retain id=5 fleet/17/t 23 B {\"t\":21.5}… \
            [content_type=text/plain user_properties=[[a, b]]]";
        check(event, expected);
    }

    #[test]
    fn what_clients_say_does_not_steer_the_terminal() {
        let event = r#"{"kind":"packet","at_ms":0,"client_id":"a\u001b[2J","direction":"out","packet":"PUBLISH","qos":0,
            "topic":"t\u202e","payload_bytes":2,"payload":"\u0007\n"}"#;
        check(
            event,
            "00:00:00.000 -> a\\u{1b}[2J PUBLISH qos0 t\\u{202e} 2 B \\u{7}\\n",
        );
    }

    #[test]
    fn the_other_packets_say_what_is_in_them() {
        check(
            r#"{"kind":"packet","at_ms":0,"client_id":"a","direction":"in","packet":"CONNECT","version":4,"clean_start":true,
                "keep_alive_s":60,"user":"ada","has_password":true,
                "will":{"topic":"w","qos":1,"retain":true,"payload_bytes":4,"payload":"gone"}}"#,
            "00:00:00.000 <- a CONNECT clean_start=true has_password=true keep_alive_s=60 user=ada version=4 \
                will=(qos1 retain w 4 B gone)",
        );
        check(
            r#"{"kind":"packet","at_ms":0,"client_id":"","direction":"out","packet":"CONNACK","version":4,"session_present":false,
                "reason_code":135,"reason":"not authorized"}"#,
            "00:00:00.000 -> - CONNACK not authorized (0x87) session_present=false",
        );
        check(
            r#"{"kind":"packet","at_ms":0,"client_id":"a","direction":"in","packet":"SUBSCRIBE","version":4,"packet_id":1,
                "filters":[{"filter":"a/#","qos":1}]}"#,
            "00:00:00.000 <- a SUBSCRIBE id=1 filters=[a/# qos1]",
        );
        check(
            r#"{"kind":"refused","at_ms":0,"client_id":"a","topic":"t","reason":"not authorized","detail":"no rule allows it"}"#,
            "00:00:00.000 -- a refused PUBLISH to t: not authorized (no rule allows it)",
        );
        check(
            r#"{"kind":"lost","at_ms":0,"packets":1234567}"#,
            "00:00:00.000 -- 1,234,567 packets not shown",
        );
    }
}
