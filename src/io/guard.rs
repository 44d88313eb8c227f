//! What the lanes share to enforce group policy: the flows that began here, and the books on what was refused.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::denied::Denied;
use super::flows::{FlowLimits, FlowTable, Moment};

/// How long after flows began to be noted connections may be under way of which nothing is known: TCP sends again what is not
/// acknowledged after two minutes at the most (RFC 6298 section 2.5 has one minute at the least for that bound, `TCP_RTO_MAX` of Linux
/// is 120 s), and what our side sends makes the flow known.
const PICK_UP_S: u32 = 120;

/// Shared by all lanes. Used only while a snapshot has a policy.
#[derive(Debug)]
pub struct Guard {
    /// The flows that began here.
    pub flows: FlowTable,
    /// Who was refused, and at whom.
    pub denied: Denied,
    /// Since when flows are noted.
    since: AtomicU32,
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
            since: AtomicU32::new(0),
            log: LogRate::default(),
        }
    }

    /// A policy is enforced from now on, and was not so far: what goes on has begun unnoted. At the start that is so anyway.
    pub fn begin(&self, now: Instant) {
        self.since.store(self.flows.moment(now).seconds(), Relaxed);
    }

    /// Whether a connection may be under way that began before flows were noted, as over a restart. Its packets are refused like others,
    /// but nobody is told that its port is unreachable, which would end what our side can still make known.
    pub(super) fn may_have_missed(&self, now: Moment) -> bool {
        let since = self.since.load(Relaxed);
        now.seconds().saturating_sub(since) <= PICK_UP_S
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
    fn connections_may_be_under_way_for_a_while_after_flows_began_to_be_noted() {
        let guard = Guard::default();
        let missed = |second| guard.may_have_missed(Moment::at(second));
        assert_eq!([0, 120, 121, 1000].map(missed), [true, true, false, false]);
        guard.begin(Instant::now() + std::time::Duration::from_secs(1000));
        assert_eq!([1000, 1119, 1122].map(missed), [true, true, false]);
    }

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
