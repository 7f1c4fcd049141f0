//! A certificate, with its key if that was made here, before and while it goes to files.

use crate::CertsError;
use crate::files::{self, Access};
use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::Path;

/// A new certificate, for whosever key.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate alone, without its issuer.
    pub certificate_pem: String,
    /// The certificate and, where an intermediate issued it, that one's: what a server shows.
    pub chain_pem: String,
    /// The certificate alone, DER.
    pub certificate_der: Vec<u8>,
    /// The serial, lower-case hexadecimal.
    pub serial_hex: String,
    /// SHA-256 over the DER certificate, in the form that `openssl x509 -fingerprint` prints.
    pub fingerprint_sha256: String,
    /// When the certificate's validity ends, in seconds since 1970.
    pub not_after_unix_s: i64,
    /// Kind of its key, such as `p256`.
    pub key_type: String,
}

/// A new certificate and the private key that belongs to it.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub signed: Signed,
    /// The private key, PKCS#8.
    pub private_key_pem: String,
    /// The private key, PKCS#8 in DER.
    pub private_key_der: Vec<u8>,
}

impl Signed {
    /// Writes the certificate, alone or with the intermediate that issued it.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`].
    pub fn write(&self, certificate: &Path, with_chain: bool) -> Result<(), CertsError> {
        let pem = if with_chain {
            &self.chain_pem
        } else {
            &self.certificate_pem
        };
        files::write_new(certificate, pem, Access::Everyone)
    }
}

impl Issued {
    /// Fails when one of the files that are to be written is there already.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`].
    pub fn check_new(&self, certificate: &Path, private_key: &Path) -> Result<(), CertsError> {
        files::refuse_existing(certificate)?;
        files::refuse_existing(private_key)
    }

    /// Writes both files, the certificate alone, the key readable by its owner only.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`] when either file is there: then neither is written.
    pub fn write(&self, certificate: &Path, private_key: &Path) -> Result<(), CertsError> {
        self.write_as(&self.signed.certificate_pem, certificate, private_key)
    }

    /// As [`write`](Self::write), the certificate with the intermediate that issued it, if one did.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_chain(&self, certificate: &Path, private_key: &Path) -> Result<(), CertsError> {
        self.write_as(&self.signed.chain_pem, certificate, private_key)
    }

    fn write_as(
        &self,
        certificate_pem: &str,
        certificate: &Path,
        private_key: &Path,
    ) -> Result<(), CertsError> {
        files::refuse_existing(certificate)?;
        files::write_new(private_key, &self.private_key_pem, Access::Owner)?;
        let written = files::write_new(certificate, certificate_pem, Access::Everyone);
        if written.is_err() {
            // A key without its certificate would only block the next attempt.
            let _ = fs::remove_file(private_key);
        }
        written
    }
}

impl Deref for Issued {
    type Target = Signed;

    fn deref(&self) -> &Signed {
        &self.signed
    }
}

impl fmt::Debug for Issued {
    /// Leaves the private key out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Issued")
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}
