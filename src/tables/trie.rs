//! Longest prefix match over keys of any width: a poptrie (Asai and Ohara, SIGCOMM 2015) with path compression, for
//! [`RouteTable`](super::RouteTable).
//!
//! A node reads six bits of the key, which choose one of 64 slots. A slot is a child or a leaf; both kinds lie packed in arrays,
//! found by counting the bits below the slot in a 64-bit map:
//!
//! ```text
//! children  bit s: slot s is a child          its node:  first_child + ones of children below s
//! runs      bit s: a run of equal leaves      its leaf:  first_leaf  + ones of runs up to s, less 1
//!           starts at slot s
//! ```
//!
//! Plain poptries pay a node for every six bits of a lonely /128. Here a node starts at the first bit in which its prefixes differ or
//! one of them ends, and a prefix alone in its slot is a leaf at once, so there are fewer nodes than prefixes whatever their lengths:
//! the subnets of a 10.255.0.0/16 overlay are two nodes deep. The bits in between go unread on the way down, so a leaf is a candidate only:
//! - If no prefix covers the leaf's region, none covers the key. A prefix that covers the key either ends before the first unread
//!   bit that differs, and then covers the region too, or would have made a node that reads this bit.
//! - For the same reason the answer is the candidate or one of the prefixes that cover it; each entry links to the next of these.

use std::fmt::Debug;
use std::ops::Range;

/// Bits that a node reads.
const STRIDE: u8 = 6;
/// Slots of a node, one bit each in its maps.
const SLOTS: usize = 1 << STRIDE;
const _: () = assert!(SLOTS == u64::BITS as usize);
/// No prefix: a leaf that nothing covers, an entry that no other covers.
const NONE: u32 = u32::MAX;
/// There are at most three leaves for a prefix (two where it begins and ends, one for each node), and all indices are 32 bits wide.
const MAX_PREFIXES: usize = 1 << 30;
const _: () = assert!(3 * MAX_PREFIXES < NONE as usize);
/// Two nodes share a cache line and none straddles two.
const _: () = assert!(size_of::<Node>() == 32);

/// An address as an integer, its first bit the highest.
pub(super) trait Key: Copy + Ord + Debug {
    /// Its width.
    const WIDTH: u8;
    /// The `STRIDE` bits from bit `offset` on; `offset` is at most `WIDTH - STRIDE`.
    fn slot(self, offset: u8) -> usize;
    /// How many leading bits are those of `other`.
    fn common_bits(self, other: Self) -> u8;
}

impl Key for u32 {
    const WIDTH: u8 = 32;

    fn slot(self, offset: u8) -> usize {
        (self << offset >> (Self::WIDTH - STRIDE)) as usize
    }

    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }
}

impl Key for u128 {
    const WIDTH: u8 = 128;

    fn slot(self, offset: u8) -> usize {
        (self << offset >> (Self::WIDTH - STRIDE)) as usize
    }

    fn common_bits(self, other: Self) -> u8 {
        (self ^ other).leading_zeros() as u8
    }
}

/// An immutable set of prefixes. It knows them by their position in the list it was compiled from.
#[derive(Debug, Default)]
pub(super) struct Trie<K> {
    entries: Box<[Entry<K>]>,
    nodes: Box<[Node]>,
    leaves: Box<[u32]>,
}

/// One prefix.
#[derive(Debug)]
struct Entry<K> {
    bits: K,
    /// The longest of the other prefixes that cover this one, or `NONE`.
    covering: u32,
    length: u8,
}

#[derive(Debug)]
#[repr(align(32))]
struct Node {
    children: u64,
    runs: u64,
    first_child: u32,
    first_leaf: u32,
    /// The first of the bits this node reads.
    offset: u8,
}

impl<K: Key> Trie<K> {
    /// Compiles `(bits, length)` pairs in strictly ascending order, host bits zero.
    ///
    /// # Panics
    /// If there are more than 2^30.
    pub(super) fn from_sorted(prefixes: impl Iterator<Item = (K, u8)>) -> Self {
        let entries = link(prefixes);
        assert!(entries.len() <= MAX_PREFIXES, "too many prefixes");
        let mut compiler = Compiler::new(&entries);
        let nodes = compiler.run();
        let leaves = compiler.leaves.into();
        Self {
            entries,
            nodes,
            leaves,
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
        let Some(mut node) = self.nodes.first() else {
            return NONE;
        };
        loop {
            let slot = key.slot(node.offset);
            if !node.is_child(slot) {
                return self.leaves[node.leaf(slot)];
            }
            node = &self.nodes[node.child(slot)];
        }
    }
}

impl<K: Key> Entry<K> {
    #[inline]
    fn covers(&self, key: K) -> bool {
        self.bits.common_bits(key) >= self.length
    }
}

impl Node {
    #[inline]
    fn is_child(&self, slot: usize) -> bool {
        self.children >> slot & 1 == 1
    }

    #[inline]
    fn child(&self, slot: usize) -> usize {
        let below = self.children & !(u64::MAX << slot);
        self.first_child as usize + below.count_ones() as usize
    }

    /// The first slot that is a leaf starts a run, so one bit is set at least.
    #[inline]
    fn leaf(&self, slot: usize) -> usize {
        let up_to = self.runs & (u64::MAX >> (SLOTS - 1 - slot));
        self.first_leaf as usize + up_to.count_ones() as usize - 1
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
    /// Node `i` is made from subtrie `i`: breadth first, so the children of a node lie side by side.
    subtries: Vec<Subtrie>,
    leaves: Vec<u32>,
}

impl<'a, K: Key> Compiler<'a, K> {
    fn new(entries: &'a [Entry<K>]) -> Self {
        let root = (!entries.is_empty()).then_some(Subtrie {
            entries: 0..entries.len(),
            inherited: NONE,
        });
        Self {
            entries,
            subtries: root.into_iter().collect(),
            leaves: Vec::new(),
        }
    }

    /// Makes all nodes. Ends because a child has fewer entries than its parent, whose offset is where they part.
    fn run(&mut self) -> Box<[Node]> {
        let mut nodes = Vec::new();
        while let Some(subtrie) = self.subtries.get(nodes.len()).cloned() {
            nodes.push(self.node(&subtrie));
        }
        nodes.into()
    }

    fn node(&mut self, subtrie: &Subtrie) -> Node {
        let mut node = Node {
            children: 0,
            runs: 0,
            first_child: self.subtries.len() as u32,
            first_leaf: self.leaves.len() as u32,
            offset: self.offset(&subtrie.entries),
        };
        let mut leaves = [subtrie.inherited; SLOTS];
        let mut entries = subtrie.entries.clone();
        while !entries.is_empty() {
            entries.start = self.place(&entries, &mut node, &mut leaves);
        }
        self.pack(&leaves, &mut node);
        node
    }

    /// The first bit in which the entries differ, or at which one ends. That one is the first of them: it covers the others.
    fn offset(&self, entries: &Range<usize>) -> u8 {
        let (first, last) = (&self.entries[entries.start], &self.entries[entries.end - 1]);
        first
            .bits
            .common_bits(last.bits)
            .min(first.length)
            .min(K::WIDTH - STRIDE)
    }

    /// Places the first of `entries`, with those behind it that share its slot if it reaches below this node. Returns where the rest begins.
    /// Later entries overwrite earlier ones, which are shorter.
    fn place(
        &mut self,
        entries: &Range<usize>,
        node: &mut Node,
        leaves: &mut [u32; SLOTS],
    ) -> usize {
        let first = &self.entries[entries.start];
        let slot = first.bits.slot(node.offset);
        let depth = first.length - node.offset;
        if depth <= STRIDE {
            leaves[slot..slot + (SLOTS >> depth)].fill(entries.start as u32);
            return entries.start + 1;
        }
        let same_slot = |entry: &Entry<K>| entry.bits.slot(node.offset) == slot;
        let end = entries.start + self.entries[entries.clone()].partition_point(same_slot);
        if end == entries.start + 1 {
            leaves[slot] = entries.start as u32;
        } else {
            node.children |= 1 << slot;
            self.subtries.push(Subtrie {
                entries: entries.start..end,
                inherited: leaves[slot],
            });
        }
        end
    }

    /// Keeps one leaf for each run of equal ones; a child neither starts nor ends a run.
    fn pack(&mut self, leaves: &[u32; SLOTS], node: &mut Node) {
        let mut last = None;
        for (slot, &leaf) in leaves.iter().enumerate() {
            if !node.is_child(slot) && last != Some(leaf) {
                node.runs |= 1 << slot;
                self.leaves.push(leaf);
                last = Some(leaf);
            }
        }
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
        prop_assert!(trie.leaves.len() <= 3 * prefixes.len());
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
    fn the_subnets_of_an_overlay_are_two_nodes_deep() {
        let trie = Trie::from_sorted((0..256).map(|i| (0x0aff_0000_u32 | i << 8, 24)));
        assert_eq!(trie.nodes.len(), 1 + 64);
        assert_eq!(trie.nodes[0].offset, 16);
    }
}
