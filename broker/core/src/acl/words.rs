//! Words of a line: between blanks (of ASCII: others are parts of names), with double quotes around what holds blanks.
//!
//! Inside of quotes `\"` is a quote and `\\` a backslash; outside of them a backslash is itself.
//!
//! Does not know: what the words mean.

use super::error::AclFault;

pub(super) struct Words<'a> {
    rest: &'a str,
    /// Characters that end a word without quotes, and are words of their own.
    marks: &'static [char],
}

impl<'a> Words<'a> {
    pub(super) const fn new(line: &'a str, marks: &'static [char]) -> Self {
        Self { rest: line, marks }
    }

    /// All words.
    pub(super) fn all(line: &'a str) -> Result<Vec<String>, AclFault> {
        let mut words = Self::new(line, &[]);
        let mut all = Vec::new();
        while let Some(word) = words.next()? {
            all.push(word);
        }
        Ok(all)
    }

    /// The next word, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<String>, AclFault> {
        self.rest = self.rest.trim_ascii_start();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut word = String::new();
        let mut letters = self.rest.chars();
        while let Some(letter) = letters.next() {
            let is_mark = self.marks.contains(&letter);
            match letter {
                _ if is_mark && word.is_empty() => {
                    word.push(letter);
                    self.rest = letters.as_str();
                    break;
                }
                _ if is_mark || letter.is_ascii_whitespace() => break,
                '"' => word.push_str(&quoted(&mut letters)?),
                letter => word.push(letter),
            }
            self.rest = letters.as_str();
        }
        Ok(Some(word))
    }
}

/// Up to the closing quote.
fn quoted(letters: &mut std::str::Chars<'_>) -> Result<String, AclFault> {
    let mut text = String::new();
    loop {
        match letters.next() {
            None => return Err(AclFault::OpenQuote),
            Some('"') => return Ok(text),
            Some('\\') => match letters.next() {
                Some(letter @ ('"' | '\\')) => text.push(letter),
                _ => return Err(AclFault::Escape),
            },
            Some(letter) => text.push(letter),
        }
    }
}

/// A word as it can be written in a line.
pub(super) fn quote(word: &str) -> String {
    let is_plain = |letter: char| !letter.is_whitespace() && !"\"[]=,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
