//! The directory against its definition: a list of what was given, judged anew as a whole after every change.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::control::fixtures::{config, ip};
use crate::tables::policy::{Action, Ports, Proto};
use crate::wire::{GroupId, Vni};

const CONFIG: &str = "
[vtep]
local = '10.0.0.1'
address = '10.255.200.0'
overlay = '10.255.0.0/16'
";

/// What was given, in no order. No indices, no derived state.
#[derive(Clone, Debug, Default)]
struct Model(Vec<Entry>);

impl Model {
    /// Everything that the tables should hold, peers too.
    fn expanded(&self) -> Vec<Entry> {
        self.0
            .iter()
            .flat_map(|entry| [entry.clone()].into_iter().chain(follows(entry)))
            .collect()
    }

    /// The rules that relate entries to each other, pair by pair.
    fn is_legal(&self) -> bool {
        let all = self.expanded();
        pairs(&all).all(|(a, b)| {
            a.key() != b.key() && !second_destination(a, b) && !overlapping_peers(a, b)
        })
    }

    fn apply(&mut self, change: &Change) -> bool {
        let is_derived = |key: &Key| {
            self.0
                .iter()
                .flat_map(follows)
                .any(|entry| entry.key() == *key)
        };
        match change {
            Change::Add(entry) => self.0.push(entry.clone()),
            Change::Replace(entry) => {
                let replaced =
                    |old: &Entry| old.key() == entry.key() || second_destination(old, entry);
                if self.0.iter().flat_map(follows).any(|old| replaced(&old)) {
                    return false;
                }
                self.0.retain(|old| !replaced(old));
                self.0.push(entry.clone());
            }
            Change::Del(key) => {
                let before = self.0.len();
                if is_derived(key) {
                    return false;
                }
                self.0.retain(|old| old.key() != *key);
                return self.0.len() < before;
            }
            Change::DelExact(entry) => {
                let before = self.0.len();
                self.0.retain(|old| old != entry);
                return self.0.len() < before;
            }
        }
        self.is_legal()
    }
}

fn follows(entry: &Entry) -> Vec<Entry> {
    let Entry::Peer(peer) = entry else {
        return Vec::new();
    };
    let mut entries = vec![Entry::Fdb {
        mac: peer.mac,
        dst: peer.underlay,
        port: None,
        vni: None,
    }];
    for subnet in &peer.subnets {
        let via = subnet.addr();
        entries.push(Entry::Route {
            dst: subnet.trunc(),
            via: Some(via),
        });
        entries.push(Entry::Neigh {
            dst: via,
            lladdr: peer.mac,
        });
    }
    entries
}

fn pairs(all: &[Entry]) -> impl Iterator<Item = (&Entry, &Entry)> {
    all.iter()
        .enumerate()
        .flat_map(|(i, a)| all[i + 1..].iter().map(move |b| (a, b)))
}

fn second_destination(a: &Entry, b: &Entry) -> bool {
    matches!((a, b), (Entry::Fdb { mac: a, .. }, Entry::Fdb { mac: b, .. }) if a == b && !a.is_zero())
}

fn overlapping_peers(a: &Entry, b: &Entry) -> bool {
    let (Entry::Peer(a), Entry::Peer(b)) = (a, b) else {
        return false;
    };
    a.subnets
        .iter()
        .any(|a| b.subnets.iter().any(|b| a.contains(b) || b.contains(a)))
}

/// Few values, so that entries meet.
fn overlay_address() -> impl Strategy<Value = IpAddr> {
    (1_u8..4, 0_u8..2).prop_map(|(cell, half)| [10, 255, cell, half * 128].into())
}

fn subnet() -> impl Strategy<Value = IpNet> {
    (overlay_address(), 23_u8..26)
        .prop_map(|(address, length)| IpNet::new(address, length).expect("under 32"))
}

fn underlay() -> impl Strategy<Value = IpAddr> {
    (2_u8..6).prop_map(|host| [10, 0, 0, host].into())
}

fn unicast_mac() -> impl Strategy<Value = MacAddr> {
    (1_u8..5).prop_map(|n| MacAddr::new([2, 0, 0, 0, 0, n]))
}

fn entry() -> impl Strategy<Value = Entry> {
    let vni = prop::option::of(Just(Vni::new(7).expect("under 2^24")));
    prop_oneof![
        (subnet(), prop::option::of(overlay_address())).prop_map(|(dst, via)| Entry::Route {
            dst: dst.trunc(),
            via
        }),
        (overlay_address(), unicast_mac()).prop_map(|(dst, lladdr)| Entry::Neigh { dst, lladdr }),
        (
            prop_oneof![unicast_mac(), Just(MacAddr::ZERO)],
            underlay(),
            vni
        )
            .prop_map(|(mac, dst, vni)| Entry::Fdb {
                mac,
                dst,
                port: None,
                vni
            }),
        (subnet(), underlay(), unicast_mac()).prop_map(|(subnet, underlay, mac)| Entry::Peer(
            PeerSpec {
                subnets: vec![subnet],
                underlay,
                mac
            }
        )),
        (overlay_address(), 1_u16..3).prop_map(|(address, id)| Entry::Group {
            address,
            id: GroupId(id)
        }),
        (subnet(), 1_u16..3, any::<bool>(), any::<bool>()).prop_map(|(dst, group, tcp, accept)| {
            Entry::Policy {
                dst: dst.trunc(),
                group: GroupId(group),
                proto: if tcp { Proto::Tcp } else { Proto::Icmp },
                ports: Ports::ALL,
                action: if accept { Action::Accept } else { Action::Deny },
            }
        }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        entry().prop_map(Change::Add),
        entry().prop_map(Change::Replace),
        entry().prop_map(|entry| Change::Del(entry.key())),
        entry().prop_map(Change::DelExact),
    ]
}

fn lines<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<String> {
    entries
        .into_iter()
        .map(|entry| serde_json::to_string(entry).expect("no map keys"))
        .collect()
}

proptest! {
    #[test]
    fn the_directory_holds_what_its_definition_says(
        requests in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..40),
    ) {
        let mut directory = Directory::new(&config(CONFIG).vtep);
        directory.reload(&config(&format!("{CONFIG}[policy]\nenforce = true\n")));
        let mut model = Model::default();
        for changes in &requests {
            let before = directory.clone();
            let mut next = model.clone();
            let refused = changes.iter().position(|change| !next.apply(change));
            match directory.apply(changes, Origin::Live) {
                Ok(changed) => {
                    prop_assert_eq!(refused, None);
                    model = next;
                    prop_assert_eq!(changed.groups, before.spec().groups != directory.spec().groups);
                    prop_assert_eq!(changed.policy, before.spec().policy != directory.spec().policy);
                    prop_assert_eq!(changed.fdb, before.spec().fdb != directory.spec().fdb);
                }
                Err(error) => prop_assert_eq!(Some(error.index), refused, "{}", error),
            }
            prop_assert_eq!(lines(directory.iter().map(|held| &held.entry)), lines(&model.expanded()));
        }
    }

    #[test]
    fn a_restart_restores_what_was_live(changes in prop::collection::vec(change(), 1..40)) {
        let mut directory = Directory::new(&config(CONFIG).vtep);
        for change in &changes {
            // Refusals are the other test's.
            drop(directory.apply(std::slice::from_ref(change), Origin::Live));
        }
        let live = directory.live().cloned().collect();
        let mut restored = Directory::new(&config(CONFIG).vtep);
        prop_assert_eq!(restored.restore(live).1, vec![]);
        prop_assert!(restored.iter().eq(directory.iter()));
    }
}

#[test]
fn the_model_knows_an_illegal_state() {
    let peer = |subnet: &str, host| {
        Entry::Peer(PeerSpec {
            subnets: vec![subnet.parse().expect("a subnet")],
            underlay: ip(&format!("10.0.0.{host}")),
            mac: MacAddr::new([2, 0, 0, 0, 0, host]),
        })
    };
    assert!(Model(vec![peer("10.255.1.0/24", 2), peer("10.255.2.0/24", 3)]).is_legal());
    assert!(!Model(vec![peer("10.255.1.0/24", 2), peer("10.255.1.128/25", 3)]).is_legal());
}
