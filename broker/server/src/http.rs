//! The HTTP port: metrics and health for everybody, the API for who shows its token.

use crate::api::{self, AdminSocket, Guarded, Lease, Token, dashboard, door};
use crate::auth::PeerAddress;
use crate::config::HttpConfig;
use crate::listener::Listener;
use crate::metrics;
use crate::server::{Server, StartError};
use crate::socket::listen;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use motemq_core::Room;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Serves everything on `address` until the task is dropped.
///
/// # Errors
/// When the address is taken.
pub(crate) fn serve(
    server: &Arc<Server>,
    address: SocketAddr,
    config: &HttpConfig,
    token: Option<Token>,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, StartError> {
    let (socket, bound) = bind(address)?;
    let mut routes = open_routes(server.clone()).merge(dashboard::routes());
    if let Some(token) = token.clone() {
        let operators = Listener::of_operators(bound, config.streams_max, token);
        let operators = Arc::new(operators);
        server.set_operators(operators.clone());
        routes = routes.merge(door::routes(server.clone(), operators));
    }
    let api = api::routes(server.clone()).layer(from_fn_with_state(token, api::ask_for_token));
    run(socket, config, routes.merge(api), tasks);
    Ok(bound)
}

/// Serves metrics and health alone.
///
/// # Errors
/// When the address is taken.
pub(crate) fn serve_metrics(
    server: &Arc<Server>,
    address: SocketAddr,
    config: &HttpConfig,
    tasks: &mut JoinSet<()>,
) -> Result<SocketAddr, StartError> {
    let (socket, bound) = bind(address)?;
    run(socket, config, open_routes(server.clone()), tasks);
    Ok(bound)
}

/// Serves everything on the admin socket.
pub(crate) fn serve_socket(
    server: &Arc<Server>,
    socket: AdminSocket,
    config: &HttpConfig,
    tasks: &mut JoinSet<()>,
) {
    let routes = open_routes(server.clone()).merge(api::routes(server.clone()));
    run(socket, config, routes, tasks);
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let socket = listen(address, Duration::ZERO).map_err(|source| StartError::Bind {
        what: "the HTTP port".to_owned(),
        address: address.into(),
        source,
    })?;
    let bound = socket.local_addr().unwrap_or(address);
    Ok((socket, bound))
}

fn run<L>(listener: L, config: &HttpConfig, routes: Router, tasks: &mut JoinSet<()>)
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug + Clone + Into<PeerAddress>,
{
    let listener = Guarded::new(listener, config);
    let service = routes.into_make_service_with_connect_info::<Lease>();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!(%error, "the HTTP port has failed");
        }
    });
}

/// What needs no token.
fn open_routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(server)
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
