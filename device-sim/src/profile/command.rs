//! What is said to a device: switch on, switch off.
//!
//! A command carries what names it, as readings do, so that its way can be followed; but no payload is both,
//! so that nobody who counts readings counts a command. The device says the sequence of the last command that it
//! obeyed in its state.

use super::Profile;
use super::encoding;
use std::time::Duration;

/// A command to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Whom it is for.
    pub device: u32,
    /// Which of the commands to this device it is; each is larger than the one before.
    pub sequence: u32,
    /// When it should have been sent, since the start of the run.
    pub intended_at: Duration,
    /// What the device is to be.
    pub is_on: bool,
}

impl Command {
    /// Appends the payload of the command in the profile's encoding.
    pub fn encode(&self, profile: &Profile, payload: &mut Vec<u8>) {
        encoding::encode_command(profile.encoding, self, payload);
    }

    /// Reads a command in any encoding; `None` when it is none.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        encoding::command(payload)
    }
}
