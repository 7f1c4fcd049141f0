//! Retained messages: the last one of each topic, found by filter without a scan of the rest.
//!
//! Invariants: at most one message per topic; count and bytes within their limits, a refusal otherwise; a replay visits
//! only the branches that the filter allows. Does not know: subscribers, expiry timers (an expired message is skipped
//! when it would be sent and goes when it is replaced or swept).

use crate::counters::Limit;
use crate::level_tree::{Keeps, LevelTree, NodeId, ROOT};
use crate::limits::Limits;
use crate::message::{ClientId, Message};
use crate::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::Arc;

/// The retained messages.
#[derive(Debug)]
pub struct Retained {
    tree: LevelTree<Slot>,
    messages: usize,
    bytes: usize,
    /// What each client published last, messages and bytes; only while that is limited.
    owners: Option<HashMap<ClientId, (usize, usize), RandomState>>,
}

#[derive(Debug, Default)]
struct Slot(Option<Arc<Message>>);

impl Keeps for Slot {
    fn keeps_node(&self) -> bool {
        self.0.is_some()
    }
}

impl Default for Retained {
    fn default() -> Self {
        Self {
            tree: LevelTree::new(),
            messages: 0,
            bytes: 0,
            owners: None,
        }
    }
}

impl Retained {
    /// Keeps `message` as the last of its topic [MQTT5-3.3.1-5].
    ///
    /// # Errors
    /// A new topic, or a larger message, beyond the limits is refused; what was there stays.
    pub fn set(&mut self, message: Arc<Message>, limits: &Limits) -> Result<(), Limit> {
        let bytes = message.size_bytes();
        let before = self
            .get(message.topic.as_str())
            .map_or(0, |old| old.size_bytes());
        let is_new = before == 0;
        if is_new && self.messages >= limits.retained_messages_max {
            return Err(Limit::RetainedMessages);
        }
        if bytes > before && self.bytes + bytes - before > limits.retained_bytes_max {
            return Err(Limit::RetainedBytes);
        }
        self.check_owner(&message, limits)?;
        let mut node = ROOT;
        for name in message.topic.as_str().split('/') {
            node = self.tree.child_or_insert(node, name);
        }
        if let Some(slot) = self.tree.value_mut(node) {
            let old = slot.0.replace(message.clone());
            self.note_owner(old.as_deref(), Some(&message));
        }
        self.messages += usize::from(is_new);
        self.bytes = self.bytes + bytes - before;
        Ok(())
    }

    /// Counts by client from now on, or no more.
    pub fn set_limits(&mut self, limits: &Limits) {
        let is_limited =
            limits.client_retained_messages_max > 0 || limits.client_retained_bytes_max > 0;
        if self.owners.is_some() == is_limited {
            return;
        }
        self.owners = is_limited.then(HashMap::default);
        if is_limited {
            for message in self.all() {
                self.note_owner(None, Some(&message));
            }
        }
    }

    fn all(&self) -> Vec<Arc<Message>> {
        let mut found = Vec::with_capacity(self.messages);
        let mut waiting = vec![ROOT];
        while let Some(node) = waiting.pop() {
            found.extend(self.tree.value(node).and_then(|slot| slot.0.clone()));
            waiting.extend(self.tree.children(node));
        }
        found
    }

    /// Whether the publisher of `message` may have another one like it.
    fn check_owner(&self, message: &Message, limits: &Limits) -> Result<(), Limit> {
        let Some(owners) = &self.owners else {
            return Ok(());
        };
        let (mut messages, mut bytes) = owners.get(&message.publisher).copied().unwrap_or((0, 0));
        if let Some(old) = self.get(message.topic.as_str())
            && old.publisher == message.publisher
        {
            messages -= 1;
            bytes -= old.size_bytes();
        }
        let is_above = |now: usize, max: usize| max > 0 && now > max;
        if is_above(messages + 1, limits.client_retained_messages_max) {
            return Err(Limit::ClientRetainedMessages);
        }
        match is_above(
            bytes + message.size_bytes(),
            limits.client_retained_bytes_max,
        ) {
            true => Err(Limit::ClientRetainedBytes),
            false => Ok(()),
        }
    }

    fn note_owner(&mut self, old: Option<&Message>, new: Option<&Message>) {
        let Some(owners) = &mut self.owners else {
            return;
        };
        if let Some(old) = old
            && let Some(owned) = owners.get_mut(&old.publisher)
        {
            *owned = (owned.0 - 1, owned.1 - old.size_bytes());
            if owned.0 == 0 {
                owners.remove(&old.publisher);
            }
        }
        if let Some(new) = new {
            let owned = owners.entry(new.publisher.clone()).or_default();
            *owned = (owned.0 + 1, owned.1 + new.size_bytes());
        }
    }

    /// Removes the message of `topic` [MQTT5-3.3.1-6].
    pub fn clear(&mut self, topic: &str) -> Option<Arc<Message>> {
        let node = self.tree.find(topic.split('/'))?;
        let message = self.tree.value_mut(node)?.0.take()?;
        self.note_owner(Some(&message), None);
        self.tree.prune(node);
        self.messages -= 1;
        self.bytes -= message.size_bytes();
        Some(message)
    }

    /// The message of `topic`.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        let node = self.tree.find(topic.split('/'))?;
        self.tree.value(node)?.0.as_ref()
    }

    /// Messages kept, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// The unexpired messages whose topics match `filter` (valid, without `$share`), in topic tree order.
    #[must_use]
    pub fn matching(&self, filter: &str, now: Timestamp) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let mut waiting = vec![(ROOT, Step::Filter(filter))];
        while let Some((node, step)) = waiting.pop() {
            match step {
                Step::Filter(rest) => self.descend(node, rest, &mut waiting),
                Step::Here | Step::All => {
                    let message = self.tree.value(node).and_then(|slot| slot.0.as_ref());
                    found.extend(message.filter(|message| !message.is_expired(now)).cloned());
                    if matches!(step, Step::All) {
                        waiting.extend(self.tree.children(node).map(|child| (child, Step::All)));
                    }
                }
            }
        }
        found
    }

    fn descend<'a>(&self, node: NodeId, rest: &'a str, waiting: &mut Vec<(NodeId, Step<'a>)>) {
        let (name, below) = match rest.split_once('/') {
            // `a/#` includes `a` itself [MQTT5-4.7.1-1].
            Some((name, "#")) => (name, Step::All),
            Some((name, below)) => (name, Step::Filter(below)),
            None => (rest, Step::Here),
        };
        match name {
            "#" => waiting.extend(self.wild_children(node).map(|child| (child, Step::All))),
            "+" => waiting.extend(self.wild_children(node).map(|child| (child, below))),
            name => {
                let child = self
                    .tree
                    .level(name)
                    .and_then(|level| self.tree.child(node, level));
                waiting.extend(child.map(|child| (child, below)));
            }
        }
    }

    /// Children that a wildcard matches: not those of the root that start with `$` [MQTT5-4.7.2-1].
    fn wild_children(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.tree
            .children(node)
            .filter(move |child| node != ROOT || !self.tree.level_name(*child).starts_with(b"$"))
    }
}

#[derive(Copy, Clone)]
enum Step<'a> {
    /// The rest of the filter applies below this node.
    Filter(&'a str),
    /// This node only.
    Here,
    /// This node and everything below.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_codec::{QoS, TopicFilter};
    use proptest::prelude::*;

    #[test]
    fn a_wildcard_replay_finds_what_the_filter_matches() {
        let topics = ["a", "a/b", "a/b/c", "b", "$SYS/x", "/a", "a//b"];
        check(&topics, "#", &["/a", "a", "a//b", "a/b", "a/b/c", "b"]);
        check(&topics, "a/#", &["a", "a//b", "a/b", "a/b/c"]);
        check(&topics, "+/b", &["a/b"]);
        check(&topics, "a/+/b", &["a//b"]);
        check(&topics, "$SYS/#", &["$SYS/x"]);
        check(&topics, "+/x", &[]);
        check(&topics, "a/b", &["a/b"]);
    }

    #[test]
    fn at_the_limit_a_new_topic_is_refused_and_an_old_one_replaced() {
        let limits = Limits {
            retained_messages_max: 1,
            ..Limits::default()
        };
        let mut retained = Retained::default();
        assert_eq!(retained.set(message("a"), &limits), Ok(()));
        assert_eq!(
            retained.set(message("b"), &limits),
            Err(Limit::RetainedMessages)
        );
        assert_eq!(retained.set(message("a"), &limits), Ok(()));
        assert!(retained.clear("a").is_some());
        assert_eq!(retained.size(), (0, 0));
        assert_eq!(retained.tree.len(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_matching_one_topic_at_a_time(
            topics in proptest::collection::btree_set("[ab$/]{1,5}", 0..30),
            filter in "([ab$]{0,1}|[+])(/([ab]{0,1}|[+])){0,3}(/#){0,1}",
        ) {
            prop_assume!(TopicFilter::parse(&filter).is_ok());
            let expected: Vec<_> = topics
                .iter()
                .map(String::as_str)
                .filter(|topic| TopicFilter::parse(&filter).is_ok_and(|f| f.matches(topic)))
                .collect();
            let topics: Vec<_> = topics.iter().map(String::as_str).collect();
            check(&topics, &filter, &expected);
        }
    }

    fn check(topics: &[&str], filter: &str, expected: &[&str]) {
        let mut retained = Retained::default();
        for topic in topics {
            retained.set(message(topic), &Limits::default()).unwrap();
        }
        let found = retained.matching(filter, Timestamp::default());
        let mut found: Vec<_> = found.iter().map(|message| message.topic.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{filter}");
    }

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            payload: [1].into(),
            qos: QoS::AtMostOnce,
            retain: true,
            ..Message::sample(topic)
        })
    }
}
