//! A journal in memory that a test commits, delays, tears, cuts off and fails by hand.
//!
//! Each record is durable whole or not at all, and a power loss keeps a prefix of what was being written. Two lies can be
//! switched on as controls, to see that the checkers notice: acknowledging before the commit, and an fsync that returns
//! early.

use crate::action::Action;
use crate::image::Image;
use crate::journal::{BacklogRequest, Journal, JournalFailure, Room};
use crate::message::Message;
use crate::record::Record;
use crate::sync::lock;
use crate::wakeup::Wakeup;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// What the journal does wrong on purpose.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct SimJournalRules {
    /// Records count as durable when they are submitted.
    pub acknowledges_before_commit: bool,
    /// Commits return before the disk has them; only [`SimJournal::sync`] makes them survive.
    pub fsync_lies: bool,
}

/// The journal.
#[derive(Debug, Default)]
pub struct SimJournal {
    rules: SimJournalRules,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Arc<Record>>,
    writing: Vec<(Option<Arc<Record>>, u64, Action)>,
    /// Committed, but a lying fsync left it in a cache.
    cached: Vec<(u64, Action)>,
    image: Image,
    bodies: BTreeMap<u64, Arc<Message>>,
    position: u64,
    reads: VecDeque<BacklogRequest>,
    waiting: Vec<Arc<Wakeup>>,
    room: Option<Room>,
}

impl SimJournal {
    /// A journal that starts with what an earlier one left.
    #[must_use]
    pub fn new(rules: SimJournalRules, disk: SimDisk) -> Arc<Self> {
        Arc::new(Self {
            rules,
            state: Mutex::new(State {
                position: disk.position,
                image: disk.image,
                bodies: disk.bodies,
                ..State::default()
            }),
        })
    }

    /// Starts a commit of at most `records_max` records; says how many are being written.
    pub fn begin_commit(&self, records_max: usize) -> usize {
        let mut state = lock(&self.state);
        while state.writing.len() < records_max
            && let Some(record) = state.pending.pop_front()
        {
            if let Some(action) = record.begin_writing() {
                state.position += 1;
                let position = state.position;
                state.writing.push((Some(record), position, action));
            }
        }
        state.writing.len()
    }

    /// Ends the commit that was begun: its records are durable.
    pub fn end_commit(&self) {
        let mut state = lock(&self.state);
        let mut woken = Vec::new();
        for (record, position, action) in std::mem::take(&mut state.writing) {
            if self.rules.fsync_lies {
                state.cached.push((position, action));
            } else {
                state.keep(position, action);
            }
            woken.extend(
                record
                    .into_iter()
                    .flat_map(|record| record.finish(position)),
            );
        }
        woken.append(&mut state.waiting);
        drop(state);
        woken.iter().for_each(|wakeup| wakeup.wake());
    }

    /// What a lying fsync left in the cache reaches the disk.
    pub fn sync(&self) {
        let mut state = lock(&self.state);
        for (position, action) in std::mem::take(&mut state.cached) {
            state.keep(position, action);
        }
    }

    /// Answers the oldest request for bodies; `false` when there is none.
    pub fn answer_read(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(request) = state.reads.pop_front() else {
            return false;
        };
        let bodies = request
            .wanted
            .iter()
            .map(|(sequence, position)| (*sequence, state.bodies.get(position).cloned()))
            .collect();
        drop(state);
        request.answer(bodies);
        true
    }

    /// Whether anything waits to be written or read.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.pending.is_empty() && state.writing.is_empty() && state.reads.is_empty()
    }

    /// Cuts the power: of what was being written, the first `survivors` records reached the disk.
    #[must_use]
    pub fn lose_power(&self, survivors: usize) -> SimDisk {
        self.fail(JournalFailure::Unknown);
        let mut state = lock(&self.state);
        let writing = std::mem::take(&mut state.writing);
        for (_, position, action) in writing.into_iter().take(survivors) {
            state.keep(position, action);
        }
        state.cached.clear();
        SimDisk {
            image: state.image.clone(),
            bodies: state.bodies.clone(),
            position: state.position,
        }
    }

    /// Answers everything unfinished, and everything to come, with `failure`.
    pub fn fail(&self, failure: JournalFailure) {
        let mut state = lock(&self.state);
        state.room = Some(Room::Failed(failure));
        let mut woken = Vec::new();
        for record in std::mem::take(&mut state.pending) {
            woken.extend(record.fail(failure));
        }
        for (record, _, _) in &state.writing {
            woken.extend(record.iter().flat_map(|record| record.fail(failure)));
        }
        drop(state);
        woken.iter().for_each(|wakeup| wakeup.wake());
    }

    /// Makes [`Journal::room`] answer `room`; `None` for the truth.
    pub fn set_room(&self, room: Option<Room>) {
        lock(&self.state).room = room;
    }

    /// What is durable now.
    #[must_use]
    pub fn image(&self) -> Image {
        lock(&self.state).image.clone()
    }
}

impl State {
    fn keep(&mut self, position: u64, action: Action) {
        if let Action::Publish(publish) = &action {
            self.bodies.insert(position, publish.message.clone());
        }
        let mut freed = Vec::new();
        self.image
            .apply(position, &action, &mut |position| freed.push(position));
        for position in freed {
            // As in a real store: who asks for a body that no delivery has any more gets nothing.
            let mut queues = self.image.queues.values();
            let is_live = queues.any(|queue| {
                let mut refs = queue.refs.values();
                refs.any(|stored| stored.position == position)
            });
            if !is_live {
                self.bodies.remove(&position);
            }
        }
    }
}

impl Journal for SimJournal {
    fn submit(&self, record: Arc<Record>) {
        let mut state = lock(&self.state);
        let mut woken = Vec::new();
        if let Some(Room::Failed(failure)) = state.room {
            woken = record.fail(failure);
        } else if self.rules.acknowledges_before_commit {
            if let Some(action) = record.begin_writing() {
                state.position += 1;
                let position = state.position;
                state.writing.push((None, position, action));
                woken = record.finish(position);
            }
        } else {
            state.pending.push_back(record);
        }
        drop(state);
        woken.iter().for_each(|wakeup| wakeup.wake());
    }

    fn room(&self) -> Room {
        lock(&self.state).room.unwrap_or(Room::Open)
    }

    fn wait_for_room(&self, wakeup: &Arc<Wakeup>) {
        lock(&self.state).waiting.push(wakeup.clone());
    }

    fn read_backlog(&self, request: BacklogRequest) {
        lock(&self.state).reads.push_back(request);
    }
}

/// What survives of a [`SimJournal`].
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    image: Image,
    bodies: BTreeMap<u64, Arc<Message>>,
    position: u64,
}

impl SimDisk {
    /// The durable facts.
    #[must_use]
    pub fn image(&self) -> Image {
        self.image.clone()
    }
}
