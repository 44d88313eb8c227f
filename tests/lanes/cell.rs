//! Cells whose devices are in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use silk_vtep::control::PeerSpec;
use silk_vtep::counters::Counters;
use silk_vtep::io::memory::{MemoryTap, MemoryUnderlay};
use silk_vtep::io::{Captures, Lane, LaneOptions, MarkTags, OffloadState, Offloads};
use silk_vtep::tables::{CounterRegistry, GroupEntry, Local, TableSpec, Tables};
use silk_vtep::wire::{MacAddr, vnet, vxlan};

pub(crate) const LANES: usize = 2;
pub(crate) const MTU: u32 = 1450;

/// Every offload a host can have.
pub(crate) fn options() -> LaneOptions {
    LaneOptions {
        mtu_bytes: MTU,
        offloads: Arc::new(Offloads::from_fn(|_| OffloadState::On)),
        mark_tags: Arc::new(MarkTags::new(true)),
        guard: Arc::default(),
        captures: Arc::default(),
        express: None,
    }
}

/// A cell whose devices are in memory.
pub(crate) struct Cell {
    pub(crate) vtep: Ipv4Addr,
    pub(crate) underlay: IpAddr,
    pub(crate) tables: Arc<ArcSwap<Tables>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) offloads: Arc<Offloads>,
    pub(crate) mark_tags: Arc<MarkTags>,
    pub(crate) captures: Arc<Captures>,
    pub(crate) lanes: Vec<Lane<MemoryTap, MemoryUnderlay>>,
}

impl Cell {
    pub(crate) fn new(number: u8, peers: &[u8]) -> Self {
        Self::with_options(number, peers, &options())
    }

    pub(crate) fn with_options(number: u8, peers: &[u8], options: &LaneOptions) -> Self {
        let vtep = vtep_address(number);
        let underlay = underlay_address(number);
        let tables = Arc::new(ArcSwap::from_pointee(compile(number, peers)));
        let counters = Arc::new(Counters::new(LANES));
        let lane = |index| {
            let (tables, counters) = (Arc::clone(&tables), Arc::clone(&counters));
            Lane::new(
                index,
                MemoryTap::default(),
                MemoryUnderlay::new(underlay),
                tables,
                counters,
                options,
            )
        };
        Self {
            vtep,
            underlay,
            lanes: (0..LANES).map(lane).collect(),
            offloads: Arc::clone(&options.offloads),
            mark_tags: Arc::clone(&options.mark_tags),
            captures: Arc::clone(&options.captures),
            tables,
            counters,
        }
    }

    /// From now on, other groups and another `Local`.
    pub(crate) fn recompile(
        &self,
        peers: &[u8],
        groups: Vec<GroupEntry>,
        local: impl Fn(Local) -> Local,
    ) {
        let [_, _, number, _] = self.vtep.octets();
        let tables = compile_with(number, peers, groups, local);
        self.tables.store(Arc::new(tables));
    }

    /// The host sends a packet of this cell's container 2 to `to`'s container 2, through `lane`.
    pub(crate) fn send(&mut self, lane: usize, to: &Self, port: u16, payload: &[u8]) {
        let mac = MacAddr::overlay(self.vtep).octets();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(mac, mac)
            .ipv4(container(self.vtep), container(to.vtep), 64)
            .udp(port, port)
            .write(&mut frame, payload)
            .expect("a Vec takes all");
        self.lanes[lane].tap().host_sends(&frame);
        self.lanes[lane]
            .egress_batch()
            .expect("memory does not fail");
    }

    /// The payloads the host received, from all lanes.
    pub(crate) fn received(&mut self) -> Vec<Vec<u8>> {
        let taps = self.lanes.iter_mut().map(Lane::tap);
        taps.flat_map(|tap| std::iter::from_fn(|| tap.host_receives()).collect::<Vec<_>>())
            .map(|packet| udp_payload(&packet[vnet::HEADER_LEN..]))
            .collect()
    }
}

pub(crate) fn vtep_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, number, 0)
}

pub(crate) fn underlay_address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, number).into()
}

pub(crate) fn container(vtep: Ipv4Addr) -> [u8; 4] {
    let [a, b, c, _] = vtep.octets();
    [a, b, c, 2]
}

pub(crate) fn peer(number: u8) -> PeerSpec {
    PeerSpec {
        subnets: vec![
            format!("{}/24", vtep_address(number))
                .parse()
                .expect("a prefix"),
        ],
        underlay: underlay_address(number),
        mac: MacAddr::overlay(vtep_address(number)),
    }
}

pub(crate) fn compile(number: u8, peers: &[u8]) -> Tables {
    compile_with(number, peers, Vec::new(), |local| local)
}

pub(crate) fn compile_with(
    number: u8,
    peers: &[u8],
    groups: Vec<GroupEntry>,
    local: impl Fn(Local) -> Local,
) -> Tables {
    let vtep = vtep_address(number);
    let silk = Local::silk(format!("{vtep}/24").parse().expect("a prefix"));
    let peers: Vec<_> = peers.iter().map(|&number| peer(number)).collect();
    let spec = TableSpec {
        routes: peers.iter().flat_map(PeerSpec::routes).collect(),
        neighbors: peers.iter().flat_map(PeerSpec::neighbors).collect(),
        fdb: peers.iter().map(PeerSpec::fdb_entry).collect(),
        groups,
        policy: None,
    };
    Tables::compile(
        Arc::new(local(silk)),
        &spec,
        &mut CounterRegistry::new(LANES),
    )
}

pub(crate) fn udp_payload(frame: &[u8]) -> Vec<u8> {
    match SlicedPacket::from_ethernet(frame)
        .expect("a whole frame")
        .transport
    {
        Some(TransportSlice::Udp(udp)) => udp.payload().to_vec(),
        other => panic!("expected UDP, got {other:?}"),
    }
}

/// Carries everything `from` sent to lane `lane` of `to`; returns the source ports it saw.
pub(crate) fn carry(from: &mut Cell, to: &mut Cell, lane: usize) -> Vec<u16> {
    let mut ports = Vec::new();
    for sender in &mut from.lanes {
        while let Some(datagram) = sender.underlay().take_sent() {
            assert_eq!(datagram.destination, (to.underlay, vxlan::PORT).into());
            ports.push(datagram.source.port());
            to.lanes[lane].underlay().arrive(datagram);
        }
    }
    to.lanes[lane]
        .ingress_batch()
        .expect("memory does not fail");
    ports
}
