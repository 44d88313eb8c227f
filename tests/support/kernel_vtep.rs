//! The kernel's own vxlan device, set up as Silk does it: the oracle, and the proof that the fixture carries traffic.

use std::fmt::Write;

use super::{Namespace, OVERLAY, Plan, Result, Site, VTEP_NAME, mac_text, vtep_mac};

/// Lives and dies with its namespace.
pub(crate) struct KernelVtep;

impl KernelVtep {
    /// Makes the device of `site` in `host` and an FDB entry, a neighbour and a route for each peer.
    pub(crate) fn start(
        host: &Namespace,
        site: &Site,
        peers: &[Site],
        plan: &Plan,
    ) -> Result<Self> {
        let mut ip = String::new();
        writeln!(
            ip,
            "link add {VTEP_NAME} address {mac} mtu {mtu} type vxlan id 1 local {local} dev eth0 dstport 4789 nolearning gbp {words}",
            mac = mac_text(vtep_mac(site.vtep)),
            mtu = plan.overlay_mtu(),
            local = site.underlay(plan.v6),
            words = plan.kernel_words,
        )?;
        let overlay_prefix = OVERLAY.rsplit_once('/').ok_or("the overlay is a prefix")?.1;
        writeln!(
            ip,
            "addr add {}/{overlay_prefix} dev {VTEP_NAME} scope link",
            site.vtep
        )?;
        writeln!(ip, "link set {VTEP_NAME} up")?;
        let mut fdb = String::new();
        for peer in peers {
            let mac = mac_text(vtep_mac(peer.vtep));
            let via = peer.vtep;
            writeln!(
                fdb,
                "fdb add {mac} dev {VTEP_NAME} dst {} self permanent",
                peer.underlay(plan.v6)
            )?;
            writeln!(
                ip,
                "neigh add {via} lladdr {mac} dev {VTEP_NAME} nud permanent"
            )?;
            writeln!(
                ip,
                "route add {} via {via} dev {VTEP_NAME} src {} onlink",
                peer.subnet(),
                site.vtep
            )?;
        }
        host.ip_batch(&ip)?;
        host.bridge_batch(&fdb)?;
        Ok(Self)
    }
}
