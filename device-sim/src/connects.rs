//! What connecting cost the devices of a cohort: times, bytes on the link, and how long lost ones stayed away.
//!
//! Does not know: sockets, links, the clock.

use crate::ledger::{histogram, micros};
use crate::report::Distribution;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// How a connection was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Without TLS.
    Plain,
    /// TLS with certificates.
    Full,
    /// TLS with a ticket.
    Resumed,
}

/// All connections of a cohort.
#[derive(Debug)]
pub(crate) struct Connects {
    /// In the order of [`Handshake`].
    kinds: [Connect; 3],
    /// From the loss of a connection to the next CONNACK.
    pub(crate) away: Histogram<u64>,
    /// From when a device should have begun to connect to its first CONNACK.
    pub(crate) first: Histogram<u64>,
}

/// Connections of one kind, from TCP's first segment to CONNACK.
#[derive(Debug)]
struct Connect {
    took: Histogram<u64>,
    /// Bytes on the link, with headers and retransmissions.
    up_bytes: u64,
    down_bytes: u64,
}

/// What the connections of a cohort cost, from TCP's first segment to CONNACK.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectCost {
    /// Whose.
    pub cohort: String,
    /// `plain`, `full` or `resumed`.
    pub handshake: &'static str,
    /// Bytes to the network, all together, with headers and retransmissions.
    pub up_bytes: u64,
    /// Bytes from the network.
    pub down_bytes: u64,
    /// How many, and the time of each.
    pub seconds: Distribution,
}

impl Connects {
    pub(crate) fn new() -> Self {
        let connect = || Connect {
            took: histogram(),
            up_bytes: 0,
            down_bytes: 0,
        };
        Self {
            kinds: [connect(), connect(), connect()],
            away: histogram(),
            first: histogram(),
        }
    }

    /// A device was accepted.
    pub(crate) fn record(&mut self, handshake: Handshake, took: Duration, bytes: (u64, u64)) {
        let connect = &mut self.kinds[handshake as usize];
        connect.took.saturating_record(micros(took));
        connect.up_bytes += bytes.0;
        connect.down_bytes += bytes.1;
    }

    /// A device is connected for the first time, so long after it should have begun.
    pub(crate) fn record_first(&mut self, took: Duration) {
        self.first.saturating_record(micros(took));
    }

    /// A device is back after this time.
    pub(crate) fn record_return(&mut self, away: Duration) {
        self.away.saturating_record(micros(away));
    }

    /// What there was, by kind.
    pub(crate) fn costs(&self, cohort: &str) -> Vec<ConnectCost> {
        let names = ["plain", "full", "resumed"];
        let kinds = names.into_iter().zip(&self.kinds);
        let kinds = kinds.filter(|(_, connect)| !connect.took.is_empty());
        let cost = |(handshake, connect): (_, &Connect)| ConnectCost {
            cohort: cohort.to_owned(),
            handshake,
            up_bytes: connect.up_bytes,
            down_bytes: connect.down_bytes,
            seconds: Distribution::of(&connect.took),
        };
        kinds.map(cost).collect()
    }
}
