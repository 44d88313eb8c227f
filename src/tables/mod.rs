//! The forwarding tables, and [`Tables`], the immutable snapshot of all of them that the packet path reads.
//!
//! Control builds a snapshot from a [`TableSpec`] and swaps it whole; look-ups take no lock and allocate nothing. What a snapshot does
//! not change it shares with the one before it, so that two snapshots can be compared cheaply (`Arc::ptr_eq`).

mod address;
mod address_map;
mod container;
mod fdb;
#[cfg(test)]
mod fixtures;
mod group;
mod local;
mod neighbor;
mod outer;
mod path;
mod path_mtu;
mod peer;
pub mod policy;
mod resolve;
mod route;
mod segmentation;
mod trie;

use std::sync::Arc;

use path::Paths;

pub use address::Address;
pub use container::ContainerTable;
pub use fdb::{Destination, Fdb, FdbEntry};
pub use group::{GroupEntry, GroupTable};
pub use local::{Local, MarkSource};
pub use neighbor::{Neighbor, NeighborTable};
pub use outer::{DEFAULT_TTL, Df, OuterField, OuterRules};
pub use path_mtu::PathMtu;
pub use peer::{CounterRegistry, Peer, PeerId, PeerTable};
pub use policy::{Policy, PolicyRule, PolicySpec};
pub use resolve::Resolved;
pub use route::{Route, RouteTable};
pub use segmentation::Segmentation;

/// Everything the core reads for one packet: an immutable snapshot.
///
/// [`compile`](Self::compile) makes the first one from a [`TableSpec`], [`update`](Self::update) the next. Nothing of a snapshot ever
/// changes but the counters of its peers, so it can be read from any number of threads. Each table answers for itself (`routes.lookup`),
/// and [`resolve`](Self::resolve) takes the whole walk of a packet.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Who we are.
    pub local: Arc<Local>,
    /// Longest prefix match: destination address to next hop.
    pub routes: Arc<RouteTable>,
    /// Next hop to MAC.
    pub neighbors: Arc<NeighborTable>,
    /// MAC to underlay destinations.
    pub fdb: Arc<Fdb>,
    /// Inner source address to group id.
    pub groups: Arc<GroupTable>,
    /// Underlay address to the VTEP that speaks from it.
    pub peers: Arc<PeerTable>,
    /// Which groups may speak to whom; `None`: everybody may, and nothing is looked up.
    pub policy: Option<Arc<Policy>>,
    /// Which addresses of our subnets are registered containers'.
    pub containers: Arc<ContainerTable>,
    /// `routes`, `neighbors` and `fdb` joined: made anew whenever one of them is.
    paths: Arc<Paths>,
}

/// What a snapshot is compiled from: plain lists, one entry per key.
///
/// Another cell takes three entries: the route to its containers' subnet, the neighbour that is the next hop, and where that one's MAC is.
/// [`PeerSpec`](crate::control::PeerSpec) makes them of one lease.
///
/// ```
/// use std::sync::Arc;
///
/// use silk_vtep::tables::{CounterRegistry, FdbEntry, Local, Neighbor, Route, TableSpec, Tables};
/// use silk_vtep::wire::MacAddr;
///
/// let mac: MacAddr = "ee:ee:0a:ff:2b:00".parse()?;
/// let via = "10.255.43.0".parse()?;
/// let spec = TableSpec {
///     routes: vec![Route { prefix: "10.255.43.0/24".parse()?, via: Some(via) }],
///     neighbors: vec![Neighbor { address: via, mac }],
///     fdb: vec![FdbEntry { mac, underlay: "10.0.16.14".parse()?, port: None, vni: None }],
///     ..TableSpec::default()
/// };
/// let local = Arc::new(Local::silk("10.255.108.0/24".parse()?));
/// let tables = Tables::compile(local, &spec, &mut CounterRegistry::new(1));
///
/// let resolved = tables.resolve("10.255.43.6".parse()?).expect("all three entries are there");
/// assert_eq!(resolved.destinations[0].underlay, "10.0.16.14:4789".parse()?);
/// assert_eq!(resolved.mac, mac);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TableSpec {
    /// One per prefix.
    pub routes: Vec<Route>,
    /// One per address.
    pub neighbors: Vec<Neighbor>,
    /// One per (MAC, underlay, port, VNI); several destinations only for the zero and multicast MACs.
    pub fdb: Vec<FdbEntry>,
    /// One per address.
    pub groups: Vec<GroupEntry>,
    /// `None`: no policy is enforced.
    pub policy: Option<PolicySpec>,
}

/// Which lists of a [`TableSpec`] differ from those the snapshot at hand was compiled from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// `routes`.
    pub routes: bool,
    /// `neighbors`.
    pub neighbors: bool,
    /// `fdb`, and with it the peers.
    pub fdb: bool,
    /// `groups`.
    pub groups: bool,
    /// `policy`.
    pub policy: bool,
}

impl Changed {
    /// Every list.
    pub const ALL: Self = Self {
        routes: true,
        neighbors: true,
        fdb: true,
        groups: true,
        policy: true,
    };
}

impl Tables {
    /// Compiles a snapshot. Every FDB destination becomes a [`Peer`], its counters kept in `registry` from snapshot to snapshot.
    ///
    /// # Panics
    /// If a family has more than 2^23 routes.
    #[must_use]
    pub fn compile(local: Arc<Local>, spec: &TableSpec, registry: &mut CounterRegistry) -> Self {
        Self::empty(local).update(spec, Changed::ALL, registry)
    }

    /// The snapshot after this one: the tables that `changed` names compiled from `spec`, the others shared with this one.
    ///
    /// # Panics
    /// As [`Tables::compile`].
    #[must_use]
    pub fn update(
        &self,
        spec: &TableSpec,
        changed: Changed,
        registry: &mut CounterRegistry,
    ) -> Self {
        let mut next = self.clone();
        if changed.routes {
            next.routes = Arc::new(RouteTable::from_routes(&spec.routes));
        }
        if changed.neighbors {
            next.neighbors = Arc::new(NeighborTable::from_neighbors(&spec.neighbors));
        }
        if changed.fdb {
            let peers = PeerTable::from_fdb(&spec.fdb, registry);
            next.fdb = Arc::new(Fdb::from_entries(&spec.fdb, &self.local, &peers));
            next.peers = Arc::new(peers);
        }
        if changed.groups {
            next.groups = Arc::new(GroupTable::from_entries(&spec.groups));
        }
        if changed.policy {
            let policy = spec.policy.as_ref();
            next.policy = policy.map(|policy| Arc::new(Policy::compile(policy)));
        }
        if changed.routes || changed.neighbors || changed.fdb {
            next.paths = Arc::new(Paths::join(&next));
        }
        next
    }

    /// The snapshot after this one, with other containers registered and all else shared with this one.
    #[must_use]
    pub fn with_containers(&self, containers: ContainerTable) -> Self {
        Self {
            containers: Arc::new(containers),
            ..self.clone()
        }
    }

    fn empty(local: Arc<Local>) -> Self {
        Self {
            local,
            routes: Arc::default(),
            neighbors: Arc::default(),
            fdb: Arc::default(),
            groups: Arc::default(),
            peers: Arc::default(),
            policy: None,
            containers: Arc::default(),
            paths: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether local, routes, neighbors, fdb, groups and peers are shared.
    fn shared(a: &Tables, b: &Tables) -> [bool; 6] {
        [
            Arc::ptr_eq(&a.local, &b.local),
            Arc::ptr_eq(&a.routes, &b.routes),
            Arc::ptr_eq(&a.neighbors, &b.neighbors),
            Arc::ptr_eq(&a.fdb, &b.fdb),
            Arc::ptr_eq(&a.groups, &b.groups),
            Arc::ptr_eq(&a.peers, &b.peers),
        ]
    }

    #[test]
    fn compile_fills_every_table() {
        let spec = fixtures::spec();
        let registry = &mut CounterRegistry::new(1);
        let tables = Tables::compile(Arc::new(fixtures::local()), &spec, registry);
        assert_eq!(*tables.local, fixtures::local());
        assert_eq!(tables.routes.len(), 3);
        assert_eq!(tables.neighbors.len(), 3);
        assert_eq!(tables.fdb.len(), 3);
        assert_eq!(tables.groups.len(), 1);
        assert_eq!(tables.peers.len(), 2);
    }

    #[test]
    fn update_shares_all_but_what_changed() {
        const NOTHING: Changed = Changed {
            routes: false,
            neighbors: false,
            fdb: false,
            groups: false,
            policy: false,
        };
        let spec = fixtures::spec();
        let registry = &mut CounterRegistry::new(1);
        let tables = Tables::compile(Arc::new(fixtures::local()), &spec, registry);
        let cases = [
            (NOTHING, [true, true, true, true, true, true]),
            (
                Changed {
                    routes: true,
                    ..NOTHING
                },
                [true, false, true, true, true, true],
            ),
            (
                Changed {
                    neighbors: true,
                    ..NOTHING
                },
                [true, true, false, true, true, true],
            ),
            (
                Changed {
                    fdb: true,
                    ..NOTHING
                },
                [true, true, true, false, true, false],
            ),
            (
                Changed {
                    groups: true,
                    ..NOTHING
                },
                [true, true, true, true, false, true],
            ),
            (Changed::ALL, [true, false, false, false, false, false]),
        ];
        for (changed, expected) in cases {
            let next = tables.update(&spec, changed, registry);
            assert_eq!(shared(&tables, &next), expected, "{changed:?}");
        }
    }

    #[test]
    fn update_compiles_the_new_list_and_leaves_the_old_snapshot_alone() {
        let mut spec = fixtures::spec();
        let registry = &mut CounterRegistry::new(1);
        let tables = Tables::compile(Arc::new(fixtures::local()), &spec, registry);
        let source = spec.groups[0].address;
        spec.groups.clear();
        let groups = Changed {
            groups: true,
            ..Changed::default()
        };
        let next = tables.update(&spec, groups, registry);
        assert_eq!(next.groups.lookup(source), None);
        assert!(tables.groups.lookup(source).is_some());
    }

    #[test]
    fn containers_change_alone_and_outlive_an_update() {
        let spec = fixtures::spec();
        let registry = &mut CounterRegistry::new(1);
        let before = Tables::compile(Arc::new(fixtures::local()), &spec, registry);
        let address: std::net::IpAddr = "10.255.108.2".parse().unwrap();
        let with = before.with_containers([address].into_iter().collect());
        assert_eq!(shared(&before, &with), [true; 6]);
        assert!(with.containers.contains(address) && !before.containers.contains(address));
        let after = with.update(&spec, Changed::ALL, registry);
        assert!(after.containers.contains(address));
    }

    #[test]
    fn counters_survive_an_update() {
        let mut spec = fixtures::spec();
        let registry = &mut CounterRegistry::new(1);
        let old = Tables::compile(Arc::new(fixtures::local()), &spec, registry);
        let underlay: std::net::IpAddr = "10.0.16.14".parse().unwrap();
        let peer = |tables: &Tables| Arc::clone(tables.peers.lookup(underlay).unwrap());
        peer(&old).counters.lane(0).count_rx(1, 64);

        spec.fdb.retain(|entry| entry.underlay == underlay);
        let new = old.update(&spec, Changed::ALL, registry);
        registry.retain(&new.peers);
        assert_eq!(peer(&new).counters.totals().rx_packets, 1);

        let destination = &new
            .resolve("10.255.43.6".parse().unwrap())
            .unwrap()
            .destinations[0];
        destination.peer.counters.lane(0).count_tx(1, 64);
        assert_eq!(
            peer(&old).counters.totals().tx_packets,
            1,
            "one set for both snapshots"
        );
    }
}
