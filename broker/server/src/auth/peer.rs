//! What is known of a connection before its CONNECT: where it comes from, and what its certificate says.

use crate::client_certificate::CertificateId;
use motemq_core::{Attributes, History, Timestamp};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is known of a connection before its CONNECT.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: PeerAddress,
    /// The name of the listener it came to.
    pub listener: Arc<str>,
    /// What its certificate says.
    pub certificate: PeerCertificate,
    /// Which certificates it showed, its own first, if it showed any.
    pub certificate_ids: Option<Arc<[CertificateId]>>,
    /// Where it is noted what becomes of it.
    pub history: Arc<History>,
}

impl Peer {
    /// Its own certificate, for the log.
    pub(crate) fn certificate_shown(&self) -> String {
        let own = self.certificate_ids.as_deref().and_then(<[_]>::first);
        own.map_or_else(|| "no certificate".to_owned(), ToString::to_string)
    }
}

/// Where a client comes from, as far as that is known.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PeerAddress {
    /// From an IP address; behind a proxy, from the one that the proxy names.
    Ip(SocketAddr),
    /// From this machine, through a Unix socket; the user is known where the system tells it.
    Unix {
        /// The user's number.
        uid: Option<u32>,
    },
    /// From behind a proxy that does not say.
    Unknown,
}

impl PeerAddress {
    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
            Self::Unknown => false,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(formatter),
            Self::Unix { uid: Some(uid) } => write!(formatter, "unix (uid {uid})"),
            Self::Unix { uid: None } => formatter.write_str("unix"),
            Self::Unknown => formatter.write_str("unknown, behind the proxy"),
        }
    }
}

/// What a client certificate says about who the client is.
#[derive(Clone, Debug)]
pub enum PeerCertificate {
    /// There is none.
    None,
    /// A verified one.
    Verified(Arc<VerifiedCertificate>),
    /// It was valid for a handshake, but cannot be used.
    Unusable(Unusable),
}

/// Why a certificate that was verified cannot be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// It has expired since.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It has not exactly one plain name of the kind that the listener logs in by.
    NoName,
}

impl PeerCertificate {
    /// What a login says besides who the client is.
    pub(super) fn attributes(&self) -> Arc<Attributes> {
        match self {
            Self::Verified(certificate) => certificate.attributes.clone(),
            Self::None | Self::Unusable(_) => Attributes::none(),
        }
    }

    /// When it expires, and with it what was verified by it.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Verified(certificate) => Some(certificate.expires_at),
            Self::None | Self::Unusable(_) => None,
        }
    }

    /// The claim, if it is one.
    pub(super) fn claim(&self) -> Option<&Arc<str>> {
        match self {
            Self::Verified(certificate) => certificate.claim.as_ref(),
            Self::None | Self::Unusable(_) => None,
        }
    }

    /// The name by which the listener logs in.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Verified(certificate) => certificate.name.as_ref(),
            Self::None | Self::Unusable(_) => None,
        }
    }
}

/// A certificate that was verified in the handshake, or in the one that was resumed.
#[derive(Clone, Debug)]
pub struct VerifiedCertificate {
    /// It is good for asking for a certificate, and nothing else: the name of the claim.
    pub claim: Option<Arc<str>>,
    /// Who the client is, where the listener logs in by certificate.
    pub name: Option<Arc<str>>,
    /// Its fields, for rules.
    pub attributes: Arc<Attributes>,
    /// When it expires.
    pub expires_at: Timestamp,
}
