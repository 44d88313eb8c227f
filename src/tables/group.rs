//! Groups: an inner source address to the group id its packets carry, where no mark says it.

use std::net::IpAddr;

use super::Address;
use super::address_map::AddressMap;
use crate::wire::GroupId;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// The container.
    pub address: IpAddr,
    /// Its group; never zero.
    pub id: GroupId,
}

/// All groups.
#[derive(Debug, Default)]
pub struct GroupTable(AddressMap<GroupId>);

impl GroupTable {
    /// Compiles the table. Of two entries for one address the later wins.
    #[must_use]
    pub fn from_entries(entries: &[GroupEntry]) -> Self {
        Self(entries.iter().map(|e| (e.address, e.id)).collect())
    }

    /// The group of `address`.
    #[must_use]
    #[inline]
    pub fn lookup(&self, address: impl Address) -> Option<GroupId> {
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

    fn entry() -> impl Strategy<Value = GroupEntry> {
        let address = prop_oneof![
            (0_u8..8).prop_map(|n| IpAddr::from([10, 255, 1, n])),
            (0_u16..8).prop_map(|n| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, n])),
        ];
        (address, 1_u16..).prop_map(|(address, id)| GroupEntry {
            address,
            id: GroupId(id),
        })
    }

    proptest! {
        #[test]
        fn answers_as_a_scan_from_the_end(
            entries in vec(entry(), 0..24),
            asked in vec(entry(), 8),
        ) {
            let table = GroupTable::from_entries(&entries);
            for address in entries.iter().chain(&asked).map(|e| e.address) {
                let last = entries.iter().rfind(|e| e.address == address);
                prop_assert_eq!(table.lookup(address), last.map(|e| e.id));
            }
            prop_assert_eq!(table.is_empty(), entries.is_empty());
        }
    }
}
