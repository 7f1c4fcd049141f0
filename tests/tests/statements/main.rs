//! Statements of MQTT 5 and 3.1.1 that no script of a session's life touches in passing, by subject, in virtual time.
//!
//! What must hold in every script is in `motemq_tests::watch`; the rest of the rules in `sessions.rs`, `shared.rs`,
//! `authentication.rs`, `transports.rs` and the codec. `tidy` lists who cites what.

mod connect;
mod delivery;
mod publish;
mod subscribe;

use motemq_codec::{Forwarded, ProtocolVersion, QoS, ReasonCode, Will};
use motemq_tests::peer::Hello;

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;
const OK: ReasonCode = ReasonCode::Success;

/// A durable session of each version.
fn durable_hellos(id: &str) -> [Hello<'_>; 2] {
    [Hello::durable(id), Hello::v3(id, false)]
}

/// A session of each version that starts clean.
fn clean_hellos(id: &str) -> [Hello<'_>; 2] {
    [Hello::clean(id), Hello::v3(id, true)]
}

/// A will of QoS 1 at `w`.
fn will(payload: &str, retain: bool) -> Will<'_> {
    Will {
        qos: QoS::AtLeastOnce,
        retain,
        topic: "w",
        payload: payload.as_bytes(),
        delay_s: 0,
        message_expiry_s: None,
        forwarded: Forwarded::default(),
    }
}
