//! What is compared of the packets on the underlay, and what each must hold by itself.
//!
//! Two hosts may choose IP IDs and source ports as they like, and checksums follow from these. So the three are masked; a checksum that
//! is there must be right, and a source port in its range.

use std::collections::BTreeMap;
use std::ops::Range;

use super::frames::{IPV4, IPV6};
use super::sums;

const ETHERNET_BYTES: usize = 14;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
/// What a checksum that is there becomes.
const MASKED: [u8; 2] = [0xcc, 0xcc];

/// Packets of one side, ready to be compared.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// In their order, masked.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Outer source ports; of a fragmented packet that of its first fragment.
    pub(crate) ports: Vec<u16>,
    /// IPv4 IDs.
    pub(crate) ids: Vec<u16>,
    /// What is wrong with them by themselves.
    pub(crate) faults: Vec<String>,
}

/// True for what the tunnel puts on a wire: UDP, whole or in fragments. The host has its own talk there.
pub(crate) fn is_tunnels(packet: &[u8]) -> bool {
    match ethertype(packet) {
        Some(IPV4) => packet.get(23) == Some(&UDP),
        Some(IPV6) => matches!(packet.get(20), Some(&UDP | &FRAGMENT_HEADER)),
        _ => false,
    }
}

impl View {
    /// Of packets that [`is_tunnels`] likes, with source ports from `ports`.
    pub(crate) fn of(packets: &[Vec<u8>], ports: &Range<u16>) -> Self {
        let mut view = Self::default();
        let mut pieces: BTreeMap<u16, Vec<Piece>> = BTreeMap::new();
        for packet in packets {
            let masked = match ethertype(packet) {
                Some(IPV4) => view.v4(packet, &mut pieces),
                _ => view.v6(packet),
            };
            match masked {
                Some(masked) => view.packets.push(masked),
                None => view.fault(packet, "is cut short"),
            }
        }
        for pieces in pieces.into_values() {
            view.reassembled(pieces);
        }
        for port in view.ports.iter().filter(|port| !ports.contains(port)) {
            view.faults
                .push(format!("source port {port} is not in {ports:?}"));
        }
        view
    }

    fn v4(&mut self, packet: &[u8], pieces: &mut BTreeMap<u16, Vec<Piece>>) -> Option<Vec<u8>> {
        let header_len = usize::from(packet.get(ETHERNET_BYTES)? & 0x0f) * 4;
        let transport = ETHERNET_BYTES + header_len;
        let header = packet.get(ETHERNET_BYTES..transport)?;
        if sums::sum(header) != u16::MAX {
            self.fault(packet, "has a wrong IPv4 header checksum");
        }
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (id, fragment) = (word(18), word(20));
        let offset = usize::from(fragment & 0x1fff) * 8;
        let more = fragment & 0x2000 != 0;
        let mut masked = packet.to_vec();
        masked[18..20].fill(0);
        masked[24..26].copy_from_slice(&MASKED);
        self.ids.push(id);
        if offset == 0 {
            self.mask_udp(&mut masked, transport)?;
        }
        let end = ETHERNET_BYTES + usize::from(word(16));
        let segment = packet.get(transport..end)?;
        let addresses = &packet[26..34];
        if offset == 0 && !more {
            self.check_udp(packet, addresses, segment);
        } else {
            pieces.entry(id).or_default().push(Piece {
                offset,
                more,
                addresses: addresses.to_vec(),
                bytes: segment.to_vec(),
            });
        }
        Some(masked)
    }

    fn v6(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let transport = ETHERNET_BYTES + IPV6_BYTES;
        let mut masked = packet.to_vec();
        if packet.get(20) == Some(&FRAGMENT_HEADER) {
            self.fault(packet, "is a fragment, which no tunnel makes over IPv6");
            return Some(masked);
        }
        self.mask_udp(&mut masked, transport)?;
        self.check_udp(packet, packet.get(22..54)?, packet.get(transport..)?);
        Some(masked)
    }

    fn mask_udp(&mut self, masked: &mut [u8], at: usize) -> Option<()> {
        let udp = masked.get_mut(at..at + UDP_BYTES)?;
        self.ports.push(u16::from_be_bytes([udp[0], udp[1]]));
        udp[..2].fill(0);
        if udp[6..8] != [0, 0] {
            udp[6..8].copy_from_slice(&MASKED);
        }
        Some(())
    }

    fn check_udp(&mut self, packet: &[u8], addresses: &[u8], segment: &[u8]) {
        let is_there = segment.get(6..8) != Some(&[0, 0]);
        if is_there && !sums::transport_is_valid(addresses, UDP, segment) {
            self.fault(packet, "has a wrong UDP checksum");
        }
    }

    /// The UDP checksum goes over all fragments together.
    fn reassembled(&mut self, mut pieces: Vec<Piece>) {
        pieces.sort_by_key(|piece| piece.offset);
        let mut segment = Vec::new();
        let mut more = true;
        for piece in &pieces {
            if piece.offset != segment.len() || !more {
                self.faults.push("fragments do not fit together".to_owned());
                return;
            }
            segment.extend(&piece.bytes);
            more = piece.more;
        }
        if more {
            self.faults.push("the last fragment is missing".to_owned());
        } else {
            let addresses = pieces[0].addresses.clone();
            self.check_udp(&segment.clone(), &addresses, &segment);
        }
    }

    fn fault(&mut self, packet: &[u8], what: &str) {
        self.faults
            .push(format!("a packet {what}: {}", hex(packet)));
    }
}

/// A fragment's payload.
struct Piece {
    offset: usize,
    more: bool,
    addresses: Vec<u8>,
    bytes: Vec<u8>,
}

fn ethertype(packet: &[u8]) -> Option<u16> {
    let [high, low] = *packet.get(12..14)?.first_chunk()?;
    Some(u16::from_be_bytes([high, low]))
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as bytes.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}
