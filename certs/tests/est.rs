//! `motemq-certs serve --est` over real sockets, with rustls as the client.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{
    Authority, Entry, Inventory, Issued, KeyType, Order, Status, Tokens, fingerprint_sha256,
    now_unix_s,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn a_device_enrols_with_a_claim_and_renews_with_what_it_got() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let site = Site::start(&["--allow-any", "--per-id-interval", "0"]);
        let claim = site.certificate(&Order::claim("line-4").unwrap());
        let key = KeyPair::generate().unwrap();
        let (status, body) = site.enrol(Some((&claim, version)), "simpleenroll", &csr(&key));
        assert_eq!(status, 200, "{body}");
        let first = Held {
            certificate: site.newest("meter-1"),
            key: key.serialize_der(),
        };
        let next = KeyPair::generate().unwrap();
        let (status, body) = site.enrol(Some((&first, version)), "simplereenroll", &csr(&next));
        assert_eq!(status, 200, "{body}");
        assert_ne!(site.newest("meter-1"), first.certificate);
        let over: Vec<String> = site
            .audit()
            .iter()
            .map(|line| line["over"].to_string())
            .collect();
        assert_eq!(over, ["\"est\"", "\"est\""]);
    }
}

#[test]
fn a_token_is_the_password_of_its_id_once() {
    let site = Site::start(&["--per-id-interval", "0"]);
    let mut tokens = Tokens::open(&site.pki()).unwrap();
    let now_s = now_unix_s();
    let new = tokens
        .issue(&["meter-1".to_owned()], now_s + 100, now_s)
        .unwrap();
    let ask = |user: &str, password: &str| {
        let basic = base64(format!("{user}:{password}").as_bytes());
        let request = csr(&KeyPair::generate().unwrap());
        let head =
            format!("POST /.well-known/est/simpleenroll HTTP/1.1\r\nAuthorization: Basic {basic}");
        site.ask(None, &head, &request).0
    };
    assert_eq!(ask("meter-1", "wrong"), 403);
    assert_eq!(ask("meter-2", &new[0].text), 403);
    assert_eq!(ask("meter-1", &new[0].text), 200);
    assert_eq!(ask("meter-1", &new[0].text), 403);
    let reasons: Vec<Value> = site
        .audit()
        .iter()
        .map(|line| line["reason"].clone())
        .collect();
    let expected = ["token-unknown", "name-mismatch", "", "token-used"];
    let expected = expected.map(|word| match word {
        "" => Value::Null,
        word => word.into(),
    });
    assert_eq!(reasons, expected);
    // Shown nothing: told what to show.
    let (status, body) = site.enrol(None, "simpleenroll", &csr(&KeyPair::generate().unwrap()));
    assert_eq!(status, 401, "{body}");
}

#[test]
fn a_revoked_certificate_is_refused_with_a_reason_and_a_strange_one_at_the_handshake() {
    let site = Site::start(&["--per-id-interval", "0"]);
    let device = site.certificate(&Order::device("meter-1").unwrap());
    let request = csr(&KeyPair::generate().unwrap());
    let tls = &rustls::version::TLS13;
    let mut inventory = Inventory::open(&site.pki()).unwrap();
    let mut entry = inventory.of_id("meter-1").next().unwrap().clone();
    entry.status = Status::Revoked;
    inventory.append(&[entry]).unwrap();
    let (status, body) = site.enrol(Some((&device, tls)), "simplereenroll", &request);
    assert_eq!(status, 403, "{body}");
    assert!(body.starts_with("certificate-invalid: "), "{body}");

    let strange = tempfile::tempdir().unwrap();
    let strange = Authority::create(strange.path(), "other").unwrap();
    let issued = strange.issue_device("meter-1").unwrap();
    let strange = Held::of(&issued);
    let mut stream = site.connect(Some((&strange, tls)));
    let _ = stream.write_all(b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).is_err());
    assert!(answer.is_empty());
    assert_eq!(site.audit().len(), 1);
}

/// A certificate that the service's own authority issued for something else.
#[test]
fn the_certificate_of_a_server_or_of_the_service_enrols_nobody() {
    let site = Site::start(&["--per-id-interval", "0"]);
    let service = site.certificate(&Order::service("enrolment").unwrap());
    let request = csr(&KeyPair::generate().unwrap());
    let tls = &rustls::version::TLS12;
    let (status, body) = site.enrol(Some((&service, tls)), "simpleenroll", &request);
    assert_eq!(status, 403, "{body}");
}

#[test]
fn who_says_nothing_is_cut_and_gives_its_place_to_the_next() {
    let site = Site::start(&["--est-connections", "1", "--est-timeout", "1"]);
    let mut silent = TcpStream::connect(site.address).unwrap();
    let mut slow = site.connect(None);
    let (status, _) = site.get("cacerts");
    assert_eq!(status, 200);
    silent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    // And who begins to say something, too.
    let _ = slow.write_all(b"GET /.well-known/est/cacerts HTTP/1.1\r\n");
    let mut answer = Vec::new();
    let ended = slow.read_to_end(&mut answer);
    assert!(!matches!(ended, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
    assert!(answer.is_empty());
}

/// A session that is resumed would skip the verification of the client's certificate.
#[test]
fn each_handshake_is_a_full_one() {
    let site = Site::start(&[]);
    let claim = site.certificate(&Order::claim("line-4").unwrap());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = site.config(Some((&claim, version)));
        for _ in 0..2 {
            let mut stream = site.connect_with(&config);
            let request =
                b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            let kind = stream.conn.handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        }
    }
}

#[test]
fn several_requests_may_come_over_one_connection() {
    let site = Site::start(&[]);
    let mut stream = site.connect(None);
    for connection in ["keep-alive", "close"] {
        let request = format!(
            "GET /.well-known/est/csrattrs HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 204").count(), 2, "{answers}");
}

#[test]
fn it_answers_while_the_broker_is_away_and_ends_when_told_to() {
    // Port 1 is nobody's.
    for more in [&["--broker", "mqtt://127.0.0.1:1"][..], &[]] {
        let mut site = Site::start(more);
        assert_eq!(site.get("cacerts").0, 200);
        let process = rustix::process::Pid::from_child(&site.service);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        assert_eq!(site.service.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_new_server_certificate_is_shown_without_a_restart() {
    let site = Site::start(&[]);
    let shown = || {
        let mut stream = site.connect(None);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let certificates = stream.conn.peer_certificates().unwrap();
        fingerprint_sha256(&certificates[0])
    };
    let before = shown();
    let authority = Authority::open(&site.pki()).unwrap();
    let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
    fs::write(site.pki().join("server.crt"), &issued.chain_pem).unwrap();
    fs::write(
        site.pki().join("server.key"),
        issued.private_key_pem.as_bytes(),
    )
    .unwrap();
    let until_s = now_unix_s() + 30;
    let tries = std::iter::repeat_with(shown).take_while(|_| now_unix_s() < until_s);
    let after = { tries }.find(|now| *now != before);
    assert_eq!(after, Some(issued.fingerprint_sha256.clone()));
}

#[test]
fn what_keeps_it_from_starting_says_what_to_do() {
    let site = Site::start(&[]);
    let port = site.address.to_string();
    let folder = site.directory.path();
    let refused = |line: &[&str]| {
        let output = tool().args(line).current_dir(folder).output().unwrap();
        assert!(!output.status.success(), "{line:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let taken = refused(&["serve", "--est", &port]);
    assert!(taken.contains(&port) && taken.contains("--est"), "{taken}");
    let missing = refused(&["serve", "--est", "127.0.0.1:0", "--est-cert", "x.crt"]);
    assert!(missing.contains("x.crt is missing"), "{missing}");
    assert!(
        missing.contains("motemq-certs --out pki server"),
        "{missing}"
    );
    let other = ["serve", "--est", "127.0.0.1:0", "--est-key", "pki/ca.key"];
    let other = refused(&other);
    assert!(other.contains("is not the key of"), "{other}");
    let neither = refused(&["serve"]);
    assert!(
        neither.contains("--broker") && neither.contains("--est"),
        "{neither}"
    );
}

/// A client's certificate and its key, DER.
struct Held {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Held {
    fn of(issued: &Issued) -> Self {
        Self {
            certificate: issued.certificate_der.clone(),
            key: issued.private_key_der.clone(),
        }
    }
}

/// A running service.
struct Site {
    directory: TempDir,
    service: Child,
    address: SocketAddr,
    /// Kept open: the service writes on.
    _log: thread::JoinHandle<()>,
}

type Shows<'a> = Option<(&'a Held, &'static rustls::SupportedProtocolVersion)>;

impl Site {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for line in [&["init"][..], &["server", "localhost"]] {
            let output = tool().args(line).current_dir(&directory).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        let mut service = tool()
            .args(["serve", "--est", "127.0.0.1:0"])
            .args(more)
            .current_dir(&directory)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(service.stderr.take().unwrap());
        let address = listening(&mut log);
        let log = thread::spawn(move || {
            let _ = io::copy(&mut log, &mut io::sink());
        });
        Self {
            directory,
            service,
            address,
            _log: log,
        }
    }

    fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    fn certificate(&self, order: &Order) -> Held {
        let authority = Authority::open(&self.pki()).unwrap();
        let issued = authority.issue(order, KeyType::P256).unwrap();
        let mut inventory = Inventory::open(&self.pki()).unwrap();
        inventory.append(&[Entry::issued(order, &issued)]).unwrap();
        Held::of(&issued)
    }

    /// The last certificate that was enrolled to `id`, DER.
    fn newest(&self, id: &str) -> Vec<u8> {
        let inventory = Inventory::open(&self.pki()).unwrap();
        let serial = &inventory.of_id(id).next_back().unwrap().serial;
        let path = self.pki().join(format!("enrolled/{serial}.crt"));
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.pki().join("enrolment.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn connect(&self, shows: Shows<'_>) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_with(&self.config(shows))
    }

    fn config(&self, shows: Shows<'_>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.pki().join("ca.crt")).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = shows.map_or_else(
            || rustls::ALL_VERSIONS.to_vec(),
            |(_, version)| vec![version],
        );
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shows {
            Some((held, _)) => {
                let chain = vec![held.certificate.clone().into()];
                let key = PrivatePkcs8KeyDer::from(held.key.clone());
                config
                    .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
                    .unwrap()
            }
            None => config.with_no_client_auth(),
        })
    }

    fn connect_with(&self, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let socket = TcpStream::connect(self.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        StreamOwned::new(connection, socket)
    }

    fn enrol(&self, shows: Shows<'_>, operation: &str, csr: &str) -> (u16, String) {
        self.ask(
            shows,
            &format!("POST /.well-known/est/{operation} HTTP/1.1"),
            csr,
        )
    }

    fn get(&self, operation: &str) -> (u16, String) {
        self.ask(
            None,
            &format!("GET /.well-known/est/{operation} HTTP/1.1"),
            "",
        )
    }

    /// The status and the body.
    fn ask(&self, shows: Shows<'_>, head: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect(shows);
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/pkcs10\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_motemq-certs"))
}

fn listening(log: &mut BufReader<ChildStderr>) -> SocketAddr {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it did not start");
        if let Some((_, rest)) = line.split_once("EST at https://") {
            return rest.split('/').next().unwrap().parse().unwrap();
        }
    }
}

/// A signing request of meter-1, as Base64 of DER.
fn csr(key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "meter-1");
    base64(params.serialize_request(key).unwrap().der())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
