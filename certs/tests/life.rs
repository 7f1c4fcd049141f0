//! The life of a certificate on the command line: asked for, signed, renewed, revoked.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{Held, Inventory, Kind, Status, certificate_names};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

#[test]
fn a_request_becomes_the_certificate_of_its_key() {
    let tool = Tool::new();
    let (csr, key) = request("meter-1");
    let file = tool.file("meter-1.csr", csr.pem().unwrap().as_bytes());
    let said = tool.done(&["sign-csr", &file]);
    assert!(said.contains("devices/meter-1.crt"), "{said}");
    assert!(!tool.path("pki/devices/meter-1.key").exists());
    let held = tool.held("devices/meter-1");
    assert_eq!(
        held.public_key(),
        &motemq_certs::PublicKey::from_pem(&key.public_key_pem()).unwrap()
    );
    let entry = tool.inventory().with_serial(held.serial()).cloned();
    assert_eq!(entry.unwrap().id, "meter-1");

    // Once more is no accident that goes unnoticed.
    let error = tool.refused(&["sign-csr", &file]);
    assert!(error.contains("--replace"), "{error}");
    tool.done(&["sign-csr", &file, "--replace"]);
    assert_ne!(tool.held("devices/meter-1").serial(), held.serial());
    let kept = format!("pki/devices/meter-1.crt.{}", held.serial());
    assert!(tool.path(&kept).exists());
}

#[test]
fn a_new_key_takes_the_place_of_an_old_one_only_when_that_is_said() {
    let tool = Tool::new();
    for number in [1, 2] {
        let (csr, _) = request("meter-1");
        let name = format!("{number}.csr");
        tool.file(&name, csr.der());
    }
    tool.done(&["sign-csr", &tool.text("1.csr")]);
    let error = tool.refused(&["sign-csr", &tool.text("2.csr")]);
    assert!(error.contains("another key"), "{error}");
    tool.done(&["sign-csr", &tool.text("2.csr"), "--replace"]);

    // A key that lies here would not belong to the certificate any more.
    tool.done(&["device", "meter-2"]);
    let (csr, _) = request("meter-2");
    let file = tool.file("3.csr", csr.der());
    let error = tool.refused(&["sign-csr", &file, "--replace"]);
    assert!(error.contains("meter-2.key"), "{error}");
}

#[test]
fn of_a_folder_each_request_without_a_certificate_is_signed() {
    let tool = Tool::new();
    for id in ["meter-1", "meter-2", "meter-3"] {
        let (csr, _) = request(id);
        tool.file(&format!("csr/{id}.csr"), csr.pem().unwrap().as_bytes());
    }
    tool.done(&["sign-csr", &tool.text("csr/meter-1.csr")]);
    tool.file("csr/broken.csr", b"nothing");
    tool.file("csr/README", b"no request");
    let output = tool.run(&["sign-csr", &tool.text("csr")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("2 signed, 1 had a certificate, 1 refused"),
        "{said}"
    );
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("broken.csr")
    );
    fs::remove_file(tool.path("csr/broken.csr")).unwrap();
    let said = tool.done(&["sign-csr", &tool.text("csr")]);
    assert!(
        said.contains("0 signed, 3 had a certificate, 0 refused"),
        "{said}"
    );
    assert_eq!(tool.inventory().entries().count(), 3);
}

#[test]
fn renewing_a_server_keeps_its_names_and_the_old_pair() {
    let tool = Tool::new();
    tool.done(&["server", "broker.example", "10.0.0.5", "--days", "20"]);
    let (old, old_key) = (tool.held("server"), tool.read("pki/server.key"));
    tool.done(&["renew", "--server"]);
    let new = tool.held("server");
    assert_ne!(new.public_key(), old.public_key());
    assert_ne!(tool.read("pki/server.key"), old_key);
    assert_eq!(key_of(&tool.path("pki/server.key")), *new.public_key());
    assert_eq!(
        certificate_names(&tool.read("pki/server.crt")).unwrap(),
        ["broker.example", "10.0.0.5"]
    );
    let day_s = 24 * 60 * 60;
    assert!((new.not_after_unix_s() - old.not_after_unix_s()).abs() < day_s);
    let kept = format!("pki/server.key.{}", old.serial());
    assert_eq!(tool.read(&kept), old_key);
    let entries = tool.inventory();
    assert!(
        entries
            .entries()
            .all(|entry| entry.status == Status::Issued && entry.id == "broker.example")
    );

    tool.done(&["renew", "--server", "--reuse-key", "--days", "397"]);
    let newest = tool.held("server");
    assert_eq!(newest.public_key(), new.public_key());
    assert!(newest.not_after_unix_s() > new.not_after_unix_s() + 300 * day_s);
}

#[cfg(unix)]
#[test]
fn a_renewed_key_is_readable_to_whom_the_old_one_was() {
    use std::os::unix::fs::PermissionsExt as _;
    let tool = Tool::new();
    tool.done(&["server", "localhost"]);
    let mode = || {
        let metadata = fs::metadata(tool.path("pki/server.key")).unwrap();
        metadata.permissions().mode() & 0o777
    };
    tool.done(&["renew", "--server"]);
    assert_eq!(mode(), 0o600);
    let group_may_read = fs::Permissions::from_mode(0o640);
    fs::set_permissions(tool.path("pki/server.key"), group_may_read).unwrap();
    tool.done(&["renew", "--server"]);
    assert_eq!(mode(), 0o640);
}

#[test]
fn within_renews_what_ends_and_nothing_else() {
    let tool = Tool::new();
    tool.done(&["server", "localhost", "--days", "20"]);
    tool.done(&["device", "meter.1", "--days", "10"]);
    tool.done(&["device", "meter-2"]);
    tool.done(&["device", "stolen", "--days", "10"]);
    tool.done(&["revoke", "stolen"]);
    tool.done(&["claim", "line-1", "--days", "5"]);
    let (csr, _) = request("sealed");
    let file = tool.file("sealed.csr", csr.der());
    tool.done(&["sign-csr", &file, "--days", "10"]);
    let before = tool.inventory().entries().count();
    let said = tool.done(&["renew", "--within", "30d", "--days", "365"]);
    for name in ["server.crt", "meter.1.crt", "line-1.crt", "sealed.crt"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(
        !said.contains("stolen") && !said.contains("meter-2"),
        "{said}"
    );
    let after = tool.inventory();
    assert_eq!(after.entries().count(), before + 4);
    assert_eq!(tool.held("claims/line-1").kind(), Kind::Claim);
    assert_eq!(
        tool.done(&["renew", "--within", "30"]),
        "nothing to renew\n"
    );
}

#[test]
fn what_ends_with_its_authority_is_not_renewed_again_and_again() {
    let tool = Tool::new();
    tool.done(&["device", "meter-1", "--days", "36000"]);
    tool.done(&["device", "meter-2", "--days", "10"]);
    let serial = tool.held("devices/meter-1").serial().to_owned();
    let said = tool.done(&["renew", "--within", "9000d"]);
    assert!(said.contains("authority    ends"), "{said}");
    assert!(said.contains("meter-2.crt"), "{said}");
    assert_eq!(tool.held("devices/meter-1").serial(), serial);
}

#[test]
fn an_old_certificate_stays_valid_unless_it_is_revoked() {
    let tool = Tool::new();
    tool.done(&[
        "device",
        "meter-1",
        "--subject",
        "O=Acme",
        "--attr",
        "site=berlin",
    ]);
    let old = tool.held("devices/meter-1");
    tool.done(&["renew", "meter-1"]);
    let new = tool.held("devices/meter-1");
    let status = |serial: &str| tool.inventory().with_serial(serial).unwrap().clone();
    assert_eq!(status(old.serial()).status, Status::Issued);
    assert_eq!(status(new.serial()).attributes["site"], "berlin");
    tool.done(&["renew", "meter-1", "--revoke"]);
    assert_eq!(status(new.serial()).status, Status::Revoked);
    assert_eq!(status(new.serial()).reason.as_deref(), Some("superseded"));
    assert_eq!(status(old.serial()).status, Status::Issued);

    tool.done(&["revoke", "meter-1"]);
    let error = tool.refused(&["renew", "meter-1"]);
    assert!(error.contains("was revoked"), "{error}");
}

#[test]
fn a_crash_between_key_and_certificate_is_put_right_by_renewing_again() {
    let tool = Tool::new();
    tool.done(&["server", "localhost"]);
    let old = tool.read("pki/server.crt");
    tool.done(&["renew", "--server"]);
    fs::write(tool.path("pki/server.crt"), old).unwrap();
    tool.done(&["renew", "--server"]);
    let held = tool.held("server");
    assert_eq!(key_of(&tool.path("pki/server.key")), *held.public_key());
}

#[test]
fn a_manifest_revokes_all_or_none() {
    let tool = Tool::new();
    for id in ["meter-1", "meter-2", "meter-3"] {
        tool.done(&["device", id]);
    }
    let serial = tool.held("devices/meter-2").serial().to_owned();
    let unknown = tool.file("lost.csv", b"site,id\nberlin,meter-1\nparis,meter-9\n");
    let error = tool.refused(&["revoke", "--manifest", &unknown]);
    assert!(error.contains("meter-9"), "{error}");
    let by_id = tool.file("lost.csv", b"id,site\r\n\"meter-1\",\"a,b\"\r\n");
    tool.done(&["revoke", "--manifest", &by_id]);
    let text = format!("serial_hex\n{}\n", serial.to_uppercase());
    let by_serial = tool.file("lost.csv", text.as_bytes());
    tool.done(&["revoke", "--manifest", &by_serial, "--reason", "superseded"]);
    let shown = tool.done(&["crl", "--show"]);
    assert!(
        shown.contains("meter-1") && shown.contains("meter-2"),
        "{shown}"
    );
    assert!(!shown.contains("meter-3"), "{shown}");
    let none = tool.file("lost.csv", b"name\nmeter-3\n");
    let error = tool.refused(&["revoke", "--manifest", &none]);
    assert!(error.contains("no column"), "{error}");
}

#[test]
fn an_authority_has_a_list_from_the_first_day() {
    let tool = Tool::new();
    let shown = tool.done(&["crl", "--show"]);
    assert!(shown.contains("revoked      0"), "{shown}");
    tool.done(&["crl", "--der", &tool.text("list.der"), "--days", "30"]);
    assert_eq!(fs::read(tool.path("list.der")).unwrap()[0], 0x30);
}

struct Tool {
    directory: TempDir,
}

impl Tool {
    /// With an authority.
    fn new() -> Self {
        let tool = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        tool.done(&["init"]);
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        self.text(name)
    }

    fn held(&self, stem: &str) -> Held {
        Held::open(&self.path("pki").join(stem)).unwrap().unwrap()
    }

    fn inventory(&self) -> Inventory {
        Inventory::open(&self.path("pki")).unwrap()
    }
}

fn request(id: &str) -> (rcgen::CertificateSigningRequest, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id);
    (params.serialize_request(&key).unwrap(), key)
}

fn key_of(path: &Path) -> motemq_certs::PublicKey {
    let key = KeyPair::from_pem(&fs::read_to_string(path).unwrap()).unwrap();
    motemq_certs::PublicKey::from_pem(&key.public_key_pem()).unwrap()
}
