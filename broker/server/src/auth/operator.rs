//! Who shows the token of the API as its password is an operator: the dashboard, through the HTTP port.
//!
//! Promises: compared without regard to where it differs; never logged. Does not know: how the client came (`api/door.rs`).

use super::refusal::{Asked, Refusal};
use super::{Decision, Peer, Proof, accepted, login};
use crate::api::Token;
use motemq_codec::ReasonCode;
use motemq_core::{ConnectRequest, Identity, Login, Scope};

/// Decides about a CONNECT at the HTTP port.
pub(crate) fn check(token: &Token, request: &ConnectRequest, peer: &Peer) -> Decision {
    let shown = request.password.as_deref().unwrap_or_default();
    if str::from_utf8(shown).is_ok_and(|shown| token.is(shown)) {
        let identity = Identity::User(USER.into());
        let login = Login {
            scope: Scope::Operator,
            ..login(identity, peer)
        };
        return accepted(login, Proof::Operator);
    }
    Asked::by(request, peer).log(
        "api_token",
        &"the HTTP port asks for the token of the API as the password",
        "http.token_file",
    );
    Refusal {
        code: ReasonCode::BadUserNameOrPassword,
        reason: "the password is not the token of the API",
    }
    .into()
}

/// What operators are called.
const USER: &str = "dashboard";
