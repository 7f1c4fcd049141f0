//! Enrolment over Secure Transport (EST, RFC 7030 and RFC 8951), as far as it is a matter of bytes.
//!
//! Read: signing requests in Base64, and the name and password of HTTP Basic. Written: certificates as a PKCS #7 that signs nothing.
//!
//! Does not know: HTTP messages, TLS, who is given a certificate. That is decided in [`enrol`](crate::enrol), as over MQTT.

mod pkcs7;

use crate::REQUEST_BYTES_MAX;
use crate::enrol::{Refusal, Word};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::fmt;

/// The longest body that is read: a signing request of [`REQUEST_BYTES_MAX`] bytes in Base64, with line breaks and PEM's two lines.
pub const BODY_BYTES_MAX: usize = REQUEST_BYTES_MAX / 3 * 4 + REQUEST_BYTES_MAX / 16;

/// The signing request in a body: Base64 of DER with any blanks and line breaks (RFC 8951, 3.1), or what clients send besides, PEM or DER.
///
/// # Errors
/// [`Word::BadRequest`] when it is none of them.
pub fn signing_request(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    // Blanks at the end are left: the last byte of DER may look like one.
    let body = body.trim_ascii_start();
    // PEM, or DER's SEQUENCE; the Base64 of one begins with M.
    if matches!(body.first(), Some(b'-' | 0x30)) {
        return Ok(body.to_vec());
    }
    let characters: Vec<u8> = body
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    match FORGIVING.decode(&characters) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(Refusal::new(
            Word::BadRequest,
            "the body is no signing request in Base64: send DER through base64 (openssl req -outform DER | openssl base64), or PEM",
        )),
    }
}

/// Certificates, DER, as the body of an answer: Base64 in lines of the degenerate PKCS #7 that holds them (RFC 7030, 4.1.3).
#[must_use]
pub fn certificates_body(certificates: &[Vec<u8>]) -> String {
    let text = STANDARD.encode(pkcs7::certificates_only(certificates));
    let mut lines = String::with_capacity(text.len() + text.len() / LINE_CHARS + 1);
    for (place, character) in text.chars().enumerate() {
        if place > 0 && place.is_multiple_of(LINE_CHARS) {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

/// A name and a password as HTTP Basic carries them.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user name: the device's id.
    pub user: String,
    /// The password: the token.
    pub password: String,
}

impl Basic {
    /// Reads the value of an `Authorization` header; `None` for another scheme (RFC 7617).
    ///
    /// # Errors
    /// [`Word::BadRequest`] when the scheme is Basic and what follows is no name and password.
    pub fn parse(header: &[u8]) -> Result<Option<Self>, Refusal> {
        let header = header.trim_ascii();
        let end = header.iter().position(u8::is_ascii_whitespace);
        let (scheme, rest) = header.split_at(end.unwrap_or(header.len()));
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Ok(None);
        }
        let decoded = FORGIVING.decode(rest.trim_ascii()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((user, password)) => Ok(Some(Self {
                user: user.to_owned(),
                password: password.to_owned(),
            })),
            // What is in it could be a token.
            None => Err(Refusal::new(
                Word::BadRequest,
                "the Authorization header is not Base64 of ID:TOKEN in UTF-8",
            )),
        }
    }
}

impl fmt::Debug for Basic {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Basic");
        text.field("user", &self.user).finish_non_exhaustive()
    }
}

/// The status of HTTP that a refusal has.
#[must_use]
pub const fn status(word: Word) -> u16 {
    match word {
        Word::BadRequest | Word::KeyNotAllowed | Word::NamesNotAllowed => 400,
        Word::Busy | Word::Unavailable => 503,
        Word::IdNotAllowed
        | Word::NameMismatch
        | Word::NotOnAllowList
        | Word::AlreadyEnrolled
        | Word::ClaimInvalid
        | Word::CertificateInvalid
        | Word::TokenNeeded
        | Word::TokenUnknown
        | Word::TokenExpired
        | Word::TokenUsed
        | Word::TooManyCertificates => 403,
    }
}

/// Small devices leave the padding out.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// As in PEM: some decoders read no longer lines.
const LINE_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_request_comes_in_base64_pem_or_der() {
        let der = b"\x30\x03\x02\x01\x07";
        for body in [
            &b"MAMCAQc="[..],
            b"MAMCAQc",
            b"\r\nMA\r\nMC AQ\tc=\n\n",
            der,
        ] {
            assert_eq!(signing_request(body).unwrap(), der);
        }
        let ends_in_line_feed = b"\x30\x03\x02\x01\x0a";
        let found = signing_request(ends_in_line_feed).unwrap();
        assert_eq!(found, ends_in_line_feed);
        let pem = b"-----BEGIN CERTIFICATE REQUEST-----";
        assert_eq!(signing_request(pem).unwrap(), pem);
        for body in [&b""[..], b" \n", b"M", b"hello world!", b"{\"csr\": 1}"] {
            assert_eq!(signing_request(body).unwrap_err().word, Word::BadRequest);
        }
    }

    #[test]
    fn the_longest_signing_request_fits_into_a_body() {
        let mut text = STANDARD.encode([0x30; REQUEST_BYTES_MAX]);
        let lines = text.len() / LINE_CHARS;
        text.push_str(&"\n".repeat(lines + 1));
        text.push_str(
            "-----BEGIN NEW CERTIFICATE REQUEST-----\n-----END NEW CERTIFICATE REQUEST-----\n",
        );
        assert!(text.len() <= BODY_BYTES_MAX, "{}", text.len());
    }

    #[test]
    fn basic_is_a_name_and_a_password_in_base64() {
        let basic = |header: &str| Basic::parse(header.as_bytes());
        let expected = Basic {
            user: "meter-1".to_owned(),
            password: "a:b".to_owned(),
        };
        for header in ["Basic bWV0ZXItMTphOmI=", "basic  bWV0ZXItMTphOmI"] {
            assert_eq!(basic(header).unwrap().as_ref(), Some(&expected));
        }
        assert!(!format!("{expected:?}").contains("a:b"));
        for header in ["", "Bearer bWV0ZXItMTphOmI=", "Digest username=\"a\""] {
            assert_eq!(basic(header).unwrap(), None);
        }
        for header in ["Basic", "Basic bWV0ZXI=", "Basic ?", "Basic /zphOmI="] {
            assert_eq!(basic(header).unwrap_err().word, Word::BadRequest);
        }
    }

    #[test]
    fn a_body_has_short_lines() {
        let body = certificates_body(&[vec![0x30; 100]]);
        assert!(body.ends_with('\n') && body.lines().all(|line| line.len() <= 64));
        let joined: String = body.lines().collect();
        assert_eq!(
            STANDARD.decode(joined).unwrap(),
            pkcs7::certificates_only(&[vec![0x30; 100]])
        );
    }
}
