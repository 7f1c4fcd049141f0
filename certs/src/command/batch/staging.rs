//! Files of many certificates that appear in their directory complete or not at all, also when the program or the power fails.
//!
//! A part of a batch is written into `.batch/files` and brought to disk as a whole. Then `.batch/entries.jsonl` appears, with what the
//! inventory is to say: from then on the part is decided. The inventory is told, the files are moved to their places, the list
//! goes. Whoever comes next finishes a part that was decided and throws away one that was not: its keys nobody has seen.
//!
//! Invariants: no file replaces another; no certificate is in its place that the inventory does not know; one batch at a
//! time works in a directory.

use motemq_certs::{CertsError, Entry, Inventory};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// A directory that a batch writes to, for as long as it does.
pub(super) struct Staging {
    directory: PathBuf,
    own: PathBuf,
    files: PathBuf,
    /// What is to become of it.
    draft: PathBuf,
    decided: PathBuf,
    /// On the directory itself, which nobody removes.
    _lock: File,
}

impl Staging {
    /// Takes the directory, and finishes what a batch before has left. Returns how many certificates that were.
    pub(super) fn open(
        directory: &Path,
        inventory: &mut Inventory,
    ) -> Result<(Self, usize), CertsError> {
        let own = directory.join(".batch");
        create_directory(&own)?;
        let lock = File::open(directory).map_err(|error| failed(directory, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CertsError::BatchRuns(directory.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(directory, error)),
        }
        let this = Self {
            directory: directory.to_owned(),
            files: own.join("files"),
            draft: own.join("entries.draft"),
            decided: own.join("entries.jsonl"),
            own,
            _lock: lock,
        };
        let finished = this.finish(inventory)?;
        this.discard()?;
        Ok((this, finished))
    }

    /// Writes a file of this part.
    pub(super) fn write(
        &self,
        name: &str,
        contents: &[u8],
        is_private: bool,
    ) -> Result<(), CertsError> {
        let path = self.files.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if is_private {
            private(&mut options);
        }
        let write = || {
            let mut file = options.open(&path)?;
            file.write_all(contents)?;
            if SYNC_EACH { file.sync_all() } else { Ok(()) }
        };
        write().map_err(|error| failed(&path, error))
    }

    /// Brings what was written to its places, and into the inventory what `entries` say.
    pub(super) fn commit(
        &self,
        entries: &[Entry],
        inventory: &mut Inventory,
    ) -> Result<(), CertsError> {
        self.decide(entries)?;
        self.finish(inventory)?;
        Ok(())
    }

    /// Has everything on disk and leaves nothing behind.
    pub(super) fn close(self) -> Result<(), CertsError> {
        sync_file_system(&self.directory)?;
        fs::remove_dir(&self.files).map_err(|error| failed(&self.files, error))?;
        fs::remove_dir(&self.own).map_err(|error| failed(&self.own, error))
    }

    fn decide(&self, entries: &[Entry]) -> Result<(), CertsError> {
        sync_file_system(&self.directory)?;
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        let write = || {
            let mut file = File::create(&self.draft)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write().map_err(|error| failed(&self.draft, error))?;
        fs::rename(&self.draft, &self.decided)
            .and_then(|()| sync_directory(&self.own))
            .map_err(|error| failed(&self.decided, error))
    }

    /// Does what was decided, if anything was, from wherever it stopped.
    fn finish(&self, inventory: &mut Inventory) -> Result<usize, CertsError> {
        let text = match fs::read(&self.decided) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(&self.decided, error)),
        };
        let entries = serde_json::Deserializer::from_slice(&text)
            .into_iter::<Entry>()
            .collect::<Result<Vec<_>, _>>()?;
        inventory.append_if(|inventory| {
            let is_new = |entry: &&Entry| inventory.with_serial(&entry.serial).is_none();
            Ok::<_, CertsError>(entries.iter().filter(is_new).cloned().collect())
        })?;
        for file in read_directory(&self.files)? {
            let place = self.directory.join(file.file_name());
            move_new(&file.path(), &place)?;
        }
        // On the disk before the list goes, since the moves are told to the same journal earlier.
        fs::remove_file(&self.decided).map_err(|error| failed(&self.decided, error))?;
        Ok(entries.len())
    }

    /// Throws away what was not decided.
    fn discard(&self) -> Result<(), CertsError> {
        let is_missing = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        for (path, removed) in [
            (&self.draft, fs::remove_file(&self.draft)),
            (&self.files, fs::remove_dir_all(&self.files)),
        ] {
            match removed {
                Err(error) if !is_missing(&error) => return Err(failed(path, error)),
                _ => {}
            }
        }
        create_directory(&self.files)
    }
}

/// Where a whole file system cannot be brought to disk, each file is.
const SYNC_EACH: bool = !cfg!(target_os = "linux");

#[cfg(target_os = "linux")]
fn sync_file_system(directory: &Path) -> Result<(), CertsError> {
    let open = File::open(directory);
    open.and_then(|file| Ok(rustix::fs::syncfs(file)?))
        .map_err(|error| failed(directory, error))
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(directory: &Path) -> Result<(), CertsError> {
    sync_directory(directory).map_err(|error| failed(directory, error))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Moves a file to where none is.
fn move_new(from: &Path, to: &Path) -> Result<(), CertsError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(CertsError::AlreadyExists(to.to_owned())),
        // Not every file system can.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(CertsError::AlreadyExists(to.to_owned())),
            Err(_) => fs::rename(from, to).map_err(|error| failed(to, error)),
        },
        Err(error) => Err(failed(to, error.into())),
    }
}

fn read_directory(directory: &Path) -> Result<Vec<fs::DirEntry>, CertsError> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .collect::<Result<_, _>>()
            .map_err(|error| failed(directory, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(directory, error)),
    }
}

/// Creates a directory that only its owner can look into, unless it is there.
fn create_directory(path: &Path) -> Result<(), CertsError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
    }
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(path, error)),
        _ => Ok(()),
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn failed(path: &Path, source: io::Error) -> CertsError {
    let path = path.to_owned();
    CertsError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_certs::{Authority, Issued, KeyType, Order};
    use tempfile::TempDir;

    #[test]
    fn what_was_not_decided_is_thrown_away() {
        let site = Site::new();
        let (staging, issued) = site.staged();
        assert!(site.files().join("m-1.key").exists());
        fs::write(&staging.draft, "{").unwrap();
        drop((staging, issued));
        let (staging, finished) = site.open();
        assert_eq!(finished, 0);
        assert_eq!(site.placed(), [".batch"]);
        staging.close().unwrap();
        assert_eq!(site.placed(), [""; 0]);
        assert_eq!(site.inventory().entries().count(), 0);
    }

    #[test]
    fn what_was_decided_is_finished_from_wherever_it_stopped() {
        for step in 0..3 {
            let site = Site::new();
            let (staging, entry) = site.staged();
            staging.decide(std::slice::from_ref(&entry)).unwrap();
            if step > 0 {
                site.inventory()
                    .append(std::slice::from_ref(&entry))
                    .unwrap();
            }
            if step > 1 {
                let place = site.devices().join("m-1.key");
                move_new(&site.files().join("m-1.key"), &place).unwrap();
            }
            drop(staging);
            let (staging, finished) = site.open();
            assert_eq!(finished, 1);
            staging.close().unwrap();
            assert_eq!(site.placed(), ["m-1.crt", "m-1.key"], "step {step}");
            let inventory = site.inventory();
            assert_eq!(inventory.entries().collect::<Vec<_>>(), [&entry]);
        }
    }

    #[test]
    fn a_file_that_came_between_is_not_replaced() {
        let site = Site::new();
        let (staging, entry) = site.staged();
        let place = site.devices().join("m-1.key");
        fs::write(&place, "another's").unwrap();
        let error = staging.commit(&[entry], &mut site.inventory()).unwrap_err();
        assert!(matches!(error, CertsError::AlreadyExists(path) if path == place));
        assert_eq!(fs::read_to_string(&place).unwrap(), "another's");
        drop(staging);
        fs::remove_file(&place).unwrap();
        site.open().0.close().unwrap();
        assert_eq!(site.placed(), ["m-1.crt", "m-1.key"]);
    }

    #[test]
    fn one_batch_at_a_time_works_in_a_directory() {
        let site = Site::new();
        let (_staging, _) = site.open();
        let error = Staging::open(&site.devices(), &mut site.inventory())
            .map(drop)
            .unwrap_err();
        assert!(matches!(error, CertsError::BatchRuns(_)), "{error}");
    }

    struct Site {
        folder: TempDir,
        authority: Authority,
    }

    impl Site {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::create(folder.path(), "test").unwrap();
            Self { folder, authority }
        }

        fn devices(&self) -> PathBuf {
            self.folder.path().join("devices")
        }

        fn files(&self) -> PathBuf {
            self.devices().join(".batch/files")
        }

        fn inventory(&self) -> Inventory {
            Inventory::open(self.folder.path()).unwrap()
        }

        fn open(&self) -> (Staging, usize) {
            Staging::open(&self.devices(), &mut self.inventory()).unwrap()
        }

        /// The files of one device, not decided.
        fn staged(&self) -> (Staging, Entry) {
            let (staging, _) = self.open();
            let order = Order::device("m-1").unwrap();
            let issued: Issued = self.authority.issue(&order, KeyType::P256).unwrap();
            let key = issued.private_key_pem.as_bytes();
            staging.write("m-1.key", key, true).unwrap();
            let certificate = issued.certificate_pem.as_bytes();
            staging.write("m-1.crt", certificate, false).unwrap();
            (staging, Entry::issued(&order, &issued))
        }

        fn placed(&self) -> Vec<String> {
            let mut names: Vec<String> = read_directory(&self.devices())
                .unwrap()
                .iter()
                .map(|file| file.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }
}
