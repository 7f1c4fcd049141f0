//! The password file: who may log in with a password.
//!
//! One line a user, `user:$argon2id$v=19$m=19456,t=2,p=1$salt$hash`; `#` starts a comment line. mosquitto's own files are read as they
//! are, and its hashes may stand in ours (`password_hash.rs` has the kinds, `password_import.rs` brings them over).
//!
//! Promises:
//! - It fails closed: a file that is absent, empty, open to others or wrong in any line lets nobody in.
//! - A wrong password and an unknown user cost the same work, so that the time of a refusal tells no names; where a file has several
//!   kinds of hashes, an unknown user costs what most users do. An empty password is nobody's.
//! - A change replaces the file as a whole and is on disk when the call returns; of two changes at a time none is lost.
//!
//! Does not know: sessions, listeners, reason codes. It blocks: a verification takes some 20 ms and 19 MiB, so the caller
//! bounds how many run at a time and keeps them off the async workers.

use crate::fingerprint::Fingerprint;
use crate::password_hash::StoredHash;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// The users of a password file, or of two.
#[derive(Clone, Debug)]
pub struct PasswordFile {
    /// Never empty.
    users: BTreeMap<String, StoredHash>,
    /// What is worked on for users who do not exist: of the most usual kind.
    usual: StoredHash,
}

/// Whose lines a file has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `motemq passwd` writes it.
    Ours,
    /// `mosquitto_passwd` writes it; blanks around a name do not count.
    Mosquitto,
}

/// The outcome of a verification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The user exists and this is the password.
    Accepted,
    /// The user exists, the password is another one.
    Refused,
    /// There is no such user.
    UnknownUser,
}

impl PasswordFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is open to others, has no users, or has wrong lines; these are all listed.
    pub fn load(path: &Path, format: Format) -> Result<Self, PasswordFileError> {
        let text = read_private(path)?;
        let (users, lines) = parse(&text, format);
        let path = path.to_owned();
        if !lines.is_empty() {
            return Err(PasswordFileError::BadLines { path, lines });
        }
        Self::new(users).ok_or(PasswordFileError::NoUsers {
            path,
            command: match format {
                Format::Ours => "motemq passwd add USER",
                Format::Mosquitto => "mosquitto_passwd FILE USER",
            },
        })
    }

    /// `None` without users.
    fn new(users: BTreeMap<String, StoredHash>) -> Option<Self> {
        let mut counts = BTreeMap::new();
        for hash in users.values() {
            *counts.entry(hash.kind()).or_insert(0) += 1;
        }
        let (kind, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let usual = users.values().find(|hash| hash.kind() == kind)?.clone();
        Some(Self { users, usual })
    }

    /// The users of both.
    ///
    /// # Errors
    /// With a user who is in both: whose password would count?
    pub fn joined(mut self, other: Self) -> Result<Self, String> {
        if let Some(user) = self.users.keys().find(|user| other.has(user)) {
            return Err(user.clone());
        }
        self.users.extend(other.users);
        let usual = self.usual;
        let joined = Self::new(self.users);
        Ok(joined.unwrap_or_else(|| Self {
            users: BTreeMap::new(),
            usual,
        }))
    }

    /// Whether there is such a user.
    #[must_use]
    pub fn has(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Decides whether `password` is the one of `user`; takes as long for a user who does not exist.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> Verdict {
        let known = self.users.get(user);
        let is_password = known.unwrap_or(&self.usual).is_of(password);
        match known {
            None => Verdict::UnknownUser,
            Some(_) if is_password && !password.is_empty() => Verdict::Accepted,
            Some(_) => Verdict::Refused,
        }
    }

    /// Costs what a check costs.
    pub(crate) fn work_in_vain(&self, password: &[u8]) {
        std::hint::black_box(self.usual.is_of(password));
    }

    /// What is stored of a user now, to be compared later.
    pub(crate) fn fingerprint(&self, user: &str) -> Option<Fingerprint> {
        self.users.get(user).map(StoredHash::fingerprint)
    }
}

/// The users of a file by name, and its wrong lines.
pub(crate) fn parse(text: &str, format: Format) -> (BTreeMap<String, StoredHash>, Vec<BadLine>) {
    let mut users = BTreeMap::new();
    let mut lines = Vec::new();
    for (number, line) in numbered(text).filter(|(_, line)| !is_comment(line)) {
        let fault = match parse_line(line, format) {
            Ok((user, _)) if users.contains_key(user) => LineFault::DuplicateUser(user.to_owned()),
            Ok((user, hash)) => {
                users.insert(user.to_owned(), hash);
                continue;
            }
            Err(fault) => fault,
        };
        lines.push(BadLine { number, fault });
    }
    (users, lines)
}

/// Adds `user`, or gives the user another password; makes the file if there is none.
///
/// # Errors
/// When the name or the password is not allowed, or the file cannot be read or replaced.
pub fn set_user(path: &Path, user: &str, password: &[u8]) -> Result<(), PasswordFileError> {
    check_user(user).map_err(PasswordFileError::UserName)?;
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordFileError::PasswordLength(password.len()));
    }
    let hash: PasswordHash = Argon2::default()
        .hash_password(password)
        .map_err(|error| PasswordFileError::Hashing(error.to_string()))?;
    let entry = format!("{user}:{hash}");
    edit(path, |lines| {
        refuse_others(path, lines, user, is_hash, "a hashed password")?;
        set_line(lines, user, entry);
        Ok(())
    })
}

/// Whether a line is one of a password file, of whichever kind.
pub(crate) fn is_hash(line: &str) -> bool {
    let kinds = ["$argon2", "$7$", "$6$"];
    kinds.iter().any(|kind| credential(line).starts_with(kind))
}

/// Refuses to add to a file that holds something else than what the user's line will be: it would serve as neither.
pub(crate) fn refuse_others(
    path: &Path,
    lines: &[String],
    user: &str,
    is_ours: impl Fn(&str) -> bool,
    expected: &'static str,
) -> Result<(), PasswordFileError> {
    let is_other =
        |line: &String| !is_comment(line) && !is_of(line, user) && !is_ours(line.as_str());
    match lines.iter().position(is_other) {
        None => Ok(()),
        Some(index) => Err(PasswordFileError::OtherKind {
            path: path.to_owned(),
            number: index + 1,
            expected,
        }),
    }
}

/// What a line has behind the user's name.
pub(crate) fn credential(line: &str) -> &str {
    line.split_once(':')
        .map_or("", |(_, credential)| credential)
}

/// Puts `entry` in the place of the user's line, or at the end.
pub(crate) fn set_line(lines: &mut Vec<String>, user: &str, entry: String) {
    let present = lines.iter().position(|line| is_of(line, user));
    let mut is_first = true;
    lines.retain(|line| !is_of(line, user) || std::mem::take(&mut is_first));
    match present {
        Some(index) => lines[index] = entry,
        None => lines.push(entry),
    }
}

/// Removes `user`.
///
/// # Errors
/// When there is no such user, or the file cannot be read or replaced.
pub fn remove_user(path: &Path, user: &str) -> Result<(), PasswordFileError> {
    edit(path, |lines| {
        let count = lines.len();
        lines.retain(|line| !is_of(line, user));
        match lines.len() < count {
            true => Ok(()),
            false => Err(PasswordFileError::NoSuchUser(user.to_owned())),
        }
    })
}

/// A user of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// The name.
    pub user: String,
    /// The password is stored in one of mosquitto's older kinds, easier to guess from a stolen file.
    pub is_weak: bool,
}

/// The users in the file, in its order.
///
/// # Errors
/// When the file cannot be read. Its hashes are not judged, nor is a file without users.
pub fn list(path: &Path) -> Result<Vec<Listed>, PasswordFileError> {
    let text = read_private(path)?;
    let listed = |line: &str| {
        let (user, credential) = line.split_once(':')?;
        let hash = StoredHash::parse(credential.trim_end());
        Some(Listed {
            user: user.to_owned(),
            is_weak: hash.is_ok_and(|hash| hash.is_weak()),
        })
    };
    Ok(numbered(&text)
        .filter(|(_, line)| !is_comment(line))
        .filter_map(|(_, line)| listed(line))
        .collect())
}

/// Asks for a password: twice and without echo at a terminal, else the first line of the standard input.
///
/// # Errors
/// When there is no line, it is not UTF-8 or longer than a password may be, the two differ, or the terminal fails.
pub fn read_password(prompt: &str) -> io::Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return first_line(input.lock());
    }
    let echo = SilencedTerminal::new()?;
    let password = ask(prompt)?;
    let again = ask("The same again: ")?;
    drop(echo);
    match password == again {
        true => Ok(password),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the two passwords differ",
        )),
    }
}

fn ask(prompt: &str) -> io::Result<String> {
    let mut output = io::stderr().lock();
    write!(output, "{prompt}")?;
    output.flush()?;
    let line = first_line(io::stdin().lock());
    writeln!(output)?; // the newline that was typed was not echoed
    line
}

fn first_line(input: impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    let bytes_max = PASSWORD_BYTES_MAX as u64 + 2; // room for "\r\n"
    input.take(bytes_max).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "no password was given",
        ));
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > PASSWORD_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the password is longer than 65535 bytes",
        ));
    }
    let line =
        str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(line.to_owned())
}

/// While it lives, the terminal does not show what is typed.
struct SilencedTerminal {
    #[cfg(unix)]
    before: rustix::termios::Termios,
}

#[cfg(unix)]
impl SilencedTerminal {
    fn new() -> io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let input = io::stdin();
        let before = tcgetattr(&input)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&input, OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

#[cfg(unix)]
impl Drop for SilencedTerminal {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        // Nothing more can be done for a terminal that has gone.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.before).ok();
    }
}

#[cfg(not(unix))]
impl SilencedTerminal {
    fn new() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "pass the password on the standard input",
        ))
    }
}

/// Reads a file that only its owner, and a group that may only read, can open.
pub(crate) fn read_private(path: &Path) -> Result<String, PasswordFileError> {
    let unreadable = |source| PasswordFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    check_private(path, &file.metadata().map_err(unreadable)?)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

#[cfg(unix)]
pub(crate) fn check_private(path: &Path, metadata: &fs::Metadata) -> Result<(), PasswordFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    match mode & OPEN_TO_OTHERS {
        0 => Ok(()),
        _ => Err(PasswordFileError::OpenToOthers {
            path: path.to_owned(),
            mode,
        }),
    }
}

#[cfg(not(unix))]
pub(crate) fn check_private(_: &Path, _: &fs::Metadata) -> Result<(), PasswordFileError> {
    Ok(())
}

/// Replaces the file by what `change` makes of its lines; an absent file has none.
pub(crate) fn edit(
    path: &Path,
    change: impl FnOnce(&mut Vec<String>) -> Result<(), PasswordFileError>,
) -> Result<(), PasswordFileError> {
    let unwritable = |source| PasswordFileError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let target = match fs::canonicalize(path) {
        Ok(target) => target, // behind a link, its target is replaced and not the link
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(unwritable(error)),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let lock = File::open(folder).map_err(unwritable)?;
    lock.lock().map_err(unwritable)?; // released when it is closed
    let text = match read_private(&target) {
        Err(PasswordFileError::Unreadable { source, .. })
            if source.kind() == io::ErrorKind::NotFound =>
        {
            String::new()
        }
        text => text?,
    };
    let mut lines = text.lines().map(str::to_owned).collect();
    change(&mut lines)?;
    let mut text = lines.join("\n");
    text.push('\n');
    replace(&target, &text).map_err(unwritable)?;
    lock.sync_all().map_err(unwritable)
}

/// Puts `text` in the place of the file; a crash leaves the old or the new one.
fn replace(target: &Path, text: &str) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = target.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // one left behind by a crash is gone
    }
    let written =
        write_private(&temporary, target, text).and_then(|()| fs::rename(&temporary, target));
    if written.is_err() {
        fs::remove_file(&temporary).ok(); // the first error is the one to report
    }
    written
}

/// Writes a new file that its owner alone can open, or whoever could read `like`.
fn write_private(path: &Path, like: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    #[cfg(unix)]
    keep_access(&file, like)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Gives `file` the owner of `like` and lets its group read if it could: a change by root must not lock the broker out.
#[cfg(unix)]
fn keep_access(file: &File, like: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let before = match fs::metadata(like) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let now = file.metadata()?;
    if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
        fchown(file, Some(before.uid()), Some(before.gid()))?;
    }
    let group_reads = before.mode() & 0o040;
    file.set_permissions(fs::Permissions::from_mode(0o600 | group_reads))
}

pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

pub(crate) fn is_comment(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

fn is_of(line: &str, user: &str) -> bool {
    !is_comment(line) && line.split_once(':').is_some_and(|(name, _)| name == user)
}

fn parse_line(line: &str, format: Format) -> Result<(&str, StoredHash), LineFault> {
    let (user, hash) = line.split_once(':').ok_or(LineFault::NoColon)?;
    let user = match format {
        Format::Ours => user,
        Format::Mosquitto => user.trim_matches([' ', '\t']),
    };
    check_user(user).map_err(LineFault::UserName)?;
    Ok((user, StoredHash::parse(hash.trim_end())?))
}

pub(crate) fn check_user(user: &str) -> Result<(), UserNameFault> {
    match user {
        "" => Err(UserNameFault::Empty),
        user if user.len() > USER_BYTES_MAX => Err(UserNameFault::TooLong),
        user if user.contains(':') => Err(UserNameFault::Colon),
        user if user.starts_with('#') => Err(UserNameFault::Comment),
        user if user.chars().any(char::is_control) => Err(UserNameFault::ControlCharacter),
        _ => Ok(()),
    }
}

/// What keeps a password file from being used or changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be opened or read, or is not UTF-8.
    #[error("password file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner and group may open it, or the group may write it.
    #[error("password file {} is open to others (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It has no users; to have none is to name no file.
    #[error("password file {} has no users; add one with: {command}", path.display())]
    NoUsers {
        /// The file.
        path: PathBuf,
        /// What adds one.
        command: &'static str,
    },
    /// A SCRAM file without the secret that hides which users there are.
    #[error("SCRAM file {} has no line $decoy$...; motemq passwd add --scram writes it with any user", path.display())]
    NoDecoy {
        /// The file.
        path: PathBuf,
    },
    /// Lines that are neither a user nor a comment.
    #[error("{}", each_line(path, lines))]
    BadLines {
        /// The file.
        path: PathBuf,
        /// All of them.
        lines: Vec<BadLine>,
    },
    /// The file holds something else than the line to be added.
    #[error("{}:{number} is not {expected}, so nothing was added: passwords (motemq passwd add) and SCRAM keys (with --scram) have a file each; -f names another", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// A user name that the file cannot hold.
    #[error("user name {0}")]
    UserName(UserNameFault),
    /// An empty password, or one longer than MQTT can carry.
    #[error("a password has 1 to 65535 bytes; this one has {0}")]
    PasswordLength(usize),
    /// SCRAM compares passwords as SASLprep leaves them.
    #[error(
        "the password is empty or has characters that SCRAM does not allow (RFC 4013), such as control characters"
    )]
    PasswordNotPrepared,
    /// To be removed, but not there.
    #[error("there is no user \"{0}\"")]
    NoSuchUser(String),
    /// The system gave no random salt, or no memory.
    #[error("the password cannot be hashed: {0}")]
    Hashing(String),
    /// Users to be imported who are there already.
    #[error("nothing was imported: {} {} there already; to take the imported passwords instead: --replace", .0.join(", "), if .0.len() == 1 { "is" } else { "are" })]
    Present(Vec<String>),
    /// The file or its folder cannot be written.
    #[error("password file {} cannot be changed: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A wrong line; what it holds is not repeated, it may be a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadLine {
    /// Counted from 1.
    pub number: usize,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// What is wrong with a line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineFault {
    /// Not `user:hash`.
    #[error("needs user:hash")]
    NoColon,
    /// A name that cannot be.
    #[error("the user name {0}")]
    UserName(UserNameFault),
    /// The name has appeared before.
    #[error("user \"{0}\" is there twice")]
    DuplicateUser(String),
    /// Not a whole argon2id string.
    #[error(
        "the hash is none of $argon2id$v=19$m=...,t=...,p=...$salt$hash, $7$iterations$salt$hash and $6$salt$hash, whole; set the password with: motemq passwd add USER"
    )]
    Hash,
    /// Not a whole SCRAM string.
    #[error(
        "the keys are not SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey; set the password with: motemq passwd add --scram USER"
    )]
    Keys,
    /// Too weak, or too much for a client.
    #[error("{0} iterations; SCRAM takes 4096 to 10000000")]
    Iterations(u32),
    /// A second `$decoy$` line, or a wrong one.
    #[error("needs $decoy$ and 32 bytes or more in base64, once")]
    Decoy,
    /// One login would take this many KiB.
    #[error("the hash asks for {0} KiB of memory, more than 1048576")]
    Memory(u32),
    /// One login would go over the memory so many times.
    #[error("the hash asks for {0} passes (t=) over its memory, together more than 4194304 KiB")]
    Passes(u32),
    /// One login would hash so many times.
    #[error(
        "{0} iterations; at most 1000000 are taken, or one login would occupy a thread too long"
    )]
    HashIterations(u32),
}

/// What is wrong with a user name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UserNameFault {
    /// No bytes.
    #[error("is empty")]
    Empty,
    /// More than 256 bytes.
    #[error("is longer than 256 bytes")]
    TooLong,
    /// The colon ends a name in the file.
    #[error("has a colon")]
    Colon,
    /// It would read as a comment.
    #[error("starts with #")]
    Comment,
    /// A line end, tab or the like.
    #[error("has a control character")]
    ControlCharacter,
    /// SCRAM compares names as SASLprep leaves them.
    #[error("has characters that SCRAM does not allow or replaces by others (RFC 4013)")]
    NotPrepared,
}

fn each_line(path: &Path, lines: &[BadLine]) -> impl fmt::Display {
    let show = |line: &BadLine| format!("{}:{}: {}", path.display(), line.number, line.fault);
    lines.iter().map(show).collect::<Vec<_>>().join("\n")
}

/// Bytes of a user name.
const USER_BYTES_MAX: usize = 256;

/// What a CONNECT packet can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Permission bits that a file with hashes must not have: any for others, writing for the group.
#[cfg(unix)]
const OPEN_TO_OTHERS: u32 = 0o027;

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_password_set_is_accepted_and_no_other() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        set_user(&path, "sensor-7", b"first").unwrap();
        set_user(&path, "gateway", "schlüssel\0".as_bytes()).unwrap();
        let file = PasswordFile::load(&path, Format::Ours).unwrap();
        assert_eq!(file.verify("sensor-7", b"first"), Verdict::Accepted);
        assert_eq!(
            file.verify("gateway", "schlüssel\0".as_bytes()),
            Verdict::Accepted
        );
        assert_eq!(file.verify("sensor-7", b"First"), Verdict::Refused);
        assert_eq!(file.verify("sensor-7", b""), Verdict::Refused);
        assert_eq!(file.verify("sensor-8", b"first"), Verdict::UnknownUser);
    }

    #[test]
    fn an_unknown_user_is_not_let_in_by_the_hash_that_is_worked_on_instead() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        set_user(&path, "only", b"secret").unwrap();
        let file = PasswordFile::load(&path, Format::Ours).unwrap();
        assert_eq!(file.verify("stranger", b"secret"), Verdict::UnknownUser);
        assert_eq!(file.verify("", b"secret"), Verdict::UnknownUser);
    }

    #[test]
    fn an_empty_password_is_nobodys_even_where_it_was_hashed() {
        let folder = TempDir::new().unwrap();
        // As `mosquitto_passwd -b FILE e ''` writes it.
        let line = "e:$7$101$XTv9rb90KsHleB79$tL2GcBkYgR2tJ45JfHQ/zCjwgiyiI26zKboX97No1Qd05IT6ofb/a6L/jFUYxMJRuCSLIZbfhclXaLcTSJHECg==";
        let file = PasswordFile::load(&write(&folder, line), Format::Mosquitto).unwrap();
        assert!(file.usual.is_of(b""));
        assert_eq!(file.verify("e", b""), Verdict::Refused);
    }

    #[test]
    fn an_unknown_user_costs_what_most_users_do() {
        let folder = TempDir::new().unwrap();
        let text = format!("{}\nb:{SEVEN}\nc:{SEVEN}\n", entry("a"));
        let file = PasswordFile::load(&write(&folder, &text), Format::Ours).unwrap();
        assert_eq!(file.usual.kind(), StoredHash::parse(SEVEN).unwrap().kind());
        let text = format!("{}\nb:{SEVEN}\n{}\n", entry("a"), entry("c"));
        let file = PasswordFile::load(&write(&folder, &text), Format::Ours).unwrap();
        assert_eq!(file.usual.kind(), StoredHash::parse(HASH).unwrap().kind());
    }

    #[test]
    fn two_files_are_joined_unless_a_user_is_in_both() {
        let folder = TempDir::new().unwrap();
        let load = |text: &str, format| PasswordFile::load(&write(&folder, text), format).unwrap();
        let ours = load(&entry("a"), Format::Ours);
        let theirs = load(&format!(" b :{SEVEN}\nc:{SEVEN}\n"), Format::Mosquitto);
        let joined = ours.clone().joined(theirs).unwrap();
        assert!(["a", "b", "c"].iter().all(|user| joined.has(user)));
        assert_eq!(joined.verify("b", b"secret"), Verdict::Accepted);
        assert_eq!(joined.usual, StoredHash::parse(SEVEN).unwrap());
        let both = load(&format!("b:{SEVEN}\na:{SEVEN}\n"), Format::Mosquitto);
        assert_eq!(ours.joined(both).unwrap_err(), "a");
    }

    #[test]
    fn plain_text_in_a_file_of_mosquitto_lets_nobody_in() {
        let folder = TempDir::new().unwrap();
        let text = format!("a:hunter2\nb:{SEVEN}\nb:{SEVEN}\n:x\n");
        let path = write(&folder, &text);
        let error = PasswordFile::load(&path, Format::Mosquitto).unwrap_err();
        let message = error.to_string();
        assert_eq!(message.lines().count(), 3, "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_line_is_a_phc_string_with_a_salt_of_its_own() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        set_user(&path, "a", b"same").unwrap();
        set_user(&path, "b", b"same").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let hashes: Vec<_> = text
            .lines()
            .map(|line| line.split_once(':').unwrap().1)
            .collect();
        assert!(
            hashes[0].starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{text}"
        );
        assert_ne!(hashes[0], hashes[1]);
    }

    #[test]
    fn another_password_replaces_the_line_and_keeps_the_rest() {
        let folder = TempDir::new().unwrap();
        let path = write(
            &folder,
            &format!("# ours\n{}\n\n{}", entry("a"), entry("b")),
        );
        set_user(&path, "a", b"new").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            (lines[0], lines[2], lines[3]),
            ("# ours", "", entry("b").as_str())
        );
        assert_eq!(
            PasswordFile::load(&path, Format::Ours)
                .unwrap()
                .verify("a", b"new"),
            Verdict::Accepted
        );
        assert_eq!(names(&path), ["a", "b"]);
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn setting_a_password_mends_a_user_who_is_there_twice() {
        let folder = TempDir::new().unwrap();
        let path = write(
            &folder,
            &format!("{}\n{}\n{}\n", entry("a"), entry("b"), entry("a")),
        );
        set_user(&path, "a", b"new").unwrap();
        assert_eq!(names(&path), ["a", "b"]);
        assert!(PasswordFile::load(&path, Format::Ours).is_ok());
    }

    #[test]
    fn a_user_removed_is_unknown() {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, &format!("{}\n{}\n", entry("a"), entry("b")));
        remove_user(&path, "a").unwrap();
        assert_eq!(names(&path), ["b"]);
        let again = remove_user(&path, "a").unwrap_err();
        assert!(matches!(again, PasswordFileError::NoSuchUser(user) if user == "a"));
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || set_user(path, &format!("user-{number}"), b"secret").unwrap());
            }
        });
        assert_eq!(names(&path).len(), 8);
    }

    #[test]
    fn all_bad_lines_are_reported_by_number_without_their_content() {
        let folder = TempDir::new().unwrap();
        let text = format!(
            "{}\nno-colon-secret\n:{HASH}\nplain:secret\n{}\na\tb:{HASH}\nbig:{}\ni:{}\nhalf:$argon2id$v=19$m=19456,t=2,p=1\n",
            entry("a"),
            entry("a"),
            HASH.replace("m=19456", "m=4000000"),
            HASH.replace("argon2id", "argon2i"),
        );
        let error = PasswordFile::load(&write(&folder, &text), Format::Ours).unwrap_err();
        let message = error.to_string();
        let PasswordFileError::BadLines { lines, .. } = error else {
            panic!("{message}")
        };
        let faults: Vec<_> = lines
            .into_iter()
            .map(|line| (line.number, line.fault))
            .collect();
        let expected = [
            (2, LineFault::NoColon),
            (3, LineFault::UserName(UserNameFault::Empty)),
            (4, LineFault::Hash),
            (5, LineFault::DuplicateUser("a".to_owned())),
            (6, LineFault::UserName(UserNameFault::ControlCharacter)),
            (7, LineFault::Memory(4_000_000)),
            (8, LineFault::Hash),
            (9, LineFault::Hash),
        ];
        assert_eq!(faults, expected);
        assert_eq!(message.lines().count(), 8);
        assert!(
            message.contains("users:2: ") && !message.contains("secret"),
            "{message}"
        );
    }

    #[test]
    fn a_file_without_users_or_absent_is_an_error() {
        let folder = TempDir::new().unwrap();
        let absent = PasswordFile::load(&folder.path().join("absent"), Format::Ours).unwrap_err();
        assert!(matches!(absent, PasswordFileError::Unreadable { .. }));
        for text in ["", "# nobody\n\n"] {
            let error = PasswordFile::load(&write(&folder, text), Format::Ours).unwrap_err();
            assert!(matches!(error, PasswordFileError::NoUsers { .. }));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_an_error_that_names_the_cure() {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, &entry("a"));
        for (mode, is_private) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o602, false),
        ] {
            set_mode(&path, mode);
            let loaded = PasswordFile::load(&path, Format::Ours);
            assert_eq!(loaded.is_ok(), is_private, "{mode:o}");
            if let Err(error) = loaded {
                assert!(
                    matches!(error, PasswordFileError::OpenToOthers { mode: found, .. } if found == mode)
                );
                assert!(error.to_string().contains("chmod 600"));
                assert!(
                    set_user(&path, "b", b"secret").is_err(),
                    "nothing is added to it either"
                );
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_private_and_a_changed_one_keeps_its_group() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        set_user(&path, "a", b"secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        set_mode(&path, 0o640);
        set_user(&path, "b", b"secret").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, &entry("a"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        remove_user(&link, "a").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&path), [""; 0]);
    }

    #[test]
    fn names_and_passwords_the_file_cannot_hold_are_refused() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("users");
        let long = "u".repeat(257);
        for (user, expected) in [
            ("", UserNameFault::Empty),
            ("a:b", UserNameFault::Colon),
            ("#a", UserNameFault::Comment),
            ("a\nb", UserNameFault::ControlCharacter),
            (&long, UserNameFault::TooLong),
        ] {
            let error = set_user(&path, user, b"secret").unwrap_err();
            assert!(
                matches!(error, PasswordFileError::UserName(fault) if fault == expected),
                "{error}"
            );
        }
        for password in [&b""[..], &[b'p'; 65_536]] {
            let error = set_user(&path, "a", password).unwrap_err();
            assert!(matches!(error, PasswordFileError::PasswordLength(_)));
        }
        assert!(!path.exists());
        set_user(&path, &long[1..], &[b'p'; 65_535]).unwrap();
    }

    #[test]
    fn the_password_is_the_first_line() {
        assert_eq!(first_line(&b"secret\nmore\n"[..]).unwrap(), "secret");
        assert_eq!(first_line(&b" secret \r\n"[..]).unwrap(), " secret ");
        assert_eq!(first_line(&b"secret"[..]).unwrap(), "secret");
        assert_eq!(first_line(&b"\n"[..]).unwrap(), "");
        let kind = |input: &[u8]| first_line(input).unwrap_err().kind();
        assert_eq!(kind(b""), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(b"\xff\n"), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[b'p'; 65_536]), io::ErrorKind::InvalidData);
    }

    /// Of "secret", by mosquitto_passwd 2.0.11.
    const SEVEN: &str = "$7$101$zyCcUFfglRT50qz4$GtKJ4lt1fnqw5IifX+P8pwdRcCGuDYr16qKKXHzgDtwXvX41K24tpd8DLzj3FjteokwatqKyVrCAC7uFVaxYCw==";
    /// Of nobody's password.
    const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn names(path: &Path) -> Vec<String> {
        let listed = list(path).unwrap().into_iter();
        listed.map(|listed| listed.user).collect()
    }

    fn entry(user: &str) -> String {
        format!("{user}:{HASH}")
    }

    fn write(folder: &TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("users");
        fs::write(&path, text).unwrap();
        #[cfg(unix)]
        set_mode(&path, 0o600);
        path
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().mode() & 0o777
    }
}
