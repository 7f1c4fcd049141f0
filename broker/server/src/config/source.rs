//! The three places a setting can be written in: the file, environment variables and `--set`.
//!
//! Promises:
//! - Every byte position of the file becomes a line and a column; positions are of the text as the operator sees it.
//! - Of several overrides for one key the last counts, and flags come after the environment.
//!
//! Does not know: which keys exist, what their values mean.

use super::error::{ConfigError, ConfigErrors, Place, Problem};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// The text of the configuration file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    pub(super) text: String,
}

impl File {
    /// Reads a file; without one, the text is empty.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let Some(path) = path else {
            return Ok(Self::from_text(Path::new(""), String::new()));
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::from_text(path, text)),
            Err(error) => Err(ConfigErrors(vec![ConfigError {
                place: Place::File(path.to_owned()),
                problem: Problem::Unreadable(error.to_string()),
            }])),
        }
    }

    /// Takes a text as the content of the file at `path`.
    pub(super) fn from_text(path: &Path, text: String) -> Self {
        let path = path.to_owned();
        Self { path, text }
    }

    /// The folder that relative paths start from; empty for the current one.
    pub(super) fn folder(&self) -> PathBuf {
        self.path.parent().map_or_else(PathBuf::new, Path::to_owned)
    }

    /// The position where `span` starts.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The file as a whole.
    pub(super) fn whole(&self) -> Place {
        Place::File(self.path.clone())
    }
}

/// A setting outside the file.
#[derive(Debug)]
pub(super) struct Override {
    /// Dotted key, folded by [`fold`].
    pub(super) path: String,
    /// Its value: the text after `=`, quotes removed.
    pub(super) text: String,
    pub(super) place: Place,
    /// Whether a key with this path exists.
    pub(super) known: bool,
}

impl Override {
    /// From a variable; `None` when it is not meant for us.
    pub(super) fn from_variable(name: &str, value: &str) -> Option<Self> {
        let key = name.strip_prefix(VARIABLE_PREFIX)?;
        if is_kubernetes_service(key) {
            return None;
        }
        Some(Self {
            path: key.replace("__", ".").to_lowercase(),
            text: unquoted(value),
            place: Place::Environment(name.to_owned()),
            known: false,
        })
    }

    /// From the argument of a `--set`; `None` when it has no `=`.
    pub(super) fn from_flag(argument: &str) -> Option<Self> {
        let (key, value) = argument.split_once('=')?;
        Some(Self {
            path: fold(key.trim()),
            text: unquoted(value.trim()),
            place: Place::Flag(argument.to_owned()),
            known: false,
        })
    }

    /// A dotted key as it would be written in the same place as this one.
    pub(super) fn written_here(&self, path: &str) -> String {
        match self.place {
            Place::Environment(_) => {
                let name = path.replace('-', "_").replace('.', "__");
                format!("{VARIABLE_PREFIX}{}", name.to_uppercase())
            }
            _ => path.to_owned(),
        }
    }
}

/// The form in which paths are compared: variables cannot hold the `-` of a listener's name.
pub(super) fn fold(path: &str) -> String {
    path.replace('-', "_")
}

/// Kubernetes sets `MOTEMQ_SERVICE_HOST`, `MOTEMQ_PORT_1883_TCP` and the like for a service called `motemq`; they
/// are not for us. None of our keys looks like one.
fn is_kubernetes_service(key: &str) -> bool {
    let is_port = key == "PORT" || key.ends_with("_PORT") || key.contains("PORT_");
    !key.contains("__") && (is_port || key.ends_with("SERVICE_HOST"))
}

/// A text in TOML quotes without them; any other text as it is.
fn unquoted(text: &str) -> String {
    if text.starts_with(['"', '\''])
        && let Ok(value) = DeValue::parse(text)
        && let DeValue::String(inner) = value.get_ref()
    {
        return inner.clone().into_owned();
    }
    text.to_owned()
}

const VARIABLE_PREFIX: &str = "MOTEMQ_";
