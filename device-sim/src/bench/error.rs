//! Why a bench could not take place.

use super::socket::Down;
use crate::SimError;

/// Why a bench could not take place, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
    /// Files, addresses or packets that cannot be used.
    #[error(transparent)]
    Setup(#[from] SimError),
    /// The system refuses what the generator needs.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A connection that the flow needs was not made, or not to the end of the ramp.
    #[error("{made} of {wanted} connections made, then one failed: {why}")]
    Connection {
        /// Connections that were up.
        made: u32,
        /// Connections that the flow needs.
        wanted: u32,
        /// What became of the first that failed.
        why: Down,
    },
    /// There is no such process.
    #[error("--broker-pid {0}: no such process on this machine; try --broker-pid $(pidof motemq)")]
    NoProcess(u32),
    /// Interrupted before anything was measured.
    #[error("interrupted before anything was measured")]
    Interrupted,
}
