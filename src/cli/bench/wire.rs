//! The underlay's veth pair as two kinds of wire.

use serde::Serialize;

use super::offloads;
use crate::cli::args::BenchWire;
use crate::cli::lab::ground::{Place, UNDERLAY_LINK};
use crate::error::SetupError;

/// How large the pieces are that the underlay passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wire {
    /// A veth pair as it comes: what was not segmented by then never is, as between containers of one host.
    Super,
    /// Every packet within the MTU, and the receiver merges them (GRO), as between two hosts whose cards do no
    /// segmentation for tunnels.
    Mtu,
}

/// What `ethtool -K eth0 tso off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off tx-udp-segmentation off
/// gro on` switches; `tso` stands for the four of TCP (NETIF_F_ALL_TSO). veth runs GRO only where the sender has no TSO.
const MTU_FEATURES: [(&str, bool); 8] = [
    ("tx-tcp-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-udp_tnl-segmentation", false),
    ("tx-udp_tnl-csum-segmentation", false),
    ("tx-udp-segmentation", false),
    ("rx-gro", true),
];

impl From<BenchWire> for Wire {
    fn from(wire: BenchWire) -> Self {
        match wire {
            BenchWire::Super => Self::Super,
            BenchWire::Mtu => Self::Mtu,
        }
    }
}

impl Wire {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Super, Self::Mtu];

    /// As it is called in tables and JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Super => "super",
            Self::Mtu => "mtu",
        }
    }

    /// What it is, for people.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Super => "veth as it comes: super-frames pass whole",
            Self::Mtu => "every packet within the MTU: segmentation offloads off, GRO on",
        }
    }

    /// Makes the veth pair between the cells such a wire.
    ///
    /// # Errors
    /// If the kernel lacks one of the features or does not switch it.
    pub(super) fn apply(self, places: &[Place; 2]) -> Result<(), SetupError> {
        match self {
            Self::Super => Ok(()),
            Self::Mtu => places
                .iter()
                .try_for_each(|place| offloads::set(&place.host, UNDERLAY_LINK, &MTU_FEATURES)),
        }
    }
}
