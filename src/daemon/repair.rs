//! Repair of the device when others change it, at a bounded rate: an agent that undoes each repair must not make us spin.

use std::time::{Duration, Instant};

/// When the device is looked at again though nobody told of a change: udev may set a MAC some time after the link appeared.
const RECHECKS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// Pause after the first repair; doubled by each repair that follows within [`CALM`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time without a repair after which the next is prompt again.
const CALM: Duration = Duration::from_secs(30);

/// Says when the device should be looked at.
#[derive(Debug)]
pub(super) struct Schedule {
    started: Instant,
    rechecks_done: usize,
    due: Option<Instant>,
    last_repair: Option<Instant>,
    pause: Duration,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            rechecks_done: 0,
            due: None,
            last_repair: None,
            pause: PAUSE_MIN,
        }
    }

    /// Something changed: look as soon as the pause since the last repair allows.
    pub(super) fn changed(&mut self, now: Instant) {
        let earliest = self.last_repair.map_or(now, |at| at + self.pause).max(now);
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// The device was looked at and, if `repaired`, changed.
    pub(super) fn looked(&mut self, now: Instant, repaired: bool) {
        self.due = None;
        self.rechecks_done = RECHECKS
            .iter()
            .filter(|&&after| self.started + after <= now)
            .count();
        if repaired {
            let calm = self.last_repair.is_none_or(|at| now - at > CALM);
            self.pause = if calm {
                PAUSE_MIN
            } else {
                (self.pause * 2).min(PAUSE_MAX)
            };
            self.last_repair = Some(now);
        }
    }

    /// When to look next; `None`: when something changes.
    pub(super) fn next(&self) -> Option<Instant> {
        let recheck = RECHECKS
            .get(self.rechecks_done)
            .map(|&after| self.started + after);
        self.due.into_iter().chain(recheck).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn looks_again_after_udev_had_its_turn() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for after in RECHECKS {
            assert_eq!(schedule.next(), Some(start + after));
            schedule.looked(start + after, false);
        }
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_change_is_looked_at_at_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.changed(start);
        assert_eq!(schedule.next(), Some(start));
    }

    #[test]
    fn repairs_in_a_row_come_ever_slower_and_calm_makes_them_prompt_again() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut now = start + RECHECKS[RECHECKS.len() - 1];
        schedule.looked(now, false);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.changed(now);
            let due = schedule.next().expect("due");
            pauses.push(due - now);
            now = due;
            schedule.looked(now, true);
        }
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&PAUSE_MAX));
        now += CALM + seconds(1);
        schedule.changed(now);
        schedule.looked(now, true);
        schedule.changed(now);
        assert_eq!(schedule.next(), Some(now + PAUSE_MIN));
    }
}
