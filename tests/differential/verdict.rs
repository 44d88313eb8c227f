//! What is expected of replay and of our daemon alike, for each line of the tables that replay can play: the file `verdicts.txt`.
//!
//! Replay's verdicts are held against it without root ([`replay`](super::replay)). Where there is root, so is what came out of our daemon
//! for the same line, and the drops that it counted ([`shared`](super::shared)): the file cannot be wrong unnoticed. The host's reasons
//! (`host-`) nobody counts by these names: of such a line it is checked that nothing came out and the daemon counted nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::case::Direction;
use super::side::Observation;
use crate::support::{Result, ensure};

/// A line for each row that replay can play: its name, and its packets' verdicts with commas between, drops with their reason.
const FILE: &str = include_str!("verdicts.txt");

/// By the rows' names.
static EXPECTED: LazyLock<BTreeMap<&str, &str>> = LazyLock::new(|| {
    FILE.lines()
        .filter_map(|line| line.split_once(' '))
        .collect()
});

/// Drops by reason, as the daemon counts them.
pub(crate) type Drops = BTreeMap<String, u64>;

/// All of them.
pub(crate) fn expected() -> &'static BTreeMap<&'static str, &'static str> {
    &EXPECTED
}

/// Whether our daemon did, and counted, what is expected of the row; true of one that nothing is expected of.
///
/// # Errors
/// What differs.
pub(crate) fn check(
    name: &str,
    direction: Direction,
    seen: &Observation,
    drops: &Drops,
) -> Result<bool> {
    let Some(verdicts) = EXPECTED.get(name) else {
        return Ok(false);
    };
    let count = |verdict: &str| verdicts.split(", ").filter(|v| *v == verdict).count();
    let (underlay, overlay) = (seen.underlay.len(), seen.overlay.len());
    let is_so = match direction {
        // A super-frame leaves in several packets.
        Direction::Transmit => (underlay > 0) == (count("encap") > 0) && overlay == count("reply"),
        Direction::Receive => underlay == count("reply") && overlay == count("deliver"),
    };
    ensure!(
        is_so,
        "verdicts.txt says {verdicts}, but {underlay} packets came out on the underlay and {overlay} on the device"
    );
    let told = reasons_of_daemon(verdicts);
    ensure!(
        told == *drops,
        "verdicts.txt says {verdicts}, but the daemon counted {drops:?}"
    );
    Ok(true)
}

/// What the daemon counts of these verdicts: the host's drops never reach it.
fn reasons_of_daemon(verdicts: &str) -> Drops {
    let reasons = verdicts.split(", ").filter_map(|v| v.strip_prefix("drop "));
    let mut drops = Drops::new();
    for reason in reasons.filter(|reason| !reason.starts_with("host-")) {
        *drops.entry(reason.to_owned()).or_default() += 1;
    }
    drops
}
