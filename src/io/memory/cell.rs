//! A whole VTEP in memory.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{MemoryTap, MemoryUnderlay};
use crate::counters::{Counters, Totals};
use crate::io::{Lane, LaneOptions, Progress};
use crate::tables::{Changed, CounterRegistry, Local, TableSpec, Tables};

/// A whole VTEP in memory: one [`Lane`], the loop the daemon runs, between a [`MemoryTap`] and a [`MemoryUnderlay`], with the tables it
/// reads and the counters it writes. No root, no clock, no threads: nothing happens but what [`forward`](Self::forward) does.
///
/// ```
/// use silk_vtep::DropReason;
/// use silk_vtep::io::LaneOptions;
/// use silk_vtep::io::memory::{MemoryCell, WireDatagram};
/// use silk_vtep::tables::{Local, TableSpec};
/// use silk_vtep::vtep::Outer;
///
/// let local = Local::silk("10.255.108.0/24".parse()?);
/// let options = LaneOptions::with_all_offloads(1450);
/// let mut cell = MemoryCell::new(local, &TableSpec::default(), "10.0.32.12".parse()?, &options);
///
/// cell.underlay().arrive(WireDatagram {
///     source: "192.0.2.1:32768".parse()?,
///     destination: "10.0.32.12:4789".parse()?,
///     outer: Outer { tos: 0, ttl: 64, df: false },
///     payload: b"any bytes".to_vec().into(),
/// });
/// cell.forward();
/// assert!(cell.tap().host_receives().is_none());
/// assert!(cell.totals().drops().eq([(DropReason::UnknownPeer, 1)]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MemoryCell {
    lane: Lane<MemoryTap, MemoryUnderlay>,
    tables: Arc<ArcSwap<Tables>>,
    registry: CounterRegistry,
    counters: Arc<Counters>,
}

impl MemoryCell {
    /// The VTEP `local`, which speaks from `underlay`, with the tables of `spec`.
    #[must_use]
    pub fn new(local: Local, spec: &TableSpec, underlay: IpAddr, options: &LaneOptions) -> Self {
        let mut registry = CounterRegistry::new(1);
        let tables = Tables::compile(Arc::new(local), spec, &mut registry);
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        let counters = Arc::new(Counters::new(1));
        let lane = Lane::new(
            0,
            MemoryTap::default(),
            MemoryUnderlay::new(underlay),
            Arc::clone(&tables),
            Arc::clone(&counters),
            options,
        );
        Self {
            lane,
            tables,
            registry,
            counters,
        }
    }

    /// The host's side: what the host sends, and what it gets.
    pub fn tap(&mut self) -> &mut MemoryTap {
        self.lane.tap()
    }

    /// The underlay's side: what was sent, and what arrives. A [`Wire`](super::Wire) joins those of several cells.
    pub fn underlay(&mut self) -> &mut MemoryUnderlay {
        self.lane.underlay()
    }

    /// The lane itself, to drive one direction or one batch at a time.
    pub fn lane(&mut self) -> &mut Lane<MemoryTap, MemoryUnderlay> {
        &mut self.lane
    }

    /// Forwards all that is there: first what the host sent, then what arrived.
    pub fn forward(&mut self) {
        self.forward_egress();
        self.forward_ingress();
    }

    /// Forwards all that the host sent.
    pub fn forward_egress(&mut self) {
        while self.lane.egress_batch().expect(MEMORY_STAYS) == Progress::More {}
    }

    /// Forwards all that arrived.
    pub fn forward_ingress(&mut self) {
        while self.lane.ingress_batch().expect(MEMORY_STAYS) == Progress::More {}
    }

    /// The tables that the next batch reads.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    /// Swaps in the tables of `spec`, of which `changed` differ from those at hand. Peers keep their counters.
    pub fn update(&mut self, spec: &TableSpec, changed: Changed) {
        let next = self.tables.load().update(spec, changed, &mut self.registry);
        self.registry.retain(&next.peers);
        self.tables.store(Arc::new(next));
    }

    /// What was counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }
}

/// Why a lane over memory has no error to return.
const MEMORY_STAYS: &str =
    "devices in memory are never gone, and fail with nothing but EAGAIN and refusals";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::memory::Wire;
    use crate::tables::Local;
    use crate::vtep::fixture;
    use crate::wire::vnet;

    /// The fixture's own cell, and the one it has as a peer.
    fn cells() -> [MemoryCell; 2] {
        let options = LaneOptions::with_all_offloads(1450);
        let own_underlay: IpAddr = [10, 0, 32, 12].into();
        let mut to_own = fixture::spec();
        to_own.routes[0].prefix = "10.255.108.0/24".parse().expect("a prefix");
        to_own.routes[0].via = Some(fixture::OWN_VTEP.into());
        to_own.neighbors[0].address = fixture::OWN_VTEP.into();
        to_own.neighbors[0].mac = fixture::OWN_MAC;
        to_own.fdb = vec![fixture::fdb_entry(fixture::OWN_MAC, own_underlay)];
        let peer = Local::silk("10.255.43.0/24".parse().expect("a prefix"));
        [
            MemoryCell::new(fixture::local(), &fixture::spec(), own_underlay, &options),
            MemoryCell::new(peer, &to_own, fixture::PEER_UNDERLAY, &options),
        ]
    }

    #[test]
    fn a_frame_crosses_and_both_cells_count_it() {
        let [mut a, mut b] = cells();
        let frame = fixture::from_host(0);
        a.tap().host_sends(&frame);
        a.forward();
        let mut wire = Wire::perfect();
        wire.take_from(a.underlay());
        wire.give_to(b.underlay());
        b.forward();
        let packet = b.tap().host_receives().expect("it was for this cell");
        let (arrived, sent) = (&packet[vnet::HEADER_LEN..], &frame[..]);
        assert_eq!(arrived[..6], fixture::PEER_MAC.octets());
        assert_eq!(arrived[6..], sent[6..]);
        assert_eq!((a.totals().tx_packets, b.totals().rx_packets), (1, 1));
    }

    #[test]
    fn an_update_is_seen_by_what_is_forwarded_after_it() {
        let [mut a, _] = cells();
        a.update(&TableSpec::default(), Changed::ALL);
        a.tap().host_sends(&fixture::from_host(0));
        a.forward();
        assert!(a.underlay().take_sent().is_none());
        assert!(a.tables().peers.is_empty());
    }

    #[test]
    fn more_than_a_batch_is_forwarded_at_once() {
        let [mut a, _] = cells();
        for _ in 0..200 {
            a.tap().host_sends(&fixture::from_host(0));
        }
        a.forward();
        assert_eq!(a.totals().tx_packets, 200);
    }
}
