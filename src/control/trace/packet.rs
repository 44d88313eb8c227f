//! The imagined packet: what may be asked, and its bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::tables::policy::Proto;
use crate::wire::checksum;
use crate::wire::ethernet::{self, EtherType};
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::wire::{MacAddr, Mark};

/// TTL or hop limit of a packet that a host has just sent.
const TTL: u8 = 64;
/// Where none is given: one of the ephemeral ports.
const SOURCE_PORT: u16 = 49_152;

/// One packet to imagine, and where it is met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TraceRequest {
    /// Inner source address.
    pub src: IpAddr,
    /// Inner destination address.
    pub dst: IpAddr,
    /// What it carries; an ICMP echo request unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Of TCP or UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Of TCP or UDP; wanted by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// What the host's rules marked it with; from the underlay, what the VXLAN header is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
    /// Bytes of the IP packet; without, as few as it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u16>,
    /// IPv4 with DF.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub df: bool,
    /// Met where it arrives from the underlay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress: bool,
    /// From the underlay: who sends it; without, the peer that has `src` behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Destination MAC of the host's frame, or source MAC of the peer's; without, what follows from the tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
}

impl TraceRequest {
    /// A packet of the host's between these two, as `ping` sends it.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        Self {
            src,
            dst,
            proto: None,
            sport: None,
            dport: None,
            mark: None,
            len: None,
            df: false,
            ingress: false,
            from: None,
            mac: None,
        }
    }

    /// Whether there can be such a packet.
    ///
    /// # Errors
    /// What contradicts what, and the mend.
    pub fn check(&self) -> Result<(), String> {
        let (src, dst) = (self.src, self.dst);
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(format!(
                "{src} and {dst} are of two families: no packet has both"
            ));
        }
        let ports = self.sport.or(self.dport);
        match self.proto {
            None if ports.is_some() => {
                return Err("a port wants a protocol: give `--proto tcp` or `--proto udp`".into());
            }
            Some(proto) if !proto.has_ports() && ports.is_some() => {
                return Err(format!("{} has no ports", proto.name()));
            }
            Some(proto) if proto.has_ports() && self.dport.is_none() => {
                return Err(format!(
                    "{} wants a destination port: give `--dport`",
                    proto.name()
                ));
            }
            None | Some(_) => {}
        }
        if self.df && src.is_ipv6() {
            return Err("IPv6 has no DF: no packet of it is fragmented on its way".into());
        }
        if self.from.is_some() && !self.ingress {
            return Err("`--from` is who sends it to us: it wants `--ingress`".into());
        }
        let least = self.header_len();
        match self.len {
            Some(len) if usize::from(len) < least => {
                Err(format!("its headers alone are {least} bytes, not {len}"))
            }
            _ => Ok(()),
        }
    }

    /// As marked by the host, or by the sender's.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark.map(Mark)
    }

    pub(super) fn proto(&self) -> Proto {
        self.proto.unwrap_or(Proto::Icmp)
    }

    /// Bytes of the IP packet.
    pub(super) fn len(&self) -> usize {
        self.len.map_or(self.header_len(), usize::from)
    }

    fn header_len(&self) -> usize {
        let network = if self.src.is_ipv4() {
            IPV4_HEADER_LEN
        } else {
            IPV6_HEADER_LEN
        };
        network + header_len(self.proto())
    }

    /// The Ethernet frame, zeros behind its headers. The transport checksum is left out: nobody who judges looks at it.
    pub(super) fn frame(&self, destination: MacAddr, source: MacAddr) -> Vec<u8> {
        let mut frame = Vec::with_capacity(ethernet::HEADER_LEN + self.len());
        frame.extend(destination.octets());
        frame.extend(source.octets());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(EtherType::IPV4.0.to_be_bytes());
                frame.extend(self.ipv4(src, dst));
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(EtherType::IPV6.0.to_be_bytes());
                frame.extend(self.ipv6(src, dst));
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("`check` comes first")
            }
        }
        self.put_transport(&mut frame);
        frame.resize(ethernet::HEADER_LEN + self.len(), 0);
        frame
    }

    fn ipv4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> [u8; IPV4_HEADER_LEN] {
        let mut header = [0; IPV4_HEADER_LEN];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&self.len_field(0));
        header[6] = if self.df { 0x40 } else { 0 };
        header[8] = TTL;
        header[9] = number(self.proto(), true);
        header[12..16].copy_from_slice(&src.octets());
        header[16..20].copy_from_slice(&dst.octets());
        let sum = !checksum::fold(checksum::sum(0, &header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> [u8; IPV6_HEADER_LEN] {
        let mut header = [0; IPV6_HEADER_LEN];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&self.len_field(IPV6_HEADER_LEN));
        header[6] = number(self.proto(), false);
        header[7] = TTL;
        header[8..24].copy_from_slice(&src.octets());
        header[24..40].copy_from_slice(&dst.octets());
        header
    }

    /// Bytes of the packet behind the first `skipped`.
    fn len_field(&self, skipped: usize) -> [u8; 2] {
        // `len` is a u16, and headers alone are shorter.
        ((self.len() - skipped) as u16).to_be_bytes()
    }

    fn put_transport(&self, frame: &mut Vec<u8>) {
        let ports = [self.sport(), self.dport.unwrap_or(0)].map(u16::to_be_bytes);
        match self.proto() {
            Proto::Tcp => {
                frame.extend(ports.concat());
                // Sequence numbers 0, five words of header, SYN.
                frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
            }
            Proto::Udp => {
                frame.extend(ports.concat());
                let ip = self.header_len() - header_len(Proto::Udp);
                frame.extend(self.len_field(ip));
                frame.extend([0, 0]);
            }
            Proto::Icmp => {
                let echo_request = if self.src.is_ipv4() { 8 } else { 128 };
                frame.extend([echo_request, 0, 0, 0, 0, 1, 0, 1]);
            }
        }
    }

    fn sport(&self) -> u16 {
        self.sport.unwrap_or(SOURCE_PORT)
    }
}

/// Of TCP a SYN, of UDP a datagram, of ICMP an echo request.
const fn header_len(proto: Proto) -> usize {
    match proto {
        Proto::Tcp => 20,
        Proto::Udp | Proto::Icmp => 8,
    }
}

const fn number(proto: Proto, is_ipv4: bool) -> u8 {
    match proto {
        Proto::Tcp => protocol::TCP,
        Proto::Udp => protocol::UDP,
        Proto::Icmp if is_ipv4 => protocol::ICMP,
        Proto::Icmp => protocol::ICMPV6,
    }
}

/// `10.255.108.184 -> 10.255.43.6 tcp sport 49152 dport 8080, 40 bytes`.
impl fmt::Display for TraceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}", self.src, self.dst, self.proto().name())?;
        if let Some(dport) = self.dport {
            write!(f, " sport {} dport {dport}", self.sport())?;
        }
        if self.df {
            write!(f, " with DF")?;
        }
        write!(f, ", {} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    fn request(src: &str, dst: &str) -> TraceRequest {
        TraceRequest::new(src.parse().unwrap(), dst.parse().unwrap())
    }

    fn refusal(request: &TraceRequest) -> String {
        request.check().expect_err("it contradicts itself")
    }

    #[test]
    fn the_bytes_are_the_packet_that_was_asked_for() {
        for (src, dst) in [("10.255.108.184", "10.255.43.6"), ("fd00::1", "fd00::2")] {
            for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
                for len in [None, Some(1400)] {
                    let ports = proto.has_ports().then_some(8080);
                    let asked = TraceRequest {
                        proto: Some(proto),
                        dport: ports,
                        len,
                        df: src.contains('.'),
                        ..request(src, dst)
                    };
                    assert_eq!(asked.check(), Ok(()));
                    let frame = asked.frame(MacAddr::BROADCAST, MacAddr::ZERO);
                    assert_eq!(frame.len(), 14 + asked.len());
                    let packet =
                        SlicedPacket::from_ethernet(&frame).expect("every length is right");
                    let found = match packet.transport.expect("a header") {
                        TransportSlice::Tcp(tcp) => (Proto::Tcp, Some(tcp.destination_port())),
                        TransportSlice::Udp(udp) => (Proto::Udp, Some(udp.destination_port())),
                        TransportSlice::Igmp(_) => panic!("nobody asked for IGMP"),
                        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => {
                            (Proto::Icmp, None)
                        }
                    };
                    assert_eq!(found, (proto, ports), "{src} {len:?}");
                }
            }
        }
    }

    #[test]
    fn what_no_packet_can_be_is_refused_with_the_mend() {
        let v4 = || request("10.0.0.1", "10.0.0.2");
        let v6 = || request("fd00::1", "fd00::2");
        let udp = |request| TraceRequest {
            proto: Some(Proto::Udp),
            ..request
        };
        let cases = [
            (request("10.0.0.1", "fd00::2"), "two families"),
            (
                TraceRequest {
                    dport: Some(1),
                    ..v4()
                },
                "give `--proto tcp` or `--proto udp`",
            ),
            (
                TraceRequest {
                    proto: Some(Proto::Icmp),
                    dport: Some(1),
                    ..v4()
                },
                "icmp has no ports",
            ),
            (udp(v4()), "udp wants a destination port: give `--dport`"),
            (TraceRequest { df: true, ..v6() }, "IPv6 has no DF"),
            (
                TraceRequest {
                    from: Some([10, 0, 0, 3].into()),
                    ..v4()
                },
                "it wants `--ingress`",
            ),
            (
                TraceRequest {
                    len: Some(47),
                    ..v6()
                },
                "its headers alone are 48 bytes, not 47",
            ),
        ];
        for (request, expected) in cases {
            let said = refusal(&request);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_request_is_short_on_the_wire() {
        let json = serde_json::to_string(&request("10.0.0.1", "10.0.0.2")).unwrap();
        assert_eq!(json, r#"{"src":"10.0.0.1","dst":"10.0.0.2"}"#);
    }
}
