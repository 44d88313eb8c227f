//! The directory: every entry the operator, the configuration or a controller gave, with its origin.
//!
//! It is the master copy of the tables. [`Control`](super::Control) changes it, compiles [`Directory::spec`] and swaps the result in;
//! nothing here knows of compiled tables, sockets or files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::config::VtepConfig;
use super::rules::{Rules, overlap};
use super::{Change, ChangeError, Config, Entry, Holder, Key, Origin, Owner, PeerSpec, Refusal};
use crate::tables::policy::Regime;
use crate::tables::{
    Changed, FdbEntry, GroupEntry, Neighbor, PolicyRule, PolicySpec, Route, TableSpec,
};
use crate::wire::MacAddr;

/// All entries by key; those that follow from a peer are there beside it.
#[derive(Clone, Debug)]
pub struct Directory {
    rules: Rules,
    /// How the group policy is enforced, if it is.
    regime: Option<Regime>,
    entries: BTreeMap<Key, Held>,
    /// The peers' subnets, host bits zero. No two overlap, which is what lets one look-up find a conflict.
    subnets: BTreeMap<IpNet, IpAddr>,
    /// Live entries of an earlier start that do not fit this one, by key: in no table, kept for a start that they fit.
    parked: BTreeMap<Key, Entry>,
    /// Within [`Self::apply`]: what its earlier changes gave, so that whoever collides with that is not sent to look for it in the
    /// tables.
    fresh: Option<BTreeSet<Key>>,
}

/// An entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The entry.
    pub entry: Entry,
    /// Whose it is.
    pub owner: Owner,
}

impl Directory {
    /// An empty directory of the VTEP `vtep`, which decides what could never work here.
    #[must_use]
    pub fn new(vtep: &VtepConfig) -> Self {
        Self {
            rules: Rules::new(vtep),
            regime: None,
            entries: BTreeMap::new(),
            subnets: BTreeMap::new(),
            parked: BTreeMap::new(),
            fresh: None,
        }
    }

    /// Takes all changes in order, each seeing those before it, or none.
    ///
    /// # Errors
    /// The first change that is refused; the directory is as it was.
    pub fn apply(&mut self, changes: &[Change], origin: Origin) -> Result<Changed, ChangeError> {
        let mut next = self.clone();
        next.fresh = Some(BTreeSet::new());
        for (index, change) in changes.iter().enumerate() {
            next.apply_one(change, origin)
                .map_err(|refusal| ChangeError { index, refusal })?;
        }
        Ok(self.become_next(next))
    }

    /// Replaces what is of the configuration, how the policy is enforced with it. An entry of `config` that collides with one of another
    /// origin is left out and told; the other stays.
    pub fn reload(&mut self, config: &Config) -> (Changed, Vec<Refusal>) {
        let mut next = self.clone();
        next.remove_origin(Origin::Config);
        next.regime = config.policy.enforced();
        let refusals = next.add_each(config.entries(), Origin::Config);
        (self.become_next(next), refusals)
    }

    /// The entries of `config` that this VTEP can never take: none, unless `config` is of another VTEP.
    #[must_use]
    pub fn misfits(&self, config: &Config) -> Vec<Refusal> {
        let entries = config.entries();
        entries
            .filter_map(|entry| self.fits(&entry).err())
            .collect()
    }

    /// Adds the live entries of an earlier start one by one and tells which do not fit. Those are kept aside, until a live one with
    /// their key takes their place or they are deleted.
    pub fn restore(&mut self, entries: Vec<Entry>) -> (Changed, Vec<Refusal>) {
        let mut next = self.clone();
        let mut refusals = Vec::new();
        for entry in entries {
            if let Err(refusal) = next.add_or_have(entry.clone(), Origin::Live) {
                next.parked.insert(entry.key(), entry);
                refusals.push(refusal);
            }
        }
        (self.become_next(next), refusals)
    }

    /// What a later start should [`restore`](Self::restore): live entries, those kept aside among them.
    pub fn live(&self) -> impl Iterator<Item = &Entry> {
        self.of_origin(Origin::Live).chain(self.parked.values())
    }

    /// Every entry in the order of its key, those that follow from peers included.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.entries.values()
    }

    /// The entry with exactly this key.
    #[must_use]
    pub fn lookup(&self, key: &Key) -> Option<&Held> {
        self.entries.get(key)
    }

    /// How the group policy is enforced, if it is.
    #[must_use]
    pub fn regime(&self) -> Option<&Regime> {
        self.regime.as_ref()
    }

    /// What `origin` gave, without what follows from peers.
    pub fn of_origin(&self, origin: Origin) -> impl Iterator<Item = &Entry> {
        self.iter()
            .filter(move |held| held.owner == Owner::Entry(origin))
            .map(|held| &held.entry)
    }

    /// What a snapshot is compiled from.
    #[must_use]
    pub fn spec(&self) -> TableSpec {
        TableSpec {
            routes: self.routes().collect(),
            neighbors: self.neighbors().collect(),
            fdb: self.fdb().collect(),
            groups: self.groups().collect(),
            policy: self.regime.map(|regime| PolicySpec {
                regime,
                rules: self.policy().collect(),
            }),
        }
    }
}

// The views that a snapshot is compiled from and two directories are compared by.
impl Directory {
    fn become_next(&mut self, next: Self) -> Changed {
        let changed = Changed {
            routes: !self.routes().eq(next.routes()),
            neighbors: !self.neighbors().eq(next.neighbors()),
            fdb: !self.fdb().eq(next.fdb()),
            groups: !self.groups().eq(next.groups()),
            policy: self.regime != next.regime
                || next.regime.is_some() && !self.policy().eq(next.policy()),
        };
        *self = next;
        self.fresh = None;
        changed
    }

    fn routes(&self) -> impl Iterator<Item = Route> {
        self.iter().filter_map(|held| match held.entry {
            Entry::Route { dst: prefix, via } => Some(Route { prefix, via }),
            _ => None,
        })
    }

    fn neighbors(&self) -> impl Iterator<Item = Neighbor> {
        self.iter().filter_map(|held| match held.entry {
            Entry::Neigh {
                dst: address,
                lladdr: mac,
            } => Some(Neighbor { address, mac }),
            _ => None,
        })
    }

    fn fdb(&self) -> impl Iterator<Item = FdbEntry> {
        self.iter().filter_map(|held| match held.entry {
            Entry::Fdb {
                mac,
                dst: underlay,
                port,
                vni,
            } => Some(FdbEntry {
                mac,
                underlay,
                port,
                vni,
            }),
            _ => None,
        })
    }

    fn policy(&self) -> impl Iterator<Item = PolicyRule> {
        self.iter().filter_map(|held| match held.entry {
            Entry::Policy {
                dst: destination,
                group,
                proto,
                ports,
                action,
            } => Some(PolicyRule {
                destination,
                group,
                proto,
                ports,
                action,
            }),
            _ => None,
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupEntry> {
        self.iter().filter_map(|held| match held.entry {
            Entry::Group { address, id } => Some(GroupEntry { address, id }),
            _ => None,
        })
    }
}

// Changes. `add` and `delete` leave the directory as it was if they refuse; `replace` may not, and its caller drops the copy.
impl Directory {
    fn apply_one(&mut self, change: &Change, origin: Origin) -> Result<(), Refusal> {
        match change {
            Change::Add(entry) => self.add(entry.clone(), origin),
            Change::Replace(entry) => self.replace(entry.clone(), origin),
            Change::Del(key) => self.delete(key),
            Change::DelExact(entry) => self.delete_exact(entry),
        }
    }

    /// Adds what can be added, and tells what cannot.
    fn add_each(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        origin: Origin,
    ) -> Vec<Refusal> {
        let added = entries.into_iter();
        let added = added.map(|entry| self.add_or_have(entry, origin));
        added.filter_map(Result::err).collect()
    }

    /// As [`Self::add`], but an entry that is there already word for word, whoever gave it, is no refusal.
    fn add_or_have(&mut self, entry: Entry, origin: Origin) -> Result<(), Refusal> {
        match self.lookup(&entry.key()) {
            Some(held) if held.entry == entry => Ok(()),
            _ => self.add(entry, origin),
        }
    }

    fn add(&mut self, entry: Entry, origin: Origin) -> Result<(), Refusal> {
        self.fits(&entry)?;
        self.check_vacant(&entry.key())?;
        match entry {
            Entry::Peer(peer) => return self.add_peer(peer, origin),
            Entry::Fdb { mac, .. } => self.check_sole_destination(&entry.key(), mac)?,
            Entry::Route { .. }
            | Entry::Neigh { .. }
            | Entry::Group { .. }
            | Entry::Policy { .. } => {}
        }
        self.insert(entry, Owner::Entry(origin));
        Ok(())
    }

    fn fits(&self, entry: &Entry) -> Result<(), Refusal> {
        self.rules.check(entry).map_err(|reason| Refusal::Rule {
            key: entry.key(),
            reason,
        })
    }

    fn replace(&mut self, entry: Entry, origin: Origin) -> Result<(), Refusal> {
        let Some(old) = self.predecessor(&entry) else {
            return self.add(entry, origin);
        };
        check_own(old)?;
        if old.entry == entry {
            return Ok(());
        }
        let old = old.entry.key();
        self.remove(&old);
        self.add(entry, origin)
    }

    fn delete(&mut self, key: &Key) -> Result<(), Refusal> {
        let Some(held) = self.lookup(key) else {
            let forgotten = self.parked.remove(key);
            return forgotten
                .map(drop)
                .ok_or_else(|| Refusal::Absent { key: key.clone() });
        };
        check_own(held)?;
        self.remove(key);
        Ok(())
    }

    fn delete_exact(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let key = entry.key();
        let held = self.lookup(&key).map(|held| &held.entry);
        match held.or_else(|| self.parked.get(&key)) {
            Some(held) if held != entry => Err(Refusal::Differs {
                asked: Box::new(entry.clone()),
                held: Box::new(held.clone()),
            }),
            _ => self.delete(&key),
        }
    }

    fn remove_origin(&mut self, origin: Origin) {
        let keys: Vec<_> = self.of_origin(origin).map(Entry::key).collect();
        for key in &keys {
            self.remove(key);
        }
    }

    /// What `entry` would take the place of.
    fn predecessor(&self, entry: &Entry) -> Option<&Held> {
        match *entry {
            Entry::Fdb { mac, .. } if !takes_many(mac) => self.destination(mac),
            _ => self.lookup(&entry.key()),
        }
    }

    /// The first FDB entry of `mac`.
    fn destination(&self, mac: MacAddr) -> Option<&Held> {
        let lowest = Key::Fdb {
            mac,
            dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: None,
            vni: None,
        };
        let (key, held) = self.entries.range(lowest..).next()?;
        matches!(key, Key::Fdb { mac: found, .. } if *found == mac).then_some(held)
    }

    /// The peer whose subnet shares an address with `subnet`.
    ///
    /// Among prefixes of which no two overlap, only the last that starts at or before the end of `subnet` can: one that starts in
    /// `subnet` lies in it, and one that holds all of `subnet` leaves room for no other start before the end.
    fn overlapping(&self, subnet: IpNet) -> Option<(IpNet, IpAddr)> {
        let end = IpNet::from(subnet.broadcast());
        let (&found, &peer) = self.subnets.range(..=end).next_back()?;
        overlap(found, subnet).then_some((found, peer))
    }
}

// Peers: one entry that brings others.
impl Directory {
    fn add_peer(&mut self, peer: PeerSpec, origin: Origin) -> Result<(), Refusal> {
        self.check_peer(&peer)?;
        for derived in derived(&peer) {
            self.insert(derived, Owner::Peer(peer.underlay, origin));
        }
        for subnet in &peer.subnets {
            self.subnets.insert(subnet.trunc(), peer.underlay);
        }
        self.insert(Entry::Peer(peer), Owner::Entry(origin));
        Ok(())
    }

    fn check_peer(&self, peer: &PeerSpec) -> Result<(), Refusal> {
        let refuse = |reason| {
            Err(Refusal::Rule {
                key: Key::Peer(peer.underlay),
                reason,
            })
        };
        for &subnet in &peer.subnets {
            if let Some((other, underlay)) = self.overlapping(subnet) {
                return refuse(format!(
                    "subnet {subnet} overlaps {other} of peer {underlay}"
                ));
            }
        }
        if let Some(held) = self.destination(peer.mac) {
            return refuse(match held.owner.peer() {
                Some(other) => format!("MAC {} is that of peer {other}", peer.mac),
                None => {
                    let holder = self.holder(held);
                    format!("{} exists already ({holder})", held.entry.key())
                }
            });
        }
        for key in derived(peer).map(|entry| entry.key()) {
            if let Err(refusal) = self.check_vacant(&key) {
                return refuse(refusal.to_string());
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: &Key) {
        let Some(held) = self.entries.remove(key) else {
            return;
        };
        let Entry::Peer(peer) = held.entry else {
            return;
        };
        for entry in derived(&peer) {
            self.entries.remove(&entry.key());
        }
        for subnet in &peer.subnets {
            self.subnets.remove(&subnet.trunc());
        }
    }

    fn insert(&mut self, entry: Entry, owner: Owner) {
        if owner == Owner::Entry(Origin::Live) {
            self.parked.remove(&entry.key());
        }
        if let Some(fresh) = &mut self.fresh {
            fresh.insert(entry.key());
        }
        self.entries.insert(entry.key(), Held { entry, owner });
    }

    fn check_vacant(&self, key: &Key) -> Result<(), Refusal> {
        match self.lookup(key) {
            Some(held) => Err(Refusal::Exists {
                key: key.clone(),
                holder: self.holder(held),
            }),
            None => Ok(()),
        }
    }

    fn holder(&self, held: &Held) -> Holder {
        let fresh = self.fresh.as_ref();
        if fresh.is_some_and(|fresh| fresh.contains(&held.entry.key())) {
            Holder::EarlierChange
        } else {
            Holder::Owner(held.owner)
        }
    }

    fn check_sole_destination(&self, key: &Key, mac: MacAddr) -> Result<(), Refusal> {
        match self.destination(mac) {
            Some(held) if !takes_many(mac) => Err(Refusal::Rule {
                key: key.clone(),
                reason: format!(
                    "a unicast MAC has one destination, and {} exists already ({})",
                    held.entry.key(),
                    self.holder(held)
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Refuses to touch what changes only with its peer.
fn check_own(held: &Held) -> Result<(), Refusal> {
    match held.owner {
        Owner::Entry(_) => Ok(()),
        Owner::Peer(peer, _) => Err(Refusal::Derived {
            key: held.entry.key(),
            peer,
        }),
    }
}

/// What follows from a peer: routes, neighbours and an FDB entry.
fn derived(peer: &PeerSpec) -> impl Iterator<Item = Entry> + '_ {
    let routes = peer
        .routes()
        .map(|Route { prefix, via }| Entry::Route { dst: prefix, via });
    let neighbors = peer
        .neighbors()
        .map(|Neighbor { address, mac }| Entry::Neigh {
            dst: address,
            lladdr: mac,
        });
    let FdbEntry {
        mac,
        underlay,
        port,
        vni,
    } = peer.fdb_entry();
    let fdb = Entry::Fdb {
        mac,
        dst: underlay,
        port,
        vni,
    };
    routes.chain(neighbors).chain([fdb])
}

/// True if a frame for `mac` may go to several VTEPs.
fn takes_many(mac: MacAddr) -> bool {
    mac.is_zero() || mac.is_multicast()
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;
