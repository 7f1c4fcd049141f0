//! Who may subscribe to what of an enrolment, and to whom an answer goes.

use super::Broker;
use crate::counters::Tally;
use crate::enrolment::{Enrolment, REQUEST, SessionName, is_issued, session_key};
use crate::mailbox::Mailbox;
use crate::message::ClientId;
use crate::session::{Session, SessionState};
use crate::sync::{lock, read, write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Broker {
    /// How clients get certificates, if they do here.
    pub(crate) fn enrolment(&self) -> Option<Arc<Enrolment>> {
        read(&self.enrolment).clone()
    }

    /// Changes who signs; whoever may not see requests any more does not subscribe to them either.
    pub fn set_enrolment(&self, enrolment: Option<Enrolment>) {
        *write(&self.enrolment) = enrolment.map(Arc::new);
        let sessions: Vec<_> = lock(&self.registry).sessions.values().cloned().collect();
        let mut tally = Tally::default();
        for session in sessions {
            let mut state = session.lock();
            if !self.may_enrol(&state, REQUEST) {
                self.remove_subscriptions(&session, &mut state, [REQUEST].into_iter(), &mut tally);
            }
        }
        self.add_own_tally(&mut tally, || self.history.latest());
        // Requests that wait are for the signer as well.
        self.acl_generation.fetch_add(1, Ordering::Release);
        self.wake_all();
    }

    /// Whether the session is the signer's.
    pub(crate) fn is_signer(&self, session: &Session) -> bool {
        let enrolment = self.enrolment();
        enrolment.is_some_and(|enrolment| session.lock().is_signer(&enrolment))
    }

    /// Whether the session may subscribe to this reserved filter: the signer to requests, everybody to answers.
    pub(super) fn may_enrol(&self, state: &SessionState, filter: &str) -> bool {
        let Some(enrolment) = self.enrolment() else {
            return false;
        };
        match filter {
            REQUEST => state.is_signer(&enrolment),
            _ => is_issued(filter),
        }
    }

    /// Where the messages of this session of this client wait, if it is there.
    pub(crate) fn applicant(
        &self,
        client_id: &ClientId,
        name: SessionName,
    ) -> Option<Arc<Mailbox>> {
        let registry = lock(&self.registry);
        let keys = [session_key(name.opened_by), client_id.clone()];
        let mut found = keys.iter().filter_map(|key| registry.sessions.get(key));
        let session = found.find(|session| name.is_of(session))?;
        Some(session.mailbox().clone())
    }
}

impl SessionState {
    pub(crate) fn is_signer(&self, enrolment: &Enrolment) -> bool {
        enrolment.is_signer(self.scope, &self.identity, &self.attributes)
    }
}
