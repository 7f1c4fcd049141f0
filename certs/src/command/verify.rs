//! `verify`: whether certificates are to be trusted, with a sentence for each thing that was looked at.

use super::trust::{Finding, Purpose, Trust, certificates, read};
use motemq_certs::{CertificateFacts, CertsError, Facts, facts};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Certificates, PEM or DER; those that follow the first in a file are its intermediates.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The authority to check with [default: ca.crt and root.crt in the directory].
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// The list of revoked certificates [default: ca.crl in the directory, unless --ca is given].
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    /// What the certificate is to be good for [default: what it says it is].
    #[arg(long)]
    purpose: Option<Purpose>,
    /// A name that a server's certificate must be for; the purpose is `server` then.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let trust = Trust::open(dir, &arguments.ca, &arguments.crl)?;
    let named = arguments.name.as_ref().map(|_| Purpose::Server);
    let purpose = arguments.purpose.or(named);
    let mut text = String::new();
    let mut failed = 0;
    for path in &arguments.files {
        let chain = certificates(&read(path)?);
        let mut findings = trust.check(&chain, purpose, arguments.name.as_deref())?;
        if let Some(leaf) = chain.first() {
            findings.extend(key_beside(path, &CertificateFacts::of_der(leaf)?));
        }
        let is_good = findings.iter().all(|finding| finding.is_good);
        failed += usize::from(!is_good);
        let verdict = if is_good { "good" } else { "NOT GOOD" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {verdict}", path.display());
        for finding in findings {
            let mark = if finding.is_good {
                "  ok   "
            } else {
                "  BAD  "
            };
            let _ = writeln!(text, "{mark}{}", finding.text);
        }
    }
    if failed == 0 {
        return Ok(text);
    }
    let _ = io::stdout().write_all(text.as_bytes());
    Err(CertsError::NotAll(failed, "verified"))
}

/// Whether the key beside a certificate is its own, and nobody else's.
fn key_beside(path: &Path, facts: &CertificateFacts) -> Vec<Finding> {
    let key = path.with_extension("key");
    if !key.exists() || key == path {
        return Vec::new();
    }
    let name = key.display();
    let mut findings = vec![match public_key_of(&key) {
        // Not for whoever looks.
        Err(CertsError::File { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            return Vec::new();
        }
        Err(error) => Finding::bad(error.to_string()),
        Ok(None) => Finding::bad(format!("{name} holds no private key that can be read")),
        Ok(Some(sha256)) if sha256 == facts.public_key_sha256 => {
            Finding::good(format!("{name} is its key"))
        }
        Ok(Some(_)) => Finding::bad(format!(
            "{name} is another key: restore the pair from one backup, or run `motemq-certs renew`"
        )),
    }];
    #[cfg(unix)]
    if let Ok(metadata) = key.metadata() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            findings.push(Finding::bad(format!(
                "{name} can be read by everybody ({mode:o}): chmod 600 {name}"
            )));
        }
    }
    findings
}

fn public_key_of(path: &Path) -> Result<Option<String>, CertsError> {
    let facts = facts(&read(path)?);
    let facts = facts.map_err(|error| CertsError::InFile {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(facts.into_iter().find_map(|facts| match facts {
        Facts::PrivateKey(key) => Some(key.public_key_sha256),
        _ => None,
    }))
}
