//! Writing frames to the TAP, joined or one by one, and counting what became of them.

use std::io::{self, IoSlice};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::Scope;
use super::ingress::arrived;
use crate::drop_reason::DropReason;
use crate::io::probe::takes_super_frames;
use crate::io::{Arrivals, Fault, Offload, Tap};
use crate::offload::{HEADER_LEN_MAX, Merged, SLICES_MAX, Segmenter, Slice};
use crate::tables::{MarkSource, Peer};
use crate::vtep::Fate;
use crate::wire::ethernet::{self, Frame};
use crate::wire::vnet::{self, GsoType, VnetHeader};
use crate::wire::vxlan::{self, Header};
use crate::wire::{MacAddr, Mark, mark_tag};

/// EINVAL: of a super-frame it may mean the kind, of a frame the frame.
const REFUSED: Fault = Fault::Packet(DropReason::TapRefused);

/// The TAP does not take this kind of super-frame.
struct Refused;

/// The TAP's writing side, for the time of a read.
pub(super) struct Writer<'a, 't, T> {
    tap: &'a mut T,
    scope: &'a Scope<'t>,
    /// What stands in place of the source MAC of the frames being written.
    tag: Option<MacAddr>,
    /// The TAP was deleted.
    gone: Option<io::Error>,
}

impl<'a, 't, T: Tap> Writer<'a, 't, T> {
    pub(super) fn new(tap: &'a mut T, scope: &'a Scope<'t>) -> Self {
        Self {
            tap,
            scope,
            tag: None,
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
        self.tag = self.tag_of(arrivals, merged);
        let partial = merged.partial_checksums();
        if partial > 0 {
            let buffer = merged.slices()[0].buffer;
            let peer = self.peer(arrivals, buffer);
            let shards = self.scope.shards(peer);
            shards.for_each(|shard| shard.count_partial_checksums(partial.into()));
        }
        let offload = match merged.header().gso_type {
            GsoType::None => {
                let _ = self.write_whole(arrivals, merged);
                return;
            }
            GsoType::UdpL4 => Offload::Uso,
            GsoType::TcpV4 | GsoType::TcpV6 => Offload::TapCoalescing,
        };
        if self.scope.offloads.is_on(offload) && self.write_whole(arrivals, merged).is_ok() {
            return;
        }
        let taken = if merged.is_super_frame() {
            self.write_each(arrivals, merged)
        } else {
            self.write_cut(arrivals, merged)
        };
        // Frames that the TAP does not take alone either are no fault of the offload.
        if taken > 0 && self.scope.offloads.is_on(offload) {
            self.judge_refusal(offload, merged.header().gso_type);
        }
    }

    /// EINVAL may be this frame's, which a container may have made so: only if the TAP takes no honest one either is it the offload's.
    fn judge_refusal(&mut self, offload: Offload, gso_type: GsoType) {
        if takes_super_frames(self.tap, gso_type) {
            self.scope.offloads.count_refusal(offload);
        } else {
            self.scope.offloads.refuse(offload);
        }
    }

    /// # Errors
    /// The TAP refuses it as a super-frame: nothing is counted.
    fn write_whole(&mut self, arrivals: &Arrivals, merged: &Merged<'_>) -> Result<(), Refused> {
        let sent = self.send(arrivals, merged.header(), merged.headers(), merged.slices());
        match sent {
            Err(error)
                if merged.header().gso_type != GsoType::None
                    && Fault::of_tap_write(&error) == REFUSED =>
            {
                Err(Refused)
            }
            sent => {
                self.count(arrivals, merged.frames(), sent);
                Ok(())
            }
        }
    }

    /// Frames that were joined here, each as it came; returns how many the TAP took.
    fn write_each(&mut self, arrivals: &Arrivals, merged: &Merged<'_>) -> usize {
        let mut taken = 0;
        for (frame, header) in merged.frames().zip(merged.frame_headers()) {
            let sent = self.send(arrivals, &header, &[], &[frame]);
            taken += usize::from(sent.is_ok());
            self.count(arrivals, [frame], sent);
        }
        taken
    }

    /// A super-frame that came as one, cut; returns how many of its segments the TAP took. It is counted as the one frame it came as.
    fn write_cut(&mut self, arrivals: &Arrivals, merged: &Merged<'_>) -> usize {
        let at = merged.slices()[0];
        let frame = &arrivals.slot(at.buffer)[at.range()];
        let Ok(segmenter) = Segmenter::new(frame, merged.header()) else {
            self.count(
                arrivals,
                [at],
                Err(io::Error::from_raw_os_error(libc::EINVAL)),
            );
            return 0;
        };
        let mut headers = [0; HEADER_LEN_MAX];
        let (mut taken, mut result) = (0, Ok(()));
        for index in 0..segmenter.segments() {
            let payload = segmenter.emit(index, &mut headers);
            let headers = &headers[..segmenter.header_len()];
            let payload = Slice {
                buffer: at.buffer,
                start: at.start + payload.start,
                end: at.start + payload.end,
            };
            match self.send(arrivals, &VnetHeader::default(), headers, &[payload]) {
                Ok(()) => taken += 1,
                Err(error) => result = Err(error),
            }
        }
        self.count(arrivals, [at], result);
        taken
    }

    fn send(
        &mut self,
        arrivals: &Arrivals,
        header: &VnetHeader,
        headers: &[u8],
        payloads: &[Slice],
    ) -> io::Result<()> {
        let payloads = payloads.iter();
        let parts = payloads.map(|at| &arrivals.slot(at.buffer)[at.range()]);
        let mut parts = std::iter::once(headers)
            .chain(parts)
            .filter(|part| !part.is_empty());
        let mut head = Head::new(header);
        let first = parts.next().map(|first| head.take(first, self.tag));
        let mut slices: ArrayVec<IoSlice<'_>, { 2 + SLICES_MAX }> = ArrayVec::new();
        slices.push(IoSlice::new(head.bytes()));
        slices.extend(first.into_iter().chain(parts).map(IoSlice::new));
        self.tap.send(&slices)
    }

    /// What the host's programs are to make a mark of. All of the frames came under one VXLAN header and from one source MAC.
    ///
    /// A MAC of that form that came from a peer is overwritten, whether somebody reads it or not: it would become a mark that nobody
    /// gave.
    fn tag_of(&self, arrivals: &Arrivals, merged: &Merged<'_>) -> Option<MacAddr> {
        let at = merged.frames().next()?;
        let slot = arrivals.slot(at.buffer);
        let local = &self.scope.tables.local;
        let is_forged = || {
            let source = Frame::new_checked(&slot[at.range()]).map(Frame::source);
            source.and_then(mark_tag::parse).is_some()
        };
        let mark = || match local.marks {
            MarkSource::Packet if self.scope.mark_tags.are_on() => {
                let header = Header::parse(slot[..at.start].last_chunk()?, local.gbp).ok()?;
                header.mark.filter(|mark| *mark != Mark::NONE)
            }
            MarkSource::Packet | MarkSource::Table | MarkSource::Off => None,
        };
        let forged = || is_forged().then_some(Mark::NONE);
        mark().or_else(forged).map(mark_tag::emit)
    }

    /// All `frames` came from one peer.
    fn count(
        &mut self,
        arrivals: &Arrivals,
        frames: impl IntoIterator<Item = Slice>,
        sent: io::Result<()>,
    ) {
        let refused = sent.as_ref().err().map(Fault::write_drop);
        let mut buffer = 0;
        let (packets, bytes) = frames.into_iter().fold((0, 0), |(packets, bytes), frame| {
            buffer = frame.buffer;
            if let Some(reason) = refused {
                self.capture(arrivals, frame, reason);
            }
            (packets + 1, bytes + frame.len())
        });
        let peer = self.peer(arrivals, buffer);
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

    /// Shows a datagram whose frame the TAP did not take.
    fn capture(&self, arrivals: &Arrivals, frame: Slice, reason: DropReason) {
        let slot = arrivals.slot(frame.buffer);
        let bytes = &slot[frame.start - vxlan::HEADER_LEN..frame.end];
        let message = &arrivals.messages()[frame.buffer];
        let scope = self.scope;
        scope.capture(bytes, || {
            arrived(message, bytes, scope, Fate::Drop, Some(reason))
        });
    }

    /// Who sent what is in this buffer, if it is one of ours.
    fn peer(&self, arrivals: &Arrivals, buffer: usize) -> Option<&'t Arc<Peer>> {
        let source = arrivals.messages()[buffer].source.ip().to_canonical();
        self.scope.tables.peers.lookup(source)
    }
}

/// What stands before the frame, and as much of the frame as a tag changes.
struct Head {
    bytes: [u8; vnet::HEADER_LEN + ethernet::SOURCE.end],
    len: usize,
}

impl Head {
    fn new(header: &VnetHeader) -> Self {
        let mut bytes = [0; vnet::HEADER_LEN + ethernet::SOURCE.end];
        bytes[..vnet::HEADER_LEN].copy_from_slice(&header.emit());
        Self {
            bytes,
            len: vnet::HEADER_LEN,
        }
    }

    /// With a tag, takes over the MACs of a frame that begins with `frame`, the tag as source. Returns what follows.
    fn take<'f>(&mut self, frame: &'f [u8], tag: Option<MacAddr>) -> &'f [u8] {
        let macs = frame.split_at_checked(ethernet::SOURCE.end);
        let Some(((macs, rest), tag)) = macs.zip(tag) else {
            return frame;
        };
        let room = &mut self.bytes[vnet::HEADER_LEN..];
        room.copy_from_slice(macs);
        ethernet::write_source(room, tag);
        self.len = self.bytes.len();
        rest
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
