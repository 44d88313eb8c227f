//! Whom policy refused, and at whom: a bounded table of counts by source group and destination.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::flows::Moment;
use crate::vtep::Subject;
use crate::wire::GroupId;

/// 1024 rows in all.
const BUCKETS: usize = 128;
const ROWS_EACH: usize = 8;

/// The table. Where a bucket is full the row that was silent for the longest makes room.
#[derive(Debug)]
pub struct Denied {
    buckets: Box<[Mutex<[Option<DeniedFlow>; ROWS_EACH]>]>,
    hasher: RandomState,
    forgotten: AtomicU64,
}

/// What one group was refused at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeniedFlow {
    /// Who spoke; 0: nobody was named.
    pub group: GroupId,
    /// To whom.
    pub destination: IpAddr,
    /// How many packets.
    pub packets: u64,
    /// The latest of them.
    pub latest: Subject,
    /// When that was.
    pub seen: Moment,
}

impl Default for Denied {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Denied {
    /// One packet of `group` was refused.
    pub(super) fn count(&self, group: GroupId, subject: &Subject, now: Moment) {
        let destination = subject.destination;
        let hash = self.hasher.hash_one((group.0, destination));
        let mut rows = self.buckets[hash as usize % BUCKETS].lock();
        let is_same = |row: &DeniedFlow| row.group == group && row.destination == destination;
        let known = rows
            .iter()
            .position(|row| row.as_ref().is_some_and(is_same));
        // None is before all moments.
        let oldest = || (0..ROWS_EACH).min_by_key(|&at| rows[at].map(|row| row.seen));
        let Some(at) = known.or_else(oldest) else {
            return;
        };
        let before = rows[at].map_or(0, |row| row.packets);
        if known.is_none() && before > 0 {
            self.forgotten.fetch_add(before, Relaxed);
        }
        rows[at] = Some(DeniedFlow {
            group,
            destination,
            packets: if known.is_some() { before + 1 } else { 1 },
            latest: *subject,
            seen: now,
        });
    }

    /// All rows, in the order of destinations and groups.
    #[must_use]
    pub fn rows(&self) -> Vec<DeniedFlow> {
        let mut rows: Vec<DeniedFlow> = Vec::new();
        for bucket in &self.buckets {
            rows.extend(bucket.lock().iter().flatten());
        }
        rows.sort_unstable_by_key(|row| (row.destination, row.group));
        rows
    }

    /// Packets of rows that made room for others.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::vtep::policy::Reading;
    use crate::wire::ethernet::Frame;

    fn subject(destination: [u8; 4]) -> Subject {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 255, 2, 2], destination, 64)
            .udp(4000, 53)
            .write(&mut frame, b"")
            .unwrap();
        match Reading::of(Frame::new_checked(&frame).unwrap()) {
            Reading::Packet(subject) => subject,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn counts_by_group_and_destination() {
        let denied = Denied::default();
        let (a, b) = (subject([10, 255, 1, 2]), subject([10, 255, 1, 3]));
        for (group, subject) in [(3, &a), (3, &b), (4, &a), (3, &a)] {
            denied.count(GroupId(group), subject, Moment::at(1));
        }
        let rows = denied.rows();
        let counted: Vec<_> = rows
            .iter()
            .map(|row| (row.destination.to_string(), row.group.0, row.packets))
            .collect();
        let row = |to: &str, group, packets| (to.to_owned(), group, packets);
        assert_eq!(
            counted,
            [
                row("10.255.1.2", 3, 2),
                row("10.255.1.2", 4, 1),
                row("10.255.1.3", 3, 1)
            ]
        );
        assert_eq!(rows[0].latest.ports(), Some((4000, 53)));
    }

    #[test]
    fn is_bounded_and_loses_no_packet() {
        let denied = Denied::default();
        for n in 0..100_000_u32 {
            let [_, b, c, d] = n.to_be_bytes();
            denied.count(GroupId(3), &subject([10, b, c, d]), Moment::at(n / 1000));
        }
        let rows = denied.rows();
        assert!(rows.len() <= BUCKETS * ROWS_EACH);
        let counted: u64 = rows.iter().map(|row| row.packets).sum();
        assert_eq!(counted + denied.forgotten(), 100_000);
        // Those that stay are the latest.
        assert!(rows.iter().all(|row| row.seen >= Moment::at(80)));
    }
}
