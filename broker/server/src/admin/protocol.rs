//! What is said over the admin socket: one JSON object a line.

use crate::ban::{Ban, Subject};
use crate::store::StoreError;
use crate::store::tools::{Report, ToolError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a tool asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Read the whole store and report.
    Check,
    /// Copy the store to this file; an absolute path, as the broker sees it.
    Backup(PathBuf),
    /// Read configuration and files again.
    Reload,
    /// Ban.
    Ban {
        /// What.
        subject: Subject,
        /// For so many seconds; `None` is until it is ended.
        for_s: Option<u64>,
        /// Why.
        reason: String,
    },
    /// End a ban.
    Unban(Subject),
    /// List the bans.
    Bans,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It has been read.
    Checked(Report),
    /// It has been copied.
    BackedUp {
        /// Rows copied.
        rows: u64,
        /// Bytes of keys and values.
        bytes: u64,
    },
    /// It has been read again.
    Reloaded {
        /// What took effect.
        changed: Vec<String>,
        /// Keys that need a restart.
        waiting: Vec<String>,
    },
    /// Nothing was read again.
    NotReloaded {
        /// What is wrong.
        mistakes: Vec<String>,
    },
    /// A ban holds, or has ended.
    Banned,
    /// The bans that hold, and the seconds that are left of each.
    Bans(Vec<(Ban, Option<u64>)>),
    /// It could not be done.
    Failed {
        /// Why, for a program.
        failure: Failure,
        /// Why, for a person.
        message: String,
    },
}

/// Why something could not be done.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The store is damaged.
    Damage,
    /// It was interrupted, or another one is running.
    Busy,
    /// The request makes no sense to this broker.
    Request,
    /// Anything else.
    Other,
}

impl Answer {
    /// The answer to a tool's error.
    pub(super) fn from_error(error: &ToolError) -> Self {
        let failure = match error {
            error if error.is_damage() => Failure::Damage,
            ToolError::Store(StoreError::Interrupted) => Failure::Busy,
            _ => Failure::Other,
        };
        Self::failed(failure, error.to_string())
    }

    pub(super) fn failed(failure: Failure, message: impl Into<String>) -> Self {
        Self::Failed {
            failure,
            message: message.into(),
        }
    }
}

/// Longest line of a request, in bytes.
pub(super) const REQUEST_BYTES_MAX: u64 = 64 << 10;
