//! What is known of the paths to the peers, and when one of them is worth a probe. Reads no clock.

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
/// Until the same claim, proven wrong, is looked into again; doubled each time.
const DOUBT_MIN: Duration = Duration::from_secs(10);
/// The longest such pause.
const DOUBT_MAX: Duration = Duration::from_secs(60);

/// Paths that are not as wide as the device's MTU promises, or are said not to be. All sizes are bytes of an IP packet on the underlay.
#[derive(Debug)]
pub(super) struct Paths {
    full: u32,
    known: HashMap<IpAddr, Known>,
}

#[derive(Debug)]
enum Known {
    /// The kernel's routes claim less, and the path does not say so.
    Doubted {
        claim: u32,
        until: Instant,
        pause: Duration,
    },
    /// The path said so.
    Narrow {
        path: u32,
        /// A claim of still less that the path did not confirm.
        disproved: Option<u32>,
        due: Instant,
        pause: Duration,
        silent: u32,
    },
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

    /// Whether there is something to be looked after even if nothing is sent to `peer`.
    pub(super) fn is_known(&self, peer: IpAddr) -> bool {
        self.known.contains_key(&peer)
    }

    /// Every path that is narrow, and what it carries.
    pub(super) fn narrow(&self) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
        self.known.iter().filter_map(|(&peer, known)| match *known {
            Known::Narrow { path, .. } => Some((peer, path)),
            Known::Doubted { .. } => None,
        })
    }

    /// What the narrowest link towards `peer` is said to carry, by the kernel's claim or by what was found before.
    pub(super) fn narrowest(&self, peer: IpAddr, claim: Option<u32>) -> Option<u32> {
        let found = match self.known.get(&peer) {
            Some(Known::Narrow { path, .. }) => Some(*path),
            Some(Known::Doubted { .. }) | None => None,
        };
        found.into_iter().chain(claim).min()
    }

    /// Whether a probe of the full size should tell. `claim`: what the kernel's route to `peer` carries, as far as the kernel knows.
    pub(super) fn wants_probe(&self, peer: IpAddr, claim: Option<u32>, now: Instant) -> bool {
        let claims_less_than = |path| claim.is_some_and(|claim| claim < path);
        match self.known.get(&peer) {
            None => claims_less_than(self.full),
            Some(Known::Doubted {
                claim: doubted,
                until,
                ..
            }) => claims_less_than(self.full) && (claim != Some(*doubted) || now >= *until),
            Some(Known::Narrow {
                path,
                disproved,
                due,
                ..
            }) => now >= *due || (claims_less_than(*path) && claim != *disproved),
        }
    }

    /// A round of probes ended, with the least that was answered, if anything was.
    pub(super) fn settle(
        &mut self,
        peer: IpAddr,
        claim: Option<u32>,
        answer: Option<u32>,
        now: Instant,
    ) -> Finding {
        let known = self.known.remove(&peer);
        let (next, finding) = match answer {
            Some(answer) => Self::confirmed(known, claim, answer, now),
            None => self.silent(known, claim, now),
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
        let next = Known::Narrow {
            path: answer,
            disproved: claim.filter(|&claim| claim < answer),
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
        now: Instant,
    ) -> (Option<Known>, Finding) {
        match known {
            Some(Known::Narrow {
                path,
                disproved,
                silent,
                ..
            }) if silent + 1 < SILENT_ROUNDS => {
                let next = Known::Narrow {
                    path,
                    disproved,
                    due: now + SILENCE,
                    pause: RECHECK_MIN,
                    silent: silent + 1,
                };
                (Some(next), Finding::Unchanged)
            }
            Some(Known::Narrow { .. }) => (self.doubt(claim, DOUBT_MIN, now), Finding::Wide),
            Some(Known::Doubted { pause, .. }) => {
                let pause = (pause * 2).min(DOUBT_MAX);
                (self.doubt(claim, pause, now), Finding::Unchanged)
            }
            None => (self.doubt(claim, DOUBT_MIN, now), Finding::Unchanged),
        }
    }

    fn doubt(&self, claim: Option<u32>, pause: Duration, now: Instant) -> Option<Known> {
        let claim = claim.filter(|&claim| claim < self.full)?;
        Some(Known::Doubted {
            claim,
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
        let finding = paths.settle(PEER, Some(1400), Some(1400), now);
        assert_eq!(finding, Finding::Narrow(1400));
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(PEER, 1400)]);
        assert!(!paths.wants_probe(PEER, Some(1400), now));
    }

    #[test]
    fn the_narrowest_link_is_the_least_of_what_is_said_and_what_was_found() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        assert_eq!(paths.narrowest(PEER, None), None);
        assert_eq!(paths.narrowest(PEER, Some(1300)), Some(1300));
        paths.settle(PEER, Some(1400), Some(1400), now);
        assert_eq!(paths.narrowest(PEER, None), Some(1400));
        assert_eq!(paths.narrowest(PEER, Some(1300)), Some(1300));
        assert_eq!(paths.narrowest(PEER, Some(1450)), Some(1400));
    }

    #[test]
    fn the_path_is_believed_and_not_the_claim() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        let finding = paths.settle(PEER, Some(600), Some(1400), now);
        assert_eq!(finding, Finding::Narrow(1400));
        assert!(!paths.wants_probe(PEER, Some(600), now), "disproved");
        assert!(paths.wants_probe(PEER, Some(1300), now), "another");
    }

    #[test]
    fn a_claim_that_the_path_does_not_confirm_changes_nothing_and_is_looked_into_ever_less_often() {
        let (mut paths, start) = (Paths::new(FULL), Instant::now());
        let mut rounds = Vec::new();
        for second in 0..300 {
            let now = start + seconds(second);
            if paths.wants_probe(PEER, Some(600), now) {
                assert_eq!(paths.settle(PEER, Some(600), None, now), Finding::Unchanged);
                rounds.push(second);
            }
        }
        assert_eq!(rounds, [0, 10, 30, 70, 130, 190, 250]);
        assert_eq!(paths.narrow().count(), 0);
        let now = start + seconds(300);
        assert!(paths.wants_probe(PEER, Some(1400), now), "another claim");
    }

    #[test]
    fn a_path_is_wide_again_after_two_silent_rounds() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Some(1400), now);
        let due = now + RECHECK_MIN;
        assert!(paths.wants_probe(PEER, Some(1400), due));
        assert_eq!(
            paths.settle(PEER, Some(1400), None, due),
            Finding::Unchanged
        );
        let again = due + SILENCE;
        assert!(paths.wants_probe(PEER, Some(1400), again));
        assert_eq!(paths.settle(PEER, Some(1400), None, again), Finding::Wide);
        assert_eq!(paths.narrow().count(), 0);
        // The kernel goes on believing for some minutes.
        assert!(!paths.wants_probe(PEER, Some(1400), again));
        assert!(paths.is_known(PEER));
    }

    #[test]
    fn one_answer_that_is_lost_does_not_make_a_path_wide() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Some(1400), now);
        paths.settle(PEER, Some(1400), None, now);
        let finding = paths.settle(PEER, Some(1400), Some(1400), now);
        assert_eq!(finding, Finding::Unchanged);
        paths.settle(PEER, Some(1400), None, now);
        assert_eq!(paths.narrow().collect::<Vec<_>>(), [(PEER, 1400)]);
    }

    #[test]
    fn a_narrow_path_is_looked_at_ever_less_often_and_follows_each_answer() {
        let (mut paths, start) = (Paths::new(FULL), Instant::now());
        let mut rounds = Vec::new();
        for second in 0..200 {
            let now = start + seconds(second);
            if paths.wants_probe(PEER, Some(1400), now) {
                paths.settle(PEER, Some(1400), Some(1400), now);
                rounds.push(second);
            }
        }
        assert_eq!(rounds, [0, 5, 15, 35, 75, 135, 195]);
        let now = start + seconds(200);
        for answer in [1450, 1300] {
            let finding = paths.settle(PEER, Some(1400), Some(answer), now);
            assert_eq!(finding, Finding::Narrow(answer));
        }
    }

    #[test]
    fn peers_that_are_gone_are_forgotten() {
        let (mut paths, now) = (Paths::new(FULL), Instant::now());
        paths.settle(PEER, Some(1400), Some(1400), now);
        paths.retain(|peer| peer != PEER);
        assert!(!paths.is_known(PEER));
    }
}
