//! Egress: a super-frame of the TAP becomes the frames that a network card would have made of it.
//!
//! Only headers are written, into a slot of the caller's; payload stays where it is and is read once, for its checksum:
//!
//! ```text
//! super-frame   | headers | payload 0 | payload 1 | payload 2 |
//! segment 1     | slot 1 |  + a range of the super-frame ^
//! ```
//!
//! What changes from segment to segment is what the kernel changes (`inet_gso_segment`, `tcp_gso_segment`,
//! `__udp_gso_segment`): IP length, IPv4 identification, TCP sequence number and flags, UDP length, checksums.

mod template;

use std::ops::Range;

use super::transport::Segment;
use crate::wire::vnet::{GsoType, VnetHeader};
use crate::wire::vxlan;
use template::{NetworkTemplate, Place, TransportTemplate};

/// Bytes of the longest headers taken, Ethernet to transport: with a VXLAN header they fill 256. Two VLAN tags, IPv4 and TCP with
/// all their options make 142.
pub const HEADER_LEN_MAX: usize = 256 - vxlan::HEADER_LEN;

/// Segments of one super-frame at the most: 64 KiB at TCP's smallest MSS with timestamps make 1,820 (`TCP_MIN_SND_MSS` 48, less
/// twelve bytes of options). More would be many sends for one read.
pub const SEGMENTS_MAX: usize = 2048;

/// Why a frame cannot be cut as its `virtio_net_hdr` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSuperFrame {
    /// The GSO type is none.
    #[error("the header names no GSO type")]
    NotSegmented,
    /// The headers are not those of the GSO type, or lie about their lengths.
    #[error("no honest headers of GSO type {0:?}")]
    Headers(GsoType),
    /// The IP or UDP length is not the frame's.
    #[error("the frame is not as long as its headers say")]
    Length,
    /// More than [`HEADER_LEN_MAX`].
    #[error("headers of {0} bytes, the most is {HEADER_LEN_MAX}")]
    HeaderLength(usize),
    /// NEEDS_CSUM for another field than the transport header's checksum.
    #[error("checksum field at {start}+{offset} is not the transport header's")]
    ChecksumField {
        /// `csum_start` of the header.
        start: u16,
        /// `csum_offset` of the header.
        offset: u16,
    },
    /// `gso_size` is 0.
    #[error("a segment size of 0")]
    NoSegmentSize,
    /// More than [`SEGMENTS_MAX`].
    #[error("{0} segments, the most is {SEGMENTS_MAX}")]
    Segments(usize),
}

/// A checked super-frame, ready to be cut into 1 to [`SEGMENTS_MAX`] frames. All but the last carry `gso_size` bytes of payload.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    frame: &'a [u8],
    network_offset: usize,
    transport_offset: usize,
    header_len: usize,
    gso_size: usize,
    segments: usize,
    network: NetworkTemplate,
    transport: TransportTemplate,
}

impl<'a> Segmenter<'a> {
    /// `frame` with the header it was read under. `hdr_len` is not looked at.
    ///
    /// With NEEDS_CSUM the frame's checksum field gives the pseudo-header's sum, as to the kernel (`tcp4_gso_segment`): it is right
    /// behind an IPv6 routing header too. Without, the addresses do, and UDP over IPv4 with a checksum of 0 keeps it.
    ///
    /// # Errors
    /// See [`BadSuperFrame`].
    pub fn new(frame: &'a [u8], header: &VnetHeader) -> Result<Self, BadSuperFrame> {
        let segment = parse(frame, header.gso_type)?;
        let transport_header_len = segment
            .header_len()
            .ok_or(BadSuperFrame::Headers(header.gso_type))?;
        let header_len = segment.transport.offset + transport_header_len;
        if header_len > HEADER_LEN_MAX {
            return Err(BadSuperFrame::HeaderLength(header_len));
        }
        check_lengths(frame, &segment)?;
        check_checksum_field(&segment, header)?;
        let gso_size = usize::from(header.gso_size);
        let transport_header = &segment.bytes[..transport_header_len];
        Ok(Self {
            frame,
            network_offset: segment.transport.network_offset,
            transport_offset: segment.transport.offset,
            header_len,
            gso_size,
            segments: segment_count(frame.len() - header_len, gso_size)?,
            network: NetworkTemplate::of(&frame[..segment.transport.offset], &segment),
            transport: TransportTemplate::of(transport_header, &segment, header.needs_csum),
        })
    }

    /// How many frames it makes, 1 at the least.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of each frame's headers, Ethernet to transport.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of every frame but the last, which may be shorter.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.frame.len().min(self.header_len + self.gso_size)
    }

    /// Writes the headers of segment `index` to the front of `slot` and returns where in the super-frame its payload is.
    /// Headers and payload together are a whole frame whose checksums are complete.
    ///
    /// # Panics
    /// If there is no such segment, or `slot` is shorter than [`header_len`](Self::header_len).
    pub fn emit(&self, index: usize, slot: &mut [u8]) -> Range<usize> {
        let range = self.payload(index);
        let payload = &self.frame[range.clone()];
        let headers = &mut slot[..self.header_len];
        headers.copy_from_slice(&self.frame[..self.header_len]);
        let (below, transport) = headers.split_at_mut(self.transport_offset);
        let segment_len = transport.len() + payload.len();
        self.network
            .write(&mut below[self.network_offset..], index, segment_len);
        let place = Place {
            offset: range.start - self.header_len,
            is_last: range.end == self.frame.len(),
        };
        self.transport.write(transport, place, payload);
        range
    }

    fn payload(&self, index: usize) -> Range<usize> {
        assert!(index < self.segments, "no segment {index}");
        let start = self.header_len + index * self.gso_size;
        start..self.frame.len().min(start + self.gso_size)
    }
}

/// The segment, if it is one of the type.
fn parse(frame: &[u8], gso_type: GsoType) -> Result<Segment<'_>, BadSuperFrame> {
    if gso_type == GsoType::None {
        return Err(BadSuperFrame::NotSegmented);
    }
    Segment::parse(frame)
        .filter(|segment| segment.protocol.gso_type(segment.addresses.0) == gso_type)
        .ok_or(BadSuperFrame::Headers(gso_type))
}

/// Every length says the same, and nothing is behind the payload.
fn check_lengths(frame: &[u8], segment: &Segment<'_>) -> Result<(), BadSuperFrame> {
    let fills_frame = segment.transport.offset + segment.bytes.len() == frame.len();
    if fills_frame && segment.udp_length_is_honest() {
        Ok(())
    } else {
        Err(BadSuperFrame::Length)
    }
}

fn check_checksum_field(segment: &Segment<'_>, header: &VnetHeader) -> Result<(), BadSuperFrame> {
    let (start, offset) = (header.csum_start, header.csum_offset);
    let honest = usize::from(start) == segment.transport.offset
        && offset == segment.protocol.checksum_offset();
    if honest || !header.needs_csum {
        Ok(())
    } else {
        Err(BadSuperFrame::ChecksumField { start, offset })
    }
}

fn segment_count(payload_len: usize, gso_size: usize) -> Result<usize, BadSuperFrame> {
    if gso_size == 0 {
        return Err(BadSuperFrame::NoSegmentSize);
    }
    match payload_len.div_ceil(gso_size).max(1) {
        segments if segments <= SEGMENTS_MAX => Ok(segments),
        segments => Err(BadSuperFrame::Segments(segments)),
    }
}
