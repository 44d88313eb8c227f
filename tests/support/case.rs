//! One test of a lab.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::{Lab, Obstacles, Plan, Result};

/// One test: what to build, and what to do with it.
pub(crate) struct Case {
    name: String,
    plan: Plan,
    body: Box<dyn FnOnce(&mut Lab) -> Result + Send>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        plan: Plan,
        body: impl FnOnce(&mut Lab) -> Result + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            plan,
            body: Box::new(body),
        }
    }

    /// The trial that builds the lab and runs the body, or says what stands in its way.
    pub(crate) fn trial(self, obstacles: &Obstacles) -> Trial {
        let obstacle = obstacles.to(&self.plan);
        Trial::ignorable_test(self.name.clone(), move || match obstacle {
            None => self.run().map(|()| Completion::Completed),
            Some(obstacle) if is_required() => Err(obstacle.into()),
            Some(obstacle) => Ok(Completion::ignored_with(obstacle)),
        })
    }

    fn run(self) -> std::result::Result<(), Failed> {
        let mut lab = Lab::new(&self.plan).map_err(|error| format!("building the lab: {error}"))?;
        (self.body)(&mut lab)
            .map_err(|error| Failed::from(format!("{error}\n\n{}", lab.diagnosis())))
    }
}

/// What the command line chooses of them.
pub(crate) fn run_cases(cases: impl IntoIterator<Item = Case>) -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacles = Obstacles::probe();
    let trials = cases.into_iter().map(|case| case.trial(&obstacles));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn is_required() -> bool {
    std::env::var_os("SILK_VTEP_REQUIRE_NETNS").is_some_and(|value| value == "1")
}
