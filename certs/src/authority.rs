//! What issues: a root, or an intermediate that a root has signed; its key, and what they sign.
//!
//! Leaves are lean: no subject key identifier, no basic constraints, one extended usage. Everything that is left out is
//! optional for a certificate that is verified against an issuer that the verifier holds (RFC 5280, 4.2.1).
//! A server's has its key usage, and names its issuer's key: Python from 3.13 on takes none without (`VERIFY_X509_STRICT`).

use crate::clock::{self, FOREVER_UNIX_S};
use crate::files;
use crate::inspect::{fingerprint_sha256, not_after_unix_s, with_certificate};
use crate::key::{KeyType, PublicKey};
use crate::root::{self, Root};
use crate::serial::hex;
use crate::{CertsError, Issued, Kind, Order, Permitted, Signed, Validity};
use aws_lc_rs::rand::fill;
use rcgen::{
    CertificateParams, DistinguishedName, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Validity starts this long before now: devices boot with clocks that are behind.
pub(crate) const BACKDATE_S: i64 = 60 * 60;

/// A certificate authority that lives in a directory: `ca.crt` and `ca.key`, and `root.crt` if the former is an intermediate.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    root_pem: Option<String>,
    fingerprint_sha256: String,
    not_after_unix_s: i64,
    permitted: Permitted,
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
        Root::new(name)?.create(dir)
    }

    /// Loads the authority from `dir`.
    ///
    /// # Errors
    /// [`CertsError::NoAuthority`] or [`CertsError::Incomplete`] when files are missing;
    /// [`CertsError::KeyMismatch`], [`CertsError::NotAnAuthority`], [`CertsError::NotItsRoot`] or
    /// [`CertsError::AuthorityExpired`] when they cannot issue; [`CertsError::OpenKey`] when others may read the key.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let certificate_pem = files::read(&certificate_path(dir))?;
        let key_pem = files::read_private(&key_path(dir))?;
        let (certificate_pem, key_pem) = match (certificate_pem, key_pem) {
            (Some(certificate_pem), Some(key_pem)) => (certificate_pem, key_pem),
            (None, None) => return Err(CertsError::NoAuthority(dir.to_owned())),
            (Some(_), None) => return Err(incomplete(certificate_path(dir), key_path(dir))),
            (None, Some(_)) => return Err(incomplete(key_path(dir), certificate_path(dir))),
        };
        let root_pem = files::read(&root_path(dir))?;
        let key = private_key(&key_pem).ok_or_else(|| CertsError::NotAKey(key_path(dir)))?;
        Self::assemble(dir, certificate_pem, root_pem, key)
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

    /// Makes a key and signs its certificate as ordered.
    ///
    /// # Errors
    /// [`CertsError::NotPermitted`] when the authority is held to other names.
    pub fn issue(&self, order: &Order, key_type: KeyType) -> Result<Issued, CertsError> {
        let key = key_type.generate()?;
        Ok(Issued {
            signed: self.certify(order, &key, key_type.name())?,
            private_key_pem: key.serialize_pem(),
            private_key_der: key.serialize_der(),
        })
    }

    /// Signs a certificate as ordered for a key that somebody else holds.
    ///
    /// # Errors
    /// Those of [`issue`](Self::issue).
    pub fn sign(&self, order: &Order, public_key: &PublicKey) -> Result<Signed, CertsError> {
        self.certify(order, public_key.info(), public_key.type_name())
    }

    /// Issues a P-256 certificate for a broker that is reached under `names`, see [`Order::server`].
    ///
    /// # Errors
    /// Those of [`Order::server`] and [`issue`](Self::issue).
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, CertsError> {
        self.issue(&Order::server(names)?, KeyType::P256)
    }

    /// Issues a P-256 certificate for the device `id`, see [`Order::device`].
    ///
    /// # Errors
    /// Those of [`Order::device`] and [`issue`](Self::issue).
    pub fn issue_device(&self, id: &str) -> Result<Issued, CertsError> {
        self.issue(&Order::device(id)?, KeyType::P256)
    }

    /// The certificate that issues, root or intermediate: what the broker verifies devices against.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Where the certificate that issues lies.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        certificate_path(&self.dir)
    }

    /// The root's certificate, be it the one that issues or not: what devices verify the broker against.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.root_pem.as_ref().unwrap_or(&self.certificate_pem)
    }

    /// Whether an intermediate issues, so that chains have two certificates.
    #[must_use]
    pub const fn is_intermediate(&self) -> bool {
        self.root_pem.is_some()
    }

    /// SHA-256 over the DER certificate that issues, in the form that `openssl x509 -fingerprint` prints.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> &str {
        &self.fingerprint_sha256
    }

    /// When the validity of the certificate that issues ends, in seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }

    /// The names to which it is held.
    #[must_use]
    pub const fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    /// The directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What signs, certificates and lists of revoked ones.
    pub(crate) const fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    fn certify(
        &self,
        order: &Order,
        key: &impl PublicKeyData,
        key_type: &str,
    ) -> Result<Signed, CertsError> {
        if let Some(name) = self.permitted.first_outside(order.alternative_names()) {
            return Err(CertsError::NotPermitted {
                name,
                authority: self.certificate_path(),
                permitted: self.permitted.to_string(),
            });
        }
        let serial = random_serial()?;
        let mut params = validity_params(order.validity(), self.not_after_unix_s);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        for (field, value) in order.subject_fields() {
            params.distinguished_name.push(field, value);
        }
        params.subject_alt_names = order.alternative_names().to_vec();
        params.extended_key_usages = vec![order.usage()];
        if order.kind() == Kind::Server {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
        }
        let certificate = params.signed_by(key, &self.issuer)?;
        let certificate_pem = certificate.pem();
        let intermediate = self.is_intermediate().then_some(&*self.certificate_pem);
        Ok(Signed {
            chain_pem: [&certificate_pem, intermediate.unwrap_or_default()].concat(),
            certificate_pem,
            certificate_der: certificate.der().to_vec(),
            serial_hex: hex(&serial),
            fingerprint_sha256: fingerprint_sha256(certificate.der()),
            not_after_unix_s: params.not_after.unix_timestamp(),
            key_type: key_type.to_owned(),
        })
    }

    /// Puts certificates and key together if they belong together and may sign.
    pub(crate) fn assemble(
        dir: &Path,
        certificate_pem: String,
        root_pem: Option<String>,
        key: KeyPair,
    ) -> Result<Self, CertsError> {
        let path = certificate_path(dir);
        let (fingerprint_sha256, not_after_unix_s, permitted) =
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
                let permitted = Permitted::of(certificate);
                Ok((fingerprint, not_after_unix_s(certificate), permitted))
            })
            .map_err(|error| match error {
                CertsError::NotACertificate(_) => CertsError::NotAnAuthority(path.clone()),
                error => error,
            })?;
        if not_after_unix_s <= clock::now_unix_s() {
            return Err(CertsError::AuthorityExpired(path));
        }
        if let Some(root_pem) = &root_pem
            && !root::has_signed(root_pem, &certificate_pem)?
        {
            let root = root_path(dir);
            return Err(CertsError::NotItsRoot {
                certificate: path,
                root,
            });
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer,
            certificate_pem,
            root_pem,
            fingerprint_sha256,
            not_after_unix_s,
            permitted,
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

/// Parameters with an empty subject and a validity that ends as asked, or with the issuer's.
pub(crate) fn validity_params(
    validity: Validity,
    issuer_not_after_unix_s: i64,
) -> CertificateParams {
    let now_unix_s = clock::now_unix_s();
    let not_after_unix_s = validity.end_unix_s(now_unix_s).min(issuer_not_after_unix_s);
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |unix_s: i64| {
        epoch + Duration::from_secs(u64::try_from(unix_s.min(FOREVER_UNIX_S)).unwrap_or(0))
    };
    params.not_before = at(now_unix_s - BACKDATE_S);
    params.not_after = at(not_after_unix_s);
    params.distinguished_name = DistinguishedName::new();
    params
}

/// 128 random bits; the first byte is from 1 to 127, so that every tool prints all sixteen and the encoding needs no sign byte.
pub(crate) fn random_serial() -> Result<[u8; 16], CertsError> {
    let mut serial = [0; 16];
    while !(1..0x80).contains(&serial[0]) {
        fill(&mut serial).map_err(|_| CertsError::Random)?;
    }
    Ok(serial)
}

pub(crate) fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("ca.crt")
}

pub(crate) fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

pub(crate) fn root_path(dir: &Path) -> PathBuf {
    dir.join("root.crt")
}

/// The first private key in `pem`; OpenSSL writes parameters before some.
fn private_key(pem: &str) -> Option<KeyPair> {
    let label = pem.find("PRIVATE KEY-----")?;
    let start = pem.get(..label)?.rfind("-----BEGIN")?;
    KeyPair::from_pem(pem.get(start..)?).ok()
}

fn incomplete(present: PathBuf, missing: PathBuf) -> CertsError {
    CertsError::Incomplete { present, missing }
}
