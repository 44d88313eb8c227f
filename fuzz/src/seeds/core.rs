//! What the kernel's device was measured on: headers, short packets, ECN, sources and destinations.

use super::super::world::{FDB_ONLY, LAX, MARKED, NO_FLOOD, NO_GBP, TOS};
use super::Seed;
use super::packets::{
    OWN, OWN_V4, OWN_V6, PEER, PEER_V4, PEER_V6, arp_request, ethernet, fragment, icmp,
    of_no_length, solicitation, tagged, udp,
};

/// VNI 1, group 7.
const HEADER: [u8; 8] = [0x88, 0, 0, 7, 0, 0, 1, 0];
const STRANGER: u8 = 2;
const OVER_V6: u8 = 3;

fn answer() -> Vec<u8> {
    udp((PEER, OWN), (PEER_V4, OWN_V4), 0)
}

fn under(header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    [&header[..], frame].concat()
}

pub(super) fn decap() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: &str, [setting, sender, tos]: [u8; 3], payload: &[u8]| {
        let bytes = [&[setting, sender, tos], payload].concat();
        seeds.push(Seed::new("decap", format!("{name}.bin"), bytes));
    };
    for len in [0, 1, 4, 7, 8] {
        add(&format!("payload-{len}"), [0; 3], &HEADER[..len]);
    }
    for (name, setting, word, vni, last) in [
        ("no-flags", 0, 0, 1, 0),
        ("all-but-i", 0, 0xf7ff_ffff, 1, 0),
        ("vni-0", 0, 0x0800_0000, 0, 0),
        ("vni-2", 0, 0x0800_0000, 2, 0),
        ("vni-2-reserved", 0, 0x0c00_0000, 2, 1),
        ("plain", NO_GBP, 0x0800_0000, 1, 0),
        ("plain-g", NO_GBP, 0x8800_0000, 1, 0),
        ("plain-d", NO_GBP, 0x0840_0000, 1, 0),
        ("plain-id", NO_GBP, 0x0800_0001, 1, 0),
        ("gbp-id", 0, 0x8800_1234, 1, 0),
        ("gbp-policy-without-g", 0, 0x0848_1234, 1, 0),
        ("gbp-reserved-low-bits", 0, 0x88b7_1234, 1, 0),
        ("gbp-without-g", 0, 0x0820_0000, 1, 0),
        ("reserved-04", 0, 0x0c00_0000, 1, 0),
        ("reserved-01", 0, 0x0900_0000, 1, 0),
        ("reserved-02", 0, 0x0a00_0000, 1, 0),
        ("reserved-10", 0, 0x1800_0000, 1, 0),
        ("reserved-20", 0, 0x2800_0000, 1, 0),
        ("reserved-40", 0, 0x4800_0000, 1, 0),
        ("last-byte-01", 0, 0x0800_0000, 1, 1),
        ("last-byte-ff", 0, 0x0800_0000, 1, 0xff),
    ] {
        let word = u32::to_be_bytes(word);
        let header = [word[0], word[1], word[2], word[3], 0, 0, vni, last];
        add(name, [setting, 0, 0], &under(header, &answer()));
    }
    for ethertype in [0x0800, 0x86dd, 0x0806, 0x88b5] {
        for len in [12, 13, 14] {
            let frame = ethernet((PEER, OWN), ethertype, &[]);
            let name = format!("inner-{ethertype:04x}-{len}");
            add(&name, [0; 3], &under(HEADER, &frame[..len]));
        }
    }
    let [v4, v6] = [answer(), udp((PEER, OWN), (PEER_V6, OWN_V6), 0)];
    for len in [19, 20] {
        add(
            &format!("ipv4-{len}"),
            [0; 3],
            &under(HEADER, &v4[..14 + len]),
        );
    }
    for len in [39, 40] {
        add(
            &format!("ipv6-{len}"),
            [0; 3],
            &under(HEADER, &v6[..14 + len]),
        );
    }
    for (name, destination) in [
        ("broadcast", [0xff; 6]),
        ("multicast", [1, 0, 0x5e, 0, 0, 1]),
        ("zero", [0; 6]),
        ("bridge-group", [1, 0x80, 0xc2, 0, 0, 0]),
        ("other-host", [2, 0, 0, 0, 0, 1]),
    ] {
        let frame = udp((PEER, destination), (PEER_V4, OWN_V4), 0);
        add(&format!("to-{name}"), [0; 3], &under(HEADER, &frame));
    }
    for (family, ends) in [("v4", (PEER_V4, OWN_V4)), ("v6", (PEER_V6, OWN_V6))] {
        for (inner, outer) in [(0, 3), (1, 3), (2, 1), (2, 3), (3, 0), (1, 1)] {
            let frame = udp((PEER, OWN), ends, 0xb8 | inner);
            let name = format!("ecn-{family}-{inner}-{outer}");
            add(&name, [0, 0, outer], &under(HEADER, &frame));
        }
    }
    let arp = arp_request(PEER, "10.255.43.0", "10.255.108.0");
    for (name, how, frame) in [
        (
            "own-source-mac",
            [0; 3],
            udp((OWN, OWN), (PEER_V4, OWN_V4), 0),
        ),
        (
            "source-of-another",
            [0; 3],
            udp((PEER, OWN), ("10.255.44.1", OWN_V4), 0),
        ),
        (
            "source-more-specific",
            [0; 3],
            udp((PEER, OWN), ("10.255.44.129", OWN_V4), 0),
        ),
        (
            "source-of-another-lax",
            [LAX, 0, 0],
            udp((PEER, OWN), ("192.0.2.9", OWN_V4), 0),
        ),
        ("source-by-fdb", [FDB_ONLY, 0, 0], answer()),
        ("source-not-by-fdb", [FDB_ONLY, 1, 0], answer()),
        ("stranger", [0, STRANGER, 0], answer()),
        ("stranger-lax", [LAX, STRANGER, 0], answer()),
        (
            "sender-over-v6",
            [0, OVER_V6, 0],
            udp((PEER, OWN), ("fd00:0:0:2f::5", OWN_V6), 0),
        ),
        ("arp-for-us", [0; 3], arp.clone()),
        ("arp-for-us-congested", [0, 0, 3], arp.clone()),
        ("arp-for-us-fdb-only", [FDB_ONLY, 0, 0], arp),
        (
            "arp-for-container",
            [0; 3],
            arp_request(PEER, "10.255.43.0", OWN_V4),
        ),
        (
            "arp-probe",
            [0; 3],
            arp_request(PEER, "0.0.0.0", "10.255.108.0"),
        ),
        (
            "arp-of-multicast",
            [0; 3],
            arp_request([1, 0, 0x5e, 0, 0, 1], "10.255.43.0", "10.255.108.0"),
        ),
        (
            "nd-for-us",
            [0; 3],
            solicitation(PEER, "fd00:0:0:2b::", "fd00:0:0:6c::", &[]),
        ),
        (
            "nd-of-no-length",
            [0; 3],
            of_no_length(&solicitation(PEER, "fd00:0:0:2b::", "fd00:0:0:6c::", &[])),
        ),
        ("nd-detection-of-ours", [0; 3], detection("fd00:0:0:6c::")),
        (
            "nd-detection-of-ours-fdb-only",
            [FDB_ONLY, 0, 0],
            detection("fd00:0:0:6c::"),
        ),
        (
            "nd-detection-tagged",
            [0; 3],
            tagged(&detection("fd00:0:0:6c::"), &[0x8100]),
        ),
        ("nd-detection-of-theirs", [0; 3], detection("fd00:0:0:2b::")),
        (
            "nd-detection-of-a-strangers",
            [0; 3],
            detection("fd00:0:0:99::"),
        ),
        (
            "nd-detection-of-a-strangers-fdb-only",
            [FDB_ONLY, 0, 0],
            detection("fd00:0:0:99::"),
        ),
        ("redirect", [0; 3], redirect("fd00:0:0:2b::")),
        ("redirect-to-us", [0; 3], redirect("fd00:0:0:6c::")),
        ("redirect-to-a-stranger", [0; 3], redirect("fd00:0:0:99::")),
        (
            "redirect-fdb-only",
            [FDB_ONLY, 0, 0],
            redirect("fd00:0:0:99::"),
        ),
        (
            "redirect-to-us-fdb-only",
            [FDB_ONLY, 0, 0],
            redirect("fd00:0:0:6c::"),
        ),
        ("vlan", [0; 3], tagged(&answer(), &[0x8100])),
        ("qinq", [0, 0, 3], tagged(&answer(), &[0x88a8, 0x8100])),
        (
            "three-tags",
            [0; 3],
            tagged(&answer(), &[0x88a8, 0x8100, 0x8100]),
        ),
        ("nested", [0; 3], nested()),
    ] {
        add(name, how, &under(HEADER, &frame));
    }
    seeds
}

/// A peer's, before it takes `target`.
fn detection(target: &str) -> Vec<u8> {
    solicitation(PEER, "::", target, &[])
}

/// A peer's, about whatever stands in the options' place of a solicitation.
fn redirect(target: &str) -> Vec<u8> {
    let about = [0xfd, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut frame = solicitation(PEER, "fd00:0:0:2b::", target, &about);
    frame[54] = 137;
    frame
}

/// VXLAN in VXLAN.
fn nested() -> Vec<u8> {
    let mut frame = answer();
    frame.truncate(42);
    frame[36..38].copy_from_slice(&4789_u16.to_be_bytes());
    frame.extend(under(HEADER, &answer()));
    super::super::repair::repair(&mut frame, super::super::repair::Checksum::Complete);
    frame
}

pub(super) fn encap() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: &str, setting: u8, frame: &[u8]| {
        let bytes = [&[setting, 0, 0, 0, 0], frame].concat();
        seeds.push(Seed::new("encap", format!("{name}.bin"), bytes));
    };
    let routed = |destination| udp((OWN, OWN), (OWN_V4, destination), 0);
    for (name, destination) in [
        ("routed", PEER_V4),
        ("own-port-and-vni", "10.255.44.1"),
        ("more-specific", "10.255.44.129"),
        ("no-neighbor", "10.255.45.1"),
        ("no-fdb-entry", "10.255.46.1"),
        ("on-link", "10.255.47.5"),
        ("on-link-unknown", "10.255.47.6"),
        ("no-route", "192.0.2.1"),
        ("absent-container", "10.255.108.9"),
    ] {
        add(name, 0, &routed(destination));
    }
    for tos in 0..4 {
        for (family, ends) in [("v4", (OWN_V4, PEER_V4)), ("v6", (OWN_V6, PEER_V6))] {
            let frame = udp((OWN, OWN), ends, 0xb8 | tos);
            add(&format!("ecn-{family}-{tos}"), TOS, &frame);
        }
    }
    for (name, destination) in [
        ("peer", PEER),
        ("broadcast", [0xff; 6]),
        ("multicast-of-its-own", [1, 0, 0x5e, 0, 0, 1]),
        ("unknown", [2, 0, 0, 0, 0, 1]),
    ] {
        let frame = udp((OWN, destination), (OWN_V4, PEER_V4), 0);
        for (how, setting) in [("", 0), ("-fdb-only", FDB_ONLY), ("-no-flood", NO_FLOOD)] {
            add(&format!("to-{name}{how}"), setting, &frame);
        }
    }
    let whole = routed(PEER_V4);
    for len in [0, 13, 14, 33, 34] {
        add(&format!("first-{len}"), 0, &whole[..len]);
    }
    let arp = |target| arp_request(OWN, "10.255.108.0", target);
    for (name, setting, frame) in [
        (
            "v6-on-link",
            0,
            udp((OWN, OWN), (OWN_V6, "fd00:0:0:2f::5"), 0),
        ),
        ("no-gbp", NO_GBP, whole.clone()),
        (
            "foreign-source",
            0,
            udp((OWN, OWN), ("192.0.2.1", PEER_V4), 0),
        ),
        (
            "foreign-source-lax",
            LAX,
            udp((OWN, OWN), ("192.0.2.1", PEER_V4), 0),
        ),
        ("not-routable", 0, ethernet((OWN, OWN), 0x88b5, b"hi")),
        ("not-ip", 0, ethernet((OWN, PEER), 0x88b5, &[])),
        (
            "vlan",
            0,
            tagged(&udp((OWN, PEER), (OWN_V4, PEER_V4), 3), &[0x8100]),
        ),
        (
            "qinq",
            0,
            tagged(&udp((OWN, PEER), (OWN_V4, PEER_V4), 0), &[0x88a8, 0x8100]),
        ),
        (
            "three-tags",
            0,
            tagged(&udp((OWN, PEER), (OWN_V4, PEER_V4), 0), &[0x8100; 3]),
        ),
        ("first-fragment", 0, fragment(true)),
        ("later-fragment", 0, fragment(false)),
        ("icmp", 0, icmp()),
        ("arp-known", 0, arp("10.255.43.0")),
        ("arp-unknown", NO_FLOOD, arp("10.255.99.1")),
        ("arp-unknown-flooded", 0, arp("10.255.99.1")),
        ("arp-probe", 0, arp_request(OWN, "0.0.0.0", "10.255.43.0")),
        (
            "nd-known",
            0,
            solicitation(OWN, "fd00:0:0:6c::", "fd00:0:0:2b::", &[]),
        ),
        (
            "nd-detection",
            0,
            solicitation(OWN, "::", "fd00:0:0:2b::", &[]),
        ),
    ] {
        add(name, setting, &frame);
    }
    seeds.extend(marked());
    seeds
}

/// Marks that the kernel's device was measured with.
fn marked() -> impl Iterator<Item = Seed> {
    let marks = [
        0x1234_u32,
        0xffff,
        0x0040_1234,
        0x0008_1234,
        0x0048_abcd,
        0x0001_0000,
        0xff00_0000,
        0xdead_beef,
    ];
    let frame = udp((OWN, OWN), (OWN_V4, PEER_V4), 0);
    marks.into_iter().map(move |mark| {
        let bytes = [&[MARKED], &mark.to_be_bytes()[..], &frame].concat();
        Seed::new("encap", format!("mark-{mark:08x}.bin"), bytes)
    })
}

pub(super) fn arp_nd() -> Vec<Seed> {
    let link_layer = [1, 1, 0xee, 0xee, 1, 2, 3, 4];
    let nonce_first = [&[14, 1, 0, 0, 0, 0, 0, 0], &link_layer[..]].concat();
    let asked = |options: &[u8]| solicitation(OWN, "fd00::1", "fd00::12:3456", options);
    [
        ("request", arp_request(OWN, "10.255.108.0", "10.255.43.0")),
        ("probe", arp_request(OWN, "0.0.0.0", "10.255.43.0")),
        ("loopback", arp_request(OWN, "10.255.108.0", "127.0.0.1")),
        (
            "padded",
            [arp_request(OWN, "10.255.108.0", "10.255.43.0"), vec![0; 18]].concat(),
        ),
        ("solicitation", asked(&[])),
        ("solicitation-link-layer", asked(&link_layer)),
        ("solicitation-nonce", asked(&nonce_first)),
        ("solicitation-option-0", asked(&[1, 0, 2, 2, 2, 2, 2, 2])),
        ("solicitation-option-long", asked(&[1, 2, 2, 2, 2, 2, 2, 2])),
        ("solicitation-half-option", asked(&[1])),
        ("detection", solicitation(OWN, "::", "fd00::12:3456", &[])),
    ]
    .into_iter()
    .flat_map(|(name, frame)| {
        [(0, ""), (1, "-repaired")].map(|(how, suffix)| {
            let bytes = [&[how], &frame[..]].concat();
            Seed::new("arp_nd", format!("{name}{suffix}.bin"), bytes)
        })
    })
    .collect()
}
