//! OpenSSL verifies what was issued, for what it was issued, and nothing else.

use super::{certs, printed, run};
use motemq_certs::{Authority, KeyType};
use std::fs;
use std::path::Path;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn openssl_verifies_every_kind_of_key() {
    for authority_key in KeyType::ALL {
        for intermediate in ["", " --intermediate"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            certs(folder, &format!("init --key {authority_key}{intermediate}"));
            for key in KeyType::ALL {
                certs(folder, &format!("device {key} --key {key}"));
                let device = format!("pki/devices/{key}.crt");
                assert!(verifies(folder, &device, "sslclient", &[]), "{key}");
                assert!(!verifies(folder, &device, "sslserver", &[]), "{key}");
                // It reads the key, too.
                let private_key = format!("pki/devices/{key}.key");
                printed(folder, "openssl", &["pkey", "-noout", "-in", &private_key]);
                certs(folder, &format!("server a.example ::1 --key {key}"));
                let server = "pki/server.crt";
                let strict = ["-x509_strict", "-verify_hostname", "a.example"];
                assert!(verifies(folder, server, "sslserver", &strict), "{key}");
                let strict = ["-x509_strict", "-verify_ip", "::1"];
                assert!(verifies(folder, server, "sslserver", &strict), "{key}");
                assert!(!verifies(folder, server, "sslclient", &[]), "{key}");
                let other = ["-verify_hostname", "b.example"];
                assert!(!verifies(folder, server, "sslserver", &other), "{key}");
                for file in ["pki/server.crt", "pki/server.key"] {
                    fs::remove_file(folder.join(file)).unwrap();
                }
            }
        }
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn leaves_say_what_they_are_for_and_little_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certs(folder, "init --root-years forever");
    certs(
        folder,
        "device meter-1 --days forever --attr site=berlin --subject OU=north",
    );
    let device = text(folder, "pki/devices/meter-1.crt");
    for part in [
        "OU = north, CN = meter-1",
        "URI:urn:mqtt:client:meter-1",
        "TLS Web Client Authentication",
        "Not After : Dec 31 23:59:59 9999 GMT",
    ] {
        assert!(device.contains(part), "{part}: {device}");
    }
    for part in [
        "Server Auth",
        "Key Identifier",
        "Basic Constraints",
        "berlin",
    ] {
        assert!(!device.contains(part), "{part}: {device}");
    }
    certs(folder, "server a.example 10.0.0.1");
    let server = text(folder, "pki/server.crt");
    for part in [
        "DNS:a.example, IP Address:10.0.0.1",
        "TLS Web Server Authentication",
        "Digital Signature",
        "Authority Key Identifier",
    ] {
        assert!(server.contains(part), "{part}: {server}");
    }
    assert!(!server.contains("Client Auth"), "{server}");
    let root = text(folder, "pki/ca.crt");
    assert!(root.contains("CA:TRUE, pathlen:0"), "{root}");
    assert!(root.contains("Certificate Sign, CRL Sign"), "{root}");
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn openssl_holds_an_authority_to_its_names() {
    for intermediate in ["", " --intermediate"] {
        for (permit, inside, outside) in [
            (
                "--permit-dns acme.example --permit-ip 10.0.0.0/8",
                &["a.acme.example", "10.1.2.3"][..],
                &["b.example", "11.0.0.1"][..],
            ),
            (
                "--permit-ip 10.0.0.0/8",
                &["10.1.2.3"],
                &["b.example", "11.0.0.1"],
            ),
            (
                "--permit-dns acme.example",
                &["acme.example"],
                &["b.example", "10.0.0.1"],
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            certs(folder, &format!("init {permit}{intermediate}"));
            certs(folder, &format!("server {}", inside.join(" ")));
            assert!(verifies(
                folder,
                "pki/server.crt",
                "sslserver",
                &["-x509_strict"]
            ));
            certs(folder, "device meter-1");
            assert!(verifies(
                folder,
                "pki/devices/meter-1.crt",
                "sslclient",
                &[]
            ));
            for name in outside {
                let forged = forged(folder, name);
                assert!(
                    !verifies(folder, &forged, "sslserver", &[]),
                    "{permit}: {name}"
                );
            }
        }
    }
}

/// A server certificate made with the authority's key, past the library.
fn forged(folder: &Path, name: &str) -> String {
    let authority = Authority::open(&folder.join("pki")).unwrap();
    let key = fs::read_to_string(folder.join("pki/ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.certificate_pem(), key).unwrap();
    let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer);
    fs::write(folder.join("forged.crt"), certificate.unwrap().pem()).unwrap();
    "forged.crt".to_owned()
}

fn verifies(folder: &Path, file: &str, purpose: &str, more: &[&str]) -> bool {
    let has_root = folder.join("pki/root.crt").exists();
    let root = if has_root {
        "pki/root.crt"
    } else {
        "pki/ca.crt"
    };
    let fixed = [
        "verify",
        "-CAfile",
        root,
        "-untrusted",
        "pki/ca.crt",
        "-purpose",
        purpose,
    ];
    let arguments = [&fixed, more, &[file]].concat();
    run(folder, "openssl", &arguments).status.success()
}

fn text(folder: &Path, file: &str) -> String {
    printed(folder, "openssl", &["x509", "-noout", "-text", "-in", file])
}
