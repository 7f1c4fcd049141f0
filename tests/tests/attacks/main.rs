//! What broke other brokers, against this one: the classes of the threat table, each test named by its code. D6, WebSocket, is in
//! `transports.rs`, E2 in `power_loss.rs`; C2 is also what the kill ledger and the simulation look for.
//!
//! Each attack runs against a broker in a process of its own, with a bystander who publishes at QoS 1 and gets its messages
//! back all the while. Afterwards the process is the same, nothing has panicked, and its memory is bounded.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on must stop at once"
)]

mod access;
mod exchanges;
mod framing;
mod identity;
mod packets;
mod properties;
mod resources;
mod siege;
mod site;
mod storm;
mod topics;
mod violations;

/// As the real broker has it: what memory an attack costs depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nothing by itself: [`site`] runs it in another process.
#[test]
fn the_broker_under_attack() {
    site::serve();
}
