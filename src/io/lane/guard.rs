//! Group policy on a lane: flows noted on their way out, what the rules refuse held against them, and what becomes of the refused.

use std::net::IpAddr;
use std::time::Instant;

use super::Scope;
use crate::DropReason;
use crate::io::Guard;
use crate::io::flows::Moment;
use crate::tables::{Policy, Tables};
use crate::vtep::{Deliver, Egress, Subject};
use crate::wire::ip::protocol;
use crate::wire::{GroupId, Mark};

/// A policy that is enforced, for the time of a batch.
#[derive(Clone, Copy)]
pub(super) struct Guarded<'a> {
    policy: &'a Policy,
    guard: &'a Guard,
    /// The clock is read once a batch.
    now: Instant,
    moment: Moment,
}

impl<'a> Guarded<'a> {
    /// `None` if the snapshot has no policy.
    pub(super) fn by(tables: &'a Tables, guard: &'a Guard) -> Option<Self> {
        let policy = tables.policy.as_deref()?;
        let now = Instant::now();
        Some(Self {
            policy,
            guard,
            now,
            moment: guard.flows.moment(now),
        })
    }

    /// A frame of the host was judged: if it goes out, its flow may be answered.
    pub(super) fn note(&self, frame: &[u8], verdict: &Egress<'_>) {
        match verdict {
            Egress::Encap(_) | Egress::Fragment { .. } => {}
            Egress::Reply(_) | Egress::TooBig(_) | Egress::Drop(_) => return,
        }
        self.guard.flows.note_frame(frame, self.moment);
    }

    /// Whether a packet that the rules refuse is part of a flow that began here.
    pub(super) fn admits(&self, subject: Option<&Subject>) -> bool {
        self.guard.flows.admits_packet(subject, self.moment)
    }

    /// A frame goes to the host: if it is a packet's first fragment, the others are to follow it.
    pub(super) fn note_fragments(&self, frame: &[u8]) {
        self.guard.flows.note_let_in(frame, self.moment);
    }

    /// Counts what was refused and tells the log. Returns who may be told too, and the time.
    pub(super) fn refuse(
        &self,
        deliver: &Deliver<'_>,
        subject: Option<&Subject>,
        scope: &Scope<'_>,
    ) -> Option<(IpAddr, Instant)> {
        scope.count_drop(deliver.peer, DropReason::PolicyDenied);
        let subject = subject?;
        let group = deliver.mark.map_or(GroupId(0), Mark::group);
        self.guard.denied.count(group, subject, self.moment);
        let regime = self.policy.regime();
        let untold = (self.guard.log).allow(self.moment, regime.log_per_second);
        if let Some(untold) = untold {
            tell_log(group, subject, untold);
        }
        let is_unknown = subject.is_under_way() && self.guard.may_have_missed(self.moment);
        let is_told = regime.reject && subject.may_be_told() && !is_unknown;
        is_told.then_some((subject.source, self.now))
    }
}

/// One line, at a bounded rate.
fn tell_log(group: GroupId, subject: &Subject, untold: u64) {
    let Subject {
        source,
        destination,
        ..
    } = subject;
    let protocol = match subject.protocol {
        Some(protocol::TCP) => "tcp".to_owned(),
        Some(protocol::UDP) => "udp".to_owned(),
        Some(protocol::ICMP | protocol::ICMPV6) => "icmp".to_owned(),
        Some(other) => format!("protocol {other}"),
        None => "an unreadable packet".to_owned(),
    };
    let ports = subject
        .ports()
        .map_or_else(String::new, |(from, to)| format!(" ports {from} to {to}"));
    let untold = match untold {
        0 => String::new(),
        n => format!(" ({n} more since the last line)"),
    };
    tracing::warn!(
        "policy-denied: group {group} {source} to {destination} {protocol}{ports}{untold}"
    );
}
