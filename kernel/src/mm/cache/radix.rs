//! A radix tree over page numbers: 64 slots per node, as high as its largest key needs.
//!
//! ```text
//!   height 2        [0]────[1]── ...                 key bits 6..12
//!                    │      │
//!   height 1     [0 .. 63] [0 .. 63]                 key bits 0..6: the values
//! ```
//!
//! No node is empty, and the root of a tree with several levels has more in it than its first slot: the height is the least
//! one. Inserting either allocates all that is missing on the way or changes nothing; removing never allocates.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::mm::reserve::reserve;

/// log2 of the slots of a node.
const BITS: u32 = 6;
/// Slots of a node.
const SLOTS: usize = 1 << BITS;
/// Largest key: as many bits as whole levels have. Pages of an object have 51.
pub const MAX_KEY: u64 = (1 << (10 * BITS)) - 1;

/// Why a value did not get in; it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError<T> {
    /// The key has a value already.
    Exists(T),
    /// No memory for a node.
    OutOfMemory(T),
}

/// Values by key.
#[derive(Debug)]
pub struct RadixTree<T> {
    /// `None` when there are no values.
    root: Option<Node<T>>,
    /// Levels of nodes; 0 when there are no values.
    height: u32,
    len: u64,
}

/// A node. Which of the two it is follows from its height.
#[derive(Debug)]
enum Node<T> {
    Inner(Slots<Node<T>>),
    Leaf(Slots<T>),
}

/// The slots of a node, and which of them are in use.
#[derive(Debug)]
struct Slots<S> {
    used: u64,
    slots: Box<[Option<S>; SLOTS]>,
}

/// No memory for a node.
struct NoMemory;

impl<T> Default for RadixTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> RadixTree<T> {
    /// No values.
    pub const fn new() -> Self {
        Self {
            root: None,
            height: 0,
            len: 0,
        }
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: u64) -> Option<&T> {
        let mut node = self.root.as_ref()?;
        let mut shift = BITS * self.height;
        if key >> shift != 0 {
            return None;
        }
        loop {
            shift -= BITS;
            let index = (key >> shift) as usize % SLOTS;
            match node {
                Node::Leaf(slots) => return slots.get(index),
                Node::Inner(slots) => node = slots.get(index)?,
            }
        }
    }

    /// Whether the tree is high enough for `key`.
    fn reaches(&self, key: u64) -> bool {
        key >> (BITS * self.height) == 0
    }

    /// The slots of `key` and the keys after it, to the end of their node; none where there is no node.
    pub fn tail(&self, key: u64) -> &[Option<T>] {
        let mut node = match &self.root {
            Some(root) if self.reaches(key) => root,
            _ => return &[],
        };
        let mut height = self.height;
        loop {
            match node {
                Node::Leaf(slots) => return &slots.slots[slot(key, height)..],
                Node::Inner(slots) => match slots.get(slot(key, height)) {
                    Some(below) => node = below,
                    None => return &[],
                },
            }
            height -= 1;
        }
    }

    /// The first value whose key is at least `key`, and that key.
    pub fn first_from(&self, key: u64) -> Option<(u64, &T)> {
        if !self.reaches(key) {
            return None;
        }
        self.root.as_ref()?.first_from(key, self.height)
    }

    /// Gives `key` a value.
    ///
    /// # Errors
    /// See [`InsertError`]; nothing changed then.
    ///
    /// # Panics
    /// The key is above [`MAX_KEY`].
    pub fn insert(&mut self, key: u64, value: T) -> Result<(), InsertError<T>> {
        assert!(key <= MAX_KEY, "key {key:#x} in a tree for page numbers");
        let mut value = Some(value);
        let outcome = self.put(key, &mut value);
        match (value, outcome) {
            (None, _) => {
                self.len += 1;
                Ok(())
            }
            (Some(value), Ok(())) => Err(InsertError::Exists(value)),
            (Some(value), Err(NoMemory)) => {
                self.shrink();
                Err(InsertError::OutOfMemory(value))
            }
        }
    }

    /// Takes the value of `key` out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        if !self.reaches(key) {
            return None;
        }
        let value = self.root.as_mut()?.remove(key, self.height)?;
        self.len -= 1;
        self.shrink();
        Some(value)
    }

    /// Takes the value out of `value` unless the key has one already.
    fn put(&mut self, key: u64, value: &mut Option<T>) -> Result<(), NoMemory> {
        let height = height_for(key);
        let Some(root) = &mut self.root else {
            self.root = Some(Node::path(key, height, value)?);
            self.height = height;
            return Ok(());
        };
        if height <= self.height {
            return root.put(key, self.height, value);
        }
        while self.height < height {
            let root = Slots::with(0, || self.root.take().ok_or(NoMemory))?;
            self.root = Some(Node::Inner(root));
            self.height += 1;
        }
        self.put(key, value)
    }

    /// Drops a root that is empty, and those that only lead to their first slot.
    fn shrink(&mut self) {
        while let Some(root) = &mut self.root {
            match root {
                Node::Inner(slots) if slots.used == 1 => self.root = slots.clear(0),
                _ if root.is_empty() => self.root = None,
                _ => return,
            }
            self.height -= 1;
        }
        self.height = 0;
    }
}

impl<T> Node<T> {
    /// Nodes from `height` down to a leaf with one value in it.
    fn path(key: u64, height: u32, value: &mut Option<T>) -> Result<Self, NoMemory> {
        let index = slot(key, height);
        Ok(if height == 1 {
            Self::Leaf(Slots::with(index, || value.take().ok_or(NoMemory))?)
        } else {
            Self::Inner(Slots::with(index, || Self::path(key, height - 1, value))?)
        })
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Inner(slots) => slots.used == 0,
            Self::Leaf(slots) => slots.used == 0,
        }
    }

    /// The first value whose key is at least `key`, of keys that are the same above this node.
    fn first_from(&self, mut key: u64, height: u32) -> Option<(u64, &T)> {
        loop {
            let first = slot(key, height);
            let index = match self {
                Self::Inner(slots) => slots.first_from(first)?,
                Self::Leaf(slots) => slots.first_from(first)?,
            };
            if index > first {
                key = start_of(key, index, height);
            }
            match self {
                Self::Leaf(slots) => return Some((key, slots.get(index)?)),
                Self::Inner(slots) => {
                    if let Some(found) = slots.get(index)?.first_from(key, height - 1) {
                        return Some(found);
                    }
                }
            }
            if index + 1 == SLOTS {
                return None;
            }
            key = start_of(key, index + 1, height);
        }
    }

    fn put(&mut self, key: u64, height: u32, value: &mut Option<T>) -> Result<(), NoMemory> {
        let index = slot(key, height);
        match self {
            Self::Inner(slots) => match &mut slots.slots[index] {
                Some(below) => below.put(key, height - 1, value)?,
                None => slots.set(index, Self::path(key, height - 1, value)?),
            },
            Self::Leaf(slots) => {
                if slots.get(index).is_none() {
                    slots.set(index, value.take().ok_or(NoMemory)?);
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: u64, height: u32) -> Option<T> {
        let index = slot(key, height);
        match self {
            Self::Inner(slots) => {
                let below = slots.slots[index].as_mut()?;
                let value = below.remove(key, height - 1);
                if below.is_empty() {
                    slots.clear(index);
                }
                value
            }
            Self::Leaf(slots) => slots.clear(index),
        }
    }
}

impl<S> Slots<S> {
    /// A node with one slot in use: what `make` gives, which is asked when the node itself is there.
    fn with(index: usize, make: impl FnOnce() -> Result<S, NoMemory>) -> Result<Self, NoMemory> {
        let mut slots = Vec::new();
        reserve(&mut slots, SLOTS).map_err(|_| NoMemory)?;
        slots.resize_with(SLOTS, || None);
        let slots = Box::try_from(slots).map_err(|_| NoMemory)?;
        let mut node = Self { used: 0, slots };
        node.set(index, make()?);
        Ok(node)
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&S> {
        self.slots[index].as_ref()
    }

    fn set(&mut self, index: usize, content: S) {
        self.used |= 1 << index;
        self.slots[index] = Some(content);
    }

    fn clear(&mut self, index: usize) -> Option<S> {
        self.used &= !(1 << index);
        self.slots[index].take()
    }

    /// The first slot in use from `index` on.
    fn first_from(&self, index: usize) -> Option<usize> {
        let rest = self.used & (u64::MAX << index);
        (rest != 0).then(|| rest.trailing_zeros() as usize)
    }
}

/// The least height of a tree with this key.
fn height_for(key: u64) -> u32 {
    (u64::BITS - key.leading_zeros()).div_ceil(BITS).max(1)
}

/// The slot of `key` in a node of this height.
fn slot(key: u64, height: u32) -> usize {
    (key >> (BITS * (height - 1))) as usize % SLOTS
}

/// The first key under slot `index` of the node of this height that `key` leads through.
fn start_of(key: u64, index: usize, height: u32) -> u64 {
    let node = key >> (BITS * height) << BITS;
    (node | index as u64) << (BITS * (height - 1))
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::arch::host::{Config, Running, SoftMachine};
    use crate::mm::frame;

    /// Whether nodes may be had is asked of the machine's allocator.
    fn machine() -> Running {
        SoftMachine::start(Config { memory: 1 << 20 })
    }

    /// What the module header promises of every node; returns the number of values.
    fn check<T>(node: &Node<T>, height: u32) -> u64 {
        assert!(!node.is_empty(), "an empty node at height {height}");
        match node {
            Node::Inner(slots) => {
                assert!(height > 1, "an inner node where leaves are");
                let below = slots.slots.iter().enumerate();
                below
                    .map(|(index, below)| {
                        assert_eq!(slots.used >> index & 1 == 1, below.is_some());
                        below.as_ref().map_or(0, |below| check(below, height - 1))
                    })
                    .sum()
            }
            Node::Leaf(slots) => {
                assert_eq!(height, 1, "a leaf where inner nodes are");
                let used = slots.slots.iter().enumerate();
                used.for_each(|(index, slot)| assert_eq!(slots.used >> index & 1 == 1, slot.is_some()));
                slots.used.count_ones().into()
            }
        }
    }

    fn check_tree<T>(tree: &RadixTree<T>, model: &BTreeMap<u64, T>) {
        let least = model.last_key_value().map_or(0, |(last, _)| height_for(*last));
        assert_eq!(tree.height, least);
        assert_eq!(tree.root.is_some(), least > 0);
        let values = tree.root.as_ref().map_or(0, |root| check(root, tree.height));
        assert_eq!((values, tree.len()), (model.len() as u64, model.len() as u64));
    }

    fn all(tree: &RadixTree<u32>) -> Vec<(u64, u32)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((key, value)) = tree.first_from(at) {
            found.push((key, *value));
            at = key + 1;
        }
        found
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(u64),
        FirstFrom(u64),
        /// Inserts while memory lasts for so many nodes only.
        InsertWithNodes(u64, u64),
    }

    /// Keys that are neighbours, that share nodes, and that need very different heights.
    fn keys() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0..200_u64,
            2 => (0..9_u32, 0..64_u64).prop_map(|(level, slot)| slot << (level * BITS)),
            2 => (0..10_u32, 0..3_u64).prop_map(|(level, less)| (1 << (level * BITS + BITS)) - 1 - less),
            1 => 0..=MAX_KEY,
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => keys().prop_map(Step::Insert),
            4 => keys().prop_map(Step::Remove),
            1 => keys().prop_map(Step::FirstFrom),
            2 => (keys(), 0..6_u64).prop_map(|(key, nodes)| Step::InsertWithNodes(key, nodes)),
        ];
        proptest::collection::vec(step, 1..120)
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_map_and_keeps_its_shape(steps in steps()) {
            let _machine = machine();
            let mut tree = RadixTree::new();
            let mut model = BTreeMap::new();
            for (value, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(key) => {
                        let exists = Err(InsertError::Exists(value));
                        let expected = if model.contains_key(&key) { exists } else { Ok(()) };
                        prop_assert_eq!(tree.insert(key, value), expected);
                        model.entry(key).or_insert(value);
                    }
                    Step::InsertWithNodes(key, nodes) => {
                        frame::allocator().inject_failure(nodes);
                        let outcome = tree.insert(key, value);
                        frame::allocator().stop_injection();
                        match outcome {
                            Ok(()) => prop_assert_eq!(model.insert(key, value), None),
                            Err(InsertError::Exists(_)) => prop_assert!(model.contains_key(&key)),
                            Err(InsertError::OutOfMemory(back)) => prop_assert_eq!(back, value),
                        }
                    }
                    Step::Remove(key) => prop_assert_eq!(tree.remove(key), model.remove(&key)),
                    Step::FirstFrom(key) => {
                        let expected = model.range(key..).next();
                        prop_assert_eq!(tree.first_from(key), expected.map(|(key, value)| (*key, value)));
                        prop_assert_eq!(tree.get(key), model.get(&key));
                        let tail = tree.tail(key);
                        let to_the_end = SLOTS - slot(key, 1);
                        prop_assert!(tail.is_empty() || tail.len() == to_the_end);
                        for (value, key) in tail.iter().zip(key..) {
                            prop_assert_eq!(value.as_ref(), model.get(&key));
                        }
                        // No node, no values.
                        let in_node = model.range(key..key + to_the_end as u64).next();
                        prop_assert!(!tail.is_empty() || in_node.is_none());
                    }
                }
                check_tree(&tree, &model);
            }
            prop_assert_eq!(all(&tree), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_height_is_the_least_that_holds_the_largest_key() {
        let _machine = machine();
        let mut tree = RadixTree::new();
        for (key, height) in [(0, 1), (63, 1), (64, 2), (4095, 2), (4096, 3), (MAX_KEY, 10)] {
            assert_eq!(tree.insert(key, ()), Ok(()));
            assert_eq!(tree.height, height);
        }
        for (key, height) in [(MAX_KEY, 3), (4096, 2), (4095, 2), (64, 1), (63, 1), (0, 0)] {
            assert_eq!(tree.remove(key), Some(()));
            assert_eq!(tree.height, height);
        }
        assert!(tree.root.is_none());
    }

    #[test]
    fn a_value_that_finds_no_memory_comes_back_and_leaves_no_nodes() {
        let _machine = machine();
        let mut tree = RadixTree::new();
        assert_eq!(tree.insert(5, 'a'), Ok(()));
        // Two levels on top, two nodes below: any of them may be the one that is missing.
        for nodes in 0..4 {
            frame::allocator().inject_failure(nodes);
            assert_eq!(tree.insert(5000, 'b'), Err(InsertError::OutOfMemory('b')));
            frame::allocator().stop_injection();
            check_tree(&tree, &BTreeMap::from([(5, 'a')]));
        }
        frame::allocator().inject_failure(4);
        assert_eq!(tree.insert(5000, 'b'), Ok(()));
        frame::allocator().stop_injection();
        assert_eq!(tree.first_from(6), Some((5000, &'b')));
    }

    #[test]
    #[should_panic(expected = "a tree for page numbers")]
    fn a_key_that_no_page_has_is_refused() {
        let _machine = machine();
        let _never = RadixTree::new().insert(MAX_KEY + 1, ());
    }
}
