//! When a thread of a lane that is out of work waits to be woken, and when it looks for more by the clock: interrupt moderation, as
//! network cards do it (`ethtool -C ... rx-usecs`).
//!
//! A packet that finds the thread asleep wakes it, and one that comes alone costs a wake-up, two looks and a sleep: three times the work
//! it brought. At some ten thousand packets a second these were all that two cores did, and a sender that shared them was kept from
//! sending more; at ten times as many, packets came in batches and the trouble was over. So a thread that runs out of work more often
//! than once in an interval, for longer than a burst, is no longer woken: it rests for an interval, looks, and rests again, until it has
//! looked in vain too often.
//!
//! What is often is told by a generic cell rate algorithm (ITU-T I.371): one time stamp, no timer. A flow of requests and responses, one
//! at a time, stays below the rate and is not kept waiting.
//!
//! `bench --only udp --wire super`, one round each, zero-loss rates of 64, 512 and 1,400 bytes as ratios to the kernel's:
//!
//! | | 64 | 512 | 1,400 |
//! |---|---|---|---|
//! | woken by each packet | 0.63 | 0.63 | 0.61 |
//! | rests of 25 us, woken after one look in vain | 0.67 | 0.52 | 0.55 |
//! | woken after 8 | 2.05 | 0.76 | 1.49 |
//! | woken after 40 | 1.93 | 2.31 | 1.47 |
//! | woken after as many as it earned, 2 a look that found something, 40 at the most | 2.32 | 2.04 | 2.40 |
//!
//! It costs round trips at half load (p50 110 us without, 160 to 180 with; the kernel's 21), not idle ones (1.6 to 1.8 times the kernel's
//! either way). TCP is the same within the noise.

use std::time::{Duration, Instant};

/// Times that a thread may run out of work faster than that before it rests.
const BURST: u32 = 4;

/// Looks in vain, an interval apart, that one look earns which found something: a thread that mostly looks in vain sleeps soon, as
/// with a flow of requests and responses.
const LOOKS_EARNED: u32 = 2;
/// Looks in vain before any thread sleeps, about a millisecond: a sender that is kept from its CPU for a moment comes back
/// (`napi_defer_hard_irqs` does the same for a card).
const LOOKS_MAX: u32 = 40;

/// The rule, and where it stands.
#[derive(Debug)]
pub(super) struct Moderation {
    interval: Duration,
    /// Looks in vain that are left.
    looks: u32,
    /// When the next time would be in order if all came at the pace of the interval.
    expected: Option<Instant>,
}

impl Moderation {
    /// Once in `interval` at the most; zero: as often as may be.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            looks: 0,
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
        let is_often = expected - now > self.interval * BURST;
        if self.looks == 0 && !is_often {
            return Duration::ZERO;
        }
        self.looks = (self.looks + LOOKS_EARNED).min(LOOKS_MAX);
        self.interval
    }

    /// The thread looked and found nothing. How long it has to rest before it looks again; `None`: it is to sleep.
    pub(super) fn rest_again(&mut self) -> Option<Duration> {
        self.looks = self.looks.checked_sub(1)?;
        Some(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_micros(25);

    /// A thread that has worked too often.
    fn moderated() -> (Moderation, Instant) {
        let (mut moderation, now) = (Moderation::new(INTERVAL), Instant::now());
        while moderation.rest(now).is_zero() {}
        (moderation, now)
    }

    /// How often it looks in vain until it sleeps.
    fn looks_in_vain(moderation: &mut Moderation) -> usize {
        std::iter::from_fn(|| moderation.rest_again()).count()
    }

    #[test]
    fn who_runs_out_of_work_too_often_rests_every_time() {
        for work_us in [1, 5, 24, 100] {
            let (mut moderation, mut now) = moderated();
            for _ in 0..100 {
                now += Duration::from_micros(work_us);
                assert_eq!(moderation.rest(now), INTERVAL, "{work_us}");
                now += INTERVAL;
            }
        }
    }

    #[test]
    fn who_does_not_never_rests() {
        let mut moderation = Moderation::new(INTERVAL);
        let mut now = Instant::now();
        for _ in 0..100 {
            now += INTERVAL;
            assert_eq!(moderation.rest(now), Duration::ZERO);
            assert_eq!(moderation.rest_again(), None);
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
            looks_in_vain(&mut moderation);
            now += INTERVAL * (BURST + 1);
        }
    }

    #[test]
    fn looks_in_vain_are_earned_and_bounded() {
        let (mut moderation, now) = moderated();
        assert_eq!(looks_in_vain(&mut moderation), LOOKS_EARNED as usize);
        let (mut moderation, _) = moderated();
        for _ in 0..1000 {
            moderation.rest(now);
        }
        assert_eq!(looks_in_vain(&mut moderation), LOOKS_MAX as usize);
    }

    #[test]
    fn who_mostly_looks_in_vain_sleeps_soon() {
        let (mut moderation, mut now) = moderated();
        for _ in 0..1000 {
            moderation.rest(now);
        }
        // A response finds work once in five looks.
        let round_trips = (0..1000).take_while(|_| {
            now += INTERVAL * 5;
            moderation.rest(now);
            (0..4).all(|_| moderation.rest_again().is_some())
        });
        assert!(round_trips.count() < LOOKS_MAX as usize);
    }
}
