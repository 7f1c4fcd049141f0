//! A tree of topic levels in flat memory, shared by the subscription trie and the retained messages.
//!
//! Invariants:
//! - A node exists while it, or something below it, carries a value.
//! - Level names are stored once, by number; a name lives while a node uses it.
//! - Finding a child is one look-up by (parent, level number), however many children there are.
//!
//! Does not know: wildcards, what the values mean. Nothing here recurses, so depth costs no stack.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher;

/// Number of a node; the root is [`ROOT`].
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct NodeId(u32);

/// Number of a level name.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LevelId(u32);

/// The node above all first levels.
pub(crate) const ROOT: NodeId = NodeId(0);

/// The tree; `V` is what a node carries.
#[derive(Debug)]
pub(crate) struct LevelTree<V> {
    nodes: Vec<Node<V>>,
    free: Vec<NodeId>,
    children: HashMap<(NodeId, LevelId), NodeId, RandomState>,
    levels: Levels,
}

#[derive(Debug)]
struct Node<V> {
    parent: NodeId,
    level: LevelId,
    first_child: Option<NodeId>,
    previous: Option<NodeId>,
    next: Option<NodeId>,
    value: V,
}

/// Says whether a value keeps its node alive.
pub(crate) trait Keeps {
    fn keeps_node(&self) -> bool;
}

impl<V: Default + Keeps> LevelTree<V> {
    pub(crate) fn new() -> Self {
        let root = Node {
            parent: ROOT,
            level: LevelId(u32::MAX),
            first_child: None,
            previous: None,
            next: None,
            value: V::default(),
        };
        Self {
            nodes: vec![root],
            free: Vec::new(),
            children: HashMap::default(),
            levels: Levels::default(),
        }
    }

    /// The number of a level name, if any node has it.
    pub(crate) fn level(&self, name: &str) -> Option<LevelId> {
        self.levels.find(name.as_bytes())
    }

    /// The numbers of the levels of a topic, in order; `None` for a name that no node has.
    pub(crate) fn levels_of(&self, topic: &str) -> Vec<Option<LevelId>> {
        // Bytes, because splitting them is cheaper than splitting text, and `/` is one byte.
        let names = topic.as_bytes().split(|byte| *byte == b'/');
        let mut levels = Vec::with_capacity(LEVELS_USUAL);
        levels.extend(names.map(|name| self.levels.find(name)));
        levels
    }

    pub(crate) fn level_name(&self, node: NodeId) -> &str {
        self.node(node)
            .map_or("", |node| self.levels.name(node.level))
    }

    pub(crate) fn child(&self, node: NodeId, level: LevelId) -> Option<NodeId> {
        self.children.get(&(node, level)).copied()
    }

    pub(crate) fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let first = self.node(node).and_then(|node| node.first_child);
        std::iter::successors(first, |child| self.node(*child).and_then(|node| node.next))
    }

    pub(crate) fn value(&self, node: NodeId) -> Option<&V> {
        self.node(node).map(|node| &node.value)
    }

    pub(crate) fn value_mut(&mut self, node: NodeId) -> Option<&mut V> {
        self.nodes.get_mut(node.index()).map(|node| &mut node.value)
    }

    /// The node at the end of `path`, if there is one.
    pub(crate) fn find<'a>(&self, path: impl Iterator<Item = &'a str>) -> Option<NodeId> {
        let mut node = ROOT;
        for name in path {
            node = self.child(node, self.level(name)?)?;
        }
        Some(node)
    }

    /// The child of `node` with this name, made if need be. A made node must be given a value that keeps it.
    pub(crate) fn child_or_insert(&mut self, node: NodeId, name: &str) -> NodeId {
        if let Some(child) = self.level(name).and_then(|level| self.child(node, level)) {
            return child;
        }
        let level = self.levels.acquire(name);
        let next = self.node(node).and_then(|node| node.first_child);
        let made = Node {
            parent: node,
            level,
            first_child: None,
            previous: None,
            next,
            value: V::default(),
        };
        let child = self.place(made);
        if let Some(next) = next
            && let Some(next) = self.nodes.get_mut(next.index())
        {
            next.previous = Some(child);
        }
        if let Some(node) = self.nodes.get_mut(node.index()) {
            node.first_child = Some(child);
        }
        self.children.insert((node, level), child);
        child
    }

    /// Removes `node` and its ancestors as far as nothing keeps them; calls `removed(parent, child)` for each.
    pub(crate) fn prune(&mut self, mut node: NodeId, mut removed: impl FnMut(&mut V, NodeId)) {
        while node != ROOT {
            let Some(there) = self.node(node) else { return };
            if there.first_child.is_some() || there.value.keeps_node() {
                return;
            }
            let (parent, level) = (there.parent, there.level);
            let (previous, next) = (there.previous, there.next);
            self.children.remove(&(parent, level));
            self.levels.release(level);
            if let Some(next) = next.and_then(|next| self.nodes.get_mut(next.index())) {
                next.previous = previous;
            }
            match previous {
                Some(previous) => {
                    if let Some(previous) = self.nodes.get_mut(previous.index()) {
                        previous.next = next;
                    }
                }
                None => {
                    if let Some(parent) = self.nodes.get_mut(parent.index()) {
                        parent.first_child = next;
                    }
                }
            }
            if let Some(parent) = self.value_mut(parent) {
                removed(parent, node);
            }
            if let Some(gone) = self.nodes.get_mut(node.index()) {
                gone.value = V::default();
            }
            self.free.push(node);
            node = parent;
        }
    }

    fn place(&mut self, node: Node<V>) -> NodeId {
        if let Some(id) = self.free.pop() {
            if let Some(place) = self.nodes.get_mut(id.index()) {
                *place = node;
            }
            return id;
        }
        #[expect(
            clippy::expect_used,
            reason = "four billion nodes do not fit in memory"
        )]
        let id = NodeId(u32::try_from(self.nodes.len()).expect("fewer than 2^32 nodes"));
        self.nodes.push(node);
        id
    }

    fn node(&self, id: NodeId) -> Option<&Node<V>> {
        self.nodes.get(id.index())
    }

    /// Nodes in use, without the root.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len() - 1
    }
}

impl NodeId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Levels that a topic has room for before memory is asked for again.
const LEVELS_USUAL: usize = 16;

#[derive(Debug, Default)]
struct Levels {
    names: Vec<(Box<str>, u32)>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Levels {
    fn find(&self, name: &[u8]) -> Option<LevelId> {
        let hash = self.hasher.hash_one(name);
        let same = |id: &u32| self.name(LevelId(*id)).as_bytes() == name;
        self.index.find(hash, same).map(|id| LevelId(*id))
    }

    fn name(&self, id: LevelId) -> &str {
        self.names.get(id.0 as usize).map_or("", |(name, _)| name)
    }

    fn acquire(&mut self, name: &str) -> LevelId {
        if let Some(id) = self.find(name.as_bytes()) {
            if let Some((_, uses)) = self.names.get_mut(id.0 as usize) {
                *uses += 1;
            }
            return id;
        }
        let id = if let Some(id) = self.free.pop() {
            if let Some(place) = self.names.get_mut(id as usize) {
                *place = (name.into(), 1);
            }
            id
        } else {
            self.names.push((name.into(), 1));
            #[expect(clippy::expect_used, reason = "there are no more names than nodes")]
            u32::try_from(self.names.len() - 1).expect("fewer than 2^32 level names")
        };
        let Self {
            names,
            index,
            hasher,
            ..
        } = self;
        let name_of = |id: &u32| names.get(*id as usize).map_or("", |(name, _)| name);
        let hash_of = |id: &u32| hasher.hash_one(name_of(id).as_bytes());
        index.insert_unique(hasher.hash_one(name.as_bytes()), id, hash_of);
        LevelId(id)
    }

    fn release(&mut self, id: LevelId) {
        let Some((name, uses)) = self.names.get_mut(id.0 as usize) else {
            return;
        };
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(name.as_bytes());
        if let Ok(entry) = self.index.find_entry(hash, |known| *known == id.0) {
            entry.remove();
        }
        *name = Box::default();
        self.free.push(id.0);
    }
}
