//! `--from-underlay`: the cases of what a VTEP receives.

use serde_json::{Value, json};

use crate::bench::{A, A_V6, B, Bench};
use crate::captures::{frames, pcap, pcap_of, read_pcap};
use crate::packets::*;

/// Packets and what is said of each, but for `n`; then what is written.
struct Case {
    name: &'static str,
    packets: Vec<Vec<u8>>,
    verdicts: Vec<Value>,
}

fn case(name: &'static str, packet: Vec<u8>, verdict: Value) -> Case {
    Case {
        name,
        packets: vec![packet],
        verdicts: vec![verdict],
    }
}

fn deliver() -> Value {
    json!({"verdict": "deliver", "vni": 1, "group": 3, "mark": 3, "underlay": "10.0.16.14"})
}

/// Delivered without a mark.
fn deliver_unmarked() -> Value {
    json!({"verdict": "deliver", "vni": 1, "underlay": "10.0.16.14"})
}

fn deliver_marked(group: u32, mark: u32) -> Value {
    json!({"verdict": "deliver", "vni": 1, "group": group, "mark": mark, "underlay": "10.0.16.14"})
}

/// Dropped by the daemon, with an I flag and this VNI.
fn drop(reason: &str, vni: u32) -> Value {
    json!({"verdict": "drop", "reason": reason, "vni": vni, "underlay": "10.0.16.14"})
}

/// Dropped by the daemon, with nothing to tell a VNI by.
fn drop_without_vni(reason: &str) -> Value {
    json!({"verdict": "drop", "reason": reason, "underlay": "10.0.16.14"})
}

fn host(reason: &str) -> Value {
    json!({"verdict": "drop", "reason": reason})
}

/// The honest packet with its VXLAN header's words changed.
fn with_header(word: u32, vni_word: u32) -> Vec<u8> {
    let header = (u64::from(word) << 32 | u64::from(vni_word)).to_be_bytes();
    outer(&vxlan(header, &from_b(0)))
}

/// The honest packet with bytes of its outer headers changed and the IP checksum made right.
fn with_outer(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = honest();
    for &(at, value) in changes {
        frame[at] = value;
    }
    mend(&mut frame);
    frame
}

fn with_inner(frame: &[u8]) -> Vec<u8> {
    outer(&vxlan(HEADER, frame))
}

/// A frame of a type and so many bytes behind it.
fn typed(ethertype: u16, len: usize) -> Vec<u8> {
    let mut frame = [A_MAC, B_MAC].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.resize(14 + len, 0);
    frame
}

fn headers() -> Vec<Case> {
    vec![
        case("honest", honest(), deliver()),
        case(
            "payload of 0",
            outer(&[]),
            drop_without_vni("short-datagram"),
        ),
        case(
            "payload of 1",
            outer(&[0x88]),
            drop_without_vni("short-datagram"),
        ),
        case(
            "payload of 7",
            outer(&HEADER[..7]),
            drop_without_vni("short-datagram"),
        ),
        case(
            "no flags",
            with_header(0, 0x100),
            drop_without_vni("missing-vni-flag"),
        ),
        case(
            "all but I",
            with_header(0xf7ff_ffff, 0x100),
            drop_without_vni("missing-vni-flag"),
        ),
        case(
            "VNI 101",
            with_header(0x0800_0000, 101 << 8),
            drop("unknown-vni", 101),
        ),
        case("VNI 0", with_header(0x0800_0000, 0), drop("unknown-vni", 0)),
        case(
            "VNI before reserved bits",
            with_header(0x0c00_0000, 101 << 8),
            drop("unknown-vni", 101),
        ),
        case(
            "no group",
            with_header(0x0800_0000, 0x100),
            deliver_unmarked(),
        ),
        case(
            "group id without G",
            with_header(0x0800_1234, 0x100),
            deliver_unmarked(),
        ),
        case(
            "G with id 0",
            with_header(0x8800_0000, 0x100),
            deliver_marked(0, 0),
        ),
        case(
            "G, A, D",
            with_header(0x8848_1234, 0x100),
            deliver_marked(0x1234, 0x48_1234),
        ),
        case(
            "reserved bits of byte 1",
            with_header(0x88b7_1234, 0x100),
            deliver_marked(0x1234, 0x1234),
        ),
        case(
            "byte 0 = 0c",
            with_header(0x0c00_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 0 = 09",
            with_header(0x0900_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 0 = 0a",
            with_header(0x0a00_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 0 = 18",
            with_header(0x1800_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 0 = 28",
            with_header(0x2800_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 0 = 48",
            with_header(0x4800_0000, 0x100),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 7 = 01",
            with_header(0x0800_0000, 0x101),
            drop("reserved-bits", 1),
        ),
        case(
            "byte 7 = ff",
            with_header(0x0800_0000, 0x1ff),
            drop("reserved-bits", 1),
        ),
    ]
}

fn inner_frames() -> Vec<Case> {
    let arp = arp_request(B_MAC, B_VTEP, A_CONTAINER);
    let stranger = std::net::Ipv4Addr::new(10, 255, 44, 1);
    let destination = |mac: Mac| with_inner(&inner((B_MAC, mac), (B_CONTAINER, A_CONTAINER), 0, 1));
    let nested = inner((B_MAC, A_MAC), (B_CONTAINER, A_CONTAINER), 0, 4789);
    vec![
        case("inner of 0", with_inner(&[]), drop("short-inner-frame", 1)),
        case(
            "inner of 13",
            with_inner(&[2; 13]),
            drop("short-inner-frame", 1),
        ),
        case(
            "14 + 0 of another type",
            with_inner(&typed(0x88cc, 0)),
            deliver(),
        ),
        case(
            "14 + 19 v4",
            with_inner(&typed(0x0800, 19)),
            drop("truncated-inner-ip", 1),
        ),
        case(
            "14 + 39 v6",
            with_inner(&typed(0x86dd, 39)),
            drop("truncated-inner-ip", 1),
        ),
        case("VLAN tagged", with_inner(&typed(0x8100, 4)), deliver()),
        case(
            "own MAC",
            with_inner(&inner((A_MAC, A_MAC), (B_CONTAINER, A_CONTAINER), 0, 1)),
            drop("own-source-mac", 1),
        ),
        case("unicast elsewhere", destination([2; 6]), deliver()),
        case("broadcast", destination([0xff; 6]), deliver()),
        case("multicast", destination([1, 0, 0x5e, 0, 0, 1]), deliver()),
        case("zero MAC", destination([0; 6]), deliver()),
        case(
            "bridge group",
            destination([1, 0x80, 0xc2, 0, 0, 0]),
            deliver(),
        ),
        case(
            "off-subnet source",
            with_inner(&inner((B_MAC, A_MAC), (stranger, A_CONTAINER), 0, 1)),
            drop("source-not-peers", 1),
        ),
        case(
            "our own source",
            with_inner(&inner((B_MAC, A_MAC), (A_CONTAINER, A_CONTAINER), 0, 1)),
            drop("own-source-address", 1),
        ),
        case("nested", with_inner(&nested), deliver()),
        case("ARP for a container", with_inner(&arp), deliver()),
        case(
            "ARP with CE outside",
            {
                let mut frame = with_inner(&arp);
                frame[IP + 1] = 3;
                mend(&mut frame);
                frame
            },
            deliver(),
        ),
    ]
}

fn outer_headers() -> Vec<Case> {
    let mut options = honest();
    options.splice(UDP..UDP, [1, 1, 1, 0]);
    options[IP] = 0x46;
    let len = u16::from_be_bytes([options[IP + 2], options[IP + 3]]) + 4;
    options[IP + 2..IP + 4].copy_from_slice(&len.to_be_bytes());
    mend(&mut options);
    let mut tagged = honest();
    tagged.splice(12..12, [0x88, 0xa8, 0, 6, 0x81, 0, 0, 7]);
    let mut wrong = honest();
    wrong[IP + 8] = 63;
    let udp_len = |delta: i16| {
        let len = i16::from_be_bytes([honest()[UDP + 4], honest()[UDP + 5]]) + delta;
        let [high, low] = len.to_be_bytes();
        with_outer(&[(UDP + 4, high), (UDP + 5, low)])
    };
    let payload = vxlan(HEADER, &from_b(0));
    let other = std::net::Ipv4Addr::new(192, 0, 2, 1);
    vec![
        case(
            "no UDP checksum",
            with_outer(&[(UDP + 6, 0), (UDP + 7, 0)]),
            deliver(),
        ),
        case(
            "wrong UDP checksum",
            with_outer(&[(UDP + 6, 1), (UDP + 7, 2)]),
            host("host-udp-checksum"),
        ),
        case("UDP length - 4", udp_len(-4), host("host-udp-checksum")),
        case("UDP length + 4", udp_len(4), host("host-udp-length")),
        case(
            "UDP length 7",
            with_outer(&[(UDP + 4, 0), (UDP + 5, 7)]),
            host("host-udp-length"),
        ),
        case("wrong IP checksum", wrong, host("host-ip-checksum")),
        case(
            "IP version 5",
            with_outer(&[]).tap(|f| f[IP] = 0x55),
            host("host-ip-header"),
        ),
        case("TTL 0", with_outer(&[(IP + 8, 0)]), deliver()),
        case("TTL 1", with_outer(&[(IP + 8, 1)]), deliver()),
        case("IP options", options, deliver()),
        case("VLAN tags outside", tagged, deliver()),
        case("padding", [honest(), vec![0; 9]].concat(), deliver()),
        case("TCP", with_outer(&[(IP + 9, 6)]), host("host-not-udp")),
        case(
            "ARP",
            arp_request([2; 6], B_HOST, A_HOST),
            host("host-not-ip"),
        ),
        case("runt", vec![2; 13], host("host-short-frame")),
        case(
            "another port",
            {
                let mut frame = with_outer(&[(UDP + 6, 0), (UDP + 7, 0)]);
                frame[UDP + 3] ^= 1;
                frame
            },
            host("host-no-socket"),
        ),
        case("IPv6", outer_v6(&payload), host("host-no-socket")),
        case(
            "another local address",
            outer_between((B_HOST, other), &payload),
            deliver(),
        ),
        case(
            "on its way to the peer",
            outer_between((A_HOST, B_HOST), &payload),
            host("host-not-for-us"),
        ),
        case(
            "a stranger",
            outer_between((other, A_HOST), &payload),
            json!({"verdict": "drop", "reason": "unknown-peer", "vni": 1, "underlay": "192.0.2.1"}),
        ),
    ]
}

trait Tap: Sized {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl<T> Tap for T {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn fragmented() -> Vec<Case> {
    let large = typed(0x88b5, 9000);
    let frame = with_inner(&large);
    let in_order = fragments(&frame, 1480);
    let kept = json!({"verdict": "fragment"});
    let joined = [vec![kept.clone(); in_order.len() - 1], vec![deliver()]].concat();
    let small = fragments(&honest(), 40);
    let [first, second] = &small[..] else {
        panic!("two fragments");
    };
    let overlap = fragment(&honest(), 32, false, &honest()[UDP + 32..]);
    let incomplete = host("host-fragment-incomplete");
    vec![
        Case {
            name: "9000 B in order",
            packets: in_order.clone(),
            verdicts: joined.clone(),
        },
        Case {
            name: "9000 B reversed",
            packets: in_order.iter().rev().cloned().collect(),
            verdicts: joined,
        },
        Case {
            name: "first only, and others meanwhile",
            packets: vec![first.clone(), honest()],
            verdicts: vec![incomplete.clone(), deliver()],
        },
        Case {
            name: "last only",
            packets: vec![second.clone()],
            verdicts: vec![incomplete],
        },
        Case {
            name: "overlapping",
            packets: vec![first.clone(), overlap],
            verdicts: vec![host("host-fragment-overlap"); 2],
        },
        Case {
            name: "twice the first",
            packets: vec![first.clone(), first.clone(), second.clone()],
            verdicts: vec![kept, host("host-fragment-duplicate"), deliver()],
        },
    ]
}

fn numbered(n: usize, verdict: &Value) -> Value {
    let mut verdict = verdict.clone();
    verdict["n"] = json!(n);
    verdict
}

/// Runs cases each alone, and all of them as one capture.
fn check(cases: &[Case]) {
    let bench = Bench::new(A, "");
    let mut packets = Vec::new();
    let mut expected = Vec::new();
    for case in cases {
        assert_eq!(case.packets.len(), case.verdicts.len(), "{}", case.name);
        let verdicts = case.verdicts.iter().enumerate();
        let alone: Vec<_> = verdicts.map(|(i, v)| numbered(i + 1, v)).collect();
        let seen = bench.verdicts("--from-underlay", &pcap(&case.packets));
        assert_eq!(seen, alone, "{}", case.name);
        let delivered = case.verdicts.iter().filter(|v| v["verdict"] == "deliver");
        let written = read_pcap(&bench.read("out.pcap"));
        assert_eq!(written.len(), delivered.count(), "{}", case.name);
        packets.extend(case.packets.clone());
        expected.extend(case.verdicts.clone());
    }
    let expected: Vec<_> = (expected.iter().enumerate())
        .map(|(i, verdict)| numbered(i + 1, verdict))
        .collect();
    assert_eq!(bench.verdicts("--from-underlay", &pcap(&packets)), expected);
}

/// As a receiver's capture has two datagrams that GRO joined.
#[test]
fn joined_datagrams_are_dropped_with_the_mend() {
    let datagram = vxlan(HEADER, &from_b(0));
    let mut frame = outer(&[&datagram[..], &datagram].concat());
    let sum: u32 = [&frame[IP + 12..UDP], &frame[UDP + 4..UDP + 6], &[0, 17]]
        .concat()
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let partial = (sum & 0xffff) + (sum >> 16);
    frame[UDP + 6..UDP + 8].copy_from_slice(&(partial as u16).to_be_bytes());
    let bench = Bench::new(A, "");
    let capture = pcap(&[frame]);
    let seen = bench.verdicts("--from-underlay", &capture);
    assert_eq!(
        seen,
        [json!({"n": 1, "verdict": "drop", "reason": "host-joined-datagrams"})]
    );
    let text = bench.run(&["--from-underlay", "in.pcap"]).stdout();
    assert!(text.contains("ethtool -K DEV gro off"), "{text}");
}

#[test]
fn vxlan_headers_are_judged_as_the_kernel_does() {
    check(&headers());
}

#[test]
fn inner_frames_are_judged_as_the_kernel_does() {
    check(&inner_frames());
}

#[test]
fn outer_headers_are_checked_as_the_host_does() {
    check(&outer_headers());
}

#[test]
fn fragments_are_joined_and_each_has_its_line() {
    // One by one: those that wait are settled by the end of the capture.
    let (one_by_one, together): (Vec<_>, Vec<_>) = fragmented()
        .into_iter()
        .partition(|case| case.name.contains("only"));
    one_by_one
        .iter()
        .for_each(|case| check(std::slice::from_ref(case)));
    check(&together);
}

#[test]
fn ecn_goes_in_by_the_table_and_the_inner_checksum_follows() {
    let table = [[0, 0, 0, 9], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    let mut packets = Vec::new();
    let mut expected = Vec::new();
    let mut written = Vec::new();
    for (inner, row) in [0, 1, 2, 3].into_iter().zip(table) {
        for (outer_ecn, result) in [0, 1, 2, 3].into_iter().zip(row) {
            let mut frame = with_inner(&from_b(0xb8 | inner));
            frame[IP + 1] = outer_ecn;
            mend(&mut frame);
            packets.push(frame);
            expected.push(match result {
                9 => drop("ecn-ce-not-ect", 1),
                _ => deliver(),
            });
            if result != 9 {
                written.push(from_b(0xb8 | result));
            }
        }
    }
    let bench = Bench::new(A, "");
    let seen = bench.verdicts("--from-underlay", &pcap(&packets));
    for (i, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
        assert_eq!(seen, &numbered(i + 1, expected));
    }
    assert_eq!(frames(&bench.read("out.pcap")), written);
}

#[test]
fn what_is_written_is_the_inner_frame_at_the_time_of_its_packet() {
    let bench = Bench::new(A, "");
    bench.verdicts("--from-underlay", &pcap(&[vec![2; 13], honest()]));
    let written = read_pcap(&bench.read("out.pcap"));
    assert_eq!(written, [(1000, 1_000_000, from_b(0))]);
}

#[test]
fn a_peer_that_asks_for_our_own_address_is_answered_through_the_underlay() {
    let bench = Bench::new(A, "");
    let request = arp_request(B_MAC, B_VTEP, A_VTEP);
    let seen = bench.verdicts("--from-underlay", &pcap(&[with_inner(&request)]));
    let reply = json!({"n": 1, "verdict": "reply", "vni": 1, "underlay": "10.0.16.14"});
    assert_eq!(seen, [reply]);
    let written = frames(&bench.read("out.pcap"));

    let at_b = Bench::new(B, "");
    let seen = at_b.verdicts("--from-underlay", &pcap(&written));
    assert_eq!(seen[0]["verdict"], "deliver");
    let inner = &frames(&at_b.read("out.pcap"))[0];
    assert_eq!(inner[..12], [B_MAC, A_MAC].concat()[..]);
    assert_eq!(inner[20..22], [0, 2], "an ARP reply");
    assert_eq!(inner[22..28], A_MAC);
}

#[test]
fn where_a_policy_is_enforced_the_replies_of_flows_in_the_capture_are_let_in() {
    let enforced = format!("{A}[policy]\nenforce = true\n");
    let bench = Bench::new(&enforced, "");
    // From the port that `honest` is for to the one that it is from.
    let mut question = inner((A_MAC, B_MAC), (A_CONTAINER, B_CONTAINER), 0, 53);
    question[UDP + 2..UDP + 4].copy_from_slice(&40_000_u16.to_be_bytes());
    let sent = |ends, header| outer_between(ends, &vxlan(header, &question));
    let of_vni_2 = sent((A_HOST, B_HOST), [0x88, 0, 0, 3, 0, 0, 2, 0]);
    let of_another = sent((B_VTEP, B_HOST), HEADER);
    let mut question = sent((A_HOST, B_HOST), HEADER);
    // As captured where the network card writes it.
    question[UDP + 6] ^= 0xff;
    let packets = [honest(), of_vni_2, of_another, honest(), question, honest()];
    let seen = bench.verdicts("--from-underlay", &pcap(&packets));
    let said: Vec<_> = (seen.iter())
        .map(|line| line["reason"].as_str().unwrap_or("delivered"))
        .collect();
    let passing = "host-not-for-us";
    let denied = "policy-denied";
    assert_eq!(
        said,
        [denied, passing, passing, denied, passing, "delivered"]
    );
}

#[test]
fn options_of_the_configuration_decide() {
    let verdict = |cell: &str, more: &str, packet: Vec<u8>| {
        let seen = Bench::new(cell, more).verdicts("--from-underlay", &pcap(&[packet]));
        let word = |key: &str| seen[0][key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("verdict"), word("reason"))
    };
    let stranger = std::net::Ipv4Addr::new(192, 0, 2, 1);
    let payload = vxlan(HEADER, &from_b(0));
    let from_stranger = outer_between((stranger, A_HOST), &payload);
    assert_eq!(
        verdict(A, "strict_source = false", from_stranger),
        "deliver "
    );
    assert_eq!(verdict(A, "gbp = false", honest()), "drop reserved-bits");
    assert_eq!(verdict(A, "port = 4790", honest()), "drop host-no-socket");
    let elsewhere = outer_between((B_HOST, stranger), &payload);
    assert_eq!(
        verdict(A, "bind = \"local\"", elsewhere),
        "drop host-not-for-us"
    );

    let without = outer_v6(&payload).tap(|frame| frame[60..62].fill(0));
    assert_eq!(verdict(A_V6, "", outer_v6(&payload)), "deliver ");
    assert_eq!(
        verdict(A_V6, "", without.clone()),
        "drop host-udp-no-checksum"
    );
    assert_eq!(
        verdict(A_V6, "udp_checksum = false", without.clone()),
        "deliver "
    );
    let told = "udp6_zero_checksum_rx = true";
    assert_eq!(verdict(A_V6, told, without.clone()), "deliver ");
    let refused = "udp_checksum = false\nudp6_zero_checksum_rx = false";
    assert_eq!(verdict(A_V6, refused, without), "drop host-udp-no-checksum");
    let wrong = outer_v6(&payload).tap(|frame| frame[60] ^= 1);
    assert_eq!(verdict(A_V6, "", wrong), "drop host-udp-checksum");
}

#[test]
fn raw_and_cooked_captures_are_read() {
    let bench = Bench::new(A, "");
    let packet = &honest()[IP..];
    let cooked = [&[0, 0, 0, 1, 0, 6][..], &[2; 8], &[8, 0], packet].concat();
    let cooked2 = [&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6][..], &[2; 8], packet].concat();
    for (link, packet) in [
        (101, packet.to_vec()),
        (228, packet.to_vec()),
        (113, cooked),
        (276, cooked2),
    ] {
        let seen = bench.verdicts("--from-underlay", &pcap_of(link, &[packet]));
        assert_eq!(seen, [numbered(1, &deliver())], "{link}");
    }
}

#[test]
fn text_has_a_line_a_packet_and_a_summary() {
    let bench = Bench::new(A, "");
    let packets = [
        honest(),
        with_header(0x0800_0000, 101 << 8),
        outer(&[]),
        honest(),
    ];
    bench.put("in.pcap", &pcap(&packets));
    let run = bench.run(&["--from-underlay", "in.pcap"]);
    run.ok();
    assert_eq!(
        run.stdout(),
        "1 deliver vni 1 group 0x0003 mark 0x3 underlay 10.0.16.14
2 drop unknown-vni vni 101 underlay 10.0.16.14
3 drop short-datagram underlay 10.0.16.14
4 deliver vni 1 group 0x0003 mark 0x3 underlay 10.0.16.14

deliver              2
drop short-datagram  1  A datagram shorter than a VXLAN header.
drop unknown-vni     1  A VNI that is not ours.
packets, total       4
"
    );
    assert_eq!(bench.files(), ["in.pcap"]);
}
