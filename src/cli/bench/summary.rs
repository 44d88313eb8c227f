//! What the samples of one figure amount to: medians, ranges, ratios, and which do not count.

use std::collections::BTreeMap;

use serde::Serialize;

use super::dataplane::Dataplane;
use super::measure::Measure;
use super::wire::Wire;

/// A reading of one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Sample {
    /// From 1.
    pub(super) round: u32,
    pub(super) value: f64,
    /// It was disturbed and does not count.
    pub(super) void: bool,
    /// Of the machine's CPU time, what the hypervisor gave to others meanwhile.
    pub(super) steal_share: f64,
    /// Of the machine's CPU time, what other processes used meanwhile.
    pub(super) foreign_share: f64,
}

/// What the samples of one dataplane amount to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Samples that count.
    pub(super) valid: usize,
    /// Samples.
    pub(super) taken: usize,
    /// No sample counts: the figures are of those that do not, for want of better.
    pub(super) void: bool,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) wire: Wire,
    pub(super) measure: Measure,
    pub(super) summaries: BTreeMap<Dataplane, Summary>,
}

/// How a dataplane compares with the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    pub(super) value: f64,
    /// One of the two medians has no sample that counts.
    pub(super) void: bool,
}

impl Summary {
    /// Of those that count, or of all if none does; `None` of none at all.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let valid = samples.iter().filter(|sample| !sample.void).count();
        let counts = |sample: &&Sample| valid == 0 || !sample.void;
        let mut values: Vec<f64> = samples
            .iter()
            .filter(counts)
            .map(|sample| sample.value)
            .collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: median(&values)?,
            min: *values.first()?,
            max: *values.last()?,
            valid,
            taken: samples.len(),
            void: valid == 0,
        })
    }
}

impl Row {
    /// A dataplane's median over the kernel's; `None` for the kernel itself, if one of them is missing, or the kernel's
    /// is nothing.
    pub(super) fn ratio(&self, dataplane: Dataplane) -> Option<Ratio> {
        let kernel = self.summaries.get(&Dataplane::Kernel)?;
        let ours = self.summaries.get(&dataplane)?;
        let value = ours.median / kernel.median;
        let is_one = dataplane != Dataplane::Kernel && value.is_finite();
        is_one.then_some(Ratio {
            value,
            void: kernel.void || ours.void,
        })
    }

    /// One of the medians has no sample that counts.
    pub(super) fn is_void(&self) -> bool {
        self.summaries.values().any(|summary| summary.void)
    }
}

/// Of sorted values; the mean of the middle two if they are even in number.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get((values.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 3.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_summary_is_of_the_samples_that_count_or_of_all_if_none_does() {
        let sample = |value, void| Sample {
            round: 1,
            value,
            void,
            steal_share: 0.0,
            foreign_share: 0.0,
        };
        assert_eq!(Summary::of(&[]), None);
        let some = Summary::of(&[sample(9.0, false), sample(1.0, true), sample(5.0, false)]);
        let expected = Summary {
            median: 7.0,
            min: 5.0,
            max: 9.0,
            valid: 2,
            taken: 3,
            void: false,
        };
        assert_eq!(some, Some(expected));
        let none = Summary::of(&[sample(9.0, true), sample(1.0, true)]);
        let expected = Summary {
            median: 5.0,
            min: 1.0,
            max: 9.0,
            valid: 0,
            taken: 2,
            void: true,
        };
        assert_eq!(none, Some(expected));
    }
}
