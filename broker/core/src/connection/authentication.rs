//! AUTH: enhanced authentication (MQTT 5 section 4.12), before CONNACK and again on a live connection.
//!
//! What the client presents leaves as an event, the method's answer comes back as input; what the method says is opaque
//! here. Invariants:
//! - Every AUTH of the exchange, both ways, and CONNACK name the method of CONNECT [MQTT5-4.12.0-5]; without one no AUTH
//!   is sent [MQTT5-4.12.0-6] or taken [MQTT5-4.12.0-7].
//! - Either the method or the client has the next word: an AUTH out of turn ends the connection.
//! - A connection keeps the identity of its CONNECT: another user cannot take it over by re-authentication.
//!
//! Does not know: methods, how long an exchange may take (the driver limits the time until CONNACK).

use super::handshake::ConnectRequest;
use super::{Close, Connection, Event, Phase, Violation};
use crate::broker::Broker;
use crate::counters::{Direction, PacketKind};
use crate::login::Login;
use crate::time::Timestamp;
use motemq_codec::{Auth, ReasonCode, UserProperties};
use std::fmt;

/// One step of an enhanced authentication, to be answered with [`Connection::handle_answer`].
#[derive(Clone)]
pub struct ExchangeStep {
    /// Where the exchange stands.
    pub stage: ExchangeStage,
    /// The client's Authentication Data; absent counts as empty. Never logged.
    pub data: Vec<u8>,
}

/// Where an exchange stands.
#[derive(Clone, Debug)]
pub enum ExchangeStage {
    /// A CONNECT starts it.
    Connect {
        /// The Authentication Method.
        method: Box<str>,
        /// What else the client presents.
        request: ConnectRequest,
    },
    /// An AUTH on a live connection starts it anew; whatever was known of an earlier one is over.
    Again {
        /// The Authentication Method, the one of CONNECT.
        method: Box<str>,
    },
    /// The client answers.
    Continue,
}

impl fmt::Debug for ExchangeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeStep")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

/// What the method says to a step.
pub enum ExchangeAnswer {
    /// The client has to answer this data.
    Continue(Vec<u8>),
    /// The client is who it says.
    Accepted {
        /// Who that is.
        login: Login,
        /// Random bits for an assigned client identifier.
        entropy: u128,
        /// The method's last data; empty for none.
        data: Vec<u8>,
    },
    /// The client is not let in, or not any longer.
    Refused {
        /// The reason code.
        code: ReasonCode,
        /// The reason string.
        reason: &'static str,
    },
}

impl fmt::Debug for ExchangeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue(_) => f.write_str("Continue"),
            Self::Accepted { login, .. } => write!(f, "Accepted({})", login.identity),
            Self::Refused { code, .. } => write!(f, "Refused({code:?})"),
        }
    }
}

/// The method that a client named in CONNECT.
#[derive(Debug)]
pub(super) struct Enhanced {
    pub(super) method: Box<str>,
    pub(super) turn: Turn,
}

/// Who has the next word.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// No exchange is under way; the client may start one.
    Nobody,
    /// The method, through the driver.
    Method,
    /// The client.
    Client,
}

impl Enhanced {
    fn take(&mut self, auth: &Auth<'_>) -> Result<ExchangeStep, Violation> {
        // [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
        if auth.authentication_method != Some(&*self.method) {
            return Err(Violation::OtherAuthMethod);
        }
        let stage = match (auth.code, self.turn) {
            // [MQTT5-4.12.0-3]
            (ReasonCode::ContinueAuthentication, Turn::Client) => ExchangeStage::Continue,
            (ReasonCode::ReAuthenticate, Turn::Nobody) => ExchangeStage::Again {
                method: self.method.clone(),
            },
            _ => return Err(Violation::AuthOutOfTurn),
        };
        self.turn = Turn::Method;
        let data = auth.authentication_data.unwrap_or_default().to_vec();
        Ok(ExchangeStep { stage, data })
    }
}

impl Connection {
    pub(super) fn handle_auth(&mut self, auth: &Auth<'_>) -> Result<Event, Violation> {
        let enhanced = self.enhanced().ok_or(Violation::UnexpectedAuth)?;
        enhanced.take(auth).map(Event::Exchange)
    }

    /// Continues after the method has looked at an [`ExchangeStep`].
    pub fn handle_answer(
        &mut self,
        answer: ExchangeAnswer,
        broker: &Broker,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let is_awaited = self
            .enhanced()
            .is_some_and(|enhanced| enhanced.turn == Turn::Method);
        if self.closed.is_some() || !is_awaited {
            return;
        }
        self.touch_traces(now);
        match answer {
            ExchangeAnswer::Continue(data) => {
                // [MQTT5-4.12.0-2]
                self.send_auth(ReasonCode::ContinueAuthentication, Turn::Client, &data, out);
            }
            ExchangeAnswer::Refused { code, reason } => self.end_exchange(code, reason, out),
            ExchangeAnswer::Accepted {
                login,
                entropy,
                data,
            } => match &mut self.phase {
                Phase::Active(active) => {
                    if active.session.lock().identity != login.identity {
                        let reason = "re-authentication as another user: connect anew";
                        return self.end_exchange(ReasonCode::NotAuthorized, reason, out);
                    }
                    active.login_ends_at = login.expires_at;
                    let (session, epoch) = (&active.session, active.epoch);
                    broker.renew_login(session, epoch, login.attributes, &mut self.tally);
                    active.access.forget();
                    self.send_auth(ReasonCode::Success, Turn::Nobody, &data, out);
                }
                Phase::Authenticating(hello) => {
                    hello.authentication_data = Some(data).filter(|data| !data.is_empty());
                    self.accept_waiting(login, entropy, broker, now, out);
                }
                Phase::AwaitConnect => {}
            },
        }
    }

    /// Sends no Reason String and no User Property [MQTT5-3.15.2-2] [MQTT5-3.15.2-3] [MQTT5-3.1.2-29].
    fn send_auth(&mut self, code: ReasonCode, turn: Turn, data: &[u8], out: &mut Vec<u8>) {
        let (version, packet_bytes_max) = (self.version, self.packet_bytes_max());
        let Some(enhanced) = self.enhanced() else {
            return;
        };
        let auth = Auth {
            code,
            authentication_method: Some(&enhanced.method),
            authentication_data: Some(data).filter(|data| !data.is_empty()),
            reason_string: None,
            user_properties: UserProperties::default(),
        };
        // [MQTT5-3.1.2-24]
        let fits = auth
            .encoded_len(version)
            .is_ok_and(|length| length <= packet_bytes_max);
        if !fits {
            let reason = "AUTH is above the client's Maximum Packet Size";
            return self.end_exchange(ReasonCode::PacketTooLarge, reason, out);
        }
        let _ = auth.encode(version, out);
        enhanced.turn = turn;
        self.tally.packet(Direction::Out, PacketKind::Auth);
        if self.traces.is_some() {
            self.trace_auth(code, data);
        }
    }

    /// CONNACK or DISCONNECT with an error, then the end [MQTT5-4.12.0-4] [MQTT5-4.12.1-2].
    fn end_exchange(&mut self, code: ReasonCode, reason: &'static str, out: &mut Vec<u8>) {
        match self.phase {
            Phase::Active(_) => self.close(Close::ReauthenticationFailed(code, reason), out),
            _ => self.refuse(code, Some(reason), out),
        }
    }

    pub(super) fn enhanced(&mut self) -> Option<&mut Enhanced> {
        match &mut self.phase {
            Phase::Authenticating(hello) => hello.enhanced.as_deref_mut(),
            Phase::Active(active) => active.enhanced.as_deref_mut(),
            Phase::AwaitConnect => None,
        }
    }

    /// The largest packet that the client takes.
    pub(super) fn packet_bytes_max(&self) -> usize {
        match &self.phase {
            Phase::Authenticating(hello) => hello.packet_bytes_max,
            Phase::Active(active) => active.packet_bytes_max,
            Phase::AwaitConnect => usize::MAX,
        }
    }
}
