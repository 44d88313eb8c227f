//! `silk-vtep bench`: this dataplane and the kernel's, on the same two cells, in turn, in one run.
//!
//! Called by the command line. A **bed** is two cells of the `lab` with one dataplane between them on one
//! wire; an **exercise** is one thing to measure on it, and gives **readings**. In each round and on each wire the beds
//! of all dataplanes are built afresh and every exercise is done on one and at once on the next, so that whatever
//! else changes on the machine changes for all. What was disturbed all the same is void.
//!
//! `bench cni` measures the CNI plugin instead.
//!
//! All load comes from threads of this process, whose sockets were made inside the containers.

mod cni;
mod curve;
mod dataplane;
mod exercise;
mod express;
mod html;
mod kernel_vtep;
mod machine;
mod measure;
mod meter;
mod notes;
mod offloads;
mod ovs;
mod pacer;
mod plan;
mod plot;
mod progress;
mod results;
mod round_trip;
mod socket;
mod summary;
mod table;
mod tcp;
mod udp;
mod wire;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::cli::CliError;
use crate::cli::args::{BenchArgs, BenchOf, BenchRival, VtepSetting};
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::{LabError, configuration};
use crate::cli::words::UsageError;
use crate::error::errno;
use dataplane::{Bed, Dataplane};
use exercise::{Exercise, Setting};
use express::ExpressUse;
use machine::Machine;
use ovs::Programs;
use plan::Plan;
use progress::Progress;
use results::{Occasion, Results};
use wire::Wire;

/// Runs the benchmark, which needs root, and prints its table; with `json` one JSON object instead.
///
/// # Errors
/// [`CliError::Usage`] if the daemons would refuse what is to be set; [`CliError::Failed`] with what failed first. All was removed
/// by then as far as it could be.
pub fn run(args: &BenchArgs, json: bool) -> Result<(), CliError> {
    if let Some(BenchOf::Cni(args)) = &args.of {
        return cni::run(args, json);
    }
    configuration::check(&args.set).map_err(wrong_setting)?;
    let ovs_version = match args.against {
        Some(BenchRival::Ovs) => Some(
            Programs::find()
                .and_then(|ovs| ovs.version())
                .map_err(failed)?,
        ),
        None => None,
    };
    // Before a quarter of an hour of work for nothing.
    let page = args
        .html
        .as_deref()
        .map(|path| Ok::<_, CliError>((path, open(path)?)))
        .transpose()?;
    let bench = Bench {
        plan: Plan::new(args),
        settings: args.set.clone(),
        against: args.against,
        ovs_version,
        machine: Machine::read(),
    };
    let outcome = bench.run().map_err(failed)?;
    if let Some((path, file)) = page {
        let notes = bench.notes(&outcome);
        let html = html::page(
            &bench.machine,
            &bench.settings,
            &outcome.dataplanes,
            &outcome.results,
            &notes,
        )
        .map_err(failed)?;
        write(file, &html).map_err(|error| unwritable(path, &error))?;
    }
    let text = if json {
        bench.json(&outcome)
    } else {
        bench.text(&outcome)
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn wrong_setting(wrong: String) -> CliError {
    CliError::Usage(UsageError {
        wrong: format!("bench: --set: {wrong}"),
        usage: "usage: silk-vtep bench --set KEY=VALUE, a key of [vtep] in the configuration",
    })
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(format!("bench: {error}"))
}

/// What an earlier run wrote stays until there is something better.
fn open(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| unwritable(path, &error))
}

fn write(mut file: File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    failed(format_args!("write {}: {}", path.display(), errno(error)))
}

/// What is to be done, and where.
struct Bench {
    plan: Plan,
    /// What our daemons are told besides.
    settings: Vec<VtepSetting>,
    /// Whom else to measure.
    against: Option<BenchRival>,
    /// And of which version it is.
    ovs_version: Option<String>,
    machine: Machine,
}

/// What came of it.
struct Outcome {
    dataplanes: Vec<Dataplane>,
    results: Results,
    express: ExpressUse,
}

impl Bench {
    fn run(&self) -> Result<Outcome, LabError> {
        let interrupt = Interrupt::on_signals()?;
        let dataplanes = dataplane::chosen(dataplane::kernel_has_vxlan()?, self.against);
        let mut progress = Progress::new(self.plan.steps() * dataplanes.len());
        progress.say(self.heading());
        if !dataplanes.contains(&Dataplane::Kernel) {
            progress.say(notes::NO_KERNEL_VXLAN);
        }
        let mut outcome = Outcome {
            dataplanes,
            results: Results::default(),
            express: ExpressUse::default(),
        };
        for round in 1..=self.plan.rounds {
            for &wire in &self.plan.wires {
                self.visit(round, wire, &mut outcome, &interrupt, &mut progress)?;
            }
        }
        Ok(outcome)
    }

    /// One round on one wire.
    fn visit(
        &self,
        round: u32,
        wire: Wire,
        outcome: &mut Outcome,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> Result<(), LabError> {
        let mut beds = Vec::new();
        for dataplane in turn(&outcome.dataplanes, round) {
            let bed = Bed::build(dataplane, wire, &self.settings, interrupt)?;
            beds.push((dataplane, bed));
        }
        for exercise in self.plan.exercises() {
            for (dataplane, bed) in &mut beds {
                let occasion = Occasion {
                    wire,
                    dataplane: *dataplane,
                    round,
                };
                progress.step(self.step(exercise, occasion));
                self.exercise(exercise, occasion, bed, outcome, interrupt)?;
            }
        }
        for (_, bed) in &beds {
            outcome.express.ask(wire, bed.cells())?;
        }
        // All of them, whichever fails.
        let closed: Vec<_> = beds.into_iter().map(|(_, bed)| bed.close()).collect();
        Ok(closed.into_iter().collect::<Result<(), _>>()?)
    }

    /// One exercise on one bed.
    fn exercise(
        &self,
        exercise: Exercise,
        occasion: Occasion,
        bed: &mut Bed,
        outcome: &mut Outcome,
        interrupt: &Interrupt,
    ) -> Result<(), LabError> {
        let payload_bytes = exercise.payload_bytes();
        let reference =
            payload_bytes.and_then(|bytes| outcome.results.reference(occasion.wire, bytes));
        let plan = &self.plan;
        match exercise.run(Setting {
            bed,
            plan,
            interrupt,
            reference,
        }) {
            Ok(findings) => {
                outcome.results.add(occasion, payload_bytes, findings);
                Ok(())
            }
            Err(error) => {
                bed.check()?;
                Err(error)
            }
        }
    }

    fn step(&self, exercise: Exercise, occasion: Occasion) -> String {
        let Occasion {
            wire,
            dataplane,
            round,
        } = occasion;
        let (rounds, wire, dataplane) = (self.plan.rounds, wire.name(), dataplane.name());
        format!(
            "round {round}/{rounds}, {wire}, {dataplane}: {}",
            exercise.label()
        )
    }

    fn text(&self, outcome: &Outcome) -> String {
        format!(
            "{}\n{}",
            self.heading(),
            table::text(&outcome.results, &self.notes(outcome)).trim_end()
        )
    }

    /// What was measured on, and what was set.
    fn heading(&self) -> String {
        let mut heading = self.machine.line();
        if !self.settings.is_empty() {
            heading.push_str("\nsilk-vtep with ");
            heading.push_str(&shown(&self.settings));
        }
        heading
    }

    fn json(&self, outcome: &Outcome) -> String {
        let (void, taken) = outcome.results.void();
        json!({
            "machine": self.machine,
            "plan": self.plan,
            "set": self.set(),
            "dataplanes": outcome.dataplanes,
            "ovs_version": self.ovs_version,
            "samples_taken": taken,
            "samples_void": void,
            "results": outcome.results.json(),
            "curves": outcome.results.curves(),
            "evenness": outcome.results.evenness(),
            "notes": self.notes(outcome),
        })
        .to_string()
    }

    fn set(&self) -> BTreeMap<&str, &toml::Value> {
        self.settings
            .iter()
            .map(|VtepSetting { key, value }| (key.as_str(), value))
            .collect()
    }

    fn notes(&self, outcome: &Outcome) -> Vec<String> {
        let mut notes = notes::all(
            &self.plan,
            &self.machine,
            &outcome.dataplanes,
            &outcome.results,
        );
        notes.extend(outcome.express.notes());
        notes.extend(self.ovs_version.as_deref().map(notes::ovs));
        notes
    }
}

/// As the configuration has them: `lanes = 1, marks = "off"`.
fn shown(settings: &[VtepSetting]) -> String {
    let shown: Vec<_> = settings.iter().map(VtepSetting::to_string).collect();
    shown.join(", ")
}

/// Who begins changes from round to round, so that it gives nobody an advantage.
fn turn(dataplanes: &[Dataplane], round: u32) -> Vec<Dataplane> {
    let mut turn = dataplanes.to_vec();
    let first = (round as usize).saturating_sub(1) % turn.len().max(1);
    turn.rotate_left(first);
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dataplane_begins_in_its_turn() {
        use Dataplane::{Kernel, Ovs, SilkVtep};
        let firsts = |dataplanes: &[Dataplane]| {
            let first = |round| turn(dataplanes, round)[0];
            [1, 2, 3, 4].map(first)
        };
        assert_eq!(
            firsts(&[Kernel, SilkVtep]),
            [Kernel, SilkVtep, Kernel, SilkVtep]
        );
        assert_eq!(
            firsts(&[Kernel, SilkVtep, Ovs]),
            [Kernel, SilkVtep, Ovs, Kernel]
        );
        assert_eq!(firsts(&[SilkVtep]), [SilkVtep; 4]);
    }
}
