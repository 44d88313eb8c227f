//! Packets of a TAP, their virtio_net_hdr first: finished, cut, and joined again.
//!
//! ```text
//! | how | virtio_net_hdr (10) | Ethernet frame ...
//! ```
//! With bit 0 of `how` lengths and checksums are repaired first, and the header tells of the transport's checksum as a TAP would.

use silk_vtep::offload::{self, SEGMENTS_MAX};
use silk_vtep::wire::vnet::{self, VnetHeader};

use super::offload::frames::checksums_are_right;
use super::offload::harness::{Arrival, OPTIONS, assert_faithful, coalesce, cut, flow};
use super::repair::{Checksum, repair};

const REPAIRED: u8 = 1;

/// No byte of payload is lost, all segments but the last are of one length, checksums are right if they were, and joining the segments
/// makes a super-frame that is cut into the same ones.
pub fn target(data: &[u8]) {
    let Some((how, packet)) = data.split_first() else {
        return;
    };
    let Some((header, frame)) = packet.split_first_chunk::<{ vnet::HEADER_LEN }>() else {
        return;
    };
    let Some(mut header) = VnetHeader::parse(header) else {
        return;
    };
    assert_eq!(VnetHeader::parse(&header.emit()), Some(header));
    let mut frame = frame.to_vec();
    let honest = how & REPAIRED != 0;
    if honest {
        make_honest(&mut header, &mut frame);
    }
    check_complete(&header, &frame, honest);
    check_cut(&header, &frame, honest);
}

fn make_honest(header: &mut VnetHeader, frame: &mut [u8]) {
    let checksum = if header.needs_csum {
        Checksum::Partial
    } else {
        Checksum::Complete
    };
    repair(frame, checksum);
    // Where the transport header is, the library says itself; the naive cut does not.
    let told = offload::vnet_header(frame, u32::MAX);
    if header.needs_csum && told.needs_csum {
        (header.csum_start, header.csum_offset) = (told.csum_start, told.csum_offset);
    }
}

/// Finishing touches the checksum field alone, and gives the right value.
fn check_complete(header: &VnetHeader, frame: &[u8], honest: bool) {
    let mut finished = frame.to_vec();
    let result = offload::complete(&mut finished, header);
    if result.is_err() || !header.needs_csum {
        return assert_eq!(finished, frame);
    }
    let at = usize::from(header.csum_start) + usize::from(header.csum_offset);
    assert!(header.csum_start >= 14);
    assert_eq!(finished[..at], frame[..at]);
    assert_eq!(finished[at + 2..], frame[at + 2..]);
    let told = offload::vnet_header(frame, u32::MAX);
    let is_transports = told.needs_csum
        && (told.csum_start, told.csum_offset) == (header.csum_start, header.csum_offset);
    if honest && is_transports && fills(frame) && flow(frame).is_some() {
        assert!(checksums_are_right(&finished));
    }
}

fn fills(frame: &[u8]) -> bool {
    offload::is_filled(frame)
}

fn check_cut(header: &VnetHeader, frame: &[u8], honest: bool) {
    let Ok(frames) = cut(frame, header) else {
        return;
    };
    assert!((1..=SEGMENTS_MAX).contains(&frames.len()));
    let gso_size = usize::from(header.gso_size);
    let (last, others) = frames.split_last().expect("one at the least");
    let header_len = match others.first() {
        Some(first) => first.len() - gso_size,
        // The one segment is the frame, as long as it was.
        None => return assert_eq!(last.len(), frame.len()),
    };
    assert!(others.iter().all(|one| one.len() == header_len + gso_size));
    assert!((header_len + 1..=header_len + gso_size).contains(&last.len()));
    let payloads = frames.iter().flat_map(|one| &one[header_len..]);
    assert!(
        payloads.eq(&frame[header_len..]),
        "payload was lost or changed"
    );
    let known = |frame: &Vec<u8>| flow(frame).is_some();
    if honest && header.needs_csum {
        assert!(
            frames
                .iter()
                .filter(|one| known(one))
                .all(|one| checksums_are_right(one))
        );
    }
    let arrivals: Vec<Arrival> = frames.into_iter().map(Arrival::new).collect();
    let written = coalesce(OPTIONS, std::slice::from_ref(&arrivals));
    assert_faithful(OPTIONS, &arrivals, &written);
}
