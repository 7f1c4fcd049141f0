//! The file under redb: allocates ahead, keeps a reserve, and knows when the disk is full before redb does.
//!
//! redb latches its first write error and grows its file sparsely, so a full disk would show in the middle of a commit.
//! Here disk blocks are allocated in steps ahead of the highest byte written, plus `reserve_bytes`. When that fails the
//! store is *full*: enqueues are refused, while acknowledgements and deletes go on out of the reserve.
//!
//! Does not know: tables, records.

use redb::StorageBackend;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much the file may grow.
#[derive(Copy, Clone, Debug)]
pub struct FileLimits {
    /// Disk space kept free for acknowledgements and deletes, in bytes.
    pub reserve_bytes: u64,
    /// Largest size of the file, in bytes; 0 for the disk's.
    pub store_bytes_max: u64,
}

/// Whether the disk has room; shared with the journal.
#[derive(Debug)]
pub struct FileRoom {
    limits: FileLimits,
    /// Blocks are allocated up to here.
    allocated: AtomicU64,
    /// The highest byte written.
    written: AtomicU64,
    /// Between here and `allocated` nothing was ever written. Locked while the two above change.
    filled: Mutex<u64>,
    /// The reserve is allocated on the disk.
    has_disk: AtomicBool,
    /// Enough is free inside the file.
    has_inside: AtomicBool,
    /// What `is_full` said when it was last counted.
    was_full: AtomicBool,
    times_full: AtomicU64,
}

impl FileRoom {
    /// Room that nobody has looked at yet.
    #[must_use]
    pub fn new(limits: FileLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            allocated: AtomicU64::new(0),
            written: AtomicU64::new(0),
            filled: Mutex::new(0),
            has_disk: AtomicBool::new(true),
            has_inside: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
            times_full: AtomicU64::new(0),
        })
    }

    /// Whether the reserve is all that is left, on the disk and inside the file.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.has_disk() && !self.has_inside.load(Ordering::Acquire)
    }

    /// How often the store became full.
    #[must_use]
    pub fn times_full(&self) -> u64 {
        self.times_full.load(Ordering::Relaxed)
    }

    /// Counts that the store became full, whoever found it out. After every change of what `is_full` looks at.
    fn count_full(&self) {
        let is_full = self.is_full();
        let was_full = self.was_full.swap(is_full, Ordering::AcqRel);
        self.times_full
            .fetch_add(u64::from(is_full && !was_full), Ordering::Relaxed);
    }

    /// The highest byte written.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether the reserve is allocated on the disk; if not, somebody must watch what is free inside the file.
    #[must_use]
    pub fn has_disk(&self) -> bool {
        self.has_disk.load(Ordering::Acquire)
    }

    /// Notes how many of the file's bytes are free inside it (redb never shrinks it, but uses it again), and how many the file
    /// may still take from the disk (redb lengthens it sparsely, so that the reserve cannot always be allocated at its end).
    ///
    /// What is free inside lies in pieces, and redb wants powers of two: a commit that finds none large enough goes to the end
    /// of the file, where the disk has nothing left. So the reserve is not enough there, but half of the file is, or a gigabyte.
    pub fn note_inside(&self, free_bytes: u64, file_bytes: u64, disk_bytes: u64) {
        let reserve = self.limits.reserve_bytes;
        let pieces = INSIDE_BYTES.min(file_bytes / 2);
        let is_enough =
            disk_bytes >= reserve + ALLOCATION_STEP || free_bytes >= reserve.max(pieces);
        self.has_inside.store(is_enough, Ordering::Release);
        self.count_full();
    }

    fn lock_filled(&self) -> MutexGuard<'_, u64> {
        // Nothing that can panic runs under this lock.
        self.filled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the store as full, after the disk refused a write.
    pub fn set_full(&self) {
        self.has_disk.store(false, Ordering::Release);
        self.has_inside.store(false, Ordering::Release);
        self.count_full();
    }

    /// Bytes that may be written before what is free inside the file must be looked at again.
    #[must_use]
    pub fn check_bytes(&self) -> u64 {
        self.limits.reserve_bytes / 8
    }
}

/// The file.
#[derive(Debug)]
pub struct StoreFile {
    file: File,
    room: Arc<FileRoom>,
}

impl StoreFile {
    /// Takes over an open file.
    ///
    /// # Errors
    /// When its length cannot be read.
    pub fn new(file: File, room: Arc<FileRoom>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        room.written.store(length, Ordering::Release);
        room.allocated.store(0, Ordering::Release);
        let store = Self { file, room };
        store.reserve(&mut store.room.lock_filled());
        Ok(store)
    }

    /// Tries to have the reserve allocated beyond what is written; notes whether the store is full.
    fn reserve(&self, filled: &mut u64) {
        let written = self.room.written.load(Ordering::Acquire);
        let wanted = (written + self.room.limits.reserve_bytes).next_multiple_of(ALLOCATION_STEP);
        if self.room.allocated.load(Ordering::Acquire) >= wanted {
            return;
        }
        let maximum = self.room.limits.store_bytes_max;
        let is_allowed = maximum == 0 || written + self.room.limits.reserve_bytes <= maximum;
        let is_allocated = is_allowed && allocate(&self.file, wanted).is_ok();
        if is_allocated {
            *filled = written.min(wanted);
            self.room.allocated.store(wanted, Ordering::Release);
        }
        let had_disk = self.room.has_disk.swap(is_allocated, Ordering::AcqRel);
        self.room.count_full();
        if had_disk && !is_allocated {
            tracing::error!(
                written,
                reserve_bytes = self.room.limits.reserve_bytes,
                "the disk (or persistence.store_bytes_max) has no room for the reserve: publishes that must be stored are refused with 0x97 unless the store has room inside"
            );
        }
    }

    /// Gives the reserve back: a write beyond it (redb lengthens the file by leaps) finds no block while the reserve has the last
    /// ones. `false` when there was none.
    fn release(&self) -> bool {
        let filled = self.room.lock_filled();
        let allocated = self.room.allocated.swap(0, Ordering::AcqRel);
        self.room.has_disk.store(false, Ordering::Release);
        self.room.count_full();
        if allocated <= *filled {
            return false;
        }
        let is_released = deallocate(&self.file, *filled, allocated).is_ok();
        tracing::warn!(
            is_released,
            "a write found no room: the store gives its reserve up for it"
        );
        is_released
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut filled = self.room.lock_filled();
        self.file.set_len(len)?;
        if len < self.room.written.load(Ordering::Acquire) {
            self.room.written.store(len, Ordering::Release);
            self.room.allocated.store(len, Ordering::Release);
            *filled = len;
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let end = offset + data.len() as u64;
        let mut filled = self.room.lock_filled();
        let allocated = self.room.allocated.load(Ordering::Acquire);
        if offset < allocated {
            *filled = end.min(allocated).max(*filled);
        }
        if end > self.room.written.fetch_max(end, Ordering::AcqRel) {
            self.reserve(&mut filled);
        }
        drop(filled);
        match self.file.write_all_at(data, offset) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && self.release() => {
                self.file.write_all_at(data, offset)
            }
            result => result,
        }
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        // A file system that cannot allocate ahead: then a full disk shows in the commit, which is handled too.
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Gives the blocks from `start` to `end` back, in which nothing was ever written.
#[cfg(target_os = "linux")]
fn deallocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
    let start = start.next_multiple_of(BLOCK_BYTES);
    if start < end {
        fallocate(file, flags, start, end - start)?;
    }
    // Some file systems give blocks behind the end back only so.
    file.set_len(file.metadata()?.len())
}

#[cfg(not(target_os = "linux"))]
fn deallocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

/// Free bytes inside the file in which a commit finds its place, however they are scattered.
const INSIDE_BYTES: u64 = 1 << 30;
/// The largest usual block of a file system: what a write has touched of it stays.
const BLOCK_BYTES: u64 = 64 << 10;
/// Blocks are allocated in steps of this many bytes.
const ALLOCATION_STEP: u64 = 4 << 20;
