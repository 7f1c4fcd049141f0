//! Actions into redb and back: one commit at a time, without threads.
//!
//! A commit appends its actions as journal pages and folds a bounded number of the oldest ones into the tables. Folding
//! writes the present state of every key that an old action touched, which may already include later actions; because
//! every action is a set or a removal by key, replaying the later ones over it changes nothing. A message that is still
//! queued when its page is folded moves to `bodies` under the same position; most are settled by then and never do.
//!
//! Invariants:
//! - What is in the tables, plus the journal after `folded`, gives the [`Image`] of all committed actions.
//! - A page and the positions in it are never seen unless the pages before it are.
//! - Folding is bounded per commit until the journal holds half of its limit.

mod body;
mod fold;
mod load;
mod page;

pub use body::{BodyReader, read_body};
pub(in crate::store) use page::{page_records, page_tag};

use super::StoreError;
use super::layout::write_action;
use super::tables::{JOURNAL, StoreKey};
use fold::Round;
use motemq_core::{Action, Image, QueueId};
use page::{NewPage, PageWriter};
use redb::{Database, WriteTransaction};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// How the store commits and folds.
#[derive(Copy, Clone, Debug)]
pub struct EngineOptions {
    /// Two-phase commits always; otherwise only where a single one would not do.
    pub two_phase_commit: bool,
    /// Bytes of journal pages beyond which folding has no bound.
    pub journal_bytes_max: u64,
    /// Actions folded per commit.
    pub fold_rows_max: usize,
    /// Time spent folding per commit.
    pub fold_time_max: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            two_phase_commit: false,
            journal_bytes_max: 256 << 20,
            fold_rows_max: 2000,
            fold_time_max: Duration::from_millis(5),
        }
    }
}

/// The store's tables and what the writer must know of them.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    key: StoreKey,
    image: Image,
    pages: VecDeque<Page>,
    journal_bytes: u64,
    /// The last position given out.
    last: u64,
    /// Tag of the last page.
    chain: u64,
    /// The last position folded, and the tag of its page.
    folded: (u64, u64),
    /// Live deliveries of the bodies in `bodies` that have more than one.
    shared_bodies: HashMap<u64, u32>,
    /// Bodies that nobody needs any more, to be removed with the next commit.
    dead_bodies: Vec<u64>,
    /// Chunks in `queues`.
    chunks: HashSet<(u64, u64)>,
    /// What is being folded.
    round: Round,
    /// Rounds are small, because the disk is full.
    is_tight: bool,
    /// Folds what there is, a little at a time, and not only what is beyond an eighth of the limit.
    is_eager: bool,
    /// Where deliveries of a body that is still in the journal have gone since it was written.
    moved: HashMap<u64, BTreeSet<(QueueId, u64)>>,
}

#[derive(Copy, Clone, Debug)]
struct Page {
    first: u64,
    count: u64,
    bytes: u64,
    tag: u64,
}

/// What a commit did.
#[derive(Debug)]
pub struct Committed {
    /// The position of the first action; the others follow.
    pub first: u64,
}

impl Engine {
    fn push_page(&mut self, first: u64, count: u64, bytes: u64, tag: u64) {
        self.pages.push_back(Page {
            first,
            count,
            bytes,
            tag,
        });
        self.journal_bytes += bytes;
        self.last = first + count - 1;
        self.chain = tag;
    }

    /// Notes where a delivery goes, for when the page with its body is folded.
    fn note_move(&mut self, action: &Action) {
        if let Action::Move {
            from, to, position, ..
        } = action
            && *position > self.bodies_to()
        {
            let places = self.moved.entry(*position).or_default();
            places.remove(from);
            places.insert((to.queue, to.sequence));
        }
    }

    /// Bytes of the messages that wait in queues; a message in several counts in each.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        let queues = self.image.queues.values();
        queues.map(|queue| queue.refs.bytes()).sum()
    }

    /// Whether commits fold whatever is in the journal: what was settled there gives its space back.
    pub fn set_eager(&mut self, is_eager: bool) {
        self.is_eager = is_eager;
    }

    /// Whether the disk has little room: what a round of folding moves is there twice until it ends.
    pub fn set_tight(&mut self, is_tight: bool) {
        self.is_tight = is_tight;
    }

    /// Everything that is durable.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The key of this store's tags, for readers.
    #[must_use]
    pub fn key(&self) -> StoreKey {
        self.key
    }

    /// The last position given out.
    #[must_use]
    pub fn last_position(&self) -> u64 {
        self.last
    }

    /// Bytes of journal pages not yet folded.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    /// Makes `actions` durable, all or none, in order.
    ///
    /// `elapsed` says how long the commit has taken so far.
    ///
    /// # Errors
    /// When redb fails; then what is on disk is unknown, and the engine must be loaded anew.
    pub fn commit(
        &mut self,
        db: &Database,
        actions: &[Action],
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<Committed, StoreError> {
        let mut txn = db.begin_write()?;
        if self.options.two_phase_commit {
            txn.set_two_phase_commit(true);
        }
        let first = self.last + 1;
        let written = self.append(&txn, actions)?;
        self.fold(&txn, elapsed)?;
        txn.commit()?;
        for page in written {
            self.push_page(page.first, page.count, page.bytes, page.tag);
        }
        let bodies_to = self.bodies_to();
        for (position, action) in (first..).zip(actions) {
            self.note_move(action);
            let (shared_bodies, dead_bodies) = (&mut self.shared_bodies, &mut self.dead_bodies);
            self.image.apply(position, action, &mut |freed| {
                if freed > bodies_to {
                    return;
                }
                match shared_bodies.get_mut(&freed) {
                    Some(live) if *live > 2 => *live -= 1,
                    Some(_) => {
                        shared_bodies.remove(&freed);
                    }
                    None => dead_bodies.push(freed),
                }
            });
        }
        Ok(Committed { first })
    }

    fn append(&self, txn: &WriteTransaction, actions: &[Action]) -> Result<Vec<Page>, StoreError> {
        let mut journal = txn.open_table(JOURNAL)?;
        let mut pages = Vec::new();
        let mut writer = PageWriter::new(self.key, self.chain, self.last + 1);
        let mut insert = |page: NewPage<'_>| {
            journal.insert(page.first, page.value)?;
            pages.push(Page {
                first: page.first,
                count: page.count,
                bytes: page.value.len() as u64,
                tag: page.tag,
            });
            Ok::<_, StoreError>(())
        };
        let mut bytes = Vec::new();
        for action in actions {
            bytes.clear();
            write_action(action, &mut bytes);
            if !writer.has_room(bytes.len()) {
                while let Some(page) = writer.next_page() {
                    insert(page)?;
                }
            }
            writer.add(&bytes);
        }
        while let Some(page) = writer.next_page() {
            insert(page)?;
        }
        Ok(pages)
    }
}

/// Bytes of the file that redb can use again without growing it.
///
/// # Errors
/// When redb fails.
pub fn free_bytes(db: &Database, file_bytes: u64) -> Result<u64, StoreError> {
    let txn = db.begin_write()?;
    let stats = txn.stats()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    txn.abort()?;
    Ok(file_bytes.saturating_sub(used))
}

fn at<E: std::fmt::Display>(
    table: &'static str,
    key: impl ToString,
) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Unreadable {
        table,
        key: key.to_string(),
        why: error.to_string(),
    }
}

pub(in crate::store) fn sealed_meta(key: StoreKey, name: &str, value: &[u8]) -> Vec<u8> {
    let mut sealed = value.to_vec();
    key.seal("meta", name.as_bytes(), &mut sealed);
    sealed
}

pub(in crate::store) fn broken_chain(first: u64) -> StoreError {
    StoreError::Corrupt {
        table: "journal",
        key: first.to_string(),
        why: "the tag does not follow from the page before",
    }
}

pub(in crate::store) fn pair_key(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

pub(in crate::store) fn filter_key(queue: u64, filter: &str) -> Vec<u8> {
    let mut key = queue.to_be_bytes().to_vec();
    key.extend(filter.as_bytes());
    key
}

/// The format that this release writes.
pub(in crate::store) const FORMAT: u32 = 2;
/// Deliveries per chunk of a queue.
pub(in crate::store) const CHUNK: u64 = 512;
