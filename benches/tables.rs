//! Look-ups in each table, the whole walk through them, and building and swapping a snapshot.
//!
//! - `route_v4`, `route_v6`, `neighbor`, `fdb`, `group`, `peer`, `forward` (route, neighbour and FDB, what a packet asks), each at 10, 1,000, 10,000 and
//!   100,000 entries, `hit` and `miss`: time of one look-up, every entry in turn in random order. Routes are the /24 and /64 subnets
//!   of as many peers; a miss asks for a subnet between theirs. Nothing else runs between look-ups, so the caches hold as much of a
//!   table as fits, and look-ups overlap as far as the processor can.
//! - `snapshot`: 10,000 peers (two routes, two neighbours, an FDB entry and a group each; their counters exist) compiled, stored in
//!   the place of the one before, and that dropped.
//! - `routes`: route tables of 100,000 random v4 prefixes and v6 host routes compiled.
//!
//! No look-up allocates. Figures are of one core; compare them within one run:
//!
//! ```text
//! cargo bench --bench tables
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use silk_vtep::tables::{
    CounterRegistry, FdbEntry, GroupEntry, Local, Neighbor, Route, RouteTable, TableSpec, Tables,
};
use silk_vtep::wire::{GroupId, MacAddr};

const SIZES: [u32; 4] = [10, 1_000, 10_000, 100_000];
/// Subnets that peers are scattered over: twice as many as there are peers at the most, so that as many are missing.
const SUBNET_BITS: u32 = 18;

criterion_group!(benches, lookups, snapshot, routes);
criterion_main!(benches);

fn lookups(c: &mut Criterion) {
    for peers in SIZES {
        let registry = &mut CounterRegistry::new(1);
        let tables = &Tables::compile(Arc::new(local()), &spec(peers), registry);
        let vtep = |n| IpAddr::V4(v4_host(n, 0));
        let host = |n| IpAddr::V4(v4_host(n, 7));
        let host_v6 = |n| IpAddr::V6(v6_host(n, 7));
        let mac = |n| MacAddr::overlay(v4_host(n, 0));
        lookup(c, "route_v4", peers, |n| tables.routes.lookup(host(n)));
        lookup(c, "route_v6", peers, |n| tables.routes.lookup(host_v6(n)));
        lookup(c, "neighbor", peers, |n| tables.neighbors.lookup(vtep(n)));
        lookup(c, "fdb", peers, |n| tables.fdb.lookup(mac(n)).first());
        lookup(c, "group", peers, |n| tables.groups.lookup(container(n)));
        lookup(c, "peer", peers, |n| tables.peers.lookup(underlay(n)));
        lookup(c, "forward", peers, |n| tables.forward(host(n)).ok());
    }
}

/// Looks up what peers 0 to `peers` have, and as many peers behind them that do not exist.
fn lookup<V>(c: &mut Criterion, name: &str, peers: u32, look_up: impl Fn(u32) -> Option<V>) {
    let mut group = c.benchmark_group(name);
    for (what, first, found) in [("hit", 0, true), ("miss", peers, false)] {
        let numbers: Vec<u32> = shuffled(peers).into_iter().map(|n| first + n).collect();
        let answers = numbers.iter().filter(|n| look_up(**n).is_some()).count();
        assert_eq!(
            answers,
            if found { numbers.len() } else { 0 },
            "{name} {what}"
        );
        group.bench_function(format!("{what}/{peers}"), |b| {
            b.iter_custom(|iters| {
                let asked = numbers.iter().cycle().take(iters as usize);
                let start = Instant::now();
                asked.for_each(|n| {
                    black_box(look_up(black_box(*n)));
                });
                start.elapsed()
            });
        });
    }
    group.finish();
}

fn snapshot(c: &mut Criterion) {
    const PEERS: u32 = 10_000;
    let (local, spec) = (Arc::new(local()), spec(PEERS));
    let registry = &mut CounterRegistry::new(1);
    let current = ArcSwap::from_pointee(Tables::compile(Arc::clone(&local), &spec, registry));
    c.bench_function(&format!("snapshot/{PEERS} peers"), |b| {
        b.iter(|| {
            let next = Tables::compile(Arc::clone(&local), &spec, registry);
            current.store(Arc::new(next));
        });
    });
}

fn routes(c: &mut Criterion) {
    const ROUTES: usize = 100_000;
    let random = &mut Random(1);
    let v4 = random_routes(|| {
        let length = 8 + random.below(25) as u8;
        IpNet::new(IpAddr::V4((random.next() as u32).into()), length)
    });
    let v6 = random_routes(|| IpNet::new(IpAddr::V6(random.next_u128().into()), 128));
    for (name, routes) in [("v4", v4), ("v6 hosts", v6)] {
        c.bench_function(&format!("routes/{ROUTES} {name}"), |b| {
            b.iter(|| RouteTable::from_routes(&routes));
        });
    }

    fn random_routes<E: std::fmt::Debug>(
        mut prefix: impl FnMut() -> Result<IpNet, E>,
    ) -> Vec<Route> {
        let route = |_| Route {
            prefix: prefix().expect("the length is of the family"),
            via: None,
        };
        (0..ROUTES).map(route).collect()
    }
}

/// Peer `n` has a /24 in 16.0.0.0/6, a /64 in fd00::/8 and a VTEP at the first address of each; one container of ours for each peer has
/// a group.
fn spec(peers: u32) -> TableSpec {
    let mut spec = TableSpec::default();
    for n in 0..peers {
        let mac = MacAddr::overlay(v4_host(n, 0));
        for (vtep, length) in [(v4_host(n, 0).into(), 24), (v6_host(n, 0).into(), 64)] {
            spec.routes.push(Route {
                prefix: IpNet::new(vtep, length).expect("24 and 64 are lengths of their families"),
                via: Some(vtep),
            });
            spec.neighbors.push(Neighbor { address: vtep, mac });
        }
        spec.fdb.push(FdbEntry {
            mac,
            underlay: underlay(n),
            port: None,
            vni: None,
        });
        spec.groups.push(GroupEntry {
            address: container(n),
            id: GroupId(1 + n as u16 % 1_000),
        });
    }
    spec
}

fn local() -> Local {
    Local::silk("12.0.0.0/8".parse().expect("a prefix"))
}

/// A host in the /24 of peer `n`. The multiplier is odd, so no two peers share a subnet, and neighbours in number are far apart.
fn v4_host(n: u32, host: u8) -> Ipv4Addr {
    let subnet = n.wrapping_mul(0x9e37_79b1) % (1 << SUBNET_BITS);
    Ipv4Addr::from_bits(16 << 24 | subnet << 8 | u32::from(host))
}

fn v6_host(n: u32, host: u64) -> Ipv6Addr {
    let subnet = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    Ipv6Addr::from_bits(u128::from(0xfd << 56 | subnet) << 64 | u128::from(host))
}

fn underlay(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 + n).into()
}

fn container(n: u32) -> IpAddr {
    Ipv4Addr::from_bits((12 << 24) + n).into()
}

/// The numbers below `count` in random order (Fisher and Yates).
fn shuffled(count: u32) -> Vec<u32> {
    let random = &mut Random(u64::from(count));
    let mut numbers: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        numbers.swap(last as usize, random.below(last + 1) as usize);
    }
    numbers
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn next_u128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }
}
