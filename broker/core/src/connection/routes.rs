//! Where one publisher's recent topics go, so that a repeated topic skips the trie.
//!
//! Invariant: what is returned was looked up in the router's present generation. At most [`TOPICS_MAX`] topics.

use crate::action::QueueId;
use crate::broker::Broker;
use crate::router::Receivers;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Routes {
    generation: u64,
    last: Option<Arc<Receivers>>,
    others: HashMap<Box<str>, Arc<Receivers>, RandomState>,
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
            self.others.clear();
        }
        if let Some(last) = &self.last
            && last.topic.as_str() == topic
        {
            return last.clone();
        }
        let found = match self.others.get(topic) {
            Some(known) => known.clone(),
            None => {
                let receivers = Arc::new(broker.receivers(topic, Some(publisher)));
                if self.others.len() >= TOPICS_MAX {
                    self.others.clear();
                }
                self.others.insert(topic.into(), receivers.clone());
                receivers
            }
        };
        self.last = Some(found.clone());
        found
    }
}

/// Topics remembered per publisher.
const TOPICS_MAX: usize = 256;
