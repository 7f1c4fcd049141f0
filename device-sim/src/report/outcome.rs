//! What a seed and an honest broker determine: counts, the digest of what was published, violations.

use crate::commander;
use crate::ledger::{Counts, Digest};
use crate::world::World;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// What a seed and an honest broker determine.
///
/// Of messages of cohorts that take commands, the payloads do not count: what they say of a command depends on
/// when it came. Exactly so as long as no device overflows and nothing is unfinished: what a device drops while it is cut
/// off, and what QoS 0 loses then, depends on milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What all published messages add up to, devices, sequences and payloads; the order does not matter.
    pub published_digest: String,
    /// The counts of all cohorts.
    pub total: Counted,
    /// The counts of each, in the plan's order.
    pub cohorts: Vec<CohortOutcome>,
    /// The counts of all commands to devices; delivered is at the device. Nothing when no cohort takes commands.
    pub commands: Option<Counted>,
    /// The broken promises, in words, with the first offender.
    pub violations: Vec<String>,
}

/// The counts of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CohortOutcome {
    /// Its name.
    pub name: String,
    /// What its published messages add up to.
    pub published_digest: String,
    /// How many came how far.
    #[serde(flatten)]
    pub counted: Counted,
}

/// How many messages came how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Readings that devices meant to send.
    pub published: u64,
    /// Readings that devices dropped because their buffer was full.
    pub overflowed: u64,
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Messages that the broker refused with a reason code (MQTT 5).
    pub rejected: u64,
    /// QoS 2 messages that devices gave up because the broker had forgotten their session.
    pub given_up: u64,
    /// Messages that reached the verifier, each counted once.
    pub delivered: u64,
    /// Acknowledged messages that did not.
    pub lost: u64,
    /// Published, and neither dropped, acknowledged, refused nor given up when the run ended (QoS 0: not delivered).
    pub unfinished: u64,
    /// Deliveries of what had been delivered before, where that is forbidden: at QoS 0 and 2.
    pub duplicated: u64,
    /// First deliveries after that of a later message of the same device.
    pub reordered: u64,
    /// First deliveries that differ from what was sent: in payload, topic, QoS or retain flag.
    pub altered: u64,
    /// Deliveries that were not the run's.
    pub foreign: u64,
}

impl Counted {
    fn new(counts: &Counts, qos: u8) -> Self {
        let arrived = match qos {
            0 => counts.delivered,
            _ => counts.acknowledged,
        };
        Self {
            published: counts.published,
            overflowed: counts.overflowed,
            acknowledged: counts.acknowledged,
            rejected: counts.rejected,
            given_up: counts.given_up,
            delivered: counts.delivered,
            lost: counts.lost,
            unfinished: counts
                .sent()
                .saturating_sub(arrived + counts.rejected + counts.given_up),
            duplicated: if qos == 1 { 0 } else { counts.duplicated },
            reordered: counts.reordered,
            altered: counts.altered,
            foreign: counts.foreign,
        }
    }
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.overflowed += other.overflowed;
        self.acknowledged += other.acknowledged;
        self.rejected += other.rejected;
        self.given_up += other.given_up;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.unfinished += other.unfinished;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.foreign += other.foreign;
    }
}

impl Outcome {
    pub(super) fn new(world: &World) -> Self {
        let mut total = Counted::default();
        let mut digest = Digest::default();
        let (mut cohorts, mut violations) = (Vec::new(), Vec::new());
        for troop in &world.troops {
            let ledger = troop.ledger();
            let counted = Counted::new(&ledger.counts(), troop.cohort.qos);
            total += counted;
            digest += ledger.digest();
            cohorts.push(CohortOutcome {
                name: troop.cohort.name.clone(),
                published_digest: ledger.digest().to_string(),
                counted,
            });
            let of_whom = match world.troops.len() {
                1 => String::new(),
                _ => format!("{}: ", troop.cohort.name),
            };
            let broken = ledger.violations().into_iter();
            violations.extend(broken.map(|violation| format!("{of_whom}{violation}")));
        }
        let mut commands = None;
        for post in commander::posts(world) {
            let ledger = post.ledger();
            let counted = Counted::new(&ledger.counts(), post.commands.qos);
            *commands.get_or_insert_with(Counted::default) += counted;
            let broken = ledger.violations().into_iter();
            violations.extend(broken.map(|violation| format!("commands: {violation}")));
        }
        // The counts of all know deliveries that are no cohort's.
        let counts = world.counts();
        (total.foreign, total.altered) = (counts.foreign, counts.altered);
        let garbled = world.verifier.garbled.load(Ordering::Relaxed);
        if garbled > 0 {
            violations.push(format!(
                "{garbled} delivered altered beyond recognition: on topics of the run, but no device's message"
            ));
        }
        Self {
            published_digest: digest.to_string(),
            total,
            cohorts,
            commands,
            violations,
        }
    }
}
