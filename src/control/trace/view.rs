//! What a walk looks at, all of one age, and the lines that the directory has for what the tables answered.

use std::net::IpAddr;

use super::{Line, Sending};
use crate::control::config::VtepConfig;
use crate::control::directory::Held;
use crate::control::policy::PolicyRow;
use crate::control::protocol::Show;
use crate::control::rows::{FdbRow, GroupRow, NeighRow, PeerRow, RouteRow};
use crate::control::{Directory, Entry, Key};
use crate::tables::{PolicyRule, Route, Tables};
use crate::wire::MacAddr;

/// A daemon at one moment.
#[derive(Clone, Copy)]
pub(in crate::control) struct View<'a> {
    pub(in crate::control) vtep: &'a VtepConfig,
    pub(in crate::control) directory: &'a Directory,
    pub(in crate::control) tables: &'a Tables,
    pub(in crate::control) sending: &'a Sending,
}

impl View<'_> {
    pub(super) fn route(&self, route: &Route) -> Option<Line> {
        let held = self.directory.lookup(&Key::Route(route.prefix))?;
        RouteRow::new(held, self.vtep).map(Line::Route)
    }

    pub(super) fn neigh(&self, address: IpAddr) -> Option<Line> {
        let held = self.directory.lookup(&Key::Neigh(address))?;
        NeighRow::new(held, self.vtep).map(Line::Neigh)
    }

    pub(super) fn group(&self, address: IpAddr) -> Option<Line> {
        let held = self.directory.lookup(&Key::Group(address))?;
        GroupRow::new(held).map(Line::Group)
    }

    pub(super) fn peer(&self, underlay: IpAddr) -> Option<Line> {
        let held = self.directory.lookup(&Key::Peer(underlay))?;
        PeerRow::new(held, self.tables).map(Line::Peer)
    }

    pub(super) fn rule(&self, rule: &PolicyRule) -> Option<Line> {
        let held = self.directory.lookup(&Entry::from(*rule).key())?;
        PolicyRow::new(held).map(Line::Policy)
    }

    /// All entries of a MAC.
    pub(super) fn fdb(&self, mac: MacAddr) -> Vec<Line> {
        let show = Show::Fdb(Some(mac));
        self.fdb_where(|held| show.wants(&held.entry))
    }

    /// All entries that lead to a VTEP.
    pub(super) fn fdb_to(&self, underlay: IpAddr) -> Vec<FdbRow> {
        let all = self.directory.iter();
        all.filter_map(|held| FdbRow::new(held, self.vtep))
            .filter(|row| row.dst == underlay)
            .collect()
    }

    fn fdb_where(&self, wanted: impl Fn(&&Held) -> bool) -> Vec<Line> {
        let found = self.directory.iter().filter(wanted);
        found
            .filter_map(|held| FdbRow::new(held, self.vtep))
            .map(Line::Fdb)
            .collect()
    }
}
