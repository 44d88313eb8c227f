//! Whether an answer to a probe of a path is to be believed, and how far. Sends and receives nothing.
//!
//! A router that complains quotes what it complains of. The host hands the answer to the socket whose addresses and ports the quote has;
//! what else it says is judged here. One that quotes the nonce comes from somebody on the path. One that quotes less (RFC 792 asks for eight
//! bytes behind the IP header, and some routers give no more) may come from anybody who tries all ports while a probe is out, so it is
//! believed only down to a size that does no harm.

use std::net::IpAddr;

use crate::wire::vxlan;

/// What every IPv4 link is taken to carry, whatever a router says: the datagram that every host takes (RFC 791 section 3.1).
const V4_MIN: u32 = 576;
/// What every IPv6 link carries (RFC 8200 section 5).
const V6_MIN: u32 = 1280;
/// What stands around a packet inside: outer IPv4 or IPv6, UDP, VXLAN and inner Ethernet.
const V4_OVERHEAD: u32 = 20 + 8 + 8 + 14;
const V6_OVERHEAD: u32 = 40 + 8 + 8 + 14;

/// The least that is believed of a router that quotes no nonce: what leaves 1280 bytes inside. Whoever forges such answers makes packets
/// smaller and loses none, for no sender has to be told of less than every IPv6 link carries. There are no honest ones below: links
/// that carry IPv6 carry 1280 bytes, and over IPv6 a router quotes as much as fits (RFC 4443 section 3.2).
const V4_SHORT_MIN: u32 = V6_MIN + V4_OVERHEAD;
const V6_SHORT_MIN: u32 = V6_MIN + V6_OVERHEAD;

/// Bytes that nobody knows who did not see the probe.
pub(super) const NONCE_LEN: usize = 8;
/// Bytes of a probe's payload that are its own; zeros follow.
pub const FRONT_LEN: usize = vxlan::HEADER_LEN + NONCE_LEN;

/// A probe that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    is_v4: bool,
    front: [u8; FRONT_LEN],
    packet_bytes: u32,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// What a link is said to carry, in bytes of an IP packet.
    pub mtu: u32,
    /// The host itself says so, of its own link; it quotes nothing.
    pub by_host: bool,
    /// What it quotes of the UDP payload, or the front of that.
    pub quoted: &'a [u8],
}

impl Asked {
    /// An IP packet of `packet_bytes` from `local`.
    #[must_use]
    pub fn new(local: IpAddr, nonce: [u8; NONCE_LEN], packet_bytes: u32) -> Self {
        let mut front = [0; FRONT_LEN];
        front[..vxlan::HEADER_LEN].copy_from_slice(&vxlan::PROBE_HEADER);
        front[vxlan::HEADER_LEN..].copy_from_slice(&nonce);
        Self {
            is_v4: local.is_ipv4(),
            front,
            packet_bytes,
        }
    }

    /// The front of its UDP payload.
    #[must_use]
    pub fn front(&self) -> &[u8; FRONT_LEN] {
        &self.front
    }

    /// Bytes of the IP packet.
    #[must_use]
    pub fn packet_bytes(&self) -> u32 {
        self.packet_bytes
    }

    /// What a link on the way carries, if the answer is one that this probe may have had.
    #[must_use]
    pub fn believed(&self, told: &Told<'_>) -> Option<u32> {
        let quoted = &told.quoted[..told.quoted.len().min(FRONT_LEN)];
        if told.mtu >= self.packet_bytes || !self.front.starts_with(quoted) {
            return None;
        }
        let knows_nonce = told.by_host || quoted.len() == FRONT_LEN;
        let least = match (self.is_v4, knows_nonce) {
            (true, true) => V4_MIN,
            (true, false) => V4_SHORT_MIN,
            (false, true) => V6_MIN,
            (false, false) => V6_SHORT_MIN,
        };
        // No answer makes a probe that arrived one that did not.
        Some(told.mtu.max(least)).filter(|&bytes| bytes < self.packet_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const NONCE: [u8; NONCE_LEN] = *b"12345678";

    fn believed(v6: bool, mtu: u32, quoted: &[u8]) -> Option<u32> {
        let local = match v6 {
            true => IpAddr::V6(Ipv6Addr::LOCALHOST),
            false => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        Asked::new(local, NONCE, 1500).believed(&Told {
            mtu,
            by_host: false,
            quoted,
        })
    }

    fn whole() -> [u8; FRONT_LEN] {
        *Asked::new(IpAddr::V4(Ipv4Addr::LOCALHOST), NONCE, 1500).front()
    }

    #[test]
    fn who_quotes_the_nonce_is_believed_down_to_what_every_link_carries() {
        for (v6, mtu, expected) in [
            (false, 1400, Some(1400)),
            (false, 576, Some(576)),
            (false, 0, Some(576)),
            (true, 1280, Some(1280)),
            (true, 68, Some(1280)),
            (false, 1500, None),
            (true, 9000, None),
        ] {
            let long = [&whole()[..], &[0; 500]].concat();
            assert_eq!(believed(v6, mtu, &whole()), expected, "{mtu}");
            assert_eq!(believed(v6, mtu, &long), expected, "{mtu}");
        }
    }

    #[test]
    fn who_quotes_less_is_believed_down_to_what_does_no_harm() {
        for quoted in [&[][..], &whole()[..8], &whole()[..15]] {
            for (v6, mtu, expected) in [
                (false, 1400, Some(1400)),
                (false, 576, Some(1330)),
                (true, 1400, Some(1400)),
                (true, 1280, Some(1350)),
            ] {
                assert_eq!(believed(v6, mtu, quoted), expected, "{mtu} {quoted:?}");
            }
        }
    }

    #[test]
    fn who_quotes_something_else_is_not_believed() {
        let mut other = whole();
        other[15] ^= 1;
        assert_eq!(believed(false, 1400, &other), None);
        assert_eq!(believed(false, 1400, &[0x08, 0, 0, 0, 0, 0, 1, 0]), None);
    }

    #[test]
    fn the_host_need_not_quote_to_be_believed_of_its_own_link() {
        let told = Told {
            mtu: 600,
            by_host: true,
            quoted: &[],
        };
        let asked = Asked::new(IpAddr::V4(Ipv4Addr::LOCALHOST), NONCE, 1500);
        assert_eq!(asked.believed(&told), Some(600));
    }

    #[test]
    fn a_probe_smaller_than_what_is_believed_at_the_least_has_no_answer() {
        let asked = Asked::new(IpAddr::V4(Ipv4Addr::LOCALHOST), NONCE, 577);
        let whole = whole();
        for (quoted, expected) in [(&whole[..], Some(576)), (&[][..], None)] {
            let told = Told {
                mtu: 500,
                by_host: false,
                quoted,
            };
            assert_eq!(asked.believed(&told), expected);
        }
    }
}
