//! A part of the table: entries in a slab, found by hash chains, and in lists by what is to go first.

use super::{FlowCounts, FlowLimits, Moment, Name, owner_of};
use crate::vtep::Step;
use crate::wire::ip::protocol;

/// Entries that are looked at for being too old before one that is not makes room.
const REAPED_AT_ONCE: usize = 8;
/// Entries that are looked at, where all of them are, before a lane that waits has its turn: a few microseconds.
const STEP: usize = 64;
/// As long as Linux waits for the rest of a fragmented packet (`ip_frag_time`).
const FRAGMENTS_S: u32 = 30;
/// Of so many entries one is for flows that are not established: else who fills the table with flows that a friend answers leaves one
/// entry for all beginnings, and nobody's lasts until its answer.
const ESTABLISHED_PER_OTHER: usize = 8;
/// Nobody: positions in the slab are counted from 1, so that untouched memory says so.
const NONE: u32 = 0;
/// As many as a byte tells apart.
const OWNERS: usize = 256;

#[derive(Debug)]
pub(super) struct Shard {
    capacity: usize,
    /// Grows to the capacity and no further.
    entries: Vec<Entry>,
    /// The first entry of each hash chain.
    chains: Box<[u32]>,
    /// The first of the entries that are not in use, linked by their `chain`.
    free: u32,
    in_use: usize,
    /// The lists of each owner: those that may go, those that are established.
    owners: Box<[[List; 2]; OWNERS]>,
    established: usize,
    /// Where the next look for old entries begins.
    hand: usize,
    evicted: u64,
    evicted_established: u64,
}

/// In a cache line: a look-up is mostly what it costs to fetch one.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    name: Name,
    /// Next in the hash chain.
    chain: u32,
    /// Neighbours in the list.
    newer: u32,
    older: u32,
    /// When its latest packet passed.
    seen: u32,
    /// Which chain it is in.
    hash: u32,
    state: State,
}

const _: () = assert!(size_of::<Entry>() == 64);

/// Entries by age.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    newest: u32,
    oldest: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not in use.
    Free,
    /// Begun and not answered.
    New,
    /// Found under way, with nothing from the other end so far: of TCP, as after a restart.
    Picked,
    /// Answered.
    Established,
    /// Our side has closed it.
    Closing,
    /// The other end says by a RST that it is over. It may be forged: our side speaks on then.
    Reset,
    /// No flow, but the later fragments of a packet.
    Fragments,
}

impl State {
    /// Which list it is in.
    fn list(self) -> usize {
        match self {
            Self::Free
            | Self::New
            | Self::Picked
            | Self::Closing
            | Self::Reset
            | Self::Fragments => 0,
            Self::Established => 1,
        }
    }
}

impl Shard {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Vec::with_capacity(capacity),
            // Twice as many as entries, so that most are of one.
            chains: vec![NONE; 2 * capacity.next_power_of_two()].into(),
            free: NONE,
            in_use: 0,
            owners: Box::new([[List::default(); 2]; OWNERS]),
            established: 0,
            hand: 0,
            evicted: 0,
            evicted_established: 0,
        }
    }

    pub(super) fn note(
        &mut self,
        limits: &FlowLimits,
        name: &Name,
        hash: u32,
        step: Step,
        now: Moment,
    ) {
        let found = self.find(name, hash);
        let known = found.map(|at| self.entry(at)).filter(|entry| {
            // One that is too old begins anew, as if it were not there.
            !entry.is_over(limits, now)
        });
        let state = match (known.map(|entry| entry.state), step) {
            (Some(State::Closing | State::Reset) | None, Step::Begin) => State::New,
            (None, Step::Go) => State::Picked,
            // Who believes a RST says nothing more.
            (Some(State::Reset), Step::Go) => State::Established,
            (_, Step::Finish) | (Some(_), Step::Abort) => State::Closing,
            (Some(state), Step::Begin | Step::Go | Step::Answer | Step::Tell) => state,
            (None, Step::Answer | Step::Abort | Step::Tell) => return,
        };
        match found {
            Some(at) => self.refresh(at, state, now),
            None => self.insert(limits, name, hash, state, now),
        }
    }

    pub(super) fn note_fragments(
        &mut self,
        limits: &FlowLimits,
        name: &Name,
        hash: u32,
        now: Moment,
    ) {
        match self.find(name, hash) {
            Some(at) => self.refresh(at, State::Fragments, now),
            None => self.insert(limits, name, hash, State::Fragments, now),
        }
    }

    pub(super) fn admits(
        &mut self,
        limits: &FlowLimits,
        name: &Name,
        hash: u32,
        step: Step,
        now: Moment,
    ) -> bool {
        let Some(at) = self.find(name, hash) else {
            return false;
        };
        let entry = self.entry(at);
        if entry.is_over(limits, now) {
            self.remove(at);
            return false;
        }
        let state = match (entry.state, step) {
            (_, Step::Tell) => return true,
            // The other end alone keeps nothing open that one of them said was over.
            (State::Reset | State::Closing, _) => return true,
            (State::Fragments, _) => State::Fragments,
            (_, Step::Abort) => State::Reset,
            (_, Step::Begin | Step::Go | Step::Answer | Step::Finish) => State::Established,
        };
        self.refresh(at, state, now);
        true
    }

    pub(super) fn knows(&self, limits: &FlowLimits, name: &Name, hash: u32, now: Moment) -> bool {
        self.find(name, hash)
            .is_some_and(|at| !self.entry(at).is_over(limits, now))
    }

    /// Forgets what is too old among some entries, from `from` on. Returns where to go on, if that was not all.
    pub(super) fn forget_old(
        &mut self,
        limits: &FlowLimits,
        now: Moment,
        from: usize,
    ) -> Option<usize> {
        self.forget(from, |entry| entry.is_over(limits, now))
    }

    /// Forgets the flows of our address `local` among some entries, from `from` on. Returns where to go on, if that was not all.
    pub(super) fn forget_local(&mut self, local: [u64; 2], from: usize) -> Option<usize> {
        let lists = &self.owners[usize::from(owner_of(local))];
        if lists.iter().all(|list| list.len == 0) {
            return None;
        }
        self.forget(from, |entry| entry.name.local() == local)
    }

    pub(super) fn count(&self, counts: &mut FlowCounts) {
        counts.size += self.capacity;
        counts.entries += self.in_use;
        counts.established += self.established;
        counts.evicted += self.evicted;
        counts.evicted_established += self.evicted_established;
    }
}

// Places and what is in them.
impl Shard {
    fn entry(&self, at: u32) -> &Entry {
        &self.entries[at as usize - 1]
    }

    fn entry_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize - 1]
    }

    fn chain_of(&self, hash: u32) -> usize {
        hash as usize & (self.chains.len() - 1)
    }

    fn find(&self, name: &Name, hash: u32) -> Option<u32> {
        let mut at = self.chains[self.chain_of(hash)];
        while at != NONE {
            let entry = self.entry(at);
            if entry.name == *name {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    fn insert(&mut self, limits: &FlowLimits, name: &Name, hash: u32, state: State, now: Moment) {
        let at = self.vacate(limits, now);
        let chain = self.chain_of(hash);
        *self.entry_mut(at) = Entry {
            name: *name,
            chain: self.chains[chain],
            newer: NONE,
            older: NONE,
            seen: now.0,
            hash,
            state,
        };
        self.chains[chain] = at;
        self.in_use += 1;
        self.push(at);
    }

    /// A place that is not in use.
    fn vacate(&mut self, limits: &FlowLimits, now: Moment) -> u32 {
        if self.free == NONE && self.entries.len() < self.capacity {
            self.entries.push(Entry::FREE);
            // No shard has 2^32 entries: sizes are bounded by the configuration.
            return self.entries.len() as u32;
        }
        if self.free == NONE {
            self.reap(limits, now, REAPED_AT_ONCE);
        }
        if self.free == NONE {
            self.evict();
        }
        let at = self.free;
        self.free = self.entry(at).chain;
        at
    }

    /// Forgets those of a step's entries that `is_gone` says.
    fn forget(&mut self, from: usize, is_gone: impl Fn(&Entry) -> bool) -> Option<usize> {
        let end = self.entries.len().min(from + STEP);
        for at in from..end {
            let entry = &self.entries[at];
            if entry.state != State::Free && is_gone(entry) {
                self.remove(at as u32 + 1);
            }
        }
        (end < self.entries.len()).then_some(end)
    }

    /// Forgets those of the next `count` entries that are too old.
    fn reap(&mut self, limits: &FlowLimits, now: Moment, count: usize) {
        for _ in 0..count.min(self.entries.len()) {
            self.hand = (self.hand + 1) % self.entries.len();
            let entry = &self.entries[self.hand];
            if entry.state != State::Free && entry.is_over(limits, now) {
                self.remove(self.hand as u32 + 1);
            }
        }
    }

    /// Forgets the oldest of the owner that has the most of those that may go; where they have less than their share, of the
    /// established ones.
    fn evict(&mut self) {
        let others = self.in_use - self.established;
        let list = usize::from(others * ESTABLISHED_PER_OTHER < self.in_use);
        let most = self.owners.iter().max_by_key(|lists| lists[list].len);
        let oldest = most.map_or(NONE, |lists| lists[list].oldest);
        if oldest != NONE {
            self.evicted += 1;
            self.evicted_established += list as u64;
            self.remove(oldest);
        }
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Entry {
            chain: next, hash, ..
        } = *self.entry(at);
        let chain = self.chain_of(hash);
        if self.chains[chain] == at {
            self.chains[chain] = next;
        } else {
            let mut before = self.chains[chain];
            while self.entry(before).chain != at {
                before = self.entry(before).chain;
            }
            self.entry_mut(before).chain = next;
        }
        let free = self.free;
        *self.entry_mut(at) = Entry {
            chain: free,
            ..Entry::FREE
        };
        self.free = at;
        self.in_use -= 1;
    }

    /// Its latest packet passed now.
    fn refresh(&mut self, at: u32, state: State, now: Moment) {
        let entry = self.entry(at);
        if entry.seen == now.0 && entry.state == state {
            return;
        }
        self.unlink(at);
        let entry = self.entry_mut(at);
        (entry.seen, entry.state) = (now.0, state);
        self.push(at);
    }
}

// Lists.
impl Shard {
    fn list_mut(&mut self, at: u32) -> &mut List {
        let entry = self.entry(at);
        let (owner, list) = (entry.name.owner(), entry.state.list());
        &mut self.owners[usize::from(owner)][list]
    }

    /// Makes it the newest of its list.
    fn push(&mut self, at: u32) {
        self.established += self.entry(at).state.list();
        let list = self.list_mut(at);
        list.len += 1;
        let second = std::mem::replace(&mut list.newest, at);
        if second == NONE {
            list.oldest = at;
        } else {
            self.entry_mut(second).newer = at;
        }
        let entry = self.entry_mut(at);
        (entry.newer, entry.older) = (NONE, second);
    }

    fn unlink(&mut self, at: u32) {
        self.established -= self.entry(at).state.list();
        let Entry { newer, older, .. } = *self.entry(at);
        let list = self.list_mut(at);
        list.len -= 1;
        if newer == NONE {
            list.newest = older;
        }
        if older == NONE {
            list.oldest = newer;
        }
        if newer != NONE {
            self.entry_mut(newer).older = older;
        }
        if older != NONE {
            self.entry_mut(older).newer = newer;
        }
    }
}

impl Entry {
    const FREE: Self = Self {
        name: Name {
            ends: [0; 4],
            rest: 0,
        },
        chain: NONE,
        newer: NONE,
        older: NONE,
        seen: 0,
        hash: 0,
        state: State::Free,
    };

    /// Whether it was silent for longer than its kind may be.
    fn is_over(&self, limits: &FlowLimits, now: Moment) -> bool {
        // Lanes read the clock each for itself: one may be behind.
        now.0.saturating_sub(self.seen) > self.timeout_s(limits)
    }

    fn timeout_s(&self, limits: &FlowLimits) -> u32 {
        match (self.name.protocol(), self.state) {
            (_, State::Fragments) => FRAGMENTS_S,
            (protocol::TCP, State::New) => limits.tcp_new_s,
            (protocol::TCP, State::Closing | State::Reset) => limits.tcp_closing_s,
            (protocol::TCP, State::Free | State::Picked | State::Established) => limits.tcp_s,
            (protocol::ICMP | protocol::ICMPV6, _) => limits.icmp_s,
            (_, State::Established) => limits.udp_s,
            (_, State::Free | State::New | State::Picked | State::Closing | State::Reset) => {
                limits.udp_new_s
            }
        }
    }
}

#[cfg(test)]
impl Shard {
    /// Bytes that it may come to use.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.entries.capacity() * size_of::<Entry>()
            + size_of_val(&*self.chains)
            + size_of_val(&*self.owners)
    }

    /// Its counts, after every link was followed.
    ///
    /// # Panics
    /// If lists, chains and numbers do not agree.
    pub(super) fn books(&self) -> FlowCounts {
        let mut listed = [0; 2];
        for (owner, lists) in self.owners.iter().enumerate() {
            for (number, list) in lists.iter().enumerate() {
                let (mut at, mut newer, mut len) = (list.newest, NONE, 0);
                while at != NONE {
                    let entry = self.entry(at);
                    assert_eq!((entry.newer, entry.state.list()), (newer, number));
                    assert_eq!(usize::from(entry.name.owner()), owner);
                    assert!(newer == NONE || self.entry(newer).seen >= entry.seen);
                    (newer, at, len) = (at, entry.older, len + 1);
                }
                assert_eq!((list.oldest, list.len), (newer, len));
                listed[number] += len as usize;
            }
        }
        let mut chained = 0;
        for (number, first) in self.chains.iter().enumerate() {
            let mut at = *first;
            while at != NONE {
                assert_eq!(self.chain_of(self.entry(at).hash), number);
                (at, chained) = (self.entry(at).chain, chained + 1);
            }
        }
        let mut free = 0;
        let mut at = self.free;
        while at != NONE {
            assert_eq!(self.entry(at).state, State::Free);
            (at, free) = (self.entry(at).chain, free + 1);
        }
        assert_eq!(listed.iter().sum::<usize>(), self.in_use);
        assert_eq!((chained, listed[1]), (self.in_use, self.established));
        assert_eq!(self.in_use + free, self.entries.len());
        FlowCounts {
            size: self.capacity,
            entries: self.in_use,
            established: self.established,
            evicted: self.evicted,
            evicted_established: self.evicted_established,
        }
    }
}
