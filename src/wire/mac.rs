//! Ethernet addresses, and the two forms Silk derives from an IPv4 address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IEEE 802 48-bit address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The all-zero address: in an FDB, the entry for frames without one of their own.
    pub const ZERO: Self = Self([0; 6]);
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// An address from its six octets.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// `ee:ee` and the address: a VTEP's or a container's MAC in a Silk network.
    #[must_use]
    pub const fn overlay(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0xee, 0xee, a, b, c, d])
    }

    /// `aa:aa` and the container's address: the host's end of its veth pair.
    #[must_use]
    pub const fn host_side(container: Ipv4Addr) -> Self {
        let [a, b, c, d] = container.octets();
        Self([0xaa, 0xaa, a, b, c, d])
    }

    /// The address that [`Self::overlay`] makes this MAC of.
    #[must_use]
    pub const fn overlay_address(self) -> Option<Ipv4Addr> {
        match self.0 {
            [0xee, 0xee, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }

    /// True if the group bit is set; broadcast included.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True for the all-zero address.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

/// A text that is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no MAC address (accepted: ee:ee:0a:ff:2b:00, ee-ee-0a-ff-2b-00 or eeee.0aff.2b00)"
)]
pub struct ParseMacError(pub String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseMacError(text.to_owned()))
    }
}

/// Six groups of two digits, or three of four; one kind of separator throughout.
fn parse(text: &str) -> Option<MacAddr> {
    let (separator, digits) = match text.len() {
        17 if text.contains('-') => ('-', 2),
        17 => (':', 2),
        14 => ('.', 4),
        _ => return None,
    };
    let mut value = 0_u64;
    for group in text.split(separator) {
        if group.len() != digits || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        value = value << (4 * digits) | u64::from_str_radix(group, 16).ok()?;
    }
    let [_, _, octets @ ..] = value.to_be_bytes();
    Some(MacAddr(octets))
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_silks_addresses_from_ipv4() {
        let container = Ipv4Addr::new(10, 255, 108, 184);
        assert_eq!(MacAddr::overlay(container).to_string(), "ee:ee:0a:ff:6c:b8");
        assert_eq!(
            MacAddr::host_side(container).to_string(),
            "aa:aa:0a:ff:6c:b8"
        );
    }

    #[test]
    fn parses_the_three_forms_controllers_send() {
        for text in ["ee:ee:0a:ff:7a:00", "EE-EE-0A-FF-7A-00", "eeee.0aff.7a00"] {
            assert_eq!(
                text.parse(),
                Ok(MacAddr::overlay(Ipv4Addr::new(10, 255, 122, 0)))
            );
        }
    }

    #[test]
    fn refuses_what_is_no_mac() {
        for text in [
            "",
            "ee:ee:0a:ff:7a",
            "ee:ee:0a:ff:7a:0",
            "ee:ee-0a:ff:7a:00",
            "ee:ee:0a:ff:7a:0g",
            "+e:ee:0a:ff:7a:00",
            "eeee.0aff.7a0é",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
