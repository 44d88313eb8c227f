//! Counters that data leaves for control: one [`Shard`] per lane, written by that lane's two threads and summed by whoever reads.
//!
//! A [`Counters`] belongs to the whole device or to one peer; both are the same noun. Bytes are those of the inner frame with its
//! Ethernet header, as the kernel device counts them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::drop_reason::DropReason;

/// One [`Shard`] per lane. Lanes write through shared references; whoever likes reads [`totals`](Self::totals) meanwhile.
#[derive(Debug)]
pub struct Counters(Box<[Shard]>);

/// What one lane counted. The threads of its two directions may both write anything; what each writes all the time is in cache lines
/// of its own.
#[derive(Debug)]
pub struct Shard {
    tx: Carried,
    rx: Carried,
    replies: AtomicU64,
    partial_checksums: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            tx: Carried::default(),
            rx: Carried::default(),
            replies: AtomicU64::new(0),
            partial_checksums: AtomicU64::new(0),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Frames that went one way, in a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Carried {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Carried {
    fn add(&self, packets: usize, bytes: usize) {
        add(&self.packets, packets as u64);
        add(&self.bytes, bytes as u64);
    }
}

/// A reading. Every packet is in exactly one of `tx_packets`, `rx_packets`, `replies` and `drops`, but for an answer to a peer, which is a
/// reply and sent too, and for a frame that is replicated or cut, which is sent once a copy or segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Frames sent to the underlay; a replicated frame counts once a copy.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames delivered to the overlay.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// ARP and ND requests answered.
    pub replies: u64,
    /// Frames from the underlay whose TCP or UDP checksum was wrong and was the pseudo-header's sum: taken for one that the peer left to
    /// a card, and given to the host to be finished. Super-frames of a kernel peer are all among them.
    pub partial_checksums: u64,
    /// By `DropReason as usize`; [`drops`](Self::drops()) names those that occurred.
    pub drops: [u64; DropReason::COUNT],
}

impl Counters {
    /// All zero, for `lanes` lanes.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| Shard::default()).collect())
    }

    /// The shard that lane `lane` alone may write.
    ///
    /// # Panics
    /// If there are not that many lanes.
    #[must_use]
    pub fn lane(&self, lane: usize) -> &Shard {
        &self.0[lane]
    }

    /// How many lanes there are.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.0.len()
    }

    /// The sum over all lanes. Not a consistent cut: lanes go on counting.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.0 {
            totals.add(&shard.totals());
        }
        totals
    }
}

impl Counters {
    /// Frames sent to the underlay, by all lanes.
    #[must_use]
    pub fn tx_packets(&self) -> u64 {
        let shards = self.0.iter();
        shards.map(|shard| shard.tx.packets.load(Relaxed)).sum()
    }

    /// Frames delivered to the overlay, by all lanes.
    #[must_use]
    pub fn rx_packets(&self) -> u64 {
        let shards = self.0.iter();
        shards.map(|shard| shard.rx.packets.load(Relaxed)).sum()
    }
}

impl Shard {
    /// `packets` frames of `bytes` bytes in all went to the underlay.
    pub fn count_tx(&self, packets: usize, bytes: usize) {
        self.tx.add(packets, bytes);
    }

    /// `packets` frames of `bytes` bytes in all were delivered.
    pub fn count_rx(&self, packets: usize, bytes: usize) {
        self.rx.add(packets, bytes);
    }

    /// One request was answered.
    pub fn count_reply(&self) {
        add(&self.replies, 1);
    }

    /// So many frames came with partial checksums.
    pub fn count_partial_checksums(&self, frames: u64) {
        add(&self.partial_checksums, frames);
    }

    /// One packet was dropped.
    pub fn count_drop(&self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    /// `count` packets were dropped, say by a queue that tells only how many.
    pub fn count_drops(&self, reason: DropReason, count: u64) {
        add(&self.drops[reason as usize], count);
    }

    /// A reading of this lane.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            tx_packets: self.tx.packets.load(Relaxed),
            tx_bytes: self.tx.bytes.load(Relaxed),
            rx_packets: self.rx.packets.load(Relaxed),
            rx_bytes: self.rx.bytes.load(Relaxed),
            replies: self.replies.load(Relaxed),
            partial_checksums: self.partial_checksums.load(Relaxed),
            drops: std::array::from_fn(|i| self.drops[i].load(Relaxed)),
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            tx_packets: 0,
            tx_bytes: 0,
            rx_packets: 0,
            rx_bytes: 0,
            replies: 0,
            partial_checksums: 0,
            drops: [0; DropReason::COUNT],
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.replies += other.replies;
        self.partial_checksums += other.partial_checksums;
        for (sum, n) in self.drops.iter_mut().zip(other.drops) {
            *sum += n;
        }
    }

    /// The reasons that occurred, with their counts, in the order of [`DropReason::ALL`].
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .zip(self.drops)
            .filter(|&(_, n)| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_each_lane_counted() {
        let counters = Counters::new(2);
        counters.lane(0).count_tx(1, 100);
        counters.lane(1).count_tx(1, 50);
        counters.lane(1).count_drop(DropReason::NoRoute);
        let totals = counters.totals();
        assert_eq!((totals.tx_packets, totals.tx_bytes), (2, 150));
        assert_eq!(
            totals.drops().collect::<Vec<_>>(),
            [(DropReason::NoRoute, 1)]
        );
    }
}
