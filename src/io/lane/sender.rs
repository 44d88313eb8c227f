//! Sending a run of datagrams, whole or one by one, and counting what became of it.

use super::Scope;
use crate::drop_reason::DropReason;
use crate::io::capture::{Seen, Sessions};
use crate::io::{Fault, Offload, Run, Transmit, Underlay};
use crate::tables::Destination;
use crate::vtep::{Encap, Outer};
use crate::wire::vxlan;

/// How often one run is offered to the underlay: twice, since the first try may report an earlier datagram's fate.
const SEND_TRIES: usize = 2;

/// What the datagrams of one run have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop<'t> {
    pub(super) destination: &'t Destination,
    /// The source port's number.
    pub(super) source: usize,
    pub(super) outer: Outer,
}

impl Hop<'_> {
    /// Whether packets of one flow may be on both. In one snapshot a flow has one destination and one source port.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        std::ptr::eq(self.destination, other.destination) && self.source == other.source
    }

    /// Whether datagrams of both can share a send.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_beside(other) && self.outer == other.outer
    }
}

/// The underlay's sending side, for the time of a batch.
pub(super) struct Sender<'a, 't, U> {
    pub(super) underlay: &'a mut U,
    pub(super) scope: &'a Scope<'t>,
}

impl<U: Underlay> Sender<'_, '_, U> {
    /// The hop of a packet's copy for `destination`.
    pub(super) fn hop<'t>(&self, destination: &'t Destination, encap: &Encap<'t>) -> Hop<'t> {
        Hop {
            destination,
            source: self.underlay.source(encap.flow_hash),
            outer: encap.outer,
        }
    }

    /// Sends a run: whole where the host cuts it, else one by one. Every datagram is counted once, as sent or as dropped.
    pub(super) fn send(&mut self, run: Run<'_>, hop: &Hop<'_>) {
        let segmentation = &hop.destination.peer.segmentation;
        let whole = run.count() > 1
            && self.scope.offloads.is_on(Offload::UdpGso)
            && segmentation.takes_next();
        if !whole {
            self.send_each(run, hop);
            return;
        }
        match self.offer(run, hop) {
            // The host fragments single datagrams only, so those that are too big together may go alone.
            Err(Fault::Refused | Fault::Packet(DropReason::TooBig)) => {
                // Datagrams that do not go alone either are no fault of the offload.
                if self.send_each(run, hop) > 0 {
                    segmentation.refused();
                    self.scope.offloads.count_refusal(Offload::UdpGso);
                }
            }
            outcome => self.count(run, outcome, hop),
        }
    }

    /// How many of the run were sent.
    fn send_each(&mut self, run: Run<'_>, hop: &Hop<'_>) -> usize {
        let mut sent = 0;
        for one in run.each() {
            let outcome = self.offer(one, hop);
            sent += usize::from(outcome.is_ok());
            self.count(one, outcome, hop);
        }
        sent
    }

    fn offer(&mut self, run: Run<'_>, hop: &Hop<'_>) -> Result<(), Fault> {
        let transmit = Transmit {
            destination: hop.destination.underlay,
            source: hop.source,
            outer: hop.outer,
            run,
        };
        let mut outcome = Ok(());
        for _ in 0..SEND_TRIES {
            let sent = self.underlay.send(&transmit);
            outcome = sent.map_err(|error| Fault::of_send(&error, run.count() > 1));
            if outcome == Err(Fault::Packet(DropReason::TooBig)) {
                let path_mtu = &hop.destination.peer.path_mtu;
                path_mtu.note_refused();
            }
            if outcome != Err(Fault::Passing) {
                break;
            }
        }
        outcome
    }

    fn count(&self, run: Run<'_>, outcome: Result<(), Fault>, hop: &Hop<'_>) {
        let packets = run.count();
        let bytes = run.total_len() - packets * vxlan::HEADER_LEN;
        for shard in self.scope.shards(Some(&hop.destination.peer)) {
            match outcome {
                Ok(()) => shard.count_tx(packets, bytes),
                Err(Fault::Packet(reason)) => shard.count_drops(reason, packets as u64),
                Err(_) => shard.count_drops(DropReason::UnderlaySendFailed, packets as u64),
            }
        }
        if let (Err(fault), Some(captures)) = (outcome, self.scope.captures) {
            let reason = match fault {
                Fault::Packet(reason) => reason,
                Fault::Empty | Fault::Passing | Fault::Refused | Fault::Gone => {
                    DropReason::UnderlaySendFailed
                }
            };
            self.capture(run, reason, hop, captures);
        }
    }

    /// Shows what was not sent: the frames, without the VXLAN header that each begins with.
    #[cold]
    fn capture(&self, run: Run<'_>, reason: DropReason, hop: &Hop<'_>, captures: &Sessions) {
        let seen = Seen::dropped(reason, Some(&hop.destination.peer));
        for one in run.each() {
            let mut slices = one.slices().iter().map(|slice| &**slice);
            let first = slices
                .next()
                .and_then(|first| first.get(vxlan::HEADER_LEN..));
            captures.offer(self.scope.index, &seen, first.unwrap_or_default(), slices);
        }
    }
}
