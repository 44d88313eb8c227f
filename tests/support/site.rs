//! Where the cells of a lab live: addresses, as in the README's walk of one packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The overlay of every lab.
pub(crate) const OVERLAY: &str = "10.255.0.0/16";
/// The IPv6 prefix of labs that have it.
pub(crate) const OVERLAY_V6: &str = "fd00:a::/32";
/// The VTEP's name in every cell.
pub(crate) const VTEP_NAME: &str = "silk-vtep";

/// The addresses of one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// On the underlay, a /16.
    pub(crate) underlay_v4: Ipv4Addr,
    /// On the underlay, a /64.
    pub(crate) underlay_v6: Ipv6Addr,
    /// The VTEP's overlay address, the first of the cell's /24.
    pub(crate) vtep: Ipv4Addr,
    /// The container's.
    pub(crate) container: Ipv4Addr,
}

/// A lab has as many cells as it asks for, at these sites in this order.
pub(crate) const SITES: [Site; 3] = [
    Site::new([10, 0, 32, 12], [10, 255, 108, 0], 184),
    Site::new([10, 0, 16, 14], [10, 255, 43, 0], 6),
    Site::new([10, 0, 24, 13], [10, 255, 77, 0], 2),
];

impl Site {
    const fn new(underlay: [u8; 4], vtep: [u8; 4], container: u8) -> Self {
        let [a, b, c, d] = underlay;
        let [o, p, q, r] = vtep;
        Self {
            underlay_v4: Ipv4Addr::new(a, b, c, d),
            underlay_v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, c as u16, d as u16),
            vtep: Ipv4Addr::new(o, p, q, r),
            container: Ipv4Addr::new(o, p, q, container),
        }
    }

    /// Its underlay address of one family.
    pub(crate) fn underlay(&self, v6: bool) -> IpAddr {
        if v6 {
            self.underlay_v6.into()
        } else {
            self.underlay_v4.into()
        }
    }

    /// The subnet of its containers.
    pub(crate) fn subnet(&self) -> String {
        format!("{}/24", self.vtep)
    }

    /// The VTEP's overlay address, the first of the cell's /64.
    pub(crate) fn vtep_v6(&self) -> Ipv6Addr {
        let [_, _, cell, _] = self.vtep.octets();
        Ipv6Addr::new(0xfd00, 0xa, 0, cell.into(), 0, 0, 0, 0)
    }

    /// Where others than the VTEP live.
    pub(crate) fn subnet_v6(&self) -> String {
        format!("{}/64", self.vtep_v6())
    }
}

/// The MAC of a VTEP or of a container's end: `ee:ee` and the address, as Silk derives it.
pub(crate) fn vtep_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0xee, 0xee, a, b, c, d]
}

/// `ee:ee:0a:ff:6c:00`.
pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
