//! `/store`: jobs on the store of the running broker.
//!
//! A job has a thread of its own: it reads a view of the store while the writer goes on. One job at a time, because each
//! keeps the pages of its view from being used again.

use super::error::ApiError;
use super::extract::Body;
use super::{Api, Lease};
use crate::server::Server;
use crate::store::StoreError;
use crate::store::tools::{self, Report, Snapshot, ToolError};
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// Where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupOrder {
    /// A new file; an absolute path, as the broker sees it.
    file: PathBuf,
}

/// What was copied.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Rows copied.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

pub(super) async fn check(
    State(api): State<Arc<Api>>,
    ConnectInfo(lease): ConnectInfo<Lease>,
) -> Result<Json<Report>, ApiError> {
    let _hold = lease.hold()?;
    let report = run(&api, |mut snapshot| {
        let report = tools::check(&mut snapshot)?;
        tracing::info!(findings = report.damage_count, "store checked");
        Ok(report)
    });
    report.await.map(Json)
}

pub(super) async fn backup(
    State(api): State<Arc<Api>>,
    ConnectInfo(lease): ConnectInfo<Lease>,
    Body(BackupOrder { file }): Body<BackupOrder>,
) -> Result<Json<BackupReport>, ApiError> {
    if !file.is_absolute() {
        return Err(ApiError::invalid(
            "file: an absolute path, as the broker sees it",
        ));
    }
    let _hold = lease.hold()?;
    let copied = run(&api, move |snapshot| {
        let copied = tools::backup(&snapshot, &file);
        match &copied {
            Ok(copied) => {
                tracing::info!(file = %file.display(), bytes = copied.bytes, "store backed up");
            }
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "store not backed up");
            }
        }
        copied.map(|copied| BackupReport {
            rows: copied.rows,
            bytes: copied.bytes,
        })
    });
    copied.await.map(Json)
}

async fn run<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(Snapshot) -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ApiError> {
    if api.server.journal().is_none() {
        return Err(ApiError::unavailable(
            "this broker has no store: data_dir is \"\"",
        ));
    }
    let Some(job) = Job::claim(&api.has_job) else {
        return Err(ApiError::busy(
            "another backup or check is running: try again when it has finished",
        ));
    };
    let is_ended = EndOnDrop::default();
    let (done, answer) = oneshot::channel();
    let on_thread = {
        let (server, is_ended) = (api.server.clone(), is_ended.0.clone());
        move || {
            let result = snapshot(&server, is_ended).and_then(work);
            drop(job);
            // Nobody waits any more when the tool has gone.
            let _ = done.send(result);
        }
    };
    let thread = std::thread::Builder::new().name("store-tool".to_owned());
    thread
        .spawn(on_thread)
        .map_err(|error| ApiError::failed(error.to_string()))?;
    match answer.await {
        Ok(result) => result.map_err(ApiError::from),
        Err(_) => Err(ApiError::failed(
            "the job ended with a bug of the broker; its log has more",
        )),
    }
}

fn snapshot(server: &Server, is_ended: Arc<AtomicBool>) -> Result<Snapshot, ToolError> {
    let journal = server.journal().ok_or(StoreError::Interrupted)?;
    Ok(journal.snapshot()?.until(is_ended))
}

impl From<ToolError> for ApiError {
    fn from(error: ToolError) -> Self {
        let (status, code) = match &error {
            error if error.is_damage() => (StatusCode::INTERNAL_SERVER_ERROR, "damaged_store"),
            ToolError::Store(StoreError::Interrupted) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// The one job at a time.
struct Job(Arc<AtomicBool>);

impl Job {
    fn claim(has_job: &Arc<AtomicBool>) -> Option<Self> {
        (!has_job.swap(true, Ordering::AcqRel)).then(|| Self(has_job.clone()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Ends a job that nobody waits for.
#[derive(Default)]
struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
