//! `inspect`: what is in a file, or what a broker shows.

use super::probe::{Asks, Peer, Shown, probe};
use super::trust::{Purpose, Trust, read};
use motemq_certs::{
    CertificateFacts, CertsError, Facts, Inventory, Kind, RequestFacts, RevocationList, Status,
    date, date_time, facts,
};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A file with certificates, requests, lists or keys, PEM or DER; or a broker's TLS listener, as HOST:PORT.
    #[arg(required = true, value_name = "FILE|HOST:PORT")]
    what: Vec<String>,
    /// The authority that a broker's certificate is checked with [default: ca.crt and root.crt in the directory].
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,
    /// Print JSON; times are in seconds since 1970.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(dir: &Path, arguments: &Arguments) -> Result<String, CertsError> {
    let inventory = Inventory::open(dir)?;
    let mut text = String::new();
    let mut values = Vec::new();
    for what in &arguments.what {
        let path = Path::new(what);
        if let Some(peer) = Peer::parse(what).filter(|_| !path.exists()) {
            let shown = probe(&peer)?;
            let trust = Trust::open(dir, &arguments.ca, &[])?;
            let problems = problems(&trust, &shown, &peer)?;
            describe_peer(&mut text, what, &shown, &problems, &inventory)?;
            values.push(peer_value(what, &shown, &problems)?);
            continue;
        }
        let in_file = |problem: String| CertsError::InFile {
            path: path.to_owned(),
            problem,
        };
        let bytes = read(path).map_err(|error| not_found(what, path, error))?;
        let facts = facts(&bytes).map_err(|error| in_file(error.to_string()))?;
        let _ = writeln!(text, "{what}");
        for facts in &facts {
            describe(&mut text, facts, &inventory);
            let mut value = serde_json::to_value(facts)?;
            if let Value::Object(fields) = &mut value {
                fields.insert("file".to_owned(), json!(what));
            }
            values.push(value);
        }
    }
    if arguments.json {
        return Ok(format!("{:#}\n", Value::Array(values)));
    }
    Ok(text)
}

/// A name without a port may be a host that was meant.
fn not_found(what: &str, path: &Path, error: CertsError) -> CertsError {
    if path.exists() || what.contains('/') {
        return error;
    }
    CertsError::InFile {
        path: path.to_owned(),
        problem: "there is no such file; to ask a broker give HOST:PORT, such as localhost:8883"
            .to_owned(),
    }
}

/// Why the broker's certificate would not be trusted.
fn problems(trust: &Trust, shown: &Shown, peer: &Peer) -> Result<Vec<String>, CertsError> {
    let findings = trust.check(&shown.chain, Some(Purpose::Server), Some(&peer.host))?;
    let bad = findings.into_iter().filter(|finding| !finding.is_good);
    Ok(bad.map(|finding| finding.text).collect())
}

fn describe_peer(
    text: &mut String,
    what: &str,
    shown: &Shown,
    problems: &[String],
    inventory: &Inventory,
) -> Result<(), CertsError> {
    let asks = match shown.asks {
        Asks::No => "not asked for (client_cert = \"none\")",
        Asks::Optional => "asked for, not required (client_cert = \"optional\")",
        Asks::Required => "required (client_cert = \"required\")",
    };
    let trusted = if problems.is_empty() {
        "yes".to_owned()
    } else {
        format!("no: {}", problems.join("; "))
    };
    let _ = writeln!(
        text,
        "{what}\nprotocol     {}, {}, key exchange {}\nclient's     certificate {asks}\ntrusted      {trusted}",
        shown.version, shown.cipher, shown.key_exchange
    );
    for certificate in &shown.chain {
        describe_certificate(text, &CertificateFacts::of_der(certificate)?, inventory);
    }
    Ok(())
}

fn peer_value(what: &str, shown: &Shown, problems: &[String]) -> Result<Value, CertsError> {
    let chain = shown.chain.iter().map(|der| CertificateFacts::of_der(der));
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "type": "peer",
        "peer": what,
        "version": shown.version,
        "cipher": shown.cipher,
        "key_exchange": shown.key_exchange,
        "client_certificate": match shown.asks {
            Asks::No => "none",
            Asks::Optional => "optional",
            Asks::Required => "required",
        },
        "trusted": problems.is_empty(),
        "problems": problems,
        "days_left": chain.first().map(|leaf| leaf.days_left),
        "chain": serde_json::to_value(chain)?,
    }))
}

/// Writing to a string cannot fail, here and below.
fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<13}{value}");
}

fn describe(text: &mut String, facts: &Facts, inventory: &Inventory) {
    match facts {
        Facts::Certificate(certificate) => describe_certificate(text, certificate, inventory),
        Facts::Request(request) => describe_request(text, request),
        Facts::RevocationList(list) => describe_list(text, list),
        Facts::PrivateKey(key) | Facts::PublicKey(key) => {
            let name = match facts {
                Facts::PrivateKey(_) => "private key",
                _ => "public key",
            };
            line(text, name, &key.key_type);
            line(
                text,
                "SHA-256",
                &format!("{} of the public key", key.public_key_sha256),
            );
        }
        Facts::Other { label, problem } => line(text, "other", &format!("{label}: {problem}")),
    }
}

fn describe_certificate(text: &mut String, facts: &CertificateFacts, inventory: &Inventory) {
    let what = match (facts.is_authority, facts.kind) {
        (true, _) if facts.subject == facts.issuer => "a root",
        (true, _) => "an intermediate",
        (false, Some(Kind::Server)) => "a server",
        (false, Some(Kind::Device)) => "a device",
        (false, Some(Kind::Claim)) => "a claim",
        (false, Some(Kind::Service)) => "an enrolment service",
        (false, None) => "not of a kind that is issued here",
    };
    line(text, "certificate", &format!("{}, {what}", facts.subject));
    line(text, "issuer", &facts.issuer);
    line(text, "serial", &facts.serial);
    if !facts.names.is_empty() {
        line(text, "names", &facts.names.join(", "));
    }
    if !facts.permitted.is_empty() {
        line(text, "issues for", &facts.permitted.join(", "));
    }
    line(text, "usage", &facts.usage.join(", "));
    line(
        text,
        "key",
        &format!("{}, SHA-256 {}", facts.key_type, facts.public_key_sha256),
    );
    let left = if facts.days_left < 0 {
        "expired".to_owned()
    } else {
        format!("{} days left", facts.days_left)
    };
    let (from, until) = (date(facts.not_before), date(facts.not_after));
    line(text, "valid", &format!("{from} to {until}, {left}"));
    line(text, "SHA-256", &facts.fingerprint);
    line(text, "size", &format!("{} bytes", facts.bytes));
    if let Some(entry) = inventory.with_serial(&facts.serial) {
        let status = match entry.status {
            Status::Issued => format!("issued {}", date(entry.at)),
            Status::Revoked => {
                let reason = entry.reason.as_deref().unwrap_or("no reason given");
                format!("revoked {} ({reason})", date(entry.at))
            }
        };
        line(text, "inventory", &status);
    }
}

fn describe_request(text: &mut String, facts: &RequestFacts) {
    let name = facts.common_name.as_deref().unwrap_or("nobody is named");
    line(text, "request", name);
    if let Some(key_type) = &facts.key_type {
        line(text, "key", &format!("{key_type}; the signature is right"));
    }
    if !facts.names.is_empty() {
        line(text, "names", &facts.names.join(", "));
    }
    match &facts.problem {
        Some(problem) => line(text, "refused", problem),
        None if facts.not_granted.is_empty() => line(text, "granted", "everything"),
        None => line(text, "not granted", &facts.not_granted.join(", ")),
    }
}

fn describe_list(text: &mut String, list: &RevocationList) {
    line(
        text,
        "list",
        &format!("of revoked certificates, {} on it", list.revoked.len()),
    );
    line(text, "issuer", &list.issuer);
    if let Some(number) = list.number {
        line(text, "number", &number.to_string());
    }
    let until = list
        .next_update_unix_s
        .map_or_else(|| "it is replaced".to_owned(), date_time);
    line(
        text,
        "valid",
        &format!("{} until {until}", date_time(list.this_update_unix_s)),
    );
}
