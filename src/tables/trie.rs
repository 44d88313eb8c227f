//! Longest prefix match over keys of any width: a trie with path and level compression (Nilsson and Karlsson, "IP-address lookup using
//! LC-tries", 1999), for [`RouteTable`](super::RouteTable).
//!
//! A node reads as many bits of the key as it has a slot for each value of, eight slots for each of its prefixes at most. A slot is a
//! child or a leaf:
//!
//! ```text
//! node    { shift, mask, first_slot }
//! slots   ... | leaf | leaf | child | leaf | ...        slot = first_slot + (key >> shift & mask)
//!                                |
//! nodes             ... | { shift, mask, first_slot } | ...
//! ```
//!
//! So the tenth of a large overlay's subnets and ten of a small one's are as far from the root, mostly one node, and no step counts bits,
//! for which the baseline x86-64 has no instruction.
//!
//! A node starts at the first bit in which its prefixes differ, those aside that cover all others; a prefix alone in its slot is a leaf
//! at once. So there are fewer nodes than prefixes whatever their lengths. The bits in between go unread on the way down, so a leaf is a
//! candidate only: the answer is the candidate or one of the prefixes that cover it, to the next of which each entry links. For let Q be
//! the answer. If Q had a bit that differs from the candidate's, no node on the way read it, for there the key, which agrees with Q, went
//! with the candidate. So the bit went unread before some node that has both below it: but that one starts at the first bit in which its
//! prefixes differ, unless Q covers them all. Hence Q covers the candidate.

use std::fmt::Debug;
use std::ops::Range;

/// Slots for each prefix of a node, at most. More of them make look-ups shorter, until the slots outgrow the cache.
const SLOTS_PER_PREFIX: usize = 8;
/// The highest bit of a slot: the rest is a child's number, not a leaf's.
const CHILD: u32 = 1 << 31;
/// No prefix: a leaf that nothing covers, an entry that no other covers.
const NONE: u32 = CHILD - 1;
/// Two prefixes make a node of four bits unless all its prefixes end in fewer, so nothing is deeper than 32 nodes, and no level has more
/// slots than `SLOTS_PER_PREFIX` for each prefix: all of them have 32-bit numbers.
const MAX_PREFIXES: usize = 1 << 23;
const _: () = assert!(32 * SLOTS_PER_PREFIX * MAX_PREFIXES <= 1 << 31);
const _: () = assert!((2 * SLOTS_PER_PREFIX).ilog2() * 32 == u128::BITS);

/// An address as an integer, its first bit the highest.
pub(super) trait Key: Copy + Ord + Debug {
    /// Its width.
    const WIDTH: u8;
    /// The bits that `mask` leaves of the key shifted right by `shift`, less than `WIDTH`.
    fn slot(self, shift: u8, mask: u32) -> u32;
    /// How many leading bits are those of `other`.
    fn common_bits(self, other: Self) -> u8;
    /// True if the leading `length` bits, `WIDTH` at most, are those of `other`.
    fn shares(self, other: Self, length: u8) -> bool;
}

impl Key for u32 {
    const WIDTH: u8 = 32;

    #[inline]
    fn slot(self, shift: u8, mask: u32) -> u32 {
        self >> shift & mask
    }

    #[inline]
    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }

    #[inline]
    fn shares(self, other: Self, length: u8) -> bool {
        u64::from(self ^ other) >> (Self::WIDTH - length) == 0
    }
}

impl Key for u128 {
    const WIDTH: u8 = 128;

    #[inline]
    fn slot(self, shift: u8, mask: u32) -> u32 {
        (self >> shift) as u32 & mask
    }

    #[inline]
    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }

    #[inline]
    fn shares(self, other: Self, length: u8) -> bool {
        self.common_bits(other) >= length
    }
}

/// An immutable set of prefixes. It knows them by their position in the list it was compiled from.
#[derive(Debug)]
pub(super) struct Trie<K> {
    entries: Box<[Entry<K>]>,
    root: Node,
    nodes: Box<[Node]>,
    /// An entry's number, `NONE`, or `CHILD` and a node's number.
    slots: Box<[u32]>,
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
struct Node {
    first_slot: u32,
    /// As many ones as the node reads bits.
    mask: u32,
    /// How many bits stand behind those.
    shift: u8,
}

impl Node {
    #[inline]
    fn slot<K: Key>(self, key: K) -> usize {
        (self.first_slot + key.slot(self.shift, self.mask)) as usize
    }
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
            entries,
            root: nodes[0],
            nodes: nodes.into(),
            slots: slots.into(),
        }
    }

    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The position of the longest prefix that covers `key`. The candidate, unless an unread bit differs: then at most `K::WIDTH` steps more.
    #[inline]
    pub(super) fn lookup(&self, key: K) -> Option<usize> {
        let mut index = self.candidate(key);
        while index != NONE {
            let entry = &self.entries[index as usize];
            if entry.covers(key) {
                return Some(index as usize);
            }
            index = entry.covering;
        }
        None
    }

    /// The leaf that `key` leads to. Ends because a child reads later bits than its parent.
    #[inline]
    fn candidate(&self, key: K) -> u32 {
        let mut node = &self.root;
        loop {
            let slot = self.slots[node.slot(key)];
            if slot & CHILD == 0 {
                return slot;
            }
            node = &self.nodes[(slot & !CHILD) as usize];
        }
    }
}

impl<K: Key> Entry<K> {
    #[inline]
    fn covers(&self, key: K) -> bool {
        self.bits.shares(key, self.length)
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

/// The entries below one node, and the prefix that covers the rest of its region.
#[derive(Clone)]
struct Subtrie {
    entries: Range<usize>,
    inherited: u32,
}

struct Compiler<'a, K> {
    entries: &'a [Entry<K>],
    /// Node `i` is made from subtrie `i`.
    subtries: Vec<Subtrie>,
    nodes: Vec<Node>,
    slots: Vec<u32>,
}

impl<'a, K: Key> Compiler<'a, K> {
    fn new(entries: &'a [Entry<K>]) -> Self {
        let root = Subtrie {
            entries: 0..entries.len(),
            inherited: NONE,
        };
        Self {
            entries,
            subtries: vec![root],
            nodes: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Makes all nodes. Ends because a child has fewer entries than its parent, whose offset is where they part.
    fn run(&mut self) {
        while let Some(subtrie) = self.subtries.get(self.nodes.len()).cloned() {
            let node = self.node(subtrie);
            self.nodes.push(node);
        }
    }

    fn node(&mut self, mut subtrie: Subtrie) -> Node {
        self.strip(&mut subtrie);
        let Subtrie {
            mut entries,
            inherited,
        } = subtrie;
        let (offset, bits) = self.extent(&entries);
        let node = Node {
            first_slot: self.slots.len() as u32,
            mask: (1 << bits) - 1,
            shift: K::WIDTH - offset - bits,
        };
        self.slots.resize(self.slots.len() + (1 << bits), inherited);
        while !entries.is_empty() {
            entries.start = self.place(&entries, node);
        }
        node
    }

    /// Takes the entries out that cover all others: no bit tells them from those.
    fn strip(&self, subtrie: &mut Subtrie) {
        let Range { start, end } = &mut subtrie.entries;
        while *start + 1 < *end && self.entries[*start].covers(self.entries[*end - 1].bits) {
            subtrie.inherited = *start as u32;
            *start += 1;
        }
    }

    /// The first bit that a node with `entries` reads, and how many: from the first in which they differ to the end of the longest, if
    /// they are not too many slots.
    fn extent(&self, entries: &Range<usize>) -> (u8, u8) {
        let [first, .., last] = &self.entries[entries.clone()] else {
            // None or a single one: a slot or two will do.
            return (0, 1);
        };
        let offset = first.bits.common_bits(last.bits);
        let lengths = self.entries[entries.clone()].iter().map(|e| e.length);
        let longest = lengths.max().unwrap_or(K::WIDTH);
        let affordable = (SLOTS_PER_PREFIX * entries.len()).ilog2() as u8;
        (offset, affordable.min(longest - offset))
    }

    /// Places the first of `entries`, with those behind it that share its slot if it reaches below the node. Returns where the rest begins.
    /// Later entries overwrite earlier ones, which are shorter.
    fn place(&mut self, entries: &Range<usize>, node: Node) -> usize {
        let first = &self.entries[entries.start];
        let slot = node.slot(first.bits);
        let end = K::WIDTH - node.shift;
        if first.length <= end {
            let covered = 1 << (end - first.length);
            self.slots[slot..slot + covered].fill(entries.start as u32);
            return entries.start + 1;
        }
        let behind = &self.entries[entries.start + 1..entries.end];
        let same_slot = behind
            .iter()
            .take_while(|entry| node.slot(entry.bits) == slot)
            .count();
        let below = entries.start..entries.start + 1 + same_slot;
        self.slots[slot] = match same_slot {
            0 => entries.start as u32,
            _ => CHILD | self.child(below.clone(), self.slots[slot]),
        };
        below.end
    }

    /// The number of a node to be made.
    fn child(&mut self, entries: Range<usize>, inherited: u32) -> u32 {
        self.subtries.push(Subtrie { entries, inherited });
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
