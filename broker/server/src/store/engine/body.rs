//! Reading queued messages back.
//!
//! A reader sees one state of the store and opens its tables once. A body in the journal is proven by its own tag, so that
//! the rest of its page need not be looked at; positions in ascending order find each page once.

use super::at;
use super::page::split_record;
use crate::store::StoreError;
use crate::store::layout::{read_action_message, read_message};
use crate::store::tables::{BODIES, JOURNAL, META, StoreKey};
use motemq_core::Message;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase};

/// Reads bodies, from `bodies` or from the journal.
#[derive(Debug)]
pub struct BodyReader {
    key: StoreKey,
    bodies: ReadOnlyTable<u64, &'static [u8]>,
    journal: ReadOnlyTable<u64, &'static [u8]>,
    /// The last position whose body is in `bodies`.
    folded: u64,
    page: Option<Place>,
}

/// A place in a page of the journal.
struct Place {
    page: AccessGuard<'static, &'static [u8]>,
    /// The position of the action that begins at `offset`.
    position: u64,
    offset: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({}, {})", self.position, self.offset)
    }
}

impl BodyReader {
    /// A reader of the present state.
    ///
    /// # Errors
    /// When redb fails.
    pub fn new(db: &Database, key: StoreKey) -> Result<Self, StoreError> {
        let txn = db.begin_read()?;
        let meta = txn.open_table(META)?;
        let sealed = meta.get("folded")?;
        let sealed = sealed.as_ref().map_or(&[][..], |value| value.value());
        let folded = key.open("meta", b"folded", sealed)?;
        let folded = folded
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Self {
            key,
            bodies: txn.open_table(BODIES)?,
            journal: txn.open_table(JOURNAL)?,
            folded,
            page: None,
        })
    }

    /// The body at `position`; cheapest in ascending order.
    ///
    /// # Errors
    /// When redb fails or the body is not there as it was written.
    pub fn read(&mut self, position: u64) -> Result<Message, StoreError> {
        if position <= self.folded {
            let sealed = self.bodies.get(position)?;
            let sealed = sealed.ok_or_else(|| missing("bodies", position))?;
            let key = position.to_be_bytes();
            let bytes = self.key.open("bodies", &key, sealed.value())?;
            return read_message(bytes).map_err(at("bodies", position));
        }
        if let Some(message) = self.read_on(position)? {
            return Ok(message);
        }
        let mut pages = self.journal.range(..=position)?;
        let (first, page) = pages
            .next_back()
            .ok_or_else(|| missing("journal", position))??;
        self.page = Some(Place {
            page,
            position: first.value(),
            offset: TAG_BYTES,
        });
        self.read_on(position)?
            .ok_or_else(|| missing("journal", position))
    }

    /// The body at `position`, if it is in the present page, not before the place reached there.
    fn read_on(&mut self, position: u64) -> Result<Option<Message>, StoreError> {
        let Some(place) = &mut self.page else {
            return Ok(None);
        };
        if place.position > position {
            return Ok(None);
        }
        let page = place.page.value();
        while let Some(rest) = page.get(place.offset..).filter(|rest| !rest.is_empty()) {
            let (record, behind) = split_record(rest).ok_or_else(|| StoreError::Corrupt {
                table: "journal",
                key: place.position.to_string(),
                why: "the page ends within an action",
            })?;
            if place.position == position {
                if !record.is_proven(self.key, position) {
                    return Err(StoreError::Corrupt {
                        table: "journal",
                        key: position.to_string(),
                        why: "the tag does not fit the action",
                    });
                }
                return read_action_message(record.action)
                    .map_err(at("journal", position))?
                    .ok_or_else(|| missing("journal", position))
                    .map(Some);
            }
            place.offset = page.len() - behind.len();
            place.position += 1;
        }
        Ok(None)
    }
}

/// Reads the body at `position`.
///
/// # Errors
/// As [`BodyReader::read`].
pub fn read_body(db: &Database, key: StoreKey, position: u64) -> Result<Message, StoreError> {
    BodyReader::new(db, key)?.read(position)
}

fn missing(table: &'static str, position: u64) -> StoreError {
    StoreError::Corrupt {
        table,
        key: position.to_string(),
        why: "the message is missing",
    }
}

/// The tag before the first action of a page.
const TAG_BYTES: usize = 8;
