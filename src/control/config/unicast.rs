//! Which addresses one host alone can have.

use std::net::IpAddr;

/// What `address` is, if it is none of one host's. An IPv4 address written as IPv6 is one: it would not be known again.
pub(in crate::control) fn not_unicast(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("multicast"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("IPv4 written as IPv6"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
