//! Files that appear whole or not at all.
//!
//! What is written goes to a hidden file beside the one that was asked for, which is renamed at the end; if the
//! run ends otherwise, it is removed. Devices and pipes such as `/dev/stdout` are written to as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Names that are tried beside others of the same process.
const NAMES_MAX: u32 = 100;

/// A file in the making.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    /// What is renamed at the end; `None` when `path` is written to itself, or all is done.
    temporary: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl OutputFile {
    /// Begins a file that will be at `path`; fails where the end would fail.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let (path, temporary, file) = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(io::Error::other("is a folder: name a file in it"));
            }
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(path)?;
                (path.to_owned(), None, file)
            }
            Ok(_) => {
                // A file that must not be written must not be replaced either.
                OpenOptions::new().append(true).open(path)?;
                // Not the link to it but the file is replaced.
                let path = path.canonicalize()?;
                let (temporary, file) = create_beside(&path)?;
                (path, Some(temporary), file)
            }
            Err(_) => {
                let (temporary, file) = create_beside(path)?;
                (path.to_owned(), Some(temporary), file)
            }
        };
        let writer = BufWriter::new(file);
        Ok(Self {
            path,
            temporary,
            writer,
        })
    }

    /// Where the file will be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file is whole: puts it in its place.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.writer.flush()?;
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        self.writer.get_ref().sync_all()?;
        std::fs::rename(temporary, &self.path)?;
        self.temporary = None;
        Ok(())
    }
}

fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name();
    let name = name.ok_or_else(|| io::Error::other("is no file name"))?;
    let process = std::process::id();
    let mut attempts = 0..NAMES_MAX;
    loop {
        let attempt = attempts.next().unwrap_or_default();
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{process}-{attempt}.part"));
        let temporary = path.with_file_name(temporary);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary);
        match created {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !attempts.is_empty() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::new(
                    error.kind(),
                    "its folder does not exist: create it first",
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What cannot be removed is left behind, hidden.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        std::fs::write(&path, "old").unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        let mut second = OutputFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        second.write_all(b"never").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        drop(second);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_at_the_end_is_refused_at_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        assert!(OutputFile::create(folder.path()).is_err());
        let nowhere = folder.path().join("nowhere/report.json");
        let error = OutputFile::create(&nowhere).unwrap_err();
        assert!(error.to_string().contains("create it first"), "{error}");
        assert!(OutputFile::create(Path::new("")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_stays_and_a_device_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = OutputFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(link.is_symlink());
        let mut null = OutputFile::create(Path::new("/dev/null")).unwrap();
        null.write_all(b"new").unwrap();
        null.commit().unwrap();
    }
}
