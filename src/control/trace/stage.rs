//! The decisions of a walk, and which of them each drop reason belongs to.

use serde::{Deserialize, Serialize};

use crate::drop_reason::DropReason;

/// A decision, in the order in which the core comes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// What is imagined.
    Packet,
    /// Whether it is for this cell itself.
    Destination,
    /// The longest prefix.
    Route,
    /// The next hop's MAC.
    Neigh,
    /// Where that MAC is.
    Fdb,
    /// Who sends from there.
    Peer,
    /// The VXLAN header.
    Header,
    /// Whether the source may say so.
    Source,
    /// Who is speaking.
    Group,
    /// Whether the group may speak to the destination.
    Policy,
    /// The outer header.
    Outer,
    /// Whether it fits.
    Mtu,
    /// What the host gets.
    Delivery,
}

impl Stage {
    /// The name, as JSON has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Destination => "destination",
            Self::Route => "route",
            Self::Neigh => "neigh",
            Self::Fdb => "fdb",
            Self::Peer => "peer",
            Self::Header => "header",
            Self::Source => "source",
            Self::Group => "group",
            Self::Policy => "policy",
            Self::Outer => "outer",
            Self::Mtu => "mtu",
            Self::Delivery => "delivery",
        }
    }

    /// Where a packet dropped for `reason` gets to; `None` for what no whole packet of the kind that can be imagined comes to.
    pub(super) const fn of(reason: DropReason) -> Option<Self> {
        match reason {
            DropReason::AbsentContainer => Some(Self::Destination),
            DropReason::NoRoute => Some(Self::Route),
            DropReason::NoNeighbor => Some(Self::Neigh),
            DropReason::NoFdbEntry | DropReason::NoFloodEntry => Some(Self::Fdb),
            DropReason::SourceNotLocal
            | DropReason::SourceIsUnderlay
            | DropReason::OwnSourceMac
            | DropReason::OwnSourceAddress
            | DropReason::SourceNotPeers => Some(Self::Source),
            DropReason::PolicyDenied => Some(Self::Policy),
            DropReason::PathMtu | DropReason::PathBelowMinimum => Some(Self::Mtu),
            DropReason::UnknownPeer => Some(Self::Peer),
            DropReason::MissingVniFlag | DropReason::UnknownVni | DropReason::ReservedBits => {
                Some(Self::Header)
            }
            DropReason::ShortFrame
            | DropReason::TruncatedIp
            | DropReason::NotRoutable
            | DropReason::BadVnetHeader
            | DropReason::ForgedMark
            | DropReason::TooBig
            | DropReason::UnderlayBusy
            | DropReason::UnderlayUnreachable
            | DropReason::UnderlaySendFailed
            | DropReason::ShortDatagram
            | DropReason::TruncatedDatagram
            | DropReason::PathProbe
            | DropReason::ShortInnerFrame
            | DropReason::TruncatedInnerIp
            | DropReason::EcnCeNotEct
            | DropReason::ReceiveQueueFull
            | DropReason::TapDown
            | DropReason::TapRefused
            | DropReason::TapBusy => None,
        }
    }
}
