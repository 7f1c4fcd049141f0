//! One-time tokens: `tokens.jsonl`, of which only the hashes are kept.
//!
//! A token entitles to one certificate for one id. That it was used is not recorded here but in the inventory, with the certificate.
//!
//! Invariants: a later line about the same hash supersedes an earlier one; the file is its owner's alone. A token is 160 random bits, so its
//! hash needs no salt.

use crate::CertsError;
use crate::files::Access;
use crate::json_lines::{JsonLines, News};
use crate::serial;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::fill;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What is kept of a token: one line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Who may use it.
    pub id: String,
    /// SHA-256 over its text, lower-case hexadecimal.
    pub sha256: String,
    /// Until when it may be used, in seconds since 1970.
    pub not_after: i64,
    /// When this line was written, in seconds since 1970.
    pub at: i64,
    /// Whether it was taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// A token as it is told once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Who may use it.
    pub id: String,
    /// The text: 32 characters, a to z and 2 to 7.
    pub text: String,
    /// Until when it may be used, in seconds since 1970.
    pub not_after: i64,
}

/// The tokens of an authority, as read and for appending.
#[derive(Debug)]
pub struct Tokens {
    log: JsonLines,
    by_id: BTreeMap<String, Vec<Token>>,
}

impl Tokens {
    /// Reads the tokens in the authority's directory; where there are none yet, there are none.
    ///
    /// # Errors
    /// [`CertsError::File`] when they cannot be read, [`CertsError::Line`] when a line is none.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let mut tokens = Self {
            log: JsonLines::new(dir.join(FILE_NAME), Access::Owner),
            by_id: BTreeMap::new(),
        };
        tokens.refresh()?;
        Ok(tokens)
    }

    /// Reads what was appended since; everything, if the file became shorter.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn refresh(&mut self) -> Result<(), CertsError> {
        let news = self.log.read()?;
        self.take(news);
        Ok(())
    }

    /// Every token that was not taken back, by id.
    pub fn all(&self) -> impl Iterator<Item = &Token> {
        self.by_id.values().flatten().filter(|token| !token.removed)
    }

    /// The token of `id` with this text. How long it takes says nothing about how much of a text is right.
    #[must_use]
    pub fn find(&self, id: &str, text: &str) -> Option<&Token> {
        let sha256 = sha256(text);
        let of_id = self.by_id.get(id).map_or(&[][..], Vec::as_slice);
        of_id.iter().find(|token| {
            let (kept, given) = (token.sha256.as_bytes(), sha256.as_bytes());
            verify_slices_are_equal(kept, given).is_ok() && !token.removed
        })
    }

    /// Makes a token for each id, valid until `not_after`, and has the hashes on disk.
    ///
    /// # Errors
    /// [`CertsError::DeviceId`] for an id that no device can have, [`CertsError::Random`], and those of [`open`](Self::open).
    pub fn issue(
        &mut self,
        ids: &[String],
        not_after: i64,
        now_s: i64,
    ) -> Result<Vec<NewToken>, CertsError> {
        let mut new = Vec::with_capacity(ids.len());
        for id in ids {
            crate::name::check_device_id(id)?;
            new.push(NewToken {
                id: id.clone(),
                text: random_text()?,
                not_after,
            });
        }
        let lines: Vec<Token> = new
            .iter()
            .map(|token| Token {
                id: token.id.clone(),
                sha256: sha256(&token.text),
                not_after,
                at: now_s,
                removed: false,
            })
            .collect();
        self.append(&lines)?;
        Ok(new)
    }

    /// Takes back every token of `id`; returns how many there were.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn remove(&mut self, id: &str, now_s: i64) -> Result<usize, CertsError> {
        self.refresh()?;
        let of_id = self.by_id.get(id).map_or(&[][..], Vec::as_slice);
        let removed: Vec<Token> = of_id
            .iter()
            .filter(|token| !token.removed)
            .map(|token| Token {
                at: now_s,
                removed: true,
                ..token.clone()
            })
            .collect();
        if !removed.is_empty() {
            self.append(&removed)?;
        }
        Ok(removed.len())
    }

    fn append(&mut self, tokens: &[Token]) -> Result<(), CertsError> {
        let mut file = self.log.lock()?;
        let news = self.log.read_on(&mut file)?;
        self.take(news);
        self.log.append(&mut file, tokens)?;
        let news = self.log.read_on(&mut file)?;
        self.take(news);
        Ok(())
    }

    fn take(&mut self, news: News<Token>) {
        if news.is_another_file {
            self.by_id.clear();
        }
        for token in news.lines {
            self.take_line(token);
        }
    }

    fn take_line(&mut self, token: Token) {
        let of_id = self.by_id.entry(token.id.clone()).or_default();
        match of_id.iter_mut().find(|known| known.sha256 == token.sha256) {
            Some(known) => *known = token,
            None => of_id.push(token),
        }
    }
}

impl std::fmt::Debug for NewToken {
    /// Leaves the text out.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NewToken")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What is kept of a token's text: people type it, so case and surrounding space do not matter.
fn sha256(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    serial::hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// 160 random bits in the alphabet of RFC 4648, section 6, in lower case.
fn random_text() -> Result<String, CertsError> {
    let mut bytes = [0; 32];
    fill(&mut bytes).map_err(|_| CertsError::Random)?;
    // Five bits of each byte: the alphabet has 32 letters, so none is likelier than another.
    let letters = bytes.iter().map(|byte| match byte & 31 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'2' + digit - 26),
    });
    Ok(letters.collect())
}

const FILE_NAME: &str = "tokens.jsonl";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_text_and_id_only() {
        let directory = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::open(directory.path()).unwrap();
        let ids = ["meter-1".to_owned(), "meter-2".to_owned()];
        let new = tokens.issue(&ids, 2_000, 1_000).unwrap();
        let text = new[0].text.as_str();
        assert_eq!(text.len(), 32);
        let typed = format!(" {}\n", text.to_uppercase());
        for tokens in [&tokens, &Tokens::open(directory.path()).unwrap()] {
            assert_eq!(tokens.find("meter-1", text).unwrap().not_after, 2_000);
            assert!(tokens.find("meter-1", &typed).is_some());
            assert!(tokens.find("meter-2", text).is_none());
            assert!(tokens.find("meter-1", &new[1].text).is_none());
            assert!(tokens.find("meter-1", "").is_none());
        }
    }

    #[test]
    fn the_file_has_no_token_and_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::open(directory.path()).unwrap();
        let new = tokens.issue(&["meter-1".to_owned()], 2_000, 1_000).unwrap();
        let path = directory.path().join(FILE_NAME);
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(!kept.contains(&new[0].text));
        assert!(!format!("{new:?}").contains(&new[0].text));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn tokens_that_were_taken_back_are_found_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::open(directory.path()).unwrap();
        let mut other = Tokens::open(directory.path()).unwrap();
        let ids = ["meter-1".to_owned(), "meter-1".to_owned()];
        let new = tokens.issue(&ids, 2_000, 1_000).unwrap();
        assert_eq!(other.remove("meter-1", 1_001).unwrap(), 2);
        assert_eq!(other.remove("meter-1", 1_001).unwrap(), 0);
        assert!(tokens.find("meter-1", &new[0].text).is_some());
        tokens.refresh().unwrap();
        assert!(tokens.find("meter-1", &new[0].text).is_none());
        assert_eq!(tokens.all().count(), 0);
    }
}
