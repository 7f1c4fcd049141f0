//! SIGHUP, `motemq reload` or a changed file: what can be read again is, all of it or nothing.
//!
//! Read again: the configuration, of which `[[listeners]]`, `[limits]`, `[mqtt]`, `[auth]`, `[enrolment]`, `[ban]` and `[reload]` take effect; the
//! files that it names. Every other key that was changed is named: it needs a restart. If anything is wrong, an address that cannot
//! be used among it, each mistake is reported, everything stays as it was, and `mqtt_broker_config_last_reload_successful` is 0.
//!
//! Listeners: one whose `bind` is among the new ones keeps its socket, whatever else of it changed, its name included. Any other is
//! new, or gone. Who is connected looks whether it may stay (`Listener::may_keep`); through a listener that is gone nobody may.
//!
//! Does not know: signals, the admin socket, when files change (`watch.rs`).

use crate::acl_file::LoadedAcl;
use crate::auth::Authenticator;
use crate::config::{self, Bind, Config, ConfigErrors, ListenerConfig, Setting, Sources, Watch};
use crate::listener::{Gate, Listener};
use crate::server::{Server, bind, core_enrolment, core_limits, set_history};
use crate::tls;
use crate::watch::FileWatch;
use motemq_core::{LimitSet, Limits};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the configuration came from, to read it again.
#[derive(Debug)]
pub struct Reloader {
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    set: Vec<String>,
    /// As of the start, but for what has taken effect since.
    settings: Vec<Setting>,
    /// What the files said when they were read last.
    config: Option<Config>,
    watched: FileWatch,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// `key: from -> to`, one for each that took effect.
    pub changed: Vec<String>,
    /// Keys that were changed and need a restart.
    pub waiting: Vec<String>,
}

/// Everything of a reload that can fail, done.
struct Prepared {
    config: Config,
    settings: Vec<Setting>,
    authenticator: Authenticator,
    acl: LoadedAcl,
    gates: Vec<Prospect>,
}

/// Where connections will come in.
struct Prospect {
    gate: Arc<Gate>,
    /// What is to be behind a gate that is there already.
    listener: Option<Listener>,
}

/// Why nothing was changed: one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl From<ConfigErrors> for Mistakes {
    fn from(errors: ConfigErrors) -> Self {
        Self(errors.0.iter().map(ToString::to_string).collect())
    }
}

impl Reloader {
    /// Will read `sources` again; `settings` are what they say now.
    #[must_use]
    pub fn new(sources: &Sources<'_>, settings: Vec<Setting>) -> Self {
        let mut reloader = Self {
            file: sources.file.map(ToOwned::to_owned),
            environment: sources.environment.clone(),
            set: sources.set.clone(),
            settings,
            config: config::load(sources).ok(),
            watched: FileWatch::default(),
        };
        reloader.watched = FileWatch::new(&reloader.watched_files());
        reloader
    }

    /// How long to wait until the next [`look`](Self::look).
    #[must_use]
    pub fn look_interval(&self) -> Duration {
        let config = self.config.as_ref().map(|config| &config.reload);
        Duration::from_millis(config.map_or(NO_LOOK_MS, |reload| reload.interval_ms.into()))
    }

    /// Looks whether files have changed, and takes over what they say if so. What the configuration file says now counts only if
    /// that is watched too: otherwise somebody may be at work on it.
    pub fn look(&mut self, server: &Arc<Server>) {
        if self.watch() != Watch::Off {
            server.follow_allow_lists();
        }
        let files = self.watched_files();
        if files.is_empty() || !self.watched.look(&files) {
            return;
        }
        tracing::info!("reload: files have changed");
        let _ = match (self.watch(), self.config.clone()) {
            (Watch::Files, Some(config)) => {
                let settings = self.settings.clone();
                self.take_over(server, Ok((config, settings)))
            }
            _ => self.reload_and_report(server),
        };
    }

    fn watch(&self) -> Watch {
        let config = self.config.as_ref();
        config.map_or(Watch::Off, |config| config.reload.watch)
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        // An inventory grows all the time, and is followed for itself.
        let named = self
            .settings
            .iter()
            .filter(|setting| !setting.key.ends_with(".tls.allow_list"))
            .filter_map(|setting| setting.file.clone());
        match self.watch() {
            Watch::Off => Vec::new(),
            Watch::Files => named.collect(),
            Watch::All => named.chain(self.file.clone()).collect(),
        }
    }

    /// Reads again. `true` when it took effect.
    pub fn reload(&mut self, server: &Arc<Server>) -> bool {
        self.reload_and_report(server).is_ok()
    }

    /// Reads again, and says what came of it.
    ///
    /// # Errors
    /// When something is wrong: everything is as it was.
    pub fn reload_and_report(&mut self, server: &Arc<Server>) -> Result<Reloaded, Mistakes> {
        let sources = Sources {
            file: self.file.as_deref(),
            environment: self.environment.clone(),
            set: self.set.clone(),
        };
        let read = config::load_with_settings(&sources);
        let result = self.take_over(server, read);
        // What was read just now need not be read again.
        self.watched = FileWatch::new(&self.watched_files());
        result
    }

    fn take_over(
        &mut self,
        server: &Arc<Server>,
        read: Result<(Config, Vec<Setting>), ConfigErrors>,
    ) -> Result<Reloaded, Mistakes> {
        let result = read
            .map_err(Mistakes::from)
            .and_then(|(config, settings)| prepare(server, config, settings))
            .map(|prepared| self.apply(server, prepared));
        match &result {
            Ok(reloaded) if reloaded.waiting.is_empty() => {
                tracing::info!("the configuration and its files were reloaded");
            }
            Ok(reloaded) => tracing::warn!(
                keys = reloaded.waiting.join(", "),
                "the configuration and its files were reloaded, but these keys need a restart"
            ),
            Err(Mistakes(lines)) => {
                for line in lines {
                    tracing::error!("reload: {line}");
                }
                tracing::error!(
                    mistakes = lines.len(),
                    "the configuration was not reloaded: everything stays as it was"
                );
            }
        }
        server.note_reload(result.is_ok());
        result
    }

    fn apply(&mut self, server: &Arc<Server>, prepared: Prepared) -> Reloaded {
        server.set_authenticator(prepared.authenticator);
        prepared.acl.apply(server.broker());
        let enrolment = core_enrolment(&prepared.config.enrolment);
        server.broker().set_enrolment(enrolment);
        server.set_limits(&prepared.config.limits);
        set_history(server.broker(), &prepared.config.history);
        server.bans().set_config(&prepared.config);
        let broker = server.broker();
        let old = broker.limits();
        let new = core_limits(&prepared.config);
        // How groups share is fixed when they are made.
        broker.set_limits(LimitSet {
            common: Arc::new(Limits {
                share_strategy: old.share_strategy,
                share_redispatch: old.share_redispatch,
                ..(*new.common).clone()
            }),
            ..new
        });
        let mut gates = Vec::new();
        for Prospect { gate, listener } in prepared.gates {
            if let Some(listener) = listener {
                change_gate(&gate, listener);
            }
            gates.push(gate);
        }
        server.set_gates(gates);
        server.note_change();
        self.config = Some(prepared.config);
        self.compare(prepared.settings)
    }

    /// Notes which settings hold now, and says which have changed.
    fn compare(&mut self, settings: Vec<Setting>) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let mut hold = Vec::new();
        for new in settings {
            let old = self.settings.iter().find(|old| old.key == new.key);
            match old {
                Some(old) if old.value == new.value => hold.push(new),
                _ if is_live(&new.key) => {
                    let from = old.map_or("(absent)", |old| &old.value);
                    let (key, to) = (&new.key, &new.value);
                    tracing::info!(%key, %from, %to, "reload: changed");
                    reloaded.changed.push(format!("{key}: {from} -> {to}"));
                    hold.push(new);
                }
                _ => {
                    reloaded.waiting.push(new.key);
                    hold.extend(old.cloned());
                }
            }
        }
        let is_gone = |old: &&Setting| !hold.iter().any(|new| new.key == old.key);
        let (live, waiting): (Vec<_>, Vec<_>) = self
            .settings
            .iter()
            .filter(is_gone)
            .partition(|old| is_live(&old.key));
        for old in live {
            let (key, from) = (&old.key, &old.value);
            tracing::info!(%key, %from, "reload: gone");
            reloaded.changed.push(format!("{key}: {from} -> (absent)"));
        }
        reloaded
            .waiting
            .extend(waiting.iter().map(|old| old.key.clone()));
        hold.extend(waiting.into_iter().cloned());
        self.settings = hold;
        reloaded
    }
}

/// Does everything that can fail.
fn prepare(server: &Server, config: Config, settings: Vec<Setting>) -> Result<Prepared, Mistakes> {
    let mut mistakes = Vec::new();
    let authenticator = Authenticator::new(&config.auth, server.password_checks().clone())
        .map(|authenticator| authenticator.with_enrolment(&config.enrolment))
        .map_err(|error| mistakes.push(error.to_string()))
        .ok();
    let acl = LoadedAcl::load(&config.auth).unwrap_or_else(|error| {
        mistakes.extend(error.lines());
        LoadedAcl::open()
    });
    let gates = prepare_gates(server, &config.listeners, &mut mistakes);
    match authenticator {
        Some(authenticator) if mistakes.is_empty() => Ok(Prepared {
            config,
            settings,
            authenticator,
            acl,
            gates,
        }),
        _ => Err(Mistakes(mistakes)),
    }
}

/// What is to be where; sockets are bound last, and not for nothing.
fn prepare_gates(
    server: &Server,
    listeners: &[ListenerConfig],
    mistakes: &mut Vec<String>,
) -> Vec<Prospect> {
    let mut tls = Vec::new();
    for config in listeners {
        let read = tls::of_listener(config, server.tls());
        tls.push(read.unwrap_or_else(|error| {
            mistakes.push(format!("listener {}: {error}", config.name));
            None
        }));
    }
    if !mistakes.is_empty() {
        return Vec::new();
    }
    let before = server.gates();
    // Sockets belong to a runtime.
    let _entered = server.runtime().enter();
    let mut prospects = Vec::new();
    for (config, tls) in listeners.iter().zip(tls) {
        if let Some(tls) = &tls {
            tls::warn(config, tls);
        }
        let is_there = |gate: &&Arc<Gate>| is_same_bind(gate.listener().config(), config);
        if let Some(gate) = before.iter().find(is_there) {
            if let (Some(new), Some(old)) = (&tls, gate.listener().tls())
                && let Err(why) = new.check_follows(old)
            {
                mistakes.push(format!("listener {}: {why}", config.name));
            }
            let listener = gate.listener().changed(config.clone(), tls);
            prospects.push(Prospect {
                gate: gate.clone(),
                listener: Some(listener),
            });
            continue;
        }
        match bind(config) {
            Ok(socket) => prospects.push(Prospect {
                gate: Gate::new(Listener::new(config.clone(), tls), socket),
                listener: None,
            }),
            Err(error) => mistakes.push(error.to_string()),
        }
    }
    prospects
}

/// Whether the socket of one is that of the other. The system chose what port 0 is, once for each name.
fn is_same_bind(one: &ListenerConfig, other: &ListenerConfig) -> bool {
    let is_chosen = matches!(&one.bind, Bind::Ip(address) if address.port() == 0);
    one.bind == other.bind && (!is_chosen || one.name == other.name)
}

fn change_gate(gate: &Gate, listener: Listener) {
    if let Some(socket) = gate.socket()
        && let Err(error) = socket.change(listener.config())
    {
        let name = &listener.config().name;
        tracing::warn!(listener = %name, %error, "the listening socket cannot be changed: tcp_user_timeout_s and unix_mode need a restart");
    }
    gate.set_listener(listener);
}

/// Keys that take effect without a restart.
fn is_live(key: &str) -> bool {
    let is_in = |section: &&str| key.starts_with(section);
    LIVE.iter().any(is_in) && !FIXED.iter().any(|fixed| key.starts_with(fixed))
}

/// Without a configuration there is nothing to look for.
const NO_LOOK_MS: u64 = 3_600_000;
/// Sections that take effect.
const LIVE: [&str; 9] = [
    "limits.",
    "profiles.",
    "auth.",
    "enrolment.",
    "history.",
    "mqtt.",
    "listeners.",
    "ban.",
    "reload.",
];
/// Limits that are fixed at the start.
const FIXED: [&str; 2] = ["limits.websocket_", "limits.tls_sessions_max"];
