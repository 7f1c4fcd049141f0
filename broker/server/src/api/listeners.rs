//! `/listeners`, `/certificates` and `/health`: where clients come in, what there is good until some time, and whether all is well.

use super::clients::ask_all;
use super::error::ApiError;
use super::extract::Params;
use super::{Api, Page};
use crate::clock;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use motemq_core::Room;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerItem {
    /// Its name.
    pub name: String,
    /// What it speaks, as the metrics call it.
    pub transport: String,
    /// Where, as configured.
    pub bind: String,
    /// Connected clients.
    pub connections: usize,
    /// Connections since the start.
    pub accepted: u64,
    /// When the first of its certificates, client authorities or revocation lists ends.
    pub certificate_end_ms: Option<i64>,
}

/// Something that is good until some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateItem {
    /// `certificate`, `client_ca` or `crl` of a listener, or `client`.
    pub kind: String,
    /// The listener.
    pub listener: String,
    /// The client that showed it.
    pub client_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Its serial number, in hexadecimal.
    pub serial: Option<String>,
    /// When it ends.
    pub not_after_ms: i64,
}

/// Whether acknowledgements can be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, `disk_full` or `store_failed`.
    pub health: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// What ends within so many days, or has; everything unless said.
    within_days: Option<u32>,
}

/// In a word.
pub(super) fn health_of(room: &Room) -> &'static str {
    match room {
        Room::Open | Room::Congested => "ok",
        Room::Full => "disk_full",
        Room::Failed(_) => "store_failed",
    }
}

pub(super) async fn health(State(api): State<Arc<Api>>) -> (StatusCode, Json<Health>) {
    let health = health_of(&api.server.broker().room());
    let status = match health {
        "ok" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let health = health.to_owned();
    (status, Json(Health { health }))
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Page<ListenerItem>> {
    let listeners = api.server.listeners();
    let items = listeners.iter().map(|listener| ListenerItem {
        name: listener.config().name.clone(),
        transport: listener.transport().to_owned(),
        bind: listener.config().bind.to_string(),
        connections: listener.connected(),
        accepted: listener.accepted(),
        certificate_end_ms: listener.tls().and_then(|tls| {
            let ends = tls.ends().map(|(_, end_s)| end_s * 1000);
            ends.min()
        }),
    });
    Json(Page {
        items: items.collect(),
        next: None,
    })
}

/// Those of listeners, and those of the clients that are connected, the first to end first.
pub(super) async fn certificates(
    State(api): State<Arc<Api>>,
    Params(wish): Params<Wish>,
) -> Result<Json<Page<CertificateItem>>, ApiError> {
    let now = clock::now();
    let mut items = Vec::new();
    for listener in api.server.listeners() {
        let ends = listener.tls().into_iter().flat_map(|tls| tls.ends());
        items.extend(ends.map(|(what, end_s)| CertificateItem {
            kind: what.label().to_owned(),
            listener: listener.config().name.clone(),
            client_id: None,
            subject: None,
            serial: None,
            not_after_ms: end_s * 1000,
        }));
    }
    let days = u64::from(wish.within_days.unwrap_or(u32::MAX));
    if api.server.vitals().certificates_ending(now, days) > 0 {
        items.extend(of_clients(&api).await);
    }
    let until_ms = i64::try_from(now.as_ms().saturating_add(days * DAY_MS)).unwrap_or(i64::MAX);
    items.retain(|item| item.not_after_ms <= until_ms);
    items.sort_by_key(|item| item.not_after_ms);
    Ok(Json(Page { items, next: None }))
}

async fn of_clients(api: &Api) -> Vec<CertificateItem> {
    let broker = api.server.broker();
    let ids = broker.client_ids();
    let connected = ids
        .iter()
        .filter_map(|id| broker.session_facts(id.as_str()))
        .filter(|facts| facts.is_connected);
    let names = connected.map(|facts| facts.client_id.as_str().to_owned());
    let known = ask_all(&api.server, names.collect()).await;
    let items = known.into_iter().filter_map(|(client_id, facts)| {
        let certificate = facts.certificate?;
        Some(CertificateItem {
            kind: "client".to_owned(),
            listener: facts.listener,
            client_id: Some(client_id),
            subject: Some(certificate.subject),
            serial: Some(certificate.serial),
            not_after_ms: i64::try_from(certificate.not_after_ms?).ok()?,
        })
    });
    items.collect()
}

const DAY_MS: u64 = 86_400_000;
