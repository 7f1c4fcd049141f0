//! Questions about a certificate that someone holds as PEM text.

use crate::CertsError;
use aws_lc_rs::digest::{SHA256, digest};
use std::net::{Ipv4Addr, Ipv6Addr};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

const DAY_S: i64 = 24 * 60 * 60;

/// The alternative names of a certificate: DNS names, IP addresses and URIs, in its order.
///
/// # Errors
/// [`CertsError::NotACertificate`] when `pem` does not start with a certificate.
pub fn certificate_names(pem: &str) -> Result<Vec<String>, CertsError> {
    with_certificate(pem, |certificate| {
        let extension = certificate.subject_alternative_name().map_err(unreadable)?;
        let names = extension.map(|extension| &extension.value.general_names);
        Ok(names.into_iter().flatten().filter_map(name_text).collect())
    })
}

/// The first certificate in `pem`, DER.
///
/// # Errors
/// [`CertsError::NotACertificate`] when `pem` does not start with a certificate.
pub fn certificate_der(pem: &str) -> Result<Vec<u8>, CertsError> {
    with_certificate(pem, |certificate| Ok(certificate.as_raw().to_vec()))
}

/// Whether the certificate's validity ends less than `days` after `now_unix_s`, or has ended.
///
/// # Errors
/// [`CertsError::NotACertificate`] when `pem` does not start with a certificate.
pub fn expires_within(pem: &str, days: u32, now_unix_s: i64) -> Result<bool, CertsError> {
    with_certificate(pem, |certificate| {
        let left_s = not_after_unix_s(certificate).saturating_sub(now_unix_s);
        Ok(left_s < i64::from(days) * DAY_S)
    })
}

/// Runs `question` on the first certificate in `pem`.
pub(crate) fn with_certificate<T>(
    pem: &str,
    question: impl FnOnce(&X509Certificate<'_>) -> Result<T, CertsError>,
) -> Result<T, CertsError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(unreadable)?;
    let certificate = Pem::parse_x509(&block).map_err(unreadable)?;
    question(&certificate)
}

/// When the certificate's validity ends.
pub(crate) fn not_after_unix_s(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp()
}

/// SHA-256 over a DER certificate, as colon-separated upper-case hexadecimal.
#[must_use]
pub fn fingerprint_sha256(der: &[u8]) -> String {
    let bytes = digest(&SHA256, der);
    let pairs: Vec<String> = bytes.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}

/// A DNS name, address or URI as text.
pub(crate) fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => address_text(bytes),
        _ => None,
    }
}

fn address_text(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).to_string())
}

fn unreadable(error: impl ToString) -> CertsError {
    CertsError::NotACertificate(error.to_string())
}
