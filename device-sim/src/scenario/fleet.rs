//! The `[[cohort]]` tables of a scenario file.

use super::values::{Policy, Rate, Share, Time, Written};
use crate::link::{self, Preset};
use crate::plan::{ClientKind, Cohort, Commands, Ramp, RampShape};
use crate::profile::{self, Profile};
use crate::tls::{TlsGroup, TlsPlan, TlsVersion};
use crate::topic::TopicPattern;
use crate::wire::{Session, Version};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Devices of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CohortTable {
    name: String,
    count: u32,
    #[serde(default = "power_meter")]
    profile: String,
    #[serde(default = "no_link")]
    link: String,
    #[serde(default)]
    client: ClientName,
    #[serde(default)]
    connect: ConnectTable,
    #[serde(default)]
    publish: PublishTable,
    #[serde(default)]
    session: SessionTable,
    reconnect: Option<Policy>,
    #[serde(default)]
    tls: CohortTlsTable,
    commands: Option<CommandsTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandsTable {
    topic: Option<Written<TopicPattern>>,
    every: Time,
    #[serde(default = "at_least_once")]
    qos: u8,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClientName {
    #[default]
    Simulated,
    Rumqttc,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectTable {
    rate: Option<Rate>,
    #[serde(default)]
    shape: ShapeName,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShapeName {
    #[default]
    Linear,
    Step,
    Poisson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishTable {
    topic: Option<Written<TopicPattern>>,
    every: Option<Time>,
    jitter: Option<Share>,
    qos: Option<u8>,
    #[serde(default)]
    topic_alias: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionTable {
    version: Option<VersionName>,
    clean: Option<bool>,
    expiry: Option<Time>,
    keep_alive: Option<Time>,
    patience: Option<Time>,
}

/// `5` or `"3.1.1"`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum VersionName {
    Number(u8),
    Text(Written<Version>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CohortTlsTable {
    manifest: Option<PathBuf>,
    version: Option<Written<TlsVersion>>,
    groups: Option<Vec<Written<TlsGroup>>>,
    resumption: Option<bool>,
}

impl CohortTlsTable {
    fn plan(self) -> TlsPlan {
        let usual = TlsPlan::default();
        let groups = self
            .groups
            .map(|groups| groups.into_iter().map(|group| group.0));
        TlsPlan {
            manifest: self.manifest,
            version: self.version.map(|version| version.0),
            groups: groups.map_or(usual.groups, Iterator::collect),
            resumption: self.resumption.unwrap_or(usual.resumption),
        }
    }
}

/// What a scenario defines for its cohorts.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) links: Vec<Arc<Preset>>,
    pub(super) profiles: Vec<Arc<Profile>>,
}

fn at_least_once() -> u8 {
    1
}

fn power_meter() -> String {
    "power-meter".to_owned()
}

fn no_link() -> String {
    "none".to_owned()
}

impl CohortTable {
    /// The cohort whose first device has the number `first`.
    pub(super) fn cohort(self, first: u32, own: &Own) -> Result<Cohort, String> {
        let name = self.name.clone();
        self.try_cohort(first, own)
            .map_err(|problem| format!("cohort {name:?}: {problem}"))
    }

    fn try_cohort(self, first: u32, own: &Own) -> Result<Cohort, String> {
        if self.count == 0 {
            return Err("count must be at least 1".to_owned());
        }
        let profile = profile(&self.profile, &own.profiles)?;
        let qos = self.publish.qos.unwrap_or(profile.qos);
        if qos > 2 {
            return Err(format!("publish.qos is {qos}: write 0, 1 or 2"));
        }
        let every = Time::or(self.publish.every, profile.every);
        let mut cohort = Cohort::new(
            &self.name,
            first,
            self.count,
            profile,
            link(&self.link, &own.links)?,
            qos,
            every,
        );
        cohort.client = match self.client {
            ClientName::Simulated => ClientKind::Simulated,
            ClientName::Rumqttc => ClientKind::Rumqttc,
        };
        if let Some(Written(topic)) = self.publish.topic {
            cohort.topic = topic;
        }
        if let Some(Share(jitter)) = self.publish.jitter {
            cohort.jitter = jitter;
        }
        cohort.ramp = Ramp {
            connects_per_s: self
                .connect
                .rate
                .map_or(cohort.ramp.connects_per_s, |rate| rate.0),
            shape: match self.connect.shape {
                ShapeName::Linear => RampShape::Linear,
                ShapeName::Step => RampShape::Step,
                ShapeName::Poisson => RampShape::Poisson,
            },
        };
        if let Some(Policy(reconnect)) = self.reconnect {
            cohort.reconnect = reconnect;
        }
        if let Some(table) = self.commands {
            let mut commands = Commands::new(table.every.0, table.qos);
            if let Some(Written(topic)) = table.topic {
                commands.topic = topic;
            }
            cohort.take_commands(commands);
        }
        cohort.topic_alias = self.publish.topic_alias;
        match self.session.version {
            None => {}
            Some(VersionName::Number(number)) => cohort.version = number.to_string().parse()?,
            Some(VersionName::Text(Written(version))) => cohort.version = version,
        }
        if let Some(Time(expiry)) = self.session.expiry {
            // The longest that MQTT can say is for ever.
            cohort.expiry_s = Some(u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
        }
        cohort.patience = self.session.patience.map(|time| time.0);
        cohort.tls = self.tls.plan();
        match self.session.clean {
            Some(true) => cohort.session = Session::Clean,
            Some(false) => cohort.session = Session::Kept,
            None => {}
        }
        if let Some(Time(keep_alive)) = self.session.keep_alive {
            cohort.keep_alive_s = u16::try_from(keep_alive.as_secs())
                .map_err(|_| "session.keep_alive is at most 65535s".to_owned())?;
        }
        Ok(cohort)
    }
}

/// One of the scenario's own links, or any other that can be named.
fn link(name: &str, links: &[Arc<Preset>]) -> Result<Arc<Preset>, String> {
    match links.iter().find(|link| link.name == name) {
        Some(link) => Ok(link.clone()),
        None => link::find(name).map_err(|error| error.to_string()),
    }
}

/// One of the scenario's own profiles, or any other that can be named.
fn profile(name: &str, profiles: &[Arc<Profile>]) -> Result<Arc<Profile>, String> {
    match profiles.iter().find(|profile| profile.name == name) {
        Some(profile) => Ok(profile.clone()),
        None => profile::find(name).map_err(|error| error.to_string()),
    }
}
