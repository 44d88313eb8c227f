//! Super-frames to cut, and streams to join.

use silk_vtep::wire::vnet::{GsoType, VnetHeader};

use super::super::offload::frames::{ACK, CWR, ECE, FIN, PSH, Packet, noise};
use super::Seed;

pub(super) fn segment() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: String, how: u8, header: VnetHeader, frame: &[u8]| {
        let bytes = [&[how], &header.emit()[..], frame].concat();
        seeds.push(Seed::new("segment", format!("{name}.bin"), bytes));
    };
    for (name, v6, tcp) in [
        ("tcp4", false, true),
        ("tcp6", true, true),
        ("udp4", false, false),
        ("udp6", true, false),
    ] {
        let mut packet = Packet::new(v6, tcp, noise(1, 700));
        packet.flags = ACK | ECE | FIN | PSH | CWR;
        let (header, frame) = packet.super_frame(200);
        add(name.to_owned(), 0, header, &frame);
        let complete = VnetHeader {
            needs_csum: false,
            ..header
        };
        add(format!("{name}-complete"), 1, complete, &packet.frame());
        let alone = VnetHeader {
            gso_type: GsoType::None,
            ecn: false,
            gso_size: 0,
            ..header
        };
        add(format!("{name}-alone"), 1, alone, &frame);
        packet.vlans = vec![5, 6];
        packet.ip_options = vec![1; 8];
        packet.tcp_options = vec![1; 12];
        let (header, frame) = packet.super_frame(300);
        add(format!("{name}-options"), 1, header, &frame);
        let lying = VnetHeader {
            csum_start: 0xffff,
            ..header
        };
        add(format!("{name}-lying"), 0, lying, &frame);
    }
    seeds
}

/// A piece of a stream, see [`coalesce`](super::super::coalesce).
fn piece(flow: u8, what: u8, payload: u8, rest: [u8; 5]) -> [u8; 8] {
    let [tos, sequence, id, at, value] = rest;
    [flow, what, payload, tos, sequence, id, at, value]
}

pub(super) fn coalesce() -> Vec<Seed> {
    let plain = |flow: u8, n: u8| piece(flow, 0, n % 128, [0; 5]);
    let run = |flow: u8, len: u8| (0..len).map(|n| plain(flow, n)).collect::<Vec<_>>();
    let mut cases: Vec<(String, Vec<[u8; 8]>)> = (0..4)
        .map(|flow| (format!("run-of-flow-{flow}"), run(flow, 10)))
        .collect();
    let left = |flow: u8, n: u8| piece(flow, 16, n % 128, [0; 5]);
    cases.extend((0..4).map(|flow| {
        let pieces = (0..10).map(|n| left(flow, n)).collect();
        (format!("partial-run-of-flow-{flow}"), pieces)
    }));
    let interleaved = (0..60).map(|n| plain(n % 20, n)).collect();
    cases.push(("more-flows-than-runs".to_owned(), interleaved));
    cases.push(("longest-run".to_owned(), run(2, 70)));
    let short_in_between = [run(2, 3), vec![piece(2, 0, 130, [0; 5])], run(2, 3)].concat();
    cases.push(("a-short-one-ends".to_owned(), short_in_between));
    for (name, what, rest) in [
        ("push", 0x20, [0; 5]),
        ("fragmentable", 0x40, [0; 5]),
        ("batch-ends", 0x80, [0; 5]),
        ("flags", 1, [0, 0, 0, 0, 0x01]),
        ("ttl", 2, [0, 0, 0, 0, 1]),
        ("tos", 0, [1, 0, 0, 0, 0]),
        ("sequence", 0, [0, 1, 0, 0, 0]),
        ("id", 0x40, [0, 0, 1, 0, 0]),
        ("no-payload", 5, [0; 5]),
        ("no-checksum", 6, [0; 5]),
        ("vlan", 7, [0, 0, 0, 1, 5]),
        ("ip-options", 8, [0, 0, 0, 1, 0]),
        ("tunnel", 13, [0, 0, 0, 3, 1]),
        ("padding", 15, [0, 0, 0, 0, 3]),
        ("partial", 16, [0; 5]),
        ("wrong-checksum", 26, [0, 0, 0, 0, 1]),
        ("spoilt", 18, [0, 0, 0, 40, 1]),
        ("cut", 25, [0, 0, 0, 50, 0]),
    ] {
        // The third of five differs, once in each kind of flow.
        let with_third =
            |flow| [run(flow, 2), vec![piece(flow, what, 2, rest)], run(flow, 2)].concat();
        let pieces = (0..4).flat_map(with_third).collect();
        cases.push((format!("third-{name}"), pieces));
    }
    cases
        .into_iter()
        .map(|(name, pieces)| {
            let bytes = [&[0, 120][..], &pieces.concat()].concat();
            Seed::new("coalesce", format!("{name}.bin"), bytes)
        })
        .collect()
}
