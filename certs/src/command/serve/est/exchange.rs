//! One exchange: a request of HTTP, and the answer that RFC 7030 has for it.
//!
//! What fails before the desk is asked, such as a wrong path, or nothing shown, is not in the audit: nothing was asked for yet.

use super::super::{SharedDesk, lock, log};
use super::problem::Problem;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use hyper::{Method, Request, Response, StatusCode};
use motemq_certs::est::{self, BODY_BYTES_MAX, Basic};
use motemq_certs::{Shown, certificate_der, now_unix_s};
use std::error::Error;
use std::net::IpAddr;

pub(super) type Answer = Response<Full<Bytes>>;

/// Where the paths begin (RFC 8615).
pub(super) const ROOT: &str = "/.well-known/est/";

/// Where clients of EST are served.
pub(super) struct Counter {
    desk: SharedDesk,
    /// The authority's certificates, as they are sent.
    authority: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// The authority's certificates (RFC 7030, 4.1).
    Authority,
    /// A certificate, the first or the next (4.2). What was shown says which, as over MQTT.
    Enrol,
    /// What a signing request should contain (4.5): nothing in particular.
    Attributes,
}

impl Counter {
    pub(super) fn new(desk: SharedDesk) -> Self {
        let authority = {
            let desk = lock(&desk);
            let authority = desk.authority();
            let mut certificates: Vec<Vec<u8>> =
                [authority.certificate_pem(), authority.root_pem()]
                    .into_iter()
                    .filter_map(|pem| certificate_der(pem).ok())
                    .collect();
            certificates.dedup();
            est::certificates_body(&certificates)
        };
        Self { desk, authority }
    }

    /// Answers a request of the client at `address`, which has shown this certificate (serial and fingerprint), or none.
    pub(super) async fn answer<B>(
        &self,
        address: IpAddr,
        certificate: Option<(String, String)>,
        request: Request<B>,
    ) -> Answer
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.try_answer(address, certificate, request).await {
            Ok(answer) => answer,
            Err(problem) => problem.answer(),
        }
    }

    async fn try_answer<B>(
        &self,
        address: IpAddr,
        certificate: Option<(String, String)>,
        request: Request<B>,
    ) -> Result<Answer, Problem>
    where
        B: Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        match operation(&head.method, head.uri.path())? {
            Operation::Authority => Ok(with_certificates(self.authority.clone())),
            Operation::Attributes => Ok(empty()),
            Operation::Enrol => {
                let shown = shown(address, certificate, &head.headers)?;
                let csr = signing_request(&head.headers, body).await?;
                self.enrol(&shown, &csr)
            }
        }
    }

    fn enrol(&self, shown: &Shown, body: &[u8]) -> Result<Answer, Problem> {
        let enrolled = lock(&self.desk).enrol(shown, est::signing_request(body), now_unix_s());
        if let Some(line) = &enrolled.line {
            log(line);
        }
        let certificate = enrolled.result?;
        Ok(with_certificates(est::certificates_body(
            &[certificate.der],
        )))
    }
}

/// Labels (RFC 7030, 3.2.2) name one of several authorities; here is one.
fn operation(method: &Method, path: &str) -> Result<Operation, Problem> {
    let (operation, allowed) = match path.strip_prefix(ROOT) {
        Some("cacerts") => (Operation::Authority, "GET"),
        Some("csrattrs") => (Operation::Attributes, "GET"),
        Some("simpleenroll" | "simplereenroll") => (Operation::Enrol, "POST"),
        _ => return Err(Problem::NoSuchPath),
    };
    match method.as_str() == allowed {
        true => Ok(operation),
        false => Err(Problem::Method { allowed }),
    }
}

fn shown(
    address: IpAddr,
    certificate: Option<(String, String)>,
    headers: &HeaderMap,
) -> Result<Shown, Problem> {
    let basic = match headers.get(AUTHORIZATION) {
        Some(value) => Basic::parse(value.as_bytes())?,
        None => None,
    };
    let shown = Shown {
        address,
        certificate,
        token: basic.map(|basic| (basic.user, basic.password)),
    };
    match shown.is_something() {
        true => Ok(shown),
        false => Err(Problem::NothingShown),
    }
}

async fn signing_request<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media_type = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    if !media_type.is_some_and(|text| text.trim_ascii().eq_ignore_ascii_case(PKCS10)) {
        return Err(Problem::MediaType);
    }
    // Said before it is sent, so that a client that waits for 100 Continue need not send it.
    if length(headers).is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(Problem::TooLarge);
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge),
        Err(_) => Err(Problem::Cut),
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn with_certificates(body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, PKCS7);
    headers.insert(TRANSFER_ENCODING, BASE64);
    answer
}

fn empty() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

const PKCS10: &[u8] = b"application/pkcs10";
const PKCS7: HeaderValue =
    HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only");
/// Of MIME, not of HTTP. RFC 8951 does without; clients of before look at it.
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");
const BASE64: HeaderValue = HeaderValue::from_static("base64");

#[cfg(test)]
mod tests;
