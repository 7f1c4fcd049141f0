//! A store's file, read without changing it.
//!
//! redb repairs a file that was not closed, and notes that it is open. [`Overlay`] keeps such writes in memory;
//! [`AsFound`] has redb open a file that it would rather repair than read, for the tags to say what in it is sound.
//!
//! Does not know: tables.

use redb::{BackendError, StorageBackend};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file with writes kept in memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// The file counts below this offset only; it has been cut there.
    file_length: u64,
    blocks: HashMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// Lays nothing over `file` yet.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let state = Mutex::new(State {
            length,
            file_length: length,
            blocks: HashMap::new(),
        });
        Ok(Self { file, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file what it has; zeros behind it.
    fn read_file(&self, offset: u64, length: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = length.saturating_sub(offset).min(out.len() as u64) as usize;
        self.file.read_exact_at(&mut out[..there], offset)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let state = self.lock();
        if offset + out.len() as u64 > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, state.file_length, out)?;
        for part in parts(offset, out.len()) {
            if let Some(block) = state.blocks.get(&part.block) {
                out[part.at..part.at + part.length]
                    .copy_from_slice(&block[part.within..part.within + part.length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut state = self.lock();
        if length < state.length {
            state.file_length = state.file_length.min(length);
            state.blocks.retain(|block, _| block * BLOCK < length);
            if let Some(last) = state.blocks.get_mut(&(length / BLOCK)) {
                last[(length % BLOCK) as usize..].fill(0);
            }
        }
        state.length = length;
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut state = self.lock();
        for part in parts(offset, data.len()) {
            if !state.blocks.contains_key(&part.block) {
                let mut block = vec![0; BLOCK as usize];
                self.read_file(part.block * BLOCK, state.file_length, &mut block)?;
                state.blocks.insert(part.block, block.into());
            }
            if let Some(block) = state.blocks.get_mut(&part.block) {
                block[part.within..part.within + part.length]
                    .copy_from_slice(&data[part.at..part.at + part.length]);
            }
        }
        Ok(())
    }
}

/// What of a range lies in one block.
struct Part {
    block: u64,
    within: usize,
    /// In the caller's slice.
    at: usize,
    length: usize,
}

fn parts(offset: u64, length: usize) -> impl Iterator<Item = Part> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == length {
            return None;
        }
        let position = offset + at as u64;
        let within = (position % BLOCK) as usize;
        let part = Part {
            block: position / BLOCK,
            within,
            at,
            length: (BLOCK as usize - within).min(length - at),
        };
        at += part.length;
        Some(part)
    })
}

/// A file as it is, which redb is told was closed properly and is shared by agreement.
#[derive(Debug)]
pub(super) struct AsFound {
    file: File,
    root: Root,
}

/// Which of redb's two commit slots to read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Root {
    /// The one the file names.
    Named,
    /// The other one, usually the commit before.
    Other,
}

impl AsFound {
    pub(super) fn new(file: File, root: Root) -> Self {
        Self { file, root }
    }
}

impl StorageBackend for AsFound {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(out, offset)?;
        let flags = FLAGS_OFFSET.checked_sub(offset);
        if let Some(flags) = flags.and_then(|at| out.get_mut(at as usize)) {
            *flags &= !RECOVERY_REQUIRED;
            if self.root == Root::Other {
                *flags ^= SECOND_IS_PRIMARY;
            }
        }
        Ok(())
    }

    fn set_len(&self, _: u64) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), io::Error> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    // Nobody else has the file: the folder's lock is held.

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

/// Bytes kept together.
const BLOCK: u64 = 4096;
/// redb's flags, behind the magic number (its `header.rs`).
const FLAGS_OFFSET: u64 = 9;
const SECOND_IS_PRIMARY: u8 = 1;
const RECOVERY_REQUIRED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn an_overlay_reads_what_was_written_and_leaves_the_file_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
        overlay.write(4090, &[1; 12]).unwrap();
        overlay.set_len(9000).unwrap();
        overlay.set_len(20_000).unwrap();
        overlay.write(19_990, &[2; 10]).unwrap();
        let mut all = vec![0; 20_000];
        overlay.read(0, &mut all).unwrap();
        let mut expected = vec![7; 9000];
        expected[4090..4102].fill(1);
        expected.resize(19_990, 0);
        expected.resize(20_000, 2);
        assert_eq!(all, expected);
        assert!(overlay.read(19_999, &mut [0; 2]).is_err());
        let mut untouched = vec![0; 10_000];
        file.read_exact_at(&mut untouched, 0).unwrap();
        assert_eq!(untouched, [7; 10_000]);
    }
}
