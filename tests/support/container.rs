//! A container: a network namespace with one veth to its cell.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use super::{Daemon, End, Namespace, Result, Site, Wait, mac_text, vtep_mac, wait_until};

/// Reaches the world through 169.254.0.1, as Silk's containers do.
pub(crate) struct Container {
    /// Where it lives.
    pub(crate) namespace: Namespace,
    /// Its overlay address.
    pub(crate) address: Ipv4Addr,
}

impl Container {
    /// Wires the container of `site` with iproute2, in the order silk-cni does it.
    pub(crate) fn by_hand(host: &Namespace, site: &Site, mtu: u32) -> Result<Self> {
        let container = Self::unwired(site)?;
        let Self { namespace, address } = &container;
        let veth = host_veth_name(*address);
        let inner_mac = mac_text(vtep_mac(*address));
        let outer_mac = inner_mac.replacen("ee:ee", "aa:aa", 1);
        host.ip_batch(&format!(
            "link add {veth} address {outer_mac} mtu {mtu} type veth \
                 peer name eth0 address {inner_mac} mtu {mtu} netns {namespace}\n\
             link set {veth} arp off\n\
             neigh add {address} lladdr {inner_mac} dev {veth} nud permanent\n\
             addr add 169.254.0.1/32 peer {address}/32 dev {veth} scope link\n\
             link set {veth} up\n"
        ))?;
        host.run(|| Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        namespace.ip_batch(&format!(
            "link set eth0 arp off\n\
             neigh add 169.254.0.1 lladdr {outer_mac} dev eth0 nud permanent\n\
             addr add {address}/32 peer 169.254.0.1/32 dev eth0 scope link\n\
             link set eth0 up\n\
             route add default via 169.254.0.1 dev eth0 src {address}\n"
        ))?;
        await_carrier(host, &veth)?;
        Ok(container)
    }

    /// Has `daemon` wire the container of `site`.
    pub(crate) fn by_daemon(daemon: &Daemon, site: &Site) -> Result<Self> {
        let container = Self::unwired(site)?;
        let (address, netns) = (container.address, container.namespace.name());
        daemon.ctl(&format!(
            "container add --address {address} --netns {netns}"
        ))?;
        Ok(container)
    }

    fn unwired(site: &Site) -> Result<Self> {
        Ok(Self {
            namespace: Namespace::new()?,
            address: site.container,
        })
    }

    /// A UDP socket in the container, on a port of its own, with room for bursts and a bound on every receive.
    pub(crate) fn udp(&self) -> Result<UdpSocket> {
        self.end().udp()
    }

    /// Its address, as one end of some traffic.
    pub(crate) fn end(&self) -> End<'_> {
        End {
            namespace: &self.namespace,
            address: self.address.into(),
        }
    }
}

/// Silk's name of a container's veth in its cell: `s-010255108184`.
pub(crate) fn host_veth_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("s-{a:03}{b:03}{c:03}{d:03}")
}

/// The end that came up first drops all it is given until the kernel's linkwatch has run; `container add` waits for that, iproute2 does not.
fn await_carrier(host: &Namespace, device: &str) -> Result {
    wait_until("the container's link sends", || {
        let link = host.ip(&format!("-o link show {device}"))?;
        Ok(Wait::unless(link.contains(" state UP "), || link))
    })
}
