//! The two devices under test, in the same configuration.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};

use super::datagram::VNI;
use super::frames::{
    GROUP_MAC, OTHER_PEER_MAC, OWN_ADDRESS, OWN_MAC, PEER_MAC, THERE, THERE_V6, UNKNOWN_MAC,
};
use super::host::{set_ipv6, underlay_address};
use super::setup::{MTU, Remote, Setup, remote};
use crate::support::{Daemon, Namespace, Result, VTEP_NAME, mac_text};

/// A neighbour whose MAC has no FDB entry.
pub(crate) const NEIGHBOR_WITHOUT_FDB: [u8; 4] = [10, 255, 77, 9];

/// Makes the kernel's device. It lives and dies with `host`.
pub(crate) fn of_kernel(host: &Namespace, setup: &Setup) -> Result {
    host.ip_batch(&format!(
        "link add {VTEP_NAME} address {mac} mtu {MTU} type vxlan id {VNI} local {local} dstport 4789 nolearning {options}\n\
         link set {VTEP_NAME} addrgenmode none\n\
         link set {VTEP_NAME} up\n",
        mac = mac_text(OWN_MAC),
        local = underlay_address(setup, 1),
        options = setup.kernel,
    ))?;
    // What comes in is to be seen packet by packet.
    host.exec(&format!("ethtool -K {VTEP_NAME} gro off"))?;
    if setup.own_address {
        let address = Ipv4Addr::from(OWN_ADDRESS);
        host.ip(&format!("addr add {address}/32 dev {VTEP_NAME}"))?;
    }
    if setup.neighbors {
        // The kernel keeps IPv6 neighbours where IPv6 is on.
        set_ipv6(host, VTEP_NAME, true)?;
        let lines = neighbors().into_iter().map(|(address, mac)| {
            format!("neigh add {address} lladdr {mac} dev {VTEP_NAME} nud permanent\n")
        });
        host.ip_batch(&lines.collect::<String>())?;
    }
    let mut fdb = String::new();
    for (mac, to) in forwarding(setup) {
        let dst = underlay_address(setup, to.host);
        fdb += &format!("fdb append {mac} dev {VTEP_NAME} dst {dst} self permanent");
        fdb += &to
            .port
            .map_or(String::new(), |port| format!(" port {port}"));
        fdb += &to.vni.map_or(String::new(), |vni| format!(" vni {vni}"));
        fdb.push('\n');
    }
    host.bridge_batch(&fdb)
}

/// Starts our daemon.
pub(crate) fn of_daemon(host: &Arc<Namespace>, setup: &Setup) -> Result<Daemon> {
    let mut daemon = Daemon::new(host, &setup.config())?;
    daemon.start()?;
    let mut changes: Vec<Value> = Vec::new();
    for (mac, to) in forwarding(setup) {
        let mut entry = json!({"mac": mac, "dst": underlay_address(setup, to.host)});
        if let Some(port) = to.port {
            entry["port"] = port.into();
        }
        if let Some(vni) = to.vni {
            entry["vni"] = vni.into();
        }
        changes.push(json!({"add": {"fdb": entry}}));
    }
    for (address, mac) in neighbors().into_iter().filter(|_| setup.neighbors) {
        changes.push(json!({"add": {"neigh": {"dst": address, "lladdr": mac}}}));
    }
    daemon.request(&json!({ "change": changes }))?;
    Ok(daemon)
}

/// FDB entries: MACs, and where they lead.
fn forwarding(setup: &Setup) -> Vec<(String, Remote)> {
    let own = [(PEER_MAC, 2), (OTHER_PEER_MAC, 3), (GROUP_MAC, 4)];
    let own = own.map(|(mac, host)| (mac_text(mac), remote(host)));
    let flood = setup.flood.iter().map(|to| (mac_text([0; 6]), *to));
    own.into_iter().chain(flood).collect()
}

/// Who is answered for: address and MAC.
fn neighbors() -> [(IpAddr, String); 3] {
    [
        (THERE.into(), mac_text(PEER_MAC)),
        (THERE_V6.into(), mac_text(PEER_MAC)),
        (NEIGHBOR_WITHOUT_FDB.into(), mac_text(UNKNOWN_MAC)),
    ]
}
