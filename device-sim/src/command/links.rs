//! `motemq-sim links`: the link presets and where their figures come from.

use crate::link::{
    self, Duplex, PRESETS, Preset, bits_per_s_text, share_text, time_range_text, time_text,
};
use clap::Args;
use std::sync::Arc;

/// Lines are no longer than that.
const COLUMNS: usize = 100;

#[derive(Args, Debug)]
pub(super) struct LinksArguments {
    /// Only this one: a preset, or FILE.toml#NAME for a link of your own.
    #[arg(value_name = "LINK", value_parser = link::find)]
    link: Option<Arc<Preset>>,
    /// Print LINK as TOML, to start a link of your own from.
    #[arg(long, requires = "link")]
    toml: bool,
}

/// What the command prints.
pub(super) fn links(arguments: &LinksArguments) -> String {
    match &arguments.link {
        Some(link) if arguments.toml => link.to_toml(),
        Some(link) => table(&[link]),
        None => table(&PRESETS.each_ref()),
    }
}

/// A line for each link, then the sources.
fn table(links: &[&Preset]) -> String {
    let mut text = format!(
        "{:<16}{:>11}{:>12}{:>16}{:>7}{:>6}  also\n",
        "link", "down", "up", "round trip", "loss", "MTU"
    );
    for link in links {
        let round_trip = format!(
            "{} +- {} ms",
            link.round_trip.as_millis(),
            link.round_trip_jitter.as_millis()
        );
        let line = format!(
            "{:<16}{:>11}{:>12}{round_trip:>16}{:>7}{:>6}  ",
            link.name,
            bits_per_s_text(link.down_bits_per_s),
            bits_per_s_text(link.up_bits_per_s),
            share_text(link.loss),
            link.mtu_bytes,
        );
        text += &wrapped(&line, &also(link), line.chars().count());
    }
    text += "\nWhere the figures come from:\n";
    for link in links {
        text += &wrapped(&format!("{:<16}", link.name), &link.sources, 16);
    }
    text
}

/// What the columns do not say.
fn also(link: &Preset) -> String {
    let mut also = Vec::new();
    if link.duplex == Duplex::Half {
        also.push("half duplex".to_owned());
    }
    if let Some(wake_up) = link.wake_up {
        also.push(format!("wakes in {}", time_range_text(wake_up.delay)));
    }
    if let Some(frames) = link.frames {
        also.push(format!("{}-byte frames", frames.payload_bytes));
    }
    if let Some(duty_cycle) = link.duty_cycle {
        also.push(format!("{} duty", share_text(duty_cycle.share)));
    }
    if link.has_gateway {
        also.push("gateway".to_owned());
    }
    if let Some(outages) = link.outages {
        also.push(format!("outages {}", time_range_text(outages.lasts)));
    }
    if let Some(timeout) = link.nat_timeout {
        also.push(format!("NAT {}", time_text(timeout)));
    }
    also.join(", ")
}

/// `start` and then `words`, in lines that are not too long; later lines begin after `indent` spaces.
fn wrapped(start: &str, words: &str, indent: usize) -> String {
    let mut text = String::new();
    let mut line = start.to_owned();
    for word in words.split_whitespace() {
        if line.len() + word.len() > COLUMNS {
            text += line.trim_end();
            text.push('\n');
            line = " ".repeat(indent);
        }
        line += word;
        line.push(' ');
    }
    text + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_preset_and_fits_a_terminal() {
        let text = table(&PRESETS.each_ref());
        for preset in &PRESETS {
            let lines = text.lines().filter(|line| line.starts_with(&*preset.name));
            assert!(lines.count() >= 2, "{}", preset.name);
        }
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }
}
