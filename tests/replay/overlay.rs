//! `--from-overlay`: frames as the TAP would give them.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use serde_json::{Value, json};

use crate::bench::{A, A_V6, Bench};
use crate::captures::{frames, pcap, pcap_header, pcap_record};
use crate::packets::*;

fn encap() -> Value {
    json!({"verdict": "encap", "vni": 1, "group": 3, "mark": 3, "underlay": "10.0.16.14"})
}

fn drop(reason: &str) -> Value {
    json!({"verdict": "drop", "reason": reason})
}

#[test]
fn frames_of_the_host_are_judged_as_by_the_daemon() {
    let to = |address: [u8; 4]| inner((A_MAC, A_MAC), (A_CONTAINER, address.into()), 0, 1);
    let to_mac = |mac: Mac| inner((A_MAC, mac), (A_CONTAINER, B_CONTAINER), 0, 1);
    let ungrouped = inner(
        (A_MAC, A_MAC),
        ([10, 255, 108, 9].into(), B_CONTAINER),
        0,
        1,
    );
    let stranger = inner((A_MAC, A_MAC), ([192, 0, 2, 1].into(), B_CONTAINER), 0, 1);
    let arp_to_us = [&A_MAC[..], &A_MAC, &[8, 6], &[0; 28]].concat();
    let cases = [
        (from_a(0, 1), encap()),
        (to_mac(B_MAC), encap()),
        (
            ungrouped,
            json!({"verdict": "encap", "vni": 1, "underlay": "10.0.16.14"}),
        ),
        (to([10, 255, 44, 1]), drop("no-route")),
        (to([10, 255, 108, 9]), drop("absent-container")),
        (stranger, drop("source-not-local")),
        (to_mac([2; 6]), drop("no-fdb-entry")),
        (to_mac([0xff; 6]), drop("no-flood-entry")),
        (arp_to_us, drop("not-routable")),
        (vec![2; 13], drop("short-frame")),
        (from_a(0, 1)[..33].to_vec(), drop("truncated-ip")),
        (
            arp_request(A_MAC, A_VTEP, B_VTEP),
            json!({"verdict": "reply"}),
        ),
        (
            arp_request(A_MAC, A_VTEP, [10, 255, 44, 0].into()),
            drop("no-neighbor"),
        ),
    ];
    let bench = Bench::new(A, "");
    let packets: Vec<_> = cases.iter().map(|(packet, _)| packet.clone()).collect();
    let seen = bench.verdicts("--from-overlay", &pcap(&packets));
    for (i, (_, verdict)) in cases.iter().enumerate() {
        let mut expected = verdict.clone();
        expected["n"] = json!(i + 1);
        assert_eq!(seen[i], expected);
    }
    assert_eq!(seen.len(), cases.len());
    // Three datagrams, and the reply as the host gets it.
    let written = frames(&bench.read("out.pcap"));
    assert_eq!(written.len(), 4);
    assert_eq!(written[3][..6], A_MAC);
    assert_eq!(written[3][22..28], B_MAC);
}

#[test]
fn a_mark_in_place_of_the_source_mac_is_heard_where_the_configuration_says_so() {
    let tagged = |mark: u32| {
        let mut frame = from_a(0, 1);
        frame[6..8].copy_from_slice(&[3, 1]);
        frame[8..12].copy_from_slice(&mark.to_be_bytes());
        frame
    };
    let packets = pcap(&[tagged(0xde48_beef), from_a(0, 1), tagged(0)]);
    let unmarked = json!({"n": 2, "verdict": "encap", "vni": 1, "underlay": "10.0.16.14"});
    let forged = json!({"n": 3, "verdict": "drop", "reason": "forged-mark"});
    let marked = json!({"n": 1, "verdict": "encap", "vni": 1, "group": 0xbeef, "mark": 0xde48_beef_u32, "underlay": "10.0.16.14"});
    let bench = Bench::new(A, "marks = \"bpf\"");
    let seen = bench.verdicts("--from-overlay", &packets);
    assert_eq!(seen, [marked, unmarked, forged.clone()]);
    let written = &frames(&bench.read("out.pcap"))[0];
    assert_eq!(written[UDP + 8..UDP + 12], [0x88, 0x48, 0xbe, 0xef]);
    assert_eq!(written[UDP + 16..UDP + 28], [B_MAC, A_MAC].concat()[..]);

    let by_table = Bench::new(A, "marks = \"table\"").verdicts("--from-overlay", &packets);
    let numbered = |n: usize| {
        let mut line = encap();
        line["n"] = json!(n);
        line
    };
    assert_eq!(by_table, [numbered(1), numbered(2), forged]);
}

#[test]
fn an_underlay_frame_is_what_the_configuration_says() {
    let more = "ttl = 7\ntos = 0x28\nsrcport = [20000, 20004]";
    let bench = Bench::new(A, more);
    let flows: Vec<_> = (0..64).map(|port| from_a(3, 1000 + port)).collect();
    bench.verdicts("--from-overlay", &pcap(&flows));
    let mut ports = std::collections::BTreeSet::new();
    for (frame, flow) in frames(&bench.read("out.pcap")).iter().zip(&flows) {
        let packet = SlicedPacket::from_ethernet(frame).expect("whole");
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) =
            (&packet.net, &packet.transport)
        else {
            panic!("UDP over IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(
            (header.source, header.destination),
            (A_HOST.octets(), B_HOST.octets())
        );
        assert_eq!(
            (header.time_to_live, frame[IP + 1]),
            (7, 0x2a),
            "CE goes out as ECT(0)"
        );
        assert!(!header.dont_fragment && header.identification != 0);
        assert_eq!(udp.destination_port(), 4789);
        let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
        assert_eq!(sum, Ok(udp.checksum()));
        ports.insert(udp.source_port());

        let (vxlan, inner) = udp.payload().split_at(8);
        assert_eq!(vxlan, HEADER);
        assert_eq!(inner[..6], B_MAC, "routed");
        assert_eq!(inner[6..], flow[6..]);
    }
    // Max is never used.
    assert_eq!(
        ports.into_iter().collect::<Vec<_>>(),
        [20_000, 20_001, 20_002, 20_003]
    );
}

#[test]
fn a_flow_has_one_port_of_the_range() {
    let bench = Bench::new(A, "");
    let packets = [from_a(0, 1), from_a(0, 2), from_a(3, 1)];
    bench.verdicts("--from-overlay", &pcap(&packets));
    let written = frames(&bench.read("out.pcap"));
    let port = |i: usize| u16::from_be_bytes([written[i][UDP], written[i][UDP + 1]]);
    assert_eq!(port(0), port(2));
    assert!((0..3).all(|i| (32_768..60_999).contains(&port(i))));
}

#[test]
fn checksums_are_left_out_where_the_configuration_says_so() {
    for (cell, udp) in [(A, UDP), (A_V6, UDP + 20)] {
        for (more, filled) in [("", true), ("udp_checksum = false", false)] {
            let bench = Bench::new(cell, more);
            bench.verdicts("--from-overlay", &pcap(&[from_a(0, 1)]));
            let written = &frames(&bench.read("out.pcap"))[0];
            assert_eq!(written[udp + 6..udp + 8] != [0, 0], filled, "{more}");
        }
    }
}

#[test]
fn a_frame_too_large_for_a_datagram_is_too_big() {
    let bench = Bench::new(A, "");
    let mut large = from_a(0, 1);
    large.resize(65_507 - 8, 0);
    let larger = [large.clone(), vec![0]].concat();
    let seen = bench.verdicts("--from-overlay", &pcap(&[large, larger]));
    assert_eq!(seen[0]["verdict"], "encap");
    assert_eq!(
        seen[1],
        json!({"n": 2, "verdict": "drop", "reason": "too-big"})
    );
}

#[test]
fn a_snapped_frame_is_not_judged() {
    let bench = Bench::new(A, "");
    let frame = from_a(0, 1);
    let snapped = pcap_record(0, 1500, &frame);
    let capture = [pcap_header(1), snapped, pcap_record(1, frame.len(), &frame)].concat();
    let seen = bench.verdicts("--from-overlay", &capture);
    assert_eq!(
        seen[0],
        json!({"n": 1, "verdict": "drop", "reason": "host-truncated-capture"})
    );
    assert_eq!(seen[1]["verdict"], "encap");
}
