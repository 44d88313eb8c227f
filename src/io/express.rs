//! The express path as lanes, control and the daemon see it: which flows the kernel forwards by our decision, and what came of it.
//!
//! ```text
//! lane --offer--> flows --> program at the TAP (bpf::express) --> counts --collect--> counters
//!      \
//!       `-- a peer that nobody asked the host about --> daemon::express --> hops
//! ```
//!
//! A lane offers a TCP flow of which it has sent enough to be worth it. The decision is copied into the program's map and holds for as long as
//! the *generation* does in which it was made: whoever changes what a decision depends on (tables, hops, captures) begins a new
//! generation with [`renew`](Express::renew), and takes back all decisions by it at once. A lane reads the generation before the
//! tables, so a decision is never newer than it says.
//!
//! **Order.** What the program takes passes what still waits in the TAP's queue. So flows are offered only when the lane has read the
//! queue to its end and sent all of it.
//!
//! Nothing goes this way while a policy is enforced, whose flow table must see every packet, or while anybody captures.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::Captures;
use super::source_ports::pick;
use crate::bpf::express::{
    COUNT_LEN, Count, DECISION_LEN, Decision, FLOW_KEY_LEN, FlowKey, GENERATION_LEN, Maps,
};
use crate::counters::Counters;
use crate::sys::bpf_map::{Map, MapKind};
use crate::tables::Tables;
use crate::vtep::Outer;
use crate::wire::{MacAddr, vxlan};

/// Flows that are forwarded at once; beyond, those that were silent the longest are decided anew.
const FLOWS_MAX: u32 = 1 << 16;
/// Peers that anything is forwarded to: each has a counter of its own for good. Flows to others go through the lanes.
pub const PEERS_MAX: usize = 1024;
/// Peers that wait to be looked up.
const WANTED_MAX: usize = 64;
/// How long the thread is waited for until it hears that it is to end.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// The one entry of the map that holds the generation.
const IN_FORCE: [u8; 4] = [0; 4];

/// Shared by lanes, control and the daemon.
#[derive(Debug)]
pub struct Express {
    flows: Map,
    in_force: Map,
    counts: Map,
    options: ExpressOptions,
    /// The generation in force; 0: none is.
    generation: AtomicU64,
    last: Mutex<Last>,
    /// By the peer's underlay address. `None`: nothing can be forwarded there.
    hops: ArcSwap<HashMap<Ipv4Addr, Option<Hop>>>,
    wanted: Sender<Wanted>,
    /// By slot: whose it is, and what of its count the counters have already.
    collected: Mutex<Vec<(Ipv4Addr, Count)>>,
}

/// What is changed by one at a time.
#[derive(Debug, Default)]
struct Last {
    /// The last generation that was in force, or was to be.
    generation: u64,
    /// What keeps it from being in force.
    obstacle: Option<Obstacle>,
    /// Nothing is to be in force any more.
    is_ended: bool,
}

/// Why nothing is forwarded, though it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A policy is enforced: its flow table must see every packet.
    Policy,
    /// Somebody captures.
    Capture,
}

/// How outer headers are filled in, beside what the verdict says.
#[derive(Debug)]
pub struct ExpressOptions {
    /// The outer source address.
    pub local: Ipv4Addr,
    /// The ports that the lanes' sockets hold, in their order.
    pub source_ports: Vec<u16>,
    /// False: the outer UDP checksum is 0.
    pub udp_checksum: bool,
    /// While any runs, nothing is forwarded.
    pub captures: Arc<Captures>,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Number of the underlay's device.
    pub interface: u32,
    /// The largest inner frame that fits, Ethernet header included.
    pub frame_len_max: u32,
    /// Its place among the counts.
    pub slot: u32,
}

/// What the daemon's thread is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Which way packets to this peer go.
    Hop(Ipv4Addr),
    /// To end.
    End,
}

/// A flow that could be forwarded, by the verdict on one of its frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) flow: FlowKey,
    pub(super) peer: Ipv4Addr,
    pub(super) port: u16,
    pub(super) frame_destination: MacAddr,
    pub(super) frame_source: MacAddr,
    pub(super) inner_destination: MacAddr,
    pub(super) vxlan: [u8; vxlan::HEADER_LEN],
    pub(super) outer: Outer,
    pub(super) flow_hash: u32,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no more to be said of the flow in this generation.
    Settled,
    /// The way to its peer is being looked up.
    Later,
}

impl Express {
    /// Nothing is forwarded before the first [`renew`](Self::renew). The receiver gets the peers whose way is to be looked up.
    ///
    /// # Errors
    /// The kernel makes no maps: EPERM without CAP_BPF, ENOSYS without BPF.
    pub fn create(options: ExpressOptions) -> io::Result<(Self, Receiver<Wanted>)> {
        let (wanted, receiver) = bounded(WANTED_MAX);
        let express = Self {
            flows: Map::create(
                MapKind::LruHash,
                "silk_flows",
                FLOW_KEY_LEN,
                DECISION_LEN,
                FLOWS_MAX,
            )?,
            in_force: Map::create(MapKind::Array, "silk_generation", 4, GENERATION_LEN, 1)?,
            counts: Map::create(
                MapKind::PerCpuArray,
                "silk_counts",
                4,
                COUNT_LEN,
                PEERS_MAX as u32,
            )?,
            options,
            generation: AtomicU64::new(0),
            last: Mutex::default(),
            hops: ArcSwap::default(),
            wanted,
            collected: Mutex::default(),
        };
        Ok((express, receiver))
    }

    /// For the program.
    #[must_use]
    pub fn maps(&self) -> Maps {
        Maps {
            flows: self.flows.as_fd().as_raw_fd(),
            generation: self.in_force.as_fd().as_raw_fd(),
            counts: self.counts.as_fd().as_raw_fd(),
        }
    }

    /// Takes back all decisions: other `tables` are in use from now on, or something else changed that decisions depend on. They are
    /// loaded under the lock: of two that renew at once, the later one must not judge by tables from before the other's.
    pub fn renew(&self, tables: &ArcSwap<Tables>) {
        let mut last = self.last.lock();
        last.generation += 1;
        last.obstacle = self.obstacle_under(&tables.load());
        let is_on = last.obstacle.is_none() && !last.is_ended;
        self.set(if is_on { last.generation } else { 0 });
    }

    /// Begins to forward, or ends it, if that is not as `tables` and captures want it.
    pub fn adjust(&self, tables: &ArcSwap<Tables>) {
        if self.is_on() != self.obstacle_under(&tables.load()).is_none() {
            self.renew(tables);
        }
    }

    /// Nothing is forwarded any more, whoever [renews](Self::renew) it: nobody watches the ways to peers from now on.
    pub fn end(&self) {
        let mut last = self.last.lock();
        last.is_ended = true;
        self.set(0);
    }

    /// Whether anything may be forwarded now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.generation.load(Ordering::Acquire) != 0
    }

    /// What keeps flows from being forwarded.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.last.lock().obstacle
    }

    /// The outer source address.
    #[must_use]
    pub fn local(&self) -> Ipv4Addr {
        self.options.local
    }

    /// `last` is held. What cannot be written is not believed to be.
    fn set(&self, generation: u64) {
        self.generation.store(0, Ordering::Release);
        // Of an array's entry that is there the kernel refuses nothing.
        if self
            .in_force
            .update(&IN_FORCE, &generation.to_ne_bytes())
            .is_ok()
        {
            self.generation.store(generation, Ordering::Release);
        }
    }

    fn obstacle_under(&self, tables: &Tables) -> Option<Obstacle> {
        if tables.policy.is_some() {
            Some(Obstacle::Policy)
        } else if self.options.captures.are_on() {
            Some(Obstacle::Capture)
        } else {
            None
        }
    }

    /// The ways to peers as the host has them now. If one is another than it was, all decisions are taken back.
    pub fn set_hops(&self, hops: HashMap<Ipv4Addr, Option<Hop>>, tables: &ArcSwap<Tables>) {
        let known = self.hops.load();
        let is_new = |(peer, hop)| known.get(peer).is_some_and(|known| known != hop);
        let is_changed =
            hops.iter().any(is_new) || known.keys().any(|peer| !hops.contains_key(peer));
        self.hops.store(Arc::new(hops));
        if is_changed {
            self.renew(tables);
        }
    }

    /// The place of `peer` among the counts, its own from then on; `None`: all are taken.
    pub fn slot(&self, peer: Ipv4Addr) -> Option<u32> {
        let mut collected = self.collected.lock();
        let found = collected.iter().position(|&(other, _)| other == peer);
        let slot = found.unwrap_or(collected.len());
        if slot == PEERS_MAX {
            return None;
        }
        if found.is_none() {
            collected.push((peer, Count::default()));
        }
        Some(slot as u32)
    }

    /// Adds what was forwarded since the last time to the counters, the device's and the peers': to their first lane's, since no lane
    /// saw it. What cannot be read now is added later. Returns all that was forwarded.
    pub fn collect(&self, device: &Counters, tables: &Tables) -> Count {
        let mut collected = self.collected.lock();
        for (slot, (peer, counted)) in (0_u32..).zip(collected.iter_mut()) {
            let Ok(Some(cpus)) = self.counts.lookup_per_cpu(&slot.to_ne_bytes()) else {
                continue;
            };
            let total: Count = cpus.into_iter().map(Count::from_bytes).sum();
            let packets = total.packets.saturating_sub(counted.packets) as usize;
            let bytes = total.bytes.saturating_sub(counted.bytes) as usize;
            if packets == 0 {
                continue;
            }
            *counted = total;
            device.lane(0).count_tx(packets, bytes);
            // What went to a peer that is no more counts for the device alone, as with a lane.
            if let Some(peer) = tables.peers.lookup(IpAddr::V4(*peer)) {
                peer.counters.lane(0).count_tx(packets, bytes);
            }
        }
        collected.iter().map(|&(_, count)| count).sum()
    }

    /// Whether a decision that is in force has been left for the flow.
    #[cfg(test)]
    pub(super) fn is_decided(&self, flow: &FlowKey) -> bool {
        let value = self.flows.lookup::<DECISION_LEN>(&flow.to_bytes());
        let generation = self.generation.load(Ordering::Acquire).to_ne_bytes();
        // Behind the seal.
        value.is_ok_and(|value| value.is_some_and(|value| value[8..16] == generation))
    }

    /// Asks the daemon's thread to end.
    pub fn end_watch(&self) {
        // It takes it as soon as it has looked up whom it was asked for before, or is gone.
        let _ = self.wanted.send_timeout(Wanted::End, END_PATIENCE);
    }

    /// The generation in force, for the time of a batch; to be asked before the tables are loaded.
    pub(super) fn in_force(&self) -> Option<InForce<'_>> {
        let generation = self.generation.load(Ordering::Acquire);
        (generation != 0).then_some(InForce {
            express: self,
            generation,
        })
    }
}

/// The express path under one generation.
#[derive(Clone, Copy)]
pub(super) struct InForce<'a> {
    express: &'a Express,
    pub(super) generation: u64,
}

impl InForce<'_> {
    /// Has the kernel forward the flow.
    pub(super) fn take(&self, offer: &Offer) -> Answer {
        let express = self.express;
        let hops = express.hops.load();
        let hop = match hops.get(&offer.peer) {
            Some(Some(hop)) => hop,
            Some(None) => return Answer::Settled,
            None => {
                // If many wait it is asked again with the flow's next frame.
                let _ = express.wanted.try_send(Wanted::Hop(offer.peer));
                return Answer::Later;
            }
        };
        let options = &express.options;
        let ports = &options.source_ports;
        let Some(&source_port) = ports.get(pick(offer.flow_hash, ports.len())) else {
            return Answer::Settled;
        };
        let decision = Decision {
            generation: self.generation,
            interface: hop.interface,
            slot: hop.slot,
            frame_len_max: hop.frame_len_max,
            udp_checksum: options.udp_checksum,
            frame_destination: offer.frame_destination,
            frame_source: offer.frame_source,
            inner_destination: offer.inner_destination,
            source: options.local,
            destination: offer.peer,
            source_port,
            destination_port: offer.port,
            vxlan: offer.vxlan,
            tos: offer.outer.tos,
            ttl: offer.outer.ttl,
            dont_fragment: offer.outer.df,
        };
        let (key, value) = (offer.flow.to_bytes(), decision.to_bytes(&offer.flow));
        // A flow without a decision goes through the lane, as it did.
        let _ = express.flows.update(&key, &value);
        Answer::Settled
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::bpf::express;
    use crate::io::capture::Filter;
    use crate::tables::PolicySpec;
    use crate::vtep::fixture::{compile, local, spec, tables};

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 14);

    /// `None` where this host lets nobody, or not us, make maps.
    pub(in crate::io) fn express() -> Option<(Express, Receiver<Wanted>)> {
        let options = ExpressOptions {
            local: Ipv4Addr::new(10, 0, 32, 12),
            source_ports: vec![40_000, 50_000],
            udp_checksum: true,
            captures: Arc::default(),
        };
        match Express::create(options) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => None,
            created => Some(created.expect("BPF has maps")),
        }
    }

    pub(in crate::io) fn hop(express: &Express) -> Hop {
        Hop {
            interface: 7,
            frame_len_max: 1464,
            slot: express.slot(PEER).expect("one is free"),
        }
    }

    /// What the program finds in force.
    fn generation(express: &Express) -> u64 {
        let value = express.in_force.lookup(&IN_FORCE).expect("it may be read");
        u64::from_ne_bytes(value.expect("an array has all its entries"))
    }

    #[test]
    fn each_change_takes_back_what_was_decided() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let tables = ArcSwap::from_pointee(tables());
        assert!(express.in_force().is_none(), "nothing before the first");
        let mut before = 0;
        for _ in 0..3 {
            express.renew(&tables);
            let now = generation(&express);
            assert!(now > before);
            assert_eq!(
                express.in_force().map(|in_force| in_force.generation),
                Some(now)
            );
            before = now;
        }
        express.adjust(&tables);
        assert_eq!(generation(&express), before, "nothing changed");
        express.end();
        for _ in 0..2 {
            assert_eq!((generation(&express), express.is_on()), (0, false));
            // Control may outlive who watches the ways to peers.
            express.renew(&tables);
        }
    }

    #[test]
    fn who_renews_last_judges_by_the_tables_of_then() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let mut enforced = spec();
        enforced.policy = Some(PolicySpec::default());
        let tables = ArcSwap::from_pointee(tables());
        thread::scope(|scope| {
            let last = express.last.lock();
            let waits = scope.spawn(|| express.renew(&tables));
            thread::sleep(Duration::from_millis(50));
            // As control does it, which then renews first.
            tables.store(Arc::new(compile(local(), &enforced)));
            drop(last);
            waits.join().expect("it does not panic");
        });
        assert_eq!(
            (generation(&express), express.obstacle()),
            (0, Some(Obstacle::Policy))
        );
    }

    #[test]
    fn policy_and_captures_stop_it_and_it_goes_on_without() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let mut enforced = spec();
        enforced.policy = Some(PolicySpec::default());
        let [open, enforced] = [tables(), compile(local(), &enforced)].map(ArcSwap::from_pointee);
        express.renew(&open);
        express.renew(&enforced);
        assert_eq!(
            (generation(&express), express.obstacle()),
            (0, Some(Obstacle::Policy))
        );
        express.adjust(&open);
        assert!(express.is_on());
        let capture = express.options.captures.start(1, Filter::default(), 64);
        express.adjust(&open);
        assert_eq!(
            (generation(&express), express.obstacle()),
            (0, Some(Obstacle::Capture))
        );
        drop(capture);
        express.adjust(&open);
        assert_eq!((express.is_on(), express.obstacle()), (true, None));
    }

    #[test]
    fn another_way_takes_back_what_was_decided_and_a_further_one_does_not() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let tables = ArcSwap::from_pointee(tables());
        express.renew(&tables);
        let first = HashMap::from([(PEER, Some(hop(&express)))]);
        express.set_hops(first.clone(), &tables);
        let before = generation(&express);
        let mut further = first.clone();
        further.insert(Ipv4Addr::new(10, 0, 16, 15), None);
        express.set_hops(further.clone(), &tables);
        assert_eq!(generation(&express), before);
        further.insert(PEER, None);
        express.set_hops(further, &tables);
        let changed = generation(&express);
        assert!(changed > before);
        express.set_hops(HashMap::new(), &tables);
        assert!(generation(&express) > changed, "a peer is gone");
    }

    #[test]
    fn what_was_forwarded_is_added_once_for_device_and_peer() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let (device, tables) = (Counters::new(1), tables());
        let slot = hop(&express).slot;
        assert_eq!(express.slot(PEER), Some(slot), "it keeps its place");
        let cpus = {
            let one = [1_u64.to_ne_bytes(), 100_u64.to_ne_bytes()].concat();
            express
                .counts
                .update(&slot.to_ne_bytes(), &one)
                .expect("it may be written");
            let all = express
                .counts
                .lookup_per_cpu::<{ express::COUNT_LEN }>(&slot.to_ne_bytes());
            all.expect("it may be read").expect("it is there").len() as u64
        };
        for _ in 0..2 {
            let all = express.collect(&device, &tables);
            assert_eq!((all.packets, all.bytes), (cpus, 100 * cpus));
            let peer = tables.peers.lookup(IpAddr::V4(PEER)).expect("it is a peer");
            for counters in [&device, &peer.counters] {
                let totals = counters.totals();
                assert_eq!((totals.tx_packets, totals.tx_bytes), (cpus, 100 * cpus));
            }
        }
    }

    #[test]
    fn places_run_out_and_are_kept() {
        let Some((express, _wanted)) = express() else {
            return;
        };
        let peer = |n: usize| Ipv4Addr::from_bits(n as u32);
        for n in 0..PEERS_MAX {
            assert_eq!(express.slot(peer(n)), Some(n as u32));
        }
        assert_eq!(express.slot(peer(PEERS_MAX)), None);
        assert_eq!(express.slot(peer(5)), Some(5));
    }
}
