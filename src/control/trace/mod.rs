//! `trace`: one imagined packet walked through the tables that run, each decision with the table line that made it.
//!
//! The verdict is the core's own, asked with the packet's bytes ([`vtep::egress`](crate::vtep::egress),
//! [`vtep::ingress`](crate::vtep::ingress)) under the snapshot that the lanes read. The steps before it are told in the order in which
//! the core judges, up to the one that a drop's reason belongs to, with what the tables' own look-ups give: nothing here decides anything.

mod inward;
mod outward;
mod packet;
mod stage;
mod view;

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use packet::TraceRequest;
pub use stage::Stage;
pub(in crate::control) use view::View;

pub use crate::tables::policy::Proto;

use super::Verdict;
use super::policy::PolicyRow;
use super::protocol::Failure;
use super::rows::{FdbRow, GroupRow, NeighRow, PeerRow, RouteRow};
use crate::drop_reason::DropReason;
use crate::io::MarkTags;
use crate::wire::Mark;

/// What decides beside the tables how the lanes send.
#[derive(Clone, Debug)]
pub struct Sending {
    /// The ports that flows are spread over, the same in every lane.
    pub source_ports: Vec<u16>,
    /// The TAP's MTU.
    pub mtu_bytes: u32,
    /// Whether marks cross the TAP now.
    pub mark_tags: Arc<MarkTags>,
}

/// One packet's walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The device.
    pub ifname: String,
    /// From the first decision to the last.
    pub steps: Vec<Step>,
    /// What they come to.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// And over which way.
    #[serde(flatten)]
    pub way: Way,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub step: Stage,
    /// What was decided, for a person.
    pub says: String,
    /// The table lines that decided it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    /// Why the walk ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A line of a table, as `show` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Of `route show`.
    Route(RouteRow),
    /// Of `neigh show`.
    Neigh(NeighRow),
    /// Of `fdb show`.
    Fdb(FdbRow),
    /// Of `peer show`.
    Peer(PeerRow),
    /// Of `group show`.
    Group(GroupRow),
    /// Of `policy show`.
    Policy(PolicyRow),
}

/// Its way on the underlay; keys that do not apply are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// To whom it goes, or who it is from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub underlay: Vec<IpAddr>,
    /// Outer UDP source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Outer TTL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Outer TOS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Outer DF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<bool>,
}

/// Walks the packet.
///
/// # Errors
/// It cannot be imagined: the request contradicts itself or the device.
pub(in crate::control) fn trace(view: &View<'_>, request: &TraceRequest) -> Result<Trace, Failure> {
    let (src, dst) = (request.src, request.dst);
    walk(view, request).map_err(|cause| Failure::new(format!("trace {src} -> {dst}: {cause}")))
}

fn walk(view: &View<'_>, request: &TraceRequest) -> Result<Trace, Failure> {
    request.check().map_err(Failure::new)?;
    if request.ingress {
        inward::walk(view, request)
    } else {
        outward::walk(view, request)
    }
}

/// The steps so far, and the reason that one of them will turn out to have.
struct Walk {
    steps: Vec<Step>,
    reason: Option<DropReason>,
    ended: bool,
}

impl Walk {
    fn new(reason: Option<DropReason>) -> Self {
        Self {
            steps: Vec::new(),
            reason,
            ended: false,
        }
    }

    /// The next step, unless the walk has ended: with the reason, if it is of this stage.
    fn step(&mut self, stage: Stage, tell: impl FnOnce() -> (String, Vec<Line>)) {
        if self.ended {
            return;
        }
        let (says, lines) = tell();
        let reason = self
            .reason
            .filter(|reason| Stage::of(*reason) == Some(stage));
        self.ended = reason.is_some();
        self.steps.push(Step {
            step: stage,
            says,
            lines,
            reason: reason.map(|reason| reason.name().to_owned()),
        });
    }
}

/// `group 0x0003 D 0 A 0`, as a header has them.
fn header_words(mark: Option<Mark>) -> String {
    match mark {
        None | Some(Mark::NONE) => "no group".to_owned(),
        Some(mark) => {
            let [d, a] = [mark.is_dont_learn(), mark.is_policy_applied()].map(u8::from);
            format!("group {} D {d} A {a}", mark.group())
        }
    }
}

#[cfg(test)]
mod tests;
