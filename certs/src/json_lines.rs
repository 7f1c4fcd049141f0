//! An append-only file with a JSON value on each line, that several processes read and write.
//!
//! Invariants: nothing is ever changed in place. Lines of several processes do not mix, and each sees what the others wrote before it
//! writes. A line that a crash left half written is none, and gives way to the next. A file that was replaced, or became shorter, is read
//! again from the beginning, and whoever reads it is told to forget the rest.
//!
//! Does not know: what the lines mean.

use crate::CertsError;
use crate::files::Access;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

/// How far a file was read.
#[derive(Debug)]
pub(crate) struct JsonLines {
    path: PathBuf,
    access: Access,
    /// Device and inode.
    file: Option<(u64, u64)>,
    /// What of the file has been read: whole lines.
    read_bytes: u64,
    lines: usize,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct News<T> {
    /// What was read before does not count any more.
    pub(crate) is_another_file: bool,
    pub(crate) lines: Vec<T>,
}

/// A file that nobody else writes.
#[derive(Debug)]
pub(crate) struct Locked {
    file: File,
    lock: File,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it would do the same.
        let _ = self.lock.unlock();
    }
}

impl JsonLines {
    /// A file that may not be there yet; it is created with `access`.
    pub(crate) fn new(path: PathBuf, access: Access) -> Self {
        Self {
            path,
            access,
            file: None,
            read_bytes: 0,
            lines: 0,
        }
    }

    /// What is new in the file.
    ///
    /// # Errors
    /// [`CertsError::File`] when it cannot be read, [`CertsError::Line`] when a line of it is no such value.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> Result<News<T>, CertsError> {
        match File::open(&self.path) {
            Ok(mut file) => self.read_from(&mut file),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(News {
                is_another_file: self.forget(),
                lines: Vec::new(),
            }),
            Err(error) => Err(CertsError::file(&self.path, error)),
        }
    }

    /// The file, where nobody else writes until it is dropped.
    ///
    /// # Errors
    /// [`CertsError::File`]; [`CertsError::Locked`] when somebody else keeps it for too long.
    pub(crate) fn lock(&self) -> Result<Locked, CertsError> {
        let path = self.lock_path();
        // Of its own and for its owner alone: whoever can read the file could lock it for ever.
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| CertsError::file(&path, error))?;
        let mut tries = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(BETWEEN_TRIES);
                }
                Err(TryLockError::WouldBlock) => return Err(CertsError::Locked(path)),
                Err(TryLockError::Error(error)) => return Err(CertsError::file(&path, error)),
            }
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        if self.access == Access::Owner {
            options.mode(0o600);
        }
        let file = options.open(&self.path);
        let file = file.map_err(|error| CertsError::file(&self.path, error))?;
        Ok(Locked { file, lock })
    }

    fn lock_path(&self) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(".lock");
        path.into()
    }

    /// As [`read`](Self::read), of a locked file.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub(crate) fn read_on<T: DeserializeOwned>(
        &mut self,
        locked: &mut Locked,
    ) -> Result<News<T>, CertsError> {
        self.read_from(&mut locked.file)
    }

    fn read_from<T: DeserializeOwned>(&mut self, file: &mut File) -> Result<News<T>, CertsError> {
        let failed = |path: &PathBuf, error| CertsError::file(path, error);
        let metadata = file.metadata().map_err(|error| failed(&self.path, error))?;
        let identity = Some((metadata.dev(), metadata.ino()));
        let is_same = identity == self.file && metadata.len() >= self.read_bytes;
        let is_another_file = !is_same && self.forget();
        self.file = identity;
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(self.read_bytes))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(|error| failed(&self.path, error))?;
        let mut lines = Vec::new();
        let (mut read_bytes, mut number) = (self.read_bytes, self.lines);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(value) = line.strip_suffix(b"\n") else {
                break;
            };
            number += 1;
            let value = serde_json::from_slice(value).map_err(|error| CertsError::Line {
                path: self.path.clone(),
                line: number,
                problem: error.to_string(),
            })?;
            read_bytes += line.len() as u64;
            lines.push(value);
        }
        (self.read_bytes, self.lines) = (read_bytes, number);
        Ok(News {
            is_another_file,
            lines,
        })
    }

    /// Appends to a file that is locked and was read to its end, and has it on disk.
    ///
    /// # Errors
    /// [`CertsError::File`].
    pub(crate) fn append<T: Serialize>(
        &self,
        locked: &mut Locked,
        values: &[T],
    ) -> Result<(), CertsError> {
        let file = &mut locked.file;
        let mut lines = Vec::new();
        for value in values {
            serde_json::to_writer(&mut lines, value)?;
            lines.push(b'\n');
        }
        // What a crash left behind: the lock says that nobody is writing it.
        file.set_len(self.read_bytes)
            .and_then(|()| file.write_all(&lines))
            .and_then(|()| file.sync_all())
            .map_err(|error| CertsError::file(&self.path, error))
    }

    /// `true` when there was something to forget.
    fn forget(&mut self) -> bool {
        let had_read = self.read_bytes > 0;
        self.file = None;
        self.read_bytes = 0;
        self.lines = 0;
        had_read
    }
}

/// A batch writes in parts of a second.
const TRIES: u32 = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn half_a_line_is_none_and_gives_way_to_the_next() {
        let site = Site::new();
        let mut log = site.log();
        site.append(&mut log, &[1]);
        site.write_raw(b"23");
        assert_eq!(site.read(&mut site.log()), (false, vec![1]));
        site.append(&mut log, &[4]);
        assert_eq!(std::fs::read(site.path()).unwrap(), b"1\n4\n");
    }

    #[test]
    fn each_sees_what_the_others_wrote() {
        let site = Site::new();
        let (mut one, mut other) = (site.log(), site.log());
        site.append(&mut one, &[1]);
        assert_eq!(site.append(&mut other, &[2]), (false, vec![1]));
        assert_eq!(site.read(&mut one), (false, vec![2]));
    }

    #[test]
    fn a_line_that_is_none_is_named_each_time() {
        let site = Site::new();
        let mut log = site.log();
        site.append(&mut log, &[1]);
        site.write_raw(b"x\n");
        for _ in 0..2 {
            let error = log.read::<u32>().unwrap_err();
            assert!(matches!(error, CertsError::Line { line: 2, .. }), "{error}");
        }
    }

    /// A backup was restored while a service was running: what it knew of the longer file must not become bytes of the shorter one.
    #[test]
    fn another_file_is_read_from_the_beginning() {
        for other in [&b"7\n"[..], b"7\n8\n9\n10\n"] {
            let site = Site::new();
            let mut log = site.log();
            site.append(&mut log, &[1, 2, 3]);
            let beside = site.path().with_extension("new");
            std::fs::write(&beside, other).unwrap();
            std::fs::rename(beside, site.path()).unwrap();
            let (is_another_file, known) = site.append(&mut log, &[11]);
            assert!(is_another_file && known[0] == 7);
            let all = [other, b"11\n"].concat();
            assert_eq!(std::fs::read(site.path()).unwrap(), all);
        }
        let site = Site::new();
        let mut log = site.log();
        site.append(&mut log, &[1, 2, 3]);
        std::fs::write(site.path(), b"1\n").unwrap();
        assert_eq!(site.append(&mut log, &[4]), (true, vec![1]));
        assert_eq!(std::fs::read(site.path()).unwrap(), b"1\n4\n");
        std::fs::remove_file(site.path()).unwrap();
        assert_eq!(site.read(&mut log), (true, vec![]));
    }

    #[test]
    fn nobody_who_may_only_read_can_keep_others_from_writing() {
        use std::os::unix::fs::PermissionsExt as _;
        let site = Site::new();
        let mut log = JsonLines::new(site.path(), Access::Everyone);
        site.append(&mut log, &[1]);
        let reader = File::open(site.path()).unwrap();
        reader.lock().unwrap();
        site.append(&mut log, &[2]);
        let mode = std::fs::metadata(log.lock_path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    struct Site(TempDir);

    impl Site {
        fn new() -> Self {
            Self(TempDir::new().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("log.jsonl")
        }

        fn log(&self) -> JsonLines {
            JsonLines::new(self.path(), Access::Owner)
        }

        fn read(&self, log: &mut JsonLines) -> (bool, Vec<u32>) {
            let news = log.read().unwrap();
            (news.is_another_file, news.lines)
        }

        /// What was there before.
        fn append(&self, log: &mut JsonLines, values: &[u32]) -> (bool, Vec<u32>) {
            let mut file = log.lock().unwrap();
            let before = log.read_on(&mut file).unwrap();
            log.append(&mut file, values).unwrap();
            let own: News<u32> = log.read_on(&mut file).unwrap();
            assert_eq!(own.lines, values);
            (before.is_another_file, before.lines)
        }

        fn write_raw(&self, bytes: &[u8]) {
            let mut file = OpenOptions::new().append(true).open(self.path()).unwrap();
            file.write_all(bytes).unwrap();
        }
    }
}
