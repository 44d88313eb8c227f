//! The trials: the tables and the generated cases of each setup, the flows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libtest_mimic::Trial;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::case::{Case, Direction};
use super::generated::Generator;
use super::options::{Count, Options};
use super::row::Row;
use super::setup::SETUPS;
use super::shared::Shared;
use super::tally::Tally;
use super::{receive, transmit};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Obstacles, Plan, Result};

/// Setups whose source ports are looked at.
const FLOW_SETUPS: [&str; 3] = ["gbp", "srcport", "v6"];
/// Cases of one setup and direction before the next has its turn, where there is no end.
const TURN: usize = 1000;

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
        Ok(trials)
    }

    /// What became of them.
    pub(crate) fn summary(&self) -> String {
        self.tally.summary(self.options.seed)
    }

    fn tables(&self) -> Vec<Trial> {
        let mut tables: BTreeMap<(&str, &str), Vec<Row>> = BTreeMap::new();
        for row in transmit::rows().into_iter().chain(receive::rows()) {
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

    /// Shared among the setups. One that cannot run leaves its part to the others.
    fn generated(&self, cases: usize) -> Vec<Trial> {
        let generators = self.generators();
        let able = generators.iter().filter(|(shared, ..)| shared.is_able());
        let whole: usize = able.map(|(_, _, parts)| parts).sum();
        let trial = |(shared, mut generator, parts): (&Arc<Shared>, Generator, usize)| {
            let count = (cases * parts).div_ceil(whole.max(1));
            let name = format!("{}::generated", generator.name());
            shared.trial(&name, move |shared| shared.generated(&mut generator, count))
        };
        generators.into_iter().map(trial).collect()
    }

    /// One setup after another, again and again, until there is a difference or somebody interrupts: then what was built is removed.
    fn unbounded(&self) -> Trial {
        let generators = self.generators().into_iter();
        let able = generators.filter(|(shared, ..)| shared.is_able());
        let mut turns: Vec<_> = able
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
}
