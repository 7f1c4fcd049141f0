//! Requests and answers without a network; who is given what, the desk's own tests say.

use super::*;
use motemq_certs::{
    Allowed, Authority, Desk, Entry, Inventory, KeyType, Order, Settings, Validity,
};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

#[test]
fn the_authority_is_there_for_everybody() {
    let site = Site::new();
    let answer = site.ask(Method::GET, "/.well-known/est/cacerts", &[], "");
    assert_eq!(answer.status, 200);
    let content_type = answer.header("content-type");
    assert_eq!(
        content_type,
        "application/pkcs7-mime; smime-type=certs-only"
    );
    assert_eq!(answer.header("content-transfer-encoding"), "base64");
    assert!(answer.body.starts_with("MII"), "{}", answer.body);
    let answer = site.ask(Method::GET, "/.well-known/est/csrattrs", &[], "");
    assert_eq!((answer.status, &*answer.body), (204, ""));
}

#[test]
fn another_path_or_label_is_not_found() {
    let site = Site::new();
    for path in [
        "/",
        "/.well-known/est",
        "/.well-known/est/",
        "/.well-known/est/label/cacerts",
        "/.well-known/est/cacerts/",
        "/.well-known/est/serverkeygen",
        "/.well-known/est/fullcmc",
        "/.well-known/est/../est/cacerts",
    ] {
        assert_eq!(site.ask(Method::GET, path, &[], "").status, 404, "{path}");
    }
}

#[test]
fn another_method_is_told_which_to_use() {
    let site = Site::new();
    for (method, operation, expected) in [
        (Method::POST, "cacerts", "GET"),
        (Method::HEAD, "cacerts", "GET"),
        (Method::PUT, "csrattrs", "GET"),
        (Method::GET, "simpleenroll", "POST"),
        (Method::GET, "simplereenroll", "POST"),
    ] {
        let answer = site.ask(method, &format!("{ROOT}{operation}"), &[], "");
        assert_eq!((answer.status, answer.header("allow")), (405, expected));
    }
}

#[test]
fn who_shows_nothing_is_told_what_to_show_and_counts_for_nothing() {
    let site = Site::new();
    for headers in [&[][..], &[("authorization", "Bearer abc")]] {
        let answer = site.enrol(headers, "MAA=");
        assert_eq!(answer.status, 401);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Basic realm="));
        assert!(answer.body.starts_with("token-needed: "), "{}", answer.body);
    }
    assert!(!site.directory.path().join("audit.jsonl").exists());
}

#[test]
fn what_is_no_signing_request_is_refused_by_its_kind() {
    let site = Site::new();
    let basic = ("authorization", "Basic bWV0ZXItMTphYmM=");
    let other = ("authorization", "Basic bWV0ZXItMjphYmM=");
    let pkcs10 = ("content-type", "Application/PKCS10; charset=x");
    let long = "A".repeat(BODY_BYTES_MAX + 1);
    for (headers, body, status, word) in [
        (&[basic][..], "MAA=", 415, "unsupported-media-type"),
        (
            &[basic, ("content-type", "text/plain")],
            "MAA=",
            415,
            "unsupported-media-type",
        ),
        (&[basic, pkcs10], &*long, 413, "too-large"),
        (
            &[basic, pkcs10, ("content-length", "99999")],
            "",
            413,
            "too-large",
        ),
        (&[basic, pkcs10], "?", 400, "bad-request"),
        (&[other, pkcs10], "", 400, "bad-request"),
        (
            &[("authorization", "Basic ?"), pkcs10],
            "MAA=",
            400,
            "bad-request",
        ),
    ] {
        let answer = site.ask(Method::POST, "/.well-known/est/simpleenroll", headers, body);
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(
            answer.body.starts_with(&format!("{word}: ")),
            "{}",
            answer.body
        );
    }
}

#[test]
fn a_refusal_says_word_and_sentence_and_when_to_come_again() {
    let site = Site::new();
    let headers = [
        ("authorization", "Basic bWV0ZXItMTphYmM="),
        ("content-type", "application/pkcs10"),
    ];
    let csr = csr("meter-1");
    let answer = site.enrol(&headers, &csr);
    assert_eq!(answer.status, 403);
    let expected = "token-unknown: there is no such token for \"meter-1\"";
    assert!(answer.body.starts_with(expected), "{}", answer.body);
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert!(!answer.headers.contains_key("retry-after"));
    // The interval is 60 seconds in these tests.
    let answer = site.enrol(&headers, &csr);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "60"));
    assert!(answer.body.starts_with("busy: "), "{}", answer.body);
}

#[test]
fn a_certificate_that_was_shown_is_renewed_by_either_path() {
    let site = Site::new();
    for (id, operation) in [("meter-1", "simpleenroll"), ("meter-2", "simplereenroll")] {
        let order = Order::device(id).unwrap();
        let shown = {
            let desk = lock(&site.counter.desk);
            let issued = desk.authority().issue(&order, KeyType::P256).unwrap();
            let entry = Entry::issued(&order, &issued);
            let mut inventory = Inventory::open(site.directory.path()).unwrap();
            inventory.append(std::slice::from_ref(&entry)).unwrap();
            (entry.serial, entry.fingerprint)
        };
        let headers = [("content-type", "application/pkcs10")];
        let path = format!("{ROOT}{operation}");
        let answer = site.ask_with(Some(shown), Method::POST, &path, &headers, &csr(id));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let content_type = answer.header("content-type");
        assert_eq!(
            content_type,
            "application/pkcs7-mime; smime-type=certs-only"
        );
        let inventory = Inventory::open(site.directory.path()).unwrap();
        assert_eq!(inventory.of_id(id).count(), 2);
    }
}

struct Site {
    directory: TempDir,
    counter: Counter,
}

struct Heard {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), "test").unwrap();
        let settings = Settings {
            own_names: Vec::new(),
            key_types: vec!["p256".to_owned()],
            certificates_per_id: 16,
            rate_per_s: 1_000,
            per_id_interval_s: 60,
            allowed: Allowed::Nothing,
            validity: Validity::Days(30),
            audit: directory.path().join("audit.jsonl"),
        };
        let desk = Desk::open(authority, settings).unwrap();
        Self {
            counter: Counter::new(Arc::new(Mutex::new(desk))),
            directory,
        }
    }

    fn enrol(&self, headers: &[(&str, &str)], body: &str) -> Heard {
        self.ask(Method::POST, "/.well-known/est/simpleenroll", headers, body)
    }

    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Heard {
        self.ask_with(None, method, path, headers, body)
    }

    fn ask_with(
        &self,
        certificate: Option<(String, String)>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Heard {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::from(body.to_owned())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(async {
            let address = Ipv4Addr::LOCALHOST.into();
            let answer = self.counter.answer(address, certificate, request).await;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            Heard {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8(body).unwrap(),
            }
        })
    }
}

fn csr(id: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, id);
    let key = rcgen::KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().pem().unwrap()
}
