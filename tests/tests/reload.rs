//! What a running server takes over from files that have changed, and what it does with a mistake.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::config::{Sources, load_with_settings};
use motemq::password::set_user;
use motemq::reload::Reloader;
use motemq::server::Running;
use motemq_certs::Authority;
use motemq_tests::in_process::{InProcess, tls_over};
use rustls::ClientConnection;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn limits_and_passwords_change_without_a_restart() {
    let mut site = Site::start();
    assert_eq!(site.log_in("anna", "first"), 0);
    assert_ne!(site.log_in("berta", "second"), 0);
    set_user(&site.path("users"), "berta", b"second").unwrap();
    set_user(&site.path("users"), "anna", b"changed").unwrap();
    site.configure("receive_maximum = 7");
    assert!(site.reload());
    assert_eq!(site.log_in("berta", "second"), 0);
    assert_ne!(site.log_in("anna", "first"), 0);
    let limits = site.running().server().broker().limits();
    assert_eq!(limits.receive_maximum.get(), 7);
    site.stop();
}

#[test]
fn new_connections_get_the_new_certificate() {
    let mut site = Site::start();
    let before = site.served_certificate();
    let mut open = site.tls();
    site.issue_certificate();
    assert_eq!(site.served_certificate(), before);
    assert!(site.reload());
    assert_ne!(site.served_certificate(), before);
    // What is open stays open.
    open.write_all(&connect("anna", "first")).unwrap();
    let mut connack = [0; 4];
    open.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    site.stop();
}

#[test]
fn a_mistake_anywhere_changes_nothing() {
    let mut site = Site::start();
    let before = site.served_certificate();
    // All but one file would be fine.
    let mistakes: [(&str, &str); 3] = [
        ("users", "no colon here\n"),
        ("server.crt", "no certificate\n"),
        ("motemq.toml", "[limits]\nreceive_maximum = 0\n"),
    ];
    for (file, broken) in mistakes {
        let whole = std::fs::read(site.path(file)).unwrap();
        site.configure("receive_maximum = 7");
        std::fs::write(site.path(file), broken).unwrap();
        assert!(!site.reload(), "{file}");
        let server = site.running().server();
        assert!(!server.is_reloaded(), "{file}");
        assert_eq!(server.broker().limits().receive_maximum.get(), 100);
        assert_eq!(site.log_in("anna", "first"), 0, "{file}");
        assert_eq!(site.served_certificate(), before, "{file}");
        std::fs::write(site.path(file), whole).unwrap();
        site.configure("");
    }
    assert!(site.reload());
    assert!(site.running().server().is_reloaded());
    site.stop();
}

/// A server with a password file and a TLS listener, from files.
struct Site {
    folder: TempDir,
    broker: InProcess,
    reloader: Reloader,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("motemq.toml");
        std::fs::write(&file, configuration("")).unwrap();
        set_user(&folder.path().join("users"), "anna", b"first").unwrap();
        issue_certificate(&folder);
        let sources = Sources {
            file: Some(&file),
            ..Sources::default()
        };
        let (config, settings) = load_with_settings(&sources).unwrap();
        let reloader = Reloader::new(&sources, settings);
        Self {
            folder,
            broker: InProcess::start(config),
            reloader,
        }
    }

    fn configure(&self, limits: &str) {
        std::fs::write(self.path("motemq.toml"), configuration(limits)).unwrap();
    }

    fn reload(&mut self) -> bool {
        let server = self.running().server().clone();
        self.reloader.reload(&server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn running(&self) -> &Running {
        self.broker.running()
    }

    fn address(&self) -> SocketAddr {
        self.running().addresses()[0].1
    }

    fn issue_certificate(&self) {
        issue_certificate(&self.folder);
    }

    /// A TLS connection after its handshake.
    fn tls(&self) -> rustls::StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(self.address()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut stream = tls_over(socket, &self.path("pki/ca.crt"));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    fn served_certificate(&self) -> Vec<u8> {
        let stream = self.tls();
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// The return code of CONNACK.
    fn log_in(&self, user: &str, password: &str) -> u8 {
        let mut stream = self.tls();
        stream.write_all(&connect(user, password)).unwrap();
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).unwrap();
        connack[3]
    }

    fn stop(self) {
        self.broker.stop();
    }
}

fn configuration(limits: &str) -> String {
    format!(
        "data_dir = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\n\
         [auth]\npassword_file = \"users\"\n[http]\nbind = \"\"\n[limits]\n{limits}\n"
    )
}

fn issue_certificate(folder: &TempDir) {
    let path = folder.path();
    let (authority, _) = Authority::open_or_create(&path.join("pki"), "test").unwrap();
    let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
    for file in ["server.crt", "server.key"] {
        // The issuer does not overwrite.
        let _ = std::fs::remove_file(path.join(file));
    }
    issued
        .write(&path.join("server.crt"), &path.join("server.key"))
        .unwrap();
}

fn connect(user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x00".to_vec();
    for text in ["c", user, password] {
        body.extend([0, text.len() as u8]);
        body.extend(text.as_bytes());
    }
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}
