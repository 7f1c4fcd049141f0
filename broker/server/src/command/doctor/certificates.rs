//! How long the certificates of the listeners are good, and since when.
//!
//! Those that end within thirty days the check of the configuration speaks of.

use super::Finding;
use motemq::clock;
use motemq::config::{Config, ListenerConfig, TlsConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::Path;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let with_tls = config.listeners.iter();
    let with_tls = with_tls.filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
    with_tls
        .flat_map(|(listener, tls)| of_listener(listener, tls))
        .collect()
}

fn of_listener(listener: &ListenerConfig, tls: &TlsConfig) -> Vec<Finding> {
    let files = [
        ("cert", Some(&tls.cert)),
        ("client_ca", tls.client_ca.as_ref()),
    ];
    let files = files.into_iter();
    let files = files.filter_map(|(key, path)| Some((key, path?)));
    files
        .flat_map(|(key, path)| {
            let what = format!("listener {}: {key} {}", listener.name, path.display());
            of_file(&what, path)
        })
        .collect()
}

fn of_file(what: &str, path: &Path) -> Vec<Finding> {
    // A file that cannot be read the check of the configuration names.
    let Ok(certificates) = CertificateDer::pem_file_iter(path) else {
        return Vec::new();
    };
    let now_s = i64::try_from(clock::now().as_ms() / 1000).unwrap_or(i64::MAX);
    let certificates = certificates.filter_map(Result::ok);
    certificates
        .filter_map(|certificate| of_certificate(what, &certificate, now_s))
        .collect()
}

fn of_certificate(what: &str, certificate: &CertificateDer<'_>, now_s: i64) -> Option<Finding> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let from = motemq_certs::date(validity.not_before.timestamp());
    let until = motemq_certs::date(validity.not_after.timestamp());
    let what = format!("{what} ({})", parsed.subject());
    if now_s < validity.not_before.timestamp() {
        return Some(Finding::failed(
            CERTIFICATES,
            format!(
                "{what} is valid from {from} on, which by the clock of this machine is not yet"
            ),
            "set the clock (timedatectl set-ntp true); if it is right, make a new certificate",
        ));
    }
    let left_s = validity.not_after.timestamp() - now_s;
    if left_s < 0 {
        return Some(Finding::failed(
            CERTIFICATES,
            format!("{what} has expired on {until}"),
            "renew it, or set the clock if that is wrong; motemq reload takes the new file",
        ));
    }
    let days = left_s / DAY_S;
    Some(Finding::ok(
        CERTIFICATES,
        format!("{what} is valid until {until}, {days} days"),
    ))
}

const CERTIFICATES: &str = "certificates";
const DAY_S: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use motemq_certs::Authority;

    #[test]
    fn a_certificate_is_judged_by_its_dates_and_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test").unwrap();
        let file = folder.path().join("server.crt");
        let issued = authority.issue_server(&["localhost".to_owned()]).unwrap();
        issued.write(&file, &folder.path().join("key")).unwrap();
        let found = of_file("cert", &file);
        assert!(!found.is_empty() && found.iter().all(|found| found.verdict == Verdict::Ok));
        let certificate = CertificateDer::from_pem_file(&file).unwrap();
        let now_s = motemq_certs::now_unix_s();
        let at = |now_s| of_certificate("cert", &certificate, now_s).unwrap();
        let before = at(now_s - 10_000 * DAY_S);
        assert!(before.message.contains("not yet") && before.verdict == Verdict::Failed);
        let after = at(now_s + 10_000 * DAY_S);
        assert!(after.message.contains("has expired on 20") && after.verdict == Verdict::Failed);
    }
}
