//! Making an authority: a root, and the intermediate that issues in its place if one is wanted.
//!
//! Invariants: the one that issues may sign leaves only (path length 0). Constraints on names stand in the one that issues.

use crate::authority::{certificate_path, key_path, random_serial, root_path, validity_params};
use crate::clock::FOREVER_UNIX_S;
use crate::files::{self, Access};
use crate::inspect::with_certificate;
use crate::{Authority, CertsError, KeyType, Permitted, Validity, name};
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use std::path::{Path, PathBuf};

/// How long a root is valid unless said otherwise, in years.
pub const ROOT_YEARS: u32 = 20;
/// How long an intermediate is valid unless said otherwise, in years.
pub const INTERMEDIATE_YEARS: u32 = 10;

/// A root that is to be made.
#[derive(Clone, Debug)]
pub struct Root {
    name: String,
    key_type: KeyType,
    validity: Validity,
    permitted: Permitted,
    intermediate: Option<Intermediate>,
}

/// An intermediate that is to be made with the root.
#[derive(Clone, Debug)]
pub struct Intermediate {
    /// How long it is valid.
    pub validity: Validity,
    /// Where the root's key goes; into the authority's directory as `root.key` if not said.
    pub root_key: Option<PathBuf>,
}

impl Root {
    /// A P-256 root called `name`, valid for [`ROOT_YEARS`], that issues itself.
    ///
    /// # Errors
    /// [`CertsError::AuthorityName`] when `name` cannot be a common name.
    pub fn new(name: &str) -> Result<Self, CertsError> {
        name::check_authority_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            key_type: KeyType::P256,
            validity: Validity::of_years(ROOT_YEARS),
            permitted: Permitted::default(),
            intermediate: None,
        })
    }

    /// With keys of another kind, also the intermediate's.
    #[must_use]
    pub const fn key_type(mut self, key_type: KeyType) -> Self {
        self.key_type = key_type;
        self
    }

    /// With another validity.
    #[must_use]
    pub const fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// With the one that issues held to names.
    #[must_use]
    pub fn permitted(mut self, permitted: Permitted) -> Self {
        self.permitted = permitted;
        self
    }

    /// With an intermediate that issues, so that the root's key can be put away.
    #[must_use]
    pub fn intermediate(mut self, intermediate: Intermediate) -> Self {
        self.intermediate = Some(intermediate);
        self
    }

    /// Makes keys and certificates and writes them to `dir`, which is created if need be.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`] when a file is there already: then nothing is changed.
    pub fn create(&self, dir: &Path) -> Result<Authority, CertsError> {
        let root_key = self.key_type.generate()?;
        let path_length = u8::from(self.intermediate.is_some());
        let mut root = params(
            &self.name,
            &root_key,
            path_length,
            self.validity,
            FOREVER_UNIX_S,
        )?;
        if self.intermediate.is_none() {
            root.name_constraints = self.permitted.constraints();
        }
        let root_not_after_unix_s = root.not_after.unix_timestamp();
        let root = CertifiedIssuer::self_signed(root, root_key)?;
        let Some(intermediate) = &self.intermediate else {
            refuse_existing([certificate_path(dir), key_path(dir), root_path(dir)])?;
            files::write_new(&key_path(dir), &root.key().serialize_pem(), Access::Owner)?;
            files::write_new(&certificate_path(dir), &root.pem(), Access::Everyone)?;
            return Authority::open(dir);
        };
        let key = self.key_type.generate()?;
        let name = intermediate_name(&self.name);
        let mut params = params(&name, &key, 0, intermediate.validity, root_not_after_unix_s)?;
        params.use_authority_key_identifier_extension = true;
        params.name_constraints = self.permitted.constraints();
        let certificate_pem = params.signed_by(&key, &root)?.pem();
        let root_key_path = intermediate.root_key.clone();
        let root_key_path = root_key_path.unwrap_or_else(|| dir.join("root.key"));
        let (root_path, certificate_path) = (root_path(dir), certificate_path(dir));
        let key_path = key_path(dir);
        refuse_existing([&root_key_path, &root_path, &key_path, &certificate_path])?;
        // The root's key first: it may go to a medium that is not there.
        files::write_new(&root_key_path, &root.key().serialize_pem(), Access::Owner)?;
        files::write_new(&root_path, &root.pem(), Access::Everyone)?;
        files::write_new(&key_path, &key.serialize_pem(), Access::Owner)?;
        files::write_new(&certificate_path, &certificate_pem, Access::Everyone)?;
        Authority::open(dir)
    }
}

/// What roots and intermediates have in common.
fn params(
    name: &str,
    key: &KeyPair,
    path_length: u8,
    validity: Validity,
    issuer_not_after_unix_s: i64,
) -> Result<CertificateParams, CertsError> {
    let mut params = validity_params(validity, issuer_not_after_unix_s);
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_identifier(key));
    Ok(params)
}

/// Whether the key of the certificate `root` signed `certificate`.
pub(crate) fn has_signed(root: &str, certificate: &str) -> Result<bool, CertsError> {
    with_certificate(root, |root| {
        with_certificate(certificate, |certificate| {
            Ok(root.is_ca()
                && certificate.issuer().as_raw() == root.subject().as_raw()
                && certificate
                    .verify_signature(Some(root.public_key()))
                    .is_ok())
        })
    })
}

/// 64 bits that stand for a key: the shortest kind of RFC 5280, 4.2.1.2 (2), by SHA-256. Server certificates repeat them.
fn key_identifier(key: &KeyPair) -> Vec<u8> {
    let hash = digest(&SHA256, key.der_bytes());
    let mut identifier: Vec<u8> = hash.as_ref().iter().rev().take(8).rev().copied().collect();
    if let Some(first) = identifier.first_mut() {
        *first = 0x40 | (*first & 0x0f);
    }
    identifier
}

/// A name that differs from the root's, as it must: a certificate whose issuer has its own name counts as self-issued.
fn intermediate_name(root: &str) -> String {
    const SUFFIX: &str = " Issuing";
    let kept = root.chars().take(64 - SUFFIX.len());
    kept.chain(SUFFIX.chars()).collect()
}

fn refuse_existing(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<(), CertsError> {
    for path in paths {
        files::refuse_existing(path.as_ref())?;
    }
    Ok(())
}
