//! One setup's ground, shared by its trials: built by the first that needs it, gone after the last.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Completion, Failed, Trial};

use super::case::Case;
use super::flows;
use super::generated::Generator;
use super::ground::Ground;
use super::row::Row;
use super::setup::Setup;
use super::tally::Tally;
use super::verdict::{self, Drops};
use crate::support::Result;

/// Differences of one generated run that are told.
const TOLD: usize = 5;

/// One setup.
pub(crate) struct Shared {
    pub(crate) setup: &'static Setup,
    ground: Mutex<Option<Ground>>,
    obstacle: Option<String>,
    tally: Arc<Tally>,
}

impl Shared {
    /// Not built yet; `machine` is what this machine lacks.
    pub(crate) fn new(setup: &'static Setup, machine: Option<&String>, tally: &Arc<Tally>) -> Self {
        Self {
            setup,
            ground: Mutex::default(),
            obstacle: machine.cloned(),
            tally: Arc::clone(tally),
        }
    }

    /// A trial on this ground.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce(&Self) -> Result + Send + 'static,
    ) -> Trial {
        self.trial_behind(None, name, body)
    }

    /// A trial on this ground that needs something else as well.
    pub(crate) fn trial_behind(
        self: &Arc<Self>,
        obstacle: Option<String>,
        name: &str,
        body: impl FnOnce(&Self) -> Result + Send + 'static,
    ) -> Trial {
        let shared = Arc::clone(self);
        let obstacle = self.obstacle.clone().or(obstacle);
        Trial::ignorable_test(name, move || match obstacle {
            None => body(&shared)
                .map(|()| Completion::Completed)
                .map_err(|error| Failed::from(error.to_string())),
            Some(why) if is_required() => Err(why.into()),
            Some(why) => {
                shared.tally.count_ignored();
                Ok(Completion::ignored_with(why))
            }
        })
    }

    /// Runs `body` on the ground, alone.
    pub(crate) fn with_ground<T>(&self, body: impl FnOnce(&mut Ground) -> Result<T>) -> Result<T> {
        let mut ground = self.ground.lock().unwrap_or_else(PoisonError::into_inner);
        if ground.is_none() {
            let built = Ground::new(self.setup);
            let name = self.setup.name;
            *ground = Some(built.map_err(|error| format!("building {name}: {error}"))?);
        }
        body(ground.as_mut().ok_or("it was built above")?)
    }

    /// One case that somebody asked for.
    pub(crate) fn compare(&self, case: Case) -> Result {
        self.table(&[Row {
            name: "the case".to_owned(),
            case,
            counts_ids: false,
        }])
    }

    /// Every line, whatever comes of the others.
    pub(crate) fn table(&self, rows: &[Row]) -> Result {
        self.with_ground(|ground| {
            self.tally.count_cases(rows.len());
            let mut told = Vec::new();
            for row in rows {
                if let Err(report) = self.row(ground, row)? {
                    self.tally.count_unexplained();
                    told.push(format!("{}: {report}", row.name));
                }
            }
            verdict(&told, ground)
        })
    }

    /// What makes a flow.
    pub(crate) fn flows(&self) -> Result {
        self.with_ground(|ground| {
            let cases = flows::run(ground)?;
            self.tally.count_cases(cases);
            Ok(())
        })
    }

    /// The next `count` cases of a generator.
    pub(crate) fn generated(&self, generator: &mut Generator, count: usize) -> Result {
        self.with_ground(|ground| {
            let mut told = Vec::new();
            for _ in 0..count {
                let case = generator.case();
                self.tally.count_generated();
                match ground.compare(&case)? {
                    Ok(agreed) => self.tally.count_agreed(&agreed),
                    Err(report) => {
                        self.tally.count_unexplained();
                        told.push(report);
                    }
                }
                if told.len() == TOLD {
                    break;
                }
            }
            verdict(&told, ground)
        })
    }

    fn row(&self, ground: &mut Ground, row: &Row) -> Result<std::result::Result<(), String>> {
        let before = ground.drops()?;
        let agreed = match ground.compare(&row.case)? {
            Ok(agreed) => agreed,
            Err(report) => return Ok(Err(report)),
        };
        self.tally.count_agreed(&agreed);
        let drops = new_drops(&before, ground.drops()?);
        match verdict::check(&row.name, row.case.direction, &agreed.ours, &drops) {
            Ok(is_expected) => self.tally.count_verdict(is_expected),
            Err(report) => return Ok(Err(report.to_string())),
        }
        for (whose, view) in [("the kernel", &agreed.kernel), ("ours", &agreed.silk)] {
            let mut steps = view.ids.windows(2);
            if row.counts_ids && steps.any(|ids| ids[1] != ids[0].wrapping_add(1)) {
                let ids = &view.ids;
                return Ok(Err(format!("{whose}: IP IDs do not count up: {ids:x?}")));
            }
        }
        Ok(Ok(()))
    }
}

/// What was counted since `before`, without what the socket lost: whom it takes that for, wrong checksums among them, it does not tell.
fn new_drops(before: &Drops, mut now: Drops) -> Drops {
    now.retain(|reason, count| {
        *count -= before.get(reason).copied().unwrap_or(0);
        *count > 0 && reason != "receive-queue-full"
    });
    now
}

/// What was told, and what helps to understand it.
fn verdict(told: &[String], ground: &Ground) -> Result {
    if told.is_empty() {
        return Ok(());
    }
    let all = told.join("\n");
    Err(format!("{} differ\n{all}\n{}", told.len(), ground.diagnosis()).into())
}

fn is_required() -> bool {
    std::env::var_os("SILK_VTEP_REQUIRE_NETNS").is_some_and(|value| value == "1")
}
