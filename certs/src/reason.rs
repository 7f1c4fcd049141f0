//! Why a certificate was revoked (RFC 5280, 5.3.1).

use crate::CertsError;
use rcgen::RevocationReason;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A reason, as lists of revoked certificates know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// None is given.
    Unspecified,
    /// Somebody else has the key, or may have it: the device was lost, stolen, opened.
    KeyCompromise,
    /// Somebody else has the authority's key.
    CaCompromise,
    /// The device belongs to somebody else now.
    AffiliationChanged,
    /// Another certificate has taken its place.
    Superseded,
    /// The device is out of use.
    CessationOfOperation,
    /// It may no longer do what it could.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// As it is written on the command line and in the inventory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::CaCompromise => "ca-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    /// From its number in a list; `None` for those that we do not give.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        let mut reasons = Self::ALL.into_iter();
        reasons.find(|reason| RevocationReason::from(*reason) as u8 == code)
    }
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::CaCompromise => Self::CaCompromise,
            Reason::AffiliationChanged => Self::AffiliationChanged,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        let mut reasons = Self::ALL.into_iter();
        reasons
            .find(|reason| reason.name() == text)
            .ok_or_else(|| CertsError::Reason(text.to_owned()))
    }
}
