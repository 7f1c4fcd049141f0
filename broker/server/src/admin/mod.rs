//! The admin socket: tools on this machine ask the running broker for what only it can do.
//!
//! A Unix socket that only its owner (and root) may open, with mode 0600 from the moment it exists. One JSON line asks, JSON
//! lines answer, the last one says how it ended; then the connection closes. A tool that goes away ends what it asked for.

mod client;
mod protocol;
mod serve;

pub use client::{ClientError, ask};
pub use protocol::{Answer, Failure, Request};
pub(crate) use serve::{AdminSocket, serve};
