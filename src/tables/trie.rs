//! Longest prefix match over keys of any width: a trie with path and level compression (Nilsson and Karlsson, "IP-address lookup using
//! LC-tries", 1999), for [`RouteTable`](super::RouteTable) and [`Policy`](super::Policy).
//!
//! A node reads as many bits of the key as it has a slot for each value of, eight slots for each of its prefixes at most. A slot is a
//! child, a leaf, or a candidate:
//!
//! ```text
//! node    { bits, shift, mask, first_slot, .. }         number = (key ^ bits) >> shift, at most mask
//! slots   ... | leaf | candidate | child | leaf | ...   slot = first_slot + number
//!                                     |
//! nodes                  ... | { bits, shift, mask, first_slot, .. } | ...
//! ```
//!
//! So the tenth of a large overlay's subnets and ten of a small one's are as far from the root, mostly one node, and no step counts bits,
//! for which the baseline x86-64 has no instruction.
//!
//! A node starts at the first bit in which its prefixes differ, those aside that cover all others; so there are fewer nodes than prefixes
//! whatever their lengths. The bits before are those that its prefixes have in common, `bits`: a key that has others gives too large a
//! number, and its answer is the node's `outside` or one of the prefixes that cover that, to the next of which each entry links. A
//! candidate is a prefix alone in its slot that reaches below the node: the answer is it or one of those that cover it.

use std::fmt::Debug;
use std::ops::Range;

/// Slots for each prefix of a node, at most. More of them make look-ups shorter, until the slots outgrow the cache.
const SLOTS_PER_PREFIX: usize = 8;
/// The highest bit of a slot: the rest is a child's number, not an entry's.
const CHILD: u32 = 1 << 31;
/// The next bit: the entry is a candidate, not a leaf.
const CANDIDATE: u32 = 1 << 30;
/// No prefix: a leaf that nothing covers, an entry that no other covers.
const NONE: u32 = CANDIDATE - 1;
/// Two prefixes make a node of four bits unless all its prefixes end in fewer, so no more than 32 nodes are above each other, and no level
/// has more slots than `SLOTS_PER_PREFIX` for each prefix: all slots have 32-bit numbers.
const MAX_PREFIXES: usize = 1 << 23;
const _: () = assert!(32 * SLOTS_PER_PREFIX * MAX_PREFIXES <= u32::MAX as usize);
const _: () = assert!(MAX_PREFIXES < NONE as usize);
const _: () = assert!((2 * SLOTS_PER_PREFIX).ilog2() * 32 == u128::BITS);

/// An address as an integer, its first bit the highest.
pub(super) trait Key: Copy + Ord + Debug + Default {
    /// Its width.
    const WIDTH: u8;
    /// The number that is left of the bits in which this differs from `other` after `shift` of them are cut off behind, less than
    /// `WIDTH`; `u32::MAX` at the most.
    fn differing(self, other: Self, shift: u8) -> u32;
    /// How many leading bits are those of `other`.
    fn common_bits(self, other: Self) -> u8;
    /// The leading `length` bits, then zeros.
    fn prefix(self, length: u8) -> Self;
}

impl Key for u32 {
    const WIDTH: u8 = 32;

    #[inline]
    fn differing(self, other: Self, shift: u8) -> u32 {
        (self ^ other) >> shift
    }

    #[inline]
    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }

    fn prefix(self, length: u8) -> Self {
        let host_bits = (Self::WIDTH - length).into();
        self & Self::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

impl Key for u128 {
    const WIDTH: u8 = 128;

    #[inline]
    fn differing(self, other: Self, shift: u8) -> u32 {
        u32::try_from((self ^ other) >> shift).unwrap_or(u32::MAX)
    }

    #[inline]
    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }

    fn prefix(self, length: u8) -> Self {
        let host_bits = (Self::WIDTH - length).into();
        self & Self::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

/// An immutable set of prefixes. It knows them by their position in the list it was compiled from.
#[derive(Debug)]
pub(super) struct Trie<K> {
    root: Node<K>,
    /// An entry's number or `NONE`, `CANDIDATE` and an entry's number, or `CHILD` and a node's.
    slots: Box<[u32]>,
    nodes: Box<[Node<K>]>,
    entries: Box<[Entry<K>]>,
}

/// One prefix.
#[derive(Debug)]
struct Entry<K> {
    bits: K,
    /// The longest of the other prefixes that cover this one, or `NONE`.
    covering: u32,
    length: u8,
}

#[derive(Clone, Copy, Debug)]
struct Node<K> {
    /// What all prefixes below have in common, then zeros.
    bits: K,
    /// How many bits of the key stand behind those that this node reads.
    shift: u8,
    /// As many ones as it reads bits.
    mask: u32,
    first_slot: u32,
    /// The longest prefix that covers all below, or `NONE`.
    outside: u32,
}

impl<K: Key> Default for Trie<K> {
    fn default() -> Self {
        Self::from_sorted(std::iter::empty())
    }
}

impl<K: Key> Trie<K> {
    /// Compiles `(bits, length)` pairs in strictly ascending order, host bits zero.
    ///
    /// # Panics
    /// If there are more than 2^23.
    pub(super) fn from_sorted(prefixes: impl Iterator<Item = (K, u8)>) -> Self {
        let entries = link(prefixes);
        assert!(entries.len() <= MAX_PREFIXES, "too many prefixes");
        let mut compiler = Compiler::new(&entries);
        compiler.run();
        let (nodes, slots) = (compiler.nodes, compiler.slots);
        Self {
            root: nodes[0],
            slots: slots.into(),
            nodes: nodes.into(),
            entries,
        }
    }

    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The position of the longest prefix that covers `key`. Ends because a child reads later bits than its parent.
    #[inline]
    pub(super) fn lookup(&self, key: K) -> Option<usize> {
        let mut node = &self.root;
        loop {
            let number = key.differing(node.bits, node.shift);
            if number > node.mask {
                return self.covering(node.outside, key);
            }
            let slot = self.slots[(node.first_slot + number) as usize];
            if slot & CHILD == 0 {
                return match slot & CANDIDATE {
                    0 => (slot != NONE).then_some(slot as usize),
                    _ => self.covering(slot & !CANDIDATE, key),
                };
            }
            node = &self.nodes[(slot & !CHILD) as usize];
        }
    }

    /// The position of the longest of the other prefixes that cover the one at `position`.
    pub(super) fn around(&self, position: usize) -> Option<usize> {
        let covering = self.entries[position].covering;
        (covering != NONE).then_some(covering as usize)
    }

    /// The first to cover `key` of entry `index` and those that cover it: `K::WIDTH` steps at the most.
    #[inline]
    fn covering(&self, mut index: u32, key: K) -> Option<usize> {
        while index != NONE {
            let entry = &self.entries[index as usize];
            if entry.covers(key) {
                return Some(index as usize);
            }
            index = entry.covering;
        }
        None
    }
}

impl<K: Key> Entry<K> {
    #[inline]
    fn covers(&self, key: K) -> bool {
        self.bits.common_bits(key) >= self.length
    }
}

impl<K: Key> Node<K> {
    /// Where the slot of a key is that agrees with `bits`.
    fn slot(&self, key: K) -> usize {
        (self.first_slot + key.differing(self.bits, self.shift)) as usize
    }

    /// How many leading bits this node and those above it have read.
    fn end(&self) -> u8 {
        K::WIDTH - self.shift
    }
}

/// Entries in the same order, each linked to the one that covers it: the nearest before it that does, for a prefix sorts before all that
/// it covers and after all that cover it.
fn link<K: Key>(prefixes: impl Iterator<Item = (K, u8)>) -> Box<[Entry<K>]> {
    let mut entries: Vec<Entry<K>> = Vec::with_capacity(prefixes.size_hint().0);
    let mut around: Vec<u32> = Vec::with_capacity(K::WIDTH.into());
    for (bits, length) in prefixes {
        debug_assert!(
            entries
                .last()
                .is_none_or(|last| (last.bits, last.length) < (bits, length))
        );
        while around
            .pop_if(|last| !entries[*last as usize].covers(bits))
            .is_some()
        {}
        entries.push(Entry {
            bits,
            covering: around.last().copied().unwrap_or(NONE),
            length,
        });
        around.push((entries.len() - 1) as u32);
    }
    entries.into()
}

/// The entries below one node, and the longest prefix that covers them all.
#[derive(Clone)]
struct Subtrie {
    entries: Range<usize>,
    outside: u32,
}

struct Compiler<'a, K> {
    entries: &'a [Entry<K>],
    /// Node `i` is made from subtrie `i`.
    subtries: Vec<Subtrie>,
    nodes: Vec<Node<K>>,
    slots: Vec<u32>,
}

impl<'a, K: Key> Compiler<'a, K> {
    fn new(entries: &'a [Entry<K>]) -> Self {
        let root = Subtrie {
            entries: 0..entries.len(),
            outside: NONE,
        };
        Self {
            entries,
            subtries: vec![root],
            nodes: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Makes all nodes. Ends because a child has fewer entries than its parent, whose entries differ in the bits that it reads.
    fn run(&mut self) {
        while let Some(subtrie) = self.subtries.get(self.nodes.len()).cloned() {
            let node = self.node(subtrie);
            self.nodes.push(node);
        }
    }

    fn node(&mut self, mut subtrie: Subtrie) -> Node<K> {
        self.strip(&mut subtrie);
        let Subtrie {
            mut entries,
            outside,
        } = subtrie;
        let node = self.extent(&entries, outside);
        let slots = self.slots.len() + node.mask as usize + 1;
        self.slots.resize(slots, outside);
        while !entries.is_empty() {
            entries.start = self.place(&entries, &node);
        }
        node
    }

    /// Takes the entries out that cover all others: no bit tells them from those.
    fn strip(&self, subtrie: &mut Subtrie) {
        let Range { start, end } = &mut subtrie.entries;
        while *start + 1 < *end && self.entries[*start].covers(self.entries[*end - 1].bits) {
            subtrie.outside = *start as u32;
            *start += 1;
        }
    }

    /// A node without slots for `entries`. It reads from the first bit in which they differ to the end of the longest, as far as the
    /// slots are not too many.
    fn extent(&self, entries: &Range<usize>, outside: u32) -> Node<K> {
        let entries = &self.entries[entries.clone()];
        let (bits, offset, affordable) = match entries {
            [] => (K::default(), 0, 0),
            [only] => (only.bits, only.length, 0),
            [first, .., last] => {
                let affordable = (SLOTS_PER_PREFIX * entries.len()).ilog2();
                (first.bits, first.bits.common_bits(last.bits), affordable)
            }
        };
        let longest = entries.iter().map(|entry| entry.length).max();
        let end = (offset + affordable as u8).min(longest.unwrap_or(0));
        // A key has no bit behind the last, so one is read where none would have to be.
        let end = end.max(1);
        Node {
            bits: bits.prefix(offset),
            shift: K::WIDTH - end,
            mask: (1 << (end - offset)) - 1,
            first_slot: self.slots.len() as u32,
            outside,
        }
    }

    /// Places the first of `entries`, with those behind it that share its slot if it reaches below the node. Returns where the rest begins.
    /// Later entries overwrite earlier ones, which are shorter.
    fn place(&mut self, entries: &Range<usize>, node: &Node<K>) -> usize {
        let first = &self.entries[entries.start];
        let slot = node.slot(first.bits);
        if first.length <= node.end() {
            let covered = 1 << (node.end() - first.length);
            self.slots[slot..slot + covered].fill(entries.start as u32);
            return entries.start + 1;
        }
        let mut behind = self.entries[entries.start + 1..entries.end].iter();
        let other_slot = behind.position(|entry| node.slot(entry.bits) != slot);
        let end = other_slot.map_or(entries.end, |count| entries.start + 1 + count);
        self.slots[slot] = match end - entries.start {
            1 => CANDIDATE | entries.start as u32,
            _ => CHILD | self.child(entries.start..end, self.slots[slot]),
        };
        end
    }

    /// The number of a node to be made.
    fn child(&mut self, entries: Range<usize>, outside: u32) -> u32 {
        self.subtries.push(Subtrie { entries, outside });
        (self.subtries.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const TOP: u128 = 1 << 127;

    fn mask(length: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
    }

    /// Bits at the top of a `u128`, for either width: few of them set or clear, so that prefixes nest and neighbour, or any.
    fn key(width: u8) -> impl Strategy<Value = u128> {
        let few = vec(0..width, 0..4).prop_map(|bits| bits.iter().fold(0, |k, b| k | TOP >> b));
        prop_oneof![few.clone(), few.prop_map(|k| !k), any::<u128>()]
            .prop_map(move |k| k & mask(width))
    }

    fn prefixes(width: u8) -> impl Strategy<Value = Vec<(u128, u8)>> {
        vec((key(width), 0..=width), 0..80).prop_map(|list| {
            let truncated = list.into_iter().map(|(bits, n)| (bits & mask(n), n));
            truncated.collect::<BTreeSet<_>>().into_iter().collect()
        })
    }

    fn linear_scan(prefixes: &[(u128, u8)], key: u128) -> Option<usize> {
        let covering = |&i: &usize| key & mask(prefixes[i].1) == prefixes[i].0;
        (0..prefixes.len())
            .filter(covering)
            .max_by_key(|&i| prefixes[i].1)
    }

    /// Where an answer may change: both ends of each prefix and the keys beside them.
    fn edges(prefixes: &[(u128, u8)], width: u8) -> impl Iterator<Item = u128> {
        let one = TOP >> (width - 1);
        prefixes.iter().flat_map(move |&(bits, length)| {
            let last = bits | (!mask(length) & mask(width));
            [bits, last, bits.wrapping_sub(one), last.wrapping_add(one)]
        })
    }

    /// Asks for the edges, for each prefix with each of `flips` inverted, and for `keys`.
    fn check<K: Key>(
        prefixes: &[(u128, u8)],
        flips: &[u8],
        keys: &[u128],
        narrow: impl Fn(u128) -> K,
    ) -> Result<(), TestCaseError> {
        let trie = Trie::from_sorted(prefixes.iter().map(|&(bits, n)| (narrow(bits), n)));
        let flipped = prefixes
            .iter()
            .flat_map(|&(bits, _)| flips.iter().map(move |flip| bits ^ TOP >> flip));
        let keys = keys.iter().copied().chain(edges(prefixes, K::WIDTH));
        for key in keys.chain(flipped) {
            let expected = linear_scan(prefixes, key);
            prop_assert_eq!(trie.lookup(narrow(key)), expected, "{:x}", key);
        }
        prop_assert!(trie.nodes.len() < prefixes.len().max(2));
        let levels = usize::from(K::WIDTH.div_ceil(4));
        prop_assert!(trie.slots.len() <= levels * SLOTS_PER_PREFIX * prefixes.len().max(1));
        Ok(())
    }

    fn v4(key: u128) -> u32 {
        (key >> 96) as u32
    }

    proptest! {
        #[test]
        fn v4_answers_as_a_linear_scan(
            prefixes in prefixes(32),
            flips in vec(0_u8..32, 4),
            keys in vec(key(32), 32),
        ) {
            check(&prefixes, &flips, &keys, v4)?;
        }

        #[test]
        fn v6_answers_as_a_linear_scan(
            prefixes in prefixes(128),
            flips in vec(0_u8..128, 4),
            keys in vec(key(128), 32),
        ) {
            check(&prefixes, &flips, &keys, |key| key)?;
        }

        /// Every length along one path but a few left out, so that some bits are read and some not.
        #[test]
        fn nested_prefixes_answer_as_a_linear_scan(
            path: u128,
            left_out in vec(0_u8..=128, 0..100),
            flips in vec(0_u8..32, 4),
        ) {
            let nested = |width| {
                let lengths = (0..=width).filter(|n| !left_out.contains(n));
                lengths.map(|n| (path & mask(n), n)).collect::<Vec<_>>()
            };
            let strays: Vec<_> = (0..128).map(|bit| path ^ TOP >> bit).collect();
            check(&nested(32), &flips, &strays.iter().map(|k| k & mask(32)).collect::<Vec<_>>(), v4)?;
            check(&nested(128), &flips, &strays, |key| key)?;
        }
    }

    #[test]
    fn an_empty_trie_covers_nothing() {
        let trie = Trie::<u32>::from_sorted(std::iter::empty());
        assert_eq!((trie.lookup(0), trie.len()), (None, 0));
    }

    #[test]
    fn zero_length_covers_everything() {
        let trie = Trie::from_sorted([(0_u128, 0)].into_iter());
        assert_eq!(trie.lookup(0), Some(0));
        assert_eq!(trie.lookup(u128::MAX), Some(0));
    }

    #[test]
    fn full_length_covers_one_key() {
        let trie = Trie::from_sorted([(0x0aff_0101_u32, 32)].into_iter());
        assert_eq!(trie.lookup(0x0aff_0101), Some(0));
        assert_eq!(trie.lookup(0x0aff_0100), None);
        assert_eq!(trie.lookup(0x8aff_0101), None);
    }

    #[test]
    fn the_subnets_of_an_overlay_are_one_node_whatever_covers_them() {
        let around = [(0, 0), (0x0a00_0000, 8)];
        let subnets = (0..256).map(|i| (0x0aff_0000_u32 | i << 8, 24));
        let trie = Trie::from_sorted(around.into_iter().chain(subnets));
        assert_eq!((trie.nodes.len(), trie.slots.len()), (1, 256));
        assert_eq!(trie.lookup(0x0aff_2b06), Some(2 + 0x2b));
        assert_eq!(trie.lookup(0x0afe_2b06), Some(1));
        assert_eq!(trie.lookup(0x0bff_2b06), Some(0));
    }
}
