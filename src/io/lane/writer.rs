//! Writing frames to the TAP, joined or one by one, and counting what became of them.

use std::io::{self, IoSlice};

use arrayvec::ArrayVec;

use super::Scope;
use crate::drop_reason::DropReason;
use crate::io::{Arrivals, Fault, Offload, Tap};
use crate::offload::{Merged, SLICES_MAX, Slice};
use crate::wire::vnet::{GsoType, VnetHeader};

/// EINVAL: of a super-frame it may mean the kind, of a frame the frame.
const REFUSED: Fault = Fault::Packet(DropReason::TapRefused);

/// The TAP's writing side, for the time of a read.
pub(super) struct Writer<'a, 't, T> {
    tap: &'a mut T,
    scope: &'a Scope<'t>,
    /// The TAP was deleted.
    gone: Option<io::Error>,
}

impl<'a, 't, T: Tap> Writer<'a, 't, T> {
    pub(super) fn new(tap: &'a mut T, scope: &'a Scope<'t>) -> Self {
        Self {
            tap,
            scope,
            gone: None,
        }
    }

    pub(super) fn scope(&self) -> &'a Scope<'t> {
        self.scope
    }

    /// The end.
    ///
    /// # Errors
    /// The TAP was deleted.
    pub(super) fn finish(self) -> io::Result<()> {
        self.gone.map_or(Ok(()), Err)
    }

    /// Writes frames as one, or one by one if the TAP refuses that. Every frame is counted once, as delivered or as dropped.
    pub(super) fn write(&mut self, arrivals: &Arrivals, merged: &Merged<'_>) {
        let sent = self.send(arrivals, merged.header(), merged.headers(), merged.slices());
        match sent {
            Err(error) if merged.is_super_frame() && Fault::of_tap_write(&error) == REFUSED => {
                self.write_each(arrivals, merged);
            }
            sent => self.count(arrivals, merged.frames(), sent),
        }
    }

    fn write_each(&mut self, arrivals: &Arrivals, merged: &Merged<'_>) {
        let mut taken = 0;
        for frame in merged.frames() {
            let sent = self.send(arrivals, &VnetHeader::default(), &[], &[frame]);
            taken += usize::from(sent.is_ok());
            self.count(arrivals, [frame], sent);
        }
        // Frames that the TAP does not take alone either are no fault of the offload.
        if taken > 0 {
            self.scope.offloads.refuse(match merged.header().gso_type {
                GsoType::UdpL4 => Offload::Uso,
                _ => Offload::TapCoalescing,
            });
        }
    }

    fn send(
        &mut self,
        arrivals: &Arrivals,
        header: &VnetHeader,
        headers: &[u8],
        payloads: &[Slice],
    ) -> io::Result<()> {
        let header = header.emit();
        let mut slices: ArrayVec<IoSlice<'_>, { 2 + SLICES_MAX }> = ArrayVec::new();
        slices.push(IoSlice::new(&header));
        if !headers.is_empty() {
            slices.push(IoSlice::new(headers));
        }
        let payloads = payloads.iter();
        slices.extend(payloads.map(|at| IoSlice::new(&arrivals.slot(at.buffer)[at.range()])));
        self.tap.send(&slices)
    }

    /// All `frames` came from one peer.
    fn count(
        &mut self,
        arrivals: &Arrivals,
        frames: impl IntoIterator<Item = Slice>,
        sent: io::Result<()>,
    ) {
        let mut buffer = 0;
        let (packets, bytes) = frames.into_iter().fold((0, 0), |(packets, bytes), frame| {
            buffer = frame.buffer;
            (packets + 1, bytes + frame.len())
        });
        let source = arrivals.messages()[buffer].source.ip().to_canonical();
        let peer = self.scope.tables.peers.lookup(source);
        for shard in self.scope.shards(peer) {
            match &sent {
                Ok(()) => shard.count_rx(packets, bytes),
                Err(error) => shard.count_drops(Fault::write_drop(error), packets as u64),
            }
        }
        if let Err(error) = sent
            && Fault::of_tap_write(&error) == Fault::Gone
        {
            self.gone = Some(error);
        }
    }
}
