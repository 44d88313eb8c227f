//! What was wrong with the VTEP's device.

use std::fmt;

use ipnet::IpNet;

use super::device::ALIAS;
use crate::wire::MacAddr;

/// Something about the device that was not as it should be, and is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// It was not marked as ours.
    Alias,
    /// The link was down.
    Down,
    /// It had another MAC.
    Mac(Option<MacAddr>),
    /// It asked for neighbours.
    Arp,
    /// It had another MTU.
    Mtu(u32),
    /// IPv6 was on or off, the other way round than wanted.
    Ipv6 {
        /// How it was.
        was_on: bool,
    },
    /// An address was missing or had other flags.
    Address(IpNet),
    /// A route to an overlay was missing or led elsewhere.
    Route(IpNet),
    /// The `unreachable` route of an own subnet was missing.
    Unreachable(IpNet),
    /// An address of an earlier configuration was still there.
    OldAddress(IpNet),
    /// A route of an earlier configuration was still there.
    OldRoute(IpNet),
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias => write!(f, "alias was not {ALIAS}"),
            Self::Down => write!(f, "link was down"),
            Self::Mac(Some(mac)) => write!(f, "MAC was {mac}"),
            Self::Mac(None) => write!(f, "MAC was none"),
            Self::Arp => write!(f, "ARP was on"),
            Self::Mtu(mtu_bytes) => write!(f, "MTU was {mtu_bytes}"),
            Self::Ipv6 { was_on: true } => write!(f, "IPv6 was on"),
            Self::Ipv6 { was_on: false } => write!(f, "IPv6 was off"),
            Self::Address(address) => write!(f, "address {address} was lost"),
            Self::Route(to) => write!(f, "route {to} was lost"),
            Self::Unreachable(subnet) => write!(f, "unreachable route {subnet} was lost"),
            Self::OldAddress(address) => write!(f, "address {address} was left over"),
            Self::OldRoute(to) => write!(f, "route {to} was left over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mended_reads_as_what_was_wrong() {
        let net = "10.255.0.0/16".parse().unwrap();
        let said = [
            Mended::Alias,
            Mended::Down,
            Mended::Mac(Some(MacAddr::new([2, 0, 0, 0, 0, 1]))),
            Mended::Route(net),
            Mended::Unreachable(net),
        ]
        .map(|mended| mended.to_string());
        assert_eq!(
            said,
            [
                "alias was not silk-vtep",
                "link was down",
                "MAC was 02:00:00:00:00:01",
                "route 10.255.0.0/16 was lost",
                "unreachable route 10.255.0.0/16 was lost"
            ]
        );
    }
}
