//! What was issued is verified by rustls, the library that brokers and clients use.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{Authority, CertsError, Created, certificate_names, expires_within};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

#[test]
fn a_device_certificate_is_a_client_and_never_a_server() {
    let (_directory, authority) = authority();
    let device = authority.issue_device("meter-000017").unwrap();
    assert!(verify_client(&authority, &device.certificate_pem));
    for name in ["meter-000017", "localhost"] {
        assert!(!verify_server(&authority, &device.certificate_pem, name));
    }
}

#[test]
fn a_server_certificate_serves_its_names_and_is_never_a_client() {
    let (_directory, authority) = authority();
    let names = ["broker.example", "localhost", "10.0.0.5", "::1"].map(str::to_owned);
    let server = authority.issue_server(&names).unwrap();
    for name in &names {
        assert!(
            verify_server(&authority, &server.certificate_pem, name),
            "{name}"
        );
    }
    for name in ["other.example", "10.0.0.6"] {
        assert!(
            !verify_server(&authority, &server.certificate_pem, name),
            "{name}"
        );
    }
    assert!(!verify_client(&authority, &server.certificate_pem));
    assert_eq!(certificate_names(&server.certificate_pem).unwrap(), names);
}

#[test]
fn another_authority_is_not_trusted() {
    let (_directory, ours) = authority();
    let (_other_directory, theirs) = authority();
    let device = theirs.issue_device("meter-1").unwrap();
    assert!(!verify_client(&ours, &device.certificate_pem));
}

#[test]
fn rustls_accepts_the_key_with_the_certificate() {
    let (_directory, authority) = authority();
    let device = authority.issue_device("meter-1").unwrap();
    let key = PrivateKeyDer::from_pem_slice(device.private_key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(vec![der(&device.certificate_pem)], key)
        .unwrap();
}

#[test]
fn certificates_are_small() {
    let (_directory, authority) = authority();
    let device = authority.issue_device("meter-000017").unwrap();
    let device_bytes = der(&device.certificate_pem).len();
    assert!(
        device_bytes <= 384,
        "device certificate: {device_bytes} bytes"
    );
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = authority.issue_server(&names).unwrap();
    let server_bytes = der(&server.certificate_pem).len();
    assert!(
        server_bytes <= 384,
        "server certificate: {server_bytes} bytes"
    );
}

#[test]
fn an_authority_is_reused_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (first, created) = Authority::open_or_create(directory.path(), "Test CA").unwrap();
    assert_eq!(created, Created::New);
    let (second, created) = Authority::open_or_create(directory.path(), "Test CA").unwrap();
    assert_eq!(created, Created::Reused);
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    let device = second.issue_device("meter-1").unwrap();
    assert!(verify_client(&first, &device.certificate_pem));

    let error = Authority::create(directory.path(), "Test CA").unwrap_err();
    assert!(matches!(error, CertsError::AlreadyExists(path) if path == first.certificate_path()));
    let on_disk = fs::read_to_string(first.certificate_path()).unwrap();
    assert_eq!(on_disk, first.certificate_pem());
}

#[test]
fn half_an_authority_or_a_foreign_key_is_refused() {
    let (directory, _authority) = authority();
    let (other_directory, _other) = authority();
    let key = directory.path().join("ca.key");
    fs::copy(other_directory.path().join("ca.key"), &key).unwrap();
    let error = Authority::open(directory.path()).unwrap_err();
    assert!(matches!(error, CertsError::KeyMismatch { .. }), "{error}");

    fs::remove_file(&key).unwrap();
    let error = Authority::open_or_create(directory.path(), "Test CA").unwrap_err();
    assert!(matches!(error, CertsError::Incomplete { missing, .. } if missing == key));
}

#[test]
fn writing_refuses_to_overwrite_either_file() {
    let (directory, authority) = authority();
    let device = authority.issue_device("meter-1").unwrap();
    let certificate = directory.path().join("devices/meter-1.crt");
    let key = directory.path().join("devices/meter-1.key");
    device.write(&certificate, &key).unwrap();
    assert_eq!(fs::read_to_string(&key).unwrap(), device.private_key_pem);

    let again = authority.issue_device("meter-1").unwrap();
    assert!(again.write(&certificate, &key).is_err());
    fs::remove_file(&key).unwrap();
    assert!(again.write(&certificate, &key).is_err());
    assert!(!key.exists());
    assert_eq!(
        fs::read_to_string(&certificate).unwrap(),
        device.certificate_pem
    );
}

#[cfg(unix)]
#[test]
fn private_keys_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, authority) = authority();
    let device = authority.issue_device("meter-1").unwrap();
    let key = directory.path().join("meter-1.key");
    device
        .write(&directory.path().join("meter-1.crt"), &key)
        .unwrap();
    for path in [key, directory.path().join("ca.key")] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn serials_differ_and_lifetimes_are_as_asked() {
    let (_directory, authority) = authority();
    let first = authority.issue_device_for("meter-1", 30).unwrap();
    let second = authority.issue_device_for("meter-1", 30).unwrap();
    assert_eq!(first.serial_hex.len(), 32);
    assert_ne!(first.serial_hex, second.serial_hex);
    assert_ne!(first.fingerprint_sha256, second.fingerprint_sha256);

    let now_unix_s = first.not_after_unix_s - 30 * 24 * 60 * 60;
    assert!(expires_within(&first.certificate_pem, 31, now_unix_s).unwrap());
    assert!(!expires_within(&first.certificate_pem, 30, now_unix_s).unwrap());

    let root_pem = authority.certificate_pem();
    let endless = authority.issue_device_for("meter-1", 36_000).unwrap();
    assert!(!expires_within(root_pem, 0, endless.not_after_unix_s).unwrap());
}

#[test]
fn device_certificates_name_the_client_as_a_uri() {
    let (_directory, authority) = authority();
    let device = authority.issue_device("zähler 7").unwrap();
    let names = certificate_names(&device.certificate_pem).unwrap();
    assert_eq!(names, ["urn:mqtt:client:z%C3%A4hler%207"]);
    assert!(authority.issue_device("a/b").is_err());
    assert!(authority.issue_server(&[]).is_err());
    assert!(certificate_names("no certificate").is_err());
}

fn authority() -> (TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(directory.path(), "Test CA").unwrap();
    (directory, authority)
}

fn verify_client(authority: &Authority, pem: &str) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(roots(authority), provider)
        .build()
        .unwrap()
        .verify_client_cert(&der(pem), &[], UnixTime::now())
        .is_ok()
}

fn verify_server(authority: &Authority, pem: &str, name: &str) -> bool {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let name = ServerName::try_from(name).unwrap();
    WebPkiServerVerifier::builder_with_provider(roots(authority), provider)
        .build()
        .unwrap()
        .verify_server_cert(&der(pem), &[], &name, &[], UnixTime::now())
        .is_ok()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(authority.certificate_pem())).unwrap();
    roots.into()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
