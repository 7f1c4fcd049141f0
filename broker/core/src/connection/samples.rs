//! Times of a sample of messages, and how many publishes of the client are unacknowledged.
//!
//! One message in [`EVERY`] of each publisher is measured on its way to each receiver, one delivery in [`EVERY`] of each receiver
//! until its acknowledgement: the first, then every 64th, so that small fleets have numbers too and a message pays for a
//! comparison. What waited for its receiver to connect, or was retained, is not measured: that is the age of a queue, not latency.
//!
//! Does not know: the clock, how times are shown.

use super::{Connection, Phase};
use crate::broker::Broker;
use crate::counters::Counters;
use crate::message::Message;
use crate::time::Timestamp;
use motemq_codec::{PacketId, Publish, QoS};
use std::time::Duration;

/// What one connection measures.
#[derive(Debug)]
pub(super) struct Samples {
    /// What was received before waited for the client.
    since: Timestamp,
    /// A message for the client that the socket has not taken yet: its QoS, and when it was received.
    leaving: Option<(QoS, Timestamp)>,
    /// A delivery that the client has not acknowledged yet, and when it was sent.
    sent: Option<(PacketId, Timestamp)>,
    /// Unacknowledged publishes of the client, as last counted.
    in_flight: usize,
}

impl Samples {
    pub(super) fn since(now: Timestamp) -> Self {
        Self {
            since: now,
            leaving: None,
            sent: None,
            in_flight: 0,
        }
    }

    /// Tells the counters if another number of publishes is unacknowledged than at the last call.
    #[inline]
    pub(super) fn count_in_flight(&mut self, now: usize, counters: &Counters, number: u64) {
        if now != self.in_flight {
            let before = std::mem::replace(&mut self.in_flight, now);
            let signed = |count| i64::try_from(count).unwrap_or(0);
            counters.change_in_flight(signed(now) - signed(before), number);
        }
    }
}

impl Connection {
    /// Starts to measure what was just encoded, if it is of the sample.
    #[inline]
    pub(super) fn sample(&mut self, publish: &Publish<'_>, message: &Message, now: Timestamp) {
        let is_message = message.id.sequence % EVERY == 1;
        let packet_id = publish.packet_id.filter(|id| is_sampled(*id));
        if is_message || packet_id.is_some() {
            self.note_sample(publish, message, packet_id.filter(|_| !publish.dup), now);
        }
    }

    #[cold]
    fn note_sample(
        &mut self,
        publish: &Publish<'_>,
        message: &Message,
        packet_id: Option<PacketId>,
        now: Timestamp,
    ) {
        let Phase::Active(active) = &mut self.phase else {
            return;
        };
        let samples = &mut active.samples;
        let is_live = !publish.retain && message.received_at >= samples.since;
        if message.id.sequence % EVERY == 1 && is_live {
            samples.leaving = Some((publish.qos, message.received_at));
        }
        if let Some(packet_id) = packet_id {
            samples.sent = Some((packet_id, now));
        }
    }

    /// Whether [`note_left`](Self::note_left) is wanted once the socket has taken everything.
    #[must_use]
    #[inline]
    pub fn is_measured(&self) -> bool {
        matches!(&self.phase, Phase::Active(active) if active.samples.leaving.is_some())
    }

    /// What was encoded has left for the socket.
    pub fn note_left(&mut self, broker: &Broker, now: Timestamp) {
        if let Phase::Active(active) = &mut self.phase
            && let Some((qos, received_at)) = active.samples.leaving.take()
        {
            let latency = broker.counters().delivery_latency(qos);
            latency.observe(microseconds(now.since(received_at)));
        }
    }

    /// The client has acknowledged a delivery for good.
    #[inline]
    pub(super) fn note_round_trip(
        &mut self,
        packet_id: PacketId,
        qos: QoS,
        broker: &Broker,
        now: Timestamp,
    ) {
        if is_sampled(packet_id)
            && let Phase::Active(active) = &mut self.phase
            && let Some((_, sent_at)) = active.samples.sent.take_if(|(id, _)| *id == packet_id)
        {
            let round_trip = broker.counters().ack_round_trip(qos);
            round_trip.observe(microseconds(now.since(sent_at)));
        }
    }
}

fn is_sampled(packet_id: PacketId) -> bool {
    u64::from(packet_id.get()) % EVERY == 1
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One in so many is measured.
const EVERY: u64 = 64;
