//! What a client that is not let in is told, and what the log says: which check failed, and which key would change that.

use super::{Authenticator, Decision, Peer, TokenFault, has_credentials};
use crate::audit::AuditLimit;
use crate::config::{AnonymousAccess, ListenerConfig};
use motemq_codec::ReasonCode;
use motemq_core::{ConnectRequest, Verdict};

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

pub(super) fn certificate(client: &str, listener: &ListenerConfig, peer: &Peer) -> Refusal {
    if let Some(suppressed) = REFUSALS.admit() {
        tracing::warn!(
            client,
            peer = %peer.address,
            listener = listener.name,
            suppressed,
            "refused client: its certificate has expired or holds no usable name; see identity in [listeners.tls]"
        );
    }
    Refusal {
        code: ReasonCode::NotAuthorized,
        reason: "the client certificate has expired or names nobody",
    }
}

pub(super) fn password(request: &ConnectRequest, peer: &Peer, files: &str) -> Refusal {
    if let Some(suppressed) = REFUSALS.admit() {
        tracing::warn!(
            client = request.client_id,
            user = request.username,
            file = files,
            peer = %peer.address,
            suppressed,
            "refused client: wrong user name or password. Set it with: motemq passwd add USER -f FILE"
        );
    }
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
    if let Some(suppressed) = REFUSALS.admit() {
        let client = request.client_id.as_str();
        match fault {
            Some(fault) => {
                tracing::warn!(client, file, peer = %peer.address, %fault, suppressed, "refused client: its token is not accepted");
            }
            None => {
                tracing::warn!(client, user = request.username, file, peer = %peer.address, suppressed, "refused client: a token is not this user's password; put \"jwt\" before \"password\" in auth.order, or use another user name");
            }
        }
    }
    Refusal {
        code: ReasonCode::NotAuthorized,
        reason: "not authorized: the token is not accepted",
    }
}

pub(super) fn busy(request: &ConnectRequest, peer: &Peer) -> Refusal {
    if let Some(suppressed) = BUSY.admit() {
        tracing::warn!(
            client = request.client_id,
            peer = %peer.address,
            suppressed,
            "refused client: its address has limits.password_checks_per_address_max password checks waiting"
        );
    }
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
        if let Some(suppressed) = REFUSALS.admit() {
            tracing::warn!(
                client = request.client_id,
                peer = %peer.address,
                listener = listener.name,
                hint,
                suppressed,
                "refused client: not authorized"
            );
        }
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

/// Refused clients in the log.
pub(super) static REFUSALS: AuditLimit = AuditLimit::new();
/// Those that had too many checks waiting.
static BUSY: AuditLimit = AuditLimit::new();
