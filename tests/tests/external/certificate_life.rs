//! openssl as the device that asks and as whoever verifies: its requests are signed, our certificates and lists accepted.

use motemq_certs::{
    Authority, Entry, Intermediate, Inventory, Order, Reason, Request, RequestError, Revocation,
    Root, Target, Validity, crl_path,
};
use std::path::Path;
use std::process::{Command, Output};

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn requests_of_openssl_are_signed_and_openssl_accepts_the_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path(), "Test CA").unwrap();
    let keys: [&[&str]; 4] = [
        &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
        &["ed25519"],
        &["rsa:2048"],
    ];
    let mut signed = 0;
    for key in keys {
        for form in ["PEM", "DER"] {
            let csr = csr(folder.path(), key, &["-outform", form]);
            let request = Request::parse(&csr).unwrap();
            assert_eq!(request.common_name(), Some("meter-1"));
            let order = Order::device("meter-1").unwrap();
            let granted = authority.sign_request(&request, &order).unwrap();
            assert_eq!(granted.left_out, ["O=Acme in the subject"]);
            write(folder.path(), "leaf.crt", &granted.signed.certificate_pem);
            let args = ["verify", "-purpose", "sslclient", "-CAfile", "ca.crt"];
            accepted(&openssl(
                folder.path(),
                &[&args[..], &["leaf.crt"]].concat(),
            ));
            // It is for the key that asked.
            let public_key = |args: &[&str]| openssl(folder.path(), args).stdout;
            assert_eq!(
                public_key(&["x509", "-in", "leaf.crt", "-noout", "-pubkey"]),
                public_key(&["pkey", "-in", "key.pem", "-pubout"])
            );
            signed += 1;

            let mut broken = csr;
            match form {
                "DER" => *broken.last_mut().unwrap() ^= 1,
                _ => broken = with_another_signature(&broken),
            }
            let error = Request::parse(&broken).unwrap_err();
            assert!(
                matches!(
                    error,
                    RequestError::BadSignature | RequestError::Malformed(_)
                ),
                "{error}"
            );
        }
    }
    assert_eq!(signed, 8);
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn what_openssl_asks_for_besides_is_refused_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let key: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let check = |extension: &str| {
        let csr = csr(folder.path(), key, &["-addext", extension]);
        let request = Request::parse(&csr).unwrap();
        request.check("meter-1", motemq_certs::Kind::Device)
    };
    let granted = check("subjectAltName=URI:urn:mqtt:client:meter-1").unwrap();
    assert_eq!(granted, ["O=Acme in the subject"]);
    for (extension, expected) in [
        ("subjectAltName=DNS:broker.example", "DNS:broker.example"),
        ("subjectAltName=URI:urn:mqtt:client:meter-2", "meter-2"),
        ("subjectAltName=email:a@b.example", "email:a@b.example"),
        ("basicConstraints=critical,CA:TRUE", "CA:TRUE"),
        ("keyUsage=keyCertSign", "keyCertSign"),
        ("extendedKeyUsage=serverAuth", "clientAuth"),
        (
            "extendedKeyUsage=anyExtendedKeyUsage",
            "anyExtendedKeyUsage",
        ),
    ] {
        let error = check(extension).unwrap_err().to_string();
        assert!(error.contains(expected), "{extension}: {error}");
    }
    for (extension, expected) in [
        ("subjectAltName=DNS:meter-1", "DNS:meter-1"),
        (
            "keyUsage=digitalSignature,keyEncipherment",
            "keyEncipherment",
        ),
        ("extendedKeyUsage=clientAuth,serverAuth", "serverAuth"),
        ("nsComment=hello", "extension 2.16.840.1.113730.1.13"),
    ] {
        let left_out = check(extension).unwrap().join(", ");
        assert!(left_out.contains(expected), "{extension}: {left_out}");
    }
    let weak = csr(folder.path(), &["rsa:1024"], &[]);
    assert_eq!(
        Request::parse(&weak).unwrap_err(),
        RequestError::RsaBits(1024)
    );
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn openssl_accepts_the_list_and_refuses_whom_it_names() {
    for has_intermediate in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut root = Root::new("Test CA").unwrap();
        if has_intermediate {
            root = root.intermediate(Intermediate {
                validity: Validity::Days(1_000),
                root_key: None,
            });
        }
        let authority = root.create(folder.path()).unwrap();
        let mut inventory = Inventory::open(folder.path()).unwrap();
        for id in ["meter-1", "meter-2"] {
            let order = Order::device(id).unwrap();
            let issued = authority.issue(&order, Default::default()).unwrap();
            inventory.append(&[Entry::issued(&order, &issued)]).unwrap();
            write(folder.path(), id, &issued.certificate_pem);
        }
        // What issues is trusted as it is, as the broker does.
        let verify = [
            "verify",
            "-partial_chain",
            "-crl_check",
            "-CAfile",
            "ca.crt",
        ];
        let verify = |id: &str| {
            let args = [&verify[..], &["-CRLfile", "ca.crl", id]].concat();
            openssl(folder.path(), &args)
        };
        authority.write_crl(&mut inventory, None).unwrap();
        accepted(&verify("meter-1"));
        let targets = [Target::Id("meter-1".to_owned())];
        let revocation = Revocation {
            reason: Some(Reason::KeyCompromise),
            ..Revocation::default()
        };
        authority
            .revoke(&mut inventory, &targets, revocation, None)
            .unwrap();
        assert!(crl_path(folder.path()).exists());
        let list = openssl(
            folder.path(),
            &[
                "crl", "-in", "ca.crl", "-CAfile", "ca.crt", "-noout", "-text",
            ],
        );
        accepted(&list);
        let text = String::from_utf8(list.stdout).unwrap();
        assert!(text.contains("Key Compromise"), "{text}");
        assert!(
            String::from_utf8(list.stderr)
                .unwrap()
                .contains("verify OK")
        );
        let refused = verify("meter-1");
        let said = [refused.stdout, refused.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("certificate revoked"), "{said}");
        accepted(&verify("meter-2"));
    }
}

/// A request for meter-1, with key.pem beside it.
fn csr(folder: &Path, key: &[&str], more: &[&str]) -> Vec<u8> {
    let args: &[&str] = &["req", "-new", "-nodes", "-keyout", "key.pem", "-out", "csr"];
    let subject: &[&str] = &["-subj", "/CN=meter-1/O=Acme", "-newkey"];
    accepted(&openssl(folder, &[args, subject, key, more].concat()));
    std::fs::read(folder.join("csr")).unwrap()
}

/// The text with one character of its last full line of base64 exchanged: it belongs to the signature.
fn with_another_signature(pem: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let place = lines.len() - 3;
    let other = if lines[place].ends_with('A') {
        "B"
    } else {
        "A"
    };
    lines[place].pop();
    lines[place].push_str(other);
    (lines.join("\n") + "\n").into_bytes()
}

fn openssl(folder: &Path, args: &[&str]) -> Output {
    Command::new("openssl")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn accepted(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}
