//! What group policy looks at in an inner packet: the service it asks for, and the flow it is part of.
//!
//! A [`Subject`] is read from a frame once. The rules decide by its destination and [`service`](Subject::service). What they refuse may
//! still be part of a flow that began here: [`incoming`](Subject::incoming) is the flow a packet from a peer claims to belong to, as
//! [`outgoing`](Subject::outgoing) gave it when our packet went out. Both name it alike, so whoever keeps flows needs one look-up.
//!
//! No verdict is kept by flow: to find a flow, in a table that all lanes share, takes longer than to find the rule among 10,000
//! (`cargo bench --bench policy`, `flow` and `rule`). A run of joined frames shares one verdict all the same.
//!
//! | packet | judged as |
//! |---|---|
//! | TCP, UDP | its destination port; its flow by addresses and ports. A SYN without ACK is no reply |
//! | ICMP query | its request; its answer by addresses and identifier, if the request went out |
//! | ICMP error | the flow of the packet that it quotes, which we must have sent to there |
//! | first fragment | as if it were whole; the transport header must be in it |
//! | later fragment | by its first one: let in if that was, within the time that reassembly takes; else by the default, for without its first it is nothing |
//! | other protocol | no rule knows it; its flow by addresses and protocol |
//! | a header that lies or is cut off, more than two VLAN tags or eight extension headers | refused: a denial would not see what a host may find behind |
//! | ARP; neighbour solicitation and advertisement (RFC 4861) | not judged: they ask where somebody is and carry nothing |

use std::net::IpAddr;

use crate::tables::policy::{Decision, Policy, Proto, Service};
use crate::wire::Mark;
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::ip::{Ipv4, Ipv6, Network, Piece, Upper, protocol};

/// What names a flow, the same from both sides: the ends, ours first, the protocol, and the ports or what stands for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Our end's address; IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2).
    pub local: u128,
    /// The other end's.
    pub remote: u128,
    /// Our port, then theirs; of a query its identifier, of a fragment that of its packet; else 0.
    pub ports: u32,
    /// The protocol; [`protocol::FRAGMENT`] for the fragments of a packet.
    pub protocol: u8,
}

/// What a packet is in the course of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It begins one: a SYN, a request, any packet of a protocol without beginnings.
    Begin,
    /// It goes on with one that is under way.
    Go,
    /// It answers a beginning: SYN and ACK, the answer to a query. It never begins a flow itself.
    Answer,
    /// It closes its side: FIN.
    Finish,
    /// It ends the flow: RST.
    Abort,
    /// It tells of a packet of the flow: an ICMP error.
    Tell,
}

/// A packet as policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The sender.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Its protocol, if that is known.
    pub protocol: Option<u8>,
    content: Content,
    /// The packet of which it is a fragment.
    fragment: Option<u32>,
}

/// What there is behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// TCP or UDP.
    Ports {
        source: u16,
        destination: u16,
        step: Step,
    },
    /// ICMP that asks, or answers who asked.
    Query { id: u16, step: Step },
    /// ICMP that tells of the flow of a packet that we sent.
    Error { about: Option<FlowKey> },
    /// Other ICMP.
    Icmp,
    /// Neighbour discovery.
    Neighbor,
    /// The fragments before it have the header.
    Later,
    /// A protocol without what we know.
    Bare,
    /// Not to be read.
    Unknown,
}

/// What a frame is to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not IP, or neighbour discovery: not judged.
    Exempt,
    /// IP that cannot be read at all.
    Opaque,
    /// A packet.
    Packet(Subject),
}

impl Reading {
    /// Reads a frame, behind VLAN tags too: the host takes those with VLAN 0 as if they had none.
    #[must_use]
    #[inline]
    pub fn of(frame: Frame<'_>) -> Self {
        match frame.untagged() {
            (EtherType::IPV4, packet) => match Ipv4::new_checked(packet) {
                Some(ip) => Self::Packet(Subject::of_v4(ip)),
                None => Self::Opaque,
            },
            (EtherType::IPV6, packet) => match Ipv6::new_checked(packet).map(Subject::of_v6) {
                Some(subject) if subject.content == Content::Neighbor => Self::Exempt,
                Some(subject) => Self::Packet(subject),
                None => Self::Opaque,
            },
            (EtherType::VLAN | EtherType::PROVIDER_VLAN, _) => Self::Opaque,
            _ => Self::Exempt,
        }
    }
}

impl Subject {
    #[inline]
    fn of_v4(ip: Ipv4<'_>) -> Self {
        let ends = (ip.source().into(), ip.destination().into());
        let upper = Network::V4(ip).upper();
        Self::new(ends, upper, |upper| icmp_v4(upper.bytes, ip))
    }

    #[inline]
    fn of_v6(ip: Ipv6<'_>) -> Self {
        let ends = (ip.source().into(), ip.destination().into());
        let upper = Network::V6(ip).upper();
        Self::new(ends, upper, |upper| icmp_v6(upper.bytes, ip))
    }

    #[inline]
    fn new(
        (source, destination): (IpAddr, IpAddr),
        upper: Option<Upper<'_>>,
        icmp: impl FnOnce(&Upper<'_>) -> Content,
    ) -> Self {
        let fragment = upper.and_then(|upper| match upper.piece {
            Piece::Whole => None,
            Piece::First(id) | Piece::Later(id) => Some(id),
        });
        let content = upper.as_ref().map_or(Content::Unknown, |upper| {
            let is_icmp = upper.protocol == icmp_of(destination);
            match (upper.piece, upper.protocol) {
                (Piece::Later(_), _) => Content::Later,
                (_, protocol::TCP) => tcp(upper.bytes),
                (_, protocol::UDP) => udp(upper.bytes),
                _ if is_icmp => icmp(upper),
                _ => Content::Bare,
            }
        });
        Self {
            source,
            destination,
            protocol: upper.map(|upper| upper.protocol),
            content,
            fragment,
        }
    }

    /// The ports, source first, of a packet that has them.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.content {
            Content::Ports {
                source,
                destination,
                ..
            } => Some((source, destination)),
            Content::Query { .. }
            | Content::Error { .. }
            | Content::Icmp
            | Content::Neighbor
            | Content::Later
            | Content::Bare
            | Content::Unknown => None,
        }
    }

    /// What rules are asked for; `None`: none of them knows it.
    #[must_use]
    #[inline]
    pub fn service(&self) -> Option<Service> {
        match self.content {
            Content::Ports { destination, .. } => Some(Service {
                proto: match self.protocol {
                    Some(protocol::TCP) => Proto::Tcp,
                    _ => Proto::Udp,
                },
                port: destination,
            }),
            Content::Query { .. } | Content::Error { .. } | Content::Icmp | Content::Neighbor => {
                Some(Service {
                    proto: Proto::Icmp,
                    port: 0,
                })
            }
            Content::Later | Content::Bare | Content::Unknown => None,
        }
    }

    /// The flow of a packet that we send, and what it is to it; `None` if it is part of none.
    #[must_use]
    #[inline]
    pub fn outgoing(&self) -> Option<(FlowKey, Step)> {
        let key = |ports| self.key(self.source, self.destination, ports);
        match self.content {
            Content::Ports {
                source,
                destination,
                step,
            } => Some((key(ports(source, destination))?, step)),
            Content::Query { id, step } => Some((key(id.into())?, step)),
            Content::Bare => Some((key(0)?, Step::Begin)),
            Content::Error { .. }
            | Content::Icmp
            | Content::Neighbor
            | Content::Later
            | Content::Unknown => None,
        }
    }

    /// The flow that a packet from a peer claims to be part of, and what it is to it; `None`: it cannot be part of one that began here.
    #[must_use]
    #[inline]
    pub fn incoming(&self) -> Option<(FlowKey, Step)> {
        let key = |ports| self.key(self.destination, self.source, ports);
        match self.content {
            Content::Ports {
                step: Step::Begin, ..
            } if self.protocol == Some(protocol::TCP) => None,
            Content::Ports {
                source,
                destination,
                step,
            } => Some((key(ports(destination, source))?, step)),
            // To a request nothing of ours went before.
            Content::Query {
                step: Step::Begin, ..
            } => None,
            Content::Query { id, step } => Some((key(id.into())?, step)),
            Content::Bare => Some((key(0)?, Step::Go)),
            Content::Error { about } => Some((about?, Step::Tell)),
            Content::Later => Some((self.fragments()?, Step::Go)),
            Content::Icmp | Content::Neighbor | Content::Unknown => None,
        }
    }

    /// What the fragments of an incoming packet have in common, if it is one: noted with the first, it lets the later ones in.
    #[must_use]
    #[inline]
    pub fn fragments(&self) -> Option<FlowKey> {
        let id = self.fragment?;
        let ports = match self.destination {
            // The identification is one protocol's (RFC 791 section 3.2).
            IpAddr::V4(_) => id << 8 | u32::from(self.protocol?),
            IpAddr::V6(_) => id,
        };
        Some(FlowKey {
            protocol: protocol::FRAGMENT,
            ..self.key(self.destination, self.source, ports)?
        })
    }

    /// True for the first fragment of a packet.
    #[inline]
    fn is_first_fragment(&self) -> bool {
        self.fragment.is_some() && self.content != Content::Later
    }

    /// Whether the sender may be told by ICMP that it was refused (RFC 1122 section 3.2.2): not of an error, nor of a later fragment,
    /// nor of what cannot be read.
    #[must_use]
    pub fn may_be_told(&self) -> bool {
        match self.content {
            Content::Ports { .. } | Content::Query { .. } | Content::Bare => true,
            Content::Error { .. }
            | Content::Icmp
            | Content::Neighbor
            | Content::Later
            | Content::Unknown => false,
        }
    }

    /// Whether it goes on with a TCP connection: it does not begin one.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        match self.content {
            Content::Ports { step, .. } => {
                self.protocol == Some(protocol::TCP) && step != Step::Begin
            }
            Content::Query { .. }
            | Content::Error { .. }
            | Content::Icmp
            | Content::Neighbor
            | Content::Later
            | Content::Bare
            | Content::Unknown => false,
        }
    }

    #[inline]
    fn key(&self, local: IpAddr, remote: IpAddr, ports: u32) -> Option<FlowKey> {
        Some(FlowKey {
            local: bits(local),
            remote: bits(remote),
            ports,
            protocol: self.protocol?,
        })
    }
}

/// What the rules say of a packet from a peer; `None`: it is not judged.
#[must_use]
#[inline]
pub fn decide<'p>(
    policy: &'p Policy,
    reading: &Reading,
    mark: Option<Mark>,
) -> Option<Decision<'p>> {
    match reading {
        Reading::Exempt => None,
        Reading::Opaque => Some(Decision::Unreadable),
        // The tiny fragment of RFC 1858 section 3 is one: the rest of its header is in the next.
        Reading::Packet(subject) if subject.content == Content::Unknown => {
            Some(Decision::Unreadable)
        }
        Reading::Packet(subject) => Some(match subject.destination {
            IpAddr::V4(destination) => policy.decide(mark, destination, subject.service()),
            IpAddr::V6(destination) => policy.decide(mark, destination, subject.service()),
        }),
    }
}

/// What the later fragments of a packet share with the one in `frame`, if that is the first ([`Subject::fragments`]).
#[must_use]
#[inline]
pub fn first_fragment(frame: Frame<'_>) -> Option<FlowKey> {
    // Most packets are none, and need not be read for that.
    let may_be = match frame.untagged() {
        (EtherType::IPV4, packet) => Ipv4::new_checked(packet)?.is_fragment(),
        (EtherType::IPV6, packet) => matches!(
            Ipv6::new_checked(packet)?.next_header(),
            protocol::FRAGMENT
                | protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION_OPTIONS
        ),
        _ => false,
    };
    if !may_be {
        return None;
    }
    match Reading::of(frame) {
        Reading::Packet(subject) if subject.is_first_fragment() => subject.fragments(),
        Reading::Packet(_) | Reading::Exempt | Reading::Opaque => None,
    }
}

fn ports(local: u16, remote: u16) -> u32 {
    u32::from(local) << 16 | u32::from(remote)
}

/// An address as a [`FlowKey`] has it.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// ICMP of the address's family.
fn icmp_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => protocol::ICMP,
        IpAddr::V6(_) => protocol::ICMPV6,
    }
}

const TCP_HEADER_LEN: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Of the fields that are looked at none is in another fragment (RFC 1858).
#[inline]
fn tcp(bytes: &[u8]) -> Content {
    let Some(header) = bytes.first_chunk::<TCP_HEADER_LEN>() else {
        return Content::Unknown;
    };
    let step = match header[13] & (FIN | SYN | RST | ACK) {
        flags if flags & RST != 0 => Step::Abort,
        flags if flags & SYN != 0 && flags & ACK != 0 => Step::Answer,
        flags if flags & SYN != 0 => Step::Begin,
        flags if flags & FIN != 0 => Step::Finish,
        flags if flags & ACK != 0 => Step::Go,
        // Of no stack's making (RFC 9293 section 3.4).
        _ => return Content::Unknown,
    };
    with_ports(header, step)
}

#[inline]
fn udp(bytes: &[u8]) -> Content {
    match bytes.first_chunk::<8>() {
        Some(header) => with_ports(header, Step::Begin),
        None => Content::Unknown,
    }
}

#[inline]
fn with_ports(header: &[u8], step: Step) -> Content {
    Content::Ports {
        source: u16::from_be_bytes([header[0], header[1]]),
        destination: u16::from_be_bytes([header[2], header[3]]),
        step,
    }
}

/// Types of ICMP that ask and those that answer them: echo, timestamp, information, address mask (RFC 792, RFC 950).
const REQUESTS_V4: [u8; 4] = [8, 13, 15, 17];
const ANSWERS_V4: [u8; 4] = [0, 14, 16, 18];
/// Unreachable, source quench, time exceeded, parameter problem. Redirects are not among them: they are for routers to send.
const ERRORS_V4: [u8; 4] = [3, 4, 11, 12];

const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Unreachable, too big, time exceeded, parameter problem (RFC 4443).
const ERRORS_V6: [u8; 4] = [1, 2, 3, 4];
/// Solicitation and advertisement.
const NEIGHBOR_V6: [u8; 2] = [135, 136];
/// What no router has forwarded (RFC 4861 section 7.1).
const HOP_LIMIT_UNFORWARDED: u8 = 255;

const ICMP_HEADER_LEN: usize = 8;

fn icmp_v4(bytes: &[u8], ip: Ipv4<'_>) -> Content {
    let Some((header, quoted)) = bytes.split_first_chunk::<ICMP_HEADER_LEN>() else {
        return Content::Unknown;
    };
    match header[0] {
        kind if REQUESTS_V4.contains(&kind) => query(header, Step::Begin),
        kind if ANSWERS_V4.contains(&kind) => query(header, Step::Answer),
        kind if ERRORS_V4.contains(&kind) => {
            let quoted = Ipv4::new_checked(quoted);
            let about = quoted.filter(|quoted| quoted.source() == ip.destination());
            Content::Error {
                about: about.and_then(|ip| {
                    let ends = (ip.source().into(), ip.destination().into());
                    quoted_flow(ends, Network::V4(ip).quoted_upper()?)
                }),
            }
        }
        _ => Content::Icmp,
    }
}

fn icmp_v6(bytes: &[u8], ip: Ipv6<'_>) -> Content {
    let Some((header, quoted)) = bytes.split_first_chunk::<ICMP_HEADER_LEN>() else {
        return Content::Unknown;
    };
    match header[0] {
        ECHO_REQUEST_V6 => query(header, Step::Begin),
        ECHO_REPLY_V6 => query(header, Step::Answer),
        kind if NEIGHBOR_V6.contains(&kind) && ip.hop_limit() == HOP_LIMIT_UNFORWARDED => {
            Content::Neighbor
        }
        kind if ERRORS_V6.contains(&kind) => {
            let quoted = Ipv6::new_checked(quoted);
            let about = quoted.filter(|quoted| quoted.source() == ip.destination());
            Content::Error {
                about: about.and_then(|ip| {
                    let ends = (ip.source().into(), ip.destination().into());
                    quoted_flow(ends, Network::V6(ip).quoted_upper()?)
                }),
            }
        }
        _ => Content::Icmp,
    }
}

fn query(header: &[u8; ICMP_HEADER_LEN], step: Step) -> Content {
    let [.., high, low, _, _] = *header;
    Content::Query {
        id: u16::from_be_bytes([high, low]),
        step,
    }
}

/// The flow of a packet that we sent and somebody quotes: its first eight bytes are enough (RFC 792).
fn quoted_flow((local, remote): (IpAddr, IpAddr), upper: Upper<'_>) -> Option<FlowKey> {
    if matches!(upper.piece, Piece::Later(_)) {
        return None;
    }
    let ports = match upper.protocol {
        protocol::TCP | protocol::UDP => u32::from_be_bytes(*upper.bytes.first_chunk()?),
        icmp if icmp == icmp_of(local) => {
            let [kind, _, _, _, high, low] = *upper.bytes.first_chunk()?;
            let is_request = match local {
                IpAddr::V4(_) => REQUESTS_V4.contains(&kind),
                IpAddr::V6(_) => kind == ECHO_REQUEST_V6,
            };
            is_request.then(|| u16::from_be_bytes([high, low]).into())?
        }
        _ => 0,
    };
    Some(FlowKey {
        local: bits(local),
        remote: bits(remote),
        ports,
        protocol: upper.protocol,
    })
}

#[cfg(test)]
mod tests;
