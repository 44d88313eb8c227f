//! The flows that began here, shared by all lanes: what group policy lets in without a rule.
//!
//! Whoever sends a packet notes its flow ([`FlowTable::note`]); a packet that the rules refuse is let in if its flow is known
//! ([`FlowTable::admits`]). A flow is known by both its ends, so it does not matter which lane either packet is on.
//!
//! The table is bounded. It is cut into shards by a keyed hash of the flow, each behind a lock that is held for one look-up. An entry
//! is forgotten when nothing was sent or answered for as long as its kind allows ([`FlowLimits`]); nobody looks for such entries, they
//! go when they are met. Where a shard is full, the oldest idle entry goes, of the kind and the container chosen thus:
//!
//! * An entry that nobody answered, or that is closed, before any established one, unless those are less than an eighth of all: a flood
//!   of beginnings costs no established flow beyond seven eighths, and no host of established ones keeps others from beginning.
//! * Among those, one of the container that has the most: what a container's flood pushes out is its own.
//!
//! A RST of the other end is not held against what the ends have agreed on, as Linux's connection tracking does by their windows
//! (`tcp_in_window`): that would be a write for every packet. So it may be forged, and closes nothing that our side goes on with: it
//! only has the flow forgotten soon unless our side speaks, and until then a RST that is believed has its effect. A FIN of the other end
//! closes nothing at all; ours does.
//!
//! Containers are told apart by the last byte of their address: all of a /24 or less, and in a larger subnet those that share it share
//! a fate. Time is whole seconds, so the order of entries is touched once a second for each flow.

mod limits;
mod shard;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::vtep::policy::{self, Reading};
use crate::vtep::{FlowKey, Step, Subject};
use crate::wire::ethernet::Frame;
pub use limits::FlowLimits;
use shard::Shard;

/// Locks: enough that lanes seldom meet at one.
const SHARDS: usize = 64;

/// Seconds since the table was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u32);

impl Moment {
    /// By a clock that counts from elsewhere, such as a capture's. Of one table all moments are by one clock.
    #[must_use]
    pub fn of(time: Duration) -> Self {
        Self(u32::try_from(time.as_secs()).unwrap_or(u32::MAX))
    }

    /// So many.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    #[cfg(test)]
    pub(super) const fn at(second: u32) -> Self {
        Self(second)
    }
}

/// All flows.
#[derive(Debug)]
pub struct FlowTable {
    limits: FlowLimits,
    /// Made when the first flow is noted: who enforces no policy has no use for them.
    shards: OnceLock<Box<[CachePadded<Mutex<Shard>>]>>,
    /// Secret, so that nobody can choose flows that share a place.
    keys: [u64; 5],
    made: Instant,
}

/// A reading of the table. Not a consistent cut: lanes go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Entries at the most.
    pub size: usize,
    /// Entries in use.
    pub entries: usize,
    /// Of these, established: answered and not closed.
    pub established: usize,
    /// Entries that made room for others, since the start.
    pub evicted: u64,
    /// Of these, established ones.
    pub evicted_established: u64,
}

/// A flow's name as shards keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    /// Ours, then theirs, each in two halves.
    ends: [u64; 4],
    /// Ports and protocol.
    rest: u64,
}

impl FlowTable {
    /// An empty table. All that it may need is set aside when it is used first, but is no memory until it is written to.
    #[must_use]
    pub fn new(limits: FlowLimits) -> Self {
        Self::with_keys(
            limits,
            std::array::from_fn(|i| RandomState::new().hash_one(i)),
        )
    }

    fn with_keys(limits: FlowLimits, keys: [u64; 5]) -> Self {
        Self {
            limits,
            shards: OnceLock::new(),
            keys,
            made: Instant::now(),
        }
    }

    fn shards(&self) -> &[CachePadded<Mutex<Shard>>] {
        self.shards.get_or_init(|| {
            // A small table is one shard, so that its bound is exact.
            let size = self.limits.size;
            let shards = (size / SHARDS).clamp(1, SHARDS).next_power_of_two();
            let capacity = size.div_ceil(shards).max(1);
            let shard = |_| CachePadded::new(Mutex::new(Shard::new(capacity)));
            (0..shards).map(shard).collect()
        })
    }

    /// The moment that a clock's reading is.
    #[must_use]
    pub fn moment(&self, now: Instant) -> Moment {
        Moment::of(now.saturating_duration_since(self.made))
    }

    /// This frame was sent.
    pub fn note_frame(&self, frame: &[u8], now: Moment) {
        let subject = Frame::new_checked(frame).map(Reading::of);
        if let Some(Reading::Packet(subject)) = subject
            && let Some((key, step)) = subject.outgoing()
        {
            self.note(&key, step, now);
        }
    }

    /// This frame was let in: if it is a packet's first fragment, the others are to follow it.
    pub fn note_let_in(&self, frame: &[u8], now: Moment) {
        if let Some(key) = Frame::new_checked(frame).and_then(policy::first_fragment) {
            self.note_fragments(&key, now);
        }
    }

    /// Whether a packet that no rule lets in is part of a flow that began here; one that cannot be read is of none.
    #[must_use]
    pub fn admits_packet(&self, subject: Option<&Subject>, now: Moment) -> bool {
        let claimed = subject.and_then(Subject::incoming);
        claimed.is_some_and(|(key, step)| self.admits(&key, step, now))
    }

    /// A packet of this flow was sent.
    pub fn note(&self, key: &FlowKey, step: Step, now: Moment) {
        let name = Name::of(key);
        let hash = self.hash(&name);
        self.shard(hash)
            .lock()
            .note(&self.limits, &name, hash as u32, step, now);
    }

    /// The first fragment of a packet was let in: the others are to be.
    pub fn note_fragments(&self, key: &FlowKey, now: Moment) {
        let name = Name::of(key);
        let hash = self.hash(&name);
        let mut shard = self.shard(hash).lock();
        shard.note_fragments(&self.limits, &name, hash as u32, now);
    }

    /// Whether a packet that claims to be of this flow is to be let in, which then is its flow's latest.
    #[must_use]
    pub fn admits(&self, key: &FlowKey, step: Step, now: Moment) -> bool {
        let name = Name::of(key);
        let hash = self.hash(&name);
        let mut shard = self.shard(hash).lock();
        shard.admits(&self.limits, &name, hash as u32, step, now)
    }

    /// As [`admits`](Self::admits), of a packet that is only thought of.
    #[must_use]
    pub fn would_admit(&self, key: &FlowKey, now: Moment) -> bool {
        let name = Name::of(key);
        let hash = self.hash(&name);
        let shard = self.shard(hash).lock();
        shard.knows(&self.limits, &name, hash as u32, now)
    }

    /// How full it is. Forgets what is too old.
    #[must_use]
    pub fn counts(&self, now: Moment) -> FlowCounts {
        let mut counts = FlowCounts::default();
        for shard in self.shards() {
            in_steps(shard, |shard, from| {
                shard.forget_old(&self.limits, now, from)
            });
            shard.lock().count(&mut counts);
        }
        counts
    }

    /// Who had this address of ours is gone: whoever has it next inherits no replies. What it has still on its way out may be noted yet.
    pub fn forget(&self, local: IpAddr) {
        let local = halves(policy::bits(local));
        // Nobody noted a flow so far.
        for shard in self.shards.get().into_iter().flatten() {
            in_steps(shard, |shard, from| shard.forget_local(local, from));
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn limits(&self) -> &FlowLimits {
        &self.limits
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The low half chooses within a shard.
        let shards = self.shards();
        &shards[(hash >> 32) as usize & (shards.len() - 1)]
    }

    fn hash(&self, name: &Name) -> u64 {
        let [a, b, c, d] = name.ends;
        let [k0, k1, k2, k3, k4] = self.keys;
        let ends = mix(a ^ k0, c ^ k1) ^ mix(b ^ k2, d ^ k3);
        mix(ends ^ name.rest, k4 | 1)
    }
}

/// Takes steps, each of which tells where the next begins, through a shard. Between two of them a lane that waits has its turn.
fn in_steps(shard: &Mutex<Shard>, step: impl Fn(&mut Shard, usize) -> Option<usize>) {
    let mut next = Some(0);
    while let Some(from) = next {
        let mut held = shard.lock();
        next = step(&mut held, from);
        MutexGuard::unlock_fair(held);
    }
}

/// An address as names have it.
fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// The last byte of an address of ours.
fn owner_of([_, low]: [u64; 2]) -> u8 {
    low as u8
}

impl Name {
    fn of(key: &FlowKey) -> Self {
        let [[a, b], [c, d]] = [key.local, key.remote].map(halves);
        Self {
            ends: [a, b, c, d],
            rest: u64::from(key.ports) << 8 | u64::from(key.protocol),
        }
    }

    fn protocol(&self) -> u8 {
        self.rest as u8
    }

    /// Our address.
    fn local(&self) -> [u64; 2] {
        let [high, low, ..] = self.ends;
        [high, low]
    }

    /// The last byte of our address.
    fn owner(&self) -> u8 {
        owner_of(self.local())
    }
}

/// The full product's two halves, xored: every input bit reaches every output bit.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests;
