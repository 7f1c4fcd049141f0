//! B1 and B7: taking another client's session, and certificates that say who their client is in a crooked way.

use crate::site::Site;
use motemq_codec::{AckKind, ProtocolVersion, ReasonCode};
use motemq_tests::in_process::tls_client;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::Client;
use motemq_tests::token::{Signer, key_set};
use rcgen::string::BmpString;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, DnValue, IsCa,
    KeyPair, SanType,
};
use rustls::ClientConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Every other way in, with the same client identifier: by another user, another way of the same name, or nobody.
#[test]
fn b1_nobody_takes_another_identitys_session_and_nothing_of_it_is_disturbed() {
    let pki = Pki::new();
    let site = pki.start("identity = \"cn\"");
    let token = pki.token("anna");
    let other_token = pki.token("berta");
    let ways: [(&str, Way<'_>, &str); 7] = [
        ("password", Way::Password("anna", "first"), "user anna"),
        (
            "other password",
            Way::Password("berta", "second"),
            "user berta",
        ),
        ("token", Way::Token(&token), "user anna"),
        ("other token", Way::Token(&other_token), "user berta"),
        ("certificate", Way::Certificate("anna"), "certificate anna"),
        (
            "other certificate",
            Way::Certificate("berta"),
            "certificate berta",
        ),
        ("nobody", Way::Nobody, "nobody"),
    ];
    for (index, (name, way, identity)) in ways.iter().enumerate() {
        let id = format!("prize-{index}");
        let mut owner = pki.enter(&site, way, &Hello::durable(&id)).unwrap();
        let topic = format!("b1/{index}");
        assert_eq!(owner.subscribe(&topic, 1), 1);
        let mut sender = Client::connect(site.port(), &Hello::clean("sender"));
        sender.publish(&topic, "in flight", 1, 1);
        let first = owner.take_publish();
        for (other_name, other, other_identity) in &ways {
            if other_identity == identity {
                continue;
            }
            for clean in [false, true] {
                let hello = Hello {
                    clean,
                    ..Hello::durable(&id)
                };
                let refused = pki.enter(&site, other, &hello).unwrap_err();
                assert_eq!(refused, ReasonCode::NotAuthorized, "{other_name} of {name}");
            }
        }
        // The connection is up, its queue and subscription untouched.
        assert_eq!(owner.ping(), Some(Vec::new()));
        owner.ack(AckKind::PubAck, first.id);
        sender.publish(&topic, "live", 1, 2);
        let live = owner.take_publish();
        assert_eq!(live.payload, "live");
        owner.ack(AckKind::PubAck, live.id);
        // Nor while it is away.
        drop(owner);
        site.await_metric("mqtt_broker_connections", |count| count <= 2.0);
        sender.publish(&topic, "queued", 1, 3);
        for (_, other, other_identity) in &ways {
            if other_identity != identity {
                let hello = Hello {
                    clean: true,
                    ..Hello::durable(&id)
                };
                let refused = pki.enter(&site, other, &hello).unwrap_err();
                assert_eq!(refused, ReasonCode::NotAuthorized);
            }
        }
        let same = ways.iter().rfind(|(_, _, other)| other == identity);
        let (_, same, _) = same.unwrap();
        let mut owner = pki.enter(&site, same, &Hello::durable(&id)).unwrap();
        assert_eq!(owner.take_publish().payload, "queued", "{name}");
        drop((owner, sender));
        site.await_metric("mqtt_broker_connections", |count| count == 1.0);
    }
    site.finish();
}

#[test]
fn b7_a_certificate_without_one_plain_name_lets_nobody_in() {
    let pki = Pki::new();
    let site = pki.start("identity = \"cn\"");
    let long = "n".repeat(257);
    let none: [Vec<DnValue>; 14] = [
        vec![],
        vec!["".into()],
        vec!["a".into(), "b".into()],
        vec!["a".into(), "a".into()],
        vec!["+".into()],
        vec!["#".into()],
        vec!["a/+/b".into()],
        vec!["*".into()],
        vec!["*.example.org".into()],
        vec!["..".into()],
        vec!["a/../b".into()],
        vec!["a\0b".into()],
        vec!["a\nb".into()],
        vec![long.as_str().into()],
    ];
    for names in none {
        let refused = pki.enter_named(&site, &names).unwrap_err();
        assert_eq!(refused, ReasonCode::NotAuthorized, "{names:?}");
    }
    // Not UTF-8: alone, and beside a name that would be plain.
    let crooked = || DnValue::BmpString(BmpString::try_from("admin").unwrap());
    for names in [
        vec![crooked()],
        vec![crooked(), "admin".into()],
        vec!["admin".into(), crooked()],
    ] {
        let refused = pki.enter_named(&site, &names).unwrap_err();
        assert_eq!(refused, ReasonCode::NotAuthorized, "{names:?}");
    }
    // A right user name and password do not help.
    let client = pki.client(pki.certificate(&["a".into(), "b".into()], &[]));
    let mut client = Client::open_tls(site.second_port(), client, ProtocolVersion::V5);
    let hello = Hello {
        username: Some("anna"),
        password: Some("first"),
        ..Hello::clean("c")
    };
    client.send_bytes(&hello.bytes());
    let refused = Got::ConnAck(false, ReasonCode::NotAuthorized);
    assert_eq!(client.take(), Some(refused));
    for plain in ["sensor-7", "schlüssel", "a.b", "urn:dev:7"] {
        assert!(pki.enter_named(&site, &[plain.into()]).is_ok(), "{plain}");
    }
    site.finish();
}

#[test]
fn b7_a_subject_alternative_name_counts_once_and_plain() {
    let pki = Pki::new();
    let site = pki.start("identity = \"san-dns\"");
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = SanType::URI("urn:dev:7".try_into().unwrap());
    let enter = |names: &[SanType]| {
        let client = pki.client(pki.certificate(&["cn".into()], names));
        say_hello(&site, client)
    };
    assert!(enter(&[dns("a.example"), uri.clone()]).is_ok());
    for names in [
        vec![],
        vec![uri],
        vec![dns("a.example"), dns("b.example")],
        vec![dns("*.example")],
    ] {
        assert!(enter(&names).is_err(), "{names:?}");
    }
    site.finish();
}

#[test]
fn b7_a_certificate_that_nobody_signed_or_that_has_expired_lets_nobody_in() {
    let pki = Pki::new();
    let site = pki.start("identity = \"cn\"");
    let stranger = Pki::new();
    let (certificate, key) = stranger.certificate(&["anna".into()], &[]);
    let client = pki.client((certificate, key));
    assert!(say_hello(&site, client).is_err());
    let mut expired = pki.params(&["anna".into()], &[]);
    expired.not_before = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let client = pki.client(pki.issue(expired));
    assert!(say_hello(&site, client).is_err());
    site.finish();
}

/// A ClientHello of TLS 1.1, 1.0 and SSL 3.0: a protocol_version alert, and the end.
#[test]
fn b7_tls_below_1_2_is_refused() {
    let pki = Pki::new();
    let site = pki.start("identity = \"cn\"");
    for version in [[3, 2], [3, 1], [3, 0]] {
        let mut hello = version.to_vec();
        hello.extend([7; 32]); // random
        hello.push(0); // no session
        hello.extend([0, 4, 0xc0, 0x13, 0x00, 0x2f]); // ECDHE-RSA and RSA with AES-128-CBC-SHA
        hello.extend([1, 0]); // no compression
        // Groups and signature schemes, so that only the version is wrong.
        let extensions = [
            0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 1,
        ];
        hello.extend([0, extensions.len() as u8]);
        hello.extend(extensions);
        let mut record = vec![
            22,
            3,
            1,
            0,
            hello.len() as u8 + 4,
            1,
            0,
            0,
            hello.len() as u8,
        ];
        record.extend(hello);
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, site.second_port())).unwrap();
        socket.write_all(&record).unwrap();
        let mut answer = Vec::new();
        // It may be reset after the alert.
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() >= 7 && answer[0] == 21, "{answer:02x?}");
        assert_eq!(answer[6], 70, "protocol_version");
    }
    site.finish();
}

#[derive(Debug)]
enum Way<'a> {
    Password(&'a str, &'a str),
    Token(&'a str),
    Certificate(&'static str),
    Nobody,
}

/// An authority, and a folder with what a broker needs of it.
struct Pki {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    signer: Signer,
}

type Own = (
    rustls::pki_types::CertificateDer<'static>,
    PrivateKeyDer<'static>,
);

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        Self {
            folder,
            authority,
            signer: Signer::new(1),
        }
    }

    /// A broker that admits anybody without TLS, and asks for certificates with it.
    fn start(&self, identity: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&key, &self.authority).unwrap();
        std::fs::write(path("server.crt"), server.pem()).unwrap();
        let key_file = path("server.key");
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key_file, private).unwrap();
        std::fs::write(path("jwks.json"), key_set(&[&self.signer])).unwrap();
        for (user, password) in [("anna", "first"), ("berta", "second")] {
            motemq::password::set_user(&path("users"), user, password.as_bytes()).unwrap();
        }
        let tables = format!(
            "[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n\
             [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\n\
             client_ca = \"{}\"\nclient_cert = \"optional\"\n{identity}\n\
             [auth]\npassword_file = \"users\"\n[auth.jwt]\nkeys_file = \"jwks.json\"\n",
            self.ca().display()
        );
        Site::start_from(folder, "", &tables).with_bystander()
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    fn token(&self, user: &str) -> String {
        let expiry = motemq::clock::now().as_ms() / 1000 + 600;
        let claims = format!("{{\"sub\":\"{user}\",\"exp\":{expiry}}}");
        self.signer.token(&claims)
    }

    fn params(&self, names: &[DnValue], alternative: &[SanType]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (index, name) in names.iter().enumerate() {
            // A second value of one kind would replace the first: the number of the kind is the same.
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, name.clone());
        }
        params.subject_alt_names = alternative.to_vec();
        params
    }

    fn issue(&self, params: CertificateParams) -> Own {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }

    fn certificate(&self, names: &[DnValue], alternative: &[SanType]) -> Own {
        self.issue(self.params(names, alternative))
    }

    fn client(&self, own: Own) -> Arc<ClientConfig> {
        tls_client(&self.ca(), Some(own))
    }

    fn enter_named(&self, site: &Site, names: &[DnValue]) -> Result<Client, ReasonCode> {
        say_hello(site, self.client(self.certificate(names, &[])))
    }

    /// Connects; the code of the refusal.
    fn enter(&self, site: &Site, way: &Way<'_>, hello: &Hello<'_>) -> Result<Client, ReasonCode> {
        let hello = match way {
            Way::Password(user, password) => Hello {
                username: Some(user),
                password: Some(password),
                ..hello.clone()
            },
            Way::Token(token) => Hello {
                password: Some(token),
                ..hello.clone()
            },
            _ => hello.clone(),
        };
        let client = match way {
            Way::Certificate(name) => {
                let client = self.client(self.certificate(&[(*name).into()], &[]));
                Client::open_tls(site.second_port(), client, hello.version)
            }
            _ => Client::open(site.port(), hello.version),
        };
        greet(client, &hello)
    }
}

/// With an identifier of its own: the session of the one before may still be there for a moment.
fn say_hello(site: &Site, client: Arc<ClientConfig>) -> Result<Client, ReasonCode> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let id = format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let client = Client::open_tls(site.second_port(), client, ProtocolVersion::V5);
    greet(client, &Hello::clean(&id))
}

/// An end without an answer counts as refused: the handshake failed.
fn greet(mut client: Client, hello: &Hello<'_>) -> Result<Client, ReasonCode> {
    client.send_bytes(&hello.bytes());
    match client.take() {
        Some(Got::ConnAck(_, ReasonCode::Success)) => Ok(client),
        Some(Got::ConnAck(_, code)) => Err(code),
        None => Err(ReasonCode::UnspecifiedError),
        other => panic!("{other:?}"),
    }
}
