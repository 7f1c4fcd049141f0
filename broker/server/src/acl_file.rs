//! The file with the access rules: ours (`auth.acl_file`) or mosquitto's (`auth.mosquitto_acl_file`).
//!
//! Promises: it fails closed. A file that is absent, too large, without rules, writable by everybody or wrong in any line is
//! not used at all; every wrong line is named.
//!
//! Does not know: what rules mean (`motemq_core::Acl`).

use crate::config::AuthConfig;
use motemq_core::{Acl, AclError, Broker};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In which format a file is written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// Ours.
    Own,
    /// mosquitto's.
    Mosquitto,
}

/// The rules in force and where they come from.
#[derive(Clone, Debug)]
pub struct LoadedAcl {
    /// The rules.
    pub acl: Arc<Acl>,
    /// The file; `None` when everything is allowed.
    pub path: Option<PathBuf>,
}

impl LoadedAcl {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// When it names two files, or the file is not to be used.
    pub fn load(config: &AuthConfig) -> Result<Self, AclFileError> {
        let (path, format) = match (&config.acl_file, &config.mosquitto_acl_file) {
            (Some(_), Some(_)) => return Err(AclFileError::Both),
            (Some(path), None) => (path, Format::Own),
            (None, Some(path)) => (path, Format::Mosquitto),
            (None, None) => return Ok(Self::open()),
        };
        Ok(Self {
            acl: Arc::new(load(path, format)?),
            path: Some(path.clone()),
        })
    }

    /// Everything is allowed.
    #[must_use]
    pub fn open() -> Self {
        Self {
            acl: Arc::new(Acl::open()),
            path: None,
        }
    }

    /// Puts the rules in force, and says so in the log.
    pub fn apply(self, broker: &Broker) {
        match &self.path {
            Some(path) => tracing::info!(
                file = %path.display(),
                rules = self.acl.rule_count(),
                "access rules: what none of them allows is denied"
            ),
            None if broker.acl().rule_count() > 0 => tracing::warn!(
                "auth.acl_file names no file any more: everybody may publish and subscribe to everything"
            ),
            None => {}
        }
        broker.set_acl(self.acl);
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// When it cannot be read or is not to be used.
pub fn load(path: &Path, format: Format) -> Result<Acl, AclFileError> {
    let text = read(path)?;
    let parsed = match format {
        Format::Own => Acl::parse(&text),
        Format::Mosquitto => Acl::parse_mosquitto(&text),
    };
    parsed.map_err(|mistakes| AclFileError::Mistakes {
        path: path.to_owned(),
        mistakes,
    })
}

/// Reads the text of an ACL file.
///
/// # Errors
/// When it cannot be read or is not to be used.
pub fn read(path: &Path) -> Result<String, AclFileError> {
    let unreadable = |source| AclFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    check_writable(path, &file.metadata().map_err(unreadable)?)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(AclFileError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to());
        AclFileError::NotUtf8 {
            path: path.to_owned(),
            line: 1 + before.map_or(0, |before| before.split(|byte| *byte == b'\n').count() - 1),
        }
    })
}

#[cfg(unix)]
fn check_writable(path: &Path, metadata: &fs::Metadata) -> Result<(), AclFileError> {
    use std::os::unix::fs::PermissionsExt;
    match metadata.permissions().mode() & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(AclFileError::WritableByOthers(path.to_owned())),
    }
}

#[cfg(not(unix))]
fn check_writable(_: &Path, _: &fs::Metadata) -> Result<(), AclFileError> {
    Ok(())
}

/// Why there are no access rules.
#[derive(Debug)]
pub enum AclFileError {
    /// Two files are named.
    Both,
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Everybody on this machine could change it.
    WritableByOthers(PathBuf),
    /// It is larger than any set of rules.
    TooLarge(PathBuf),
    /// It is no text.
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The line of the first such byte, from 1.
        line: usize,
    },
    /// Lines are wrong.
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<AclError>,
    },
}

impl AclFileError {
    /// What is wrong, a line for each mistake.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = match self {
            Self::Both => "auth.acl_file and auth.mosquitto_acl_file are both set: choose one; motemq acl import makes one of our format from mosquitto's".to_owned(),
            Self::Unreadable { path, source } => format!(
                "the access rules {} cannot be read: {source}; make the file readable for the broker's user, or correct auth.acl_file (auth.mosquitto_acl_file)",
                path.display()
            ),
            Self::WritableByOthers(path) => format!(
                "everybody on this machine could change the access rules: chmod o-w {}",
                path.display()
            ),
            Self::TooLarge(path) => format!(
                "{} is larger than {} MiB: write one rule with a pattern (*, %c, %u) instead of many",
                path.display(),
                FILE_BYTES_MAX >> 20
            ),
            Self::NotUtf8 { path, line } => format!("{}:{line}: this is not UTF-8", path.display()),
            Self::Mistakes { path, mistakes } => {
                let path = path.display();
                return mistakes
                    .iter()
                    .map(|mistake| match mistake.line {
                        0 => format!("{path}: {}", mistake.fault),
                        line => format!("{path}:{line}: {}", mistake.fault),
                    })
                    .collect();
            }
        };
        vec![line]
    }
}

impl fmt::Display for AclFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for AclFileError {}

const FILE_BYTES_MAX: u64 = 16 << 20;
#[cfg(unix)]
const WRITABLE_BY_OTHERS: u32 = 0o002;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    struct Site(TempDir);

    impl Site {
        fn new() -> Self {
            Self(TempDir::new().unwrap())
        }

        fn write(&self, text: &[u8]) -> PathBuf {
            let path = self.0.path().join("acl");
            fs::write(&path, text).unwrap();
            path
        }

        fn message(&self, text: &[u8]) -> String {
            load(&self.write(text), Format::Own)
                .unwrap_err()
                .to_string()
        }
    }

    #[test]
    fn b5_a_file_that_is_not_to_be_trusted_is_not_used() {
        let site = Site::new();
        let absent = site.0.path().join("absent");
        assert!(matches!(
            load(&absent, Format::Own),
            Err(AclFileError::Unreadable { .. })
        ));
        assert!(matches!(
            load(site.0.path(), Format::Own),
            Err(AclFileError::Unreadable { .. })
        ));
        for text in ["", "\n# only a comment\n", "[everyone]\n"] {
            assert!(
                site.message(text.as_bytes()).contains("no rules"),
                "{text:?}"
            );
        }
        assert!(
            site.message(b"[everyone]\nallow all \xFF\n")
                .contains("acl:2: ")
        );
        let good = site.write(b"[everyone]\nallow all #\n");
        assert_eq!(load(&good, Format::Own).unwrap().rule_count(), 1);
        fs::set_permissions(&good, fs::Permissions::from_mode(0o666)).unwrap();
        let message = load(&good, Format::Own).unwrap_err().to_string();
        assert!(message.contains("chmod o-w"), "{message}");
    }

    #[test]
    fn every_mistake_has_its_line() {
        let site = Site::new();
        let message = site.message(b"[everyone]\nalow all #\nallow all #\nallow al #\n");
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("acl:2: ") && lines[1].contains("acl:4: "),
            "{message}"
        );
    }

    #[test]
    fn of_two_files_one_is_to_be_chosen() {
        let path = Site::new().write(b"[everyone]\nallow all #\n");
        let config = AuthConfig {
            acl_file: Some(path.clone()),
            mosquitto_acl_file: Some(path),
            ..AuthConfig::default()
        };
        assert!(matches!(LoadedAcl::load(&config), Err(AclFileError::Both)));
        let open = LoadedAcl::load(&AuthConfig::default()).unwrap();
        assert_eq!((open.path, open.acl.rule_count()), (None, 0));
    }

    #[test]
    fn the_examples_are_acls() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let example = load(&root.join("deploy/acl.conf"), Format::Own).unwrap();
        assert!(example.rule_count() > 5);
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let (_, example) = readme.split_once("```text\ngroup ").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let example = Acl::parse(&format!("group {example}")).unwrap();
        assert_eq!(example.rule_count(), 6);
    }
}
