//! The table lines that one packet meets, asked of the running daemons, each question following from the answer before.

use std::fmt::Display;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use super::DemoError;
use super::kernel::Kernel;
use crate::cli::lab::ground::VTEP_LINK;
use crate::cli::lab::site::Cell;
use crate::cli::print;
use crate::control::Client;
use crate::control::protocol::{Request, Show};
use crate::control::rows::{FdbRow, GroupRow, NeighRow, PeerRow, RouteRow};
use crate::error::SetupError;
use crate::netlink::container;

/// One question, as it would be typed, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What the packet is in want of.
    pub(super) why: &'static str,
    /// The command.
    pub(super) command: String,
    /// What it prints.
    pub(super) answer: String,
}

/// What a packet from the container of `from` meets on its way to that of `to`, on the side that sends.
///
/// # Errors
/// If a daemon does not answer, or its tables do not lead to `to`.
pub(super) fn outward(from: &Cell, to: &Cell) -> Result<Vec<Step>, DemoError> {
    let mut asker = Asker::new(from)?;
    let kernel = Kernel::of(&from.place.host)?.routes(Some(VTEP_LINK))?;
    asker.note(
        "the cell's kernel: one route for all other cells",
        format!("ip route show dev {VTEP_LINK}"),
        kernel,
    );

    let destination = IpAddr::from(to.place.plan.container);
    let found: RouteRow = asker.client.call(&Request::RouteGet(destination))?;
    let Some(prefix) = found.matched else {
        return Err(astray(
            from,
            format_args!("route get {destination}: no prefix"),
        ));
    };
    asker.note(
        "route: the one that takes this address",
        format!("silk-vtep route get {destination}"),
        print::route(&found),
    );
    let route: RouteRow = asker.ask(
        "route: the longest prefix that matches",
        "route",
        prefix,
        Show::Route(Some(prefix)),
        print::route,
    )?;
    let via = route.gateway.unwrap_or(destination);
    let neigh: NeighRow = asker.ask(
        "neighbour: the inner destination MAC",
        "neigh",
        via,
        Show::Neigh(Some(via)),
        print::neigh,
    )?;
    let mac = neigh.lladdr;
    let fdb: FdbRow = asker.ask(
        "FDB: the underlay address",
        "fdb",
        mac,
        Show::Fdb(Some(mac)),
        print::fdb,
    )?;
    let source = IpAddr::from(from.place.plan.container);
    let one = |row: &GroupRow| print::groups(std::slice::from_ref(row));
    let _: GroupRow = asker.ask(
        "group: who is speaking",
        "group",
        source,
        Show::Group(Some(source)),
        one,
    )?;
    if fdb.dst != IpAddr::from(to.place.plan.underlay) {
        return Err(astray(
            from,
            format_args!(
                "{destination} leads to {}, not {}",
                fdb.dst, to.place.plan.underlay
            ),
        ));
    }
    Ok(asker.steps)
}

/// What the same packet meets on the side that receives.
///
/// # Errors
/// As [`outward`].
pub(super) fn inward(from: &Cell, to: &Cell) -> Result<Vec<Step>, DemoError> {
    let mut asker = Asker::new(to)?;
    let sender = IpAddr::from(from.place.plan.underlay);
    let one = |row: &PeerRow| print::peers(std::slice::from_ref(row));
    let why = "peer: the sender is known, and the inner source is of its subnet";
    let peer: PeerRow = asker.ask(why, "peer", sender, Show::Peer(Some(sender)), one)?;
    let source = IpAddr::from(from.place.plan.container);
    if !peer.subnets.iter().any(|subnet| subnet.contains(&source)) {
        return Err(astray(to, format_args!("{source} is not behind {sender}")));
    }
    let host_link = container::host_name(to.place.plan.container);
    let kernel = Kernel::of(&to.place.host)?.routes(Some(&host_link))?;
    asker.note(
        "the cell's kernel: on to the container",
        format!("ip route show dev {host_link}"),
        kernel,
    );
    Ok(asker.steps)
}

/// Asks one daemon and keeps the record.
struct Asker<'a> {
    cell: &'a Cell,
    client: Client,
    steps: Vec<Step>,
}

impl<'a> Asker<'a> {
    fn new(cell: &'a Cell) -> Result<Self, DemoError> {
        Ok(Self {
            cell,
            client: cell.client()?,
            steps: Vec::new(),
        })
    }

    /// The one row that `show` names.
    fn ask<T: DeserializeOwned>(
        &mut self,
        why: &'static str,
        table: &str,
        key: impl Display,
        show: Show,
        line: impl Fn(&T) -> String,
    ) -> Result<T, DemoError> {
        let rows: Vec<T> = self.client.call(&Request::Show(show))?;
        let Some(row) = rows.into_iter().next() else {
            return Err(astray(
                self.cell,
                format_args!("{table} show {key}: nothing there"),
            ));
        };
        self.note(why, format!("silk-vtep {table} show {key}"), line(&row));
        Ok(row)
    }

    fn note(&mut self, why: &'static str, command: String, answer: String) {
        self.steps.push(Step {
            why,
            command,
            answer,
        });
    }
}

fn astray(cell: &Cell, cause: impl Display) -> DemoError {
    SetupError::new(
        "walk the tables of",
        format!("cell {}", cell.place.plan.name),
        cause,
    )
    .into()
}
