//! `/events`: what happened to clients and messages.

use super::Api;
use super::error::ApiError;
use super::extract::Params;
use crate::events::{EventPage, EventQuery, find};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// Apart from the threads of connections: there may be much to look at.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<EventQuery>,
) -> Result<Json<EventPage>, ApiError> {
    let found = move || find(api.server.broker().history(), &query);
    match tokio::task::spawn_blocking(found).await {
        Ok(found) => found
            .map(Json)
            .map_err(|error| ApiError::invalid(error.to_string())),
        Err(error) => Err(ApiError::failed(error.to_string())),
    }
}
