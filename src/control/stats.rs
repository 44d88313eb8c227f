//! The counters as `stats` shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::policy::FlowStats;
use crate::counters::{Counters, Totals};

/// A reading of all counters. Not a consistent cut: lanes go on counting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The device.
    pub ifname: String,
    /// All lanes together.
    pub total: Count,
    /// Each lane, in order.
    pub lanes: Vec<Count>,
    /// Each peer, by underlay address.
    pub peers: Vec<PeerStats>,
    /// The flows that began here, while a policy is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<FlowStats>,
    /// What the kernel forwarded by our decisions, where it may; part of what the first lane and the peers have sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub express: Option<ExpressStats>,
}

/// Packets that no lane saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpressStats {
    /// Frames sent to the underlay, each segment of a super-frame one.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

/// What was exchanged with one underlay address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// The address.
    pub underlay: IpAddr,
    /// The peer's subnets; empty for an FDB destination that is no peer.
    pub subnets: Vec<IpNet>,
    /// The host refuses to segment what goes to it: runs are sent one by one, and the host is asked again now and then.
    pub udp_gso_refused: bool,
    /// Packets to and from it.
    #[serde(flatten)]
    pub count: Count,
}

/// Packets and bytes each way. Bytes are those of the inner frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Frames sent to the underlay.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames delivered to the overlay.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// ARP and ND requests answered.
    pub replies: u64,
    /// Frames whose TCP or UDP checksum was taken for one that the peer left to a card.
    #[serde(default)]
    pub partial_checksums: u64,
    /// Drops by the name of their reason; reasons that did not occur are left out.
    pub drops: BTreeMap<String, u64>,
}

impl Count {
    /// All drops.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }

    /// What was counted since `before`; nothing, where a restart set a counter back.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let dropped_before = |name| before.drops.get(name).copied().unwrap_or(0);
        let drops = self
            .drops
            .iter()
            .map(|(name, n)| (name.clone(), n.saturating_sub(dropped_before(name))));
        Self {
            tx_packets: self.tx_packets.saturating_sub(before.tx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(before.tx_bytes),
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            rx_bytes: self.rx_bytes.saturating_sub(before.rx_bytes),
            replies: self.replies.saturating_sub(before.replies),
            partial_checksums: (self.partial_checksums).saturating_sub(before.partial_checksums),
            drops: drops.filter(|&(_, n)| n > 0).collect(),
        }
    }
}

impl From<Totals> for Count {
    fn from(totals: Totals) -> Self {
        Self {
            tx_packets: totals.tx_packets,
            tx_bytes: totals.tx_bytes,
            rx_packets: totals.rx_packets,
            rx_bytes: totals.rx_bytes,
            replies: totals.replies,
            partial_checksums: totals.partial_checksums,
            drops: totals
                .drops()
                .map(|(reason, n)| (reason.name().to_owned(), n))
                .collect(),
        }
    }
}

/// A reading of each lane.
pub(super) fn per_lane(counters: &Counters) -> Vec<Count> {
    (0..counters.lanes())
        .map(|lane| counters.lane(lane).totals().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DropReason;

    #[test]
    fn names_drops_and_leaves_out_what_did_not_occur() {
        let counters = Counters::new(2);
        counters.lane(1).count_drops(DropReason::NoRoute, 3);
        let lanes = per_lane(&counters);
        assert_eq!(lanes[0], Count::default());
        assert_eq!(lanes[1].drops, BTreeMap::from([("no-route".to_owned(), 3)]));
        assert_eq!(Count::from(counters.totals()).dropped(), 3);
    }
}
