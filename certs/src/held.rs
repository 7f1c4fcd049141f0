//! A certificate that lies in the authority's directory, with its key if that is there too, and how another takes its place.
//!
//! Invariants:
//! - What is replaced is kept beside as `NAME.crt.SERIAL` and `NAME.key.SERIAL`, the serial being the old certificate's.
//! - Both new files are complete and on disk before the first of two renames, which follow each other at once: who reads in
//!   between finds a pair that does not match and has to read again, as the broker does (it takes files only when they rest).
//!   After a crash in between, renewing once more puts it right: what is needed of the old files is only the certificate.
//! - A certificate for a key that is elsewhere replaces the certificate alone, in one step.

use crate::authority::BACKDATE_S;
use crate::clock::{DAY_S, FOREVER_UNIX_S};
use crate::files::{self, Access};
use crate::inspect::{not_after_unix_s, with_certificate};
use crate::{
    CertsError, Issued, KeyType, Kind, Order, PublicKey, Signed, SubjectField, Validity,
    certificate_names, serial,
};
use std::path::{Path, PathBuf};
use x509_parser::certificate::X509Certificate;

/// A certificate in a file, for which another can be issued.
#[derive(Clone, Debug)]
pub struct Held {
    certificate: PathBuf,
    private_key: PathBuf,
    has_private_key: bool,
    is_chain: bool,
    kind: Kind,
    common_name: String,
    names: Vec<String>,
    subject: Vec<(SubjectField, String)>,
    serial: String,
    public_key: PublicKey,
    validity: Validity,
    not_after_unix_s: i64,
}

impl Held {
    /// Reads `STEM.crt`; `None` when there is none.
    ///
    /// # Errors
    /// [`CertsError::NotOurs`] when it is no certificate that was issued here, [`CertsError::File`].
    pub fn open(stem: &Path) -> Result<Option<Self>, CertsError> {
        let certificate = with_suffix(stem, ".crt");
        let private_key = with_suffix(stem, ".key");
        let Some(pem) = files::read(&certificate)? else {
            return Ok(None);
        };
        let not_ours = |problem: String| CertsError::NotOurs {
            path: certificate.clone(),
            problem,
        };
        let names = certificate_names(&pem).map_err(|error| not_ours(error.to_string()))?;
        let held = with_certificate(&pem, |parsed| {
            Ok(Self {
                has_private_key: private_key.exists(),
                is_chain: pem.matches("-----BEGIN CERTIFICATE-----").count() > 1,
                kind: Self::kind_of(parsed, &names).ok_or_else(|| {
                    not_ours("its usage and names are not of a kind that is issued here".to_owned())
                })?,
                common_name: common_name(parsed).unwrap_or_default(),
                subject: subject(parsed).map_err(not_ours)?,
                serial: serial::text(parsed.raw_serial()),
                public_key: PublicKey::from_spki(parsed.public_key().raw)?,
                validity: validity(parsed),
                not_after_unix_s: not_after_unix_s(parsed),
                names: names.clone(),
                certificate: certificate.clone(),
                private_key: private_key.clone(),
            })
        });
        held.map(Some)
    }

    /// What a certificate is for, by its usage and the form of its name.
    pub(crate) fn kind_of(certificate: &X509Certificate<'_>, names: &[String]) -> Option<Kind> {
        let usage = certificate.extended_key_usage().ok()??.value;
        if usage.server_auth {
            return (!usage.client_auth && !names.is_empty()).then_some(Kind::Server);
        }
        let [name] = names else {
            return None;
        };
        let kinds = [
            ("urn:mqtt:client:", Kind::Device),
            ("urn:mqtt:claim:", Kind::Claim),
            ("urn:mqtt:service:", Kind::Service),
        ];
        let mut kinds = kinds.into_iter();
        let kind = kinds.find(|(prefix, _)| name.starts_with(prefix));
        kind.filter(|_| usage.client_auth).map(|(_, kind)| kind)
    }

    /// The order for a certificate that says the same, valid as long as this one was or as said.
    ///
    /// # Errors
    /// Those of [`Order::server`] and [`Order::device`].
    pub fn order(&self, validity: Option<Validity>) -> Result<Order, CertsError> {
        let mut order = match self.kind {
            Kind::Server => Order::server(&self.names)?,
            Kind::Device => Order::device(&self.common_name)?,
            Kind::Claim => Order::claim(&self.common_name)?,
            Kind::Service => Order::service(&self.common_name)?,
        };
        for (field, value) in &self.subject {
            order = order.subject(*field, value)?;
        }
        Ok(order.valid(validity.unwrap_or(self.validity)))
    }

    /// The kind of a new key in place of the present one; `None` when that is of a kind that is not made here.
    #[must_use]
    pub fn key_type(&self) -> Option<KeyType> {
        self.public_key.type_name().parse().ok()
    }

    /// The key that the certificate is for.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Whether the private key lies beside it.
    #[must_use]
    pub const fn has_private_key(&self) -> bool {
        self.has_private_key
    }

    /// Where the certificate lies.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Where its private key lies, if it is there.
    #[must_use]
    pub fn private_key(&self) -> &Path {
        &self.private_key
    }

    /// Its serial, lower-case hexadecimal.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// When its validity ends, in seconds since 1970.
    #[must_use]
    pub const fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }

    /// Puts a certificate for the same key, or for one that is elsewhere, in its place.
    ///
    /// # Errors
    /// [`CertsError::File`]: then it is as it was.
    pub fn replace_certificate(&self, signed: &Signed) -> Result<(), CertsError> {
        files::keep_beside(&self.certificate, &self.serial)?;
        let contents = self.contents(signed).as_bytes();
        files::replace(&self.certificate, contents, Access::Everyone)
    }

    /// Puts a certificate with a new key in its place and the key's.
    ///
    /// # Errors
    /// [`CertsError::File`]: then both are as they were, unless the second rename was what failed.
    pub fn replace_pair(&self, issued: &Issued) -> Result<(), CertsError> {
        files::keep_beside(&self.certificate, &self.serial)?;
        files::keep_beside(&self.private_key, &self.serial)?;
        files::replace_both(
            (
                &self.private_key,
                issued.private_key_pem.as_bytes(),
                Access::Owner,
            ),
            (
                &self.certificate,
                self.contents(issued).as_bytes(),
                Access::Everyone,
            ),
        )
    }

    /// With the intermediate where it was with it before; a server always shows it.
    fn contents<'a>(&self, signed: &'a Signed) -> &'a str {
        if self.is_chain || self.kind == Kind::Server {
            &signed.chain_pem
        } else {
            &signed.certificate_pem
        }
    }
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?;
    Some(name.as_str().ok()?.to_owned())
}

/// The fields of the subject besides the common name.
fn subject(certificate: &X509Certificate<'_>) -> Result<Vec<(SubjectField, String)>, String> {
    let mut fields = Vec::new();
    for attribute in certificate.subject().iter_attributes() {
        let field = match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => continue,
            "2.5.4.10" => SubjectField::Organization,
            "2.5.4.11" => SubjectField::OrganizationalUnit,
            other => return Err(format!("its subject has a field {other}")),
        };
        let value = attribute.as_str().map_err(|error| error.to_string())?;
        fields.push((field, value.to_owned()));
    }
    Ok(fields)
}

/// As it was ordered, to the day.
fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    let (start, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    if end >= FOREVER_UNIX_S {
        return Validity::Forever;
    }
    let days = (end - start - BACKDATE_S + DAY_S - 1) / DAY_S;
    Validity::Days(u32::try_from(days).unwrap_or(1).max(1))
}

/// `stem` may contain dots, which `Path::with_extension` would cut off.
fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
