//! What a certificate is to say: made by whoever orders it, complete and checked before anything is signed.

use crate::clock::{DAY_S, FOREVER_UNIX_S};
use crate::{CertsError, Kind, name};
use rcgen::{DnType, ExtendedKeyUsagePurpose, SanType};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How long a server certificate is valid unless said otherwise, in days.
pub const SERVER_DAYS: u32 = 397;
/// How long a device certificate is valid unless said otherwise, in days: ten years.
pub const DEVICE_DAYS: u32 = 3_652;
/// How long claim certificates and those of enrolment services are valid unless said otherwise, in days.
pub const CLAIM_DAYS: u32 = 365;
/// The longest validity in days, besides for ever: a hundred years.
const DAYS_MAX: u32 = 36_524;
/// How many attributes a certificate may have in the inventory, and how long they may be.
const ATTRIBUTES_MAX: usize = 32;
const ATTRIBUTE_CHARS_MAX: usize = 256;

/// How long a certificate is to be valid. It never outlives its issuer, whatever is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// This many days from now.
    Days(u32),
    /// Without end: until 9999-12-31 23:59:59 (RFC 5280, 4.1.2.5), for devices that nobody will reach again.
    Forever,
}

impl Validity {
    /// A number of years, from 1 to 100, or `forever`.
    ///
    /// # Errors
    /// [`CertsError::Years`] when `text` is neither.
    pub fn years(text: &str) -> Result<Self, CertsError> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let years = text.parse().ok().filter(|years| (1..=100).contains(years));
        years
            .map(Self::of_years)
            .ok_or_else(|| CertsError::Years(text.to_owned()))
    }

    /// So many years, of 365 days and a quarter.
    pub(crate) const fn of_years(years: u32) -> Self {
        Self::Days(years * 1_461 / 4)
    }

    /// When a certificate that is issued now would end, in seconds since 1970.
    #[must_use]
    pub fn end_unix_s(self, now_unix_s: i64) -> i64 {
        match self {
            Self::Days(days) => now_unix_s + i64::from(days) * DAY_S,
            Self::Forever => FOREVER_UNIX_S,
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(formatter, "{days}"),
            Self::Forever => formatter.write_str("forever"),
        }
    }
}

impl FromStr for Validity {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let days = text
            .parse()
            .ok()
            .filter(|days| (1..=DAYS_MAX).contains(days));
        days.map(Self::Days)
            .ok_or_else(|| CertsError::Validity(text.to_owned()))
    }
}

/// A field of the subject besides the common name. Each costs its length and about eleven bytes in every handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectField {
    /// `O`
    Organization,
    /// `OU`
    OrganizationalUnit,
}

impl SubjectField {
    fn dn_type(self) -> DnType {
        match self {
            Self::Organization => DnType::OrganizationName,
            Self::OrganizationalUnit => DnType::OrganizationalUnitName,
        }
    }
}

impl FromStr for SubjectField {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        match text.to_ascii_lowercase().as_str() {
            "o" => Ok(Self::Organization),
            "ou" => Ok(Self::OrganizationalUnit),
            _ => Err(CertsError::SubjectField(text.to_owned())),
        }
    }
}

/// An order for one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    kind: Kind,
    id: String,
    common_name: String,
    alternative_names: Vec<SanType>,
    subject: Vec<(SubjectField, String)>,
    attributes: BTreeMap<String, String>,
    validity: Validity,
}

impl Order {
    /// For the device `id`, valid for [`DEVICE_DAYS`]: the common name is the id, the alternative name `urn:mqtt:client:ID`.
    ///
    /// # Errors
    /// [`CertsError::DeviceId`] when `id` is empty, longer than 64 characters, contains a control, invisible
    /// or unassigned character, `/`, `+`, `#` or `*`, or begins or ends with a space or dot.
    pub fn device(id: &str) -> Result<Self, CertsError> {
        Self::client(Kind::Device, id, DEVICE_DAYS)
    }

    /// For the claim `name`, which devices share until each has its own, valid for [`CLAIM_DAYS`].
    ///
    /// # Errors
    /// Those of [`device`](Self::device).
    pub fn claim(name: &str) -> Result<Self, CertsError> {
        Self::client(Kind::Claim, name, CLAIM_DAYS)
    }

    /// For the enrolment service `name`, valid for [`CLAIM_DAYS`].
    ///
    /// # Errors
    /// Those of [`device`](Self::device).
    pub fn service(name: &str) -> Result<Self, CertsError> {
        Self::client(Kind::Service, name, CLAIM_DAYS)
    }

    /// For a broker that is reached under `names`, DNS names or IP addresses, valid for [`SERVER_DAYS`].
    ///
    /// # Errors
    /// [`CertsError::NoServerName`] or [`CertsError::ServerName`] when the names are at fault.
    pub fn server(names: &[String]) -> Result<Self, CertsError> {
        let Some(first) = names.first() else {
            return Err(CertsError::NoServerName);
        };
        Ok(Self {
            kind: Kind::Server,
            id: first.clone(),
            common_name: name::server_common_name(names).to_owned(),
            alternative_names: names
                .iter()
                .map(|name| name::server_name(name))
                .collect::<Result<_, _>>()?,
            subject: Vec::new(),
            attributes: BTreeMap::new(),
            validity: Validity::Days(SERVER_DAYS),
        })
    }

    fn client(kind: Kind, id: &str, days: u32) -> Result<Self, CertsError> {
        name::check_device_id(id)?;
        let uri = name::client_uri(kind, id);
        Ok(Self {
            kind,
            id: id.to_owned(),
            common_name: id.to_owned(),
            alternative_names: vec![SanType::URI(uri.try_into()?)],
            subject: Vec::new(),
            attributes: BTreeMap::new(),
            validity: Validity::Days(days),
        })
    }

    /// With another validity.
    #[must_use]
    pub const fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }

    /// With a field in the certificate's subject; the last one of a kind counts.
    ///
    /// # Errors
    /// [`CertsError::SubjectValue`] when the value is empty, longer than 64 characters, or contains a control character.
    pub fn subject(mut self, field: SubjectField, value: &str) -> Result<Self, CertsError> {
        name::check_subject_value(value)?;
        self.subject.retain(|(known, _)| *known != field);
        self.subject.push((field, value.to_owned()));
        Ok(self)
    }

    /// With attributes, which are kept in the inventory and not in the certificate: there each byte counts.
    ///
    /// # Errors
    /// [`CertsError::Attributes`] when there are more than 32, or a name or value is longer than 256 characters or has control characters.
    pub fn attributes(mut self, attributes: BTreeMap<String, String>) -> Result<Self, CertsError> {
        let is_wrong = |text: &String| {
            text.chars().count() > ATTRIBUTE_CHARS_MAX || text.contains(char::is_control)
        };
        if attributes.len() > ATTRIBUTES_MAX {
            return Err(CertsError::Attributes("there are more than 32"));
        }
        if attributes
            .iter()
            .any(|(name, value)| is_wrong(name) || is_wrong(value))
        {
            return Err(CertsError::Attributes(
                "a name or value is longer than 256 characters or has control characters",
            ));
        }
        self.attributes = attributes;
        Ok(self)
    }

    /// What the certificate is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The device's id, the server's first name, or the name of the claim or service.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the inventory keeps besides.
    #[must_use]
    pub const fn kept_attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// How long it is to be valid.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn alternative_names(&self) -> &[SanType] {
        &self.alternative_names
    }

    /// The subject's fields, the common name last.
    pub(crate) fn subject_fields(&self) -> impl Iterator<Item = (DnType, &str)> {
        let fields = self.subject.iter();
        fields
            .map(|(field, value)| (field.dn_type(), value.as_str()))
            .chain([(DnType::CommonName, self.common_name.as_str())])
    }

    /// A certificate that may serve may not act as a client, and the other way round.
    pub(crate) const fn usage(&self) -> ExtendedKeyUsagePurpose {
        match self.kind {
            Kind::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Kind::Device | Kind::Claim | Kind::Service => ExtendedKeyUsagePurpose::ClientAuth,
        }
    }
}
