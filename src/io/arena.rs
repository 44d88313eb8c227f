//! The packets of one batch, side by side: each is read into place, changed in place and sent from there.
//!
//! ```text
//! 0       2                10
//! |<---- vnet header ----->|<- Ethernet frame ...       as the TAP reads it
//!         |<-VXLAN header->|<- Ethernet frame ...       as the UDP payload
//! ```
//! The two headers are never needed at once, so they share their bytes and the frame stays where it is.

use crate::wire::{vnet, vxlan};

/// Where in a packet the frame starts.
const FRAME: usize = vnet::HEADER_LEN;
/// Where in a packet the VXLAN header starts.
const DATAGRAM: usize = FRAME - vxlan::HEADER_LEN;
/// The largest packet a TAP gives: Ethernet, a VLAN tag or two, and the largest IP packet.
const PACKET_MAX: usize = FRAME + 14 + 8 + u16::MAX as usize;
/// Packets start at cache lines, so no two share one.
const ALIGN: usize = 64;
/// Some super-frames, or more small packets than a batch has.
const ARENA_BYTES: usize = 4 * PACKET_MAX;

const _: () = assert!(vnet::HEADER_LEN >= vxlan::HEADER_LEN);

/// Room for the packets of a batch.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: Box<[u8]>,
    next: usize,
}

/// Where in the arena a packet is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    /// Bytes of the datagram: VXLAN header and frame.
    pub(super) fn datagram_len(self) -> usize {
        self.end - self.start - DATAGRAM
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            bytes: vec![0; ARENA_BYTES].into(),
            next: 0,
        }
    }
}

impl Arena {
    /// Room for one more packet, however large; `None`: the arena is full. [`take`](Self::take) follows.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        self.bytes[self.next..].get_mut(..PACKET_MAX)
    }

    /// A packet of `len` bytes was read. Shorter than its header, it is a packet of no frame.
    pub(super) fn take(&mut self, len: usize) -> Packet {
        let start = self.next;
        let end = start + len.clamp(FRAME, PACKET_MAX);
        self.next = end.next_multiple_of(ALIGN).min(self.bytes.len());
        Packet { start, end }
    }

    /// Puts a frame in place, as if it had been read. `None`: the arena is full.
    ///
    /// # Panics
    /// If it is longer than any frame.
    pub(super) fn put(&mut self, frame: &[u8]) -> Option<Packet> {
        let len = FRAME + frame.len();
        let packet = &mut self.room()?[..len];
        packet[..FRAME].fill(0);
        packet[FRAME..].copy_from_slice(frame);
        Some(self.take(len))
    }

    /// The last packet taken is done with: its room is the next one's, warm in the cache.
    pub(super) fn give_back(&mut self, packet: Packet) {
        self.next = packet.start;
    }

    /// All packets are done with.
    pub(super) fn clear(&mut self) {
        self.next = 0;
    }

    /// The vnet header a read left.
    pub(super) fn vnet_header(&self, packet: Packet) -> &[u8; vnet::HEADER_LEN] {
        self.bytes[packet.start..]
            .first_chunk()
            .expect("a packet is longer than its header")
    }

    /// The Ethernet frame.
    pub(super) fn frame(&self, packet: Packet) -> &[u8] {
        &self.bytes[packet.start + FRAME..packet.end]
    }

    /// The Ethernet frame, to be changed in place.
    pub(super) fn frame_mut(&mut self, packet: Packet) -> &mut [u8] {
        &mut self.bytes[packet.start + FRAME..packet.end]
    }

    /// Writes the VXLAN header in place of the vnet header.
    pub(super) fn set_vxlan_header(&mut self, packet: Packet, header: &[u8; vxlan::HEADER_LEN]) {
        self.bytes[packet.start + DATAGRAM..packet.start + FRAME].copy_from_slice(header);
    }

    /// The datagram: VXLAN header and frame.
    pub(super) fn datagram(&self, packet: Packet) -> &[u8] {
        &self.bytes[packet.start + DATAGRAM..packet.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_stays_while_headers_change() {
        let mut arena = Arena::default();
        arena.room().expect("empty")[..13].copy_from_slice(b"vvvvvvvvvvabc");
        let packet = arena.take(13);
        assert_eq!(arena.vnet_header(packet), b"vvvvvvvvvv");
        assert_eq!(arena.frame(packet), b"abc");
        arena.set_vxlan_header(packet, b"xxxxxxxx");
        assert_eq!(arena.datagram(packet), b"xxxxxxxxabc");
        assert_eq!(packet.datagram_len(), 11);
    }

    #[test]
    fn packets_do_not_overlap_and_a_full_arena_says_so() {
        let mut arena = Arena::default();
        let mut packets = Vec::new();
        while let Some(packet) = arena.put(&[packets.len() as u8; 60_000]) {
            packets.push(packet);
        }
        assert!(packets.len() >= 3, "{}", packets.len());
        for (index, packet) in packets.iter().enumerate() {
            assert_eq!(arena.frame(*packet), [index as u8; 60_000]);
        }
        arena.clear();
        assert!(arena.room().is_some());
    }

    #[test]
    fn the_room_of_a_packet_given_back_is_the_next_ones() {
        let mut arena = Arena::default();
        let first = arena.put(b"first").expect("empty");
        let second = arena.put(b"second").expect("room for many");
        arena.give_back(second);
        let third = arena.put(b"third").expect("room for many");
        assert_eq!(third.start, second.start);
        assert_eq!(arena.frame(first), b"first");
    }

    #[test]
    fn what_is_shorter_than_its_header_holds_no_frame() {
        let mut arena = Arena::default();
        let packet = arena.take(3);
        assert!(arena.frame(packet).is_empty());
    }
}
