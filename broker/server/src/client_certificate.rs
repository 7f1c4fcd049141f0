//! What a client's certificates say: read once in each connection, after the handshake.
//!
//! Promises:
//! - Each certificate of the chain is parsed once; lists of revoked ones, the inventory, the login and the log ask what is kept of it.
//! - Where the listener logs in by a name, that is there once and plain (attack class B7): else the certificate is unusable. So is one
//!   that has expired: a resumed session was not verified again.
//!
//! Does not know: who signed it (rustls verified that, in this handshake or in the one that is resumed), lists.

use crate::auth::{PeerCertificate, Unusable, VerifiedCertificate};
use crate::config::Identity;
use aws_lc_rs::digest;
use motemq_core::{Attributes, Timestamp};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{
    AttributeTypeAndValue, FromDer, GeneralName, X509Certificate, X509Name,
};

/// Which certificate it is: in lists of its issuer, in the inventory and in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateId {
    /// The issuer's name, in DER.
    issuer: Box<[u8]>,
    /// As in DER.
    serial: Box<[u8]>,
    /// The subject's name, in DER.
    subject: Box<[u8]>,
    fingerprint: CertificateFingerprint,
}

/// Half of the SHA-256 over a certificate: nobody makes another certificate with the same.
pub(crate) type CertificateFingerprint = [u8; 16];

impl CertificateId {
    /// Of a certificate; `None` when it cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::of_parsed(&parsed))
    }

    fn of_parsed(parsed: &X509Certificate<'_>) -> Self {
        Self {
            issuer: parsed.issuer().as_raw().into(),
            serial: parsed.raw_serial().into(),
            subject: parsed.subject().as_raw().into(),
            fingerprint: fingerprint(parsed.as_raw()),
        }
    }

    /// The issuer's name, in DER.
    pub(crate) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The serial number, as in DER.
    pub(crate) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The subject's name, as text.
    pub(crate) fn subject_shown(&self) -> String {
        name_shown(&self.subject)
    }

    /// The serial number, in hexadecimal.
    pub(crate) fn serial_shown(&self) -> String {
        serial_hex(&self.serial)
    }

    /// Half of the SHA-256 over the whole.
    pub(crate) fn fingerprint(&self) -> CertificateFingerprint {
        self.fingerprint
    }
}

impl fmt::Display for CertificateId {
    /// Subject, serial number and issuer, for the log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, issuer) = (self.subject_shown(), name_shown(&self.issuer));
        let serial = self.serial_shown();
        write!(
            formatter,
            "subject \"{subject}\", serial {serial}, issuer \"{issuer}\""
        )
    }
}

/// Half of the SHA-256 over a certificate, which need not be read for that.
pub(crate) fn fingerprint(certificate: &[u8]) -> CertificateFingerprint {
    let whole = digest::digest(&digest::SHA256, certificate);
    let mut fingerprint = CertificateFingerprint::default();
    let half = fingerprint.len();
    fingerprint.copy_from_slice(&whole.as_ref()[..half]);
    fingerprint
}

/// A name in DER, as text.
pub(crate) fn name_shown(der: &[u8]) -> String {
    X509Name::from_der(der).map_or_else(|_| "?".to_owned(), |(_, name)| name.to_string())
}

/// What a client has shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Which certificates, the client's own first; `None` without any.
    pub(crate) ids: Option<Arc<[CertificateId]>>,
    /// What its own says.
    pub(crate) certificate: PeerCertificate,
}

impl Shown {
    /// No certificate.
    pub(crate) fn nothing() -> Self {
        Self {
            ids: None,
            certificate: PeerCertificate::None,
        }
    }
}

/// Reads the certificates of a client; `None` when one of them cannot be read. `now_unix_s` is checked against its validity.
pub(crate) fn read(
    certificates: &[CertificateDer<'_>],
    kind: Identity,
    now_unix_s: i64,
) -> Option<Shown> {
    let Some((leaf, rest)) = certificates.split_first() else {
        return Some(Shown::nothing());
    };
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let certificate = read_leaf(&leaf, kind, now_unix_s);
    let ids = std::iter::once(Some(CertificateId::of_parsed(&leaf)));
    let ids = ids.chain(rest.iter().map(CertificateId::of));
    Some(Shown {
        ids: Some(ids.collect::<Option<_>>()?),
        certificate,
    })
}

fn read_leaf(parsed: &X509Certificate<'_>, kind: Identity, now_unix_s: i64) -> PeerCertificate {
    let validity = parsed.validity();
    let (start, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if now_unix_s < start {
        return PeerCertificate::Unusable(Unusable::NotYetValid);
    }
    if now_unix_s > end {
        return PeerCertificate::Unusable(Unusable::Expired);
    }
    let name = name(parsed, kind);
    if name.is_none() && kind != Identity::None {
        return PeerCertificate::Unusable(Unusable::NoName);
    }
    let expires_ms = u64::try_from(end).unwrap_or_default().saturating_mul(1000);
    PeerCertificate::Verified(Arc::new(VerifiedCertificate {
        claim: claim(parsed),
        name: name.map(Arc::from),
        attributes: Arc::new(Attributes {
            fields: fields(parsed),
            ..Attributes::default()
        }),
        // The last second counts.
        expires_at: Timestamp::from_ms(expires_ms.saturating_add(1000)),
    }))
}

/// A serial number in lower-case hexadecimal, without leading zero bytes.
fn serial_hex(serial: &[u8]) -> String {
    let significant = serial.iter().position(|byte| *byte != 0).unwrap_or(0);
    hex(serial.get(significant..).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a certificate claims that several devices hold to enrol with; one that has such a name, whatever else it has, is no other.
fn claim(certificate: &X509Certificate<'_>) -> Option<Arc<str>> {
    let mut claims = san_uris(certificate).filter_map(|uri| uri?.strip_prefix(CLAIM_URI));
    let claim = claims.next()?;
    let shortened: String = claim.chars().take(NAME_BYTES_MAX).collect();
    Some(shortened.into())
}

/// The name of that kind; `None` when there is none, or more than one, or one that is not plain.
fn name(certificate: &X509Certificate<'_>, kind: Identity) -> Option<String> {
    let name = match kind {
        Identity::None => None,
        Identity::Cn => only(texts(certificate.subject().iter_common_name())),
        Identity::SanUri => only(san_uris(certificate)),
        Identity::SanDns => only(san_dns(certificate)),
    };
    name.filter(|name| is_plain(name)).map(str::to_owned)
}

/// The fields that rules may ask for: each that is there once and plain.
fn fields(certificate: &X509Certificate<'_>) -> Box<[(Box<str>, Box<str>)]> {
    let subject = certificate.subject();
    let serial = serial_hex(certificate.raw_serial());
    let fingerprint = hex(digest::digest(&digest::SHA256, certificate.as_raw()).as_ref());
    let fields = [
        ("cn", only(texts(subject.iter_common_name()))),
        ("san-dns", only(san_dns(certificate))),
        ("san-uri", only(san_uris(certificate))),
        ("o", only(texts(subject.iter_organization()))),
        ("ou", only(texts(subject.iter_organizational_unit()))),
        ("serial", Some(serial.as_str())),
        ("fingerprint", Some(fingerprint.as_str())),
    ];
    let plain = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| is_plain(value))?)));
    plain
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// What could be taken for something else than a name of one client is none: no wildcards of topics or hosts, no way up a path.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '+' | '#' | '*'))
        && !name.split('/').any(|level| level == "..")
}

/// Each value as text; `None` for one that is not UTF-8, so that it still counts.
fn texts<'a>(
    values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> impl Iterator<Item = Option<&'a str>> {
    values.map(|value| value.as_str().ok())
}

fn san_uris<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = Option<&'a str>> {
    san(certificate).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Some(*uri)),
        _ => None,
    })
}

fn san_dns<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = Option<&'a str>> {
    san(certificate).filter_map(|name| match name {
        GeneralName::DNSName(dns) => Some(Some(*dns)),
        _ => None,
    })
}

fn san<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|san| &san.value.general_names)
}

fn only<'a>(mut names: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let name = names.next()?;
    name.filter(|_| names.next().is_none())
}

/// How the URI among the alternative names of a claim certificate begins, as `motemq-certs claim` writes it.
const CLAIM_URI: &str = "urn:mqtt:claim:";
/// Longest identity.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_certs::Authority;
    use rustls::pki_types::pem::PemObject;
    use tempfile::TempDir;

    #[test]
    fn a_certificate_says_its_fields_and_when_it_ends() {
        let folder = TempDir::new().unwrap();
        let authority = Authority::create(&folder.path().join("ca"), "test").unwrap();
        let (path, key) = (folder.path().join("crt"), folder.path().join("key"));
        let issued = authority.issue_device("meter-7").unwrap();
        issued.write(&path, &key).unwrap();
        let leaf = CertificateDer::from_pem_file(&path).unwrap();
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let (start, end) = (
            parsed.validity().not_before.timestamp(),
            parsed.validity().not_after.timestamp(),
        );
        let PeerCertificate::Verified(certificate) = read_one(&leaf, Identity::Cn, start) else {
            panic!("a good certificate")
        };
        assert_eq!(certificate.name.as_deref(), Some("meter-7"));
        assert_eq!(certificate.expires_at.as_ms() / 1000, end as u64 + 1);
        let field = |name: &str| {
            let fields = &certificate.attributes.fields;
            let found = fields.iter().find(|(known, _)| &**known == name);
            found.map(|(_, value)| value.to_string())
        };
        assert_eq!(field("cn").as_deref(), Some("meter-7"));
        assert_eq!(field("ou"), None);
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let serial = serial.strip_prefix("00").unwrap_or(&serial).to_owned();
        assert_eq!(field("serial"), Some(serial));
        // Without a login by name there is none, and the fields are there all the same.
        let PeerCertificate::Verified(certificate) = read_one(&leaf, Identity::None, end) else {
            panic!("a good certificate")
        };
        assert!(certificate.name.is_none() && !certificate.attributes.fields.is_empty());
        for (now, expected) in [
            (start - 1, Unusable::NotYetValid),
            (end + 1, Unusable::Expired),
        ] {
            let found = read_one(&leaf, Identity::None, now);
            assert!(matches!(found, PeerCertificate::Unusable(why) if why == expected));
        }
        let found = read_one(&leaf, Identity::SanDns, start);
        let expected = Unusable::NoName;
        assert!(matches!(found, PeerCertificate::Unusable(why) if why == expected));
        // What the log has of it.
        let ids = read(&[leaf], Identity::Cn, start).unwrap().ids.unwrap();
        let serial = field("serial").unwrap();
        assert_eq!(
            ids[0].to_string(),
            format!("subject \"CN=meter-7\", serial {serial}, issuer \"CN=test\"")
        );
    }

    fn read_one(leaf: &CertificateDer<'_>, kind: Identity, now_unix_s: i64) -> PeerCertificate {
        read(std::slice::from_ref(leaf), kind, now_unix_s)
            .unwrap()
            .certificate
    }
}
