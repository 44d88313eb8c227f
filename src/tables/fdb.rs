//! The forwarding database: a MAC to the VTEPs that a frame for it goes to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Local, Peer, PeerTable};
use crate::wire::{MacAddr, Vni};

/// One entry, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The inner destination; zero: frames without an entry of their own.
    pub mac: MacAddr,
    /// The VTEP's underlay address.
    pub underlay: IpAddr,
    /// Its UDP port; `None`: the device's.
    pub port: Option<u16>,
    /// The VNI to send with; `None` or 0: the device's.
    pub vni: Option<Vni>,
}

/// Where one copy of a frame goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Underlay address and UDP port.
    pub underlay: SocketAddr,
    /// The VNI in the header.
    pub vni: Vni,
    /// Whom we talk to, with their counters.
    pub peer: Arc<Peer>,
}

/// All entries.
#[derive(Debug, Default)]
pub struct Fdb {
    /// A MAC, as [`key`] makes it, to its part of `destinations`.
    spans: FxHashMap<u64, Span>,
    destinations: Box<[Destination]>,
}

/// The destinations of one MAC, at least one, by their place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Fdb {
    /// Compiles the database, destinations of one MAC in the order given. `peers` was made from the same entries.
    ///
    /// A unicast MAC has one destination, the last given; the zero MAC and multicast MACs keep all that differ, as in the kernel
    /// (`vxlan_fdb_update`).
    ///
    /// # Panics
    /// If `peers` lacks an underlay address of `entries`.
    #[must_use]
    pub fn from_entries(entries: &[FdbEntry], local: &Local, peers: &PeerTable) -> Self {
        let mut entries: Vec<&FdbEntry> = entries.iter().collect();
        // Stable: the order among the destinations of one MAC stays.
        entries.sort_by_key(|entry| entry.mac);
        let mut destinations = Vec::with_capacity(entries.len());
        let mut spans = FxHashMap::default();
        for of_mac in entries.chunk_by(|a, b| a.mac == b.mac) {
            let mac = of_mac[0].mac;
            let start = destinations.len() as u32;
            let kept = match of_mac {
                [.., last] if !replicates(mac) => std::slice::from_ref(last),
                all => all,
            };
            let resolved = kept.iter().map(|entry| destination(entry, local, peers));
            destinations.extend(distinct(resolved));
            let end = destinations.len() as u32;
            spans.insert(key(mac), Span { start, end });
        }
        Self {
            spans,
            destinations: destinations.into(),
        }
    }

    /// The destinations of exactly `mac`, the zero MAC included; empty if there is no entry.
    #[must_use]
    pub fn lookup(&self, mac: MacAddr) -> &[Destination] {
        match self.span(mac) {
            Some(span) => self.at(span),
            None => &[],
        }
    }

    /// Where the destinations of exactly `mac` are, if there are any.
    pub(super) fn span(&self, mac: MacAddr) -> Option<Span> {
        self.spans.get(&key(mac)).copied()
    }

    /// The destinations at `span`, which is this table's.
    #[inline]
    pub(super) fn at(&self, span: Span) -> &[Destination] {
        &self.destinations[span.start as usize..span.end as usize]
    }

    /// How many (MAC, destination) pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.destinations.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty()
    }
}

/// One integer hashes in fewer steps than six octets.
fn key(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.octets();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// True if a frame for `mac` goes to all its destinations, a copy each.
fn replicates(mac: MacAddr) -> bool {
    mac.is_zero() || mac.is_multicast()
}

fn destination(entry: &FdbEntry, local: &Local, peers: &PeerTable) -> Destination {
    let peer = peers
        .lookup(entry.underlay)
        .expect("the caller made `peers` from these entries");
    Destination {
        underlay: SocketAddr::new(entry.underlay, entry.port.unwrap_or(local.port)),
        // An entry's VNI of 0 is none, as for `vxlan_xmit_one`.
        vni: entry
            .vni
            .filter(|vni| vni.value() != 0)
            .unwrap_or(local.vni),
        peer: Arc::clone(peer),
    }
}

/// The first of each kind: a peer must not get two copies of a frame because one entry names the device's port and the other leaves it out.
fn distinct(destinations: impl Iterator<Item = Destination>) -> impl Iterator<Item = Destination> {
    let mut seen = FxHashSet::default();
    destinations.filter(move |d| seen.insert((d.underlay, d.vni)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::{CounterRegistry, fixtures::local};

    const UNICAST: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);

    fn entry(mac: MacAddr, underlay: [u8; 4], port: Option<u16>, vni: Option<u32>) -> FdbEntry {
        FdbEntry {
            mac,
            underlay: underlay.into(),
            port,
            vni: vni.map(|vni| Vni::new(vni).unwrap()),
        }
    }

    fn compile(entries: &[FdbEntry]) -> Fdb {
        let peers = PeerTable::from_fdb(entries, &mut CounterRegistry::new(1));
        Fdb::from_entries(entries, &local(), &peers)
    }

    fn shown(destinations: &[Destination]) -> Vec<(SocketAddr, u32)> {
        let shown = |d: &Destination| (d.underlay, d.vni.value());
        destinations.iter().map(shown).collect()
    }

    #[test]
    fn port_and_vni_default_to_the_devices() {
        let fdb = compile(&[
            entry(UNICAST, [10, 0, 16, 14], None, None),
            entry(MacAddr::ZERO, [10, 0, 16, 14], Some(8472), Some(7)),
        ]);
        assert_eq!(
            shown(fdb.lookup(UNICAST)),
            [("10.0.16.14:4789".parse().unwrap(), 1)]
        );
        assert_eq!(
            shown(fdb.lookup(MacAddr::ZERO)),
            [("10.0.16.14:8472".parse().unwrap(), 7)]
        );
        assert_eq!(fdb.len(), 2);
    }

    #[test]
    fn the_later_destination_of_a_unicast_mac_wins() {
        let [a, b] = [[10, 0, 16, 14], [10, 0, 16, 15]];
        let fdb = compile(&[a, b, a].map(|ip| entry(UNICAST, ip, None, None)));
        assert_eq!(
            shown(fdb.lookup(UNICAST)),
            [("10.0.16.14:4789".parse().unwrap(), 1)]
        );
    }

    #[test]
    fn zero_and_broadcast_keep_all_destinations_in_order() {
        for mac in [MacAddr::ZERO, MacAddr::BROADCAST] {
            let fdb = compile(&[
                entry(mac, [10, 0, 16, 15], None, None),
                entry(mac, [10, 0, 16, 14], None, None),
                entry(mac, [10, 0, 16, 15], Some(4789), Some(1)),
                entry(mac, [10, 0, 16, 15], None, Some(2)),
            ]);
            assert_eq!(
                shown(fdb.lookup(mac)),
                [
                    ("10.0.16.15:4789".parse().unwrap(), 1),
                    ("10.0.16.14:4789".parse().unwrap(), 1),
                    ("10.0.16.15:4789".parse().unwrap(), 2),
                ]
            );
        }
    }

    #[test]
    fn an_unknown_mac_never_falls_back_to_the_zero_entry() {
        let fdb = compile(&[entry(MacAddr::ZERO, [10, 0, 16, 14], None, None)]);
        assert!(fdb.lookup(UNICAST).is_empty());
    }

    fn mac(n: u8) -> MacAddr {
        match n {
            0 => MacAddr::ZERO,
            1 => MacAddr::BROADCAST,
            2 => MacAddr::new([1, 0, 0x5e, 0, 0, 1]),
            n => MacAddr::new([2, 0, 0, 0, 0, n]),
        }
    }

    fn any_entry() -> impl Strategy<Value = FdbEntry> {
        let port = prop::option::of(4789_u16..4791);
        let vni = prop::option::of(1_u32..3);
        (0_u8..6, 0_u8..3, port, vni)
            .prop_map(|(n, ip, port, vni)| entry(mac(n), [10, 0, 16, ip], port, vni))
    }

    fn naive(entries: &[FdbEntry], mac: MacAddr) -> Vec<(SocketAddr, u32)> {
        let mut found = Vec::new();
        for entry in entries.iter().filter(|entry| entry.mac == mac) {
            let underlay = SocketAddr::new(entry.underlay, entry.port.unwrap_or(4789));
            let one = (underlay, entry.vni.map_or(1, Vni::value));
            if !mac.is_zero() && !mac.is_multicast() {
                found = vec![one];
            } else if !found.contains(&one) {
                found.push(one);
            }
        }
        found
    }

    proptest! {
        #[test]
        fn answers_as_a_scan_of_the_entries(entries in vec(any_entry(), 0..40)) {
            let fdb = compile(&entries);
            let mut pairs = 0;
            for mac in (0..7).map(mac) {
                let found = fdb.lookup(mac);
                prop_assert_eq!(shown(found), naive(&entries, mac));
                prop_assert!(found.iter().all(|d| d.peer.underlay == d.underlay.ip()));
                pairs += found.len();
            }
            prop_assert_eq!((fdb.len(), fdb.is_empty()), (pairs, entries.is_empty()));
        }
    }
}
