//! `inspect` and `verify` on the command line: what they say, and that no secret is in it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use tempfile::TempDir;

#[test]
fn every_kind_of_file_is_described_and_no_secret_printed() {
    let tool = Tool::new();
    for (file, expected) in [
        ("pki/ca.crt", "a root"),
        ("pki/server.crt", "a server"),
        ("pki/devices/meter-1.crt", "a device"),
        ("pki/ca.crl", "list"),
        ("pki/server.key", "private key  p256"),
        ("request.csr", "request      meter-7"),
        ("request.der", "request      meter-7"),
    ] {
        let said = tool.done(&["inspect", file]);
        assert!(said.contains(expected), "{file}: {said}");
    }
    let secret = fs::read_to_string(tool.path("pki/server.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let said = tool.done(&["inspect", "pki/server.key", "--json"]);
    assert!(!said.contains(&secret[..16]), "{said}");
}

#[test]
fn json_has_what_a_script_asks_for() {
    let tool = Tool::new();
    let value = tool.json(&["inspect", "--json", "pki/server.crt", "pki/ca.crl"]);
    assert_eq!(value[0]["type"], "certificate");
    assert_eq!(
        value[0]["names"],
        serde_json::json!(["localhost", "127.0.0.1"])
    );
    assert_eq!(value[0]["kind"], "server");
    assert!(matches!(value[0]["days_left"].as_i64(), Some(396 | 397)));
    assert_eq!(value[1]["type"], "revocation_list");
    assert_eq!(value[1]["revoked"], serde_json::json!([]));
}

#[test]
fn of_a_listener_chain_protocol_and_wishes_are_said() {
    let tool = Tool::new();
    for (asks, tls13, expected) in [
        (Asks::No, true, "none"),
        (Asks::Optional, true, "optional"),
        (Asks::Required, true, "required"),
        (Asks::Required, false, "required"),
    ] {
        let peer = tool.listen(asks, tls13);
        let value = tool.json(&["inspect", "--json", &peer]);
        let peer = &value[0];
        assert_eq!(peer["client_certificate"], expected, "{tls13}");
        assert_eq!(peer["version"], if tls13 { "TLS 1.3" } else { "TLS 1.2" });
        assert_eq!(peer["trusted"], true, "{peer}");
        assert!(matches!(peer["days_left"].as_i64(), Some(396 | 397)));
        assert_eq!(peer["chain"][0]["names"][0], "localhost");
        assert_ne!(peer["key_exchange"], "not seen");
    }
    let other = Tool::new();
    let peer = other.listen(Asks::No, true);
    let value = tool.json(&["inspect", "--json", &peer]);
    assert_eq!(value[0]["trusted"], false);
}

#[test]
fn what_is_no_tls_listener_is_said() {
    let tool = Tool::new();
    let error = tool.refused(&["inspect", "127.0.0.1:1"]);
    assert!(error.contains("is the broker running?"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = listener.local_addr().unwrap().to_string();
    let accepting = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let error = tool.refused(&["inspect", &peer]);
    assert!(error.contains("listeners.tls"), "{error}");
    accepting.join().unwrap();
}

#[test]
fn good_certificates_are_verified() {
    let tool = Tool::new();
    let said = tool.done(&[
        "verify",
        "pki/server.crt",
        "pki/devices/meter-1.crt",
        "pki/ca.crt",
    ]);
    assert_eq!(said.matches(": good").count(), 3, "{said}");
    tool.done(&[
        "verify",
        "pki/server.crt",
        "--name",
        "127.0.0.1",
        "--purpose",
        "server",
    ]);
}

#[test]
fn each_fault_has_its_sentence() {
    let tool = Tool::new();
    let check = |arguments: &[&str], expected: &str| {
        let output = tool.run(&[&["verify"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(expected), "{expected}: {said}");
    };
    check(
        &["pki/server.crt", "--purpose", "client"],
        "may not act as a client",
    );
    check(
        &["pki/devices/meter-1.crt", "--purpose", "server"],
        "may not act as a server",
    );
    check(
        &["pki/server.crt", "--name", "other.example"],
        "not for that name",
    );
    check(
        &["pki/server.crt", "--name", "no name"],
        "not for that name",
    );
    let other = Tool::new();
    let stranger = other.text("pki/devices/meter-1.crt");
    check(&[&stranger], "although the names agree");
    other.done(&["--out", "third", "init", "--name", "Third"]);
    let list = other.text("third/ca.crl");
    let of_another = ["--ca", "pki/ca.crt", "--crl", &list, "pki/server.crt"];
    check(&of_another, "not of its issuer");
    check(&[&tool.expired()], "expired on 2020-01-02");
    fs::copy(other.path("pki/server.key"), tool.path("pki/server.key")).unwrap();
    check(&["pki/server.crt"], "is another key");
    tool.done(&["revoke", "meter-1"]);
    check(&["pki/devices/meter-1.crt"], "BAD  revoked since");
    check(&["pki/ca.key"], "there is no certificate");
}

#[cfg(unix)]
#[test]
fn a_key_that_everybody_may_read_is_not_good() {
    use std::os::unix::fs::PermissionsExt as _;
    let tool = Tool::new();
    let everybody = fs::Permissions::from_mode(0o644);
    fs::set_permissions(tool.path("pki/server.key"), everybody).unwrap();
    let output = tool.run(&["verify", "pki/server.crt"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("chmod 600"), "{said}");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    No,
    Optional,
    Required,
}

struct Tool {
    directory: TempDir,
}

impl Tool {
    /// With an authority, a server's and a device's certificate, and a request.
    fn new() -> Self {
        let tool = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        tool.done(&["init", "--name", "MoteMQ CA"]);
        tool.done(&["server", "localhost", "127.0.0.1"]);
        tool.done(&["device", "meter-1"]);
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, "meter-7");
        let key = KeyPair::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap();
        fs::write(tool.path("request.csr"), csr.pem().unwrap()).unwrap();
        fs::write(tool.path("request.der"), csr.der()).unwrap();
        tool
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_motemq-certs"))
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments)).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A certificate of this authority that ended long ago.
    fn expired(&self) -> String {
        let key = KeyPair::from_pem(&self.read("pki/ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.read("pki/ca.crt"), key).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        params.subject_alt_names = vec![SanType::URI("urn:mqtt:client:m".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&KeyPair::generate().unwrap(), &issuer)
            .unwrap();
        fs::write(self.path("expired.crt"), certificate.pem()).unwrap();
        self.text("expired.crt")
    }

    /// A listener that shakes hands with one client.
    fn listen(&self, asks: Asks, tls13: bool) -> String {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("pki/ca.crt")).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = match asks {
            Asks::No => WebPkiClientVerifier::no_client_auth(),
            Asks::Optional => verifier.allow_unauthenticated().build().unwrap(),
            Asks::Required => verifier.build().unwrap(),
        };
        let version = if tls13 {
            &rustls::version::TLS13
        } else {
            &rustls::version::TLS12
        };
        let key = PrivateKeyDer::from_pem_file(self.path("pki/server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate("pki/server.crt")], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || serve(&listener, config));
        peer
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }
}

fn serve(listener: &TcpListener, config: ServerConfig) {
    let (mut socket, _): (TcpStream, _) = listener.accept().unwrap();
    let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
    // Until the client goes, or is refused; the refusal is sent before the socket is closed.
    while let Ok((read, written)) = connection.complete_io(&mut socket) {
        if read + written == 0 {
            break;
        }
    }
    while connection.wants_write() && connection.write_tls(&mut socket).is_ok() {}
}
