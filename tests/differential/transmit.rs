//! What the host sends: one line a case.

use super::case::Stimulus;
use super::device::NEIGHBOR_WITHOUT_FDB;
use super::frames::*;
use super::row::{Row, transmit};
use super::super_frame::{super_frame, with_ecn};

/// Every kind of 32-bit mark: zero, ids, D, A, both with an id, and bits that are nobody's.
const MARKS: [u32; 11] = [
    0,
    0x1234,
    0xffff,
    0x0040_1234,
    0x0008_1234,
    0x0048_abcd,
    0x0001_0000,
    0xff00_0000,
    0x8000_0000,
    0xdead_beef,
    u32::MAX,
];

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    marks(&mut rows);
    tos(&mut rows);
    ttl(&mut rows);
    dont_fragment(&mut rows);
    shapes(&mut rows);
    super_frames(&mut rows);
    too_big(&mut rows);
    forwarding(&mut rows);
    answers(&mut rows);
    rows
}

fn marks(rows: &mut Vec<Row>) {
    for mark in MARKS {
        rows.push(transmit(
            "marks",
            format!("mark_{mark:x}"),
            (mark, Inner::udp4()),
        ));
        rows.push(transmit(
            "marks",
            format!("mark_{mark:x}_v6"),
            (mark, Inner::udp6()),
        ));
        rows.push(transmit(
            "marks",
            format!("mark_{mark:x}_arp"),
            (mark, Inner::arp(THERE)),
        ));
        rows.push(transmit(
            "marks",
            format!("mark_{mark:x}_broadcast"),
            (mark, Inner::udp4().to(BROADCAST)),
        ));
    }
    for mark in [0, 3] {
        for (name, mac) in [
            ("another_mac", UNKNOWN_MAC),
            ("a_mac_that_looks_like_a_mark", [3, 1, 0, 0, 0, 9]),
            ("what_a_mark_leaves", [2, 1, 0, 0, 0, 0]),
        ] {
            let frame = Inner::udp4().from(mac);
            rows.push(transmit(
                "marks",
                format!("mark_{mark:x}_from_{name}"),
                (mark, frame),
            ));
        }
    }
    rows.push(transmit(
        "plain",
        "a_mark_is_not_sent",
        (0x1234, Inner::udp4()),
    ));
    rows.push(transmit("plain", "no_mark", Inner::udp4()));
    rows.push(transmit(
        "groups",
        "the_senders_group",
        (0x1234, Inner::udp4()),
    ));
    rows.push(transmit(
        "groups",
        "another_senders",
        (
            0,
            Inner::udp4_between([10, 255, 108, 7], THERE, [1, 2], b"x"),
        ),
    ));
}

fn tos(rows: &mut Vec<Row>) {
    for setup in [
        "gbp",
        "tos_43",
        "tos_inherit",
        "v6",
        "v6_tos_43",
        "v6_tos_inherit",
    ] {
        for tos in [0, 1, 2, 3, 0xb8, 0xb9, 0xba, 0xbb, 0xfc, 0xff] {
            rows.push(transmit(
                setup,
                format!("tos_{tos:02x}_v4"),
                Inner::udp4().tos(tos),
            ));
            rows.push(transmit(
                setup,
                format!("tos_{tos:02x}_v6"),
                Inner::udp6().tos(tos),
            ));
        }
        rows.push(transmit(setup, "tos_arp", Inner::arp(THERE)));
        rows.push(transmit(
            setup,
            "tos_experimental",
            Inner::raw(EXPERIMENTAL, &[0xff; 40]),
        ));
        for tci in [0, 1, 2, 3, 5, 0x60b9, 0xefff] {
            rows.push(transmit(
                setup,
                format!("tos_vlan_{tci:x}_v4"),
                Inner::udp4().tos(2).vlan(tci),
            ));
            rows.push(transmit(
                setup,
                format!("tos_vlan_{tci:x}_v6"),
                Inner::udp6().tos(2).vlan(tci),
            ));
        }
        rows.push(transmit(
            setup,
            "tos_qinq",
            Inner::udp4().tos(2).vlan(5).provider_vlan(7),
        ));
    }
}

fn ttl(rows: &mut Vec<Row>) {
    for setup in ["gbp", "ttl_7", "ttl_inherit", "v6", "v6_ttl_inherit"] {
        for ttl in [0, 1, 2, 17, 63, 255] {
            rows.push(transmit(
                setup,
                format!("ttl_{ttl}_v4"),
                Inner::udp4().ttl(ttl),
            ));
            rows.push(transmit(
                setup,
                format!("ttl_{ttl}_v6"),
                Inner::udp6().ttl(ttl),
            ));
        }
        rows.push(transmit(setup, "ttl_arp", Inner::arp(THERE)));
        rows.push(transmit(
            setup,
            "ttl_experimental",
            Inner::raw(EXPERIMENTAL, &[9; 40]),
        ));
        rows.push(transmit(setup, "ttl_vlan", Inner::udp4().ttl(17).vlan(5)));
        rows.push(transmit(
            setup,
            "ttl_vlan_v6",
            Inner::udp6().ttl(17).vlan(5),
        ));
    }
}

fn dont_fragment(rows: &mut Vec<Row>) {
    for setup in ["gbp", "df_set", "df_inherit", "v6"] {
        rows.push(transmit(setup, "df_v4_without", Inner::udp4().df(false)));
        rows.push(transmit(setup, "df_v4_with", Inner::udp4().df(true)));
        rows.push(transmit(setup, "df_v6", Inner::udp6()));
        rows.push(transmit(setup, "df_arp", Inner::arp(THERE)));
        rows.push(transmit(setup, "df_vlan", Inner::udp4().df(true).vlan(5)));
        rows.push(transmit(setup, "df_vlan_v6", Inner::udp6().vlan(5)));
        rows.push(transmit(
            setup,
            "df_experimental",
            Inner::raw(EXPERIMENTAL, &[0xff; 40]),
        ));
        rows.push(transmit(setup, "df_fragment", Inner::fragment4(0, true)));
    }
}

/// Frames of every kind, which go out byte for byte.
fn shapes(rows: &mut Vec<Row>) {
    for setup in ["gbp", "plain", "noudpcsum", "srcport", "v6", "v6_noudpcsum"] {
        let mut add = |name: &str, frame: Inner| rows.push(transmit(setup, name, frame));
        add("udp4", Inner::udp4());
        add("udp6", Inner::udp6());
        add("udp6_flow_label", Inner::udp6().flow_label(0xabcde));
        add("tcp4", Inner::tcp4(100));
        add("tcp6", Inner::tcp6(100));
        add("tcp4_empty", Inner::tcp4(0));
        add("tcp4_of_the_mtu", Inner::tcp4(1390));
        add("tcp6_of_the_mtu", Inner::tcp6(1370));
        add("ping", Inner::ping4(7));
        add("first_fragment", Inner::fragment4(0, true));
        add("last_fragment", Inner::fragment4(3, false));
        add("arp", Inner::arp(THERE));
        add("vlan", Inner::udp4().vlan(5));
        add("priority_tag", Inner::udp4().vlan(0xe000));
        add("qinq", Inner::udp4().vlan(5).provider_vlan(7));
        add("three_tags", Inner::udp4().vlan(5).vlan(6).provider_vlan(7));
        add("vlan_without_room_for_a_type", Inner::raw(0x8100, &[0, 5]));
        add(
            "vlan_with_14_bytes_behind",
            Inner::raw(0x8100, &[0, 5, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        );
        add("experimental_14_bytes", Inner::raw(EXPERIMENTAL, &[]));
        add("experimental_16_bytes", Inner::raw(EXPERIMENTAL, &[1, 2]));
        add("experimental_60_bytes", Inner::raw(EXPERIMENTAL, &[7; 46]));
        add("length_instead_of_type", Inner::raw(46, &[7; 46]));
        add("type_zero", Inner::raw(0, &[7; 46]));
        add("mpls", Inner::raw(0x8847, &[0, 1, 1, 64, 0x45, 0, 0, 20]));
        add("ipv4_14_bytes", Inner::raw(IPV4, &[]));
        add("ipv4_33_bytes", Inner::udp4().len(33));
        add("ipv4_34_bytes", Inner::udp4().len(34));
        add("ipv4_35_bytes", Inner::udp4().len(35));
        add("ipv4_with_padding", Inner::udp4().len(90));
        add(
            "ipv4_bad_header_checksum",
            Inner::udp4().bad_header_checksum(),
        );
        add("ipv4_that_says_version_6", Inner::raw(IPV4, &[0x65; 40]));
        add("ipv4_header_of_no_length", Inner::raw(IPV4, &[0x40; 40]));
        add("ipv6_14_bytes", Inner::raw(IPV6, &[]));
        add("ipv6_53_bytes", Inner::udp6().len(53));
        add("ipv6_54_bytes", Inner::udp6().len(54));
        add("ipv6_that_says_version_4", Inner::raw(IPV6, &[0x45; 60]));
        add("arp_14_bytes", Inner::raw(ARP, &[]));
        add("arp_cut", Inner::arp(THERE).len(30));
        add("from_a_foreign_mac", Inner::udp4().from(UNKNOWN_MAC));
        add("from_a_multicast_mac", Inner::udp4().from(GROUP_MAC));
        add("from_mac_zero", Inner::udp4().from([0; 6]));
        add(
            "from_a_foreign_address",
            Inner::udp4_between([192, 0, 2, 1], THERE, [1, 2], b"x"),
        );
        add("checksum_left_to_a_card", Inner::tcp4(100).partial());
        add(
            "nested",
            Inner::udp4_between(HERE, THERE, [40_000, 4789], &nested()),
        );
    }
}

/// A VXLAN datagram's payload.
fn nested() -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, 100, 0][..], &Inner::udp4().0].concat()
}

fn super_frames(rows: &mut Vec<Row>) {
    for setup in [
        "gbp",
        "noudpcsum",
        "v6",
        "tos_43",
        "df_set",
        "flood",
        "srcport",
    ] {
        let mut add = |name: &str, frame: Stimulus| {
            let row = transmit(setup, name, frame);
            // Without checksums there is no UDP_SEGMENT: each packet is a send of its own, whose ID the kernel draws anew.
            rows.push(if setup == "noudpcsum" {
                row
            } else {
                row.counting_ids()
            });
        };
        for len in [3000, 20_000, 60_000] {
            add(
                &format!("tso_{len}_v4"),
                super_frame(Inner::tcp4(len), 1390),
            );
            add(
                &format!("tso_{len}_v6"),
                super_frame(Inner::tcp6(len), 1370),
            );
            add(
                &format!("uso_{len}_v4"),
                super_frame(Inner::udp4_of(len), 1402),
            );
            add(
                &format!("uso_{len}_v6"),
                super_frame(Inner::udp6_of(len), 1382),
            );
        }
        let tcp = || Inner::tcp4(5000);
        add("tso_ecn", super_frame(tcp().tos(2), 1390));
        add("tso_small_segments", super_frame(tcp(), 100));
        add("tso_even", super_frame(tcp(), 1000));
        add("tso_of_one_segment", super_frame(Inner::tcp4(700), 1390));
        add("tso_df", super_frame(tcp().df(true), 1390));
        add("tso_in_a_vlan", super_frame(tcp().vlan(5), 1390));
        // FIN and PSH stand in the last segment, CWR in the first where the card is told of it.
        for flags in [0x11, 0x19, 0x18, 0x30, 0x58, 0x98, 0xd9, 0x02] {
            let v4 = super_frame(tcp().tcp_flags(flags), 1390);
            add(&format!("tso_flags_{flags:02x}"), v4.clone());
            add(&format!("tso_flags_{flags:02x}_ecn"), with_ecn(v4));
            let v6 = super_frame(Inner::tcp6(5000).tcp_flags(flags), 1370);
            add(&format!("tso_flags_{flags:02x}_v6"), v6);
        }
        for id in [0, 0xfffe, 0xffff] {
            add(&format!("tso_id_{id:x}"), super_frame(tcp().id(id), 1390));
        }
        add("uso_small_segments", super_frame(Inner::udp4_of(5000), 100));
        add("uso_even", super_frame(Inner::udp4_of(5000), 1000));
        // Each copy counts for itself.
        let everybody = super_frame(tcp().to(BROADCAST), 1390);
        rows.push(transmit(setup, "tso_broadcast", everybody));
    }
}

/// The underlay carries 1400 bytes, of which 50 (70) are the tunnel's.
fn too_big(rows: &mut Vec<Row>) {
    for setup in ["shrunk", "shrunk_df_set", "shrunk_df_inherit", "v6_shrunk"] {
        for len in [1310, 1330, 1350, 1351, 1352, 1358, 1400, 1430] {
            let frame = |df| Inner::tcp4(len - 40).df(df);
            rows.push(transmit(setup, format!("v4_{len}"), frame(false)));
            rows.push(transmit(setup, format!("v4_{len}_df"), frame(true)));
            rows.push(transmit(setup, format!("v6_{len}"), Inner::tcp6(len - 60)));
            rows.push(transmit(
                setup,
                format!("experimental_{len}"),
                Inner::raw(EXPERIMENTAL, &payload(len)),
            ));
        }
    }
}

fn forwarding(rows: &mut Vec<Row>) {
    for setup in ["gbp", "plain", "v6", "flood", "silent"] {
        let mut add =
            |name: &str, frame: Inner| rows.push(transmit(setup, format!("to_{name}"), frame));
        add("a_peer", Inner::udp4());
        add("another_peer", Inner::udp4().to(OTHER_PEER_MAC));
        add("an_unknown_mac", Inner::udp4().to(UNKNOWN_MAC));
        add("our_own_mac", Inner::udp4().to(OWN_MAC));
        add("broadcast", Inner::udp4().to(BROADCAST));
        add("a_group_with_an_entry", Inner::udp4().to(GROUP_MAC));
        add("a_group_without", Inner::udp4().to(OTHER_GROUP_MAC));
        add("mac_zero", Inner::udp4().to([0; 6]));
        add("bridges", Inner::udp4().to(BRIDGE_MAC));
        add("an_unknown_mac_v6", Inner::udp6().to(UNKNOWN_MAC));
        add("arp_for_everybody", Inner::arp(THERE));
        add("solicitation", Inner::solicitation(THERE_V6, true));
        add("broadcast_of_the_mtu", Inner::tcp4(1390).to(BROADCAST));
        add(
            "experimental_broadcast",
            Inner::raw(EXPERIMENTAL, &[7; 46]).to(BROADCAST),
        );
    }
}

/// ARP and ND where the device answers for its neighbours.
fn answers(rows: &mut Vec<Row>) {
    let mut add = |name: &str, frame: Inner| rows.push(transmit("proxy", name, frame));
    add("arp_for_a_neighbor", Inner::arp(THERE));
    add("arp_for_nobody", Inner::arp([10, 255, 43, 7]));
    add(
        "arp_for_a_neighbor_without_fdb_entry",
        Inner::arp(NEIGHBOR_WITHOUT_FDB),
    );
    add("arp_for_ourselves", Inner::arp([10, 255, 108, 0]));
    add("arp_for_loopback", Inner::arp([127, 0, 0, 1]));
    add("arp_for_multicast", Inner::arp([224, 0, 0, 1]));
    add("arp_to_one", Inner::arp(THERE).to(PEER_MAC));
    add("arp_to_unknown", Inner::arp(THERE).to(UNKNOWN_MAC));
    add("arp_padded", Inner::arp(THERE).len(60));
    add("arp_cut", Inner::arp(THERE).len(41));
    add("arp_of_another_asker", Inner::arp(THERE).from(UNKNOWN_MAC));
    for (name, at, value) in [
        ("arp_reply", 21, 2),
        ("arp_of_another_hardware", 15, 6),
        ("arp_of_another_protocol", 16, 9),
        ("arp_of_odd_hardware_length", 18, 5),
        ("arp_of_odd_protocol_length", 19, 5),
        ("arp_with_another_sender_mac", 22, 2),
        ("arp_of_many", 22, 3),
    ] {
        let mut frame = Inner::arp(THERE);
        frame.0[at] = value;
        add(name, frame);
    }
    let mut probe = Inner::arp(THERE);
    probe.0[28..32].fill(0);
    add("arp_probe", probe);
    add("nd_for_a_neighbor", Inner::solicitation(THERE_V6, true));
    add(
        "nd_for_a_neighbor_without_our_address",
        Inner::solicitation(THERE_V6, false),
    );
    add("nd_for_nobody", Inner::solicitation([0xfd; 16], true));
    add(
        "nd_to_one",
        Inner::solicitation(THERE_V6, true).to(PEER_MAC),
    );
    add(
        "nd_of_another_asker",
        Inner::solicitation(THERE_V6, true).from(UNKNOWN_MAC),
    );
    add(
        "nd_hop_limit_64",
        Inner::solicitation(THERE_V6, true).ttl(64),
    );
    add("nd_cut", Inner::solicitation(THERE_V6, true).len(70));
    add("nd_padded", Inner::solicitation(THERE_V6, true).len(100));
    for (name, at, value) in [
        ("nd_bad_checksum", 57, 0x55),
        ("nd_advertisement", 54, 136),
        ("nd_code_1", 55, 1),
        ("nd_option_of_no_length", 79, 0),
        ("nd_option_too_long", 79, 9),
        ("nd_other_option", 78, 14),
    ] {
        let mut frame = Inner::solicitation(THERE_V6, true);
        frame.0[at] = value;
        add(name, frame);
    }
    let mut probe = Inner::solicitation(THERE_V6, false);
    probe.0[22..38].fill(0);
    let sum = super::sums::transport(&probe.0[22..54], 58, &{
        let mut message = probe.0[54..].to_vec();
        message[2..4].fill(0);
        message
    });
    probe.0[56..58].copy_from_slice(&sum.to_be_bytes());
    add("nd_probe", probe);
    add("udp_to_a_peer", Inner::udp4());
    add("vlan_arp", Inner::arp(THERE).vlan(5));
    add(
        "nd_padded_without_our_address",
        Inner::solicitation(THERE_V6, false).len(90),
    );
    add(
        "nd_to_ourselves",
        Inner::solicitation(THERE_V6, true).to(OWN_MAC),
    );
    add("arp_to_ourselves", Inner::arp(THERE).to(OWN_MAC));
}
