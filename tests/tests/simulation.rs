//! The simulation in a bounded number of seeds, and the controls that show that its checker can fail.

use motemq_tests::simulation::{self, Fault, Rule, Traffic};

#[test]
fn the_delivery_contract_holds_in_every_seed() {
    for seed in 0..SEEDS {
        let outcome = simulation::run(seed, Fault::None, Traffic::Mixed);
        assert!(
            outcome.is_ok(),
            "{}",
            simulation::report(seed, Fault::None, Traffic::Mixed)
        );
    }
}

#[test]
fn clean_sessions_and_qos_0_never_reach_the_journal() {
    for seed in 0..SEEDS / 4 {
        let outcome = simulation::run(seed, Fault::None, Traffic::Volatile);
        assert!(
            outcome.is_ok(),
            "{}",
            simulation::report(seed, Fault::None, Traffic::Volatile)
        );
    }
}

#[test]
fn a_seed_is_the_same_story_every_time() {
    for seed in [3, 77, 1234] {
        let first = simulation::story(seed, Fault::None, Traffic::Mixed);
        assert_eq!(first, simulation::story(seed, Fault::None, Traffic::Mixed));
    }
}

// The controls: each breaks one rule, and the checker must say which promise is broken.

#[test]
fn control_acknowledging_before_the_commit_is_noticed() {
    check(
        Fault::AcknowledgesBeforeCommit,
        // What a share group lost so is noticed as what reached nobody.
        &[
            Rule::AcknowledgedLost,
            Rule::SessionPresent,
            Rule::Duplicate,
            Rule::Stalled,
        ],
    );
}

#[test]
fn control_a_lying_fsync_is_noticed() {
    check(
        Fault::FsyncLies,
        &[
            Rule::AcknowledgedLost,
            Rule::SessionPresent,
            Rule::Duplicate,
        ],
    );
}

#[test]
fn control_qos_2_delivered_before_its_id_is_durable_is_noticed() {
    check(
        Fault::QoS2DeliveredBeforeDurable,
        // A PUBREC that is held back with it can slip out between two commits, and is then a promise broken as well; one that
        // never finds the journal at rest looks like a stall.
        &[
            Rule::Duplicate,
            Rule::Protocol,
            Rule::AcknowledgedLost,
            Rule::Stalled,
            Rule::Retained,
        ],
    );
}

#[test]
fn mutant_publishes_acknowledged_early() {
    check(
        Fault::PublishAcknowledgedEarly,
        &[
            Rule::AcknowledgedLost,
            Rule::Protocol,
            Rule::Stalled,
            Rule::Retained,
        ],
    );
}

#[test]
fn mutant_pubcomp_before_the_id_is_free_on_disk() {
    check(
        Fault::PubCompEarly,
        &[Rule::AcknowledgedLost, Rule::Protocol],
    );
}

#[test]
fn mutant_removals_of_inbound_ids_are_lost() {
    // A new message under an id that was never freed counts as a repetition: it is acknowledged, and neither delivered nor retained.
    check(
        Fault::InboundRemovedLost,
        &[Rule::AcknowledgedLost, Rule::Retained, Rule::Stalled],
    );
}

#[test]
fn mutant_inbound_ids_are_lost() {
    check(
        Fault::InboundIdLost,
        &[Rule::AcknowledgedLost, Rule::Duplicate],
    );
}

#[test]
fn mutant_releases_are_lost() {
    check(Fault::ReleaseLost, &[Rule::Duplicate]);
}

#[test]
fn mutant_a_receiver_is_left_out_of_the_record() {
    check(
        Fault::ReceiverLost,
        &[Rule::AcknowledgedLost, Rule::Stalled],
    );
}

#[test]
fn mutant_retained_messages_are_lost() {
    check(Fault::RetainedLost, &[Rule::Retained]);
}

#[test]
fn mutant_a_published_will_stays_with_its_session() {
    check(Fault::WillNotRemoved, &[Rule::Duplicate, Rule::Will]);
}

#[test]
fn mutant_wills_are_not_stored() {
    check(Fault::WillLost, &[Rule::Will]);
}

#[test]
fn mutant_subscriptions_are_not_stored() {
    check(
        Fault::SubscriptionLost,
        // A group that the store does not have is a loss that a moment of rest shows.
        &[Rule::AcknowledgedLost, Rule::Will, Rule::Stalled],
    );
}

#[test]
fn mutant_a_shared_qos_2_delivery_leaves_before_it_is_moved() {
    check(Fault::MoveEarly, &[Rule::Duplicate]);
}

#[test]
fn mutant_shared_deliveries_are_not_moved_to_their_members() {
    check(
        Fault::MoveLost,
        &[Rule::Duplicate, Rule::AcknowledgedLost, Rule::Protocol],
    );
}

#[test]
fn mutant_shared_deliveries_are_not_moved_back() {
    check(
        Fault::MoveBackLost,
        &[Rule::Duplicate, Rule::AcknowledgedLost, Rule::Stalled],
    );
}

#[test]
fn mutant_sessions_are_announced_early() {
    check(
        Fault::SessionPutEarly,
        &[Rule::SessionPresent, Rule::AcknowledgedLost, Rule::Will],
    );
}

#[test]
fn mutant_ends_of_sessions_are_not_stored() {
    check(Fault::SessionEndedLost, &[Rule::SessionPresent]);
}

#[test]
fn mutant_expiry_is_not_stored() {
    check(Fault::ExpiryLost, &[Rule::Expiry]);
}

#[test]
fn mutant_neighbouring_publishes_change_places() {
    check(Fault::PublishesSwapped, &[Rule::Order]);
}

#[test]
fn mutant_neighbouring_acknowledgements_change_places() {
    check(Fault::AcksSwapped, &[Rule::Protocol]);
}

#[test]
fn mutant_a_publish_is_sent_twice() {
    check(Fault::PublishRepeated, &[Rule::Duplicate]);
}

#[test]
fn mutant_session_present_is_flipped() {
    check(Fault::SessionPresentFlipped, &[Rule::SessionPresent]);
}

#[test]
fn mutant_timers_run_early() {
    check(Fault::TimersEarly, &[Rule::Will, Rule::SessionPresent]);
}

#[test]
fn mutant_timers_never_run() {
    check(Fault::TimersDead, &[Rule::Will, Rule::SessionPresent]);
}

#[test]
fn mutant_wills_of_abrupt_ends_are_forgotten() {
    check(Fault::WillsForgotten, &[Rule::Will]);
}

#[test]
fn mutant_wake_ups_are_lost() {
    check(Fault::WakeUpsLost, &[Rule::Stalled, Rule::AcknowledgedLost]);
}

/// Some seed must break one of the expected promises, none an unexpected one before it.
#[expect(
    clippy::panic,
    reason = "a fault that nobody notices must fail the test"
)]
fn check(fault: Fault, expected: &[Rule]) {
    for seed in 0..SEEDS_PER_FAULT {
        if let Err(broken) = simulation::run(seed, fault, Traffic::Mixed) {
            assert!(
                expected.contains(&broken.rule),
                "{fault:?} in seed {seed} was noticed as something else: {broken}"
            );
            return;
        }
    }
    panic!("{fault:?} was not noticed in {SEEDS_PER_FAULT} seeds");
}

const SEEDS: u64 = 12_000;
const SEEDS_PER_FAULT: u64 = 4_000;
