//! Source ports: one port a flow, whatever does not make a flow; in both directions; and many ports for many flows.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Direction, Stimulus};
use super::frames::*;
use super::ground::Ground;
use crate::support::{Result, ensure};

/// Flows that differ in one port, and ports that so many must reach: a pool of 32 chosen by hash reaches 28 on average.
const FLOWS: u16 = 64;
const ENOUGH_PORTS: usize = 16;

/// The flow, and one of its frames.
fn table() -> Vec<(&'static str, Inner)> {
    let back = Inner::udp4_between(THERE, HERE, [53, 40_000], b"back");
    let back6 = Inner::udp6_between(THERE_V6, HERE_V6, [53, 40_000]);
    vec![
        ("udp4", Inner::udp4()),
        ("udp4", back.clone()),
        ("udp4", back.from(PEER_MAC)),
        ("udp4", Inner::udp4().to(OTHER_PEER_MAC)),
        ("udp4", Inner::udp4().from(UNKNOWN_MAC)),
        ("udp4", Inner::udp4().tos(0xb9)),
        ("udp4", Inner::udp4().ttl(3)),
        ("udp4", Inner::udp4().df(true)),
        // Whether a tag makes another flow of it is each one's own affair; the VLAN's number does not.
        ("tagged", Inner::udp4().vlan(5)),
        ("tagged", Inner::udp4().vlan(6)),
        (
            "udp4",
            Inner::udp4_between(HERE, THERE, [40_000, 53], b"of another length"),
        ),
        ("udp6", Inner::udp6()),
        ("udp6", back6),
        ("udp6", Inner::udp6().tos(0xb9).ttl(3)),
        ("tcp4", Inner::tcp4(0)),
        ("tcp4", Inner::tcp4(500)),
        ("arp", Inner::arp(THERE)),
        ("arp", Inner::arp([10, 255, 43, 200])),
        ("ping", Inner::ping4(1)),
        ("ping", Inner::ping4(2)),
        ("fragments", Inner::fragment4(0, true)),
        ("fragments", Inner::fragment4(3, true)),
        ("fragments", Inner::fragment4(6, false)),
    ]
}

/// Runs them on both sides; returns how many cases that were.
pub(crate) fn run(ground: &mut Ground) -> Result<usize> {
    let mut ports: [BTreeMap<&str, BTreeMap<u16, Vec<usize>>>; 2] = Default::default();
    let table = table();
    for (line, (flow, frame)) in table.iter().enumerate() {
        for (side, port) in ports.iter_mut().zip(ports_of(ground, frame)?) {
            let of_flow = side.entry(flow).or_default();
            of_flow.entry(port).or_default().push(line);
        }
    }
    for (whose, ports) in ["the kernel", "ours"].iter().zip(&ports) {
        let several: Vec<_> = ports.iter().filter(|(_, ports)| ports.len() > 1).collect();
        ensure!(
            several.is_empty(),
            "{whose}: a flow has several ports, each in these lines: {several:?}"
        );
    }
    let mut distinct: [BTreeSet<u16>; 2] = Default::default();
    for port in 0..FLOWS {
        let frame = Inner::udp4_between(HERE, THERE, [20_000 + port, 53], b"one of many");
        for (side, port) in distinct.iter_mut().zip(ports_of(ground, &frame)?) {
            side.insert(port);
        }
    }
    let [theirs, ours] = distinct.map(|ports| ports.len());
    let available = ground.setup.ports.len();
    ensure!(
        ours >= ENOUGH_PORTS.min(available / 2),
        "{FLOWS} flows used {ours} ports of {available}, with the kernel {theirs}"
    );
    Ok(table.len() + usize::from(FLOWS))
}

/// The kernel's port and ours for one frame.
fn ports_of(ground: &mut Ground, frame: &Inner) -> Result<[u16; 2]> {
    let case = Case {
        direction: Direction::Transmit,
        setup: ground.setup,
        stimuli: vec![Stimulus::of(frame.0.clone())],
    };
    let agreed = ground.compare(&case)??;
    let port = |ports: &[u16]| ports.first().copied().ok_or("no packet came");
    Ok([port(&agreed.kernel.ports)?, port(&agreed.silk.ports)?])
}
