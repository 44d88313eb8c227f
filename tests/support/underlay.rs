//! The network between the cells: one bridge, and a host namespace with an `eth0` for each cell.

use std::fmt::Write;
use std::fs;
use std::net::Ipv6Addr;
use std::sync::Arc;

use super::{Namespace, Result, SITES, Wait, wait_until};

/// Bytes an underlay carries unless a plan says otherwise.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// Hosts that reach each other at the addresses of their [`SITES`].
pub(crate) struct Underlay {
    /// One namespace a cell, in the order of [`SITES`].
    pub(crate) hosts: Vec<Arc<Namespace>>,
    /// Holds the bridge.
    _switch: Namespace,
}

impl Underlay {
    /// `count` hosts. Without `offloads`, the wire carries MTU-sized packets with checksums, as a real network does; with them, veth
    /// hands over super-frames and partial checksums.
    pub(crate) fn new(count: usize, mtu: u32, offloads: bool) -> Result<Self> {
        let switch = Namespace::new()?;
        switch.run(|| {
            Ok(fs::write(
                "/proc/sys/net/ipv6/conf/default/disable_ipv6",
                "1",
            )?)
        })?;
        switch.ip_batch(&format!(
            "link add bridge0 mtu {mtu} type bridge mcast_snooping 0\nlink set bridge0 up\n"
        ))?;
        let hosts = (0..count)
            .map(|i| attach_host(&switch, i, mtu, offloads).map(Arc::new))
            .collect::<Result<_>>()?;
        Ok(Self {
            hosts,
            _switch: switch,
        })
    }
}

fn attach_host(switch: &Namespace, index: usize, mtu: u32, offloads: bool) -> Result<Namespace> {
    let host = Namespace::new()?;
    let site = SITES[index];
    switch.ip_batch(&format!(
        "link add p{index} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {host}\n\
         link set p{index} master bridge0 up\n"
    ))?;
    // No link-local addresses: their detection and reports would come and go between two looks at the host.
    let mut lines = String::from("link set eth0 addrgenmode none\nlink set eth0 up\n");
    writeln!(lines, "addr add {}/16 dev eth0", site.underlay_v4)?;
    // Duplicate address detection would keep the address from being used for a second.
    writeln!(lines, "addr add {}/64 dev eth0 nodad", site.underlay_v6)?;
    host.ip_batch(&lines)?;
    await_local_route(&host, site.underlay_v6)?;
    if !offloads {
        const OFF: &str = "tx off tso off gso off gro on";
        host.exec(&format!("ethtool -K eth0 {OFF}"))?;
        switch.exec(&format!("ethtool -K p{index} {OFF}"))?;
    }
    Ok(host)
}

/// The kernel makes an IPv6 address usable, and its local route with it, some time after it was added (`addrconf_dad_work`).
fn await_local_route(host: &Namespace, address: Ipv6Addr) -> Result {
    wait_until("the IPv6 address is usable", || {
        let routes = host.ip("-6 route show table local type local")?;
        let usable = routes.contains(&address.to_string());
        Ok(Wait::unless(usable, || routes))
    })
}
