//! `/reload`: configuration and files are read again.

use super::Api;
use super::error::ApiError;
use crate::reload::{Mistakes, Reloaded};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a reload changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// `key: from -> to`, one for each that took effect.
    pub changed: Vec<String>,
    /// Keys that were changed and need a restart.
    pub waiting: Vec<String>,
}

/// Whoever has the configuration's sources reads them again.
pub(super) async fn reload(State(api): State<Arc<Api>>) -> Result<Json<ReloadReport>, ApiError> {
    match api.server.ask_for_reload().await {
        Some(Ok(Reloaded { changed, waiting })) => Ok(Json(ReloadReport { changed, waiting })),
        Some(Err(Mistakes(mistakes))) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_configuration",
            "nothing was reloaded: everything stays as it was",
        )
        .with_details(mistakes)),
        None => Err(ApiError::unavailable(
            "this broker cannot be reloaded: what --dev makes up cannot be read again",
        )),
    }
}
