//! When the next datagram is due: one at a time, evenly spaced, by the monotonic clock.
//!
//! Called by the senders of `udp`. Whoever waits here looks at the clock all the time, since no sleep is short enough,
//! and lets others have the CPU between two looks: what the dataplane needs goes before.

use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

/// A sender that was kept from its CPU catches up at so many times its pace at most: datagrams that it owes are no
/// burst that nobody offered.
const CATCH_UP: u32 = 2;
/// Two looks at the clock with nothing between take less. What takes longer was somebody else's: another thread, or the
/// kernel's work on packets in an interrupt.
const LOOK_MAX: Duration = Duration::from_micros(3);

/// Paces one sender.
#[derive(Debug)]
pub(super) struct Pacer {
    rate: f64,
    gap: Duration,
    started: Instant,
    /// When the last datagram was let go, since then.
    last: Duration,
    sent: u64,
    spacing: Spacing,
}

/// How evenly it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Spacing {
    /// Between two datagrams, as it should be.
    pub(super) gap_us: f64,
    /// Datagrams that were let go more than one gap after their time.
    pub(super) late: u64,
    /// The longest that one was.
    pub(super) latest_us: f64,
    /// CPU seconds that went into looking at the clock.
    pub(super) spun_seconds: f64,
}

impl Pacer {
    /// For `rate` datagrams a second, from now on.
    pub(super) fn new(rate: f64) -> Self {
        let gap = Duration::from_secs_f64(1.0 / rate);
        Self {
            rate,
            gap,
            started: Instant::now(),
            last: Duration::ZERO,
            sent: 0,
            spacing: Spacing {
                gap_us: gap.as_secs_f64() * 1e6,
                ..Spacing::default()
            },
        }
    }

    /// Datagrams sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How evenly they were sent.
    pub(super) fn spacing(&self) -> Spacing {
        self.spacing
    }

    /// Waits until the next datagram is due.
    pub(super) fn wait(&mut self) {
        self.last = self.spin(self.next());
        let late = self.last.saturating_sub(self.due());
        self.spacing.late += u64::from(late > self.gap);
        self.spacing.latest_us = self.spacing.latest_us.max(late.as_secs_f64() * 1e6);
    }

    /// The datagram was sent, or not taken: then the next is in its place.
    pub(super) fn count(&mut self, taken: bool) {
        self.sent += u64::from(taken);
    }

    /// When the next datagram should be let go.
    fn due(&self) -> Duration {
        Duration::from_secs_f64(self.sent as f64 / self.rate)
    }

    /// When it may be, now that others were late.
    fn next(&self) -> Duration {
        self.due().max(self.last + self.gap / CATCH_UP)
    }

    /// Looks at the clock until `at`; says what it then shows.
    fn spin(&mut self, at: Duration) -> Duration {
        let mut now = self.elapsed();
        while now < at {
            let before = now;
            thread::yield_now();
            now = self.elapsed();
            let look = now.saturating_sub(before);
            if look < LOOK_MAX {
                self.spacing.spun_seconds += look.as_secs_f64();
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that let `sent` datagrams go, the last at `last_us`, and should let one go each millisecond.
    fn pacer(sent: u64, last_us: u64) -> Pacer {
        Pacer {
            sent,
            last: Duration::from_micros(last_us),
            ..Pacer::new(1000.0)
        }
    }

    #[test]
    fn a_datagram_is_due_a_gap_after_the_one_before() {
        assert_eq!(pacer(3, 2000).next(), Duration::from_millis(3));
        // That one was late: it changes nothing for the others.
        assert_eq!(pacer(3, 2400).next(), Duration::from_millis(3));
    }

    #[test]
    fn a_late_sender_catches_up_at_twice_its_pace() {
        assert_eq!(pacer(3, 9000).next(), Duration::from_micros(9500));
    }

    #[test]
    fn none_is_let_go_before_its_time() {
        let mut pacer = Pacer::new(20_000.0);
        for sent in 0..20 {
            pacer.wait();
            assert!(pacer.last >= Duration::from_micros(50 * sent), "{pacer:?}");
            pacer.count(true);
        }
        assert_eq!(pacer.sent(), 20);
    }

    #[test]
    fn what_was_not_taken_is_still_due() {
        let mut pacer = pacer(3, 2000);
        pacer.count(false);
        assert_eq!((pacer.sent(), pacer.due()), (3, Duration::from_millis(3)));
    }

    #[test]
    fn lateness_is_told() {
        let mut pacer = pacer(0, 0);
        std::thread::sleep(Duration::from_millis(3));
        pacer.wait();
        let spacing = pacer.spacing();
        assert_eq!(spacing.late, 1);
        assert!(spacing.latest_us >= 3000.0, "{spacing:?}");
        assert_eq!(spacing.spun_seconds, 0.0, "it had no time to wait");
    }
}
