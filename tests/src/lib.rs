//! What crosses crates: the simulation of clients, crashes and a misbehaving journal, with its checker; power-loss images
//! of the real tables; the ledger of kill -9 on the real binary.

pub mod kill_ledger;
pub mod peer;
pub mod power_loss;
pub mod simulation;
