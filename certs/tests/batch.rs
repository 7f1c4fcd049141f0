//! The command line issues for a fleet: what it leaves on disk, also when it is killed.

#![cfg(feature = "cli")]
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{Inventory, certificate_der, fingerprint_sha256};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

#[test]
fn a_batch_issues_what_its_manifest_says() {
    let site = Site::new();
    let list = "id,site\nm-1,berlin\n\"m, 2\",\n";
    fs::write(site.path("ids.csv"), list).unwrap();
    site.done(&["batch", "--from", "ids.csv", "--manifest", "out/m.csv"]);
    let rows = site.manifest("out/m.csv");
    assert_eq!(rows.len(), 2);
    site.check(&rows);
    let inventory = site.inventory();
    let first = inventory.of_id("m-1").next().unwrap();
    assert_eq!(first.attributes["site"], "berlin");
    assert_eq!(first.key_type.as_deref(), Some("p256"));
    assert!(
        inventory
            .of_id("m, 2")
            .next()
            .unwrap()
            .attributes
            .is_empty()
    );
}

#[test]
fn what_is_there_stays_and_what_is_missing_comes() {
    let site = Site::new();
    let batch = [
        "batch",
        "--count",
        "3",
        "--prefix",
        "m-",
        "--manifest",
        "m.csv",
    ];
    site.done(&batch);
    let before = site.manifest("m.csv");
    for suffix in ["crt", "key"] {
        fs::remove_file(site.path("pki/devices/m-000002").with_extension(suffix)).unwrap();
    }
    let told = site.done(&batch);
    assert!(
        told.starts_with("issued       1, and 2 were there already\n"),
        "{told}"
    );
    let after = site.manifest("m.csv");
    site.check(&after);
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1], after[1]);
}

#[test]
fn the_manifest_tells_of_what_is_in_the_files() {
    let site = Site::new();
    let batch = |form: &str| {
        let line = format!(
            "batch --count 1 --prefix m- --files {form} --format {form} --manifest {form}.csv"
        );
        site.done(&line.split(' ').collect::<Vec<_>>());
        site.manifest(&format!("{form}.csv")).remove(0)
    };
    let pem = batch("pem");
    // The same device gets another certificate; the files of the first are as they were.
    let der = batch("der");
    assert_ne!(pem, der);
    assert_eq!(batch("pem"), pem);
    assert_eq!(batch("der"), der);
    fs::write(site.path("der/m-000001.crt.der"), "?").unwrap();
    let told = site.refused(&[
        "batch", "--count", "1", "--prefix", "m-", "--files", "der", "--format", "der",
    ]);
    assert!(
        told.contains("m-000001.crt.der, unknown to the inventory"),
        "{told}"
    );
}

#[test]
fn nothing_is_issued_when_anything_is_wrong() {
    let site = Site::new();
    fs::write(site.path("ids.csv"), "id\nm-1\nm/2\nm-1\n").unwrap();
    let told = site.refused(&["batch", "--from", "ids.csv"]);
    for part in ["ids.csv", "line 3: ", "line 4: "] {
        assert!(told.contains(part), "{told}");
    }
    fs::create_dir_all(site.path("pki/devices")).unwrap();
    fs::write(site.path("pki/devices/m-000002.key"), "?").unwrap();
    let batch = [
        "batch",
        "--count",
        "3",
        "--prefix",
        "m-",
        "--manifest",
        "m.csv",
    ];
    let told = site.refused(&batch);
    assert!(told.contains("m-000002.key without m-000002.crt"), "{told}");
    fs::remove_file(site.path("pki/devices/m-000002.key")).unwrap();
    fs::write(site.path("m.csv"), "dear,diary\n").unwrap();
    let told = site.refused(&batch);
    assert!(told.contains("m.csv is no manifest"), "{told}");
    assert_eq!(site.inventory().entries().count(), 0);
}

#[test]
fn a_manifest_of_other_devices_is_not_replaced() {
    let site = Site::new();
    let of = |prefix| {
        [
            "batch",
            "--count",
            "1",
            "--prefix",
            prefix,
            "--manifest",
            "m.csv",
        ]
    };
    site.done(&of("a-"));
    let told = site.refused(&of("b-"));
    assert!(told.contains("m.csv"), "{told}");
    assert_eq!(site.inventory().entries().count(), 1);
}

#[test]
fn every_form_has_its_files_and_keys_are_the_owners_alone() {
    let site = Site::new();
    fs::write(site.path("password"), "secret\n").unwrap();
    for (form, names) in [
        ("der", vec!["m-1.crt.der", "m-1.key.der"]),
        ("p12", vec!["m-1.p12"]),
        ("c-header", vec!["m-1.h"]),
        ("nvs", vec!["m-1.nvs.csv"]),
    ] {
        let batch = [
            "batch", "--count", "1", "--prefix", "m-", "--digits", "1", "--format", form,
        ];
        let rest = ["--files", form, "--p12-password-file", "password"];
        site.done(&[&batch[..], &rest].concat());
        let mut files: Vec<_> = fs::read_dir(site.path(form))
            .unwrap()
            .map(|file| file.unwrap())
            .collect();
        files.sort_by_key(fs::DirEntry::file_name);
        let found: Vec<_> = files
            .iter()
            .map(|file| file.file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, names);
        #[cfg(unix)]
        for file in files
            .iter()
            .filter(|file| !file.path().ends_with("m-1.crt.der"))
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
        }
    }
    let told = site.refused(&["batch", "--count", "1", "--prefix", "p-", "--format", "p12"]);
    assert!(told.contains("password"), "{told}");
}

/// Killed while its first files are written; staging.rs tests each later moment.
#[test]
fn a_batch_that_was_killed_goes_on_without_a_trace() {
    let site = Site::new();
    let batch = [
        "batch",
        "--count",
        "1000",
        "--prefix",
        "m-",
        "--manifest",
        "m.csv",
    ];
    let mut process = site.command(&batch).spawn().unwrap();
    while !site.path("pki/devices/.batch/files/m-000001.key").exists() {
        assert!(process.try_wait().unwrap().is_none(), "not killed in time");
        std::thread::yield_now();
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(site.path("pki/devices/.batch").exists());
    site.done(&batch);
    assert!(!site.path("pki/devices/.batch").exists());
    let rows = site.manifest("m.csv");
    assert_eq!(rows.len(), 1_000);
    assert_eq!(site.inventory().entries().count(), 1_000);
    site.check(&rows);
}

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.done(&["init"]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn inventory(&self) -> Inventory {
        Inventory::open(&self.path("pki")).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motemq-certs"));
        command.args(arguments).current_dir(self.0.path());
        command.env_remove("MOTEMQ_P12_PASSWORD");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }

    fn manifest(&self, name: &str) -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_path(self.path(name)).unwrap();
        let rows = reader
            .records()
            .map(|row| row.unwrap().iter().map(str::to_owned).collect());
        rows.collect()
    }

    /// Manifest, inventory and files tell the same.
    fn check(&self, rows: &[Vec<String>]) {
        let inventory = self.inventory();
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap();
        let mut keys = HashSet::new();
        for row in rows {
            let entry = inventory.with_serial(&row[1]).unwrap();
            assert_eq!((&entry.id, &entry.fingerprint), (&row[0], &row[2]));
            let der = certificate_der(&read(&row[5])).unwrap();
            assert_eq!(fingerprint_sha256(&der), row[2]);
            let key = rcgen::KeyPair::from_pem(&read(&row[6])).unwrap();
            let public_key = key.public_key_raw();
            assert!(
                der.windows(public_key.len())
                    .any(|bytes| bytes == public_key)
            );
            assert!(keys.insert(public_key.to_vec()));
            assert!(Path::new(&row[5]).starts_with("pki/devices"));
        }
    }
}
