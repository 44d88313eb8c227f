//! What peers send: one line a case.

use std::ops::Range;
use std::slice::from_ref;

use super::datagram::{Checksum, Datagram};
use super::frames::*;
use super::row::{Row, receive, receive_all};

/// VNI 100: I alone, and with a group.
const PLAIN: [u8; 8] = [8, 0, 0, 0, 0, 0, 100, 0];
const GROUP: [u8; 8] = [0x88, 0, 0x12, 0x34, 0, 0, 100, 0];

/// Setups that take what comes from anybody, one for each underlay.
const BOTH: [&str; 2] = ["gbp", "v6"];

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    short(&mut rows);
    headers(&mut rows);
    marks(&mut rows);
    inner_lengths(&mut rows);
    addresses(&mut rows);
    congestion(&mut rows);
    mended_checksums(&mut rows);
    checksums(&mut rows);
    fragments(&mut rows);
    outer(&mut rows);
    shapes(&mut rows);
    senders(&mut rows);
    own_address(&mut rows);
    rows
}

fn is_v6(setup: &str) -> bool {
    setup.starts_with("v6")
}

/// A datagram with this header and inner frame, on the underlay of `setup`.
fn datagram(setup: &str, header: [u8; 8], inner: Inner) -> Datagram {
    Datagram::new(is_v6(setup), header, &inner.inbound())
}

fn plain(setup: &str, inner: Inner) -> Datagram {
    datagram(setup, PLAIN, inner)
}

fn short(rows: &mut Vec<Row>) {
    for setup in BOTH {
        for len in [0, 1, 4, 7, 8] {
            let payload = PLAIN[..len].to_vec();
            let datagram = Datagram::of_payload(is_v6(setup), payload);
            rows.push(receive(setup, format!("payload_of_{len}"), &datagram));
        }
    }
}

fn headers(rows: &mut Vec<Row>) {
    const WORDS: [u32; 24] = [
        0x0800_0000,
        0x8800_1234,
        0x8848_1234,
        0x88b7_1234,
        0x88ff_ffff,
        0x8800_0000,
        0x0820_0000,
        0x0800_1234,
        0x0840_0000,
        0x0800_0001,
        0x8000_0000,
        0x0000_0000,
        0xf7ff_ffff,
        0xffff_ffff,
        0x0c00_0000,
        0x0900_0000,
        0x0a00_0000,
        0x1800_0000,
        0x2800_0000,
        0x4800_0000,
        0x8c00_0000,
        0xc800_1234,
        0x8808_0000,
        0x8840_0000,
    ];
    for setup in ["gbp", "plain", "v6", "marks"] {
        for word in WORDS {
            let header = (u64::from(word) << 32 | 100 << 8).to_be_bytes();
            rows.push(receive(
                setup,
                format!("word_{word:08x}"),
                &datagram(setup, header, Inner::udp4()),
            ));
        }
        for last in [0x01, 0x80, 0xff] {
            for word in [0x0800_0000_u32, 0x8800_1234] {
                let header = (u64::from(word) << 32 | 100 << 8 | last).to_be_bytes();
                rows.push(receive(
                    setup,
                    format!("word_{word:08x}_last_{last:02x}"),
                    &datagram(setup, header, Inner::udp4()),
                ));
            }
        }
        for vni in [0_u64, 1, 99, 101, 0x6400, 0x64_0000, 0xff_ffff] {
            for word in [0x0800_0000_u64, 0x0c00_0000] {
                let header = (word << 32 | vni << 8).to_be_bytes();
                rows.push(receive(
                    setup,
                    format!("word_{word:08x}_vni_{vni:x}"),
                    &datagram(setup, header, Inner::udp4()),
                ));
            }
        }
    }
}

/// Where the mark is seen: by protocol, behind the device's tc programs.
fn marks(rows: &mut Vec<Row>) {
    for word in [
        0x8800_0001_u32,
        0x8800_ffff,
        0x8848_abcd,
        0x8840_0001,
        0x8808_0001,
        0x88b7_1234,
        0x8800_0000,
        0x0800_1234,
    ] {
        let header = (u64::from(word) << 32 | 100 << 8).to_be_bytes();
        for (name, inner) in [
            ("v4", Inner::udp4()),
            ("v6", Inner::udp6()),
            ("arp", Inner::arp(HERE)),
            ("experimental", Inner::raw(EXPERIMENTAL, &[7; 46])),
        ] {
            rows.push(receive(
                "marks",
                format!("mark_{word:08x}_{name}"),
                &datagram("marks", header, inner),
            ));
        }
        let broadcast = Datagram::new(false, header, &Inner::udp4().to(BROADCAST).from(PEER_MAC));
        rows.push(receive(
            "marks",
            format!("mark_{word:08x}_broadcast"),
            &broadcast,
        ));
    }
}

fn inner_lengths(rows: &mut Vec<Row>) {
    for setup in ["gbp", "plain", "v6", "marks"] {
        let types = [
            ("ipv4", Inner::udp4()),
            ("ipv6", Inner::udp6()),
            ("arp", Inner::arp(HERE)),
            ("experimental", Inner::raw(EXPERIMENTAL, &[7; 46])),
            ("vlan", Inner::udp4().vlan(5)),
        ];
        for (name, inner) in types {
            for len in [
                0, 1, 6, 12, 13, 14, 15, 17, 18, 33, 34, 35, 37, 38, 53, 54, 55, 60,
            ] {
                let inner = inner.clone().inbound().len(len.max(14));
                let payload = [&PLAIN[..], &inner.0[..len]].concat();
                let datagram = Datagram::of_payload(is_v6(setup), payload);
                rows.push(receive(setup, format!("inner_{name}_{len}"), &datagram));
            }
        }
    }
}

fn addresses(rows: &mut Vec<Row>) {
    let macs = [
        ("own", OWN_MAC),
        ("peers", PEER_MAC),
        ("unknown", UNKNOWN_MAC),
        ("group", GROUP_MAC),
        ("broadcast", BROADCAST),
        ("zero", [0; 6]),
        ("bridges", BRIDGE_MAC),
    ];
    for setup in BOTH {
        for (name, mac) in macs {
            let to = Datagram::new(is_v6(setup), PLAIN, &Inner::udp4().from(PEER_MAC).to(mac));
            rows.push(receive(setup, format!("to_mac_{name}"), &to));
            let from = Datagram::new(is_v6(setup), PLAIN, &Inner::udp4().from(mac).to(OWN_MAC));
            rows.push(receive(setup, format!("from_mac_{name}"), &from));
        }
        let inner = || plain(setup, Inner::udp4());
        rows.push(receive(setup, "to_another_local_address", &inner().to(9)));
        rows.push(receive(setup, "to_no_local_address", &inner().to(8)));
        rows.push(receive(setup, "from_another_peer", &inner().from(3)));
        rows.push(receive(setup, "from_a_stranger", &inner().from(77)));
        rows.push(receive(setup, "from_off_subnet", &inner().off_subnet()));
        rows.push(receive(setup, "from_ourselves", &inner().from(1)));
        rows.push(receive(setup, "to_another_port", &inner().port(4790)));
    }
}

fn congestion(rows: &mut Vec<Row>) {
    for setup in ["gbp", "plain", "v6"] {
        for outer in 0..4 {
            for inner in 0..4 {
                for dscp in [0, 0xb8] {
                    let (o, i) = (outer | dscp, inner | (0x28 & dscp));
                    let v4 = plain(setup, Inner::udp4().tos(i)).tos(o);
                    rows.push(receive(setup, format!("ecn_{o:02x}_over_v4_{i:02x}"), &v4));
                    let v6 = plain(setup, Inner::udp6().tos(i)).tos(o);
                    rows.push(receive(setup, format!("ecn_{o:02x}_over_v6_{i:02x}"), &v6));
                }
            }
            let tcp = plain(setup, Inner::tcp4(100).tos(2)).tos(outer);
            rows.push(receive(setup, format!("ecn_{outer}_over_tcp"), &tcp));
            let bad = plain(setup, Inner::udp4().tos(2).bad_header_checksum()).tos(outer);
            rows.push(receive(
                setup,
                format!("ecn_{outer}_over_bad_header_checksum"),
                &bad,
            ));
            rows.push(receive(
                setup,
                format!("ecn_{outer}_over_arp"),
                &plain(setup, Inner::arp(HERE)).tos(outer),
            ));
            rows.push(receive(
                setup,
                format!("ecn_{outer}_over_experimental"),
                &plain(setup, Inner::raw(EXPERIMENTAL, &[0xff; 46])).tos(outer),
            ));
            for tci in [0, 1, 2, 3, 0x60ba] {
                let vlan = plain(setup, Inner::udp4().tos(2).vlan(tci)).tos(outer);
                rows.push(receive(
                    setup,
                    format!("ecn_{outer}_over_vlan_{tci:x}"),
                    &vlan,
                ));
                let vlan = plain(setup, Inner::udp6().tos(2).vlan(tci)).tos(outer);
                rows.push(receive(
                    setup,
                    format!("ecn_{outer}_over_vlan_{tci:x}_v6"),
                    &vlan,
                ));
            }
            rows.push(receive(
                setup,
                format!("ecn_{outer}_over_version_6_as_ipv4"),
                &plain(setup, Inner::raw(IPV4, &[0x62; 40])).tos(outer),
            ));
            rows.push(receive(
                setup,
                format!("ecn_{outer}_over_version_4_as_ipv6"),
                &plain(setup, Inner::raw(IPV6, &[0x46; 60])).tos(outer),
            ));
        }
    }
}

/// Header checksums at the ends of the range, to be mended with the ECN bits.
fn mended_checksums(rows: &mut Vec<Row>) {
    for sum in [0, 1, 2, 3, 0xfffd, 0xfffe, 0xffff] {
        for (inner, outer) in [(1, 3), (2, 1), (2, 3)] {
            let frame = Inner::udp4().tos(inner).with_header_checksum(sum);
            let name = format!("ecn_{outer}_over_{inner}_and_checksum_{sum:x}");
            rows.push(receive("gbp", name, &plain("gbp", frame).tos(outer)));
        }
    }
}

fn checksums(rows: &mut Vec<Row>) {
    for setup in ["gbp", "noudpcsum", "v6", "v6_noudpcsum"] {
        let inner = || plain(setup, Inner::udp4());
        for (name, checksum) in [
            ("good", Checksum::Good),
            ("zero", Checksum::Zero),
            ("bad", Checksum::Bad),
        ] {
            rows.push(receive(
                setup,
                format!("udp_checksum_{name}"),
                &inner().checksum(checksum),
            ));
        }
        for delta in [-1000, -40, -4, -1, 1, 4, 1000] {
            rows.push(receive(
                setup,
                format!("udp_length_{delta}"),
                &inner().udp_length(delta),
            ));
            let zero = inner().udp_length(delta).checksum(Checksum::Zero);
            rows.push(receive(
                setup,
                format!("udp_length_{delta}_without_checksum"),
                &zero,
            ));
        }
        let len = inner().segment_len() as i32;
        for length in [0, 7, 8, 16, 17, 30] {
            rows.push(receive(
                setup,
                format!("udp_length_is_{length}"),
                &inner().udp_length(length - len),
            ));
        }
    }
    rows.push(receive(
        "gbp",
        "ip_header_checksum_bad",
        &plain("gbp", Inner::udp4()).bad_header_checksum(),
    ));
}

fn fragments(rows: &mut Vec<Row>) {
    for setup in BOTH {
        let small = plain(setup, Inner::tcp4(200));
        let end = small.segment_len();
        let mut add = |name: &str, ranges: &[Range<usize>]| {
            rows.push(receive_all(
                setup,
                format!("fragments_{name}"),
                small.fragments(ranges),
            ))
        };
        add("in_order", &[0..64, 64..128, 128..end]);
        add("reversed", &[128..end, 64..128, 0..64]);
        add("overlapping", &[0..72, 64..128, 128..end]);
        add("twice", &[0..64, 0..64, 64..128, 128..end]);
        add("first_only", from_ref(&(0..64)));
        add("one_that_is_all", from_ref(&(0..end)));
        add("header_alone_first", &[0..8, 8..end]);
        let large = plain(setup, Inner::tcp4(9000));
        let end = large.segment_len();
        let ranges: Vec<_> = (0..end).step_by(1400).map(|at| at..at + 1400).collect();
        rows.push(receive_all(
            setup,
            "fragments_9000",
            large.fragments(&ranges),
        ));
        let large = large.tos(3);
        rows.push(receive_all(
            setup,
            "fragments_9000_ce",
            large.fragments(&ranges),
        ));
    }
}

fn outer(rows: &mut Vec<Row>) {
    for setup in BOTH {
        for ttl in [0, 1, 255] {
            rows.push(receive(
                setup,
                format!("outer_ttl_{ttl}"),
                &plain(setup, Inner::udp4()).ttl(ttl),
            ));
        }
    }
    let with = |options: &[u8]| plain("gbp", Inner::udp4()).options(options);
    rows.push(receive("gbp", "outer_options_nop", &with(&[1, 1, 1, 0])));
    rows.push(receive(
        "gbp",
        "outer_options_router_alert",
        &with(&[0x94, 4, 0, 0]),
    ));
    rows.push(receive("gbp", "outer_options_bad", &with(&[7, 1, 1, 0])));
}

/// Who may speak, where that is asked.
fn senders(rows: &mut Vec<Row>) {
    let mut add = |name: &str, datagram: Datagram| rows.push(receive("strict", name, &datagram));
    let from_other =
        |inner: Inner| Datagram::new(false, PLAIN, &inner.to(OWN_MAC).from(OTHER_PEER_MAC));
    for (name, inner) in [
        ("v4", Inner::udp4()),
        ("v6", Inner::udp6()),
        ("arp", Inner::peers_arp(HERE)),
        ("arp_in_our_name", Inner::arp(HERE)),
        ("vlan", Inner::udp4().vlan(0)),
        ("qinq", Inner::udp6().vlan(5).provider_vlan(7)),
        ("three_tags", Inner::udp4().vlan(0).vlan(0).vlan(0)),
        ("solicitation", Inner::solicitation(HERE_V6, false)),
        (
            "solicitation_in_our_name",
            Inner::solicitation(HERE_V6, true),
        ),
        ("experimental", Inner::raw(EXPERIMENTAL, &[7; 46])),
    ] {
        add(&format!("a_peer_{name}"), plain("strict", inner.clone()));
        add(
            &format!("another_peer_{name}"),
            from_other(inner.clone()).from(3),
        );
        add(
            &format!("a_peer_as_another_{name}"),
            from_other(inner.clone()).from(2),
        );
        add(
            &format!("an_fdb_destination_as_another_{name}"),
            from_other(inner.clone()).from(4),
        );
        add(
            &format!("a_stranger_{name}"),
            plain("strict", inner.clone()).from(77),
        );
        add(
            &format!("from_off_subnet_{name}"),
            plain("strict", inner).off_subnet(),
        );
    }
}

/// Who asks for our own address.
fn own_address(rows: &mut Vec<Row>) {
    let asked = |target| Inner::peers_arp(target);
    let mut add = |name: &str, frame: Inner| {
        let datagram = Datagram::new(false, PLAIN, &frame);
        rows.push(receive("own_address", name, &datagram));
    };
    add("arp_for_us", asked(OWN_ADDRESS));
    add("arp_for_us_alone", asked(OWN_ADDRESS).to(OWN_MAC));
    add("arp_for_us_padded", asked(OWN_ADDRESS).len(60));
    add("arp_for_a_container", asked(HERE));
    let mut probe = asked(OWN_ADDRESS);
    probe.0[28..32].fill(0);
    add("arp_probe_for_us", probe);
    let mut reply = asked(OWN_ADDRESS).to(OWN_MAC);
    reply.0[21] = 2;
    add("arp_reply_to_us", reply);
    add("udp", Inner::udp4().inbound());
}

/// Frames of every kind, which come in byte for byte.
fn shapes(rows: &mut Vec<Row>) {
    for setup in ["gbp", "plain", "v6", "marks"] {
        let mut add = |name: &str, frame: Inner| {
            rows.push(receive(
                setup,
                name,
                &datagram(setup, if setup == "plain" { PLAIN } else { GROUP }, frame),
            ))
        };
        add("udp4", Inner::udp4());
        add("udp6", Inner::udp6());
        add("tcp4", Inner::tcp4(1390));
        add("tcp6", Inner::tcp6(1370));
        add("larger_than_the_mtu", Inner::tcp4(1410));
        add(
            "udp_larger_than_the_mtu",
            Inner::udp4_between(THERE, HERE, [1, 2], &payload(1420)),
        );
        add("ping", Inner::ping4(7));
        add("first_fragment", Inner::fragment4(0, true));
        add("last_fragment", Inner::fragment4(3, false));
        add("arp", Inner::arp([10, 255, 43, 7]));
        add("solicitation", Inner::solicitation(HERE_V6, true));
        add("ipv4_with_padding", Inner::udp4().len(90));
        add("ipv4_header_of_no_length", Inner::raw(IPV4, &[0x40; 40]));
        add(
            "ipv4_bad_header_checksum",
            Inner::udp4().bad_header_checksum(),
        );
        add("checksum_left_to_a_card", Inner::tcp4(100).partial());
        add("checksum_left_to_a_card_v6", Inner::tcp6(100).partial());
        add("checksum_left_to_a_card_udp", Inner::udp4().partial());
        add("super_frame", Inner::tcp4(1380).partial());
        add("experimental", Inner::raw(EXPERIMENTAL, &[7; 46]));
        add(
            "nested",
            Inner::udp4_between(
                THERE,
                HERE,
                [40_000, 4789],
                &[&GROUP[..], &Inner::udp4().0].concat(),
            ),
        );
        if setup == "marks" {
            let forged = Inner::udp4().from([3, 1, 0, 0, 0, 9]).to(OWN_MAC);
            let forged = |header| Datagram::new(false, header, &forged);
            rows.push(receive(
                setup,
                "from_a_mac_that_looks_like_a_mark",
                &forged(PLAIN),
            ));
            rows.push(receive(
                setup,
                "from_a_mac_that_looks_like_a_mark_with_a_group",
                &forged(GROUP),
            ));
            continue;
        }
        add("vlan", Inner::udp4().vlan(5));
        add("qinq", Inner::udp4().vlan(5).provider_vlan(7));
        add("three_tags", Inner::udp4().vlan(5).vlan(6).provider_vlan(7));
        add("mpls", Inner::raw(0x8847, &[0, 1, 1, 64, 0x45, 0, 0, 20]));
        add("length_instead_of_type", Inner::raw(46, &[7; 46]));
        add("type_zero", Inner::raw(0, &[7; 46]));
    }
}
