//! The core the naive way: lists are scanned, packets copied, no thought of speed. Written from RFC 7348, `vxlan_rcv` and
//! `vxlan_xmit`, not from the core.

pub mod path;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use silk_vtep::DropReason;
use silk_vtep::tables::{Df, FdbEntry, Local, MarkSource, OuterField, TableSpec};
use silk_vtep::vtep::Outer;
use silk_vtep::wire::arp::Request;
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::ndisc::Solicitation;
use silk_vtep::wire::{MacAddr, Vni};

/// A VTEP whose tables are lists.
pub struct Naive {
    /// Who it is.
    pub local: Local,
    /// What it knows.
    pub spec: TableSpec,
    /// Peers whose path carries less than the device, and the largest packet that reaches them.
    pub limits: Vec<(IpAddr, u32)>,
}

/// What becomes of a frame from the host that is not dropped.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// It is sent, as far as it fits ([`path`]).
    Encap {
        /// The inner destination MAC to write.
        mac: Option<MacAddr>,
        /// The headers of the outer packets.
        outer: Outer,
        /// Where to, each under its header.
        copies: Vec<(SocketAddr, [u8; 8])>,
    },
    /// This goes back to the host.
    Reply(Vec<u8>),
}

/// What becomes of a datagram from the underlay that is not dropped.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The inner frame is delivered.
    Deliver {
        /// The mark it has.
        mark: Option<u32>,
        /// The ECN bits to write, if they change.
        ecn: Option<u8>,
    },
    /// This goes back to the peer, as if the host had sent it.
    Reply(Vec<u8>),
}

impl Naive {
    /// A frame from the host, which marked it.
    pub fn outgoing(&self, frame: &[u8], mark: u32) -> Result<Outgoing, DropReason> {
        let local = &self.local;
        if frame.len() < 14 {
            return Err(DropReason::ShortFrame);
        }
        let ip = Ip::parse(frame).map_err(|Truncated| DropReason::TruncatedIp)?;
        let inner = Ip::parse(&without_tags(frame)).map_err(|Truncated| DropReason::TruncatedIp)?;
        let (mut mac, destination) = (None, mac_at(frame, 0));
        let to = if destination == local.mac && local.routing {
            let Some(ip) = &ip else {
                let reply = self.answer_of_neighbor(frame)?;
                return reply.map(Outgoing::Reply).ok_or(DropReason::NotRoutable);
            };
            let routed = self.route(ip.destination)?;
            mac = Some(routed);
            non_empty(self.destinations(routed), DropReason::NoFdbEntry)?
        } else if destination.is_multicast() {
            if let Some(reply) = self.answer_of_neighbor(frame)? {
                return Ok(Outgoing::Reply(reply));
            }
            let own = self.destinations(destination);
            let to = if own.is_empty() {
                self.destinations(MacAddr::ZERO)
            } else {
                own
            };
            non_empty(to, DropReason::NoFloodEntry)?
        } else {
            let mut to = self.destinations(destination);
            if to.is_empty() && !local.routing {
                to = self.destinations(MacAddr::ZERO);
            }
            non_empty(to, DropReason::NoFdbEntry)?
        };
        if local.strict_source {
            self.check_host(frame)?;
        }
        let mark = self.sent_mark(ip.as_ref(), mark);
        let copies = to
            .iter()
            .map(|to| (self.socket(to), header(to.vni.unwrap_or(local.vni), mark)));
        Ok(Outgoing::Encap {
            mac,
            outer: self.outer(ip.as_ref(), inner.as_ref()),
            copies: copies.collect(),
        })
    }

    /// The outer header's fields of a frame that holds `inner`, behind VLAN tags unless it is `untagged` too.
    fn outer(&self, untagged: Option<&Ip>, inner: Option<&Ip>) -> Outer {
        let rules = &self.local.outer;
        let (inner_tos, inner_ttl) = inner.map_or((0, 0), |ip| (ip.tos, ip.ttl));
        let tos = match rules.tos {
            OuterField::Fixed(tos) => tos,
            OuterField::Inherit => inner_tos,
        };
        let ecn = match inner_tos & 3 {
            3 => 2,
            ecn => ecn,
        };
        let ttl = match (rules.ttl, inner_ttl) {
            (OuterField::Fixed(ttl), _) => ttl,
            (OuterField::Inherit, 0) => 64,
            (OuterField::Inherit, ttl) => ttl,
        };
        let df = match rules.df {
            Df::Unset => false,
            Df::Set => true,
            Df::Inherit => untagged.is_some_and(|ip| ip.must_be_whole),
        };
        Outer {
            tos: tos & 0xfc | ecn,
            ttl,
            df,
        }
    }

    /// A datagram from `source`.
    pub fn incoming(&self, bytes: &[u8], source: IpAddr, tos: u8) -> Result<Incoming, DropReason> {
        let local = &self.local;
        let is_peer = self.spec.fdb.iter().any(|entry| entry.underlay == source);
        if local.strict_source && !is_peer {
            return Err(DropReason::UnknownPeer);
        }
        let (header, frame) = bytes.split_at_checked(8).ok_or(DropReason::ShortDatagram)?;
        if header == b"\0\0\0\0silk" {
            return Err(DropReason::PathProbe);
        }
        if header[0] & 0x08 == 0 {
            return Err(DropReason::MissingVniFlag);
        }
        if u32::from_be_bytes([0, header[4], header[5], header[6]]) != local.vni.value() {
            return Err(DropReason::UnknownVni);
        }
        let reserved = if local.gbp {
            header[0] & 0x77 != 0 || header[7] != 0
        } else {
            header[..4] != [8, 0, 0, 0] || header[7] != 0
        };
        if reserved {
            return Err(DropReason::ReservedBits);
        }
        if frame.len() < 14 {
            return Err(DropReason::ShortInnerFrame);
        }
        if mac_at(frame, 6) == local.mac {
            return Err(DropReason::OwnSourceMac);
        }
        let ip = Ip::parse(frame).map_err(|Truncated| DropReason::TruncatedInnerIp)?;
        let ecn = match &ip {
            Some(ip) => decapsulated_ecn(ip.tos & 3, tos & 3)?,
            None => None,
        };
        if local.strict_source {
            self.check_peer(source, frame)?;
        }
        if let Some(reply) = self.answer_of_own(frame) {
            return Ok(Incoming::Reply(reply));
        }
        let mark = u32::from(u16::from_be_bytes([header[2], header[3]]))
            | u32::from(header[1] & 0x48) << 16;
        Ok(Incoming::Deliver {
            mark: (header[0] & 0x80 != 0).then_some(mark),
            ecn,
        })
    }

    /// The MAC of the next hop towards `destination`.
    fn route(&self, destination: IpAddr) -> Result<MacAddr, DropReason> {
        if self.in_own_subnet(destination) {
            return Err(DropReason::AbsentContainer);
        }
        let routes = self.spec.routes.iter();
        let covering = routes.filter(|route| route.prefix.contains(&destination));
        // Of equal ones the last.
        let longest = covering.max_by_key(|route| route.prefix.prefix_len());
        let next_hop = longest.ok_or(DropReason::NoRoute)?.via;
        self.neighbor(next_hop.unwrap_or(destination))
            .ok_or(DropReason::NoNeighbor)
    }

    fn neighbor(&self, address: IpAddr) -> Option<MacAddr> {
        let mut neighbors = self.spec.neighbors.iter().rev();
        neighbors
            .find(|neighbor| neighbor.address == address)
            .map(|neighbor| neighbor.mac)
    }

    /// The entries of exactly `mac`: the last, but all that differ of the zero MAC and of multicast ones.
    fn destinations(&self, mac: MacAddr) -> Vec<FdbEntry> {
        let mut found: Vec<FdbEntry> = Vec::new();
        for entry in self.spec.fdb.iter().filter(|entry| entry.mac == mac) {
            if !mac.is_zero() && !mac.is_multicast() {
                found.clear();
            }
            let same = |other: &FdbEntry| {
                let vni = |entry: &FdbEntry| entry.vni.unwrap_or(self.local.vni);
                self.socket(other) == self.socket(entry) && vni(other) == vni(entry)
            };
            if !found.iter().any(same) {
                found.push(entry.clone());
            }
        }
        found
    }

    fn socket(&self, entry: &FdbEntry) -> SocketAddr {
        (entry.underlay, entry.port.unwrap_or(self.local.port)).into()
    }

    /// What the header says; 0: nothing.
    fn sent_mark(&self, ip: Option<&Ip>, own: u32) -> u32 {
        let mark = match self.local.marks {
            MarkSource::Packet => Some(own),
            MarkSource::Table => ip.and_then(|ip| self.group(ip.source)).map(u32::from),
            MarkSource::Off => None,
        };
        mark.filter(|_| self.local.gbp).unwrap_or(0)
    }

    fn group(&self, source: IpAddr) -> Option<u16> {
        let mut groups = self.spec.groups.iter().rev();
        let group = groups.find(|group| group.address == source)?;
        Some(group.id.0)
    }

    fn in_own_subnet(&self, address: IpAddr) -> bool {
        let mut subnets = self.local.subnets.iter();
        subnets.any(|subnet| subnet.contains(&address))
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.in_own_subnet(address) || self.local.addresses.contains(&address)
    }

    /// Whether a packet to `source`, or where nothing is routed a frame to `mac`, would go to `peer`.
    fn is_behind(&self, peer: IpAddr, source: IpAddr, mac: MacAddr) -> bool {
        let mac = if self.local.routing {
            let routes = self.spec.routes.iter();
            let covering = routes.filter(|route| route.prefix.contains(&source));
            let longest = covering.max_by_key(|route| route.prefix.prefix_len());
            longest.and_then(|route| self.neighbor(route.via.unwrap_or(source)))
        } else {
            Some(mac).filter(|mac| !mac.is_zero() && !mac.is_multicast())
        };
        let to = mac.map(|mac| self.destinations(mac)).unwrap_or_default();
        to.iter().any(|entry| entry.underlay == peer)
    }

    /// Nothing that the frame says of its sender, behind tags too, is of another cell.
    fn check_host(&self, frame: &[u8]) -> Result<(), DropReason> {
        let said = Said::by(frame);
        for address in said.addresses() {
            if Some(address) == self.local.underlay {
                return Err(DropReason::SourceIsUnderlay);
            }
            if !self.is_own(address) {
                return Err(DropReason::SourceNotLocal);
            }
        }
        match said.is_hidden {
            true => Err(DropReason::SourceNotLocal),
            false => Ok(()),
        }
    }

    /// All that the frame says of its sender, behind tags too, is of this peer and not of us.
    fn check_peer(&self, peer: IpAddr, frame: &[u8]) -> Result<(), DropReason> {
        let said = Said::by(frame);
        let mac = mac_at(frame, 6);
        let check = |address: IpAddr| {
            let ours = if self.local.routing {
                self.is_own(address)
            } else {
                self.local.addresses.contains(&address)
            };
            match () {
                () if ours => Err(DropReason::OwnSourceAddress),
                () if !self.is_behind(peer, address, mac) => Err(DropReason::SourceNotPeers),
                () => Ok(()),
            }
        };
        let judged = said.header.map_or(Ok(()), check);
        if let (Err(_), Some(wanted)) = (judged, tentative(&without_tags(frame))) {
            // It is answered, by us or by the host.
            return match self.local.addresses.contains(&wanted) {
                true if self.local.routing || self.is_behind(peer, wanted, mac) => Ok(()),
                true => Err(DropReason::SourceNotPeers),
                false => check(wanted),
            };
        }
        judged?;
        if said.is_arp && !self.local.routing && !self.is_behind(peer, mac_address(), mac) {
            return Err(DropReason::SourceNotPeers);
        }
        if said.mac == Some(self.local.mac) {
            return Err(DropReason::OwnSourceMac);
        }
        if said.is_hidden {
            return Err(DropReason::SourceNotPeers);
        }
        said.body.map_or(Ok(()), check)
    }

    /// What a request of the host is told, by broadcast or to our own MAC.
    fn answer_of_neighbor(&self, frame: &[u8]) -> Result<Option<Vec<u8>>, DropReason> {
        let Some(question) = Question::parse(frame).filter(|_| self.local.routing) else {
            return Ok(None);
        };
        match self.neighbor(question.target()) {
            Some(mac) if !question.is_duplicate_detection() => Ok(Some(question.answer(mac))),
            _ if self.destinations(MacAddr::ZERO).is_empty() => Err(DropReason::NoNeighbor),
            _ => Ok(None),
        }
    }

    /// What a peer is told that asks for an address of ours.
    fn answer_of_own(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let question = Question::parse(frame).filter(|_| self.local.routing)?;
        let ours = self.local.addresses.contains(&question.target());
        ours.then(|| question.answer(self.local.mac))
    }
}

/// An ARP request or neighbour solicitation; the target `arp_nd` holds their codecs against etherparse.
enum Question {
    Arp(Request),
    Ndisc(Solicitation),
}

impl Question {
    fn parse(frame: &[u8]) -> Option<Self> {
        let frame = Frame::new_checked(frame)?;
        let arp = Request::parse(frame).map(Self::Arp);
        let question = arp.or_else(|| Solicitation::parse(frame).map(Self::Ndisc))?;
        let asker = match &question {
            Self::Arp(request) => request.sender_mac,
            Self::Ndisc(solicitation) => solicitation.sender_mac,
        };
        (!asker.is_multicast()).then_some(question)
    }

    fn target(&self) -> IpAddr {
        match self {
            Self::Arp(request) => request.target_ip.into(),
            Self::Ndisc(solicitation) => solicitation.target.into(),
        }
    }

    fn is_duplicate_detection(&self) -> bool {
        match self {
            Self::Arp(_) => false,
            Self::Ndisc(solicitation) => solicitation.sender_ip == Ipv6Addr::UNSPECIFIED,
        }
    }

    fn answer(&self, mac: MacAddr) -> Vec<u8> {
        match self {
            Self::Arp(request) => request.reply(mac).to_vec(),
            Self::Ndisc(solicitation) => solicitation.advertisement(mac, false).to_vec(),
        }
    }
}

/// An ethertype that promises a header which is not there.
struct Truncated;

/// What forwarding looks at.
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    ttl: u8,
    /// No router cuts it.
    must_be_whole: bool,
}

impl Ip {
    fn parse(frame: &[u8]) -> Result<Option<Self>, Truncated> {
        let packet = &frame[14..];
        match frame[12..14] {
            [0x08, 0x00] => {
                let header = packet.first_chunk::<20>().ok_or(Truncated)?;
                let address = |at: usize| {
                    IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
                };
                Ok(Some(Self {
                    source: address(12),
                    destination: address(16),
                    tos: header[1],
                    ttl: header[8],
                    must_be_whole: header[6] & 0x40 != 0,
                }))
            }
            [0x86, 0xdd] => {
                let header = packet.first_chunk::<40>().ok_or(Truncated)?;
                let address = |at: usize| {
                    let octets: [u8; 16] = std::array::from_fn(|index| header[at + index]);
                    IpAddr::from(octets)
                };
                Ok(Some(Self {
                    source: address(8),
                    destination: address(24),
                    tos: header[0] << 4 | header[1] >> 4,
                    ttl: header[7],
                    must_be_whole: true,
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Where addresses play no part.
fn mac_address() -> IpAddr {
    Ipv6Addr::UNSPECIFIED.into()
}

/// What duplicate address detection asks for, which has no address yet to speak from.
fn tentative(frame: &[u8]) -> Option<IpAddr> {
    let asked = Frame::new_checked(frame).and_then(Solicitation::parse)?;
    let nobody = asked.sender_ip == Ipv6Addr::UNSPECIFIED;
    nobody.then(|| asked.target.into())
}

/// What a frame says of its sender.
#[derive(Default)]
struct Said {
    /// In the IP header.
    header: Option<IpAddr>,
    /// In an ARP or ND body; the unspecified address is none.
    body: Option<IpAddr>,
    mac: Option<MacAddr>,
    is_arp: bool,
    /// Behind too many VLAN tags or IPv6 extension headers, or in a packet of a length that is left open.
    is_hidden: bool,
}

impl Said {
    fn by(frame: &[u8]) -> Self {
        let frame = without_tags(frame);
        let packet = &frame[14..];
        let Ok(ip) = Ip::parse(&frame) else {
            return Self::default();
        };
        let mut said = Self {
            header: ip.map(|ip| ip.source),
            ..Self::default()
        };
        match frame[12..14] {
            [0x08, 0x06] => {
                said.is_arp = true;
                said.read_arp(packet);
            }
            [0x81, 0x00] | [0x88, 0xa8] => said.is_hidden = packet.len() >= 4,
            // Hop-by-hop options behind a length of 0: as long as the frame is.
            [0x86, 0xdd] if packet[0] >> 4 == 6 && packet[4..7] == [0; 3] => said.is_hidden = true,
            // What the payload length leaves out is not there, and where it lies nobody reads on.
            [0x86, 0xdd] if packet[0] >> 4 == 6 => {
                let end = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                if let Some(packet) = packet.get(..end) {
                    let _ = said.read_nd(packet);
                }
            }
            _ => {}
        }
        said.body = said.body.filter(|address| !address.is_unspecified());
        said
    }

    fn read_arp(&mut self, packet: &[u8]) {
        let ethernet = packet.starts_with(&[0, 1]) || packet.starts_with(&[0, 6]);
        if packet.len() >= 28 && ethernet && packet[2..6] == [8, 0, 6, 4] {
            self.mac = Some(mac_at(packet, 8));
            self.body = Some(IpAddr::from([
                packet[14], packet[15], packet[16], packet[17],
            ]));
        }
    }

    /// `None` where the packet ends first.
    fn read_nd(&mut self, packet: &[u8]) -> Option<()> {
        let (mut next, mut at) = (packet[6], 40);
        let mut extensions = 0;
        while [0, 43, 60].contains(&next) {
            if extensions == 8 {
                self.is_hidden = true;
                return None;
            }
            let header = packet.get(at..at + 2)?;
            next = header[0];
            at += 8 * (usize::from(header[1]) + 1);
            extensions += 1;
        }
        let message = packet.get(at..)?;
        let (option, options) = match message.first()? {
            133 => (1, 8),
            134 => (1, 16),
            135 => (1, 24),
            136 => (2, 24),
            137 => (2, 40),
            _ => return None,
        };
        if next != 58 || message.len() < options {
            return None;
        }
        if [136, 137].contains(&message[0]) {
            let target: [u8; 16] = std::array::from_fn(|index| message[8 + index]);
            self.body = Some(target.into());
        }
        let mut at = options;
        while message.len() >= at + 2 {
            let len = 8 * usize::from(message[at + 1]);
            if len == 0 || message.len() < at + len {
                break;
            }
            if message[at] == option {
                self.mac = Some(mac_at(message, at + 2));
                break;
            }
            at += len;
        }
        Some(())
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.header.into_iter().chain(self.body)
    }
}

/// The frame without its VLAN tags, two at the most.
fn without_tags(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for _ in 0..2 {
        if frame.len() >= 18 && [[0x81, 0x00], [0x88, 0xa8]].contains(&[frame[12], frame[13]]) {
            frame.drain(12..16);
        }
    }
    frame
}

fn mac_at(frame: &[u8], at: usize) -> MacAddr {
    MacAddr::new(std::array::from_fn(|index| frame[at + index]))
}

fn non_empty(to: Vec<FdbEntry>, or: DropReason) -> Result<Vec<FdbEntry>, DropReason> {
    if to.is_empty() { Err(or) } else { Ok(to) }
}

/// G only with a mark, though its id may be 0; D and A stand where they do in the mark.
fn header(vni: Vni, mark: u32) -> [u8; 8] {
    let [_, a, b, c] = vni.value().to_be_bytes();
    let [_, policy, high, low] = mark.to_be_bytes();
    match mark {
        0 => [0x08, 0, 0, 0, a, b, c, 0],
        _ => [0x88, policy & 0x48, high, low, a, b, c, 0],
    }
}

/// The table of RFC 6040 as the kernel has it; `None`: nothing changes.
fn decapsulated_ecn(inner: u8, outer: u8) -> Result<Option<u8>, DropReason> {
    match (inner, outer) {
        (0, 3) => Err(DropReason::EcnCeNotEct),
        (1 | 2, 3) => Ok(Some(3)),
        (2, 1) => Ok(Some(1)),
        _ => Ok(None),
    }
}
