//! `/bans`: who is shut out.

use super::error::ApiError;
use super::extract::{Body, Params};
use super::{Api, Page};
use crate::ban::{Ban, Subject};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// What a ban is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An address or network.
    Address,
    /// A client identifier.
    Client,
    /// A user name.
    User,
    /// A user name from one address; by itself only.
    Login,
}

/// A ban that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanItem {
    /// What it is about.
    pub kind: Kind,
    /// Address, network, client identifier or user name.
    pub value: String,
    /// From where, of a `login`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When it ends; `None` is when somebody ends it.
    pub until_ms: Option<u64>,
    /// Why.
    pub reason: String,
    /// It came by itself.
    pub is_automatic: bool,
}

/// A ban to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanOrder {
    /// What it is about.
    pub kind: Kind,
    /// Address, network, client identifier or user name.
    pub value: String,
    /// For so many seconds; `None` is until somebody ends it.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl From<Ban> for BanItem {
    fn from(ban: Ban) -> Self {
        let (kind, value, address) = match ban.subject {
            Subject::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                (Kind::Address, network.addr().to_string(), None)
            }
            Subject::Address(network) => (Kind::Address, network.to_string(), None),
            Subject::Client(client) => (Kind::Client, client, None),
            Subject::User(user) => (Kind::User, user, None),
            Subject::Login { address, user } => {
                (Kind::Login, user, Some(address.addr().to_string()))
            }
        };
        Self {
            kind,
            value,
            address,
            until_ms: ban.until_s.map(|until_s| until_s * 1000),
            reason: ban.reason,
            is_automatic: ban.is_automatic,
        }
    }
}

/// Which bans.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// About that only.
    kind: Option<Kind>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(wish): Params<Wish>,
) -> Json<Page<BanItem>> {
    let bans = api.server.bans().list().into_iter().map(BanItem::from);
    let is_wanted = |ban: &BanItem| wish.kind.is_none_or(|kind| kind == ban.kind);
    Json(Page {
        items: bans.filter(is_wanted).collect(),
        next: None,
    })
}

pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Body(order): Body<BanOrder>,
) -> Result<StatusCode, ApiError> {
    if order.for_s == Some(0) {
        return Err(ApiError::invalid("for_s: a ban of no time at all"));
    }
    let subject = subject(order.kind, order.value)?;
    let added = api.server.bans().add(subject, order.for_s, order.reason);
    api.server.note_change();
    added.map_err(ApiError::failed)?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path((kind, value)): Path<(Kind, String)>,
) -> Result<StatusCode, ApiError> {
    let subject = subject(kind, value)?;
    match api.server.bans().remove(&subject) {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(ApiError::not_found(format!("{subject} is not banned"))),
        Err(message) => Err(ApiError::failed(message)),
    }
}

fn subject(kind: Kind, value: String) -> Result<Subject, ApiError> {
    match kind {
        Kind::Client => Ok(Subject::Client(value)),
        Kind::User => Ok(Subject::User(value)),
        Kind::Address => {
            let ip = value.parse::<IpAddr>();
            let network = ip.map(|ip| ip.to_canonical().into());
            let network = network.or_else(|_| value.parse::<IpNet>());
            let network = network.map_err(|_| {
                ApiError::invalid(format!(
                    "{value} is no address and no network such as 10.0.0.0/8"
                ))
            })?;
            Ok(Subject::Address(network.trunc()))
        }
        Kind::Login => Err(ApiError::invalid(
            "a login is banned by itself only; ban the user or the address, or end the ban of the user",
        )),
    }
}
