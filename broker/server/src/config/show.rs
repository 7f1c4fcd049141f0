//! Every key with its effective value and where that was written: `motemq config show --origin`.
//!
//! Promises: every key that was asked for is there once, in the order of `read.rs`, by the path under which a flag or a
//! variable sets it; a value is written as in the document; no secret is shown, nor what a flag said of one.
//!
//! Does not know: keys. What a question answered was noted where it was asked.

use super::error::Place;
use super::section::{Asked, join};
use std::fmt;
use std::path::PathBuf;

/// One key.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// `limits.receive_maximum`, `listeners.mqtts.tls.cert`.
    pub key: String,
    /// As the document would write it.
    pub value: String,
    /// Where it was written.
    pub place: Place,
    /// The file that it names, if it names one.
    pub file: Option<PathBuf>,
}

impl Setting {
    /// What a question answered; `None` for the name of a listener, which is in the paths of its other keys.
    pub(super) fn from_asked(asked: &Asked) -> Option<Self> {
        if asked.section == "listeners" && asked.key == "name" {
            return None;
        }
        let key = match asked.path.as_str() {
            "" => join(asked.section, asked.key),
            path => path.to_owned(),
        };
        let is_secret = is_secret(asked.key);
        let value = match &asked.answer {
            Some(_) if is_secret => "(hidden)".to_owned(),
            Some(answer) => answer.clone(),
            None => "\"\"".to_owned(),
        };
        let place = match &asked.place {
            Place::Flag(_) if is_secret => Place::Flag(format!("{key}=(hidden)")),
            place => place.clone(),
        };
        // Its own files are nobody else's to change.
        let file = asked.file.clone().filter(|_| key != "data_dir");
        Some(Self {
            key,
            value,
            place,
            file,
        })
    }

    /// Where the value comes from: `default`, `motemq.toml:12`, `environment MOTEMQ_...`, `--set ...`.
    #[must_use]
    pub fn origin(&self) -> String {
        match &self.place {
            Place::Line { path, line, .. } => format!("{}:{line}", path.display()),
            place => place.to_string(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.key, self.value)
    }
}

/// A text as the document writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Texts as the document writes them.
pub(super) fn quoted_list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<_> = texts.into_iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// Whether the value of `key` must not be seen. (A `password_file` is a path.)
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('_').next().unwrap_or(key);
    matches!(last, "password" | "secret" | "token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_was_written() {
        let asked = Asked {
            section: "http",
            key: "api_token",
            path: "http.api_token".to_owned(),
            range: None,
            place: Place::Flag("http.api_token=s3cret".to_owned()),
            answer: Some("\"s3cret\"".to_owned()),
            file: None,
        };
        let setting = Setting::from_asked(&asked).unwrap();
        let shown = format!("{setting} {}", setting.origin());
        assert_eq!(
            shown,
            "http.api_token = (hidden) --set http.api_token=(hidden)"
        );
        assert!(!is_secret("password_file"));
    }
}
