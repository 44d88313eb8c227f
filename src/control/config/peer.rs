//! `[[peer]]`: each entry, held against `[vtep]` and against the others.

use std::net::IpAddr;

use ipnet::IpNet;

use super::form;
use super::mac::Mac;
use super::overlap::overlaps;
use super::reader::{List, Reader};
use super::report::{Claims, Located, Report, Reported};
use super::vtep::Own;
use crate::control::PeerSpec;

/// One entry, as far as it could be read.
pub(super) struct RawPeer {
    subnets: List<IpNet>,
    underlay: Result<Located<IpAddr>, Reported>,
    mac: Result<Mac, Reported>,
}

/// Takes every key of one `[[peer]]`.
pub(super) fn read(mut keys: Reader<'_, '_>) -> RawPeer {
    let subnets = keys.list_per_family("subnet", &form::SUBNET, |net| net.addr().is_ipv6());
    let underlay = keys.required("underlay", &form::UNDERLAY);
    let mac = Mac::read(&mut keys, &subnets, IpNet::addr);
    keys.finish();
    RawPeer {
        subnets,
        underlay,
        mac,
    }
}

/// Checks all peers. O(n log n) in their number.
pub(super) fn check(
    peers: &[RawPeer],
    own: &Own,
    report: &mut Report,
) -> Result<Vec<PeerSpec>, Reported> {
    for peer in peers {
        peer.check_against(own, report);
    }
    check_underlays(peers, own, report);
    check_macs(peers, own, report);
    check_subnets(peers, own, report);
    peers.iter().map(RawPeer::spec).collect()
}

impl RawPeer {
    fn check_against(&self, own: &Own, report: &mut Report) {
        for subnet in &self.subnets.items {
            if own.is_outside(subnet.value) {
                let wrong = format!("{} is inside no overlay", subnet.value);
                let accepted = format!("a prefix inside {}", own.overlays_shown());
                report.refuse(&subnet.place, wrong, accepted);
            }
        }
        if let Ok(underlay) = &self.underlay {
            own.check_underlay(underlay, report);
            check_family(underlay, own, report);
        }
    }

    fn spec(&self) -> Result<PeerSpec, Reported> {
        Ok(PeerSpec {
            subnets: self.subnets.values()?,
            underlay: self.underlay.as_ref()?.value,
            mac: self.mac.as_ref()?.at.value,
        })
    }
}

fn check_family(underlay: &Located<IpAddr>, own: &Own, report: &mut Report) {
    if let Ok(local) = &own.local
        && local.value.is_ipv6() != underlay.value.is_ipv6()
    {
        let wrong = format!(
            "{} and {} are of different families",
            underlay.value, local.place
        );
        let accepted = format!("an address of the family of {}", local.value);
        report.refuse(&underlay.place, wrong, accepted);
    }
}

fn check_underlays(peers: &[RawPeer], own: &Own, report: &mut Report) {
    let mut claims = Claims::new();
    let underlays = peers.iter().flat_map(|peer| &peer.underlay);
    for underlay in own.local.iter().chain(underlays) {
        if let Err(first) = claims.claim(underlay.value, &underlay.place) {
            let wrong = format!("{} is taken by {first}", underlay.value);
            report.refuse(&underlay.place, wrong, "an underlay address of its own");
        }
    }
}

fn check_macs(peers: &[RawPeer], own: &Own, report: &mut Report) {
    let mut claims = Claims::new();
    let macs = peers.iter().flat_map(|peer| &peer.mac);
    for mac in own.mac.iter().chain(macs) {
        // Two derived ones are equal only if the subnets overlap, which `check_subnets` says.
        if let Err(first) = claims.claim(mac.at.value, mac)
            && !(first.derived && mac.derived)
        {
            let derived = if mac.derived {
                ", which follows from the address,"
            } else {
                ""
            };
            let wrong = format!(
                "MAC {}{derived} is taken by {}",
                mac.at.value, first.at.place
            );
            report.refuse(&mac.at.place, wrong, "a MAC of its own");
        }
    }
}

fn check_subnets(peers: &[RawPeer], own: &Own, report: &mut Report) {
    let subnets = peers.iter().flat_map(|peer| &peer.subnets.items);
    let all: Vec<&Located<IpNet>> = own.subnets.iter().chain(subnets).collect();
    let nets: Vec<IpNet> = all.iter().map(|subnet| subnet.value).collect();
    for (later, earlier) in overlaps(&nets) {
        let (later, earlier) = (all[later], all[earlier]);
        let wrong = format!(
            "{} overlaps {} of {}",
            later.value, earlier.value, earlier.place
        );
        report.refuse(&later.place, wrong, "a subnet of its own");
    }
}
