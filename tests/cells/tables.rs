//! What a running daemon prints: line for line as iproute2 does.

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{Lab, Plan, Result, ensure};

/// A command, and all it prints in the first cell of two.
const PRINTED: [(&str, &str); 4] = [
    (
        "route show 10.255.43.0/24",
        "10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0",
    ),
    (
        "neigh show 10.255.43.0",
        "10.255.43.0 dev silk-vtep lladdr ee:ee:0a:ff:2b:00 PERMANENT",
    ),
    (
        "fdb show",
        "ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 self permanent",
    ),
    (
        "route get 10.255.43.6",
        "10.255.43.6 via 10.255.43.0 dev silk-vtep src 10.255.108.0",
    ),
];

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Silk]);
    vec![
        Case::new(
            "tables::a_peer_shows_as_its_three_entries",
            plan.clone(),
            a_peer_shows_as_three_entries,
        ),
        Case::new(
            "tables::the_device_shows_as_iproute2_shows_it",
            plan,
            the_device_shows,
        ),
    ]
}

fn a_peer_shows_as_three_entries(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    for (command, expected) in PRINTED {
        let printed = daemon.ctl(command)?;
        let first = printed.lines().next().unwrap_or_default().trim_end();
        ensure!(
            first == expected,
            "{command}:\n  printed  {first}\n  expected {expected}"
        );
    }
    Ok(())
}

/// The first two lines are iproute2's own about the same device; the third is the tunnel's.
fn the_device_shows(lab: &mut Lab) -> Result {
    let theirs = lab.cells[0].host.ip("link show silk-vtep")?;
    let ours = lab.cells[0].daemon()?.ctl("link show")?;
    // iproute2 ends the first line with the link's mode and group, which no tunnel has a say in.
    let head = |text: &str| text.split(" qdisc ").next().map(str::to_owned);
    ensure!(
        head(&ours) == head(&theirs),
        "ours:\n{ours}\niproute2's:\n{theirs}"
    );
    ensure!(
        ours.lines().nth(1) == theirs.lines().nth(1),
        "ours:\n{ours}\niproute2's:\n{theirs}"
    );
    let tunnel = ours.lines().nth(2).unwrap_or_default();
    for part in [
        "vxlan id 1 local 10.0.32.12 dev eth0",
        "dstport 4789",
        "nolearning",
        "gbp",
    ] {
        ensure!(tunnel.contains(part), "no {part:?} in {tunnel:?}");
    }
    Ok(())
}
