//! Links: what they are, and the few changes the VTEP and its containers need.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoTun, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask,
    LinkFlags as RawFlags, LinkInfo, LinkMessage, State,
};
use nix::errno::Errno;

use super::error::{NetlinkError, unless};
use super::namespace::Namespace;
use super::socket::{CREATE, Change, Netlink};
use crate::wire::MacAddr;

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFF_*.
    pub flags: LinkFlags,
    /// Largest packet, link header not counted.
    pub mtu_bytes: u32,
    /// Its address, if it is an Ethernet-like link.
    pub mac: Option<MacAddr>,
    /// What drives it.
    pub kind: LinkKind,
    /// RFC 2863 state as iproute2 prints it: `UP`, `DOWN`, `UNKNOWN`.
    pub operstate: String,
    /// Its queueing discipline, as `noqueue`.
    pub qdisc: String,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// The link it is tied to, by that one's number, which may be another namespace's: a veth's other end.
    pub tied_to: Option<u32>,
    /// Segments of the largest super-frame it is given (IFLA_GSO_MAX_SEGS).
    pub gso_max_segs: Option<u32>,
    /// Its bytes (IFLA_GSO_MAX_SIZE).
    pub gso_max_bytes: Option<u32>,
    /// What `ip link set alias` says of it.
    pub alias: Option<String>,
}

/// What drives a link (IFLA_INFO_KIND).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// Kind `tun`: a TAP or a TUN device.
    Tun(Tun),
    /// The kernel's own VXLAN device.
    Vxlan(Vxlan),
    /// One end of a veth pair.
    Veth,
    /// Another kind, by the kernel's name; `None` for real hardware and `lo`, which have none.
    Other(Option<String>),
}

/// What a TUN/TAP device was made with (IFLA_TUN_*, linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tun {
    /// Ethernet frames or IP packets.
    pub mode: TunMode,
    /// IFF_MULTI_QUEUE: several descriptors may attach.
    pub multi_queue: bool,
    /// IFF_VNET_HDR: frames carry a virtio_net_hdr.
    pub vnet_hdr: bool,
    /// TUNSETPERSIST: it outlives its last descriptor.
    pub persist: bool,
    /// Attached descriptors; the kernel tells for multi-queue devices only.
    pub queues: Option<u32>,
    /// Attached descriptors that are switched off (TUNSETQUEUE).
    pub disabled_queues: Option<u32>,
}

/// TUN/TAP mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TunMode {
    /// Ethernet frames.
    #[default]
    Tap,
    /// IP packets.
    Tun,
}

/// What a kernel VXLAN device was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vxlan {
    /// VNI.
    pub id: u32,
    /// UDP port it listens on.
    pub port: u16,
    /// The group policy extension is on.
    pub gbp: bool,
}

/// One end of a veth pair to be made.
#[derive(Debug, Clone)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address, set at creation: a later change is fought by udev and flushes permanent neighbours.
    pub mac: MacAddr,
    /// Its MTU.
    pub mtu_bytes: u32,
    /// Segments of the largest super-frame it may be given (IFLA_GSO_MAX_SEGS); `None`: as many as the kernel likes. Its bytes
    /// (IFLA_GSO_MAX_SIZE) follow.
    pub gso_max_segs: Option<u32>,
}

/// MTUs that a veth takes (`ETH_MIN_MTU`, `ETH_MAX_MTU`): the kernel refuses the rest with a bare EINVAL.
pub const VETH_MTU_BYTES: RangeInclusive<u32> = 68..=65_535;

/// `GSO_LEGACY_MAX_SIZE`: what IFLA_GSO_MAX_SIZE is unless set.
const GSO_MAX_BYTES: u32 = 65_536;
/// What TCP takes off IFLA_GSO_MAX_SIZE for headers before it counts segments (`MAX_TCP_HEADER`, `sk_setup_caps`), rounded up.
const GSO_HEADER_BYTES: u32 = 512;

/// The bytes that hold `segments` of the size of `mtu_bytes`, and hardly more.
pub(super) fn gso_max_bytes(segments: u32, mtu_bytes: u32) -> u32 {
    let bytes = segments.saturating_mul(mtu_bytes);
    bytes.saturating_add(GSO_HEADER_BYTES).min(GSO_MAX_BYTES)
}

/// IFF_* flags; displayed as `ip link` does, in its order.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkFlags(pub u32);

impl LinkFlags {
    /// IFF_UP: administratively up.
    #[must_use]
    pub fn is_up(self) -> bool {
        self.has(libc::IFF_UP)
    }

    /// IFF_NOARP: no neighbour is asked for.
    #[must_use]
    pub fn is_noarp(self) -> bool {
        self.has(libc::IFF_NOARP)
    }

    /// IFF_RUNNING: up, and the other end is there.
    #[must_use]
    pub fn is_running(self) -> bool {
        self.has(libc::IFF_RUNNING)
    }

    fn has(self, flag: libc::c_int) -> bool {
        self.0 & flag.cast_unsigned() != 0
    }
}

/// In the order of iproute2's `print_link_flags`.
const FLAG_NAMES: [(libc::c_int, &str); 18] = [
    (libc::IFF_LOOPBACK, "LOOPBACK"),
    (libc::IFF_BROADCAST, "BROADCAST"),
    (libc::IFF_POINTOPOINT, "POINTOPOINT"),
    (libc::IFF_MULTICAST, "MULTICAST"),
    (libc::IFF_NOARP, "NOARP"),
    (libc::IFF_ALLMULTI, "ALLMULTI"),
    (libc::IFF_PROMISC, "PROMISC"),
    (libc::IFF_MASTER, "MASTER"),
    (libc::IFF_SLAVE, "SLAVE"),
    (libc::IFF_DEBUG, "DEBUG"),
    (libc::IFF_DYNAMIC, "DYNAMIC"),
    (libc::IFF_AUTOMEDIA, "AUTOMEDIA"),
    (libc::IFF_PORTSEL, "PORTSEL"),
    (libc::IFF_NOTRAILERS, "NOTRAILERS"),
    (libc::IFF_UP, "UP"),
    (libc::IFF_LOWER_UP, "LOWER_UP"),
    (libc::IFF_DORMANT, "DORMANT"),
    (libc::IFF_ECHO, "ECHO"),
];

impl fmt::Display for LinkFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no_carrier = (self.is_up() && !self.is_running()).then_some("NO-CARRIER");
        let set = FLAG_NAMES
            .iter()
            .filter(|(flag, _)| self.has(*flag))
            .map(|(_, name)| *name);
        let names: Vec<_> = no_carrier.into_iter().chain(set).collect();
        f.write_str(&names.join(","))
    }
}

impl fmt::Debug for LinkFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

impl Netlink {
    /// Every link of the namespace.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes.push(without_statistics());
        let answer = self.dump(&RouteNetlinkMessage::GetLink(request))?;
        Ok(answer.into_iter().filter_map(link_of).collect())
    }

    /// The link called `name`, if there is one.
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses the name.
    pub fn link_named(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.query_link(request)
    }

    /// The link with number `index`, if there is one.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn link(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        self.query_link(message_for(index))
    }

    fn query_link(&mut self, mut request: LinkMessage) -> Result<Option<Link>, NetlinkError> {
        request.attributes.push(without_statistics());
        match self.query(RouteNetlinkMessage::GetLink(request)) {
            Ok(message) => Ok(link_of(message)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings a link up or down.
    ///
    /// # Errors
    /// ENODEV if it is gone, EPERM without CAP_NET_ADMIN.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        self.set_flag(index, RawFlags::Up, up)
    }

    /// Switches neighbour discovery off (`noarp`) or on. Flushes the link's permanent neighbours.
    ///
    /// # Errors
    /// As [`Self::set_up`].
    pub fn set_noarp(&mut self, index: u32, noarp: bool) -> Result<(), NetlinkError> {
        self.set_flag(index, RawFlags::Noarp, noarp)
    }

    fn set_flag(&mut self, index: u32, flag: RawFlags, on: bool) -> Result<(), NetlinkError> {
        self.change_one(flag_change(index, flag, on))
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// As [`Self::set_up`]; EINVAL outside what the driver takes.
    pub fn set_mtu(&mut self, index: u32, mtu_bytes: u32) -> Result<(), NetlinkError> {
        self.set_attribute(index, LinkAttribute::Mtu(mtu_bytes))
    }

    /// Sets a link's address. Flushes its permanent neighbours, even if it is the same address.
    ///
    /// # Errors
    /// As [`Self::set_up`]; EADDRNOTAVAIL for one the driver refuses.
    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        self.set_attribute(index, LinkAttribute::Address(mac.octets().to_vec()))
    }

    /// Sets a link's alias, a line of text that the kernel only keeps.
    ///
    /// # Errors
    /// As [`Self::set_up`]; EINVAL for 256 bytes (IFALIASZ) or more.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        self.change_one(setting_alias(index, alias))
    }

    fn set_attribute(&mut self, index: u32, value: LinkAttribute) -> Result<(), NetlinkError> {
        let mut request = message_for(index);
        request.attributes.push(value);
        self.change(RouteNetlinkMessage::SetLink(request), 0)
    }

    /// Deletes a link (and a veth's other end); false if it was gone.
    ///
    /// # Errors
    /// EPERM without CAP_NET_ADMIN, EOPNOTSUPP for hardware.
    pub fn delete_link(&mut self, index: u32) -> Result<bool, NetlinkError> {
        let request = RouteNetlinkMessage::DelLink(message_for(index));
        unless(Errno::ENODEV, self.change(request, 0))
    }

    /// Makes a veth pair: `end` here, `peer` at once in `namespace`, both down.
    ///
    /// # Errors
    /// EEXIST if either name is taken where it belongs.
    pub fn create_veth(
        &mut self,
        end: &VethEnd<'_>,
        peer: &VethEnd<'_>,
        namespace: &Namespace,
    ) -> Result<(), NetlinkError> {
        let mut peer = veth_message(peer);
        peer.attributes
            .push(LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()));
        let mut request = veth_message(end);
        request.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(request), CREATE)
    }
}

/// Brings a link up, as part of a batch.
pub(super) fn bringing_up(index: u32) -> Change {
    flag_change(index, RawFlags::Up, true)
}

/// Switches neighbour discovery off, as part of a batch.
pub(super) fn switching_arp_off(index: u32) -> Change {
    flag_change(index, RawFlags::Noarp, true)
}

/// Sets a link's alias, as part of a batch.
pub(super) fn setting_alias(index: u32, alias: &str) -> Change {
    let mut request = message_for(index);
    let alias = LinkAttribute::IfAlias(alias.to_owned());
    request.attributes.push(alias);
    Change::new(RouteNetlinkMessage::SetLink(request), 0)
}

fn flag_change(index: u32, flag: RawFlags, on: bool) -> Change {
    let mut request = message_for(index);
    request.header.change_mask = flag;
    request.header.flags = if on { flag } else { RawFlags::empty() };
    Change::new(RouteNetlinkMessage::SetLink(request), 0)
}

fn message_for(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// RTEXT_FILTER_SKIP_STATS: nobody here reads them, and they are most of a link's bytes.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

fn veth_message(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Mtu(end.mtu_bytes),
        LinkAttribute::Address(end.mac.octets().to_vec()),
    ];
    let gso_max_segs = end.gso_max_segs.map(LinkAttribute::GsoMaxSegs);
    message.attributes.extend(gso_max_segs);
    let bytes = end.gso_max_segs;
    let bytes = bytes.map(|segments| gso_max_bytes(segments, end.mtu_bytes));
    message
        .attributes
        .extend(bytes.map(LinkAttribute::GsoMaxSize));
    message
}

pub(super) fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        flags: LinkFlags(message.header.flags.bits()),
        mtu_bytes: 0,
        mac: None,
        kind: LinkKind::Other(None),
        operstate: State::Unknown.to_string(),
        qdisc: String::new(),
        master: None,
        tied_to: None,
        gso_max_segs: None,
        gso_max_bytes: None,
        alias: None,
    };
    for attribute in message.attributes {
        take_attribute(&mut link, attribute);
    }
    Some(link)
}

fn take_attribute(link: &mut Link, attribute: LinkAttribute) {
    match attribute {
        LinkAttribute::IfName(name) => link.name = name,
        LinkAttribute::Mtu(mtu_bytes) => link.mtu_bytes = mtu_bytes,
        LinkAttribute::Address(octets) => link.mac = mac_of(&octets),
        LinkAttribute::OperState(state) => link.operstate = state.to_string(),
        LinkAttribute::Qdisc(qdisc) => link.qdisc = qdisc,
        LinkAttribute::Controller(master) => link.master = Some(master),
        LinkAttribute::Link(index) => link.tied_to = Some(index),
        LinkAttribute::GsoMaxSegs(segments) => link.gso_max_segs = Some(segments),
        LinkAttribute::GsoMaxSize(bytes) => link.gso_max_bytes = Some(bytes),
        LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
        LinkAttribute::LinkInfo(info) => link.kind = kind_of(&info),
        _ => {}
    }
}

/// A MAC of six octets; IPoIB and tunnels have others.
pub(super) fn mac_of(octets: &[u8]) -> Option<MacAddr> {
    octets.try_into().ok().map(MacAddr::new)
}

fn kind_of(info: &[LinkInfo]) -> LinkKind {
    let kind = info.iter().find_map(|entry| match entry {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = info.iter().find_map(|entry| match entry {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (kind, data) {
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Tun), Some(InfoData::Tun(data))) => LinkKind::Tun(tun_of(data)),
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => LinkKind::Vxlan(vxlan_of(data)),
        (kind, _) => LinkKind::Other(kind.map(ToString::to_string)),
    }
}

// linux/if_link.h, IFLA_TUN_*.
const TUN_TYPE: u16 = 3;
const TUN_VNET_HDR: u16 = 5;
const TUN_PERSIST: u16 = 6;
const TUN_MULTI_QUEUE: u16 = 7;
const TUN_NUM_QUEUES: u16 = 8;
const TUN_NUM_DISABLED_QUEUES: u16 = 9;

fn tun_of(data: &[InfoTun]) -> Tun {
    let mut tun = Tun::default();
    for attribute in data {
        let InfoTun::Other(attribute) = attribute else {
            continue;
        };
        let value = number_of(attribute);
        match attribute.kind() {
            TUN_TYPE if value == libc::IFF_TUN.cast_unsigned() => tun.mode = TunMode::Tun,
            TUN_VNET_HDR => tun.vnet_hdr = value != 0,
            TUN_PERSIST => tun.persist = value != 0,
            TUN_MULTI_QUEUE => tun.multi_queue = value != 0,
            TUN_NUM_QUEUES => tun.queues = Some(value),
            TUN_NUM_DISABLED_QUEUES => tun.disabled_queues = Some(value),
            _ => {}
        }
    }
    tun
}

/// An attribute of one byte or four; zero for any other, which the kernel does not send.
fn number_of(attribute: &DefaultNla) -> u32 {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    match value[..] {
        [byte] => u32::from(byte),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn vxlan_of(data: &[InfoVxlan]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for attribute in data {
        match attribute {
            InfoVxlan::Id(id) => vxlan.id = *id,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Gbp => vxlan.gbp = true,
            _ => {}
        }
    }
    vxlan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_as_ip_link_shows_them() {
        // BROADCAST,MULTICAST,NOARP,UP,LOWER_UP with and without IFF_RUNNING (0x40).
        assert_eq!(
            LinkFlags(0x1_10c3).to_string(),
            "BROADCAST,MULTICAST,NOARP,UP,LOWER_UP"
        );
        assert_eq!(
            LinkFlags(0x1083).to_string(),
            "NO-CARRIER,BROADCAST,MULTICAST,NOARP,UP"
        );
    }

    #[test]
    fn tun_attributes_are_read_in_both_widths() {
        let attribute = |kind, value: &[u8]| InfoTun::Other(DefaultNla::new(kind, value.to_vec()));
        let tun = tun_of(&[
            attribute(TUN_TYPE, &[2]),
            attribute(TUN_MULTI_QUEUE, &[1]),
            attribute(TUN_VNET_HDR, &[1]),
            attribute(TUN_PERSIST, &[0]),
            attribute(TUN_NUM_QUEUES, &3_u32.to_ne_bytes()),
        ]);
        let expected = Tun {
            mode: TunMode::Tap,
            multi_queue: true,
            vnet_hdr: true,
            persist: false,
            queues: Some(3),
            disabled_queues: None,
        };
        assert_eq!(tun, expected);
        assert_eq!(tun_of(&[attribute(TUN_TYPE, &[1])]).mode, TunMode::Tun);
    }
}
