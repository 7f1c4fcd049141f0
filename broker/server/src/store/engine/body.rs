//! Reading queued messages back.

use super::load::read_folded;
use super::{at, broken_chain, page_actions};
use crate::store::StoreError;
use crate::store::layout::{read_action_message, read_message};
use crate::store::tables::{BODIES, JOURNAL, StoreKey};
use motemq_core::Message;
use redb::{Database, ReadableDatabase};

/// Reads bodies, from `bodies` or from the journal; a page of the journal is checked once for all bodies in it.
#[derive(Debug)]
pub struct BodyReader<'a> {
    db: &'a Database,
    key: StoreKey,
    /// The journal page last looked at: its first position and its actions.
    page: Option<(u64, Vec<u8>)>,
}

impl<'a> BodyReader<'a> {
    /// A reader of the present state.
    #[must_use]
    pub fn new(db: &'a Database, key: StoreKey) -> Self {
        Self {
            db,
            key,
            page: None,
        }
    }

    /// The body at `position`.
    ///
    /// # Errors
    /// When redb fails or the body is not there as it was written.
    pub fn read(&mut self, position: u64) -> Result<Message, StoreError> {
        let txn = self.db.begin_read()?;
        if let Some(sealed) = txn.open_table(BODIES)?.get(position)? {
            let bytes = self
                .key
                .open("bodies", &position.to_be_bytes(), sealed.value())?;
            return read_message(bytes).map_err(at("bodies", position));
        }
        let missing = || StoreError::Corrupt {
            table: "journal",
            key: position.to_string(),
            why: "the message is missing",
        };
        let journal = txn.open_table(JOURNAL)?;
        let mut pages = journal.range(..=position)?.rev();
        let (first, value) = pages.next().ok_or_else(missing)??;
        let first = first.value();
        if self.page.as_ref().is_none_or(|(known, _)| *known != first) {
            let previous = match pages.next() {
                Some(page) => page?
                    .1
                    .value()
                    .first_chunk()
                    .map_or(0, |tag| u64::from_le_bytes(*tag)),
                None => read_folded(self.db, self.key)?.1,
            };
            let (tag, actions) = value.value().split_first_chunk().ok_or_else(missing)?;
            if self.key.chain(previous, first, actions) != u64::from_le_bytes(*tag) {
                return Err(broken_chain(first));
            }
            self.page = Some((first, actions.to_vec()));
        }
        let actions = self.page.as_ref().map_or(&[][..], |(_, actions)| actions);
        let index = usize::try_from(position - first).map_err(|_| missing())?;
        let bytes = page_actions(actions)
            .nth(index)
            .flatten()
            .ok_or_else(missing)?;
        read_action_message(bytes)
            .map_err(at("journal", position))?
            .ok_or_else(missing)
    }
}

/// Reads the body at `position`.
///
/// # Errors
/// As [`BodyReader::read`].
pub fn read_body(db: &Database, key: StoreKey, position: u64) -> Result<Message, StoreError> {
    BodyReader::new(db, key).read(position)
}
