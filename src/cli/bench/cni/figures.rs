//! What the calls of one kind took.

use std::time::Duration;

use serde::Serialize;

use crate::cli::print::{Align, columns};

/// Times in milliseconds, from the start of the plugin's process to its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) command: &'static str,
    /// How many ran at a time.
    pub(super) at_once: u32,
    pub(super) calls: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// All of them together.
    pub(super) seconds: f64,
    pub(super) per_second: f64,
}

impl Figures {
    /// Of each call's time, and that of all together.
    pub(super) fn of(
        command: &'static str,
        at_once: u32,
        mut times: Vec<Duration>,
        took: Duration,
    ) -> Self {
        times.sort_unstable();
        let seconds = took.as_secs_f64();
        Self {
            command,
            at_once,
            calls: times.len(),
            p50_ms: percentile_ms(&times, 50),
            p99_ms: percentile_ms(&times, 99),
            max_ms: percentile_ms(&times, 100),
            seconds,
            per_second: times.len() as f64 / seconds,
        }
    }
}

/// By nearest rank, of sorted times; 0 of none.
fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    let rank = (times.len() * percent).div_ceil(100);
    let time = rank.checked_sub(1).and_then(|place| times.get(place));
    time.map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// A row for each.
pub(super) fn table(all: &[Figures]) -> String {
    let header = ["", "at a time", "p50 ms", "p99 ms", "max ms", "a second"].map(str::to_owned);
    let rows = all.iter().map(|figures| {
        [
            figures.command.to_owned(),
            figures.at_once.to_string(),
            format!("{:.2}", figures.p50_ms),
            format!("{:.2}", figures.p99_ms),
            format!("{:.2}", figures.max_ms),
            format!("{:.0}", figures.per_second),
        ]
    });
    let rows: Vec<_> = [header].into_iter().chain(rows).collect();
    let mut align = [Align::Right; 6];
    align[0] = Align::Left;
    columns(&rows, align)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_nearest_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let figures = Figures::of("ADD", 8, times, Duration::from_secs(4));
        let of = [figures.p50_ms, figures.p99_ms, figures.max_ms];
        assert_eq!(of.map(f64::round), [100.0, 198.0, 200.0]);
        assert_eq!((figures.calls, figures.per_second), (200, 50.0));
        assert_eq!(percentile_ms(&[], 50), 0.0);
        assert_eq!(percentile_ms(&[Duration::from_millis(2)], 99), 2.0);
    }

    #[test]
    fn the_table_has_a_row_for_each() {
        let one = Figures::of(
            "DEL",
            1,
            vec![Duration::from_millis(3)],
            Duration::from_millis(4),
        );
        assert_eq!(
            table(&[one]),
            "     at a time  p50 ms  p99 ms  max ms  a second\nDEL          1    3.00    3.00    3.00       250\n"
        );
    }
}
