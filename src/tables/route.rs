//! Longest prefix match: a destination to its next hop.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Address;
use super::trie::Trie;

/// One route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations it covers; host bits are zero.
    pub prefix: IpNet,
    /// The next hop, of the same family; `None`: the destination itself.
    pub via: Option<IpAddr>,
}

impl Route {
    /// The address whose neighbour entry is wanted for a packet to `destination`.
    #[must_use]
    pub fn next_hop(&self, destination: IpAddr) -> IpAddr {
        self.via.unwrap_or(destination)
    }

    fn truncated(&self) -> Self {
        Self {
            prefix: self.prefix.trunc(),
            via: self.via,
        }
    }
}

/// All routes, v4 and v6.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Sorted by prefix, v4 before v6; each trie counts from the first of its family.
    routes: Box<[Route]>,
    v4: Trie<u32>,
    v6: Trie<u128>,
}

impl RouteTable {
    /// Compiles the table. Of two routes with one prefix the later wins; host bits of a prefix are cleared.
    ///
    /// # Panics
    /// If a family has more than 2^23 routes.
    #[must_use]
    pub fn from_routes(routes: &[Route]) -> Self {
        let mut routes: Vec<Route> = routes.iter().rev().map(Route::truncated).collect();
        // The sort is stable and the list reversed, so the first of equal prefixes is the one given last.
        routes.sort_by_key(|route| route.prefix);
        routes.dedup_by_key(|route| route.prefix);
        let first_v6 = routes.partition_point(|route| matches!(route.prefix, IpNet::V4(_)));
        let (v4, v6) = routes.split_at(first_v6);
        Self {
            v4: Trie::from_sorted(v4.iter().filter_map(v4_bits)),
            v6: Trie::from_sorted(v6.iter().filter_map(v6_bits)),
            routes: routes.into(),
        }
    }

    /// The route with the longest prefix that covers `destination`.
    #[must_use]
    pub fn lookup(&self, destination: impl Address) -> Option<&Route> {
        let position = self.position(destination)?;
        Some(self.at(position))
    }

    /// Where among [`iter`](Self::iter)'s routes that one is.
    #[inline]
    pub(super) fn position(&self, destination: impl Address) -> Option<usize> {
        destination.by_family(
            |bits| self.v4.lookup(bits),
            |bits| Some(self.v4.len() + self.v6.lookup(bits)?),
        )
    }

    /// The route at `position`.
    #[inline]
    pub(super) fn at(&self, position: usize) -> &Route {
        &self.routes[position]
    }

    /// All routes by family, v4 first, then by prefix.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.iter()
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

fn v4_bits(route: &Route) -> Option<(u32, u8)> {
    match route.prefix {
        IpNet::V4(net) => Some((net.addr().to_bits(), net.prefix_len())),
        IpNet::V6(_) => None,
    }
}

fn v6_bits(route: &Route) -> Option<(u128, u8)> {
    match route.prefix {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some((net.addr().to_bits(), net.prefix_len())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn route(prefix: &str, via: &str) -> Route {
        Route {
            prefix: prefix.parse().unwrap(),
            via: Some(via.parse().unwrap()),
        }
    }

    fn via(table: &RouteTable, destination: &str) -> Option<String> {
        let route = table.lookup(destination.parse::<IpAddr>().unwrap())?;
        route.via.map(|via| via.to_string())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = RouteTable::from_routes(&[
            route("10.255.43.6/32", "10.255.9.0"),
            route("0.0.0.0/0", "10.255.1.0"),
            route("10.255.43.0/24", "10.255.43.0"),
            route("fd00:43::/64", "fd00:43::1"),
        ]);
        assert_eq!(via(&table, "10.255.43.6").unwrap(), "10.255.9.0");
        assert_eq!(via(&table, "10.255.43.7").unwrap(), "10.255.43.0");
        assert_eq!(via(&table, "10.255.44.0").unwrap(), "10.255.1.0");
        assert_eq!(via(&table, "fd00:43::6").unwrap(), "fd00:43::1");
        assert_eq!(via(&table, "fd00:44::6"), None);
    }

    #[test]
    fn host_bits_are_cleared_and_the_later_of_two_wins() {
        let table = RouteTable::from_routes(&[
            route("10.255.123.7/24", "10.255.123.7"),
            route("10.255.123.9/24", "10.255.123.9"),
        ]);
        assert_eq!(
            table.iter().collect::<Vec<_>>(),
            [&route("10.255.123.0/24", "10.255.123.9")]
        );
    }

    #[test]
    fn iterates_by_family_then_prefix() {
        let sorted = [
            route("0.0.0.0/0", "10.0.0.1"),
            route("10.0.0.0/8", "10.0.0.1"),
            route("10.0.0.0/24", "10.0.0.1"),
            route("::/0", "fd00::1"),
        ];
        let shuffled = [sorted[3], sorted[2], sorted[0], sorted[1]];
        let table = RouteTable::from_routes(&shuffled);
        assert!(table.iter().eq(&sorted));
        assert_eq!((table.len(), table.is_empty()), (4, false));
    }

    #[test]
    fn the_next_hop_of_a_route_without_via_is_the_destination() {
        let route = Route {
            prefix: "10.255.0.0/16".parse().unwrap(),
            via: None,
        };
        let destination = "10.255.1.2".parse().unwrap();
        assert_eq!(route.next_hop(destination), destination);
    }

    /// Addresses close together, so that prefixes of both families nest and repeat.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..1 << 10).prop_map(|n| IpAddr::from((0x0aff_0000 | n << 6).to_be_bytes())),
            (0_u128..1 << 10).prop_map(|n| IpAddr::from((0xfd << 120 | n << 60).to_be_bytes())),
            any::<IpAddr>(),
        ]
    }

    fn any_route() -> impl Strategy<Value = Route> {
        (address(), 0_u8..=128, address()).prop_map(|(address, length, via)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            Route {
                prefix: IpNet::new(address, length % (bits + 1)).unwrap(),
                via: Some(via),
            }
        })
    }

    proptest! {
        #[test]
        fn answers_as_a_map_scanned_in_full(
            routes in vec(any_route(), 0..60),
            destinations in vec(address(), 60),
        ) {
            let table = RouteTable::from_routes(&routes);
            let model: BTreeMap<IpNet, Option<IpAddr>> =
                routes.iter().map(|r| (r.prefix.trunc(), r.via)).collect();
            prop_assert!(table.iter().map(|r| (r.prefix, r.via)).eq(model.clone()));
            for destination in destinations {
                let longest = model
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(&destination))
                    .max_by_key(|(prefix, _)| prefix.prefix_len());
                let found = table.lookup(destination).map(|r| (&r.prefix, &r.via));
                prop_assert_eq!(found, longest);
            }
        }
    }
}
