//! Scripts of requests and what is decided about them.

use super::*;
use crate::NewToken;
use tempfile::TempDir;

const NOW: i64 = 1_000_000;

#[test]
fn a_claim_gets_the_first_certificate_of_an_id_on_the_list() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    site.allow("meter-*");
    let ask = Ask::with(&claim)
        .client("meter-1")
        .named("meter-1")
        .key("k1");
    let grant = site.issued(&ask);
    assert_eq!(
        (&*grant.id, &*grant.enrolled_by),
        ("meter-1", "claim line-4")
    );
    assert_eq!(
        site.word(&ask.client("gauge-1").named("gauge-1")),
        "not-on-allow-list"
    );
}

#[test]
fn without_a_list_no_id_can_be_claimed() {
    let mut site = Site::new();
    let claim = site.claim("line-4");
    assert_eq!(
        site.word(&Ask::with(&claim).client("meter-1")),
        "not-on-allow-list"
    );
}

#[test]
fn a_claim_takes_no_device_over() {
    let mut site = Site::new();
    site.allow("*");
    site.device("old-meter", "0d", None);
    let claim = site.claim("line-4");
    let first = Ask::with(&claim).client("meter-1").key("k1");
    site.issue(&first, "01");
    assert_eq!(site.word(&first.clone().key("k2")), "already-enrolled");
    assert_eq!(
        site.word(&Ask::with(&claim).client("old-meter").key("k1")),
        "already-enrolled"
    );
    // What it held is revoked or over: else a thief would get the next one with a claim.
    site.revoke("01");
    assert_eq!(site.word(&first), "already-enrolled");
    assert_eq!(site.word(&first.clone().key("k2")), "already-enrolled");
    site.now_s = LATER + 1;
    let claim = site.claim("line-5");
    let old = Ask::with(&claim).client("old-meter").key("k1");
    assert_eq!(site.word(&old), "already-enrolled");
    site.now_s = NOW;
    let token = site.token("meter-1");
    site.issued(&first.key("k2").token(&token));
}

/// Another authority of `client_ca` can issue any serial.
#[test]
fn a_certificate_is_known_by_its_fingerprint() {
    let mut site = Site::new();
    site.allow("*");
    site.device("meter-1", "0d", None);
    let claim = site.claim("line-4");
    for (login, expected) in [
        (&Login::Certificate("0d".to_owned()), "certificate-invalid"),
        (&claim, "claim-invalid"),
    ] {
        let mut ask = Ask::with(login).client("meter-2");
        site.issued(&ask);
        for wrong in [None, Some(""), Some("abce"), Some("abcd00")] {
            ask.requester.fingerprint = wrong.map(str::to_owned);
            assert_eq!(site.word(&ask), expected, "{wrong:?}");
        }
    }
}

#[test]
fn an_id_has_so_many_valid_certificates_and_no_more() {
    let mut site = Site::new();
    site.device("meter-1", "0d", Some("k0"));
    let ask = Ask::with(&Login::Certificate("0d".to_owned())).client("meter-1");
    site.issue(&ask.clone().key("k1"), "01");
    site.issue(&ask.clone().key("k2"), "02");
    let next = ask.clone().key("k3");
    assert_eq!(site.word(&next), "too-many-certificates");
    assert_eq!(site.repeated(&ask.key("k2")), "02");
    site.revoke("01");
    site.issued(&next);
}

#[test]
fn a_lost_answer_to_a_claim_is_given_again() {
    let mut site = Site::new();
    site.allow("*");
    let claim = site.claim("line-4");
    let ask = Ask::with(&claim).client("meter-1").key("k1");
    site.issue(&ask, "01");
    assert_eq!(site.repeated(&ask), "01");
}

#[test]
fn a_claim_that_was_taken_back_or_is_none_gets_nothing() {
    let mut site = Site::new();
    site.allow("*");
    let claim = site.claim("line-4");
    let ask = Ask::with(&claim).client("meter-1");
    site.revoke("c1");
    assert_eq!(site.word(&ask), "claim-invalid");
    let expired = site.claim_until("line-5", NOW);
    assert_eq!(
        site.word(&Ask::with(&expired).client("meter-1")),
        "claim-invalid"
    );
    let unknown = Login::Claim("ff".to_owned());
    assert_eq!(
        site.word(&Ask::with(&unknown).client("meter-1")),
        "claim-invalid"
    );
    site.device("meter-1", "0d", None);
    let device = Login::Claim("0d".to_owned());
    assert_eq!(
        site.word(&Ask::with(&device).client("meter-2")),
        "claim-invalid"
    );
}

#[test]
fn claims_and_tokens_are_for_the_clients_own_id() {
    let mut site = Site::new();
    site.allow("*");
    let claim = site.claim("line-4");
    let token = site.token("meter-2");
    assert_eq!(
        site.word(&Ask::with(&claim).client("meter-1").named("meter-2")),
        "name-mismatch"
    );
    let ask = Ask::with(&Login::Anonymous).client("meter-1").token(&token);
    assert_eq!(site.word(&ask.clone().named("meter-2")), "name-mismatch");
    assert_eq!(site.word(&ask.clone().named("meter-1")), "token-unknown");
    assert_eq!(site.word(&ask), "token-unknown");
}

#[test]
fn a_device_renews_for_its_own_id_whatever_its_client_id() {
    let mut site = Site::new();
    site.device("meter-1", "0d", None);
    let login = Login::Certificate("0d".to_owned());
    let grant = site.issued(&Ask::with(&login).client("bridge-9"));
    assert_eq!(
        (&*grant.id, &*grant.enrolled_by),
        ("meter-1", "certificate 0d")
    );
    site.issued(&Ask::with(&login).client("bridge-9").named("meter-1"));
    assert_eq!(
        site.word(&Ask::with(&login).client("bridge-9").named("bridge-9")),
        "name-mismatch"
    );
}

#[test]
fn only_a_valid_device_certificate_is_renewed() {
    let mut site = Site::new();
    site.allow("*");
    site.device("meter-1", "0d", None);
    site.claim("line-4");
    let with = |serial: &str| Ask::with(&Login::Certificate(serial.to_owned())).client("meter-1");
    assert_eq!(site.word(&with("ff")), "certificate-invalid");
    assert_eq!(site.word(&with("c1")), "certificate-invalid");
    site.now_s = LATER;
    assert_eq!(site.word(&with("0d")), "certificate-invalid");
    site.now_s = NOW;
    site.revoke("0d");
    assert_eq!(site.word(&with("0d")), "certificate-invalid");
}

#[test]
fn a_renewal_that_was_answered_is_answered_alike() {
    let mut site = Site::new();
    site.device("meter-1", "0d", Some("k1"));
    let ask = Ask::with(&Login::Certificate("0d".to_owned()))
        .client("meter-1")
        .key("k2");
    site.issue(&ask, "02");
    assert_eq!(site.repeated(&ask), "02");
    // Another key is another renewal; with the new certificate the same key is.
    site.issued(&ask.key("k3"));
    site.issued(
        &Ask::with(&Login::Certificate("02".to_owned()))
            .client("meter-1")
            .key("k2"),
    );
}

#[test]
fn renewing_with_the_same_key_is_noted() {
    let mut site = Site::new();
    site.device("meter-1", "0d", Some("k1"));
    let ask = Ask::with(&Login::Certificate("0d".to_owned()))
        .client("meter-1")
        .key("k1");
    assert_eq!(site.issued(&ask).warnings, ["renewed with the same key"]);
    assert_eq!(site.issued(&ask.key("k2")).warnings, [""; 0]);
}

#[test]
fn a_token_is_used_once() {
    let mut site = Site::new();
    let token = site.token("meter-1");
    let ask = Ask::with(&Login::User)
        .client("meter-1")
        .key("k1")
        .token(&token);
    let grant = site.issue(&ask, "01");
    assert!(grant.enrolled_by.starts_with("token "), "{grant:?}");
    assert!(!grant.enrolled_by.contains(&token.text));
    assert_eq!(site.repeated(&ask), "01");
    assert_eq!(site.word(&ask.clone().key("k2")), "token-used");
    site.revoke("01");
    assert_eq!(site.word(&ask), "token-used");
}

#[test]
fn a_token_ends_with_its_time_or_when_taken_back() {
    let mut site = Site::new();
    let token = site.token("meter-1");
    let other = site.token("meter-2");
    let used = Ask::with(&Login::User).client("meter-2").token(&other);
    site.issue(&used, "01");
    let ask = Ask::with(&Login::User).client("meter-1").token(&token);
    site.now_s = token.not_after;
    assert_eq!(site.word(&ask), "token-expired");
    assert_eq!(site.repeated(&used), "01");
    site.now_s = NOW;
    site.tokens.remove("meter-1", NOW).unwrap();
    assert_eq!(site.word(&ask), "token-unknown");
}

#[test]
fn a_token_replaces_a_valid_certificate_and_says_so() {
    let mut site = Site::new();
    site.device("meter-1", "0d", Some("k1"));
    let token = site.token("meter-1");
    let grant = site.issued(
        &Ask::with(&Login::User)
            .client("meter-1")
            .key("k2")
            .token(&token),
    );
    assert_eq!(grant.warnings, ["also valid, until revoked: 0d"]);
}

#[test]
fn a_token_that_is_given_counts_and_not_the_login() {
    let mut site = Site::new();
    site.device("meter-1", "0d", None);
    let device = Login::Certificate("0d".to_owned());
    let wrong = NewToken {
        id: "meter-1".to_owned(),
        text: "wrong".to_owned(),
        not_after: LATER,
    };
    assert_eq!(
        site.word(&Ask::with(&device).client("meter-1").token(&wrong)),
        "token-unknown"
    );
    let token = site.token("meter-2");
    let grant = site.issued(&Ask::with(&device).client("meter-2").token(&token));
    assert_eq!(grant.id, "meter-2");
}

#[test]
fn a_password_or_nothing_needs_a_token() {
    let mut site = Site::new();
    site.allow("*");
    for login in [Login::User, Login::Anonymous] {
        assert_eq!(
            site.word(&Ask::with(&login).client("meter-1")),
            "token-needed"
        );
    }
}

#[test]
fn nobody_gets_the_name_of_the_service_or_one_that_is_none() {
    let mut site = Site::new();
    site.allow("*");
    site.device("enrolment", "0d", None);
    let claim = site.claim("line-4");
    let renewal = Login::Certificate("0d".to_owned());
    assert_eq!(
        site.word(&Ask::with(&renewal).client("a")),
        "id-not-allowed"
    );
    for id in ["enrolment", "signer", "a/b", "", "+", "a\nb"] {
        assert_eq!(
            site.word(&Ask::with(&claim).client(id)),
            "id-not-allowed",
            "{id:?}"
        );
    }
}

#[test]
fn keys_are_of_the_types_that_are_accepted() {
    let mut site = Site::new();
    site.allow("*");
    let claim = site.claim("line-4");
    let ask = Ask::with(&claim).client("meter-1");
    for (key_type, expected) in [
        ("p256", true),
        ("ed25519", true),
        ("p384", false),
        ("rsa2048", false),
    ] {
        let mut ask = ask.clone();
        ask.wanted.key_type = key_type.to_owned();
        let decision = site.decide(&ask);
        assert_eq!(
            matches!(decision, Decision::Issue(_)),
            expected,
            "{key_type}"
        );
    }
    site.enroller.rules.key_types = vec!["rsa".to_owned()];
    let mut ask = ask;
    ask.wanted.key_type = "rsa3072".to_owned();
    site.issued(&ask);
}

#[test]
fn each_requester_has_its_own_interval() {
    let mut site = Site::new();
    site.enroller = Enroller::new(rules(), Rates::new(100, 10));
    site.device("meter-1", "0d", None);
    let claim = site.claim("line-4");
    let own = Login::Certificate("0d".to_owned());
    let token = site.token("meter-1");
    let mut admit = |ask: &Ask, payload: &str, now_s| site.admits(ask, payload, now_s);
    let claiming = Ask::with(&claim).client("meter-1");
    assert!(admit(&claiming, "csr", NOW));
    assert!(!admit(&claiming, "csr", NOW + 1));
    let renewing = Ask::with(&own).client("meter-1");
    assert!(admit(&renewing, "csr", NOW + 1), "not by who has a claim");
    assert!(
        !admit(&renewing.client("elsewhere"), "other", NOW + 1),
        "one certificate is one requester"
    );
    let stranger = Ask::with(&Login::Anonymous).client("meter-1");
    assert!(admit(&stranger, "x", NOW + 1));
    let mut wrong = token.clone();
    wrong.text = "wrong".to_owned();
    assert!(admit(&stranger.clone().token(&wrong), "x", NOW + 1));
    let invited = stranger.token(&token);
    assert!(
        admit(&invited, "x", NOW + 1),
        "not by who has the client id"
    );
    assert!(!admit(&invited, "y", NOW + 1), "one token is one requester");
    assert!(admit(&Ask::with(&claim).client("meter-2"), "csr", NOW + 1));
    assert!(admit(&claiming, "csr", NOW + 10));
}

#[test]
fn strangers_leave_turns_to_who_has_something_to_show() {
    let mut site = Site::new();
    site.enroller = Enroller::new(rules(), Rates::new(2, 0));
    let mut passed = 0;
    for number in 0..100 {
        let ask = Ask::with(&Login::Anonymous).client(&format!("meter-{number}"));
        passed += usize::from(site.admits(&ask, "", NOW));
    }
    assert_eq!(passed, 10);
    site.device("meter-1", "0d", None);
    site.device("meter-2", "0e", None);
    site.revoke("0e");
    let token = site.token("meter-1");
    let claim = site.claim("line-4");
    let with = |serial: &str| Ask::with(&Login::Certificate(serial.to_owned()));
    let invited = Ask::with(&Login::Anonymous).token(&token);
    assert!(site.admits(&with("0d"), "", NOW));
    assert!(site.admits(&Ask::with(&claim), "", NOW));
    assert!(site.admits(&invited.clone().client("meter-1"), "", NOW));
    assert!(!site.admits(&invited.client("meter-2"), "", NOW));
    assert!(!site.admits(&with("0e"), "", NOW), "it is revoked");
    assert!(!site.admits(&with("ff"), "", NOW), "nobody knows it");
}

const LATER: i64 = NOW + 1_000;

struct Site {
    _directory: TempDir,
    inventory: Inventory,
    tokens: Tokens,
    allowed: Option<AllowList>,
    enroller: Enroller,
    claims: u32,
    now_s: i64,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            inventory: Inventory::open(directory.path()).unwrap(),
            tokens: Tokens::open(directory.path()).unwrap(),
            allowed: None,
            enroller: Enroller::new(rules(), Rates::new(1_000, 0)),
            claims: 0,
            now_s: NOW,
            _directory: directory,
        }
    }

    fn allow(&mut self, list: &str) {
        self.allowed = Some(AllowList::parse(&format!("{list}\n")));
    }

    fn claim(&mut self, name: &str) -> Login {
        self.claim_until(name, self.now_s + 1_000)
    }

    fn claim_until(&mut self, name: &str, not_after: i64) -> Login {
        self.claims += 1;
        let serial = format!("c{}", self.claims);
        let mut entry = entry(name, Kind::Claim, &serial);
        entry.not_after = not_after;
        self.inventory.append(&[entry]).unwrap();
        Login::Claim(serial)
    }

    fn device(&mut self, id: &str, serial: &str, key: Option<&str>) {
        let mut entry = entry(id, Kind::Device, serial);
        entry.public_key = key.map(str::to_owned);
        self.inventory.append(&[entry]).unwrap();
    }

    fn revoke(&mut self, serial: &str) {
        let mut entry = self.inventory.with_serial(serial).unwrap().clone();
        entry.status = Status::Revoked;
        self.inventory.append(&[entry]).unwrap();
    }

    fn token(&mut self, id: &str) -> NewToken {
        let new = self.tokens.issue(&[id.to_owned()], NOW + 500, NOW);
        new.unwrap().remove(0)
    }

    fn decide(&self, ask: &Ask) -> Decision {
        let known = Known {
            inventory: &self.inventory,
            tokens: &self.tokens,
            allowed: self.allowed.as_ref(),
        };
        self.enroller
            .decide(&ask.requester, &ask.wanted, known, self.now_s)
    }

    fn admits(&mut self, ask: &Ask, payload: &str, now_s: i64) -> bool {
        let known = Known {
            inventory: &self.inventory,
            tokens: &self.tokens,
            allowed: None,
        };
        let admitted = self
            .enroller
            .admit(&ask.requester, payload.as_bytes(), known, now_s);
        admitted.is_ok()
    }

    fn issued(&self, ask: &Ask) -> Grant {
        match self.decide(ask) {
            Decision::Issue(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    /// Issues as decided.
    fn issue(&mut self, ask: &Ask, serial: &str) -> Grant {
        let grant = self.issued(ask);
        let mut entry = entry(&grant.id, Kind::Device, serial);
        entry.public_key = Some(ask.wanted.public_key.clone());
        entry.enrolled_by = Some(grant.enrolled_by.clone());
        self.inventory.append(&[entry]).unwrap();
        grant
    }

    fn repeated(&self, ask: &Ask) -> String {
        match self.decide(ask) {
            Decision::Repeat { serial, .. } => serial,
            other => panic!("{other:?}"),
        }
    }

    fn word(&self, ask: &Ask) -> &'static str {
        match self.decide(ask) {
            Decision::Refuse(refusal) => refusal.word.as_str(),
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone)]
struct Ask {
    requester: Requester,
    wanted: Wanted,
}

impl Ask {
    fn with(login: &Login) -> Self {
        Self {
            requester: Requester {
                client_id: String::new(),
                login: login.clone(),
                fingerprint: login.serial().map(|_| "abcd".to_owned()),
                user: None,
                token: None,
            },
            wanted: Wanted {
                common_name: None,
                key_type: "p256".to_owned(),
                public_key: "k1".to_owned(),
            },
        }
    }

    fn client(mut self, id: &str) -> Self {
        self.requester.client_id = id.to_owned();
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.wanted.common_name = Some(name.to_owned());
        self
    }

    fn key(mut self, key: &str) -> Self {
        self.wanted.public_key = key.to_owned();
        self
    }

    fn token(mut self, token: &NewToken) -> Self {
        self.requester.token = Some(token.text.clone());
        self
    }
}

fn rules() -> Rules {
    Rules {
        own_names: vec!["enrolment".to_owned(), "signer".to_owned()],
        key_types: vec!["p256".to_owned(), "ed25519".to_owned()],
        certificates_per_id: 3,
    }
}

fn entry(id: &str, kind: Kind, serial: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        kind,
        serial: serial.to_owned(),
        fingerprint: "AB:CD".to_owned(),
        not_after: LATER,
        status: Status::Issued,
        at: NOW,
        reason: None,
        key_type: None,
        attributes: Default::default(),
        enrolled_by: None,
        public_key: None,
    }
}
