//! `motemq doctor`: what would go wrong with this configuration on this machine, and what to change.
//!
//! Looks and measures; changes nothing but for a file in `data_dir` that is written, synced and removed. Exit codes: 0 nothing has failed
//! (there may be warnings), 1 something has, a configuration with mistakes among it.

mod access;
mod certificates;
mod disk;
mod machine;
mod ports;

use super::healthcheck::{doors, health};
use super::say;
use crate::{ConfigArgs, sources};
use motemq::config::Config;
use motemq::{config, server};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// One JSON document: {"verdict", "findings": [{"check", "verdict", "message", "hint"}]}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// How bad it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    /// The colour of a terminal.
    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Warning => 33,
            Self::Failed => 31,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    message: String,
    /// What to change.
    hint: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            message: message.into(),
            hint: None,
        }
    }

    fn warning(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            hint: Some(hint.into()),
            ..Self::ok(check, message)
        }
    }

    fn failed(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failed,
            ..Self::warning(check, message, hint)
        }
    }
}

#[derive(Serialize)]
struct Report {
    verdict: Verdict,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let findings = examine(&args.config);
    let verdict = findings.iter().map(|finding| finding.verdict).max();
    let verdict = verdict.unwrap_or(Verdict::Ok);
    let report = Report { verdict, findings };
    match args.json {
        true => say(serde_json::to_string_pretty(&report).unwrap_or_default()),
        false => {
            let out = std::io::stdout();
            let is_coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            say(told(&report.findings, is_coloured));
        }
    }
    match verdict {
        Verdict::Failed => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn examine(args: &ConfigArgs) -> Vec<Finding> {
    let file = args.config.as_deref();
    let config = match config::load(&sources(args)) {
        Ok(config) => config,
        Err(errors) => {
            let mistakes = errors.to_string();
            let mistakes = mistakes.lines().filter(|line| !line.trim().is_empty());
            let finding = |line: &str| {
                Finding::failed(
                    CONFIGURATION,
                    line,
                    "correct it; motemq check says the same",
                )
            };
            return mistakes
                .map(finding)
                .chain([machine::clock(None)])
                .collect();
        }
    };
    let health = health(doors(&config), Duration::from_secs(2));
    let mut findings = configuration(&config, file);
    findings.extend(access::look(&config));
    findings.extend(certificates::look(&config));
    findings.extend(machine::look(&config));
    findings.extend(disk::look(&config));
    findings.extend(ports::look(&config, &health));
    findings
}

fn configuration(config: &Config, file: Option<&Path>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if file.is_none() && Path::new("motemq.toml").exists() {
        findings.push(Finding::warning(
            CONFIGURATION,
            "there is a motemq.toml here, but it is not used",
            "say so with -c motemq.toml",
        ));
    }
    match server::check(config) {
        Ok(warnings) => {
            let what = file.map_or_else(
                || "the default configuration".to_owned(),
                |file| file.display().to_string(),
            );
            let count = config.listeners.len();
            findings.push(Finding::ok(
                CONFIGURATION,
                format!("{what} is valid: {count} listener(s)"),
            ));
            for warning in warnings {
                // They end with what to do.
                let (what, hint) = warning.rsplit_once("; ").unwrap_or((&warning, ""));
                findings.push(Finding::warning("certificates", what, hint));
            }
        }
        Err(error) => findings.push(Finding::failed(
            CONFIGURATION,
            error.to_string(),
            "correct the file that is named; the broker does not start before",
        )),
    }
    findings
}

/// The findings in words, one below the other.
fn told(findings: &[Finding], is_coloured: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let verdict = format!("{:<8}", finding.verdict.name());
        let verdict = match is_coloured {
            true => format!("\u{1b}[{}m{verdict}\u{1b}[0m", finding.verdict.colour()),
            false => verdict,
        };
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{verdict} {:<14} {}", finding.check, finding.message);
        if let Some(hint) = finding.hint.as_deref().filter(|hint| !hint.is_empty()) {
            let _ = writeln!(text, "{:23} -> {hint}", "");
        }
    }
    let count = |verdict| {
        let of = findings.iter().filter(|finding| finding.verdict == verdict);
        of.count()
    };
    let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
    let _ = write!(
        text,
        "{failed} failed, {warnings} warning(s), {} ok",
        count(Verdict::Ok)
    );
    text
}

/// The check that everything else starts from.
const CONFIGURATION: &str = "configuration";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_to_change_and_the_end_counts() {
        let findings = [
            Finding::ok("clock", "it is 2026"),
            Finding::warning("access", "anybody may come in", "anonymous = false"),
            Finding::failed("ports", "1883 is in use", "stop what uses it"),
        ];
        assert_eq!(
            told(&findings, false),
            "ok       clock          it is 2026\n\
             warning  access         anybody may come in\n\
             \x20                       -> anonymous = false\n\
             failed   ports          1883 is in use\n\
             \x20                       -> stop what uses it\n\
             1 failed, 1 warning(s), 1 ok"
        );
        assert!(told(&findings, true).starts_with("\u{1b}[32mok"));
    }
}
