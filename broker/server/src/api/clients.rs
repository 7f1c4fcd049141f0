//! `/clients` and `/subscriptions`: sessions, and the connections that they have.
//!
//! A page asks each of its connected clients what only the connection's task knows; all of them at once.

use super::error::ApiError;
use super::extract::Params;
use super::{Api, LIMIT, LIMIT_MAX, Page};
use crate::clock;
use crate::events::{EventItem, of_client};
use crate::meters::ConnectionFacts;
use crate::server::Server;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use motemq_core::{Expiry, SessionFacts, SubscriptionFacts, glob_matches};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A client that has a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientItem {
    /// Its identifier.
    pub client_id: String,
    /// The name that its login proved.
    pub user: Option<String>,
    /// Whether it is there.
    pub state: ClientState,
    /// The listener it came to last.
    pub listener: Option<String>,
    /// Where its connection comes from.
    pub peer: Option<String>,
    /// 3, 4 or 5, of its connection.
    pub version: Option<u8>,
    /// Since when it is connected.
    pub connected_at_ms: Option<u64>,
    /// When its last connection ended.
    pub disconnected_at_ms: Option<u64>,
    /// The keep-alive in force; 0 is none.
    pub keep_alive_s: Option<u64>,
    /// How long its session outlives its connection; 4294967295 is for ever.
    pub session_expiry_s: u32,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for it.
    pub queue_messages: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// When the oldest that waits was received, if that is known without the disk.
    pub queue_oldest_ms: Option<u64>,
    /// Messages sent and not acknowledged.
    pub inflight: usize,
}

/// Whether a client is there.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientState {
    /// It has a connection.
    Connected,
    /// Its session waits for it.
    Offline,
}

/// All of one client.
#[derive(Debug, Serialize)]
pub(super) struct ClientDetail {
    #[serde(flatten)]
    item: ClientItem,
    subscriptions: Vec<SubscriptionItem>,
    events: Vec<EventItem>,
    #[serde(flatten)]
    connection: Option<Connected>,
}

/// What only the connection knows.
#[derive(Debug, Serialize)]
struct Connected {
    messages: crate::meters::Both,
    bytes: crate::meters::LayerBytes,
    tcp: Option<crate::meters::TcpFacts>,
    tls: Option<crate::meters::TlsFacts>,
    certificate: Option<crate::meters::CertificateFacts>,
    keep_alive_share: f64,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionItem {
    /// Whose; left out where the client is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The filter, as the client wrote it.
    pub filter: String,
    /// The granted QoS; of share groups the group knows it.
    pub qos: Option<u8>,
    /// Its own messages do not come back to it.
    pub no_local: bool,
    /// Messages keep the retain flag that they were published with.
    pub retain_as_published: bool,
}

/// Which clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientQuery {
    /// Identifiers: `*` is any text, `?` one character.
    pub id: Option<String>,
    /// Of this user.
    pub user: Option<String>,
    /// At this listener.
    pub listener: Option<String>,
    /// In this state.
    pub state: Option<ClientState>,
    /// The order: `id`, or the most first of `queue_messages`, `queue_bytes`, `inflight`, `subscriptions`.
    pub sort: Option<ClientSort>,
    /// At most so many; 100 unless said, 1000 at most.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// An order of clients.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSort {
    /// By identifier.
    #[default]
    Id,
    /// Most waiting messages first.
    QueueMessages,
    /// Most waiting bytes first.
    QueueBytes,
    /// Most unacknowledged messages first.
    Inflight,
    /// Most subscriptions first.
    Subscriptions,
}

impl ClientSort {
    fn number(self, facts: &SessionFacts) -> usize {
        match self {
            Self::Id => 0,
            Self::QueueMessages => facts.load.messages,
            Self::QueueBytes => facts.load.bytes,
            Self::Inflight => facts.load.in_flight,
            Self::Subscriptions => facts.subscriptions,
        }
    }
}

/// Where a client stands in the order.
type Rank = (Reverse<usize>, String);

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<ClientQuery>,
) -> Result<Json<Page<ClientItem>>, ApiError> {
    let server = api.server.clone();
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    // It looks at every session.
    let chosen = tokio::task::spawn_blocking(move || choose(&server, &query, limit));
    let chosen = chosen
        .await
        .map_err(|error| ApiError::failed(error.to_string()))??;
    let next = chosen.next;
    let connected = chosen.sessions.iter().filter(|facts| facts.is_connected);
    let names: Vec<_> = connected
        .map(|facts| facts.client_id.as_str().to_owned())
        .collect();
    let mut known = ask_all(&api.server, names).await;
    let items = chosen.sessions.into_iter().map(|facts| {
        let connection = known.remove(facts.client_id.as_str());
        item(&facts, connection.as_ref())
    });
    Ok(Json(Page {
        items: items.collect(),
        next,
    }))
}

struct Chosen {
    sessions: Vec<SessionFacts>,
    next: Option<String>,
}

fn choose(server: &Server, query: &ClientQuery, limit: usize) -> Result<Chosen, ApiError> {
    let sort = query.sort.unwrap_or_default();
    let after = query.after.as_deref().map(rank_of).transpose()?;
    let broker = server.broker();
    let mut found: Vec<(Rank, SessionFacts)> = broker
        .client_ids()
        .iter()
        .filter(|id| {
            let glob = query.id.as_deref();
            glob.is_none_or(|glob| glob_matches(glob, id.as_str()))
        })
        .filter_map(|id| broker.session_facts(id.as_str()))
        .filter(|facts| {
            let user = query.user.as_deref();
            let listener = query.listener.as_deref();
            user.is_none_or(|user| facts.identity.name() == Some(user))
                && listener.is_none_or(|name| facts.listener.as_deref() == Some(name))
                && query.state.is_none_or(|wanted| wanted == state(facts))
        })
        .map(|facts| {
            let rank = (
                Reverse(sort.number(&facts)),
                facts.client_id.as_str().to_owned(),
            );
            (rank, facts)
        })
        .filter(|(rank, _)| after.as_ref().is_none_or(|after| rank > after))
        .collect();
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| is_more)
        .map(|((Reverse(number), id), _)| format!("{number}/{id}"));
    Ok(Chosen {
        sessions: found.into_iter().map(|(_, facts)| facts).collect(),
        next,
    })
}

fn rank_of(after: &str) -> Result<Rank, ApiError> {
    let wrong = || ApiError::invalid("after must be the `next` of a page");
    let (number, id) = after.split_once('/').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    Ok((Reverse(number), id.to_owned()))
}

/// Asks connections, as many at a time as may ask.
pub(super) async fn ask_all(
    server: &Arc<Server>,
    names: Vec<String>,
) -> HashMap<String, ConnectionFacts> {
    let mut known = HashMap::new();
    for some in names.chunks(ASKED_MAX) {
        let mut asked = JoinSet::new();
        for name in some {
            let (server, name) = (server.clone(), name.clone());
            asked.spawn(async move { (server.connection_facts(&name).await, name) });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((Some(facts), name)) = answer {
                known.insert(name, facts);
            }
        }
    }
    known
}

fn state(facts: &SessionFacts) -> ClientState {
    match facts.is_connected {
        true => ClientState::Connected,
        false => ClientState::Offline,
    }
}

fn item(facts: &SessionFacts, connection: Option<&ConnectionFacts>) -> ClientItem {
    let load = &facts.load;
    ClientItem {
        client_id: facts.client_id.as_str().to_owned(),
        user: facts.identity.name().map(str::to_owned),
        state: state(facts),
        listener: facts.listener.as_deref().map(str::to_owned),
        peer: connection.map(|connection| connection.peer.clone()),
        version: connection.map(|connection| connection.version),
        connected_at_ms: connection.map(|connection| connection.connected_at_ms),
        disconnected_at_ms: facts.disconnected_at.map(|at| at.as_ms()),
        keep_alive_s: connection.map(|connection| connection.keep_alive_s),
        session_expiry_s: match facts.expiry {
            Expiry::WithConnection => 0,
            Expiry::AfterSeconds(seconds) => seconds,
            Expiry::Never => u32::MAX,
        },
        subscriptions: facts.subscriptions,
        queue_messages: load.messages,
        queue_bytes: load.bytes,
        queue_oldest_ms: load.oldest_at.map(|at| at.as_ms()),
        inflight: load.in_flight,
    }
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<ClientDetail>, ApiError> {
    let broker = api.server.broker();
    let facts = broker.session_facts(&id).ok_or_else(|| unknown(&id))?;
    let connection = match facts.is_connected {
        true => api.server.connection_facts(&id).await,
        false => None,
    };
    let subscriptions = broker.subscriptions_of(&id).unwrap_or_default();
    Ok(Json(ClientDetail {
        item: item(&facts, connection.as_ref()),
        subscriptions: subscriptions
            .into_iter()
            .map(|facts| subscription(None, facts))
            .collect(),
        events: of_client(broker.history(), &id, EVENTS_SHOWN),
        connection: connection.map(|facts| Connected {
            messages: facts.messages,
            bytes: facts.bytes,
            tcp: facts.tcp,
            tls: facts.tls,
            certificate: facts.certificate,
            keep_alive_share: facts.keep_alive_share,
        }),
    }))
}

/// Ends the connection; the client may come back.
pub(super) async fn kick(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let broker = api.server.broker();
    let facts = broker.session_facts(&id).ok_or_else(|| unknown(&id))?;
    if !facts.is_connected {
        return Err(ApiError::not_found(format!("{id:?} is not connected"))
            .with_hint("its session waits for it; DELETE /clients/ID ends that too"));
    }
    if !api.server.end_connection(&id).await {
        return Err(ApiError::busy(format!(
            "the connection of {id:?} did not answer in time"
        )));
    }
    tracing::info!(client = id, "connection ended by an operator");
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the session, with its subscriptions and all that waits in it.
pub(super) async fn purge(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let broker = api.server.broker();
    let facts = broker.session_facts(&id).ok_or_else(|| unknown(&id))?;
    if facts.is_connected {
        // So that the client hears why. If it does not, the end of its session ends it too.
        let _ = api.server.end_connection(&id).await;
    }
    let ended = broker.end_session(&id, clock::now());
    tracing::info!(
        client = id,
        messages = facts.load.messages,
        "session ended by an operator"
    );
    // There is nothing to wait for where it ended with its connection, or the store does not know it.
    if let Some(record) = ended.flatten() {
        kept(record).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Waits until what was done is on disk.
pub(super) async fn kept(record: Arc<motemq_core::Record>) -> Result<(), ApiError> {
    match tokio::time::timeout(KEPT_TIME, record.kept()).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ApiError::failed(
            "the store has failed: it is done, but may be undone by a restart",
        )),
        Err(_) => Err(ApiError::busy(
            "the disk takes longer than 30 s: it is done, but may be undone by a restart",
        )),
    }
}

/// Whose subscriptions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionQuery {
    /// Of these clients: `*` is any text, `?` one character.
    pub client: Option<String>,
    /// With exactly this filter.
    pub filter: Option<String>,
    /// At most so many clients' at a time; 100 unless said, 1000 at most.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

pub(super) async fn subscriptions(
    State(api): State<Arc<Api>>,
    Params(query): Params<SubscriptionQuery>,
) -> Result<Json<Page<SubscriptionItem>>, ApiError> {
    let page = move || {
        let broker = api.server.broker();
        let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
        let mut ids: Vec<_> = broker
            .client_ids()
            .into_iter()
            .filter(|id| {
                let (glob, after) = (query.client.as_deref(), query.after.as_deref());
                glob.is_none_or(|glob| glob_matches(glob, id.as_str()))
                    && after.is_none_or(|after| id.as_str() > after)
            })
            .collect();
        ids.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        let mut items = Vec::new();
        let mut last = None;
        let mut rest = ids.iter();
        // Whole clients, so that the cursor is one.
        for id in rest.by_ref() {
            let own = broker.subscriptions_of(id.as_str()).unwrap_or_default();
            let wanted = own.into_iter().filter(|own| {
                let filter = query.filter.as_deref();
                filter.is_none_or(|filter| own.filter == filter)
            });
            items.extend(wanted.map(|own| subscription(Some(id.as_str()), own)));
            last = Some(id.as_str().to_owned());
            if items.len() >= limit {
                break;
            }
        }
        let next = last.filter(|_| rest.next().is_some());
        Page { items, next }
    };
    let page = tokio::task::spawn_blocking(page).await;
    page.map(Json)
        .map_err(|error| ApiError::failed(error.to_string()))
}

fn subscription(client_id: Option<&str>, facts: SubscriptionFacts) -> SubscriptionItem {
    SubscriptionItem {
        client_id: client_id.map(str::to_owned),
        filter: facts.filter,
        qos: facts.options.map(|options| options.qos as u8),
        no_local: facts.options.is_some_and(|options| options.no_local),
        retain_as_published: facts
            .options
            .is_some_and(|options| options.retain_as_published),
    }
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no session of a client {id:?}"))
}

/// Connections asked at a time.
const ASKED_MAX: usize = 100;
/// Events shown of a client.
const EVENTS_SHOWN: usize = 50;
/// How long an answer waits for the disk.
const KEPT_TIME: Duration = Duration::from_secs(30);
