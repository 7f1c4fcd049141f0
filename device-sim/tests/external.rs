//! The simulator with other people's programs.
//!
//! Needs mosquitto and mosquitto-clients; `.ci/run` provides them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]
#![expect(
    clippy::print_stdout,
    reason = "what was measured is worth seeing with --nocapture"
)]

mod external {
    mod fleet;
    mod programs;
    mod proxy;
}
