//! `motemq import`: a mosquitto.conf as a configuration of this broker.
//!
//! Exit codes: 0 everything was translated, 1 something is left to do (the report says what), 2 wrong arguments or the files are there
//! already, 78 nothing could be translated. The report goes to standard output, reasons for failure to standard error.

use crate::{CONFIG_INVALID, fail};
use clap::Args;
use motemq::config::{self, Sources};
use motemq::import::{self, AclForm, Import, LineReport, Present, Status, WriteError};
use motemq::server;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// The mosquitto.conf.
    #[arg(value_name = "MOSQUITTO_CONF")]
    conf: PathBuf,
    /// The folder for motemq.toml, the users and the access rules; it is made if need be.
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Replace files that are there already.
    #[arg(long)]
    force: bool,
    /// Translate the access rules into our format, rather than to keep mosquitto's and their meaning.
    #[arg(long)]
    translate_acl: bool,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

/// What `motemq check` says of the result.
struct Checked {
    is_valid: bool,
    messages: Vec<String>,
}

pub(crate) fn run(args: &ImportArgs) -> ExitCode {
    let form = match args.translate_acl {
        true => AclForm::Own,
        false => AclForm::Mosquitto,
    };
    let import = match import::import(&args.conf, form) {
        Ok(import) => import,
        Err(error) => {
            eprintln!("motemq: {error}");
            return ExitCode::from(CONFIG_INVALID);
        }
    };
    let present = match args.force {
        true => Present::Replaced,
        false => Present::Refused,
    };
    let paths = match import::write(&args.output, &import.files, present) {
        Ok(paths) => paths,
        Err(error @ WriteError::Present(_)) => {
            eprintln!("motemq: {error}");
            return ExitCode::from(USAGE);
        }
        Err(error) => return fail(&error),
    };
    let checked = check(&args.output.join("motemq.toml"));
    let text = match args.json {
        true => format!("{}\n", as_json(&import, &paths, &checked)),
        false => as_text(&import, &paths, &checked),
    };
    // Whoever closed standard output has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let is_whole = import.lines.iter().all(|line| line.status != Status::Left);
    match is_whole && checked.is_valid {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn check(file: &Path) -> Checked {
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(errors) => {
            return Checked {
                is_valid: false,
                messages: vec![errors.to_string()],
            };
        }
    };
    match server::check(&config) {
        Ok(messages) => Checked {
            is_valid: true,
            messages,
        },
        Err(error) => Checked {
            is_valid: false,
            messages: vec![error.to_string()],
        },
    }
}

fn with(import: &Import, status: Status) -> Vec<&LineReport> {
    let lines = import.lines.iter();
    lines.filter(|line| line.status == status).collect()
}

fn as_text(import: &Import, paths: &[PathBuf], checked: &Checked) -> String {
    let mut text = String::new();
    let sections = [
        (Status::Left, "not translated"),
        (Status::Differs, "translated, with a difference"),
    ];
    for (status, title) in sections {
        let lines = with(import, status);
        if lines.is_empty() {
            continue;
        }
        text.push_str(&format!("{title} ({}):\n", lines.len()));
        for line in lines {
            let shown = line.to_string().replace('\n', "\n  ");
            text.push_str(&format!("  {shown}\n"));
        }
        text.push('\n');
    }
    let (same, unneeded) = (
        with(import, Status::Translated),
        with(import, Status::Unneeded),
    );
    text.push_str(&format!(
        "{} line(s) mean the same, {} are not needed (--json has them all); {} listener(s)\n",
        same.len(),
        unneeded.len(),
        import.listeners
    ));
    for path in paths {
        text.push_str(&format!("written: {}\n", path.display()));
    }
    let config = paths.first().map(|path| path.display().to_string());
    let config = config.unwrap_or_default();
    text.push_str(&match checked.is_valid {
        true => format!("motemq check -c {config}: valid\n"),
        false => format!("motemq check -c {config}: not valid yet\n"),
    });
    for message in &checked.messages {
        text.push_str(&format!("  {message}\n"));
    }
    text
}

fn as_json(import: &Import, paths: &[PathBuf], checked: &Checked) -> serde_json::Value {
    let line = |line: &LineReport| {
        json!({
            "file": line.file,
            "line": line.line,
            "text": line.text,
            "status": line.status.label(),
            "key": (!line.key.is_empty()).then_some(&line.key),
            "remark": (!line.remark.is_empty()).then_some(&line.remark),
        })
    };
    json!({
        "files": paths,
        "listeners": import.listeners,
        "is_valid": checked.is_valid,
        "check": checked.messages,
        "lines": import.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

const USAGE: u8 = 2;
