//! One consistent view of a store: of the running broker's, or of a file.
//!
//! A view of the running broker keeps the pages it sees from being used again, so the file grows meanwhile by what is
//! written; the view is given back as soon as the broker needs the file. A view of a file never changes the file.

use super::read_only::{AsFound, Overlay, Root};
use super::rows::guarded;
use crate::store::StoreError;
use crate::store::engine::{Engine, EngineOptions};
use redb::{ConcurrencyMode, Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A consistent view.
pub struct Snapshot {
    txn: ReadTransaction,
    base: Base,
    /// The broker wants its file back, or nobody waits for the result any more.
    is_ended: Vec<Arc<AtomicBool>>,
}

enum Base {
    /// The running broker's; held so that it is not closed meanwhile.
    Live(#[expect(dead_code, reason = "held, never read")] Arc<Database>),
    /// A file that redb found whole.
    Whole(Database),
    /// A file that redb does not accept.
    AsFound(
        #[expect(dead_code, reason = "held, never read")] ReadOnlyDatabase,
        PathBuf,
        Root,
    ),
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    /// A view of the running broker's store, until `is_wanted_back`.
    pub(in crate::store) fn live(
        db: Arc<Database>,
        is_wanted_back: Arc<AtomicBool>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            txn: db.begin_read()?,
            base: Base::Live(db),
            is_ended: vec![is_wanted_back],
        })
    }

    /// A view of a file that redb finds whole: every page that should be there is, and is what redb wrote.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn of_file(path: &Path) -> Result<Self, StoreError> {
        let file = open(path)?;
        let overlay = Overlay::new(file).map_err(io_error(path))?;
        let opened = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder.set_check_integrity_on_open(true);
            let db = builder.create_with_backend(overlay)?;
            Ok((db.begin_read()?, db))
        });
        let (txn, db) = opened?;
        Ok(Self {
            txn,
            base: Base::Whole(db),
            is_ended: Vec::new(),
        })
    }

    /// A view of whatever is in a file.
    ///
    /// # Errors
    /// When not even the beginning of the file can be understood.
    pub(super) fn of_damaged_file(path: &Path) -> Result<Self, StoreError> {
        Self::as_found(path, Root::Named).or_else(|_| Self::as_found(path, Root::Other))
    }

    fn as_found(path: &Path, root: Root) -> Result<Self, StoreError> {
        let backend = AsFound::new(open(path)?, root);
        let (txn, db) = guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            // The mode that neither repairs nor loads what only a writer needs.
            builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
            let db = builder.open_read_only_with_backend(backend)?;
            Ok((db.begin_read()?, db))
        })?;
        Ok(Self {
            txn,
            base: Base::AsFound(db, path.to_owned(), root),
            is_ended: Vec::new(),
        })
    }

    /// Ends the work on this view when `is_ended` is set.
    #[must_use]
    pub fn until(mut self, is_ended: Arc<AtomicBool>) -> Self {
        self.is_ended.push(is_ended);
        self
    }

    /// Loads the store as a broker would, and changes nothing.
    pub(super) fn load(&self) -> Result<Engine, StoreError> {
        match &self.base {
            Base::Whole(db) => guarded(|| Engine::load(db, EngineOptions::default())),
            Base::Live(_) | Base::AsFound(..) => Err(StoreError::Interrupted),
        }
    }

    /// The view.
    pub(super) fn txn(&self) -> &ReadTransaction {
        &self.txn
    }

    /// Makes the view usable again after redb has panicked in it.
    pub(super) fn renew(&mut self) -> Result<(), StoreError> {
        match &mut self.base {
            Base::Live(_) => {}
            Base::Whole(db) => self.txn = db.begin_read()?,
            Base::AsFound(_, path, root) => {
                let (path, root) = (path.clone(), *root);
                *self = Self::as_found(&path, root)?;
            }
        }
        Ok(())
    }

    /// Fails when the work must end.
    pub(super) fn check_ended(&self) -> Result<(), StoreError> {
        match self.is_ended.iter().any(|end| end.load(Ordering::Relaxed)) {
            true => Err(StoreError::Interrupted),
            false => Ok(()),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let file = File::open(path).map_err(io_error(path))?;
    if file.metadata().map_err(io_error(path))?.len() == 0 {
        return Err(StoreError::Emptied(path.to_owned()));
    }
    Ok(file)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

/// redb's page cache while a file is read once.
const CACHE_BYTES: usize = 16 << 20;
