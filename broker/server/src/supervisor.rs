//! What a service manager is told (`Type=notify` of systemd): ready, reloading, stopping, alive.
//!
//! Without `NOTIFY_SOCKET` nothing is said. Alive means that acknowledgements can be given: a store that has failed is not.

use crate::server::Server;
use motemq_core::Room;
use sd_notify::NotifyState;
use std::sync::Arc;

/// All listeners accept, or a reload is over.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The stop begins.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice within `WatchdogSec` that the broker is alive, for as long as it is.
pub async fn watch(server: Arc<Server>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        if !matches!(server.broker().room(), Room::Failed(_)) {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(limit / 2).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told: NOTIFY_SOCKET");
    }
}
