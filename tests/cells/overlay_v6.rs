//! An overlay of both families: VTEPs with two addresses, packets routed by IPv6 prefix, no neighbour ever asked for.
//!
//! Containers get IPv4 only so far, so each cell's host speaks for its IPv6 subnet.

use std::net::Ipv6Addr;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{Connection, End, Lab, Plan, Result, Site, ensure, ping};

/// Bytes of the transfer.
const TRANSFER_BYTES: usize = 2_000_000;

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Silk]).overlay_v6();
    vec![
        Case::new(
            "overlay_v6::over_v4_underlay",
            plan.clone(),
            both_families_cross,
        ),
        Case::new(
            "overlay_v6::over_v6_underlay",
            plan.v6(),
            both_families_cross,
        ),
    ]
}

fn both_families_cross(lab: &mut Lab) -> Result {
    let (a, b) = (&lab.cells[0], &lab.cells[1]);
    let inhabitant = inhabitant(&b.site);
    b.host.ip(&format!("-6 addr add {inhabitant}/128 dev lo"))?;
    for to in [b.site.vtep_v6(), inhabitant] {
        ping(&a.host, to, 20, "")?;
        // 40 bytes of IPv6 header and 8 of ICMPv6 fill the MTU.
        ping(&a.host, to, 5, &format!("-M do -s {}", a.mtu()? - 48))?;
    }
    let server = End {
        namespace: &b.host,
        address: inhabitant.into(),
    };
    Connection::between(a.end_v6(), server, 6)?.upload(TRANSFER_BYTES)?;
    ping(&a.container()?.namespace, b.container()?.address, 5, "")?;
    let neighbors = a
        .host
        .ip("-6 neigh show dev silk-vtep nud reachable nud stale nud delay")?;
    ensure!(
        neighbors.is_empty(),
        "the kernel asked for neighbours:\n{neighbors}"
    );
    Ok(())
}

/// Somebody in the cell's subnet who is not the VTEP.
fn inhabitant(site: &Site) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(site.vtep_v6()) + 6)
}
