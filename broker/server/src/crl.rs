//! Certificate revocation lists: which client certificates their authorities have taken back.
//!
//! A list of an authority in `client_ca` is taken only with that authority's signature. rustls asks the lists in full handshakes; what it
//! does not verify again, resumed sessions and connections that are open when a list changes, is compared here, by issuer and serial
//! number.
//!
//! Decisions: an authority without a list has revoked nothing. A list past its `nextUpdate` still holds: whether certificates of its
//! issuer are taken then is the listener's rule (`crl_overdue`). A list of an authority that is not in `client_ca` holds too, unverified:
//! it can only take certificates back.

use crate::client_certificate::{CertificateId, name_shown};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// The serial numbers in lists, by issuer.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    by_issuer: HashMap<Box<[u8]>, OfIssuer>,
}

#[derive(Debug, Default)]
struct OfIssuer {
    serials: HashSet<Box<[u8]>>,
    /// When the first of its lists should have been renewed, in Unix seconds.
    next_update_s: Option<i64>,
    /// The highest number of its lists (RFC 5280, 5.2.3).
    number: Option<BigUint>,
}

impl Revoked {
    /// Whether one of the certificates is in a list of its issuer.
    pub(crate) fn has_any(&self, certificates: &[CertificateId]) -> bool {
        certificates.iter().any(|certificate| {
            let list = self.by_issuer.get(certificate.issuer());
            list.is_some_and(|list| list.serials.contains(certificate.serial()))
        })
    }

    /// Whether the list of the issuer of one of the certificates should have been renewed.
    pub(crate) fn is_overdue_for(&self, certificates: &[CertificateId], now_s: i64) -> bool {
        certificates.iter().any(|certificate| {
            let list = self.by_issuer.get(certificate.issuer());
            list.and_then(|list| list.next_update_s)
                .is_some_and(|by| by < now_s)
        })
    }

    /// When the first list should have been renewed, in Unix seconds.
    pub(crate) fn next_update_s(&self) -> Option<i64> {
        let lists = self.by_issuer.values();
        lists.filter_map(|list| list.next_update_s).min()
    }

    /// Issuers that have lists.
    pub(crate) fn issuers(&self) -> impl Iterator<Item = &[u8]> {
        self.by_issuer.keys().map(|issuer| &**issuer)
    }

    /// Refuses lists that are older than those before: an old one, which is as well signed as a new one, would let revoked devices in
    /// again.
    ///
    /// # Errors
    /// Which one, in words.
    pub(crate) fn check_follows(&self, before: &Self) -> Result<(), String> {
        for (issuer, list) in &self.by_issuer {
            let known = before.by_issuer.get(issuer);
            let known = known.and_then(|known| known.number.as_ref());
            if let (Some(known), Some(number)) = (known, &list.number)
                && number < known
            {
                return Err(format!(
                    "the list of the issuer \"{}\" has the number {number}, and the one in force {known}: an older list does not take the place of a newer one; make it anew: motemq-certs crl",
                    name_shown(issuer)
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, list: &CertificateRevocationList<'_>) {
        let issuer = list.issuer().as_raw().into();
        let of_issuer = self.by_issuer.entry(issuer).or_default();
        let revoked = list.iter_revoked_certificates();
        of_issuer
            .serials
            .extend(revoked.map(|revoked| Box::from(revoked.raw_serial())));
        of_issuer.number = of_issuer.number.take().max(list.crl_number().cloned());
        let next_update_s = list.next_update().map(|time| time.timestamp());
        let known = of_issuer.next_update_s.into_iter();
        of_issuer.next_update_s = known.chain(next_update_s).min();
    }
}

/// Reads the lists in a PEM file: at least one, of one or several issuers. Those of `authorities` must have signed theirs.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn read(
    path: &Path,
    authorities: &[CertificateDer<'_>],
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
        check_signature(&parsed, authorities)?;
        revoked.add(&parsed);
    }
    Ok((lists, revoked))
}

/// An authority may be there with several keys, of which one has signed.
fn check_signature(
    list: &CertificateRevocationList<'_>,
    authorities: &[CertificateDer<'_>],
) -> Result<(), String> {
    let mut failed = None;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() != list.issuer().as_raw() {
            continue;
        }
        match list.verify_signature(authority.public_key()) {
            Ok(()) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    let Some(error) = failed else {
        return Ok(());
    };
    Err(format!(
        "the list of the issuer \"{}\" is not signed by the authority of that name in client_ca: {error}; make it anew with that authority's key: motemq-certs crl",
        name_shown(list.issuer().as_raw())
    ))
}
