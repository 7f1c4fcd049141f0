//! Configuration: strict TOML, environment variables and flags become one [`Config`] or a list of all mistakes.
//!
//! Promises:
//! - Flags (`--set limits.receive_maximum=20`) win over the environment (`MOTEMQ_LIMITS__RECEIVE_MAXIMUM=20`), that over
//!   the file, that over the defaults. A listener is addressed by its name: `--set listeners.mqtts.max_connections=5`.
//! - Nothing is ignored: an unknown key, a value of another kind or out of range, a contradiction is an error, and all
//!   of them are reported at once.
//! - A relative path in the file starts from the folder of the file, as does the default `data_dir`; one in a flag or
//!   variable starts from the current folder.
//! - Sizes are integers of bytes or strings such as `"64KiB"`; durations are integers in the unit that ends the key.
//!
//! Does not know: the broker. It opens no other file than the document, and does not look whether named files exist.

mod error;
mod number;
mod read;
mod section;
mod settings;
mod show;
mod source;

pub use error::{ConfigError, ConfigErrors, Hint, Place, Problem};
pub use number::{Range, Unit};
pub use settings::{
    AdminConfig, AnonymousAccess, AuthConfig, AuthSource, BanConfig, Bind, ClientCert, ClientIds,
    Config, CrlOverdue, Durability, EnrolmentConfig, HistoryConfig, HttpConfig, Identity,
    JwtConfig, LimitsConfig, ListenerConfig, LogConfig, LogFormat, MqttConfig, PersistenceConfig,
    ProfileConfig, Protocol, QueueFull, RateFull, ReloadConfig, ShareRedispatch, ShareStrategy,
    SharedSubscriptionsConfig, SysConfig, TlsConfig, TraceConfig, Watch,
};
pub use show::Setting;

use section::Reader;
use source::{File, Override};
use std::path::Path;
use toml::de::DeTable;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// The TOML document; `None` is an empty one in the current folder.
    pub file: Option<&'a Path>,
    /// Variables and their values. Those that do not start with `MOTEMQ_` are passed over, as are those that Kubernetes
    /// sets for a service called `motemq`.
    pub environment: Vec<(String, String)>,
    /// Arguments of `--set`, each `key=value`; of several for one key the last counts.
    pub set: Vec<String>,
}

/// Reads all sources.
///
/// # Errors
/// Every mistake found, in the order of the file, then variables, then flags.
pub fn load(sources: &Sources<'_>) -> Result<Config, ConfigErrors> {
    load_with_settings(sources).map(|(config, _)| config)
}

/// As [`load`]; also every key with its effective value and where that was written.
///
/// # Errors
/// As [`load`].
pub fn load_with_settings(sources: &Sources<'_>) -> Result<(Config, Vec<Setting>), ConfigErrors> {
    let file = File::read(sources.file)?;
    let mut errors = Vec::new();
    let mut overrides = Vec::new();
    let variables = &sources.environment;
    overrides.extend(
        variables
            .iter()
            .filter_map(|(name, value)| Override::from_variable(name, value)),
    );
    for argument in &sources.set {
        match Override::from_flag(argument) {
            Some(setting) => overrides.push(setting),
            None => errors.push(ConfigError {
                place: Place::Flag(argument.clone()),
                problem: Problem::NoValue,
            }),
        }
    }
    let (document, syntax_errors) = DeTable::parse_recoverable(&file.text);
    errors.extend(syntax_errors.iter().map(|error| syntax_error(&file, error)));
    let mut reader = Reader::new(&file, overrides, errors);
    let config = read::config(&mut reader, document.get_ref());
    let settings = reader
        .asked
        .iter()
        .filter_map(Setting::from_asked)
        .collect();
    reader.finish().map(|()| (config, settings))
}

/// Every key that exists, each once, in the general form `limits.receive_maximum`, `listeners.tls.cert`.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    for asked in asked_for(EVERY_SECTION) {
        let key = section::join(asked.section, asked.key);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The keys that reading `text` asks for.
fn asked_for(text: &str) -> Vec<section::Asked> {
    let file = File::from_text(Path::new(""), text.to_owned());
    let (document, _) = DeTable::parse_recoverable(&file.text);
    let mut reader = Reader::new(&file, Vec::new(), Vec::new());
    read::config(&mut reader, document.get_ref());
    reader.asked
}

fn syntax_error(file: &File, error: &toml::de::Error) -> ConfigError {
    let place = error
        .span()
        .map_or_else(|| file.whole(), |span| file.place(span));
    let problem = Problem::Syntax(error.message().replace('\n', ", "));
    ConfigError { place, problem }
}

/// A document that has every section which a document may lack.
const EVERY_SECTION: &str = "[[profiles]]\nname = \"a\"\n[[listeners]]\n[listeners.tls]";

#[cfg(test)]
mod tests;
