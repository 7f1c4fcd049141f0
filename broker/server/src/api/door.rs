//! `/mqtt` of the HTTP port: MQTT over WebSocket for the dashboard. The password is the token of the API, and who shows it is an
//! operator (`auth/operator.rs`).
//!
//! Promises: a page of another host gets no WebSocket; each connection counts at its listener `http`, in `http.streams_max` and in the
//! limits of all connections. Does not know: MQTT.

use super::Lease;
use crate::accept::Upgrade;
use crate::listener::{Listener, Refusal as Refused};
use crate::server::Server;
use crate::websocket::{Agreed, Refusal, agree, check_upgrade};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use std::sync::Arc;

/// Where operators connect.
#[derive(Clone, Debug)]
struct Door {
    server: Arc<Server>,
    listener: Arc<Listener>,
}

/// The path, whose clients come to `listener`.
pub(crate) fn routes(server: Arc<Server>, listener: Arc<Listener>) -> Router {
    let door = Door { server, listener };
    Router::new().route("/mqtt", get(connect)).with_state(door)
}

async fn connect(
    State(door): State<Door>,
    ConnectInfo(lease): ConnectInfo<Lease>,
    mut request: Request,
) -> Response {
    let agreed = match examine(request.headers()) {
        Ok(agreed) => agreed,
        Err(refusal) => {
            door.listener.note_refused(Refused::WebSocket);
            tracing::debug!(peer = %lease.address(), %refusal, "no WebSocket at the HTTP port");
            return refused(&refusal);
        }
    };
    let hold = match lease.hold() {
        Ok(hold) => hold,
        Err(error) => return error.into_response(),
    };
    let upgrade = Upgrade::admit(&door.server, &door.listener, lease.address()).await;
    let Some(upgrade) = upgrade else {
        return (StatusCode::SERVICE_UNAVAILABLE, "refused: see the log\n").into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let connect_timeout = door.server.connect_timeout();
    door.server.spawn_connection(async move {
        let _hold = hold;
        if let Ok(Ok(stream)) = tokio::time::timeout(connect_timeout, upgraded).await {
            upgrade.run(TokioIo::new(stream)).await;
        }
    });
    let headers = [
        (header::UPGRADE, "websocket".to_owned()),
        (header::CONNECTION, "Upgrade".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, agreed.accept_key),
        (
            header::SEC_WEBSOCKET_PROTOCOL,
            agreed.subprotocol.to_owned(),
        ),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn examine(headers: &HeaderMap) -> Result<Agreed, Refusal> {
    let lines = headers.iter();
    let lines: Vec<_> = lines
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    check_upgrade(&lines)?;
    agree(&lines, &[])
}

fn refused(refusal: &Refusal) -> Response {
    let (status, _, text) = refusal.answer();
    let code = status.get(..3).and_then(|code| code.parse().ok());
    let code = code.unwrap_or(StatusCode::BAD_REQUEST);
    let version = [(header::SEC_WEBSOCKET_VERSION, "13")];
    (code, version, format!("{text}\n")).into_response()
}
