//! Simulates a fleet of constrained MQTT devices behind narrow links, and audits what a broker does with it.
//!
//! Many devices share one process. Each is a small state machine: readings become messages on a schedule,
//! messages cross a computed radio link, and only what has crossed it touches the real socket. A verifier
//! subscribes without a link and compares what arrived with what was acknowledged.
//!
//! Invariants:
//! - Latency counts from the intended send time, so a slow broker cannot slow down its own measurement.
//! - One seed gives one schedule, one series of readings and, for the same bytes, the same losses.
//! - Nothing here uses the broker's code: any broker of MQTT 3.1.1 or 5 can be on the other side.

pub mod bench;
mod client;
mod clock;
pub mod command;
mod commander;
mod connection;
mod connects;
mod device;
pub mod diff;
mod endpoint;
mod error;
pub mod explain;
mod fleet;
mod imprint;
mod keep_alive;
mod label;
mod ledger;
pub mod link;
mod named;
mod open_files;
pub mod output;
mod phases;
pub mod plan;
pub mod profile;
pub mod proxy;
mod publisher;
mod real_client;
mod receiver;
pub mod report;
mod run;
pub mod scenario;
mod seed;
mod signals;
mod steady;
pub mod text;
pub mod threshold;
mod tls;
pub mod topic;
mod verify;
mod websocket;
mod wheel;
pub mod wire;
mod world;

pub use client::ClientError;
pub use endpoint::{Endpoint, EndpointError, Transport};
pub use error::SimError;
pub use imprint::{Arrival, Imprint};
pub use label::Label;
pub use ledger::{Counts, Digest, Ledger};
pub use plan::Plan;
pub use report::{Report, SCHEMA_VERSION};
pub use run::{Finished, run, run_with};
pub use tls::{TlsFiles, TlsGroup, TlsPlan, TlsVersion};
