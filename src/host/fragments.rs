//! Reassembly, as `ip_frag_queue`, `ip6_frag_queue` and `inet_frag_queue_insert` do it. Time is counted in packets.

mod queue;

use std::collections::{HashMap, VecDeque};

use super::HostDrop;
use super::ip::Fragment;
use super::udp::Ends;
use queue::{Queue, Refusal};

/// Incomplete packets kept at once.
pub const MAX_QUEUES: usize = 1024;
/// Bytes of all of them: Linux's `ipfrag_high_thresh`.
pub const MAX_BYTES: usize = 4 << 20;
/// Packets after which an incomplete one is given up. Linux gives up after 30 s (60 s for IPv6), but there is no clock here: about as
/// long on a quiet underlay, and on a busy one still far longer than the pieces of one packet are apart.
pub const MAX_AGE_PACKETS: u64 = 16_384;

/// What became of a fragment that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its number, as [`Host::receive`](super::Host::receive) counts packets.
    pub packet: u64,
    /// Joined with the others, or why not.
    pub fate: Result<(), HostDrop>,
}

/// Whose piece a fragment is. For IPv6 the protocol is no part of it (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    ends: Ends,
    id: u32,
    protocol: Option<u8>,
}

/// All incomplete packets.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    // The keys come from packets: no fast hash.
    queues: HashMap<Key, Queue>,
    /// When each queue began; some are gone since.
    births: VecDeque<(u64, Key)>,
    bytes: usize,
    /// The packet that was completed last.
    whole: Queue,
}

/// A packet of which every byte is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'a> {
    pub(super) protocol: u8,
    pub(super) tos: u8,
    pub(super) payload: &'a [u8],
}

impl Fragments {
    /// Gives up what is too old when packet `now` comes.
    pub(super) fn expire(&mut self, now: u64, settled: &mut Vec<Settled>) {
        while let Some(&(born, key)) = self.births.front() {
            if born + MAX_AGE_PACKETS >= now {
                return;
            }
            self.births.pop_front();
            if self.queues.get(&key).is_some_and(|q| q.born == born) {
                self.give_up(&key, HostDrop::FragmentIncomplete, settled);
            }
        }
    }

    /// Gives up everything.
    pub(super) fn finish(&mut self, settled: &mut Vec<Settled>) {
        for (_, queue) in self.queues.drain() {
            queue.settle(Err(HostDrop::FragmentIncomplete), settled);
        }
        self.births.clear();
        self.bytes = 0;
    }

    /// Packet number `packet` is a fragment. `Ok(None)`: it is kept.
    pub(super) fn insert(
        &mut self,
        packet: u64,
        ends: Ends,
        tos: u8,
        fragment: &Fragment<'_>,
        settled: &mut Vec<Settled>,
    ) -> Result<Option<Whole<'_>>, HostDrop> {
        if self.bytes > MAX_BYTES {
            return Err(HostDrop::FragmentMemory);
        }
        let key = Key {
            ends,
            id: fragment.id,
            protocol: ends.0.is_ipv4().then_some(fragment.protocol),
        };
        if !self.queues.contains_key(&key) {
            if self.queues.len() >= MAX_QUEUES {
                return Err(HostDrop::FragmentMemory);
            }
            self.births.push_back((packet, key));
        }
        let queue = self
            .queues
            .entry(key)
            .or_insert_with(|| Queue::born_at(packet));
        let before = queue.bytes.len();
        let inserted = queue.insert(packet, tos, fragment, ends.0.is_ipv4());
        self.bytes += queue.bytes.len() - before;
        match inserted {
            Ok(()) if queue.is_complete() => self.complete(&key, packet, settled).map(Some),
            Ok(()) => Ok(None),
            Err(Refusal::Alone(reason)) => {
                if queue.packets.is_empty() {
                    self.take(&key);
                }
                Err(reason)
            }
            Err(Refusal::Packet(reason)) => {
                self.give_up(&key, reason, settled);
                Err(reason)
            }
        }
    }

    fn complete(
        &mut self,
        key: &Key,
        packet: u64,
        settled: &mut Vec<Settled>,
    ) -> Result<Whole<'_>, HostDrop> {
        let Some(mut queue) = self.take(key) else {
            return Err(HostDrop::FragmentIncomplete);
        };
        // The one that completes it is answered for itself.
        queue.packets.retain(|&other| other != packet);
        let whole = queue.tos();
        queue.settle(whole.map(drop), settled);
        let (first, tos) = whole?;
        self.whole = queue;
        Ok(Whole {
            protocol: first.protocol,
            tos,
            payload: &self.whole.bytes,
        })
    }

    fn give_up(&mut self, key: &Key, reason: HostDrop, settled: &mut Vec<Settled>) {
        if let Some(queue) = self.take(key) {
            queue.settle(Err(reason), settled);
        }
    }

    fn take(&mut self, key: &Key) -> Option<Queue> {
        let queue = self.queues.remove(key)?;
        self.bytes -= queue.bytes.len();
        Some(queue)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::ops::Range;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const V4: Ends = (
        IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14)),
        IpAddr::V4(Ipv4Addr::new(10, 0, 32, 12)),
    );
    const V6: Ends = (
        IpAddr::V6(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, 2)),
    );

    /// A host's fragments, and the number of the last packet.
    #[derive(Default)]
    struct Bench {
        fragments: Fragments,
        packet: u64,
        settled: Vec<Settled>,
    }

    type Answer = Result<Option<Vec<u8>>, HostDrop>;

    impl Bench {
        /// A fragment of `payload`, which ends the packet where `payload` ends.
        fn piece(&mut self, ends: Ends, payload: &[u8], piece: Range<usize>) -> Answer {
            let more = piece.end < payload.len();
            self.put(ends, 0, piece.start, more, &payload[piece])
        }

        fn put(&mut self, ends: Ends, tos: u8, offset: usize, more: bool, bytes: &[u8]) -> Answer {
            self.packet += 1;
            let fragment = Fragment {
                id: 7,
                protocol: 17,
                offset,
                more,
                bytes,
                header_len: 20,
            };
            self.fragments.expire(self.packet, &mut self.settled);
            let settled = &mut self.settled;
            let whole = self
                .fragments
                .insert(self.packet, ends, tos, &fragment, settled)?;
            Ok(whole.map(|whole| whole.payload.to_vec()))
        }

        fn fates(&mut self) -> Vec<(u64, Result<(), HostDrop>)> {
            let mut fates: Vec<_> = self.settled.drain(..).map(|s| (s.packet, s.fate)).collect();
            fates.sort_by_key(|&(packet, _)| packet);
            fates
        }

        fn is_empty(&self) -> bool {
            self.fragments.queues.is_empty() && self.fragments.bytes == 0
        }
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn joins_fragments_in_order_reversed_and_of_9000_bytes() {
        let payload = payload(8988);
        let in_order: Vec<_> = (0..8988_usize)
            .step_by(1480)
            .map(|start| start..(start + 1480).min(8988))
            .collect();
        let reversed: Vec<_> = in_order.iter().rev().cloned().collect();
        for ends in [V4, V6] {
            for pieces in [&in_order, &reversed] {
                let mut bench = Bench::default();
                let (last, before) = pieces.split_last().unwrap();
                for piece in before {
                    assert_eq!(bench.piece(ends, &payload, piece.clone()), Ok(None));
                }
                let whole = bench.piece(ends, &payload, last.clone());
                assert_eq!(whole, Ok(Some(payload.clone())));
                let joined: Vec<_> = (1..=before.len() as u64).map(|n| (n, Ok(()))).collect();
                assert_eq!(bench.fates(), joined);
                assert!(bench.is_empty());
            }
        }
    }

    #[test]
    fn an_overlap_gives_the_packet_up_and_what_follows_begins_another() {
        let payload = payload(64);
        for ends in [V4, V6] {
            let mut bench = Bench::default();
            assert_eq!(bench.piece(ends, &payload, 0..32), Ok(None));
            let overlap = bench.piece(ends, &payload, 24..48);
            assert_eq!(overlap, Err(HostDrop::FragmentOverlap));
            assert_eq!(bench.fates(), [(1, Err(HostDrop::FragmentOverlap))]);
            assert!(bench.is_empty());
            assert_eq!(bench.piece(ends, &payload, 48..64), Ok(None));
            assert_eq!(
                bench.piece(ends, &payload, 0..48),
                Ok(Some(payload.clone()))
            );
        }
    }

    #[test]
    fn a_duplicate_is_dropped_alone() {
        let payload = payload(64);
        let mut bench = Bench::default();
        assert_eq!(bench.piece(V4, &payload, 0..32), Ok(None));
        for again in [0..32, 8..24] {
            let again = bench.piece(V4, &payload, again);
            assert_eq!(again, Err(HostDrop::FragmentDuplicate));
        }
        assert_eq!(bench.piece(V4, &payload, 32..64), Ok(Some(payload.clone())));
        assert_eq!(bench.fates(), [(1, Ok(()))]);
    }

    #[test]
    fn a_first_fragment_alone_waits_until_it_is_too_old_or_the_end() {
        let payload = payload(64);
        let mut bench = Bench::default();
        assert_eq!(bench.piece(V4, &payload, 0..32), Ok(None));
        let settled = &mut bench.settled;
        bench.fragments.expire(MAX_AGE_PACKETS + 1, settled);
        assert!(settled.is_empty());
        bench.fragments.expire(MAX_AGE_PACKETS + 2, settled);
        assert_eq!(bench.fates(), [(1, Err(HostDrop::FragmentIncomplete))]);
        assert!(bench.is_empty());

        assert_eq!(bench.piece(V6, &payload, 0..32), Ok(None));
        bench.fragments.finish(&mut bench.settled);
        assert_eq!(bench.fates(), [(2, Err(HostDrop::FragmentIncomplete))]);
        assert!(bench.is_empty());
    }

    #[test]
    fn a_packet_that_begins_again_has_its_own_age() {
        let payload = payload(64);
        let mut bench = Bench::default();
        assert_eq!(bench.piece(V4, &payload, 0..32), Ok(None));
        assert!(bench.piece(V4, &payload, 32..64).is_ok());
        bench.packet = MAX_AGE_PACKETS;
        assert_eq!(bench.piece(V4, &payload, 0..32), Ok(None));
        bench.fates();
        bench.packet = 2 * MAX_AGE_PACKETS;
        assert_eq!(bench.piece(V4, &payload, 32..64), Ok(Some(payload.clone())));
    }

    /// Whether Linux 6.18 received the packet of 64 bytes that such fragments were of, over IPv4 and IPv6 alike. Bytes that cover
    /// two stretches which came apart are an overlap; those inside one are a duplicate.
    #[test]
    fn what_linux_joined_is_joined() {
        type Piece = (Range<usize>, bool);
        let cases: [(&[Piece], bool); 8] = [
            (&[(0..32, true), (8..24, true), (32..64, false)], true),
            (
                &[
                    (0..16, true),
                    (16..32, true),
                    (8..24, true),
                    (32..64, false),
                ],
                true,
            ),
            (
                &[
                    (16..32, true),
                    (0..16, true),
                    (8..24, true),
                    (32..64, false),
                ],
                false,
            ),
            (
                &[
                    (16..32, true),
                    (0..16, true),
                    (8..24, true),
                    (32..64, false),
                    (0..32, true),
                ],
                true,
            ),
            (&[(0..32, true), (24..48, true), (48..64, false)], false),
            (
                &[
                    (32..64, false),
                    (8..16, true),
                    (40..48, false),
                    (0..8, true),
                    (16..32, true),
                ],
                false,
            ),
            (&[(0..32, true), (8..8, true), (32..64, false)], false),
            (
                &[(0..32, true), (8..8, true), (32..64, false), (0..32, true)],
                true,
            ),
        ];
        let payload = payload(64);
        for ends in [V4, V6] {
            for (pieces, joined) in cases {
                let mut bench = Bench::default();
                let answers = pieces.iter().map(|(piece, more)| {
                    bench.put(ends, 0, piece.start, *more, &payload[piece.clone()])
                });
                let wholes: Vec<_> = answers.filter_map(|answer| answer.ok().flatten()).collect();
                assert_eq!(
                    wholes,
                    vec![payload.clone(); usize::from(joined)],
                    "{pieces:?}"
                );
            }
        }
    }

    #[test]
    fn fragments_at_odds_with_their_packet_give_it_up() {
        let malformed = Err(HostDrop::FragmentMalformed);
        for second in [
            (40, true, 8),  // past the last
            (40, false, 8), // another last
            (0, false, 8),  // a last before the end
            (8, true, 0),   // empty
        ] {
            let mut bench = Bench::default();
            assert_eq!(bench.put(V4, 0, 32, false, &[1; 8]), Ok(None));
            let (offset, more, len) = second;
            let answer = bench.put(V4, 0, offset, more, &vec![2; len]);
            assert_eq!(answer, malformed, "{second:?}");
            assert_eq!(bench.fates(), [(1, Err(HostDrop::FragmentMalformed))]);
            assert!(bench.is_empty());
        }
    }

    #[test]
    fn a_ragged_fragment_is_cut_over_ipv4_and_refused_over_ipv6() {
        let mut bench = Bench::default();
        assert_eq!(bench.put(V4, 0, 0, true, &[1; 12]), Ok(None));
        let whole = bench.put(V4, 0, 8, false, &[2; 3]);
        assert_eq!(whole, Ok(Some([&[1; 8][..], &[2; 3]].concat())));
        let refused = bench.put(V6, 0, 0, true, &[1; 12]);
        assert_eq!(refused, Err(HostDrop::FragmentMalformed));
        assert!(bench.is_empty());
    }

    #[test]
    fn a_packet_over_65535_bytes_is_refused_when_it_is_whole() {
        for ends in [V4, V6] {
            let mut bench = Bench::default();
            let tail = bench.put(ends, 0, 65_520, false, &[1; 15]);
            assert_eq!(tail, Ok(None));
            let head = bench.put(ends, 0, 0, true, &vec![2; 65_520]);
            assert_eq!(head, Err(HostDrop::FragmentMalformed));
            assert!(bench.is_empty());
        }
    }

    #[test]
    fn ecn_of_the_fragments_is_joined_as_linux_does() {
        for (tos, joined) in [
            ([0xb8, 0xb8], Some(0xb8)),
            ([0xba, 0xbb], Some(0xbb)),
            ([0xb9, 0xbb], Some(0xbb)),
            ([0xba, 0xb9], Some(0xba)),
            ([0xb8, 0xba], None),
            ([0xbb, 0xb8], None),
        ] {
            let mut fragments = Fragments::default();
            let fragment = |offset, more| Fragment {
                id: 7,
                protocol: 17,
                offset,
                more,
                bytes: &[0; 8],
                header_len: 20,
            };
            let settled = &mut Vec::new();
            let kept = fragments.insert(1, V4, tos[0], &fragment(0, true), settled);
            assert!(kept.is_ok());
            let whole = fragments.insert(2, V4, tos[1], &fragment(8, false), settled);
            let expected = joined.ok_or(HostDrop::FragmentEcn);
            assert_eq!(whole.map(|whole| whole.unwrap().tos), expected, "{tos:x?}");
        }
    }

    #[test]
    fn memory_is_bounded_by_packets_and_by_bytes() {
        let settled = &mut Vec::new();
        let fragment = |id, bytes| Fragment {
            id,
            protocol: 17,
            offset: 0,
            more: true,
            bytes,
            header_len: 20,
        };
        let mut many = Fragments::default();
        for id in 0..=MAX_QUEUES as u32 {
            let answer = many.insert(id.into(), V4, 0, &fragment(id, &[0; 8]), settled);
            let full = id == MAX_QUEUES as u32;
            assert_eq!(answer.is_err(), full, "{id}");
        }
        let mut large = Fragments::default();
        let refused = (0..MAX_QUEUES as u32)
            .find(|&id| {
                let fragment = fragment(id, &[0; 60_000]);
                large.insert(id.into(), V4, 0, &fragment, settled).is_err()
            })
            .expect("the bound in bytes is reached first");
        assert_eq!(refused as usize, MAX_BYTES.div_ceil(60_000));
    }

    proptest! {
        #[test]
        fn any_cut_in_any_order_gives_the_payload(len in 16_usize..2000, cuts in vec(1_usize..250, 0..8), order: [u64; 9], v6: bool) {
            let ends = if v6 { V6 } else { V4 };
            let payload = payload(len);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut * 8).filter(|&cut| cut < len).collect();
            cuts.extend([0, len]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).zip(order).collect();
            pieces.sort_by_key(|&(_, key)| key);
            let mut bench = Bench::default();
            let (last, before) = pieces.split_last().unwrap();
            prop_assume!(!before.is_empty());
            for (piece, _) in before {
                prop_assert_eq!(bench.piece(ends, &payload, piece.clone()), Ok(None));
            }
            prop_assert_eq!(bench.piece(ends, &payload, last.0.clone()), Ok(Some(payload)));
            prop_assert!(bench.is_empty());
        }

        /// Every fragment is answered or settled exactly once, and a whole packet holds nothing but bytes of its fragments.
        #[test]
        fn whatever_comes_each_fragment_has_one_fate(pieces in vec((0_usize..12, 0_usize..6, any::<bool>(), any::<bool>(), 0_u8..4), 0..60)) {
            let mut bench = Bench::default();
            let mut waiting = std::collections::BTreeSet::new();
            let all = payload(200);
            for (offset, units, more, v6, ecn) in pieces {
                let (start, end) = (offset * 8, (offset + units) * 8);
                let ends = if v6 { V6 } else { V4 };
                match bench.put(ends, ecn, start, more, &all[start..end]) {
                    Ok(None) => { waiting.insert(bench.packet); }
                    Ok(Some(whole)) => prop_assert_eq!(&whole[..], &all[..whole.len()]),
                    Err(_) => {}
                }
                for (packet, _) in bench.fates() {
                    prop_assert!(waiting.remove(&packet), "{} was not waiting", packet);
                }
            }
            bench.fragments.finish(&mut bench.settled);
            for (packet, _) in bench.fates() {
                prop_assert!(waiting.remove(&packet));
            }
            prop_assert!(waiting.is_empty() && bench.is_empty());
        }
    }
}
