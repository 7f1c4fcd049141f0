//! A device with nothing but curl and openssl enrols and renews over EST.

use super::{certs, printed, run};
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use tempfile::TempDir;

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn curl_gets_the_authority_and_openssl_verifies_with_it() {
    for intermediate in ["", " --intermediate"] {
        let site = Site::start(intermediate);
        let answer = site.curl("cacerts", "");
        assert_eq!(answer.0, 200);
        site.keep("cacerts", "authority.crt");
        let verified =
            site.openssl("verify -CAfile authority.crt -purpose sslserver pki/server.crt");
        assert_eq!(verified, "pki/server.crt: OK\n");
        assert_eq!(site.curl("csrattrs", ""), (204, String::new()));
        let count = fs::read_to_string(site.path("authority.crt")).unwrap();
        let count = count.matches("BEGIN CERTIFICATE").count();
        assert_eq!(count, if intermediate.is_empty() { 1 } else { 2 });
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn curl_enrols_with_a_claim_and_renews_with_what_it_got() {
    for intermediate in ["", " --intermediate"] {
        let site = Site::start(intermediate);
        site.curl("cacerts", "");
        site.keep("cacerts", "authority.crt");
        certs(site.folder(), "claim line-4");
        let claim = "--cert pki/claims/line-4.crt --key pki/claims/line-4.key";
        for (key, operation, shows) in [
            ("first", "simpleenroll", claim),
            (
                "second",
                "simplereenroll",
                "--cert first.crt --key first.key",
            ),
            (
                "third",
                "simpleenroll",
                "--cert second.crt --key second.key",
            ),
        ] {
            site.request(key, "meter-1");
            let tls = if key == "second" {
                "--tls-max 1.2"
            } else {
                "--tlsv1.3"
            };
            let line = format!("{shows} {tls} --data-binary @{key}.b64");
            let (status, body) = site.curl(operation, &line);
            assert_eq!(status, 200, "{body}");
            site.keep(operation, &format!("{key}.crt"));
            let of_key = site.openssl(&format!("pkey -in {key}.key -pubout"));
            assert_eq!(
                site.openssl(&format!("x509 -in {key}.crt -noout -pubkey")),
                of_key
            );
            let verify = format!("verify -CAfile authority.crt -purpose sslclient {key}.crt");
            assert_eq!(site.openssl(&verify), format!("{key}.crt: OK\n"));
            let subject = site.openssl(&format!(
                "x509 -in {key}.crt -noout -subject -nameopt RFC2253"
            ));
            assert_eq!(subject, "subject=CN=meter-1\n");
        }
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn curl_enrols_with_a_token_as_password_whatever_the_form() {
    let site = Site::start("");
    for (id, form, anyauth) in [
        ("meter-1", "b64", ""),
        ("meter-2", "csr", "--anyauth"),
        ("meter-3", "der", ""),
    ] {
        let printed = certs(site.folder(), &format!("token {id}"));
        let token = printed.lines().find(|line| line.starts_with(id)).unwrap();
        let token = token.split(',').nth(1).unwrap();
        site.request(id, id);
        let line = format!("{anyauth} -u {id}:{token} --data-binary @{id}.{form}");
        let (status, body) = site.curl("simpleenroll", &line);
        assert_eq!(status, 200, "{body}");
        site.keep("simpleenroll", "device.crt");
        let subject = site.openssl("x509 -in device.crt -noout -subject -nameopt RFC2253");
        assert_eq!(subject, format!("subject=CN={id}\n"));
    }
}

#[test]
#[ignore = "needs programs that .ci/run installs"]
fn curl_is_told_why_it_gets_nothing() {
    let site = Site::start("");
    certs(site.folder(), "claim line-4");
    certs(site.folder(), "claim line-5");
    certs(site.folder(), "revoke line-5");
    let claim = "--cert pki/claims/line-4.crt --key pki/claims/line-4.key";
    let revoked = "--cert pki/claims/line-5.crt --key pki/claims/line-5.key";
    for (name, id) in [("meter", "meter-1"), ("gauge", "gauge-1")] {
        site.request(name, id);
    }
    fs::write(site.path("bad.b64"), "MAA=").unwrap();
    for (shows, body, status, word) in [
        ("", "meter.b64", 401, "token-needed"),
        ("-u meter-1:wrong", "meter.b64", 403, "token-unknown"),
        (claim, "gauge.b64", 403, "not-on-allow-list"),
        (revoked, "meter.b64", 403, "claim-invalid"),
        (claim, "bad.b64", 400, "bad-request"),
        (claim, "meter.b64", 200, ""),
        // The same request has the same answer, another key has none.
        (claim, "meter.b64", 200, ""),
        (claim, "other.b64", 403, "already-enrolled"),
    ] {
        if body == "other.b64" {
            site.request("other", "meter-1");
        }
        let line = format!("{shows} --data-binary @{body}");
        let (found, text) = site.curl("simpleenroll", &line);
        assert_eq!(found, status, "{text}");
        assert!(text.starts_with(word), "{text}");
    }
}

/// A running service in a folder, whose allow-list has meters.
struct Site {
    folder: TempDir,
    service: Child,
    port: String,
}

impl Site {
    fn start(intermediate: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certs(folder.path(), &format!("init{intermediate}"));
        certs(folder.path(), "server localhost");
        fs::write(folder.path().join("allow.txt"), "meter-*\n").unwrap();
        let mut service = Command::new(env!("CARGO_BIN_EXE_motemq-certs"))
            .args(["serve", "--est", "127.0.0.1:0", "--allow", "allow.txt"])
            .args(["--per-id-interval", "0"])
            .current_dir(&folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(service.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let port = line.split("127.0.0.1:").nth(1).unwrap();
        let port = port.split('/').next().unwrap().to_owned();
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Self {
            folder,
            service,
            port,
        }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder().join(name)
    }

    fn openssl(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        printed(self.folder(), "openssl", &arguments)
    }

    /// A new key NAME.key, and a signing request for `id` as NAME.csr, NAME.der and NAME.b64.
    fn request(&self, name: &str, id: &str) {
        let new = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        self.openssl(&format!(
            "{new} -keyout {name}.key -subj /CN={id} -out {name}.csr"
        ));
        self.openssl(&format!("req -in {name}.csr -outform DER -out {name}.der"));
        self.openssl(&format!("base64 -in {name}.der -out {name}.b64"));
    }

    /// The status and the body, which is also in the file OPERATION.
    fn curl(&self, operation: &str, more: &str) -> (u16, String) {
        let url = format!(
            "https://localhost:{}/.well-known/est/{operation}",
            self.port
        );
        let has_root = self.path("pki/root.crt").exists();
        let root = if has_root {
            "pki/root.crt"
        } else {
            "pki/ca.crt"
        };
        let fixed = format!("-sS --cacert {root} -o {operation} -w %{{http_code}} -H");
        let mut arguments: Vec<&str> = fixed.split(' ').collect();
        arguments.push("Content-Type: application/pkcs10");
        arguments.extend(more.split(' ').filter(|word| !word.is_empty()));
        arguments.push(&url);
        fs::write(self.path(operation), "").unwrap();
        let status = printed(self.folder(), "curl", &arguments);
        let body = fs::read_to_string(self.path(operation)).unwrap();
        (status.parse().unwrap(), body)
    }

    /// What was answered, as PEM.
    fn keep(&self, operation: &str, file: &str) {
        self.openssl(&format!("base64 -d -in {operation} -out answer.p7"));
        let read = [
            "pkcs7",
            "-inform",
            "DER",
            "-in",
            "answer.p7",
            "-print_certs",
            "-out",
            file,
        ];
        let output = run(self.folder(), "openssl", &read);
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}
