//! A disk in memory whose power can fail.
//!
//! Invariants:
//! - What was synced survives; of the rest a random part does, by whole writes or by 512-byte sectors. Lengths count as
//!   writes.
//! - After the power has failed every operation is refused, so nothing that follows is acknowledged.

use super::Chance;
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    synced: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// What the process reads.
    visible: Vec<u8>,
    /// Writes, lengths and syncs so far.
    operations: u64,
    /// The power fails at this operation.
    cut_at: Option<u64>,
    is_off: bool,
    lies_per_mille: u64,
    chance: Chance,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Box<[u8]> },
    Length(usize),
}

impl Disk {
    /// A disk that holds `image`, synced. Of 1000 syncs `lies_per_mille` do nothing.
    #[must_use]
    pub fn new(image: Vec<u8>, lies_per_mille: u64, chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            visible: image.clone(),
            synced: image,
            unsynced: Vec::new(),
            operations: 0,
            cut_at: None,
            is_off: false,
            lies_per_mille,
            chance,
        })))
    }

    /// Lets the power fail `operations` writes, lengths or syncs from now.
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.lock();
        state.cut_at = Some(state.operations + operations);
    }

    /// Lets the power fail now.
    pub fn cut(&self) {
        self.lock().is_off = true;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off
    }

    /// Writes, lengths and syncs so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// What the process sees.
    #[must_use]
    pub fn visible(&self) -> Vec<u8> {
        self.lock().visible.clone()
    }

    /// Flips one bit of what the process sees.
    pub fn flip(&self, offset: usize, bit: u8) {
        self.lock().visible[offset] ^= 1 << bit;
    }

    /// One of the images that a power failure at this moment may leave.
    #[must_use]
    pub fn torn(&self, chance: &mut Chance) -> Vec<u8> {
        let state = self.lock();
        let mut image = state.synced.clone();
        let survival = chance.pick(&[0, 20, 200, 500, 800, 980, 1000]);
        let is_torn = chance.per_mille(700);
        for change in &state.unsynced {
            match change {
                Change::Length(length) => {
                    if chance.per_mille(survival) {
                        image.resize(*length, 0);
                    }
                }
                Change::Write { offset, data } if is_torn => {
                    let mut start = 0;
                    while start < data.len() {
                        let in_sector = (offset + start) % SECTOR;
                        let end = data.len().min(start + SECTOR - in_sector);
                        if chance.per_mille(survival) {
                            write(&mut image, offset + start, &data[start..end]);
                        }
                        start = end;
                    }
                }
                Change::Write { offset, data } => {
                    if chance.per_mille(survival) {
                        write(&mut image, *offset, data);
                    }
                }
            }
        }
        image
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation; the power may fail with it.
    fn operate(&mut self) -> io::Result<()> {
        if self.cut_at == Some(self.operations) {
            self.is_off = true;
        }
        self.operations += 1;
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        if self.is_off {
            Err(io::Error::other("the power has failed"))
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        let state = self.lock();
        state.check()?;
        Ok(state.visible.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.lock();
        state.check()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = state.visible.get(offset..offset.saturating_add(out.len()));
        let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut state = self.lock();
        state.check()?;
        let length = usize::try_from(len).map_err(io::Error::other)?;
        // The operation that meets the failure may have got through.
        state.unsynced.push(Change::Length(length));
        state.operate()?;
        state.visible.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut state = self.lock();
        state.check()?;
        state.operate()?;
        let lies = state.lies_per_mille;
        if lies > 0 && state.chance.per_mille(lies) {
            return Ok(());
        }
        for change in std::mem::take(&mut state.unsynced) {
            match change {
                Change::Write { offset, data } => write(&mut state.synced, offset, &data),
                Change::Length(length) => state.synced.resize(length, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.lock();
        state.check()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        state.unsynced.push(Change::Write {
            offset,
            data: data.into(),
        });
        state.operate()?;
        write(&mut state.visible, offset, data);
        Ok(())
    }
}

fn write(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
