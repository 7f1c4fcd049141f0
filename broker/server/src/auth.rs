//! Who a client is: its certificate, its password, or nobody where the listener admits nobody.
//!
//! Fails closed: what cannot be checked is refused. A refusal names, to the client as far as it may know and to the log
//! always, the key that would change the outcome. Passwords are verified off the connection tasks, a bounded number at a
//! time, because each costs 19 MiB and about 20 ms.

use crate::audit::AuditLimit;
use crate::config::{AnonymousAccess, ListenerConfig};
use crate::password::{self, PasswordFile, PasswordFileError};
use motemq_codec::ReasonCode;
use motemq_core::{ConnectRequest, Identity, Verdict};
use rand::RngExt as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Checks credentials.
#[derive(Debug)]
pub struct Authenticator {
    passwords: Option<Arc<PasswordFile>>,
    /// Where they come from, for hints.
    path: PathBuf,
    checks: Arc<Semaphore>,
}

/// What is known of a connection before its CONNECT.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What its certificate says.
    pub certificate: PeerCertificate,
}

/// What a client certificate says about who the client is.
#[derive(Clone, Debug)]
pub enum PeerCertificate {
    /// There is none, or the listener does not log in by certificate.
    None,
    /// A verified name.
    Name(Arc<str>),
    /// It is valid for the handshake but names nobody, or has expired since.
    Unusable,
}

impl Authenticator {
    /// Loads the password file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or holds a bad line: fail closed.
    pub fn new(password_file: Option<&Path>) -> Result<Self, PasswordFileError> {
        let passwords = password_file
            .map(PasswordFile::load)
            .transpose()?
            .map(Arc::new);
        Ok(Self {
            passwords,
            path: password_file
                .unwrap_or_else(|| Path::new("users"))
                .to_owned(),
            checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
        })
    }

    /// Decides about a CONNECT.
    pub async fn check(
        &self,
        request: ConnectRequest,
        listener: &ListenerConfig,
        peer: &Peer,
    ) -> Verdict {
        match &peer.certificate {
            PeerCertificate::None => {}
            PeerCertificate::Name(name) => return accepted(Identity::Certificate(name.clone())),
            PeerCertificate::Unusable => {
                if let Some(suppressed) = REFUSALS.admit() {
                    tracing::warn!(
                        client = request.client_id,
                        peer = %peer.address,
                        listener = listener.name,
                        suppressed,
                        "refused client: its certificate has expired or holds no usable name; see identity in [listeners.tls]"
                    );
                }
                return Verdict::Refused {
                    code: ReasonCode::NotAuthorized,
                    reason: "the client certificate has expired or names nobody",
                };
            }
        }
        match (&self.passwords, &request.username) {
            (Some(passwords), Some(user)) => {
                let password = request.password.clone().unwrap_or_default();
                self.check_password(passwords.clone(), user, password, &request, peer)
                    .await
            }
            _ if admits_anonymous(listener, peer) => accepted(Identity::Anonymous),
            _ => self.refuse_anonymous(&request, listener, peer),
        }
    }

    async fn check_password(
        &self,
        passwords: Arc<PasswordFile>,
        user: &str,
        password: Vec<u8>,
        request: &ConnectRequest,
        peer: &Peer,
    ) -> Verdict {
        // The semaphore is never closed; if a check panics its permit is gone with it, and so is the verdict.
        let permit = self.checks.clone().acquire_owned().await;
        let name = user.to_owned();
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            passwords.verify(&name, &password)
        });
        match check.await {
            Ok(password::Verdict::Accepted) => accepted(Identity::User(user.into())),
            Ok(password::Verdict::Refused | password::Verdict::UnknownUser) | Err(_) => {
                if let Some(suppressed) = REFUSALS.admit() {
                    tracing::warn!(
                        client = request.client_id,
                        user,
                        file = %self.path.display(),
                        peer = %peer.address,
                        suppressed,
                        "refused client: wrong user name or password. Set it with: motemq passwd add USER -f FILE"
                    );
                }
                Verdict::Refused {
                    code: ReasonCode::BadUserNameOrPassword,
                    reason: "wrong user name or password",
                }
            }
        }
    }

    fn refuse_anonymous(
        &self,
        request: &ConnectRequest,
        listener: &ListenerConfig,
        peer: &Peer,
    ) -> Verdict {
        let name = &listener.name;
        let hint = match (&self.passwords, listener.anonymous) {
            (None, AnonymousAccess::Loopback) => {
                "only clients on this machine may connect without a password; set auth.password_file and add a user with: motemq passwd add USER"
            }
            (None, _) => {
                "anonymous access is off. Allow it: anonymous = true in this listener; or set auth.password_file and add a user with: motemq passwd add USER"
            }
            (Some(_), _) => {
                "the client sent no user name; anonymous access is off in this listener"
            }
        };
        if let Some(suppressed) = REFUSALS.admit() {
            tracing::warn!(
                client = request.client_id,
                peer = %peer.address,
                listener = name,
                hint,
                suppressed,
                "refused client: not authorized"
            );
        }
        Verdict::Refused {
            code: ReasonCode::NotAuthorized,
            reason: "not authorized: send a user name and password that this broker knows",
        }
    }
}

fn admits_anonymous(listener: &ListenerConfig, peer: &Peer) -> bool {
    match listener.anonymous {
        AnonymousAccess::Refused => false,
        AnonymousAccess::Loopback => peer.address.ip().to_canonical().is_loopback(),
        AnonymousAccess::Allowed => true,
    }
}

fn accepted(identity: Identity) -> Verdict {
    Verdict::Accepted {
        identity,
        entropy: rand::rng().random(),
    }
}

/// Refused clients in the log.
static REFUSALS: AuditLimit = AuditLimit::new();
/// Password checks that run at the same time.
const CHECKS_AT_ONCE: usize = 2;
