//! Pages of the journal: as many actions as fit one page of redb, each provable on its own and all of them together.
//!
//! redb gives a value of its own page a power of two times 4 KiB, header included, and writes all of it. So a page is closed
//! before it would overshoot, and what a commit leaves over is cut where it fits.
//!
//! Does not know: what an action means, redb.

use crate::store::tables::StoreKey;

/// An action as its page has it.
#[derive(Copy, Clone, Debug)]
pub(in crate::store) struct PageRecord<'a> {
    tag: u32,
    /// Its bytes.
    pub(in crate::store) action: &'a [u8],
}

impl PageRecord<'_> {
    /// Whether it was written as the action at `position`.
    pub(in crate::store) fn is_proven(self, key: StoreKey, position: u64) -> bool {
        stored_tag(key.action_tag(position, self.action)) == self.tag
    }
}

/// The actions of a page (without the page's tag); `None` for one that the page cuts off.
pub(in crate::store) fn page_records(
    mut page: &[u8],
) -> impl Iterator<Item = Option<PageRecord<'_>>> {
    std::iter::from_fn(move || {
        if page.is_empty() {
            return None;
        }
        let record = split_record(page);
        page = record.map_or(&[], |(_, rest)| rest);
        Some(record.map(|(record, _)| record))
    })
}

/// The first action of a page, and what is behind it.
pub(super) fn split_record(page: &[u8]) -> Option<(PageRecord<'_>, &[u8])> {
    let (length, rest) = split_length(page)?;
    let (tag, rest) = rest.split_first_chunk()?;
    let (action, rest) = rest.split_at_checked(length)?;
    let tag = u32::from_le_bytes(*tag);
    Some((PageRecord { tag, action }, rest))
}

/// The tag of a page that follows the page tagged `previous`; `None` if an action in it is not what was written.
pub(in crate::store) fn page_tag(
    key: StoreKey,
    previous: u64,
    first: u64,
    page: &[u8],
) -> Option<u64> {
    let mut chain = key.chain(previous, first);
    for (position, record) in (first..).zip(page_records(page)) {
        let record = record?;
        let tag = key.action_tag(position, record.action);
        if stored_tag(tag) != record.tag {
            return None;
        }
        chain.add(tag);
    }
    Some(chain.finish())
}

/// Actions on their way into pages.
#[derive(Debug)]
pub(super) struct PageWriter {
    key: StoreKey,
    /// The tag of the page before.
    chain: u64,
    /// The position of the first action in `records`.
    first: u64,
    records: Vec<u8>,
    /// Where each action in `records` ends, and its tag.
    ends: Vec<(usize, u64)>,
    value: Vec<u8>,
}

/// A page, ready.
#[derive(Debug)]
pub(super) struct NewPage<'a> {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) tag: u64,
    pub(super) value: &'a [u8],
}

impl PageWriter {
    /// A writer that goes on behind the page tagged `chain`.
    pub(super) fn new(key: StoreKey, chain: u64, first: u64) -> Self {
        Self {
            key,
            chain,
            first,
            records: Vec::with_capacity(PAGE_BYTES),
            ends: Vec::new(),
            value: Vec::with_capacity(PAGE_BYTES),
        }
    }

    /// Whether an action of `length` bytes fits the page that is being filled.
    pub(super) fn has_room(&self, length: usize) -> bool {
        let bytes = self.records.len() + length + RECORD_BYTES_MAX;
        self.ends.is_empty() || bytes + OVERHEAD_BYTES <= PAGE_BYTES
    }

    /// Adds an action.
    pub(super) fn add(&mut self, action: &[u8]) {
        let tag = self
            .key
            .action_tag(self.first + self.ends.len() as u64, action);
        write_length(action.len(), &mut self.records);
        self.records.extend(stored_tag(tag).to_le_bytes());
        self.records.extend(action);
        self.ends.push((self.records.len(), tag));
    }

    /// The next page of what was added; `None` when nothing is left.
    pub(super) fn next_page(&mut self) -> Option<NewPage<'_>> {
        let count = self.cut();
        let (end, _) = *self.ends.get(count.checked_sub(1)?)?;
        let mut chain = self.key.chain(self.chain, self.first);
        for (_, tag) in self.ends.drain(..count) {
            chain.add(tag);
        }
        let tag = chain.finish();
        self.value.clear();
        self.value.extend(tag.to_le_bytes());
        self.value.extend(self.records.drain(..end));
        self.ends.iter_mut().for_each(|(left, _)| *left -= end);
        let first = self.first;
        self.first += count as u64;
        self.chain = tag;
        Some(NewPage {
            first,
            count: count as u64,
            tag,
            value: &self.value,
        })
    }

    /// How many of the actions make the next page: all, unless more than a quarter of redb's page would be empty.
    fn cut(&self) -> usize {
        let bytes = self.records.len() + OVERHEAD_BYTES;
        let page = bytes.next_power_of_two().max(REDB_PAGE_BYTES);
        if page == REDB_PAGE_BYTES || bytes > page / 4 * 3 {
            return self.ends.len();
        }
        let fitting = |(end, _): &(usize, u64)| end + OVERHEAD_BYTES <= page / 2;
        self.ends
            .partition_point(fitting)
            .max(1)
            .min(self.ends.len())
    }
}

fn stored_tag(tag: u64) -> u32 {
    tag as u32
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    crate::store::layout::write_varint(length as u64, out);
}

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Some((length, bytes.get(index + 1..)?));
        }
    }
    None
}

/// A page of the journal with redb's header. 64 KiB needs less work per commit; 16 KiB is read back faster where 100 queues
/// are interleaved and only one of them is wanted.
const PAGE_BYTES: usize = 16 << 10;
/// The unit of redb's pages.
const REDB_PAGE_BYTES: usize = 4 << 10;
/// What a page has beside its records: redb's header of a leaf with one value (4 bytes), the key (8), the value's end (4), and
/// the tag.
const OVERHEAD_BYTES: usize = 4 + 8 + 4 + 8;
/// Length and tag of an action.
const RECORD_BYTES_MAX: usize = 5 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fill_what_redb_gives_them_and_each_action_is_proven_by_its_place() {
        for lengths in [
            &[5; 1000][..],
            &[130; 700],
            &[4000; 9],
            &[20_000, 3, 70_000],
        ] {
            let key = StoreKey::from_bytes([3; 16]);
            let mut writer = PageWriter::new(key, 77, 1);
            let (mut pages, mut chain) = (Vec::new(), 77);
            let mut take = |writer: &mut PageWriter| {
                while let Some(page) = writer.next_page() {
                    assert_eq!(
                        page_tag(key, chain, page.first, &page.value[8..]),
                        Some(page.tag)
                    );
                    assert_eq!(page_tag(key, chain, page.first + 1, &page.value[8..]), None);
                    assert_ne!(
                        page_tag(key, 5, page.first, &page.value[8..]),
                        Some(page.tag)
                    );
                    chain = page.tag;
                    pages.push((page.first, page.count, page.value.to_vec()));
                }
            };
            for (index, length) in lengths.iter().enumerate() {
                if !writer.has_room(*length) {
                    take(&mut writer);
                }
                writer.add(&vec![index as u8; *length]);
            }
            take(&mut writer);
            let mut next = 0;
            let (mut used, mut given) = (0, 0);
            for (first, count, value) in &pages {
                assert_eq!(*first, next + 1);
                for record in page_records(&value[8..]) {
                    let record = record.unwrap();
                    next += 1;
                    assert!(record.is_proven(key, next) && !record.is_proven(key, next + 1));
                    assert_eq!(
                        record.action,
                        vec![(next - 1) as u8; lengths[next as usize - 1]]
                    );
                }
                assert_eq!(next, first + count - 1);
                used += value.len();
                let bytes = value.len() + OVERHEAD_BYTES - 8;
                given += bytes.next_power_of_two().max(REDB_PAGE_BYTES);
            }
            assert_eq!(next, lengths.len() as u64);
            assert!(
                given - used < given / 4 || lengths.len() == 3,
                "{used} of {given}"
            );
        }
    }

    #[test]
    fn a_page_cut_or_flipped_anywhere_is_not_proven() {
        let key = StoreKey::from_bytes([3; 16]);
        let mut writer = PageWriter::new(key, 0, 9);
        for action in [&b"one"[..], &[2; 200], b""] {
            writer.add(action);
        }
        let page = writer.next_page().unwrap();
        let (value, tag) = (page.value.to_vec(), page.tag);
        for cut in 8..value.len() {
            assert_ne!(page_tag(key, 0, 9, &value[8..cut]), Some(tag));
        }
        for index in 8..value.len() {
            for bit in 0..8 {
                let mut flipped = value.clone();
                flipped[index] ^= 1 << bit;
                assert_ne!(page_tag(key, 0, 9, &flipped[8..]), Some(tag));
            }
        }
    }
}
