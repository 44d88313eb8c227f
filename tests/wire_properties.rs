//! Properties of the wire codecs: whatever bytes arrive nothing panics, and etherparse reads frames as we do.

use etherparse::{
    ArpOperation, Ethernet2HeaderSlice, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4HeaderSlice, Ipv6FlowLabel, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use silk_vtep::wire::ethernet::{self, EtherType, Frame};
use silk_vtep::wire::ip::{self, Network, Transport};
use silk_vtep::wire::{Ecn, MacAddr, arp, checksum, flow, ndisc, vnet, vxlan};

/// Frames of any bytes, with an ethertype that leads somewhere, or honest ones spoilt.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let types = vec![0x0800_u16, 0x0806, 0x86dd, 0x8100, 0x88a8];
    let typed = (vec(any::<u8>(), 14..160), select(types)).prop_map(|(mut frame, ethertype)| {
        frame[ethernet::ETHERTYPE].copy_from_slice(&ethertype.to_be_bytes());
        frame
    });
    prop_oneof![vec(any::<u8>(), 0..160), typed, mangled_frame()]
}

/// Honest TCP and UDP frames with some bytes overwritten and perhaps cut short.
fn mangled_frame() -> impl Strategy<Value = Vec<u8>> {
    let mangling = vec((any::<Index>(), any::<u8>()), 0..4);
    (any::<[bool; 3]>(), mangling, any::<Index>()).prop_map(|([v6, tcp, cut], mangling, len)| {
        let mut frame = honest_frame(v6, tcp);
        for (at, value) in mangling {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if cut {
            frame.truncate(len.index(frame.len()));
        }
        frame
    })
}

fn honest_frame(v6: bool, tcp: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if v6 {
        builder.ipv6([0xfd; 16], [0xfe; 16], 64)
    } else {
        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut frame = Vec::new();
    if tcp {
        builder.tcp(1, 2, 3, 4).write(&mut frame, &[7; 20]).unwrap();
    } else {
        builder.udp(1, 2).write(&mut frame, &[7; 20]).unwrap();
    }
    frame
}

fn locate(bytes: &[u8]) -> Option<Transport> {
    let frame = Frame::new_checked(bytes)?;
    Network::parse_untagged(frame).ok()?.transport(frame)
}

/// Where etherparse finds an unfragmented TCP or UDP header: protocol and offset.
fn etherparse_locate(bytes: &[u8]) -> Option<(u8, usize)> {
    let sliced = SlicedPacket::from_ethernet(bytes).ok()?;
    let (protocol, segment) = match sliced.transport? {
        TransportSlice::Tcp(tcp) => (ip::protocol::TCP, tcp.slice()),
        TransportSlice::Udp(udp) => (ip::protocol::UDP, udp.slice()),
        _ => return None,
    };
    Some((protocol, segment.as_ptr().addr() - bytes.as_ptr().addr()))
}

/// etherparse takes a length of 0 for "the rest of the frame"; to us it is a lie or a jumbogram.
fn claims_no_length(bytes: &[u8]) -> bool {
    let frame = Frame::new_checked(bytes).unwrap();
    match Network::parse_untagged(frame).unwrap() {
        Network::V4(ip) => ip.total_len() == 0,
        Network::V6(ip) => ip.payload_len() == 0,
        Network::Other => false,
    }
}

fn header_checksum_holds(frame: &[u8]) -> bool {
    let header = Ipv4HeaderSlice::from_slice(&frame[14..])
        .unwrap()
        .to_header();
    // 0 and 0xffff are equal.
    header.header_checksum % 0xffff == header.calc_header_checksum() % 0xffff
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_frame_panics_a_parser(bytes in any_frame(), ecn in 0_u8..4) {
        if let Some(frame) = Frame::new_checked(&bytes) {
            let _ = (arp::Request::parse(frame), ndisc::Solicitation::parse(frame), flow::hash(frame));
            if let Ok(network) = Network::parse(frame) {
                let _ = (network.addresses(), network.ecn());
            }
        }
        if let Some(transport) = locate(&bytes) {
            prop_assert!(transport.network_offset < transport.offset);
            prop_assert!(transport.offset + transport.len <= bytes.len());
        }
        let mut written = bytes.clone();
        ip::write_ecn(&mut written, Ecn::from_tos(ecn));
        prop_assert_eq!(written.len(), bytes.len());
    }

    #[test]
    fn no_header_panics_a_parser(bytes: [u8; vnet::HEADER_LEN], gbp: bool) {
        let _ = vnet::VnetHeader::parse(&bytes);
        let header = bytes.first_chunk().unwrap();
        if let Ok(header) = vxlan::Header::parse(header, gbp) {
            prop_assert!(header.vni.value() < 1 << 24);
        }
    }

    #[test]
    fn etherparse_finds_the_same_transport_header(bytes in mangled_frame()) {
        if let Some((protocol, offset)) = etherparse_locate(&bytes) && !claims_no_length(&bytes) {
            let transport = locate(&bytes).unwrap();
            prop_assert_eq!((transport.protocol, transport.offset), (protocol, offset));
        }
    }

    #[test]
    fn honest_frames_have_a_transport_header(v6: bool, tcp: bool, padding in 0_usize..20) {
        let mut bytes = honest_frame(v6, tcp);
        bytes.extend(vec![0; padding]);
        let transport = locate(&bytes).unwrap();
        prop_assert_eq!(Some((transport.protocol, transport.offset)), etherparse_locate(&bytes));
        prop_assert_eq!(transport.offset + transport.len + padding, bytes.len());
    }

    #[test]
    fn etherparse_writes_the_ipv4_header_we_read(
        (dscp, ecn, ttl, protocol) in (0_u8..64, 0_u8..4, any::<u8>(), any::<u8>()),
        (id, offset, payload_len) in (any::<u16>(), 0_u16..0x2000, 0_u16..100),
        (dont_fragment, more_fragments) in any::<(bool, bool)>(),
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
        options in 0_usize..=10,
    ) {
        let mut header = Ipv4Header::new(payload_len, ttl, IpNumber(protocol), source, destination).unwrap();
        header.dscp = IpDscp::try_new(dscp).unwrap();
        header.ecn = IpEcn::try_new(ecn).unwrap();
        header.identification = id;
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.dont_fragment = dont_fragment;
        header.more_fragments = more_fragments;
        header.options = vec![1; options * 4][..].try_into().unwrap();
        let bytes = header.to_bytes();

        let ip = ip::Ipv4::new_checked(&bytes).unwrap();
        prop_assert_eq!((ip.version(), ip.header_len()), (4, Some(header.header_len())));
        prop_assert_eq!((ip.tos(), ip.total_len()), (dscp << 2 | ecn, header.total_len));
        prop_assert_eq!((ip.id(), ip.ttl(), ip.protocol()), (id, ttl, protocol));
        prop_assert_eq!((ip.source().octets(), ip.destination().octets()), (source, destination));
        prop_assert_eq!((ip.dont_fragment(), ip.fragment_offset()), (dont_fragment, offset * 8));
        prop_assert_eq!(ip.is_fragment(), header.is_fragmenting_payload());
    }

    #[test]
    fn etherparse_writes_the_ipv6_header_we_read(
        (traffic_class, next_header, hop_limit) in any::<(u8, u8, u8)>(),
        (flow_label, payload_length) in (0_u32..1 << 20, any::<u16>()),
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
    ) {
        let header = Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::try_new(flow_label).unwrap(),
            payload_length,
            next_header: IpNumber(next_header),
            hop_limit,
            source,
            destination,
        };
        let bytes = header.to_bytes();
        let ip = ip::Ipv6::new_checked(&bytes).unwrap();
        prop_assert_eq!((ip.version(), ip.traffic_class()), (6, traffic_class));
        prop_assert_eq!((ip.payload_len(), ip.next_header()), (payload_length, next_header));
        prop_assert_eq!(ip.hop_limit(), hop_limit);
        prop_assert_eq!((ip.source().octets(), ip.destination().octets()), (source, destination));
    }

    #[test]
    fn written_ecn_keeps_the_ipv4_checksum_for_etherparse(
        tos: u8, id: u16, source: [u8; 4], written in vec(0_u8..4, 1..5),
    ) {
        let mut frame = honest_frame(false, true);
        frame[15] = tos;
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[26..30].copy_from_slice(&source);
        frame[24..26].fill(0);
        let sum = !checksum::fold(checksum::sum(0, &frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        prop_assert!(header_checksum_holds(&frame));
        for ecn in written {
            ip::write_ecn(&mut frame, Ecn::from_tos(ecn));
            prop_assert_eq!(frame[15], tos & !3 | ecn);
            prop_assert!(header_checksum_holds(&frame));
        }
    }

    #[test]
    fn etherparse_agrees_on_the_ethernet_header(bytes in vec(any::<u8>(), 14..60)) {
        let header = Ethernet2HeaderSlice::from_slice(&bytes).unwrap();
        let frame = Frame::new_checked(&bytes).unwrap();
        prop_assert_eq!(frame.destination().octets(), header.destination());
        prop_assert_eq!(frame.source().octets(), header.source());
        prop_assert_eq!(frame.ethertype(), EtherType(header.ether_type().0));
    }

    #[test]
    fn etherparse_reads_the_arp_reply_we_write(
        sender_mac: [u8; 6], mac: [u8; 6], sender_ip: [u8; 4], target_ip: [u8; 4],
    ) {
        let request = arp::Request {
            sender_mac: MacAddr::new(sender_mac),
            sender_ip: sender_ip.into(),
            target_ip: target_ip.into(),
        };
        let reply = request.reply(MacAddr::new(mac));
        let sliced = SlicedPacket::from_ethernet(&reply).unwrap();
        let Some(NetSlice::Arp(arp)) = sliced.net else {
            panic!("{sliced:?} is no ARP");
        };
        prop_assert_eq!(arp.operation(), ArpOperation::REPLY);
        prop_assert_eq!((arp.sender_hw_addr(), arp.sender_protocol_addr()), (&mac[..], &target_ip[..]));
        prop_assert_eq!((arp.target_hw_addr(), arp.target_protocol_addr()), (&sender_mac[..], &sender_ip[..]));
    }
}
