//! All readings of one run, by wire and measure, and the curves.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::curve::{Limit, Reference, Trials};
use super::dataplane::Dataplane;
use super::exercise::Findings;
use super::measure::Measure;
use super::summary::{Row, Sample, Summary, median};
use super::udp::Trial;
use super::wire::Wire;

/// Readings by wire and measure, in the order of the table.
#[derive(Debug, Default)]
pub(super) struct Results {
    series: BTreeMap<(Wire, Measure), BTreeMap<Dataplane, Vec<Sample>>>,
    curves: Vec<Curve>,
}

/// Delivered over offered, of one round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Curve {
    pub(super) wire: Wire,
    pub(super) payload_bytes: usize,
    pub(super) dataplane: Dataplane,
    pub(super) round: u32,
    /// It was disturbed and does not count.
    pub(super) void: bool,
    #[serde(flatten)]
    pub(super) trials: Trials,
}

/// Whose findings, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion {
    pub(super) wire: Wire,
    pub(super) dataplane: Dataplane,
    /// From 1.
    pub(super) round: u32,
}

/// One point of a median curve, in datagrams a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) offered: f64,
    /// Median.
    pub(super) delivered: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// How evenly datagrams were offered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Evenness {
    /// Of all, those that left more than one gap after their time.
    pub(super) late_share: f64,
    /// The longest that one left after its time.
    pub(super) latest_us: f64,
}

impl Results {
    /// Adds what one exercise found; `payload_bytes` are those of its curve, if it has one.
    pub(super) fn add(
        &mut self,
        occasion: Occasion,
        payload_bytes: Option<usize>,
        findings: Findings,
    ) {
        let Occasion {
            wire,
            dataplane,
            round,
        } = occasion;
        let usage = findings.usage;
        for reading in findings.readings {
            let sample = Sample {
                round,
                value: reading.value,
                void: reading.void || usage.is_disturbed(),
                steal_share: usage.steal_share,
                foreign_share: usage.foreign_share,
            };
            let series = self.series.entry((wire, reading.measure)).or_default();
            series.entry(dataplane).or_default().push(sample);
        }
        if let Some((payload_bytes, trials)) = payload_bytes.zip(findings.trials) {
            let void = usage.is_disturbed();
            self.curves.push(Curve {
                wire,
                payload_bytes,
                dataplane,
                round,
                void,
                trials,
            });
        }
    }

    /// What the first flood of each dataplane delivered; `None` before there was one.
    pub(super) fn reference(&self, wire: Wire, payload_bytes: usize) -> Option<Reference> {
        let series = self
            .series
            .get(&(wire, Measure::UdpSaturated(payload_bytes)))?;
        let first = |samples: &Vec<Sample>| samples.first().map(|sample| sample.value * 1e3);
        Reference::of(&series.values().filter_map(first).collect::<Vec<_>>())
    }

    /// Delivered over offered, of all rounds.
    pub(super) fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// How evenly the trials of all curves were offered, those left out whose sender missed its rate; of the rounds that
    /// count, or of all if none does. `None` without trials.
    pub(super) fn evenness(&self) -> Option<Evenness> {
        let trials: Vec<_> = self
            .counting_curves()
            .flat_map(|curve| curve.trials.all())
            .filter(|trial| !trial.missed)
            .collect();
        let spacings = || trials.iter().filter_map(|trial| trial.spacing);
        let sent: u64 = trials.iter().map(|trial| trial.sent).sum();
        let late: u64 = spacings().map(|spacing| spacing.late).sum();
        (sent > 0).then(|| Evenness {
            late_share: late as f64 / sent as f64,
            latest_us: spacings().fold(0.0, |latest, spacing| latest.max(spacing.latest_us)),
        })
    }

    /// Zero-loss rates of each dataplane that ended where the sender did and not with loss, and of how many.
    pub(super) fn sender_limited(&self) -> BTreeMap<Dataplane, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for curve in self.counting_curves() {
            let (limited, all) = counts.entry(curve.dataplane).or_default();
            *limited += usize::from(curve.trials.zero_loss.limit == Limit::Sender);
            *all += 1;
        }
        counts
    }

    /// All curves if none counts.
    fn counting_curves(&self) -> impl Iterator<Item = &Curve> {
        let none_counts = self.curves.iter().all(|curve| curve.void);
        let counts = move |curve: &&Curve| none_counts || !curve.void;
        self.curves.iter().filter(counts)
    }

    /// The table.
    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |(&(wire, measure), series): (_, &BTreeMap<_, Vec<Sample>>)| Row {
            wire,
            measure,
            summaries: series
                .iter()
                .filter_map(|(name, samples)| Some((*name, Summary::of(samples)?)))
                .collect(),
        };
        self.series.iter().map(row).collect()
    }

    /// How many samples do not count, and of how many.
    pub(super) fn void(&self) -> (usize, usize) {
        let samples = || self.series.values().flat_map(BTreeMap::values).flatten();
        (
            samples().filter(|sample| sample.void).count(),
            samples().count(),
        )
    }

    /// The median curve of the rounds that count, by rising rate; of all if none does. Trials whose sender missed its
    /// rate are left out.
    pub(super) fn curve(
        &self,
        wire: Wire,
        payload_bytes: usize,
        dataplane: Dataplane,
    ) -> Vec<Point> {
        let is_this = |curve: &&Curve| {
            (curve.wire, curve.payload_bytes, curve.dataplane) == (wire, payload_bytes, dataplane)
        };
        let curves = || self.curves.iter().filter(is_this);
        let none_counts = curves().all(|curve| curve.void);
        let grids: Vec<_> = curves()
            .filter(|curve| none_counts || !curve.void)
            .map(|curve| &curve.trials.grid)
            .collect();
        let points = grids.iter().map(|grid| grid.len()).max().unwrap_or(0);
        (0..points)
            .filter_map(|index| point(grids.iter().filter_map(|grid| grid.get(index))))
            .collect()
    }

    /// An array of rows with their samples.
    pub(super) fn json(&self) -> Value {
        self.rows().iter().map(|row| self.row_json(row)).collect()
    }

    fn row_json(&self, row: &Row) -> Value {
        let mut dataplanes = Map::new();
        for (dataplane, samples) in &self.series[&(row.wire, row.measure)] {
            let mut value = json!({ "summary": row.summaries.get(dataplane), "samples": samples });
            if let Some(ratio) = row.ratio(*dataplane) {
                value["ratio"] = json!(ratio);
            }
            dataplanes.insert(dataplane.name().to_owned(), value);
        }
        json!({
            "wire": row.wire,
            "measure": row.measure.key(),
            "unit": row.measure.unit(),
            "better": row.measure.better().name(),
            "dataplanes": dataplanes,
        })
    }
}

fn point<'a>(trials: impl Iterator<Item = &'a Trial>) -> Option<Point> {
    let (mut offered, mut delivered): (Vec<f64>, Vec<f64>) = trials
        .filter(|trial| !trial.missed)
        .map(|trial| (trial.offered, trial.delivered))
        .unzip();
    offered.sort_by(f64::total_cmp);
    delivered.sort_by(f64::total_cmp);
    Some(Point {
        offered: median(&offered)?,
        delivered: median(&delivered)?,
        min: *delivered.first()?,
        max: *delivered.last()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::curve::ZeroLoss;
    use crate::cli::bench::exercise::Reading;
    use crate::cli::bench::measure::Way;
    use crate::cli::bench::meter::Usage;
    use crate::cli::bench::pacer::Spacing;
    use crate::cli::bench::summary::Ratio;

    const MEASURE: Measure = Measure::TcpRate(1, Way::Out);

    fn findings(measure: Measure, value: f64, foreign_share: f64) -> Findings {
        Findings {
            readings: vec![Reading {
                measure,
                value,
                void: false,
            }],
            trials: None,
            usage: Usage {
                seconds: 1.0,
                busy_seconds: 2.0,
                steal_share: 0.0,
                foreign_share,
            },
        }
    }

    fn results(kernel: &[(f64, f64)], ours: &[(f64, f64)]) -> Results {
        let mut results = Results::default();
        for (dataplane, values) in [(Dataplane::Kernel, kernel), (Dataplane::SilkVtep, ours)] {
            for ((value, foreign), round) in values.iter().zip(1..) {
                let occasion = Occasion {
                    wire: Wire::Mtu,
                    dataplane,
                    round,
                };
                results.add(occasion, None, findings(MEASURE, *value, *foreign));
            }
        }
        results
    }

    fn only_row(results: &Results) -> Row {
        let mut rows = results.rows();
        assert_eq!(rows.len(), 1);
        rows.remove(0)
    }

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let row = only_row(&results(
            &[(8.0, 0.0), (10.0, 0.0), (30.0, 0.0)],
            &[(5.0, 0.0), (6.0, 0.0)],
        ));
        assert_eq!(
            row.ratio(Dataplane::SilkVtep),
            Some(Ratio {
                value: 0.55,
                void: false
            })
        );
        assert_eq!(row.ratio(Dataplane::Kernel), None);
        let kernel = row.summaries[&Dataplane::Kernel];
        assert_eq!((kernel.median, kernel.min, kernel.max), (10.0, 8.0, 30.0));
    }

    #[test]
    fn disturbed_samples_do_not_count_while_there_are_others() {
        let row = only_row(&results(
            &[(10.0, 0.0), (1.0, 0.5)],
            &[(1.0, 0.5), (3.0, 0.5)],
        ));
        let (kernel, ours) = (
            row.summaries[&Dataplane::Kernel],
            row.summaries[&Dataplane::SilkVtep],
        );
        assert_eq!(
            (kernel.median, kernel.valid, kernel.taken, kernel.void),
            (10.0, 1, 2, false)
        );
        assert_eq!(
            (ours.median, ours.valid, ours.taken, ours.void),
            (2.0, 0, 2, true)
        );
        assert!(row.is_void());
        assert!(
            row.ratio(Dataplane::SilkVtep)
                .is_some_and(|ratio| ratio.void)
        );
    }

    #[test]
    fn a_reading_without_its_load_does_not_count_however_quiet_the_machine() {
        let mut results = results(&[], &[(7.0, 0.0)]);
        let mut found = findings(MEASURE, 900.0, 0.0);
        found.readings[0].void = true;
        let occasion = Occasion {
            wire: Wire::Mtu,
            dataplane: Dataplane::SilkVtep,
            round: 2,
        };
        results.add(occasion, None, found);
        let ours = only_row(&results).summaries[&Dataplane::SilkVtep];
        assert_eq!((ours.median, ours.valid, ours.taken), (7.0, 1, 2));
    }

    #[test]
    fn void_samples_are_counted_and_told() {
        let results = results(&[(10.0, 0.0), (1.0, 0.5)], &[(5.0, 0.0)]);
        assert_eq!(results.void(), (1, 3));
        let json = results.json();
        assert_eq!(json[0]["dataplanes"]["kernel"]["samples"][1]["void"], true);
        assert_eq!(json[0]["dataplanes"]["silk-vtep"]["ratio"]["value"], 0.5);
        assert_eq!(json[0]["measure"], "tcp-1-out-rate");
    }

    #[test]
    fn alone_a_dataplane_has_no_ratio() {
        let ratio = |kernel| only_row(&results(kernel, &[(5.0, 0.0)])).ratio(Dataplane::SilkVtep);
        assert_eq!(ratio(&[]), None);
        assert_eq!(ratio(&[(0.0, 0.0)]), None);
    }

    #[test]
    fn the_reference_is_that_of_the_first_round() {
        let mut results = Results::default();
        let measure = Measure::UdpSaturated(64);
        assert_eq!(results.reference(Wire::Mtu, 64), None);
        for (dataplane, round, value) in [
            (Dataplane::Kernel, 1, 110.0),
            (Dataplane::SilkVtep, 1, 140.0),
            (Dataplane::Kernel, 2, 500.0),
        ] {
            let occasion = Occasion {
                wire: Wire::Mtu,
                dataplane,
                round,
            };
            results.add(occasion, Some(64), findings(measure, value, 0.0));
        }
        assert_eq!(
            results.reference(Wire::Mtu, 64),
            Reference::of(&[110_000.0, 140_000.0])
        );
        assert_eq!(results.reference(Wire::Super, 64), None);
        assert!(results.curves().is_empty(), "floods have no curve");
    }

    fn trial(offered: f64, delivered: f64) -> Trial {
        Trial {
            target: Some(100.0),
            offered,
            delivered,
            sent: 100,
            lost: 0,
            missed: offered < 99.0,
            spacing: None,
        }
    }

    #[test]
    fn evenness_and_limits_are_of_the_curves_that_count() {
        let mut results = Results::default();
        assert_eq!(results.evenness(), None);
        let spaced = |offered, late, latest_us| Trial {
            spacing: Some(Spacing {
                late,
                latest_us,
                ..Spacing::default()
            }),
            ..trial(offered, offered)
        };
        for (foreign, grid, search) in [
            (0.0, spaced(100.0, 10, 70.0), spaced(100.0, 30, 50.0)),
            (0.0, spaced(50.0, 100, 900.0), spaced(100.0, 20, 60.0)),
            (0.5, spaced(100.0, 100, 900.0), spaced(100.0, 100, 900.0)),
        ] {
            let trials = Some(Trials {
                grid: vec![grid],
                search: vec![search],
                zero_loss: ZeroLoss {
                    rate: 100.0,
                    limit: Limit::Sender,
                },
            });
            let found = Findings {
                trials,
                ..findings(Measure::UdpZeroLoss(64), 0.0, foreign)
            };
            let occasion = Occasion {
                wire: Wire::Mtu,
                dataplane: Dataplane::Kernel,
                round: 1,
            };
            results.add(occasion, Some(64), found);
        }
        let evenness = results.evenness().expect("three trials count");
        assert_eq!((evenness.late_share, evenness.latest_us), (0.2, 70.0));
        let limited = results.sender_limited();
        assert_eq!(limited, BTreeMap::from([(Dataplane::Kernel, (2, 2))]));
    }

    #[test]
    fn a_curve_is_of_the_rounds_and_trials_that_count() {
        let mut results = Results::default();
        for (round, foreign, grid) in [
            (1, 0.0, [trial(100.0, 90.0), trial(50.0, 50.0)]),
            (2, 0.0, [trial(100.0, 80.0), trial(50.0, 50.0)]),
            (3, 0.5, [trial(100.0, 1.0), trial(100.0, 1.0)]),
        ] {
            let occasion = Occasion {
                wire: Wire::Mtu,
                dataplane: Dataplane::Kernel,
                round,
            };
            let trials = Some(Trials {
                grid: grid.to_vec(),
                search: Vec::new(),
                zero_loss: ZeroLoss {
                    rate: 100.0,
                    limit: Limit::Sender,
                },
            });
            let found = Findings {
                trials,
                ..findings(Measure::UdpZeroLoss(64), 0.0, foreign)
            };
            results.add(occasion, Some(64), found);
        }
        let curve = results.curve(Wire::Mtu, 64, Dataplane::Kernel);
        assert_eq!(
            curve,
            [Point {
                offered: 100.0,
                delivered: 85.0,
                min: 80.0,
                max: 90.0
            }]
        );
        assert!(results.curve(Wire::Mtu, 512, Dataplane::Kernel).is_empty());
    }
}
