//! What the lanes share to enforce group policy: the flows that began here, and the books on what was refused.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::denied::Denied;
use super::flows::{FlowLimits, FlowTable, Moment};

/// Shared by all lanes. Used only while a snapshot has a policy.
#[derive(Debug)]
pub struct Guard {
    /// The flows that began here.
    pub flows: FlowTable,
    /// Who was refused, and at whom.
    pub denied: Denied,
    /// How often lines tell of it.
    pub(super) log: LogRate,
}

impl Guard {
    /// With a flow table of these limits.
    #[must_use]
    pub fn new(limits: FlowLimits) -> Self {
        Self {
            flows: FlowTable::new(limits),
            denied: Denied::default(),
            log: LogRate::default(),
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(FlowLimits::default())
    }
}

/// A bound on lines a second.
#[derive(Debug, Default)]
pub(super) struct LogRate {
    /// The second, and how many were asked for in it.
    current: AtomicU64,
    /// How many were not allowed since the last that was.
    untold: AtomicU64,
}

impl LogRate {
    /// Whether one more line may be written now; how many were not since the last.
    pub(super) fn allow(&self, now: Moment, per_second: u32) -> Option<u64> {
        let now = u64::from(now.seconds()) << 32;
        let asked = |current: u64| match current & !u64::from(u32::MAX) {
            second if second == now => current.saturating_add(1),
            _ => now | 1,
        };
        let update = |current| Some(asked(current));
        let Ok(before) = self.current.fetch_update(Relaxed, Relaxed, update) else {
            return None;
        };
        if asked(before) & u64::from(u32::MAX) <= u64::from(per_second) {
            Some(self.untold.swap(0, Relaxed))
        } else {
            self.untold.fetch_add(1, Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_what_was_not_told_is_told_with_the_next() {
        let rate = LogRate::default();
        let asked = |second, times| -> Vec<_> {
            let now = Moment::at(second);
            (0..times).map(|_| rate.allow(now, 2)).collect()
        };
        assert_eq!(asked(0, 4), [Some(0), Some(0), None, None]);
        assert_eq!(asked(1, 2), [Some(2), Some(0)]);
        assert_eq!(asked(5, 1), [Some(0)]);
        assert_eq!(rate.allow(Moment::at(9), 0), None);
    }
}
