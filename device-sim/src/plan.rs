//! Everything that determines a run: what a scenario file or the command line says, checked.
//!
//! Devices are numbered from 0 through all cohorts; a cohort is a contiguous range. Times of phases count from
//! the moment when all devices should have connected, so that a longer ramp shifts nothing.

use crate::SimError;
use crate::clock::run_number;
use crate::endpoint::{Endpoint, Transport};
use crate::link::Preset;
use crate::profile::{Measure, Profile};
use crate::report::check_figure;
use crate::seed::{Purpose, rng};
use crate::text::duration;
use crate::threshold::Threshold;
use crate::tls::{TlsFiles, TlsPlan};
use crate::topic::TopicPattern;
use crate::wire::{Login, Session, Version};
use aws_lc_rs::digest::{SHA256, digest};
use rand::RngExt;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A generous full handshake with client certificate, both ways.
const TLS_HANDSHAKE_BYTES: u32 = 4_000;
/// The larger half of a WebSocket upgrade.
const UPGRADE_BYTES: u32 = 250;
/// Readings between two commands to a switch, unless said otherwise.
const COMMANDS_EVERY: u32 = 3;
/// Six digits name a device.
const DEVICES_MAX: u32 = 999_999;
/// Long enough to say what devices are.
const NAME_BYTES_MAX: usize = 100;
const RUMQTTC_DEVICES_MAX: u32 = 200;
/// It panics below.
const RUMQTTC_5_KEEP_ALIVE_MIN_S: u16 = 5;

/// Everything that determines a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Names the run in topics and client ids: eight hexadecimal digits.
    pub run: String,
    /// What people call it: the scenario's name, or the cohort's.
    pub name: String,
    /// The first 16 hexadecimal digits of the SHA-256 of what determines the run, the seed aside.
    pub digest: String,
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// Authority of the broker; certificate and key of the verifier and of cohorts without their own.
    pub tls_files: TlsFiles,
    /// User name and password of the verifier and of all devices.
    pub login: Option<Login>,
    /// Local addresses to connect from, in turn; empty leaves it to the system.
    pub source_addresses: Vec<IpAddr>,
    /// The devices.
    pub cohorts: Vec<Cohort>,
    /// What happens to them, in the order of time.
    pub phases: Vec<Phase>,
    /// What the results must be.
    pub thresholds: Vec<Threshold>,
    /// How long all devices publish, after the last one has connected.
    pub duration: Duration,
    /// How long to wait at most for what is on its way when publishing ends.
    pub drain_max: Duration,
    /// Determines schedule, readings and losses.
    pub seed: u64,
}

/// Devices of one kind.
#[derive(Clone, Debug)]
pub struct Cohort {
    /// Its name in reports and topics.
    pub name: String,
    /// The number of its first device.
    pub first: u32,
    /// How many devices.
    pub devices: u32,
    /// What they measure.
    pub profile: Arc<Profile>,
    /// What is between them and the network.
    pub preset: Arc<Preset>,
    /// What they are told, if they listen.
    pub commands: Option<Commands>,
    /// Which client stack they use.
    pub client: ClientKind,
    /// Where they publish.
    pub topic: TopicPattern,
    /// Mean time between two readings of a device.
    pub every: Duration,
    /// How much the time between two readings varies, in parts of it.
    pub jitter: f64,
    /// 0, 1 or 2.
    pub qos: u8,
    /// How devices come up.
    pub ramp: Ramp,
    /// What a device does when its connection is gone.
    pub reconnect: Reconnect,
    /// Which MQTT they speak.
    pub version: Version,
    /// Whether they name their topic by an alias once the broker knows it (MQTT 5).
    pub topic_alias: bool,
    /// How they speak TLS, where the broker does.
    pub tls: TlsPlan,
    /// Whether the broker is asked to keep the session.
    pub session: Session,
    /// Seconds for which a kept session outlives its connection (MQTT 5); a day unless said otherwise.
    pub expiry_s: Option<u32>,
    /// Seconds; a device that has nothing to send pings in time. 0 is never.
    pub keep_alive_s: u16,
    /// How long a device waits for an answer before it gives the connection up; `None` is 1.5 times the keep-alive.
    pub patience: Option<Duration>,
}

/// Commands to a cohort's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// Where a device listens; no two devices share it.
    pub topic: TopicPattern,
    /// Mean time between two commands to a device.
    pub every: Duration,
    /// 0, 1 or 2.
    pub qos: u8,
}

impl Commands {
    /// One to each device in `every`, at `sim/{run}/{index}/cmd`.
    #[must_use]
    pub fn new(every: Duration, qos: u8) -> Self {
        let topic = TopicPattern::of_measure("cmd");
        Self { topic, every, qos }
    }
}

/// Which client stack devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Our own, behind the link.
    Simulated,
    /// The crate rumqttc, a task per device, without a link.
    Rumqttc,
}

/// How devices come up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Devices that begin to connect per second, on average.
    pub connects_per_s: f64,
    /// In what rhythm.
    pub shape: RampShape,
}

/// In what rhythm devices come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RampShape {
    /// One after another, evenly.
    Linear,
    /// All that fall into a second at its beginning.
    Step,
    /// At random, independently of each other.
    Poisson,
}

/// What a device does when its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reconnect {
    /// It stays away.
    Never,
    /// It comes back after this time.
    Fixed(Duration),
    /// It doubles its pause from `base` to `cap` with each failure.
    Exponential {
        /// The first pause.
        base: Duration,
        /// The longest one.
        cap: Duration,
        /// Whether the pause is drawn.
        jitter: Jitter,
    },
}

/// How a pause is drawn from its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// It is the ceiling.
    None,
    /// Between half of it and it.
    Half,
    /// Between zero and it.
    Full,
}

/// Something that happens to the fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Since all devices should have connected.
    pub at: Duration,
    /// The cohort it happens to; `None` is all.
    pub cohort: Option<String>,
    /// The part of the devices it happens to, 0 to 1.
    pub share: f64,
    /// What happens.
    pub event: Event,
}

/// What happens in a phase.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Connections break without a word; from then on devices come back like this, if it is given.
    Kill(Option<Reconnect>),
    /// Links carry nothing for this time.
    Partition(Duration),
}

impl Plan {
    /// A name that no other run on this machine has.
    #[must_use]
    pub fn new_run_name() -> String {
        format!("{:08x}", run_number())
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.cohorts.iter().map(|cohort| cohort.devices).sum()
    }

    /// The MQTT client id of a device without a certificate of its own.
    #[must_use]
    pub fn client_id(&self, device: u32) -> String {
        format!("sim-{}-{device:06}", self.run)
    }

    /// When all devices should have connected.
    #[must_use]
    pub fn steady_at(&self) -> Duration {
        let ready = |cohort: &Cohort| {
            let ramp_s = f64::from(cohort.devices) / cohort.ramp.connects_per_s;
            Duration::from_secs_f64(ramp_s) + self.settle_time(cohort)
        };
        self.cohorts.iter().map(ready).max().unwrap_or_default()
    }

    /// How long a device has to connect before its first reading can fall due.
    pub(crate) fn settle_time(&self, cohort: &Cohort) -> Duration {
        let (round_trips, bytes) = match self.endpoint.transport {
            Transport::Tcp => (2, 250),
            Transport::Tls => (3, TLS_HANDSHAKE_BYTES + 250),
        };
        match self.endpoint.websocket_path {
            None => cohort.preset.settle_time(round_trips, bytes),
            Some(_) => cohort
                .preset
                .settle_time(round_trips + 1, bytes + UPGRADE_BYTES),
        }
    }

    /// When devices stop taking readings.
    pub(crate) fn publish_until(&self) -> Duration {
        self.steady_at() + self.duration
    }

    /// [`Plan::digest`]: equal for equal plans of one version of the simulator, whatever seed and broker.
    #[must_use]
    pub fn make_digest(&self) -> String {
        let (cohorts, phases, thresholds) = (&self.cohorts, &self.phases, &self.thresholds);
        let times = (self.duration, self.drain_max);
        let text = format!("{cohorts:?}{phases:?}{thresholds:?}{times:?}");
        let digest = digest(&SHA256, text.as_bytes());
        let bytes = digest.as_ref().iter().take(8);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks what the parts cannot say alone.
    ///
    /// # Errors
    /// [`SimError::Plan`] with what to change.
    pub fn check(&self) -> Result<(), SimError> {
        let wrong = |problem: String| Err(SimError::Plan(problem));
        let mut taken = BTreeSet::new();
        for Cohort { name, .. } in &self.cohorts {
            check_name(name).map_err(SimError::Plan)?;
            if !taken.insert(name) {
                return wrong(format!(
                    "two cohorts have the name {name:?}: give each a name of its own"
                ));
            }
        }
        if !(1..=DEVICES_MAX).contains(&self.devices()) {
            return wrong(format!(
                "a run has 1 to {DEVICES_MAX} devices: change --devices or count"
            ));
        }
        if self.login.as_ref().is_some_and(is_too_long) {
            return wrong("user name and password are limited to 65535 bytes each".to_owned());
        }
        if let Some(late) = self.phases.iter().find(|phase| phase.at > self.duration) {
            return wrong(format!(
                "a phase at {} s never happens: devices publish for {} s; make --duration or duration longer",
                late.at.as_secs_f64(),
                self.duration.as_secs_f64()
            ));
        }
        let is_real = |cohort: &&Cohort| cohort.client == ClientKind::Rumqttc;
        if !self.source_addresses.is_empty()
            && let Some(cohort) = self.cohorts.iter().find(is_real)
        {
            return wrong(format!(
                "cohort {:?}: the client rumqttc opens its own sockets: leave --source-ip out, or choose the client simulated",
                cohort.name
            ));
        }
        for phase in &self.phases {
            if let Some(name) = &phase.cohort
                && !self.cohorts.iter().any(|cohort| cohort.name == *name)
            {
                return wrong(format!(
                    "a phase names the cohort {name:?}, which does not exist"
                ));
            }
            let is_meant = |cohort: &&Cohort| {
                phase
                    .cohort
                    .as_ref()
                    .is_none_or(|name| cohort.name == *name)
            };
            let mut meant = self.cohorts.iter().filter(is_meant);
            if let Some(cohort) = meant.find(is_real) {
                return wrong(format!(
                    "cohort {:?}: phases cannot happen to the client rumqttc, which has its own sockets: choose the client simulated",
                    cohort.name
                ));
            }
        }
        let names = self.cohorts.iter().map(|cohort| cohort.name.as_str());
        for Threshold { figure, .. } in &self.thresholds {
            check_figure(figure, names.clone())
                .map_err(|problem| SimError::Plan(format!("threshold: {problem}")))?;
        }
        for cohort in &self.cohorts {
            if let Err(problem) = cohort.check(&self.endpoint) {
                return wrong(format!("cohort {:?}: {problem}", cohort.name));
            }
        }
        Ok(())
    }
}

impl Cohort {
    /// Devices that do what devices of this profile do on this link.
    #[must_use]
    pub fn new(
        name: &str,
        first: u32,
        devices: u32,
        profile: Arc<Profile>,
        preset: Arc<Preset>,
        qos: u8,
        every: Duration,
    ) -> Self {
        let is_switch = profile.measure == Measure::Switch;
        let commands = is_switch.then(|| Commands::new(every * COMMANDS_EVERY, 1));
        let session = match commands {
            Some(_) => Session::Kept,
            None => Session::needed_for(qos),
        };
        Self {
            name: name.to_owned(),
            first,
            devices,
            commands,
            topic: TopicPattern::of_measure(&profile.topic),
            jitter: profile.jitter,
            profile,
            preset,
            client: ClientKind::Simulated,
            every,
            qos,
            ramp: Ramp {
                connects_per_s: 50.0,
                shape: RampShape::Linear,
            },
            reconnect: Reconnect::default(),
            version: Version::V4,
            topic_alias: false,
            tls: TlsPlan::default(),
            session,
            expiry_s: None,
            keep_alive_s: keep_alive_s(every),
            patience: None,
        }
    }

    /// Has its devices take these commands, and keep their sessions, so that commands wait while a device is away.
    pub fn take_commands(&mut self, commands: Commands) {
        self.commands = Some(commands);
        self.session = Session::Kept;
    }

    /// The numbers of its devices.
    #[must_use]
    pub fn indexes(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.devices
    }

    /// When a device begins to connect.
    pub(crate) fn connects_at(&self, seed: u64, device: u32) -> Duration {
        let place = f64::from(device - self.first);
        let evenly_s = place / self.ramp.connects_per_s;
        Duration::from_secs_f64(match self.ramp.shape {
            RampShape::Linear => evenly_s,
            RampShape::Step => evenly_s.floor(),
            // Of a Poisson process whose number of events is known, each is anywhere, whatever the others do.
            RampShape::Poisson => {
                let whole_s = f64::from(self.devices) / self.ramp.connects_per_s;
                rng(seed, device, Purpose::Fate).random_range(0.0..whole_s)
            }
        })
    }

    fn check_commands(&self, commands: &Commands) -> Result<(), String> {
        if commands.every < Duration::from_millis(10) {
            return Err("commands to a device are at least 10 ms apart".to_owned());
        }
        if commands.qos > 2 {
            return Err(format!("commands.qos is {}: write 0, 1 or 2", commands.qos));
        }
        if !commands.topic.is_of_one_device() {
            return Err(format!(
                "the commands' topic {} is that of many devices: write {{index}} or {{id}} into it",
                commands.topic
            ));
        }
        if self.client == ClientKind::Rumqttc {
            return Err("the client rumqttc takes no commands: choose another profile".to_owned());
        }
        Ok(())
    }

    fn check(&self, endpoint: &Endpoint) -> Result<(), String> {
        if self.every < Duration::from_millis(10) || self.every > Duration::from_secs(30 * 86_400) {
            return Err("--every must be 10 ms to 30 d".to_owned());
        }
        if let Some(commands) = &self.commands {
            self.check_commands(commands)?;
        }
        if self.version == Version::V4 && (self.topic_alias || self.expiry_s.is_some()) {
            return Err(
                "topic aliases and session expiry are of MQTT 5: add --mqtt-version 5 or version = 5"
                    .to_owned(),
            );
        }
        if self.expiry_s.is_some() && self.session == Session::Clean {
            return Err("a session that is not kept has no expiry: clean = false".to_owned());
        }
        if self.tls.manifest.is_some() && endpoint.transport == Transport::Tcp {
            return Err(
                "has certificates, but the broker's address has no TLS: write mqtts://".to_owned(),
            );
        }
        if self.tls.groups.is_empty() {
            return Err("needs a group for TLS: x25519 or secp256r1".to_owned());
        }
        if self.client == ClientKind::Simulated {
            return Ok(());
        }
        if self.preset.up_bits_per_s.is_some() {
            return Err(
                "rumqttc opens its own sockets, which no link can delay: choose the link none, or put `motemq-sim proxy` between"
                    .to_owned(),
            );
        }
        if self.devices > RUMQTTC_DEVICES_MAX {
            return Err(format!(
                "the client rumqttc runs a task per device: at most {RUMQTTC_DEVICES_MAX} devices"
            ));
        }
        if endpoint.websocket_path.is_some() {
            return Err(
                "the client rumqttc is built without WebSocket: write mqtt:// or mqtts://, or choose the client simulated"
                    .to_owned(),
            );
        }
        if self.topic_alias {
            return Err(
                "the client rumqttc names topics in full: leave topic aliases out, or choose the client simulated"
                    .to_owned(),
            );
        }
        if self.version == Version::V5 && self.keep_alive_s < RUMQTTC_5_KEEP_ALIVE_MIN_S {
            return Err(format!(
                "rumqttc's client for MQTT 5 has a keep-alive of at least {RUMQTTC_5_KEEP_ALIVE_MIN_S} s: keep_alive = \"60s\""
            ));
        }
        Ok(())
    }
}

/// Longer than any pause between two readings, so that no pings are needed.
fn keep_alive_s(every: Duration) -> u16 {
    let keep_alive_s = (every.as_secs() * 5 / 2).max(60);
    u16::try_from(keep_alive_s).unwrap_or(u16::MAX)
}

impl Default for Reconnect {
    /// Doubling from a second to a minute.
    fn default() -> Self {
        Self::Exponential {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(60),
            jitter: Jitter::Half,
        }
    }
}

impl Reconnect {
    /// Doubling from `base` to `cap`.
    ///
    /// # Errors
    /// `base` is more than `cap`.
    pub fn exponential(base: Duration, cap: Duration, jitter: Jitter) -> Result<Self, String> {
        if base > cap {
            return Err(format!(
                "the first pause, {} s, is more than the longest, {} s",
                base.as_secs_f64(),
                cap.as_secs_f64()
            ));
        }
        Ok(Self::Exponential { base, cap, jitter })
    }
}

impl FromStr for Reconnect {
    type Err = String;

    /// `never`, `fixed:5s`, `exp:1s:60s:full`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["never" | "none"] => Ok(Self::Never),
            ["fixed", pause] => Ok(Self::Fixed(duration(pause)?)),
            ["exp"] => Ok(Self::default()),
            ["exp", base, cap, jitter] => {
                Self::exponential(duration(base)?, duration(cap)?, jitter.parse()?)
            }
            _ => Err(format!(
                "{text:?} is no way to reconnect: write never, fixed:5s or exp:1s:60s:full"
            )),
        }
    }
}

impl FromStr for Jitter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "half" => Ok(Self::Half),
            "full" => Ok(Self::Full),
            _ => Err(format!(
                "jitter {text:?} is unknown: write none, half or full"
            )),
        }
    }
}

/// A cohort's name stands in topics and in lines of text.
fn check_name(name: &str) -> Result<(), String> {
    let is_wrong = |letter: char| "/+#{}".contains(letter) || letter.is_control();
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a cohort has the name {name:?}: give it one of 1 to {NAME_BYTES_MAX} bytes"
        ));
    }
    match name.chars().find(|letter| is_wrong(*letter)) {
        Some(letter) => Err(format!(
            "cohort {name:?}: take {letter:?} out of the name, which may stand in topics"
        )),
        None => Ok(()),
    }
}

fn is_too_long(login: &Login) -> bool {
    login.username.len() > 65_535 || login.password.len() > 65_535
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_reconnect_are_written_in_a_line() {
        let parse = |text: &str| text.parse::<Reconnect>();
        assert_eq!(parse("never"), Ok(Reconnect::Never));
        let five = Duration::from_secs(5);
        assert_eq!(parse("fixed:5s"), Ok(Reconnect::Fixed(five)));
        assert_eq!(
            parse("exp:500ms:5s:none"),
            Ok(Reconnect::Exponential {
                base: Duration::from_millis(500),
                cap: five,
                jitter: Jitter::None,
            })
        );
        for wrong in [
            "",
            "often",
            "fixed",
            "fixed:5",
            "exp:1s",
            "exp:1s:2s:much",
            "exp:60s:1s:half",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
    #[test]
    fn what_rumqttc_cannot_is_refused_with_what_to_change() {
        let real = |change: &dyn Fn(&mut Cohort), endpoint: &str| {
            let profile = Profile::named("power-meter").unwrap();
            let preset = Preset::named("none").unwrap();
            let every = Duration::from_secs(1);
            let mut cohort = Cohort::new("meters", 0, 1, profile, preset, 1, every);
            cohort.client = ClientKind::Rumqttc;
            cohort.version = Version::V5;
            change(&mut cohort);
            cohort.check(&endpoint.parse().unwrap())
        };
        let (tcp, tls) = ("mqtt://localhost", "mqtts://localhost");
        assert_eq!(real(&|_| (), tcp), Ok(()));
        assert_eq!(real(&|_| (), tls), Ok(()));
        let refused = |change: &dyn Fn(&mut Cohort), endpoint, advice| {
            let problem = real(change, endpoint).unwrap_err();
            assert!(problem.contains(advice), "{problem}");
        };
        refused(&|_| (), "ws://localhost", "write mqtt://");
        refused(&|_| (), "wss://localhost", "write mqtt://");
        refused(
            &|cohort| cohort.topic_alias = true,
            tcp,
            "leave topic aliases out",
        );
        refused(&|cohort| cohort.keep_alive_s = 4, tcp, "keep_alive = ");
        let gprs = Preset::named("gprs").unwrap();
        refused(
            &|cohort| cohort.preset = gprs.clone(),
            tcp,
            "choose the link none",
        );
    }
}
