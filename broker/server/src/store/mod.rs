//! The store: the journal on redb, in one file that one process owns.
//!
//! [`engine`] turns actions into tables, [`journal`] runs it on a writer thread with group commit, [`file`] keeps disk
//! space ahead,
//! [`tools`] checks, copies and repairs. Only this folder knows redb.

pub mod engine;
pub mod file;
pub mod journal;
pub mod layout;
pub mod tables;
pub mod tools;

use std::path::PathBuf;

/// The store cannot go on, or cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("another motemq uses {0}; stop it, or set another data_dir")]
    Locked(PathBuf),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// redb failed.
    #[error("the store failed: {0}")]
    Database(Box<redb::Error>),
    /// `data_dir` is something else.
    #[error("data_dir {0} is not a folder")]
    NotAFolder(PathBuf),
    /// The store's file has no content.
    #[error(
        "{0} is empty, but a store was there: restore a backup, or remove the file to start with nothing"
    )]
    Emptied(PathBuf),
    /// Written by a release with another format.
    #[error(
        "the store has format {found}, this release knows format {known}: use the newer release, or restore a backup"
    )]
    Format {
        /// The format found.
        found: u32,
        /// The format known.
        known: u32,
    },
    /// A value is not what was written.
    #[error("the store is damaged in table {table}, key {key}: {why}; restore a backup")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The broker needs its file back, or nobody waits for the result any more.
    #[error("interrupted: the broker stops, or reopens its store on a full disk; try again later")]
    Interrupted,
    /// A value passed its check but cannot be understood.
    #[error("the store cannot be read in table {table}, key {key}: {why}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

impl StoreError {
    /// Whether the store is not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Database(error) => !matches!(
                **error,
                redb::Error::Io(_)
                    | redb::Error::PreviousIo
                    | redb::Error::DatabaseClosed
                    | redb::Error::DatabaseAlreadyOpen
            ),
            Self::Corrupt { .. } | Self::Unreadable { .. } | Self::Emptied(_) => true,
            _ => false,
        }
    }

    /// Whether the disk is full, which passes; anything else does not.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Database(error) => match &**error {
                redb::Error::Io(error) => is_full(error),
                _ => false,
            },
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}
