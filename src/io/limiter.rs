//! A bound on how often something is said, for each of some classes of listeners on its own.

use std::time::{Duration, Instant};

/// Classes that do not get in each other's way: enough that one sender seldom silences another.
const SLOTS: usize = 64;
/// Between two messages of one class in the long run.
const INTERVAL: Duration = Duration::from_millis(100);
/// What a class may say at once before that: each of a few connections to one place its own.
const BURST: u32 = 6;

/// The generic cell rate algorithm (ITU-T I.371): of each class the time is kept at which a message would have been due, had all that went
/// before come evenly spaced. Reads no clock.
#[derive(Debug)]
pub(super) struct Limiter {
    due: [Option<Instant>; SLOTS],
}

impl Default for Limiter {
    fn default() -> Self {
        Self { due: [None; SLOTS] }
    }
}

impl Limiter {
    /// Whether a listener of the class that `hash` falls in may be told something now.
    pub(super) fn allow(&mut self, hash: u32, now: Instant) -> bool {
        let slot = &mut self.due[hash as usize % SLOTS];
        let due = slot.map_or(now, |due| due.max(now));
        let is_allowed = due <= now + INTERVAL * (BURST - 1);
        if is_allowed {
            *slot = Some(due + INTERVAL);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_each_interval() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let mut allowed = |at: Duration| limiter.allow(1, start + at);
        assert!((0..BURST).all(|_| allowed(Duration::ZERO)));
        assert!(!allowed(Duration::ZERO));
        assert!(!allowed(INTERVAL - Duration::from_millis(1)));
        assert!(allowed(INTERVAL));
        assert!(!allowed(INTERVAL));
        assert!((0..BURST).all(|_| allowed(INTERVAL * 100)));
        assert!(!allowed(INTERVAL * 100));
    }

    #[test]
    fn classes_do_not_silence_each_other() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        while limiter.allow(1, now) {}
        assert!(limiter.allow(2, now));
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_its_share(steps in vec(0..50_u64, 1..400)) {
            let (mut limiter, start) = (Limiter::default(), Instant::now());
            let mut now = start;
            let mut said = Vec::new();
            for step in steps {
                now += Duration::from_millis(step);
                if limiter.allow(0, now) {
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
