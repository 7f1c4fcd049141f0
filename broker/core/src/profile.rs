//! Limits for some of the clients: by listener, user and client identifier.
//!
//! Invariant: a client has the limits of the first profile that is for it, else the common ones, from its CONNECT to its next one; its
//! queue has them at once when they change.
//!
//! Does not know: what is limited.

use crate::acl::Pattern;
use crate::limits::Limits;
use crate::message::{ClientId, Identity};
use std::sync::Arc;

/// The limits of everybody.
#[derive(Clone, Debug)]
pub struct LimitSet {
    /// Of those whom no profile is for, and of the broker as a whole.
    pub common: Arc<Limits>,
    /// The first one that is for a client counts.
    pub profiles: Vec<Profile>,
}

/// Limits of some clients.
#[derive(Clone, Debug)]
pub struct Profile {
    listeners: Vec<Box<str>>,
    users: Vec<Pattern>,
    clients: Vec<Pattern>,
    limits: Arc<Limits>,
}

impl Profile {
    /// For clients of one of these listeners whose user name and client identifier match one of these patterns each, in which `*` is any
    /// run of characters; a list that is empty is about everybody.
    #[must_use]
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = &'a str>,
        users: impl IntoIterator<Item = &'a str>,
        clients: impl IntoIterator<Item = &'a str>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            listeners: listeners.into_iter().map(Box::from).collect(),
            users: users.into_iter().map(Pattern::new).collect(),
            clients: clients.into_iter().map(Pattern::new).collect(),
            limits,
        }
    }

    fn is_for(&self, listener: Option<&str>, identity: &Identity, client_id: &ClientId) -> bool {
        let is_one_of = |patterns: &[Pattern], name: Option<&str>| {
            patterns.is_empty()
                || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        let is_listener = self.listeners.is_empty()
            || listener.is_some_and(|listener| self.listeners.iter().any(|one| **one == *listener));
        is_listener
            && is_one_of(&self.users, identity.name())
            && is_one_of(&self.clients, Some(client_id.as_str()))
    }
}

impl LimitSet {
    pub(crate) fn of(
        &self,
        listener: Option<&str>,
        identity: &Identity,
        client_id: &ClientId,
    ) -> Arc<Limits> {
        let profiles = &mut self.profiles.iter();
        let profile = profiles.find(|profile| profile.is_for(listener, identity, client_id));
        profile
            .map_or(&self.common, |profile| &profile.limits)
            .clone()
    }
}

impl From<Arc<Limits>> for LimitSet {
    fn from(common: Arc<Limits>) -> Self {
        let profiles = Vec::new();
        Self { common, profiles }
    }
}
