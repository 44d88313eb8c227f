//! Who this VTEP is: the part of a snapshot that is not a table.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{Address, OuterRules};
use crate::wire::{MacAddr, Vni, vxlan};

/// Where the mark of a packet from the host comes from, and so its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkSource {
    /// The packet brings its own, and that alone counts (`marks = "bpf"`).
    Packet,
    /// The group table has it, by inner source address (`marks = "table"`).
    Table,
    /// Nowhere: no group is sent (`marks = "off"`).
    Off,
}

/// Identity and rules of this VTEP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The network identifier we send and accept.
    pub vni: Vni,
    /// The TAP's own MAC.
    pub mac: MacAddr,
    /// Our overlay addresses, v4 and v6.
    pub addresses: Vec<IpAddr>,
    /// The subnets our containers live in, one per address.
    pub subnets: Vec<IpNet>,
    /// Our underlay address, as far as known: no packet of the overlay is from there.
    pub underlay: Option<IpAddr>,
    /// UDP port of a destination that names none.
    pub port: u16,
    /// Carry the group id.
    pub gbp: bool,
    /// Route frames for our own MAC, answer ARP and ND; off, the plain kernel device: FDB only.
    pub routing: bool,
    /// Refuse sources that our tables do not place where they come from.
    pub strict_source: bool,
    /// Who says what group a packet of the host is of.
    pub marks: MarkSource,
    /// How outer headers are filled in.
    pub outer: OuterRules,
}

impl Local {
    /// A VTEP of a Silk network: VNI 1 on UDP 4789, its MAC derived from its address, all checks on. `subnet` is that of its
    /// containers, the VTEP's own address its address part: `10.255.108.0/24`.
    #[must_use]
    pub fn silk(subnet: Ipv4Net) -> Self {
        Self {
            vni: Vni::SILK,
            mac: MacAddr::overlay(subnet.addr()),
            addresses: vec![subnet.addr().into()],
            subnets: vec![subnet.trunc().into()],
            underlay: None,
            port: vxlan::PORT,
            gbp: true,
            routing: true,
            strict_source: true,
            marks: MarkSource::Table,
            outer: OuterRules::default(),
        }
    }

    /// True if `address` is one of ours or lies in one of our subnets.
    #[must_use]
    #[inline]
    pub fn covers(&self, address: impl Address) -> bool {
        self.in_own_subnet(address) || self.addresses.contains(&address.into())
    }

    /// True if `address` lies in one of our subnets.
    #[must_use]
    #[inline]
    pub fn in_own_subnet(&self, address: impl Address) -> bool {
        self.subnets.iter().any(|subnet| contains(subnet, address))
    }
}

/// As [`IpNet::contains`], which makes and compares the first and last address: every packet asks twice.
#[inline]
fn contains(subnet: &IpNet, address: impl Address) -> bool {
    let within = |common_bits: u32| common_bits >= subnet.prefix_len().into();
    match subnet {
        IpNet::V4(net) => address.by_family(
            |bits| within((net.addr().to_bits() ^ bits).leading_zeros()),
            |_| false,
        ),
        IpNet::V6(net) => address.by_family(
            |_| false,
            |bits| within((net.addr().to_bits() ^ bits).leading_zeros()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::fixtures::local;

    #[test]
    fn covers_its_subnets_and_its_addresses_wherever_they_lie() {
        let mut local = local();
        local.addresses.push("fd00::1".parse().unwrap());
        for (address, in_subnet, covered) in [
            ("10.255.108.0", true, true),
            ("10.255.108.184", true, true),
            ("fd00::1", false, true),
            ("fd00::2", false, false),
            ("10.255.43.6", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(local.in_own_subnet(address), in_subnet, "{address}");
            assert_eq!(local.covers(address), covered, "{address}");
        }
    }
}
