//! What a client that is not let in is told, and what the log says: which check failed, and which key would change that.

use super::{Authenticator, Decision, Peer, TokenFault, Unusable, has_credentials};
use crate::audit::Refused;
use crate::config::{AnonymousAccess, ListenerConfig};
use motemq_codec::ReasonCode;
use motemq_core::{ConnectRequest, Verdict};
use std::fmt::Display;

/// What a client is told.
#[derive(Copy, Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: ReasonCode,
    pub(super) reason: &'static str,
}

impl From<Refusal> for Decision {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, reason } = refusal;
        Self {
            verdict: Verdict::Refused { code, reason },
            proof: None,
        }
    }
}

/// A client that was refused, for the log.
pub(super) struct Asked<'a> {
    /// The client identifier, as claimed.
    pub(super) client: &'a str,
    /// The user name, as claimed.
    pub(super) user: &'a str,
    pub(super) peer: &'a Peer,
}

impl<'a> Asked<'a> {
    pub(super) fn by(request: &'a ConnectRequest, peer: &'a Peer) -> Self {
        Self {
            client: &request.client_id,
            user: request.username.as_deref().unwrap_or_default(),
            peer,
        }
    }

    /// `rule`: what is wrong; `key`: what an operator changes to have it otherwise.
    pub(super) fn log(&self, reason: &'static str, rule: &dyn Display, key: &str) {
        Refused {
            history: &self.peer.history,
            what: "client",
            reason,
            peer: &self.peer.address,
            listener: &self.peer.listener,
            client: self.client,
            user: self.user,
            rule,
            key,
        }
        .log();
    }
}

pub(super) fn certificate(client: &str, peer: &Peer, why: Unusable) -> Refusal {
    let (label, what, key, reason) = match why {
        Unusable::Expired => (
            "certificate_expired",
            "its certificate has expired",
            "issue it a new one: motemq-certs",
            "the client certificate has expired",
        ),
        Unusable::NotYetValid => (
            "certificate_not_yet_valid",
            "its certificate is not valid yet",
            "the clock of this machine, or of the one that issued it",
            "the client certificate is not valid yet",
        ),
        Unusable::NoName => (
            "certificate_name",
            "its certificate has not exactly one plain name to log in by",
            "identity in [listeners.tls] of this listener",
            "the client certificate names nobody",
        ),
    };
    let rule = format_args!("{what}: {}", peer.certificate_shown());
    let user = "";
    Asked { client, user, peer }.log(label, &rule, key);
    Refusal {
        code: ReasonCode::NotAuthorized,
        reason,
    }
}

pub(super) fn claim(client: &str, claim: &str, peer: &Peer) -> Refusal {
    let user = claim;
    Asked { client, user, peer }.log(
        "claim",
        &"a claim certificate is good for enrolling, and nobody can enrol here",
        "enrolment.signer",
    );
    Refusal {
        code: ReasonCode::NotAuthorized,
        reason: "not authorized: a claim certificate is good for enrolling only",
    }
}

pub(super) fn password(request: &ConnectRequest, peer: &Peer, files: &str) -> Refusal {
    Asked::by(request, peer).log(
        "password",
        &format_args!("wrong user name or password: {files}"),
        "motemq passwd add USER -f FILE",
    );
    Refusal {
        code: ReasonCode::BadUserNameOrPassword,
        reason: "wrong user name or password",
    }
}

/// Without a fault the token stood in the place of a user's password.
pub(super) fn token(
    request: &ConnectRequest,
    peer: &Peer,
    file: &str,
    fault: Option<TokenFault>,
) -> Refusal {
    let asked = Asked::by(request, peer);
    match fault {
        Some(fault) => asked.log("token", &fault, &format!("[auth.jwt], {file}")),
        None => asked.log(
            "token",
            &format_args!("a token is not the password of this user of {file}"),
            "auth.order: put \"jwt\" before \"password\"; or another user name",
        ),
    }
    Refusal {
        code: ReasonCode::NotAuthorized,
        reason: "not authorized: the token is not accepted",
    }
}

pub(super) fn busy(request: &ConnectRequest, peer: &Peer) -> Refusal {
    Asked::by(request, peer).log(
        "password_checks",
        &"too many password checks of this address are waiting",
        "limits.password_checks_per_address_max",
    );
    Refusal {
        code: ReasonCode::ServerBusy,
        reason: "too many logins from this address are waiting: try again later",
    }
}

impl Authenticator {
    pub(super) fn refuse_anonymous(
        &self,
        request: &ConnectRequest,
        listener: &ListenerConfig,
        peer: &Peer,
    ) -> Refusal {
        let hint = self.anonymous_hint(request, listener);
        Asked::by(request, peer).log("anonymous", &"no source of [auth] knows it", hint);
        Refusal {
            code: ReasonCode::NotAuthorized,
            reason: "not authorized: send a user name and password that this broker knows",
        }
    }

    fn anonymous_hint(&self, request: &ConnectRequest, listener: &ListenerConfig) -> &'static str {
        let has_files = self.passwords.is_some();
        if has_credentials(request) && self.has_users() {
            return match (has_files, self.tokens.is_some()) {
                (true, true) => {
                    "the client sent a password that is no token, and no user name for auth.password_file"
                }
                (false, true) => {
                    "the client sent a password that is no token, and only tokens are known (auth.jwt); for others set auth.password_file and add a user with: motemq passwd add USER"
                }
                _ => "the client sent a password and no user name",
            };
        }
        match listener.anonymous {
            _ if has_files => {
                "the client sent no user name; anonymous access is off in this listener"
            }
            _ if self.tokens.is_some() => {
                "the client sent no token as its password; anonymous access is off in this listener"
            }
            _ if self.scram.is_some() => {
                "the client named no authentication method and users log in by SCRAM-SHA-256 only; for others set auth.password_file and add a user with: motemq passwd add USER"
            }
            AnonymousAccess::Loopback => {
                "only clients on this machine may connect without a password; set auth.password_file and add a user with: motemq passwd add USER"
            }
            _ => {
                "anonymous access is off. Allow it: anonymous = true in this listener; or set auth.password_file and add a user with: motemq passwd add USER"
            }
        }
    }
}
