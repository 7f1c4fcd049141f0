//! The allow-list as a file that may change at any time.

use crate::CertsError;
use crate::enrol::AllowList;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which ids can be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// None.
    Nothing,
    /// Every id that is free.
    Anything,
    /// Those in a file.
    File(PathBuf),
}

/// What was read of it.
#[derive(Debug)]
pub(super) struct List {
    path: Option<PathBuf>,
    read: Option<Stamp>,
    list: Option<AllowList>,
}

impl List {
    pub(super) fn open(allowed: Allowed) -> Result<Self, CertsError> {
        let (path, list) = match allowed {
            Allowed::Nothing => (None, None),
            Allowed::Anything => (None, Some(AllowList::any())),
            Allowed::File(path) => (Some(path), None),
        };
        let read = None;
        let mut list = Self { path, read, list };
        list.refresh()?;
        Ok(list)
    }

    /// Reads the file if it is another than before; one that cannot be read allows nothing.
    pub(super) fn refresh(&mut self) -> Result<(), CertsError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let stamp = stamp(path).inspect_err(|_| self.read = None)?;
        if self.read.as_ref() == Some(&stamp) {
            return Ok(());
        }
        self.read = None;
        let text = fs::read_to_string(path).map_err(|error| CertsError::file(path, error))?;
        self.list = Some(AllowList::parse(&text));
        self.read = Some(stamp);
        Ok(())
    }

    pub(super) fn list(&self) -> Option<&AllowList> {
        self.list.as_ref()
    }
}

/// What changes with a file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Result<Stamp, CertsError> {
    let metadata = fs::metadata(path).map_err(|error| CertsError::file(path, error))?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: inode(&metadata),
    })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> u64 {
    0
}
