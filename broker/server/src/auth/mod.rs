//! Who a client is: a chain of sources, asked in the order of `auth.order`.
//!
//! A source accepts, refuses, or has nothing to say; the first that decides has decided:
//! - `certificate`: a verified certificate with a name accepts.
//! - `password`: a user of the password files is decided about; another one is refused, unless a later source may know better.
//! - `jwt`: a password that is a token is decided about.
//! - `scram`: decides where the client names the method; else it has nothing to say.
//!
//! Who has shown nothing is nobody, where the listener admits nobody. Fails closed: what cannot be checked is refused, and an unusable
//! certificate refuses whatever else is shown. A refusal names, to the client as far as it may know and to the log always, the key
//! that would change the outcome.
//!
//! Before all of them: the holder of a claim certificate may enrol and do nothing else, whatever else it shows. After all of them: so may
//! who has shown nothing, where the listener says so.
//!
//! A login can be asked about again ([`Authenticator::still_admits`]), so that a reload ends what it no longer allows.

mod check_line;
mod enhanced;
mod operator;
mod peer;
mod proof;
mod refusal;

pub(crate) use check_line::CheckLine;
pub use enhanced::Exchange;
pub(crate) use operator::check as check_operator;
pub use peer::{Peer, PeerAddress, PeerCertificate, Unusable, VerifiedCertificate};
pub use proof::{Credential, Proof, StoredCredential};

use crate::clock;
use crate::config::{AnonymousAccess, AuthConfig, AuthSource, EnrolmentConfig, ListenerConfig};
use crate::jwt::{self, KeysFileError, TokenFault, Tokens};
use crate::password::{self, Format, PasswordFile, PasswordFileError};
use crate::scram::Users;
use crate::scram_file;
use motemq_core::{Attributes, ConnectRequest, Identity, Login, Scope, Verdict};
use rand::RngExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Checks credentials.
#[derive(Debug)]
pub struct Authenticator {
    order: Vec<AuthSource>,
    passwords: Option<Arc<PasswordFile>>,
    /// Where they come from, for hints.
    password_files: String,
    tokens: Option<Tokens>,
    scram: Option<Users>,
    scram_path: PathBuf,
    checks: Arc<CheckLine>,
    /// Certificates can be asked for.
    enrols: bool,
}

/// What the check of a CONNECT found.
#[derive(Clone, Debug)]
pub struct Decision {
    /// For the core.
    pub verdict: Verdict,
    /// What an accepted login rests on.
    pub proof: Option<Proof>,
}

/// A source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A password file or the SCRAM file.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The keys of tokens.
    #[error(transparent)]
    Keys(#[from] KeysFileError),
    /// Whose password would count?
    #[error(
        "user \"{user}\" is in {} (auth.password_file) and in {} (auth.mosquitto_password_file): remove one, for example with: motemq passwd rm",
        ours.display(),
        theirs.display()
    )]
    InBoth {
        /// The user.
        user: String,
        /// `auth.password_file`.
        ours: PathBuf,
        /// `auth.mosquitto_password_file`.
        theirs: PathBuf,
    },
}

/// What one source says.
enum Answer {
    Decided(Decision),
    /// Ask the next.
    Nothing,
}

impl Authenticator {
    /// Loads the files, if there are any; password checks stand in the line `checks`.
    ///
    /// # Errors
    /// When a file cannot be read or holds a bad line: fail closed.
    pub(crate) fn new(config: &AuthConfig, checks: Arc<CheckLine>) -> Result<Self, AuthError> {
        let scram_file = config.scram_file.as_deref();
        let files = [&config.password_file, &config.mosquitto_password_file];
        let shown = files.into_iter().flatten();
        let shown: Vec<_> = shown.map(|path| path.display().to_string()).collect();
        Ok(Self {
            order: config.order.clone(),
            passwords: load_passwords(config)?.map(Arc::new),
            password_files: shown.join(", "),
            tokens: Tokens::load(&config.jwt)?,
            scram: scram_file.map(scram_file::load).transpose()?,
            scram_path: scram_file
                .unwrap_or_else(|| Path::new("scram-users"))
                .to_owned(),
            checks,
            enrols: false,
        })
    }

    /// The same, where certificates can be asked for or not.
    #[must_use]
    pub(crate) fn with_enrolment(self, config: &EnrolmentConfig) -> Self {
        Self {
            enrols: config.is_on(),
            ..self
        }
    }

    /// Decides about a CONNECT.
    pub async fn check(
        &self,
        request: ConnectRequest,
        listener: &ListenerConfig,
        peer: &Peer,
    ) -> Decision {
        if let PeerCertificate::Unusable(why) = peer.certificate {
            return refusal::certificate(&request.client_id, peer, why).into();
        }
        if let Some(claim) = peer.certificate.claim() {
            return match self.enrols {
                true => accepted(applicant(claim.clone(), peer), Proof::Claim),
                false => refusal::claim(&request.client_id, claim, peer).into(),
            };
        }
        for (at, source) in self.order.iter().enumerate() {
            let (before, later) = (
                self.order.get(..at).unwrap_or_default(),
                self.order.get(at + 1..).unwrap_or_default(),
            );
            let answer = match source {
                AuthSource::Certificate => by_certificate(peer),
                AuthSource::Password => self.by_password(&request, peer, later).await,
                AuthSource::Jwt => self.by_token(&request, peer, before).await,
                AuthSource::Scram => Answer::Nothing,
            };
            if let Answer::Decided(decision) = answer {
                return decision;
            }
        }
        let has_credentials = has_credentials(&request);
        if admits_anonymous(listener, peer) && !(has_credentials && self.has_users()) {
            let login = login(Identity::Anonymous, peer);
            return accepted(login, Proof::Anonymous { has_credentials });
        }
        if self.admits_applicants(listener) && !has_credentials {
            let login = Login {
                scope: Scope::Enrolment,
                ..login(Identity::Anonymous, peer)
            };
            return accepted(login, Proof::Applicant);
        }
        self.refuse_anonymous(&request, listener, peer).into()
    }

    /// Whether a login that was accepted earlier would be now, as far as that can be told without the client.
    #[must_use]
    pub fn still_admits(&self, proof: &Proof, listener: &ListenerConfig, peer: &Peer) -> bool {
        let has = |source| self.order.contains(&source);
        let stands = match proof {
            Proof::Anonymous { has_credentials } => {
                admits_anonymous(listener, peer) && !(*has_credentials && self.has_users())
            }
            Proof::Certificate => has(AuthSource::Certificate) && peer.certificate.name().is_some(),
            // Its token is read at the start only.
            Proof::Operator => true,
            Proof::Claim => self.enrols,
            Proof::Applicant => self.admits_applicants(listener),
            Proof::Password(stored) => {
                let now = self.passwords.as_ref();
                let now = now.and_then(|users| users.fingerprint(&stored.user));
                has(AuthSource::Password) && now == Some(stored.fingerprint)
            }
            Proof::Scram(stored) => {
                let now = self.scram.as_ref();
                let now = now.and_then(|users| users.fingerprint(&stored.user));
                has(AuthSource::Scram) && now == Some(stored.fingerprint)
            }
            Proof::Token(Credential(fingerprint)) => {
                let tokens = self.tokens.as_ref();
                has(AuthSource::Jwt) && tokens.is_some_and(|tokens| tokens.stands(*fingerprint))
            }
        };
        stands && self.certificate_stands(peer)
    }

    /// Whether the certificate of a live connection is still good, whatever the login rests on. A connection without one has none to
    /// lose.
    fn certificate_stands(&self, peer: &Peer) -> bool {
        match &peer.certificate {
            PeerCertificate::None => true,
            PeerCertificate::Verified(certificate) => clock::now() < certificate.expires_at,
            PeerCertificate::Unusable(_) => false,
        }
    }

    async fn by_password(
        &self,
        request: &ConnectRequest,
        peer: &Peer,
        later: &[AuthSource],
    ) -> Answer {
        let (Some(passwords), Some(user)) = (&self.passwords, &request.username) else {
            return Answer::Nothing;
        };
        let password = request.password.as_deref().unwrap_or_default();
        let may_be_token = later.contains(&AuthSource::Jwt) && self.is_token(password);
        let has_name =
            later.contains(&AuthSource::Certificate) && peer.certificate.name().is_some();
        if !passwords.has(user) && (may_be_token || has_name) {
            return Answer::Nothing;
        }
        let Ok(permit) = self.checks.enter(&peer.address).await else {
            return Answer::Decided(refusal::busy(request, peer).into());
        };
        let (users, name, password) = (passwords.clone(), user.clone(), password.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            users.verify(&name, &password)
        });
        // If a check panics its permit is passed on all the same, and there is no verdict.
        Answer::Decided(match (check.await, passwords.fingerprint(user)) {
            (Ok(password::Verdict::Accepted), Some(fingerprint)) => {
                let login = login(Identity::User(user.as_str().into()), peer);
                accepted(login, Proof::password(user, fingerprint))
            }
            // As for a user who is not known, whose token is looked at.
            _ if may_be_token => refusal::token(request, peer, &self.password_files, None).into(),
            _ => refusal::password(request, peer, &self.password_files).into(),
        })
    }

    async fn by_token(
        &self,
        request: &ConnectRequest,
        peer: &Peer,
        before: &[AuthSource],
    ) -> Answer {
        let (Some(tokens), Some(token)) = (&self.tokens, &request.password) else {
            return Answer::Nothing;
        };
        if !jwt::looks_like_token(token) {
            return Answer::Nothing;
        }
        match tokens.verify(token, &request.client_id, clock::now()) {
            Ok(found) => {
                let attributes = Attributes {
                    fields: peer.certificate.attributes().fields.clone(),
                    ..found.attributes
                };
                let expiries = [Some(found.expires_at), peer.certificate.expires_at()];
                let login = Login {
                    identity: Identity::User(found.user.into()),
                    attributes: Arc::new(attributes),
                    expires_at: expiries.into_iter().flatten().min(),
                    scope: Scope::Full,
                };
                let proof = Proof::Token(Credential(found.fingerprint));
                Answer::Decided(accepted(login, proof))
            }
            Err(fault) => {
                if before.contains(&AuthSource::Password) && !fault.is_of_signed_token() {
                    self.work_in_vain(request, peer).await;
                }
                let file = tokens.path().display().to_string();
                Answer::Decided(refusal::token(request, peer, &file, Some(fault)).into())
            }
        }
    }

    /// Whoever sends no real token finds out whether a user is known neither by the answer nor by its time.
    async fn work_in_vain(&self, request: &ConnectRequest, peer: &Peer) {
        let (Some(passwords), Some(_)) = (&self.passwords, &request.username) else {
            return;
        };
        let Ok(permit) = self.checks.enter(&peer.address).await else {
            return;
        };
        let (passwords, token) = (passwords.clone(), request.password.clone());
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            passwords.work_in_vain(&token.unwrap_or_default());
        });
        // The refusal is decided, however the work ends.
        let _ = work.await;
    }

    fn is_token(&self, password: &[u8]) -> bool {
        self.tokens.is_some() && jwt::looks_like_token(password)
    }

    /// Whether clients without credentials may ask for a certificate.
    fn admits_applicants(&self, listener: &ListenerConfig) -> bool {
        self.enrols && listener.enrolment
    }

    /// Whether there is a source that knows users by user name and password.
    fn has_users(&self) -> bool {
        self.passwords.is_some() || self.tokens.is_some()
    }
}

fn load_passwords(config: &AuthConfig) -> Result<Option<PasswordFile>, AuthError> {
    let load = |path: &Option<PathBuf>, format| {
        let path = path.as_deref();
        path.map(|path| PasswordFile::load(path, format))
            .transpose()
    };
    let ours = load(&config.password_file, Format::Ours)?;
    let theirs = load(&config.mosquitto_password_file, Format::Mosquitto)?;
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            let joined = ours.joined(theirs).map_err(|user| AuthError::InBoth {
                user,
                ours: config.password_file.clone().unwrap_or_default(),
                theirs: config.mosquitto_password_file.clone().unwrap_or_default(),
            })?;
            Ok(Some(joined))
        }
        (ours, theirs) => Ok(ours.or(theirs)),
    }
}

fn by_certificate(peer: &Peer) -> Answer {
    match peer.certificate.name() {
        None => Answer::Nothing,
        Some(name) => {
            let login = login(Identity::Certificate(name.clone()), peer);
            Answer::Decided(accepted(login, Proof::Certificate))
        }
    }
}

/// Whether the client sent something by which a user could be known.
fn has_credentials(request: &ConnectRequest) -> bool {
    let password = request.password.as_ref();
    request.username.is_some() || password.is_some_and(|password| !password.is_empty())
}

fn admits_anonymous(listener: &ListenerConfig, peer: &Peer) -> bool {
    match listener.anonymous {
        AnonymousAccess::Refused => false,
        AnonymousAccess::Loopback => peer.address.is_local(),
        AnonymousAccess::Allowed => true,
    }
}

fn login(identity: Identity, peer: &Peer) -> Login {
    Login {
        attributes: peer.certificate.attributes(),
        // The connection ends with the certificate that opened it, whatever the login rests on.
        expires_at: peer.certificate.expires_at(),
        ..identity.into()
    }
}

/// The holder of a claim certificate, who may enrol.
fn applicant(claim: Arc<str>, peer: &Peer) -> Login {
    Login {
        scope: Scope::Enrolment,
        ..login(Identity::Certificate(claim), peer)
    }
}

fn accepted(login: Login, proof: Proof) -> Decision {
    let entropy = rand::rng().random();
    Decision {
        verdict: Verdict::Accepted { login, entropy },
        proof: Some(proof),
    }
}

#[cfg(test)]
mod tests;
