//! What is known of the paths to the peers, and when one of them is worth a probe. Reads no clock.
//!
//! A claim that no probe confirms is doubted: for a pause, nothing that is claimed of the path is looked into. Whoever forges claims
//! therefore has no more than a round of probes every [`DOUBT_MAX`], or every [`DOUBT_MIN`] of a peer that is not heard, whatever he
//! varies; a path that becomes narrow meanwhile is found out when the pause ends.
//!
//! The silence of a peer that is not heard proves nothing: in an outage nobody answers. It makes a narrow path wide all the same, for a path
//! that nobody speaks on, or only we do, would else stay narrow for good; but what is claimed of it is looked into again after
//! [`DOUBT_MIN`] each time, so that a path that is as narrow after the outage as before is learned as fast as at first. To count silence
//! only where a peer is heard would bind more to what the peer sends than that is worth: anybody can send in its name. All he gains here is
//! the longer pause.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two probes of a path that is still narrow; doubled from one to the next.
const RECHECK_MIN: Duration = Duration::from_secs(5);
/// The longest such pause. The kernel believes for ten minutes (`ip_rt_mtu_expires`).
const RECHECK_MAX: Duration = Duration::from_secs(60);
/// Between two probes that both must stay unanswered before a path counts as wide again: one answer may be lost.
const SILENCE: Duration = Duration::from_secs(1);
/// So many.
const SILENT_ROUNDS: u32 = 2;
/// After a claim that was not confirmed, until one is looked into again; doubled each time that the peer was heard.
const DOUBT_MIN: Duration = Duration::from_secs(2);
/// The longest such pause. Short, for what a path that becomes narrow loses until then.
const DOUBT_MAX: Duration = Duration::from_secs(10);

/// Paths that are not as wide as the device's MTU promises, or are said not to be. All sizes are bytes of an IP packet on the underlay.
#[derive(Debug)]
pub(super) struct Paths {
    full: u32,
    known: HashMap<IpAddr, Known>,
}

#[derive(Debug)]
enum Known {
    /// The kernel's routes claim less, and the path does not say so.
    Doubted { until: Instant, pause: Duration },
    /// The path said so.
    Narrow {
        path: u32,
        /// Until then claims of still less are doubted.
        until: Instant,
        due: Instant,
        pause: Duration,
        silent: u32,
    },
}

/// What came of a round of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// A link carries so much: the least that was answered.
    Carries(u32),
    /// None, of a peer that was heard meanwhile.
    Silence,
    /// None, of a peer that was not heard either.
    Unheard,
}

/// What a round of probes was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing is different.
    Unchanged,
    /// The path carries so much, less than the device promises.
    Narrow(u32),
    /// The path carries all again.
    Wide,
}

impl Paths {
    /// No path is narrow. The largest packet that is ever sent has `full` bytes.
    pub(super) fn new(full: u32) -> Self {
        Self {
            full,
            known: HashMap::new(),
        }
    }

    /// Peers that are no more.
    pub(super) fn retain(&mut self, mut is_peer: impl FnMut(IpAddr) -> bool) {
        self.known.retain(|&peer, _| is_peer(peer));
    }

    /// Whether the path to `peer` is, and so is to be looked after even if nothing is sent there: it may have become wide.
    pub(super) fn is_narrow(&self, peer: IpAddr) -> bool {
        matches!(self.known.get(&peer), Some(Known::Narrow { .. }))
    }

    /// Every path that is narrow, and what it carries.
    pub(super) fn narrow(&self) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
        self.known.iter().filter_map(|(&peer, known)| match *known {
            Known::Narrow { path, .. } => Some((peer, path)),
            Known::Doubted { .. } => None,
        })
    }

    /// How large probes must be to tell what the path carries: the full size, which the first link answers that does not carry it; one byte
    /// more than the narrowest link is said to carry, by the kernel's claim or by what was found before, which only that one answers; and,
    /// where less is claimed than was found, what was found, which a link behind answers even if the claim is a lie.
    pub(super) fn sizes(&self, peer: IpAddr, claim: Option<u32>) -> impl Iterator<Item = u32> {
        let found = match self.known.get(&peer) {
            Some(Known::Narrow { path, .. }) => Some(*path),
            Some(Known::Doubted { .. }) | None => None,
        };
        let narrowest = found.into_iter().chain(claim).min();
        let above = narrowest.map(|bytes| bytes + 1);
        let behind = found.filter(|&found| narrowest < Some(found));
        let full = self.full;
        let others = [above, behind].into_iter().flatten();
        std::iter::once(full).chain(others.filter(move |&bytes| bytes < full))
    }

    /// Whether a probe of the full size should tell. `claim`: what the kernel's route to `peer` carries, as far as the kernel knows.
    pub(super) fn wants_probe(&self, peer: IpAddr, claim: Option<u32>, now: Instant) -> bool {
        let claims_less_than = |path| claim.is_some_and(|claim| claim < path);
        match self.known.get(&peer) {
            None => claims_less_than(self.full),
            Some(Known::Doubted { until, .. }) => claims_less_than(self.full) && now >= *until,
            Some(Known::Narrow {
                path, until, due, ..
            }) => now >= *due || (claims_less_than(*path) && now >= *until),
        }
    }

    /// A round of probes ended.
    pub(super) fn settle(
        &mut self,
        peer: IpAddr,
        claim: Option<u32>,
        answer: Answer,
        now: Instant,
    ) -> Finding {
        let known = self.known.remove(&peer);
        let (next, finding) = match answer {
            Answer::Carries(bytes) => Self::confirmed(known, claim, bytes, now),
            Answer::Silence => self.silent(known, claim, true, now),
            Answer::Unheard => self.silent(known, claim, false, now),
        };
        if let Some(next) = next {
            self.known.insert(peer, next);
        }
        finding
    }

    fn confirmed(
        known: Option<Known>,
        claim: Option<u32>,
        answer: u32,
        now: Instant,
    ) -> (Option<Known>, Finding) {
        let (pause, finding) = match known {
            Some(Known::Narrow { path, pause, .. }) if path == answer => {
                ((pause * 2).min(RECHECK_MAX), Finding::Unchanged)
            }
            _ => (RECHECK_MIN, Finding::Narrow(answer)),
        };
        let is_disproved = claim.is_some_and(|claim| claim < answer);
        let next = Known::Narrow {
            path: answer,
            until: if is_disproved { now + DOUBT_MAX } else { now },
            due: now + pause,
            pause,
            silent: 0,
        };
        (Some(next), finding)
    }

    fn silent(
        &self,
        known: Option<Known>,
        claim: Option<u32>,
        is_heard: bool,
        now: Instant,
    ) -> (Option<Known>, Finding) {
        match known {
            Some(Known::Narrow {
                path,
                until,
                silent,
                ..
            }) if silent + 1 < SILENT_ROUNDS => {
                let next = Known::Narrow {
                    path,
                    until,
                    due: now + SILENCE,
                    pause: RECHECK_MIN,
                    silent: silent + 1,
                };
                (Some(next), Finding::Unchanged)
            }
            Some(Known::Narrow { .. }) => (self.doubt(claim, DOUBT_MIN, now), Finding::Wide),
            Some(Known::Doubted { pause, .. }) if is_heard => {
                let pause = (pause * 2).min(DOUBT_MAX);
                (self.doubt(claim, pause, now), Finding::Unchanged)
            }
            Some(Known::Doubted { .. }) | None => {
                (self.doubt(claim, DOUBT_MIN, now), Finding::Unchanged)
            }
        }
    }

    fn doubt(&self, claim: Option<u32>, pause: Duration, now: Instant) -> Option<Known> {
        claim.filter(|&claim| claim < self.full)?;
        Some(Known::Doubted {
            until: now + pause,
            pause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u32 = 1500;
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 16, 14));

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_claim_is_believed_once_the_path_says_so_too() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        assert!(!paths.wants_probe(PEER, Some(FULL), now) && !paths.wants_probe(PEER, None, now));
        assert!(paths.wants_probe(PEER, Some(1400), now));
        let finding = paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        assert_eq!(finding, Finding::Narrow(1400));
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(PEER, 1400)]);
        assert!(!paths.wants_probe(PEER, Some(1400), now));
    }

    #[test]
    fn probes_are_as_large_as_it_takes_to_find_the_narrowest_link() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        let sizes = |paths: &Paths, claim| paths.sizes(PEER, claim).collect::<Vec<_>>();
        assert_eq!(sizes(&paths, None), [1500]);
        assert_eq!(sizes(&paths, Some(1500)), [1500]);
        assert_eq!(sizes(&paths, Some(1300)), [1500, 1301]);
        paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        assert_eq!(sizes(&paths, None), [1500, 1401]);
        assert_eq!(sizes(&paths, Some(1400)), [1500, 1401]);
        // That may be a lie, behind which a link of 1350 would never be found by its own claim: the kernel keeps the least.
        assert_eq!(sizes(&paths, Some(600)), [1500, 601, 1400]);
        assert_eq!(sizes(&paths, Some(1450)), [1500, 1401]);
    }

    #[test]
    fn the_path_is_believed_and_not_the_claim() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        let finding = paths.settle(PEER, Some(600), Answer::Carries(1400), now);
        assert_eq!(finding, Finding::Narrow(1400));
    }

    #[test]
    fn whatever_is_claimed_of_a_narrow_path_waits_while_one_claim_is_disproved() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        assert!(paths.wants_probe(PEER, Some(600), now), "none is disproved");
        paths.settle(PEER, Some(600), Answer::Carries(1400), now);
        let soon = now + DOUBT_MAX - seconds(1);
        for claim in [600, 601, 1300] {
            assert!(!paths.wants_probe(PEER, Some(claim), soon), "{claim}");
            assert!(paths.wants_probe(PEER, Some(claim), now + DOUBT_MAX));
        }
    }

    #[test]
    fn claims_that_the_path_does_not_confirm_change_nothing_and_are_looked_into_so_often() {
        let (mut paths, start) = (Paths::new(FULL), Instant::now());
        let mut rounds = Vec::new();
        for second in 0..60 {
            let now = start + seconds(second);
            // Another claim each second.
            let claim = Some(600 + second as u32);
            if paths.wants_probe(PEER, claim, now) {
                let finding = paths.settle(PEER, claim, Answer::Silence, now);
                assert_eq!(finding, Finding::Unchanged);
                rounds.push(second);
            }
        }
        assert_eq!(rounds, [0, 2, 6, 14, 24, 34, 44, 54]);
        assert_eq!(paths.narrow().count(), 0);
    }

    #[test]
    fn after_an_outage_a_claim_is_looked_into_as_soon_as_at_first() {
        let (mut paths, start) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Answer::Carries(1400), start);
        let mut wide = 0;
        // Nobody is heard for five minutes, and the kernel claims what it did.
        for second in 1..300 {
            let now = start + seconds(second);
            if paths.wants_probe(PEER, Some(1400), now) {
                let finding = paths.settle(PEER, Some(1400), Answer::Unheard, now);
                wide += u32::from(finding == Finding::Wide);
            }
        }
        assert_eq!((wide, paths.narrow().count()), (1, 0));
        let back = start + seconds(300) + DOUBT_MIN;
        assert!(paths.wants_probe(PEER, Some(1400), back));
        let finding = paths.settle(PEER, Some(1400), Answer::Carries(1400), back);
        assert_eq!(finding, Finding::Narrow(1400));
    }

    #[test]
    fn a_path_is_wide_again_after_two_silent_rounds() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        let due = now + RECHECK_MIN;
        assert!(paths.wants_probe(PEER, Some(1400), due));
        assert_eq!(
            paths.settle(PEER, Some(1400), Answer::Silence, due),
            Finding::Unchanged
        );
        let again = due + SILENCE;
        assert!(paths.wants_probe(PEER, Some(1400), again));
        assert_eq!(
            paths.settle(PEER, Some(1400), Answer::Silence, again),
            Finding::Wide
        );
        assert_eq!(paths.narrow().count(), 0);
        // The kernel goes on believing for some minutes.
        assert!(!paths.wants_probe(PEER, Some(1400), again));
        assert!(!paths.is_narrow(PEER));
    }

    #[test]
    fn one_answer_that_is_lost_does_not_make_a_path_wide() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        paths.settle(PEER, Some(1400), Answer::Silence, now);
        let finding = paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        assert_eq!(finding, Finding::Unchanged);
        paths.settle(PEER, Some(1400), Answer::Silence, now);
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(PEER, 1400)]);
    }

    #[test]
    fn a_narrow_path_is_looked_at_ever_less_often_and_follows_each_answer() {
        let (mut paths, start) = (Paths::new(FULL), Instant::now());
        let mut rounds = Vec::new();
        for second in 0..200 {
            let now = start + seconds(second);
            if paths.wants_probe(PEER, Some(1400), now) {
                paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
                rounds.push(second);
            }
        }
        assert_eq!(rounds, [0, 5, 15, 35, 75, 135, 195]);
        let now = start + seconds(200);
        for answer in [1450, 1300] {
            let finding = paths.settle(PEER, Some(1400), Answer::Carries(answer), now);
            assert_eq!(finding, Finding::Narrow(answer));
        }
    }

    #[test]
    fn peers_that_are_gone_are_forgotten() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Answer::Carries(1400), now);
        paths.retain(|peer| peer != PEER);
        assert!(!paths.is_narrow(PEER));
    }
}
