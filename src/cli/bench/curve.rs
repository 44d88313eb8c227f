//! Delivered over offered, and from it the zero-loss rate: which trials to make, and what they say.

use serde::Serialize;

use super::udp::Trial;
use crate::cli::lab::LabError;

/// The highest rate of a grid, of what the strongest delivers when flooded.
const TOP_SHARE: f64 = 4.0 / 3.0;

/// What the dataplanes of one wire deliver of one size when flooded, in datagrams a second: the same grid of offered
/// rates is laid for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Reference {
    /// The least of them.
    pub(super) low: f64,
    /// The most.
    pub(super) high: f64,
}

impl Reference {
    /// Of what each delivers; `None` of none at all.
    pub(super) fn of(delivered: &[f64]) -> Option<Self> {
        Some(Self {
            low: delivered.iter().copied().min_by(f64::total_cmp)?,
            high: delivered.iter().copied().max_by(f64::total_cmp)?,
        })
    }

    /// Half of what the weaker delivers: a load that all of them carry.
    pub(super) fn half_load(self) -> f64 {
        self.low / 2.0
    }

    /// Offered rates, `points` of them, equally spaced up to a third above what the stronger delivers.
    pub(super) fn grid(self, points: u32) -> impl Iterator<Item = f64> {
        let top = self.high * TOP_SHARE;
        (1..=points).map(move |point| top * f64::from(point) / f64::from(points))
    }
}

/// The trials of one curve, and what they say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trials {
    /// Of the grid, by rising rate.
    pub(super) grid: Vec<Trial>,
    /// Of the search for the zero-loss rate, in their order.
    pub(super) search: Vec<Trial>,
    pub(super) zero_loss: ZeroLoss,
}

/// The highest offered rate that came through whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ZeroLoss {
    /// In datagrams a second; zero if nothing came through whole.
    #[serde(rename = "rate_pps")]
    pub(super) rate: f64,
    /// Why it is not higher.
    pub(super) limit: Limit,
}

/// What ended the search for a zero-loss rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Limit {
    /// At the next rate datagrams were lost.
    Loss,
    /// The next rate was not reached, and nothing lost: the path may carry more than its sender offers.
    Sender,
    /// No higher rate was tried.
    Grid,
}

impl Trials {
    /// Lays `grid` and searches for the zero-loss rate as RFC 2544 section 26.1 means it: between the first trial of
    /// the grid that did not come through whole and the one before it, and by `steps` trials more, each half way between.
    ///
    /// # Errors
    /// As `trial`.
    pub(super) fn make(
        grid: impl Iterator<Item = f64>,
        steps: usize,
        mut trial: impl FnMut(f64) -> Result<Trial, LabError>,
    ) -> Result<Self, LabError> {
        let grid = grid.map(&mut trial).collect::<Result<Vec<_>, _>>()?;
        let first_unclean = grid.iter().position(|trial| !trial.is_clean());
        let clean = &grid[..first_unclean.unwrap_or(grid.len())];
        let mut best = clean.last().copied();
        let mut worst = first_unclean.map(|place| grid[place]);
        let mut search = Vec::new();
        while let Some(bound) = worst.filter(|_| search.len() < steps) {
            let tried = trial(f64::midpoint(target(best), target(Some(bound))))?;
            match tried.is_clean() {
                true => best = Some(tried),
                false => worst = Some(tried),
            }
            search.push(tried);
        }
        let zero_loss = ZeroLoss {
            rate: best.map_or(0.0, |trial| trial.offered),
            limit: worst.map_or(Limit::Grid, limit_of),
        };
        Ok(Self {
            grid,
            search,
            zero_loss,
        })
    }

    /// Of grid and search.
    pub(super) fn all(&self) -> impl Iterator<Item = &Trial> {
        self.grid.iter().chain(&self.search)
    }
}

/// How exact a zero-loss rate is, as a share of what the strongest dataplane delivers when flooded: the spacing of a
/// grid of so many points, halved so many times.
pub(super) fn resolution(points: u32, steps: usize) -> f64 {
    let halvings = i32::try_from(steps).unwrap_or(i32::MAX);
    TOP_SHARE / f64::from(points) / 2_f64.powi(halvings)
}

/// The rate that a trial was to offer; zero without one, which no trial needs.
fn target(trial: Option<Trial>) -> f64 {
    trial.and_then(|trial| trial.target).unwrap_or(0.0)
}

fn limit_of(unclean: Trial) -> Limit {
    match unclean.lost {
        0 => Limit::Sender,
        _ => Limit::Loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries `capacity`, and a sender that reaches `reach`.
    fn path(capacity: f64, reach: f64) -> impl Fn(f64) -> Result<Trial, LabError> {
        move |rate| {
            Ok(Trial {
                target: Some(rate),
                offered: rate.min(reach),
                delivered: rate.min(reach).min(capacity),
                sent: 1000,
                lost: u64::from(rate.min(reach) > capacity),
                missed: rate > reach,
                spacing: None,
            })
        }
    }

    fn search(capacity: f64, reach: f64, steps: usize) -> Trials {
        let reference = Reference {
            low: 90.0,
            high: 90.0,
        };
        Trials::make(reference.grid(4), steps, path(capacity, reach)).expect("no sockets")
    }

    fn rate(capacity: f64, reach: f64, steps: usize) -> f64 {
        search(capacity, reach, steps).zero_loss.rate
    }

    #[test]
    fn the_grid_goes_a_third_beyond_what_is_delivered() {
        let reference = Reference::of(&[90.0, 60.0]).expect("two");
        assert_eq!(
            reference.grid(4).collect::<Vec<_>>(),
            [30.0, 60.0, 90.0, 120.0]
        );
        assert_eq!(reference.half_load(), 30.0);
        assert_eq!(Reference::of(&[]), None);
    }

    #[test]
    fn each_step_halves_what_is_not_known_about_the_zero_loss_rate() {
        assert_eq!(rate(80.0, 1000.0, 0), 60.0);
        assert_eq!(rate(80.0, 1000.0, 1), 75.0);
        let trials = search(80.0, 1000.0, 10);
        let ZeroLoss { rate, limit } = trials.zero_loss;
        assert!(rate <= 80.0 && rate > 79.9, "{rate}");
        assert_eq!((limit, trials.search.len()), (Limit::Loss, 10));
    }

    #[test]
    fn the_resolution_is_how_far_the_rate_may_be_off() {
        for (steps, capacity) in [(0, 89.9), (1, 74.9), (3, 63.7)] {
            let off = capacity - rate(capacity, 1000.0, steps);
            let resolution = 90.0 * resolution(4, steps);
            assert!(off < resolution && off > resolution * 0.9, "{off}");
        }
    }

    #[test]
    fn a_rate_the_sender_does_not_reach_is_none_and_the_limit_is_the_senders() {
        let ZeroLoss { rate, limit } = search(1000.0, 80.0, 10).zero_loss;
        assert!(rate <= 80.0 && rate > 79.9, "{rate}");
        assert_eq!(limit, Limit::Sender);
    }

    #[test]
    fn the_search_is_between_the_first_loss_and_the_trial_before_it() {
        // Lost at 60 only, as by bad luck: 90 and 120 came through whole and do not count.
        let trial = |rate| {
            Ok(Trial {
                lost: u64::from(rate == 60.0),
                ..path(1000.0, 1000.0)(rate)?
            })
        };
        let reference = Reference::of(&[90.0]).expect("one");
        let trials = Trials::make(reference.grid(4), 1, trial).expect("no sockets");
        assert_eq!((trials.zero_loss.rate, trials.grid.len()), (45.0, 4));
    }

    #[test]
    fn loss_at_any_rate_is_a_rate_of_zero_and_no_loss_the_whole_grid() {
        assert_eq!(rate(-1.0, 1000.0, 3), 0.0);
        let trials = search(1000.0, 1000.0, 3);
        let whole = ZeroLoss {
            rate: 120.0,
            limit: Limit::Grid,
        };
        assert_eq!((trials.zero_loss, trials.search.len()), (whole, 0));
    }
}
