//! What was asked for: equal in all runs of one plan, whatever the broker.

use crate::endpoint::Endpoint;
use crate::plan::{ClientKind, Cohort, Event, Jitter, Phase, Plan, Reconnect};
use crate::threshold::Threshold;
use serde::Serialize;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// The scenario's name, or the cohort's.
    pub name: String,
    /// The start of the SHA-256 of what determines the run, the seed aside; empty without a scenario.
    pub digest: String,
    /// What determined schedule, readings and losses.
    pub seed: u64,
    /// `mqtt` or `mqtts`, `ws` or `wss`.
    pub transport: String,
    /// How many devices there were.
    pub devices: u32,
    /// How long all devices published, after the last should have connected.
    pub duration_s: f64,
    /// When all devices should have connected.
    pub steady_at_s: f64,
    /// How long to wait at most for what is on its way at the end.
    pub drain_max_s: f64,
    /// The devices.
    pub cohorts: Vec<PlannedCohort>,
    /// What happened to them.
    pub phases: Vec<PlannedPhase>,
    /// What the results had to be.
    pub thresholds: Vec<PlannedThreshold>,
}

/// Devices of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedCohort {
    /// Its name.
    pub name: String,
    /// The number of its first device.
    pub first: u32,
    /// How many devices.
    pub devices: u32,
    /// What they measure.
    pub profile: String,
    /// What is between them and the network.
    pub link: String,
    /// `v4` is MQTT 3.1.1, `v5` is MQTT 5.
    pub mqtt: String,
    /// Whether topics are named by an alias once the broker knows them.
    pub topic_alias: bool,
    /// Their client stack.
    pub client: &'static str,
    /// Where they publish.
    pub topic: String,
    /// Mean time between a device's readings.
    pub every_s: f64,
    /// How much that varies, in parts of it.
    pub jitter: f64,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Devices that begin to connect per second.
    pub connects_per_s: f64,
    /// `linear`, `step` or `poisson`.
    pub ramp: String,
    /// What a device does when its connection is gone.
    pub reconnect: String,
    /// What the broker is asked to keep.
    pub session: String,
    /// Seconds.
    pub keep_alive_s: u16,
}

/// Something that happens to the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedPhase {
    /// Since all devices should have connected.
    pub at_s: f64,
    /// The cohort it happens to; `null` is all.
    pub cohort: Option<String>,
    /// The part of the devices, 0 to 1.
    pub share: f64,
    /// What happens.
    pub event: String,
}

/// A demand on one figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedThreshold {
    /// The figure's name.
    pub figure: String,
    /// What it must be.
    pub demand: String,
}

impl Planned {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            name: plan.name.clone(),
            digest: plan.digest.clone(),
            seed: plan.seed,
            transport: scheme(&plan.endpoint),
            devices: plan.devices(),
            duration_s: plan.duration.as_secs_f64(),
            steady_at_s: plan.steady_at().as_secs_f64(),
            drain_max_s: plan.drain_max.as_secs_f64(),
            cohorts: plan.cohorts.iter().map(PlannedCohort::new).collect(),
            phases: plan.phases.iter().map(PlannedPhase::new).collect(),
            thresholds: plan.thresholds.iter().map(PlannedThreshold::new).collect(),
        }
    }
}

impl PlannedCohort {
    fn new(cohort: &Cohort) -> Self {
        Self {
            name: cohort.name.clone(),
            first: cohort.first,
            devices: cohort.devices,
            profile: cohort.profile.name.to_string(),
            link: cohort.preset.name.to_string(),
            mqtt: lower_case(&cohort.version),
            topic_alias: cohort.topic_alias,
            client: match cohort.client {
                ClientKind::Simulated => "simulated",
                ClientKind::Rumqttc => "rumqttc",
            },
            topic: cohort.topic.to_string(),
            every_s: cohort.every.as_secs_f64(),
            jitter: cohort.jitter,
            qos: cohort.qos,
            connects_per_s: cohort.ramp.connects_per_s,
            ramp: lower_case(&cohort.ramp.shape),
            reconnect: reconnect(cohort.reconnect),
            session: lower_case(&cohort.session),
            keep_alive_s: cohort.keep_alive_s,
        }
    }
}

impl PlannedPhase {
    fn new(phase: &Phase) -> Self {
        Self {
            at_s: phase.at.as_secs_f64(),
            cohort: phase.cohort.clone(),
            share: phase.share,
            event: event_text(&phase.event),
        }
    }
}

impl PlannedThreshold {
    fn new(threshold: &Threshold) -> Self {
        Self {
            figure: threshold.figure.clone(),
            demand: threshold.demand.to_string(),
        }
    }
}

/// The address without where it is: runs against two brokers have one plan.
fn scheme(endpoint: &Endpoint) -> String {
    let address = endpoint.to_string();
    let scheme = address.split("://").next();
    scheme.unwrap_or_default().to_owned()
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Kill(None) => "kill".to_owned(),
        Event::Kill(Some(policy)) => format!("kill, then reconnect {}", reconnect(*policy)),
        Event::Partition(time) => format!("partition for {} s", time.as_secs_f64()),
    }
}

fn reconnect(reconnect: Reconnect) -> String {
    match reconnect {
        Reconnect::Never => "never".to_owned(),
        Reconnect::Fixed(pause) => format!("after {} s", pause.as_secs_f64()),
        Reconnect::Exponential { base, cap, jitter } => {
            let jitter = match jitter {
                Jitter::None => "no",
                Jitter::Half => "half",
                Jitter::Full => "full",
            };
            let (base_s, cap_s) = (base.as_secs_f64(), cap.as_secs_f64());
            format!("after {base_s} s, doubling to {cap_s} s, {jitter} jitter")
        }
    }
}

/// A variant's name as programs write it.
fn lower_case(variant: &impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}
