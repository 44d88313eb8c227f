//! The addresses of a subnet that containers may have, in the order that host-local tries them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::taken::Look;
use super::{Owner, STEP};
use crate::cni::error::CniError;

/// All but the subnet's first, its second, which is its gateway to host-local, and its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cni) struct Pool {
    subnet: Ipv4Net,
}

impl Pool {
    /// The pool of `subnet`.
    ///
    /// # Errors
    /// It has no room, or host bits, at which host-local stops.
    pub(in crate::cni) fn new(subnet: Ipv4Net) -> Result<Self, String> {
        if subnet.prefix_len() == 32 {
            return Err(format!(
                "the lease {subnet} is the cell's only address: there is none for containers"
            ));
        }
        if subnet.prefix_len() > 30 {
            return Err(format!("subnet {subnet} is too small to allocate from"));
        }
        if subnet.trunc() != subnet {
            let trunc = subnet.trunc();
            return Err(format!(
                "subnet {subnet} has host bits (it would be {trunc})"
            ));
        }
        Ok(Self { subnet })
    }

    /// Some pool with `address` in it.
    pub(super) fn around(address: Ipv4Addr) -> Self {
        let subnet = Ipv4Net::new_assert(address, 24).trunc();
        Self { subnet }
    }

    /// Its subnet.
    pub(super) fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// True for what host-local would reserve, its gateway included.
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first()..=self.last()).contains(&address.to_bits())
    }

    /// The address that no container gets.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first())
    }

    /// Each once, beginning behind `last`, so that an address that was given back is not given out again at once.
    fn behind(self, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
        let (first, end) = (self.first(), self.last());
        let last = last.filter(|last| self.contains(*last));
        let start = last.map_or(first, |last| last.to_bits() + 1);
        let gateway = self.gateway();
        (start..=end)
            .chain(first..start)
            .map(Ipv4Addr::from_bits)
            .filter(move |address| *address != gateway)
    }

    /// The first behind `last` that is neither reserved nor taken.
    ///
    /// # Errors
    /// There is none, or what is taken cannot be told.
    pub(in crate::cni) fn next_free(
        &self,
        last: Option<Ipv4Addr>,
        reserved: &[(IpAddr, Owner)],
        taken: Look<'_>,
    ) -> Result<Ipv4Addr, CniError> {
        let reserved: BTreeSet<_> = reserved.iter().map(|(address, _)| *address).collect();
        let (mut first, mut count) = (None, 0_u32);
        for address in self.behind(last) {
            if reserved.contains(&IpAddr::V4(address)) {
                continue;
            }
            match taken(address)? {
                None => return Ok(address),
                Some(occupant) => {
                    count += 1;
                    first.get_or_insert(format!("{address}: {occupant}"));
                }
            }
        }
        let mut details = format!("no IP addresses available in range set: {self}");
        if let Some(first) = first {
            details += &format!("; {count} are taken without a reservation, the first {first}");
        }
        Err(CniError::step(STEP, details))
    }

    fn first(&self) -> u32 {
        self.subnet.network().to_bits() + 1
    }

    fn last(&self) -> u32 {
        self.subnet.broadcast().to_bits() - 1
    }
}

/// As host-local shows a range.
impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = Ipv4Addr::from_bits(self.last());
        write!(f, "{}-{last}", self.gateway())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(subnet: &str, last: Option<u8>) -> Vec<u8> {
        let pool = Pool::new(subnet.parse().expect("right")).expect("it has room");
        let last = last.map(|last| Ipv4Addr::new(10, 1, 0, last));
        pool.behind(last)
            .map(|address| address.octets()[3])
            .collect()
    }

    #[test]
    fn begins_with_the_second_and_goes_round() {
        assert_eq!(order("10.1.0.0/29", None), [2, 3, 4, 5, 6]);
        assert_eq!(order("10.1.0.0/29", Some(3)), [4, 5, 6, 2, 3]);
        assert_eq!(order("10.1.0.0/29", Some(6)), [2, 3, 4, 5, 6]);
        assert_eq!(order("10.1.0.0/30", Some(2)), [2]);
        // Of another subnet: from the beginning.
        assert_eq!(order("10.1.0.8/29", Some(3)), [10, 11, 12, 13, 14]);
    }
}
