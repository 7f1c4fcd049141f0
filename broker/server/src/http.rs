//! The HTTP port: metrics and health.

use crate::config::HttpConfig;
use crate::http_guard::GuardedListener;
use crate::metrics;
use crate::server::{Server, StartError};
use crate::socket::listen;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use motemq_core::Room;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Serves on `address` until the task is dropped.
///
/// # Errors
/// When the address is taken.
pub(crate) async fn serve(
    server: Arc<Server>,
    address: SocketAddr,
    config: &HttpConfig,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Result<SocketAddr, StartError> {
    let bind_error = |source| StartError::Bind {
        what: "the HTTP port".to_owned(),
        address: address.into(),
        source,
    };
    let socket = listen(address, Duration::ZERO).map_err(bind_error)?;
    let bound = socket.local_addr().unwrap_or(address);
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(server);
    let timeout = Duration::from_secs(config.connection_timeout_s.into());
    let socket = GuardedListener::new(socket, config.max_connections as usize, timeout);
    tasks.spawn(async move {
        if let Err(error) = axum::serve(socket, routes).await {
            tracing::error!(%error, "the HTTP port has failed");
        }
    });
    Ok(bound)
}

async fn render(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        metrics::render(&server),
    )
}

/// Ready means: acknowledgements can be given.
async fn ready(State(server): State<Arc<Server>>) -> impl IntoResponse {
    match server.broker().room() {
        Room::Open | Room::Congested => (StatusCode::OK, "ok\n"),
        Room::Full => (StatusCode::SERVICE_UNAVAILABLE, "the disk is full\n"),
        Room::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store has failed\n"),
    }
}
