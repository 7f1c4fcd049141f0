//! Tools on a store: check, backup, restore, salvage, compact.
//!
//! A backup is a store file that `motemq run` can start from. No tool changes a file that it reads; a file that a tool makes
//! has another name until it is whole and on disk, and takes the place of another one at once. Whatever ends a tool leaves
//! either the old or the new.
//!
//! The caller says which store: a live view ([`Snapshot`]) for check and backup, or a folder that no broker uses.

mod copy;
mod read_only;
mod replace;
mod report;
mod rows;
mod salvage;
mod snapshot;
mod survey;

pub use copy::Copied;
pub use replace::{Compacted, Existing, Restored, compact, restore};
pub use report::{Damage, DamageList, Report, TableCount};
pub use salvage::{Salvaged, salvage};
pub use snapshot::Snapshot;

use super::StoreError;
use std::path::{Path, PathBuf};
use survey::{Payloads, Survey};

/// A tool cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The store that is read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is written.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What redb or the system said.
        source: Box<StoreError>,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Nothing is overwritten.
    #[error("{0} exists: choose another name, or remove it first")]
    Exists(PathBuf),
    /// A restore would replace a store.
    #[error("{0} is a store already: with --replace it is kept under another name")]
    Occupied(PathBuf),
    /// There is nothing to work on.
    #[error("there is no store: {0} does not exist; data_dir says where it is")]
    NoStore(PathBuf),
    /// A file and the store are the same.
    #[error("{0} is the store itself")]
    Same(PathBuf),
    /// A file is not what was written.
    #[error("{path} is damaged ({} findings):\n{}", .report.damage_count, DamageList(.report))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        report: Box<Report>,
    },
}

impl ToolError {
    /// Whether the cause is damage, rather than a wish that cannot be met.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(error) => error.is_damage(),
            _ => false,
        }
    }

    fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn write(path: &Path) -> impl FnOnce(StoreError) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Write {
            path,
            source: Box::new(source),
        }
    }
}

/// Reads all that `snapshot` shows and reports what in it is not what was written.
///
/// # Errors
/// When the work must end, or the store is of another format.
pub fn check(snapshot: &mut Snapshot) -> Result<Report, ToolError> {
    Ok(Survey::run(snapshot, Payloads::Dropped)?.report)
}

/// As [`check`], of a file that no broker uses; also whether no page of it is missing. The file is not changed.
///
/// # Errors
/// When the file is not there or not readable, or of another format.
pub fn check_file(path: &Path) -> Result<Report, ToolError> {
    let refusal = match Snapshot::of_file(path) {
        Ok(mut snapshot) => return check(&mut snapshot),
        Err(error) if error.is_damage() => error,
        Err(error) => return Err(error.into()),
    };
    let finding = Damage::new("file", path.display().to_string(), refusal.to_string());
    let mut report = match Snapshot::of_damaged_file(path) {
        Ok(mut snapshot) => check(&mut snapshot)?,
        Err(_) => Report::default(),
    };
    report.add(finding);
    Ok(report)
}

/// Copies all that `snapshot` shows to the new file `to`, which can be restored, or started from under the name
/// `store.redb`.
///
/// # Errors
/// When `to` exists or cannot be written, or a row is not what was written. Then there is no `to`.
pub fn backup(snapshot: &Snapshot, to: &Path) -> Result<Copied, ToolError> {
    copy::refuse_existing(to)?;
    let file = copy::NewFile::create(&copy::unfinished(to))?;
    let copied = copy::copy(snapshot, &file)?;
    file.close()?.name(to)?;
    Ok(copied)
}

/// As [`backup`], of a file that no broker uses.
///
/// # Errors
/// As [`backup`]; also when a page of the file is missing.
pub fn backup_file(path: &Path, to: &Path) -> Result<Copied, ToolError> {
    backup(&Snapshot::of_file(path)?, to)
}

/// The store in a folder, as the tools and the broker name it.
#[must_use]
pub fn store_path(data_dir: &Path) -> PathBuf {
    data_dir.join(super::journal::STORE_FILE)
}

/// Keeps brokers out of a folder with a store while it lives.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "held, never read")] std::fs::File);

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// When a broker or another tool has it, or it is not there.
    pub fn take(data_dir: &Path) -> Result<Self, ToolError> {
        if !data_dir.is_dir() {
            return Err(ToolError::NoStore(store_path(data_dir)));
        }
        Ok(Self(super::journal::lock_file(data_dir)?))
    }
}

#[cfg(test)]
mod tests;
