//! What a running server takes over from files that have changed, and what it does with a mistake.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::password::set_user;
use motemq::reload::Reloader;
use motemq::server::{Refusal, Running};
use motemq_certs::Authority;
use motemq_codec::{ProtocolVersion, ReasonCode};
use motemq_tests::in_process::{InProcess, expect, tls_config, tls_over};
use motemq_tests::peer::{Got, Hello};
use motemq_tests::revocation::write_list;
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use rustls::{ClientConfig, ClientConnection};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
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

#[test]
fn listeners_come_and_go_and_the_others_notice_nothing() {
    let mut site = Open::start(&[("stays", ""), ("goes", "")]);
    let mut stays = site.connect("stays");
    let mut goes = site.connect("goes");
    let port_of_goes = site.port("goes");
    site.configure(&[("stays", "max_connections = 5"), ("comes", "")]);
    assert!(site.reload());
    assert_eq!(
        goes.take(),
        Some(Got::Disconnect(ReasonCode::AdministrativeAction))
    );
    assert_eq!(goes.take(), None);
    assert_eq!(stays.ping(), Some(Vec::new()));
    let mut comes = site.connect("comes");
    assert_eq!(comes.ping(), Some(Vec::new()));
    let watch = Stopwatch::start();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port_of_goes)).is_ok() {
        assert!(watch.elapsed() < PATIENCE, "it still listens");
    }
    let listeners = site.running().server().listeners();
    let stays_now = &listeners[0];
    assert_eq!(stays_now.config().max_connections, 5);
    assert_eq!((stays_now.connected(), listeners.len()), (1, 2));
    drop((stays, comes));
    site.stop();
}

#[test]
fn who_is_not_admitted_any_more_has_to_go() {
    let mut site = Open::start(&[("mqtt", ""), ("other", "")]);
    let mut client = site.connect("mqtt");
    let mut other = site.connect("other");
    // Only half open, and gone as well.
    let mut silent = Client::open(site.port("mqtt"), ProtocolVersion::V5);
    silent.send_bytes(b"\x10");
    let server = site.running().server().clone();
    let watch = Stopwatch::start();
    while server.unauthenticated() == 0 {
        assert!(watch.elapsed() < PATIENCE);
    }
    site.configure(&[("mqtt", "deny_cidrs = [\"127.0.0.0/8\"]"), ("other", "")]);
    assert!(site.reload());
    assert_eq!(
        client.take(),
        Some(Got::Disconnect(ReasonCode::AdministrativeAction))
    );
    assert_eq!(silent.take(), None);
    assert_eq!(other.ping(), Some(Vec::new()));
    site.stop();
}

#[test]
fn an_address_that_cannot_be_used_refuses_all_of_it() {
    let mut site = Open::start(&[("mqtt", ""), ("other", "")]);
    let mut other = site.connect("other");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    site.write(&format!(
        "[[listeners]]\nname = \"mqtt\"\nbind = \"127.0.0.1:0\"\nmax_connections = 5\n\
         [[listeners]]\nname = \"new\"\nbind = \"127.0.0.1:{port}\"\n[limits]\nreceive_maximum = 7\n"
    ));
    let server = site.running().server().clone();
    let refused = site.reloader.reload_and_report(&server).unwrap_err();
    assert!(
        refused.0[0].contains("listener new cannot use"),
        "{refused:?}"
    );
    assert!(!server.is_reloaded());
    assert_eq!(server.broker().limits().receive_maximum.get(), 100);
    assert_eq!(server.listeners()[0].config().max_connections, 100_000);
    assert_eq!(other.ping(), Some(Vec::new()));
    // When it is free, it is taken.
    drop(taken);
    let done = site.reloader.reload_and_report(&server).unwrap();
    let text = done.changed.join("\n");
    assert!(text.contains("limits.receive_maximum: 100 -> 7"), "{text}");
    assert!(text.contains("listeners.new.bind: (absent) -> "), "{text}");
    assert_eq!(done.waiting, Vec::<String>::new());
    site.stop();
}

#[test]
fn a_revoked_certificate_ends_its_connection_and_does_not_come_back() {
    let mut site = Site::start_with("client_ca = \"pki/ca.crt\"\ncrl = \"crl.pem\"\n");
    let (authority, _) = Authority::open_or_create(&site.path("pki"), "test").unwrap();
    let [thief, honest] = ["thief", "honest"].map(|name| authority.issue_device(name).unwrap());
    let config = tls_config(&site.path("pki/ca.crt"), Some(&thief));
    let mut stolen = site.tls_as(&config);
    stolen.write_all(&connect("anna", "first")).unwrap();
    expect(&mut stolen, &[0x20, 2, 0, 0]);
    let mut kept = site.tls_as(&tls_config(&site.path("pki/ca.crt"), Some(&honest)));
    kept.write_all(&connect_as("honest", "anna", "first"))
        .unwrap();
    expect(&mut kept, &[0x20, 2, 0, 0]);
    write_list(
        &site.path("pki"),
        &site.path("crl.pem"),
        &[&thief],
        2020 + 20,
    );
    assert!(site.reload());
    assert_eq!(
        stolen.read(&mut [0]).unwrap_or(0),
        0,
        "3.1.1 has no DISCONNECT"
    );
    kept.write_all(&[0xc0, 0]).unwrap();
    expect(&mut kept, &[0xd0, 0]);
    // It offers its session first, and a full handshake afterwards.
    let refused = |reason| site.running().server().listeners()[0].refused(reason);
    for round in 1..=3 {
        let mut again = site.tls_as(&config);
        let _ = again.write_all(&connect("anna", "first"));
        assert_eq!(again.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(refused(Refusal::Tls), round);
    }
    // A list that nobody renewed still holds.
    write_list(&site.path("pki"), &site.path("crl.pem"), &[&thief], 2025);
    assert!(site.reload());
    let metrics = motemq::metrics::render(site.running().server());
    assert!(metrics.contains("mqtt_broker_tls_crl_overdue{listener=\"mqtts\"} 1"));
    let mut again = site.tls_as(&config);
    let _ = again.write_all(&connect("anna", "first"));
    assert_eq!(again.read(&mut [0]).unwrap_or(0), 0);
    // What is no list changes nothing.
    std::fs::write(site.path("crl.pem"), "nonsense").unwrap();
    assert!(!site.reload());
    kept.write_all(&[0xc0, 0]).unwrap();
    expect(&mut kept, &[0xd0, 0]);
    site.stop();
}

#[test]
fn changed_files_are_read_when_they_have_come_to_rest() {
    let mut site = Site::start();
    let server = site.running().server().clone();
    set_user(&site.path("users"), "berta", b"second").unwrap();
    // Somebody is at work on this one.
    site.configure("receive_maximum = 7");
    site.reloader.look(&server);
    assert_ne!(site.log_in("berta", "second"), 0);
    site.reloader.look(&server);
    assert_eq!(site.log_in("berta", "second"), 0);
    assert_eq!(server.broker().limits().receive_maximum.get(), 100);
    // A broken file is refused, once; what was stays.
    std::fs::write(site.path("server.crt"), "nonsense").unwrap();
    (0..4).for_each(|_| site.reloader.look(&server));
    assert!(!server.is_reloaded());
    assert_eq!(site.log_in("berta", "second"), 0);
    site.issue_certificate();
    (0..2).for_each(|_| site.reloader.look(&server));
    assert!(server.is_reloaded());
    assert!(site.reload());
    assert_eq!(server.broker().limits().receive_maximum.get(), 7);
    site.stop();
}

#[test]
fn under_load_nothing_is_lost_and_nobody_goes_who_may_stay() {
    // `reload-load` does the same with a thousand.
    let report = motemq_tests::reload_load::run(100, 10);
    assert!(report.messages >= 1000, "{report:?}");
}

/// A server with plain listeners for anybody.
struct Open {
    folder: TempDir,
    broker: InProcess,
    reloader: Reloader,
}

impl Open {
    fn start(listeners: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("motemq.toml");
        std::fs::write(&file, plain(&tables(listeners))).unwrap();
        let (broker, reloader) = InProcess::from_file(&file);
        Self {
            folder,
            broker,
            reloader,
        }
    }

    fn configure(&self, listeners: &[(&str, &str)]) {
        self.write(&tables(listeners));
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("motemq.toml"), plain(text)).unwrap();
    }

    fn reload(&mut self) -> bool {
        let server = self.running().server().clone();
        self.reloader.reload(&server)
    }

    fn running(&self) -> &Running {
        self.broker.running()
    }

    fn port(&self, listener: &str) -> u16 {
        self.broker.address(listener).port()
    }

    fn connect(&self, listener: &str) -> Client {
        Client::connect(self.port(listener), &Hello::clean(listener))
    }

    fn stop(self) {
        self.broker.stop();
    }
}

fn plain(listeners: &str) -> String {
    format!("data_dir = \"\"\n{listeners}\n[http]\nbind = \"\"\n")
}

fn tables(listeners: &[(&str, &str)]) -> String {
    let table = |(name, more): &(&str, &str)| {
        format!(
            "[[listeners]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\nanonymous = true\n{more}\n"
        )
    };
    listeners.iter().map(table).collect()
}

/// A server with a password file and a TLS listener, from files.
struct Site {
    folder: TempDir,
    broker: InProcess,
    reloader: Reloader,
}

impl Site {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With these lines in the section of TLS.
    fn start_with(tls: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("motemq.toml");
        std::fs::write(&file, configuration(tls, "")).unwrap();
        set_user(&folder.path().join("users"), "anna", b"first").unwrap();
        issue_certificate(&folder);
        write_list(
            &folder.path().join("pki"),
            &folder.path().join("crl.pem"),
            &[],
            2040,
        );
        let (broker, reloader) = InProcess::from_file(&file);
        Self {
            folder,
            broker,
            reloader,
        }
    }

    fn configure(&self, limits: &str) {
        std::fs::write(self.path("motemq.toml"), configuration("", limits)).unwrap();
    }

    /// A TLS connection, with a client certificate, before its handshake.
    fn tls_as(
        &self,
        config: &Arc<ClientConfig>,
    ) -> rustls::StreamOwned<ClientConnection, TcpStream> {
        let socket = TcpStream::connect(self.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        rustls::StreamOwned::new(connection, socket)
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

fn configuration(tls: &str, limits: &str) -> String {
    format!(
        "data_dir = \"\"\n[[listeners]]\nname = \"mqtts\"\nbind = \"127.0.0.1:0\"\n\
         [listeners.tls]\ncert = \"server.crt\"\nkey = \"server.key\"\n{tls}\
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
    connect_as("c", user, password)
}

fn connect_as(client: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\xc2\x00\x00".to_vec();
    for text in [client, user, password] {
        body.extend([0, text.len() as u8]);
        body.extend(text.as_bytes());
    }
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}
