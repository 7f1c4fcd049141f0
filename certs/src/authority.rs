//! The root of trust: a self-signed certificate, its key, and what they sign.
//!
//! Leaves are lean: no key identifiers, no basic constraints, one usage. Everything that is left out is
//! optional for a certificate that is verified against a root that the verifier holds (RFC 5280, 4.2.1).

use crate::files::{self, Access};
use crate::inspect::{fingerprint_sha256, not_after_unix_s, with_certificate};
use crate::{CertsError, Issued, clock, name};
use aws_lc_rs::rand::fill;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server certificate is valid unless said otherwise, in days.
pub const SERVER_DAYS: u32 = 397;
/// How long a device certificate is valid unless said otherwise, in days: ten years.
pub const DEVICE_DAYS: u32 = 3_652;
/// How long a root is valid, in days: twenty years.
const ROOT_DAYS: u32 = 7_305;
/// Validity starts this long before now: devices boot with clocks that are behind.
const BACKDATE_S: i64 = 60 * 60;
const DAY_S: i64 = 24 * 60 * 60;

/// A certificate authority that lives in a directory as `ca.crt` and `ca.key`.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    fingerprint_sha256: String,
    not_after_unix_s: i64,
}

/// Whether an authority was made or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made just now.
    New,
    /// It was there before.
    Reused,
}

impl Authority {
    /// Makes a new root called `name` and writes it to `dir`, which is created if need be.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`] when `dir` holds `ca.crt` or `ca.key`: then nothing is changed.
    pub fn create(dir: &Path, name: &str) -> Result<Self, CertsError> {
        name::check_authority_name(name)?;
        let key = KeyPair::generate()?;
        let mut params = leaf_params(name, ROOT_DAYS, i64::MAX)?;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        files::refuse_existing(&certificate_path(dir))?;
        files::write_new(&key_path(dir), &key.serialize_pem(), Access::Owner)?;
        files::write_new(&certificate_path(dir), &certificate_pem, Access::Everyone)?;
        Self::assemble(dir, certificate_pem, key)
    }

    /// Loads the authority from `dir`.
    ///
    /// # Errors
    /// [`CertsError::NoAuthority`] or [`CertsError::Incomplete`] when files are missing;
    /// [`CertsError::KeyMismatch`], [`CertsError::NotAnAuthority`] or [`CertsError::AuthorityExpired`]
    /// when they cannot issue.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let certificate_pem = read(&certificate_path(dir))?;
        let key_pem = read(&key_path(dir))?;
        let (certificate_pem, key_pem) = match (certificate_pem, key_pem) {
            (Some(certificate_pem), Some(key_pem)) => (certificate_pem, key_pem),
            (None, None) => return Err(CertsError::NoAuthority(dir.to_owned())),
            (Some(_), None) => return Err(incomplete(certificate_path(dir), key_path(dir))),
            (None, Some(_)) => return Err(incomplete(key_path(dir), certificate_path(dir))),
        };
        Self::assemble(dir, certificate_pem, KeyPair::from_pem(&key_pem)?)
    }

    /// Loads the authority from `dir`, or makes one called `name` if there is none.
    ///
    /// # Errors
    /// Those of [`Authority::open`] and [`Authority::create`].
    pub fn open_or_create(dir: &Path, name: &str) -> Result<(Self, Created), CertsError> {
        match Self::open(dir) {
            Ok(authority) => Ok((authority, Created::Reused)),
            Err(CertsError::NoAuthority(_)) => Ok((Self::create(dir, name)?, Created::New)),
            Err(error) => Err(error),
        }
    }

    /// Issues a certificate for a broker that is reached under `names`, DNS names or IP addresses,
    /// valid for [`SERVER_DAYS`].
    ///
    /// # Errors
    /// [`CertsError::NoServerName`] or [`CertsError::ServerName`] when the names are at fault.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, CertsError> {
        self.issue_server_for(names, SERVER_DAYS)
    }

    /// Like [`Authority::issue_server`], valid for `days`.
    ///
    /// # Errors
    /// Those of [`Authority::issue_server`].
    pub fn issue_server_for(&self, names: &[String], days: u32) -> Result<Issued, CertsError> {
        if names.is_empty() {
            return Err(CertsError::NoServerName);
        }
        let common_name = name::server_common_name(names);
        let mut params = leaf_params(common_name, days, self.not_after_unix_s)?;
        params.subject_alt_names = names
            .iter()
            .map(|name| name::server_name(name))
            .collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a certificate for the device `id`, valid for [`DEVICE_DAYS`]: the common name is the id, and
    /// the alternative name `urn:mqtt:client:ID`.
    ///
    /// # Errors
    /// [`CertsError::DeviceId`] when `id` is empty, longer than 64 characters, or contains a control
    /// character, `/`, `+` or `#`.
    pub fn issue_device(&self, id: &str) -> Result<Issued, CertsError> {
        self.issue_device_for(id, DEVICE_DAYS)
    }

    /// Like [`Authority::issue_device`], valid for `days`.
    ///
    /// # Errors
    /// Those of [`Authority::issue_device`].
    pub fn issue_device_for(&self, id: &str, days: u32) -> Result<Issued, CertsError> {
        name::check_device_id(id)?;
        let mut params = leaf_params(id, days, self.not_after_unix_s)?;
        let uri = name::device_uri(id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// The root certificate, which verifiers need.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Where the root certificate lies.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        certificate_path(&self.dir)
    }

    /// SHA-256 over the DER root certificate, in the form that `openssl x509 -fingerprint` prints.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> &str {
        &self.fingerprint_sha256
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Issued, CertsError> {
        let serial = random_serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let not_after_unix_s = params.not_after.unix_timestamp();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            private_key_pem: key.serialize_pem(),
            serial_hex: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            fingerprint_sha256: fingerprint_sha256(certificate.der()),
            not_after_unix_s,
        })
    }

    /// Puts certificate and key together if they belong together and may sign.
    fn assemble(dir: &Path, certificate_pem: String, key: KeyPair) -> Result<Self, CertsError> {
        let path = certificate_path(dir);
        let (fingerprint_sha256, not_after_unix_s) =
            with_certificate(&certificate_pem, |certificate| {
                if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw()
                {
                    return Err(CertsError::KeyMismatch {
                        key: key_path(dir),
                        certificate: path.clone(),
                    });
                }
                if !certificate.is_ca() {
                    return Err(CertsError::NotAnAuthority(path.clone()));
                }
                let fingerprint = fingerprint_sha256(certificate.as_raw());
                Ok((fingerprint, not_after_unix_s(certificate)))
            })?;
        if not_after_unix_s <= clock::now_unix_s() {
            return Err(CertsError::AuthorityExpired(path));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer,
            certificate_pem,
            fingerprint_sha256,
            not_after_unix_s,
        })
    }
}

impl fmt::Debug for Authority {
    /// Leaves the private key out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Authority")
            .field("dir", &self.dir)
            .field("fingerprint_sha256", &self.fingerprint_sha256)
            .finish_non_exhaustive()
    }
}

/// Parameters with a common name and a validity that ends in `days`, or with the issuer's.
fn leaf_params(
    common_name: &str,
    days: u32,
    issuer_not_after_unix_s: i64,
) -> Result<CertificateParams, CertsError> {
    let now_unix_s = clock::now_unix_s();
    let not_after_unix_s = (now_unix_s + i64::from(days) * DAY_S).min(issuer_not_after_unix_s);
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |unix_s: i64| epoch + Duration::from_secs(u64::try_from(unix_s).unwrap_or(0));
    params.not_before = at(now_unix_s - BACKDATE_S);
    params.not_after = at(not_after_unix_s);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    Ok(params)
}

/// 128 random bits; the first byte is not 0, so that every tool prints all sixteen.
fn random_serial() -> Result<[u8; 16], CertsError> {
    let mut serial = [0; 16];
    while serial[0] == 0 {
        fill(&mut serial).map_err(|_| CertsError::Random)?;
    }
    Ok(serial)
}

fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("ca.crt")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

fn incomplete(present: PathBuf, missing: PathBuf) -> CertsError {
    CertsError::Incomplete { present, missing }
}

/// The text of a file; `None` when there is no such file.
fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertsError::file(path, error)),
    }
}
