//! Two cells with a daemon and a container each.
//!
//! ```text
//! container-a          cell-a                                     cell-b          container-b
//! eth0 <--- veth ---> s-...  silk-vtep  eth0 <=== veth ===> eth0  silk-vtep  s-... <--- veth ---> eth0
//! ```

use super::LabError;
use super::configuration;
use super::daemon::Daemon;
use super::ground::{Place, VTEP_LINK};
use super::interrupt::Interrupt;
use super::scratch::Scratch;
use crate::cli::args::VtepSetting;
use crate::control::Client;
use crate::control::protocol::Request;
use crate::control::rows::LinkRow;
use crate::error::SetupError;
use crate::io::run_max_segs;
use crate::netlink::Netlink;

/// One cell, up and running. Dropped in this order: the daemon goes before its namespace.
#[derive(Debug)]
pub(in crate::cli) struct Cell {
    pub(in crate::cli) daemon: Daemon,
    pub(in crate::cli) place: Place,
}

/// Both cells. Everything is taken down when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Site {
    pub(in crate::cli) cells: [Cell; 2],
}

impl Site {
    /// Starts a daemon in both places, with `settings` in its `[vtep]`, and wires their containers, which can then speak
    /// to each other.
    ///
    /// # Errors
    /// The step that failed, or [`LabError::Interrupted`]; what was built until then is gone again.
    pub(in crate::cli) fn build(
        [a, b]: [Place; 2],
        scratch: &Scratch,
        settings: &[VtepSetting],
        interrupt: &Interrupt,
    ) -> Result<Self, LabError> {
        let (to_a, to_b) = (a.plan, b.plan);
        let start = |place: Place, peer| {
            let directory = scratch.directory(place.plan.name)?;
            let configuration = configuration::text(place.plan, peer, settings);
            let daemon = Daemon::start(place.plan, &configuration, &place.host, directory)?;
            Ok::<_, SetupError>(Cell { daemon, place })
        };
        let mut cells = [start(a, to_b)?, start(b, to_a)?];
        for cell in &mut cells {
            cell.daemon.wait_until_ready(interrupt)?;
            let link: LinkRow = cell.client()?.call(&Request::Link)?;
            let gso_max_segs = Some(run_max_segs(link.mtu));
            cell.place.add_container(link.mtu, gso_max_segs)?;
        }
        Ok(Self { cells })
    }

    /// Whether both daemons still run.
    ///
    /// # Errors
    /// The first that does not, with the last thing it said.
    pub(in crate::cli) fn check_daemons(&mut self) -> Result<(), SetupError> {
        self.cells
            .iter_mut()
            .try_for_each(|cell| cell.daemon.check())
    }

    /// Stops both daemons and takes everything down.
    ///
    /// # Errors
    /// The first daemon that did not end in order, or left its device behind. All is taken down nevertheless.
    pub(in crate::cli) fn close(self) -> Result<(), SetupError> {
        let [a, b] = self.cells.map(Cell::close);
        a.and(b)
    }
}

impl Cell {
    /// A connection to the daemon.
    ///
    /// # Errors
    /// If nobody listens.
    pub(in crate::cli) fn client(&self) -> Result<Client, SetupError> {
        self.daemon.client()
    }

    fn close(self) -> Result<(), SetupError> {
        self.daemon.stop()?;
        let label = self.place.host.label();
        let left = Netlink::open_in(&self.place.host)?.link_named(VTEP_LINK);
        match left.map_err(|error| error.setup("look up silk-vtep in", label))? {
            None => Ok(()),
            Some(_) => Err(SetupError::new(
                "stop",
                format!("daemon of cell {}", self.place.plan.name),
                "it left its TAP behind",
            )),
        }
    }
}
