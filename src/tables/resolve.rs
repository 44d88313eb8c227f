//! The walk through the tables that a packet for another cell takes: route, neighbour, FDB; and the same walk backwards, to tell whether a
//! source address belongs to the VTEP it came from. Where the route names the next hop, its last two steps were taken when the
//! snapshot was compiled ([`Path`]).

use std::net::IpAddr;

use super::fdb::Span;
use super::path::Path;
use super::{Address, Destination, PeerId, Route, Tables};
use crate::drop_reason::DropReason;
use crate::wire::MacAddr;

/// Each step of the walk for one destination.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// The longest prefix that covers the destination.
    pub route: &'a Route,
    /// The address whose MAC was wanted.
    pub next_hop: IpAddr,
    /// Its MAC: the inner destination MAC from here on.
    pub mac: MacAddr,
    /// Where that MAC is; never empty.
    pub destinations: &'a [Destination],
}

impl Tables {
    /// Walks from `destination` to the underlay. The zero-MAC entries play no part: an unknown MAC is a drop, not a flood.
    ///
    /// # Errors
    /// `NoRoute`, `NoNeighbor` or `NoFdbEntry`: the first table without an answer.
    pub fn resolve(&self, destination: IpAddr) -> Result<Resolved<'_>, DropReason> {
        let (position, mac, span) = self.follow(destination)?;
        let route = self.routes.at(position);
        Ok(Resolved {
            route,
            next_hop: route.next_hop(destination),
            mac,
            destinations: self.fdb.at(span),
        })
    }

    /// What [`resolve`](Self::resolve) tells that a packet needs: the MAC to write and where it goes. Leaves the route unread.
    ///
    /// # Errors
    /// As `resolve`.
    #[inline]
    pub fn forward(
        &self,
        destination: impl Address,
    ) -> Result<(MacAddr, &[Destination]), DropReason> {
        let (_, mac, span) = self.follow(destination)?;
        Ok((mac, self.fdb.at(span)))
    }

    /// The route's position, the MAC and where that is.
    #[inline]
    fn follow(&self, destination: impl Address) -> Result<(usize, MacAddr, Span), DropReason> {
        let position = self.routes.position(destination);
        let position = position.ok_or(DropReason::NoRoute)?;
        let (mac, span) = match self.paths.at(position) {
            Path::Whole { mac, destinations } => (mac, destinations),
            Path::OnLink => self.on_link(destination)?,
            Path::Broken(reason) => return Err(reason),
        };
        Ok((position, mac, span))
    }

    /// The walk's last two steps.
    pub(super) fn on_link(&self, next_hop: impl Address) -> Result<(MacAddr, Span), DropReason> {
        let mac = self.neighbors.lookup(next_hop);
        let mac = mac.ok_or(DropReason::NoNeighbor)?;
        let span = self.fdb.span(mac).ok_or(DropReason::NoFdbEntry)?;
        Ok((mac, span))
    }

    /// True if a frame for `mac` would go to `peer`: the strict source check where nothing is routed.
    #[must_use]
    pub fn has_destination(&self, mac: MacAddr, peer: PeerId) -> bool {
        self.leads_to(self.fdb.lookup(mac), peer)
    }

    /// True if a packet to `source` would go to `peer`: the strict source check, a reverse-path filter (RFC 3704 section 2.2) on our
    /// own tables. A peer's VTEP address passes, for it lies in the peer's subnet.
    #[must_use]
    #[inline]
    pub fn belongs_to(&self, source: impl Address, peer: PeerId) -> bool {
        let Some(position) = self.routes.position(source) else {
            return false;
        };
        match self.paths.peer(position) {
            Some(only) => only == peer,
            None => self
                .forward(source)
                .is_ok_and(|(_, to)| self.leads_to(to, peer)),
        }
    }

    fn leads_to(&self, destinations: &[Destination], peer: PeerId) -> bool {
        let underlay = self.peers.at(peer).underlay;
        destinations.iter().any(|to| to.underlay.ip() == underlay)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ipnet::IpNet;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::fixtures::{local, spec};
    use crate::tables::{Changed, CounterRegistry, FdbEntry, Neighbor, TableSpec};

    fn compile(spec: &TableSpec) -> Tables {
        Tables::compile(Arc::new(local()), spec, &mut CounterRegistry::new(1))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn walks_route_neighbor_and_fdb() {
        let tables = compile(&spec());
        let resolved = tables.resolve(ip("10.255.43.6")).unwrap();
        assert_eq!(resolved.route.prefix.to_string(), "10.255.43.0/24");
        assert_eq!(resolved.next_hop, ip("10.255.43.0"));
        assert_eq!(resolved.mac.to_string(), "ee:ee:0a:ff:2b:00");
        let [destination] = resolved.destinations else {
            panic!("a unicast MAC has one destination: {resolved:?}");
        };
        assert_eq!(destination.underlay.to_string(), "10.0.16.14:4789");
        assert_eq!(destination.peer.underlay, ip("10.0.16.14"));
    }

    #[test]
    fn names_the_first_table_without_an_answer() {
        let whole = spec();
        let resolve = |spec: &TableSpec| compile(spec).resolve(ip("10.255.43.6")).err();
        let mut broken = whole.clone();
        broken.fdb.retain(|entry| entry.mac.is_zero());
        assert_eq!(resolve(&broken), Some(DropReason::NoFdbEntry));
        broken.neighbors.clear();
        assert_eq!(resolve(&broken), Some(DropReason::NoNeighbor));
        broken.routes.clear();
        assert_eq!(resolve(&broken), Some(DropReason::NoRoute));
        assert_eq!(resolve(&whole), None);
    }

    fn belongs_to(tables: &Tables, source: IpAddr, underlay: IpAddr) -> bool {
        let peer = tables.peers.find(underlay);
        peer.is_some_and(|peer| tables.belongs_to(source, peer))
    }

    #[test]
    fn a_source_belongs_to_the_peer_whose_subnet_it_lies_in() {
        let tables = compile(&spec());
        let peer = ip("10.0.16.14");
        assert!(belongs_to(&tables, ip("10.255.43.6"), peer));
        assert!(
            belongs_to(&tables, ip("10.255.43.0"), peer),
            "its VTEP address"
        );
        assert!(belongs_to(&tables, ip("fd00:43::6"), peer));
        assert!(
            !belongs_to(&tables, ip("10.255.44.6"), peer),
            "another peer's"
        );
        assert!(!belongs_to(&tables, ip("10.255.108.184"), peer), "our own");
        assert!(!belongs_to(&tables, ip("10.255.43.6"), ip("10.0.16.15")));
    }

    /// Few enough values that the three tables meet.
    fn any_spec() -> impl Strategy<Value = TableSpec> {
        let hop = || (0_u8..4).prop_map(|n| IpAddr::from([10, 255, n, 0]));
        let mac = || (0_u8..4).prop_map(|n| MacAddr::new([2 * n, 0, 0, 0, 0, n]));
        let route =
            (hop(), 14_u8..26, prop::option::of(hop())).prop_map(|(ip, length, via)| Route {
                prefix: IpNet::new(ip, length).unwrap(),
                via,
            });
        let neighbor = (hop(), mac()).prop_map(|(address, mac)| Neighbor { address, mac });
        let fdb = (mac(), 0_u8..4).prop_map(|(mac, n)| FdbEntry {
            mac,
            underlay: [10, 0, 16, n].into(),
            port: None,
            vni: None,
        });
        (vec(route, 0..6), vec(neighbor, 0..6), vec(fdb, 0..6)).prop_map(
            |(routes, neighbors, fdb)| TableSpec {
                routes,
                neighbors,
                fdb,
                ..TableSpec::default()
            },
        )
    }

    /// The walk over the plain lists: of equals the last, and for the zero MAC all.
    fn naive(spec: &TableSpec, destination: IpAddr) -> Result<Vec<IpAddr>, DropReason> {
        let covering = spec
            .routes
            .iter()
            .filter(|r| r.prefix.contains(&destination));
        let route = covering
            .max_by_key(|r| r.prefix.prefix_len())
            .ok_or(DropReason::NoRoute)?;
        let next_hop = route.via.unwrap_or(destination);
        let neighbor = spec.neighbors.iter().rfind(|n| n.address == next_hop);
        let mac = neighbor.ok_or(DropReason::NoNeighbor)?.mac;
        let of_mac = spec.fdb.iter().filter(|e| e.mac == mac);
        let mut underlays: Vec<IpAddr> = of_mac.map(|e| e.underlay).collect();
        if !mac.is_zero() {
            underlays.drain(..underlays.len().saturating_sub(1));
        }
        if underlays.is_empty() {
            return Err(DropReason::NoFdbEntry);
        }
        Ok(underlays)
    }

    proptest! {
        #[test]
        fn answers_as_a_walk_over_the_lists(spec in any_spec()) {
            check(&compile(&spec), &spec)?;
        }

        #[test]
        fn a_table_that_changes_alone_is_joined_with_the_others(old in any_spec(), new in any_spec(), which in 0..3) {
            let mut spec = old.clone();
            let mut changed = Changed::default();
            match which {
                0 => (changed.routes, spec.routes) = (true, new.routes),
                1 => (changed.neighbors, spec.neighbors) = (true, new.neighbors),
                _ => (changed.fdb, spec.fdb) = (true, new.fdb),
            }
            let registry = &mut CounterRegistry::new(1);
            let tables = Tables::compile(Arc::new(local()), &old, registry);
            check(&tables.update(&spec, changed, registry), &spec)?;
        }
    }

    fn check(tables: &Tables, spec: &TableSpec) -> Result<(), TestCaseError> {
        for destination in
            (0..5_u8).flat_map(|n| [0, 1].map(|host| IpAddr::from([10, 255, n, host])))
        {
            let expected = naive(spec, destination);
            for underlay in (0..4_u8).map(|n| IpAddr::from([10, 0, 16, n])) {
                let belongs = expected.as_ref().is_ok_and(|list| list.contains(&underlay));
                prop_assert_eq!(belongs_to(tables, destination, underlay), belongs);
            }
            prop_assert_eq!(tables.resolve(destination).err(), expected.err());
        }
        Ok(())
    }
}
