//! A host with an `eth0`, and the namespace that holds the other end of it.

use std::fs;
use std::net::IpAddr;

use super::datagram::{HOST_MAC, v4, v6};
use super::setup::Setup;
use crate::support::{Namespace, Result, Wait, mac_text, wait_until};

/// Our host's addresses on the underlay, by their last byte.
pub(crate) const OWN: [u8; 2] = [1, 9];
/// Other hosts of the underlay.
const OTHERS: std::ops::RangeInclusive<u8> = 2..=5;
/// MTU of the underlay: the tunnel leaves 1430 over IPv6.
pub(crate) const UNDERLAY_MTU: u32 = 1500;

/// The address of host `n`, of the underlay's family.
pub(crate) fn underlay_address(setup: &Setup, n: u8) -> IpAddr {
    if setup.v6 { v6(n).into() } else { v4(n).into() }
}

/// Joins `eth0` of `host` with `wire0` of `wire`, where nobody is: packets for other hosts leave without asking for them.
pub(crate) fn join(host: &Namespace, wire: &Namespace, setup: &Setup) -> Result {
    // No talk of IPv6 by itself.
    for namespace in [host, wire] {
        set_ipv6(namespace, "default", false)?;
    }
    wire.ip_batch(&format!(
        "link add wire0 mtu {UNDERLAY_MTU} type veth peer name eth0 mtu {UNDERLAY_MTU} address {mac} netns {host}\n\
         link set wire0 up\n",
        mac = mac_text(HOST_MAC)
    ))?;
    if setup.v6 {
        set_ipv6(host, "eth0", true)?;
    }
    host.ip_batch(&address_lines(setup))?;
    if setup.v6 {
        wait_until("the IPv6 addresses are usable", || {
            let routes = host.ip("-6 route show table local type local")?;
            let usable = OWN
                .iter()
                .all(|n| routes.contains(&format!("{} ", underlay_address(setup, *n))));
            Ok(Wait::unless(usable, || routes))
        })?;
    }
    // Packets as a real wire has them: cut, and with their checksums.
    const OFF: &str = "tx off tso off gso off gro off";
    host.exec(&format!("ethtool -K eth0 {OFF}"))?;
    wire.exec(&format!("ethtool -K wire0 {OFF}"))?;
    Ok(())
}

/// Switches IPv6 of a device on or off.
pub(crate) fn set_ipv6(namespace: &Namespace, device: &str, on: bool) -> Result {
    let disabled = if on { "0" } else { "1" };
    let switch = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    namespace.run(|| Ok(fs::write(&switch, disabled)?))
}

fn address_lines(setup: &Setup) -> String {
    let mut lines = String::from("link set eth0 addrgenmode none\nlink set eth0 up\n");
    // Duplicate address detection would keep an IPv6 address from being used for a second.
    let (prefix, flags) = if setup.v6 { (64, "nodad") } else { (24, "") };
    for n in OWN {
        let address = underlay_address(setup, n);
        lines += &format!("addr add {address}/{prefix} dev eth0 {flags}\n");
    }
    for n in OTHERS {
        let address = underlay_address(setup, n);
        let mac = mac_text([2, 0, 0, 0, 0, n]);
        lines += &format!("neigh add {address} lladdr {mac} dev eth0 nud permanent\n");
    }
    lines
}
