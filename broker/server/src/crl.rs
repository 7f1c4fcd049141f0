//! Certificate revocation lists: which client certificates their authorities have taken back.
//!
//! A full handshake is verified by rustls, with the lists' signatures. What rustls does not verify again, resumed sessions and
//! connections that are open when a list changes, is compared here, by issuer and serial number.
//!
//! Decisions: an authority without a list has revoked nothing. A list past its `nextUpdate` still holds: a list that nobody renewed
//! in time must neither let revoked devices in nor lock a fleet out; the log and a metric say so.

use crate::client_certificate::CertificateId;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// The serial numbers in lists, by issuer.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    by_issuer: HashMap<Box<[u8]>, HashSet<Box<[u8]>>>,
    /// When the first list should have been renewed, in Unix seconds.
    next_update_s: Option<i64>,
}

impl Revoked {
    /// Whether one of the certificates is in a list of its issuer.
    pub(crate) fn has_any(&self, certificates: &[CertificateId]) -> bool {
        certificates.iter().any(|certificate| {
            let serials = self.by_issuer.get(certificate.issuer());
            serials.is_some_and(|serials| serials.contains(certificate.serial()))
        })
    }

    /// When the first list should have been renewed, in Unix seconds.
    pub(crate) fn next_update_s(&self) -> Option<i64> {
        self.next_update_s
    }

    /// Issuers that have lists.
    pub(crate) fn issuers(&self) -> impl Iterator<Item = &[u8]> {
        self.by_issuer.keys().map(|issuer| &**issuer)
    }

    fn add(&mut self, list: &CertificateRevocationList<'_>) {
        let serials = self
            .by_issuer
            .entry(list.issuer().as_raw().into())
            .or_default();
        let revoked = list.iter_revoked_certificates();
        serials.extend(revoked.map(|revoked| Box::from(revoked.raw_serial())));
        let next_update_s = list.next_update().map(|time| time.timestamp());
        self.next_update_s = match (self.next_update_s, next_update_s) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// Reads the lists in a PEM file: at least one, of one or several issuers.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn read(
    path: &Path,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Revoked), String> {
    let lists = CertificateRevocationListDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    if lists.is_empty() {
        return Err("holds no certificate revocation list in PEM (X509 CRL)".to_owned());
    }
    let mut revoked = Revoked::default();
    for list in &lists {
        let (_, parsed) = CertificateRevocationList::from_der(list)
            .map_err(|error| format!("a list cannot be read: {error}"))?;
        revoked.add(&parsed);
    }
    Ok((lists, revoked))
}
