//! Enhanced authentication: SCRAM-SHA-256, where the client names it.
//!
//! A step costs a few hashes and is answered at once. Does not know: the rules of AUTH; the core has them.

use super::refusal::{self, Asked, Refusal};
use super::{Authenticator, Peer, PeerCertificate, Proof, login};
use crate::config::AuthSource;
use crate::fingerprint::Fingerprint;
use crate::scram::{self, Fault, Prepared, Users};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use motemq_codec::ReasonCode;
use motemq_core::{ExchangeAnswer, ExchangeStage, ExchangeStep, Identity};
use rand::RngExt as _;

/// A SCRAM exchange on one connection, which waits for the client.
#[derive(Debug)]
pub struct Exchange {
    /// The client identifier, for the log.
    client: String,
    scram: scram::Exchange,
    /// Of what was stored of the user when it began.
    fingerprint: Option<Fingerprint>,
}

impl Exchange {
    /// The client identifier.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The user name, as claimed.
    #[must_use]
    pub fn user(&self) -> &str {
        self.scram.user()
    }
}

impl From<Refusal> for ExchangeAnswer {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, reason } = refusal;
        Self::Refused { code, reason }
    }
}

impl Authenticator {
    /// Says the server's part of a step; `exchange` is what it keeps between two, `client` the identifier once connected. What an
    /// accepted login rests on goes to `proof`.
    pub fn answer(
        &self,
        exchange: &mut Option<Box<Exchange>>,
        proof: &mut Option<Proof>,
        step: ExchangeStep,
        client: Option<&str>,
        peer: &Peer,
    ) -> ExchangeAnswer {
        // Whatever comes of it, the one before is over: a message counts once.
        let earlier = exchange.take();
        let (method, client, username) = match step.stage {
            ExchangeStage::Connect { method, request } => {
                (method, request.client_id, request.username)
            }
            ExchangeStage::Again { method } => (method, client.unwrap_or_default().into(), None),
            ExchangeStage::Continue => return self.finish(earlier, proof, &step.data, peer),
        };
        if let PeerCertificate::Unusable(why) = peer.certificate {
            return refusal::certificate(&client, peer, why).into();
        }
        if let Some(claim) = peer.certificate.claim() {
            return refusal::claim(&client, claim, peer).into();
        }
        let Some(users) = self.offered().filter(|_| *method == *scram::METHOD) else {
            return self.refuse_method(&client, &method, peer).into();
        };
        match begin(users, &step.data, username.as_deref()) {
            Ok((scram, message)) => {
                *exchange = Some(Box::new(Exchange {
                    client,
                    fingerprint: users.fingerprint(scram.user()),
                    scram,
                }));
                ExchangeAnswer::Continue(message.into_bytes())
            }
            Err(fault) => self.refuse_scram(&client, "", fault, peer).into(),
        }
    }

    /// The users who may log in by SCRAM.
    fn offered(&self) -> Option<&Users> {
        let is_offered = self.order.contains(&AuthSource::Scram);
        self.scram.as_ref().filter(|_| is_offered)
    }

    fn finish(
        &self,
        exchange: Option<Box<Exchange>>,
        proof: &mut Option<Proof>,
        data: &[u8],
        peer: &Peer,
    ) -> ExchangeAnswer {
        let Some(exchange) = exchange else {
            return self.refuse_scram("", "", Fault::Malformed, peer).into();
        };
        let user = exchange.scram.user();
        // A reload since the exchange began may have taken the user away.
        let stored = self.offered().and_then(|users| users.fingerprint(user));
        let stored = stored.filter(|stored| Some(*stored) == exchange.fingerprint);
        match (exchange.scram.finish(data), stored) {
            (Ok(message), Some(stored)) => {
                *proof = Some(Proof::scram(user, stored));
                ExchangeAnswer::Accepted {
                    login: login(Identity::User(user.into()), peer),
                    entropy: rand::rng().random(),
                    data: message.into_bytes(),
                }
            }
            (outcome, _) => {
                let fault = outcome.err().unwrap_or(Fault::UnknownUser);
                self.refuse_scram(&exchange.client, user, fault, peer)
                    .into()
            }
        }
    }

    fn refuse_scram(&self, client: &str, user: &str, fault: Fault, peer: &Peer) -> Refusal {
        Asked { client, user, peer }.log(
            "scram",
            &format_args!(
                "SCRAM-SHA-256 failed: {fault} ({})",
                self.scram_path.display()
            ),
            "motemq passwd add --scram USER -f FILE",
        );
        let reason = match fault {
            Fault::WrongProof | Fault::UnknownUser => "wrong user name or password",
            Fault::ChannelBinding => "channel binding is not offered",
            Fault::OtherUserName => "the user name of CONNECT is not the one of the exchange",
            _ => "the authentication data is not the SCRAM-SHA-256 message that is due",
        };
        Refusal {
            code: ReasonCode::NotAuthorized,
            reason,
        }
    }

    fn refuse_method(&self, client: &str, method: &str, peer: &Peer) -> Refusal {
        let hint = match self.offered() {
            Some(_) => "SCRAM-SHA-256 is the only method",
            None => {
                "set auth.scram_file and add a user with: motemq passwd add --scram USER; or let the client name no method"
            }
        };
        let shown: String = method.chars().take(METHOD_SHOWN_MAX).collect();
        let user = "";
        Asked { client, user, peer }.log(
            "authentication_method",
            &format_args!("unknown authentication method {shown}"),
            hint,
        );
        Refusal {
            code: ReasonCode::BadAuthenticationMethod,
            reason: "this broker does not offer the authentication method",
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

/// Characters of an unknown method in the log.
const METHOD_SHOWN_MAX: usize = 64;
/// Random bytes of the server's half of a SCRAM nonce.
const NONCE_BYTES: usize = 18;
