//! Requests and answers with real keys, signing requests and files.

use super::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

#[test]
fn a_claim_a_renewal_and_a_token_each_give_a_certificate() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let key = KeyPair::generate().unwrap();
    let json = site.json(&claim, "meter-1", &csr(&key, Some("meter-1")));
    let first = json["serial"].as_str().unwrap().to_owned();
    assert!(
        json["certificate"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    assert!(json["not_after"].as_i64().unwrap() > site.now_s);
    assert_eq!(
        site.entry(&first).enrolled_by.as_deref(),
        Some("claim line-4")
    );
    assert_eq!(site.entry(&first).key_type.as_deref(), Some("p256"));

    let key = KeyPair::generate().unwrap();
    let fingerprint = told(&site.entry(&first).fingerprint);
    let renewal = [
        ("login", "certificate"),
        ("certificate-serial", &*first),
        ("certificate-fingerprint", &*fingerprint),
    ];
    let without = site.ask(&renewal[..2], "elsewhere", csr(&key, None).as_bytes());
    assert_eq!(without.reason, Some("certificate-invalid"));
    let json = site.json(&renewal, "elsewhere", &csr(&key, None));
    let second = json["serial"].as_str().unwrap().to_owned();
    let entry = site.entry(&second);
    assert_eq!(
        (&*entry.id, entry.enrolled_by),
        ("meter-1", Some(format!("certificate {first}")))
    );

    let token = site.token("meter-1");
    let properties = [("login", "user"), ("user", "anna"), ("token", &*token)];
    let json = site.json(
        &properties,
        "meter-1",
        &csr(&KeyPair::generate().unwrap(), None),
    );
    let entry = site.entry(json["serial"].as_str().unwrap());
    assert!(entry.enrolled_by.unwrap().starts_with("token "));
    assert!(!site.audit().contains(&token));
    assert_eq!(site.outcomes(), ["issued", "refused", "issued", "issued"]);
}

#[test]
fn the_same_request_has_the_same_answer_in_each_form() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let key = KeyPair::generate().unwrap();
    let csr = csr(&key, None);
    let pem = site.ask(&claim, "meter-1", csr.as_bytes());
    assert_eq!(pem.status, "issued");
    assert_eq!(site.ask(&claim, "meter-1", csr.as_bytes()), pem);
    let json = site.json(&claim, "meter-1", &csr);
    assert_eq!(
        json["certificate"].as_str().unwrap().as_bytes(),
        pem.payload
    );
    let (_, block) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).unwrap();
    let der = site.ask(&claim, "meter-1", &block.contents);
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem.payload).unwrap();
    assert_eq!(der.payload, block.contents);
    assert_eq!(
        site.outcomes(),
        ["issued", "repeated", "repeated", "repeated"]
    );
    assert_eq!(site.desk.inventory.of_id("meter-1").count(), 1);
}

/// The entry is there, the file is not: what a crash between the two leaves.
#[test]
fn a_certificate_whose_file_is_lost_is_replaced() {
    let mut site = Site::new();
    let token = site.token("meter-1");
    let properties = [("login", "none"), ("token", &*token)];
    let csr = csr(&KeyPair::generate().unwrap(), None);
    let first = site.ask(&properties, "meter-1", csr.as_bytes());
    fs::remove_dir_all(site.dir().join("enrolled")).unwrap();
    let second = site.ask(&properties, "meter-1", csr.as_bytes());
    assert_eq!(second.status, "issued");
    assert_ne!(second.payload, first.payload);
    assert_eq!(site.ask(&properties, "meter-1", csr.as_bytes()), second);
    assert_eq!(site.outcomes(), ["issued", "issued", "repeated"]);
}

#[test]
fn two_services_do_not_use_one_token_twice() {
    let mut site = Site::new();
    let token = site.token("meter-1");
    let mut other = site.second_desk();
    let properties = [("login", "none"), ("token", &*token)];
    let first = csr(&KeyPair::generate().unwrap(), None);
    assert_eq!(
        site.ask(&properties, "meter-1", first.as_bytes()).status,
        "issued"
    );
    std::mem::swap(&mut site.desk, &mut other);
    let second = csr(&KeyPair::generate().unwrap(), None);
    assert_eq!(
        site.ask(&properties, "meter-1", second.as_bytes()).reason,
        Some("token-used")
    );
    assert_eq!(
        site.ask(&properties, "meter-1", first.as_bytes()).status,
        "issued"
    );
}

#[test]
fn what_others_change_counts_at_the_next_request() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let csr = csr(&KeyPair::generate().unwrap(), None);
    let reason =
        |client_id: &str, site: &mut Site| site.ask(&claim, client_id, csr.as_bytes()).reason;
    assert_eq!(reason("gauge-1", &mut site), Some("not-on-allow-list"));
    fs::write(site.dir().join("allow"), "gauge-*\n").unwrap();
    assert_eq!(reason("gauge-1", &mut site), None);
    assert_eq!(reason("meter-1", &mut site), Some("not-on-allow-list"));
    fs::remove_file(site.dir().join("allow")).unwrap();
    assert_eq!(reason("gauge-1", &mut site), Some("unavailable"));
    fs::write(site.dir().join("allow"), "*\n").unwrap();
    let mut inventory = Inventory::open(&site.dir()).unwrap();
    let serial = claim[1].1.clone();
    let mut entry = inventory.with_serial(&serial).unwrap().clone();
    entry.status = crate::Status::Revoked;
    inventory.append(&[entry]).unwrap();
    assert_eq!(reason("gauge-1", &mut site), Some("claim-invalid"));
}

#[test]
fn names_besides_the_own_are_refused() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let key = KeyPair::generate().unwrap();
    for (name, expected) in [
        ("urn:mqtt:client:meter-1", None),
        ("urn:mqtt:client:meter-2", Some("names-not-allowed")),
        ("urn:mqtt:service:enrolment", Some("names-not-allowed")),
    ] {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();
        let answer = site.ask(&claim, "meter-1", csr.as_bytes());
        assert_eq!(answer.reason, expected, "{name}");
    }
}

#[test]
fn what_is_no_request_is_refused_and_audited() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let csr = csr(&KeyPair::generate().unwrap(), None);
    let twice = json!({ "csr": csr, "token": "a" }).to_string();
    let properties = [("login", "none"), ("token", "b")];
    assert_eq!(
        site.ask(&properties, "meter-1", twice.as_bytes()).reason,
        Some("bad-request")
    );
    for payload in [&b""[..], b"hello", b"{}", &[0x30; 20_000]] {
        assert_eq!(
            site.ask(&claim, "meter-1", payload).reason,
            Some("bad-request")
        );
    }
    let answered = site.desk.answer(&[], csr.as_bytes(), site.now_s);
    assert_eq!(answered.answer.reason, Some("bad-request"));
    assert_eq!(site.outcomes(), ["refused"; 6]);
}

#[test]
fn requests_that_are_too_many_are_counted_in_the_audit() {
    let mut site = Site::with(1, 0);
    let properties = [("login", "none")];
    for _ in 0..100 {
        site.ask(&properties, "meter-1", b"");
    }
    site.now_s += 10;
    for _ in 0..6 {
        site.ask(&properties, "meter-1", b"");
    }
    let lines = site.lines();
    let busy: Vec<&Value> = lines
        .iter()
        .filter(|line| line["reason"] == "busy")
        .collect();
    assert_eq!(busy.len(), 2);
    assert_eq!(lines[6]["unwritten"], 94);
}

#[test]
fn without_an_audit_there_is_no_answer() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let csr = csr(&KeyPair::generate().unwrap(), None);
    let path = site.dir().join("audit.jsonl");
    fs::create_dir(&path).unwrap();
    assert_eq!(
        site.ask(&claim, "meter-1", csr.as_bytes()).reason,
        Some("unavailable")
    );
    fs::remove_dir(&path).unwrap();
    assert_eq!(site.ask(&claim, "meter-1", csr.as_bytes()).status, "issued");
    assert_eq!(site.outcomes(), ["repeated"]);
}

#[test]
fn a_line_for_people_quotes_what_devices_chose() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let mut properties = properties(&claim, "x\nissued");
    properties.push(("user".to_owned(), "u\nv".to_owned()));
    let answered = site.desk.answer(&properties, b"", site.now_s);
    let line = answered.line.unwrap();
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn what_a_client_shows_itself_counts_as_over_mqtt() {
    let mut site = Site::new();
    let claim = site.shown(Kind::Claim, "line-4");
    let key = KeyPair::generate().unwrap();
    let first = site.enrol(&claim, &csr(&key, Some("meter-1"))).unwrap();
    let again = site.enrol(&claim, &csr(&key, Some("meter-1"))).unwrap();
    assert_eq!(again, first);
    let entry = site.entry(&first.serial);
    assert_eq!(
        (&*entry.id, entry.enrolled_by.as_deref()),
        ("meter-1", Some("claim line-4"))
    );
    // Over MQTT it is the same requester.
    let properties = [
        ("login", "claim".to_owned()),
        (
            "certificate-serial",
            claim.certificate.as_ref().unwrap().0.clone(),
        ),
        (
            "certificate-fingerprint",
            told(&claim.certificate.as_ref().unwrap().1),
        ),
    ];
    let pem = csr(&key, None);
    let answer = site.ask(&properties, "meter-1", pem.as_bytes());
    assert_eq!(answer.payload, first.chain_pem.as_bytes());

    let device = Shown {
        certificate: Some((first.serial.clone(), entry.fingerprint)),
        ..claim.clone()
    };
    let next = site.enrol(&device, &csr(&KeyPair::generate().unwrap(), None));
    let next = site.entry(&next.unwrap().serial);
    assert_eq!(next.id, "meter-1");
    assert_eq!(
        next.enrolled_by,
        Some(format!("certificate {}", first.serial))
    );

    let token = site.token("meter-7");
    let basic = Shown {
        certificate: None,
        token: Some(("meter-7".to_owned(), token.clone())),
        ..claim
    };
    let by_token = site.enrol(&basic, &csr(&KeyPair::generate().unwrap(), None));
    assert_eq!(site.entry(&by_token.unwrap().serial).id, "meter-7");
    assert!(!site.audit().contains(&token));
    let over: Vec<Value> = site
        .lines()
        .iter()
        .map(|line| line["over"].clone())
        .collect();
    assert_eq!(
        over,
        [
            json!("est"),
            json!("est"),
            Value::Null,
            json!("est"),
            json!("est")
        ]
    );
}

#[test]
fn what_entitles_to_nothing_over_mqtt_does_not_over_est() {
    let mut site = Site::new();
    let key = KeyPair::generate().unwrap();
    let pem = |name| csr(&key, name);
    let claim = site.shown(Kind::Claim, "line-4");
    let device = site.shown(Kind::Device, "meter-1");
    let service = site.shown(Kind::Service, "other");
    let mut forged = device.clone();
    forged.certificate.as_mut().unwrap().1 = "AA:BB".to_owned();
    let nothing = Shown {
        certificate: None,
        ..device.clone()
    };
    let mut stale = nothing.clone();
    stale.token = Some(("meter-1".to_owned(), "none".to_owned()));
    for (shown, csr, expected) in [
        (&claim, pem(None), Word::BadRequest),
        (&claim, pem(Some("gauge-1")), Word::NotOnAllowList),
        (&claim, pem(Some("meter-1")), Word::AlreadyEnrolled),
        (&device, pem(Some("meter-2")), Word::NameMismatch),
        (&service, pem(Some("meter-2")), Word::CertificateInvalid),
        (&forged, pem(Some("meter-1")), Word::CertificateInvalid),
        (&nothing, pem(Some("meter-1")), Word::TokenNeeded),
        (&stale, pem(Some("meter-1")), Word::TokenUnknown),
        (&stale, pem(Some("meter-2")), Word::NameMismatch),
        (&device, "hello".to_owned(), Word::BadRequest),
    ] {
        let refusal = site.enrol(shown, &csr).unwrap_err();
        assert_eq!(refusal.word, expected, "{refusal:?}");
    }
    let mut entry = site.stored(&device);
    entry.status = crate::Status::Revoked;
    Inventory::open(&site.dir())
        .unwrap()
        .append(&[entry])
        .unwrap();
    let refusal = site.enrol(&device, &pem(None)).unwrap_err();
    assert_eq!(refusal.word, Word::CertificateInvalid);
    assert_eq!(site.outcomes(), ["refused"; 11]);
    assert!(!format!("{stale:?}").contains("none"));
}

#[test]
fn a_revoked_certificate_uses_up_nothing_that_renewals_have() {
    let mut site = Site::with(1, 0);
    let stolen = site.shown(Kind::Device, "meter-1");
    let device = site.shown(Kind::Device, "meter-2");
    let mut entry = site.stored(&stolen);
    entry.status = crate::Status::Revoked;
    Inventory::open(&site.dir())
        .unwrap()
        .append(&[entry])
        .unwrap();
    let pem = csr(&KeyPair::generate().unwrap(), None);
    let words = (0..10).map(|_| site.enrol(&stolen, &pem).unwrap_err().word);
    assert_eq!(words.last(), Some(Word::Busy));
    assert!(site.enrol(&device, &pem).is_ok());
}

/// Else whoever has a leaked claim fills the audit with what cannot be read.
#[test]
fn what_cannot_be_read_counts_against_the_rate() {
    let mut site = Site::with(1, 0);
    let claim = site.shown(Kind::Claim, "line-4");
    let words: Vec<Word> = (0..10)
        .map(|_| site.enrol(&claim, "hello").unwrap_err().word)
        .collect();
    assert_eq!(words[..5], [Word::BadRequest; 5]);
    assert_eq!(words[5..], [Word::Busy; 5]);
    assert_eq!(site.outcomes(), ["refused"; 6]);
}

/// Who asks without credentials must not fill the disk, whatever he calls himself.
#[test]
fn what_clients_say_is_cut_in_answers_audit_and_log() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let stranger = [("login", "none"), ("token", "wrong")];
    for long in ["\u{7f}", "\u{202e}", "x", "\""] {
        let long = long.repeat(60_000 / long.len());
        let key = KeyPair::generate().unwrap();
        for csr in [csr(&key, None), csr(&key, Some("meter-1"))] {
            for mut said in [properties(&stranger, &long), properties(&claim, &long)] {
                said.push(("user".to_owned(), long.clone()));
                let answered = site.desk.answer(&said, csr.as_bytes(), site.now_s);
                assert_eq!(answered.answer.reason, Some("id-not-allowed"));
                assert!(answered.answer.payload.len() < 4_096);
                assert!(answered.line.unwrap().len() < 8_192);
            }
        }
        let mut said = properties(&[("login", "certificate")], "meter-1");
        said.push(("certificate-serial".to_owned(), long.clone()));
        let answered = site
            .desk
            .answer(&said, csr(&key, None).as_bytes(), site.now_s);
        assert_eq!(answered.answer.reason, Some("certificate-invalid"));
        assert!(answered.answer.payload.len() < 4_096);
    }
    assert!(site.audit().lines().all(|line| line.len() < 8_192));
}

#[test]
fn refusals_are_counted_when_they_are_many_and_what_is_issued_is_always_written() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    let properties = [("login", "none")];
    for _ in 0..1_000 {
        site.ask(&properties, "meter-1", b"");
    }
    assert_eq!(site.lines().len(), 200);
    let csr = csr(&KeyPair::generate().unwrap(), None);
    assert_eq!(site.ask(&claim, "meter-1", csr.as_bytes()).status, "issued");
    let lines = site.lines();
    assert_eq!(
        (&lines[200]["outcome"], &lines[200]["unwritten"]),
        (&json!("issued"), &json!(800))
    );
    site.now_s += 10;
    site.ask(&properties, "meter-1", b"");
    assert_eq!(site.lines().len(), 202);
}

/// The token is in the payload, which is read before anything is counted.
#[test]
fn who_has_a_token_is_heard_while_strangers_ask() {
    let mut site = Site::with(1, 0);
    let token = site.token("meter-1");
    let pem = csr(&KeyPair::generate().unwrap(), None);
    let nothing = [("login", "none")];
    for _ in 0..100 {
        site.ask(&nothing, "meter-1", pem.as_bytes());
    }
    let busy = site.ask(&nothing, "meter-2", pem.as_bytes());
    assert_eq!(busy.reason, Some("busy"));
    let payload = json!({ "csr": pem, "token": token }).to_string();
    let answer = site.ask(&nothing, "meter-1", payload.as_bytes());
    assert_eq!(answer.status, "issued");
}

struct Site {
    directory: TempDir,
    desk: Desk,
    now_s: i64,
}

impl Site {
    fn new() -> Self {
        Self::with(1_000, 0)
    }

    fn with(rate_per_s: u32, per_id_interval_s: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("allow"), "meter-*\n").unwrap();
        let authority = Authority::create(directory.path(), "test").unwrap();
        let settings = settings(directory.path(), rate_per_s, per_id_interval_s);
        Self {
            desk: Desk::open(authority, settings).unwrap(),
            now_s: crate::now_unix_s(),
            directory,
        }
    }

    fn dir(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn second_desk(&self) -> Desk {
        let authority = Authority::open(self.directory.path()).unwrap();
        Desk::open(authority, settings(self.directory.path(), 1_000, 0)).unwrap()
    }

    /// What the broker says of a client with a new claim certificate.
    fn claim(&self, name: &str) -> [(&'static str, String); 3] {
        let order = Order::claim(name).unwrap();
        let issued = self
            .desk
            .authority
            .issue(&order, crate::KeyType::P256)
            .unwrap();
        let mut inventory = Inventory::open(&self.dir()).unwrap();
        inventory.append(&[Entry::issued(&order, &issued)]).unwrap();
        [
            ("login", "claim".to_owned()),
            ("certificate-serial", issued.serial_hex.clone()),
            ("certificate-fingerprint", told(&issued.fingerprint_sha256)),
        ]
    }

    /// A client with a new certificate that came to us directly.
    fn shown(&self, kind: Kind, name: &str) -> Shown {
        let order = match kind {
            Kind::Claim => Order::claim(name),
            Kind::Service => Order::service(name),
            _ => Order::device(name),
        };
        let order = order.unwrap();
        let issued = self.desk.authority.issue(&order, crate::KeyType::P256);
        let entry = Entry::issued(&order, &issued.unwrap());
        let mut inventory = Inventory::open(&self.dir()).unwrap();
        inventory.append(std::slice::from_ref(&entry)).unwrap();
        Shown {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            certificate: Some((entry.serial, entry.fingerprint)),
            token: None,
        }
    }

    fn stored(&self, shown: &Shown) -> Entry {
        let (serial, _) = shown.certificate.as_ref().unwrap();
        let inventory = Inventory::open(&self.dir()).unwrap();
        inventory.with_serial(serial).unwrap().clone()
    }

    fn enrol(&mut self, shown: &Shown, csr: &str) -> Result<Certificate, Refusal> {
        let csr = Ok(csr.as_bytes().to_vec());
        self.desk.enrol(shown, csr, self.now_s).result
    }

    fn token(&self, id: &str) -> String {
        let mut tokens = Tokens::open(&self.dir()).unwrap();
        let new = tokens.issue(&[id.to_owned()], self.now_s + 100, self.now_s);
        new.unwrap().remove(0).text
    }

    fn ask<T: AsRef<str>>(
        &mut self,
        said: &[(&str, T)],
        client_id: &str,
        payload: &[u8],
    ) -> Answer {
        let properties = properties(said, client_id);
        self.desk.answer(&properties, payload, self.now_s).answer
    }

    fn json<T: AsRef<str>>(&mut self, said: &[(&str, T)], client_id: &str, csr: &str) -> Value {
        let payload = json!({ "csr": csr }).to_string();
        let answer = self.ask(said, client_id, payload.as_bytes());
        serde_json::from_slice(&answer.payload).unwrap()
    }

    fn entry(&self, serial: &str) -> Entry {
        self.desk.inventory.with_serial(serial).unwrap().clone()
    }

    fn audit(&self) -> String {
        fs::read_to_string(self.dir().join("audit.jsonl")).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let audit = self.audit();
        audit
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn outcomes(&self) -> Vec<String> {
        let lines = self.lines();
        lines
            .iter()
            .map(|line| line["outcome"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A fingerprint as the broker says it.
fn told(fingerprint: &str) -> String {
    fingerprint.replace(':', "").to_lowercase()
}

fn settings(dir: &Path, rate_per_s: u32, per_id_interval_s: u32) -> Settings {
    Settings {
        own_names: vec!["enrolment".to_owned()],
        key_types: vec!["p256".to_owned()],
        certificates_per_id: 16,
        rate_per_s,
        per_id_interval_s,
        allowed: Allowed::File(dir.join("allow")),
        validity: Validity::Days(30),
        audit: dir.join("audit.jsonl"),
    }
}

fn properties<T: AsRef<str>>(said: &[(&str, T)], client_id: &str) -> Vec<(String, String)> {
    let mut properties = vec![
        ("client-id".to_owned(), client_id.to_owned()),
        ("session".to_owned(), "7".to_owned()),
    ];
    let said = said
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_ref().to_owned()));
    properties.extend(said);
    properties
}

fn csr(key: &KeyPair, common_name: Option<&str>) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(key).unwrap().pem().unwrap()
}
