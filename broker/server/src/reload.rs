//! SIGHUP: what can be read again is, all of it or nothing.
//!
//! Read again: the configuration, of which `[limits]`, `[mqtt]` and `[auth]` take effect; the files that it names; certificate,
//! key and authorities of each listener, for connections made from then on. Every other key that was changed is named in the
//! log: it needs a restart, as do all of `[[listeners]]`. If anything is wrong, each mistake is logged, everything stays as
//! it was, and `mqtt_broker_config_reload_success` is 0.
//!
//! Does not know: signals.

use crate::acl_file::LoadedAcl;
use crate::auth::Authenticator;
use crate::config::{self, Config, ConfigErrors, Setting, Sources};
use crate::server::{Server, core_limits};
use crate::tls;
use motemq_core::Limits;
use rustls::ServerConfig;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the configuration came from, to read it again.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    set: Vec<String>,
    /// As of the start, but for what has taken effect since.
    settings: Vec<Setting>,
}

/// Everything of a reload that can fail, done.
struct Prepared {
    config: Config,
    settings: Vec<Setting>,
    authenticator: Authenticator,
    acl: LoadedAcl,
    /// By listener, in order.
    tls: Vec<Option<Arc<ServerConfig>>>,
}

/// Why nothing was changed: one line each.
struct Mistakes(Vec<String>);

impl From<ConfigErrors> for Mistakes {
    fn from(errors: ConfigErrors) -> Self {
        Self(errors.0.iter().map(ToString::to_string).collect())
    }
}

impl Reloader {
    /// Will read `sources` again; `settings` are what they say now.
    #[must_use]
    pub fn new(sources: &Sources<'_>, settings: Vec<Setting>) -> Self {
        Self {
            file: sources.file.map(ToOwned::to_owned),
            environment: sources.environment.clone(),
            set: sources.set.clone(),
            settings,
        }
    }

    /// Reads again. `true` when it took effect.
    pub fn reload(&mut self, server: &Server) -> bool {
        match self.prepare(server) {
            Ok(prepared) => {
                self.apply(server, prepared);
                server.note_reload(true);
                true
            }
            Err(Mistakes(lines)) => {
                for line in &lines {
                    tracing::error!("reload: {line}");
                }
                let mistakes = lines.len();
                tracing::error!(
                    mistakes,
                    "the configuration was not reloaded: everything stays as it was"
                );
                server.note_reload(false);
                false
            }
        }
    }

    fn prepare(&self, server: &Server) -> Result<Prepared, Mistakes> {
        let sources = Sources {
            file: self.file.as_deref(),
            environment: self.environment.clone(),
            set: self.set.clone(),
        };
        let (config, settings) = config::load_with_settings(&sources)?;
        let mut mistakes = Vec::new();
        let mut tls = Vec::new();
        for listener in server.listeners() {
            let config = listener.config();
            let read = tls::server_config(config, server.tls_sessions());
            tls.push(read.unwrap_or_else(|error| {
                mistakes.push(format!("listener {}: {error}", config.name));
                None
            }));
        }
        let acl = LoadedAcl::load(&config.auth).unwrap_or_else(|error| {
            mistakes.extend(error.lines());
            LoadedAcl::open()
        });
        match Authenticator::new(&config.auth, server.password_checks().clone()) {
            Ok(authenticator) if mistakes.is_empty() => Ok(Prepared {
                config,
                settings,
                authenticator,
                acl,
                tls,
            }),
            Ok(_) => Err(Mistakes(mistakes)),
            Err(error) => {
                mistakes.push(error.to_string());
                Err(Mistakes(mistakes))
            }
        }
    }

    fn apply(&mut self, server: &Server, prepared: Prepared) {
        server.set_authenticator(prepared.authenticator);
        prepared.acl.apply(server.broker());
        for (listener, tls) in server.listeners().iter().zip(prepared.tls) {
            if let Some(tls) = tls {
                listener.set_tls(tls);
            }
        }
        server.set_limits(&prepared.config.limits);
        let broker = server.broker();
        let old = broker.limits();
        // How groups share is fixed when they are made.
        broker.set_limits(Arc::new(Limits {
            share_strategy: old.share_strategy,
            share_redispatch: old.share_redispatch,
            ..core_limits(&prepared.config)
        }));
        server.ask_logins_again();
        let mut waiting = Vec::new();
        for new in &prepared.settings {
            let old = self.settings.iter_mut().find(|old| old.key == new.key);
            match old {
                Some(old) if old.value == new.value => {}
                Some(old) if is_live(&new.key) => {
                    let (key, from, to) = (&new.key, &old.value, &new.value);
                    tracing::info!(%key, %from, %to, "reload: changed");
                    *old = new.clone();
                }
                _ => waiting.push(new.key.clone()),
            }
        }
        let is_gone = |old: &&Setting| !prepared.settings.iter().any(|new| new.key == old.key);
        waiting.extend(
            self.settings
                .iter()
                .filter(is_gone)
                .map(|old| old.key.clone()),
        );
        if waiting.is_empty() {
            tracing::info!(
                "the configuration, passwords, access rules and certificates were reloaded"
            );
        } else {
            tracing::warn!(
                keys = waiting.join(", "),
                "the configuration, passwords, access rules and certificates were reloaded, but these keys need a restart"
            );
        }
    }
}

/// Keys that take effect without a restart.
fn is_live(key: &str) -> bool {
    let is_in = |section: &&str| key.starts_with(section);
    ["limits.", "auth.", "mqtt."].iter().any(is_in)
        && !FIXED.iter().any(|fixed| key.starts_with(fixed))
}

/// Limits that are fixed at the start.
const FIXED: [&str; 2] = ["limits.websocket_", "limits.tls_sessions_max"];
