//! ARP for IPv4 over Ethernet (RFC 826): requests to answer, and the answer as the kernel's `arp_reduce` writes it.
//!
//! ```text
//!  0              14             16        18   19   20   22           28          32           38          42
//! | Ethernet     | hardware type| protocol|hlen|plen| op | sender MAC| sender IP | target MAC| target IP |
//! ```

use std::net::Ipv4Addr;
use std::ops::Range;

use super::ethernet::{self, EtherType, Frame};
use super::{MacAddr, field};

/// Bytes of a frame with an ARP packet for IPv4.
pub const FRAME_LEN: usize = 42;

/// The fields that are the same in every packet of one kind: types, lengths and operation.
const KIND: Range<usize> = 14..22;
const SENDER_MAC: Range<usize> = 22..28;
const SENDER_IP: Range<usize> = 28..32;
const TARGET_MAC: Range<usize> = 32..38;
const TARGET_IP: Range<usize> = 38..42;

const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];
/// As IEEE 802 networks write it (ARPHRD_IEEE802): `arp_reduce` answers that too, as Ethernet.
const IEEE802_REQUEST: [u8; 8] = [0, 6, 0x08, 0, 6, 4, 0, 1];
const REPLY: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 2];

const _: () = assert!(KIND.start == ethernet::HEADER_LEN && TARGET_IP.end == FRAME_LEN);

/// "Who has `target_ip`?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The asker's hardware address, as the ARP body has it.
    pub sender_mac: MacAddr,
    /// The asker's address; unspecified in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// The address asked for.
    pub target_ip: Ipv4Addr,
}

impl Request {
    /// A well-formed request for IPv4 over Ethernet; anything else is `None`, replies and questions for loopback or multicast
    /// addresses included.
    #[must_use]
    pub fn parse(frame: Frame<'_>) -> Option<Self> {
        let packet = frame.bytes().first_chunk::<FRAME_LEN>()?;
        let kind = field::<8>(packet, KIND);
        if frame.ethertype() != EtherType::ARP || ![REQUEST, IEEE802_REQUEST].contains(&kind) {
            return None;
        }
        let target_ip = Ipv4Addr::from(field::<4>(packet, TARGET_IP));
        if target_ip.is_loopback() || target_ip.is_multicast() {
            return None;
        }
        Some(Self {
            sender_mac: MacAddr::new(field(packet, SENDER_MAC)),
            sender_ip: field::<4>(packet, SENDER_IP).into(),
            target_ip,
        })
    }

    /// The reply: `target_ip` is at `mac`. Ethernet source `mac`, destination the asker.
    #[must_use]
    pub fn reply(&self, mac: MacAddr) -> [u8; FRAME_LEN] {
        let asker = self.sender_mac.octets();
        let mut frame = [0; FRAME_LEN];
        frame[ethernet::DESTINATION].copy_from_slice(&asker);
        frame[ethernet::SOURCE].copy_from_slice(&mac.octets());
        frame[ethernet::ETHERTYPE].copy_from_slice(&EtherType::ARP.0.to_be_bytes());
        frame[KIND].copy_from_slice(&REPLY);
        frame[SENDER_MAC].copy_from_slice(&mac.octets());
        frame[SENDER_IP].copy_from_slice(&self.target_ip.octets());
        frame[TARGET_MAC].copy_from_slice(&asker);
        frame[TARGET_IP].copy_from_slice(&self.sender_ip.octets());
        frame
    }
}

/// Sender and target of a packet of ARP for IPv4 over Ethernet. `payload` is behind the Ethernet header and its tags.
#[must_use]
pub fn ends(payload: &[u8]) -> Option<[Ipv4Addr; 2]> {
    let (_, sender) = sender(payload)?;
    let target = TARGET_IP.start - ethernet::HEADER_LEN;
    let target: [u8; 4] = *payload.get(target..)?.first_chunk()?;
    Some([sender, target.into()])
}

/// The MAC and the address that a packet of ARP for IPv4 over Ethernet says it is from, be it a request or a reply: what whoever hears it
/// takes for its sender's. `payload` is behind the Ethernet header and its tags.
#[must_use]
pub fn sender(payload: &[u8]) -> Option<(MacAddr, Ipv4Addr)> {
    const BEFORE: usize = ethernet::HEADER_LEN;
    let packet = payload.first_chunk::<{ FRAME_LEN - BEFORE }>()?;
    let at = |field: &Range<usize>| field.start - BEFORE..field.end - BEFORE;
    let is_ours = |request: [u8; 8]| packet[..6] == request[..6];
    ([REQUEST, IEEE802_REQUEST].into_iter().any(is_ours)).then(|| {
        let mac = MacAddr::new(field(packet, at(&SENDER_MAC)));
        (mac, field::<4>(packet, at(&SENDER_IP)).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: [u8; FRAME_LEN] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xee, 0xee, 10, 255, 108, 0, 0x08, 0x06, 0, 1, 0x08, 0,
        6, 4, 0, 1, 0xee, 0xee, 10, 255, 108, 0, 10, 255, 108, 0, 0, 0, 0, 0, 0, 0, 10, 255, 43, 0,
    ];
    const ANSWERED: [u8; FRAME_LEN] = [
        0xee, 0xee, 10, 255, 108, 0, 0xee, 0xee, 10, 255, 43, 0, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4,
        0, 2, 0xee, 0xee, 10, 255, 43, 0, 10, 255, 43, 0, 0xee, 0xee, 10, 255, 108, 0, 10, 255,
        108, 0,
    ];

    fn parse(bytes: &[u8]) -> Option<Request> {
        Request::parse(Frame::new_checked(bytes).unwrap())
    }

    #[test]
    fn answers_a_request_with_the_neighbors_mac() {
        let target = Ipv4Addr::new(10, 255, 43, 0);
        let request = parse(&ASKED).unwrap();
        assert_eq!(request.target_ip, target);
        assert_eq!(request.reply(MacAddr::overlay(target)), ANSWERED);
    }

    #[test]
    fn answers_where_the_body_says_not_the_ethernet_source() {
        let mut asked = ASKED;
        asked[ethernet::SOURCE].fill(2);
        let request = parse(&asked).unwrap();
        let asker = MacAddr::overlay(Ipv4Addr::new(10, 255, 108, 0));
        assert_eq!(request.sender_mac, asker);
    }

    #[test]
    fn a_request_of_an_ieee_802_network_is_answered_as_ethernet() {
        let mut asked = ASKED;
        asked[15] = 6;
        let request = parse(&asked).unwrap();
        assert_eq!(request.reply(MacAddr::overlay(request.target_ip)), ANSWERED);
    }

    #[test]
    fn a_packet_of_either_operation_says_who_sent_it() {
        let asker = Ipv4Addr::new(10, 255, 108, 0);
        let answerer = Ipv4Addr::new(10, 255, 43, 0);
        for (frame, from) in [(ASKED, asker), (ANSWERED, answerer)] {
            assert_eq!(sender(&frame[14..]), Some((MacAddr::overlay(from), from)));
        }
        assert_eq!(sender(&ASKED[14..41]), None);
        for at in (14..20).filter(|at| *at != 15) {
            let mut other = ASKED;
            other[at] ^= 0x40;
            assert_eq!(sender(&other[14..]), None, "byte {at}");
        }
    }

    #[test]
    fn padding_is_ignored() {
        assert_eq!(parse(&[&ASKED[..], &[0; 18]].concat()), parse(&ASKED));
    }

    #[test]
    fn probes_have_no_sender_address() {
        let mut probe = ASKED;
        probe[SENDER_IP].fill(0);
        assert!(parse(&probe).unwrap().sender_ip.is_unspecified());
    }

    #[test]
    fn refuses_all_but_requests_for_ipv4_over_ethernet() {
        for at in (12..22).filter(|at| *at != 13) {
            let mut other = ASKED;
            other[at] ^= 0x40;
            assert_eq!(parse(&other), None, "byte {at}");
        }
        assert_eq!(parse(&ANSWERED), None);
        assert_eq!(parse(&ASKED[..41]), None);
    }

    #[test]
    fn refuses_questions_for_loopback_and_multicast() {
        for target in [[127, 0, 0, 1], [224, 0, 0, 1]] {
            let mut asked = ASKED;
            asked[TARGET_IP].copy_from_slice(&target);
            assert_eq!(parse(&asked), None, "{target:?}");
        }
    }
}
