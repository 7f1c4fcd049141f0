//! Restore and compact: another file takes the place of the store, at once.

use super::copy::{ClosedFile, NewFile, copy, remove_if_there, sync_folder, unfinished};
use super::snapshot::Snapshot;
use super::{FolderLock, Report, ToolError, check_file, store_path};
use crate::store::journal::create_private_dir;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to do with a store that is there already.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Leave it and do nothing.
    Refuse,
    /// Keep it under another name.
    KeepAside,
}

/// A restore that succeeded.
#[derive(Debug)]
pub struct Restored {
    /// What is in the store now.
    pub report: Report,
    /// Where the store is that was there before.
    pub aside: Option<PathBuf>,
}

/// Makes `file` the store of `data_dir`, after every byte of the copy has been verified.
///
/// # Errors
/// When a broker uses the folder, there is a store and `existing` refuses, or the file is damaged. Nothing has changed then.
pub fn restore(data_dir: &Path, file: &Path, existing: Existing) -> Result<Restored, ToolError> {
    let store = store_path(data_dir);
    let source = File::open(file).map_err(ToolError::io(file))?;
    create_private_dir(data_dir)?;
    let _lock = FolderLock::take(data_dir)?;
    let is_occupied = store.symlink_metadata().is_ok();
    if is_occupied && is_same(&source, &store) {
        return Err(ToolError::Same(file.to_owned()));
    }
    if is_occupied && existing == Existing::Refuse {
        return Err(ToolError::Occupied(store));
    }
    let copy = copy_bytes(source, &unfinished(&store))?;
    // The copy is verified, not the original: it is what will be used.
    let report = verify(copy.path()).map_err(|error| naming(error, copy.path(), file))?;
    hand_over(copy.path(), data_dir);
    let aside = match is_occupied {
        true => Some(keep_aside(&store)?),
        false => None,
    };
    copy.replace(&store)?;
    Ok(Restored { report, aside })
}

/// A compaction that succeeded.
#[derive(Debug)]
pub struct Compacted {
    /// Bytes of the file before.
    pub before_bytes: u64,
    /// Bytes of the file now.
    pub after_bytes: u64,
    /// What is in it.
    pub report: Report,
}

/// Writes the store of `data_dir` anew without what is free in it.
///
/// # Errors
/// When a broker uses the folder, the store is damaged, or the disk has no room for a second copy. Nothing has changed then.
pub fn compact(data_dir: &Path) -> Result<Compacted, ToolError> {
    let store = store_path(data_dir);
    let _lock = FolderLock::take(data_dir)?;
    if !store.exists() {
        return Err(ToolError::NoStore(store));
    }
    let before_bytes = length(&store)?;
    let snapshot = Snapshot::of_file(&store)?;
    let mut file = NewFile::create(&unfinished(&store))?;
    let copied = copy(&snapshot, &file)?;
    drop(snapshot);
    file.shrink()?;
    let new = file.close()?;
    let report = verify(new.path())?;
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    if rows != copied.rows {
        // The copy has lost something between writing and reading: the disk cannot be trusted.
        return Err(ToolError::Damaged {
            path: new.path().to_owned(),
            report: Box::new(report),
        });
    }
    hand_over(new.path(), data_dir);
    let after_bytes = length(new.path())?;
    new.replace(&store)?;
    Ok(Compacted {
        before_bytes,
        after_bytes,
        report,
    })
}

/// Everything is what was written, and a broker can load it.
pub(super) fn verify(path: &Path) -> Result<Report, ToolError> {
    let report = check_file(path)?;
    if !report.is_sound() {
        return Err(ToolError::Damaged {
            path: path.to_owned(),
            report: Box::new(report),
        });
    }
    Snapshot::of_file(path)?.load()?;
    Ok(report)
}

/// An error over the copy, told of the file it is a copy of.
fn naming(error: ToolError, copy: &Path, file: &Path) -> ToolError {
    match error {
        ToolError::Damaged { mut report, .. } => {
            let (copy, file) = (copy.display().to_string(), file.display().to_string());
            for damage in &mut report.damage {
                damage.key = damage.key.replace(&copy, &file);
            }
            ToolError::Damaged {
                path: file.into(),
                report,
            }
        }
        other => other,
    }
}

fn copy_bytes(mut source: File, to: &Path) -> Result<ClosedFile, ToolError> {
    remove_if_there(to)?;
    let mut how = File::options();
    how.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut how, 0o600);
    let mut file = how.open(to).map_err(ToolError::io(to))?;
    let closed = ClosedFile::new(to.to_owned());
    std::io::copy(&mut source, &mut file).map_err(ToolError::io(to))?;
    file.sync_all().map_err(ToolError::io(to))?;
    Ok(closed)
}

/// Gives the store a second name, so that there is no moment without a store.
fn keep_aside(store: &Path) -> Result<PathBuf, ToolError> {
    for number in 1_u32.. {
        let mut name = store.file_name().unwrap_or_default().to_owned();
        name.push(format!(".replaced-{number}"));
        let aside = store.with_file_name(name);
        match std::fs::hard_link(store, &aside) {
            Ok(()) => {
                sync_folder(&aside)?;
                return Ok(aside);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // A file system without links: then it is copied.
            Err(_) if aside.exists() => {}
            Err(_) => {
                let source = File::open(store).map_err(ToolError::io(store))?;
                copy_bytes(source, &unfinished(&aside))?.replace(&aside)?;
                return Ok(aside);
            }
        }
    }
    Err(ToolError::Exists(store.to_owned()))
}

fn is_same(file: &File, store: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), store.metadata()) {
        (Ok(file), Ok(store)) => identity(file) == identity(store),
        _ => false,
    }
}

/// A tool run by root makes files for the user to whom the folder belongs.
fn hand_over(file: &Path, folder: &Path) {
    if let Ok(owner) = folder.metadata() {
        // Whoever may not do that is the owner already, or will see why the broker cannot read the file.
        let _ = std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid()));
        let lock = folder.join("lock");
        let _ = std::os::unix::fs::chown(lock, Some(owner.uid()), Some(owner.gid()));
    }
}

fn length(path: &Path) -> Result<u64, ToolError> {
    Ok(path.metadata().map_err(ToolError::io(path))?.len())
}
