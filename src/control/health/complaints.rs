//! Failures of the listener, told at a bounded rate: what a host lacks it may lack for long, and each attempt would be a line.

use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(60);

/// When the last was told, and how many were not since.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told_at: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// What to say of a failure at `now`, if anything.
    pub(super) fn line(&mut self, what: &str, errno: &str, now: Instant) -> Option<String> {
        let is_due = self.told_at.is_none_or(|at| now >= at + PAUSE);
        if !is_due {
            self.untold += 1;
            return None;
        }
        let untold = std::mem::take(&mut self.untold);
        self.told_at = Some(now);
        Some(match untold {
            0 => format!("{what}: {errno}"),
            _ => format!("{what}: {errno} ({untold} more failures since this was told last)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_line_and_the_next_one_has_the_count() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for tenth in 0..1300 {
            let now = start + Duration::from_millis(100) * tenth;
            lines.extend(complaints.line("accept health check", "EMFILE", now));
        }
        assert_eq!(
            lines,
            [
                "accept health check: EMFILE",
                "accept health check: EMFILE (599 more failures since this was told last)",
                "accept health check: EMFILE (599 more failures since this was told last)",
            ]
        );
    }
}
