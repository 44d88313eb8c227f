//! Addresses whose family the caller may know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address to look up: of either family, or of one.
///
/// The packet path knows the family from the ethertype. An [`IpAddr`] would have it found out again by each table, and its 17 bytes
/// written and read back in pieces that the processor must wait for: a fifth of the time of an encapsulation.
pub trait Address: Copy + Into<IpAddr> {
    /// What `v4` or `v6` makes of the address's bits, the first the highest.
    fn by_family<R>(self, v4: impl FnOnce(u32) -> R, v6: impl FnOnce(u128) -> R) -> R;
}

impl Address for Ipv4Addr {
    #[inline]
    fn by_family<R>(self, v4: impl FnOnce(u32) -> R, _: impl FnOnce(u128) -> R) -> R {
        v4(self.to_bits())
    }
}

impl Address for Ipv6Addr {
    #[inline]
    fn by_family<R>(self, _: impl FnOnce(u32) -> R, v6: impl FnOnce(u128) -> R) -> R {
        v6(self.to_bits())
    }
}

impl Address for IpAddr {
    #[inline]
    fn by_family<R>(self, v4: impl FnOnce(u32) -> R, v6: impl FnOnce(u128) -> R) -> R {
        match self {
            Self::V4(address) => v4(address.to_bits()),
            Self::V6(address) => v6(address.to_bits()),
        }
    }
}
