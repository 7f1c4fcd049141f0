//! The topic trie: from a topic name to the values of all filters that match it.
//!
//! Invariants:
//! - Matching visits a node only if the levels so far match; its cost does not grow with the number of filters.
//! - `#` matches its parent level too [MQTT5-4.7.1-1]; `+` matches exactly one level, an empty one included
//!   [MQTT5-4.7.1-2]; neither matches a first level that starts with `$` [MQTT5-4.7.2-1].
//! - Matching and inserting are loops, so no filter is deep enough to exhaust the stack.
//!
//! Does not know: who subscribes, `$share`, the level limit (the broker checks it).

use crate::level_tree::{Keeps, LevelTree, NodeId, ROOT};

/// Values by topic filter.
#[derive(Debug)]
pub struct TopicTrie<T> {
    tree: LevelTree<Slots<T>>,
}

#[derive(Debug)]
struct Slots<T> {
    /// Value of the filter that ends here.
    exact: Option<Box<T>>,
    /// Value of the filter that ends with `#` below here.
    multi_level: Option<Box<T>>,
    /// The child `+`.
    single_level: Option<NodeId>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            exact: None,
            multi_level: None,
            single_level: None,
        }
    }
}

impl<T> Keeps for Slots<T> {
    fn keeps_node(&self) -> bool {
        self.exact.is_some() || self.multi_level.is_some()
    }
}

impl<T: Default> Default for TopicTrie<T> {
    fn default() -> Self {
        Self {
            tree: LevelTree::new(),
        }
    }
}

impl<T: Default> TopicTrie<T> {
    /// The value of `filter` (valid, without `$share`), made if need be.
    pub fn entry(&mut self, filter: &str) -> &mut T {
        let (path, is_multi_level) = split(filter);
        let mut node = ROOT;
        for name in path {
            let child = self.tree.child_or_insert(node, name);
            if name == "+"
                && let Some(slots) = self.tree.value_mut(node)
            {
                slots.single_level = Some(child);
            }
            node = child;
        }
        #[expect(clippy::expect_used, reason = "the loop above made the node")]
        let slots = self.tree.value_mut(node).expect("the node exists");
        let place = if is_multi_level {
            &mut slots.multi_level
        } else {
            &mut slots.exact
        };
        place.get_or_insert_default()
    }

    /// The value of `filter`, if there is one.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        let (path, is_multi_level) = split(filter);
        let node = self.tree.find(path)?;
        let slots = self.tree.value_mut(node)?;
        let place = if is_multi_level {
            &mut slots.multi_level
        } else {
            &mut slots.exact
        };
        place.as_deref_mut()
    }

    /// Removes the value of `filter`.
    pub fn remove(&mut self, filter: &str) -> Option<T> {
        let (path, is_multi_level) = split(filter);
        let node = self.tree.find(path)?;
        let slots = self.tree.value_mut(node)?;
        let place = if is_multi_level {
            &mut slots.multi_level
        } else {
            &mut slots.exact
        };
        let value = place.take()?;
        self.tree.prune(node, |parent, child| {
            if parent.single_level == Some(child) {
                parent.single_level = None;
            }
        });
        Some(*value)
    }

    /// Calls `found` with the value of every filter that matches `topic`.
    pub fn matches<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        // Each name is looked up once, however many branches meet it.
        let levels = self.tree.levels_of(topic);
        // At most one node waits per level and wildcard, so a topic of ordinary depth stays in the first allocation.
        let mut waiting: Vec<(NodeId, usize)> = Vec::with_capacity(8);
        waiting.push((ROOT, 0));
        let no_wildcards = topic.starts_with('$');
        while let Some((node, depth)) = waiting.pop() {
            let Some(slots) = self.tree.value(node) else {
                continue;
            };
            let wildcards = !(no_wildcards && node == ROOT);
            if let (Some(value), true) = (&slots.multi_level, wildcards) {
                found(value);
            }
            let Some(level) = levels.get(depth) else {
                if let Some(value) = &slots.exact {
                    found(value);
                }
                continue;
            };
            if let (Some(child), true) = (slots.single_level, wildcards) {
                waiting.push((child, depth + 1));
            }
            if let Some(child) = level.and_then(|level| self.tree.child(node, level)) {
                waiting.push((child, depth + 1));
            }
        }
    }
}

/// The levels of a filter without a final `#`, and whether there was one.
fn split(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let (path, is_multi_level) = match filter.strip_suffix('#') {
        Some("") => (None, true),
        Some(path) => (Some(path.strip_suffix('/').unwrap_or(path)), true),
        None => (Some(filter), false),
    };
    (
        path.into_iter().flat_map(|path| path.split('/')),
        is_multi_level,
    )
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
        assert_eq!(trie.tree.len(), 0);
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
            let mut expected: Vec<_> = filters
                .into_iter()
                .filter(|filter| !removed.contains(filter))
                .filter(|filter| TopicFilter::parse(filter).is_ok_and(|f| f.matches(&topic)))
                .collect();
            expected.sort();
            let mut found = Vec::new();
            trie.matches(&topic, |value| found.push(value.clone()));
            found.sort();
            prop_assert_eq!(found, expected);
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
