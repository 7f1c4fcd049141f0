//! Whether files have changed since they were read.
//!
//! A file counts as changed when its place, size or time of change is another one, and stays so from one look to the next: what is
//! half written is not taken. A file that is gone for longer than that has changed too.
//!
//! Does not know: what is in them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Remembers how files were.
#[derive(Debug, Default)]
pub struct FileWatch {
    known: Vec<(PathBuf, Option<Stamp>)>,
    /// As of the last look, where that was different.
    fresh: Option<Vec<(PathBuf, Option<Stamp>)>>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileWatch {
    /// The files are known as they are now.
    #[must_use]
    pub fn new(files: &[PathBuf]) -> Self {
        Self {
            known: stamps(files),
            fresh: None,
        }
    }

    /// Looks; `true` when something has changed and is now at rest. That is known then.
    pub fn look(&mut self, files: &[PathBuf]) -> bool {
        let now = stamps(files);
        if now == self.known {
            self.fresh = None;
            return false;
        }
        let is_at_rest = self.fresh.as_ref() == Some(&now);
        if is_at_rest {
            self.known = now;
            self.fresh = None;
        } else {
            self.fresh = Some(now);
        }
        is_at_rest
    }
}

fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, Option<Stamp>)> {
    let stamp = |file: &PathBuf| (file.clone(), stamp(file));
    files.iter().map(stamp).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    // Behind links: a renewed certificate is often another target.
    let metadata = file.metadata().ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_counts_when_it_has_come_to_rest_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one", "other"].map(|name| folder.path().join(name));
        fs::write(&files[0], "1").unwrap();
        let mut watch = FileWatch::new(&files);
        assert!(!watch.look(&files));
        fs::write(&files[0], "12").unwrap();
        assert!(!watch.look(&files), "it may be half of it");
        fs::write(&files[0], "123").unwrap();
        assert!(!watch.look(&files));
        assert!(watch.look(&files));
        assert!(!watch.look(&files));
        // Replaced by a file of the same size, as certificates are.
        fs::write(&files[1], "456").unwrap();
        fs::rename(&files[1], &files[0]).unwrap();
        assert!(!watch.look(&files) && watch.look(&files));
        fs::remove_file(&files[0]).unwrap();
        assert!(!watch.look(&files));
        fs::write(&files[0], "123").unwrap();
        assert!(!watch.look(&files) && watch.look(&files));
    }
}
