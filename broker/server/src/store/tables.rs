//! The tables, and the keyed tags on every value.
//!
//! redb does not check its checksums on ordinary reads, so every value ends with a 64-bit tag over table, key and value,
//! under a random key of this store. In the journal each action has half of such a tag, and the tag of a page covers those of its
//! actions, whole, and the page before. A flipped bit is an error that names table and key.

use super::StoreError;
use redb::TableDefinition;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Facts about the store: `format`, `key`, `boot`, `folded`, `next_queue`.
pub const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Pages of actions by the position of the first: tag, then varint length, half a tag and bytes of each action.
pub const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
/// Messages that left the journal and are still in a queue, by position.
pub const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// Chunks of queues by queue and sequence / 512.
pub const QUEUES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("queues");
/// Session rows by queue.
pub const SESSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("sessions");
/// Subscriptions by queue and filter.
pub const SUBSCRIPTIONS: TableDefinition<'_, (u64, &str), &[u8]> =
    TableDefinition::new("subscriptions");
/// Inbound QoS 2 packet ids by queue.
pub const INBOUND: TableDefinition<'_, (u64, u16), &[u8]> = TableDefinition::new("inbound");
/// Position and message by topic.
pub const RETAINED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("retained");

/// The random key of a store.
#[derive(Copy, Clone)]
pub struct StoreKey([u64; 2]);

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey")
    }
}

impl StoreKey {
    /// From its 16 stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let value = u128::from_le_bytes(bytes);
        Self([value as u64, (value >> 64) as u64])
    }

    /// Appends the tag of `value` under `key` of `table`.
    pub fn seal(self, table: &str, key: &[u8], value: &mut Vec<u8>) {
        let tag = self.tag(table, key, value);
        value.extend(tag.to_le_bytes());
    }

    /// The value without its tag.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the tag does not fit.
    pub fn open<'a>(
        self,
        table: &'static str,
        key: &[u8],
        sealed: &'a [u8],
    ) -> Result<&'a [u8], StoreError> {
        let corrupt = || StoreError::Corrupt {
            table,
            key: key.escape_ascii().to_string(),
            why: "the tag does not fit the value",
        };
        let (value, tag) = sealed.split_last_chunk().ok_or_else(corrupt)?;
        if self.tag(table, key, value) == u64::from_le_bytes(*tag) {
            Ok(value)
        } else {
            Err(corrupt())
        }
    }

    fn tag(self, table: &str, key: &[u8], value: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        hasher.write_u64(table.len() as u64);
        hasher.write(table.as_bytes());
        hasher.write_u64(key.len() as u64);
        hasher.write(key);
        hasher.write(value);
        hasher.finish()
    }

    /// The tag of the action at `position` of the journal.
    #[must_use]
    pub fn action_tag(self, position: u64, action: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        hasher.write_u64(position);
        hasher.write(action);
        hasher.finish()
    }

    /// Begins the tag of a journal page that follows the page tagged `previous`.
    #[must_use]
    pub fn chain(self, previous: u64, position: u64) -> PageTag {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        hasher.write_u64(previous);
        hasher.write_u64(position);
        PageTag(hasher)
    }
}

/// The tag of a journal page, over the whole tags of its actions. (Beside each action is only half of its own.)
#[derive(Clone, Debug)]
pub struct PageTag(SipHasher13);

impl PageTag {
    /// Adds the next action's tag.
    pub fn add(&mut self, action_tag: u64) {
        self.0.write_u64(action_tag);
    }

    /// The tag.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}
