//! What names a message, carried in its payload.

use std::time::Duration;

/// Everything that names one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Which device sent it.
    pub device: u32,
    /// Which of its messages it is, from 0.
    pub sequence: u32,
    /// When it should have been sent, since the start of the run.
    pub intended_at: Duration,
}
