//! Group policy as `policy show`, `policy denied`, `stats` and `link show` tell it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::directory::Held;
use super::{Entry, Origin};
use crate::io::flows::{FlowCounts, Moment};
use crate::io::{DeniedFlow, Guard};
use crate::tables::policy::{Action, Ports, Proto, Regime};
use crate::wire::GroupId;
use crate::wire::ip::protocol;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The destinations.
    pub dst: IpNet,
    /// Who speaks.
    pub group: GroupId,
    /// The protocol.
    pub proto: Proto,
    /// The destination ports; absent: all.
    #[serde(default, skip_serializing_if = "Ports::is_all")]
    pub ports: Ports,
    /// What becomes of what matches.
    pub action: Action,
    /// Where it came from.
    pub origin: Origin,
}

impl PolicyRow {
    /// `None` if the entry is no rule.
    pub(super) fn new(held: &Held) -> Option<Self> {
        let Entry::Policy {
            dst,
            group,
            proto,
            ports,
            action,
        } = held.entry
        else {
            return None;
        };
        Some(Self {
            dst,
            group,
            proto,
            ports,
            action,
            origin: held.owner.origin(),
        })
    }
}

/// Who was refused, and at whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedReport {
    /// By destination and group.
    pub rows: Vec<DeniedRow>,
    /// Packets of rows that made room for others.
    pub forgotten: u64,
    /// How policy is enforced now, as in `link show`; `off`: whoever is in the rows was refused before.
    #[serde(default)]
    pub policy: String,
}

/// What one group was refused at one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedRow {
    /// To whom.
    pub dst: IpAddr,
    /// Who spoke; 0: nobody was named.
    pub group: GroupId,
    /// How many packets.
    pub packets: u64,
    /// The latest one's sender.
    pub src: IpAddr,
    /// Its protocol: `tcp`, `udp`, `icmp` or a number; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// Its destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How long ago it came.
    pub seconds_ago: u32,
}

impl DeniedReport {
    pub(super) fn new(guard: &Guard, now: Moment, regime: Option<&Regime>) -> Self {
        let rows = guard.denied.rows();
        Self {
            rows: rows.iter().map(|row| DeniedRow::new(row, now)).collect(),
            forgotten: guard.denied.forgotten(),
            policy: told(regime),
        }
    }
}

impl DeniedRow {
    fn new(row: &DeniedFlow, now: Moment) -> Self {
        let proto = row.latest.protocol.map(|number| match number {
            protocol::TCP => Proto::Tcp.name().to_owned(),
            protocol::UDP => Proto::Udp.name().to_owned(),
            protocol::ICMP | protocol::ICMPV6 => Proto::Icmp.name().to_owned(),
            other => other.to_string(),
        });
        Self {
            dst: row.destination,
            group: row.group,
            packets: row.packets,
            src: row.latest.source,
            proto,
            port: row.latest.ports().map(|(_, port)| port),
            seconds_ago: now.seconds().saturating_sub(row.seen.seconds()),
        }
    }
}

/// The flow table, where a policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStats {
    /// Entries at the most.
    pub size: usize,
    /// Entries in use: flows that began here, and fragmented packets on their way in.
    pub entries: usize,
    /// Of these, answered and not closed.
    pub established: usize,
    /// Entries that made room for others.
    pub evicted: u64,
    /// Of these, established ones.
    pub evicted_established: u64,
}

impl From<FlowCounts> for FlowStats {
    fn from(counts: FlowCounts) -> Self {
        let FlowCounts {
            size,
            entries,
            established,
            evicted,
            evicted_established,
        } = counts;
        Self {
            size,
            entries,
            established,
            evicted,
            evicted_established,
        }
    }
}

/// How policy is enforced, for `link show` and others.
pub(super) fn told(regime: Option<&Regime>) -> String {
    let Some(regime) = regime else {
        return "off".to_owned();
    };
    let mut told = match regime.default {
        Action::Deny => "default deny".to_owned(),
        Action::Accept => "default allow".to_owned(),
    };
    if let Some(mark) = regime.router_mark {
        told.push_str(&format!(" router_mark {:#010x}", mark.0));
    }
    if regime.honour_applied {
        told.push_str(" honour_applied");
    }
    told.push_str(if regime.reject { " reject" } else { " drop" });
    told
}
