//! What `motemq-certs` issued, before OpenSSL, Python's ssl, mosquitto_pub and mbedTLS: each takes it, connects by mutual TLS and
//! refuses a device's certificate as a server's. The bytes of their handshakes are counted on the way.

use super::scripts::python;
use motemq_certs::Authority;
use motemq_tests::in_process::InProcess;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn openssl_verifies_each_certificate_for_its_purpose_only() {
    let site = Site::new();
    for (file, purpose, is_good) in [
        ("server", "sslserver", true),
        ("server", "sslclient", false),
        ("device", "sslclient", true),
        ("device", "sslserver", false),
    ] {
        let output = Command::new("openssl")
            .args(["verify", "-purpose", purpose, "-CAfile"])
            .args([&site.path("pki/ca.crt"), &site.path(&format!("{file}.crt"))])
            .output()
            .unwrap();
        assert_eq!(
            output.status.success(),
            is_good,
            "{file} {purpose}: {output:?}"
        );
    }
    for file in ["pki/ca.crt", "server.crt", "device.crt"] {
        let output = Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(site.path(file))
            .output()
            .unwrap();
        assert!(output.status.success(), "{file}: {output:?}");
    }
    site.broker.stop();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn python_connects_by_mutual_tls_and_resumes() {
    let site = Site::new();
    let output = site.visit(&mut python("ssl_check.py"), "good");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("python: {text}");
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains("TLSv1.3") && text.ends_with("resumed\n"),
        "{text}"
    );
    site.broker.stop();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn mbedtls_connects_by_mutual_tls_and_resumes() {
    let site = Site::new();
    let output = site.visit(&mut site.mbedtls(), "good");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("mbedTLS: {text}");
    assert!(output.status.success(), "{output:?}");
    let of = |kind: &str| -> usize {
        let (_, rest) = text.split_once(&format!("{kind}=")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(of("full") <= 2_000, "{text}");
    assert!(of("resumed") <= 700, "{text}");
    assert_eq!(site.handshakes("good"), [("full", 1), ("resumed", 1)]);
    site.broker.stop();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn a_device_that_plays_the_server_is_refused() {
    let site = Site::new();
    // The names are not compared: it is the purpose that refuses it, and nothing else.
    let mut clients = [
        ("python", site.script("bad")),
        ("mosquitto_pub", site.mosquitto_pub("bad")),
        ("openssl", site.s_client(site.address("bad"), &["-tls1_3"])),
        ("mbedtls", {
            let mut command = site.mbedtls();
            command.args(site.arguments("bad"));
            command
        }),
    ];
    for (what, client) in &mut clients {
        let output = client.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{what}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(
            ["certificate", "purpose", "x509", "tls error"]
                .iter()
                .any(|word| text.contains(word)),
            "{what}: {text}"
        );
    }
    assert_eq!(site.impostor.fooled.load(Ordering::Relaxed), 0);
    // They are right otherwise.
    let output = site.mosquitto_pub("good").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    site.broker.stop();
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn handshakes_of_openssl_fit_a_narrow_link() {
    let site = Site::new();
    // A device offers one cipher suite; where that is left open, OpenSSL offers thirty.
    let suite = ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    for (version, full_max, resumed_max, record) in
        [("-tls1_3", 1_650, 760, 22), ("-tls1_2", 1_500, 400, 29)]
    {
        let session = site.path("session");
        let session = session.to_str().unwrap();
        let _ = std::fs::remove_file(session);
        let bytes = |how| {
            let more = [version, how, session, suite[0], suite[1]];
            site.bytes_of_s_client(&more, record)
        };
        let (full, resumed) = (bytes("-sess_out"), bytes("-sess_in"));
        println!("openssl {version}: full {full}, resumed {resumed}");
        assert!(full <= full_max, "{version}: {full}");
        assert!(resumed <= resumed_max, "{version}: {resumed}");
    }
    assert_eq!(site.handshakes("good"), [("full", 2), ("resumed", 2)]);
    site.broker.stop();
}

/// A broker in this process, whose listener is `good`; `bad` is a server with a device's certificate, which the broker would refuse to be.
struct Site {
    folder: TempDir,
    broker: InProcess,
    impostor: Impostor,
}

/// A TLS server that stays until the process ends.
struct Impostor {
    address: SocketAddr,
    /// Handshakes that came to an end.
    fooled: Arc<AtomicUsize>,
}

impl Impostor {
    fn with(certificate: &Path, key: &Path) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (config, fooled) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let count = fooled.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut connection = ServerConnection::new(config.clone()).unwrap();
                let ended = connection.complete_io(&mut stream);
                count.fetch_add(usize::from(ended.is_ok()), Ordering::Relaxed);
            }
        });
        Self { address, fooled }
    }
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::create(&path("pki"), "Acme Fleet").unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let device = authority.issue_device("meter-000017").unwrap();
        for (issued, name) in [(&server, "server"), (&device, "device")] {
            let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
            issued.write(&path(&certificate), &path(&key)).unwrap();
        }
        let listener = |name: &str, files: &str| {
            format!(
                "[[listeners]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n[listeners.tls]\n\
                 cert = \"{files}.crt\"\nkey = \"{files}.key\"\nclient_ca = \"pki/ca.crt\"\n"
            )
        };
        let good = listener("good", "server");
        let text = format!("data_dir = \"\"\n[http]\nbind = \"\"\n{good}");
        std::fs::write(path("motemq.toml"), text).unwrap();
        let broker = InProcess::from_file(&path("motemq.toml")).0;
        let impostor = Impostor::with(&path("device.crt"), &path("device.key"));
        Self {
            folder,
            broker,
            impostor,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self, listener: &str) -> SocketAddr {
        match listener {
            "bad" => self.impostor.address,
            good => self.broker.address(good),
        }
    }

    /// Port, authority, certificate, key.
    fn arguments(&self, listener: &str) -> [String; 4] {
        let file = |name: &str| self.path(name).display().to_string();
        let port = self.address(listener).port().to_string();
        [
            port,
            file("pki/ca.crt"),
            file("device.crt"),
            file("device.key"),
        ]
    }

    fn visit(&self, client: &mut Command, listener: &str) -> Output {
        client.args(self.arguments(listener)).output().unwrap()
    }

    fn script(&self, listener: &str) -> Command {
        let mut command = python("ssl_check.py");
        command.arg("--any-name").args(self.arguments(listener));
        command
    }

    fn mosquitto_pub(&self, listener: &str) -> Command {
        let [port, ca, certificate, key] = self.arguments(listener);
        let mut command = Command::new("mosquitto_pub");
        command.args(["-p", &port, "--cafile", &ca, "--cert", &certificate]);
        command.args(["--key", &key, "--insecure", "-q", "1", "-t", "t", "-m", "m"]);
        command
    }

    fn s_client(&self, to: SocketAddr, more: &[&str]) -> Command {
        let [_, ca, certificate, key] = self.arguments("good");
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-groups",
            "X25519:P-256",
        ]);
        command.args(["-connect", &to.to_string(), "-servername", "localhost"]);
        // With -CAfile it would also send the authority's certificate.
        command.args(["-verifyCAfile", &ca, "-cert", &certificate, "-key", &key]);
        command.args(more);
        command
    }

    /// What passes between `s_client` and the broker until CONNACK, without the two records of MQTT, which cost `record` bytes each
    /// above what is in them.
    fn bytes_of_s_client(&self, more: &[&str], record: usize) -> usize {
        let proxy = Proxy::start(self.address("good"));
        let mut client = self
            .s_client(proxy.address, more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(CONNECT).unwrap();
        let mut connack = [0; 4];
        client
            .stdout
            .take()
            .unwrap()
            .read_exact(&mut connack)
            .unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        let bytes = proxy.bytes.load(Ordering::SeqCst);
        // The broker hangs up, and the session is written.
        input.write_all(b"\xe0\x00").unwrap();
        drop(input);
        client.wait().unwrap();
        bytes - (CONNECT.len() + connack.len() + 2 * record)
    }

    /// The client, compiled.
    fn mbedtls(&self) -> Command {
        let program = self.path("mbedtls_check");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/mbedtls_check.c");
        let output = Command::new("cc")
            .args(["-Wall", "-Werror", "-o"])
            .arg(&program)
            .arg(source)
            .args(["-lmbedtls", "-lmbedx509", "-lmbedcrypto"])
            .output()
            .unwrap();
        assert!(output.status.success(), "needs libmbedtls-dev: {output:?}");
        Command::new(program)
    }

    fn handshakes(&self, listener: &str) -> [(&'static str, u64); 2] {
        let listeners = self.broker.running().server().listeners();
        let mut known = listeners.iter();
        let found = known.find(|known| known.config().name == listener);
        found.unwrap().handshakes()
    }
}

/// Passes one connection on, and counts its bytes.
struct Proxy {
    address: SocketAddr,
    /// Both ways together, before they are passed on.
    bytes: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let bytes = Arc::new(AtomicUsize::new(0));
        let counted = bytes.clone();
        std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(to).unwrap();
            let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let also = counted.clone();
            std::thread::spawn(move || pass(back.0, back.1, &also));
            pass(client, server, &counted);
        });
        Self { address, bytes }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes: &AtomicUsize) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        bytes.fetch_add(count, Ordering::SeqCst);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
