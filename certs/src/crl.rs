//! The list of revoked certificates, `ca.crl` (RFC 5280, 5): what the broker reads.
//!
//! Invariants:
//! - Its number only grows, also when the file was lost: it is at least the time at which the list was made.
//! - Who is on the list stays on it until one list was issued after the certificate's end (RFC 5280, 3.3). What a list names
//!   and the inventory does not know stays for ever: a lost inventory revokes nothing less.
//! - It is made while the inventory is locked, so of two lists made at once the one that stays has everything.
//! - It is replaced as a whole: a reader sees the old one or the new one.
//!
//! Does not know: how the list reaches a broker on another machine.

use crate::clock::{DAY_S, now_unix_s};
use crate::files::{self, Access};
use crate::inspect::with_certificate;
use crate::{Authority, CertsError, Inventory, Reason, Status, serial};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber,
};
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// How long a first list holds, in days; a later one holds as long as the one before unless said otherwise.
pub const CRL_DAYS: u32 = 7;

/// A list of revoked certificates, as read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevocationList {
    /// Its number, if it has one.
    pub number: Option<u64>,
    /// Who issued it.
    pub issuer: String,
    /// When it was made, in seconds since 1970.
    #[serde(rename = "this_update")]
    pub this_update_unix_s: i64,
    /// When the next one is due, in seconds since 1970.
    #[serde(rename = "next_update")]
    pub next_update_unix_s: Option<i64>,
    /// The certificates on it, in its order.
    pub revoked: Vec<Revoked>,
    #[serde(skip)]
    der: Vec<u8>,
}

/// A certificate on a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// Its serial, lower-case hexadecimal.
    pub serial: String,
    /// When it was revoked, in seconds since 1970.
    #[serde(rename = "at")]
    pub at_unix_s: i64,
    /// Why, if that was said.
    pub reason: Option<Reason>,
}

impl RevocationList {
    /// Reads a list, PEM or DER.
    ///
    /// # Errors
    /// [`CertsError::NotARevocationList`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertsError> {
        let not_one = |problem: &str| CertsError::NotARevocationList(problem.to_owned());
        if bytes.first() == Some(&0x30) {
            return Self::parse_der(bytes);
        }
        let (_, block) = x509_parser::pem::parse_x509_pem(bytes)
            .map_err(|_| not_one("it is neither PEM nor DER"))?;
        if block.label != "X509 CRL" {
            return Err(not_one(&format!("it is a {}", block.label)));
        }
        Self::parse_der(&block.contents)
    }

    fn parse_der(der: &[u8]) -> Result<Self, CertsError> {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| CertsError::NotARevocationList(error.to_string()))?;
        let revoked = list.iter_revoked_certificates().map(|revoked| Revoked {
            serial: serial::text(revoked.raw_serial()),
            at_unix_s: revoked.revocation_date.timestamp(),
            reason: revoked
                .reason_code()
                .and_then(|(_, code)| Reason::from_code(code.0)),
        });
        Ok(Self {
            number: list.crl_number().and_then(|number| number.try_into().ok()),
            issuer: list.issuer().to_string(),
            this_update_unix_s: list.last_update().timestamp(),
            next_update_unix_s: list.next_update().map(|time| time.timestamp()),
            revoked: revoked.collect(),
            der: list.as_raw().to_vec(),
        })
    }

    /// Reads the list of the authority in `dir`; `None` when there is none.
    ///
    /// # Errors
    /// [`CertsError::UnreadableList`] when it is none, [`CertsError::File`].
    pub fn open(dir: &Path) -> Result<Option<Self>, CertsError> {
        let path = crl_path(dir);
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        let list = Self::parse(text.as_bytes());
        list.map(Some).map_err(|error| CertsError::UnreadableList {
            path,
            problem: error.to_string(),
        })
    }

    /// Its DER form.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Writes its DER form to a file, in the place of one that is there.
    ///
    /// # Errors
    /// [`CertsError::File`].
    pub fn write_der(&self, path: &Path) -> Result<(), CertsError> {
        files::replace(path, &self.der, Access::Everyone)
    }

    /// How long it holds from when it was made, in seconds.
    fn span_s(&self) -> Option<i64> {
        let span_s = self.next_update_unix_s? - self.this_update_unix_s;
        (span_s > 0).then_some(span_s)
    }
}

/// Where the list of the authority in `dir` lies.
#[must_use]
pub fn crl_path(dir: &Path) -> PathBuf {
    dir.join("ca.crl")
}

impl Authority {
    /// Makes the list of revoked certificates anew from the inventory and puts it in the place of the present one, which must be
    /// readable and this authority's. It holds for `days`, or as long as the present one did, or [`CRL_DAYS`].
    ///
    /// # Errors
    /// [`CertsError::UnreadableList`], [`CertsError::ForeignList`], [`CertsError::File`], those of [`Inventory::open`] and of signing.
    pub fn write_crl(
        &self,
        inventory: &mut Inventory,
        days: Option<u32>,
    ) -> Result<RevocationList, CertsError> {
        let mut written = None;
        inventory.append_if(|inventory| {
            let present = self.present_list()?;
            let list = self.sign_list(inventory, present.as_ref(), days)?;
            files::replace(
                &crl_path(self.dir()),
                list.pem()?.as_bytes(),
                Access::Everyone,
            )?;
            written = Some(RevocationList::parse_der(list.der())?);
            Ok::<_, CertsError>(Vec::new())
        })?;
        written.ok_or_else(|| CertsError::NotARevocationList("it was not written".to_owned()))
    }

    /// The list in its place, if it can be continued.
    pub(crate) fn present_list(&self) -> Result<Option<RevocationList>, CertsError> {
        let Some(list) = RevocationList::open(self.dir())? else {
            return Ok(None);
        };
        let is_ours = with_certificate(self.certificate_pem(), |certificate| {
            let (_, parsed) = CertificateRevocationList::from_der(list.der())
                .map_err(|error| CertsError::NotARevocationList(error.to_string()))?;
            Ok(parsed.issuer().as_raw() == certificate.subject().as_raw()
                && parsed.verify_signature(certificate.public_key()).is_ok())
        })?;
        if is_ours {
            Ok(Some(list))
        } else {
            Err(CertsError::ForeignList(crl_path(self.dir())))
        }
    }

    fn sign_list(
        &self,
        inventory: &Inventory,
        present: Option<&RevocationList>,
        days: Option<u32>,
    ) -> Result<rcgen::CertificateRevocationList, CertsError> {
        let now = now_unix_s();
        let span_s = days.map(|days| i64::from(days) * DAY_S);
        let span_s = span_s
            .or_else(|| present.and_then(RevocationList::span_s))
            .unwrap_or_else(|| i64::from(CRL_DAYS) * DAY_S);
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let time = |unix_s: i64| epoch + Duration::from_secs(u64::try_from(unix_s).unwrap_or(0));
        let revoked = revoked(inventory, present, now);
        let entries = revoked.iter().map(|revoked| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial::bytes(&revoked.serial)?),
                revocation_time: time(revoked.at_unix_s),
                reason_code: revoked.reason.map(RevocationReason::from),
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: time(now),
            next_update: time(now + span_s),
            crl_number: SerialNumber::from(next_number(present, now)),
            issuing_distribution_point: None,
            revoked_certs: entries.collect::<Result<_, CertsError>>()?,
            key_identifier_method: self.key_identifier_method()?,
        };
        Ok(params.signed_by(self.issuer())?)
    }

    /// The authority's key as its certificate names it.
    fn key_identifier_method(&self) -> Result<KeyIdMethod, CertsError> {
        with_certificate(self.certificate_pem(), |certificate| {
            let mut extensions = certificate.extensions().iter();
            let identifier = extensions.find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            });
            Ok(identifier.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified))
        })
    }
}

/// Above the present number, and above what the time was when any list that was lost had been made.
fn next_number(present: Option<&RevocationList>, now_unix_s: i64) -> u64 {
    let now = u64::try_from(now_unix_s).unwrap_or(0);
    let present = present.and_then(|list| list.number).unwrap_or(0);
    present.saturating_add(1).max(now)
}

/// Who belongs on the next list.
fn revoked(
    inventory: &Inventory,
    present: Option<&RevocationList>,
    now_unix_s: i64,
) -> Vec<Revoked> {
    let listed = present.map_or(&[][..], |list| &list.revoked);
    let on_present: HashMap<&str, &Revoked> = listed
        .iter()
        .map(|revoked| (revoked.serial.as_str(), revoked))
        .collect();
    let mut next: Vec<Revoked> = inventory
        .entries()
        .filter(|entry| entry.status == Status::Revoked)
        .filter(|entry| {
            // Whether a list made after its end has named it once more. A list from the future, of a clock that was wrong, says nothing.
            let has_been_said = present
                .is_some_and(|list| entry.not_after < list.this_update_unix_s.min(now_unix_s));
            !has_been_said
        })
        .map(|entry| Revoked {
            serial: entry.serial.clone(),
            // What a list has said it goes on saying.
            at_unix_s: on_present
                .get(entry.serial.as_str())
                .map_or(entry.at, |revoked| revoked.at_unix_s),
            reason: entry
                .reason
                .as_deref()
                .and_then(|reason| reason.parse().ok()),
        })
        .collect();
    let unknown = listed
        .iter()
        .filter(|revoked| inventory.with_serial(&revoked.serial).is_none());
    next.extend(unknown.cloned());
    next
}
