//! The lane: one TAP queue, one underlay port, and the core between them.

mod egress;
mod express;
mod fragments;
mod guard;
mod ingress;
mod outbox;
mod sender;
mod writer;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::capture::{Seen, Sessions};
use super::express::InForce;
use super::{Captures, Express, Fault, Guard, MarkTags, OffloadState, Offloads, Tap, Underlay};
use crate::counters::{Counters, Shard};
use crate::drop_reason::DropReason;
use crate::tables::{Peer, Tables};
use egress::{Egress, SLOT_BYTES, Slots};
use guard::Guarded;
use ingress::Ingress;
pub use outbox::run_max_segs;

/// Packets before the snapshot is loaded anew and what waits is sent: the longest that a packet waits for others is the time of 64 reads,
/// about a tenth of a millisecond.
const BATCH: usize = 64;

/// How often in a row a descriptor may fail without giving a packet before the lane gives up rather than spin.
const PASSING_FAULTS_MAX: usize = 1024;

/// Where a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was there to read: wait for an event.
    Idle,
    /// Nothing more to read: wait for an event.
    Drained,
    /// The batch was full: there may be more.
    More,
}

impl Progress {
    /// Nothing more was there behind `read` packets.
    const fn empty_after(read: usize) -> Self {
        if read == 0 { Self::Idle } else { Self::Drained }
    }
}

/// What a lane is told besides its devices.
#[derive(Clone, Debug)]
pub struct LaneOptions {
    /// The TAP's MTU.
    pub mtu_bytes: u32,
    /// What the host does for us.
    pub offloads: Arc<Offloads>,
    /// Whether marks cross the TAP.
    pub mark_tags: Arc<MarkTags>,
    /// What the lanes share to enforce a policy.
    pub guard: Arc<Guard>,
    /// Who wants to see packets.
    pub captures: Arc<Captures>,
    /// What may forward flows in the lanes' place; `None`: nothing.
    pub express: Option<Arc<Express>>,
}

impl LaneOptions {
    /// A TAP of that MTU on a host that does all it can for us, as the in-memory devices do; marks do not cross it.
    #[must_use]
    pub fn with_all_offloads(mtu_bytes: u32) -> Self {
        Self {
            mtu_bytes,
            offloads: Arc::new(Offloads::from_fn(|_| OffloadState::On)),
            mark_tags: Arc::default(),
            guard: Arc::default(),
            captures: Arc::default(),
            express: None,
        }
    }
}

/// Why a lane ended. A packet never ends one.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The TAP was deleted, or reading it failed for good.
    #[error("the TAP is gone: {0}")]
    Tap(#[source] io::Error),
    /// The receiving socket failed for good.
    #[error("the underlay socket failed: {0}")]
    Underlay(#[source] io::Error),
    /// The thread panicked: a fault of ours.
    #[error("the thread panicked, see above")]
    Panicked,
    /// The thread could not wait for events.
    #[error("poll: {0}")]
    Poll(#[source] io::Error),
}

/// One TAP queue and one underlay port, joined by the core. Shares nothing it writes but, where a policy is enforced, the [`Guard`]: counters
/// are its own shard.
///
/// It has no thread and waits for nothing: [`egress_batch`](Self::egress_batch) and [`ingress_batch`](Self::ingress_batch) forward what
/// is there, and whoever calls them decides when. The daemon does so from readiness events ([`worker`](super::worker)); over devices in
/// memory, [`MemoryCell`](super::memory::MemoryCell) puts all the parts together.
#[derive(Debug)]
pub struct Lane<T, U> {
    index: usize,
    tap: T,
    underlay: U,
    tables: Arc<ArcSwap<Tables>>,
    counters: Arc<Counters>,
    offloads: Arc<Offloads>,
    mark_tags: Arc<MarkTags>,
    guard: Arc<Guard>,
    captures: Arc<Captures>,
    express: Option<Arc<Express>>,
    egress: Egress,
    ingress: Ingress,
}

impl<T: Tap, U: Underlay> Lane<T, U> {
    /// Lane `index` of those that `counters` has shards for. `tables` is where whoever changes them stores the next snapshot; it is loaded
    /// once a batch, and its peers' counters must have as many shards ([`CounterRegistry::new`](crate::tables::CounterRegistry::new)).
    pub fn new(
        index: usize,
        tap: T,
        underlay: U,
        tables: Arc<ArcSwap<Tables>>,
        counters: Arc<Counters>,
        options: &LaneOptions,
    ) -> Self {
        Self {
            index,
            tap,
            underlay,
            tables,
            counters,
            offloads: Arc::clone(&options.offloads),
            mark_tags: Arc::clone(&options.mark_tags),
            guard: Arc::clone(&options.guard),
            captures: Arc::clone(&options.captures),
            express: options.express.clone(),
            egress: Egress::default(),
            ingress: Ingress::new(options),
        }
    }

    /// The TAP queue.
    pub fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    /// The underlay port.
    pub fn underlay(&mut self) -> &mut U {
        &mut self.underlay
    }

    /// From the overlay to the underlay: up to a batch of 64 packets under one snapshot.
    ///
    /// # Errors
    /// The TAP is gone.
    pub fn egress_batch(&mut self) -> Result<Progress, LaneError> {
        // Before the tables, so that no decision is made by older ones than its generation says.
        let express = self.express.as_deref().and_then(Express::in_force);
        let tables = self.tables.load();
        let captures = self.captures.load();
        let scope = Scope {
            tables: &tables,
            counters: &self.counters,
            offloads: &self.offloads,
            mark_tags: &self.mark_tags,
            guarded: Guarded::by(&tables, &self.guard),
            captures: captures.as_deref().map(AsRef::as_ref),
            express,
            index: self.index,
        };
        self.egress.batch(&mut self.tap, &mut self.underlay, &scope)
    }

    /// From the underlay to the overlay: up to a batch of some 64 messages under one snapshot.
    ///
    /// # Errors
    /// The socket or the TAP is gone.
    pub fn ingress_batch(&mut self) -> Result<Progress, LaneError> {
        let tables = self.tables.load();
        let captures = self.captures.load();
        let scope = Scope {
            tables: &tables,
            counters: &self.counters,
            offloads: &self.offloads,
            mark_tags: &self.mark_tags,
            guarded: Guarded::by(&tables, &self.guard),
            captures: captures.as_deref().map(AsRef::as_ref),
            express: None,
            index: self.index,
        };
        let (tap, underlay) = (&mut self.tap, &mut self.underlay);
        self.ingress.batch(tap, underlay, &mut self.egress, &scope)
    }
}

/// What one batch is judged by and counted in.
struct Scope<'a> {
    tables: &'a Tables,
    counters: &'a Counters,
    offloads: &'a Offloads,
    mark_tags: &'a MarkTags,
    /// `None`: no policy is enforced.
    guarded: Option<Guarded<'a>>,
    /// Who captures, if anybody does.
    captures: Option<&'a Sessions>,
    /// What may forward flows in our place from now on; `None`: nothing, or none is looked for in this direction.
    express: Option<InForce<'a>>,
    index: usize,
}

impl Scope<'_> {
    /// The device's shard.
    fn shard(&self) -> &Shard {
        self.counters.lane(self.index)
    }

    /// The device's shard, and the peer's if there is one.
    fn shards<'a>(&'a self, peer: Option<&'a Arc<Peer>>) -> impl Iterator<Item = &'a Shard> {
        let of_peer = peer.map(|peer| peer.counters.lane(self.index));
        std::iter::once(self.shard()).chain(of_peer)
    }

    fn count_drop(&self, peer: Option<&Arc<Peer>>, reason: DropReason) {
        self.shards(peer).for_each(|shard| shard.count_drop(reason));
    }

    /// Counts a frame of the host as dropped.
    fn drop_frame(&self, peer: Option<&Arc<Peer>>, reason: DropReason, frame: &[u8]) {
        self.count_drop(peer, reason);
        self.capture(frame, || Seen::dropped(reason, peer));
    }

    /// Shows a packet to whoever captures.
    #[inline]
    fn capture<'p>(&self, bytes: &'p [u8], seen: impl FnOnce() -> Seen<'p>) {
        if let Some(captures) = self.captures {
            captures.offer(self.index, &seen(), bytes, std::iter::empty());
        }
    }
}

/// Bears with faults up to a bound: one that passes, or takes a packet, too often in a row is the device's.
#[derive(Debug, Default)]
struct Patience {
    passing_faults: usize,
}

impl Patience {
    fn judge(&mut self, fault: Fault) -> Fault {
        match fault {
            Fault::Passing | Fault::Packet(_) => self.passing_faults += 1,
            Fault::Empty => self.renew(),
            Fault::Refused | Fault::Gone => {}
        }
        if self.passing_faults > PASSING_FAULTS_MAX {
            return Fault::Gone;
        }
        fault
    }

    /// A packet came.
    fn renew(&mut self) {
        self.passing_faults = 0;
    }
}
