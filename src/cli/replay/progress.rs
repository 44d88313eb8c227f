//! How far it is: a bar on standard error, if that is a terminal and the lines do not scroll by on it as well.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Packets between two looks at the clock.
const STRIDE: u64 = 4096;
/// Between two bars.
const PAUSE: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;
/// To the first column, and the rest of the line erased (ECMA-48 EL).
const REWRITE: &str = "\r\x1b[K";

pub(super) struct Progress {
    live: bool,
    started: Instant,
    shown: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            live: io::stderr().is_terminal() && !io::stdout().is_terminal(),
            started: Instant::now(),
            shown: None,
        }
    }

    /// `packets` are done, and `bytes` of `len`, if that is known.
    pub(super) fn tick(&mut self, packets: u64, (bytes, len): (u64, Option<u64>)) {
        if !self.live || !packets.is_multiple_of(STRIDE) {
            return;
        }
        if self.shown.is_some_and(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        self.shown = Some(Instant::now());
        tell(&format!(
            "{REWRITE}{}",
            bar(packets, bytes, len, self.started.elapsed())
        ));
    }
}

impl Drop for Progress {
    /// The bar makes place for what comes.
    fn drop(&mut self) {
        if self.shown.is_some() {
            tell(REWRITE);
        }
    }
}

fn bar(packets: u64, bytes: u64, len: Option<u64>, elapsed: Duration) -> String {
    let Some(len) = len.filter(|&len| len > 0) else {
        return format!("{packets} packets");
    };
    let share = (bytes as f64 / len as f64).min(1.0);
    let filled = (share * WIDTH as f64) as usize;
    let left = elapsed.as_secs_f64() * (1.0 - share) / share.max(f64::EPSILON);
    format!(
        "[{}{}] {:3.0} %  {packets} packets  about {left:.0} s left",
        "#".repeat(filled),
        "-".repeat(WIDTH - filled),
        share * 100.0
    )
}

/// If standard error is closed nobody wants to know.
fn tell(text: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_with_the_bytes() {
        let bar = |bytes, len| bar(4096, bytes, len, Duration::from_secs(1));
        assert_eq!(
            bar(50, Some(100)),
            "[###############---------------]  50 %  4096 packets  about 1 s left"
        );
        assert!(bar(200, Some(100)).starts_with("[##############################] 100 %"));
        assert_eq!(bar(50, None), "4096 packets");
        assert_eq!(bar(0, Some(0)), "4096 packets");
    }
}
