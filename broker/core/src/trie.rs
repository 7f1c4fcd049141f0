//! The topic trie: from a topic name to the values of all filters that match it.
//!
//! A node stands for one level. A filter that shares no more levels with others is not spread over nodes: it ends in one
//! *tail*, a node that carries all levels that are left, so most filters cost one node and one look-up in the table.
//!
//! Invariants:
//! - Matching visits a node only if the levels so far match; its cost does not grow with the number of filters.
//! - `#` matches its parent level too [MQTT5-4.7.1-1]; `+` matches exactly one level, an empty one included
//!   [MQTT5-4.7.1-2]; neither matches a first level that starts with `$` [MQTT5-4.7.2-1].
//! - A node exists while it, or something below it, carries a value. A tail has a value and nothing below it.
//! - Finding a child is one look-up by (parent, level), however many children there are; `+` needs none.
//! - Matching, inserting and removing are loops, so no filter is deep enough to exhaust the stack.
//!
//! Does not know: who subscribes, `$share`, the level limit (the broker checks it).

use crate::short_text::ShortText;
use crate::slab::{PlaceId, Slab};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};
use std::hash::{BuildHasher, Hasher};

/// Values by topic filter.
#[derive(Debug)]
pub struct TopicTrie<T> {
    /// The node above all first levels.
    root: Node<T>,
    /// The other nodes.
    nodes: Slab<Node<T>>,
    /// The nodes by parent and level, without those of `+`, which their parents name.
    children: HashTable<PlaceId>,
    hasher: RandomState,
}

/// Kept to 64 bytes with a value of 16, which is a cache line.
#[derive(Debug)]
struct Node<T> {
    /// The level; in a tail, all levels that are left of its filter.
    text: ShortText,
    /// Value of the filter that ends here.
    exact: Option<T>,
    /// Value of the filter that ends with `#` below here.
    multi_level: Option<Box<T>>,
    /// `None` is the root, for the root itself as well.
    parent: Option<PlaceId>,
    /// The child `+`.
    single_level: Option<PlaceId>,
    /// How many children there are, `+` included.
    children: u32,
    is_tail: bool,
}

/// A node that matches so far, and what is left of the topic.
struct Waiting<'a> {
    node: Option<PlaceId>,
    rest: Option<&'a [u8]>,
}

/// Where the value of a filter is.
enum Place {
    Exact,
    MultiLevel,
}

impl<T> Default for TopicTrie<T> {
    fn default() -> Self {
        Self {
            root: Node::new(None, &[]),
            nodes: Slab::default(),
            children: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<T: Default> TopicTrie<T> {
    /// The value of `filter` (valid, without `$share`), made if need be.
    pub fn entry(&mut self, filter: &str) -> &mut T {
        let mut node = None;
        let mut rest = filter.as_bytes();
        loop {
            if rest == b"#" {
                return self.node_mut(node).multi_level.get_or_insert_default();
            }
            let (level, below) = split(rest);
            let Some(child) = self.child(node, level) else {
                let made = self.insert(node, rest);
                return self.node_mut(Some(made)).exact.get_or_insert_default();
            };
            let known = self.node(Some(child));
            if known.is_tail && known.text.as_bytes() != rest {
                self.spread(child, below);
            }
            match below {
                Some(below) if !self.node(Some(child)).is_tail => {
                    (node, rest) = (Some(child), below)
                }
                _ => return self.node_mut(Some(child)).exact.get_or_insert_default(),
            }
        }
    }

    /// The value of `filter`, if there is one.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&T> {
        match self.find(filter)? {
            (node, Place::Exact) => self.node(node).exact.as_ref(),
            (node, Place::MultiLevel) => self.node(node).multi_level.as_deref(),
        }
    }

    /// The value of `filter`, to change it, if there is one.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        match self.find(filter)? {
            (node, Place::Exact) => self.node_mut(node).exact.as_mut(),
            (node, Place::MultiLevel) => self.node_mut(node).multi_level.as_deref_mut(),
        }
    }

    /// Removes the value of `filter`.
    pub fn remove(&mut self, filter: &str) -> Option<T> {
        let (node, place) = self.find(filter)?;
        let there = self.node_mut(node);
        let value = match place {
            Place::Exact => there.exact.take(),
            Place::MultiLevel => there.multi_level.take().map(|value| *value),
        };
        self.prune(node);
        value
    }

    /// Whether there is a filter whose first level is `level`, which is no wildcard.
    #[must_use]
    pub fn has_branch(&self, level: &str) -> bool {
        self.named_child(None, level.as_bytes()).is_some()
    }

    /// Calls `found` with the value of every filter that matches `topic`; says how many nodes were looked at.
    pub fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) -> usize {
        // At most one waits per level and wildcard.
        let mut waiting: SmallVec<[Waiting<'_>; 8]> = smallvec![Waiting {
            node: None,
            rest: Some(topic.as_bytes()),
        }];
        let no_wildcards = topic.starts_with('$');
        let mut looked_at = 0;
        while let Some(Waiting { node: id, rest }) = waiting.pop() {
            looked_at += 1;
            let node = self.node(id);
            let wildcards = !(no_wildcards && id.is_none());
            if let (Some(value), true) = (&node.multi_level, wildcards) {
                found(value);
            }
            let Some(rest) = rest else {
                found_if_some(&node.exact, &mut found);
                continue;
            };
            let (level, below) = split(rest);
            let single_level = node.single_level.filter(|_| wildcards);
            let named = match node.children > u32::from(node.single_level.is_some()) {
                true => self.named_child(id, level),
                false => None,
            };
            for (child, level) in [(single_level, &b"+"[..]), (named, level)] {
                let Some(id) = child else { continue };
                let child = self.node(Some(id));
                if !child.is_tail {
                    let (node, rest) = (Some(id), below);
                    waiting.push(Waiting { node, rest });
                } else if tail_matches(child.tail(level), below) {
                    found_if_some(&child.exact, &mut found);
                }
            }
        }
        looked_at
    }

    /// The node that has the value of `filter`, if there is one.
    fn find(&self, filter: &str) -> Option<(Option<PlaceId>, Place)> {
        let mut node = None;
        let mut rest = filter.as_bytes();
        while rest != b"#" {
            let (level, below) = split(rest);
            let child = self.child(node, level)?;
            let there = self.node(Some(child));
            let is_here = match there.is_tail {
                true => there.text.as_bytes() == rest,
                false => below.is_none(),
            };
            match below {
                _ if is_here => return Some((Some(child), Place::Exact)),
                Some(below) if !there.is_tail => (node, rest) = (Some(child), below),
                _ => return None,
            }
        }
        Some((node, Place::MultiLevel))
    }

    fn child(&self, parent: Option<PlaceId>, level: &[u8]) -> Option<PlaceId> {
        match level {
            b"+" => self.node(parent).single_level,
            level => self.named_child(parent, level),
        }
    }

    fn named_child(&self, parent: Option<PlaceId>, level: &[u8]) -> Option<PlaceId> {
        let is_it = |id: &PlaceId| {
            let node = self.node(Some(*id));
            node.parent == parent && node.has_level(level)
        };
        let hash = hash(&self.hasher, parent, level);
        self.children.find(hash, is_it).copied()
    }

    /// Makes the child of `parent` that has all of `text`; it must be given a value, or something below it.
    fn insert(&mut self, parent: Option<PlaceId>, text: &[u8]) -> PlaceId {
        let child = self.nodes.insert(Node::new(parent, text));
        let there = self.node_mut(parent);
        there.children += 1;
        let level = split(text).0;
        if level == b"+" {
            there.single_level = Some(child);
            return child;
        }
        let hash_of = |id: &PlaceId| {
            let node = self.nodes.get(*id);
            node.map_or(0, |node| hash(&self.hasher, node.parent, node.level()))
        };
        let hash = hash(&self.hasher, parent, level);
        self.children.insert_unique(hash, child, hash_of);
        child
    }

    /// Makes a tail an ordinary node, and nodes below it as far as it goes the same way as `other`, the levels below the
    /// tail's first one in another filter. What is left then is a tail again.
    fn spread(&mut self, tail: PlaceId, mut other: Option<&[u8]>) {
        let there = self.node_mut(Some(tail));
        let text = std::mem::take(&mut there.text);
        let (level, mut rest) = split(text.as_bytes());
        there.text = ShortText::new(level);
        there.is_tail = false;
        let value = there.exact.take();
        let mut node = tail;
        while let Some(below) = rest {
            if below == b"#" {
                self.node_mut(Some(node)).multi_level = value.map(Box::new);
                return;
            }
            let (level, next) = split(below);
            match other.map(split) {
                Some((same, beyond)) if same == level => {
                    node = self.insert(Some(node), level);
                    (rest, other) = (next, beyond);
                }
                _ => {
                    node = self.insert(Some(node), below);
                    rest = None;
                }
            }
        }
        self.node_mut(Some(node)).exact = value;
    }

    /// Removes a node and those above it as far as nothing keeps them.
    fn prune(&mut self, mut node: Option<PlaceId>) {
        while let Some(id) = node {
            let there = self.node(node);
            if there.children > 0 || there.exact.is_some() || there.multi_level.is_some() {
                return;
            }
            let parent = there.parent;
            if self.node(parent).single_level == node {
                self.node_mut(parent).single_level = None;
            } else {
                let hash = hash(&self.hasher, parent, there.level());
                if let Ok(entry) = self.children.find_entry(hash, |known| *known == id) {
                    entry.remove();
                }
            }
            self.node_mut(parent).children -= 1;
            self.nodes.remove(id, Node::new(None, &[]));
            node = parent;
        }
    }

    fn node(&self, id: Option<PlaceId>) -> &Node<T> {
        match id {
            Some(id) => self.nodes.get(id).unwrap_or(&self.root),
            None => &self.root,
        }
    }

    fn node_mut(&mut self, id: Option<PlaceId>) -> &mut Node<T> {
        match id {
            Some(id) => self.nodes.get_mut(id).unwrap_or(&mut self.root),
            None => &mut self.root,
        }
    }

    /// Nodes in use, without the root.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

impl<T> Node<T> {
    fn new(parent: Option<PlaceId>, text: &[u8]) -> Self {
        Self {
            text: ShortText::new(text),
            exact: None,
            multi_level: None,
            parent,
            single_level: None,
            children: 0,
            is_tail: split(text).1.is_some(),
        }
    }

    /// Whether the node is that of `level` below its parent.
    fn has_level(&self, level: &[u8]) -> bool {
        let beyond = self.text.as_bytes().strip_prefix(level);
        beyond.is_some_and(|beyond| matches!(beyond.first(), None | Some(b'/')))
    }

    /// What a tail has below its level, which is `level`.
    fn tail(&self, level: &[u8]) -> &[u8] {
        let text = self.text.as_bytes();
        text.get(level.len() + 1..).unwrap_or_default()
    }

    fn level(&self) -> &[u8] {
        match self.is_tail {
            true => split(self.text.as_bytes()).0,
            false => self.text.as_bytes(),
        }
    }
}

fn hash(hasher: &RandomState, parent: Option<PlaceId>, level: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write_u32(parent.map_or(0, PlaceId::number));
    state.write(level);
    state.finish()
}

fn found_if_some<'a, T>(value: &'a Option<T>, found: &mut impl FnMut(&'a T)) {
    if let Some(value) = value {
        found(value);
    }
}

/// Whether the levels of a tail match what is left of a topic.
fn tail_matches(mut tail: &[u8], mut rest: Option<&[u8]>) -> bool {
    loop {
        let (wanted, tail_below) = split(tail);
        if wanted == b"#" {
            return true;
        }
        let Some((level, below)) = rest.map(split) else {
            return false;
        };
        if wanted != b"+" && wanted != level {
            return false;
        }
        match tail_below {
            Some(next) => (tail, rest) = (next, below),
            None => return below.is_none(),
        }
    }
}

/// The first level and what is below it. Bytes, because that is cheaper than splitting text, and `/` is one byte.
fn split(levels: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = levels.iter().position(|byte| *byte == b'/');
    match end.and_then(|end| levels.split_at_checked(end)) {
        Some((level, below)) => (level, below.get(1..)),
        None => (levels, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_codec::TopicFilter;
    use proptest::prelude::*;

    #[test]
    fn multi_level_wildcard_matches_its_parent() {
        // [MQTT5-4.7.1-1] [MQTT3-4.7.1-2]
        check(&["a/#"], "a", &["a/#"]);
        check(&["a/#", "#", "a"], "a/b/c", &["#", "a/#"]);
        check(&["a/#"], "ab", &[]);
    }

    #[test]
    fn single_level_wildcard_matches_one_level_even_if_empty() {
        // [MQTT5-4.7.1-2]
        check(&["+", "/+", "+/+"], "/a", &["+/+", "/+"]);
        check(&["a/+/b"], "a//b", &["a/+/b"]);
        check(&["a/+"], "a", &[]);
        check(&["+/#"], "a", &["+/#"]);
    }

    #[test]
    fn wildcards_do_not_match_a_first_level_with_a_dollar_sign() {
        // [MQTT5-4.7.2-1] [MQTT3-4.7.2-1]
        check(
            &["#", "+/x", "+/#", "$SYS/#", "$SYS/x"],
            "$SYS/x",
            &["$SYS/#", "$SYS/x"],
        );
        check(&["a/#", "a/+"], "a/$x", &["a/#", "a/+"]);
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut trie = TopicTrie::default();
        for filter in ["a/b/c", "a/b", "a/+/c", "#", "a/#"] {
            *trie.entry(filter) = filter.to_owned();
        }
        for filter in ["a/b/c", "a/b", "a/+/c", "#", "a/#"] {
            assert_eq!(trie.remove(filter).as_deref(), Some(filter));
            assert!(trie.remove(filter).is_none());
        }
        assert_eq!(trie.len(), 0);
    }

    #[test]
    fn a_literal_level_is_not_taken_for_a_wildcard_node() {
        let mut trie = TopicTrie::default();
        *trie.entry("+/a") = 1;
        *trie.entry("x/a") = 2;
        trie.remove("+/a");
        let mut found = Vec::new();
        trie.matches("x/a", |value| found.push(*value));
        assert_eq!(found, [2]);
    }

    #[test]
    fn a_filter_that_shares_no_more_levels_costs_one_node() {
        let mut trie = TopicTrie::default();
        for number in 0..100 {
            *trie.entry(&format!("site/{number}/+/state/#")) = number;
        }
        // And the one for `site`.
        assert_eq!(trie.len(), 101);
        *trie.entry("site/7/+/state/x") = 100;
        let mut found = Vec::new();
        trie.matches("site/7/a/state/x", |value| found.push(*value));
        found.sort_unstable();
        assert_eq!(found, [7, 100]);
        // `7` became a node with `+`, `state` and `x` below it; they stay as long as something is below them.
        assert_eq!(trie.len(), 104);
        trie.remove("site/7/+/state/x");
        assert_eq!(trie.len(), 103);
        for number in 0..100 {
            assert!(trie.remove(&format!("site/{number}/+/state/#")).is_some());
        }
        assert_eq!(trie.len(), 0);
    }

    #[test]
    fn deep_filters_that_share_most_levels_are_told_apart() {
        let deep = "/".repeat(65_000);
        let mut trie = TopicTrie::default();
        for end in ["a", "b", "#"] {
            *trie.entry(&format!("{deep}{end}")) = end;
        }
        let mut found = Vec::new();
        trie.matches(&format!("{deep}b"), |value| found.push(*value));
        assert_eq!(found, ["#", "b"]);
        for end in ["a", "#", "b"] {
            assert_eq!(trie.remove(&format!("{deep}{end}")), Some(end));
        }
        assert_eq!(trie.len(), 0);
    }

    #[test]
    fn the_deepest_topic_needs_no_stack() {
        let deep = "/".repeat(65_535);
        let mut trie = TopicTrie::default();
        *trie.entry(&deep) = 1;
        let mut found = 0;
        trie.matches(&deep, |_| found += 1);
        assert_eq!(found, 1);
        assert!(trie.remove(&deep).is_some());
    }

    proptest! {
        #[test]
        fn agrees_with_matching_one_filter_at_a_time(
            filters in proptest::collection::btree_set(filter(), 0..40),
            removed in proptest::collection::vec(filter(), 0..10),
            topic in "[ab$/]{1,6}",
        ) {
            let mut trie = TopicTrie::default();
            for filter in &filters {
                *trie.entry(filter) = filter.clone();
            }
            for filter in &removed {
                trie.remove(filter);
            }
            let mut left = filters;
            for filter in &removed {
                left.remove(filter);
            }
            let mut expected: Vec<_> = left
                .iter()
                .filter(|filter| TopicFilter::parse(filter).is_ok_and(|f| f.matches(&topic)))
                .cloned()
                .collect();
            expected.sort();
            let mut found = Vec::new();
            trie.matches(&topic, |value| found.push(value.clone()));
            found.sort();
            prop_assert_eq!(found, expected);
            for filter in &left {
                prop_assert_eq!(trie.get_mut(filter).cloned(), Some(filter.clone()));
                prop_assert_eq!(trie.remove(filter), Some(filter.clone()));
            }
            prop_assert_eq!((trie.len(), trie.children.len()), (0, 0));
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof!["[ab]{0,1}", Just("+".to_owned()), Just("$".to_owned())];
        (proptest::collection::vec(level, 1..5), any::<bool>())
            .prop_map(|(levels, multi)| {
                let mut filter = levels.join("/");
                if multi {
                    filter = if filter.is_empty() {
                        "#".into()
                    } else {
                        filter + "/#"
                    };
                }
                filter
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    fn check(filters: &[&str], topic: &str, expected: &[&str]) {
        let mut trie = TopicTrie::default();
        for filter in filters {
            *trie.entry(filter) = (*filter).to_owned();
        }
        let mut found = Vec::new();
        trie.matches(topic, |value| found.push(value.as_str()));
        found.sort_unstable();
        assert_eq!(found, expected, "{topic}");
    }
}
