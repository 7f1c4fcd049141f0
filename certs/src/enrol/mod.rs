//! Who is given a certificate over MQTT: the decision, as a function of a request and of what is known.
//!
//! Three things entitle a device: the certificate that it has (renewal), a claim certificate that it shares with others while its
//! id is on the allow-list and never had one, or a token that an operator made for this one id.
//!
//! Invariants:
//! - Asking again with the same key and the same entitlement gives what was given before. So a request may be handled twice,
//!   and an answer that was lost can be asked for.
//! - Nothing entitles to another's name: the id is the client's own, or that of the certificate it logged in with.
//! - What a device wants to be called stands in its signing request; what it may be called, and all else, is decided here.
//!
//! - What a client said is cut to [`SAID_CHARS_MAX`] characters wherever it is repeated.
//!
//! Does not know: MQTT packets, files, clocks, keys of ours. Times are arguments, in seconds since 1970.

mod allow;
mod answer;
mod decision;
mod rate;
mod request;
mod turn;

use crate::Entry;
use std::borrow::Cow;

pub use allow::AllowList;
pub use answer::{Answer, Certificate};
pub use decision::{Decision, Enroller, Grant, Known, Rules};
pub use rate::Rates;
pub use request::{Form, Login, Payload, Requester, Wanted};

/// How many characters of something that a client said are repeated to anybody.
pub const SAID_CHARS_MAX: usize = 128;
/// How many characters of a sentence: what clients said may be in it, quoted.
const MESSAGE_CHARS_MAX: usize = 768;

/// Whether `entry` is about the certificate with this fingerprint, however that is written. Another authority of `client_ca` can
/// issue any serial.
fn fingerprint_is(entry: &Entry, fingerprint: Option<&str>) -> bool {
    let digits = |text: &str| text.replace(':', "").to_ascii_lowercase();
    fingerprint
        .is_some_and(|shown| !shown.is_empty() && digits(shown) == digits(&entry.fingerprint))
}

/// What a client said, short enough to be repeated.
pub(crate) fn cut(said: &str) -> Cow<'_, str> {
    cut_to(said, SAID_CHARS_MAX)
}

fn cut_to(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        Some((place, _)) => format!("{}…", text.get(..place).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// Why a request was refused: a word for programs and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub word: Word,
    /// What to change.
    pub message: String,
}

impl Refusal {
    /// Puts the two together.
    pub fn new(word: Word, message: impl Into<String>) -> Self {
        let message = message.into();
        let message = match cut_to(&message, MESSAGE_CHARS_MAX) {
            Cow::Borrowed(_) => message,
            Cow::Owned(cut) => cut,
        };
        Self { word, message }
    }
}

/// The rules that a request can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The payload holds no signing request, or one that its key has not signed.
    BadRequest,
    /// The key is of a type that is not accepted, or too short.
    KeyNotAllowed,
    /// The signing request asks for more names than the device's own.
    NamesNotAllowed,
    /// No device may have this id.
    IdNotAllowed,
    /// The id is not the requester's own.
    NameMismatch,
    /// A claim certificate was shown and the id is not on the allow-list.
    NotOnAllowList,
    /// A claim certificate was shown and the id has, or had, a certificate.
    AlreadyEnrolled,
    /// The id has as many valid certificates as one may have.
    TooManyCertificates,
    /// The claim certificate is unknown, revoked or expired.
    ClaimInvalid,
    /// The certificate that is to be renewed is unknown, revoked or expired, or no device's.
    CertificateInvalid,
    /// Neither a certificate nor a token was shown.
    TokenNeeded,
    /// There is no such token for this id.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// The token was used with another key.
    TokenUsed,
    /// Too many requests, of this requester or of all.
    Busy,
    /// The service cannot issue at present.
    Unavailable,
}

impl Word {
    /// The word that stands in answers and in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::KeyNotAllowed => "key-not-allowed",
            Self::NamesNotAllowed => "names-not-allowed",
            Self::IdNotAllowed => "id-not-allowed",
            Self::NameMismatch => "name-mismatch",
            Self::NotOnAllowList => "not-on-allow-list",
            Self::AlreadyEnrolled => "already-enrolled",
            Self::TooManyCertificates => "too-many-certificates",
            Self::ClaimInvalid => "claim-invalid",
            Self::CertificateInvalid => "certificate-invalid",
            Self::TokenNeeded => "token-needed",
            Self::TokenUnknown => "token-unknown",
            Self::TokenExpired => "token-expired",
            Self::TokenUsed => "token-used",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_cut_between_characters() {
        let short = "ä".repeat(SAID_CHARS_MAX);
        assert_eq!(cut(&short), short);
        assert_eq!(cut(&format!("{short}b")), format!("{short}…"));
        let refusal = Refusal::new(Word::Busy, "x".repeat(100_000));
        assert_eq!(refusal.message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
