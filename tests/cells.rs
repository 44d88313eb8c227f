//! Namespace tests: real `silk-vtep` processes and the kernel's own vxlan device, joined by veth pairs on this machine.
//!
//! They need root, iproute2, ping and /dev/net/tun; some of them iptables. Where those are missing they are reported as ignored, with the
//! reason; `SILK_VTEP_REQUIRE_NETNS=1` makes that a failure.

mod support;

mod cells {
    pub(crate) mod capture;
    pub(crate) mod containers;
    pub(crate) mod doctor;
    pub(crate) mod exchange;
    pub(crate) mod garbage;
    pub(crate) mod kernel_peer;
    pub(crate) mod lanes;
    pub(crate) mod marks;
    pub(crate) mod offload;
    pub(crate) mod overlay_v6;
    pub(crate) mod path_mtu;
    pub(crate) mod readme;
    pub(crate) mod reconfigure;
    pub(crate) mod repair;
    pub(crate) mod restart;
    pub(crate) mod setup;
    pub(crate) mod spoof;
    pub(crate) mod stepdown;
    pub(crate) mod tables;
    pub(crate) mod trace;
    pub(crate) mod wire;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use support::{Lab, Obstacles, Plan, Result};

/// One test: what to build, and what to do with it.
struct Case {
    name: String,
    plan: Plan,
    body: Box<dyn FnOnce(&mut Lab) -> Result + Send>,
}

impl Case {
    fn new(
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
    fn trial(self, obstacles: &Obstacles) -> Trial {
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

fn is_required() -> bool {
    std::env::var_os("SILK_VTEP_REQUIRE_NETNS").is_some_and(|value| value == "1")
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let cases = [
        cells::exchange::cases(),
        cells::wire::cases(),
        cells::lanes::cases(),
        cells::marks::cases(),
        cells::offload::cases(),
        cells::kernel_peer::cases(),
        cells::stepdown::cases(),
        cells::overlay_v6::cases(),
        cells::path_mtu::cases(),
        cells::tables::cases(),
        cells::containers::cases(),
        cells::readme::cases(),
        cells::reconfigure::cases(),
        cells::restart::cases(),
        cells::repair::cases(),
        cells::setup::cases(),
        cells::doctor::cases(),
        cells::garbage::cases(),
        cells::spoof::cases(),
        cells::trace::cases(),
        cells::capture::cases(),
    ];
    let obstacles = Obstacles::probe();
    let trials = cases
        .into_iter()
        .flatten()
        .map(|case| case.trial(&obstacles))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
