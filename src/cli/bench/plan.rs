//! What to measure, how long and how often.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::exercise::Exercise;
use super::wire::Wire;
use crate::cli::args::{BenchArgs, BenchSubject};

/// What is measured, and the length of everything. Durations are printed in seconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Plan {
    /// Made to finish in a minute, not to be exact.
    pub(super) quick: bool,
    /// On which wires.
    pub(super) wires: Vec<Wire>,
    /// What is measured.
    pub(super) subjects: Vec<BenchSubject>,
    /// How often all of it is measured.
    pub(super) rounds: u32,
    /// Of a TCP measurement, after its start.
    #[serde(rename = "tcp_seconds", serialize_with = "seconds")]
    pub(super) tcp: Duration,
    /// For a stream to find its pace before that.
    #[serde(rename = "tcp_start_seconds", serialize_with = "seconds")]
    pub(super) tcp_start: Duration,
    /// Of a round-trip measurement.
    #[serde(rename = "round_trip_seconds", serialize_with = "seconds")]
    pub(super) round_trip: Duration,
    /// Of a flood, and of the run at half load that CPU time is taken of.
    #[serde(rename = "flood_seconds", serialize_with = "seconds")]
    pub(super) flood: Duration,
    /// Of a UDP trial. RFC 2544 section 24 asks for 60 s.
    #[serde(rename = "trial_seconds", serialize_with = "seconds")]
    pub(super) trial: Duration,
    /// Offered rates of a curve.
    pub(super) curve_points: u32,
    /// Trials more that narrow down the zero-loss rate.
    pub(super) zero_loss_steps: usize,
}

impl Plan {
    /// Of everything, about a quarter of an hour at five rounds; or about a minute at one.
    pub(super) fn new(args: &BenchArgs) -> Self {
        let quick = args.quick;
        let millis = |full, short| Duration::from_millis(if quick { short } else { full });
        Self {
            quick,
            wires: args
                .wire
                .map_or_else(|| Wire::ALL.to_vec(), |wire| vec![wire.into()]),
            subjects: subjects(&args.only),
            rounds: args.rounds.unwrap_or(if quick { 1 } else { 5 }),
            tcp: millis(2000, 500),
            tcp_start: millis(500, 150),
            round_trip: millis(2000, 500),
            flood: millis(1000, 400),
            trial: millis(500, 100),
            curve_points: if quick { 4 } else { 8 },
            zero_loss_steps: if quick { 2 } else { 4 },
        }
    }
}

impl Plan {
    /// Of one round on one wire with one dataplane.
    pub(super) fn exercises(&self) -> Vec<Exercise> {
        Exercise::of(&self.subjects)
    }

    /// Exercises of each dataplane in all.
    pub(super) fn steps(&self) -> usize {
        self.rounds as usize * self.wires.len() * self.exercises().len()
    }
}

/// All of them if none is named; in their order, each once, however they were named.
fn subjects(only: &[BenchSubject]) -> Vec<BenchSubject> {
    let is_wanted = |subject: &BenchSubject| only.is_empty() || only.contains(subject);
    BenchSubject::value_variants()
        .iter()
        .copied()
        .filter(is_wanted)
        .collect()
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::BenchWire;

    #[test]
    fn without_a_choice_everything_is_measured() {
        let plan = Plan::new(&BenchArgs::default());
        assert_eq!(plan.wires, Wire::ALL);
        assert_eq!(plan.subjects, BenchSubject::value_variants());
        assert_eq!(plan.rounds, 5);
    }

    #[test]
    fn a_choice_is_kept_in_order_and_without_repeats() {
        use BenchSubject::{Rtt, Tcp};
        let plan = Plan::new(&BenchArgs {
            quick: true,
            wire: Some(BenchWire::Mtu),
            only: vec![Rtt, Tcp, Rtt],
            ..BenchArgs::default()
        });
        assert_eq!(plan.wires, [Wire::Mtu]);
        assert_eq!(plan.subjects, [Tcp, Rtt]);
        assert_eq!(plan.rounds, 1);
    }
}
