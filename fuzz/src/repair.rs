//! Makes mutated frames honest again: a fuzzer changes bytes, but does not guess lengths and checksums.

use std::ops::Range;

/// What becomes of the TCP or UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// It is right.
    Complete,
    /// It is the pseudo-header's sum, and a card would finish it.
    Partial,
}

/// Gives an IP packet behind Ethernet the lengths and checksums that it should have, those of TCP, UDP and ICMPv6 included. VLAN tags
/// are looked through; what is no IP packet is left alone.
pub(super) fn repair(frame: &mut [u8], checksum: Checksum) {
    let Some(network) = network_offset(frame) else {
        return;
    };
    let is_v6 = frame[network - 2..network] == [0x86, 0xdd];
    let packet = &mut frame[network..];
    if is_v6 {
        repair_v6(packet, checksum);
    } else {
        repair_v4(packet, checksum);
    }
}

/// Behind two VLAN tags at the most.
fn network_offset(frame: &[u8]) -> Option<usize> {
    let mut at = 14;
    for _ in 0..3 {
        match frame.get(at - 2..at)? {
            [0x08, 0x00] | [0x86, 0xdd] => return Some(at),
            [0x81, 0x00] | [0x88, 0xa8] => at += 4,
            _ => return None,
        }
    }
    None
}

fn repair_v4(packet: &mut [u8], checksum: Checksum) {
    if packet.len() < 20 {
        return;
    }
    let mut header_len = usize::from(packet[0] & 15) * 4;
    if header_len < 20 || header_len > packet.len() {
        header_len = 20;
    }
    packet[0] = 0x40 | (header_len / 4) as u8;
    put(packet, 2..4, packet.len().min(65_535));
    // The reserved bit, which etherparse leaves out of its sums.
    packet[6] &= 0x7f;
    put(packet, 10..12, 0);
    let checksum_field = !fold(sum(&packet[..header_len]));
    put(packet, 10..12, checksum_field.into());
    let is_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    if !is_fragment {
        let (protocol, addresses) = (packet[9], sum(&packet[12..20]));
        let end = packet.len().min(65_535);
        repair_transport(&mut packet[header_len..end], protocol, addresses, checksum);
    }
}

fn repair_v6(packet: &mut [u8], checksum: Checksum) {
    if packet.len() < 40 {
        return;
    }
    packet[0] = 0x60 | packet[0] & 15;
    let end = packet.len().min(40 + 65_535);
    put(packet, 4..6, end - 40);
    let (protocol, addresses) = (packet[6], sum(&packet[8..40]));
    repair_transport(&mut packet[40..end], protocol, addresses, checksum);
}

fn repair_transport(segment: &mut [u8], protocol: u8, addresses: u64, checksum: Checksum) {
    let field = match protocol {
        6 if segment.len() >= 20 => {
            let header_len = usize::from(segment[12] >> 4) * 4;
            if header_len < 20 || header_len > segment.len() {
                segment[12] = 0x50;
            }
            // Reserved bits likewise.
            segment[12] &= 0xf1;
            16..18
        }
        17 if segment.len() >= 8 => {
            put(segment, 4..6, segment.len());
            6..8
        }
        58 if segment.len() >= 4 => 2..4,
        _ => return,
    };
    let pseudo = addresses + u64::from(protocol) + segment.len() as u64;
    put(segment, field.clone(), 0);
    let value = if checksum == Checksum::Partial && protocol != 58 {
        fold(pseudo)
    } else {
        match !fold(pseudo + sum(segment)) {
            // In UDP 0 says that there is none (RFC 768).
            0 if protocol == 17 => 0xffff,
            value => value,
        }
    };
    put(segment, field, value.into());
}

fn put(bytes: &mut [u8], at: Range<usize>, value: usize) {
    let value = u16::try_from(value).expect("no length or sum is more");
    bytes[at].copy_from_slice(&value.to_be_bytes());
}

/// Word by word; an odd byte is the high one of a word.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)))
        .sum()
}

/// One's complement: carries come back in.
pub(super) fn fold(sum: u64) -> u16 {
    // The sum of something is never 0, and 0 and 0xffff are one.
    match sum {
        0 => 0,
        sum => ((sum - 1) % 0xffff + 1) as u16,
    }
}
