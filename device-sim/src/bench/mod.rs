//! A plain load generator: connections, publishers and subscribers without links, as cheap as it can be.
//!
//! One thread drives all sockets, so that the broker is the bottleneck and not the generator; where it is not so,
//! the report says so. Every message is numbered: what was lost, repeated or reordered is counted exactly where the
//! run has both ends.
//!
//! Invariants:
//! - Rates and CPU figures are of the measured time alone: not of the ramp, the warm-up or the drain.
//! - A message belongs to the measured time if it was due in it; its latency counts also when it comes later.
//! - A latency counts from the intended send time in the open model, and the report says which model it was.

mod engine;
mod error;
mod flow;
mod label;
mod packets;
mod plan;
mod process;
mod report;
mod run;
mod socket;
mod stream;
mod timer;

pub use error::BenchError;
pub use label::LABEL_BYTES;
pub use plan::{Pace, Plan, Shape};
pub use report::{FIELDS, Report, SCHEMA_VERSION};
pub use run::{Interrupts, run};
pub use socket::Down;

/// What client identifiers begin with when nothing is said; another one in each run.
#[must_use]
pub fn new_prefix() -> String {
    format!("bench-{:08x}", crate::clock::run_number())
}
