//! Who may connect: rates and numbers by address, bans, refusals that end, and files that others must not read.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::api::{BanItem, BanOrder, Client as Operator, Door, Kind, Page};
use motemq::config::{
    AnonymousAccess, BanConfig, Bind, ClientCert, Config, CrlOverdue, Identity, LimitsConfig,
    ListenerConfig, TlsConfig,
};
use motemq::password::set_user;
use motemq::server::{Refusal, check};
use motemq_certs::Authority;
use motemq_codec::ReasonCode;
use motemq_tests::in_process::{InProcess, no_http};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::{Client, Stopwatch};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn an_address_has_as_many_connections_as_its_limit() {
    let site = Site::start(|config| config.limits.address_connections_max = 2);
    let first = site.connect("a");
    let _second = site.connect("b");
    assert!(site.is_refused());
    assert_eq!(site.refused(Refusal::AddressConnections), 1);
    drop(first);
    site.until(|| !site.is_refused());
    site.stop();
}

#[test]
fn connects_that_come_too_fast_are_closed_and_counted() {
    for (refusal, change) in [
        (
            Refusal::ConnectRate,
            (|config| config.limits.connect_rate_max = 3) as fn(&mut Config),
        ),
        (Refusal::ListenerConnectRate, |config| {
            config.listeners[0].connect_rate_max = 3;
        }),
        (Refusal::AddressConnectRate, |config| {
            config.limits.address_connect_rate_max = 3;
        }),
    ] {
        let site = Site::start(change);
        let clients: Vec<_> = (0..20).map(|_| site.tcp()).collect();
        site.until(|| site.accepted() == 20);
        assert!(site.refused(refusal) > 5, "{refusal:?}");
        drop(clients);
        // Slower ones come in again.
        site.until(|| !site.is_refused());
        site.stop();
    }
}

#[test]
fn behind_a_proxy_the_clients_address_is_counted() {
    let site = Site::start(|config| {
        config.limits.address_connections_max = 1;
        config.listeners[0].proxy_protocol = true;
        config.listeners[0].proxy_cidrs = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let from = |ip: &str, id: &str| {
        let mut stream = site.tcp();
        write!(stream, "PROXY TCP4 {ip} 10.0.0.9 1000 1883\r\n").unwrap();
        stream.write_all(&Hello::clean(id).bytes()).unwrap();
        let mut first = [0];
        let is_in = stream.read(&mut first).unwrap_or(0) == 1;
        (stream, is_in)
    };
    let one = from("192.0.2.1", "a");
    let other = from("192.0.2.2", "b");
    assert!(one.1 && other.1);
    assert!(!from("192.0.2.1", "c").1);
    assert_eq!(site.refused(Refusal::AddressConnections), 1);
    drop((one, other));
    site.stop();
}

#[test]
fn brute_force_bans_that_user_from_there_and_nobody_else() {
    let site = Site::with_users(|config| config.ban.failures_max = 3);
    for _ in 0..3 {
        let wrong = site.log_in(5, "anna", "wrong");
        assert_eq!(wrong, ReasonCode::BadUserNameOrPassword as u8);
    }
    assert_eq!(site.log_in(5, "anna", "first"), ReasonCode::Banned as u8);
    // 3.1.1 knows no ban: not authorized.
    assert_eq!(site.log_in(4, "anna", "first"), 5);
    assert_eq!(site.log_in(5, "berta", "second"), 0);
    assert_eq!(site.refused(Refusal::Banned), 2);
    site.operator().delete("/bans/user/anna").unwrap();
    assert_eq!(site.log_in(5, "anna", "first"), 0);
    site.stop();
}

#[test]
fn an_address_that_tries_many_users_is_closed_at_accept() {
    let site = Site::with_users(|config| {
        config.ban = BanConfig {
            failures_max: 0,
            address_failures_max: 5,
            ..BanConfig::default()
        };
    });
    for user in 0..5 {
        assert_ne!(site.log_in(5, &user.to_string(), "wrong"), 0);
    }
    assert!(site.is_refused());
    assert_eq!(site.refused(Refusal::Banned), 1);
    site.stop();
}

#[test]
fn an_operator_bans_who_is_connected_and_ends_it_again() {
    let site = Site::start(|_| ());
    let mut kept = site.connect("kept");
    let operator = site.operator();
    for (kind, value, path, is_closed_at_accept) in [
        (Kind::Client, "thief", "/bans/client/thief", false),
        (
            Kind::Address,
            "127.0.0.0/8",
            "/bans/address/127.0.0.0%2F8",
            true,
        ),
    ] {
        let mut thief = site.connect("thief");
        let ban = BanOrder {
            kind,
            value: value.to_owned(),
            for_s: Some(600),
            reason: "stolen".to_owned(),
        };
        operator.post::<()>("/bans", &ban).unwrap();
        // DISCONNECT has no code for a ban.
        let code = ReasonCode::AdministrativeAction;
        assert_eq!(thief.take(), Some(Got::Disconnect(code)));
        assert_eq!(thief.take(), None);
        let mut again = Client::open(site.port(), Hello::clean("thief").version);
        again.send_bytes(&Hello::clean("thief").bytes());
        let expected = match is_closed_at_accept {
            true => None,
            false => Some(Got::ConnAck(false, ReasonCode::Banned)),
        };
        assert_eq!(again.take(), expected);
        if !is_closed_at_accept {
            assert_eq!(kept.ping(), Some(Vec::new()));
        }
        let bans: Page<BanItem> = operator.get("/bans").unwrap();
        assert_eq!(bans.items.len(), 1);
        let ban = &bans.items[0];
        assert_eq!(
            (ban.kind, &*ban.value, &*ban.reason),
            (kind, value, "stolen")
        );
        let left_ms = ban.until_ms.unwrap() - motemq::clock::now().as_ms();
        assert!((500_000..=601_000).contains(&left_ms), "{left_ms}");
        operator.delete(path).unwrap();
        let absent = operator.delete(path).unwrap_err();
        assert_eq!(absent.code(), Some("not_found"));
    }
    let _back = site.connect("thief");
    site.stop();
}

#[test]
fn a_refused_connect_is_closed_at_once() {
    // tinyMQTT CVE-2025-56352 left it open.
    let site = Site::with_users(|_| ());
    let mut stream = site.tcp();
    stream.write_all(&hello(4, "anna", "wrong")).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    let watch = Stopwatch::start();
    // This end stays open.
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    assert!(watch.elapsed() < Duration::from_secs(2), "{watch:?}");
    site.until(|| site.0.running().server().unauthenticated() == 0);
    site.stop();
}

#[test]
fn e1_a_private_key_that_others_may_read_is_refused_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::open_or_create(&folder.path().join("pki"), "test").unwrap();
    let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("s.crt"), folder.path().join("s.key"));
    issued.write(&cert, &key).unwrap();
    let config = Config {
        listeners: vec![ListenerConfig {
            tls: Some(TlsConfig {
                cert,
                key: key.clone(),
                client_ca: None,
                crl: None,
                crl_overdue: CrlOverdue::Warn,
                allow_list: None,
                client_cert: ClientCert::None,
                identity: Identity::None,
                record_bytes_max: 16_384,
            }),
            ..ListenerConfig::default()
        }],
        ..Config::default()
    };
    for (mode, is_fine) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = check(&config);
        assert_eq!(checked.is_ok(), is_fine, "{mode:o}");
        if let Err(error) = checked {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn e1_what_the_broker_writes_is_for_its_owner_only() {
    let site = Site::start(|_| ());
    let ban = BanOrder {
        kind: Kind::Client,
        value: "c".to_owned(),
        for_s: None,
        reason: String::new(),
    };
    site.operator().post::<()>("/bans", &ban).unwrap();
    for file in std::fs::read_dir(site.data()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", file.path());
    }
    site.stop();
}

struct Site(InProcess, TempDir);

impl Site {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: Some(folder.path().join("data")),
            listeners: vec![ListenerConfig {
                bind: Bind::Ip((Ipv4Addr::LOCALHOST, 0).into()),
                anonymous: AnonymousAccess::Allowed,
                ..ListenerConfig::default()
            }],
            limits: LimitsConfig::default(),
            http: no_http(),
            ..Config::default()
        };
        change(&mut config);
        let users = folder.path().join("users");
        if config.auth.password_file.is_some() {
            set_user(&users, "anna", b"first").unwrap();
            set_user(&users, "berta", b"second").unwrap();
            config.auth.password_file = Some(users);
        }
        Self(InProcess::start(config), folder)
    }

    fn with_users(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(|config| {
            config.auth.password_file = Some("users".into());
            change(config);
        })
    }

    fn port(&self) -> u16 {
        self.0.running().addresses()[0].1.port()
    }

    fn data(&self) -> std::path::PathBuf {
        self.1.path().join("data")
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn connect(&self, id: &str) -> Client {
        Client::connect(self.port(), &Hello::clean(id))
    }

    /// Whether a client is hung up on in place of a CONNACK.
    fn is_refused(&self) -> bool {
        let mut stream = self.tcp();
        let _ = stream.write_all(&Hello::clean("late").bytes());
        stream.read(&mut [0; 2]).unwrap_or(0) == 0
    }

    /// The code of CONNACK.
    fn log_in(&self, version: u8, user: &str, password: &str) -> u8 {
        let mut stream = self.tcp();
        stream.write_all(&hello(version, user, password)).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        connack[3]
    }

    fn operator(&self) -> Operator {
        Operator::new(Door::Socket(self.data().join("admin.sock"))).unwrap()
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.0.running().server().listeners()[0].refused(refusal)
    }

    fn accepted(&self) -> u64 {
        self.0.running().server().listeners()[0].accepted()
    }

    fn until(&self, is_reached: impl Fn() -> bool) {
        let watch = Stopwatch::start();
        while !is_reached() {
            assert!(watch.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        self.0.stop();
    }
}

fn hello(version: u8, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend([version, 0xc2, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    for text in ["c", user, password] {
        body.extend([0, u8::try_from(text.len()).unwrap()]);
        body.extend(text.as_bytes());
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

const PATIENCE: Duration = motemq_tests::socket::PATIENCE;
