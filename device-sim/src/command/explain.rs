//! `motemq-sim explain`: what a schedule costs on a link, on one screen.

use crate::SimError;
use crate::explain::{Explanation, Handshake, Month, Question, Security, Step, explain};
use crate::link::{self, Preset, bits_per_s_text, share_text, time_range_text, time_text};
use crate::text::duration;
use clap::{Args, ValueEnum};
use std::sync::Arc;
use std::time::Duration;

#[derive(Args, Debug)]
pub(super) struct ExplainArguments {
    /// The link: see `motemq-sim links`, or FILE.toml#NAME.
    #[arg(long, value_name = "LINK", value_parser = link::find)]
    link: Arc<Preset>,
    /// Time between two readings.
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = every)]
    every: Duration,
    /// Bytes of a reading.
    #[arg(long, default_value_t = 60, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    payload: u32,
    /// TLS version.
    #[arg(long, default_value = "1.3")]
    tls: TlsArgument,
    /// MQTT's keep alive.
    #[arg(long, default_value = "20m", value_name = "TIME", value_parser = keep_alive)]
    keep_alive: u16,
    /// MQTT version.
    #[arg(long, default_value = "5")]
    version: VersionArgument,
    /// Where the readings go.
    #[arg(long, default_value = "fleet/site-01/meter-000017/energy")]
    topic: String,
    /// Who sends them.
    #[arg(long, default_value = "meter-000017", value_name = "ID")]
    client_id: String,
    /// Print JSON instead.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TlsArgument {
    /// TLS 1.3.
    #[value(name = "1.3")]
    Tls13,
    /// TLS 1.2.
    #[value(name = "1.2")]
    Tls12,
    /// Plain TCP.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VersionArgument {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1", alias = "4")]
    Mqtt311,
    /// MQTT 5.
    #[value(name = "5")]
    Mqtt5,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = duration(text)?;
    if every < Duration::from_secs(1) || every > Duration::from_secs(31 * 86_400) {
        return Err("write 1s to 31d".to_owned());
    }
    Ok(every)
}

fn keep_alive(text: &str) -> Result<u16, String> {
    u16::try_from(duration(text)?.as_secs()).map_err(|_| "write at most 65535s".to_owned())
}

/// What the command prints.
pub(super) fn explain_link(arguments: ExplainArguments) -> Result<String, SimError> {
    let question = Question {
        every_s: arguments.every.as_secs_f64(),
        payload_bytes: arguments.payload as usize,
        tls: match arguments.tls {
            TlsArgument::Tls13 => Security::Tls13,
            TlsArgument::Tls12 => Security::Tls12,
            TlsArgument::None => Security::None,
        },
        keep_alive_s: arguments.keep_alive,
        is_mqtt_5: matches!(arguments.version, VersionArgument::Mqtt5),
        topic: arguments.topic,
        client_id: arguments.client_id,
    };
    let explanation = explain(&arguments.link, question)?;
    if !arguments.json {
        return Ok(text(&arguments.link, &explanation));
    }
    let json = serde_json::to_string_pretty(&explanation)
        .map_err(|_| SimError::Internal("the explanation is no JSON"))?;
    Ok(json + "\n")
}

fn text(link: &Preset, explanation: &Explanation) -> String {
    let question = &explanation.question;
    let tls = match question.tls {
        Security::None => "no TLS",
        Security::Tls12 => "mutual TLS 1.2",
        Security::Tls13 => "mutual TLS 1.3",
    };
    let version = if question.is_mqtt_5 { "5" } else { "3.1.1" };
    let mut text = format!(
        "{}: {} down, {} up, round trip {}; MQTT {version}, {tls}\n\n",
        link.name,
        bits_per_s_text(link.down_bits_per_s),
        bits_per_s_text(link.up_bits_per_s),
        time_text(link.round_trip),
    );
    text += &format!(
        "{:<32}{:>18}{:>22}{:>12}\n{:<32}{:>9}{:>9}{:>11}{:>11}\n",
        "", "TLS and MQTT, bytes", "on the link, bytes", "seconds", "", "up", "down", "up", "down"
    );
    for step in &explanation.steps {
        text += &step_line(step);
    }
    text += &format!(
        "\nMB per device and 30 days: {} readings, one every {}, {} bytes to {}\n{:<32}",
        thousands(explanation.readings.into()),
        time_text(Duration::from_secs_f64(question.every_s)),
        question.payload_bytes,
        question.topic,
        ""
    );
    for column in ["QoS 0", "QoS 1", "QoS 2", "QoS 1, alias"]
        .iter()
        .take(columns(explanation))
    {
        text += &format!("{column:>13}");
    }
    text.push('\n');
    for row in explanation.months.chunks(columns(explanation)) {
        text += &month_line(row, question);
    }
    text.push('\n');
    for note in notes(link, explanation) {
        text += &format!("- {note}\n");
    }
    text
}

fn columns(explanation: &Explanation) -> usize {
    if explanation.question.is_mqtt_5 { 4 } else { 3 }
}

fn step_line(step: &Step) -> String {
    format!(
        "{:<32}{:>9}{:>9}{:>11}{:>11}{:>12.3}\n",
        step.name,
        thousands(step.up_bytes as u64),
        thousands(step.down_bytes as u64),
        thousands(step.up_wire_bytes),
        thousands(step.down_wire_bytes),
        step.seconds
    )
}

fn month_line(row: &[Month], question: &Question) -> String {
    let name = match row.first().and_then(|month| month.reconnects) {
        None => "stay connected",
        Some(_) if question.tls == Security::None => "connect for each",
        Some(Handshake::Full) => "connect for each, full TLS",
        Some(Handshake::Resumed) => "connect for each, resumed TLS",
    };
    let mut line = format!("{name:<32}");
    for month in row {
        line += &format!("{:>13.3}", month.wire_bytes as f64 / 1e6);
    }
    line + "\n"
}

/// What the figures leave out.
fn notes(link: &Preset, explanation: &Explanation) -> Vec<String> {
    let question = &explanation.question;
    let mut notes = Vec::new();
    if let Some(wake_up) = link.wake_up {
        notes.push(format!(
            "after {} without traffic the radio sleeps: the next step takes {} longer",
            time_range_text(wake_up.idle_after),
            time_range_text(wake_up.delay)
        ));
    }
    if link.loss > 0.0 {
        notes.push(format!(
            "nothing is lost here; a lost segment ({}) costs {:.1} s, and its bytes again",
            share_text(link.loss),
            link.retransmission_timeout(0).as_secs_f64()
        ));
    }
    let quiet_s = match question.keep_alive_s {
        0 => question.every_s,
        keep_alive_s => question.every_s.min(keep_alive_s.into()),
    };
    if let Some(timeout) = link
        .nat_timeout
        .filter(|timeout| timeout.as_secs_f64() < quiet_s)
    {
        notes.push(format!(
            "to stay connected needs a shorter --keep-alive: the network forgets idle connections after {}",
            time_text(timeout)
        ));
    }
    if let Some(duty_cycle) = link.duty_cycle {
        let mut steps = explanation.steps.iter();
        let publish = steps.find(|step| step.name.starts_with("PUBLISH QoS 1"));
        let bits = publish.map_or(1.0, |step| step.up_wire_bytes as f64 * 8.0);
        let bits_per_s = f64::from(link.up_bits_per_s.unwrap_or(u32::MAX));
        let an_hour = 3_600.0 * duty_cycle.share / (bits / bits_per_s);
        notes.push(format!(
            "{} of the time on the air allows {an_hour:.1} readings an hour at QoS 1",
            share_text(duty_cycle.share)
        ));
    }
    if link.has_gateway {
        notes.push("connecting is the gateway's and does not cross the air; packets do, each with its TLS record".to_owned());
    } else {
        notes.push("pure TCP acknowledgements are not counted".to_owned());
    }
    notes
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::PRESETS;
    use clap::Parser;

    #[test]
    fn every_link_is_explained_on_one_screen() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            arguments: ExplainArguments,
        }
        for preset in &PRESETS {
            for tls in ["1.3", "1.2", "none"] {
                let line = ["explain", "--link", &preset.name, "--tls", tls];
                let text = explain_link(Line::parse_from(line).arguments).unwrap();
                assert!(text.lines().count() <= 30, "{text}");
                assert!(text.lines().all(|line| line.len() <= 110), "{text}");
            }
        }
        let line = [
            "explain",
            "--link",
            "nb-iot",
            "--json",
            "--version",
            "3.1.1",
        ];
        let text = explain_link(Line::parse_from(line).arguments).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["link"], "nb-iot");
        assert_eq!(json["months"].as_array().unwrap().len(), 9);
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
