//! Whether a certificate is to be trusted, rule by rule, as the broker and its clients decide it (rustls).
//!
//! Does not know: users and access rules.

use motemq_certs::{
    CertificateFacts, CertsError, Inventory, RevocationList, Status, date, now_unix_s,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a certificate is to be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// To be a client.
    Client,
    /// To be a server.
    Server,
}

/// Something that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) is_good: bool,
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self {
            is_good: true,
            text: text.into(),
        }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self {
            is_good: false,
            text: text.into(),
        }
    }
}

/// What is trusted, and what is revoked.
pub(crate) struct Trust {
    /// `None` where there is no authority to trust.
    verifiers: Option<Verifiers>,
    anchors: Vec<CertificateFacts>,
    from: Vec<PathBuf>,
    lists: Vec<(PathBuf, RevocationList)>,
    inventory: Option<Inventory>,
}

/// How rustls decides.
struct Verifiers {
    client: Arc<dyn ClientCertVerifier>,
    server: Arc<WebPkiServerVerifier>,
}

impl Trust {
    /// Reads the authorities and lists that were named, or else those in `dir`.
    pub(crate) fn open(dir: &Path, ca: &[PathBuf], crl: &[PathBuf]) -> Result<Self, CertsError> {
        let present = |names: &[&str]| -> Vec<PathBuf> {
            let paths = names.iter().map(|name| dir.join(name));
            paths.filter(|path| path.exists()).collect()
        };
        let authorities = if ca.is_empty() {
            present(&["ca.crt", "root.crt"])
        } else {
            ca.to_vec()
        };
        // The list of one authority says nothing about others.
        let lists = match (crl.is_empty(), ca.is_empty()) {
            (true, true) => present(&["ca.crl"]),
            _ => crl.to_vec(),
        };
        let mut trust = Self {
            verifiers: None,
            anchors: Vec::new(),
            from: authorities,
            lists: Vec::new(),
            inventory: ca.is_empty().then(|| Inventory::open(dir)).transpose()?,
        };
        let mut roots = RootCertStore::empty();
        for path in trust.from.clone() {
            trust.take_authorities(&path, &mut roots)?;
        }
        for path in lists {
            let list = RevocationList::parse(&read(&path)?);
            let list = list.map_err(|error| in_file(&path, &error.to_string()))?;
            trust.lists.push((path, list));
        }
        if !roots.is_empty() {
            let verifiers = Verifiers::new(roots.into(), &trust.lists);
            trust.verifiers = Some(verifiers.map_err(|problem| in_file(dir, &problem))?);
        }
        Ok(trust)
    }

    fn take_authorities(
        &mut self,
        path: &Path,
        roots: &mut RootCertStore,
    ) -> Result<(), CertsError> {
        let certificates = certificates(&read(path)?);
        if certificates.is_empty() {
            return Err(in_file(path, "holds no certificate"));
        }
        for certificate in certificates {
            self.anchors.push(CertificateFacts::of_der(&certificate)?);
            let added = roots.add(certificate);
            added.map_err(|error| in_file(path, &error.to_string()))?;
        }
        Ok(())
    }

    /// Checks a certificate with what was shown or lies with it.
    pub(crate) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Option<Purpose>,
        name: Option<&str>,
    ) -> Result<Vec<Finding>, CertsError> {
        let Some((leaf, others)) = chain.split_first() else {
            return Ok(vec![Finding::bad("there is no certificate")]);
        };
        let facts = CertificateFacts::of_der(leaf)?;
        let mut findings = vec![dates("it", &facts)];
        let chain = self.chain(leaf, others, &facts, purpose, name);
        let is_ours = chain.iter().all(|finding| finding.is_good);
        findings.extend(chain);
        findings.extend(self.lists_in_time());
        findings.extend(self.known(&facts, is_ours));
        Ok(findings)
    }

    /// Signatures, usage, names and lists, in the order in which rustls looks at them.
    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        facts: &CertificateFacts,
        purpose: Option<Purpose>,
        name: Option<&str>,
    ) -> Vec<Finding> {
        let from = self.from.iter().map(|path| path.display().to_string());
        let from = from.collect::<Vec<_>>().join(", ");
        let Some(verifiers) = &self.verifiers else {
            return vec![Finding::bad(
                "there is no authority to check it with: name one with --ca",
            )];
        };
        if facts.is_authority {
            return vec![self.authority(facts, &from)];
        }
        let is_server = facts.usage.iter().any(|usage| usage == "serverAuth");
        let purpose = purpose.unwrap_or(if is_server {
            Purpose::Server
        } else {
            Purpose::Client
        });
        // Validity was said; here the rest counts, at a time when the certificate is valid.
        let now = now_unix_s().clamp(facts.not_before, facts.not_after);
        let time = std::time::Duration::from_secs(u64::try_from(now).unwrap_or(0));
        let time = UnixTime::since_unix_epoch(time);
        let verified = match purpose {
            Purpose::Client => verifiers.client(leaf, others, time),
            Purpose::Server => verifiers.server(leaf, others, facts, name, time),
        };
        let trusted = Finding::good(format!("signed by an authority of {from}"));
        let does = match purpose {
            Purpose::Client => "act as a client",
            Purpose::Server => "act as a server",
        };
        match verified {
            Ok(()) => {
                let mut findings = vec![trusted, Finding::good(format!("may {does}"))];
                if let Some(name) = name {
                    findings.push(Finding::good(format!("is for {name}")));
                }
                findings.push(self.not_listed(facts));
                findings
            }
            Err(error) => vec![Finding::bad(self.words(&error, facts, does, &from))],
        }
    }

    /// Of a certificate that no list names.
    fn not_listed(&self, facts: &CertificateFacts) -> Finding {
        let mut lists = self.lists.iter();
        if self.lists.is_empty() {
            Finding::good("there was no list of revoked certificates to look into")
        } else if lists.any(|(_, list)| list.issuer == facts.issuer) {
            Finding::good("not revoked")
        } else {
            Finding::bad("whether it is revoked is unknown: the list is not of its issuer")
        }
    }

    /// An authority's own certificate, or an intermediate's.
    fn authority(&self, facts: &CertificateFacts, from: &str) -> Finding {
        let mut anchors = self.anchors.iter();
        if anchors.any(|anchor| anchor.fingerprint == facts.fingerprint) {
            Finding::good(format!("an authority that {from} holds"))
        } else {
            Finding::bad(format!(
                "an authority that is not in {from}: name it with --ca to trust it"
            ))
        }
    }

    /// Lists that should have been written anew say nothing about who was revoked since.
    fn lists_in_time(&self) -> Vec<Finding> {
        let now = now_unix_s();
        let old = self.lists.iter().filter_map(|(path, list)| {
            let next = list.next_update_unix_s.filter(|next| *next < now)?;
            Some(Finding::bad(format!(
                "{} was valid until {}: run `motemq-certs crl`",
                path.display(),
                date(next)
            )))
        });
        let authorities = self.anchors.iter().filter(|anchor| anchor.days_left < 0);
        let ended =
            authorities.map(|anchor| dates(&format!("the authority {}", anchor.subject), anchor));
        old.chain(ended).collect()
    }

    /// What the inventory says of it.
    fn known(&self, facts: &CertificateFacts, is_ours: bool) -> Option<Finding> {
        let inventory = self.inventory.as_ref()?;
        let entry = inventory.with_serial(&facts.serial);
        if facts.is_authority || inventory.entries().next().is_none() {
            return None;
        }
        Some(match entry {
            // What another authority issued is not in it, and that was said already.
            None if !is_ours => return None,
            None => Finding::bad("the inventory does not know it"),
            Some(entry) if entry.status == Status::Revoked => {
                let reason = entry.reason.as_deref().unwrap_or("no reason given");
                Finding::bad(format!(
                    "the inventory says revoked {} ({reason})",
                    date(entry.at)
                ))
            }
            Some(entry) => Finding::good(format!(
                "the inventory knows it: {} {}",
                entry.kind, entry.id
            )),
        })
    }

    fn words(&self, error: &Error, facts: &CertificateFacts, does: &str, from: &str) -> String {
        let Error::InvalidCertificate(error) = error else {
            return error.to_string();
        };
        match error {
            CertificateError::UnknownIssuer => {
                format!(
                    "not signed by an authority of {from}: it says {}; name that one with --ca",
                    facts.issuer
                )
            }
            CertificateError::BadSignature => {
                format!(
                    "its signature is not that of the authority in {from}, although the names agree"
                )
            }
            CertificateError::Revoked => {
                let mut listed = self.lists.iter().flat_map(|(_, list)| &list.revoked);
                let listed = listed.find(|revoked| revoked.serial == facts.serial);
                let since = listed.map(|revoked| format!(" since {}", date(revoked.at_unix_s)));
                format!(
                    "revoked{}",
                    since.unwrap_or_else(|| ", or its issuer is".to_owned())
                )
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                format!("may not {does}: its usage is {}", facts.usage.join(", "))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "is not for that name: its names are {}",
                    facts.names.join(", ")
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "an authority above it has expired".to_owned()
            }
            error => error.to_string(),
        }
    }
}

impl Verifiers {
    fn new(roots: Arc<RootCertStore>, lists: &[(PathBuf, RevocationList)]) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let lists = lists.iter().map(|(_, list)| list.der().to_vec());
        let lists: Vec<_> = lists.map(CertificateRevocationListDer::from).collect();
        let client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let client = client
            .with_crls(lists.clone())
            .allow_unknown_revocation_status();
        let server = WebPkiServerVerifier::builder_with_provider(roots, provider);
        let server = server.with_crls(lists).allow_unknown_revocation_status();
        Ok(Self {
            client: client.build().map_err(|error| error.to_string())?,
            server: server.build().map_err(|error| error.to_string())?,
        })
    }

    fn client(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        time: UnixTime,
    ) -> Result<(), Error> {
        let verified = self.client.verify_client_cert(leaf, others, time);
        verified.map(drop)
    }

    fn server(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        facts: &CertificateFacts,
        name: Option<&str>,
        time: UnixTime,
    ) -> Result<(), Error> {
        // Without a name to ask for, its own: a wildcard stands for any label. Who has none is found out before names are looked at.
        let own = facts.names.iter().map(|name| name.replace('*', "any"));
        let own = own.chain(["localhost".to_owned()]);
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned()).ok(),
            None => own.map(ServerName::try_from).find_map(Result::ok),
        };
        let name = name.ok_or(Error::InvalidCertificate(CertificateError::NotValidForName))?;
        let verified = self
            .server
            .verify_server_cert(leaf, others, &name, &[], time);
        verified.map(drop)
    }
}

/// Whether a certificate is valid now.
fn dates(what: &str, facts: &CertificateFacts) -> Finding {
    let now = now_unix_s();
    if now < facts.not_before {
        return Finding::bad(format!(
            "{what} is valid only from {}: is this machine's clock right?",
            date(facts.not_before)
        ));
    }
    if now > facts.not_after {
        return Finding::bad(format!("{what} expired on {}", date(facts.not_after)));
    }
    Finding::good(format!(
        "valid until {}, {} days",
        date(facts.not_after),
        facts.days_left
    ))
}

/// The certificates in a file, PEM or DER.
pub(crate) fn certificates(bytes: &[u8]) -> Vec<CertificateDer<'static>> {
    if bytes.first() == Some(&0x30) {
        return vec![CertificateDer::from(bytes.to_vec())];
    }
    CertificateDer::pem_slice_iter(bytes)
        .filter_map(Result::ok)
        .collect()
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CertsError> {
    fs::read(path).map_err(|source| CertsError::File {
        path: path.to_owned(),
        source,
    })
}

fn in_file(path: &Path, problem: &str) -> CertsError {
    CertsError::InFile {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}
