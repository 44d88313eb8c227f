//! Look-ups in each table, the whole walk through them, and compilation.
//!
//! - `route_v4`, `route_v6`, `neighbor`, `fdb`, `group`, `resolve`, each at 10, 1,000 and 100,000 entries: time for one look-up that hits,
//!   over 4,096 keys drawn at random before the clock runs. Routes are the /24 and /64 subnets of as many peers, every key a random host
//!   in one of them. Nothing else runs between look-ups, so the caches hold as much of a table as fits; elements per second are look-ups.
//! - `compile`: a whole snapshot of 10,000 peers (two routes, two neighbours, an FDB entry and a group each; their counters exist), and
//!   route tables of 100,000 random v4 prefixes and v6 host routes. Elements per second are peers and routes.
//!
//! No look-up allocates. Figures are of one core; compare them within one run:
//!
//! ```text
//! cargo bench --bench tables
//! ```

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use ipnet::IpNet;
use silk_vtep::tables::{
    CounterRegistry, FdbEntry, GroupEntry, Local, Neighbor, Route, RouteTable, TableSpec, Tables,
};
use silk_vtep::wire::{GroupId, MacAddr};

const SIZES: [u32; 3] = [10, 1_000, 100_000];
const KEYS: usize = 4_096;

criterion_group!(benches, lookups, compile);
criterion_main!(benches);

fn lookups(c: &mut Criterion) {
    for peers in SIZES {
        let random = &mut Random(u64::from(peers));
        let tables = tables(peers);
        let hosts = keys(|| v4_host(random.below(peers), random.next() as u8).into());
        let hosts_v6 = keys(|| v6_host(random.below(peers), random.next()).into());
        let vteps = keys(|| v4_host(random.below(peers), 0).into());
        let macs = keys(|| MacAddr::overlay(v4_host(random.below(peers), 0)));
        let containers = keys(|| container(random.below(peers)));
        lookup(c, "route_v4", peers, &hosts, |&k| tables.routes.lookup(k));
        lookup(c, "route_v6", peers, &hosts_v6, |&k| {
            tables.routes.lookup(k)
        });
        lookup(c, "neighbor", peers, &vteps, |&k| {
            tables.neighbors.lookup(k)
        });
        lookup(c, "fdb", peers, &macs, |&k| tables.fdb.lookup(k).first());
        lookup(c, "group", peers, &containers, |&k| tables.groups.lookup(k));
        lookup(c, "resolve", peers, &hosts, |&k| tables.resolve(k).ok());
    }
}

/// One iteration looks all `keys` up; a key that misses would measure something else.
fn lookup<K, V>(
    c: &mut Criterion,
    name: &str,
    entries: u32,
    keys: &[K],
    look_up: impl Fn(&K) -> Option<V>,
) {
    assert!(keys.iter().all(|key| look_up(key).is_some()), "{name}");
    let mut group = group(c, name, keys.len());
    group.bench_function(BenchmarkId::from_parameter(entries), |b| {
        b.iter(|| {
            for key in keys {
                black_box(look_up(black_box(key)));
            }
        });
    });
    group.finish();
}

fn compile(c: &mut Criterion) {
    const PEERS: u32 = 10_000;
    const ROUTES: usize = 100_000;
    let (local, spec) = (Arc::new(local()), spec(PEERS));
    let registry = &mut CounterRegistry::new(1);
    group(c, "compile", PEERS as usize).bench_function(BenchmarkId::new("peers", PEERS), |b| {
        b.iter(|| Tables::compile(Arc::clone(&local), &spec, registry));
    });
    let random = &mut Random(1);
    let v4 = routes(ROUTES, || {
        let length = 8 + random.below(25) as u8;
        IpNet::new(IpAddr::V4((random.next() as u32).into()), length)
    });
    let v6 = routes(ROUTES, || {
        IpNet::new(IpAddr::V6(random.next_u128().into()), 128)
    });
    for (name, routes) in [("routes_v4", v4), ("routes_v6_host", v6)] {
        group(c, "compile", ROUTES).bench_function(BenchmarkId::new(name, ROUTES), |b| {
            b.iter(|| RouteTable::from_routes(&routes));
        });
    }
}

fn group<'a>(c: &'a mut Criterion, name: &str, elements: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(elements as u64));
    group
}

fn keys<K>(mut key: impl FnMut() -> K) -> Vec<K> {
    (0..KEYS).map(|_| key()).collect()
}

fn tables(peers: u32) -> Tables {
    let registry = &mut CounterRegistry::new(1);
    Tables::compile(Arc::new(local()), &spec(peers), registry)
}

/// Peer `i` has a /24 in 10.0.0.0/7, a /64 in fd00::/8 and a VTEP at the first address of each; one container of ours for each peer has
/// a group.
fn spec(peers: u32) -> TableSpec {
    let mut spec = TableSpec::default();
    for i in 0..peers {
        let mac = MacAddr::overlay(v4_host(i, 0));
        for (vtep, length) in [(v4_host(i, 0).into(), 24), (v6_host(i, 0).into(), 64)] {
            spec.routes.push(Route {
                prefix: IpNet::new(vtep, length).expect("24 and 64 are lengths of their families"),
                via: Some(vtep),
            });
            spec.neighbors.push(Neighbor { address: vtep, mac });
        }
        spec.fdb.push(FdbEntry {
            mac,
            underlay: Ipv4Addr::from_bits(0xac10_0000 + i).into(),
            port: None,
            vni: None,
        });
        spec.groups.push(GroupEntry {
            address: container(i),
            id: GroupId(1 + i as u16 % 1_000),
        });
    }
    spec
}

fn local() -> Local {
    Local::silk("12.0.0.0/8".parse().expect("a prefix"))
}

/// A host in the /24 of peer `i`, below 2^17. The multiplier is odd, so no two peers share a subnet, and neighbours in number are far apart.
fn v4_host(i: u32, host: u8) -> Ipv4Addr {
    let subnet = i.wrapping_mul(0x9e37_79b1) % (1 << 17);
    Ipv4Addr::from_bits(10 << 24 | subnet << 8 | u32::from(host))
}

fn v6_host(i: u32, host: u64) -> Ipv6Addr {
    let subnet = u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    Ipv6Addr::from_bits(u128::from(0xfd << 56 | subnet) << 64 | u128::from(host))
}

fn container(i: u32) -> IpAddr {
    Ipv4Addr::from_bits((12 << 24) + i).into()
}

fn routes<E: std::fmt::Debug>(
    count: usize,
    mut prefix: impl FnMut() -> Result<IpNet, E>,
) -> Vec<Route> {
    let route = |_| Route {
        prefix: prefix().expect("the length is of the family"),
        via: None,
    };
    (0..count).map(route).collect()
}

/// SplitMix64: the same keys in every run.
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
