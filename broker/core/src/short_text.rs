//! Text that needs no allocation of its own while it is short, as level names and most filters are.
//!
//! Invariant: text of up to [`INLINE_MAX`] bytes is inline, so equal texts have equal forms. Does not know: what the text
//! means. Three words long, the same as a `String`.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

#[derive(Clone, Debug)]
pub(crate) struct ShortText(Form);

#[derive(Clone, Debug)]
enum Form {
    Inline(u8, [u8; INLINE_MAX]),
    Long(Box<[u8]>),
}

/// What fits beside the length and the form.
const INLINE_MAX: usize = 22;

impl ShortText {
    /// From bytes that are UTF-8, such as a part of a filter between two separators.
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut bytes = [0; INLINE_MAX];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text);
                Self(Form::Inline(length, bytes))
            }
            _ => Self(Form::Long(text.into())),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Inline(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Form::Long(text) => text,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortText {}

/// As the bytes hash, so that a set of texts can be asked for bytes.
impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for ShortText {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_length_comes_back_as_it_was() {
        for length in [0, 1, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 65_535] {
            let text = "é/".repeat(length).chars().take(length).collect::<String>();
            assert_eq!(ShortText::new(text.as_bytes()).as_str(), text);
        }
    }

    #[test]
    fn it_is_three_words_long() {
        assert_eq!(size_of::<ShortText>(), 24);
    }
}
