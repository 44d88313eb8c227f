//! What containers send: packets of the crate's own tests, between the addresses of the two cells.

use std::net::Ipv6Addr;

use silk_vtep::wire::MacAddr;
use silk_vtep::wire::vnet::{GsoType, VnetHeader};

use super::super::offload::frames::{ACK, CWR, Packet, noise};
use super::super::offload::harness::cut;
use super::super::repair::{Checksum, repair};
use super::step::{FrameSpec, count, kind};

/// Bytes of payload in a frame, and in a super-frame.
const FRAME_MAX: usize = 1400;
const SUPER_FRAME_MAX: usize = 12_000;
/// Packets of one step.
const COUNT_MAX: u8 = 8;
/// Ports, so many that some flows share a source port of the tunnel.
const PORTS: u8 = 16;

/// A cell as its host sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) own_mac: MacAddr,
    pub(super) peer_mac: MacAddr,
    /// The third byte of the cell's own IPv4 subnet, and the fourth word of its IPv6 subnet.
    pub(super) own: u8,
    /// The same of the other cell.
    pub(super) peer: u8,
}

/// Where each flow is, so that its packets follow one another.
#[derive(Default)]
pub(super) struct Traffic {
    made: u64,
    sequences: [u32; PORTS as usize],
}

impl Traffic {
    /// Packets as a TAP gives them.
    pub(super) fn packets(&mut self, spec: &FrameSpec, ends: Ends) -> Vec<Vec<u8>> {
        let count = 1 + spec.count % COUNT_MAX;
        (0..count).map(|_| self.packet(spec, ends)).collect()
    }

    fn packet(&mut self, spec: &FrameSpec, ends: Ends) -> Vec<u8> {
        let has = |bit: u8| spec.kind & bit != 0;
        let len = match has(kind::SUPER) {
            true => 1 + usize::from(spec.len) % SUPER_FRAME_MAX,
            false => usize::from(spec.len) % FRAME_MAX,
        };
        self.made += 1;
        let sequence = &mut self.sequences[usize::from(spec.port % PORTS)];
        let packet = Packet {
            port: 40_000 + u16::from(spec.port % PORTS),
            tos: spec.tos,
            flags: ACK | spec.flags,
            dont_fragment: !has(kind::FRAGMENTABLE),
            id: *sequence as u16,
            udp_checksum: !has(kind::NO_CHECKSUM) || has(kind::SUPER),
            sequence: *sequence,
            ..Packet::new(has(kind::V6), has(kind::TCP), noise(self.made, len))
        };
        *sequence = sequence.wrapping_add(len as u32);
        let route = Route { spec, ends };
        if has(kind::SUPER) {
            route.super_frame(&packet)
        } else if has(kind::PARTIAL) {
            route.partial(&packet)
        } else {
            let frame = route.complete(packet.frame(), packet.udp_checksum);
            [&[0; 10], &frame[..]].concat()
        }
    }
}

/// From where to where.
struct Route<'a> {
    spec: &'a FrameSpec,
    ends: Ends,
}

impl Route<'_> {
    /// A super-frame that the library cuts as the book says.
    fn super_frame(&self, packet: &Packet) -> Vec<u8> {
        let gso_size = 64 + 8 * u16::from(self.spec.segment);
        let (header, frame) = packet.super_frame(gso_size);
        let frame = self.readdress(frame, Checksum::Partial);
        let expected = packet.cut(gso_size.into());
        let expected = expected.iter().map(|one| self.complete(one.frame(), true));
        let segments = cut(&frame, &header).expect("an honest super-frame");
        assert!(segments.into_iter().eq(expected), "not cut by the book");
        [&header.emit()[..], &frame].concat()
    }

    fn partial(&self, packet: &Packet) -> Vec<u8> {
        let without_cwr = Packet {
            flags: packet.flags & !CWR,
            ..packet.clone()
        };
        let (header, frame) = without_cwr.super_frame(0);
        let header = VnetHeader {
            gso_type: GsoType::None,
            ..header
        };
        let frame = self.readdress(frame, Checksum::Partial);
        [&header.emit()[..], &frame].concat()
    }

    fn complete(&self, frame: Vec<u8>, udp_checksum: bool) -> Vec<u8> {
        let is_udp_v4 = frame[12..14] == [0x08, 0x00] && frame[23] == 17;
        let mut frame = self.readdress(frame, Checksum::Complete);
        if is_udp_v4 && !udp_checksum {
            frame[40..42].fill(0);
        }
        frame
    }

    fn readdress(&self, mut frame: Vec<u8>, checksum: Checksum) -> Vec<u8> {
        frame[..6].copy_from_slice(&self.destination_mac().octets());
        frame[6..12].copy_from_slice(&self.source_mac().octets());
        let source = match self.spec.source {
            // A container of nowhere.
            u8::MAX => (2, 1),
            source => (self.ends.own, source),
        };
        if frame[12] == 0x08 {
            frame[26..30].copy_from_slice(&v4(source));
            frame[30..34].copy_from_slice(&v4(self.destination()));
        } else {
            frame[22..38].copy_from_slice(&v6(source));
            frame[38..54].copy_from_slice(&v6(self.destination()));
        }
        repair(&mut frame, checksum);
        frame
    }

    fn source_mac(&self) -> MacAddr {
        let FrameSpec { tos, port, .. } = *self.spec;
        if self.spec.count & count::MARKED == 0 {
            self.ends.own_mac
        } else if self.spec.count & count::FORGED != 0 {
            MacAddr::new([3, 1, 0, 0, 0, 0])
        } else {
            // Bits of all kinds, and never 0.
            MacAddr::new([3, 1, port, tos, 1, tos])
        }
    }

    fn destination_mac(&self) -> MacAddr {
        if self.spec.kind & kind::BROADCAST != 0 {
            MacAddr::BROADCAST
        } else if self.spec.kind & kind::BRIDGED != 0 {
            self.ends.peer_mac
        } else {
            self.ends.own_mac
        }
    }

    /// Subnet and container: mostly the other cell's.
    fn destination(&self) -> (u8, u8) {
        let container = self.spec.destination >> 3;
        let subnet = match self.spec.destination & 7 {
            5 => self.ends.own,
            6 => 44,
            7 => 45,
            _ => self.ends.peer,
        };
        (subnet, container)
    }
}

fn v4((subnet, container): (u8, u8)) -> [u8; 4] {
    [10, 255, subnet, container]
}

fn v6((subnet, container): (u8, u8)) -> [u8; 16] {
    Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, 0, container.into()).octets()
}
