//! What crosses crates: scripted clients in memory and what they may read; the simulation of clients, crashes and a misbehaving
//! journal, with its checker; power-loss images of the real tables; the ledger of kill -9 on the real binary; the proof of
//! its live backup; a siege of it; loads for `bench/`, and what the benchmarks measure; a broker in the process, clients on real sockets that follow a script,
//! and tokens for them.

pub mod in_process;
pub mod kill_ledger;
pub mod live_backup;
pub mod load;
pub mod measured;
pub mod peer;
pub mod power_loss;
pub mod reload_load;
pub mod revocation;
pub mod siege;
pub mod simulation;
pub mod socket;
pub mod token;
pub mod watch;
