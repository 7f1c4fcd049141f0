//! What goes back: a certificate in the form of the request, or a refusal, which is always JSON.

use super::{Form, Refusal};
use serde_json::json;

/// A certificate that was issued, in the forms that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The leaf, then the intermediate if there is one.
    pub chain_pem: String,
    /// The leaf alone.
    pub der: Vec<u8>,
    /// The serial, lower-case hexadecimal.
    pub serial: String,
    /// When its validity ends, in seconds since 1970.
    pub not_after: i64,
}

/// An answer before it is a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `issued` or `refused`.
    pub status: &'static str,
    /// Why it was refused.
    pub reason: Option<&'static str>,
    /// What kind of text or data the payload is.
    pub content_type: &'static str,
    /// What the client reads.
    pub payload: Vec<u8>,
}

impl Answer {
    /// The certificate, written as the request was.
    #[must_use]
    pub fn issued(form: Form, certificate: &Certificate) -> Self {
        let (content_type, payload) = match form {
            Form::Pem => (PEM, certificate.chain_pem.clone().into_bytes()),
            Form::Der => (DER, certificate.der.clone()),
            Form::Json => {
                let object = json!({
                    "certificate": certificate.chain_pem,
                    "serial": certificate.serial,
                    "not_after": certificate.not_after,
                });
                (JSON, object.to_string().into_bytes())
            }
        };
        Self {
            status: "issued",
            reason: None,
            content_type,
            payload,
        }
    }

    /// The word and the sentence.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        let word = refusal.word.as_str();
        let payload = json!({ "error": word, "message": refusal.message }).to_string();
        Self {
            status: "refused",
            reason: Some(word),
            content_type: JSON,
            payload: payload.into_bytes(),
        }
    }
}

/// RFC 8555, section 9.1.
const PEM: &str = "application/pem-certificate-chain";
/// RFC 2585, section 4.1.
const DER: &str = "application/pkix-cert";
const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::super::Word;
    use super::*;

    #[test]
    fn an_answer_has_the_form_of_the_request() {
        let certificate = Certificate {
            chain_pem: "PEM".to_owned(),
            der: vec![0x30, 0],
            serial: "0a".to_owned(),
            not_after: 7,
        };
        let payload = |form| Answer::issued(form, &certificate).payload;
        assert_eq!(payload(Form::Pem), b"PEM");
        assert_eq!(payload(Form::Der), [0x30, 0]);
        let json: serde_json::Value = serde_json::from_slice(&payload(Form::Json)).unwrap();
        let expected = json!({ "certificate": "PEM", "serial": "0a", "not_after": 7 });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_refusal_is_json_whatever_was_asked() {
        let answer = Answer::refused(&Refusal::new(Word::Busy, "later"));
        assert_eq!((answer.status, answer.reason), ("refused", Some("busy")));
        let json: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(json, json!({ "error": "busy", "message": "later" }));
    }
}
