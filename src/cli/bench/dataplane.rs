//! What is compared, and on what wire: one pair of cells, up and ready to carry traffic.

use nix::errno::Errno;
use serde::Serialize;

use super::kernel_vtep;
use super::ovs::{self, Switch};
use super::wire::Wire;
use crate::cli::args::{BenchRival, VtepSetting};
use crate::cli::lab::LabError;
use crate::cli::lab::ground::{self, CellPlan, End, Place};
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::scratch::Scratch;
use crate::cli::lab::site::{Cell, Site};
use crate::error::SetupError;
use crate::netlink::{NamedNamespace, Netlink, NetlinkError};

/// Who carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Dataplane {
    /// The kernel's `vxlan ... nolearning gbp` device.
    Kernel,
    /// `silk-vtep run`, this very executable.
    SilkVtep,
    /// Open vSwitch's userspace datapath.
    Ovs,
}

impl Dataplane {
    /// As it is called in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::SilkVtep => "silk-vtep",
            Self::Ovs => "ovs",
        }
    }
}

/// The cells of the demo, both without a group: the kernel's device takes a group from a mark that does not survive the
/// way out of the container, and all dataplanes are to send the same bytes.
const PLANS: [CellPlan; 2] = {
    let [a, b] = CellPlan::BOTH;
    [CellPlan { group: None, ..a }, CellPlan { group: None, ..b }]
};
const PLAN_A: &CellPlan = &PLANS[0];
const PLAN_B: &CellPlan = &PLANS[1];

/// Two cells and their containers with one dataplane between them. Everything is taken down when it is dropped.
#[derive(Debug)]
pub(super) struct Bed {
    carrier: Carrier,
    // Last, so that it is dropped last: its directory holds the daemons' files.
    scratch: Scratch,
}

#[derive(Debug)]
enum Carrier {
    Kernel(Box<[Place; 2]>),
    Daemons(Box<Site>),
    Switches(Box<[Switch; 2]>),
}

impl Bed {
    /// Builds everything, up to containers that can speak to each other. `settings` are for our own daemons.
    ///
    /// # Errors
    /// The step that failed, or [`LabError::Interrupted`]; what was built until then is gone again.
    pub(super) fn build(
        dataplane: Dataplane,
        wire: Wire,
        settings: &[VtepSetting],
        interrupt: &Interrupt,
    ) -> Result<Self, LabError> {
        interrupt.check()?;
        let mut scratch = Scratch::claim("bench")?;
        let places = ground::lay(&mut scratch, [PLAN_A, PLAN_B])?;
        wire.apply(&places)?;
        let carrier = match dataplane {
            Dataplane::Ovs => Carrier::Switches(switches(places, &scratch, interrupt)?),
            Dataplane::Kernel => {
                kernel_vtep::set_up(&places)?;
                Carrier::Kernel(Box::new(places))
            }
            Dataplane::SilkVtep => {
                let site = Site::build(places, &scratch, settings, interrupt)?;
                Carrier::Daemons(Box::new(site))
            }
        };
        Ok(Self { carrier, scratch })
    }

    /// Both containers.
    pub(super) fn ends(&self) -> [End<'_>; 2] {
        match &self.carrier {
            Carrier::Kernel(places) => places.each_ref().map(Place::end),
            Carrier::Daemons(site) => {
                let [a, b] = &site.cells;
                [a.place.end(), b.place.end()]
            }
            Carrier::Switches(switches) => ends(switches),
        }
    }

    /// Those of our own daemons.
    pub(super) fn cells(&self) -> &[Cell] {
        match &self.carrier {
            Carrier::Daemons(site) => &site.cells,
            Carrier::Kernel(_) | Carrier::Switches(_) => &[],
        }
    }

    /// Processes that work for this bed, this one not counted.
    pub(super) fn processes(&self) -> Vec<u32> {
        match &self.carrier {
            Carrier::Kernel(_) => Vec::new(),
            Carrier::Daemons(site) => site.cells.iter().map(|cell| cell.daemon.pid()).collect(),
            Carrier::Switches(switches) => switches.iter().flat_map(Switch::pids).collect(),
        }
    }

    /// Whether everything that should run still does: what ended explains whatever its absence led to.
    ///
    /// # Errors
    /// The first process that ended, with the last thing it said.
    pub(super) fn check(&mut self) -> Result<(), SetupError> {
        match &mut self.carrier {
            Carrier::Kernel(_) => Ok(()),
            Carrier::Daemons(site) => site.check_daemons(),
            Carrier::Switches(switches) => switches.iter_mut().try_for_each(Switch::check),
        }
    }

    /// Takes everything down and looks whether it is gone.
    ///
    /// # Errors
    /// A daemon that did not end in order, or a namespace that is still there. All is taken down as far as it can be.
    pub(super) fn close(self) -> Result<(), SetupError> {
        let Self { carrier, scratch } = self;
        match carrier {
            Carrier::Kernel(places) => drop(places),
            Carrier::Daemons(site) => site.close()?,
            Carrier::Switches(switches) => {
                let [a, b] = switches.map(Switch::stop);
                a.and(b)?;
            }
        }
        match &scratch.left_behind()?[..] {
            [] => Ok(()),
            left => Err(SetupError::new("remove", left.join(" "), "still there")),
        }
    }
}

fn switches(
    [a, b]: [Place; 2],
    scratch: &Scratch,
    interrupt: &Interrupt,
) -> Result<Box<[Switch; 2]>, LabError> {
    let (to_a, to_b) = (a.plan, b.plan);
    let a = Switch::start(a, to_b, scratch, interrupt)?;
    let b = Switch::start(b, to_a, scratch, interrupt)?;
    let switches = Box::new([a, b]);
    ovs::await_path(ends(&switches), interrupt)?;
    Ok(switches)
}

fn ends(switches: &[Switch; 2]) -> [End<'_>; 2] {
    switches.each_ref().map(|switch| switch.place().end())
}

/// Those to be measured, in the order of the table: the kernel where it has a VXLAN device, and ourselves always.
pub(super) fn chosen(kernel_has_vxlan: bool, against: Option<BenchRival>) -> Vec<Dataplane> {
    let kernel = kernel_has_vxlan.then_some(Dataplane::Kernel);
    let rival = against.map(|BenchRival::Ovs| Dataplane::Ovs);
    kernel
        .into_iter()
        .chain([Dataplane::SilkVtep])
        .chain(rival)
        .collect()
}

/// Whether this kernel has a VXLAN device: tried in a namespace of its own.
///
/// # Errors
/// If the kernel refuses for another reason than not having it.
pub(super) fn kernel_has_vxlan() -> Result<bool, SetupError> {
    let mut scratch = Scratch::claim("bench")?;
    let probe: NamedNamespace = scratch.namespace("probe")?;
    let made = Netlink::open_in(&probe)?.create_vxlan(&kernel_vtep::spec(PLAN_A));
    is_supported(made).map_err(|error| error.setup("create VXLAN device in", probe.label()))
}

/// EOPNOTSUPP: there is no such kind of link (`rtnl_newlink`), nor a module that has it.
fn is_supported(made: Result<(), NetlinkError>) -> Result<bool, NetlinkError> {
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> NetlinkError {
        NetlinkError::Refused {
            request: "RTM_NEWLINK",
            errno,
            explanation: String::new(),
        }
    }

    #[test]
    fn a_kernel_without_vxlan_is_told_from_one_that_refuses() {
        assert_eq!(is_supported(Ok(())), Ok(true));
        assert_eq!(is_supported(Err(refused(Errno::EOPNOTSUPP))), Ok(false));
        let denied = refused(Errno::EPERM);
        assert_eq!(is_supported(Err(denied.clone())), Err(denied));
    }

    #[test]
    fn without_the_kernels_device_we_are_measured_all_the_same() {
        use Dataplane::{Kernel, Ovs, SilkVtep};
        assert_eq!(chosen(true, None), [Kernel, SilkVtep]);
        assert_eq!(chosen(false, None), [SilkVtep]);
        assert_eq!(chosen(false, Some(BenchRival::Ovs)), [SilkVtep, Ovs]);
        assert_eq!(chosen(true, Some(BenchRival::Ovs)), [Kernel, SilkVtep, Ovs]);
    }
}
