//! What the daemon counts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Daemon, Result};

/// One reading of a daemon's counters.
#[derive(Debug)]
pub(crate) struct Stats(Value);

impl Stats {
    /// Reads them now.
    pub(crate) fn read(daemon: &Daemon) -> Result<Self> {
        Ok(Self(daemon.request(&json!("stats"))?))
    }

    /// All drops, whatever their reason.
    pub(crate) fn drops(&self) -> Result<u64> {
        sum(&self.0["total"]["drops"])
    }

    /// Drops, by reason.
    pub(crate) fn drops_by_reason(&self) -> Result<BTreeMap<String, u64>> {
        let drops = self.0["total"]["drops"].clone();
        Ok(serde_json::from_value(drops)?)
    }

    /// Drops of one reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.0["total"]["drops"][reason].as_u64().unwrap_or(0)
    }

    /// A count of the flow table, such as `evicted`.
    pub(crate) fn flows(&self, key: &str) -> Result<u64> {
        count(&self.0["flows"], key)
    }

    /// Packets that took the express path.
    pub(crate) fn express(&self) -> Result<u64> {
        count(&self.0["express"], "tx_packets")
    }

    /// Bytes sent, of inner frames.
    pub(crate) fn tx_bytes(&self) -> Result<u64> {
        count(&self.0["total"], "tx_bytes")
    }

    /// Bytes delivered.
    pub(crate) fn rx_bytes(&self) -> Result<u64> {
        count(&self.0["total"], "rx_bytes")
    }

    /// Frames whose checksum their sender left to a card.
    pub(crate) fn partial_checksums(&self) -> Result<u64> {
        count(&self.0["total"], "partial_checksums")
    }

    /// Per peer: packets sent to it, packets of it delivered, drops of both.
    pub(crate) fn peers(&self) -> Result<Vec<(u64, u64, u64)>> {
        let peers = self.0["peers"].as_array();
        let peers = peers.ok_or_else(|| format!("no peers in {}", self.0))?;
        let each = peers.iter().map(|peer| {
            let (tx, rx) = (count(peer, "tx_packets")?, count(peer, "rx_packets")?);
            Ok((tx, rx, sum(&peer["drops"])?))
        });
        each.collect()
    }

    /// Drops of one peer's packets, by reason.
    pub(crate) fn peer_drops(&self, index: usize) -> Result<BTreeMap<String, u64>> {
        let drops = self.0["peers"][index]["drops"].clone();
        Ok(serde_json::from_value(drops)?)
    }

    /// Per lane: packets sent to the underlay, packets delivered.
    pub(crate) fn lanes(&self) -> Result<Vec<(u64, u64)>> {
        let lanes = self.0["lanes"]
            .as_array()
            .ok_or_else(|| format!("no lanes in {}", self.0))?;
        lanes
            .iter()
            .map(|lane| Ok((count(lane, "tx_packets")?, count(lane, "rx_packets")?)))
            .collect()
    }
}

fn sum(drops: &Value) -> Result<u64> {
    let reasons = drops
        .as_object()
        .ok_or_else(|| format!("no drops but {drops}"))?;
    Ok(reasons.values().filter_map(Value::as_u64).sum())
}

fn count(row: &Value, key: &str) -> Result<u64> {
    Ok(row[key]
        .as_u64()
        .ok_or_else(|| format!("no {key} in {row}"))?)
}
