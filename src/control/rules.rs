//! What can be said of an entry without looking at the others: could it ever work on this VTEP?
//!
//! The rules for peers are those of the configuration file, so that what the socket takes the file takes too.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::config::{VtepConfig, not_unicast};
use super::{Entry, PeerSpec};
use crate::tables::policy::{Ports, Proto};
use crate::wire::{GroupId, MacAddr};

/// Who this VTEP is, as far as entries may contradict it.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    local: IpAddr,
    mac: MacAddr,
    subnets: Vec<IpNet>,
    overlays: Vec<IpNet>,
}

impl Rules {
    pub(super) fn new(vtep: &VtepConfig) -> Self {
        Self {
            local: vtep.local,
            mac: vtep.mac,
            subnets: vtep.subnets.clone(),
            overlays: vtep.overlays.clone(),
        }
    }

    /// The reason why `entry` can never work here.
    pub(super) fn check(&self, entry: &Entry) -> Result<(), String> {
        match *entry {
            Entry::Route { dst, via } => check_route(dst, via),
            Entry::Neigh { dst, lladdr } => {
                check_unicast(dst)?;
                self.check_mac(lladdr)
            }
            Entry::Fdb { mac, dst, port, .. } => self.check_fdb(mac, dst, port),
            Entry::Peer(ref peer) => self.check_peer(peer),
            Entry::Group { address, id } => self.check_group(address, id),
            Entry::Policy {
                dst,
                group,
                proto,
                ports,
                action: _,
            } => self.check_policy(dst, group, proto, ports),
        }
    }

    fn check_fdb(&self, mac: MacAddr, dst: IpAddr, port: Option<u16>) -> Result<(), String> {
        if mac == self.mac {
            return Err("the MAC is this VTEP's own".to_owned());
        }
        if port == Some(0) {
            return Err("port 0 (accepted: 1 to 65535)".to_owned());
        }
        self.check_underlay(dst)
    }

    fn check_peer(&self, peer: &PeerSpec) -> Result<(), String> {
        self.check_underlay(peer.underlay)?;
        let v4 = peer.subnets.iter().filter(|subnet| subnet.addr().is_ipv4());
        let v4 = v4.count();
        if peer.subnets.is_empty() || v4 > 1 || peer.subnets.len() - v4 > 1 {
            return Err("a peer has one subnet, or one per family".to_owned());
        }
        peer.subnets
            .iter()
            .try_for_each(|subnet| self.check_subnet(*subnet))?;
        // Last: what follows from a subnet of ours is less worth saying.
        self.check_mac(peer.mac)
    }

    fn check_subnet(&self, subnet: IpNet) -> Result<(), String> {
        check_unicast(subnet.addr())?;
        self.check_inside(subnet, subnet)?;
        match self.subnets.iter().find(|own| overlap(**own, subnet)) {
            Some(own) => Err(format!("subnet {subnet} overlaps this VTEP's own {own}")),
            None => Ok(()),
        }
    }

    fn check_group(&self, address: IpAddr, id: GroupId) -> Result<(), String> {
        if id.0 == 0 {
            return Err("id 0 means no group (accepted: 0x0001 to 0xffff)".to_owned());
        }
        check_unicast(address)?;
        self.check_inside(address.into(), address)
    }

    fn check_policy(
        &self,
        dst: IpNet,
        group: GroupId,
        proto: Proto,
        ports: Ports,
    ) -> Result<(), String> {
        if group.0 == 0 {
            return Err("group 0 means no group (accepted: 0x0001 to 0xffff)".to_owned());
        }
        if !proto.has_ports() && !ports.is_all() {
            return Err(format!(
                "{proto} has no ports (accepted: ports with proto tcp or udp)"
            ));
        }
        check_prefix(dst)?;
        if dst.prefix_len() == dst.max_prefix_len() {
            check_unicast(dst.addr())?;
        }
        if self.overlays.iter().any(|overlay| overlap(*overlay, dst)) {
            return Ok(());
        }
        Err(format!(
            "{dst} has no address of an overlay (accepted: a part of {})",
            self.overlays_told()
        ))
    }

    fn overlays_told(&self) -> String {
        let overlays: Vec<_> = self.overlays.iter().map(IpNet::to_string).collect();
        overlays.join(", ")
    }

    /// `shown`: `net` as it was given.
    fn check_inside(&self, net: IpNet, shown: impl Display) -> Result<(), String> {
        if self.overlays.iter().any(|overlay| overlay.contains(&net)) {
            return Ok(());
        }
        Err(format!(
            "{shown} is inside no overlay (accepted: inside {})",
            self.overlays_told()
        ))
    }

    fn check_underlay(&self, underlay: IpAddr) -> Result<(), String> {
        check_unicast(underlay)?;
        if underlay.is_ipv4() != self.local.is_ipv4() {
            return Err(format!(
                "{underlay} is not of the family of the local {}",
                self.local
            ));
        }
        if underlay == self.local {
            return Err(format!("{underlay} is this VTEP's own underlay address"));
        }
        if matches!(underlay, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return Err(format!(
                "{underlay} is link-local, which needs an interface with it"
            ));
        }
        match self
            .overlays
            .iter()
            .find(|overlay| overlay.contains(&underlay))
        {
            Some(overlay) => Err(format!(
                "underlay address {underlay} lies in the overlay {overlay}: the tunnel would carry itself"
            )),
            None => Ok(()),
        }
    }

    fn check_mac(&self, mac: MacAddr) -> Result<(), String> {
        if mac.is_multicast() || mac.is_zero() {
            return Err(format!("{mac} is no unicast MAC"));
        }
        if mac == self.mac {
            return Err(format!("{mac} is this VTEP's own MAC"));
        }
        Ok(())
    }
}

/// True if the two share an address.
pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

pub(super) fn check_prefix(dst: IpNet) -> Result<(), String> {
    if dst != dst.trunc() {
        return Err(format!(
            "{dst} has host bits set (accepted: {})",
            dst.trunc()
        ));
    }
    Ok(())
}

fn check_route(dst: IpNet, via: Option<IpAddr>) -> Result<(), String> {
    check_prefix(dst)?;
    let Some(via) = via else { return Ok(()) };
    if via.is_ipv4() != dst.addr().is_ipv4() {
        return Err(format!("via {via} is of the other family"));
    }
    check_unicast(via)
}

fn check_unicast(address: IpAddr) -> Result<(), String> {
    not_unicast(address).map_or(Ok(()), |what| {
        Err(format!("{address} is {what} (accepted: a unicast address)"))
    })
}
