//! Future work of sessions without a connection: publish the will, expire.
//!
//! Invariant: a session has at most one entry of each kind; connecting removes both. Does not know: what the work is.

use crate::action::QueueId;
use crate::session::Session;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Work by time.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeMap<(Timestamp, QueueId), Arc<Session>>);

impl Deadlines {
    pub(crate) fn add(&mut self, at: Timestamp, session: &Arc<Session>) {
        self.0.insert((at, session.queue()), session.clone());
    }

    pub(crate) fn remove(&mut self, at: Timestamp, queue: QueueId) {
        self.0.remove(&(at, queue));
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one session whose time has come.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Arc<Session>> {
        let entry = self.0.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
