//! Partial checksums: the field holds the folded sum of the pseudo-header, not inverted, and whoever has the payload in hand
//! adds the rest (`CHECKSUM_PARTIAL`).

use std::ops::Range;

use super::fields::tcp;
use super::transport::{Protocol, Segment};
use crate::wire::checksum;
use crate::wire::ethernet;
use crate::wire::vnet::{GsoType, VnetHeader};

/// What a checksum field holds that a host takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// The sum over all.
    Complete,
    /// The pseudo-header's, and the sum over all is another.
    Partial,
}

impl Checksum {
    /// Of a `segment` with `field` in it and the pseudo-header's sum `pseudo`. `None` if it is wrong. The payload is read once.
    pub(super) fn of(field: u16, pseudo: u64, segment: &[u8]) -> Option<Self> {
        if checksum::fold(checksum::sum(pseudo, segment)) == u16::MAX {
            return Some(Self::Complete);
        }
        (field == checksum::fold(pseudo)).then_some(Self::Partial)
    }
}

/// A `virtio_net_hdr` that asks for a checksum outside its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checksum field at {start}+{offset} for a frame of {frame_len} bytes")]
pub struct BadVnetHeader {
    /// `csum_start` of the header.
    pub start: u16,
    /// `csum_offset` of the header.
    pub offset: u16,
    /// Bytes of the frame.
    pub frame_len: usize,
}

/// The header to write before a frame from the underlay, so that the host takes it.
///
/// A kernel peer on the same machine (veth, a bridge) sends inner TCP and UDP checksums that are partial, and super-frames larger
/// than `mtu_bytes`, the TAP's MTU, since no card was there to finish the work. Such a frame gets NEEDS_CSUM, a super-frame of
/// TCP its GSO fields too. Any other gets the default header, wrong checksums included: those are the host's to refuse.
///
/// The payload is read only where the checksum is the pseudo-header's sum, and of super-frames not at all.
#[must_use]
pub fn vnet_header(frame: &[u8], mtu_bytes: u32) -> VnetHeader {
    Segment::parse(frame)
        .map(|segment| segment.vnet_header(mtu_bytes))
        .unwrap_or_default()
}

/// The header of a UDP super-frame of a kernel peer's, whose segments carry `gso_size` bytes of payload each: its checksum is partial
/// too, since no card was there. The default header for any other frame.
#[must_use]
pub fn udp_vnet_header(frame: &[u8], gso_size: u16) -> VnetHeader {
    Segment::parse(frame)
        .filter(|segment| segment.protocol == Protocol::Udp && segment.may_be_partial())
        .and_then(|segment| segment.udp_super_frame(gso_size))
        .unwrap_or_default()
}

/// Whether a TCP or UDP packet fills the frame to its last byte, by its own lengths.
#[must_use]
pub fn is_filled(frame: &[u8]) -> bool {
    Segment::parse(frame)
        .is_some_and(|segment| segment.transport.offset + segment.bytes.len() == frame.len())
}

/// Finishes the partial checksum of a frame read from the TAP, as `skb_checksum_help` does: over all from `csum_start` to the
/// end, and 0 is written as 0xffff, which in UDP says "computed" and elsewhere is its equal. Without NEEDS_CSUM, nothing is done.
///
/// # Errors
/// The checksum field is not inside the frame and behind its Ethernet header; the frame is unchanged.
pub fn complete(frame: &mut [u8], header: &VnetHeader) -> Result<(), BadVnetHeader> {
    if !header.needs_csum {
        return Ok(());
    }
    let start = usize::from(header.csum_start);
    let field = field_at(start, header.csum_offset);
    if start < ethernet::HEADER_LEN || field.end > frame.len() {
        return Err(BadVnetHeader {
            start: header.csum_start,
            offset: header.csum_offset,
            frame_len: frame.len(),
        });
    }
    // The field itself holds the pseudo-header's share of the sum.
    let checksum = match !checksum::fold(checksum::sum(0, &frame[start..])) {
        0 => u16::MAX,
        checksum => checksum,
    };
    frame[field].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Where a checksum field `offset` behind `start` stands.
fn field_at(start: usize, offset: u16) -> Range<usize> {
    let at = start + usize::from(offset);
    at..at + 2
}

impl Segment<'_> {
    /// Whether the field holds the pseudo-header's sum. Of the frames whose checksum is complete one in 65,536 does; finishing it gives
    /// the same again, for then the rest sums to what the field says inverted.
    fn may_be_partial(&self) -> bool {
        // A pseudo-header's sum is never 0, so UDP's "none" is no candidate.
        self.checksum() == checksum::fold(self.pseudo_header(self.len()))
    }

    /// What the checksum field holds; `None` if neither.
    pub(super) fn checksum_held(&self) -> Option<Checksum> {
        let pseudo = self.pseudo_header(self.len());
        Checksum::of(self.checksum(), pseudo, self.bytes)
    }

    /// What [`vnet_header`] gives for the frame this is of.
    ///
    /// A checksum is partial if it is wrong as it stands and is the pseudo-header's sum. Both must hold, in whatever order they are looked
    /// at; the sum comes first since all but one in 65,536 complete checksums fail it, and it costs no look at the payload. A super-frame
    /// must be cut in any case, its checksum finished on the way, which changes none that is complete: its 64 KiB are not read to tell.
    pub(super) fn vnet_header(&self, mtu_bytes: u32) -> VnetHeader {
        if !self.may_be_partial() {
            return VnetHeader::default();
        }
        let header = self.partial_header(mtu_bytes).unwrap_or_default();
        if header.gso_type == GsoType::None && self.checksum_held() == Some(Checksum::Complete) {
            return VnetHeader::default();
        }
        header
    }

    /// The header that leaves checksum and segmentation to the host. `None` if the offset does not fit in it.
    fn partial_header(&self, mtu_bytes: u32) -> Option<VnetHeader> {
        let header = VnetHeader {
            needs_csum: true,
            csum_start: u16::try_from(self.transport.offset).ok()?,
            csum_offset: self.protocol.checksum_offset(),
            ..VnetHeader::default()
        };
        Some(self.super_frame(header, mtu_bytes).unwrap_or(header))
    }

    fn udp_super_frame(&self, gso_size: u16) -> Option<VnetHeader> {
        let (source, _) = self.addresses;
        Some(VnetHeader {
            gso_type: self.protocol.gso_type(source),
            hdr_len: u16::try_from(self.transport.offset + self.header_len()?).ok()?,
            gso_size,
            ..self.partial_header(u32::MAX)?
        })
    }

    /// `header` with the fields of a TCP super-frame. `None` if this is not TCP or no larger than the MTU, if its header length
    /// lies, or if the MTU leaves no room for payload.
    fn super_frame(&self, header: VnetHeader, mtu_bytes: u32) -> Option<VnetHeader> {
        let mtu_bytes = usize::try_from(mtu_bytes).ok()?;
        let network_header_len = self.transport.network_header_len();
        let too_large = network_header_len + self.bytes.len() > mtu_bytes;
        if self.protocol != Protocol::Tcp || !too_large {
            return None;
        }
        let tcp_header_len = self.header_len()?;
        let gso_size = mtu_bytes.checked_sub(network_header_len + tcp_header_len)?;
        let (source, _) = self.addresses;
        (gso_size > 0).then_some(VnetHeader {
            gso_type: self.protocol.gso_type(source),
            ecn: self.bytes[tcp::FLAGS] & tcp::CWR != 0,
            hdr_len: u16::try_from(self.transport.offset + tcp_header_len).ok()?,
            gso_size: u16::try_from(gso_size).ok()?,
            ..header
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, PacketHeaders};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::vnet;

    const MTU_BYTES: u32 = 1410;

    /// A frame whose checksums are complete.
    fn complete_frame(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = if v6 {
            builder.ipv6([0xfd; 16], [0xfe; 16], 64)
        } else {
            builder.ipv4([10, 255, 108, 184], [10, 255, 43, 6], 64)
        };
        let mut frame = Vec::new();
        if tcp {
            let builder = builder.tcp(40_000, 80, 1, 1000).ack(7).psh();
            builder.write(&mut frame, payload).unwrap();
        } else {
            let builder = builder.udp(40_000, 53);
            builder.write(&mut frame, payload).unwrap();
        }
        frame
    }

    fn checksum_field(frame: &[u8]) -> Range<usize> {
        let segment = Segment::parse(frame).unwrap();
        field_at(segment.transport.offset, segment.protocol.checksum_offset())
    }

    /// The same frame as a kernel without a card leaves it.
    fn make_partial(mut frame: Vec<u8>) -> Vec<u8> {
        let segment = Segment::parse(&frame).unwrap();
        let pseudo = segment.pseudo_header(segment.len());
        let field = checksum_field(&frame);
        frame[field].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        frame
    }

    fn needs_csum(csum_start: u16, csum_offset: u16) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            csum_start,
            csum_offset,
            ..VnetHeader::default()
        }
    }

    #[test]
    fn complete_frames_get_the_default_header_whatever_their_size() {
        for (v6, tcp) in [(false, true), (false, false), (true, true), (true, false)] {
            for len in [0, 1, 100, 20_000] {
                let frame = complete_frame(v6, tcp, &vec![7; len]);
                assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
            }
        }
    }

    #[test]
    fn partial_frames_name_their_checksum() {
        for (v6, tcp, start, offset) in [
            (false, true, 34, 16),
            (false, false, 34, 6),
            (true, true, 54, 16),
            (true, false, 54, 6),
        ] {
            let frame = make_partial(complete_frame(v6, tcp, b"some payload"));
            assert_eq!(vnet_header(&frame, MTU_BYTES), needs_csum(start, offset));
        }
    }

    #[test]
    fn partial_frames_behind_a_vlan_tag_are_found() {
        let mut frame = make_partial(complete_frame(false, true, b"some payload"));
        frame.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(vnet_header(&frame, MTU_BYTES), needs_csum(38, 16));
    }

    #[test]
    fn tcp_super_frames_get_a_segment_size_of_the_mtu() {
        for (v6, gso_type, start, gso_size) in [
            (false, GsoType::TcpV4, 34, 1370),
            (true, GsoType::TcpV6, 54, 1350),
        ] {
            let frame = make_partial(complete_frame(v6, true, &[7; 20_000]));
            let expected = VnetHeader {
                gso_type,
                hdr_len: start + 20,
                gso_size,
                ..needs_csum(start, 16)
            };
            assert_eq!(vnet_header(&frame, MTU_BYTES), expected);
        }
    }

    #[test]
    fn a_frame_of_the_mtu_is_no_super_frame_and_one_byte_more_is() {
        let partial = |len| make_partial(complete_frame(false, true, &vec![7; len]));
        let fits = vnet_header(&partial(1370), MTU_BYTES);
        assert_eq!(fits, needs_csum(34, 16));
        let larger = vnet_header(&partial(1371), MTU_BYTES);
        assert_eq!((larger.gso_type, larger.gso_size), (GsoType::TcpV4, 1370));
    }

    #[test]
    fn tcp_options_shrink_the_segments() {
        let mut frame = complete_frame(false, true, &[1; 20_000]);
        frame[34 + tcp::DATA_OFFSET] = 8 << 4;
        let header = vnet_header(&make_partial(frame), MTU_BYTES);
        assert_eq!((header.hdr_len, header.gso_size), (66, 1358));
    }

    #[test]
    fn congestion_window_reduced_sets_ecn_on_super_frames_only() {
        for (len, ecn) in [(20_000, true), (100, false)] {
            let mut frame = complete_frame(false, true, &vec![7; len]);
            frame[34 + tcp::FLAGS] |= tcp::CWR;
            assert_eq!(vnet_header(&make_partial(frame), MTU_BYTES).ecn, ecn);
        }
    }

    #[test]
    fn tcp_header_lengths_that_lie_make_no_super_frame() {
        for words in [0, 4] {
            let mut frame = complete_frame(false, true, &[7; 20_000]);
            frame[34 + tcp::DATA_OFFSET] = words << 4;
            let frame = make_partial(frame);
            assert_eq!(vnet_header(&frame, MTU_BYTES), needs_csum(34, 16));
        }
    }

    #[test]
    fn an_mtu_without_room_for_payload_makes_no_super_frame() {
        let frame = make_partial(complete_frame(false, true, &[7; 100]));
        for mtu_bytes in [0, 39, 40] {
            assert_eq!(vnet_header(&frame, mtu_bytes), needs_csum(34, 16));
        }
        assert_eq!(vnet_header(&frame, 41).gso_size, 1);
    }

    #[test]
    fn udp_over_the_mtu_is_partial_without_a_segment_size() {
        let frame = make_partial(complete_frame(false, false, &[7; 20_000]));
        assert_eq!(vnet_header(&frame, MTU_BYTES), needs_csum(34, 6));
    }

    #[test]
    fn wrong_checksums_are_left_to_the_host() {
        for tcp in [true, false] {
            let mut frame = complete_frame(false, tcp, b"payload");
            let field = checksum_field(&frame);
            frame[field.start] ^= 0x55;
            assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
        }
    }

    #[test]
    fn udp_without_a_checksum_is_left_alone() {
        let mut frame = complete_frame(false, false, b"payload");
        let field = checksum_field(&frame);
        frame[field].fill(0);
        assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
    }

    #[test]
    fn fragments_are_left_alone() {
        let mut frame = make_partial(complete_frame(false, false, b"payload"));
        frame[20] = 0x20;
        assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
    }

    /// `frame` as `make_partial` left it, its payload's first word (0 before) such that the field is the complete checksum too.
    fn make_complete_by_chance(mut frame: Vec<u8>) -> Vec<u8> {
        let field = checksum_field(&frame);
        let mut completed = frame.clone();
        complete(&mut completed, &vnet_header(&frame, MTU_BYTES)).unwrap();
        let word = |bytes: &[u8]| u16::from_be_bytes([bytes[field.start], bytes[field.start + 1]]);
        let delta = checksum::update(0xffff, word(&frame), word(&completed));
        let segment = Segment::parse(&frame).unwrap();
        let header_len = segment.header_len().expect("the frame was whole");
        let payload = segment.transport.offset + header_len;
        frame[payload..payload + 2].copy_from_slice(&(!delta).to_be_bytes());
        assert!(checksum_is_valid(&frame));
        frame
    }

    #[test]
    fn a_complete_checksum_equal_to_the_pseudo_sum_is_not_partial_and_would_be_finished_to_itself()
    {
        for tcp in [true, false] {
            let partial = make_partial(complete_frame(false, tcp, &[0, 0, 1, 2]));
            let header = vnet_header(&partial, MTU_BYTES);
            assert!(header.needs_csum);
            let frame = make_complete_by_chance(partial);
            assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
            let mut finished = frame.clone();
            complete(&mut finished, &header).unwrap();
            assert_eq!(finished, frame);
        }
    }

    /// One super-frame in 65,536: without a segment size no link behind the TAP would carry it.
    #[test]
    fn a_super_frame_whose_partial_checksum_is_complete_by_chance_is_segmented() {
        let frame = make_partial(complete_frame(false, true, &[0; 20_000]));
        let frame = make_complete_by_chance(frame);
        assert_eq!(vnet_header(&frame, MTU_BYTES).gso_size, 1370);
    }

    #[test]
    fn a_computed_checksum_of_zero_is_written_as_ones() {
        let mut frame = make_partial(complete_frame(false, false, &[0, 0]));
        let header = vnet_header(&frame, MTU_BYTES);
        let mut completed = frame.clone();
        complete(&mut completed, &header).unwrap();
        // The missing share as payload makes the sum all ones.
        let field = checksum_field(&frame);
        frame[42] = completed[field.start];
        frame[43] = completed[field.start + 1];
        complete(&mut frame, &header).unwrap();
        assert_eq!(frame[field], [0xff, 0xff]);
        assert!(checksum_is_valid(&frame));
    }

    #[test]
    fn nothing_is_completed_without_needs_csum() {
        let frame = make_partial(complete_frame(false, true, b"payload"));
        let mut untouched = frame.clone();
        let header = VnetHeader {
            needs_csum: false,
            ..needs_csum(34, 16)
        };
        assert_eq!(complete(&mut untouched, &header), Ok(()));
        assert_eq!(untouched, frame);
    }

    #[test]
    fn a_checksum_outside_the_frame_is_refused_and_nothing_written() {
        let frame = make_partial(complete_frame(false, false, b"payload"));
        let last = u16::try_from(frame.len()).unwrap() - 2;
        for (start, offset) in [
            (0, 16),
            (13, 6),
            (last, 1),
            (last + 2, 0),
            (34, last),
            (u16::MAX, u16::MAX),
        ] {
            let mut refused = frame.clone();
            let error = BadVnetHeader {
                start,
                offset,
                frame_len: frame.len(),
            };
            assert_eq!(
                complete(&mut refused, &needs_csum(start, offset)),
                Err(error)
            );
            assert_eq!(refused, frame);
        }
        assert_eq!(complete(&mut frame.clone(), &needs_csum(last, 0)), Ok(()));
    }

    /// etherparse's opinion. 0 and 0xffff are equal, but for UDP, where 0 says that there is none.
    fn checksum_is_valid(frame: &[u8]) -> bool {
        use etherparse::NetHeaders::{Ipv4, Ipv6};
        use etherparse::TransportHeader::{Tcp, Udp};
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let payload = headers.payload.slice();
        let (field, expected) = match (headers.net.unwrap(), headers.transport.unwrap()) {
            (Ipv4(ip, _), Tcp(tcp)) => (tcp.checksum, tcp.calc_checksum_ipv4(&ip, payload)),
            (Ipv4(ip, _), Udp(udp)) => (udp.checksum, udp.calc_checksum_ipv4(&ip, payload)),
            (Ipv6(ip, _), Tcp(tcp)) => (tcp.checksum, tcp.calc_checksum_ipv6(&ip, payload)),
            (Ipv6(ip, _), Udp(udp)) => (udp.checksum, udp.calc_checksum_ipv6(&ip, payload)),
            other => panic!("{other:?} is neither TCP nor UDP"),
        };
        field != 0 && field % 0xffff == expected.unwrap() % 0xffff
    }

    proptest! {
        #[test]
        fn completed_frames_verify(v6: bool, tcp: bool, payload in vec(any::<u8>(), 0..2000)) {
            let mut frame = make_partial(complete_frame(v6, tcp, &payload));
            let header = vnet_header(&frame, u32::MAX);
            prop_assert_eq!(complete(&mut frame, &header), Ok(()));
            prop_assert!(checksum_is_valid(&frame));
            prop_assert_eq!(vnet_header(&frame, MTU_BYTES), VnetHeader::default());
        }

        #[test]
        fn no_frame_panics(frame in vec(any::<u8>(), 0..200), mtu_bytes: u32) {
            let header = vnet_header(&frame, mtu_bytes);
            prop_assert!(complete(&mut frame.clone(), &header).is_ok());
        }

        #[test]
        fn no_mangled_partial_frame_panics(
            v6: bool, tcp: bool, at: prop::sample::Index, value: u8, len: prop::sample::Index, mtu_bytes in 0_u32..3000,
        ) {
            let mut frame = make_partial(complete_frame(v6, tcp, &[7; 1500]));
            let at = at.index(80);
            frame[at] = value;
            frame.truncate(len.index(frame.len()) + 1);
            let header = vnet_header(&frame, mtu_bytes);
            prop_assert!(complete(&mut frame, &header).is_ok());
        }

        #[test]
        fn no_header_panics(mut frame in vec(any::<u8>(), 0..200), header: [u8; vnet::HEADER_LEN]) {
            if let Some(header) = VnetHeader::parse(&header) {
                let len = frame.len();
                if let Err(error) = complete(&mut frame, &header) {
                    prop_assert_eq!(error.frame_len, len);
                }
            }
        }
    }
}
