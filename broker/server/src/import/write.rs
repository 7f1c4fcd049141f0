//! The files of an import, into a folder.
//!
//! Promises: where one of them is there already, none is written, unless that is wished; each is there whole or not at all, readable by
//! its owner alone, because hashes of passwords are among them. Does not know: what they say.

use super::ImportedFile;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What becomes of files that are there already.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Present {
    /// Nothing is written.
    Refused,
    /// They are replaced.
    Replaced,
}

/// Nothing was written, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Some are there already.
    #[error("there already: {}; nothing was written. Another folder: -o FOLDER; or replace them: --force", shown(.0))]
    Present(Vec<PathBuf>),
    /// One cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// Writes `files` into `folder`, which is made if need be; says where they are.
///
/// # Errors
/// When one is there already and was not to be replaced, or the system refuses.
pub fn write(
    folder: &Path,
    files: &[ImportedFile],
    present: Present,
) -> Result<Vec<PathBuf>, WriteError> {
    let paths: Vec<PathBuf> = files.iter().map(|file| folder.join(file.name)).collect();
    let there = paths.iter().filter(|path| path.symlink_metadata().is_ok());
    let there: Vec<PathBuf> = there.cloned().collect();
    if !there.is_empty() && present == Present::Refused {
        return Err(WriteError::Present(there));
    }
    fs::create_dir_all(folder).map_err(|source| WriteError::Unwritable {
        path: folder.to_owned(),
        source,
    })?;
    for (file, path) in files.iter().zip(&paths) {
        put(path, &file.text).map_err(|source| WriteError::Unwritable {
            path: path.clone(),
            source,
        })?;
    }
    Ok(paths)
}

/// Puts `text` at `path`; a crash leaves the old file or the new one.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    let unfinished = path.with_file_name(name);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}
