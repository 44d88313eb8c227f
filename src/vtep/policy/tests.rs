use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder, PacketBuilderStep};
use etherparse::{IpFragOffset, Ipv4Header, icmpv4, icmpv6, ip_number};
use proptest::prelude::*;

use super::*;
use crate::drop_reason::DropReason;
use crate::tables::policy::{Action, Ports, Regime};
use crate::tables::{PolicyRule, PolicySpec, TableSpec};
use crate::vtep::fixture::{
    OWN_CONTAINER, PEER_CONTAINER, PEER_UNDERLAY, arp_request, compile, from_peer, local, spec,
    udp as udp_frame,
};
use crate::vtep::{Ingress, Received, ingress};
use crate::wire::{GroupId, MacAddr};

const HERE: [u8; 4] = [10, 255, 108, 184];
const THERE: [u8; 4] = [10, 255, 43, 6];
const HERE_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2).octets();
const THERE_V6: [u8; 16] = Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 2).octets();
const ECHO: IcmpEchoHeader = IcmpEchoHeader { id: 7, seq: 1 };

/// Which way, and of which family.
#[derive(Clone, Copy, Debug)]
struct Way {
    out: bool,
    v6: bool,
}

const WAYS: [Way; 4] = [
    Way {
        out: true,
        v6: false,
    },
    Way {
        out: false,
        v6: false,
    },
    Way {
        out: true,
        v6: true,
    },
    Way {
        out: false,
        v6: true,
    },
];

impl Way {
    fn ip(self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        match (self.v6, self.out) {
            (false, true) => builder.ipv4(HERE, THERE, 64),
            (false, false) => builder.ipv4(THERE, HERE, 64),
            (true, true) => builder.ipv6(HERE_V6, THERE_V6, 64),
            (true, false) => builder.ipv6(THERE_V6, HERE_V6, 64),
        }
    }

    /// Our port 4000, theirs 80.
    fn ports(self) -> (u16, u16) {
        if self.out { (4000, 80) } else { (80, 4000) }
    }

    fn tcp(self, flags: u8) -> Vec<u8> {
        let (from, to) = self.ports();
        let mut header = etherparse::TcpHeader::new(from, to, 1, 1);
        (header.fin, header.syn) = (flags & FIN != 0, flags & SYN != 0);
        (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
        let mut frame = Vec::new();
        (self.ip().tcp_header(header))
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    fn udp(self) -> Vec<u8> {
        let (from, to) = self.ports();
        let mut frame = Vec::new();
        self.ip()
            .udp(from, to)
            .write(&mut frame, b"payload")
            .unwrap();
        frame
    }

    fn echo(self, is_request: bool) -> Vec<u8> {
        let mut frame = Vec::new();
        let ip = self.ip();
        match (self.v6, is_request) {
            (false, true) => ip
                .icmpv4(Icmpv4Type::EchoRequest(ECHO))
                .write(&mut frame, b""),
            (false, false) => ip
                .icmpv4(Icmpv4Type::EchoReply(ECHO))
                .write(&mut frame, b""),
            (true, true) => ip
                .icmpv6(Icmpv6Type::EchoRequest(ECHO))
                .write(&mut frame, b""),
            (true, false) => ip
                .icmpv6(Icmpv6Type::EchoReply(ECHO))
                .write(&mut frame, b""),
        }
        .unwrap();
        frame
    }

    /// "Unreachable", quoting `quoted`, a frame.
    fn unreachable(self, quoted: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let v4 = icmpv4::DestUnreachableHeader::Port;
        let v6 = icmpv6::DestUnreachableCode::Port;
        let ip = self.ip();
        match self.v6 {
            false => {
                (ip.icmpv4(Icmpv4Type::DestinationUnreachable(v4))).write(&mut frame, &quoted[14..])
            }
            true => {
                (ip.icmpv6(Icmpv6Type::DestinationUnreachable(v6))).write(&mut frame, &quoted[14..])
            }
        }
        .unwrap();
        frame
    }
}

fn subject(frame: &[u8]) -> Subject {
    match Reading::of(Frame::new_checked(frame).unwrap()) {
        Reading::Packet(subject) => subject,
        other => panic!("{other:?}"),
    }
}

fn reading(frame: &[u8]) -> Reading {
    Reading::of(Frame::new_checked(frame).unwrap())
}

#[test]
fn a_flow_is_named_alike_from_both_sides() {
    for v6 in [false, true] {
        let [out, back] = [true, false].map(|out| Way { out, v6 });
        for (sent, answer) in [
            (out.tcp(SYN), back.tcp(SYN | ACK)),
            (out.udp(), back.udp()),
            (out.echo(true), back.echo(false)),
        ] {
            let (sent, step) = subject(&sent).outgoing().unwrap();
            assert_eq!(step, Step::Begin);
            let (claimed, _) = subject(&answer).incoming().unwrap();
            assert_eq!(claimed, sent);
        }
        let (tcp, _) = subject(&out.tcp(SYN)).outgoing().unwrap();
        let (udp, _) = subject(&out.udp()).outgoing().unwrap();
        assert_ne!(tcp, udp);
    }
}

#[test]
fn rules_are_asked_for_the_destination_port() {
    for way in WAYS {
        let (_, port) = way.ports();
        let asked = |proto, port| Some(Service { proto, port });
        assert_eq!(subject(&way.tcp(ACK)).service(), asked(Proto::Tcp, port));
        assert_eq!(subject(&way.udp()).service(), asked(Proto::Udp, port));
        for is_request in [true, false] {
            let echo = subject(&way.echo(is_request));
            assert_eq!(echo.service(), asked(Proto::Icmp, 0));
        }
    }
}

#[test]
fn tcp_flags_say_how_far_a_flow_is() {
    for (flags, step) in [
        (SYN, Some(Step::Begin)),
        (SYN | ACK, Some(Step::Answer)),
        (ACK, Some(Step::Go)),
        (FIN | ACK, Some(Step::Finish)),
        (RST, Some(Step::Abort)),
        (RST | ACK, Some(Step::Abort)),
        (0, None),
    ] {
        let [out, back] = [WAYS[0], WAYS[1]].map(|way| subject(&way.tcp(flags)));
        assert_eq!(out.outgoing().map(|(_, step)| step), step, "{flags:x}");
        // A beginning is nobody's answer.
        let answer = step.filter(|step| *step != Step::Begin);
        assert_eq!(back.incoming().map(|(_, step)| step), answer, "{flags:x}");
        assert_eq!(back.is_under_way(), answer.is_some(), "{flags:x}");
    }
}

#[test]
fn a_request_is_no_answer_and_an_answer_begins_nothing() {
    for v6 in [false, true] {
        let [out, back] = [true, false].map(|out| Way { out, v6 });
        assert_eq!(subject(&back.echo(true)).incoming(), None);
        let (_, step) = subject(&out.echo(false)).outgoing().unwrap();
        assert_eq!(step, Step::Answer);
    }
}

#[test]
fn an_error_is_of_the_flow_that_it_quotes_if_that_was_ours() {
    for v6 in [false, true] {
        let [out, back] = [true, false].map(|out| Way { out, v6 });
        for sent in [out.tcp(ACK), out.udp(), out.echo(true)] {
            let (flow, _) = subject(&sent).outgoing().unwrap();
            for cut in [sent.len(), 14 + if v6 { 48 } else { 28 }] {
                let error = subject(&back.unreachable(&sent[..cut]));
                assert_eq!(error.incoming(), Some((flow, Step::Tell)));
                assert!(!error.may_be_told());
            }
        }
        // What they sent, what is cut off too soon, an answer of ours.
        for quoted in [back.udp(), out.udp()[..14 + 20].to_vec(), out.echo(false)] {
            assert_eq!(subject(&back.unreachable(&quoted)).incoming(), None);
        }
    }
}

/// A fragment of a UDP packet to us.
fn fragment(offset: u16, more: bool, id: u16, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16;
    let mut header = Ipv4Header::new(len, 64, ip_number::UDP, THERE, HERE).unwrap();
    header.fragment_offset = IpFragOffset::try_new(offset / 8).unwrap();
    (header.more_fragments, header.identification) = (more, id);
    header.header_checksum = header.calc_header_checksum();
    let mut frame = [[2; 6], [4; 6]].concat();
    frame.extend([8, 0]);
    frame.extend(header.to_bytes());
    frame.extend(payload);
    frame
}

fn fragment_v6(offset: u16, more: bool, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = [[2; 6], [4; 6]].concat();
    frame.extend([
        0x86,
        0xdd,
        0x60,
        0,
        0,
        0,
        0,
        8 + payload.len() as u8,
        44,
        64,
    ]);
    frame.extend(THERE_V6);
    frame.extend(HERE_V6);
    frame.extend([17, 0]);
    frame.extend((offset | u16::from(more)).to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    frame
}

#[test]
fn later_fragments_are_judged_by_their_first() {
    let header = [0, 80, 0x0f, 0xa0, 0, 16, 0, 0];
    type Cut = fn(u16, bool, u32, &[u8]) -> Vec<u8>;
    let v4: Cut = |offset, more, id, payload| fragment(offset, more, id as u16, payload);
    for cut in [v4, fragment_v6] {
        let first = cut(0, true, 77, &header);
        let frame = Frame::new_checked(&first).unwrap();
        let train = first_fragment(frame).expect("a first fragment");
        assert_eq!(
            subject(&first).service().map(|service| service.port),
            Some(4000)
        );
        for (later, is_of_it) in [
            (cut(8, true, 77, &[1; 8]), true),
            (cut(16, false, 77, &[1; 3]), true),
            (cut(8, true, 78, &[1; 8]), false),
        ] {
            let later_subject = subject(&later);
            assert_eq!(later_subject.service(), None);
            assert!(!later_subject.may_be_told());
            assert_eq!(first_fragment(Frame::new_checked(&later).unwrap()), None);
            let claimed = later_subject.incoming();
            assert_eq!(claimed == Some((train, Step::Go)), is_of_it, "{claimed:?}");
        }
        // Too short for the ports: nothing is known of it.
        let tiny = subject(&cut(0, true, 77, &header[..4]));
        assert_eq!((tiny.service(), tiny.incoming()), (None, None));
    }
    let whole = WAYS[1].udp();
    assert_eq!(first_fragment(Frame::new_checked(&whole).unwrap()), None);
}

#[test]
fn headers_that_are_cut_off_or_lie_are_part_of_nothing() {
    let udp = WAYS[1].udp();
    let mut version = udp.clone();
    version[14] = 0x65;
    let mut long = udp.clone();
    long[17] = 200;
    let tcp = WAYS[1].tcp(ACK);
    let mut short_tcp = tcp.clone();
    short_tcp.truncate(14 + 20 + 19);
    short_tcp[17] = 39;
    for frame in [version, long, short_tcp] {
        let subject = subject(&frame);
        assert_eq!((subject.service(), subject.incoming()), (None, None));
        assert!(!subject.may_be_told());
    }
    assert_eq!(reading(&udp[..14 + 12]), Reading::Opaque);
}

/// A denial in a policy that lets in by default must not be got round by what hides the port.
#[test]
fn what_cannot_be_read_is_refused_whatever_the_default() {
    let regime = Regime {
        default: Action::Accept,
        ..Regime::default()
    };
    let policy = Policy::compile(&PolicySpec {
        regime,
        rules: vec![],
    });
    let decided = |frame: &[u8]| decide(&policy, &reading(frame), Some(Mark(7)));
    let tcp = WAYS[1].tcp(SYN);
    assert_eq!(decided(&tcp), Some(Decision::Default(Action::Accept)));
    // RFC 1858 section 3: ports and no flags.
    let mut tiny = fragment(0, true, 7, &tcp[14 + 20..][..8]);
    tiny[14 + 9] = protocol::TCP;
    let mut tagged = tcp.clone();
    for _ in 0..3 {
        tagged.splice(12..12, [0x81, 0, 0, 0]);
    }
    let mut behind_nine = WAYS[3].tcp(SYN);
    let mut next = std::mem::replace(&mut behind_nine[14 + 6], protocol::DESTINATION_OPTIONS);
    for _ in 0..9 {
        behind_nine.splice(14 + 40..14 + 40, [next, 0, 1, 4, 0, 0, 0, 0]);
        next = protocol::DESTINATION_OPTIONS;
    }
    behind_nine[14 + 5] += 9 * 8;
    for frame in [&tiny, &tagged, &behind_nine, &tcp[..14 + 12].to_vec()] {
        assert_eq!(decided(frame), Some(Decision::Unreadable), "{frame:02x?}");
    }
}

#[test]
fn vlan_tags_hide_nothing() {
    let tag = [0x81, 0, 0, 0];
    let mut frame = WAYS[1].udp();
    for _ in 0..2 {
        frame.splice(12..12, tag);
        assert_eq!(
            subject(&frame).service().map(|service| service.port),
            Some(4000)
        );
    }
    frame.splice(12..12, tag);
    assert_eq!(reading(&frame), Reading::Opaque);
}

#[test]
fn arp_and_neighbor_discovery_are_not_judged() {
    let arp = arp_request(MacAddr::new([2; 6]), PEER_CONTAINER, OWN_CONTAINER);
    assert_eq!(reading(&arp), Reading::Exempt);
    for (kind, hop_limit, is_exempt) in [
        (135, 255, true),
        (136, 255, true),
        (135, 64, false),
        (137, 255, false),
        (128, 255, false),
    ] {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv6(THERE_V6, HERE_V6, hop_limit)
            .icmpv6_raw(kind, 0, [0; 4])
            .write(&mut frame, &[0; 16])
            .unwrap();
        assert_eq!(reading(&frame) == Reading::Exempt, is_exempt, "{kind}");
    }
}

fn rule(proto: Proto, port: u16) -> PolicyRule {
    PolicyRule {
        destination: "10.255.108.184/32".parse().unwrap(),
        group: GroupId(7),
        proto,
        ports: Ports::new(port, port).unwrap(),
        action: Action::Accept,
    }
}

fn enforced(regime: Regime, rules: Vec<PolicyRule>) -> TableSpec {
    TableSpec {
        policy: Some(PolicySpec { regime, rules }),
        ..spec()
    }
}

const GROUP_7: [u8; 8] = [0x88, 0, 0, 7, 0, 0, 1, 0];
const RECEIVED: Received = Received {
    source: PEER_UNDERLAY,
    tos: 0,
};

#[test]
fn a_datagram_is_delivered_by_a_rule_and_otherwise_unsolicited() {
    let tables = compile(
        local(),
        &enforced(Regime::default(), vec![rule(Proto::Udp, 53)]),
    );
    let is_delivered = |bytes: &[u8]| match ingress(&tables, bytes, RECEIVED) {
        Ingress::Deliver(deliver) => {
            assert_eq!(deliver.mark, Some(Mark(7)));
            true
        }
        Ingress::Unsolicited { deliver, subject } => {
            assert!(deliver.peer.is_some());
            assert_eq!(subject.unwrap().destination, IpAddr::from(OWN_CONTAINER));
            false
        }
        other => panic!("{other:?}"),
    };
    let mut packet = from_peer(GROUP_7, 0);
    assert!(is_delivered(&packet));
    packet[8 + 14 + 20 + 3] = 54;
    assert!(!is_delivered(&packet));
    let group_8 = from_peer([0x88, 0, 0, 8, 0, 0, 1, 0], 0);
    assert!(matches!(
        ingress(&tables, &group_8, RECEIVED),
        Ingress::Unsolicited { .. }
    ));
    let no_group = from_peer([0x08, 0, 0, 7, 0, 0, 1, 0], 0);
    assert!(matches!(
        ingress(&tables, &no_group, RECEIVED),
        Ingress::Unsolicited { .. }
    ));
}

#[test]
fn what_is_refused_anyway_is_refused_for_that() {
    let tables = compile(local(), &enforced(Regime::default(), vec![]));
    let spoofed = udp_frame(
        (
            crate::vtep::fixture::PEER_MAC,
            crate::vtep::fixture::OWN_MAC,
        ),
        (Ipv4Addr::new(10, 255, 44, 1), OWN_CONTAINER),
        0,
    );
    let packet = [&GROUP_7[..], &spoofed].concat();
    assert!(matches!(
        ingress(&tables, &packet, RECEIVED),
        Ingress::Drop {
            reason: DropReason::SourceNotPeers,
            ..
        }
    ));
}

#[test]
fn without_a_policy_everything_is_delivered() {
    let tables = compile(local(), &spec());
    assert!(matches!(
        ingress(&tables, &from_peer(GROUP_7, 0), RECEIVED),
        Ingress::Deliver(_)
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 14..160), ethertype in 0..4_usize) {
        let mut bytes = bytes;
        bytes[12..14].copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0], [8, 6]][ethertype]);
        if let Reading::Packet(subject) = reading(&bytes) {
            let _ = (subject.service(), subject.outgoing(), subject.incoming());
            let _ = (subject.fragments(), subject.may_be_told());
        }
        let _ = first_fragment(Frame::new_checked(&bytes).unwrap());
    }

    #[test]
    fn what_is_let_in_is_let_in_by_the_rules_or_as_a_reply(bytes in proptest::collection::vec(any::<u8>(), 40..120)) {
        let tables = compile(local(), &enforced(Regime::default(), vec![rule(Proto::Udp, 53)]));
        let mut packet = from_peer(GROUP_7, 0);
        packet.truncate(8 + 14);
        packet.extend([0x45, 0, 0]);
        packet.extend(&bytes[3..12]);
        packet.extend(PEER_CONTAINER.octets());
        packet.extend(OWN_CONTAINER.octets());
        packet.extend(&bytes[20..]);
        packet[8 + 14 + 3] = bytes.len() as u8;
        if let Ingress::Deliver(_) = ingress(&tables, &packet, RECEIVED) {
            let ip = &packet[8 + 14..];
            prop_assert_eq!((ip[9], &ip[22..24]), (17, &[0, 53][..]));
            prop_assert_eq!(u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff, 0);
        }
    }
}
