//! Where one publisher's recent topics go and whether it may use them, so that a repeated topic skips the trie and the ACL.
//!
//! Invariants: what is returned was looked up in the router's present generation; after a change of the ACL the owner has it
//! [forgotten](Routes::forget). At most [`TOPICS_MAX`] topics; beyond,
//! a new one takes the place of an old one, going round, so that a publisher with some more topics still finds most.

use crate::acl::{PublishRights, Rights};
use crate::action::QueueId;
use crate::broker::Broker;
use crate::router::Receivers;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Where a topic goes, and whether the publisher may use it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) receivers: Arc<Receivers>,
    pub(super) rights: PublishRights,
}

impl Route {
    fn topic(&self) -> &str {
        self.receivers.topic.as_str()
    }
}

#[derive(Debug, Default)]
pub(super) struct Routes {
    generation: u64,
    last: Option<Route>,
    /// By topic.
    known: HashTable<Route>,
    hasher: RandomState,
    /// The place in the table behind the last one that was taken.
    hand: usize,
    /// What all look-ups took so far.
    work: usize,
}

impl Routes {
    pub(super) fn find(
        &mut self,
        topic: &str,
        publisher: QueueId,
        broker: &Broker,
        rights: Option<&Rights>,
    ) -> Route {
        let generation = broker.generation();
        if generation != self.generation {
            self.generation = generation;
            self.forget();
        }
        if let Some(last) = &self.last
            && last.topic() == topic
        {
            return last.clone();
        }
        let hash = self.hasher.hash_one(topic);
        let is_it = |known: &Route| known.topic() == topic;
        let found = match self.known.find(hash, is_it) {
            Some(known) => known.clone(),
            None => {
                let route = Route {
                    receivers: Arc::new(broker.receivers(topic, Some(publisher))),
                    rights: rights.map_or(PublishRights::ALL, |rights| rights.publish(topic)),
                };
                self.work += route.receivers.work;
                self.keep(hash, route.clone());
                route
            }
        };
        self.last = Some(found.clone());
        found
    }

    /// What all look-ups took so far: nodes and subscriptions looked at.
    pub(super) fn work(&self) -> usize {
        self.work
    }

    /// Has everything looked up anew.
    pub(super) fn forget(&mut self) {
        self.last = None;
        self.known.clear();
    }

    fn keep(&mut self, hash: u64, route: Route) {
        while self.known.len() >= TOPICS_MAX {
            if let Ok(old) = self.known.get_bucket_entry(self.hand) {
                old.remove();
            }
            self.hand = (self.hand + 1) % self.known.num_buckets();
        }
        let hash_of = |known: &Route| self.hasher.hash_one(known.topic());
        self.known.insert_unique(hash, route, hash_of);
    }
}

/// Topics remembered per publisher.
const TOPICS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn a_publisher_with_more_topics_than_places_still_finds_most() {
        let broker = Broker::without_store(Arc::new(Limits::default()));
        let topics: Vec<String> = (0..300).map(|number| format!("meter/{number}")).collect();
        let mut routes = Routes::default();
        let mut hits = 0;
        for topic in topics.iter().cycle().take(10 * topics.len()) {
            let hash = routes.hasher.hash_one(topic.as_str());
            let is_it = |known: &Route| known.topic() == topic;
            hits += usize::from(routes.known.find(hash, is_it).is_some());
            let found = routes.find(topic, QueueId::session(1), &broker, None);
            assert_eq!(found.topic(), topic);
            assert!(routes.known.len() <= TOPICS_MAX);
        }
        // 8 in 11 looked up again, if the places were taken at random.
        assert!(hits > 5 * topics.len(), "{hits}");
    }
}
