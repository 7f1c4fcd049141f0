//! What one connection has moved so far.
//!
//! Invariants: counts only grow. Does not know: what is below MQTT.

use std::fmt;

/// Counts of one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Meters {
    /// PUBLISH packets received.
    pub messages_in: u64,
    /// PUBLISH packets sent.
    pub messages_out: u64,
    /// Payload bytes received.
    pub payload_bytes_in: u64,
    /// Payload bytes sent.
    pub payload_bytes_out: u64,
    /// MQTT bytes received.
    pub bytes_in: u64,
    /// MQTT bytes sent.
    pub bytes_out: u64,
    /// PINGREQs received, each answered.
    pub pings: u32,
}

impl Meters {
    /// Counts a PUBLISH that came.
    #[inline]
    pub(super) fn receive(&mut self, payload_bytes: usize) {
        self.messages_in += 1;
        self.payload_bytes_in += payload_bytes as u64;
    }

    /// Counts a PUBLISH that was encoded.
    #[inline]
    pub(super) fn send(&mut self, payload_bytes: usize) {
        self.messages_out += 1;
        self.payload_bytes_out += payload_bytes as u64;
    }

    /// The part of all MQTT bytes that only kept the connection alive, 0 to 1.
    #[must_use]
    pub fn keep_alive_share(&self) -> f64 {
        let all = self.bytes_in + self.bytes_out;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let share = (f64::from(self.pings) * PING_BYTES) / all.max(1) as f64;
        share.min(1.0)
    }
}

impl fmt::Display for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in {} messages, {} bytes; out {} messages, {} bytes",
            self.messages_in, self.bytes_in, self.messages_out, self.bytes_out
        )
    }
}

/// A PINGREQ and a PINGRESP.
const PING_BYTES: f64 = 4.0;
