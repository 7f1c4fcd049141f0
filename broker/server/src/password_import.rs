//! `motemq passwd import`: the users of a mosquitto password file, copied into ours with their hashes as they are.
//!
//! Promises: all of the users or none; a user who is there already is overwritten only when that is wished; a line that is no hash,
//! such as a password in plain text, is never copied, nor shown.
//!
//! Does not know: what uses the file.

use crate::password::{Format, PasswordFileError, edit, is_comment, is_hash, parse, refuse_others};
use crate::password_hash::StoredHash;
use std::collections::BTreeMap;
use std::path::Path;

/// What becomes of users who are in our file already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Present {
    /// Nothing is imported.
    Refused,
    /// They get the passwords of the imported file.
    Replaced,
}

/// What was imported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Imported {
    /// Users.
    pub users: usize,
    /// Of them, those whose hash is weaker than ours.
    pub weak: usize,
    /// Others could read the imported file.
    pub is_open_to_others: bool,
}

/// The users of a file, as ours has them.
///
/// # Errors
/// When it cannot be read, a line is wrong, or there are none.
pub(crate) fn converted(from: &Path) -> Result<String, PasswordFileError> {
    let (text, _) = read(from)?;
    let lines: Vec<_> = text.lines().filter_map(entry).collect();
    Ok(lines.join("\n") + "\n")
}

/// The text of a file of mosquitto's, and the users in it.
fn read(from: &Path) -> Result<(String, BTreeMap<String, StoredHash>), PasswordFileError> {
    let unreadable = |source| PasswordFileError::Unreadable {
        path: from.to_owned(),
        source,
    };
    // mosquitto_passwd leaves a file readable to all; what has been copied does no more harm by that.
    let text = std::fs::read_to_string(from).map_err(unreadable)?;
    let (users, lines) = parse(&text, Format::Mosquitto);
    if !lines.is_empty() {
        let path = from.to_owned();
        return Err(PasswordFileError::BadLines { path, lines });
    }
    if users.is_empty() {
        let (path, command) = (from.to_owned(), "mosquitto_passwd FILE USER");
        return Err(PasswordFileError::NoUsers { path, command });
    }
    Ok((text, users))
}

/// Copies the users of `from` into `to`; makes that if there is none.
///
/// # Errors
/// When a file cannot be read or written, a line of `from` is wrong, or a user is there already.
pub fn import(from: &Path, to: &Path, present: Present) -> Result<Imported, PasswordFileError> {
    let (text, users) = read(from)?;
    let imported = Imported {
        users: users.len(),
        weak: users.values().filter(|hash| hash.is_weak()).count(),
        is_open_to_others: is_open_to_others(from),
    };
    edit(to, |lines| {
        refuse_others(to, lines, "", is_hash, "a hashed password")?;
        let is_imported = |line: &String| {
            let user = line.split_once(':').map(|(user, _)| user);
            user.filter(|user| !is_comment(line) && users.contains_key(*user))
                .map(str::to_owned)
        };
        let there: Vec<_> = lines.iter().filter_map(is_imported).collect();
        if !there.is_empty() && present == Present::Refused {
            return Err(PasswordFileError::Present(there));
        }
        lines.retain(|line| is_imported(line).is_none());
        lines.extend(text.lines().filter_map(entry));
        Ok(())
    })?;
    Ok(imported)
}

/// A line that was parsed before, as ours has it; comments are none.
fn entry(line: &str) -> Option<String> {
    let (user, hash) = line.split_once(':').filter(|_| !is_comment(line))?;
    let user = user.trim_matches([' ', '\t']);
    Some(format!("{user}:{}", hash.trim_end()))
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o007 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::{PasswordFile, Verdict, list, set_user};
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// Of "secret", as mosquitto_passwd 2.0.11 writes them; and one with blanks around the name, which mosquitto ignores.
    const THEIRS: &str = "# made by hand\nseven:$7$101$zyCcUFfglRT50qz4$GtKJ4lt1fnqw5IifX+P8pwdRcCGuDYr16qKKXHzgDtwXvX41K24tpd8DLzj3FjteokwatqKyVrCAC7uFVaxYCw==\n\n six :$6$nTv0TzhDfuFACvC4$PufhEoaNlWM24E64OL57tYHDiuaMstx8vIMdX1fnh3IPU3lBvBKsUXICJ7a3gckwWaVHmMZMD4iBjikTjOk0Vg==\n";

    #[test]
    fn users_come_over_with_the_passwords_they_have() {
        let folder = TempDir::new().unwrap();
        let (theirs, ours) = files(&folder, THEIRS);
        set_user(&ours, "anna", b"own").unwrap();
        let imported = import(&theirs, &ours, Present::Refused).unwrap();
        assert_eq!((imported.users, imported.weak), (2, 2));
        let file = PasswordFile::load(&ours, Format::Ours).unwrap();
        for (user, password) in [("seven", "secret"), ("six", "secret"), ("anna", "own")] {
            assert_eq!(file.verify(user, password.as_bytes()), Verdict::Accepted);
            assert_eq!(file.verify(user, b"wrong"), Verdict::Refused);
        }
        let listed = list(&ours).unwrap();
        let weak: Vec<_> = listed.iter().map(|listed| listed.is_weak).collect();
        assert_eq!(weak, [false, true, true]);
        // The cure that the list names.
        set_user(&ours, "six", b"new").unwrap();
        assert!(!list(&ours).unwrap()[2].is_weak);
    }

    #[test]
    fn a_user_who_is_there_is_not_overwritten_unless_that_is_wished() {
        let folder = TempDir::new().unwrap();
        let (theirs, ours) = files(&folder, THEIRS);
        set_user(&ours, "six", b"own").unwrap();
        let before = fs::read_to_string(&ours).unwrap();
        let refused = import(&theirs, &ours, Present::Refused).unwrap_err();
        assert!(refused.to_string().contains("six is there already"));
        assert_eq!(fs::read_to_string(&ours).unwrap(), before);
        import(&theirs, &ours, Present::Replaced).unwrap();
        let file = PasswordFile::load(&ours, Format::Ours).unwrap();
        assert_eq!(file.verify("six", b"secret"), Verdict::Accepted);
        assert_eq!(file.verify("six", b"own"), Verdict::Refused);
    }

    #[test]
    fn a_line_in_plain_text_is_neither_copied_nor_shown() {
        let folder = TempDir::new().unwrap();
        let (theirs, ours) = files(&folder, &format!("{THEIRS}plain:hunter2\n"));
        let message = import(&theirs, &ours, Present::Refused)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("theirs:5: ") && !message.contains("hunter2"),
            "{message}"
        );
        assert!(!ours.exists());
    }

    #[test]
    fn nothing_is_imported_into_a_file_of_another_kind() {
        let folder = TempDir::new().unwrap();
        let (theirs, ours) = files(&folder, THEIRS);
        let few = std::num::NonZeroU32::new(4096).unwrap();
        crate::scram_file::set_user(&ours, "a", "secret", few).unwrap();
        let refused = import(&theirs, &ours, Present::Replaced);
        assert!(matches!(refused, Err(PasswordFileError::OtherKind { .. })));
    }

    fn files(folder: &TempDir, text: &str) -> (PathBuf, PathBuf) {
        let theirs = folder.path().join("theirs");
        fs::write(&theirs, text).unwrap();
        (theirs, folder.path().join("ours"))
    }
}
