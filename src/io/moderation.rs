//! How often a thread of a lane may sleep and be woken: interrupt moderation, as network cards do it (`ethtool -C ... rx-usecs`).
//!
//! A packet that finds the thread asleep wakes it, and one that comes alone costs a wake-up, two looks and a sleep: three times the work
//! it brought. At some ten thousand packets a second these are all that the machine does, and a sender that shares it is kept from
//! sending more; at ten times as many, packets come in batches and the trouble is over. So a thread that has run out of work more often than
//! once in an interval, for longer than a burst, rests until the interval is over, whatever arrives meanwhile.
//!
//! The rule is that of a generic cell rate algorithm (ITU-T I.371): one time stamp, no timer. A flow of requests and responses, one at a
//! time, stays below the rate and is never kept waiting.

use std::time::{Duration, Instant};

/// Times that a thread may run out of work faster than that before it rests: a request and its response are no load.
const BURST: u32 = 4;

/// The rule, and where it stands.
#[derive(Debug)]
pub(super) struct Moderation {
    interval: Duration,
    /// When the next time would be in order if all came at the pace of the interval.
    expected: Option<Instant>,
}

impl Moderation {
    /// Once in `interval` at the most; zero: as often as may be.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            expected: None,
        }
    }

    /// False if it never has anybody rest.
    pub(super) fn is_on(&self) -> bool {
        !self.interval.is_zero()
    }

    /// The thread had work and has run out of it at `now`. How long it has to rest.
    pub(super) fn rest(&mut self, now: Instant) -> Duration {
        let expected = self.expected.map_or(now, |expected| expected.max(now)) + self.interval;
        self.expected = Some(expected);
        (expected - now).saturating_sub(self.interval * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_micros(25);

    /// Works for `work` again and again, resting as told; says how often in the time of a thousand intervals.
    fn times(work: Duration) -> u32 {
        let mut moderation = Moderation::new(INTERVAL);
        let start = Instant::now();
        let (mut now, mut times) = (start, 0);
        while now < start + INTERVAL * 1000 {
            now += work;
            now += moderation.rest(now);
            times += 1;
        }
        times
    }

    #[test]
    fn who_runs_out_of_work_too_often_rests_until_the_interval_is_over() {
        for work_us in [1, 5, 24] {
            let times = times(Duration::from_micros(work_us));
            assert!(
                (1000..=1000 + BURST + 1).contains(&times),
                "{work_us}: {times}"
            );
        }
    }

    #[test]
    fn who_does_not_never_rests() {
        let mut moderation = Moderation::new(INTERVAL);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += INTERVAL;
            assert_eq!(moderation.rest(now), Duration::ZERO);
        }
    }

    #[test]
    fn a_burst_is_let_by_and_then_forgotten() {
        let mut moderation = Moderation::new(INTERVAL);
        let mut now = Instant::now();
        for _ in 0..3 {
            let rests = (0..BURST).map(|_| moderation.rest(now));
            assert!(rests.eq([Duration::ZERO; BURST as usize]));
            assert_eq!(moderation.rest(now), INTERVAL);
            now += INTERVAL * (BURST + 1);
        }
    }
}
