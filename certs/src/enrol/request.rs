//! What arrives: who asks, as the broker says, and what for, as the payload says.
//!
//! The user properties of a request are made by the broker; only the value of `token` is the client's. One that is there twice, or
//! missing, was not made by a broker that we know, and the request is refused.

use super::{Refusal, Word};
use crate::serial;
use crate::{Request, RequestError};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use serde::Deserialize;
use std::borrow::Cow;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The client id of the session that gets the answer.
    pub client_id: String,
    /// What the client logged in with.
    pub login: Login,
    /// SHA-256 over the certificate of the login, hexadecimal; colons and case do not matter.
    pub fingerprint: Option<String>,
    /// The name that the login proved.
    pub user: Option<String>,
    /// A token, from a user property of the client's.
    pub token: Option<String>,
}

/// What a client logged in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A device's certificate with this serial, lower-case hexadecimal without leading zero bytes.
    Certificate(String),
    /// A claim certificate with this serial.
    Claim(String),
    /// A user name with a proof, such as a password.
    User,
    /// Nothing.
    Anonymous,
}

impl Login {
    /// The word of the protocol.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "certificate",
            Self::Claim(_) => "claim",
            Self::User => "user",
            Self::Anonymous => "none",
        }
    }

    /// The serial of the certificate, if there was one.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        match self {
            Self::Certificate(serial) | Self::Claim(serial) => Some(serial),
            Self::User | Self::Anonymous => None,
        }
    }
}

impl Requester {
    /// Reads the user properties of a request.
    ///
    /// # Errors
    /// [`Word::BadRequest`] when one is missing or there twice.
    pub fn parse(properties: &[(String, String)]) -> Result<Self, Refusal> {
        let client_id = single(properties, "client-id")?.ok_or_else(|| missing("client-id"))?;
        let serial = || {
            single(properties, "certificate-serial")?.ok_or_else(|| missing("certificate-serial"))
        };
        let login = match single(properties, "login")?.as_deref() {
            Some("certificate") => Login::Certificate(serial()?),
            Some("claim") => Login::Claim(serial()?),
            Some("user") => Login::User,
            Some("none") => Login::Anonymous,
            _ => return Err(missing("login")),
        };
        Ok(Self {
            client_id,
            login,
            fingerprint: single(properties, "certificate-fingerprint")?,
            user: single(properties, "user")?,
            token: single(properties, "token")?,
        })
    }
}

fn single(properties: &[(String, String)], name: &str) -> Result<Option<String>, Refusal> {
    let mut values = properties.iter().filter(|(key, _)| key == name);
    let first = values.next().map(|(_, value)| value.clone());
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::new(
            Word::BadRequest,
            format!("the user property {name} is there more than once: send one"),
        )),
    }
}

fn missing(name: &str) -> Refusal {
    let message = format!("the broker did not say {name}: use a broker with [enrolment]");
    Refusal::new(Word::BadRequest, message)
}

/// What of a signing request matters for the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The common name; `None` where the subject is empty.
    pub common_name: Option<String>,
    /// Kind of the key, such as `p256` or `rsa2048`.
    pub key_type: String,
    /// SHA-256 over the subject public key info, lower-case hexadecimal.
    pub public_key: String,
}

impl Wanted {
    /// What of `request` matters.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let info = request.public_key().info().subject_public_key_info();
        let hash = digest(&SHA256, &info);
        Self {
            common_name: request.common_name().map(str::to_owned),
            key_type: request.public_key().type_name().to_owned(),
            public_key: serial::hex(hash.as_ref()),
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let word = match &error {
            RequestError::RsaBits(_) | RequestError::Curve(_) | RequestError::KeyType(_) => {
                Word::KeyNotAllowed
            }
            RequestError::AlternativeName { .. } | RequestError::CommonNames(_) => {
                Word::NamesNotAllowed
            }
            RequestError::OtherCommonName { .. } => Word::NameMismatch,
            _ => Word::BadRequest,
        };
        Self::new(word, format!("the signing request: {error}"))
    }
}

/// How a request was written, which is how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The signing request as PEM.
    Pem,
    /// The signing request as DER.
    Der,
    /// A JSON object with the PEM in it.
    Json,
}

/// A payload, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it was written.
    pub form: Form,
    /// The signing request: PEM text, or DER.
    pub csr: Cow<'a, [u8]>,
    /// The token, if it came inside.
    pub token: Option<String>,
}

impl<'a> Payload<'a> {
    /// Tells the forms apart by their first byte. How long it may be is the signing request's matter.
    ///
    /// # Errors
    /// [`Word::BadRequest`] when it is none of them.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Refusal> {
        let refused = |message: &str| Err(Refusal::new(Word::BadRequest, message));
        let (form, csr, token) = match payload.trim_ascii_start().first() {
            Some(b'{') => match serde_json::from_slice::<Json>(payload) {
                Ok(Json { csr, token }) => (Form::Json, csr.into_bytes().into(), token),
                // What serde says could quote the token.
                Err(error) => {
                    let place = format!("line {} column {}", error.line(), error.column());
                    let form = "{\"csr\": \"-----BEGIN ...\", \"token\": \"...\"}";
                    return refused(&format!("not a JSON object like {form}: look at {place}"));
                }
            },
            Some(b'-') => (Form::Pem, payload.into(), None),
            Some(_) => (Form::Der, payload.into(), None),
            None => return refused("the payload is empty: send a signing request"),
        };
        Ok(Self { form, csr, token })
    }
}

#[derive(Deserialize)]
struct Json {
    csr: String,
    #[serde(default)]
    token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_says_who_asks() {
        let properties = properties(&[
            ("client-id", "meter-1"),
            ("session", "7"),
            ("login", "claim"),
            ("user", "line-4"),
            ("certificate-serial", "0a"),
            ("certificate-fingerprint", "abcd"),
        ]);
        let requester = Requester::parse(&properties).unwrap();
        assert_eq!(requester.client_id, "meter-1");
        assert_eq!(requester.login, Login::Claim("0a".to_owned()));
        assert_eq!(requester.user.as_deref(), Some("line-4"));
        assert_eq!(requester.fingerprint.as_deref(), Some("abcd"));
        assert_eq!(requester.token, None);
    }

    #[test]
    fn what_the_broker_says_is_there_once() {
        for wrong in [
            &[("login", "none")][..],
            &[("client-id", "a")],
            &[("client-id", "a"), ("login", "root")],
            &[("client-id", "a"), ("login", "certificate")],
            &[("client-id", "a"), ("login", "claim")],
            &[("client-id", "a"), ("login", "none"), ("login", "user")],
            &[("client-id", "a"), ("client-id", "b"), ("login", "none")],
            &[
                ("client-id", "a"),
                ("login", "none"),
                ("token", "x"),
                ("token", "y"),
            ],
        ] {
            let refusal = Requester::parse(&properties(wrong)).unwrap_err();
            assert_eq!(refusal.word, Word::BadRequest, "{wrong:?}");
        }
    }

    #[test]
    fn a_payload_is_pem_der_or_json() {
        let form = |payload: &[u8]| Payload::parse(payload).map(|payload| payload.form);
        assert_eq!(form(b"-----BEGIN CERTIFICATE REQUEST-----"), Ok(Form::Pem));
        assert_eq!(form(b"\x30\x01"), Ok(Form::Der));
        let json = Payload::parse(b" {\"csr\": \"-----\", \"token\": \"t\"}").unwrap();
        assert_eq!((json.form, &*json.csr), (Form::Json, &b"-----"[..]));
        assert_eq!(json.token.as_deref(), Some("t"));
        for wrong in [&b""[..], b" ", b"{", b"{\"token\": \"t\"}"] {
            assert_eq!(form(wrong).unwrap_err().word, Word::BadRequest);
        }
    }

    fn properties(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }
}
