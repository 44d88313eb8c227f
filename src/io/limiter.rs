//! A bound on how often something is said, for each of some classes of listeners on its own. Whom a listener shares its class with is
//! chosen under a key that nobody knows: who speaks too much cannot choose whom that silences, and has one class only, whatever it sends.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Classes, four for each container of a cell's /24: that a given other shares its class with one who speaks too much is one in a
/// thousand.
const SLOTS: usize = 1024;
/// Between two messages to one class in the long run.
const INTERVAL: Duration = Duration::from_millis(100);
/// What a class may be told at once before that: of each of a few connections.
const BURST: u32 = 6;

/// The generic cell rate algorithm (ITU-T I.371): of each class the time is kept at which a message would have been due, had all that went
/// before come evenly spaced. Reads no clock.
#[derive(Debug)]
pub(super) struct Limiter {
    keys: RandomState,
    due: Box<[Option<Instant>]>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            keys: RandomState::new(),
            due: vec![None; SLOTS].into(),
        }
    }
}

impl Limiter {
    /// Whether `listener` may be told something now. Once it was, [`count`](Self::count) says so.
    pub(super) fn allows(&self, listener: IpAddr, now: Instant) -> bool {
        self.due(listener, now) <= now + INTERVAL * (BURST - 1)
    }

    /// `listener` was told something.
    pub(super) fn count(&mut self, listener: IpAddr, now: Instant) {
        let next = self.due(listener, now) + INTERVAL;
        let class = self.class(listener);
        self.due[class] = Some(next);
    }

    fn due(&self, listener: IpAddr, now: Instant) -> Instant {
        self.due[self.class(listener)].map_or(now, |due| due.max(now))
    }

    fn class(&self, listener: IpAddr) -> usize {
        // What is cut off is as random as the rest.
        self.keys.hash_one(listener) as usize % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LISTENER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 255, 108, 184));

    /// Tells it something if it may be told.
    fn tell(limiter: &mut Limiter, listener: IpAddr, now: Instant) -> bool {
        let is_allowed = limiter.allows(listener, now);
        if is_allowed {
            limiter.count(listener, now);
        }
        is_allowed
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_each_interval() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let mut allowed = |at: Duration| tell(&mut limiter, LISTENER, start + at);
        assert!((0..BURST).all(|_| allowed(Duration::ZERO)));
        assert!(!allowed(Duration::ZERO));
        assert!(!allowed(INTERVAL - Duration::from_millis(1)));
        assert!(allowed(INTERVAL));
        assert!(!allowed(INTERVAL));
        assert!((0..BURST).all(|_| allowed(INTERVAL * 100)));
        assert!(!allowed(INTERVAL * 100));
    }

    #[test]
    fn who_is_told_too_much_silences_next_to_nobody() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        while tell(&mut limiter, LISTENER, now) {}
        let others = (0..64).map(|last| IpAddr::from([10, 255, 43, last]));
        let silenced = others
            .filter(|&other| !tell(&mut limiter, other, now))
            .count();
        // That five of them share its class is less likely than one in a hundred million.
        assert!(silenced < 5, "{silenced}");
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_share(steps in vec(0..50_u64, 1..400)) {
            let (mut limiter, start) = (Limiter::default(), Instant::now());
            let mut now = start;
            let mut said = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                if tell(&mut limiter, LISTENER, now) {
                    said.push(now);
                }
            }
            for (i, from) in said.iter().enumerate() {
                for (j, to) in said.iter().enumerate().skip(i) {
                    let share = (*to - *from).as_millis() / INTERVAL.as_millis() + u128::from(BURST);
                    prop_assert!((j - i + 1) as u128 <= share);
                }
            }
        }
    }
}
