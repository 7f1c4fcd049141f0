//! What was sent, acknowledged and delivered, and what is wrong with it.
//!
//! Rules: a message that was acknowledged must be delivered (QoS 1 and 2); a second delivery breaks QoS 2, and
//! QoS 0 too, but QoS 1 allows it; first deliveries of a device come in the order in which it sent them, with the
//! payload, the topic and the QoS that they were sent with.
//!
//! Does not know: connections, packets, the clock.

use crate::imprint::{Alteration, Arrival, Imprint, Memory, Remembered};
use crate::label::Label;
use hdrhistogram::Histogram;
use siphasher::sip128::{Hash128, Hasher128, SipHasher24};
use std::hash::Hasher;
use std::time::Duration;

/// Readings taken this much later than intended count as late.
const LATE: Duration = Duration::from_millis(50);

/// The books of one cohort.
#[derive(Debug)]
pub struct Ledger {
    qos: u8,
    first: u32,
    devices: Vec<Record>,
    /// Whether a kept session promises that what is acknowledged arrives.
    is_promised: bool,
    counts: Counts,
    first_violation: Option<String>,
    first_altered: Option<String>,
    /// Intended send time to acknowledgement at the device.
    pub ack_latency: Histogram<u64>,
    /// Intended send time to first delivery at the verifier.
    pub delivery_latency: Histogram<u64>,
    /// Intended send time to when the simulator got round to it.
    pub generator_lag: Histogram<u64>,
    digest: Digest,
    interval: Interval,
}

/// The latencies of some seconds.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Intended send time to acknowledgement at the device.
    pub ack_latency: Histogram<u64>,
    /// Intended send time to first delivery at the verifier.
    pub delivery_latency: Histogram<u64>,
}

/// What tells one set of messages from another, in whatever order they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

/// How many messages came how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Readings that devices meant to send.
    pub published: u64,
    /// Readings that devices dropped because their buffer was full.
    pub overflowed: u64,
    /// Messages that the broker refused with a reason code (MQTT 5).
    pub rejected: u64,
    /// QoS 2 messages that devices gave up because the broker had forgotten their session.
    pub given_up: u64,
    /// Messages whose delivery the broker took on (QoS 1: PUBACK, QoS 2: PUBCOMP).
    pub acknowledged: u64,
    /// Messages that reached the verifier, each counted once.
    pub delivered: u64,
    /// Acknowledged messages that did not reach the verifier, so far.
    pub lost: u64,
    /// Deliveries of what had been delivered before.
    pub duplicated: u64,
    /// First deliveries after that of a later message of the same device.
    pub reordered: u64,
    /// First deliveries that differ from what was sent: in payload, topic, QoS or retain flag.
    pub altered: u64,
    /// Deliveries that are not this cohort's messages.
    pub foreign: u64,
    /// Readings that the simulator took late.
    pub late: u64,
}

impl Counts {
    /// Messages that devices sent or will send.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.published - self.overflowed
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.published += other.published;
        self.overflowed += other.overflowed;
        self.rejected += other.rejected;
        self.given_up += other.given_up;
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.foreign += other.foreign;
        self.late += other.late;
    }
}

#[derive(Debug, Default)]
struct Record {
    /// What it has not got is not lost.
    is_excused: bool,
    acknowledged: SequenceSet,
    delivered: SequenceSet,
    newest_delivered: Option<u32>,
    sent: Remembered,
}

/// A set of message numbers, a bit each.
#[derive(Debug, Default)]
struct SequenceSet {
    words: Vec<u64>,
}

impl Ledger {
    /// Empty books for `devices` devices from number `first` on that send at this QoS.
    #[must_use]
    pub fn new(qos: u8, first: u32, devices: u32) -> Self {
        Self {
            qos,
            first,
            devices: (0..devices).map(|_| Record::default()).collect(),
            is_promised: true,
            counts: Counts::default(),
            first_violation: None,
            first_altered: None,
            ack_latency: histogram(),
            delivery_latency: histogram(),
            generator_lag: histogram(),
            digest: Digest::default(),
            interval: Interval::default(),
        }
    }

    /// Acknowledged messages need not arrive: their receivers have no session that is kept.
    pub fn promise_nothing(&mut self) {
        self.is_promised = false;
    }

    /// A receiver is not there, so what it has not got, and will not get, is not lost.
    pub fn excuse(&mut self, device: u32) {
        let place = device.checked_sub(self.first);
        let record = place.and_then(|place| self.devices.get_mut(place as usize));
        if let Some(record) = record
            && !record.is_excused
        {
            record.is_excused = true;
            let missing = record.acknowledged.count_not_in(&record.delivered);
            if self.is_promised {
                self.counts.lost -= missing;
            }
        }
    }

    /// A device took the reading that `message` stands for, this much later than intended.
    pub fn record_published(&mut self, message: Digest, lag: Duration) {
        self.digest += message;
        self.counts.published += 1;
        self.counts.late += u64::from(lag > LATE);
        self.generator_lag.saturating_record(micros(lag));
    }

    /// A message will be sent; those of a device in the order of their numbers.
    pub fn record_sent(&mut self, label: &Label, imprint: Imprint) {
        if let Some(record) = self.record_mut(label) {
            record.sent.remember(label.sequence, imprint);
        }
    }

    /// A device had no room for a reading.
    pub fn record_overflowed(&mut self) {
        self.counts.overflowed += 1;
    }

    /// The broker refused a message.
    pub fn record_rejected(&mut self) {
        self.counts.rejected += 1;
    }

    /// A device gave up this many messages.
    pub fn record_given_up(&mut self, messages: u64) {
        self.counts.given_up += messages;
    }

    /// The broker acknowledged a message.
    pub fn record_acknowledged(&mut self, label: &Label, now: Duration) {
        let Some(record) = self.record_mut(label) else {
            return;
        };
        if !record.acknowledged.insert(label.sequence) {
            return;
        }
        let is_lost = !record.delivered.contains(label.sequence) && !record.is_excused;
        let is_lost = is_lost && self.is_promised;
        self.counts.acknowledged += 1;
        self.counts.lost += u64::from(is_lost);
        let latency = now.saturating_sub(label.intended_at);
        self.ack_latency.saturating_record(micros(latency));
        self.interval.ack_latency.saturating_record(micros(latency));
    }

    /// A message reached the verifier, or a command its device; `None` when it carries no label. Returns whether it
    /// is new.
    pub fn record_delivered(
        &mut self,
        label: Option<&Label>,
        arrival: &Arrival,
        now: Duration,
    ) -> bool {
        let place = |label: &Label| label.device.checked_sub(self.first);
        let known = label.and_then(|label| Some((label, place(label)?)));
        let record = known.and_then(|(label, place)| {
            let record = self.devices.get_mut(place as usize)?;
            Some((label, record))
        });
        let Some((label, record)) = record else {
            self.counts.foreign += 1;
            return false;
        };
        if record.delivered.contains(label.sequence) {
            self.counts.duplicated += 1;
            if self.qos != 1 {
                self.violation("duplicated", label);
            }
            return false;
        }
        let sent = record.sent.take(label.sequence);
        if sent == Memory::NeverSent {
            self.alteration(Alteration::Invented, label);
            return false;
        }
        record.delivered.insert(label.sequence);
        self.counts.delivered += 1;
        let was_lost = record.acknowledged.contains(label.sequence) && !record.is_excused;
        self.counts.lost -= u64::from(was_lost && self.is_promised);
        let latency = now.saturating_sub(label.intended_at);
        self.delivery_latency.saturating_record(micros(latency));
        self.interval
            .delivery_latency
            .saturating_record(micros(latency));
        if record.newest_delivered > Some(label.sequence) {
            self.counts.reordered += 1;
            self.violation("reordered", label);
        } else {
            record.newest_delivered = Some(label.sequence);
        }
        if let Some(alteration) = arrival.alteration(sent, self.qos) {
            self.alteration(alteration, label);
        }
        true
    }

    fn record_mut(&mut self, label: &Label) -> Option<&mut Record> {
        let place = label.device.checked_sub(self.first)?;
        self.devices.get_mut(place as usize)
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What all messages published so far add up to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The latencies since this was last asked.
    pub fn take_interval(&mut self) -> Interval {
        std::mem::take(&mut self.interval)
    }

    /// Whether nothing is on its way: what was published is acknowledged, and that is delivered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let sent = self.counts.sent();
        match self.qos {
            0 => self.counts.delivered >= sent,
            _ => {
                let ended = self.counts.acknowledged + self.counts.rejected + self.counts.given_up;
                ended >= sent && self.counts.lost == 0
            }
        }
    }

    /// The promises that were broken, in words; empty when all is well.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        if self.counts.lost > 0 {
            let lost = self.counts.lost;
            let first = self.first_lost();
            violations.push(format!("{lost} acknowledged but not delivered{first}"));
        }
        if self.qos != 1 && self.counts.duplicated > 0 {
            let (duplicated, qos) = (self.counts.duplicated, self.qos);
            violations.push(format!("{duplicated} delivered twice at QoS {qos}"));
        }
        if let Some(first) = &self.first_altered {
            let altered = self.counts.altered;
            violations.push(format!("{altered} delivered altered, the first {first}"));
        }
        if self.counts.reordered > 0 {
            let reordered = self.counts.reordered;
            violations.push(format!("{reordered} delivered out of order"));
        }
        if let Some(first) = &self.first_violation {
            violations.push(format!("first offender: {first}"));
        }
        violations
    }

    fn violation(&mut self, what: &str, label: &Label) {
        let (device, sequence) = (label.device, label.sequence);
        let first = || format!("device {device:06} message {sequence} {what}");
        self.first_violation.get_or_insert_with(first);
    }

    fn alteration(&mut self, what: Alteration, label: &Label) {
        let (device, sequence) = (label.device, label.sequence);
        self.counts.altered += 1;
        let first = || format!("device {device:06} message {sequence}: {what}");
        self.first_altered.get_or_insert_with(first);
    }

    fn first_lost(&self) -> String {
        let devices = (self.first..).zip(&self.devices);
        for (device, record) in devices.filter(|(_, record)| !record.is_excused) {
            let lost = record.acknowledged.first_not_in(&record.delivered);
            if let Some(sequence) = lost {
                return format!(", the first device {device:06} message {sequence}");
            }
        }
        String::new()
    }
}

impl Interval {
    /// Adds the latencies of another interval.
    pub fn add(&mut self, other: &Self) {
        // The same bounds everywhere: nothing is left out.
        let _ = self.ack_latency.add(&other.ack_latency);
        let _ = self.delivery_latency.add(&other.delivery_latency);
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self {
            ack_latency: histogram(),
            delivery_latency: histogram(),
        }
    }
}

impl Digest {
    /// Of one message: SipHash-2-4 with 128 bits and key 0, over device, sequence (both little endian) and payload.
    #[must_use]
    pub fn of(label: &Label, payload: &[u8]) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(&label.device.to_le_bytes());
        hasher.write(&label.sequence.to_le_bytes());
        hasher.write(payload);
        let Hash128 { h1, h2 } = hasher.finish128();
        Self(u128::from(h1) << 64 | u128::from(h2))
    }
}

impl std::ops::AddAssign for Digest {
    /// A sum, so that the order does not matter but a repetition does.
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl SequenceSet {
    /// Adds a number; `false` when it was there.
    fn insert(&mut self, sequence: u32) -> bool {
        let (word, bit) = position(sequence);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let Some(bits) = self.words.get_mut(word) else {
            return false;
        };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }

    fn contains(&self, sequence: u32) -> bool {
        let (word, bit) = position(sequence);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn count_not_in(&self, other: &Self) -> u64 {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        let pairs = self.words.iter().zip(others);
        pairs
            .map(|(ours, others)| u64::from((ours & !others).count_ones()))
            .sum()
    }

    fn first_not_in(&self, other: &Self) -> Option<usize> {
        let others = other.words.iter().copied().chain(std::iter::repeat(0));
        let mut pairs = self.words.iter().zip(others).enumerate();
        pairs.find_map(|(word, (ours, others))| {
            let missing = ours & !others;
            (missing != 0).then(|| word * 64 + missing.trailing_zeros() as usize)
        })
    }
}

fn position(sequence: u32) -> (usize, u64) {
    (sequence as usize / 64, 1 << (sequence % 64))
}

pub(crate) fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Microseconds up to an hour, to three digits.
#[expect(
    clippy::expect_used,
    reason = "1 < 2 * 1 <= an hour, and 3 digits of at most 5"
)]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are constants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faultless_run_has_no_violations() {
        for qos in 0..=2 {
            let mut ledger = ledger(qos, 100);
            for sequence in 0..100 {
                if qos > 0 {
                    acknowledge(&mut ledger, sequence);
                }
                deliver(&mut ledger, sequence);
            }
            assert!(ledger.is_settled());
            assert_eq!(ledger.violations(), [""; 0]);
            assert_eq!(ledger.counts().delivered, 100);
        }
    }

    #[test]
    fn an_acknowledged_message_that_never_arrives_is_lost() {
        let mut ledger = ledger(1, 70);
        for sequence in 0..70 {
            acknowledge(&mut ledger, sequence);
            if sequence != 66 {
                deliver(&mut ledger, sequence);
            }
        }
        assert_eq!(ledger.counts().lost, 1);
        assert!(!ledger.is_settled());
        let violations = ledger.violations();
        assert_eq!(
            violations,
            ["1 acknowledged but not delivered, the first device 000001 message 66"]
        );
    }

    #[test]
    fn what_a_receiver_that_is_away_has_not_got_is_not_lost() {
        let mut away = ledger(1, 3);
        for sequence in 0..2 {
            acknowledge(&mut away, sequence);
        }
        deliver(&mut away, 0);
        assert_eq!(away.counts().lost, 1);
        away.excuse(1);
        away.excuse(1);
        acknowledge(&mut away, 2);
        assert_eq!(away.counts().lost, 0);
        deliver(&mut away, 1);
        assert_eq!(away.counts().lost, 0);
        assert_eq!(away.violations(), [""; 0]);
        let mut clean = ledger(1, 1);
        clean.promise_nothing();
        acknowledge(&mut clean, 0);
        assert_eq!(clean.counts().lost, 0);
        deliver(&mut clean, 0);
        assert_eq!(clean.counts().lost, 0);
    }

    #[test]
    fn a_message_without_acknowledgement_is_not_lost() {
        let mut ledger = ledger(1, 1);
        assert_eq!(ledger.counts().lost, 0);
        deliver(&mut ledger, 0);
        acknowledge(&mut ledger, 0);
        acknowledge(&mut ledger, 0);
        assert_eq!(ledger.counts().lost, 0);
        assert_eq!(ledger.counts().acknowledged, 1);
    }

    #[test]
    fn a_second_delivery_is_allowed_at_qos_1_only() {
        for (qos, violations) in [(0, 2), (1, 0), (2, 2)] {
            let mut ledger = ledger(qos, 1);
            deliver(&mut ledger, 0);
            deliver(&mut ledger, 0);
            assert_eq!(ledger.counts().duplicated, 1);
            assert_eq!(ledger.counts().delivered, 1);
            assert_eq!(ledger.violations().len(), violations, "QoS {qos}");
        }
    }

    #[test]
    fn a_first_delivery_after_a_later_one_is_out_of_order() {
        let mut ledger = ledger(1, 4);
        for sequence in [0, 2, 1, 3, 1] {
            deliver(&mut ledger, sequence);
        }
        assert_eq!(ledger.counts().reordered, 1);
        assert_eq!(ledger.counts().duplicated, 1);
        let violations = ledger.violations();
        assert_eq!(
            violations[1],
            "first offender: device 000001 message 1 reordered"
        );
    }

    #[test]
    fn what_arrives_otherwise_than_it_was_sent_is_a_violation_at_every_qos() {
        for qos in 0..=2 {
            let mut ledger = ledger(qos, 3);
            deliver(&mut ledger, 0);
            let altered = Arrival {
                imprint: Imprint::of(b"t", b"x"),
                ..arrival(qos)
            };
            for sequence in [1, 2, 100] {
                let label = label(1, sequence);
                ledger.record_delivered(Some(&label), &altered, Duration::ZERO);
            }
            let counts = ledger.counts();
            assert_eq!((counts.delivered, counts.altered), (3, 3));
            assert_eq!(
                ledger.violations(),
                ["3 delivered altered, the first device 000001 message 1: payload altered"]
            );
        }
    }

    #[test]
    fn a_number_that_no_device_has_sent_is_no_delivery() {
        let mut ledger = ledger(1, 1);
        let invented = label(1, u32::MAX);
        let is_new = ledger.record_delivered(Some(&invented), &arrival(1), Duration::ZERO);
        assert!(!is_new);
        let counts = ledger.counts();
        assert_eq!((counts.delivered, counts.altered), (0, 1));
        let expected =
            "1 delivered altered, the first device 000001 message 4294967295: never sent";
        assert_eq!(ledger.violations(), [expected]);
    }

    #[test]
    fn devices_are_kept_apart_and_strangers_ignored() {
        let mut ledger = ledger(2, 0);
        let labels = [label(0, 5), label(1, 4), label(9, 0)];
        for known in labels.iter().map(Some).chain([None]) {
            ledger.record_delivered(known, &arrival(2), Duration::ZERO);
        }
        assert_eq!(ledger.counts().delivered, 2);
        assert_eq!(ledger.counts().foreign, 2);
        assert!(ledger.violations().is_empty());
    }

    #[test]
    fn latency_counts_from_the_intended_time() {
        let mut ledger = ledger(1, 1);
        let label = Label {
            intended_at: Duration::from_secs(10),
            ..label(0, 0)
        };
        ledger.record_acknowledged(&label, Duration::from_secs(12));
        ledger.record_delivered(Some(&label), &arrival(1), Duration::from_secs(11));
        assert!(ledger.ack_latency.max().abs_diff(2_000_000) < 2_000);
        assert!(ledger.delivery_latency.max().abs_diff(1_000_000) < 1_000);
    }

    #[test]
    fn the_digest_knows_messages_but_not_their_order() {
        let messages = [(0, 0, "a"), (0, 1, "b"), (1, 0, "a")];
        let message = |(device, sequence, payload): (u32, u32, &str)| {
            Digest::of(&label(device, sequence), payload.as_bytes())
        };
        let sum = |messages: &mut dyn Iterator<Item = (u32, u32, &str)>| {
            let mut ledger = ledger(0, 0);
            for given in messages {
                ledger.record_published(message(given), Duration::ZERO);
            }
            ledger.digest()
        };
        let all = sum(&mut messages.into_iter());
        assert_eq!(all, sum(&mut messages.into_iter().rev()));
        assert_ne!(all, sum(&mut messages.into_iter().take(2)));
        assert_ne!(all, sum(&mut messages.into_iter().chain([messages[0]])));
        assert_ne!(message((0, 1, "a")), message((1, 0, "a")));
        assert_ne!(message((0, 0, "a")), message((0, 0, "b")));
    }

    #[test]
    fn an_interval_holds_what_came_since_the_last_one() {
        let mut ledger = ledger(1, 1);
        acknowledge(&mut ledger, 0);
        assert_eq!(ledger.take_interval().ack_latency.len(), 1);
        deliver(&mut ledger, 0);
        let mut second = ledger.take_interval();
        assert_eq!(
            (second.ack_latency.len(), second.delivery_latency.len()),
            (0, 1)
        );
        second.add(&second.clone());
        assert_eq!(second.delivery_latency.len(), 2);
        assert_eq!(ledger.delivery_latency.len(), 1);
    }

    fn ledger(qos: u8, published: u64) -> Ledger {
        let mut ledger = Ledger::new(qos, 0, 2);
        for _ in 0..published {
            ledger.record_published(Digest::default(), Duration::ZERO);
        }
        for sequence in 0..100 {
            for device in 0..2 {
                ledger.record_sent(&label(device, sequence), Imprint::default());
            }
        }
        ledger
    }

    fn acknowledge(ledger: &mut Ledger, sequence: u32) {
        ledger.record_acknowledged(&label(1, sequence), Duration::ZERO);
    }

    fn deliver(ledger: &mut Ledger, sequence: u32) {
        let arrival = arrival(ledger.qos);
        ledger.record_delivered(Some(&label(1, sequence)), &arrival, Duration::ZERO);
    }

    fn arrival(qos: u8) -> Arrival {
        Arrival {
            qos,
            granted: 2,
            ..Arrival::default()
        }
    }

    fn label(device: u32, sequence: u32) -> Label {
        Label {
            device,
            sequence,
            intended_at: Duration::ZERO,
        }
    }
}
