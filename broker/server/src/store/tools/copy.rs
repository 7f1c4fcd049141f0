//! A store copied row by row into a new file, which appears under its name only when it is whole and on disk.
//!
//! Every tag is checked on the way, so that damage is found before the copy is trusted. Commits are small and follow each
//! other, so that the disk never has much to write at once while a broker waits for it too.

use super::ToolError;
use super::rows::{Table, guarded};
use super::snapshot::Snapshot;
use super::survey::{
    BODY_ROWS, INBOUND_ROWS, JOURNAL_ROWS, META_ROWS, QUEUE_ROWS, RETAINED_ROWS, SESSION_ROWS,
    SUBSCRIPTION_ROWS,
};
use crate::store::StoreError;
use crate::store::engine::{broken_chain, filter_key, page_tag, pair_key};
use crate::store::tables::{META, StoreKey};
use redb::backends::FileBackend;
use redb::{Database, Key, ReadableTable, TableHandle};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A new store that nobody sees yet; removed when it is dropped before [`NewFile::finish`].
#[derive(Debug)]
pub(super) struct NewFile {
    path: PathBuf,
    db: Option<Database>,
}

impl NewFile {
    /// Makes `path`, which only its owner may read; what an earlier run left there is removed.
    pub(super) fn create(path: &Path) -> Result<Self, ToolError> {
        remove_if_there(path)?;
        let mut how = File::options();
        how.read(true).write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
        let file = how.open(path).map_err(ToolError::io(path))?;
        let mut this = Self {
            path: path.to_owned(),
            db: None,
        };
        let backend = FileBackend::new(file);
        let backend = backend.map_err(|error| ToolError::write(path)(error.into()))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let db = builder.create_with_backend(backend);
        let db = db.map_err(|error| ToolError::write(path)(error.into()))?;
        this.db = Some(db);
        Ok(this)
    }

    /// The database.
    pub(super) fn db(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or(StoreError::Interrupted)
    }

    /// Removes what a copy leaves unused, as far as redb can.
    pub(super) fn shrink(&mut self) -> Result<(), ToolError> {
        if let Some(db) = &mut self.db {
            db.compact()
                .map_err(|error| ToolError::write(&self.path)(error.into()))?;
        }
        Ok(())
    }

    /// Closes the file and returns its path; it is on disk then, under its temporary name.
    pub(super) fn close(mut self) -> Result<ClosedFile, ToolError> {
        if let Some(db) = self.db.take() {
            db.close()
                .map_err(|error| ToolError::write(&self.path)(error.into()))?;
        }
        let path = std::mem::take(&mut self.path);
        let closed = ClosedFile(path);
        let file = File::open(&closed.0).map_err(ToolError::io(&closed.0))?;
        file.sync_all().map_err(ToolError::io(&closed.0))?;
        Ok(closed)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        drop(self.db.take());
        if !self.path.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A whole file under a temporary name; removed when dropped before it gets its name.
#[derive(Debug)]
pub(super) struct ClosedFile(PathBuf);

impl ClosedFile {
    /// Takes charge of a file.
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it the name `path`, unless something has it.
    pub(super) fn name(mut self, path: &Path) -> Result<(), ToolError> {
        match std::fs::hard_link(&self.0, path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(ToolError::Exists(path.to_owned()));
            }
            // A file system without links, such as FAT.
            Err(_) => {
                refuse_existing(path)?;
                std::fs::rename(&self.0, path).map_err(ToolError::io(path))?;
                self.0 = PathBuf::new();
            }
        }
        sync_folder(path)
    }

    /// Puts it in the place of `path`, at once.
    pub(super) fn replace(mut self, path: &Path) -> Result<(), ToolError> {
        std::fs::rename(&self.0, path).map_err(ToolError::io(path))?;
        self.0 = PathBuf::new();
        sync_folder(path)
    }
}

impl Drop for ClosedFile {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// Copies all rows of `snapshot` to `to`.
///
/// # Errors
/// When a row is not what was written, or the new file cannot be written; which of the two, the error says.
pub(super) fn copy(snapshot: &Snapshot, to: &NewFile) -> Result<Copied, ToolError> {
    let (key, folded) = guarded(|| facts(snapshot))?;
    let mut copier = Copier {
        snapshot,
        to,
        copied: Copied::default(),
    };
    copier.table(&META_ROWS, &mut |_, _| Ok(()))?;
    copier.table(&SESSION_ROWS, &mut |queue, value| {
        key.open("sessions", &queue.to_be_bytes(), value).map(drop)
    })?;
    copier.table(&SUBSCRIPTION_ROWS, &mut |(queue, filter), value| {
        key.open("subscriptions", &filter_key(*queue, filter), value)
            .map(drop)
    })?;
    copier.table(&INBOUND_ROWS, &mut |(queue, id), value| {
        key.open("inbound", &pair_key(*queue, (*id).into()), value)
            .map(drop)
    })?;
    copier.table(&QUEUE_ROWS, &mut |(queue, chunk), value| {
        key.open("queues", &pair_key(*queue, *chunk), value)
            .map(drop)
    })?;
    copier.table(&RETAINED_ROWS, &mut |topic, value| {
        key.open("retained", topic.as_bytes(), value).map(drop)
    })?;
    copier.table(&BODY_ROWS, &mut |position, value| {
        key.open("bodies", &position.to_be_bytes(), value).map(drop)
    })?;
    let mut chain = folded;
    copier.table(&JOURNAL_ROWS, &mut |first, value| {
        let (tag, page) = value
            .split_first_chunk()
            .ok_or_else(|| broken_chain(*first))?;
        let tag = u64::from_le_bytes(*tag);
        if page_tag(key, chain, *first, page) != Some(tag) {
            return Err(broken_chain(*first));
        }
        chain = tag;
        Ok(())
    })?;
    Ok(copier.copied)
}

/// The store's key, and the tag that the journal's first page follows.
fn facts(snapshot: &Snapshot) -> Result<(StoreKey, u64), StoreError> {
    let corrupt = |name: &str| StoreError::Corrupt {
        table: "meta",
        key: name.to_owned(),
        why: "it is missing or not what was written",
    };
    let meta = snapshot.txn().open_table(META)?;
    let key = meta.get("key")?.ok_or_else(|| corrupt("key"))?;
    let key = key.value().try_into().map_err(|_| corrupt("key"))?;
    let key = StoreKey::from_bytes(key);
    for name in ["boot", "next_queue"] {
        let sealed = meta.get(name)?.ok_or_else(|| corrupt(name))?;
        key.open("meta", name.as_bytes(), sealed.value())?;
    }
    let folded = meta.get("folded")?.ok_or_else(|| corrupt("folded"))?;
    let folded = key.open("meta", b"folded", folded.value())?;
    let tag = folded.last_chunk().ok_or_else(|| corrupt("folded"))?;
    Ok((key, u64::from_le_bytes(*tag)))
}

/// What was copied.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

struct Copier<'a> {
    snapshot: &'a Snapshot,
    to: &'a NewFile,
    copied: Copied,
}

/// Checks one row.
type Check<'a, K> =
    dyn FnMut(&<K as redb::Value>::SelfType<'_>, &[u8]) -> Result<(), StoreError> + 'a;

impl Copier<'_> {
    fn table<K: Key + 'static>(
        &mut self,
        table: &Table<K>,
        check: &mut Check<'_, K>,
    ) -> Result<(), ToolError> {
        let write = || ToolError::write(&self.to.path);
        let source = guarded(|| Ok(self.snapshot.txn().open_table(table.definition)?))?;
        let mut rows = guarded(|| Ok(source.iter()?))?;
        let mut is_over = false;
        while !is_over {
            let mut txn = self.to.db()?.begin_write().map_err(|e| write()(e.into()))?;
            txn.set_two_phase_commit(true);
            let mut batch = 0;
            let mut to = txn
                .open_table(table.definition)
                .map_err(|e| write()(e.into()))?;
            while batch < BATCH_BYTES {
                self.snapshot.check_ended()?;
                let Some((key, value)) = guarded(|| Ok(rows.next().transpose()?))? else {
                    is_over = true;
                    break;
                };
                let (key, value) = (key.value(), value.value());
                check(&key, value)?;
                let bytes = K::as_bytes(&key).as_ref().len() + value.len();
                to.insert(&key, value).map_err(|e| write()(e.into()))?;
                batch += bytes;
                self.copied.rows += 1;
                self.copied.bytes += bytes as u64;
            }
            drop(to);
            txn.commit().map_err(|e| write()(e.into()))?;
        }
        tracing::debug!(table = table.definition.name(), "copied");
        Ok(())
    }
}

/// Says so when something is at `path`.
pub(super) fn refuse_existing(path: &Path) -> Result<(), ToolError> {
    match path.symlink_metadata() {
        Ok(_) => Err(ToolError::Exists(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ToolError::io(path)(error)),
    }
}

/// Makes sure that nothing is at `path`.
pub(super) fn remove_if_there(path: &Path) -> Result<(), ToolError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ToolError::io(path)(error))
        }
        _ => Ok(()),
    }
}

/// The name under which a file is written before it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    path.with_file_name(name)
}

/// Makes names in the folder of `path` survive a power cut.
pub(super) fn sync_folder(path: &Path) -> Result<(), ToolError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = File::open(folder).map_err(ToolError::io(folder))?;
    file.sync_all().map_err(ToolError::io(folder))
}

/// Bytes of rows in one commit.
const BATCH_BYTES: usize = 4 << 20;
/// redb's page cache while the new file is written.
const CACHE_BYTES: usize = 16 << 20;
