//! What a frame says, behind its addresses, of who sent it: the sender in an ARP packet, the target of a neighbour advertisement or
//! redirect, the MAC in an option. Who hears such a packet puts that into its neighbour table, so whoever checks sources must know it too.

use std::net::IpAddr;

use super::ethernet::{EtherType, Frame, VLAN_TAG_LEN};
use super::ip::{Ipv6, Network, Payload, protocol};
use super::{MacAddr, arp, ndisc};

/// What a body says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// An address that is the sender's. The unspecified one says nothing and is left out.
    pub address: Option<IpAddr>,
    /// Its MAC.
    pub mac: Option<MacAddr>,
    /// There may be anything: behind more VLAN tags or IPv6 extension headers than are looked through, or in an IPv6 packet whose length
    /// is left open.
    pub is_hidden: bool,
}

impl Claim {
    const HIDDEN: Self = Self {
        address: None,
        mac: None,
        is_hidden: true,
    };

    /// What a frame says that is not IP, as far as its VLAN tags are looked through: ARP says something, and so may whatever is behind
    /// more tags, since a host takes off as many of VLAN 0 as there are (`__netif_receive_skb_core`).
    #[must_use]
    pub fn of_other(frame: Frame<'_>) -> Option<Self> {
        match frame.untagged() {
            (EtherType::ARP, payload) => {
                let (mac, address) = arp::sender(payload)?;
                Some(Self {
                    address: specified(address.into()),
                    mac: Some(mac),
                    is_hidden: false,
                })
            }
            // One that is cut off hides nothing: no host makes a packet of it.
            (EtherType::VLAN | EtherType::PROVIDER_VLAN, rest) if rest.len() >= VLAN_TAG_LEN => {
                Some(Self::HIDDEN)
            }
            _ => None,
        }
    }

    /// What neighbour discovery says in an IPv6 packet.
    #[must_use]
    #[inline]
    pub fn of_ipv6(ip: Ipv6<'_>) -> Option<Self> {
        match ip.next_header() {
            protocol::TCP | protocol::UDP => None,
            _ => Self::of_payload(ip.payload()?),
        }
    }

    fn of_payload(payload: Payload<'_>) -> Option<Self> {
        match payload {
            Payload::Of(protocol::ICMPV6, _, message) => {
                let (address, mac) = ndisc::sender(message)?;
                Some(Self {
                    address: address.map(IpAddr::from).and_then(specified),
                    mac,
                    is_hidden: false,
                })
            }
            // Hosts take no neighbour discovery in fragments (RFC 6980).
            Payload::Of(..) | Payload::Fragment => None,
            Payload::OutOfReach => Some(Self::HIDDEN),
        }
    }

    /// What `frame` says, `network` being its network layer, behind VLAN tags or not.
    #[must_use]
    #[inline]
    pub fn of(frame: Frame<'_>, network: Network<'_>) -> Option<Self> {
        match network {
            Network::V4(_) => None,
            Network::V6(ip) => Self::of_ipv6(ip),
            Network::Other => Self::of_other(frame),
        }
    }
}

fn specified(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::{IpNumber, Ipv6Header, PacketBuilder};

    use super::*;
    use crate::wire::arp;

    const MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 7]);
    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn claim(bytes: &[u8]) -> Option<Claim> {
        let frame = Frame::new_checked(bytes).unwrap();
        Claim::of(frame, Network::parse_untagged(frame).unwrap())
    }

    fn tagged(frame: &[u8]) -> Vec<u8> {
        [&frame[..12], &[0x81, 0, 0, 0], &frame[12..]].concat()
    }

    /// An ICMPv6 message of this kind about [`TARGET`], with an option of this kind that has [`MAC`].
    fn message(kind: u8, option: u8) -> Vec<u8> {
        let header = [kind, 0, 0, 0, 0, 0, 0, 0];
        let body = match kind {
            133 => Vec::new(),
            // About a destination as well.
            137 => [TARGET, SOURCE].map(|address| address.octets()).concat(),
            _ => TARGET.octets().to_vec(),
        };
        [&header[..], &body, &[option, 1], &MAC.octets()].concat()
    }

    /// Behind as many headers of destination options as that.
    fn ipv6(extensions: usize, message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let header = Ipv6Header {
            payload_length: (8 * extensions + message.len()) as u16,
            next_header: IpNumber(if extensions > 0 { 60 } else { 58 }),
            source: SOURCE.octets(),
            destination: TARGET.octets(),
            hop_limit: 255,
            ..Ipv6Header::default()
        };
        frame.extend([0; 12]);
        frame.extend([0x86, 0xdd]);
        header.write(&mut frame).unwrap();
        for left in (0..extensions).rev() {
            frame.extend([if left > 0 { 60 } else { 58 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        frame.extend(message);
        frame
    }

    fn said(address: Option<IpAddr>, mac: Option<MacAddr>) -> Option<Claim> {
        Some(Claim {
            address,
            mac,
            is_hidden: false,
        })
    }

    #[test]
    fn arp_says_its_sender_behind_tags_too() {
        let request = arp::Request {
            sender_mac: MacAddr::BROADCAST,
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_ip: Ipv4Addr::new(10, 0, 0, 2),
        };
        let reply = request.reply(MAC);
        let expected = said(Some(request.target_ip.into()), Some(MAC));
        assert_eq!(claim(&reply), expected);
        assert_eq!(claim(&tagged(&reply)), expected);
        assert_eq!(claim(&tagged(&tagged(&reply))), expected);
        let probe = arp::Request {
            target_ip: Ipv4Addr::UNSPECIFIED,
            ..request
        };
        assert_eq!(claim(&probe.reply(MAC)), said(None, Some(MAC)));
    }

    #[test]
    fn neighbor_discovery_says_what_it_advertises() {
        let advertised = said(Some(TARGET.into()), Some(MAC));
        for extensions in [0, 1, 8] {
            let frame = ipv6(extensions, &message(136, 2));
            assert_eq!(claim(&frame), advertised, "{extensions}");
            assert_eq!(claim(&tagged(&frame)), advertised, "{extensions}");
        }
        assert_eq!(
            claim(&ipv6(0, &message(136, 1))),
            said(Some(TARGET.into()), None)
        );
        assert_eq!(claim(&ipv6(0, &message(137, 2))), advertised);
        assert_eq!(claim(&ipv6(0, &message(137, 2)[..39])), None);
        assert_eq!(claim(&ipv6(0, &message(135, 1))), said(None, Some(MAC)));
        assert_eq!(claim(&ipv6(0, &message(133, 1))), said(None, Some(MAC)));
        assert_eq!(claim(&ipv6(0, &message(128, 1))), None);
        assert_eq!(claim(&ipv6(0, &message(136, 2)[..23])), None);
    }

    #[test]
    fn what_is_too_far_behind_is_hidden_and_not_nothing() {
        assert_eq!(claim(&ipv6(9, &message(136, 2))), Some(Claim::HIDDEN));
        let frame = ipv6(0, &message(136, 2));
        for kind in [[0x81, 0], [0x88, 0xa8]] {
            let third = [&frame[..12], &kind, &[0, 0], &frame[12..]].concat();
            let third = tagged(&tagged(&third));
            assert_eq!(claim(&third), Some(Claim::HIDDEN));
            assert_eq!(claim(&third[..14 + 2 * 4 + 3]), None);
        }
    }

    #[test]
    fn a_length_that_is_left_open_hides_what_follows() {
        for (extensions, expected) in [(0, None), (1, Some(Claim::HIDDEN))] {
            let mut frame = ipv6(extensions, &message(136, 2));
            frame[18..20].fill(0);
            // Hop-by-hop options are written as destination options are.
            frame[20] = if extensions > 0 { 0 } else { 58 };
            assert_eq!(claim(&frame), expected);
        }
    }

    #[test]
    fn an_option_that_lies_about_its_length_ends_the_options() {
        for units in [0, 2] {
            let mut message = message(135, 1);
            message[25] = units;
            assert_eq!(claim(&ipv6(0, &message)), said(None, None), "{units}");
        }
    }

    #[test]
    fn other_packets_say_nothing() {
        let mut udp = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1, 2)
            .write(&mut udp, b"payload")
            .unwrap();
        assert_eq!(claim(&udp), None);
        udp[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!(claim(&udp), None);
    }
}
