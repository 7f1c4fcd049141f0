//! `motemq import`: a mosquitto.conf, with its users and access rules, as a configuration of this broker.
//!
//! Promises: nobody gets in, and nobody sees more, than with mosquitto: a listener of which that cannot be said is left out, and access
//! rules that cannot be read deny everything. Every line that is not translated, or not quite, is reported with its place, its
//! meaning and what to do. Secrets are not shown. What comes back is text;
//! writing it is another step.
//!
//! Does not know: the command line.

mod document;
mod lines;
mod listener;
mod options;
mod sorted;
mod translate;
mod write;

pub use options::table;
pub use write::{Present, WriteError, write};

use crate::config::ConfigErrors;
use std::io;
use std::path::{Path, PathBuf};

/// What was translated.
#[derive(Debug)]
pub struct Import {
    /// The files to be written, the configuration first.
    pub files: Vec<ImportedFile>,
    /// Every line, in the order in which mosquitto reads them.
    pub lines: Vec<LineReport>,
    /// The listeners that are in the configuration.
    pub listeners: usize,
}

/// A file to be written.
#[derive(Debug)]
pub struct ImportedFile {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub text: String,
}

/// What became of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LineReport {
    /// The file, without its folder.
    pub file: String,
    /// The number of the line.
    pub line: usize,
    /// What it says; secrets are not shown.
    pub text: String,
    /// What became of it.
    pub status: Status,
    /// The key of the configuration that says it now; empty for none.
    pub key: String,
    /// What differs, or why it is not needed, or what it meant and what to do instead.
    pub remark: String,
}

/// What became of a line.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Status {
    /// It means the same.
    Translated,
    /// It was translated, and does not mean quite the same.
    Differs,
    /// There is nothing to translate, and nothing is lost.
    Unneeded,
    /// It could not be translated.
    Left,
}

impl Status {
    /// As the report names it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Differs => "differs",
            Self::Unneeded => "unneeded",
            Self::Left => "left",
        }
    }
}

/// How access rules are to be written.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum AclForm {
    /// As they are, with mosquitto's meaning.
    Mosquitto,
    /// In our own format.
    Own,
}

/// Nothing was translated.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no mosquitto.conf.
    #[error("{}: {why}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: Unusable,
    },
    /// Nothing would listen.
    #[error("no listener of it can be had here, so there is nothing to configure; the reasons:\n{}", listed(.0))]
    NoListener(Vec<LineReport>),
    /// A mistake of ours.
    #[error("this is a bug of motemq import: what it made is no valid configuration:\n{0}")]
    Invalid(ConfigErrors),
}

/// Why a file is no mosquitto.conf.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// It is larger than any configuration.
    #[error("is larger than {0} bytes, so it is no mosquitto.conf")]
    TooLarge(u64),
    /// It is not UTF-8.
    #[error("is no text in UTF-8, so it is no mosquitto.conf")]
    NotText,
}

impl ImportError {
    fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            source,
        }
    }

    fn unusable(path: &Path, why: Unusable) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            why,
        }
    }
}

impl std::fmt::Display for LineReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)?;
        match self.remark.as_str() {
            "" => Ok(()),
            remark => write!(f, "\n    {remark}"),
        }
    }
}

fn listed(reports: &[LineReport]) -> String {
    let left = reports.iter().filter(|line| line.status == Status::Left);
    let lines: Vec<_> = left.map(ToString::to_string).collect();
    lines.join("\n")
}

/// Translates the mosquitto.conf at `conf`.
///
/// # Errors
/// When it cannot be read, or nothing would listen.
pub fn import(conf: &Path, acl_form: AclForm) -> Result<Import, ImportError> {
    translate::translate(conf, lines::read(conf)?, acl_form)
}

#[cfg(test)]
mod tests;
