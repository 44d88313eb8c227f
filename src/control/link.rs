//! The device as the kernel and the daemon see it: what `link show` prints beside the configuration.

use std::collections::BTreeMap;

use crate::error::SetupError;
use crate::wire::MacAddr;

/// Asks for the facts afresh at every `link show`, since others change the device too.
pub type LinkSource = Box<dyn Fn() -> Result<LinkFacts, SetupError> + Send + Sync>;

/// What only the kernel and the lanes know of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The TAP's index.
    pub ifindex: u32,
    /// As iproute2 names them, in its order: `BROADCAST`, `UP`, `LOWER_UP`.
    pub flags: Vec<String>,
    /// The TAP's MTU in bytes.
    pub mtu_bytes: u32,
    /// Queueing discipline: `mq`, `fq_codel`.
    pub qdisc: String,
    /// Operational state: `UNKNOWN`, `DOWN`.
    pub operstate: String,
    /// The MAC the TAP has now.
    pub address: MacAddr,
    /// The device that holds the local underlay address, where one does.
    pub underlay_device: Option<String>,
    /// Source ports in use: [low, high).
    pub source_ports: (u16, u16),
    /// Where the mark of a packet comes from.
    pub marks: MarksFact,
    /// Each kernel feature that was probed, by name, and its state for a person: `"udp-gso": "on"`.
    pub features: BTreeMap<String, String>,
}

/// Where the mark of a packet comes from, and so its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarksFact {
    /// `bpf`, `table` or `off`.
    pub from: &'static str,
    /// Why from there, and how it stands, for a person.
    pub why: String,
    /// What may keep marks from being carried, and the mend.
    pub trouble: Option<String>,
}
