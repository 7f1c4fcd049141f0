//! Scenario files: a whole run in TOML.
//!
//! Keys that do not exist, values without their unit and names that nothing has are errors with line and column.
//! Paths are relative to the file. What the command line says besides goes before the file.

mod fleet;
mod values;

use crate::SimError;
use crate::endpoint::Endpoint;
use crate::link::Definition;
use crate::plan::{Cohort, Event, Phase, Plan};
use crate::profile;
use crate::threshold::{Demand, Threshold};
use crate::tls::TlsFiles;
use crate::wire::Login;
use fleet::{CohortTable, Own};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use values::{Policy, Share, Time, Written};

/// How long all devices publish unless said otherwise.
pub const DURATION: Duration = Duration::from_secs(30);
const DRAIN_MAX: Duration = Duration::from_secs(20);
const SEED: u64 = 42;

/// What the command line says besides a scenario file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The broker.
    pub broker: Option<Endpoint>,
    /// The seed.
    pub seed: Option<u64>,
    /// How long all devices publish.
    pub duration: Option<Duration>,
    /// How long to wait at the end.
    pub drain_max: Option<Duration>,
    /// Certificates; each file that is given goes before the scenario's.
    pub tls_files: TlsFiles,
    /// User name and password.
    pub login: Option<Login>,
    /// Local addresses.
    pub source_addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    seed: Option<u64>,
    broker: Option<Written<Endpoint>>,
    duration: Option<Time>,
    drain: Option<Time>,
    username: Option<String>,
    #[serde(default)]
    source_addresses: Vec<IpAddr>,
    #[serde(default)]
    tls: TlsTable,
    #[serde(default)]
    link: Vec<Definition>,
    #[serde(default)]
    profile: Vec<profile::Definition>,
    cohort: Vec<CohortTable>,
    #[serde(default)]
    phase: Vec<PhaseTable>,
    #[serde(default)]
    thresholds: BTreeMap<String, Written<Demand>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseTable {
    at: Time,
    cohort: Option<String>,
    kill: Option<Share>,
    reconnect: Option<Policy>,
    partition: Option<Share>,
    #[serde(rename = "for")]
    lasts: Option<Time>,
}

/// Reads the plan that a scenario file describes.
///
/// # Errors
/// [`SimError::Scenario`] with the place in the file and what to write.
pub fn read(path: &Path, overrides: Overrides) -> Result<Plan, SimError> {
    let wrong = |problem: String| SimError::Scenario {
        path: path.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    parse(&text, &stem, folder, overrides).map_err(wrong)
}

fn parse(text: &str, stem: &str, folder: &Path, overrides: Overrides) -> Result<Plan, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut own = Own::default();
    for definition in &file.link {
        let link = definition.preset().map_err(|error| error.to_string())?;
        own.links.push(Arc::new(link));
    }
    for definition in &file.profile {
        let profile = definition.profile().map_err(|error| error.to_string())?;
        own.profiles.push(Arc::new(profile));
    }
    let mut cohorts = Vec::new();
    let mut first = 0_u32;
    for table in file.cohort {
        let mut cohort = table.cohort(first, &own)?;
        let manifest = cohort.tls.manifest.take();
        cohort.tls.manifest = manifest.map(|path| folder.join(path));
        first = first.saturating_add(cohort.devices);
        cohorts.push(cohort);
    }
    let mut phases = Vec::new();
    for table in file.phase {
        phases.push(table.phase()?);
    }
    phases.sort_by_key(|phase| phase.at);
    let threshold = |(figure, Written(demand))| Threshold { figure, demand };
    let thresholds = file.thresholds.into_iter().map(threshold).collect();
    let login = |username| Login {
        username,
        password: password(),
    };
    let ours = |path: Option<PathBuf>| path.map(|path| folder.join(path));
    let given = overrides;
    let settings = Overrides {
        broker: given.broker.or_else(|| file.broker.map(|broker| broker.0)),
        seed: given.seed.or(file.seed),
        duration: given.duration.or_else(|| file.duration.map(|time| time.0)),
        drain_max: given.drain_max.or_else(|| file.drain.map(|time| time.0)),
        tls_files: TlsFiles {
            authority: given.tls_files.authority.or_else(|| ours(file.tls.ca)),
            certificate: given.tls_files.certificate.or_else(|| ours(file.tls.cert)),
            private_key: given.tls_files.private_key.or_else(|| ours(file.tls.key)),
        },
        login: given.login.or_else(|| file.username.map(login)),
        source_addresses: match given.source_addresses {
            none if none.is_empty() => file.source_addresses,
            given => given,
        },
    };
    let name = file.name.unwrap_or_else(|| stem.to_owned());
    Ok(settings.plan(name, cohorts, phases, thresholds))
}

/// The password that goes with a user name.
#[must_use]
pub fn password() -> String {
    std::env::var("MOTEMQ_SIM_PASSWORD").unwrap_or_default()
}

impl Overrides {
    /// The plan of a fleet, with defaults for what is not said.
    #[must_use]
    pub fn plan(
        self,
        name: String,
        cohorts: Vec<Cohort>,
        phases: Vec<Phase>,
        thresholds: Vec<Threshold>,
    ) -> Plan {
        let mut plan = Plan {
            run: Plan::new_run_name(),
            name,
            digest: String::new(),
            endpoint: self.broker.unwrap_or_else(Endpoint::local),
            tls_files: self.tls_files,
            login: self.login,
            source_addresses: self.source_addresses,
            cohorts,
            phases,
            thresholds,
            duration: self.duration.unwrap_or(DURATION),
            drain_max: self.drain_max.unwrap_or(DRAIN_MAX),
            seed: self.seed.unwrap_or(SEED),
        };
        plan.digest = plan.make_digest();
        plan
    }
}

impl PhaseTable {
    fn phase(self) -> Result<Phase, String> {
        let at = self.at.0;
        let problem = |what: &str| Err(format!("the phase at {} s {what}", at.as_secs_f64()));
        let (share, event) = match (self.kill, self.partition, self.lasts) {
            (Some(share), None, None) => {
                let reconnect = self.reconnect.map(|policy| policy.0);
                (share.0, Event::Kill(reconnect))
            }
            (Some(_), None, Some(_)) => return problem("has kill and for: a kill takes no time"),
            (None, Some(_), Some(_)) if self.reconnect.is_some() => {
                return problem("has partition and reconnect: write reconnect in the cohort");
            }
            (None, Some(share), Some(time)) => (share.0, Event::Partition(time.0)),
            (None, Some(_), None) => {
                return problem("has no end: add for = \"30s\" beside partition");
            }
            _ => return problem("needs one of kill = \"30 %\" and partition = \"30 %\""),
        };
        Ok(Phase {
            at,
            cohort: self.cohort,
            share,
            event,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Jitter, Reconnect};
    use crate::tls::{TlsGroup, TlsPlan, TlsVersion};

    #[test]
    fn a_scenario_is_read_with_defaults_and_overrides() {
        let text = r#"
            seed = 7
            broker = "mqtts://broker.example"
            duration = "10m"
            [tls]
            ca = "pki/ca.crt"
            [[cohort]]
            name = "meters"
            count = 5000
            link = "nb-iot"
            connect = { rate = "50/s", shape = "poisson" }
            publish = { topic = "fleet/{site}/{id}/energy", every = "30s", jitter = "30 %", qos = 1 }
            reconnect = "fixed:5s"
            tls = { manifest = "pki/fleet.csv", version = "1.2", groups = ["secp256r1", "x25519"], resumption = false }
            [[cohort]]
            name = "plugs"
            count = 10
            [[phase]]
            at = "5m"
            kill = "30 %"
            reconnect = { policy = "exp", base = "1s", cap = "60s", jitter = "full" }
            [[phase]]
            at = "1m"
            cohort = "plugs"
            partition = 1.0
            for = "30s"
            [thresholds]
            "publish_ack_seconds.p99" = "< 5s"
            lost = "== 0"
        "#;
        let overrides = Overrides {
            seed: Some(8),
            ..Overrides::default()
        };
        let plan = parse(text, "stem", Path::new("/there"), overrides).unwrap();
        plan.check().unwrap();
        assert_eq!((plan.seed, plan.name.as_str()), (8, "stem"));
        assert_eq!(plan.endpoint.to_string(), "mqtts://broker.example:8883");
        assert_eq!(plan.duration, Duration::from_secs(600));
        assert_eq!(plan.drain_max, DRAIN_MAX);
        assert_eq!(plan.tls_files.authority, Some("/there/pki/ca.crt".into()));
        let [meters, plugs] = &plan.cohorts[..] else {
            panic!("two cohorts");
        };
        assert_eq!((meters.first, meters.devices), (0, 5_000));
        assert_eq!((plugs.first, plugs.devices), (5_000, 10));
        assert_eq!(meters.topic.to_string(), "fleet/{site}/{id}/energy");
        assert_eq!(meters.preset.name, "nb-iot");
        assert_eq!(meters.reconnect, Reconnect::Fixed(Duration::from_secs(5)));
        let tls = TlsPlan {
            manifest: Some("/there/pki/fleet.csv".into()),
            version: Some(TlsVersion::V12),
            groups: vec![TlsGroup::Secp256r1, TlsGroup::X25519],
            resumption: false,
        };
        assert_eq!(meters.tls, tls);
        assert_eq!(plugs.tls, TlsPlan::default());
        assert_eq!(plugs.preset.name, "none");
        assert_eq!(
            plan.phases[0].event,
            Event::Partition(Duration::from_secs(30))
        );
        let Event::Kill(Some(Reconnect::Exponential { jitter, .. })) = plan.phases[1].event else {
            panic!("a kill with a policy");
        };
        assert_eq!((plan.phases[1].share, jitter), (0.3, Jitter::Full));
        assert_eq!(plan.thresholds.len(), 2);
        assert_eq!(plan.digest.len(), 16);
    }

    #[test]
    fn a_scenario_has_links_of_its_own() {
        let text = r#"
            [[link]]
            name = "basement"
            based_on = "nb-iot"
            loss = "4 %"
            [[cohort]]
            name = "meters"
            count = 1
            link = "basement"
        "#;
        let plan = parse(text, "s", Path::new(""), Overrides::default()).unwrap();
        let preset = &plan.cohorts[0].preset;
        assert_eq!((&*preset.name, preset.loss), ("basement", 0.04));
    }

    #[test]
    fn a_scenario_has_profiles_of_its_own() {
        let text = r#"
            [[profile]]
            name = "leaky"
            based_on = "water-meter"
            every = "1m"
            topic = "water"
            [profile.series]
            spikes = "5 %"
            [[cohort]]
            name = "meters"
            count = 1
            profile = "leaky"
        "#;
        let plan = parse(text, "s", Path::new(""), Overrides::default()).unwrap();
        let cohort = &plan.cohorts[0];
        assert_eq!(cohort.profile.series.spikes, 0.05);
        assert_eq!(
            (cohort.every, cohort.jitter),
            (Duration::from_secs(60), 0.0)
        );
        assert_eq!(cohort.topic.to_string(), "sim/{run}/{index}/water");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cohort = "[[cohort]]\nname = \"a\"\ncount = 1\n";
        for (text, words) in [
            ("", "missing field `cohort`"),
            ("[[cohort]]\nname = \"a\"", "missing field `count`"),
            ("[[cohort]]\nname = \"a\"\ncount = 0", "count"),
            (&format!("sed = 1\n{cohort}"), "unknown field `sed`"),
            (&format!("duration = 10\n{cohort}"), "line 1, column 12"),
            (&format!("duration = \"10\"\n{cohort}"), "500ms, 30s"),
            (&format!("broker = \"x://y\"\n{cohort}"), "mqtt://HOST:PORT"),
            (&format!("{cohort}link = \"nbiot\""), "nb-iot"),
            (&format!("{cohort}profile = \"power-metre\""), "power-meter"),
            (
                &format!("{cohort}publish = {{ topic = \"a/#\" }}"),
                "neither + nor #",
            ),
            (&format!("{cohort}publish = {{ qos = 3 }}"), "0, 1 or 2"),
            (&format!("{cohort}reconnect = \"often\""), "exp:1s:60s:full"),
            (
                &format!("{cohort}[[phase]]\nat = \"1s\""),
                "kill = \"30 %\"",
            ),
            (
                &format!("{cohort}[[phase]]\nat = \"1s\"\npartition = 1"),
                "for =",
            ),
            (
                &format!("{cohort}[thresholds]\nlost = 0"),
                "write a relation",
            ),
            (
                &format!("{cohort}[thresholds]\nlost = \"zero\""),
                "write a relation",
            ),
        ] {
            let outcome = parse(text, "s", Path::new(""), Overrides::default());
            let error = outcome.unwrap_err();
            assert!(error.contains(words), "{text}\n{error}");
        }
    }

    #[test]
    fn the_digest_tells_scenarios_apart_but_not_seeds_and_brokers() {
        let digest = |text: &str| {
            let plan = parse(text, "s", Path::new(""), Overrides::default()).unwrap();
            plan.digest
        };
        let cohort = "[[cohort]]\nname = \"a\"\ncount = 1\n";
        let plain = digest(cohort);
        assert_eq!(
            digest(&format!("seed = 9\nbroker = \"mqtt://b\"\n{cohort}")),
            plain
        );
        assert_ne!(digest(&format!("duration = \"1m\"\n{cohort}")), plain);
        assert_ne!(digest(&cohort.replace('1', "2")), plain);
    }
}
