//! This cell's containers, as far as the daemon knows them: the addresses that were registered.

use std::net::IpAddr;

use super::Address;
use super::address_map::AddressMap;

/// The registered containers' addresses.
///
/// An address of our subnets that is not among them may be a container's all the same: one that was wired by hand. So this says whose an
/// address is, and decides over no packet.
#[derive(Debug, Default)]
pub struct ContainerTable(AddressMap<()>);

impl ContainerTable {
    /// True if a container with `address` is registered.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: impl Address) -> bool {
        self.0.lookup(address).is_some()
    }

    /// How many addresses there are.
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

impl FromIterator<IpAddr> for ContainerTable {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().map(|address| (address, ())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_addresses_of_both_families() {
        let known: [IpAddr; 2] = ["10.255.108.2", "fd00::2"].map(|ip| ip.parse().unwrap());
        let table: ContainerTable = known.into_iter().collect();
        assert_eq!(table.len(), 2);
        assert!(known.iter().all(|&address| table.contains(address)));
        assert!(!table.contains("10.255.108.3".parse::<IpAddr>().unwrap()));
        assert!(ContainerTable::default().is_empty());
    }
}
