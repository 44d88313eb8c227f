//! Peers: who may speak from which underlay address, and what each said.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::address_map::AddressMap;
use super::{Address, FdbEntry, PathMtu, Segmentation};
use crate::counters::Counters;

/// Another VTEP: an FDB destination, seen from the underlay. Snapshots that have it share it.
#[derive(Debug)]
pub struct Peer {
    /// Its underlay address.
    pub underlay: IpAddr,
    /// Packets to and from it.
    pub counters: Counters,
    /// Whether the host segments what goes to it.
    pub segmentation: Segmentation,
    /// What the underlay carries to it.
    pub path_mtu: PathMtu,
}

/// Peers by underlay address, with what is known of them, kept while snapshots come and go: one counts on from snapshot to snapshot. Who
/// compiles but one snapshot passes `&mut CounterRegistry::new(1)` and forgets it.
#[derive(Debug)]
pub struct CounterRegistry {
    lanes: usize,
    peers: AddressMap<Arc<Peer>>,
}

impl CounterRegistry {
    /// An empty registry that makes counters for `lanes` lanes, as many as will count.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self {
            lanes,
            peers: AddressMap::default(),
        }
    }

    /// Who speaks from `underlay`, made at the first call.
    pub fn peer(&mut self, underlay: IpAddr) -> Arc<Peer> {
        let lanes = self.lanes;
        let make = || {
            Arc::new(Peer {
                underlay,
                counters: Counters::new(lanes),
                segmentation: Segmentation::default(),
                path_mtu: PathMtu::default(),
            })
        };
        Arc::clone(self.peers.or_insert_with(underlay, make))
    }

    /// Forgets the peers that no snapshot has any more, but for those of `keep`.
    pub fn retain(&mut self, keep: &PeerTable) {
        self.peers.retain(|underlay, peer| {
            keep.lookup(underlay).is_some() || Arc::strong_count(peer) > 1
        });
    }
}

/// A peer's number in one [`PeerTable`]; in another it is another peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(NonZeroU32);

/// All peers.
#[derive(Debug, Default)]
pub struct PeerTable {
    ids: AddressMap<PeerId>,
    peers: Vec<Arc<Peer>>,
}

impl PeerId {
    /// Counted from one, so that `Option<PeerId>` is no larger.
    fn of_last(peers: &[Arc<Peer>]) -> Self {
        let number = u32::try_from(peers.len()).ok().and_then(NonZeroU32::new);
        Self(number.expect("there is a last one, and no list of 2^32 fits in memory"))
    }
}

impl PeerTable {
    /// One peer for each underlay address among the destinations.
    #[must_use]
    pub fn from_fdb(entries: &[FdbEntry], registry: &mut CounterRegistry) -> Self {
        let Self { mut ids, mut peers } = Self::default();
        for &FdbEntry { underlay, .. } in entries {
            ids.or_insert_with(underlay, || {
                peers.push(registry.peer(underlay));
                PeerId::of_last(&peers)
            });
        }
        Self { ids, peers }
    }

    /// Who speaks from `underlay`.
    #[must_use]
    pub fn lookup(&self, underlay: impl Address) -> Option<&Arc<Peer>> {
        self.find(underlay).map(|id| self.at(id))
    }

    /// The number of who speaks from `underlay`.
    #[must_use]
    #[inline]
    pub fn find(&self, underlay: impl Address) -> Option<PeerId> {
        self.ids.lookup(underlay).copied()
    }

    /// The peer that has number `id` in this table.
    ///
    /// # Panics
    /// May panic if `id` is another table's.
    #[must_use]
    #[inline]
    pub fn at(&self, id: PeerId) -> &Arc<Peer> {
        &self.peers[id.0.get() as usize - 1]
    }

    /// All of them, in the order of the FDB entries that name them first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.iter()
    }

    /// How many peers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::MacAddr;

    fn underlay(n: u8) -> IpAddr {
        match n % 2 {
            0 => IpAddr::from([10, 0, 16, n]),
            _ => IpAddr::from([0xfd10, 0, 0, 0, 0, 0, 0, u16::from(n)]),
        }
    }

    fn entry(mac: u8, peer: u8) -> FdbEntry {
        FdbEntry {
            mac: MacAddr::new([0xee, 0xee, 0, 0, 0, mac]),
            underlay: underlay(peer),
            port: None,
            vni: None,
        }
    }

    proptest! {
        #[test]
        fn each_underlay_address_is_one_peer(pairs in vec((0_u8..4, 0_u8..8), 0..20)) {
            let entries: Vec<_> = pairs.iter().map(|&(mac, peer)| entry(mac, peer)).collect();
            let table = PeerTable::from_fdb(&entries, &mut CounterRegistry::new(1));
            let model: BTreeSet<IpAddr> = entries.iter().map(|e| e.underlay).collect();
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.iter().map(|p| p.underlay).collect::<BTreeSet<_>>(), model.clone());
            for address in (0..8).map(underlay) {
                let found = table.lookup(address).map(|p| p.underlay);
                prop_assert_eq!(table.find(address).map(|id| table.at(id).underlay), found);
                prop_assert_eq!(found, model.get(&address).copied());
            }
        }
    }

    #[test]
    fn a_peer_of_the_next_table_counts_on() {
        let mut registry = CounterRegistry::new(2);
        let first = PeerTable::from_fdb(&[entry(1, 1)], &mut registry);
        let counted = |table: &PeerTable| {
            let peer = table.lookup(underlay(1)).unwrap();
            peer.counters.totals().tx_packets
        };
        let peer = first.lookup(underlay(1)).unwrap();
        peer.counters.lane(1).count_tx(1, 100);
        let second = PeerTable::from_fdb(&[entry(1, 1), entry(2, 2)], &mut registry);
        registry.retain(&second);
        assert_eq!(counted(&second), 1);
        peer.counters.lane(0).count_tx(1, 100);
        assert_eq!(counted(&second), 2);
    }

    #[test]
    fn what_was_learned_of_a_path_is_known_to_the_next_table() {
        let mut registry = CounterRegistry::new(1);
        let first = PeerTable::from_fdb(&[entry(1, 1)], &mut registry);
        let peer = |table: &PeerTable| Arc::clone(table.lookup(underlay(1)).unwrap());
        peer(&first).path_mtu.set_limit(Some(1350));
        let second = PeerTable::from_fdb(&[entry(2, 2), entry(1, 1)], &mut registry);
        registry.retain(&second);
        drop(first);
        assert_eq!(peer(&second).path_mtu.limit(), Some(1350));
    }

    #[test]
    fn retain_forgets_what_is_neither_kept_nor_used() {
        let mut registry = CounterRegistry::new(1);
        let old = PeerTable::from_fdb(&[entry(1, 1), entry(2, 2)], &mut registry);
        let new = PeerTable::from_fdb(&[entry(2, 2)], &mut registry);
        let sent = |registry: &mut CounterRegistry| registry.peer(underlay(1)).counters.totals();
        registry.peer(underlay(1)).counters.lane(0).count_tx(1, 100);

        registry.retain(&new);
        assert_eq!(sent(&mut registry).tx_packets, 1, "the old table has it");

        drop(old);
        registry.retain(&new);
        assert_eq!(sent(&mut registry).tx_packets, 0);
    }

    #[test]
    fn retain_keeps_the_counters_of_peers_that_it_is_told_to_keep() {
        let mut registry = CounterRegistry::new(1);
        registry.peer(underlay(1)).counters.lane(0).count_tx(1, 100);
        let keep = PeerTable::from_fdb(&[entry(1, 1)], &mut CounterRegistry::new(1));
        registry.retain(&keep);
        let peer = registry.peer(underlay(1));
        assert_eq!(peer.counters.totals().tx_packets, 1);
    }
}
