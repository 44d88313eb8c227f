//! `[vtep]`: its keys, their defaults, and what they say about each other.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use ipnet::IpNet;

use super::form;
use super::mac::Mac;
use super::mtu::read_mtu;
use super::offload;
use super::overlap::overlaps;
use super::reader::{List, Reader};
use super::report::{Located, Report, Reported};
use super::{Bind, MAX_LANES, Marks, UnderlayOf, VtepConfig};
use crate::netlink::Underlay;
use crate::tables::OuterRules;
use crate::wire::{Vni, vxlan};

/// `subnet_prefix_length` without one.
const V4_SUBNET_PREFIX_LENGTH: u8 = 24;
/// The subnet of a v6 address; IPv6 subnets are /64 (RFC 4291 section 2.5.1).
const V6_SUBNET_PREFIX_LENGTH: u8 = 64;
/// `moderation_us` without one: see `io::worker` for what it is worth.
const MODERATION_US: u32 = 25;
/// How many overlays an error shows.
const SHOWN_OVERLAYS: usize = 4;

/// Who we are: the part of `[vtep]` that its other keys, peers and groups are held against.
pub(super) struct Own {
    pub(super) local: Result<Located<IpAddr>, Reported>,
    /// The link that carries `local`, if the host is known and one does.
    pub(super) underlay: Option<Underlay>,
    pub(super) addresses: List<IpAddr>,
    pub(super) overlays: List<IpNet>,
    /// One for each address that has a known one, each where its address is.
    pub(super) subnets: Vec<Located<IpNet>>,
    pub(super) mac: Result<Mac, Reported>,
}

/// Takes every key of `[vtep]`.
pub(super) fn read(
    mut keys: Reader<'_, '_>,
    underlay_of: UnderlayOf<'_>,
) -> (Own, Result<VtepConfig, Reported>) {
    let own = Own::read(&mut keys, underlay_of);
    let vtep = read_vtep(&mut keys, &own);
    keys.finish();
    (own, vtep)
}

/// [`VtepConfig`] from `own` and the keys that it does not hold.
fn read_vtep(keys: &mut Reader<'_, '_>, own: &Own) -> Result<VtepConfig, Reported> {
    let offload = keys.table("offload", offload::read);
    let mtu = read_mtu(keys, own);
    let cpus = keys.list("cpus", &form::CPU);
    let udp_checksum = keys.or("udp_checksum", &form::BOOL, true);
    let gbp = keys.or("gbp", &form::BOOL, true);
    let marks = keys.optional("marks", &form::MARKS);
    if let Ok(Some(marks)) = &marks
        && !gbp
    {
        check_marks(marks, keys.report());
    }
    Ok(VtepConfig {
        name: keys.or("name", &form::NAME, "silk-vtep".to_owned()),
        vni: keys.or("vni", &form::VNI, Vni::SILK),
        port: keys.or("port", &form::PORT, vxlan::PORT),
        mtu_bytes: mtu.map(|mtu| mtu.value),
        gbp,
        lanes: lanes(keys.or("lanes", &form::LANES, 0)),
        strict_source: keys.or("strict_source", &form::BOOL, true),
        marks: marks.map_or(Marks::Auto, |marks| {
            marks.map_or(Marks::Auto, |marks| marks.value)
        }),
        udp_checksum,
        zero_checksum_rx: keys.or("udp6_zero_checksum_rx", &form::BOOL, !udp_checksum),
        outer: read_outer(keys),
        source_ports: keys.given("srcport", &form::SOURCE_PORTS),
        routing: keys.or("routing", &form::BOOL, true),
        silk_routes: keys.or("silk_routes", &form::BOOL, false),
        bind: keys.or("bind", &form::BIND, Bind::Any),
        persist: keys.or("persist", &form::BOOL, false),
        state_dir: keys.given("state_dir", &form::STATE_DIR),
        datastore: keys.given("datastore", &form::FILE),
        health_check: keys.given("health_check", &form::LISTEN),
        busy_poll_us: keys.or("busy_poll_us", &form::BUSY_POLL, 0),
        moderation_us: keys.or("moderation_us", &form::MODERATION, MODERATION_US),
        express: keys.or("express", &form::BOOL, false),
        // Fields are evaluated as written: all keys are taken before the first `?`.
        cpus: cpus.values()?,
        offload: offload?,
        local: own.local.as_ref()?.value,
        addresses: own.addresses.values()?,
        overlays: own.overlays.values()?,
        subnets: own.subnets.iter().map(|subnet| subnet.value).collect(),
        mac: own.mac.as_ref()?.at.value,
    })
}

/// Refuses, without `gbp`, what says where groups come from.
fn check_marks(marks: &Located<Marks>, report: &mut Report) {
    match marks.value {
        Marks::Auto | Marks::Off => {}
        Marks::Bpf | Marks::Table => {
            let wrong = "with gbp = false no group is ever sent";
            let accepted = "\"auto\" or \"off\", or gbp = true";
            report.refuse(&marks.place, wrong, accepted);
        }
    }
}

/// How outer headers are filled in.
fn read_outer(keys: &mut Reader<'_, '_>) -> OuterRules {
    let default = OuterRules::default();
    OuterRules {
        ttl: keys.or("ttl", &form::TTL, default.ttl),
        tos: keys.or("tos", &form::TOS, default.tos),
        df: keys.or("df", &form::DF, default.df),
    }
}

/// As many lanes as asked for, or one for each core that we may use.
fn lanes(asked: usize) -> NonZeroUsize {
    NonZeroUsize::new(asked).unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::MIN.saturating_add(cores.min(MAX_LANES) - 1)
    })
}

impl Own {
    /// What can be said if there is no table at all.
    pub(super) fn unknown(reported: Reported) -> Self {
        Self {
            local: Err(reported),
            underlay: None,
            addresses: List::broken(reported),
            overlays: List::broken(reported),
            subnets: Vec::new(),
            mac: Err(reported),
        }
    }

    /// True if `net` is surely in no overlay.
    pub(super) fn is_outside(&self, net: IpNet) -> bool {
        self.overlays.whole.is_ok() && self.overlay_around(net).is_none()
    }

    /// True if `net` surely shares no address with an overlay.
    pub(super) fn has_no_part_in(&self, net: IpNet) -> bool {
        let mut overlays = self.overlays.items.iter().map(|overlay| overlay.value);
        let shares = |overlay: IpNet| overlay.contains(&net) || net.contains(&overlay);
        self.overlays.whole.is_ok() && !overlays.any(shares)
    }

    fn overlay_around(&self, net: IpNet) -> Option<IpNet> {
        let mut overlays = self.overlays.items.iter().map(|overlay| overlay.value);
        overlays.find(|overlay| overlay.contains(&net))
    }

    /// The overlays, as an error shows them.
    pub(super) fn overlays_shown(&self) -> String {
        let mut shown: Vec<String> = (self.overlays.items.iter())
            .take(SHOWN_OVERLAYS)
            .map(|overlay| overlay.value.to_string())
            .collect();
        if self.overlays.items.len() > SHOWN_OVERLAYS {
            shown.push("...".to_owned());
        }
        shown.join(", ")
    }

    /// Refuses an underlay address that the overlay routes into the tunnel.
    pub(super) fn check_underlay(&self, underlay: &Located<IpAddr>, report: &mut Report) {
        let address = underlay.value;
        if let Some(overlay) = self.overlay_around(address.into()) {
            let wrong = format!(
                "{address} is inside the overlay {overlay}, so the tunnel would carry itself"
            );
            report.refuse(&underlay.place, wrong, "an address outside every overlay");
        }
    }

    fn read(keys: &mut Reader<'_, '_>, underlay_of: UnderlayOf<'_>) -> Self {
        let local = keys.required("local", &form::UNDERLAY);
        let underlay = local.as_ref().ok();
        let underlay = underlay.and_then(|local| underlay_of(local.value));
        let addresses = keys.list_per_family("address", &form::OVERLAY_ADDRESS, IpAddr::is_ipv6);
        let overlays = keys.required_list("overlay", &form::OVERLAY);
        let v4_length = keys.optional("subnet_prefix_length", &form::PREFIX_LENGTH);
        let mac = Mac::read(keys, &addresses, |&address| address);
        let mut own = Self {
            local,
            underlay,
            addresses,
            overlays,
            subnets: Vec::new(),
            mac,
        };
        own.check(keys.report());
        own.subnets = own.read_subnets(v4_length, keys.report());
        own
    }

    fn check(&self, report: &mut Report) {
        if let Ok(local) = &self.local {
            self.check_underlay(local, report);
        }
        for address in &self.addresses.items {
            if self.is_outside(address.value.into()) {
                let wrong = format!("{} is in no overlay", address.value);
                let accepted = format!("an address inside {}", self.overlays_shown());
                report.refuse(&address.place, wrong, accepted);
            }
        }
        self.check_overlays(report);
    }

    fn check_overlays(&self, report: &mut Report) {
        let overlays = &self.overlays.items;
        let nets: Vec<IpNet> = overlays.iter().map(|overlay| overlay.value).collect();
        for (later, earlier) in overlaps(&nets) {
            let wrong = format!("{} overlaps {}", nets[later], nets[earlier]);
            let accepted = "overlays that do not overlap";
            report.refuse(&overlays[later].place, wrong, accepted);
        }
    }

    /// The subnet of each address. It must be inside one overlay if its address is.
    fn read_subnets(
        &self,
        v4_length: Result<Option<Located<u8>>, Reported>,
        report: &mut Report,
    ) -> Vec<Located<IpNet>> {
        let mut subnets = Vec::new();
        for address in &self.addresses.items {
            let (length, place) = match (&address.value, &v4_length) {
                (IpAddr::V6(_), _) => (V6_SUBNET_PREFIX_LENGTH, &address.place),
                (IpAddr::V4(_), Ok(Some(length))) => (length.value, &length.place),
                (IpAddr::V4(_), Ok(None)) => (V4_SUBNET_PREFIX_LENGTH, &address.place),
                (IpAddr::V4(_), Err(_)) => continue,
            };
            let subnet = IpNet::new(address.value, length)
                .expect("a v4 length is at most 32, and 64 is less than 128")
                .trunc();
            if let Some(overlay) = self.overlay_around(address.value.into())
                && self.is_outside(subnet)
            {
                let wrong = format!("our subnet {subnet} reaches out of the overlay {overlay}");
                let accepted = format!("a subnet inside {overlay}");
                report.refuse(place, wrong, accepted);
            }
            subnets.push(Located {
                value: subnet,
                place: address.place.clone(),
            });
        }
        subnets
    }
}
