//! Where the tables have a frame go: by route, by FDB alone, or to many.

use crate::drop_reason::DropReason;
use crate::tables::{Address, Destination, Tables};
use crate::wire::MacAddr;

/// Route, neighbour, FDB: the MAC to write and where the packet goes.
#[inline]
pub(super) fn route(
    tables: &Tables,
    destination: impl Address,
) -> Result<(MacAddr, &[Destination]), DropReason> {
    if tables.local.in_own_subnet(destination) {
        return Err(DropReason::AbsentContainer);
    }
    tables.forward(destination)
}

/// Broadcast and multicast: the address's own entry, else the zero-MAC entries.
pub(super) fn flood(tables: &Tables, mac: MacAddr) -> Result<&[Destination], DropReason> {
    non_empty(tables.fdb.lookup(mac))
        .or_else(|| non_empty(tables.fdb.lookup(MacAddr::ZERO)))
        .ok_or(DropReason::NoFloodEntry)
}

/// Unicast by FDB alone. Without routing the zero-MAC entries serve unknown addresses too, as they do for the kernel's device
/// (`vxlan_xmit`); with it they do not: nothing is flooded by accident.
pub(super) fn bridge(tables: &Tables, mac: MacAddr) -> Result<&[Destination], DropReason> {
    non_empty(tables.fdb.lookup(mac))
        .or_else(|| {
            (!tables.local.routing)
                .then(|| tables.fdb.lookup(MacAddr::ZERO))
                .and_then(non_empty)
        })
        .ok_or(DropReason::NoFdbEntry)
}

fn non_empty(destinations: &[Destination]) -> Option<&[Destination]> {
    (!destinations.is_empty()).then_some(destinations)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::tables::Local;
    use crate::vtep::fixture::*;

    fn to(destination: Ipv4Addr) -> Vec<u8> {
        udp((OWN_MAC, OWN_MAC), (OWN_CONTAINER, destination), 0)
    }

    #[test]
    fn a_resolved_frame_goes_by_fdb_alone() {
        let tables = tables();
        let addresses = (OWN_CONTAINER, Ipv4Addr::new(192, 0, 2, 1));
        let encap = encap(&tables, &udp((OWN_MAC, PEER_MAC), addresses, 0));
        assert_eq!(encap.destination_mac, None);
        assert_eq!(encap.destinations[0].underlay.ip(), PEER_UNDERLAY);
    }

    #[test]
    fn each_missing_entry_has_its_own_reason() {
        assert_eq!(
            drop_reason(&tables(), &to(Ipv4Addr::new(10, 255, 44, 1))),
            DropReason::NoRoute
        );
        let without = |change: fn(&mut crate::tables::TableSpec)| {
            let mut spec = spec();
            change(&mut spec);
            drop_reason(&compile(local(), &spec), &from_host(0))
        };
        assert_eq!(
            without(|spec| spec.neighbors.clear()),
            DropReason::NoNeighbor
        );
        assert_eq!(without(|spec| spec.fdb.clear()), DropReason::NoFdbEntry);
    }

    #[test]
    fn an_unknown_mac_is_flooded_only_without_routing() {
        let unknown = MacAddr::new([2, 0, 0, 0, 0, 9]);
        let frame = udp((OWN_MAC, unknown), (OWN_CONTAINER, PEER_CONTAINER), 0);
        let mut spec = spec();
        spec.fdb.push(fdb_entry(MacAddr::ZERO, PEER_UNDERLAY));
        assert_eq!(
            drop_reason(&compile(local(), &spec), &frame),
            DropReason::NoFdbEntry
        );
        let plain = compile(
            Local {
                routing: false,
                ..local()
            },
            &spec,
        );
        assert_eq!(encap(&plain, &frame).destinations.len(), 1);
    }

    #[test]
    fn broadcast_goes_to_every_zero_mac_entry_in_order() {
        let other: IpAddr = Ipv4Addr::new(10, 0, 16, 15).into();
        let mut spec = spec();
        let frame = udp(
            (OWN_MAC, MacAddr::BROADCAST),
            (OWN_CONTAINER, Ipv4Addr::BROADCAST),
            0,
        );
        assert_eq!(
            drop_reason(&compile(local(), &spec), &frame),
            DropReason::NoFloodEntry
        );
        for underlay in [PEER_UNDERLAY, other] {
            spec.fdb.push(fdb_entry(MacAddr::ZERO, underlay));
        }
        let tables = compile(local(), &spec);
        let encap = encap(&tables, &frame);
        let underlays: Vec<_> = encap.destinations.iter().map(|d| d.underlay.ip()).collect();
        assert_eq!(underlays, [PEER_UNDERLAY, other]);
        let copies: Vec<_> = encap.copies().map(|d| d.underlay.ip()).collect();
        assert_eq!(copies, [other, PEER_UNDERLAY], "the first goes last");
    }
}
