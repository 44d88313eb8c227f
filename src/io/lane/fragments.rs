//! Sending what does not fit the path to its peer in fragments, as the router that we are to the host would (RFC 791 section 3.2). A
//! super-frame's segments are packets of their own, so each is fragmented by itself.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use super::Slots;
use super::outbox::{RUN_BYTES_MAX, RUN_MAX};
use super::sender::{Hop, Sender};
use crate::drop_reason::DropReason;
use crate::io::{Run, Underlay};
use crate::offload::Segmenter;
use crate::wire::ip::{FRAGMENT_HEADER_LEN_MAX, Fragmenter};
use crate::wire::{ethernet, vxlan};

const _: () = assert!(vxlan::HEADER_LEN + FRAGMENT_HEADER_LEN_MAX <= super::SLOT_BYTES);

/// The longest segment: Ethernet, two VLAN tags, and the largest IP packet.
const SEGMENT_MAX: usize = ethernet::HEADER_LEN + 8 + u16::MAX as usize;

/// Room for one segment put together. Its pages are the host's until the first one is.
#[derive(Debug)]
pub(super) struct Whole(Box<[u8]>);

impl Default for Whole {
    fn default() -> Self {
        Self(vec![0; SEGMENT_MAX].into())
    }
}

impl Whole {
    /// Segment `index`, headers and payload in one place.
    fn segment(&mut self, segmenter: &Segmenter<'_>, index: usize, frame: &[u8]) -> &[u8] {
        let payload = segmenter.emit(index, &mut self.0);
        let len = segmenter.header_len() + payload.len();
        self.0[segmenter.header_len()..len].copy_from_slice(&frame[payload]);
        &self.0[..len]
    }
}

/// Where fragments go and how large they may be.
pub(super) struct Narrow<'a, 't> {
    pub(super) hop: Hop<'t>,
    pub(super) vxlan: [u8; vxlan::HEADER_LEN],
    /// The largest packet, in bytes behind the Ethernet header.
    pub(super) mtu: u32,
    pub(super) slots: &'a mut Slots,
}

impl Narrow<'_, '_> {
    /// Sends every segment of a super-frame, those that fit as they are.
    pub(super) fn send_segments(
        &mut self,
        frame: &[u8],
        segmenter: &Segmenter<'_>,
        whole: &mut Whole,
        sender: &mut Sender<'_, '_, impl Underlay>,
    ) {
        for index in 0..segmenter.segments() {
            let segment = whole.segment(segmenter, index, frame);
            if segment.len() <= ethernet::HEADER_LEN + self.mtu as usize {
                let slices = [IoSlice::new(&self.vxlan), IoSlice::new(segment)];
                sender.send(Run::new(&slices, 2), &self.hop);
            } else {
                self.send_fragments(segment, sender);
            }
        }
    }

    /// Sends a frame in fragments; one that cannot be fragmented is counted.
    pub(super) fn send_fragments(
        &mut self,
        frame: &[u8],
        sender: &mut Sender<'_, '_, impl Underlay>,
    ) {
        let Some(fragmenter) = Fragmenter::new(frame, self.mtu) else {
            let peer = Some(&self.hop.destination.peer);
            return sender.scope.drop_frame(peer, DropReason::PathMtu, frame);
        };
        let datagram_len = vxlan::HEADER_LEN + ethernet::HEADER_LEN + self.mtu as usize;
        let run_max = (RUN_BYTES_MAX / datagram_len).clamp(1, RUN_MAX);
        let headers_len = vxlan::HEADER_LEN + fragmenter.header_len();
        for start in (0..fragmenter.count()).step_by(run_max) {
            let run = start..fragmenter.count().min(start + run_max);
            let mut slices: ArrayVec<IoSlice<'_>, { 2 * RUN_MAX }> = ArrayVec::new();
            for (index, slot) in run.zip(self.slots.iter_mut()) {
                let (vxlan_room, headers) = slot.split_at_mut(vxlan::HEADER_LEN);
                vxlan_room.copy_from_slice(&self.vxlan);
                let payload = fragmenter.emit(index, headers);
                slices.push(IoSlice::new(&slot[..headers_len]));
                slices.push(IoSlice::new(&frame[payload]));
            }
            sender.send(Run::new(&slices, 2), &self.hop);
        }
    }
}
