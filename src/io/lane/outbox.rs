//! Datagrams of one batch that wait for others to share a send with: those of equal size on one hop, across flows if these have the
//! source port in common. Nothing waits longer than its batch.

use std::io::IoSlice;

use arrayvec::ArrayVec;

use super::BATCH;
use super::sender::{Hop, Sender};
use crate::io::arena::{Arena, Packet};
use crate::io::{Run, Underlay};
use crate::wire::{ethernet, vxlan};

/// Segments of the largest super-frame that one send holds where the TAP's MTU is `mtu_bytes`. A container whose link has it as its
/// `gso_max_segs` never makes one that takes a second, nearly empty send.
#[must_use]
pub fn run_max_segs(mtu_bytes: u32) -> u32 {
    let datagram_len = vxlan::HEADER_LEN + ethernet::HEADER_LEN + mtu_bytes as usize;
    (RUN_BYTES_MAX / datagram_len).clamp(1, RUN_MAX) as u32
}

/// Datagrams in one send. Kernels before 6.9 take no more (`UDP_MAX_SEGMENTS`).
pub(super) const RUN_MAX: usize = 64;
/// Bytes in one send: what an IPv4 datagram can hold.
pub(super) const RUN_BYTES_MAX: usize = 65_507;

const _: () = assert!(BATCH <= RUN_MAX && BATCH <= u64::BITS as usize);

/// A datagram in the arena and where it goes.
#[derive(Debug)]
struct Waiting<'t> {
    packet: Packet,
    hop: Hop<'t>,
}

/// What waits, in the order it came.
#[derive(Debug, Default)]
pub(super) struct Outbox<'t>(ArrayVec<Waiting<'t>, BATCH>);

impl<'t> Outbox<'t> {
    /// Adds a datagram.
    pub(super) fn push(
        &mut self,
        packet: Packet,
        hop: Hop<'t>,
        arena: &Arena,
        sender: &mut Sender<'_, '_, impl Underlay>,
    ) {
        if self.0.is_full() {
            self.flush(arena, sender);
        }
        self.0.push(Waiting { packet, hop });
    }

    /// Sends everything if something might be of a flow that goes by `hop`: what is sent next must not overtake it.
    pub(super) fn flush_beside(
        &mut self,
        hop: &Hop<'_>,
        arena: &Arena,
        sender: &mut Sender<'_, '_, impl Underlay>,
    ) {
        if self.0.iter().any(|waiting| waiting.hop.is_beside(hop)) {
            self.flush(arena, sender);
        }
    }

    /// Sends everything. Flows keep their order: a run ends at the first datagram beside it that does not fit.
    pub(super) fn flush(&mut self, arena: &Arena, sender: &mut Sender<'_, '_, impl Underlay>) {
        // One bit for each datagram not sent yet.
        let mut left = u64::MAX
            .checked_shr(u64::BITS - self.0.len() as u32)
            .unwrap_or(0);
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let run = self.run(first, &mut left);
            let slices: ArrayVec<IoSlice<'_>, RUN_MAX> = run
                .iter()
                .map(|packet| IoSlice::new(arena.datagram(*packet)))
                .collect();
            sender.send(Run::new(&slices, 1), &self.0[first].hop);
        }
        self.0.clear();
    }

    /// The datagram `first` of those `left` and all that share its send, which are no longer left.
    fn run(&self, first: usize, left: &mut u64) -> ArrayVec<Packet, RUN_MAX> {
        let Waiting { packet, hop } = &self.0[first];
        let len = packet.datagram_len();
        *left &= !(1 << first);
        let mut run = ArrayVec::from_iter([*packet]);
        let mut candidates = *left;
        while candidates != 0 {
            let index = candidates.trailing_zeros() as usize;
            candidates &= candidates - 1;
            let next = &self.0[index];
            if !hop.is_beside(&next.hop) {
                continue;
            }
            let next_len = next.packet.datagram_len();
            let fits =
                hop.is_same(&next.hop) && next_len <= len && (run.len() + 1) * len <= RUN_BYTES_MAX;
            if !fits {
                break;
            }
            *left &= !(1 << index);
            run.push(next.packet);
            if next_len < len {
                break;
            }
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_what_one_send_takes() {
        for (mtu_bytes, segments) in [(1450, 44), (1410, 45), (8950, 7), (576, 64), (65_485, 1)] {
            assert_eq!(run_max_segs(mtu_bytes), segments, "{mtu_bytes}");
        }
    }
}
