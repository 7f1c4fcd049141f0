//! `/trace`: the packets of clients as they come and go, as server-sent events.

use super::error::ApiError;
use super::extract::Params;
use super::{Api, Lease};
use crate::trace::{TraceStream, TraceWish};
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::header;
use axum::response::IntoResponse;
use motemq_codec::TopicFilter;
use motemq_core::{TooManyTraces, TraceFilter};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Which packets, for how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Client identifiers: `*` is any text, `?` one character.
    client: Option<String>,
    /// Topic filter.
    topic: Option<String>,
    for_s: Option<u32>,
    /// Bytes shown of each payload.
    payload_bytes: Option<usize>,
}

pub(super) async fn trace(
    State(api): State<Arc<Api>>,
    ConnectInfo(lease): ConnectInfo<Lease>,
    Params(wish): Params<Wish>,
) -> Result<impl IntoResponse, ApiError> {
    let traces = api.server.traces();
    let duration_max_s = traces.config().duration_max_s;
    let wish = wish.checked(duration_max_s)?;
    let hold = lease.hold()?;
    let (filter, duration) = (wish.filter.clone(), wish.duration);
    let stream = TraceStream::open(&api.server, wish, hold).map_err(|TooManyTraces| {
        let streams_max = traces.config().streams_max;
        ApiError::busy(format!(
            "{streams_max} traces are running (trace.streams_max)"
        ))
        .with_hint("end one, wait for one, or raise trace.streams_max")
    })?;
    tracing::info!(
        clients = filter.clients,
        topic = filter.topic,
        seconds = duration.as_secs(),
        "trace opened"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::new(stream)))
}

impl Wish {
    fn checked(self, duration_max_s: u32) -> Result<TraceWish, ApiError> {
        if self.client.is_none() && self.topic.is_none() {
            return Err(
                ApiError::invalid("neither client nor topic: which packets are wanted?")
                    .with_hint("client=* is every client, topic=%23 every topic but those with $"),
            );
        }
        if let Some(Err(error)) = self.topic.as_deref().map(TopicFilter::parse) {
            return Err(ApiError::invalid(format!("topic: {error}")));
        }
        let for_s = self.for_s.unwrap_or_else(|| FOR_S.min(duration_max_s));
        if for_s == 0 || for_s > duration_max_s {
            return Err(ApiError::invalid(format!(
                "for_s: 1 to {duration_max_s} (trace.duration_max_s)"
            )));
        }
        let payload_bytes_max = self.payload_bytes.unwrap_or(PAYLOAD_BYTES);
        if payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(ApiError::invalid(format!(
                "payload_bytes: 0 to {PAYLOAD_BYTES_MAX}"
            )));
        }
        Ok(TraceWish {
            filter: TraceFilter {
                clients: self.client,
                topic: self.topic,
            },
            payload_bytes_max,
            duration: Duration::from_secs(for_s.into()),
        })
    }
}

/// How long a trace lasts that does not say.
const FOR_S: u32 = 60;
/// How much it shows of a payload.
const PAYLOAD_BYTES: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 1_024;
