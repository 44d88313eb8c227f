//! The degrade ladder: whatever the host takes over or not, streams and datagrams arrive byte for byte, and each offload shows its state.

use std::collections::BTreeSet;
use std::thread;

use etherparse::{SlicedPacket, TransportSlice};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Connection, Daemon, Datagrams, End, Lab, Noise, Outer, Plan, Result, Site, Sniffer, Stats,
    Wait, ensure, vtep_mac, wait_until,
};

/// Bytes that cross each way, on one connection or shared by several.
const STREAM_BYTES: usize = 20_000_000;
/// Connections at once.
const STREAMS: [usize; 2] = [1, 4];
/// Enough to see super-frames, and few enough for a sniffer to keep.
const GLANCE_BYTES: usize = 1_000_000;

/// Datagrams on their way at once. A TAP queues 500 packets.
const BURST: usize = 64;
/// Datagrams of 1400 bytes: a receive queue of 8 MiB holds 3641 on Linux 6.18.
pub(super) const MORE_THAN_QUEUED: u64 = 6000;
/// Payload bytes of one send that the host is to cut; IPv4 takes 65,507.
const SEND_BYTES: usize = 60_000;
const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;

/// As `link show -j` names them.
const FEATURES: [&str; 5] = ["tso", "uso", "tap-coalescing", "udp-gso", "udp-gro"];

/// A step of the ladder: `[vtep.offload]`, and what is then off.
#[derive(Clone, Copy)]
pub(super) struct Rung {
    name: &'static str,
    /// Of the configuration.
    pub(super) lines: &'static str,
    off: &'static [&'static str],
}

const ALL_ON: Rung = Rung {
    name: "all_on",
    lines: "",
    off: &[],
};

const USO_OFF: Rung = Rung {
    name: "uso_off",
    lines: "[vtep.offload]\nuso = false",
    off: &["uso"],
};

const TAP_COALESCING_OFF: Rung = Rung {
    name: "tap_coalescing_off",
    lines: "[vtep.offload]\ntap_coalescing = false",
    off: &["tap-coalescing"],
};

const UDP_GSO_OFF: Rung = Rung {
    name: "udp_gso_off",
    lines: "[vtep.offload]\nudp_gso = false",
    off: &["udp-gso"],
};

pub(super) const UDP_GRO_OFF: Rung = Rung {
    name: "udp_gro_off",
    lines: "[vtep.offload]\nudp_gro = false",
    off: &["udp-gro"],
};

const TSO_OFF: Rung = Rung {
    name: "tso_off",
    lines: "[vtep.offload]\ntso = false",
    // USO needs it.
    off: &["tso", "uso"],
};

const ALL_OFF: Rung = Rung {
    name: "all_off",
    lines: "[vtep.offload]\ntso = false\nuso = false\ntap_coalescing = false\nudp_gso = false\nudp_gro = false",
    off: &FEATURES,
};

const LADDER: [Rung; 7] = [
    ALL_ON,
    USO_OFF,
    TAP_COALESCING_OFF,
    UDP_GSO_OFF,
    UDP_GRO_OFF,
    TSO_OFF,
    ALL_OFF,
];

impl Rung {
    fn is_on(&self, feature: &str) -> bool {
        !self.off.contains(&feature)
    }

    /// As `link show -j` is to show it.
    fn features(&self) -> Value {
        let state = |name: &str| if self.is_on(name) { "on" } else { "off" };
        let states = FEATURES.map(|name| (name.to_owned(), json!(state(name))));
        let mut features = Map::from_iter(states);
        features.insert("offload-refusals".to_owned(), json!("0"));
        features.insert("steering".to_owned(), json!("one-queue"));
        Value::Object(features)
    }

    /// Where super-frames are to pass.
    fn super_frames(&self, wire: Wire) -> BTreeSet<SuperFrame> {
        let to_tap = self.is_on("tap-coalescing");
        let expected = [
            (SuperFrame::TcpFromTap, self.is_on("tso")),
            (SuperFrame::UdpFromTap, self.is_on("uso")),
            (SuperFrame::TcpToTap, to_tap),
            (SuperFrame::UdpToTap, to_tap && self.is_on("uso")),
            (
                SuperFrame::Underlay,
                wire == Wire::Super && self.is_on("udp-gso"),
            ),
        ];
        let expected = expected.into_iter().filter(|(_, is_expected)| *is_expected);
        expected.map(|(super_frame, _)| super_frame).collect()
    }
}

/// What the underlay's veth pairs pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Super-frames and unfinished checksums.
    Super,
    /// What a network would.
    Mtu,
}

pub(crate) fn cases() -> Vec<Case> {
    let super_wire = LADDER.map(|rung| (rung, Wire::Super));
    let mtu_wire = [ALL_ON, ALL_OFF].map(|rung| (rung, Wire::Mtu));
    let mut cases: Vec<_> = super_wire
        .into_iter()
        .chain(mtu_wire)
        .flat_map(|(rung, wire)| rung_cases(rung, wire))
        .collect();
    cases.push(Case::new(
        "offload::what_a_full_receive_queue_loses_is_counted",
        Plan::of(&[Silk, Silk]).vtep_lines(UDP_GRO_OFF.lines),
        full_receive_queue_is_counted,
    ));
    cases
}

/// IPv4 between containers over an IPv4 underlay, IPv6 between hosts over an IPv6 one.
fn rung_cases(rung: Rung, wire: Wire) -> [Case; 2] {
    let plan = Plan::of(&[Silk, Silk]).vtep_lines(rung.lines);
    let plan = match wire {
        Wire::Super => plan,
        Wire::Mtu => plan.without_offloads(),
    };
    let name = |family: &str| format!("offload::{}_{family}_{wire:?}", rung.name).to_lowercase();
    [
        Case::new(name("v4"), plan.clone(), move |lab| {
            rung_holds(lab, rung, wire, containers)
        }),
        Case::new(name("v6"), plan.overlay_v6().v6(), move |lab| {
            rung_holds(lab, rung, wire, hosts)
        }),
    ]
}

pub(super) fn containers(lab: &Lab) -> Result<[End<'_>; 2]> {
    Ok([
        lab.cells[0].container()?.end(),
        lab.cells[1].container()?.end(),
    ])
}

fn hosts(lab: &Lab) -> Result<[End<'_>; 2]> {
    Ok([lab.cells[0].end_v6(), lab.cells[1].end_v6()])
}

fn rung_holds(
    lab: &mut Lab,
    rung: Rung,
    wire: Wire,
    ends: fn(&Lab) -> Result<[End<'_>; 2]>,
) -> Result {
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let sent = datagrams_cross(lab, ends(lab)?)?;
    all_are_accounted_for(lab, sent)?;
    let [a, b] = ends(lab)?;
    let glance = Connection::between(a, b, 0)?;
    glance.upload(GLANCE_BYTES)?;
    glance.download(GLANCE_BYTES)?;
    let seen = super_frames(&sniffer, lab)?;
    let expected = rung.super_frames(wire);
    ensure!(
        seen == expected,
        "super-frames passed: {seen:?}, expected: {expected:?}"
    );
    drop(sniffer);
    streams_cross([a, b])?;
    features_are(lab, &rung.features())
}

/// Datagrams of all kinds each way. Returns how many went each way.
fn datagrams_cross(lab: &Lab, [a, b]: [End<'_>; 2]) -> Result<u64> {
    let max = payload_max(lab, a)?;
    let mut sent = 0;
    for (from, to) in [(a, b), (b, a)] {
        let mut flow = Datagrams::between(from, to)?;
        super_bursts(&mut flow, max)?;
        bursts(&mut flow, max)?;
        sent = flow.sent();
    }
    Ok(sent)
}

/// Payload bytes of the largest datagram that the overlay carries whole.
pub(super) fn payload_max(lab: &Lab, from: End<'_>) -> Result<usize> {
    let ip_bytes = if from.address.is_ipv4() { 20 } else { 40 };
    Ok(lab.cells[0].mtu()? as usize - ip_bytes - UDP_BYTES)
}

/// As a sender that leaves the cutting to the host.
pub(super) fn super_bursts(flow: &mut Datagrams, max: usize) -> Result {
    [Datagrams::LEN_MIN, 99, 1000, max]
        .into_iter()
        .try_for_each(|len| flow.super_burst(BURST.min(SEND_BYTES / len), len))
}

/// Sends of equal size, then of any size.
pub(super) fn bursts(flow: &mut Datagrams, max: usize) -> Result {
    for len in [Datagrams::LEN_MIN, 99, 1000, max] {
        flow.burst([len; BURST])?;
    }
    let mut noise = Noise::new(3);
    let any_len = |_| max - noise.below(max - Datagrams::LEN_MIN + 1);
    flow.burst((0..BURST).map(any_len))
}

/// Each daemon has sent as many datagrams as it was given and delivered as many as there were, and dropped none.
fn all_are_accounted_for(lab: &mut Lab, sent: u64) -> Result {
    lab.cells
        .iter_mut()
        .try_for_each(|cell| counts_become(cell.daemon()?, |counts| counts == (sent, sent, 0)))
}

/// Waits until sent, delivered and dropped of the one peer are as `wanted`: a packet may arrive before its lane has counted it.
fn counts_become(daemon: &Daemon, wanted: impl Fn((u64, u64, u64)) -> bool) -> Result {
    wait_until("datagrams are counted as they were sent", || {
        let counts = Stats::read(daemon)?.peers()?[0];
        Ok(Wait::unless(wanted(counts), || {
            format!("sent, delivered, dropped: {counts:?}")
        }))
    })
}

/// Every byte is compared, which no digest outdoes.
pub(super) fn streams_cross([a, b]: [End<'_>; 2]) -> Result {
    for count in STREAMS {
        // Bytes of one stream in another would be noticed.
        let connections = (0..count as u64)
            .map(|seed| Connection::between(a, b, seed))
            .collect::<Result<Vec<_>>>()?;
        at_once(&connections, |connection| {
            connection.upload(STREAM_BYTES / count)
        })?;
        at_once(&connections, |connection| {
            connection.download(STREAM_BYTES / count)
        })?;
    }
    Ok(())
}

fn at_once(connections: &[Connection], transfer: impl Fn(&Connection) -> Result + Sync) -> Result {
    thread::scope(|scope| {
        let transfer = &transfer;
        let started: Vec<_> = connections
            .iter()
            .map(|connection| scope.spawn(move || transfer(connection)))
            .collect();
        started
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a stream panicked")?)
    })
}

fn features_are(lab: &mut Lab, expected: &Value) -> Result {
    for cell in &mut lab.cells {
        let features = features(cell.daemon()?)?;
        ensure!(
            features == *expected,
            "shows {features}, expected {expected}"
        );
    }
    Ok(())
}

/// State by name, as `link show -j` has them.
pub(super) fn features(daemon: &Daemon) -> Result<Value> {
    let shown: Value = serde_json::from_str(&daemon.ctl("link show -j")?)?;
    Ok(shown[0]["silk_vtep"]["features"].clone())
}

/// More than one packet in one, by what it holds and where it passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SuperFrame {
    TcpFromTap,
    UdpFromTap,
    TcpToTap,
    UdpToTap,
    Underlay,
}

/// Those that passed in the first cell.
fn super_frames(sniffer: &Sniffer, lab: &Lab) -> Result<BTreeSet<SuperFrame>> {
    Ok(all_super_frames(sniffer, lab)?.into_iter().collect())
}

fn all_super_frames(sniffer: &Sniffer, lab: &Lab) -> Result<Vec<SuperFrame>> {
    let len_max = ETHERNET_BYTES + lab.cells[0].mtu()? as usize;
    let [here, there] = [0, 1].map(|cell| lab.cells[cell].site);
    sniffer.so_far(|frame| {
        if let Some(outer) = Outer::parse(frame) {
            let is_ours = [here.underlay(false), here.underlay(true)].contains(&outer.source);
            return (is_ours && outer.inner.len() > len_max).then_some(SuperFrame::Underlay);
        }
        (frame.len() > len_max)
            .then(|| at_tap(frame, &here, &there))
            .flatten()
    })
}

/// How many super-frames of TCP the first cell's daemon wrote.
pub(super) fn tcp_to_tap(sniffer: &Sniffer, lab: &Lab) -> Result<usize> {
    let passed = all_super_frames(sniffer, lab)?;
    let to_tap = passed
        .into_iter()
        .filter(|passed| *passed == SuperFrame::TcpToTap);
    Ok(to_tap.count())
}

/// What is for the VTEP's own MAC: from the host, which has it too, or from the other VTEP.
fn at_tap(frame: &[u8], here: &Site, there: &Site) -> Option<SuperFrame> {
    let (destination, source) = (frame.get(..6)?, frame.get(6..12)?);
    if destination != vtep_mac(here.vtep) {
        return None;
    }
    let is_from_host = source == vtep_mac(here.vtep);
    let is_from_peer = source == vtep_mac(there.vtep);
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(_) if is_from_host => Some(SuperFrame::TcpFromTap),
        TransportSlice::Tcp(_) if is_from_peer => Some(SuperFrame::TcpToTap),
        TransportSlice::Udp(_) if is_from_host => Some(SuperFrame::UdpFromTap),
        TransportSlice::Udp(_) if is_from_peer => Some(SuperFrame::UdpToTap),
        _ => None,
    }
}

/// Without UDP_GRO: with it the kernel counts what it joined, a run of datagrams, as one.
fn full_receive_queue_is_counted(lab: &mut Lab) -> Result {
    let [from, to] = containers(lab)?;
    let (from, to) = (from.udp()?, to.udp()?);
    from.connect(to.local_addr()?)?;
    lab.cells[1].daemon()?.process()?.signal(Signal::SIGSTOP)?;
    let mut sent = 0;
    while sent < MORE_THAN_QUEUED {
        for _ in 0..BURST {
            from.send(&[7; 1400])?;
            sent += 1;
        }
        counts_become(lab.cells[0].daemon()?, |(tx, _, _)| tx == sent)?;
    }
    lab.cells[1].daemon()?.process()?.signal(Signal::SIGCONT)?;
    let receiver = lab.cells[1].daemon()?;
    let mut delivered = 0;
    wait_until("every datagram was delivered or counted as lost", || {
        let stats = Stats::read(receiver)?;
        let dropped = stats.dropped("receive-queue-full");
        delivered = stats.peers()?[0].1;
        if dropped > 0 && delivered + dropped == sent {
            return Ok(Wait::Done);
        }
        Ok(Wait::NotYet(format!("{stats:?}, {sent} sent")))
    })?;
    to.set_nonblocking(true)?;
    let arrived = std::iter::repeat_with(|| to.recv(&mut [0; 2048])).map_while(std::io::Result::ok);
    let arrived = arrived.count() as u64;
    ensure!(
        arrived == delivered,
        "{arrived} arrived, {delivered} are said to be delivered"
    );
    Ok(())
}
