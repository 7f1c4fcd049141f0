//! A mailbox against the promise alone: in order, exactly once when nothing is lost, whatever is hot, cold or on its way.

use super::*;
use crate::action::{PublishAction, RetainedEffect};
use crate::message::MessageId;
use crate::record::Elidable;
use crate::sim_journal::{SimDisk, SimJournal, SimJournalRules};
use proptest::prelude::*;
use std::collections::VecDeque;

const QUEUE: QueueId = QueueId::session(1);

/// A receiver, its mailbox, and what must come next.
struct Bench {
    mailbox: Arc<Mailbox>,
    journal: Arc<SimJournal>,
    tally: Tally,
    epoch: u64,
    pushed: u64,
    /// Numbers of the messages in flight, with their packet ids, and of the next one never sent.
    in_flight: VecDeque<(u64, PacketId)>,
    next: u64,
}

impl Bench {
    fn new(memory_bytes: usize, messages_max: usize) -> Self {
        let limits = Limits {
            mailbox_memory_bytes: memory_bytes,
            queue_messages_max: messages_max,
            ..Limits::default()
        };
        let bench = Self {
            mailbox: Mailbox::new(QUEUE, ClientId::new("c"), &limits),
            journal: SimJournal::new(SimJournalRules::default(), SimDisk::default()),
            tally: Tally::default(),
            epoch: 1,
            pushed: 0,
            in_flight: VecDeque::new(),
            next: 0,
        };
        bench.mailbox.attach(bench.epoch, true, 20);
        bench
    }

    fn push(&mut self) {
        let message = Arc::new(numbered(self.pushed));
        self.pushed += 1;
        let action = PublishAction {
            message: message.clone(),
            refs: Vec::new(),
            retained: RetainedEffect::None,
            inbound: None,
            will_of: None,
        };
        let record = Record::open(action, Elidable::Yes);
        let push = Push {
            message: &message,
            record: Some(&record),
            qos: QoS::AtLeastOnce,
            retain: false,
            subscription_ids: self.pushed.is_multiple_of(5).then(|| [7].into()),
            group: None,
        };
        self.mailbox
            .push(push, self.journal.as_ref(), &mut self.tally);
        if record.close() {
            self.journal.submit(record);
        }
    }

    fn commit(&self, records: usize) {
        self.journal.begin_commit(records);
        self.journal.end_commit();
    }

    fn take(&mut self) {
        let window = Window {
            epoch: self.epoch,
            inflight_max: 20,
            count_max: 8,
            bytes_max: 1 << 20,
            now: Timestamp::default(),
        };
        let mut out = Vec::new();
        self.mailbox
            .take(window, self.journal.as_ref(), &mut self.tally, &mut out)
            .unwrap();
        for outgoing in out {
            let Outgoing::Publish {
                message,
                packet_id,
                dup,
                subscription_ids,
                ..
            } = outgoing
            else {
                panic!("nothing is QoS 2 here")
            };
            let number = message.id.sequence;
            assert_eq!(subscription_ids.is_some(), (number + 1).is_multiple_of(5));
            let id = packet_id.unwrap();
            if dup {
                assert!(self.in_flight.contains(&(number, id)));
            } else {
                assert_eq!(number, self.next, "in order, none left out, none twice");
                self.next += 1;
                self.in_flight.push_back((number, id));
            }
        }
    }

    fn acknowledge(&mut self) {
        if let Some((_, id)) = self.in_flight.pop_front() {
            let (epoch, journal) = (self.epoch, self.journal.as_ref());
            let outcome = Settlement::Accepted;
            // Not sent again yet on this connection, or ended: both are fine for a late acknowledgement.
            self.mailbox
                .handle_puback(epoch, id, outcome, journal, &mut self.tally)
                .unwrap();
        }
    }

    fn reconnect(&mut self) {
        let sent_below = self.mailbox.detach(self.epoch, &mut self.tally);
        assert_eq!(sent_below, self.next);
        self.epoch += 1;
        self.mailbox.attach(self.epoch, true, 20);
    }

    fn check(&self) {
        let (messages, bytes) = self.mailbox.depth();
        let waiting = self.pushed - self.next;
        assert_eq!(messages as u64, waiting);
        assert_eq!(bytes as u64, waiting * BYTES);
        let state = lock(&self.mailbox.state);
        let entries = state.entries.iter().map(|entry| entry.sequence);
        let recent = state.recent.iter().map(|entry| entry.sequence);
        let sequences: Vec<_> = entries.chain(state.cold.keys()).chain(recent).collect();
        assert!(sequences.is_sorted_by(|one, other| one < other));
        let all = state.entries.iter().chain(&state.recent);
        let held = all.filter(|entry| matches!(entry.body, Body::Recorded(_) | Body::Loaded(_)));
        assert_eq!(
            state.memory_bytes,
            held.map(Entry::body_bytes).sum::<usize>()
        );
    }
}

proptest! {
    #[test]
    fn deliveries_leave_in_order_whatever_is_cold(
        memory_bytes in prop::sample::select(vec![0, 1_000, 4_000, 64 << 10]),
        steps in prop::collection::vec(0_u8..12, 0..300),
    ) {
        let mut bench = Bench::new(memory_bytes, 10_000);
        for step in steps {
            match step {
                0..5 => (0..3).for_each(|_| bench.push()),
                5 => bench.commit(4),
                6 => bench.commit(usize::MAX),
                7 => bench.take(),
                8 => (0..3).for_each(|_| bench.acknowledge()),
                9 | 10 => {
                    bench.journal.answer_read();
                }
                _ => bench.reconnect(),
            }
            bench.check();
        }
        bench.commit(usize::MAX);
        for _ in 0..2_000 {
            bench.take();
            while bench.journal.answer_read() {}
            bench.acknowledge();
            bench.commit(usize::MAX);
            bench.check();
        }
        prop_assert_eq!(bench.next, bench.pushed);
        prop_assert!(bench.in_flight.is_empty());
        prop_assert_eq!(lock(&bench.mailbox.state).len(), 0);
        prop_assert_eq!(lock(&bench.mailbox.state).memory_bytes, 0);
    }
}

#[test]
fn what_is_beyond_the_memory_limit_is_cold_and_the_oldest_is_dropped_first() {
    let mut bench = Bench::new(2_000, 100);
    bench.mailbox.detach(bench.epoch, &mut bench.tally);
    for _ in 0..150 {
        bench.push();
        bench.commit(usize::MAX);
    }
    {
        let state = lock(&bench.mailbox.state);
        assert_eq!(state.len(), 100);
        assert!(state.cold.len() > 90, "{} are cold", state.cold.len());
        assert!(state.memory_bytes <= 3_000);
        // What was kept in memory is gone, so the queue begins with what is cold.
        assert_eq!(state.sent_below(), 50);
    }
    bench.next = 50;
    bench.epoch += 1;
    bench.mailbox.attach(bench.epoch, true, 20);
    for _ in 0..300 {
        bench.take();
        bench.journal.answer_read();
        bench.acknowledge();
        bench.check();
    }
    assert_eq!(bench.next, 150);
}

fn numbered(number: u64) -> Message {
    Message {
        payload: [0; 9].into(),
        id: MessageId {
            connection: 1,
            sequence: number,
        },
        ..Message::sample("t")
    }
}

const BYTES: u64 = 10;
