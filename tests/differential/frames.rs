//! Inner frames: what a host sends through the device, or finds inside a datagram.

use etherparse::{
    Ethernet2Header, IpFragOffset, Ipv4Header, PacketBuilder, PacketBuilderStep, ip_number,
};

use super::sums;

/// The device's own MAC, `ee:ee` and its address 10.255.108.0.
pub(crate) const OWN_MAC: [u8; 6] = [0xee, 0xee, 10, 255, 108, 0];
/// A MAC with an FDB entry.
pub(crate) const PEER_MAC: [u8; 6] = [0xee, 0xee, 10, 255, 43, 0];
/// Another, at another peer.
pub(crate) const OTHER_PEER_MAC: [u8; 6] = [0xee, 0xee, 10, 255, 77, 0];
/// A MAC without.
pub(crate) const UNKNOWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// A multicast MAC with an FDB entry of its own.
pub(crate) const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 5];
/// A multicast MAC without.
pub(crate) const OTHER_GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 6];
/// Everybody.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// Link-local: bridges keep it (IEEE 802.1D).
pub(crate) const BRIDGE_MAC: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0];

/// The device's address.
pub(crate) const OWN_ADDRESS: [u8; 4] = [10, 255, 108, 0];
/// Our container and the peer's.
pub(crate) const HERE: [u8; 4] = [10, 255, 108, 184];
pub(crate) const THERE: [u8; 4] = [10, 255, 43, 6];
pub(crate) const HERE_V6: [u8; 16] = [0xfd, 0, 0, 0x0a, 0, 0, 0, 108, 0, 0, 0, 0, 0, 0, 0, 184];
pub(crate) const THERE_V6: [u8; 16] = [0xfd, 0, 0, 0x0a, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 0, 6];

/// IEEE 802's local experimental ethertype.
pub(crate) const EXPERIMENTAL: u16 = 0x88b5;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const PAYLOAD: &[u8] = b"the same on the wire";

/// A frame in the making. Each edit leaves it as a sender that knows its checksums would send it, unless it says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Inner(pub(crate) Vec<u8>);

impl Inner {
    /// UDP over IPv4, from our container to the peer's.
    pub(crate) fn udp4() -> Self {
        Self::udp4_between(HERE, THERE, [40_000, 53], PAYLOAD)
    }

    /// The same with other ends and payload.
    pub(crate) fn udp4_between(
        source: [u8; 4],
        destination: [u8; 4],
        [from, to]: [u16; 2],
        payload: &[u8],
    ) -> Self {
        let builder = ethernet().ipv4(source, destination, 64).udp(from, to);
        Self::written(payload.len(), |frame| builder.write(frame, payload))
    }

    /// UDP over IPv6.
    pub(crate) fn udp6() -> Self {
        Self::udp6_between(HERE_V6, THERE_V6, [40_000, 53])
    }

    /// The same with other ends.
    pub(crate) fn udp6_between(
        source: [u8; 16],
        destination: [u8; 16],
        [from, to]: [u16; 2],
    ) -> Self {
        let builder = ethernet().ipv6(source, destination, 64).udp(from, to);
        Self::written(PAYLOAD.len(), |frame| builder.write(frame, PAYLOAD))
    }

    /// UDP over IPv4 with `len` bytes of payload.
    pub(crate) fn udp4_of(len: usize) -> Self {
        Self::udp4_between(HERE, THERE, [40_000, 53], &payload(len))
    }

    /// UDP over IPv6 with `len` bytes of payload.
    pub(crate) fn udp6_of(len: usize) -> Self {
        let builder = ethernet().ipv6(HERE_V6, THERE_V6, 64).udp(40_000, 53);
        Self::written(len, |frame| builder.write(frame, &payload(len)))
    }

    /// TCP over IPv4 with `len` bytes of payload.
    pub(crate) fn tcp4(len: usize) -> Self {
        let builder = ethernet()
            .ipv4(HERE, THERE, 64)
            .tcp(40_001, 80, 1000, 500)
            .ack(7)
            .psh();
        Self::written(len, |frame| builder.write(frame, &payload(len)))
    }

    /// TCP over IPv6 with `len` bytes of payload.
    pub(crate) fn tcp6(len: usize) -> Self {
        let builder = ethernet()
            .ipv6(HERE_V6, THERE_V6, 64)
            .tcp(40_001, 80, 1000, 500)
            .ack(7)
            .psh();
        Self::written(len, |frame| builder.write(frame, &payload(len)))
    }

    /// An echo request.
    pub(crate) fn ping4(id: u16) -> Self {
        let builder = ethernet().ipv4(HERE, THERE, 64).icmpv4_echo_request(id, 1);
        Self::written(PAYLOAD.len(), |frame| builder.write(frame, PAYLOAD))
    }

    /// An IPv4 fragment at `offset`, in units of 8 bytes.
    pub(crate) fn fragment4(offset: u16, more: bool) -> Self {
        let mut header =
            Ipv4Header::new(24, 64, ip_number::UDP, HERE, THERE).expect("24 bytes fit");
        header.identification = 7;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("small");
        header.more_fragments = more;
        header.header_checksum = header.calc_header_checksum();
        let payload = [
            0x9c, 0x40, 0, 53, 0, 48, 0x12, 0x34, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2,
        ];
        let mut frame = header_of(IPV4);
        frame.extend(header.to_bytes());
        frame.extend(payload);
        Self(frame)
    }

    /// An ARP request, to everybody, of our device at 10.255.108.0.
    pub(crate) fn arp(target: [u8; 4]) -> Self {
        let mut frame = header_of(ARP);
        frame[..6].fill(0xff);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(OWN_MAC);
        frame.extend([10, 255, 108, 0]);
        frame.extend([0; 6]);
        frame.extend(target);
        Self(frame)
    }

    /// An ARP request, to everybody, of the peer's device at 10.255.43.0.
    pub(crate) fn peers_arp(target: [u8; 4]) -> Self {
        let mut request = Self::arp(target).from(PEER_MAC);
        request.0[22..28].copy_from_slice(&PEER_MAC);
        request.0[28..32].copy_from_slice(&[10, 255, 43, 0]);
        request
    }

    /// A neighbour solicitation for `target` from our container, to its solicited-node address (RFC 4861 section 4.3).
    pub(crate) fn solicitation(target: [u8; 16], with_address: bool) -> Self {
        let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
        group[13..].copy_from_slice(&target[13..]);
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target);
        if with_address {
            message.extend([1, 1]);
            message.extend(OWN_MAC);
        }
        let mut frame = header_of(IPV6);
        frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, group[13], group[14], group[15]]);
        frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
        frame.extend(HERE_V6);
        frame.extend(group);
        let sum = sums::transport(&frame[22..54], 58, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame.extend(message);
        Self(frame)
    }

    /// A frame of `ethertype` with `payload` behind its header.
    pub(crate) fn raw(ethertype: u16, payload: &[u8]) -> Self {
        let mut frame = header_of(ethertype);
        frame.extend(payload);
        Self(frame)
    }

    /// To this MAC.
    pub(crate) fn to(mut self, mac: [u8; 6]) -> Self {
        self.0[..6].copy_from_slice(&mac);
        self
    }

    /// From this MAC.
    pub(crate) fn from(mut self, mac: [u8; 6]) -> Self {
        self.0[6..12].copy_from_slice(&mac);
        self
    }

    /// As the peer sends it to us.
    pub(crate) fn inbound(self) -> Self {
        self.to(OWN_MAC).from(PEER_MAC)
    }

    /// With this TOS or traffic class.
    pub(crate) fn tos(mut self, tos: u8) -> Self {
        if self.is_v4() {
            self.0[15] = tos;
            return self.header_checksum();
        }
        self.0[14] = 0x60 | tos >> 4;
        self.0[15] = self.0[15] & 0x0f | tos << 4;
        self
    }

    /// With this TTL or hop limit.
    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        if self.is_v4() {
            self.0[22] = ttl;
            return self.header_checksum();
        }
        self.0[21] = ttl;
        self
    }

    /// With DF, or without.
    pub(crate) fn df(mut self, df: bool) -> Self {
        self.0[20] = if df { 0x40 } else { 0 };
        self.header_checksum()
    }

    /// With this IPv4 ID.
    pub(crate) fn id(mut self, id: u16) -> Self {
        self.0[18..20].copy_from_slice(&id.to_be_bytes());
        self.header_checksum()
    }

    /// With these TCP flags; the checksum is left as it was.
    pub(crate) fn tcp_flags(mut self, flags: u8) -> Self {
        let at = self.transport() + 13;
        self.0[at] = flags;
        self
    }

    /// With this flow label.
    pub(crate) fn flow_label(mut self, label: u32) -> Self {
        let [_, a, b, c] = label.to_be_bytes();
        self.0[15] = self.0[15] & 0xf0 | a & 0x0f;
        self.0[16..18].copy_from_slice(&[b, c]);
        self
    }

    /// In a VLAN; the tag control information is priority and id.
    pub(crate) fn vlan(self, tci: u16) -> Self {
        self.tag(0x8100, tci)
    }

    /// With a provider's tag.
    pub(crate) fn provider_vlan(self, tci: u16) -> Self {
        self.tag(0x88a8, tci)
    }

    /// Cut to `len` bytes, or filled up with zeros.
    pub(crate) fn len(mut self, len: usize) -> Self {
        self.0.resize(len, 0);
        self
    }

    /// With the IPv4 header's checksum wrong.
    pub(crate) fn bad_header_checksum(mut self) -> Self {
        self.0[24] ^= 0x55;
        self
    }

    /// With this IPv4 header checksum, right or wrong.
    pub(crate) fn with_header_checksum(mut self, sum: u16) -> Self {
        self.0[24..26].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// With the transport checksum of UDP (6) or TCP (16) as a kernel without a card leaves it: the pseudo-header's sum alone.
    pub(crate) fn partial(mut self) -> Self {
        let transport = self.transport();
        let (protocol, offset) = if self.is_tcp() { (6, 16) } else { (17, 6) };
        let addresses = if self.network_is_v4() { 8 } else { 32 };
        let field = transport + offset;
        let len = self.0.len() - transport;
        let sum = sums::pseudo_header(&self.0[transport - addresses..transport], protocol, len);
        self.0[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        self
    }

    /// Where the transport header stands, IP being without options.
    pub(crate) fn transport(&self) -> usize {
        self.network() + if self.network_is_v4() { 20 } else { 40 }
    }

    /// Whether the transport is TCP.
    pub(crate) fn is_tcp(&self) -> bool {
        let field = if self.network_is_v4() { 9 } else { 6 };
        self.0[self.network() + field] == 6
    }

    fn network_is_v4(&self) -> bool {
        self.0[self.network()] >> 4 == 4
    }

    /// Behind the VLAN tags.
    fn network(&self) -> usize {
        let is_tag = |at: usize| [[0x81, 0], [0x88, 0xa8]].contains(&[self.0[at], self.0[at + 1]]);
        let tags = (0..2).take_while(|tag| is_tag(12 + tag * TAG_BYTES));
        ETHERNET_BYTES + tags.count() * TAG_BYTES
    }

    fn tag(mut self, tpid: u16, tci: u16) -> Self {
        let [a, b] = tpid.to_be_bytes();
        let [c, d] = tci.to_be_bytes();
        self.0.splice(12..12, [a, b, c, d]);
        self
    }

    fn is_v4(&self) -> bool {
        self.0[12..14] == IPV4.to_be_bytes()
    }

    fn header_checksum(mut self) -> Self {
        self.0[24..26].fill(0);
        let sum = sums::complement(&self.0[ETHERNET_BYTES..ETHERNET_BYTES + 20]);
        self.0[24..26].copy_from_slice(&sum.to_be_bytes());
        self
    }

    fn written<E: std::fmt::Debug>(
        len: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Self {
        let mut frame = Vec::with_capacity(len + 128);
        write(&mut frame).expect("a vector takes all, and the payload fits");
        Self(frame)
    }
}

/// `len` bytes that say where they stand.
pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn ethernet() -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(OWN_MAC, PEER_MAC)
}

/// Ethernet header from us to the peer.
fn header_of(ethertype: u16) -> Vec<u8> {
    let mut frame = PEER_MAC.to_vec();
    frame.extend(OWN_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame
}
