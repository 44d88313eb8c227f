//! The network between the cells: a host namespace with an `eth0` for each cell, all on one bridge, or each on a link to one router.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Namespace, Plan, Result, SITES, Site, Wait, wait_until};

/// Bytes an underlay carries unless a plan says otherwise.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// Hosts that reach each other at the addresses of their [`SITES`].
pub(crate) struct Underlay {
    /// One namespace a cell, in the order of [`SITES`].
    pub(crate) hosts: Vec<Arc<Namespace>>,
    /// Where the plan wants one.
    pub(crate) router: Option<Namespace>,
    /// Where the plan wants one more: on the way from the first host to all others.
    pub(crate) second_router: Option<Namespace>,
    /// Holds the bridge.
    _switch: Option<Namespace>,
}

impl Underlay {
    /// A host for each cell. Without offloads, the wire carries MTU-sized packets with checksums, as a real network does; with them, veth
    /// hands over super-frames and partial checksums.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        if plan.routed {
            return Self::routed(plan);
        }
        let (count, mtu, offloads) = (plan.kinds.len(), plan.mtu, plan.offloads);
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
            router: None,
            second_router: None,
            _switch: Some(switch),
        })
    }

    fn routed(plan: &Plan) -> Result<Self> {
        let router = forwarding()?;
        let second_router = plan.second_router.then(forwarding).transpose()?;
        if let Some(second) = &second_router {
            join_routers(&router, second, plan.mtu)?;
        }
        let hosts = (0..plan.kinds.len())
            .map(|i| {
                let near = second_router.as_ref().filter(|_| i > 0);
                attach_to_router(near.unwrap_or(&router), i, plan.mtu).map(Arc::new)
            })
            .collect::<Result<Vec<_>>>()?;
        for host in &hosts {
            await_ways(host, &SITES[..hosts.len()])?;
        }
        Ok(Self {
            hosts,
            router: Some(router),
            second_router,
            _switch: None,
        })
    }
}

/// Either router's end of the link between them.
pub(crate) const ROUTERS_LINK: &str = "between";

fn forwarding() -> Result<Namespace> {
    let router = Namespace::new()?;
    router.run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
    })?;
    Ok(router)
}

/// Each sends to the other what is not for a host of its own.
fn join_routers(first: &Namespace, second: &Namespace, mtu: u32) -> Result {
    first.ip_batch(&format!(
        "link add {ROUTERS_LINK} mtu {mtu} type veth peer name {ROUTERS_LINK} mtu {mtu} netns {second}\n"
    ))?;
    for (router, own, other) in [(first, 1, 2), (second, 2, 1)] {
        router.ip_batch(&format!(
            "link set {ROUTERS_LINK} up\n\
             addr add 10.0.99.{own}/24 dev {ROUTERS_LINK}\n\
             addr add fd00::99:{own}/112 dev {ROUTERS_LINK} nodad\n\
             route add default via 10.0.99.{other}\n\
             route add default via fd00::99:{other}\n"
        ))?;
    }
    Ok(())
}

/// The router's end of the link to one host.
pub(crate) fn router_link(index: usize) -> String {
    format!("p{index}")
}

/// The router is the first address of each host's own network.
fn attach_to_router(router: &Namespace, index: usize, mtu: u32) -> Result<Namespace> {
    let host = Namespace::new()?;
    let Site {
        underlay_v4: v4,
        underlay_v6: v6,
        ..
    } = SITES[index];
    let link = router_link(index);
    let [a, b, c, _] = v4.octets();
    let [.., network, _] = v6.segments();
    let gateways = (
        Ipv4Addr::new(a, b, c, 1),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, network, 1),
    );
    router.ip_batch(&format!(
        "link add {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {host}\n\
         link set {link} up\n\
         addr add {}/24 dev {link}\n\
         addr add {}/112 dev {link} nodad\n",
        gateways.0, gateways.1
    ))?;
    host.ip_batch(&format!(
        "link set eth0 addrgenmode none\n\
         link set eth0 up\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/112 dev eth0 nodad\n\
         route add default via {}\n\
         route add default via {}\n",
        gateways.0, gateways.1
    ))?;
    await_local_route(&host, v6)?;
    await_local_route(router, gateways.1)?;
    Ok(host)
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

/// Everybody's MAC is found out: by IPv6 that takes a second where the other end came up late.
fn await_ways(host: &Namespace, sites: &[Site]) -> Result {
    for site in sites {
        for to in [site.underlay(false), site.underlay(true)] {
            wait_until("the router's way is open", || {
                let said = host.exec(&format!("ping -n -c 1 -W 1 {to}"));
                Ok(Wait::unless(said.is_ok(), || format!("{said:?}")))
            })?;
        }
    }
    Ok(())
}

/// The kernel makes an IPv6 address usable, and its local route with it, some time after it was added (`addrconf_dad_work`).
fn await_local_route(host: &Namespace, address: Ipv6Addr) -> Result {
    wait_until("the IPv6 address is usable", || {
        let routes = host.ip("-6 route show table local type local")?;
        let usable = routes.contains(&address.to_string());
        Ok(Wait::unless(usable, || routes))
    })
}
