//! `motemq store`: check, backup, restore, salvage, compact.
//!
//! Exit codes: 0 done, 1 could not be done (nothing has changed), 3 the store or backup is damaged, or salvage had to leave
//! something out. Results go to standard output, reasons to standard error.

use super::{AskArgs, DAMAGED, broker, say};
use clap::Subcommand;
use motemq::api::{BackupReport, Client, ClientError};
use motemq::config::Config;
use motemq::store::StoreError;
use motemq::store::tools::{self, DamageList, Existing, FolderLock, Report, ToolError};
use rand::RngExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum StoreCommand {
    /// Read the whole store, of a running broker too, and report everything that is not what was written.
    Check {
        /// Check this backup instead of the store in data_dir.
        file: Option<PathBuf>,
    },
    /// Copy the store, of a running broker too, to a new file.
    Backup {
        /// The new file; nothing is overwritten. A running broker writes it, as its own user.
        file: PathBuf,
    },
    /// Make a backup the store, after verifying all of it. The broker must be stopped.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Replace the store that is there; it is kept as store.redb.replaced-N.
        #[arg(long)]
        replace: bool,
    },
    /// Write what is readable of a damaged store to a new one, and say what is lost. The broker must be stopped.
    Salvage {
        /// The new store, for `motemq store restore`; the damaged one is not changed.
        out: PathBuf,
        /// Salvage this file instead of the store in data_dir.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Write the store anew without what is free in it. The broker must be stopped.
    Compact,
}

/// Why a command has not done what it was asked to.
struct Refusal {
    message: String,
    code: u8,
}

pub(crate) fn run(command: &StoreCommand, config: &Config) -> ExitCode {
    // redb answers some damage with a panic, which the tools report in their own words.
    std::panic::set_hook(Box::new(|_| {}));
    let done = match command {
        StoreCommand::Check { file: Some(file) } if !is_store(config, file) => {
            check_file(file, "the backup")
        }
        StoreCommand::Check { .. } => check(config),
        StoreCommand::Backup { file } => backup(config, file),
        StoreCommand::Restore { file, replace } => restore(config, file, *replace),
        StoreCommand::Salvage { out, from } => salvage(config, out, from.as_deref()),
        StoreCommand::Compact => compact(config),
    };
    match done {
        Ok(code) => code,
        Err(refusal) => {
            eprintln!("motemq: {}", refusal.message.trim_end());
            ExitCode::from(refusal.code)
        }
    }
}

fn check(config: &Config) -> Result<ExitCode, Refusal> {
    let dir = data_dir(config)?;
    match reach(config, dir)? {
        Reached::Broker => {
            let report = asked(config)?.post("/store/check", &())?;
            Ok(show(&report, "the store of the running broker"))
        }
        Reached::Folder(_lock) => check_file(&existing_store(dir)?, "the store"),
    }
}

fn check_file(file: &Path, what: &str) -> Result<ExitCode, Refusal> {
    let report = tools::check_file(file)?;
    Ok(show(&report, &format!("{what} {}", file.display())))
}

fn show(report: &Report, what: &str) -> ExitCode {
    say(report);
    if report.is_sound() {
        say(format_args!("{what} is sound"));
        return ExitCode::SUCCESS;
    }
    eprint!("{}", DamageList(report));
    eprintln!(
        "motemq: {what} is damaged in {} places; restore a backup, or keep what is readable: motemq store salvage OUT",
        report.damage_count
    );
    ExitCode::from(DAMAGED)
}

fn backup(config: &Config, file: &Path) -> Result<ExitCode, Refusal> {
    let file = std::path::absolute(file).map_err(|error| ToolError::Io {
        path: file.to_owned(),
        source: error,
    })?;
    let dir = data_dir(config)?;
    let (rows, bytes, whose) = match reach(config, dir)? {
        Reached::Broker => {
            let order = serde_json::json!({ "file": &file });
            let BackupReport { rows, bytes } = asked(config)?.post("/store/backup", &order)?;
            (rows, bytes, "the running broker's store")
        }
        Reached::Folder(_lock) => {
            let copied = tools::backup_file(&existing_store(dir)?, &file)?;
            (copied.rows, copied.bytes, "the stopped broker's store")
        }
    };
    let file = file.display();
    say(format_args!(
        "{file} holds {whose}: {rows} rows, {bytes} bytes"
    ));
    Ok(ExitCode::SUCCESS)
}

fn restore(config: &Config, file: &Path, replace: bool) -> Result<ExitCode, Refusal> {
    let dir = data_dir(config)?;
    refuse_broker(config)?;
    let existing = match replace {
        true => Existing::KeepAside,
        false => Existing::Refuse,
    };
    let restored = tools::restore(dir, file, existing)?;
    say(&restored.report);
    if let Some(aside) = &restored.aside {
        let aside = aside.display();
        say(format_args!(
            "the store that was there is {aside}: remove it when you no longer need it"
        ));
    }
    let store = tools::store_path(dir);
    let (store, file) = (store.display(), file.display());
    say(format_args!("{store} is restored from {file}"));
    Ok(ExitCode::SUCCESS)
}

fn salvage(config: &Config, out: &Path, from: Option<&Path>) -> Result<ExitCode, Refusal> {
    let (lock, from) = match from.filter(|from| !is_store(config, from)) {
        Some(from) => (None, from.to_owned()),
        None => {
            let dir = data_dir(config)?;
            refuse_broker(config)?;
            (Some(FolderLock::take(dir)?), existing_store(dir)?)
        }
    };
    let salvaged = tools::salvage(&from, out, rand::rng().random())?;
    drop(lock);
    say(&salvaged.saved);
    let (shown, how) = (out.display(), "use it with: motemq store restore");
    if !salvaged.has_losses() {
        say(format_args!(
            "nothing in {} was damaged; {shown} holds all of it; {how} {shown}",
            from.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("{}", DamageList(&salvaged.found));
    let is_unknown = salvaged.found.has_journal_damage();
    let unknown = match is_unknown {
        true => ", and whatever the damaged part of the journal held",
        false => "",
    };
    eprintln!(
        "motemq: {} findings in {}; {} queued messages known to be lost{unknown}, {} rows saved without proof; {shown} holds the rest; {how} {shown}",
        salvaged.found.damage_count,
        from.display(),
        salvaged.deliveries_lost,
        salvaged.unproven
    );
    Ok(ExitCode::from(DAMAGED))
}

fn compact(config: &Config) -> Result<ExitCode, Refusal> {
    let dir = data_dir(config)?;
    refuse_broker(config)?;
    let compacted = tools::compact(dir)?;
    say(&compacted.report);
    say(format_args!(
        "{} had {} bytes and has {}",
        tools::store_path(dir).display(),
        compacted.before_bytes,
        compacted.after_bytes
    ));
    Ok(ExitCode::SUCCESS)
}

/// Who has the store.
enum Reached {
    /// A broker that answers.
    Broker,
    /// We do.
    Folder(FolderLock),
}

fn reach(config: &Config, dir: &Path) -> Result<Reached, Refusal> {
    if answering_socket(config)?.is_some() {
        return Ok(Reached::Broker);
    }
    match FolderLock::take(dir) {
        Ok(lock) => Ok(Reached::Folder(lock)),
        Err(ToolError::Store(StoreError::Locked(dir))) => Err(Refusal::new(format!(
            "a broker uses {}, but does not answer at its admin socket ({}): give this command the broker's own configuration, or set admin.socket and restart it",
            dir.display(),
            config.admin_socket().map_or_else(
                || "admin.socket is \"\"".to_owned(),
                |path| path.display().to_string()
            )
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The admin socket, if a broker listens there.
fn answering_socket(config: &Config) -> Result<Option<PathBuf>, Refusal> {
    let Some(socket) = config.admin_socket() else {
        return Ok(None);
    };
    match std::os::unix::net::UnixStream::connect(&socket) {
        Ok(_) => Ok(Some(socket)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(ClientError::Denied(socket.display().to_string()).into())
        }
        Err(_) => Ok(None),
    }
}

/// Says more than that the folder is locked.
fn refuse_broker(config: &Config) -> Result<(), Refusal> {
    match answering_socket(config)? {
        Some(socket) => Err(Refusal::new(format!(
            "a broker is running on this store (it answers at {}): stop it first; check and backup work while it runs",
            socket.display()
        ))),
        None => Ok(()),
    }
}

fn asked(config: &Config) -> Result<Client, Refusal> {
    broker(config, &AskArgs::default()).map_err(Refusal::new)
}

fn data_dir(config: &Config) -> Result<&Path, Refusal> {
    config.data_dir.as_deref().ok_or_else(|| {
        Refusal::new("data_dir is \"\": this configuration keeps nothing on disk".to_owned())
    })
}

/// Whether `file` is the store itself, which a broker may be writing.
fn is_store(config: &Config, file: &Path) -> bool {
    let store = config.data_dir.as_deref().map(tools::store_path);
    let store = store.and_then(|store| store.canonicalize().ok());
    store.is_some_and(|store| file.canonicalize().is_ok_and(|file| file == store))
}

fn existing_store(dir: &Path) -> Result<PathBuf, Refusal> {
    let store = tools::store_path(dir);
    match store.exists() {
        true => Ok(store),
        false => Err(ToolError::NoStore(store).into()),
    }
}

impl Refusal {
    fn new(message: String) -> Self {
        Self { message, code: 1 }
    }
}

impl From<ToolError> for Refusal {
    fn from(error: ToolError) -> Self {
        let code = if error.is_damage() { DAMAGED } else { 1 };
        let message = error.to_string();
        Self { message, code }
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        let code = match error.code() {
            Some("damaged_store") => DAMAGED,
            _ => 1,
        };
        let message = error.to_string();
        Self { message, code }
    }
}
