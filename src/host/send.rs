//! The packet that the host makes of a datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::udp::HEADER_LEN as UDP_HEADER_LEN;
use crate::wire::MacAddr;
use crate::wire::checksum;
use crate::wire::ethernet::EtherType;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};

/// Everything around a datagram's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Our underlay address and the port it is sent from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// DF; IPv6 has none.
    pub dont_fragment: bool,
    /// The identification; IPv6 has none.
    pub id: u16,
    /// Fill in the UDP checksum.
    pub checksum: bool,
}

/// Why the host would not send a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// It does not fit in an IP packet (EMSGSIZE).
    #[error("the datagram is larger than an IP packet")]
    TooBig,
    /// Source and destination are of two families (EAFNOSUPPORT).
    #[error("source and destination are of two address families")]
    Families,
}

impl Outgoing {
    /// Appends the Ethernet frame of the datagram whose payload is `payload` in one; after an error `out` is as it was.
    ///
    /// Nobody asked who has the addresses: the frame's MACs are made up from them, 02:00 and their last four bytes. IPv6 has flow label
    /// 0, as the kernel's device sends it. A packet larger than the underlay's MTU stays whole.
    ///
    /// # Errors
    /// Why the host would not send it.
    pub fn emit(&self, payload: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let payload_len: usize = payload.iter().map(|part| part.len()).sum();
        let udp_len = UDP_HEADER_LEN + payload_len;
        let ends = (self.source.ip(), self.destination.ip());
        match ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total_len = u16::try_from(IPV4_HEADER_LEN + udp_len);
                let total_len = total_len.map_err(|_| Unsendable::TooBig)?;
                put_ethernet(out, ends, EtherType::IPV4);
                out.extend(self.ipv4(source, destination, total_len));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let payload_len = u16::try_from(udp_len).map_err(|_| Unsendable::TooBig)?;
                put_ethernet(out, ends, EtherType::IPV6);
                out.extend(self.ipv6(source, destination, payload_len));
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(Unsendable::Families);
            }
        }
        self.put_udp(payload, udp_len as u16, out);
        Ok(())
    }

    fn ipv4(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        total_len: u16,
    ) -> [u8; IPV4_HEADER_LEN] {
        let mut header = [0; IPV4_HEADER_LEN];
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&total_len.to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6] = if self.dont_fragment { 0x40 } else { 0 };
        header[8] = self.ttl;
        header[9] = protocol::UDP;
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&destination.octets());
        let sum = !checksum::fold(checksum::sum(0, &header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        payload_len: u16,
    ) -> [u8; IPV6_HEADER_LEN] {
        let mut header = [0; IPV6_HEADER_LEN];
        let first_word = 6 << 28 | u32::from(self.tos) << 20;
        header[0..4].copy_from_slice(&first_word.to_be_bytes());
        header[4..6].copy_from_slice(&payload_len.to_be_bytes());
        header[6] = protocol::UDP;
        header[7] = self.ttl;
        header[8..24].copy_from_slice(&source.octets());
        header[24..40].copy_from_slice(&destination.octets());
        header
    }

    fn put_udp(&self, payload: &[&[u8]], len: u16, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend(self.source.port().to_be_bytes());
        out.extend(self.destination.port().to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend([0, 0]);
        payload.iter().for_each(|part| out.extend_from_slice(part));
        if !self.checksum {
            return;
        }
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let pseudo = checksum::pseudo_header(source, destination, protocol::UDP, len.into());
        let sum = match !checksum::fold(checksum::sum(pseudo, &out[at..])) {
            // 0 says that there is none (RFC 768).
            0 => u16::MAX,
            sum => sum,
        };
        out[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    }
}

fn put_ethernet(out: &mut Vec<u8>, (source, destination): (IpAddr, IpAddr), ethertype: EtherType) {
    out.extend(made_up_mac(destination).octets());
    out.extend(made_up_mac(source).octets());
    out.extend(ethertype.0.to_be_bytes());
}

/// 02: locally administered, so nobody's.
fn made_up_mac(address: IpAddr) -> MacAddr {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
    };
    MacAddr::new([2, 0, a, b, c, d])
}
