//! What a bench does: who connects, who publishes what to whom, how fast and for how long.
//!
//! Options that contradict each other are refused here, with what to change.

use super::BenchError;
use super::label::LABEL_BYTES;
use crate::endpoint::Endpoint;
use crate::tls::TlsFiles;
use crate::wire::Version;
use std::net::IpAddr;
use std::time::Duration;

/// Packet ids in use at a time stay below this.
pub(super) const INFLIGHT_MAX: u16 = 60_000;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `count` connections that do nothing.
    Conn,
    /// `count` publishers; who receives is not of interest.
    Pub,
    /// `count` subscribers; who publishes is somewhere else.
    Sub,
    /// `count` publishers, one subscriber to them all.
    FanIn,
    /// One publisher, `count` subscribers.
    FanOut,
    /// `count` clients that publish to themselves.
    RoundTrip,
    /// `count` publishers, each with a subscriber of its own.
    Pairs,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each publisher sends on a schedule, whatever the broker does: the open model.
    Every(Duration),
    /// Each publisher sends as soon as its window allows: the closed model.
    Unpaced,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who talks to whom.
    pub shape: Shape,
    /// The broker.
    pub endpoint: Endpoint,
    /// Certificates, for TLS.
    pub tls_files: TlsFiles,
    /// Source addresses, used in turn; empty for whatever the system chooses.
    pub sources: Vec<IpAddr>,
    /// The version of MQTT.
    pub version: Version,
    /// What client identifiers begin with.
    pub prefix: String,
    /// The number of the first client.
    pub start_number: u32,
    /// How many clients, as the shape says.
    pub count: u32,
    /// May contain `%i`.
    pub username: Option<String>,
    /// Empty for none.
    pub password: String,
    /// 0 for none.
    pub keep_alive_s: u16,
    /// Clean session, or clean start.
    pub clean: bool,
    /// Session expiry interval, for MQTT 5.
    pub session_expiry_s: Option<u32>,
    /// How many connections are begun per second.
    pub connects_per_s: f64,
    /// May contain `%c`, `%i` and `%u`.
    pub topic: String,
    /// Of messages and subscriptions.
    pub qos: u8,
    /// Whether messages are to be retained.
    pub retain: bool,
    /// Bytes of a payload.
    pub size: usize,
    /// When messages are sent.
    pub pace: Pace,
    /// Messages that a publisher may have on the way at a time.
    pub inflight: u16,
    /// Messages of one write, without a schedule.
    pub batch: u16,
    /// Messages in total; 0 for no limit.
    pub limit: u64,
    /// How long the flow runs before anything is measured.
    pub warm_up: Duration,
    /// How long it is measured.
    pub duration: Duration,
    /// How long to wait after the last arrival for what is missing.
    pub drain: Duration,
    /// Whose CPU time and memory to report.
    pub broker_pid: Option<u32>,
}

impl Plan {
    /// Checks what single options cannot say.
    ///
    /// # Errors
    /// The options contradict each other.
    pub fn check(&self) -> Result<(), BenchError> {
        match self.contradiction() {
            Some(problem) => Err(BenchError::Options(problem)),
            None => Ok(()),
        }
    }

    fn contradiction(&self) -> Option<String> {
        let two_ends = self.publishers() > 0 && self.subscribers() > 0;
        let names_each = self.topic.contains("%i") || self.topic.contains("%c");
        let problem = if self.count == 0 || self.count > 1_000_000 {
            "-c must be 1 to 1000000".to_owned()
        } else if self.start_number.checked_add(self.count).is_none() {
            "-n and -c together exceed 4294967295".to_owned()
        } else if !(self.connects_per_s.is_finite() && self.connects_per_s > 0.0) {
            "-R must be more than 0".to_owned()
        } else if self.session_expiry_s.is_some() && self.version != Version::V5 {
            "-x is a property of MQTT 5: leave it out, or add -V 5".to_owned()
        } else if !self.password.is_empty() && self.username.is_none() {
            "-P needs a user name: add -u".to_owned()
        } else if two_ends && self.size < LABEL_BYTES {
            format!(
                "-s must be at least {LABEL_BYTES}: messages are followed by a label of that size"
            )
        } else if self.size > 8 * 1024 * 1024 {
            "-s must be at most 8388608".to_owned()
        } else if self.inflight == 0 || self.inflight > INFLIGHT_MAX {
            format!("-F must be 1 to {INFLIGHT_MAX}")
        } else if self.batch == 0 || self.batch > self.inflight {
            "--batch must be 1 to -F: a batch has to fit into the window".to_owned()
        } else if self.batch > 1 && self.pace != Pace::Unpaced {
            "--batch is for -I 0: with an interval each message has its own time".to_owned()
        } else if matches!(self.pace, Pace::Every(interval) if interval.is_zero()) {
            "-I must be 0 or more than a microsecond".to_owned()
        } else if self.shape.publishes() && self.topic.contains(['+', '#']) {
            "-t is published to, so it may not contain + or #".to_owned()
        } else if self.shape != Shape::Conn && self.topic.is_empty() {
            "-t must not be empty".to_owned()
        } else if self.topic.contains("%u") && self.username.is_none() {
            "%u in -t stands for the user name: add -u".to_owned()
        } else if matches!(self.shape, Shape::RoundTrip | Shape::Pairs)
            && self.count > 1
            && !names_each
        {
            "-t must contain %i or %c, so that each client has a topic of its own".to_owned()
        } else if self.duration.is_zero() {
            "--duration must be more than 0".to_owned()
        } else {
            return None;
        };
        Some(problem)
    }

    /// How many connections publish.
    pub(super) fn publishers(&self) -> u32 {
        match self.shape {
            Shape::Conn | Shape::Sub => 0,
            Shape::FanOut => 1,
            Shape::Pub | Shape::FanIn | Shape::RoundTrip | Shape::Pairs => self.count,
        }
    }

    /// How many connections subscribe.
    pub(super) fn subscribers(&self) -> u32 {
        match self.shape {
            Shape::Conn | Shape::Pub => 0,
            Shape::FanIn => 1,
            Shape::Sub | Shape::FanOut | Shape::RoundTrip | Shape::Pairs => self.count,
        }
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> u32 {
        match self.shape {
            Shape::Conn | Shape::RoundTrip => self.count,
            _ => self.publishers() + self.subscribers(),
        }
    }

    /// How often the broker hands out each message; 0 where that is not known.
    pub(super) fn copies(&self) -> u64 {
        match self.shape {
            Shape::Conn | Shape::Pub | Shape::Sub => 0,
            Shape::FanOut => self.count.into(),
            Shape::FanIn | Shape::RoundTrip | Shape::Pairs => 1,
        }
    }

    /// The identifier of client `index` in a role.
    pub(super) fn client_id(&self, role: &str, index: u32) -> String {
        format!("{}_{role}_{}", self.prefix, self.start_number + index)
    }

    /// Client `index`'s user name; empty for none.
    pub(super) fn username(&self, index: u32) -> String {
        let number = (self.start_number + index).to_string();
        let pattern = self.username.as_deref().unwrap_or_default();
        pattern.replace("%i", &number)
    }

    /// The topic that client `index` publishes to.
    pub(super) fn topic(&self, role: &str, index: u32) -> String {
        let number = (self.start_number + index).to_string();
        self.topic
            .replace("%i", &number)
            .replace("%c", &self.client_id(role, index))
            .replace("%u", &self.username(index))
    }

    /// What the one subscriber of `fanin` subscribes to: every level that differs between publishers is `+`.
    pub(super) fn filter_of_all(&self) -> String {
        let has_place = |level: &str| ["%i", "%c", "%u"].iter().any(|place| level.contains(place));
        let levels = self.topic.split('/');
        let levels: Vec<&str> = levels
            .map(|level| if has_place(level) { "+" } else { level })
            .collect();
        levels.join("/")
    }
}

impl Shape {
    /// Whether somebody publishes here.
    #[must_use]
    pub fn publishes(self) -> bool {
        !matches!(self, Self::Conn | Self::Sub)
    }

    /// The subcommand.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conn => "conn",
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::FanIn => "fanin",
            Self::FanOut => "fanout",
            Self::RoundTrip | Self::Pairs => "roundtrip",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A plan that contradicts itself nowhere.
    pub(in crate::bench) fn plan() -> Plan {
        Plan {
            shape: Shape::FanIn,
            endpoint: "mqtt://127.0.0.1".parse().unwrap(),
            tls_files: TlsFiles::default(),
            sources: Vec::new(),
            version: Version::V4,
            prefix: "p".to_owned(),
            start_number: 10,
            count: 3,
            username: None,
            password: String::new(),
            keep_alive_s: 60,
            clean: true,
            session_expiry_s: None,
            connects_per_s: 100.0,
            topic: "a/%i/%c/b".to_owned(),
            qos: 1,
            retain: false,
            size: 32,
            pace: Pace::Unpaced,
            inflight: 20,
            batch: 1,
            limit: 0,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            drain: Duration::from_secs(1),
            broker_pid: None,
        }
    }

    #[test]
    fn placeholders_stand_for_number_client_and_user() {
        let mut plan = plan();
        assert_eq!(plan.topic("pub", 1), "a/11/p_pub_11/b");
        assert_eq!(plan.filter_of_all(), "a/+/+/b");
        plan.username = Some("meter-%i".to_owned());
        plan.topic = "%u".to_owned();
        assert_eq!(plan.topic("pub", 2), "meter-12");
    }

    #[test]
    fn contradictions_name_the_option_to_change() {
        assert_eq!(plan().contradiction(), None);
        contradicts("-c", |plan| plan.count = 0);
        contradicts("-x", |plan| plan.session_expiry_s = Some(1));
        contradicts("-u", |plan| plan.password = "secret".to_owned());
        contradicts("-s", |plan| plan.size = 27);
        contradicts("-F", |plan| plan.inflight = 0);
        contradicts("--batch", |plan| plan.batch = 21);
        contradicts("-I 0", |plan| {
            plan.batch = 2;
            plan.pace = Pace::Every(Duration::from_secs(1));
        });
        contradicts("+", |plan| plan.topic = "a/+".to_owned());
        contradicts("-u", |plan| plan.topic = "a/%u".to_owned());
        contradicts("%i", |plan| {
            plan.shape = Shape::Pairs;
            plan.topic = "a".to_owned();
        });
        contradicts("-R", |plan| plan.connects_per_s = 0.0);
    }

    #[test]
    fn payloads_may_be_short_where_nobody_follows_them() {
        let mut plan = plan();
        (plan.shape, plan.size) = (Shape::Pub, 0);
        assert_eq!(plan.contradiction(), None);
    }

    fn contradicts(word: &str, change: impl FnOnce(&mut Plan)) {
        let mut plan = plan();
        change(&mut plan);
        let problem = plan.contradiction().unwrap();
        assert!(problem.contains(word), "{problem:?} should name {word}");
    }
}
