//! The SCRAM file: who may log in by SCRAM-SHA-256, and what is stored of each.
//!
//! One line a user, `user:SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` as RFC 5803 and PostgreSQL write it, and one line
//! `$decoy$` with the secret from which the salts of unknown users are made. Names are as SASLprep leaves them.
//!
//! Promises: it fails closed and is changed as the password file is (`password.rs`); the password itself is in neither.
//!
//! Does not know: exchanges, sessions. Adding a user blocks for the time of its iterations.

use crate::password::{
    BadLine, LineFault, PasswordFileError, UserNameFault, check_user, credential, edit, is_comment,
    numbered, read_private, refuse_others, set_line,
};
use crate::scram::{Prepared, StoredKeys, Users};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;

/// Reads the file at `path`.
///
/// # Errors
/// When it cannot be read, is open to others, has no users or no decoy, or has wrong lines; these are all listed.
pub fn load(path: &Path) -> Result<Users, PasswordFileError> {
    let text = read_private(path)?;
    let mut users = BTreeMap::new();
    let mut decoy = None;
    let mut lines = Vec::new();
    for (number, line) in numbered(&text).filter(|(_, line)| !is_comment(line)) {
        let fault = match (line.strip_prefix(DECOY), parse_line(line)) {
            (Some(secret), _) if !line.contains(':') => match parse_decoy(secret) {
                Some(secret) if decoy.is_none() => {
                    decoy = Some(secret);
                    continue;
                }
                _ => LineFault::Decoy,
            },
            (_, Ok((user, _))) if users.contains_key(user) => {
                LineFault::DuplicateUser(user.to_owned())
            }
            (_, Ok((user, keys))) => {
                users.insert(user.to_owned(), keys);
                continue;
            }
            (_, Err(fault)) => fault,
        };
        lines.push(BadLine { number, fault });
    }
    let path = path.to_owned();
    if !lines.is_empty() {
        return Err(PasswordFileError::BadLines { path, lines });
    }
    if users.is_empty() {
        let command = ADD_COMMAND;
        return Err(PasswordFileError::NoUsers { path, command });
    }
    let decoy = decoy.ok_or_else(|| PasswordFileError::NoDecoy { path: path.clone() })?;
    Users::new(users, &decoy).ok_or(PasswordFileError::NoUsers {
        path,
        command: ADD_COMMAND,
    })
}

/// Adds `user`, or gives the user another password; makes the file if there is none.
///
/// # Errors
/// When the name or the password is not allowed, or the file cannot be read or replaced.
pub fn set_user(
    path: &Path,
    user: &str,
    password: &str,
    iterations: NonZeroU32,
) -> Result<(), PasswordFileError> {
    let not_prepared = PasswordFileError::UserName(UserNameFault::NotPrepared);
    let user = Prepared::new(user).ok_or(not_prepared)?;
    let user = user.as_str();
    check_user(user).map_err(PasswordFileError::UserName)?;
    let password = Prepared::new(password).ok_or(PasswordFileError::PasswordNotPrepared)?;
    let keys = StoredKeys::derive(&password, random::<SALT_BYTES>()?.to_vec(), iterations);
    let decoy = format!("{DECOY}{}", BASE64.encode(random::<DECOY_BYTES>()?));
    edit(path, |lines| {
        let is_decoy = |line: &str| line.starts_with(DECOY) && !line.contains(':');
        let is_ours = |line: &str| is_decoy(line) || credential(line).starts_with("SCRAM-SHA-256$");
        refuse_others(path, lines, user, is_ours, "a SCRAM key")?;
        if !lines.iter().any(|line| is_decoy(line)) {
            lines.insert(0, decoy);
        }
        set_line(lines, user, format!("{user}:{}", keys.to_line()));
        Ok(())
    })
}

fn parse_line(line: &str) -> Result<(&str, StoredKeys), LineFault> {
    let (user, keys) = line.split_once(':').ok_or(LineFault::NoColon)?;
    check_user(user).map_err(LineFault::UserName)?;
    if Prepared::new(user).is_none_or(|prepared| prepared.as_str() != user) {
        return Err(LineFault::UserName(UserNameFault::NotPrepared));
    }
    let keys = StoredKeys::parse(keys.trim_end()).ok_or(LineFault::Keys)?;
    match ITERATIONS.contains(&keys.iterations()) {
        true => Ok((user, keys)),
        false => Err(LineFault::Iterations(keys.iterations())),
    }
}

fn parse_decoy(text: &str) -> Option<Vec<u8>> {
    let secret = BASE64.decode(text.trim_end()).ok()?;
    (secret.len() >= DECOY_BYTES).then_some(secret)
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], PasswordFileError> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|error| PasswordFileError::Hashing(error.to_string()))?;
    Ok(bytes)
}

/// What the iterations of a user may be: RFC 7677 asks for 4096 at least; a client may be made to hash for that long.
pub const ITERATIONS: RangeInclusive<u32> = 4_096..=10_000_000;
/// Starts the line with the secret.
const DECOY: &str = "$decoy$";
const DECOY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const ADD_COMMAND: &str = "motemq passwd add --scram USER";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scram::Exchange;
    use std::fs;
    use tempfile::TempDir;

    const FEW: NonZeroU32 = NonZeroU32::new(4096).unwrap();

    #[test]
    fn a_user_set_is_there_under_the_prepared_name() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scram-users");
        set_user(&path, "\u{2168}", "secret", FEW).unwrap();
        set_user(&path, "b", "secret", FEW).unwrap();
        set_user(&path, "IX", "other", FEW).unwrap();
        let listed = crate::password::list(&path).unwrap();
        let names: Vec<_> = listed.iter().map(|listed| listed.user.as_str()).collect();
        assert_eq!(names, ["IX", "b"]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(DECOY) && text.matches(DECOY).count() == 1);
        assert!(!text.contains("secret"));
        let users = load(&path).unwrap();
        let (exchange, answer) = Exchange::begin(b"n,,n=IX,r=x", &users, "y").unwrap();
        assert_eq!(exchange.user(), "IX");
        assert!(answer.ends_with(",i=4096"));
        crate::password::remove_user(&path, "b").unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn a_file_of_the_other_kind_is_left_alone() {
        let folder = TempDir::new().unwrap();
        let (scram, plain) = (
            folder.path().join("scram-users"),
            folder.path().join("users"),
        );
        set_user(&scram, "a", "secret", FEW).unwrap();
        crate::password::set_user(&plain, "a", b"secret").unwrap();
        let before = [&scram, &plain].map(|path| fs::read_to_string(path).unwrap());
        let refused = crate::password::set_user(&scram, "b", b"secret");
        assert!(matches!(
            refused,
            Err(PasswordFileError::OtherKind { number: 1, .. })
        ));
        let refused = set_user(&plain, "b", "secret", FEW);
        assert!(matches!(
            refused,
            Err(PasswordFileError::OtherKind { number: 1, .. })
        ));
        let after = [&scram, &plain].map(|path| fs::read_to_string(path).unwrap());
        assert_eq!(before, after);
        // One's own line may be replaced, whatever it was.
        crate::password::set_user(&plain, "a", b"other").unwrap();
    }

    #[test]
    fn all_bad_lines_are_reported_by_number_without_their_content() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scram-users");
        set_user(&path, "a", "secret", FEW).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = good.lines().collect();
        let (decoy, user) = (lines[0], lines[1]);
        let bad = [
            decoy.to_owned(),
            user.to_owned(),
            decoy.to_owned(),
            "no-colon-secret".to_owned(),
            "plain:secret".to_owned(),
            user.to_owned(),
            user.replace("a:", "\u{2168}:"),
            user.replace("a:", "c:").replace("4096:", "4095:"),
            user.replace("a:", "d:").replace("4096:", "10000001:"),
            "e:$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAA".to_owned(),
        ];
        fs::write(&path, bad.join("\n")).unwrap();
        let error = load(&path).unwrap_err();
        let message = error.to_string();
        let PasswordFileError::BadLines { lines, .. } = error else {
            panic!("{message}")
        };
        let faults: Vec<_> = lines
            .into_iter()
            .map(|line| (line.number, line.fault))
            .collect();
        let expected = [
            (3, LineFault::Decoy),
            (4, LineFault::NoColon),
            (5, LineFault::Keys),
            (6, LineFault::DuplicateUser("a".to_owned())),
            (7, LineFault::UserName(UserNameFault::NotPrepared)),
            (8, LineFault::Iterations(4095)),
            (9, LineFault::Iterations(10_000_001)),
            (10, LineFault::Keys),
        ];
        assert_eq!(faults, expected);
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn a_file_without_users_or_decoy_is_an_error_that_names_the_cure() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scram-users");
        assert!(matches!(
            load(&path),
            Err(PasswordFileError::Unreadable { .. })
        ));
        set_user(&path, "a", "secret", FEW).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let (decoy, user) = good.split_once('\n').unwrap();
        for (text, cure) in [(decoy, "has no users"), (user, "has no line $decoy$")] {
            fs::write(&path, text).unwrap();
            let message = load(&path).unwrap_err().to_string();
            assert!(
                message.contains(cure) && message.contains("passwd add --scram"),
                "{message}"
            );
        }
        // The next change puts the line back.
        set_user(&path, "b", "secret", FEW).unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn what_cannot_be_compared_is_not_stored() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("scram-users");
        for (user, password) in [
            ("a:b", "x"),
            ("", "x"),
            ("\u{7}", "x"),
            ("a", ""),
            ("a", "\u{7}"),
        ] {
            assert!(set_user(&path, user, password, FEW).is_err(), "{user:?}");
        }
        assert!(!path.exists());
    }
}
