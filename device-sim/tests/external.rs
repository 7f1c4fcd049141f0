//! The simulator with other people's programs.
//!
//! Needs mosquitto and mosquitto-clients; `.ci/run` provides them.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod external {
    mod proxy;
}
