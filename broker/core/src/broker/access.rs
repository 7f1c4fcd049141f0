//! The ACL in force, and what a change of it ends.
//!
//! Invariants: the generation changes after the ACL, so whoever sees the new number asks the new rules. A session leaves the
//! share groups it may no longer subscribe to, because what it were offered and may not have would be lost to the others; its other
//! subscriptions stay, and nothing they match is delivered. Does not know: packets.

use super::Broker;
use crate::acl::{Acl, Rights};
use crate::counters::Tally;
use crate::login::{Attributes, Scope};
use crate::session::{Session, SessionState};
use crate::short_text::ShortText;
use crate::sync::{lock, read, write};
use motemq_codec::{QoS, is_shared, parse_subscription};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Broker {
    /// The ACL in force.
    #[must_use]
    pub fn acl(&self) -> Arc<Acl> {
        read(&self.acl).clone()
    }

    /// Changes the ACL, for what is published, subscribed and delivered from now on: live, retained, queued and in flight.
    pub fn set_acl(&self, acl: Arc<Acl>) {
        *write(&self.acl) = acl;
        let mut tally = Tally::default();
        let mut sessions: Vec<_> = lock(&self.registry).sessions.values().cloned().collect();
        // An order that does not depend on how the map hashes, so that a simulation can be repeated.
        sessions.sort_unstable_by_key(|session| session.queue());
        for session in sessions {
            self.leave_forbidden_groups(&session, &mut session.lock(), &mut tally);
        }
        self.acl_generation.fetch_add(1, Ordering::Release);
        self.add_own_tally(&mut tally, || self.history.latest());
        self.wake_all();
    }

    /// Counts changes of the ACL; what was looked up before a change is stale.
    #[inline]
    pub(crate) fn acl_generation(&self) -> u64 {
        self.acl_generation.load(Ordering::Acquire)
    }

    /// What the session's client may do; `None` when everything.
    pub(crate) fn rights_of(&self, session: &Session) -> Option<Rights> {
        self.rights(session, &session.lock())
    }

    /// As [`rights_of`](Self::rights_of), under the session's lock.
    pub(super) fn rights(&self, session: &Session, state: &SessionState) -> Option<Rights> {
        let acl = self.acl();
        match state.scope == Scope::Operator || acl.is_open_to(&state.attributes) {
            true => None,
            false => acl.rights(&state.principal(session)),
        }
    }

    /// Takes up what a later login of the same client says, if its connection still holds the session.
    pub(crate) fn renew_login(
        &self,
        session: &Arc<Session>,
        epoch: u64,
        attributes: Arc<Attributes>,
        tally: &mut Tally,
    ) {
        let mut state = session.lock();
        if state.epoch == epoch {
            self.set_attributes(session, &mut state, attributes, tally);
        }
    }

    /// Takes up what a login says besides who the client is.
    pub(super) fn set_attributes(
        &self,
        session: &Arc<Session>,
        state: &mut SessionState,
        attributes: Arc<Attributes>,
        tally: &mut Tally,
    ) {
        if state.attributes != attributes {
            state.attributes = attributes;
            self.leave_forbidden_groups(session, state, tally);
        }
    }

    /// Ends the shared subscriptions that the session would not be granted now.
    fn leave_forbidden_groups(
        &self,
        session: &Arc<Session>,
        state: &mut SessionState,
        tally: &mut Tally,
    ) {
        if state.groups.is_empty() {
            return;
        }
        let Some(rights) = self.rights(session, state) else {
            return;
        };
        let is_forbidden = |filter: &str| {
            parse_subscription(filter).is_ok_and(|parsed| {
                let (filter, share) = (parsed.filter.as_str(), parsed.share);
                rights.subscribe(filter, share, QoS::ExactlyOnce).is_none()
            })
        };
        let filters = state.filters.iter().map(ShortText::as_str);
        let mut forbidden: Vec<Box<str>> = filters
            .filter(|filter| is_shared(filter) && is_forbidden(filter))
            .map(Box::from)
            .collect();
        forbidden.sort_unstable();
        let forbidden = forbidden.iter().map(|filter| &**filter);
        self.remove_subscriptions(session, state, forbidden, tally);
    }
}
