//! What one packet meets: the kernel's route on either side, and what the daemons' `trace` says of it.

use std::fmt::Display;
use std::net::IpAddr;

use super::DemoError;
use super::kernel::Kernel;
use crate::cli::lab::ground::VTEP_LINK;
use crate::cli::lab::site::Cell;
use crate::cli::trace;
use crate::control::Client;
use crate::control::protocol::Request;
use crate::control::trace::{Trace, TraceRequest};
use crate::error::SetupError;
use crate::netlink::container;
use crate::vtep::Fate;

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

    let packet = packet(from, to);
    let trace = asker.trace("the daemon: its tables, line by line", "", packet)?;
    let underlay = IpAddr::from(to.place.plan.underlay);
    if trace.verdict.fate != Fate::Encap || trace.way.underlay != [underlay] {
        return Err(astray(
            from,
            format_args!("the packet does not lead to {underlay}"),
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
    let packet = TraceRequest {
        ingress: true,
        mark: from.place.plan.group.map(u32::from),
        ..packet(from, to)
    };
    let group = from.place.plan.group;
    let words = group.map_or_else(String::new, |group| format!(" --group {group:#06x}"));
    let words = format!("{words} --ingress");
    let trace = asker.trace(
        "the daemon: who sends it, and may it say so",
        &words,
        packet,
    )?;
    if trace.verdict.fate != Fate::Deliver {
        return Err(astray(to, "the packet is not delivered"));
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

/// A ping of the container of `from` to that of `to`.
fn packet(from: &Cell, to: &Cell) -> TraceRequest {
    let [src, dst] = [from, to].map(|cell| IpAddr::from(cell.place.plan.container));
    TraceRequest::new(src, dst)
}

/// Asks one daemon and keeps the record.
struct Asker {
    client: Client,
    steps: Vec<Step>,
}

impl Asker {
    fn new(cell: &Cell) -> Result<Self, DemoError> {
        Ok(Self {
            client: cell.client()?,
            steps: Vec::new(),
        })
    }

    /// The walk of `packet`, as `silk-vtep trace` prints it; `words` are what is typed beside its addresses.
    fn trace(
        &mut self,
        why: &'static str,
        words: &str,
        packet: TraceRequest,
    ) -> Result<Trace, DemoError> {
        let (src, dst) = (packet.src, packet.dst);
        let trace: Trace = self.client.call(&Request::Trace(packet))?;
        let command = format!("silk-vtep trace --src {src} --dst {dst}{words}");
        self.note(why, command, trace::text(&trace));
        Ok(trace)
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
