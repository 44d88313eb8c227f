//! From the underlay to the overlay: the datagrams of one read become frames, and frames of one flow one write.

use std::ops::Range;

use super::egress::Egress;
use super::writer::Writer;
use super::{BATCH, LaneError, LaneOptions, Patience, Progress, Scope};
use crate::drop_reason::DropReason;
use crate::io::capture::{Seen, Sender};
use crate::io::{Arrivals, Datagram, Fault, Offload, Offloads, Tap, Underlay};
use crate::offload::{self, CoalesceOptions, Coalescer, MergeKey, Merged, Slice};
use crate::vtep::{self, Fate, Ingress as Verdict, Received};
use crate::wire::{ip, vxlan};

/// What the direction keeps from read to read.
#[derive(Debug)]
pub(super) struct Ingress {
    arrivals: Arrivals,
    coalescer: Coalescer,
    mtu_bytes: u32,
    patience: Patience,
    lost: Lost,
}

/// What the host dropped before it was read.
#[derive(Debug, Default)]
struct Lost {
    /// As many are counted.
    counted: u32,
    /// Batches since the host was asked.
    batches: u32,
}

/// Batches after which the host is asked how many datagrams it dropped, where there is no pause between them: a system call in some
/// thousand datagrams.
const LOST_BATCHES_MAX: u32 = 64;

/// What the direction writes to, besides the TAP.
struct Back<'a, U> {
    underlay: &'a mut U,
    egress: &'a mut Egress,
}

impl Ingress {
    pub(super) fn new(options: &LaneOptions) -> Self {
        Self {
            arrivals: Arrivals::default(),
            coalescer: Coalescer::new(coalesce(&options.offloads, options.mtu_bytes)),
            mtu_bytes: options.mtu_bytes,
            patience: Patience::default(),
            lost: Lost::default(),
        }
    }

    /// Up to a batch of messages under one snapshot.
    pub(super) fn batch(
        &mut self,
        tap: &mut impl Tap,
        underlay: &mut impl Underlay,
        egress: &mut Egress,
        scope: &Scope<'_>,
    ) -> Result<Progress, LaneError> {
        let progress = self.read(tap, underlay, egress, scope);
        self.lost.count_after(&progress, underlay, scope);
        progress
    }

    fn read(
        &mut self,
        tap: &mut impl Tap,
        underlay: &mut impl Underlay,
        egress: &mut Egress,
        scope: &Scope<'_>,
    ) -> Result<Progress, LaneError> {
        let options = coalesce(scope.offloads, self.mtu_bytes);
        self.coalescer.set_options(options);
        let mut read = 0;
        while read < BATCH {
            match underlay.recv(&mut self.arrivals) {
                Ok(()) => {
                    self.patience.renew();
                    read += self.arrivals.messages().len();
                    self.deliver(Writer::new(tap, scope), Back { underlay, egress })?;
                    if !self.arrivals.is_full() {
                        return Ok(Progress::Drained);
                    }
                }
                Err(error) => match self.patience.judge(Fault::of_receive(&error)) {
                    Fault::Empty => return Ok(Progress::empty_after(read)),
                    Fault::Gone => return Err(LaneError::Underlay(error)),
                    Fault::Packet(reason) => scope.shard().count_drop(reason),
                    Fault::Passing | Fault::Refused => {}
                },
            }
        }
        Ok(Progress::More)
    }

    /// Everything that one read gave.
    fn deliver(
        &mut self,
        mut writer: Writer<'_, '_, impl Tap>,
        mut back: Back<'_, impl Underlay>,
    ) -> Result<(), LaneError> {
        for index in 0..self.arrivals.messages().len() {
            let message = self.arrivals.messages()[index];
            self.message(index, &message, &mut writer, &mut back);
        }
        let arrivals = &self.arrivals;
        let out = &mut |merged: &Merged<'_>| writer.write(arrivals, merged);
        self.coalescer.flush(out);
        writer.finish().map_err(LaneError::Tap)
    }

    /// A datagram, or several of one sender that the host joined.
    fn message(
        &mut self,
        index: usize,
        message: &Datagram,
        writer: &mut Writer<'_, '_, impl Tap>,
        back: &mut Back<'_, impl Underlay>,
    ) {
        let received = Received {
            source: message.source.ip().to_canonical(),
            tos: message.tos,
        };
        if message.truncated {
            let scope = writer.scope();
            let peer = scope.tables.peers.lookup(received.source);
            let reason = DropReason::TruncatedDatagram;
            scope.count_drop(peer, reason);
            let bytes = &self.arrivals.slot(index)[..message.len];
            return scope.capture(bytes, || {
                arrived(message, bytes, scope, Fate::Drop, Some(reason))
            });
        }
        let joined = &self.arrivals.slot(index)[..message.len];
        if let Some(gso_size) = inner_segment_bytes(message, joined) {
            let whole = 0..message.len;
            return self.judge(index, whole, Some(gso_size), received, writer, back);
        }
        for segment in segments(message) {
            self.segment(index, segment, received, writer, back);
        }
    }

    /// One datagram. What continues an open run, every byte equal that a verdict depends on, shares the verdict of the run; anything
    /// else is judged.
    fn segment(
        &mut self,
        index: usize,
        segment: Range<usize>,
        received: Received,
        writer: &mut Writer<'_, '_, impl Tap>,
        back: &mut Back<'_, impl Underlay>,
    ) {
        let arrivals = &self.arrivals;
        let at = frame_of(index, &segment);
        let datagram = &arrivals.slot(index)[segment.clone()];
        let key = merge_key(received, datagram);
        let frame = &arrivals.slot(index)[at.range()];
        let out = &mut |merged: &Merged<'_>| writer.write(arrivals, merged);
        if !self.coalescer.extend(&key, at, frame, out) {
            return self.judge(index, segment, None, received, writer, back);
        }
        let scope = writer.scope();
        scope.capture(datagram, || {
            let message = &arrivals.messages()[index];
            arrived(message, datagram, scope, Fate::Deliver, None)
        });
    }

    /// A datagram whose verdict is not known. With `gso_size` its frame is a UDP super-frame of segments of that many bytes.
    fn judge(
        &mut self,
        index: usize,
        segment: Range<usize>,
        gso_size: Option<u16>,
        received: Received,
        writer: &mut Writer<'_, '_, impl Tap>,
        back: &mut Back<'_, impl Underlay>,
    ) {
        let scope = writer.scope();
        let arrivals = &mut self.arrivals;
        let at = frame_of(index, &segment);
        let datagram = &arrivals.slot(index)[segment];
        let key = merge_key(received, datagram);
        let judged = admitted(vtep::ingress(scope.tables, datagram, received), scope);
        scope.capture(datagram, || {
            let (fate, reason) = fate(&judged);
            arrived(&arrivals.messages()[index], datagram, scope, fate, reason)
        });
        match judged {
            Verdict::Deliver(deliver) => {
                if let Some(guarded) = &scope.guarded {
                    guarded.note_fragments(&datagram[vxlan::HEADER_LEN..]);
                }
                if let Some(ecn) = deliver.ecn {
                    ip::write_ecn(&mut arrivals.slot_mut(index)[at.range()], ecn);
                }
                let frame = &arrivals.slot(index)[at.range()];
                let out = &mut |merged: &Merged<'_>| writer.write(arrivals, merged);
                match gso_size {
                    None => self.coalescer.push(&key, at, frame, out),
                    Some(bytes) => self.coalescer.push_super_frame(at, frame, bytes, out),
                }
            }
            Verdict::Unsolicited { deliver, subject } => {
                let frame = &datagram[vxlan::HEADER_LEN..];
                if let Some(guarded) = &scope.guarded
                    && let Some(told) = guarded.refuse(&deliver, subject.as_ref(), scope)
                {
                    back.egress
                        .reject(frame, told, deliver.peer, back.underlay, scope);
                }
            }
            Verdict::Reply { reply, peer } => {
                back.egress
                    .reply_to_peer(&reply, peer, back.underlay, scope);
            }
            Verdict::Drop { reason, peer } => scope.count_drop(peer, reason),
        }
    }
}

impl Lost {
    /// Asks the host before the lane sleeps, so that what was lost is told though nothing comes after it.
    fn count_after(
        &mut self,
        progress: &Result<Progress, LaneError>,
        underlay: &mut impl Underlay,
        scope: &Scope<'_>,
    ) {
        self.batches += 1;
        if !matches!(progress, Ok(Progress::Idle)) && self.batches < LOST_BATCHES_MAX {
            return;
        }
        self.batches = 0;
        let Some(total) = underlay.dropped() else {
            return;
        };
        let fresh = total.wrapping_sub(self.counted);
        self.counted = total;
        if fresh > 0 {
            let shard = scope.shard();
            shard.count_drops(DropReason::ReceiveQueueFull, fresh.into());
        }
    }
}

fn fate(judged: &Verdict<'_>) -> (Fate, Option<DropReason>) {
    match judged {
        Verdict::Deliver(_) => (Fate::Deliver, None),
        Verdict::Unsolicited { .. } => (Fate::Drop, Some(DropReason::PolicyDenied)),
        Verdict::Reply { .. } => (Fate::Reply, None),
        Verdict::Drop { reason, .. } => (Fate::Drop, Some(*reason)),
    }
}

/// What is to be shown of a datagram.
pub(super) fn arrived<'p>(
    message: &Datagram,
    datagram: &[u8],
    scope: &Scope<'_>,
    fate: Fate,
    reason: Option<DropReason>,
) -> Seen<'p> {
    let sender = Sender {
        source: message.source,
        tos: message.tos,
    };
    Seen::arrived(sender, datagram, scope.tables.local.gbp, fate, reason)
}

/// What no rule lets in is delivered all the same if it is part of a flow that began here.
fn admitted<'t>(verdict: Verdict<'t>, scope: &Scope<'_>) -> Verdict<'t> {
    match (verdict, &scope.guarded) {
        (Verdict::Unsolicited { deliver, subject }, Some(guarded))
            if guarded.admits(subject.as_ref()) =>
        {
            Verdict::Deliver(deliver)
        }
        (verdict, _) => verdict,
    }
}

/// What the TAP takes now.
fn coalesce(offloads: &Offloads, mtu_bytes: u32) -> CoalesceOptions {
    let tcp = offloads.is_on(Offload::TapCoalescing);
    CoalesceOptions {
        mtu_bytes,
        tcp,
        udp: tcp && offloads.is_on(Offload::Uso),
    }
}

/// Where in slot `index` the frame of a datagram is. One without a VXLAN header has none, and is no run's.
fn frame_of(index: usize, datagram: &Range<usize>) -> Slice {
    Slice {
        buffer: index,
        start: datagram.end.min(datagram.start + vxlan::HEADER_LEN),
        end: datagram.end,
    }
}

fn merge_key(received: Received, datagram: &[u8]) -> MergeKey {
    MergeKey {
        source: received.source,
        tos: received.tos,
        header: datagram.first_chunk().copied().unwrap_or_default(),
    }
}

/// The segment size of a frame that a kernel peer sent as one UDP super-frame. Between links that carry it whole nobody cuts it, and
/// the socket then tells the inner segment size as if datagrams had been joined (`udp_cmsg_recv` does not ask which layer's it is).
/// Cutting the message by it would make datagrams of a container's payload. The lengths tell the two apart: datagrams that were
/// joined are shorter, each, than the message.
fn inner_segment_bytes(message: &Datagram, bytes: &[u8]) -> Option<u16> {
    let frame = bytes.get(vxlan::HEADER_LEN..)?;
    let segment_bytes = message.segment_bytes?;
    let is_one = bytes.len() > usize::from(segment_bytes) && offload::is_filled(frame);
    is_one.then_some(segment_bytes)
}

/// The datagrams of one message.
fn segments(message: &Datagram) -> impl Iterator<Item = Range<usize>> + use<> {
    let len = message.len;
    let stride = message.segment_bytes.map_or(usize::MAX, usize::from).max(1);
    // An empty datagram is one too.
    let starts = (0..len.max(1)).step_by(stride);
    starts.map(move |start| start..len.min(start.saturating_add(stride)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize, segment_bytes: Option<u16>) -> Datagram {
        Datagram {
            len,
            truncated: false,
            source: ([10, 0, 16, 14], 32768).into(),
            tos: 0,
            segment_bytes,
        }
    }

    #[test]
    fn a_joined_message_is_cut_where_it_was_joined() {
        let cut = |len, stride| segments(&message(len, stride)).collect::<Vec<_>>();
        assert_eq!(cut(250, Some(100)), [0..100, 100..200, 200..250]);
        assert_eq!(cut(200, Some(100)), [0..100, 100..200]);
        assert!(cut(50, Some(100)).iter().eq([&(0..50)]));
        assert!(cut(250, None).iter().eq([&(0..250)]));
        assert!(
            cut(0, None).iter().eq([&(0..0)]),
            "an empty datagram is counted too"
        );
        assert_eq!(cut(2, Some(0)), [0..1, 1..2], "whatever the kernel says");
    }
}
