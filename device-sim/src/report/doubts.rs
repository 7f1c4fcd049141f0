//! Why a run proves nothing although no promise was seen to be broken.

use super::Report;
use crate::plan::{Cohort, Event, Plan, Reconnect};
use crate::world::World;
use std::sync::atomic::Ordering;

/// The doubts, in words; empty when the run proves what it says.
pub(super) fn doubts(world: &World, report: &Report) -> Vec<String> {
    let (total, measured) = (&report.outcome.total, &report.measured);
    let verifier = &world.verifier;
    let mut doubts = Vec::new();
    let mut doubt_if = |is_doubtful: bool, words: String| {
        if is_doubtful {
            doubts.push(words);
        }
    };
    doubt_if(
        world.is_interrupted(),
        "it was interrupted before its time".to_owned(),
    );
    doubt_if(
        total.published == 0,
        "no reading fell due: make --duration longer or --every shorter".to_owned(),
    );
    doubt_if(
        total.published > 0 && total.delivered == 0,
        "nothing arrived".to_owned(),
    );
    let never = u64::from(report.plan.devices).saturating_sub(measured.total.ever_connected);
    doubt_if(never > 0, format!("{never} devices never connected"));
    let cohorts = world.plan.cohorts.iter().zip(&report.outcome.cohorts);
    let unfinished: u64 = cohorts
        .filter(|(cohort, _)| cohort.qos > 0 && comes_back(&world.plan, cohort))
        .map(|(_, outcome)| outcome.counted.unfinished)
        .sum();
    doubt_if(
        unfinished > 0,
        format!(
            "{unfinished} readings were neither acknowledged nor refused when it ended: is the broker alive, is --drain long enough?"
        ),
    );
    let given_up = total.given_up;
    doubt_if(
        given_up > 0,
        format!(
            "{given_up} messages were given up in the middle of QoS 2: the broker forgot their sessions"
        ),
    );
    let lost = verifier.sessions_lost.load(Ordering::Relaxed);
    doubt_if(
        lost > 0,
        format!(
            "the broker forgot the verifier's session {lost} times: what it should have kept meanwhile was not looked for"
        ),
    );
    doubt_if(
        verifier.is_away.load(Ordering::Relaxed),
        "the verifier had no connection when it ended".to_owned(),
    );
    doubt_if(
        !measured.valid,
        "INVALID: this machine was too slow, more than 5 % of the readings were late".to_owned(),
    );
    doubts
}

/// Whether all its devices come back when their connection is gone.
fn comes_back(plan: &Plan, cohort: &Cohort) -> bool {
    let leaves_for_good = plan.phases.iter().any(|phase| {
        let is_hit = phase
            .cohort
            .as_ref()
            .is_none_or(|name| *name == cohort.name);
        is_hit && phase.event == Event::Kill(Some(Reconnect::Never))
    });
    cohort.reconnect != Reconnect::Never && !leaves_for_good
}
