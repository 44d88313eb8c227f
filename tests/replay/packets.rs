//! Frames of the overlay and of the underlay, between the containers of cells A and B.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Ipv4Header, PacketBuilder};

pub(crate) type Mac = [u8; 6];

pub(crate) const A_MAC: Mac = [0xee, 0xee, 10, 255, 108, 0];
pub(crate) const B_MAC: Mac = [0xee, 0xee, 10, 255, 43, 0];
pub(crate) const A_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 0);
pub(crate) const B_VTEP: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 0);
pub(crate) const A_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 184);
pub(crate) const B_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 6);
pub(crate) const A_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 32, 12);
pub(crate) const B_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 16, 14);
pub(crate) const A_HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x12);
pub(crate) const B_HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0x14);

/// I and G, group 3, VNI 1.
pub(crate) const HEADER: [u8; 8] = [0x88, 0, 0, 3, 0, 0, 1, 0];

/// Where headers start in a frame.
pub(crate) const IP: usize = 14;
pub(crate) const UDP: usize = 34;

/// A UDP packet of the overlay.
pub(crate) fn inner(macs: (Mac, Mac), ends: (Ipv4Addr, Ipv4Addr), tos: u8, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0, macs.1)
        .ipv4(ends.0.octets(), ends.1.octets(), 64)
        .udp(port, 53)
        .write(&mut frame, b"question")
        .expect("a Vec takes all");
    frame[IP + 1] = tos;
    mend(&mut frame);
    frame
}

/// As A's host gives it to the TAP: the VTEP's own MAC on both ends.
pub(crate) fn from_a(tos: u8, port: u16) -> Vec<u8> {
    inner((A_MAC, A_MAC), (A_CONTAINER, B_CONTAINER), tos, port)
}

/// As B sends it to A.
pub(crate) fn from_b(tos: u8) -> Vec<u8> {
    inner((B_MAC, A_MAC), (B_CONTAINER, A_CONTAINER), tos, 40_000)
}

/// Makes the IPv4 header checksum right.
pub(crate) fn mend(frame: &mut [u8]) {
    let (mut header, _) = Ipv4Header::from_slice(&frame[IP..]).expect("an IPv4 header");
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    frame[IP..IP + bytes.len()].copy_from_slice(&bytes);
}

/// A datagram from B's host to A's.
pub(crate) fn outer(payload: &[u8]) -> Vec<u8> {
    outer_between((B_HOST, A_HOST), payload)
}

pub(crate) fn outer_between(ends: (Ipv4Addr, Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(ends.0.octets(), ends.1.octets(), 64)
        .udp(50_000, 4789)
        .write(&mut frame, payload)
        .expect("a Vec takes all");
    frame
}

pub(crate) fn outer_v6(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(B_HOST_V6.octets(), A_HOST_V6.octets(), 64)
        .udp(50_000, 4789)
        .write(&mut frame, payload)
        .expect("a Vec takes all");
    frame
}

/// A VXLAN header and a frame.
pub(crate) fn vxlan(header: [u8; 8], frame: &[u8]) -> Vec<u8> {
    [&header[..], frame].concat()
}

/// The honest packet from B to A.
pub(crate) fn honest() -> Vec<u8> {
    outer(&vxlan(HEADER, &from_b(0)))
}

/// The IPv4 fragments of an underlay frame, cut at multiples of `cut` bytes.
pub(crate) fn fragments(frame: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let segment = &frame[UDP..];
    let starts = (0..segment.len()).step_by(cut);
    starts
        .map(|start| {
            let end = segment.len().min(start + cut);
            fragment(frame, start, end < segment.len(), &segment[start..end])
        })
        .collect()
}

/// One fragment, of the frame's headers.
pub(crate) fn fragment(frame: &[u8], offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut piece = [&frame[..UDP], bytes].concat();
    let word = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    piece[IP + 2..IP + 4].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
    piece[IP + 4..IP + 6].copy_from_slice(&[0x12, 0x34]);
    piece[IP + 6..IP + 8].copy_from_slice(&word.to_be_bytes());
    mend(&mut piece);
    piece
}

pub(crate) fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}
