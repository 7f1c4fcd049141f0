//! `/topics`, `/retained` and `/publish`: who reads a topic, what is kept at it, and a message for it.

use super::clients::kept;
use super::error::ApiError;
use super::extract::{Body, Params};
use super::{Api, LIMIT, LIMIT_MAX, Page};
use crate::clock;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use motemq_codec::{ForwardedBlock, QoS, ReasonCode, TopicFilter, validate_topic_name};
use motemq_core::{Message, OperatorMessage, Receipt, TopicName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Who gets a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readers {
    /// The topic.
    pub topic: String,
    /// Clients, each once, with the highest QoS it was granted.
    pub clients: Vec<Reader>,
    /// Filters of share groups, of which one member each gets it.
    pub groups: Vec<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// The client.
    pub client_id: String,
    /// The highest QoS it was granted.
    pub qos: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicQuery {
    /// A topic.
    #[serde(rename = "match")]
    topic: String,
}

pub(super) async fn readers(
    State(api): State<Arc<Api>>,
    Params(query): Params<TopicQuery>,
) -> Result<Json<Readers>, ApiError> {
    check_name(&query.topic)?;
    let (clients, groups) = api.server.broker().readers_of(&query.topic);
    let clients = clients.into_iter().map(|(client, qos)| Reader {
        client_id: client.as_str().to_owned(),
        qos: qos as u8,
    });
    Ok(Json(Readers {
        clients: clients.collect(),
        groups,
        topic: query.topic,
    }))
}

/// A retained message; of a list without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedItem {
    /// The topic.
    pub topic: String,
    /// The QoS it was published at.
    pub qos: u8,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// The payload, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload, if it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Who published it.
    pub publisher: String,
    /// When it was received.
    pub received_at_ms: u64,
    /// When it expires, if ever.
    pub expires_at_ms: Option<u64>,
}

impl RetainedItem {
    fn new(message: &Message) -> Self {
        Self {
            topic: message.topic.as_str().to_owned(),
            qos: message.qos as u8,
            payload_bytes: message.payload.len(),
            payload: None,
            payload_base64: None,
            publisher: message.publisher.as_str().to_owned(),
            received_at_ms: message.received_at.as_ms(),
            expires_at_ms: message.expires_at.map(|at| at.as_ms()),
        }
    }

    fn with_payload(mut self, payload: &[u8]) -> Self {
        match std::str::from_utf8(payload) {
            Ok(text) => self.payload = Some(text.to_owned()),
            Err(_) => self.payload_base64 = Some(BASE64.encode(payload)),
        }
        self
    }
}

/// Which retained messages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetainedQuery {
    /// Topics that this filter matches; `#` unless said.
    pub filter: Option<String>,
    /// At most so many; 100 unless said, 1000 at most.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

pub(super) async fn retained(
    State(api): State<Arc<Api>>,
    Params(query): Params<RetainedQuery>,
) -> Result<Json<Page<RetainedItem>>, ApiError> {
    let filter = query.filter.unwrap_or_else(|| "#".to_owned());
    TopicFilter::parse(&filter).map_err(|error| {
        ApiError::invalid(format!("filter: {error}")).with_hint("as in home/+/power or home/#")
    })?;
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let look = move || {
        let found = api.server.broker().retained_matching(&filter, clock::now());
        let after = query.after.as_deref();
        let mut rest = found
            .iter()
            .filter(|message| after.is_none_or(|after| message.topic.as_str() > after));
        let items: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|message| RetainedItem::new(message))
            .collect();
        let is_more = rest.next().is_some();
        let last = items.last().map(|item| item.topic.clone());
        Page {
            next: last.filter(|_| is_more),
            items,
        }
    };
    let page = tokio::task::spawn_blocking(look).await;
    page.map(Json)
        .map_err(|error| ApiError::failed(error.to_string()))
}

pub(super) async fn retained_one(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
) -> Result<Json<RetainedItem>, ApiError> {
    let message = api.server.broker().retained(&topic);
    let message = message
        .filter(|message| !message.is_expired(clock::now()))
        .ok_or_else(|| nothing_at(&topic))?;
    Ok(Json(
        RetainedItem::new(&message).with_payload(&message.payload),
    ))
}

pub(super) async fn remove_retained(
    State(api): State<Arc<Api>>,
    Path(topic): Path<String>,
) -> Result<StatusCode, ApiError> {
    if api.server.broker().retained(&topic).is_none() {
        return Err(nothing_at(&topic));
    }
    let order = PublishOrder {
        topic,
        retain: true,
        qos: 1,
        ..PublishOrder::default()
    };
    tracing::info!(
        topic = order.topic,
        "retained message removed by an operator"
    );
    send(&api, order).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A message to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishOrder {
    /// The topic.
    pub topic: String,
    /// The payload as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload as any bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// 0, 1 or 2.
    #[serde(default)]
    pub qos: u8,
    /// Keep it for those who subscribe later; without a payload, remove what is kept.
    #[serde(default)]
    pub retain: bool,
    /// Seconds until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_expiry_s: Option<u32>,
    /// What the payload is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Where an answer is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// Names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Somebody subscribes to its topic.
    pub has_subscribers: bool,
}

pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    Body(order): Body<PublishOrder>,
) -> Result<Json<Published>, ApiError> {
    send(&api, order).await.map(Json)
}

/// Publishes, and waits for the disk as a client's acknowledgement would.
async fn send(api: &Api, order: PublishOrder) -> Result<Published, ApiError> {
    check_name(&order.topic)?;
    let payload = match (&order.payload, &order.payload_base64) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("payload or payload_base64, not both"));
        }
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(text)) => BASE64
            .decode(text)
            .map_err(|error| ApiError::invalid(format!("payload_base64: {error}")))?,
        (None, None) => Vec::new(),
    };
    let broker = api.server.broker();
    let payload_bytes_max = broker.limits().payload_bytes_max as usize;
    if payload.len() > payload_bytes_max {
        return Err(ApiError::invalid(format!(
            "the payload has {} bytes; limits.payload_bytes_max is {payload_bytes_max}",
            payload.len()
        )));
    }
    let topic_levels_max = broker.limits().topic_levels_max;
    if order.topic.split('/').count() > topic_levels_max {
        return Err(ApiError::invalid(format!(
            "the topic has more levels than limits.topic_levels_max, {topic_levels_max}"
        )));
    }
    let qos = match order.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(ApiError::invalid("qos: 0, 1 or 2")),
    };
    let mut forwarded = ForwardedBlock::default();
    if let Some(content_type) = &order.content_type {
        forwarded.content_type(content_type);
    }
    if let Some(topic) = &order.response_topic {
        check_name(topic)?;
        forwarded.response_topic(topic);
    }
    for (name, value) in &order.user_properties {
        forwarded.user_property(name, value);
    }
    let message = OperatorMessage {
        topic: TopicName::new(&order.topic),
        payload: payload.into(),
        forwarded: forwarded.into_bytes(),
        qos,
        retain: order.retain,
        expiry_s: order.message_expiry_s,
    };
    match broker.publish_for_operator(PUBLISHER, message, clock::now()) {
        Receipt::Accepted { code, awaited } => {
            if let Some(record) = awaited {
                kept(record).await?;
            }
            Ok(Published {
                has_subscribers: code != ReasonCode::NoMatchingSubscribers,
            })
        }
        Receipt::Refused(code) => Err(ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "refused",
            format!("the broker does not take it: {}", code.words()),
        )),
        Receipt::Unavailable => Err(ApiError::failed("the store has failed")),
    }
}

fn check_name(topic: &str) -> Result<(), ApiError> {
    validate_topic_name(topic).map_err(|error| ApiError::invalid(format!("topic: {error}")))?;
    match topic.starts_with('$') {
        true => Err(ApiError::invalid(
            "topic: those that start with $ are the broker's own",
        )),
        false => Ok(()),
    }
}

fn nothing_at(topic: &str) -> ApiError {
    ApiError::not_found(format!("no message is retained at {topic}"))
}

/// Who is named as the publisher.
const PUBLISHER: &str = "$api";
