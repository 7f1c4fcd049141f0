//! Which devices are hit by what, and when: the plan's phases, drawn from the seed.
//!
//! Invariants:
//! - A phase hits its share of the devices, rounded, in each of its cohorts; which ones, the seed says.
//! - One phase more or less at the end changes nothing about those before it.
//!
//! Does not know: connections, links, the clock.

use crate::plan::{Cohort, Event, Phase, Plan, Reconnect};
use crate::seed::{Purpose, rng};
use rand::RngExt;
use std::time::Duration;

/// All that happens in a run, in the order of time.
#[derive(Debug)]
pub(crate) struct Phases(Vec<Scene>);

/// One phase, with the devices that it hits.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Since the start of the run.
    pub(crate) at: Duration,
    pub(crate) event: Event,
    /// A bit per device.
    hit: Vec<u64>,
}

impl Phases {
    /// The phases of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut phases: Vec<&Phase> = plan.phases.iter().collect();
        phases.sort_by_key(|phase| phase.at);
        let scenes = phases.iter().enumerate().map(|(number, phase)| Scene {
            at: plan.steady_at() + phase.at,
            event: phase.event.clone(),
            hit: hit(plan, phase, number),
        });
        Self(scenes.collect())
    }

    /// The first scene from number `from` on that hits the device, with its number.
    pub(crate) fn next(&self, device: u32, from: u16) -> Option<(u16, &Scene)> {
        let mut scenes = (0..).zip(&self.0).skip(from.into());
        scenes.find(|(_, scene)| scene.hits(device))
    }

    /// How devices come back that scene `number` has hit; `None` leaves it as it was.
    pub(crate) fn reconnect(&self, number: u16) -> Option<Reconnect> {
        match self.0.get(usize::from(number))?.event {
            Event::Kill(reconnect) => reconnect,
            Event::Partition(_) => None,
        }
    }
}

impl Scene {
    fn hits(&self, device: u32) -> bool {
        let (word, bit) = place(device);
        self.hit.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

/// The devices that phase `number` hits.
fn hit(plan: &Plan, phase: &Phase, number: usize) -> Vec<u64> {
    let mut hit = vec![0; plan.devices().div_ceil(64) as usize];
    let is_meant = |cohort: &&Cohort| {
        phase
            .cohort
            .as_ref()
            .is_none_or(|name| cohort.name == *name)
    };
    for cohort in plan.cohorts.iter().filter(is_meant) {
        let lot = |device| {
            let mut draws = rng(plan.seed, device, Purpose::Fate).random_iter::<u64>();
            // The first draw is for the ramp.
            (draws.nth(1 + number), device)
        };
        let mut lots: Vec<_> = cohort.indexes().map(lot).collect();
        lots.sort_unstable();
        let count = (f64::from(cohort.devices) * phase.share).round() as usize;
        for (_, device) in lots.iter().take(count) {
            let (word, bit) = place(*device);
            if let Some(bits) = hit.get_mut(word) {
                *bits |= bit;
            }
        }
    }
    hit
}

fn place(device: u32) -> (usize, u64) {
    (device as usize / 64, 1 << (device % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::Preset, profile::Profile};

    #[test]
    fn a_phase_hits_its_share_of_its_cohort() {
        let phases = Phases::new(&plan(vec![phase(1, None), phase(2, Some("b"))]));
        assert_eq!(hits(&phases, 0, 0..1_000), 300);
        assert_eq!(hits(&phases, 0, 1_000..1_010), 3);
        assert_eq!(hits(&phases, 1, 0..1_000), 0);
        assert_eq!(hits(&phases, 1, 1_000..1_010), 3);
    }

    #[test]
    fn phases_are_drawn_apart_and_by_the_seed() {
        let two = || plan(vec![phase(2, None), phase(1, None)]);
        let phases = Phases::new(&two());
        let both = |device: &u32| (0..2).all(|number| hits_one(&phases, number, *device));
        // 9 in 100 of 1,000.
        assert!((60..120).contains(&(0..1_000).filter(both).count()));
        let again = Phases::new(&two());
        let other = Phases::new(&Plan { seed: 2, ..two() });
        assert!(
            (0..1_000).all(|device| hits_one(&phases, 0, device) == hits_one(&again, 0, device))
        );
        assert!(
            (0..1_000).any(|device| hits_one(&phases, 0, device) != hits_one(&other, 0, device))
        );
    }

    #[test]
    fn a_device_meets_its_phases_in_the_order_of_time() {
        let all = |at| Phase {
            share: 1.0,
            ..phase(at, None)
        };
        let plan = plan(vec![all(20), all(10)]);
        let phases = Phases::new(&plan);
        let (number, first) = phases.next(0, 0).unwrap();
        assert_eq!(first.at, plan.steady_at() + Duration::from_secs(10));
        let (number, second) = phases.next(0, number + 1).unwrap();
        assert_eq!(second.at, plan.steady_at() + Duration::from_secs(20));
        assert!(phases.next(0, number + 1).is_none());
    }

    fn hits(phases: &Phases, number: u16, devices: std::ops::Range<u32>) -> usize {
        devices
            .filter(|device| hits_one(phases, number, *device))
            .count()
    }

    fn hits_one(phases: &Phases, number: u16, device: u32) -> bool {
        phases
            .next(device, number)
            .is_some_and(|(found, _)| found == number)
    }

    fn phase(at_s: u64, cohort: Option<&str>) -> Phase {
        Phase {
            at: Duration::from_secs(at_s),
            cohort: cohort.map(str::to_owned),
            share: 0.3,
            event: Event::Kill(None),
        }
    }

    fn plan(phases: Vec<Phase>) -> Plan {
        let cohort = |name: &str, first, devices| {
            let profile = Profile::named("power-meter").unwrap();
            let preset = Preset::named("none").unwrap();
            let mut cohort = Cohort::new(
                name,
                first,
                devices,
                profile,
                preset,
                1,
                Duration::from_secs(1),
            );
            cohort.ramp.connects_per_s = 100.0;
            cohort
        };
        Plan {
            run: "r".to_owned(),
            name: "n".to_owned(),
            digest: String::new(),
            endpoint: "mqtt://127.0.0.1".parse().unwrap(),
            tls_files: crate::TlsFiles::default(),
            login: None,
            source_addresses: Vec::new(),
            cohorts: vec![cohort("a", 0, 1_000), cohort("b", 1_000, 10)],
            phases,
            thresholds: Vec::new(),
            duration: Duration::from_secs(60),
            drain_max: Duration::from_secs(1),
            seed: 1,
        }
    }
}
