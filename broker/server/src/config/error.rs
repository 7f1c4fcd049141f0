//! What can be wrong with a configuration, and where.
//!
//! Promises: an error names its place (line and column, flag or variable), the key, what is accepted and, when
//! something similar exists, what was probably meant. All errors of one load come together, in the order of the file.
//!
//! Does not know: how the document is read. Values of keys appear in messages; no key holds a secret itself.

use super::number::Range;
use std::fmt;
use std::path::PathBuf;

/// Every mistake found in one load, in the order of the file, then variables and flags; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where it was written.
    pub place: Place,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Where a setting was written.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// The configuration file as a whole.
    File(PathBuf),
    /// A position in the configuration file.
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// The argument of a `--set`.
    Flag(String),
    /// Nowhere: a default is at odds with something that was written.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Line { path, line, column } => {
                write!(formatter, "{}:{line}:{column}", path.display())
            }
            Self::Environment(variable) => write!(formatter, "environment {variable}"),
            Self::Flag(argument) => write!(formatter, "--set {argument}"),
            Self::Default => write!(formatter, "default"),
        }
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Not TOML; the text is the parser's.
    #[error("{0}")]
    Syntax(String),
    /// A `--set` without `=`.
    #[error("needs key=value")]
    NoValue,
    /// A key nobody asked for.
    #[error("unknown key \"{key}\"{}{hint}", in_section(.section))]
    UnknownKey {
        /// As written.
        key: String,
        /// The header it was found under; empty for a flag or a variable, whose key is the whole path.
        section: String,
        /// What may have been meant.
        hint: Hint,
    },
    /// A key that has no default.
    #[error("{section} needs the key \"{key}\"")]
    MissingKey {
        /// The key.
        key: String,
        /// The header it belongs under.
        section: String,
    },
    /// A value of another kind.
    #[error("{key} must be {expected}; found {found}")]
    WrongType {
        /// The key with its section.
        key: String,
        /// What is accepted.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A number outside its range.
    #[error("{key} must be {range}; found {found}")]
    OutOfRange {
        /// The key with its section.
        key: String,
        /// The accepted numbers.
        range: Range,
        /// As written.
        found: String,
    },
    /// A word that is not among the accepted ones.
    #[error("{key} must be one of {}; found \"{found}\"{hint}", .values.join(", "))]
    UnknownValue {
        /// The key with its section.
        key: String,
        /// The accepted values as written in TOML.
        values: Vec<String>,
        /// As written.
        found: String,
        /// What may have been meant.
        hint: Hint,
    },
    /// A text that does not have the form it needs.
    #[error("{key} must be {expected}; found \"{found}\"")]
    Malformed {
        /// The key with its section.
        key: String,
        /// What is accepted, with an example.
        expected: String,
        /// As written.
        found: String,
    },
    /// `listeners = []`.
    #[error("at least one [[listeners]] is needed")]
    NoListeners,
    /// Two listeners, or two profiles, with one name.
    #[error("another one already has the name \"{0}\"")]
    DuplicateName(String),
    /// Two listeners, or a listener and an HTTP server, on one address.
    #[error("{key}: {address} is already taken by {owner}")]
    DuplicateBind {
        /// The key that wants it.
        key: String,
        /// The address.
        address: super::settings::Bind,
        /// The key that has it.
        owner: String,
    },
    /// A setting that means nothing without another one.
    #[error("{key} needs {needs}")]
    Needs {
        /// The key with its section.
        key: String,
        /// The other setting.
        needs: String,
    },
}

fn in_section(section: &str) -> String {
    match section {
        "" => String::new(),
        section if section.starts_with('[') => format!(" in {section}"),
        section => format!(" {section}"),
    }
}

/// What may have been meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hint {
    /// Nothing comes close.
    None,
    /// This key or value.
    Similar(String),
    /// This value, but not as a string.
    Bare(String),
    /// The same key under this header.
    Section(String),
}

impl Hint {
    /// The candidate most like `written`, if any is like it at all.
    pub(super) fn similar<'a>(
        written: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let likeness = |candidate: &str| {
            let is_start = written.len() >= 3 && candidate.starts_with(written);
            let likeness = strsim::normalized_damerau_levenshtein(written, candidate);
            if is_start {
                likeness.max(LIKENESS_MIN)
            } else {
                likeness
            }
        };
        candidates
            .into_iter()
            .map(|candidate| (likeness(candidate), candidate))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|(left, _), (right, _)| left.total_cmp(right))
            .map_or(Self::None, |(_, candidate)| {
                Self::Similar(candidate.to_owned())
            })
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Similar(candidate) => write!(formatter, "; did you mean \"{candidate}\"?"),
            Self::Bare(candidate) => {
                write!(formatter, "; did you mean {candidate} without quotes?")
            }
            Self::Section(section) => write!(formatter, "; it belongs{}", in_section(section)),
        }
    }
}

/// Less alike than this (1 is equal) is not worth suggesting.
const LIKENESS_MIN: f64 = 0.6;
