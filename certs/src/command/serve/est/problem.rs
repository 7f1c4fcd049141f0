//! What is wrong with a request of HTTP, as an answer: a status, and in the body a word and a sentence.

use super::exchange::Answer;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use motemq_certs::enrol::{Refusal, Word};
use motemq_certs::est::{self, BODY_BYTES_MAX};

/// One variant for each rule.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "there are cacerts, csrattrs, simpleenroll and simplereenroll below /.well-known/est/, without a label"
    )]
    NoSuchPath,
    #[error("use {allowed}")]
    Method { allowed: &'static str },
    #[error(
        "show a client certificate (the device's own, or a claim), or send the device's id and a token by HTTP Basic"
    )]
    NothingShown,
    #[error("send the signing request as Content-Type: application/pkcs10")]
    MediaType,
    #[error("a signing request has at most {BODY_BYTES_MAX} bytes here")]
    TooLarge,
    #[error("the body ended early")]
    Cut,
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Problem {
    pub(super) fn answer(&self) -> Answer {
        let (status, word) = self.status();
        let mut answer = Response::new(Full::from(format!("{word}: {self}\n")));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, TEXT);
        match self {
            Self::Method { allowed } => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::NothingShown => {
                headers.insert(WWW_AUTHENTICATE, CHALLENGE);
            }
            Self::Refused(_) if status == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_S);
            }
            _ => {}
        }
        answer
    }

    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "not-found"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::NothingShown => (StatusCode::UNAUTHORIZED, Word::TokenNeeded.as_str()),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::Cut => (StatusCode::BAD_REQUEST, Word::BadRequest.as_str()),
            Self::Refused(refusal) => {
                let status = StatusCode::from_u16(est::status(refusal.word));
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, refusal.word.as_str())
            }
        }
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"enrolment\", charset=\"UTF-8\"");
/// In seconds. The rates let more in after one; a minute keeps a fleet from coming back at once.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("60");
