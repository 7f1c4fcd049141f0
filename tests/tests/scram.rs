//! SCRAM-SHA-256 against the whole server over sockets, with a client of its own.
//!
//! The client computes what RFC 5802 section 3 says without the server's code. The rules of the exchange itself are in
//! `authentication.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must stop at once"
)]

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use motemq::config::{AuthConfig, Config, LimitsConfig, ListenerConfig};
use motemq::{password, scram_file};
use motemq_codec::{
    Auth, Connect, ConnectProperties, Decoded, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, UserProperties, decode,
};
use motemq_tests::in_process::{InProcess, no_http};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

const METHOD: &str = "SCRAM-SHA-256";
const V5: ProtocolVersion = ProtocolVersion::V5;
const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
const AGAIN: ReasonCode = ReasonCode::ReAuthenticate;

#[test]
fn a_user_logs_in_and_again_while_it_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.open();
    let login = Login::new("sensor", "secret");
    assert_eq!(client.connect(&login, None), Ok(false));
    for id in 1..=2 {
        let (again, message) = client.challenge(AGAIN, &login);
        client.publish(id);
        assert_eq!(client.read(), Got::PubAck(id));
        client.auth(CONTINUE, &again.last(&message));
        let Got::Auth(ReasonCode::Success, data) = client.read() else {
            panic!("AUTH 0x00 expected");
        };
        assert_eq!(data, again.server_signature(&message));
    }
    server.stop();
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let refusals = ["sensor", "nobody"].map(|user| {
        let mut client = server.open();
        let refused = client.connect(&Login::new(user, "wrong"), None);
        assert_eq!(client.read(), Got::End);
        refused.unwrap_err()
    });
    assert_eq!(refusals[0], refusals[1]);
    assert_eq!(refusals[0].0, ReasonCode::NotAuthorized);
    // Counted as a wrong password is.
    assert_eq!(server.stop(), 2);
}

#[test]
fn a_replayed_login_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let login = Login::new("sensor", "secret");
    let mut client = server.open();
    client.send_connect(METHOD, login.first().as_bytes(), None);
    let Got::Auth(CONTINUE, message) = client.read() else {
        panic!("AUTH 0x18 expected");
    };
    let last = login.last(&message);
    let mut thief = server.open();
    thief.send_connect(METHOD, login.first().as_bytes(), None);
    let Got::Auth(CONTINUE, other) = thief.read() else {
        panic!("AUTH 0x18 expected");
    };
    assert_ne!(message, other, "the nonce must be fresh");
    thief.auth(CONTINUE, &last);
    assert_eq!(thief.refusal().0, ReasonCode::NotAuthorized);
    // The owner is not disturbed.
    client.auth(CONTINUE, &last);
    assert!(matches!(
        client.read(),
        Got::ConnAck(ReasonCode::Success, ..)
    ));
    server.stop();
}

/// A session of the user is taken up whichever way it logs in.
#[test]
fn the_user_is_the_same_as_by_password() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.open();
    client.send_plain("sensor", "plain");
    assert!(matches!(
        client.read(),
        Got::ConnAck(ReasonCode::Success, false, _, _)
    ));
    let mut client = server.open();
    let login = Login::new("sensor", "secret");
    assert_eq!(client.connect(&login, Some("sensor")), Ok(true));
    // But another user's session is not.
    let mut other = server.open();
    let refused = other.connect(&Login::new("other", "secret"), None);
    assert_eq!(refused.unwrap_err().0, ReasonCode::NotAuthorized);
    // The password of one way is not that of the other.
    let mut client = server.open();
    client.send_plain("sensor", "secret");
    assert_eq!(client.refusal().0, ReasonCode::BadUserNameOrPassword);
    server.stop();
}

#[test]
fn a_user_name_in_connect_must_be_the_one_of_the_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = server.open();
    let login = Login::new("sensor", "secret");
    client.send_connect(METHOD, login.first().as_bytes(), Some("other"));
    let (code, reason) = client.refusal();
    assert_eq!(code, ReasonCode::NotAuthorized);
    assert!(reason.contains("user name"), "{reason}");
    server.stop();
}

#[test]
fn re_authentication_that_fails_or_is_another_users_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for again in [Login::new("sensor", "wrong"), Login::new("other", "secret")] {
        let mut client = server.open();
        client
            .connect(&Login::new("sensor", "secret"), None)
            .unwrap();
        let (again, message) = client.challenge(AGAIN, &again);
        client.auth(CONTINUE, &again.last(&message));
        assert_eq!(client.read(), Got::Disconnect(ReasonCode::NotAuthorized));
        assert_eq!(client.read(), Got::End);
    }
    assert_eq!(server.stop(), 2);
}

/// [MQTT5-4.12.0-1]
#[test]
fn other_methods_and_other_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let bare = "n=sensor,r=abc";
    for (method, data, code) in [
        (
            "SCRAM-SHA-256-PLUS",
            format!("p=tls-exporter,,{bare}"),
            0x8c,
        ),
        ("scram-sha-256", format!("n,,{bare}"), 0x8c),
        ("", format!("n,,{bare}"), 0x8c),
        (METHOD, format!("p=tls-exporter,,{bare}"), 0x87),
        (METHOD, String::new(), 0x87),
        (METHOD, "sensor:secret".to_owned(), 0x87),
    ] {
        let mut client = server.open();
        client.send_connect(method, data.as_bytes(), None);
        assert_eq!(client.refusal().0 as u8, code, "{method} {data}");
        assert_eq!(client.read(), Got::End);
    }
    server.stop();
}

#[test]
fn without_a_scram_file_there_is_no_method() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| config.auth.scram_file = None);
    let mut client = server.open();
    let login = Login::new("sensor", "secret");
    client.send_connect(METHOD, login.first().as_bytes(), None);
    assert_eq!(client.refusal().0, ReasonCode::BadAuthenticationMethod);
    server.stop();
}

/// `limits.connect_timeout_s` counts until CONNACK, whatever the client says in between.
#[test]
fn an_exchange_that_does_not_end_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), |config| {
        config.limits = LimitsConfig {
            connect_timeout_s: 1,
            ..config.limits.clone()
        };
    });
    let mut client = server.open();
    let login = Login::new("sensor", "secret");
    client.send_connect(METHOD, login.first().as_bytes(), None);
    assert!(matches!(client.read(), Got::Auth(CONTINUE, _)));
    assert_eq!(client.read(), Got::End);
    server.stop();
}

#[test]
fn a_broken_scram_file_keeps_the_broker_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scram-users");
    let config = || Config {
        data_dir: None,
        auth: AuthConfig {
            password_file: None,
            scram_file: Some(path.clone()),
            ..AuthConfig::default()
        },
        ..Config::default()
    };
    assert!(motemq::server::check(&config()).is_err(), "absent");
    add(&path, "sensor", "secret");
    assert!(motemq::server::check(&config()).is_ok());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "other:secret\n").unwrap();
    let error = motemq::server::check(&config()).unwrap_err().to_string();
    assert!(error.contains("scram-users:3:"), "{error}");
}

/// What a client knows.
struct Login {
    user: &'static str,
    password: &'static str,
}

impl Login {
    fn new(user: &'static str, password: &'static str) -> Self {
        Self { user, password }
    }

    fn bare(&self) -> String {
        format!("n={},r=fyko+d2lbbFgONRv9qkxdawL", self.user)
    }

    fn first(&self) -> String {
        format!("n,,{}", self.bare())
    }

    fn salted(&self, message: &str) -> hmac::Key {
        let fields: Vec<&str> = message.split(',').map(|field| &field[2..]).collect();
        let salt = BASE64.decode(fields[1]).unwrap();
        let iterations: NonZeroU32 = fields[2].parse().unwrap();
        let mut salted = [0; 32];
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        let password = self.password.as_bytes();
        pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        hmac::Key::new(hmac::HMAC_SHA256, &salted)
    }

    fn signed(&self, message: &str) -> String {
        let nonce = message.split(',').next().unwrap();
        format!("{},{message},c=biws,{nonce}", self.bare())
    }

    fn last(&self, message: &str) -> String {
        let client_key = hmac::sign(&self.salted(message), b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let stored_key = hmac::Key::new(hmac::HMAC_SHA256, stored_key.as_ref());
        let signature = hmac::sign(&stored_key, self.signed(message).as_bytes());
        let pairs = client_key.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = pairs.map(|(key, sign)| key ^ sign).collect();
        let nonce = message.split(',').next().unwrap();
        format!("c=biws,{nonce},p={}", BASE64.encode(proof))
    }

    fn server_signature(&self, message: &str) -> String {
        let server_key = hmac::sign(&self.salted(message), b"Server Key");
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref());
        let signature = hmac::sign(&server_key, self.signed(message).as_bytes());
        format!("v={}", BASE64.encode(signature))
    }
}

/// What a client reads.
#[derive(PartialEq, Debug)]
enum Got {
    /// Code, session present, Authentication Data, reason string.
    ConnAck(ReasonCode, bool, String, String),
    Auth(ReasonCode, String),
    PubAck(u16),
    Disconnect(ReasonCode),
    End,
}

struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Logs in; says whether a session was there, or code and reason of the refusal.
    fn connect(
        &mut self,
        login: &Login,
        username: Option<&str>,
    ) -> Result<bool, (ReasonCode, String)> {
        self.send_connect(METHOD, login.first().as_bytes(), username);
        let Got::Auth(CONTINUE, message) = self.read() else {
            panic!("AUTH 0x18 expected");
        };
        self.auth(CONTINUE, &login.last(&message));
        match self.read() {
            Got::ConnAck(ReasonCode::Success, present, data, _) => {
                assert_eq!(data, login.server_signature(&message));
                Ok(present)
            }
            Got::ConnAck(code, _, _, reason) => Err((code, reason)),
            other => panic!("CONNACK expected, got {other:?}"),
        }
    }

    fn challenge<'a>(&mut self, code: ReasonCode, login: &'a Login) -> (&'a Login, String) {
        self.auth(code, &login.first());
        match self.read() {
            Got::Auth(CONTINUE, message) => (login, message),
            other => panic!("AUTH 0x18 expected, got {other:?}"),
        }
    }

    fn refusal(&mut self) -> (ReasonCode, String) {
        match self.read() {
            Got::ConnAck(code, _, _, reason) if code.is_error() => (code, reason),
            other => panic!("a refusal expected, got {other:?}"),
        }
    }

    fn send_connect(&mut self, method: &str, data: &[u8], username: Option<&str>) {
        let properties = ConnectProperties {
            session_expiry_s: Some(60),
            authentication_method: Some(method),
            authentication_data: Some(data),
            ..ConnectProperties::default()
        };
        self.send_hello(properties, username, None);
    }

    fn send_plain(&mut self, username: &str, password: &str) {
        let properties = ConnectProperties {
            session_expiry_s: Some(60),
            ..ConnectProperties::default()
        };
        self.send_hello(properties, Some(username), Some(password.as_bytes()));
    }

    fn send_hello(
        &mut self,
        properties: ConnectProperties<'_>,
        username: Option<&str>,
        password: Option<&[u8]>,
    ) {
        self.send(&Packet::Connect(Box::new(Connect {
            version: V5,
            client_id: "client",
            clean_start: false,
            keep_alive_s: 0,
            username,
            password,
            will: None,
            properties,
        })));
    }

    fn auth(&mut self, code: ReasonCode, data: &str) {
        self.send(&Packet::Auth(Auth {
            code,
            authentication_method: Some(METHOD),
            authentication_data: Some(data.as_bytes()),
            reason_string: None,
            user_properties: UserProperties::default(),
        }));
    }

    fn publish(&mut self, id: u16) {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: PacketId::new(id),
            properties: PublishProperties::default(),
            payload: b"x",
        }));
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    fn read(&mut self) -> Got {
        loop {
            let decoded = decode(&self.received, V5, usize::MAX).unwrap();
            if let Decoded::Packet { packet, length } = decoded {
                let got = got(&packet);
                self.received.drain(..length);
                return got;
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes).unwrap() {
                0 => return Got::End,
                count => self.received.extend_from_slice(&bytes[..count]),
            }
        }
    }
}

fn got(packet: &Packet<'_>) -> Got {
    let text = |data: Option<&[u8]>| String::from_utf8(data.unwrap_or_default().to_vec()).unwrap();
    match packet {
        Packet::ConnAck(connack) => {
            let properties = &connack.properties;
            let data = properties.authentication_data;
            assert_eq!(properties.authentication_method, data.map(|_| METHOD));
            let reason = properties.reason_string.unwrap_or_default().to_owned();
            Got::ConnAck(connack.code, connack.session_present, text(data), reason)
        }
        Packet::Auth(auth) => {
            assert_eq!(auth.authentication_method, Some(METHOD));
            Got::Auth(auth.code, text(auth.authentication_data))
        }
        Packet::PubAck(ack) => Got::PubAck(ack.packet_id.get()),
        Packet::Disconnect(disconnect) => Got::Disconnect(disconnect.code),
        other => panic!("unexpected {other:?}"),
    }
}

struct Server(InProcess);

impl Server {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {})
    }

    /// With the SCRAM users `sensor` and `other`, both `secret`, and the user `sensor` with the password `plain`.
    fn start_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let (users, scram_users) = (dir.join("users"), dir.join("scram-users"));
        add(&scram_users, "sensor", "secret");
        add(&scram_users, "other", "secret");
        password::set_user(&users, "sensor", b"plain").unwrap();
        let mut config = Config {
            data_dir: None,
            listeners: vec![ListenerConfig {
                name: "mqtt".to_owned(),
                bind: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
                ..ListenerConfig::default()
            }],
            auth: AuthConfig {
                password_file: Some(users),
                scram_file: Some(scram_users),
                ..AuthConfig::default()
            },
            http: no_http(),
            ..Config::default()
        };
        change(&mut config);
        Self(InProcess::start(config))
    }

    fn open(&self) -> Client {
        let (_, address) = self.0.running().addresses()[0];
        let socket = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).unwrap();
        Client {
            socket,
            received: Vec::new(),
        }
    }

    /// Stops; says how many clients were refused.
    fn stop(self) -> u64 {
        let server = self.0.running().server().clone();
        self.0.stop();
        server.listeners()[0].refused(motemq::server::Refusal::Connect)
    }
}

fn add(path: &Path, user: &str, password: &str) {
    let iterations = NonZeroU32::new(4096).unwrap();
    scram_file::set_user(path, user, password, iterations).unwrap();
}
