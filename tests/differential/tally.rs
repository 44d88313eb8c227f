//! What was compared, counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::difference::{DIFFERENCES, Difference};
use super::ground::Agreed;

/// Shared by all trials.
#[derive(Default)]
pub(crate) struct Tally {
    cases: AtomicUsize,
    generated: AtomicUsize,
    dropped: AtomicUsize,
    ignored: AtomicUsize,
    unexplained: AtomicUsize,
    /// Lines of which our daemon made what replay makes of them.
    verdicts: AtomicUsize,
    /// Cases that showed each intended difference.
    intended: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tally {
    /// Lines of the tables.
    pub(crate) fn count_cases(&self, cases: usize) {
        self.cases.fetch_add(cases, Relaxed);
    }

    /// One generated case.
    pub(crate) fn count_generated(&self) {
        self.generated.fetch_add(1, Relaxed);
    }

    /// A case that both agree on.
    pub(crate) fn count_agreed(&self, agreed: &Agreed) {
        self.dropped.fetch_add(usize::from(agreed.dropped), Relaxed);
        if let Some(Difference { name, .. }) = agreed.difference {
            let mut intended = self.intended.lock().unwrap_or_else(PoisonError::into_inner);
            *intended.entry(name).or_default() += 1;
        }
    }

    /// A case that both disagree on, and nobody meant that.
    pub(crate) fn count_unexplained(&self) {
        self.unexplained.fetch_add(1, Relaxed);
    }

    /// A line of which our daemon made what [`verdict`](super::verdict) says, or that it says nothing of.
    pub(crate) fn count_verdict(&self, is_expected: bool) {
        self.verdicts.fetch_add(usize::from(is_expected), Relaxed);
    }

    /// A trial that could not run.
    pub(crate) fn count_ignored(&self) {
        self.ignored.fetch_add(1, Relaxed);
    }

    /// Intended differences that no case showed, although all ran: nobody knows whether they are still true.
    pub(crate) fn unshown(&self) -> Vec<&'static str> {
        let shown = self.intended.lock().unwrap_or_else(PoisonError::into_inner);
        let names = DIFFERENCES.iter().map(|difference| difference.name);
        let is_whole = self.ignored.load(Relaxed) == 0;
        names
            .filter(|name| is_whole && !shown.contains_key(name))
            .collect()
    }

    /// One line, and one more for each intended difference.
    pub(crate) fn summary(&self, seed: u64) -> String {
        let [cases, generated, dropped, ignored, unexplained, verdicts] = [
            &self.cases,
            &self.generated,
            &self.dropped,
            &self.ignored,
            &self.unexplained,
            &self.verdicts,
        ]
        .map(|counter| counter.load(Relaxed));
        let intended = DIFFERENCES.len();
        let mut text = format!(
            "differential: {cases} cases, {generated} generated (seed {seed}), {intended} intended differences, {unexplained} unexplained \
             ({dropped} cases dropped by both, {verdicts} as replay says, {ignored} trials ignored)"
        );
        let shown = self.intended.lock().unwrap_or_else(PoisonError::into_inner);
        for Difference { name, reason, .. } in &DIFFERENCES {
            let shown = shown.get(name).copied().unwrap_or(0);
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {name}, in {shown} cases: {reason}");
        }
        text
    }
}
