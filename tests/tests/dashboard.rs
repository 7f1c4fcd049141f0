//! The dashboard over real sockets: the page's headers, and its door to MQTT. (What it looks like is judged in a browser:
//! `external/dashboard.rs`.)
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::Config;
use motemq_tests::in_process::InProcess;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn the_page_may_run_its_own_scripts_only_and_needs_no_token() {
    let site = Site::start();
    for path in ["/", "/dashboard/app.js", "/dashboard/style.css"] {
        let head = site.get(path).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{path}: {head}");
        for expected in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(expected), "{path}: {expected} in {head}");
        }
    }
    let outside = site.get("/dashboard/..%2fapi.token");
    assert!(outside.starts_with("HTTP/1.1 40"), "{outside}");
    site.stop();
}

#[test]
fn whoever_shows_the_token_is_an_operator_whom_no_rule_binds() {
    let site = Site::start();
    let mut socket = site.upgrade(None).unwrap();
    socket.write_all(&connect(&site.token())).unwrap();
    let connack = frame(&mut socket);
    assert_eq!(connack.get(..1), Some(&[0x20][..]));
    assert_eq!(connack.get(3), Some(&0), "{connack:?}");
    // SUBSCRIBE to a/b, which the ACL gives to nobody.
    let subscribe = [0x82, 9, 0, 1, 0, 0, 3, b'a', b'/', b'b', 1];
    socket.write_all(&masked(&subscribe)).unwrap();
    assert_eq!(frame(&mut socket), [0x90, 4, 0, 1, 0, 1]);
    let listeners = site.broker.running().server().listeners();
    let http = listeners.last().unwrap();
    assert_eq!((http.config().name.as_str(), http.connected()), ("http", 1));
    site.stop();
}

#[test]
fn another_password_is_refused() {
    let site = Site::start();
    let mut socket = site.upgrade(None).unwrap();
    let token = site.token();
    socket.write_all(&connect(&token[1..])).unwrap();
    assert_eq!(frame(&mut socket).get(3), Some(&0x86));
    site.stop();
}

#[test]
fn a_page_of_another_host_gets_no_websocket() {
    let site = Site::start();
    let refused = site.upgrade(Some("http://evil.example")).unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let own = format!("http://{}", site.address());
    assert!(site.upgrade(Some(&own)).is_ok());
    site.stop();
}

#[test]
fn a_reload_leaves_operators_connected() {
    let site = Site::start();
    let mut socket = site.upgrade(None).unwrap();
    socket.write_all(&connect(&site.token())).unwrap();
    assert_eq!(frame(&mut socket).get(3), Some(&0));
    // Any ban has every connection look whether it may stay.
    let door = motemq::api::Door::Socket(site.dir.path().join("admin.sock"));
    let order = motemq::api::BanOrder {
        kind: motemq::api::Kind::User,
        value: "somebody".to_owned(),
        for_s: None,
        reason: String::new(),
    };
    let client = motemq::api::Client::new(door).unwrap();
    client.post::<()>("/bans", &order).unwrap();
    socket.write_all(&masked(&[0xc0, 0])).unwrap();
    assert_eq!(frame(&mut socket), [0xd0, 0]);
    site.stop();
}

struct Site {
    dir: TempDir,
    broker: InProcess,
}

impl Site {
    /// With an ACL that allows next to nothing.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let acl = dir.path().join("acl");
        std::fs::write(&acl, "[user nobody]\nallow all nothing\n").unwrap();
        let mut config = Config {
            data_dir: Some(dir.path().to_owned()),
            listeners: Vec::new(),
            ..Config::default()
        };
        config.auth.acl_file = Some(acl);
        config.http.bind = Some("127.0.0.1:0".parse().unwrap());
        let broker = InProcess::start(config);
        Self { dir, broker }
    }

    fn address(&self) -> SocketAddr {
        self.broker.running().http().unwrap()
    }

    fn token(&self) -> String {
        let token = std::fs::read_to_string(self.dir.path().join("api.token"));
        token.unwrap().trim().to_owned()
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).unwrap();
        let timeout = Some(Duration::from_secs(10));
        socket.set_read_timeout(timeout).unwrap();
        socket
    }

    /// The whole answer.
    fn get(&self, path: &str) -> String {
        let mut socket = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A socket that speaks WebSocket, or the head of another answer.
    fn upgrade(&self, origin: Option<&str>) -> Result<TcpStream, String> {
        let mut socket = self.connect();
        let origin = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {}\r\n{origin}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            self.address()
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        match head.starts_with("HTTP/1.1 101 ") {
            true => Ok(socket),
            false => Err(head),
        }
    }

    fn stop(self) {
        self.broker.stop();
    }
}

/// CONNECT of MQTT 5 in a frame.
fn connect(password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x05\xc2\0\x3c\0\0\0\0\x09dashboard\0".to_vec();
    body.push(u8::try_from(password.len()).unwrap());
    body.extend(password.as_bytes());
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    masked(&packet)
}

/// A binary frame of a client, masked with zeros.
fn masked(packet: &[u8]) -> Vec<u8> {
    let length = u8::try_from(packet.len()).unwrap();
    [&[0x82, 0x80 | length, 0, 0, 0, 0], packet].concat()
}

/// The payload of the next frame.
fn frame(socket: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x82);
    let mut payload = vec![0; head[1].into()];
    socket.read_exact(&mut payload).unwrap();
    payload
}
