//! Each check of the host on packets that etherparse built, and properties with it as the oracle.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::wire::checksum;

const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 14);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 32, 12);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x14);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x12);
const PORT: u16 = 4789;
/// Where headers start in a frame.
const IP: usize = 14;
const UDP_V4: usize = 34;
const UDP_V6: usize = 54;

fn rules(v6: bool) -> Rules {
    Rules {
        local: if v6 { LOCAL_V6.into() } else { LOCAL.into() },
        port: PORT,
        addresses: Addresses::AllBut([PEER.into(), PEER_V6.into()].into()),
        zero_checksum_v6: false,
    }
}

fn host(v6: bool) -> Host {
    Host::new(rules(v6))
}

/// A datagram from the peer in an Ethernet frame.
fn frame(v6: bool, port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if v6 {
        builder.ipv6(PEER_V6.octets(), LOCAL_V6.octets(), 64)
    } else {
        builder.ipv4(PEER.octets(), LOCAL.octets(), 64)
    };
    let mut frame = Vec::new();
    let builder = builder.udp(40_000, port);
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn whole(bytes: &[u8]) -> Captured<'_> {
    Captured {
        link: Link::Ethernet,
        bytes,
        snapped: false,
    }
}

/// The payload, or the reason.
fn answer(v6: bool, bytes: &[u8]) -> Result<Vec<u8>, HostDrop> {
    match host(v6).receive(whole(bytes)) {
        Outcome::Datagram(datagram) => Ok(datagram.payload.to_vec()),
        Outcome::Kept => panic!("kept"),
        Outcome::Drop(reason) => Err(reason),
    }
}

/// Makes the IPv4 header checksum right.
fn mend_ip(frame: &mut [u8]) {
    let len = usize::from(frame[IP] & 0xf) * 4;
    frame[IP + 10..IP + 12].fill(0);
    let sum = !checksum::fold(checksum::sum(0, &frame[IP..IP + len]));
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_datagram_for_the_daemon_is_received_with_what_its_headers_say() {
    for v6 in [false, true] {
        let mut frame = frame(v6, PORT, b"payload");
        if v6 {
            frame[IP..IP + 2].copy_from_slice(&[0x6b, 0xa0]);
        } else {
            frame[IP + 1] = 0xba;
            mend_ip(&mut frame);
        }
        let (source, destination): (IpAddr, IpAddr) = if v6 {
            (PEER_V6.into(), LOCAL_V6.into())
        } else {
            (PEER.into(), LOCAL.into())
        };
        let datagram = Datagram {
            source: SocketAddr::new(source, 40_000),
            destination: SocketAddr::new(destination, PORT),
            tos: 0xba,
            payload: b"payload",
        };
        assert_eq!(host(v6).receive(whole(&frame)), Outcome::Datagram(datagram));
    }
}

#[test]
fn padding_of_the_link_and_of_the_packet_is_cut_off() {
    for v6 in [false, true] {
        let mut frame = frame(v6, PORT, b"payload");
        frame.extend([0xee; 9]);
        assert_eq!(answer(v6, &frame), Ok(b"payload".to_vec()));
    }
    // The IP packet longer than its datagram.
    let mut frame = frame(false, PORT, b"payload");
    frame.extend([0xee; 4]);
    frame[IP + 3] += 4;
    mend_ip(&mut frame);
    assert_eq!(answer(false, &frame), Ok(b"payload".to_vec()));
}

#[test]
fn each_lie_of_an_ipv4_header_has_its_reason() {
    let cases: [(usize, u8, bool, HostDrop); 8] = [
        (12, 0x86, false, HostDrop::NotIp), // ethertype 0x8600
        (IP, 0x65, true, HostDrop::IpHeader),
        (IP, 0x44, true, HostDrop::IpHeader),
        (IP + 3, 19, true, HostDrop::IpLength),
        (IP + 3, 36, true, HostDrop::IpLength),
        (IP + 8, 63, false, HostDrop::IpChecksum),
        (IP + 9, 6, true, HostDrop::NotUdp),
        (IP + 19, 14, false, HostDrop::IpChecksum),
    ];
    for (at, value, mended, reason) in cases {
        let mut frame = frame(false, PORT, b"payload");
        frame[at] = value;
        if mended {
            mend_ip(&mut frame);
        }
        assert_eq!(answer(false, &frame), Err(reason), "byte {at} = {value:#x}");
    }
}

#[test]
fn options_of_an_ipv4_header_are_passed_over() {
    let mut frame = frame(false, PORT, b"payload");
    frame.splice(UDP_V4..UDP_V4, [1, 1, 1, 0]);
    frame[IP] = 0x46;
    frame[IP + 3] += 4;
    mend_ip(&mut frame);
    assert_eq!(answer(false, &frame), Ok(b"payload".to_vec()));
}

#[test]
fn any_ttl_will_do() {
    for ttl in [0, 1] {
        let mut frame = frame(false, PORT, b"payload");
        frame[IP + 8] = ttl;
        mend_ip(&mut frame);
        assert_eq!(answer(false, &frame), Ok(b"payload".to_vec()));
    }
}

#[test]
fn each_lie_of_an_ipv6_header_has_its_reason() {
    for (at, value, reason) in [
        (IP, 0x45, HostDrop::IpHeader),
        (IP + 5, 16, HostDrop::IpLength),
        (IP + 6, 6, HostDrop::NotUdp),
        (IP + 6, 59, HostDrop::NotUdp),
        // A hop-by-hop header that runs past the packet: its length is the source port's low byte.
        (IP + 6, 0, HostDrop::IpExtension),
    ] {
        let mut frame = frame(true, PORT, b"payload");
        frame[at] = value;
        assert_eq!(answer(true, &frame), Err(reason), "byte {at} = {value:#x}");
    }
}

/// A frame with `headers` between IPv6 header and datagram.
fn extended(first: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = frame(true, PORT, b"payload");
    frame.splice(UDP_V6..UDP_V6, headers.iter().copied());
    frame[IP + 5] += headers.len() as u8;
    frame[IP + 6] = first;
    frame
}

#[test]
fn extension_headers_are_walked_and_routes_refused() {
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let payload = Ok(b"payload".to_vec());
    for first in [0, 43, 60] {
        let mut options = options;
        options[3] = 0;
        assert_eq!(answer(true, &extended(first, &options)), payload);
    }
    assert_eq!(answer(true, &extended(60, &options)), payload);
    let another_stop = [17, 0, 0, 1, 0, 0, 0, 0];
    let refused = Err(HostDrop::IpExtension);
    assert_eq!(answer(true, &extended(43, &another_stop)), refused);
    let mut nine = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    nine[64] = 17;
    assert_eq!(answer(true, &extended(60, &nine)), refused);
    let eight = &nine[8..];
    assert_eq!(answer(true, &extended(60, eight)), payload);
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let atomic = [17, 0, 0, 0, 0, 0, 0, 9];
    let payload = Ok(b"payload".to_vec());
    assert_eq!(answer(true, &extended(44, &atomic)), payload);
}

#[test]
fn each_lie_of_a_udp_header_has_its_reason() {
    for (v6, udp) in [(false, UDP_V4), (true, UDP_V6)] {
        let cases: [(usize, [u8; 2], HostDrop); 5] = [
            (udp + 4, [0, 7], HostDrop::UdpLength),
            (udp + 4, [0, 16], HostDrop::UdpLength),
            (udp + 4, [0, 14], HostDrop::UdpChecksum),
            (udp + 6, [0x12, 0x34], HostDrop::UdpChecksum),
            (udp, [1, 1], HostDrop::UdpChecksum),
        ];
        for (at, value, reason) in cases {
            let mut frame = frame(v6, PORT, b"payload");
            frame[at..at + 2].copy_from_slice(&value);
            assert_eq!(answer(v6, &frame), Err(reason), "{v6} {at} {value:?}");
        }
        let short = &frame(v6, PORT, b"")[..udp + 7];
        let mut short = short.to_vec();
        if v6 {
            short[IP + 5] = 7;
        } else {
            short[IP + 3] = 27;
            mend_ip(&mut short);
        }
        assert_eq!(answer(v6, &short), Err(HostDrop::UdpLength));
    }
}

#[test]
fn no_checksum_is_taken_over_ipv4_and_over_ipv6_if_allowed() {
    let without = |v6, udp: usize| {
        let mut frame = frame(v6, PORT, b"payload");
        frame[udp + 6..udp + 8].fill(0);
        frame
    };
    let payload = Ok(b"payload".to_vec());
    assert_eq!(answer(false, &without(false, UDP_V4)), payload);
    let frame = without(true, UDP_V6);
    assert_eq!(answer(true, &frame), Err(HostDrop::UdpNoChecksum));
    let mut lax = Host::new(Rules {
        zero_checksum_v6: true,
        ..rules(true)
    });
    assert!(matches!(lax.receive(whole(&frame)), Outcome::Datagram(_)));
}

#[test]
fn a_checksum_left_to_the_card_is_told_from_a_wrong_one() {
    let mut frame = frame(false, PORT, b"payload");
    let pseudo = checksum::pseudo_header(PEER.into(), LOCAL.into(), protocol::UDP, 15);
    let partial = checksum::fold(pseudo).to_be_bytes();
    frame[UDP_V4 + 6..UDP_V4 + 8].copy_from_slice(&partial);
    assert_eq!(answer(false, &frame), Err(HostDrop::UdpPartialChecksum));
}

/// As a capture has several datagrams that a host joined: one UDP header, and a checksum of the pseudo-header alone.
fn joined(datagrams: &[&[u8]]) -> Vec<u8> {
    let mut frame = frame(false, PORT, &datagrams.concat());
    let len = (frame.len() - UDP_V4) as u32;
    let pseudo = checksum::pseudo_header(PEER.into(), LOCAL.into(), protocol::UDP, len);
    frame[UDP_V4 + 6..UDP_V4 + 8].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    frame
}

#[test]
fn datagrams_joined_before_the_capture_are_told_from_an_unfinished_checksum() {
    let datagram =
        |group: u8, len: usize| [&[0x88, 0, 0, group, 0, 0, 1, 0], &vec![7; len][..]].concat();
    let (long, short, other) = (datagram(3, 100), datagram(3, 14), datagram(4, 100));
    let mut foreign = other.clone();
    foreign[6] = 2;
    for (datagrams, reason) in [
        (
            &[&long[..], &other, &long, &short][..],
            HostDrop::JoinedDatagrams,
        ),
        (&[&short, &short], HostDrop::JoinedDatagrams),
        // One alone, another VNI behind it, one that is longer than the first, and none at all.
        (&[&long], HostDrop::UdpPartialChecksum),
        (&[&long, &foreign], HostDrop::UdpPartialChecksum),
        (&[&short, &long], HostDrop::UdpPartialChecksum),
        (&[], HostDrop::UdpPartialChecksum),
    ] {
        assert_eq!(
            answer(false, &joined(datagrams)),
            Err(reason),
            "{datagrams:?}"
        );
    }
}

#[test]
fn what_is_not_the_daemons_is_not_received() {
    let other_port = frame(false, 53, b"payload");
    assert_eq!(answer(false, &other_port), Err(HostDrop::NoSocket));
    let other_family = frame(true, PORT, b"payload");
    assert_eq!(answer(false, &other_family), Err(HostDrop::NoSocket));

    let mut to_peer = frame(false, PORT, b"payload");
    to_peer.copy_within(IP + 12..IP + 16, IP + 16);
    mend_ip(&mut to_peer);
    assert_eq!(answer(false, &to_peer), Err(HostDrop::NotForUs));
}

#[test]
fn another_address_of_the_host_is_received_at_unless_bound_to_one() {
    let other = Ipv4Addr::new(192, 0, 2, 7);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(PEER.octets(), other.octets(), 64)
        .udp(40_000, PORT)
        .write(&mut frame, b"payload")
        .unwrap();
    assert_eq!(answer(false, &frame), Ok(b"payload".to_vec()));
    let mut bound = Host::new(Rules {
        addresses: Addresses::Local,
        ..rules(false)
    });
    let outcome = bound.receive(whole(&frame));
    assert_eq!(outcome, Outcome::Drop(HostDrop::NotForUs));
}

#[test]
fn a_snapped_packet_is_judged_as_far_as_it_goes() {
    let full = frame(false, PORT, b"payload");
    let receive = |bytes: &[u8]| {
        let captured = Captured {
            snapped: true,
            ..whole(bytes)
        };
        match host(false).receive(captured) {
            Outcome::Drop(reason) => Some(reason),
            Outcome::Datagram(_) | Outcome::Kept => None,
        }
    };
    for len in [0, 13, 20, 33, 40, full.len() - 1] {
        let reason = receive(&full[..len]);
        assert_eq!(reason, Some(HostDrop::TruncatedCapture), "{len}");
    }
    let mut broken = full.clone();
    broken[IP + 8] = 1;
    assert_eq!(receive(&broken[..34]), Some(HostDrop::IpChecksum));
    // What is missing was padding.
    assert_eq!(receive(&full), None);
    let mut arp = full.clone();
    arp[13] = 6;
    assert_eq!(receive(&arp[..20]), Some(HostDrop::NotIp));
}

/// Two IPv4 fragments of one datagram.
fn fragments(frame: &[u8], cut: usize) -> [Vec<u8>; 2] {
    let segment = &frame[UDP_V4..];
    [(0, &segment[..cut], true), (cut, &segment[cut..], false)].map(|(offset, bytes, more)| {
        let len = bytes.len() as u16;
        let mut header = Ipv4Header::new(
            len,
            64,
            etherparse::ip_number::UDP,
            PEER.octets(),
            LOCAL.octets(),
        )
        .unwrap();
        header.identification = 77;
        header.more_fragments = more;
        header.fragment_offset = IpFragOffset::try_new(offset as u16 / 8).unwrap();
        header.header_checksum = header.calc_header_checksum();
        [&frame[..IP], &header.to_bytes(), bytes].concat()
    })
}

#[test]
fn fragments_are_kept_and_the_last_brings_the_datagram() {
    let payload = vec![7; 100];
    let [first, second] = fragments(&frame(false, PORT, &payload), 48);
    for (one, other) in [(&first, &second), (&second, &first)] {
        let mut host = host(false);
        assert_eq!(host.receive(whole(one)), Outcome::Kept);
        let Outcome::Datagram(datagram) = host.receive(whole(other)) else {
            panic!("not received");
        };
        assert_eq!(datagram.payload, payload);
        let settled: Vec<_> = host.settled().collect();
        let joined = Settled {
            packet: 1,
            fate: Ok(()),
        };
        assert_eq!(settled, [joined]);
    }
}

#[test]
fn a_joined_datagram_is_checked_as_any_other() {
    let mut frame = frame(false, PORT, &[7; 100]);
    frame[UDP_V4 + 60] ^= 1;
    let [first, second] = fragments(&frame, 48);
    let mut host = host(false);
    assert_eq!(host.receive(whole(&first)), Outcome::Kept);
    let outcome = host.receive(whole(&second));
    assert_eq!(outcome, Outcome::Drop(HostDrop::UdpChecksum));
}

#[test]
fn ipv6_fragments_are_joined_behind_other_headers() {
    let frame = frame(true, PORT, &[7; 100]);
    let segment = &frame[UDP_V6..];
    let piece = |word: u16, bytes: &[u8]| {
        let [high, low] = word.to_be_bytes();
        let headers = [44, 0, 1, 4, 0, 0, 0, 0, 17, 0, high, low, 0, 0, 0, 9];
        let mut piece = [&frame[..UDP_V6], &headers, bytes].concat();
        piece[IP + 5] = (headers.len() + bytes.len()) as u8;
        piece[IP + 6] = 60;
        piece
    };
    let mut host = host(true);
    let first = piece(1, &segment[..48]);
    assert_eq!(host.receive(whole(&first)), Outcome::Kept);
    let second = piece(48, &segment[48..]);
    assert!(
        matches!(host.receive(whole(&second)), Outcome::Datagram(datagram) if datagram.payload == [7; 100])
    );
}

#[test]
fn a_fragment_still_kept_at_the_end_is_incomplete() {
    let [first, _] = fragments(&frame(false, PORT, &[7; 100]), 48);
    let mut host = host(false);
    assert_eq!(host.receive(whole(&first)), Outcome::Kept);
    host.finish();
    let fates: Vec<_> = host.settled().map(|settled| settled.fate).collect();
    assert_eq!(fates, [Err(HostDrop::FragmentIncomplete)]);
}

fn outgoing(v6: bool) -> Outgoing {
    let ends: (IpAddr, IpAddr) = if v6 {
        (PEER_V6.into(), LOCAL_V6.into())
    } else {
        (PEER.into(), LOCAL.into())
    };
    Outgoing {
        source: SocketAddr::new(ends.0, 40_000),
        destination: SocketAddr::new(ends.1, PORT),
        ttl: 64,
        tos: 0xba,
        dont_fragment: false,
        id: 1,
        checksum: true,
    }
}

#[test]
fn what_does_not_fit_in_a_packet_is_not_sent() {
    for (v6, most) in [(false, 65_507), (true, 65_527)] {
        let mut out = vec![9];
        let payload = vec![0; most + 1];
        let sent = outgoing(v6).emit(&[&payload[..most]], &mut out);
        assert_eq!(sent, Ok(()));
        assert!(answer(v6, &out[1..]).is_ok());
        out.truncate(1);
        let refused = outgoing(v6).emit(&[&payload], &mut out);
        assert_eq!(refused, Err(Unsendable::TooBig));
        assert_eq!(out, [9]);
    }
    let mixed = Outgoing {
        destination: outgoing(true).destination,
        ..outgoing(false)
    };
    let refused = mixed.emit(&[b"payload"], &mut Vec::new());
    assert_eq!(refused, Err(Unsendable::Families));
}

proptest! {
    /// etherparse builds what we emit, but for the identification and MACs; and the host receives it.
    #[test]
    fn emitted_frames_are_etherparses(v6: bool, tos: u8, ttl: u8, id: u16, dont_fragment: bool, payload in vec(any::<u8>(), 0..200), at: Index) {
        let out_of_two = at.index(payload.len() + 1);
        let outgoing = Outgoing { tos, ttl, id, dont_fragment, ..outgoing(v6) };
        let mut emitted = Vec::new();
        outgoing.emit(&[&payload[..out_of_two], &payload[out_of_two..]], &mut emitted).unwrap();
        prop_assert_eq!(answer(v6, &emitted), Ok(payload.clone()));

        let mut model = frame(v6, PORT, &payload);
        if v6 {
            model[IP] = 0x60 | tos >> 4;
            model[IP + 1] = tos << 4;
            model[IP + 7] = ttl;
        } else {
            model[IP + 1] = tos;
            model[IP + 4..IP + 6].copy_from_slice(&id.to_be_bytes());
            model[IP + 6] = if dont_fragment { 0x40 } else { 0 };
            model[IP + 8] = ttl;
            mend_ip(&mut model);
        }
        prop_assert_eq!(&emitted[12..], &model[12..]);
    }

    /// A datagram with a few bytes changed is received only if etherparse finds the same one and checksums that hold.
    #[test]
    fn what_is_received_etherparse_finds_too(v6: bool, payload in vec(any::<u8>(), 0..40), changes in vec((any::<Index>(), any::<u8>()), 0..4), mend: bool, cut: Option<Index>) {
        let mut bytes = frame(v6, PORT, &payload);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if mend && !v6 && bytes[IP] & 0xf == 5 {
            mend_ip(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let Ok(received) = answer_or_kept(v6, &bytes) else { return Ok(()) };
        let sliced = SlicedPacket::from_ethernet(&bytes).expect("etherparse takes it too");
        let Some(TransportSlice::Udp(udp)) = sliced.transport else {
            panic!("etherparse finds no UDP");
        };
        prop_assert_eq!(udp.destination_port(), PORT);
        // etherparse gives what the IP header says, we what UDP's says.
        prop_assert!(udp.payload().starts_with(&received) || received.starts_with(udp.payload()));
        let zero = udp.checksum() == 0;
        prop_assert!(!zero || !v6);
        let sum = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.header_checksum % 0xffff, header.calc_header_checksum() % 0xffff);
                udp.to_header().calc_checksum_ipv4(&header, &received).unwrap()
            }
            etherparse::NetSlice::Ipv6(ip) => udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), &received).unwrap(),
            etherparse::NetSlice::Arp(_) => panic!("no IP"),
        };
        let same_len = usize::from(udp.length()) == received.len() + 8;
        prop_assert!(zero || !same_len || sum % 0xffff == udp.checksum() % 0xffff);
    }

    #[test]
    fn no_bytes_make_it_panic(packets in vec((vec(any::<u8>(), 0..120), 0_u32..6, any::<bool>(), any::<bool>()), 0..8), v6: bool) {
        let links = [1, 101, 113, 228, 229, 276];
        let mut host = host(v6);
        for (mut bytes, link, snapped, typed) in packets {
            if typed && bytes.len() >= 20 {
                bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            }
            let link = Link::from_number(links[link as usize]);
            let _ = host.receive(Captured { link, bytes: &bytes, snapped });
        }
        host.finish();
    }
}

/// As [`answer`], where a change may have made a fragment of it.
fn answer_or_kept(v6: bool, bytes: &[u8]) -> Result<Vec<u8>, Option<HostDrop>> {
    match host(v6).receive(whole(bytes)) {
        Outcome::Datagram(datagram) => Ok(datagram.payload.to_vec()),
        Outcome::Kept => Err(None),
        Outcome::Drop(reason) => Err(Some(reason)),
    }
}
