//! TLS as small devices speak it: one key share, a certificate each, one session ticket each.
//!
//! Who has no certificate of its own presents that of the run, and the verifier presents that of the run, or, where
//! devices have a manifest, the first one there that no device has.

mod manifest;
mod tickets;

pub(crate) use manifest::Identity;

use crate::SimError;
use crate::endpoint::Endpoint;
use crate::plan::Cohort;
use manifest::{Credentials, Row};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use tickets::Tickets;

/// The files that TLS needs.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The authority that the broker's certificate must come from.
    pub authority: Option<PathBuf>,
    /// The certificate that the verifier and all devices without their own present.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub private_key: Option<PathBuf>,
}

/// How the devices of a cohort speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// The manifest of `motemq-certs batch` with the devices' certificates, which name their client ids. Cohorts
    /// that share one take its rows in turn.
    pub manifest: Option<PathBuf>,
    /// `None` is 1.3 where the broker can, else 1.2.
    pub version: Option<TlsVersion>,
    /// What they can, in the order of preference; a share is sent of the first.
    pub groups: Vec<TlsGroup>,
    /// Whether they keep a ticket.
    pub resumption: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsGroup {
    /// X25519.
    X25519,
    /// P-256.
    Secp256r1,
}

/// The connections of one cohort, or of the verifier.
#[derive(Debug)]
pub(crate) struct Tls {
    config: ClientConfig,
    has_resumption: bool,
    pub(crate) server_name: ServerName<'static>,
}

/// What all connections of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    server_verifier: Arc<dyn ServerCertVerifier>,
    /// The run's certificate.
    credentials: Option<Arc<Credentials>>,
    server_name: ServerName<'static>,
    /// What is left of each manifest.
    manifests: BTreeMap<PathBuf, std::vec::IntoIter<Row>>,
}

impl Default for TlsPlan {
    fn default() -> Self {
        Self {
            manifest: None,
            version: None,
            groups: vec![TlsGroup::X25519, TlsGroup::Secp256r1],
            resumption: true,
        }
    }
}

impl FromStr for TlsVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.2" => Ok(Self::V12),
            "1.3" => Ok(Self::V13),
            _ => Err(format!("TLS {text:?} is unknown: write \"1.2\" or \"1.3\"")),
        }
    }
}

impl FromStr for TlsGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "x25519" => Ok(Self::X25519),
            "secp256r1" => Ok(Self::Secp256r1),
            _ => Err(format!(
                "group {text:?} is unknown: write x25519 or secp256r1"
            )),
        }
    }
}

impl Shared {
    /// Loads the files of the run.
    pub(crate) fn load(files: &TlsFiles, endpoint: &Endpoint) -> Result<Self, SimError> {
        let Some(authority) = &files.authority else {
            return Err(SimError::Options(
                "TLS needs the authority of the broker's certificate: add --cafile pki/ca.crt",
            ));
        };
        let credentials = match (&files.certificate, &files.private_key) {
            (Some(certificate), Some(key)) => Some(Arc::new(Credentials::load(certificate, key)?)),
            (None, None) => None,
            _ => return Err(SimError::Options("--cert and --key go together")),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server_verifier =
            WebPkiServerVerifier::builder_with_provider(roots(authority)?.into(), provider)
                .build()
                .map_err(|error| unusable(authority, error))?;
        let server_name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| SimError::Options("the broker's host is no name that TLS could verify"))?;
        Ok(Self {
            server_verifier,
            credentials,
            server_name,
            manifests: BTreeMap::new(),
        })
    }

    /// Who the devices of a cohort are; nobody in particular without a manifest.
    pub(crate) fn identities(&mut self, cohort: &Cohort) -> Result<Vec<Identity>, SimError> {
        let Some(path) = &cohort.tls.manifest else {
            return Ok(Vec::new());
        };
        if !self.manifests.contains_key(path) {
            let rows = manifest::rows(path)?.into_iter();
            self.manifests.insert(path.clone(), rows);
        }
        let rows = self.manifests.get_mut(path).into_iter().flatten();
        let rows: Vec<Row> = rows.take(cohort.devices as usize).collect();
        if rows.len() < cohort.devices as usize {
            let (name, devices, left) = (&cohort.name, cohort.devices, rows.len());
            return Err(unusable(
                path,
                format!(
                    "cohort {name:?} has {devices} devices, and there are certificates for {left} of them: issue more with \
                     `motemq-certs batch`, or have fewer devices"
                ),
            ));
        }
        rows.iter().map(Identity::load).collect()
    }

    /// How a cohort speaks.
    pub(crate) fn cohort(&self, plan: &TlsPlan) -> Result<Tls, SimError> {
        self.tls(plan, self.credentials.clone())
    }

    /// How the verifier speaks, and its client id, where its certificate asks for one: after all cohorts have taken
    /// their rows.
    pub(crate) fn verifier(&mut self, has_login: bool) -> Result<(Tls, Option<String>), SimError> {
        let row = self.manifests.values_mut().find_map(Iterator::next);
        let (credentials, id) = match (&self.credentials, row) {
            (Some(own), _) if self.manifests.is_empty() => (Some(own.clone()), None),
            (Some(own), _) => (Some(own.clone()), own.client_id().map(str::to_owned)),
            (None, Some(row)) => {
                let identity = Identity::load(&row)?;
                (Some(identity.credentials), Some(identity.id.into()))
            }
            (None, None) if !self.manifests.is_empty() && !has_login => {
                return Err(SimError::Options(
                    "the verifier needs a certificate too: have one more in the manifest than there are devices, or give it one with \
                     --cert and --key",
                ));
            }
            (None, None) => (None, None),
        };
        Ok((self.tls(&TlsPlan::default(), credentials)?, id))
    }

    fn tls(&self, plan: &TlsPlan, credentials: Option<Arc<Credentials>>) -> Result<Tls, SimError> {
        let provider = CryptoProvider {
            kx_groups: plan.groups.iter().copied().map(kx_group).collect(),
            ..aws_lc_rs::default_provider()
        };
        let versions: &[&SupportedProtocolVersion] = match plan.version {
            None => &[&version::TLS13, &version::TLS12],
            Some(TlsVersion::V12) => &[&version::TLS12],
            Some(TlsVersion::V13) => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(self.server_verifier.clone());
        Ok(Tls {
            config: match credentials {
                Some(credentials) => builder.with_client_cert_resolver(credentials),
                None => builder.with_no_client_auth(),
            },
            has_resumption: plan.resumption,
            server_name: self.server_name.clone(),
        })
    }
}

impl Tls {
    /// For clients that differ in nothing.
    pub(crate) fn load(files: &TlsFiles, endpoint: &Endpoint) -> Result<Self, SimError> {
        Shared::load(files, endpoint)?.cohort(&TlsPlan::default())
    }

    /// A configuration whose ticket is one device's own.
    pub(crate) fn device_config(&self) -> Arc<ClientConfig> {
        self.config_for(None)
    }

    /// The same for a device that has its own certificate too.
    pub(crate) fn config_for(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        config.resumption = match self.has_resumption {
            true => Resumption::store(Arc::new(Tickets::default())),
            false => Resumption::disabled(),
        };
        if let Some(identity) = identity {
            let credentials: Arc<dyn ResolvesClientCert> = identity.credentials.clone();
            config.client_auth_cert_resolver = credentials;
        }
        config.into()
    }
}

fn kx_group(group: TlsGroup) -> &'static dyn SupportedKxGroup {
    match group {
        TlsGroup::X25519 => kx_group::X25519,
        TlsGroup::Secp256r1 => kx_group::SECP256R1,
    }
}

fn roots(path: &Path) -> Result<RootCertStore, SimError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SimError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "contains no certificate"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, problem: impl ToString) -> SimError {
    SimError::Certificate {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}
