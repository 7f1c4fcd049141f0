//! A certificate with its key, before and while it goes to files.

use crate::CertsError;
use crate::files::{self, Access};
use std::fmt;
use std::fs;
use std::path::Path;

/// A new certificate and the private key that belongs to it.
#[derive(Clone)]
pub struct Issued {
    /// The certificate alone, without its issuer.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub private_key_pem: String,
    /// The serial, lower-case hexadecimal.
    pub serial_hex: String,
    /// SHA-256 over the DER certificate, in the form that `openssl x509 -fingerprint` prints.
    pub fingerprint_sha256: String,
    /// When the certificate's validity ends, in seconds since 1970.
    pub not_after_unix_s: i64,
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

    /// Writes both files, the key readable by its owner only.
    ///
    /// # Errors
    /// [`CertsError::AlreadyExists`] when either file is there: then neither is written.
    pub fn write(&self, certificate: &Path, private_key: &Path) -> Result<(), CertsError> {
        files::refuse_existing(certificate)?;
        files::write_new(private_key, &self.private_key_pem, Access::Owner)?;
        let written = files::write_new(certificate, &self.certificate_pem, Access::Everyone);
        if written.is_err() {
            // A key without its certificate would only block the next attempt.
            let _ = fs::remove_file(private_key);
        }
        written
    }
}

impl fmt::Debug for Issued {
    /// Leaves the private key out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Issued")
            .field("serial_hex", &self.serial_hex)
            .field("fingerprint_sha256", &self.fingerprint_sha256)
            .field("not_after_unix_s", &self.not_after_unix_s)
            .finish_non_exhaustive()
    }
}
