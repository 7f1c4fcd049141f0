//! `/status` and `/live`: the broker in numbers, now and each second.

use super::error::ApiError;
use super::listeners::health_of;
use super::{Api, Lease};
use crate::clock;
use crate::server::Server;
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use motemq_core::{Counters, Direction, DropReason, PacketKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// The broker in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The release.
    pub version: String,
    /// `ok`, `disk_full` or `store_failed`.
    pub health: String,
    /// Since when it runs.
    pub uptime_s: u64,
    /// Connected clients.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Per second, over the last second or so.
    pub rates: Rates,
    /// What waits.
    pub queue: Queue,
    /// Messages that were not delivered, since the start, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Memory of the process.
    pub memory: MemoryUse,
    /// The store; nothing without one.
    pub store: Option<StoreSize>,
    /// When the first certificate, client authority or revocation list of a listener ends.
    pub certificate_end_ms: Option<i64>,
}

/// Rates from clients and to them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// From clients.
    #[serde(rename = "in")]
    pub incoming: Rate,
    /// To clients.
    #[serde(rename = "out")]
    pub outgoing: Rate,
}

/// Per second.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// PUBLISH packets.
    pub messages: f64,
    /// MQTT bytes.
    pub bytes: f64,
}

/// What waits for clients.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// When the oldest was received.
    pub oldest_ms: Option<u64>,
    /// Sent and not acknowledged.
    pub inflight: usize,
}

/// Memory of the process.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// In use.
    pub used_bytes: u64,
    /// The ceiling (limits.memory_bytes_max).
    pub max_bytes: u64,
}

/// The store on disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSize {
    /// The file.
    pub file_bytes: u64,
}

/// What rates are made of.
#[derive(Copy, Clone, Debug)]
struct Sample {
    at: Duration,
    messages: [u64; 2],
    bytes: [u64; 2],
}

impl Sample {
    fn take(counters: &Counters) -> Self {
        let each = [Direction::In, Direction::Out];
        Self {
            at: clock::monotonic(),
            messages: each.map(|direction| counters.packets(direction, PacketKind::Publish)),
            bytes: each.map(|direction| counters.bytes(direction)),
        }
    }

    fn rates_since(&self, before: &Self) -> Rates {
        let seconds = self.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let per_second = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds).round();
        let [[messages_in, messages_out], [bytes_in, bytes_out]] =
            [(self.messages, before.messages), (self.bytes, before.bytes)]
                .map(|([a, b], [c, d])| [per_second(a, c), per_second(b, d)]);
        let rate = |messages, bytes| Rate { messages, bytes };
        Rates {
            incoming: rate(messages_in, bytes_in),
            outgoing: rate(messages_out, bytes_out),
        }
    }
}

fn look(server: &Server, rates: Rates) -> Status {
    let broker = server.broker();
    let totals = broker.session_totals();
    let counters = broker.counters();
    let health = health_of(&broker.room());
    let listeners = server.listeners();
    let tls = listeners.iter().filter_map(|listener| listener.tls());
    let first_end_s = tls.flat_map(|tls| tls.ends()).map(|(_, end_s)| end_s).min();
    let drops = DropReason::ALL.into_iter();
    let drops = drops.map(|reason| (reason.label().to_owned(), counters.dropped(reason)));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health.to_owned(),
        uptime_s: clock::now().since(clock::started_at()).as_secs(),
        connections: totals.connected,
        sessions: totals.sessions,
        subscriptions: broker.subscriptions(),
        retained: broker.retained_size().0,
        rates,
        queue: Queue {
            messages: totals.queued_messages,
            bytes: totals.queued_bytes,
            oldest_ms: totals.oldest_at.map(|at| at.as_ms()),
            inflight: totals.in_flight,
        },
        drops: drops.collect(),
        memory: MemoryUse {
            used_bytes: server.memory().used_bytes(),
            max_bytes: server.memory().max_bytes(),
        },
        store: server.journal().map(|journal| StoreSize {
            file_bytes: journal.file_bytes(),
        }),
        certificate_end_ms: first_end_s.map(|end_s| end_s * 1000),
    }
}

/// The numbers; it takes a second to tell rates.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let before = Sample::take(api.server.broker().counters());
    tokio::time::sleep(SECOND).await;
    let rates = Sample::take(api.server.broker().counters()).rates_since(&before);
    Json(look(&api.server, rates))
}

/// The numbers each second, as server-sent events.
pub(super) async fn live(
    State(api): State<Arc<Api>>,
    ConnectInfo(lease): ConnectInfo<Lease>,
) -> Result<impl IntoResponse, ApiError> {
    let hold = lease.hold()?;
    let (events, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _hold = hold;
        let mut before = Sample::take(api.server.broker().counters());
        while !api.server.is_stopping() {
            tokio::time::sleep(SECOND).await;
            let now = Sample::take(api.server.broker().counters());
            let status = look(&api.server, now.rates_since(&before));
            before = now;
            let Ok(event) = Event::default().json_data(&status) else {
                return;
            };
            // Who reads slowly gets fewer; who has gone ends it.
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    Ok((
        [(header::CACHE_CONTROL, "no-store")],
        Sse::new(Events(receiver)),
    ))
}

/// Events, as they come.
struct Events(mpsc::Receiver<Event>);

impl futures_core::Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|event| event.map(Ok))
    }
}

const SECOND: Duration = Duration::from_secs(1);
