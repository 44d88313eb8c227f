//! Each route joined with its next hop's neighbour and FDB entries when a snapshot is compiled, so that a packet takes one look-up
//! instead of three.

use super::fdb::Span;
use super::{PeerId, Route, Tables};
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
    fn of(route: &Route, tables: &Tables) -> Self {
        let Some(via) = route.via else {
            return Self::OnLink;
        };
        match tables.on_link(via) {
            Ok((mac, destinations)) => Self::Whole { mac, destinations },
            Err(reason) => Self::Broken(reason),
        }
    }

    /// The one peer it leads to, if it is one.
    fn peer(self, tables: &Tables) -> Option<PeerId> {
        let Self::Whole { destinations, .. } = self else {
            return None;
        };
        match tables.fdb.at(destinations) {
            [only] => tables.peers.find(only.underlay.ip()),
            _ => None,
        }
    }
}

/// The path of every route, by its position in the route table. Who speaks from behind one is apart, for it is all that a packet from
/// there asks, and the caches hold four times as many.
#[derive(Debug, Default)]
pub(super) struct Paths {
    paths: Box<[Path]>,
    peers: Box<[Option<PeerId>]>,
}

const _: () = assert!(size_of::<Option<PeerId>>() == 4);

impl Paths {
    /// Joins routes, neighbours, FDB and peers of `tables`.
    pub(super) fn join(tables: &Tables) -> Self {
        let routes = tables.routes.iter();
        let paths: Box<[Path]> = routes.map(|route| Path::of(route, tables)).collect();
        let peers = paths.iter().map(|path| path.peer(tables)).collect();
        Self { paths, peers }
    }

    /// Where the route at `position` leads.
    #[inline]
    pub(super) fn at(&self, position: usize) -> Path {
        self.paths[position]
    }

    /// The one peer behind the route at `position`; `None` if there is none or more than one, or if it depends on the address.
    #[inline]
    pub(super) fn peer(&self, position: usize) -> Option<PeerId> {
        self.peers[position]
    }
}
