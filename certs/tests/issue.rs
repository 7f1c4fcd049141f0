//! What was issued is verified by rustls, the library that brokers and clients use.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{
    Authority, CertsError, Created, Intermediate, Issued, KeyType, Kind, Order, Permitted,
    PublicKey, Request, RequestError, Root, SubjectField, Validity, certificate_names,
    expires_within,
};
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
    // Signatures vary by two bytes.
    let (_directory, authority) = authority();
    let device = authority.issue_device("meter-000017").unwrap();
    let device_bytes = der(&device.certificate_pem).len();
    assert!(
        device_bytes <= 366,
        "device certificate: {device_bytes} bytes"
    );
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = authority.issue_server(&names).unwrap();
    let server_bytes = der(&server.certificate_pem).len();
    assert!(
        server_bytes <= 387,
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

    for none in ["", "nothing", "-----BEGIN PRIVATE KEY-----\n"] {
        fs::write(&key, none).unwrap();
        let error = Authority::open(directory.path()).unwrap_err();
        assert!(matches!(error, CertsError::NotAKey(ref path) if *path == key));
    }
    let after_parameters = fs::read_to_string(other_directory.path().join("ca.key")).unwrap();
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    fs::write(
        other_directory.path().join("ca.key"),
        [parameters, &after_parameters].concat(),
    )
    .unwrap();
    Authority::open(other_directory.path()).unwrap();
    fs::write(other_directory.path().join("ca.crt"), "nothing").unwrap();
    let error = Authority::open(other_directory.path()).unwrap_err();
    assert!(matches!(error, CertsError::NotAnAuthority(_)), "{error}");

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
    let first = issue_for(&authority, Validity::Days(30));
    let second = issue_for(&authority, Validity::Days(30));
    assert_eq!(first.serial_hex.len(), 32);
    assert_ne!(first.serial_hex, second.serial_hex);
    assert_ne!(first.fingerprint_sha256, second.fingerprint_sha256);

    let now_unix_s = first.not_after_unix_s - 30 * 24 * 60 * 60;
    assert!(expires_within(&first.certificate_pem, 31, now_unix_s).unwrap());
    assert!(!expires_within(&first.certificate_pem, 30, now_unix_s).unwrap());

    let root_pem = authority.certificate_pem();
    let endless = issue_for(&authority, Validity::Forever);
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

#[test]
fn every_kind_of_key_verifies_under_every_kind_of_authority() {
    for authority_key in KeyType::ALL {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new("Test CA").unwrap().key_type(authority_key);
        let authority = root.create(directory.path()).unwrap();
        for key in KeyType::ALL {
            let order = Order::device("meter-1").unwrap();
            let device = authority.issue(&order, key).unwrap();
            assert!(
                verify_client(&authority, &device.certificate_pem),
                "{key} under {authority_key}"
            );
            assert_eq!(device.key_type, key.name());
            PrivateKeyDer::from_pem_slice(device.private_key_pem.as_bytes()).unwrap();
        }
    }
}

#[test]
fn an_intermediate_issues_and_its_root_verifies() {
    let (directory, authority) = intermediate();
    assert!(authority.is_intermediate());
    let device = authority.issue_device("meter-1").unwrap();
    let server = authority.issue_server(&["a.example".to_owned()]).unwrap();
    assert!(verify_client(&authority, &device.certificate_pem));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(server.chain_pem.as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        chain,
        [
            der(&server.certificate_pem),
            der(authority.certificate_pem())
        ]
    );
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(der(authority.root_pem())).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let verify =
        |between| verifier.verify_server_cert(&chain[0], between, &name, &[], UnixTime::now());
    verify(&chain[1..]).unwrap();
    assert!(verify(&[]).is_err());

    let reopened = Authority::open(directory.path()).unwrap();
    assert_eq!(reopened.root_pem(), authority.root_pem());
    assert!(directory.path().join("root.key").exists());
}

#[test]
fn the_roots_key_may_lie_elsewhere() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root_key = elsewhere.path().join("acme/root.key");
    let root = Root::new("Acme").unwrap().intermediate(Intermediate {
        validity: Validity::Days(30),
        root_key: Some(root_key.clone()),
    });
    root.create(directory.path()).unwrap();
    assert!(root_key.exists());
    assert!(!directory.path().join("root.key").exists());
    let error = root.create(directory.path()).unwrap_err();
    assert!(matches!(error, CertsError::AlreadyExists(path) if path == root_key));
}

#[test]
fn an_intermediate_of_another_root_is_refused() {
    let (directory, _authority) = intermediate();
    let (other_directory, _other) = intermediate();
    let root = directory.path().join("root.crt");
    fs::copy(other_directory.path().join("root.crt"), &root).unwrap();
    let error = Authority::open(directory.path()).unwrap_err();
    assert!(matches!(error, CertsError::NotItsRoot { .. }), "{error}");
}

#[test]
fn nothing_outlives_its_issuer() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new("Acme").unwrap().valid(Validity::Days(20));
    let root = root.intermediate(Intermediate {
        validity: Validity::Days(30),
        root_key: None,
    });
    let authority = root.create(directory.path()).unwrap();
    let device = issue_for(&authority, Validity::Forever);
    assert_eq!(device.not_after_unix_s, authority.not_after_unix_s());
    let now_unix_s = motemq_certs::now_unix_s();
    assert!(expires_within(authority.certificate_pem(), 21, now_unix_s).unwrap());
}

#[test]
fn an_authority_is_held_to_its_names_by_itself_and_by_rustls() {
    let permitted = Permitted::default().dns("acme.example").unwrap();
    let permitted = permitted.network("10.0.0.0/8").unwrap();
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    let inside = names(&["a.acme.example", "10.1.2.3"]);
    for has_intermediate in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut root = Root::new("Acme").unwrap().permitted(permitted.clone());
        let mut free = Root::new("Acme").unwrap();
        if has_intermediate {
            let intermediate = Intermediate {
                validity: Validity::Days(30),
                root_key: None,
            };
            root = root.intermediate(intermediate.clone());
            free = free.intermediate(intermediate);
        }
        let authority = root.create(directory.path()).unwrap();
        assert_eq!(authority.permitted(), &permitted);
        let server = authority.issue_server(&inside).unwrap();
        for name in &inside {
            assert!(verify_server(&authority, &server.certificate_pem, name));
        }
        let device = authority.issue_device("meter-1").unwrap();
        assert!(verify_client(&authority, &device.certificate_pem));
        for outside in ["b.example", "11.0.0.1"] {
            let error = authority.issue_server(&names(&[outside])).unwrap_err();
            assert!(matches!(error, CertsError::NotPermitted { ref name, .. } if name == outside));
        }

        // Signed with the stolen key, past this library.
        let key = fs::read_to_string(directory.path().join("ca.key")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(
            authority.certificate_pem(),
            rcgen::KeyPair::from_pem(&key).unwrap(),
        )
        .unwrap();
        for outside in ["b.example", "11.0.0.1"] {
            let mut params = rcgen::CertificateParams::new(names(&[outside])).unwrap();
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            let key = rcgen::KeyPair::generate().unwrap();
            let pem = params.signed_by(&key, &issuer).unwrap().pem();
            assert!(!verify_server(&authority, &pem, outside), "{outside}");
            let free_directory = tempfile::tempdir().unwrap();
            let free = free.create(free_directory.path()).unwrap();
            let served = free.issue_server(&names(&[outside])).unwrap();
            assert!(verify_server(&free, &served.certificate_pem, outside));
        }
    }
}

#[test]
fn a_certificate_may_have_no_end() {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new("Acme").unwrap().valid(Validity::Forever);
    let authority = root.create(directory.path()).unwrap();
    let device = issue_for(&authority, Validity::Forever);
    assert_eq!(motemq_certs::date(device.not_after_unix_s), "9999-12-31");
    assert!(verify_client(&authority, &device.certificate_pem));
}

#[test]
fn a_key_that_stays_with_its_device_gets_a_certificate() {
    let (_directory, authority) = authority();
    for key_type in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = rcgen::KeyPair::generate_for(key_type).unwrap();
        let mut params = rcgen::CertificateParams::new(["ignored.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "meter-7");
        let request = params.serialize_request(&key).unwrap();
        let pem = Request::parse(request.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(pem.common_name(), Some("meter-7"));
        assert_eq!(
            Request::parse(request.der()).unwrap().public_key(),
            pem.public_key()
        );
        assert_eq!(
            &PublicKey::from_pem(&key.public_key_pem()).unwrap(),
            pem.public_key()
        );
        let order = Order::device("meter-7").unwrap();
        let signed = authority.sign(&order, pem.public_key()).unwrap();
        assert!(verify_client(&authority, &signed.certificate_pem));
        assert_eq!(
            certificate_names(&signed.certificate_pem).unwrap(),
            ["urn:mqtt:client:meter-7"]
        );

        let mut forged = request.der().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let error = Request::parse(&forged).unwrap_err();
        assert!(matches!(error, RequestError::BadSignature), "{error}");
    }
    for none in ["", "hello", authority.certificate_pem()] {
        assert!(Request::parse(none.as_bytes()).is_err());
    }
}

#[test]
fn keys_that_brokers_refuse_get_no_certificate() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let error = PublicKey::from_pem(&key.public_key_pem()).unwrap_err();
    assert!(matches!(error, CertsError::PublicKey(_)), "{error}");
}

#[test]
fn claims_and_services_are_clients_of_their_own_names() {
    let (_directory, authority) = authority();
    for (order, kind, uri) in [
        (Order::claim("fab 1"), Kind::Claim, "urn:mqtt:claim:fab%201"),
        (
            Order::service("enrol"),
            Kind::Service,
            "urn:mqtt:service:enrol",
        ),
    ] {
        let order = order.unwrap();
        assert_eq!(order.kind(), kind);
        let issued = authority.issue(&order, KeyType::P256).unwrap();
        assert!(verify_client(&authority, &issued.certificate_pem));
        assert_eq!(certificate_names(&issued.certificate_pem).unwrap(), [uri]);
    }
}

#[test]
fn only_what_is_asked_for_stands_in_the_subject() {
    let (_directory, authority) = authority();
    let plain = Order::device("meter-1").unwrap();
    let with_unit = plain
        .clone()
        .subject(SubjectField::OrganizationalUnit, "berlin")
        .unwrap();
    let with_attributes = plain
        .clone()
        .attributes([("site".to_owned(), "berlin".to_owned())].into())
        .unwrap();
    let bytes = |order| {
        authority
            .issue(order, KeyType::Ed25519)
            .unwrap()
            .certificate_der
            .len()
    };
    let (plain, with_unit) = (bytes(&plain), bytes(&with_unit));
    assert!(with_unit > plain + "berlin".len());
    assert!(bytes(&with_attributes) <= plain + 2);
}

fn issue_for(authority: &Authority, validity: Validity) -> Issued {
    let order = Order::device("meter-1").unwrap().valid(validity);
    authority.issue(&order, KeyType::P256).unwrap()
}

fn intermediate() -> (TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new("Acme").unwrap().intermediate(Intermediate {
        validity: Validity::Days(3_652),
        root_key: None,
    });
    let authority = root.create(directory.path()).unwrap();
    (directory, authority)
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
