//! Who a client is: its certificate, its password, by SCRAM when it names that method, or nobody where the listener admits
//! nobody.
//!
//! Fails closed: what cannot be checked is refused. A refusal names, to the client as far as it may know and to the log
//! always, the key that would change the outcome. Passwords are verified off the connection tasks, a bounded number at a
//! time, because each costs 19 MiB and about 20 ms. A SCRAM step costs a few hashes and is answered at once.

use crate::audit::AuditLimit;
use crate::config::{AnonymousAccess, AuthConfig, ListenerConfig};
use crate::password::{self, PasswordFile, PasswordFileError};
use crate::scram::{self, Fault, Prepared, Users};
use crate::scram_file;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use motemq_codec::ReasonCode;
use motemq_core::{ConnectRequest, ExchangeAnswer, ExchangeStage, ExchangeStep, Identity, Verdict};
use rand::RngExt as _;
use std::fmt;
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
    scram: Option<Users>,
    scram_path: PathBuf,
    checks: Arc<Semaphore>,
}

/// What is known of a connection before its CONNECT.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: PeerAddress,
    /// What its certificate says.
    pub certificate: PeerCertificate,
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
    /// There is none, or the listener does not log in by certificate.
    None,
    /// A verified name.
    Name(Arc<str>),
    /// It is valid for the handshake but names nobody, or has expired since.
    Unusable,
}

/// A SCRAM exchange on one connection, which waits for the client.
#[derive(Debug)]
pub struct Exchange {
    /// The client identifier, for the log.
    client: String,
    scram: scram::Exchange,
}

impl Authenticator {
    /// Loads the password file and the SCRAM file, if there are any.
    ///
    /// # Errors
    /// When a file cannot be read or holds a bad line: fail closed.
    pub fn new(config: &AuthConfig) -> Result<Self, PasswordFileError> {
        let password_file = config.password_file.as_deref();
        let scram_file = config.scram_file.as_deref();
        let passwords = password_file
            .map(PasswordFile::load)
            .transpose()?
            .map(Arc::new);
        Ok(Self {
            passwords,
            path: password_file
                .unwrap_or_else(|| Path::new("users"))
                .to_owned(),
            scram: scram_file.map(scram_file::load).transpose()?,
            scram_path: scram_file
                .unwrap_or_else(|| Path::new("scram-users"))
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
                let (code, reason) = refuse_certificate(&request.client_id, listener, peer);
                return Verdict::Refused { code, reason };
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

    /// Says the server's part of a step; `exchange` is what it keeps between two, `client` the identifier once connected.
    pub fn answer(
        &self,
        exchange: &mut Option<Box<Exchange>>,
        step: ExchangeStep,
        client: Option<&str>,
        listener: &ListenerConfig,
        peer: &Peer,
    ) -> ExchangeAnswer {
        // Whatever comes of it, the one before is over: a message counts once.
        let earlier = exchange.take();
        let (method, client, username) = match step.stage {
            ExchangeStage::Connect { method, request } => {
                (method, request.client_id, request.username)
            }
            ExchangeStage::Again { method } => (method, client.unwrap_or_default().into(), None),
            ExchangeStage::Continue => return self.finish(earlier, &step.data, peer),
        };
        if let PeerCertificate::Unusable = peer.certificate {
            let (code, reason) = refuse_certificate(&client, listener, peer);
            return ExchangeAnswer::Refused { code, reason };
        }
        let Some(users) = self.scram.as_ref().filter(|_| *method == *scram::METHOD) else {
            return self.refuse_method(&client, &method, peer);
        };
        match begin(users, &step.data, username.as_deref()) {
            Ok((scram, message)) => {
                *exchange = Some(Box::new(Exchange { client, scram }));
                ExchangeAnswer::Continue(message.into_bytes())
            }
            Err(fault) => self.refuse_scram(&client, "", fault, peer),
        }
    }

    fn finish(&self, exchange: Option<Box<Exchange>>, data: &[u8], peer: &Peer) -> ExchangeAnswer {
        let Some(exchange) = exchange else {
            return self.refuse_scram("", "", Fault::Malformed, peer);
        };
        let user = exchange.scram.user();
        match exchange.scram.finish(data) {
            Ok(message) => ExchangeAnswer::Accepted {
                login: Identity::User(user.into()).into(),
                entropy: rand::rng().random(),
                data: message.into_bytes(),
            },
            Err(fault) => self.refuse_scram(&exchange.client, user, fault, peer),
        }
    }

    fn refuse_scram(&self, client: &str, user: &str, fault: Fault, peer: &Peer) -> ExchangeAnswer {
        if let Some(suppressed) = REFUSALS.admit() {
            tracing::warn!(
                client,
                user,
                file = %self.scram_path.display(),
                peer = %peer.address,
                %fault,
                suppressed,
                "refused client: SCRAM-SHA-256 failed. Set a password with: motemq passwd add --scram USER -f FILE"
            );
        }
        let reason = match fault {
            Fault::WrongProof | Fault::UnknownUser => "wrong user name or password",
            Fault::ChannelBinding => "channel binding is not offered",
            Fault::OtherUserName => "the user name of CONNECT is not the one of the exchange",
            _ => "the authentication data is not the SCRAM-SHA-256 message that is due",
        };
        ExchangeAnswer::Refused {
            code: ReasonCode::NotAuthorized,
            reason,
        }
    }

    fn refuse_method(&self, client: &str, method: &str, peer: &Peer) -> ExchangeAnswer {
        let hint = match self.scram {
            Some(_) => "SCRAM-SHA-256 is the only method",
            None => {
                "set auth.scram_file and add a user with: motemq passwd add --scram USER; or let the client name no method"
            }
        };
        if let Some(suppressed) = REFUSALS.admit() {
            let method: String = method.chars().take(METHOD_SHOWN_MAX).collect();
            tracing::warn!(
                client,
                method,
                peer = %peer.address,
                hint,
                suppressed,
                "refused client: unknown authentication method"
            );
        }
        ExchangeAnswer::Refused {
            code: ReasonCode::BadAuthenticationMethod,
            reason: "this broker does not offer the authentication method",
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
            (None, _) if self.scram.is_some() => {
                "the client named no authentication method and users log in by SCRAM-SHA-256 only; for others set auth.password_file and add a user with: motemq passwd add USER"
            }
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

/// The user name of CONNECT is not needed; one that is there must be that of the exchange.
fn begin(
    users: &Users,
    data: &[u8],
    username: Option<&str>,
) -> Result<(scram::Exchange, String), Fault> {
    let mut nonce = [0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Fault::NoRandomness)?;
    let (exchange, message) = scram::Exchange::begin(data, users, &BASE64.encode(nonce))?;
    let is_other = |name| {
        let prepared = Prepared::new(name);
        prepared.is_none_or(|name| name.as_str() != exchange.user())
    };
    match username.is_some_and(is_other) {
        true => Err(Fault::OtherUserName),
        false => Ok((exchange, message)),
    }
}

fn refuse_certificate(
    client: &str,
    listener: &ListenerConfig,
    peer: &Peer,
) -> (ReasonCode, &'static str) {
    if let Some(suppressed) = REFUSALS.admit() {
        tracing::warn!(
            client,
            peer = %peer.address,
            listener = listener.name,
            suppressed,
            "refused client: its certificate has expired or holds no usable name; see identity in [listeners.tls]"
        );
    }
    (
        ReasonCode::NotAuthorized,
        "the client certificate has expired or names nobody",
    )
}

fn admits_anonymous(listener: &ListenerConfig, peer: &Peer) -> bool {
    match listener.anonymous {
        AnonymousAccess::Refused => false,
        AnonymousAccess::Loopback => peer.address.is_local(),
        AnonymousAccess::Allowed => true,
    }
}

fn accepted(identity: Identity) -> Verdict {
    Verdict::Accepted {
        login: identity.into(),
        entropy: rand::rng().random(),
    }
}

/// Refused clients in the log.
static REFUSALS: AuditLimit = AuditLimit::new();
/// Characters of an unknown method in the log.
const METHOD_SHOWN_MAX: usize = 64;
/// Random bytes of the server's half of a SCRAM nonce.
const NONCE_BYTES: usize = 18;
/// Password checks that run at the same time.
const CHECKS_AT_ONCE: usize = 2;
