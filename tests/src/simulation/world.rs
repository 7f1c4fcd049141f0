//! One run: clients, wires, broker and journal in one thread, moved on by one sequence of dice.

mod acting;
mod ending;
mod power;
mod reading;
mod sharing;
mod wires;

use super::client::{Asked, Changing, Client, Expected, Kind, Outbound};
use super::dice::Dice;
use super::ledger::{
    Broken, Delivered, Excuses, Final, Ledger, Published, Rule, Subscribed, WillFate, WillLife,
    broken,
};
use super::life::Life;
use super::link::{Link, Surroundings};
use super::saboteur::{Fault, Saboteur};
use super::shares::{
    Receipt, SHARED_FILTERS, SHARED_TOPICS, Shares, Standing, group_of_filter, group_of_topic,
};
use motemq_codec::{
    Ack, AckKind, Connect, ConnectProperties, Decoded, Disconnect, Forwarded, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscribeFilters, SubscribeOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Will,
    decode,
};
use motemq_core::{
    Broker, Close, Image, JournalFailure, Limits, QueueFull, Room, ShareRedispatch, ShareStrategy,
    SimDisk, Timestamp,
};
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

/// What kind of traffic a run has.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Traffic {
    /// Everything.
    #[default]
    Mixed,
    /// Clean sessions without retained messages: nothing may reach the disk.
    Volatile,
}

/// Counts of one run.
#[derive(Copy, Clone, Debug, Default)]
pub struct Counts {
    /// Messages published.
    pub published: usize,
    /// Of those, acknowledged.
    pub acknowledged: usize,
    /// Messages that arrived.
    pub delivered: usize,
    /// Power losses.
    pub crashes: usize,
    /// Connections opened.
    pub connections: usize,
    /// Steps.
    pub steps: usize,
    /// Whether losses could be judged.
    pub judged_losses: bool,
}

/// The whole simulation.
pub struct World {
    dice: Dice,
    fault: Fault,
    traffic: Traffic,
    now: Timestamp,
    tick: u64,
    limits: Arc<Limits>,
    journal: Arc<Saboteur>,
    broker: Broker,
    boot: u32,
    /// The journal fails, and a restart follows.
    is_failing: bool,
    links: Vec<Link>,
    /// Which messages each link carried.
    carried: Vec<Vec<usize>>,
    /// How each link's client asked to leave.
    leaving: Vec<Option<Leaving>>,
    asked: Vec<Asked>,
    expected_present: Vec<Option<bool>>,
    clients: Vec<Client>,
    lives: Vec<Life>,
    /// The will of each client's last accepted connection.
    last_will: Vec<Option<usize>>,
    ledger: Ledger,
    sharing: Sharing,
    shares: Shares,
    excuses: Excuses,
    counts: Counts,
    story: Option<VecDeque<String>>,
}

/// A DISCONNECT that a client wrote.
#[derive(Copy, Clone, Debug)]
struct Leaving {
    expiry_s: Option<u32>,
}

/// Whether clients share subscriptions.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Sharing {
    /// They do not.
    No,
    /// They do, with QoS 1 and 2.
    Yes,
    /// Some of them with QoS 0: what they are given may be lost.
    AtMostOnce,
}

/// The client that subscribes to all wills.
const WATCHER: usize = 0;
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "b", "b/x", "c"];
const RETAINED_TOPICS: [&str; 3] = ["r/0", "r/1", "r/2"];
const FILTERS: [&str; 12] = [
    "a", "a/#", "a/+", "+", "b/#", "#", "+/x", "a/b/c", "r/#", "r/+", "r/1", "+/b/#",
];
const EXPIRY_MAX_S: u32 = 100_000;
const STORY_LINES: usize = 4000;

impl World {
    /// The world of `seed`.
    #[must_use]
    pub fn new(seed: u64, fault: Fault, traffic: Traffic, tells: bool) -> Self {
        let mut dice = Dice::new(seed);
        let now = Timestamp::from_ms(1_700_000_000_000);
        let policy = dice.pick(&[
            QueueFull::DropOldest,
            QueueFull::DropNewest,
            QueueFull::Refuse,
            QueueFull::Disconnect,
        ]);
        let is_small = dice.chance(300);
        let receive_maximum = u16::try_from(dice.between(2, 12)).unwrap_or(2);
        let limits = Arc::new(Limits {
            receive_maximum: NonZeroU16::new(receive_maximum).unwrap_or(NonZeroU16::MIN),
            inflight_messages_max: u16::try_from(dice.pick(&[1, 2, 5, 20])).unwrap_or(1),
            queue_messages_max: if is_small {
                dice.between(2, 12)
            } else {
                100_000
            },
            queue_full: policy,
            mailbox_memory_bytes: dice.pick(&[0, 100, 500, 64 << 10]),
            session_expiry_max_s: EXPIRY_MAX_S,
            share_strategy: dice.pick(&[
                ShareStrategy::RoundRobin,
                ShareStrategy::Random,
                ShareStrategy::Sticky,
                ShareStrategy::HashClient,
                ShareStrategy::HashTopic,
            ]),
            share_redispatch: dice.pick(&[
                ShareRedispatch::AtDisconnect,
                ShareRedispatch::AtDisconnect,
                ShareRedispatch::AtSessionEnd,
            ]),
            ..Limits::default()
        });
        let sharing = dice.pick(&[
            Sharing::No,
            Sharing::No,
            Sharing::Yes,
            Sharing::Yes,
            Sharing::AtMostOnce,
        ]);
        let shares = Shares::new(limits.share_redispatch);
        let journal = Saboteur::new(fault, SimDisk::default());
        let broker = Broker::new(limits.clone(), journal.clone(), Image::default(), 1, now);
        let count = dice.between(3, 6);
        let clients: Vec<_> = (0..count)
            .map(|number| {
                let version = dice.pick(&[ProtocolVersion::V3_1_1, ProtocolVersion::V5]);
                let kind = match (traffic, number) {
                    (Traffic::Volatile, _) => Kind::Clean,
                    (_, WATCHER) => Kind::Durable,
                    _ => dice.pick(&[Kind::Durable, Kind::Durable, Kind::Clean, Kind::Fickle]),
                };
                let version = if kind == Kind::Fickle {
                    ProtocolVersion::V5
                } else {
                    version
                };
                Client::new(number, version, kind)
            })
            .collect();
        Self {
            dice,
            fault,
            traffic,
            now,
            tick: 0,
            limits,
            journal,
            broker,
            boot: 1,
            is_failing: false,
            links: Vec::new(),
            carried: Vec::new(),
            leaving: Vec::new(),
            asked: Vec::new(),
            expected_present: Vec::new(),
            lives: vec![Life::default(); clients.len()],
            last_will: vec![None; clients.len()],
            clients,
            ledger: Ledger::default(),
            sharing,
            shares,
            excuses: Excuses {
                drops_by_policy: is_small && policy != QueueFull::Refuse,
                crashes: 0,
                refusals: is_small && policy == QueueFull::Refuse,
            },
            counts: Counts::default(),
            story: tells.then(VecDeque::new),
        }
    }

    /// Runs to the end and judges.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(&mut self) -> Result<Counts, Broken> {
        let steps = self.dice.pick(&[150, 400, 800, 2500]);
        let crash = self.dice.pick(&[0, 2, 5, 12]);
        let line = format!("{:?}", self.limits);
        self.tell(|| line);
        for step in 0..steps {
            self.counts.steps = step;
            self.step(crash)?;
        }
        self.finish()?;
        self.counts.published = self.ledger.published.len();
        self.counts.acknowledged = self
            .ledger
            .published
            .iter()
            .filter(|message| message.acknowledged.is_some())
            .count();
        self.counts.delivered = self.ledger.delivered.len();
        self.counts.judged_losses = !self.excuses.drops_by_policy;
        Ok(self.counts)
    }

    /// The last events.
    #[must_use]
    pub fn story(&self) -> Vec<String> {
        self.story.iter().flatten().cloned().collect()
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            if story.len() >= STORY_LINES {
                story.pop_front();
            }
            let ms = self.now.as_ms() - 1_700_000_000_000;
            story.push_back(format!("{:>6} {:>8} ms  {}", self.tick, ms, line()));
        }
    }

    fn next_tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn step(&mut self, crash: usize) -> Result<(), Broken> {
        let tick = self.next_tick();
        self.note_sessions(tick);
        if self.sharing != Sharing::No && self.dice.chance(5) {
            return self.rest();
        }
        match self.dice.below(1000) {
            0..330 => self.act(),
            330..530 => self.deliver_up()?,
            530..690 => self.run_woken()?,
            690..830 => self.read_some()?,
            830..920 => self.move_journal(),
            920..950 => self.pass_time()?,
            950..965 => self.cut_something()?,
            965..985 => self.change_room(),
            _ if self.traffic == Traffic::Mixed && self.dice.below(15) < crash => self.crash(),
            _ => self.run_woken()?,
        }
        if self.traffic == Traffic::Volatile && !self.journal.inner.is_idle() {
            return broken(
                Rule::NeedlessRecord,
                "clean sessions reached the journal".to_owned(),
            );
        }
        Ok(())
    }
}

fn surroundings<'a>(
    broker: &'a Broker,
    dice: &'a mut Dice,
    now: Timestamp,
    fault: Fault,
) -> Surroundings<'a> {
    Surroundings {
        broker,
        dice,
        now,
        fault,
    }
}
