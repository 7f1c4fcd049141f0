//! A few hundred power-loss images on the real tables, the control with a lying fsync, and bit rot.
//!
//! The big run: `cargo run --release -p motemq-tests --bin power-loss -- --images 20000 --double 20000 --seed 1`.

use motemq_tests::power_loss::{Plan, flip_bits, run};

#[test]
fn no_power_loss_loses_or_corrupts_anything() {
    let totals = run(Plan {
        images: 300,
        doubles: 300,
        seed: 1,
        lies_per_mille: 0,
        workers: 2,
    });
    assert_eq!(
        (totals.lost, totals.corrupt),
        (0, 0),
        "{:#?}",
        totals.stories
    );
    assert!(
        totals.in_flight > 0 && totals.bodies > 0,
        "the run proves nothing: {totals:?}"
    );
}

#[test]
fn a_lying_fsync_is_caught() {
    let totals = run(Plan {
        images: 300,
        doubles: 0,
        seed: 1,
        lies_per_mille: 50,
        workers: 2,
    });
    assert!(totals.lost > 0, "{totals:?}");
}

#[test]
fn e2_a_flipped_bit_is_named_or_harmless() {
    for seed in 1..=4 {
        let totals = flip_bits(seed, 100).unwrap();
        assert!(totals.silent.is_empty(), "{:#?}", totals.silent);
        assert!(totals.refused > 0, "the test proves nothing: {totals:?}");
    }
}
