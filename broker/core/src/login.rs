//! Who a client proved to be, and what its login says about it.
//!
//! Does not know: how it was proved; rules. `acl` matches them against a [`Principal`].

use crate::message::{ClientId, Identity};
use crate::time::Timestamp;
use std::sync::{Arc, LazyLock};

/// What a login proved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Who the client is.
    pub identity: Identity,
    /// What else the login says of it.
    pub attributes: Arc<Attributes>,
    /// When the login ends, and the connection with it; a token has such a time.
    pub expires_at: Option<Timestamp>,
    /// What it is good for.
    pub scope: Scope,
}

/// What a login is good for.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Scope {
    /// Everything that the ACL allows.
    #[default]
    Full,
    /// Asking for a certificate, and nothing else (`enrolment.rs`).
    Enrolment,
    /// Everything, whatever the ACL says, while it is connected: its session ends with the connection.
    Operator,
}

impl From<Identity> for Login {
    fn from(identity: Identity) -> Self {
        Self {
            identity,
            attributes: Attributes::none(),
            expires_at: None,
            scope: Scope::Full,
        }
    }
}

/// What a login says of a client besides its identity. Kept with a durable session, so that its will is judged after a restart as
/// before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attributes {
    /// Groups that the login names, beside those of the ACL file.
    pub groups: Box<[Box<str>]>,
    /// Values that `%{name}` stands for in an ACL, by name: fields of a certificate (`cn`, `san-dns`, `san-uri`, `o`, `ou`).
    pub fields: Box<[(Box<str>, Box<str>)]>,
    /// Rules that the login brings along, such as those of a token, each as a line of an ACL file.
    pub rules: Box<[Box<str>]>,
}

impl Attributes {
    /// Of a login that says nothing more; one for all of them.
    #[must_use]
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Attributes>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// Whether the login says nothing more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.fields.is_empty() && self.rules.is_empty()
    }
}

/// Whom the rules of an ACL are matched against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// The client identifier.
    pub client_id: ClientId,
    /// Who the client is.
    pub identity: Identity,
    /// What else its login says of it.
    pub attributes: Arc<Attributes>,
}

impl Principal {
    /// The user name: of whoever proved a name, in whichever way.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.identity.name()
    }
}
