//! The configuration file: TOML in, every error at once.
//!
//! [`Config::parse`] serves `reload` and `replay`, [`Config::parse_on`] a start of the daemon on its host. It never stops at an error:
//! `reader` takes the keys out of the tables, each value in one of the forms of `form` and with the line it is on; `vtep`, `peer`, `group`
//! and `policy` then check what values say about each other. A check whose values are missing or broken is skipped, so that no error is
//! only the echo of another.

mod error;
mod file;
mod form;
mod group;
mod mac;
mod mtu;
mod nearest;
mod offload;
mod overlap;
mod peer;
mod policy;
mod reader;
mod report;
mod unicast;
mod vtep;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use ipnet::IpNet;
use toml::de::DeTable;

use self::reader::Reader;
use self::report::{Report, Reported};
use self::vtep::Own;
use super::{Entry, PeerSpec};
use crate::io::flows::FlowLimits;
use crate::netlink::Underlay;
use crate::tables::policy::Regime;
use crate::tables::{GroupEntry, Local, MarkSource, OuterRules, PolicyRule};
use crate::wire::{MacAddr, Vni};

pub use error::{ConfigError, ConfigErrors};
pub use file::read;
pub use form::is_link_name;
pub use mtu::{carried_bytes, overhead_bytes};
pub(in crate::control) use unicast::not_unicast;

/// Tells the link that carries an underlay address, if one does and it is known.
pub type UnderlayOf<'a> = &'a dyn Fn(IpAddr) -> Option<Underlay>;

/// The most lanes: multi-queue TAPs have no more queues (`MAX_TAP_QUEUES` in the kernel).
const MAX_LANES: usize = 256;

/// A checked configuration: every default filled in, every relation between keys holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[vtep]`.
    pub vtep: VtepConfig,
    /// `[[peer]]`.
    pub peers: Vec<PeerSpec>,
    /// `[[group]]`.
    pub groups: Vec<GroupEntry>,
    /// `[policy]`.
    pub policy: PolicyConfig,
}

/// `[policy]`, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Enforce it.
    pub enforce: bool,
    /// How.
    pub regime: Regime,
    /// `[policy.flows]`.
    pub flows: FlowLimits,
    /// `[[policy.rule]]`.
    pub rules: Vec<PolicyRule>,
}

impl PolicyConfig {
    /// How policy is enforced, if it is.
    #[must_use]
    pub fn enforced(&self) -> Option<Regime> {
        self.enforce.then_some(self.regime)
    }
}

/// `[vtep]`, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtepConfig {
    /// Name of the TAP, 1 to 15 bytes.
    pub name: String,
    /// The network identifier.
    pub vni: Vni,
    /// UDP port we receive on and send to.
    pub port: u16,
    /// Our underlay address.
    pub local: IpAddr,
    /// Our overlay addresses, one per family at the most.
    pub addresses: Vec<IpAddr>,
    /// The overlay's prefixes, host bits zero.
    pub overlays: Vec<IpNet>,
    /// The subnets of our containers: each address under `subnet_prefix_length` (v4) or /64 (v6), host bits zero.
    pub subnets: Vec<IpNet>,
    /// The TAP's MAC.
    pub mac: MacAddr,
    /// The TAP's MTU in bytes; `None`: what the underlay carries less the tunnel's headers.
    pub mtu_bytes: Option<u32>,
    /// Carry the group id.
    pub gbp: bool,
    /// Lanes; 0 in the file is one per core.
    pub lanes: NonZeroUsize,
    /// Refuse sources that the tables do not place where they come from.
    pub strict_source: bool,
    /// Where group ids come from.
    pub marks: Marks,
    /// Fill in the outer UDP checksum.
    pub udp_checksum: bool,
    /// Over an IPv6 underlay, take datagrams without a UDP checksum; over IPv4 they are always taken.
    pub zero_checksum_rx: bool,
    /// `ttl`, `tos` and `df` of outer packets; the ECN bits of a fixed `tos` are clear.
    pub outer: OuterRules,
    /// Source ports [min, max): max is never used; `None`: the host's ip_local_port_range.
    pub source_ports: Option<(u16, u16)>,
    /// Route frames for our own MAC; off: FDB only.
    pub routing: bool,
    /// Add the connected route at metric 100 as well.
    pub silk_routes: bool,
    /// Which local addresses the receiving sockets take.
    pub bind: Bind,
    /// Leave the TAP and its routes behind at the end.
    pub persist: bool,
    /// Directory of the file with live entries; `None`: beside the control socket.
    pub state_dir: Option<PathBuf>,
    /// Silk's record of its containers, read at a start.
    pub datastore: Option<PathBuf>,
    /// Where Silk's health check is answered over HTTP; `None`: nowhere.
    pub health_check: Option<SocketAddr>,
    /// CPUs to pin the lanes' threads to, two a lane, thread i to `cpus[i % len]`; empty: no pinning.
    pub cpus: Vec<usize>,
    /// How long a lane without work looks for more before it sleeps, in microseconds; 0: not at all.
    pub busy_poll_us: u32,
    /// How long a lane under load lets packets gather, in microseconds; 0: not at all.
    pub moderation_us: u32,
    /// Let the kernel forward TCP super-frames by our decisions.
    pub express: bool,
    /// `[vtep.offload]`.
    pub offload: OffloadConfig,
}

/// `[vtep.offload]`: what the host may do for us, if it can. All of it is on unless switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffloadConfig {
    /// TCP super-frames, and frames with unfinished checksums, from the TAP.
    pub tso: bool,
    /// UDP super-frames from and to the TAP.
    pub uso: bool,
    /// Super-frames to the TAP.
    pub tap_coalescing: bool,
    /// Runs of datagrams that the host cuts (UDP_SEGMENT).
    pub udp_gso: bool,
    /// Datagrams that the host joins (UDP_GRO).
    pub udp_gro: bool,
}

/// `marks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// The packets' own where the file has no groups and the host can, else the group table.
    Auto,
    /// The packets' own: `skb->mark`.
    Bpf,
    /// The group table gives the group.
    Table,
    /// No group is sent.
    Off,
}

/// `bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Any local address, as the kernel does.
    Any,
    /// `local` alone.
    Local,
}

impl Config {
    /// Parses and checks a configuration, whatever host it is for.
    ///
    /// # Errors
    /// Every error of the file at once; one alone if the text is no TOML.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_on(text, &|_| None)
    }

    /// Parses and checks a configuration against itself and the host, whose underlay `underlay_of` tells.
    ///
    /// # Errors
    /// As [`Self::parse`], an `mtu` above what the underlay carries among them.
    pub fn parse_on(text: &str, underlay_of: UnderlayOf<'_>) -> Result<Self, ConfigErrors> {
        let mut report = Report::new(text);
        let config = match DeTable::parse(text) {
            Ok(document) => {
                let document = Reader::document(document.get_ref(), &mut report);
                read_document(document, underlay_of)
            }
            Err(error) => Err(report.refuse_syntax(text, &error)),
        };
        report.finish(config)
    }

    /// Peers, then groups, then rules, as the directory takes them.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let peers = self.peers.iter().cloned().map(Entry::Peer);
        let groups = self.groups.iter().copied().map(Entry::from);
        let rules = self.policy.rules.iter().copied().map(Entry::from);
        peers.chain(groups).chain(rules)
    }

    /// Where marks are to come from, on a host that can do it. Whoever gives groups in the file wants them used: with the packets' own
    /// marks they would not be.
    #[must_use]
    pub fn marks(&self) -> MarkSource {
        match self.vtep.marks {
            Marks::Auto if !self.vtep.gbp => MarkSource::Off,
            Marks::Auto if !self.groups.is_empty() => MarkSource::Table,
            Marks::Auto | Marks::Bpf => MarkSource::Packet,
            Marks::Table => MarkSource::Table,
            Marks::Off => MarkSource::Off,
        }
    }

    /// Who we are, for a snapshot.
    #[must_use]
    pub fn local(&self) -> Local {
        let vtep = &self.vtep;
        Local {
            vni: vtep.vni,
            mac: vtep.mac,
            addresses: vtep.addresses.clone(),
            subnets: vtep.subnets.clone(),
            underlay: Some(vtep.local),
            port: vtep.port,
            gbp: vtep.gbp,
            routing: vtep.routing,
            strict_source: vtep.strict_source,
            marks: self.marks(),
            outer: vtep.outer,
        }
    }
}

fn read_document(
    mut document: Reader<'_, '_>,
    underlay_of: UnderlayOf<'_>,
) -> Result<Config, Reported> {
    let (own, vtep) = document
        .table("vtep", |keys| vtep::read(keys, underlay_of))
        .unwrap_or_else(|reported| (Own::unknown(reported), Err(reported)));
    let peers = document.tables("peer", peer::read);
    let groups = document.tables("group", group::read);
    let policy = document.table("policy", policy::read);
    let peers = peer::check(&peers, &own, document.report());
    let groups = group::check(&groups, &own, document.report());
    let gbp = vtep.as_ref().ok().map(|vtep| vtep.gbp);
    let policy = policy.and_then(|raw| policy::check(raw, &own, gbp, document.report()));
    document.finish();
    Ok(Config {
        vtep: vtep?,
        peers: peers?,
        groups: groups?,
        policy: policy?,
    })
}
