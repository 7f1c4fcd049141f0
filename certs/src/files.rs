//! Files that appear complete or not at all, and replace another only where that is said.

use crate::CertsError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner only: private keys.
    Owner,
    /// Whoever the process's mask allows.
    Everyone,
}

/// Creates `path`, with its directories, holding `contents`.
///
/// # Errors
/// [`CertsError::AlreadyExists`] when there is such a file; it stays as it was.
pub(crate) fn write_new(path: &Path, contents: &str, access: Access) -> Result<(), CertsError> {
    refuse_existing(path)?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| CertsError::file(directory, error))?;
    }
    let temporary = temporary_path(path);
    let written = write_temporary(&temporary, contents, access)
        .map_err(|error| CertsError::file(&temporary, error))
        .and_then(|()| publish(&temporary, path));
    // Gone already after a rename; whatever else fails, the caller's error is the better story.
    let _ = fs::remove_file(&temporary);
    written
}

/// The text of a file; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertsError::file(path, error)),
    }
}

/// As [`read`], of a file that nobody else may read.
pub(crate) fn read_private(path: &Path) -> Result<Option<String>, CertsError> {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(CertsError::OpenKey { path, mode });
        }
    }
    read(path)
}

/// Puts a file with `contents` in the place of the one at `path`, or there if there is none: at any time a reader sees the old one
/// or the new one, also after a power loss. Mode and owner of the old one stay; a link stays one, its target is replaced.
pub(crate) fn replace(path: &Path, contents: &[u8], access: Access) -> Result<(), CertsError> {
    Replacement::write(path, contents, access)?.take_place()
}

/// As [`replace`] for two files that belong together: both are complete before the first takes its place.
pub(crate) fn replace_both(
    first: (&Path, &[u8], Access),
    second: (&Path, &[u8], Access),
) -> Result<(), CertsError> {
    let first = Replacement::write(first.0, first.1, first.2)?;
    let second = Replacement::write(second.0, second.1, second.2)?;
    first.rename()?;
    second.rename()?;
    first.sync()?;
    second.sync()
}

/// Gives the file at `path`, if there is one, a second name: its own with `.suffix` behind it. A file of that name stays.
pub(crate) fn keep_beside(path: &Path, suffix: &str) -> Result<(), CertsError> {
    let Ok(original) = fs::canonicalize(path) else {
        return Ok(());
    };
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".{suffix}"));
    let kept = PathBuf::from(kept);
    match fs::hard_link(&original, &kept) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Not every file system has links. The copy has the original's mode.
        Err(_) => match fs::copy(&original, &kept) {
            Ok(_) => Ok(()),
            Err(error) => Err(CertsError::file(kept, error)),
        },
    }
}

/// A complete file under a temporary name, which goes when it is not used.
struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
}

impl Replacement {
    fn write(path: &Path, contents: &[u8], access: Access) -> Result<Self, CertsError> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory).map_err(|error| CertsError::file(directory, error))?;
        }
        let replacement = Self {
            temporary: temporary_path(&target),
            target,
        };
        write_like(
            &replacement.temporary,
            &replacement.target,
            contents,
            access,
        )
        .map_err(|error| CertsError::file(&replacement.target, error))?;
        Ok(replacement)
    }

    fn take_place(&self) -> Result<(), CertsError> {
        self.rename()?;
        self.sync()
    }

    fn rename(&self) -> Result<(), CertsError> {
        fs::rename(&self.temporary, &self.target)
            .map_err(|error| CertsError::file(&self.target, error))
    }

    /// Has the name on disk.
    fn sync(&self) -> Result<(), CertsError> {
        #[cfg(unix)]
        {
            let directory = match self.target.parent() {
                Some(directory) if !directory.as_os_str().is_empty() => directory,
                _ => Path::new("."),
            };
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| CertsError::file(directory, error))?;
        }
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Gone already when it was renamed; else the caller's error is the better story.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes `temporary` so that it can take the place of `target`.
fn write_like(temporary: &Path, target: &Path, contents: &[u8], access: Access) -> io::Result<()> {
    // Left by a process that had our number and crashed.
    let _ = fs::remove_file(temporary);
    let mut file = create_new(temporary, access)?;
    #[cfg(unix)]
    if let Ok(old) = fs::metadata(target) {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // Only root may give files away; else the file is whose process this is, as any new one.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
        file.set_permissions(old.permissions())?;
    }
    #[cfg(not(unix))]
    let _ = target;
    file.write_all(contents)?;
    file.sync_all()
}

/// Fails when something is at `path`, even a dangling link.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), CertsError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(CertsError::AlreadyExists(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CertsError::file(path, error)),
    }
}

fn write_temporary(path: &Path, contents: &str, access: Access) -> io::Result<()> {
    let mut file = create_new(path, access)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if access == Access::Owner {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// Gives the finished file its name. A link fails if the name is taken, which a rename would not.
fn publish(temporary: &Path, path: &Path) -> Result<(), CertsError> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(CertsError::AlreadyExists(path.to_owned()))
        }
        // Not every file system has links.
        Err(_) => {
            refuse_existing(path)?;
            fs::rename(temporary, path).map_err(|error| CertsError::file(path, error))
        }
    }
}

/// A name beside `path` that no other process uses.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_stays_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b.key");
        write_new(&path, "first", Access::Owner).unwrap();
        let error = write_new(&path, "second", Access::Owner).unwrap_err();
        assert!(matches!(error, CertsError::AlreadyExists(taken) if taken == path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_keeps_its_mode_and_links_to_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (
            directory.path().join("ca.crl"),
            directory.path().join("link"),
        );
        replace(&path, b"first", Access::Everyone).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"second", Access::Everyone).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.key");
        write_new(&path, "secret", Access::Owner).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
