//! Where one publisher's recent topics go, so that a repeated topic skips the trie.
//!
//! Invariants: what is returned was looked up in the router's present generation. At most [`TOPICS_MAX`] topics; beyond,
//! a new one takes the place of an old one, going round, so that a publisher with some more topics still finds most.

use crate::action::QueueId;
use crate::broker::Broker;
use crate::router::Receivers;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Routes {
    generation: u64,
    last: Option<Arc<Receivers>>,
    /// By topic.
    known: HashTable<Arc<Receivers>>,
    hasher: RandomState,
    /// The place in the table behind the last one that was taken.
    hand: usize,
}

impl Routes {
    pub(super) fn find(
        &mut self,
        topic: &str,
        publisher: QueueId,
        broker: &Broker,
    ) -> Arc<Receivers> {
        let generation = broker.generation();
        if generation != self.generation {
            self.generation = generation;
            self.last = None;
            self.known.clear();
        }
        if let Some(last) = &self.last
            && last.topic.as_str() == topic
        {
            return last.clone();
        }
        let hash = self.hasher.hash_one(topic);
        let is_it = |known: &Arc<Receivers>| known.topic.as_str() == topic;
        let found = match self.known.find(hash, is_it) {
            Some(known) => known.clone(),
            None => {
                let receivers = Arc::new(broker.receivers(topic, Some(publisher)));
                self.keep(hash, receivers.clone());
                receivers
            }
        };
        self.last = Some(found.clone());
        found
    }

    fn keep(&mut self, hash: u64, receivers: Arc<Receivers>) {
        while self.known.len() >= TOPICS_MAX {
            if let Ok(old) = self.known.get_bucket_entry(self.hand) {
                old.remove();
            }
            self.hand = (self.hand + 1) % self.known.num_buckets();
        }
        let hash_of = |known: &Arc<Receivers>| self.hasher.hash_one(known.topic.as_str());
        self.known.insert_unique(hash, receivers, hash_of);
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
            let is_it = |known: &Arc<Receivers>| known.topic.as_str() == topic;
            hits += usize::from(routes.known.find(hash, is_it).is_some());
            let found = routes.find(topic, QueueId::session(1), &broker);
            assert_eq!(found.topic.as_str(), topic);
            assert!(routes.known.len() <= TOPICS_MAX);
        }
        // 8 in 11 looked up again, if the places were taken at random.
        assert!(hits > 5 * topics.len(), "{hits}");
    }
}
