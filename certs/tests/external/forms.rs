//! Other programs read each form that a batch can be written in, and make connections with it.

use super::{certs, printed, run};
use std::fs;
use std::path::Path;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn openssl_and_python_open_pkcs12() {
    let site = site("--intermediate");
    let folder = site.path();
    fs::write(folder.join("password"), "pä ss\n").unwrap();
    for key in ["p256", "p384", "ed25519", "rsa2048"] {
        certs(
            folder,
            &format!(
                "batch --count 1 --prefix {key}- --digits 1 --key {key} --chain --format p12 --files out --p12-password-file password"
            ),
        );
        let file = format!("out/{key}-1.p12");
        let told = ["pkcs12", "-in", &file, "-passin", "file:password", "-nodes"];
        let text = printed(folder, "openssl", &told);
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2, "{text}");
        assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1, "{text}");
        let wrong = ["pkcs12", "-in", &file, "-passin", "pass:wrong", "-nodes"];
        assert!(!run(folder, "openssl", &wrong).status.success());
        python(folder, &["p12", &file, "password", &format!("{key}-1")]);
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn der_headers_and_nvs_tables_hold_the_pair() {
    let site = site("");
    let folder = site.path();
    for form in ["der", "c-header", "nvs"] {
        certs(
            folder,
            &format!("batch --count 1 --prefix m- --digits 1 --format {form} --files {form}"),
        );
    }
    python(folder, &["der", "der/m-1.crt.der", "der/m-1.key.der"]);
    python(folder, &["nvs", "nvs/m-1.nvs.csv", "m-1", "pki/ca.crt"]);
    let program = "#include <stdio.h>\n#include \"c-header/m-1.h\"\n#include \"c-header/m-1.h\"\n\
        int main(int argc, char **argv) {\n\
        (void)argv;\n\
        if (argc == 1) return fwrite(mqtt_certificate, 1, sizeof mqtt_certificate, stdout) ? 0 : 1;\n\
        if (argc == 2) return fwrite(mqtt_private_key, 1, sizeof mqtt_private_key, stdout) ? 0 : 1;\n\
        return puts(mqtt_client_id) + (int)sizeof mqtt_ca_certificate < 0;\n}\n";
    fs::write(folder.join("main.c"), program).unwrap();
    printed(
        folder,
        "cc",
        &[
            "-Wall",
            "-Wextra",
            "-Werror",
            "-std=c99",
            "-pedantic",
            "main.c",
            "-o",
            "main",
        ],
    );
    let main = folder.join("main").display().to_string();
    for (file, arguments) in [("c.crt", &[][..]), ("c.key", &["key"])] {
        let output = run(folder, &main, arguments).stdout;
        fs::write(folder.join(file), output).unwrap();
    }
    python(folder, &["der", "c.crt", "c.key"]);
    assert_eq!(printed(folder, &main, &["the", "id"]), "m-1\n");
}

/// Python from 3.13 on verifies with `VERIFY_X509_STRICT`; here it is switched on.
#[test]
#[ignore = "needs programs that .ci/run installs"]
fn python_connects_strictly_with_what_was_issued() {
    for (init, root) in [("", "pki/ca.crt"), ("--intermediate", "pki/root.crt")] {
        let site = site(init);
        let folder = site.path();
        certs(folder, "server localhost");
        certs(folder, "device meter-1");
        python(
            folder,
            &[
                "connect",
                root,
                "pki/ca.crt",
                "pki/server",
                "pki/devices/meter-1",
            ],
        );
        // A device in the place of the broker.
        let swapped = [
            "connect",
            root,
            "pki/ca.crt",
            "pki/devices/meter-1",
            "pki/server",
        ];
        assert!(!run_python(folder, &swapped).status.success());
    }
}

fn site(init: &str) -> tempfile::TempDir {
    let site = tempfile::tempdir().unwrap();
    certs(site.path(), format!("init {init}").trim());
    site
}

fn python(folder: &Path, arguments: &[&str]) {
    let output = run_python(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
}

fn run_python(folder: &Path, arguments: &[&str]) -> std::process::Output {
    let script = include_str!("forms.py");
    run(folder, "python3", &[&["-c", script], arguments].concat())
}
