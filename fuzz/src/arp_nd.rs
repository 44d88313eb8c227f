//! ARP requests and neighbour solicitations, and the answers to them.
//!
//! ```text
//! | how | Ethernet frame ...
//! ```
//! With bit 0 of `how` the frame's lengths and checksums are repaired first.

use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use silk_vtep::wire::MacAddr;
use silk_vtep::wire::arp::Request;
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::ndisc::Solicitation;

use super::repair::{Checksum, repair};

const REPAIRED: u8 = 1;
const ANSWER: MacAddr = MacAddr::new([0xee, 0xee, 10, 255, 43, 0]);

/// A question has the fields that etherparse finds, and its answer is, in etherparse's opinion, the answer to it.
pub fn target(data: &[u8]) {
    let Some((how, frame)) = data.split_first() else {
        return;
    };
    let mut frame = frame.to_vec();
    if how & REPAIRED != 0 {
        repair(&mut frame, Checksum::Complete);
    }
    let Some(view) = Frame::new_checked(&frame) else {
        return assert!(frame.len() < 14);
    };
    let arp = Request::parse(view);
    let solicitation = Solicitation::parse(view);
    assert!(arp.is_none() || solicitation.is_none());
    if let Some(request) = arp {
        check_arp(&frame, &request);
    }
    if let Some(solicitation) = solicitation {
        check_ndisc(&frame, &solicitation);
    }
}

fn check_arp(frame: &[u8], request: &Request) {
    let asked = arp(frame);
    assert_eq!(asked.operation, etherparse::ArpOperation::REQUEST);
    assert_eq!(asked.sender_mac, request.sender_mac.octets());
    assert_eq!(asked.sender_ip, request.sender_ip.octets());
    assert_eq!(asked.target_ip, request.target_ip.octets());
    let reply = request.reply(ANSWER);
    assert_eq!(reply[..6], request.sender_mac.octets());
    assert_eq!(reply[6..12], ANSWER.octets());
    let answered = arp(&reply);
    assert_eq!(answered.operation, etherparse::ArpOperation::REPLY);
    assert_eq!(answered.sender_mac, ANSWER.octets());
    assert_eq!(answered.sender_ip, asked.target_ip);
    assert_eq!(answered.target_mac, asked.sender_mac);
    assert_eq!(answered.target_ip, asked.sender_ip);
    let view = Frame::new_checked(&reply).expect("a whole frame");
    assert_eq!(Request::parse(view), None, "an answer asks nothing");
}

/// The fields of an ARP packet for IPv4.
struct Arp {
    operation: etherparse::ArpOperation,
    sender_mac: [u8; 6],
    sender_ip: [u8; 4],
    target_mac: [u8; 6],
    target_ip: [u8; 4],
}

fn arp(frame: &[u8]) -> Arp {
    let packet = SlicedPacket::from_ethernet(frame).expect("we could parse it");
    let Some(NetSlice::Arp(arp)) = packet.net else {
        panic!("no ARP to etherparse: {:?}", packet.net);
    };
    let octets = |bytes: &[u8]| bytes.try_into().expect("four octets");
    let macs = |bytes: &[u8]| bytes.try_into().expect("six octets");
    Arp {
        operation: arp.operation(),
        sender_mac: macs(arp.sender_hw_addr()),
        sender_ip: octets(arp.sender_protocol_addr()),
        target_mac: macs(arp.target_hw_addr()),
        target_ip: octets(arp.target_protocol_addr()),
    }
}

fn check_ndisc(frame: &[u8], solicitation: &Solicitation) {
    let (asked, payload) = icmpv6(frame);
    assert!(matches!(asked, Icmpv6Type::NeighborSolicitation));
    assert_eq!(payload[..16], solicitation.target.octets());
    assert_eq!(frame[22..38], solicitation.sender_ip.octets());
    let advertisement = solicitation.advertisement(ANSWER, false);
    assert_eq!(advertisement[..6], solicitation.sender_mac.octets());
    let (answered, payload) = icmpv6(&advertisement);
    let Icmpv6Type::NeighborAdvertisement(header) = answered else {
        panic!("no advertisement to etherparse: {answered:?}");
    };
    assert!(header.r#override && !header.router);
    let asked_by = solicitation.sender_ip;
    assert_eq!(header.solicited, !asked_by.is_unspecified());
    assert_eq!(payload[..16], solicitation.target.octets());
    assert_eq!(payload[16..18], [2, 1]);
    assert_eq!(payload[18..], ANSWER.octets());
    if !asked_by.is_unspecified() {
        assert_eq!(advertisement[38..54], asked_by.octets());
    }
    let view = Frame::new_checked(&advertisement).expect("a whole frame");
    assert_eq!(Solicitation::parse(view), None, "an answer asks nothing");
}

/// The message and what follows its first eight bytes. Its checksum is right.
fn icmpv6(frame: &[u8]) -> (Icmpv6Type, &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).expect("we could parse it");
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) =
        (packet.net, packet.transport)
    else {
        panic!("no ICMPv6 to etherparse");
    };
    let header = ip.header();
    assert_eq!(header.hop_limit(), 255);
    assert!(icmp.is_checksum_valid(header.source(), header.destination()));
    (icmp.icmp_type(), &icmp.slice()[8..])
}
