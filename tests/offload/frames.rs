//! Packets to be made into frames by etherparse, and cut the naive way.

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header,
    TcpHeader, UdpHeader,
};
use silk_vtep::wire::vnet::{GsoType, VnetHeader};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// A TCP segment or UDP datagram of `host` in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) vlans: Vec<u16>,
    pub(crate) source_mac: [u8; 6],
    pub(crate) host: u8,
    pub(crate) port: u16,
    /// TOS or traffic class.
    pub(crate) tos: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    pub(crate) flow_label: u32,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    /// A multiple of four bytes.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A multiple of four bytes.
    pub(crate) tcp_options: Vec<u8>,
    /// Whether a UDP datagram has a checksum.
    pub(crate) udp_checksum: bool,
    pub(crate) payload: Vec<u8>,
}

impl Packet {
    pub(crate) fn new(v6: bool, tcp: bool, payload: Vec<u8>) -> Self {
        Self {
            v6,
            tcp,
            vlans: Vec::new(),
            source_mac: [0xee, 0xee, 10, 255, 108, 0],
            host: 1,
            port: 40_000,
            tos: 0,
            ttl: 64,
            flow_label: 0x12345,
            id: 0xfffe,
            dont_fragment: true,
            ip_options: Vec::new(),
            sequence: 0xffff_fc00,
            acknowledgment: 77,
            flags: ACK,
            window: 502,
            tcp_options: Vec::new(),
            udp_checksum: true,
            payload,
        }
    }

    /// The frame, all its checksums complete.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let transport_len = self.transport_header_len() + self.payload.len();
        let (network, transport) = if self.v6 {
            let ip = self.ipv6(transport_len);
            let transport = if self.tcp {
                let mut tcp = self.tcp();
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, &self.payload).unwrap();
                tcp.to_bytes().to_vec()
            } else {
                let mut udp = self.udp();
                udp.checksum = udp.calc_checksum_ipv6(&ip, &self.payload).unwrap();
                udp.to_bytes().to_vec()
            };
            (ip.to_bytes().to_vec(), transport)
        } else {
            let ip = self.ipv4(transport_len);
            let transport = if self.tcp {
                let mut tcp = self.tcp();
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, &self.payload).unwrap();
                tcp.to_bytes().to_vec()
            } else {
                let mut udp = self.udp();
                if self.udp_checksum {
                    udp.checksum = udp.calc_checksum_ipv4(&ip, &self.payload).unwrap();
                }
                udp.to_bytes().to_vec()
            };
            (ip.to_bytes().to_vec(), transport)
        };
        [self.ethernet(), network, transport, self.payload.clone()].concat()
    }

    /// The frame as the TAP gives it: with a partial checksum, to be cut at `gso_size`.
    pub(crate) fn super_frame(&self, gso_size: u16) -> (VnetHeader, Vec<u8>) {
        let mut frame = self.frame();
        let header = VnetHeader {
            needs_csum: true,
            gso_type: self.gso_type(),
            ecn: self.tcp && self.flags & CWR != 0,
            hdr_len: u16::try_from(frame.len() - self.payload.len()).unwrap(),
            gso_size,
            csum_start: u16::try_from(self.transport_offset()).unwrap(),
            csum_offset: if self.tcp { 16 } else { 6 },
        };
        let partial = self.pseudo_sum();
        let at = usize::from(header.csum_start + header.csum_offset);
        frame[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        (header, frame)
    }

    /// What a card makes of it, by the book: the payload in chunks, each with headers of its own.
    pub(crate) fn cut(&self, gso_size: usize) -> Vec<Self> {
        let chunks: Vec<_> = self.payload.chunks(gso_size).collect();
        let mut packets = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut packet = self.clone();
            packet.payload = chunk.to_vec();
            packet.id = self.id.wrapping_add(u16::try_from(index).unwrap());
            let offset = u32::try_from(index * gso_size).unwrap();
            packet.sequence = self.sequence.wrapping_add(offset);
            if index + 1 < chunks.len() {
                packet.flags &= !(FIN | PSH);
            }
            if index > 0 {
                packet.flags &= !CWR;
            }
            packets.push(packet);
        }
        packets
    }

    pub(crate) fn gso_type(&self) -> GsoType {
        match (self.tcp, self.v6) {
            (true, false) => GsoType::TcpV4,
            (true, true) => GsoType::TcpV6,
            (false, _) => GsoType::UdpL4,
        }
    }

    pub(crate) fn transport_offset(&self) -> usize {
        let network = if self.v6 {
            40
        } else {
            20 + self.ip_options.len()
        };
        14 + 4 * self.vlans.len() + network
    }

    pub(crate) fn header_len(&self) -> usize {
        self.transport_offset() + self.transport_header_len()
    }

    fn transport_header_len(&self) -> usize {
        if self.tcp {
            20 + self.tcp_options.len()
        } else {
            8
        }
    }

    fn ethernet(&self) -> Vec<u8> {
        let ether_type = EtherType(if self.v6 { 0x86dd } else { 0x0800 });
        let header = Ethernet2Header {
            source: self.source_mac,
            destination: [0xee, 0xee, 10, 255, 43, 0],
            ether_type,
        };
        let mut bytes = header.to_bytes().to_vec();
        for vlan in &self.vlans {
            let [a, b] = vlan.to_be_bytes();
            bytes.splice(12..12, [0x81, 0x00, a & 0x0f, b]);
        }
        bytes
    }

    fn ipv4(&self, transport_len: usize) -> Ipv4Header {
        let [source, destination] = [[10, 255, 108, self.host], [10, 255, 43, 6]];
        let len = u16::try_from(transport_len).unwrap();
        let mut ip = Ipv4Header::new(len, self.ttl, self.protocol(), source, destination).unwrap();
        ip.dscp = (self.tos >> 2).try_into().unwrap();
        ip.ecn = (self.tos & 3).try_into().unwrap();
        ip.identification = self.id;
        ip.dont_fragment = self.dont_fragment;
        ip.options = Ipv4Options::try_from(&self.ip_options[..]).unwrap();
        ip.set_payload_len(transport_len).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        ip
    }

    fn ipv6(&self, transport_len: usize) -> Ipv6Header {
        let mut source = [0xfd; 16];
        source[15] = self.host;
        Ipv6Header {
            traffic_class: self.tos,
            flow_label: Ipv6FlowLabel::try_from(self.flow_label).unwrap(),
            payload_length: u16::try_from(transport_len).unwrap(),
            next_header: self.protocol(),
            hop_limit: self.ttl,
            source,
            destination: [0xfe; 16],
        }
    }

    fn protocol(&self) -> IpNumber {
        if self.tcp {
            IpNumber::TCP
        } else {
            IpNumber::UDP
        }
    }

    fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.port, 80, self.sequence, self.window);
        tcp.acknowledgment_number = self.acknowledgment;
        tcp.fin = self.flags & FIN != 0;
        tcp.syn = self.flags & SYN != 0;
        tcp.rst = self.flags & RST != 0;
        tcp.psh = self.flags & PSH != 0;
        tcp.ack = self.flags & ACK != 0;
        tcp.urg = self.flags & URG != 0;
        tcp.ece = self.flags & ECE != 0;
        tcp.cwr = self.flags & CWR != 0;
        tcp.set_options_raw(&self.tcp_options).unwrap();
        tcp
    }

    fn udp(&self) -> UdpHeader {
        UdpHeader {
            source_port: self.port,
            destination_port: 53,
            length: u16::try_from(8 + self.payload.len()).unwrap(),
            checksum: 0,
        }
    }

    /// The folded sum of the pseudo-header, word by word.
    fn pseudo_sum(&self) -> u16 {
        let len = self.transport_header_len() + self.payload.len();
        let addresses = if self.v6 {
            let ip = self.ipv6(len);
            [ip.source, ip.destination].concat()
        } else {
            let ip = self.ipv4(len);
            [ip.source, ip.destination].concat()
        };
        fold(words(&addresses) + u64::from(self.protocol().0) + len as u64)
    }
}

/// Whether a TCP or UDP frame's checksums are right, in etherparse's opinion. In one's complement arithmetic 0 and 0xffff are one, and
/// the kernel writes either for TCP (`skb_checksum_help`, `tcp_v4_send_check`).
pub(crate) fn checksums_are_right(frame: &[u8]) -> bool {
    use etherparse::NetHeaders::{Ipv4, Ipv6};
    use etherparse::TransportHeader::{Tcp, Udp};
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = headers.payload.slice();
    let network = headers.net.unwrap();
    if let Ipv4(ip, _) = &network
        && ip.header_checksum != ip.calc_header_checksum()
    {
        return false;
    }
    let (field, expected) = match (network, headers.transport.unwrap()) {
        (Ipv4(_, _), Udp(udp)) if udp.checksum == 0 => return true,
        (Ipv4(ip, _), Tcp(tcp)) => (tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload)),
        (Ipv4(ip, _), Udp(udp)) => (udp.checksum, udp.calc_checksum_ipv4(&ip, payload)),
        (Ipv6(ip, _), Tcp(tcp)) => (tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload)),
        (Ipv6(ip, _), Udp(udp)) => (udp.checksum, udp.calc_checksum_ipv6(&ip, payload)),
        other => panic!("{other:?} is neither TCP nor UDP"),
    };
    field % 0xffff == expected.unwrap() % 0xffff
}

/// Whether a TCP or UDP frame's checksum is the pseudo-header's sum and wrong as it stands, its IPv4 header's being right.
pub(crate) fn checksum_is_partial(frame: &[u8]) -> bool {
    let (at, sum) = pseudo_sum_of(frame);
    let mut finished = frame.to_vec();
    finish_checksum(&mut finished);
    frame[at..at + 2] == sum.to_be_bytes()
        && checksums_are_right(&finished)
        && !checksums_are_right(frame)
}

/// Leaves a TCP or UDP frame's checksum to a card. It has no VLAN tag.
pub(crate) fn make_partial(frame: &mut [u8]) {
    let (at, sum) = pseudo_sum_of(frame);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Completes it by etherparse, as a card that cuts does: in TCP 0 stands as it is.
pub(crate) fn finish_checksum(frame: &mut [u8]) {
    use etherparse::NetHeaders::{Ipv4, Ipv6};
    use etherparse::TransportHeader::{Tcp, Udp};
    let (at, _) = pseudo_sum_of(frame);
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = headers.payload.slice();
    let sum = match (headers.net.unwrap(), headers.transport.unwrap()) {
        (Ipv4(ip, _), Tcp(tcp)) => tcp.calc_checksum_ipv4(&ip, payload),
        (Ipv4(ip, _), Udp(udp)) => udp.calc_checksum_ipv4(&ip, payload),
        (Ipv6(ip, _), Tcp(tcp)) => tcp.calc_checksum_ipv6(&ip, payload),
        (Ipv6(ip, _), Udp(udp)) => udp.calc_checksum_ipv6(&ip, payload),
        other => panic!("{other:?} is neither TCP nor UDP"),
    };
    frame[at..at + 2].copy_from_slice(&sum.unwrap().to_be_bytes());
}

/// Where a TCP or UDP frame's checksum field stands, and the folded sum of its pseudo-header.
fn pseudo_sum_of(frame: &[u8]) -> (usize, u16) {
    use etherparse::NetHeaders::{Ipv4, Ipv6};
    use etherparse::TransportHeader::{Tcp, Udp};
    let headers = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = headers.payload.slice();
    let addresses = match headers.net.unwrap() {
        Ipv4(ip, _) => [ip.source, ip.destination].concat(),
        Ipv6(ip, _) => [ip.source, ip.destination].concat(),
        other => panic!("{other:?} is not IP"),
    };
    let transport = headers.transport.unwrap();
    let (protocol, field) = match &transport {
        Tcp(_) => (6, 16),
        Udp(_) => (17, 6),
        other => panic!("{other:?} is neither TCP nor UDP"),
    };
    let header_len = transport.header_len();
    // The payload is a part of the frame.
    let start = payload.as_ptr() as usize - frame.as_ptr() as usize - header_len;
    let sum = protocol + (header_len + payload.len()) as u64 + words(&addresses);
    (start + field, fold(sum))
}

fn words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|word| u64::from(u16::from_be_bytes([word[0], word[1]])))
        .sum()
}

/// In one's complement arithmetic 0 and 0xffff are one; the sum of something is never 0.
fn fold(sum: u64) -> u16 {
    u16::try_from((sum - 1) % 0xffff + 1).unwrap()
}

/// `len` bytes of a linear congruential generator (Knuth's MMIX).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}
