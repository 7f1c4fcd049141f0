//! A tree of topic levels in flat memory, for the retained messages.
//!
//! Invariants:
//! - A node exists while it, or something below it, carries a value.
//! - Level names are stored once, by number; a name lives while a node uses it.
//! - Finding a child is one look-up by (parent, level number), however many children there are.
//!
//! Does not know: wildcards, what the values mean. Nothing here recurses, so depth costs no stack.

use crate::short_text::ShortText;
use crate::slab::{PlaceId, Slab};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Number of a node; the root is [`ROOT`].
pub(crate) use crate::slab::PlaceId as NodeId;

/// Number of a level name.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LevelId(PlaceId);

/// The node above all first levels.
pub(crate) const ROOT: NodeId = NodeId::FIRST;

/// The tree; `V` is what a node carries.
#[derive(Debug)]
pub(crate) struct LevelTree<V> {
    nodes: Slab<Node<V>>,
    /// The nodes by parent and level.
    children: HashTable<NodeId>,
    hasher: RandomState,
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

impl<V: Default> Node<V> {
    fn new(parent: NodeId, level: LevelId) -> Self {
        Self {
            parent,
            level,
            first_child: None,
            previous: None,
            next: None,
            value: V::default(),
        }
    }
}

/// Says whether a value keeps its node alive.
pub(crate) trait Keeps {
    fn keeps_node(&self) -> bool;
}

impl<V: Default + Keeps> LevelTree<V> {
    pub(crate) fn new() -> Self {
        let mut nodes = Slab::default();
        // Nobody asks for the root's name.
        nodes.insert(Node::new(ROOT, LevelId(PlaceId::FIRST)));
        Self {
            nodes,
            children: HashTable::new(),
            hasher: RandomState::default(),
            levels: Levels::default(),
        }
    }

    /// The number of a level name, if any node has it.
    pub(crate) fn level(&self, name: &str) -> Option<LevelId> {
        self.levels.find(name.as_bytes())
    }

    pub(crate) fn level_name(&self, node: NodeId) -> &[u8] {
        self.node(node)
            .map_or(&[], |node| self.levels.name(node.level))
    }

    pub(crate) fn child(&self, node: NodeId, level: LevelId) -> Option<NodeId> {
        let is_it = |id: &NodeId| {
            self.node(*id)
                .is_some_and(|child| (child.parent, child.level) == (node, level))
        };
        let hash = self.hasher.hash_one((node, level));
        self.children.find(hash, is_it).copied()
    }

    pub(crate) fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let first = self.node(node).and_then(|node| node.first_child);
        std::iter::successors(first, |child| self.node(*child).and_then(|node| node.next))
    }

    pub(crate) fn value(&self, node: NodeId) -> Option<&V> {
        self.node(node).map(|node| &node.value)
    }

    pub(crate) fn value_mut(&mut self, node: NodeId) -> Option<&mut V> {
        self.nodes.get_mut(node).map(|node| &mut node.value)
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
        let level = self.levels.acquire(name.as_bytes());
        let next = self.node(node).and_then(|node| node.first_child);
        let mut made = Node::new(node, level);
        made.next = next;
        let child = self.nodes.insert(made);
        if let Some(next) = next
            && let Some(next) = self.nodes.get_mut(next)
        {
            next.previous = Some(child);
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.first_child = Some(child);
        }
        let hash_of = |id: &NodeId| {
            let known = self.nodes.get(*id);
            self.hasher
                .hash_one(known.map_or((node, level), |known| (known.parent, known.level)))
        };
        let hash = self.hasher.hash_one((node, level));
        self.children.insert_unique(hash, child, hash_of);
        child
    }

    /// Removes `node` and its ancestors as far as nothing keeps them.
    pub(crate) fn prune(&mut self, mut node: NodeId) {
        while node != ROOT {
            let Some(there) = self.node(node) else { return };
            if there.first_child.is_some() || there.value.keeps_node() {
                return;
            }
            let (parent, level) = (there.parent, there.level);
            let (previous, next) = (there.previous, there.next);
            let hash = self.hasher.hash_one((parent, level));
            if let Ok(entry) = self.children.find_entry(hash, |known| *known == node) {
                entry.remove();
            }
            self.levels.release(level);
            if let Some(next) = next.and_then(|next| self.nodes.get_mut(next)) {
                next.previous = previous;
            }
            match previous {
                Some(previous) => {
                    if let Some(previous) = self.nodes.get_mut(previous) {
                        previous.next = next;
                    }
                }
                None => {
                    if let Some(parent) = self.nodes.get_mut(parent) {
                        parent.first_child = next;
                    }
                }
            }
            self.nodes.remove(node, Node::new(parent, level));
            node = parent;
        }
    }

    fn node(&self, id: NodeId) -> Option<&Node<V>> {
        self.nodes.get(id)
    }

    /// Nodes in use, without the root.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - 1
    }
}

#[derive(Debug, Default)]
struct Levels {
    /// Names, and how many nodes use them.
    names: Slab<(ShortText, u32)>,
    index: HashTable<PlaceId>,
    hasher: RandomState,
}

impl Levels {
    fn find(&self, name: &[u8]) -> Option<LevelId> {
        let hash = self.hasher.hash_one(name);
        let same = |id: &PlaceId| self.name(LevelId(*id)) == name;
        self.index.find(hash, same).map(|id| LevelId(*id))
    }

    fn name(&self, id: LevelId) -> &[u8] {
        let name = self.names.get(id.0);
        name.map_or(&[], |(name, _)| name.as_bytes())
    }

    fn acquire(&mut self, name: &[u8]) -> LevelId {
        if let Some(id) = self.find(name) {
            if let Some((_, uses)) = self.names.get_mut(id.0) {
                *uses += 1;
            }
            return id;
        }
        let id = self.names.insert((ShortText::new(name), 1));
        let hash_of = |id: &PlaceId| {
            let name = self.names.get(*id);
            self.hasher
                .hash_one(name.map_or(&[][..], |(name, _)| name.as_bytes()))
        };
        self.index
            .insert_unique(self.hasher.hash_one(name), id, hash_of);
        LevelId(id)
    }

    fn release(&mut self, id: LevelId) {
        let Some((name, uses)) = self.names.get_mut(id.0) else {
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
        self.names.remove(id.0, (ShortText::default(), 0));
    }
}
