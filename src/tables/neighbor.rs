//! Neighbours: an overlay address to its MAC. All are permanent.

use std::net::IpAddr;

use super::Address;
use super::address_map::AddressMap;
use crate::wire::MacAddr;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// The overlay address.
    pub address: IpAddr,
    /// Where it is on the overlay link.
    pub mac: MacAddr,
}

/// All neighbours.
#[derive(Debug, Default)]
pub struct NeighborTable(AddressMap<MacAddr>);

impl NeighborTable {
    /// Compiles the table. Of two entries for one address the later wins.
    #[must_use]
    pub fn from_neighbors(neighbors: &[Neighbor]) -> Self {
        Self(neighbors.iter().map(|n| (n.address, n.mac)).collect())
    }

    /// The MAC of `address`.
    #[must_use]
    #[inline]
    pub fn lookup(&self, address: impl Address) -> Option<MacAddr> {
        self.0.lookup(address).copied()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn neighbor() -> impl Strategy<Value = Neighbor> {
        let address = prop_oneof![
            (0_u8..8).prop_map(|n| IpAddr::from([10, 255, n, 0])),
            (0_u16..8).prop_map(|n| IpAddr::from([0xfd00, n, 0, 0, 0, 0, 0, 1])),
        ];
        (address, any::<[u8; 6]>()).prop_map(|(address, mac)| Neighbor {
            address,
            mac: MacAddr::new(mac),
        })
    }

    proptest! {
        #[test]
        fn answers_as_a_scan_from_the_end(
            neighbors in vec(neighbor(), 0..24),
            asked in vec(neighbor(), 8),
        ) {
            let table = NeighborTable::from_neighbors(&neighbors);
            for address in neighbors.iter().chain(&asked).map(|n| n.address) {
                let last = neighbors.iter().rfind(|n| n.address == address);
                prop_assert_eq!(table.lookup(address), last.map(|n| n.mac));
            }
            prop_assert_eq!(table.is_empty(), neighbors.is_empty());
        }
    }
}
