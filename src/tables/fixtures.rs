//! Cell A of the README's walk of one packet, for the tests of this module.

use super::{FdbEntry, GroupEntry, Local, Neighbor, Route, TableSpec};
use crate::wire::{GroupId, MacAddr};

/// Cell A: 10.255.108.0/24 on VNI 1, port 4789.
pub(super) fn local() -> Local {
    Local::silk("10.255.108.0/24".parse().unwrap())
}

/// Two peers, 10.255.43.0/24 (with a v6 subnet) on 10.0.16.14 and 10.255.44.0/24 on 10.0.16.15, a flood entry and a group.
pub(super) fn spec() -> TableSpec {
    let mut spec = TableSpec {
        groups: vec![GroupEntry {
            address: "10.255.108.184".parse().unwrap(),
            id: GroupId(3),
        }],
        ..TableSpec::default()
    };
    add_peer(&mut spec, "10.255.43.0/24", "10.255.43.0", "10.0.16.14", 43);
    add_peer(&mut spec, "fd00:43::/64", "fd00:43::", "10.0.16.14", 43);
    add_peer(&mut spec, "10.255.44.0/24", "10.255.44.0", "10.0.16.15", 44);
    spec.fdb.push(FdbEntry {
        mac: MacAddr::ZERO,
        ..spec.fdb[0].clone()
    });
    spec
}

fn add_peer(spec: &mut TableSpec, subnet: &str, vtep: &str, underlay: &str, id: u8) {
    let address = vtep.parse().unwrap();
    let mac = MacAddr::overlay([10, 255, id, 0].into());
    spec.routes.push(Route {
        prefix: subnet.parse().unwrap(),
        via: Some(address),
    });
    spec.neighbors.push(Neighbor { address, mac });
    spec.fdb.push(FdbEntry {
        mac,
        underlay: underlay.parse().unwrap(),
        port: None,
        vni: None,
    });
}
