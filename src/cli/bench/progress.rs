//! How far it is, on standard error: one line that is rewritten on a terminal, a line a step elsewhere.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// To the first column, and the rest of the line erased (ECMA-48 EL).
const REWRITE: &str = "\r\x1b[K";

/// Steps done of steps to do.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    live: bool,
    done: usize,
    total: usize,
}

impl Progress {
    /// Of `total` steps none is done yet.
    pub(super) fn new(total: usize) -> Self {
        Self {
            started: Instant::now(),
            live: io::stderr().is_terminal(),
            done: 0,
            total,
        }
    }

    /// The next step begins.
    pub(super) fn step(&mut self, what: impl Display) {
        let left = match self.left() {
            Some(left) => format!("about {} s left", left.as_secs()),
            None => String::new(),
        };
        self.done += 1;
        let (done, total) = (self.done, self.total);
        self.put(format_args!("[{done}/{total}] {what}  {left}"));
    }

    /// A line that stays.
    pub(super) fn say(&self, what: impl Display) {
        self.put(format_args!("{what}"));
        if self.live {
            tell("\n");
        }
    }

    /// By the pace so far, once there is one.
    fn left(&self) -> Option<Duration> {
        let done = u32::try_from(self.done).ok()?;
        let to_do = u32::try_from(self.total.saturating_sub(self.done)).ok()?;
        Some(self.started.elapsed().checked_div(done)? * to_do)
    }

    fn put(&self, line: impl Display) {
        if self.live {
            tell(format_args!("{REWRITE}{line}"));
        } else {
            tell(format_args!("{line}\n"));
        }
    }
}

impl Drop for Progress {
    /// All steps are done, or none will be any more: the live line makes place for what comes.
    fn drop(&mut self) {
        if self.live {
            tell(REWRITE);
        }
    }
}

/// If standard error is closed nobody wants to know.
fn tell(what: impl Display) {
    let mut out = io::stderr();
    let _ = write!(out, "{what}").and_then(|()| out.flush());
}
