//! The trials: the tables and the generated cases of each setup, the flows, the third parties.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libtest_mimic::Trial;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::case::{Case, Direction};
use super::generated::Generator;
use super::ground::Ground;
use super::options::{Count, Options};
use super::row::Row;
use super::setup::SETUPS;
use super::shared::Shared;
use super::tally::Tally;
use super::{receive, replay, third_party, transmit};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Obstacles, Plan, Result, ensure};

/// Setups whose source ports are looked at.
const FLOW_SETUPS: [&str; 3] = ["gbp", "srcport", "v6"];
/// Cases of one setup and direction before the next has its turn, where there is no end.
const TURN: usize = 1000;

/// Longest word that a command line takes (MAX_ARG_STRLEN).
const WORD_MAX: usize = 131_071;

/// One run of this binary.
pub(crate) struct Run {
    options: Options,
    tally: Arc<Tally>,
    shared: BTreeMap<&'static str, Arc<Shared>>,
}

impl Run {
    /// Looks at what this machine has.
    pub(crate) fn new(options: Options) -> Self {
        let machine = Obstacles::probe().to(&Plan::of(&[Silk, Kernel]));
        let tally: Arc<Tally> = Arc::default();
        let shared = SETUPS.iter().map(|setup| {
            let shared = Shared::new(setup, machine.as_ref(), &tally);
            (setup.name, Arc::new(shared))
        });
        Self {
            options,
            shared: shared.collect(),
            tally,
        }
    }

    /// Everything, or what was asked for.
    ///
    /// # Errors
    /// The case that was asked for is none.
    pub(crate) fn trials(&self) -> Result<Vec<Trial>> {
        if let Some(word) = &self.options.case {
            let case = Case::parse(word)?;
            let shared = &self.shared[case.setup.name];
            return Ok(vec![
                shared.trial("case", move |shared| shared.compare(case)),
            ]);
        }
        let mut trials = self.tables();
        trials.extend(FLOW_SETUPS.map(|setup| {
            let name = format!("tx::{setup}::flows");
            self.shared[setup].trial(&name, Shared::flows)
        }));
        match self.options.generated {
            Count::Cases(cases) => trials.extend(self.generated(cases)),
            Count::Unbounded => trials.push(self.unbounded()),
        }
        trials.extend(self.third_parties());
        trials.push(Trial::test("every_line_survives_its_word", || {
            Ok(words_are_read_back().map_err(|error| error.to_string())?)
        }));
        trials.push(Trial::test("replay::verdicts_are_the_expected", || {
            let verdicts = replay::verdicts_are_the_expected(rows().collect());
            Ok(verdicts.map_err(|error| error.to_string())?)
        }));
        Ok(trials)
    }

    /// No single case was asked for.
    pub(crate) fn is_whole(&self) -> bool {
        self.options.case.is_none()
    }

    /// Intended differences that a whole run did not show.
    pub(crate) fn unshown(&self) -> Vec<&'static str> {
        self.tally.unshown()
    }

    /// What became of them.
    pub(crate) fn summary(&self) -> String {
        self.tally.summary(self.options.seed)
    }

    fn tables(&self) -> Vec<Trial> {
        let mut tables: BTreeMap<(&str, &str), Vec<Row>> = BTreeMap::new();
        for row in rows() {
            let key = (row.case.setup.name, row.case.direction.name());
            tables.entry(key).or_default().push(row);
        }
        let trial = |((setup, direction), rows): ((&str, &str), Vec<Row>)| {
            let name = format!("{direction}::{setup}::table_of_{}", rows.len());
            self.shared[setup].trial(&name, move |shared| shared.table(&rows))
        };
        tables.into_iter().map(trial).collect()
    }

    /// Who generates, and how many parts of the whole.
    fn generators(&self) -> Vec<(&Arc<Shared>, Generator, usize)> {
        let directions = [Direction::Transmit, Direction::Receive];
        let mut generators = Vec::new();
        for setup in &SETUPS {
            for (direction, parts) in directions.into_iter().zip(setup.generated) {
                let generator = Generator::new(self.options.seed, setup, direction);
                if parts > 0 {
                    generators.push((&self.shared[setup.name], generator, parts));
                }
            }
        }
        generators
    }

    /// Shared among the setups.
    fn generated(&self, cases: usize) -> Vec<Trial> {
        let generators = self.generators();
        let whole: usize = generators.iter().map(|(_, _, parts)| parts).sum();
        let trial = |(shared, mut generator, parts): (&Arc<Shared>, Generator, usize)| {
            let count = (cases * parts).div_ceil(whole);
            let name = format!("{}::generated", generator.name());
            shared.trial(&name, move |shared| shared.generated(&mut generator, count))
        };
        generators.into_iter().map(trial).collect()
    }

    /// One setup after another, again and again, until there is a difference or somebody interrupts: then what was built is removed.
    fn unbounded(&self) -> Trial {
        let generators = self.generators().into_iter();
        let mut turns: Vec<_> = generators
            .map(|(shared, generator, parts)| (Arc::clone(shared), generator, parts))
            .collect();
        let (tally, seed) = (Arc::clone(&self.tally), self.options.seed);
        self.shared["gbp"].trial("generated_without_end", move |_| {
            let interrupted: Arc<AtomicBool> = Arc::default();
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
            }
            loop {
                for (shared, generator, parts) in &mut turns {
                    if interrupted.load(Relaxed) {
                        return Ok(());
                    }
                    shared.generated(generator, TURN * *parts)?;
                }
                let summary = tally.summary(seed);
                eprintln!("{}", summary.lines().next().unwrap_or_default());
            }
        })
    }

    /// Others that read and write our packets, with marks.
    fn third_parties(&self) -> [Trial; 3] {
        let shared = &self.shared["marks"];
        let trial = |name: &str, obstacle: Option<String>, body: fn(&mut Ground) -> Result| {
            let name = format!("third_party::{name}");
            shared.trial_behind(obstacle, &name, move |shared| shared.with_ground(body))
        };
        let [tshark, scapy] = [
            third_party::tshark_obstacle(),
            third_party::scapy_obstacle(),
        ];
        [
            trial("tshark_reads_ours", tshark, third_party::tshark_reads_ours),
            trial(
                "scapy_reads_ours",
                scapy.clone(),
                third_party::scapy_reads_ours,
            ),
            trial("ours_reads_scapys", scapy, third_party::ours_reads_scapys),
        ]
    }
}

/// Both tables.
fn rows() -> impl Iterator<Item = Row> {
    transmit::rows().into_iter().chain(receive::rows())
}

/// A case that a failure prints can be pasted.
fn words_are_read_back() -> Result {
    for Row { name, case, .. } in rows() {
        let word = case.word();
        ensure!(
            word.len() <= WORD_MAX,
            "{name}: a word of {} bytes",
            word.len()
        );
        let again = Case::parse(&word)?;
        let is_same = again.direction == case.direction
            && again.setup.name == case.setup.name
            && again.stimuli == case.stimuli;
        ensure!(is_same, "{name}: {word} is read as another case");
    }
    Ok(())
}
