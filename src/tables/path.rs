//! Each route joined with its next hop's neighbour and FDB entries when a snapshot is compiled, so that a packet takes one look-up
//! instead of three.

use super::fdb::Span;
use super::{Fdb, NeighborTable, Route, RouteTable};
use crate::drop_reason::DropReason;
use crate::wire::MacAddr;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Its next hop has a MAC, and that has destinations.
    Whole {
        mac: MacAddr,
        /// Part of the FDB that this was joined with; never empty.
        destinations: Span,
    },
    /// The next hop is each packet's own destination: to be looked up.
    OnLink,
    /// The neighbour or the FDB entry is missing.
    Broken(DropReason),
}

/// Four of them share a cache line.
const _: () = assert!(size_of::<Path>() == 16);

impl Path {
    fn of(route: &Route, neighbors: &NeighborTable, fdb: &Fdb) -> Self {
        let Some(via) = route.via else {
            return Self::OnLink;
        };
        let Some(mac) = neighbors.lookup(via) else {
            return Self::Broken(DropReason::NoNeighbor);
        };
        match fdb.span(mac) {
            Some(destinations) => Self::Whole { mac, destinations },
            None => Self::Broken(DropReason::NoFdbEntry),
        }
    }
}

/// The path of every route.
#[derive(Debug, Default)]
pub(super) struct Paths(Box<[Path]>);

impl Paths {
    /// Of each route in its table's order.
    pub(super) fn join(routes: &RouteTable, neighbors: &NeighborTable, fdb: &Fdb) -> Self {
        let path = |route| Path::of(route, neighbors, fdb);
        Self(routes.iter().map(path).collect())
    }

    /// Of the route at `position` in the table this was joined with.
    #[inline]
    pub(super) fn at(&self, position: usize) -> Path {
        self.0[position]
    }
}
