//! Delivered over offered, and from it the zero-loss rate: which trials to make, and what they say.

use serde::Serialize;

use super::udp::Trial;
use crate::cli::lab::LabError;

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
        let top = self.high * 4.0 / 3.0;
        (1..=points).map(move |point| top * f64::from(point) / f64::from(points))
    }
}

/// The trials of one curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trials {
    /// Of the grid, by rising rate.
    pub(super) grid: Vec<Trial>,
    /// Of the search for the zero-loss rate, in their order.
    pub(super) search: Vec<Trial>,
}

impl Trials {
    /// Of grid and search.
    pub(super) fn all(&self) -> impl Iterator<Item = &Trial> {
        self.grid.iter().chain(&self.search)
    }
}

/// The highest offered rate that came through whole (RFC 2544 section 26.1), between the first trial of the grid that
/// did not and the one before it, and by `steps` trials more, each half way between; those are added to `search`. Zero
/// if nothing came through whole.
///
/// # Errors
/// As `trial`.
pub(super) fn zero_loss(
    Trials { grid, search }: &mut Trials,
    steps: usize,
    mut trial: impl FnMut(f64) -> Result<Trial, LabError>,
) -> Result<f64, LabError> {
    let first_loss = grid.iter().position(|trial| !trial.is_clean());
    let clean = &grid[..first_loss.unwrap_or(grid.len())];
    let mut best = clean.last().map_or((0.0, 0.0), |trial| {
        (trial.target.unwrap_or(0.0), trial.offered)
    });
    let Some(mut worst) = first_loss.and_then(|index| grid[index].target) else {
        return Ok(best.1);
    };
    for _ in 0..steps {
        let rate = f64::midpoint(best.0, worst);
        let tried = trial(rate)?;
        if tried.is_clean() {
            best = (rate, tried.offered);
        } else {
            worst = rate;
        }
        search.push(tried);
    }
    Ok(best.1)
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

    fn search(capacity: f64, reach: f64, steps: usize) -> (f64, usize) {
        let reference = Reference {
            low: 90.0,
            high: 90.0,
        };
        let trial = path(capacity, reach);
        let grid = reference
            .grid(4)
            .map(&trial)
            .collect::<Result<_, _>>()
            .expect("no sockets");
        let mut trials = Trials {
            grid,
            search: Vec::new(),
        };
        let rate = zero_loss(&mut trials, steps, trial).expect("no sockets");
        (rate, trials.search.len())
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
        assert_eq!(search(80.0, 1000.0, 0), (60.0, 0));
        assert_eq!(search(80.0, 1000.0, 1), (75.0, 1));
        let (rate, trials) = search(80.0, 1000.0, 10);
        assert!(rate <= 80.0 && rate > 79.9, "{rate}");
        assert_eq!(trials, 10);
    }

    #[test]
    fn a_rate_the_sender_does_not_reach_is_none() {
        let (rate, _) = search(1000.0, 80.0, 10);
        assert!(rate <= 80.0 && rate > 79.9, "{rate}");
    }

    #[test]
    fn loss_at_any_rate_is_a_rate_of_zero_and_no_loss_the_whole_grid() {
        assert_eq!(search(-1.0, 1000.0, 3).0, 0.0);
        assert_eq!(search(1000.0, 1000.0, 3), (120.0, 0));
    }
}
