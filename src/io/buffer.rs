//! The buffer that one packet passes through, without being copied.
//!
//! ```text
//! 0       2                10
//! |<---- vnet header ----->|<- Ethernet frame ...       as the TAP reads and writes it
//!         |<-VXLAN header->|<- Ethernet frame ...       as the UDP payload
//! ```
//! The two headers are never needed at once, so they share their bytes and the frame stays where it is.

use crate::wire::{vnet, vxlan};

/// Where the frame starts.
const FRAME: usize = vnet::HEADER_LEN;
/// Where the VXLAN header starts.
const DATAGRAM: usize = FRAME - vxlan::HEADER_LEN;
/// The largest frame: a UDP payload can hold no more, and a TAP without offloads gives less.
const FRAME_MAX: usize = u16::MAX as usize;

const _: () = assert!(vnet::HEADER_LEN >= vxlan::HEADER_LEN);

/// Room for one packet and its headers.
#[derive(Debug)]
pub struct PacketBuffer {
    bytes: Box<[u8]>,
    end: usize,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self {
            bytes: vec![0; FRAME + FRAME_MAX].into(),
            end: FRAME,
        }
    }
}

impl PacketBuffer {
    /// All the room for a packet of the TAP; [`set_packet_len`](Self::set_packet_len) follows.
    pub fn packet_room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// All the room for a datagram; [`set_datagram_len`](Self::set_datagram_len) follows.
    pub fn datagram_room(&mut self) -> &mut [u8] {
        &mut self.bytes[DATAGRAM..]
    }

    /// A packet of `len` bytes was read. Shorter than its header, it is a packet of no frame.
    pub fn set_packet_len(&mut self, len: usize) {
        self.end = len.clamp(FRAME, self.bytes.len());
    }

    /// A datagram of `len` bytes was read. Shorter than its header, it is a datagram of no frame.
    pub fn set_datagram_len(&mut self, len: usize) {
        self.end = (DATAGRAM + len).clamp(FRAME, self.bytes.len());
    }

    /// Puts a frame in place.
    ///
    /// # Panics
    /// If it is longer than 65,535 bytes.
    pub fn set_frame(&mut self, frame: &[u8]) {
        self.end = FRAME + frame.len();
        self.bytes[FRAME..self.end].copy_from_slice(frame);
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[FRAME..self.end]
    }

    /// The frame, to be changed in place.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[FRAME..self.end]
    }

    /// The vnet header a read left.
    #[must_use]
    pub fn vnet_header(&self) -> &[u8; vnet::HEADER_LEN] {
        self.bytes
            .first_chunk()
            .expect("the buffer is longer than its headers")
    }

    /// The packet to write to the TAP, under `header`.
    pub fn packet(&mut self, header: &[u8; vnet::HEADER_LEN]) -> &[u8] {
        self.bytes[..FRAME].copy_from_slice(header);
        &self.bytes[..self.end]
    }

    /// The datagram to send, under `header`.
    pub fn datagram(&mut self, header: &[u8; vxlan::HEADER_LEN]) -> &[u8] {
        self.bytes[DATAGRAM..FRAME].copy_from_slice(header);
        &self.bytes[DATAGRAM..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_stays_while_headers_change() {
        let mut buffer = PacketBuffer::default();
        buffer.packet_room()[..13].copy_from_slice(b"vvvvvvvvvvabc");
        buffer.set_packet_len(13);
        assert_eq!(buffer.vnet_header(), b"vvvvvvvvvv");
        assert_eq!(buffer.frame(), b"abc");
        assert_eq!(buffer.datagram(b"xxxxxxxx"), b"xxxxxxxxabc");
        assert_eq!(buffer.packet(b"wwwwwwwwww"), b"wwwwwwwwwwabc");
    }

    #[test]
    fn what_is_shorter_than_its_header_holds_no_frame() {
        let mut buffer = PacketBuffer::default();
        buffer.set_packet_len(3);
        assert!(buffer.frame().is_empty());
        buffer.set_datagram_len(0);
        assert!(buffer.frame().is_empty());
    }
}
