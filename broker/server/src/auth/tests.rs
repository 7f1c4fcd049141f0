//! The chain, and what becomes of a login when what it rests on changes. Passwords, tokens and reloads over sockets are in
//! `tests/tests/logins.rs`.

use super::*;
use crate::scram_file;
use motemq_codec::ReasonCode;
use motemq_core::{ExchangeAnswer, ExchangeStage, ExchangeStep, Timestamp};
use std::num::NonZeroU32;
use tempfile::TempDir;

#[test]
fn the_first_source_that_decides_has_decided() {
    let site = Site::new();
    let (certified, plain) = (peer(Some("device")), peer(None));
    let check = |order: &[AuthSource], user, peer: &Peer| {
        let (verdict, proof) = site.check(order, user, peer);
        (verdict, proof.is_some())
    };
    let user = |name: &str| Ok(Identity::User(name.into()));
    let device = Ok(Identity::Certificate("device".into()));
    let wrong = Err(ReasonCode::BadUserNameOrPassword);
    let (certificate, password) = (AuthSource::Certificate, AuthSource::Password);
    let first = [certificate, password];
    assert_eq!(
        check(&first, Some("anna"), &certified),
        (device.clone(), true)
    );
    assert_eq!(check(&first, None, &certified), (device.clone(), true));
    assert_eq!(check(&first, Some("anna"), &plain), (user("anna"), true));
    assert_eq!(
        check(&first, Some("nobody"), &plain),
        (wrong.clone(), false)
    );
    let last = [password, certificate];
    assert_eq!(check(&last, Some("anna"), &certified), (user("anna"), true));
    assert_eq!(check(&last, Some("nobody"), &certified), (device, true));
    assert_eq!(check(&last, Some("nobody"), &plain), (wrong, false));
    // Whoever is not asked knows nothing.
    let refused = Err(ReasonCode::NotAuthorized);
    assert_eq!(
        check(&[AuthSource::Scram], None, &certified),
        (refused, false)
    );
}

#[test]
fn an_unusable_certificate_refuses_whatever_else_is_shown() {
    let site = Site::new();
    let unusable = Peer {
        certificate: PeerCertificate::Unusable(Unusable::Expired),
        ..peer(None)
    };
    for order in [
        &[AuthSource::Password][..],
        &[AuthSource::Password, AuthSource::Certificate],
    ] {
        let (verdict, _) = site.check(order, Some("anna"), &unusable);
        assert_eq!(verdict, Err(ReasonCode::NotAuthorized));
    }
}

#[test]
fn a_claim_is_good_for_enrolling_whatever_else_is_shown() {
    let site = Site::new();
    let mut claim = peer(Some("device"));
    if let PeerCertificate::Verified(certificate) = &mut claim.certificate {
        Arc::make_mut(certificate).claim = Some("batch-7".into());
    }
    let open = ListenerConfig {
        anonymous: AnonymousAccess::Allowed,
        ..ListenerConfig::default()
    };
    for order in [&AuthSource::ALL[..], &[AuthSource::Password]] {
        for user in [None, Some("anna")] {
            let (verdict, _) = site.check(order, user, &claim);
            assert_eq!(verdict, Err(ReasonCode::NotAuthorized));
            let enrols = site.enrolling(order);
            let Decision { verdict, proof } = site.decide_at(&enrols, &open, user, &claim);
            let Verdict::Accepted { login, .. } = verdict else {
                panic!("{order:?} {user:?}");
            };
            assert_eq!(login.identity, Identity::Certificate("batch-7".into()));
            assert_eq!(login.scope, Scope::Enrolment);
            let proof = proof.unwrap();
            assert!(enrols.still_admits(&proof, &open, &claim));
            assert!(
                !site
                    .authenticator(order)
                    .still_admits(&proof, &open, &claim)
            );
        }
    }
    let request = request(None);
    let step = ExchangeStep {
        stage: ExchangeStage::Connect {
            method: "SCRAM-SHA-256".into(),
            request,
        },
        data: b"n,,n=sam,r=nonce".to_vec(),
    };
    let answer = site
        .enrolling(&AuthSource::ALL)
        .answer(&mut None, &mut None, step, None, &claim);
    assert!(matches!(answer, ExchangeAnswer::Refused { .. }));
}

#[test]
fn who_shows_nothing_may_enrol_where_the_listener_says_so() {
    let site = Site::new();
    let listener = ListenerConfig {
        enrolment: true,
        ..ListenerConfig::default()
    };
    let (without, with) = (
        site.authenticator(&AuthSource::ALL),
        site.enrolling(&AuthSource::ALL),
    );
    let scope = |authenticator, listener, user: Option<&str>| {
        let decision = site.decide_at(authenticator, listener, user, &peer(None));
        match decision.verdict {
            Verdict::Accepted { login, .. } => Some((login.scope, decision.proof)),
            Verdict::Refused { .. } => None,
        }
    };
    let closed = ListenerConfig::default();
    assert_eq!(scope(&without, &listener, None), None);
    assert_eq!(scope(&with, &closed, None), None);
    let applicant = Some((Scope::Enrolment, Some(Proof::Applicant)));
    assert_eq!(scope(&with, &listener, None), applicant);
    // Who shows something that is not known is not somebody who shows nothing.
    assert_eq!(scope(&with, &listener, Some("nobody")), None);
    let full = scope(&with, &listener, Some("anna"));
    assert_eq!(full.map(|(scope, _)| scope), Some(Scope::Full));
    assert!(with.still_admits(&Proof::Applicant, &listener, &peer(None)));
    assert!(!with.still_admits(&Proof::Applicant, &closed, &peer(None)));
    assert!(!without.still_admits(&Proof::Applicant, &listener, &peer(None)));
}

#[test]
fn every_login_with_a_certificate_brings_its_fields_along() {
    let site = Site::new();
    let expected = peer(Some("device")).certificate.attributes();
    assert!(!expected.fields.is_empty());
    for (order, user) in [
        (AuthSource::Certificate, None),
        (AuthSource::Password, Some("anna")),
    ] {
        let authenticator = site.authenticator(&[order]);
        let decision = site.decide(&authenticator, user, &peer(Some("device")));
        let Verdict::Accepted { login, .. } = decision.verdict else {
            panic!("{order:?}");
        };
        assert_eq!(login.attributes, expected);
    }
}

#[test]
fn a_login_stands_while_what_it_rests_on_does() {
    let site = Site::new();
    let listener = ListenerConfig::default();
    let open = ListenerConfig {
        anonymous: AnonymousAccess::Allowed,
        ..ListenerConfig::default()
    };
    let certified = peer(Some("device"));
    let all = site.authenticator(&AuthSource::ALL);
    let stands = |proof: &Proof, peer: &Peer| all.still_admits(proof, &listener, peer);
    // A certificate that expires while its client is connected, whatever the login rests on.
    let mut expired = certified.clone();
    if let PeerCertificate::Verified(certificate) = &mut expired.certificate {
        Arc::make_mut(certificate).expires_at = clock::now();
    }
    let (_, by_password) = site.check(&AuthSource::ALL[1..], Some("anna"), &certified);
    for proof in [Proof::Certificate, by_password.unwrap()] {
        assert!(stands(&proof, &certified));
        assert!(!stands(&proof, &expired));
    }
    // A source that is no longer asked.
    let less = site.authenticator(&[AuthSource::Password]);
    assert!(!less.still_admits(&Proof::Certificate, &listener, &certified));
    // Nobody, where nobody is admitted any more, or where users have come up since.
    let nobody = |has_credentials| Proof::Anonymous { has_credentials };
    assert!(all.still_admits(&nobody(false), &open, &peer(None)));
    assert!(!all.still_admits(&nobody(true), &open, &peer(None)));
    assert!(!stands(&nobody(false), &peer(None)));
    let without = Authenticator::new(&AuthConfig::default(), CheckLine::new(1)).unwrap();
    assert!(without.still_admits(&nobody(true), &open, &peer(None)));
}

#[test]
fn scram_is_offered_only_where_it_is_in_the_order() {
    let site = Site::new();
    let begin = |order: &[AuthSource]| {
        let request = request(None);
        let method = "SCRAM-SHA-256".into();
        let step = ExchangeStep {
            stage: ExchangeStage::Connect { method, request },
            data: b"n,,n=sam,r=nonce".to_vec(),
        };
        let (mut exchange, mut proof) = (None, None);
        let authenticator = site.authenticator(order);
        authenticator.answer(&mut exchange, &mut proof, step, None, &peer(None))
    };
    assert!(matches!(
        begin(&[AuthSource::Scram]),
        ExchangeAnswer::Continue(_)
    ));
    let code = ReasonCode::BadAuthenticationMethod;
    assert!(matches!(
        begin(&[AuthSource::Password]),
        ExchangeAnswer::Refused { code: found, .. } if found == code
    ));
}

/// Files with a user of each kind.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        password::set_user(&folder.path().join("users"), "anna", b"secret").unwrap();
        let few = NonZeroU32::new(4096).unwrap();
        let path = folder.path().join("scram-users");
        scram_file::set_user(&path, "sam", "secret", few).unwrap();
        Self { folder }
    }

    fn authenticator(&self, order: &[AuthSource]) -> Authenticator {
        let config = AuthConfig {
            order: order.to_vec(),
            password_file: Some(self.folder.path().join("users")),
            scram_file: Some(self.folder.path().join("scram-users")),
            ..AuthConfig::default()
        };
        Authenticator::new(&config, CheckLine::new(10)).unwrap()
    }

    /// As [`authenticator`](Self::authenticator), where certificates can be asked for.
    fn enrolling(&self, order: &[AuthSource]) -> Authenticator {
        let config = EnrolmentConfig {
            signer: "enrolment".to_owned(),
            ..EnrolmentConfig::default()
        };
        self.authenticator(order).with_enrolment(&config)
    }

    fn decide(&self, authenticator: &Authenticator, user: Option<&str>, peer: &Peer) -> Decision {
        self.decide_at(authenticator, &ListenerConfig::default(), user, peer)
    }

    fn decide_at(
        &self,
        authenticator: &Authenticator,
        listener: &ListenerConfig,
        user: Option<&str>,
        peer: &Peer,
    ) -> Decision {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(authenticator.check(request(user), listener, peer))
    }

    fn check(
        &self,
        order: &[AuthSource],
        user: Option<&str>,
        peer: &Peer,
    ) -> (Result<Identity, ReasonCode>, Option<Proof>) {
        let Decision { verdict, proof } = self.decide(&self.authenticator(order), user, peer);
        let identity = match verdict {
            Verdict::Accepted { login, .. } => Ok(login.identity),
            Verdict::Refused { code, .. } => Err(code),
        };
        (identity, proof)
    }
}

fn request(user: Option<&str>) -> ConnectRequest {
    ConnectRequest {
        client_id: "c".to_owned(),
        username: user.map(str::to_owned),
        password: user.map(|_| b"secret".to_vec()),
    }
}

fn peer(name: Option<&str>) -> Peer {
    let certificate = name.map(|name| VerifiedCertificate {
        claim: None,
        name: Some(name.into()),
        attributes: Arc::new(Attributes {
            fields: [("o".into(), "works".into())].into(),
            ..Attributes::default()
        }),
        expires_at: Timestamp::from_ms(u64::MAX),
    });
    let certificate = certificate.map(Arc::new);
    Peer {
        address: PeerAddress::Unknown,
        listener: "mqtt".into(),
        certificate: certificate.map_or(PeerCertificate::None, PeerCertificate::Verified),
        certificate_ids: None,
        history: Arc::new(motemq_core::History::new(0)),
    }
}
