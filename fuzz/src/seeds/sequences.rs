//! Sequences for two cores.

use super::super::two_cores::{NARROW, count, kind};
use super::Seed;
use super::packets::{OWN, OWN_V4, PEER, PEER_V4, arp_request, solicitation, udp};

/// Settings: the packets of both cells bring their marks.
const MARKED: [u8; 2] = [16, 16];

const A: u8 = 0;
const B: u8 = 1;

/// `count` frames of flow `port` from `from`, `len` bytes each.
fn send(from: u8, kind: u8, port: u8, count: u8, len: u16) -> Vec<u8> {
    let [low, high] = len.to_le_bytes();
    vec![
        0,
        from,
        kind,
        2,
        1 << 3,
        port,
        0,
        0,
        count - 1,
        117,
        low,
        high,
    ]
}

/// One datagram to subnet 44, which only an operator's entries lead to.
fn send_to_44(from: u8) -> Vec<u8> {
    vec![0, from, 0, 2, 6, 1, 0, 0, 0, 0, 100, 0]
}

fn host_bytes(from: u8, packet: &[u8]) -> Vec<u8> {
    let len = u8::try_from(packet.len()).expect("short");
    [&[2, from, 0, len], packet].concat()
}

fn datagram(to: u8, source: u8, tos: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("short");
    [&[3, to, source, tos, len], payload].concat()
}

fn carry(to: u8, count: u8, fate: [u8; 3]) -> Vec<u8> {
    [&[4, to, count], &fate[..]].concat()
}

fn forward(at: u8) -> Vec<u8> {
    vec![5, at]
}

fn change(at: u8, verb: u8, table: u8, key: u8, value: u8) -> Vec<u8> {
    vec![6, at, verb, table, key, value, 0, 0]
}

fn refuse(at: u8, what: u8) -> Vec<u8> {
    vec![7, at, what]
}

const ARRIVES: [u8; 3] = [0, 0, 0];
const LOST: [u8; 3] = [4, 0, 0];
const DOUBLED: [u8; 3] = [5, 0, 0];
const LATE: [u8; 3] = [6, 0, 0];

fn across(from: u8, to: u8) -> Vec<u8> {
    [forward(from), carry(to, 255, ARRIVES), forward(to)].concat()
}

/// Each table that leads to subnet 44 changes alone, and each change is seen.
fn neighbor_moves() -> Vec<u8> {
    [
        change(A, 0, 1, 0, 2),
        send_to_44(A),
        forward(A),
        change(A, 0, 2, 0, 1),
        send_to_44(A),
        forward(A),
        change(A, 0, 3, 2, 1),
        send_to_44(A),
        forward(A),
        change(A, 1, 2, 0, 0),
        send_to_44(A),
        forward(A),
        change(A, 2, 2, 0, 0),
        send_to_44(A),
    ]
    .concat()
}

/// Outer fields are inherited, DF among them; or DF is set.
const INHERIT: [u8; 2] = [64, 64];
const DF: [u8; 2] = [128, 128];

/// The path from A to B carries packets of 60 bytes and 45 for each of `units` but the first; of 0 all.
fn narrow(units: u8) -> Vec<u8> {
    refuse(A, NARROW | units << 2 | B)
}

/// Narrower than most segments, narrower than most packets, wide again.
fn narrower(kind: u8) -> Vec<u8> {
    let stream = |units| [narrow(units), send(A, kind, 1, 4, 1000), across(A, B)].concat();
    [stream(24), stream(8), stream(1), stream(0)].concat()
}

/// The same frames with a mark in place of their source MAC.
fn mark(mut send: Vec<u8>, more: u8) -> Vec<u8> {
    send[8] |= count::MARKED | more;
    send
}

fn marked(more: u8) -> Vec<u8> {
    [mark(send(A, 0, 1, 3, 200), more), across(A, B)].concat()
}

pub(super) fn two_cores() -> Vec<Seed> {
    let stream = |kind| [send(A, kind, 1, 4, 1000), across(A, B)].concat();
    let large = kind::TCP | kind::SUPER;
    let faults = |fate| {
        let sent = [send(A, kind::TCP, 1, 8, 500), forward(A)].concat();
        [sent, carry(B, 3, fate), carry(B, 255, ARRIVES), forward(B)].concat()
    };
    let header = [0x88, 0, 0, 3, 0, 0, 1, 0];
    let to_b = [&header[..], &udp((OWN, PEER), (OWN_V4, PEER_V4), 2)].concat();
    let arp = arp_request(OWN, "10.255.108.0", "10.255.43.0");
    let detection = solicitation(OWN, "fd00:0:0:6c::", "fd00:0:0:2b::", &[]);
    let nd_of_peer = solicitation(
        OWN,
        "fd00:0:0:6c::",
        "fd00:0:0:2b::",
        &[1, 1, 2, 0, 0, 0, 0, 1],
    );
    let nd_for_b = [&header[..], &nd_of_peer].concat();
    let arp_for_b = [&header[..], &arp].concat();
    [
        ("udp4", [0, 0], stream(0)),
        ("udp6", [0, 0], stream(kind::V6)),
        ("tcp4", [0, 0], stream(kind::TCP)),
        ("tcp6", [0, 0], stream(kind::TCP | kind::V6)),
        ("partial", [0, 0], stream(kind::TCP | kind::PARTIAL)),
        ("no-checksum", [0, 0], stream(kind::NO_CHECKSUM)),
        ("super-tcp4", [0, 0], stream(large)),
        ("super-tcp6", [0, 0], stream(large | kind::V6)),
        ("super-udp4", [0, 0], stream(kind::SUPER)),
        (
            "super-udp6-fragmentable",
            [0, 0],
            stream(kind::SUPER | kind::V6 | kind::FRAGMENTABLE),
        ),
        ("super-no-offloads", [8, 8], stream(large)),
        ("bridged-fdb-only", [2, 2], stream(kind::BRIDGED)),
        ("lax-no-gbp", [5, 5], stream(kind::TCP)),
        (
            "both-ways",
            [0, 0],
            [stream(large), send(B, large, 1, 2, 5000), across(B, A)].concat(),
        ),
        ("lost", [0, 0], faults(LOST)),
        ("doubled", [0, 0], faults(DOUBLED)),
        ("late", [0, 0], faults(LATE)),
        ("spoilt", [0, 0], faults([7, 30, 4])),
        ("congested", [0, 0], faults([8, 3, 0])),
        ("cut", [0, 0], faults([9, 60, 0])),
        (
            "joins",
            [0, 0],
            [refuse(B, 2), stream(large), stream(0)].concat(),
        ),
        (
            "refuses-runs",
            [0, 0],
            [refuse(A, 0), stream(large)].concat(),
        ),
        (
            "refuses-super-frames",
            [0, 0],
            [refuse(B, 1), stream(large)].concat(),
        ),
        (
            "flood",
            [0, 0],
            [
                change(A, 0, 3, 0, 1),
                change(A, 0, 3, 0, 2),
                stream(kind::BROADCAST),
            ]
            .concat(),
        ),
        (
            "peer-comes-and-goes",
            [0, 0],
            [
                change(B, 0, 0, 1, 2),
                change(B, 2, 0, 1, 2),
                change(A, 2, 0, 0, 1),
                stream(0),
            ]
            .concat(),
        ),
        (
            "route-moves",
            [0, 0],
            [
                change(A, 0, 1, 1, 1),
                stream(0),
                change(A, 2, 1, 1, 1),
                stream(0),
            ]
            .concat(),
        ),
        ("neighbor-moves", [0, 0], neighbor_moves()),
        (
            "a-short-one-between",
            [0, 0],
            [send(A, 0, 1, 2, 1000), send(A, 0, 1, 1, 100), stream(0)].concat(),
        ),
        (
            "group-changes",
            [0, 0],
            [change(A, 1, 4, 2, 9), stream(0)].concat(),
        ),
        (
            "stranger",
            [0, 0],
            [datagram(B, 2, 0, &to_b), forward(B)].concat(),
        ),
        (
            "mapped-sender",
            [0, 0],
            [datagram(B, 3, 3, &to_b), forward(B)].concat(),
        ),
        (
            "arp-from-peer",
            [0, 0],
            [
                datagram(B, 0, 0, &arp_for_b),
                forward(B),
                carry(A, 9, ARRIVES),
                forward(A),
            ]
            .concat(),
        ),
        (
            "questions-of-host",
            [0, 0],
            [
                host_bytes(A, &[&[0; 10], &arp[..]].concat()),
                host_bytes(A, &[&[0; 10], &detection[..]].concat()),
                forward(A),
            ]
            .concat(),
        ),
        ("marked", MARKED, marked(0)),
        ("marked-forged", MARKED, marked(count::FORGED)),
        (
            "marked-super",
            MARKED,
            [mark(send(A, large, 1, 2, 3000), 0), across(A, B)].concat(),
        ),
        (
            "marked-detached",
            MARKED,
            [refuse(B, 3), marked(0), refuse(A, 3), marked(0)].concat(),
        ),
        ("marked-table", [0, 16], marked(0)),
        ("marks-off", [32, 32], stream(0)),
        ("inherit-tcp4", INHERIT, stream(large)),
        ("inherit-udp6", INHERIT, stream(kind::V6)),
        ("narrow-udp4", DF, narrower(kind::FRAGMENTABLE)),
        ("narrow-udp4-df", INHERIT, narrower(0)),
        ("narrow-udp6", INHERIT, narrower(kind::V6)),
        (
            "narrow-super-tcp4",
            DF,
            narrower(large | kind::FRAGMENTABLE),
        ),
        ("narrow-super-tcp4-df", INHERIT, narrower(large)),
        (
            "narrow-super-udp4",
            DF,
            narrower(kind::SUPER | kind::FRAGMENTABLE),
        ),
        ("narrow-super-tcp6", DF, narrower(large | kind::V6)),
        (
            "narrow-flood",
            DF,
            [
                change(A, 0, 3, 0, 1),
                change(A, 0, 3, 0, 2),
                narrower(kind::BROADCAST | kind::FRAGMENTABLE),
            ]
            .concat(),
        ),
        (
            "narrow-reply",
            DF,
            [
                refuse(B, NARROW | 1 << 2),
                datagram(B, 0, 0, &nd_for_b),
                forward(B),
            ]
            .concat(),
        ),
    ]
    .map(|(name, setting, steps)| {
        let bytes = [&setting[..], &steps].concat();
        Seed::new("two_cores", format!("{name}.bin"), bytes)
    })
    .into()
}
