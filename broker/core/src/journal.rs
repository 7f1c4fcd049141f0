//! The store seam: anything that keeps the facts.
//!
//! Promises of an implementation: records become durable in the order of submission, each whole or not at all; a record
//! is marked only after its commit; a failure is final. It may be slow, positions need not be dense, and what is not
//! durable cannot be read back. Implementations: redb in the server, [`SimJournal`](crate::SimJournal), and
//! [`NoJournal`] for a broker that keeps nothing on disk.

use crate::history::Obituary;
use crate::mailbox::Mailbox;
use crate::message::Message;
use crate::record::Record;
use crate::wakeup::Wakeup;
use std::sync::Arc;

/// Why the journal cannot promise a record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JournalFailure {
    /// The write may or may not have happened.
    Unknown,
    /// Another owner has taken over.
    Fenced,
    /// The journal cannot be reached.
    Unavailable,
}

/// Whether the journal takes more.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Room {
    /// It does.
    Open,
    /// More waits than the limit allows: publishers' sockets are not read until it drains.
    Congested,
    /// The disk (or `store_bytes_max`) is full: enqueues are refused with 0x97, everything else goes on.
    Full,
    /// A write failed: nothing is acknowledged any more.
    Failed(JournalFailure),
}

/// A request for the bodies of stored deliveries.
#[derive(Debug)]
pub struct BacklogRequest {
    pub(crate) asker: Asker,
    /// Queue sequence and journal position of each delivery wanted, in queue order.
    pub wanted: Vec<(u64, u64)>,
}

/// Who asks for bodies.
#[derive(Debug)]
pub(crate) enum Asker {
    /// To deliver them.
    Mailbox(Arc<Mailbox>),
    /// To say what they were.
    History(Box<Obituary>),
}

impl BacklogRequest {
    /// Gives what was asked for, by sequence; `None` for what cannot be read.
    pub fn answer(self, bodies: Vec<(u64, Option<Arc<Message>>)>) {
        match self.asker {
            Asker::Mailbox(mailbox) => mailbox.handle_backlog(bodies),
            Asker::History(obituary) => obituary.write(bodies),
        }
    }

    /// Whether what cannot be read is lost: else it has ended before, and may be gone.
    #[must_use]
    pub fn is_vital(&self) -> bool {
        matches!(self.asker, Asker::Mailbox(_))
    }
}

/// Keeps the facts.
pub trait Journal: Send + Sync {
    /// Takes a record; never blocks. The outcome is in the record's state.
    fn submit(&self, record: Arc<Record>);

    /// Whether more is welcome.
    fn room(&self) -> Room;

    /// Asks for a wake-up when the journal is no longer congested.
    fn wait_for_room(&self, wakeup: &Arc<Wakeup>);

    /// Asks for message bodies; the answer comes later, on any thread.
    fn read_backlog(&self, request: BacklogRequest);
}

/// The journal of a broker that keeps nothing on disk: everything is as durable as it will ever be.
#[derive(Copy, Clone, Debug, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn submit(&self, record: Arc<Record>) {
        // Positions are never read back: entries with a position are only evicted when the store can return them.
        let _ = record.begin_writing();
        for wakeup in record.finish(NO_POSITION) {
            wakeup.wake();
        }
    }

    fn room(&self) -> Room {
        Room::Open
    }

    fn wait_for_room(&self, _: &Arc<Wakeup>) {}

    fn read_backlog(&self, request: BacklogRequest) {
        let missing = request.wanted.iter().map(|(sequence, _)| (*sequence, None));
        let missing = missing.collect();
        request.answer(missing);
    }
}

/// The position of a record that cannot be read back.
pub const NO_POSITION: u64 = 0;
