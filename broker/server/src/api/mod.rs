//! The API: what an operator, a program or the dashboard asks the running broker for.
//!
//! One router, served twice: on the HTTP port to who shows the token (`token.rs`), and on the admin socket to the broker's own user and
//! root (`socket.rs`). Errors are JSON with a code, a message and what to do (`error.rs`). Who goes away ends what it asked for.
//!
//! Does not know: the command line (`client.rs` is its end), MQTT packets.

mod bans;
mod client;
mod clients;
pub(crate) mod dashboard;
pub(crate) mod door;
mod error;
mod events;
mod extract;
mod lease;
mod listeners;
mod reload;
mod socket;
mod status;
mod store;
mod token;
mod topics;
mod trace;

pub use bans::{BanItem, BanOrder, Kind};
pub use client::{Client, ClientError, Door, segment, with_params};
pub use clients::{
    ClientItem, ClientQuery, ClientSort, ClientState, SubscriptionItem, SubscriptionQuery,
};
pub use error::ErrorBody;
pub(crate) use lease::{Guarded, Lease};
pub use listeners::{CertificateItem, Health, ListenerItem};
pub use reload::ReloadReport;
pub(crate) use socket::AdminSocket;
pub use status::{MemoryUse, Queue, Rate, Rates, Status, StoreSize};
pub use store::BackupReport;
pub use token::TokenError;
pub(crate) use token::{Token, ask as ask_for_token};
pub use topics::{PublishOrder, Published, Reader, Readers, RetainedItem, RetainedQuery};

use crate::server::Server;
use axum::Router;
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    server: Arc<Server>,
    /// One job on the store at a time.
    has_job: Arc<AtomicBool>,
}

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// Where the next part starts: `after` of the next request; `None` at the end.
    pub next: Option<String>,
}

/// Everything below `/api/v1`, without any question who asks.
pub(crate) fn routes(server: Arc<Server>) -> Router {
    let api = Arc::new(Api {
        server,
        has_job: Arc::default(),
    });
    let v1 = Router::new()
        .route("/bans", get(bans::list).post(bans::add))
        .route("/bans/{kind}/{value}", delete(bans::remove))
        .route("/certificates", get(listeners::certificates))
        .route("/clients", get(clients::list))
        .route("/clients/{id}", get(clients::show).delete(clients::purge))
        .route("/clients/{id}/connection", delete(clients::kick))
        .route("/events", get(events::list))
        .route("/health", get(listeners::health))
        .route("/listeners", get(listeners::list))
        .route("/live", get(status::live))
        .route("/publish", post(topics::publish))
        .route("/reload", post(reload::reload))
        .route("/retained", get(topics::retained))
        .route(
            "/retained/{topic}",
            get(topics::retained_one).delete(topics::remove_retained),
        )
        .route("/status", get(status::status))
        .route("/store/check", post(store::check))
        .route("/store/backup", post(store::backup))
        .route("/subscriptions", get(clients::subscriptions))
        .route("/topics", get(topics::readers))
        .route("/trace", get(trace::trace))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(api);
    Router::new().nest("/api/v1", v1)
}

/// Items of a page, unless somebody says otherwise.
const LIMIT: usize = 100;
/// Items of a page at most.
const LIMIT_MAX: usize = 1000;
