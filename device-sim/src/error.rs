//! Why a run could not take place, with what to do about it.

use crate::client::ClientError;
use crate::endpoint::Endpoint;
use crate::wire::WireError;
use std::io;
use std::path::PathBuf;

/// Why a run could not take place.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Nobody listens at the broker's address.
    #[error(
        "{endpoint}: {source}: is the broker running? start it with: cargo run --release -- run --dev"
    )]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The broker answered, but not as needed.
    #[error("{endpoint}: {source}")]
    Verifier {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        source: ClientError,
    },
    /// The address to listen on cannot be used.
    #[error(
        "--listen {address}: {source}: write an address of this machine with a free port, such as 127.0.0.1:1884"
    )]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(&'static str),
    /// Parts of a plan that do not go together.
    #[error("{0}")]
    Plan(String),
    /// A scenario file that cannot be used.
    #[error("{}: {problem}", .path.display())]
    Scenario {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// The process may not open as many sockets as there are devices.
    #[error(
        "{devices} devices need {needed} open files, the limit is {limit}: run `ulimit -n {needed}` first"
    )]
    OpenFiles {
        /// Devices asked for.
        devices: u32,
        /// Files they need.
        needed: u64,
        /// The present limit.
        limit: u64,
    },
    /// A certificate or key cannot be used.
    #[error("{}: {problem}", .path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A packet cannot be encoded.
    #[error("MQTT: {0}")]
    Wire(#[from] WireError),
    /// The report cannot be written.
    #[error("{}: {source}", .path.display())]
    Report {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The metrics cannot be served.
    #[error("--metrics {address}: {source}: give another address, or stop who listens there")]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The user ended it before it began.
    #[error("interrupted before the run began")]
    Interrupted,
    /// A part of the simulator ended before its time.
    #[error("internal error: {0}")]
    Internal(&'static str),
}
