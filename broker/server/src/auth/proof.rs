//! How a live connection logged in: enough to ask later whether the login still stands, and no more.

use crate::fingerprint::Fingerprint;

/// What a login rests on, besides the certificate of the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proof {
    /// On nothing: the listener admits anybody.
    Anonymous {
        /// A user name or password came along, and there was no source to ask about them.
        has_credentials: bool,
    },
    /// On the certificate.
    Certificate,
    /// On a claim certificate, to enrol.
    Claim,
    /// On nothing, to enrol.
    Applicant,
    /// On a password.
    Password(Box<StoredCredential>),
    /// On SCRAM.
    Scram(Box<StoredCredential>),
    /// On the token of the API.
    Operator,
    /// On a token.
    Token(Credential),
}

/// What was stored of a user at the login.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredCredential {
    pub(super) user: Box<str>,
    pub(super) fingerprint: Fingerprint,
}

/// The key of a token, and what was asked of the token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential(pub(super) Fingerprint);

impl Proof {
    pub(super) fn password(user: &str, fingerprint: Fingerprint) -> Self {
        let user = user.into();
        Self::Password(Box::new(StoredCredential { user, fingerprint }))
    }

    pub(super) fn scram(user: &str, fingerprint: Fingerprint) -> Self {
        let user = user.into();
        Self::Scram(Box::new(StoredCredential { user, fingerprint }))
    }
}
