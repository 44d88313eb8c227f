//! Packets for addresses of a cell's subnet that no container has: their sender hears of it from the host, and they go round nowhere.

use std::net::{IpAddr, Ipv4Addr};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Container, Daemon, Lab, Namespace, Plan, Result, Site, Stats, VTEP_NAME, Wait, ensure, ping,
    wait_until,
};

/// In the first cell's subnet, and nobody's.
const ABSENT: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 9);

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: &Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("absent::{name}"), plan.clone(), body)
    };
    let pair = Plan::of(&[Silk, Silk]).lanes(2);
    let v6 = pair.clone().overlay_v6();
    vec![
        case("a_local_container_hears_of_it", &pair, local_hears),
        case("a_remote_container_hears_of_it", &pair, remote_hears),
        case("a_remote_host_hears_of_it_over_ipv6", &v6, remote_hears_v6),
        case(
            "what_reaches_the_tap_is_counted_and_goes_round_nowhere",
            &pair,
            counted_at_the_tap,
        ),
        case(
            "nobody_speaks_with_an_absent_ones_address",
            &pair,
            nobody_speaks_as_an_absent_one,
        ),
        case(
            "a_container_that_nobody_registered_is_not_absent",
            &pair,
            unregistered_is_there,
        ),
    ]
}

fn local_hears(lab: &mut Lab) -> Result {
    let a = &lab.cells[0].container()?.namespace;
    hears(a, ABSENT.into(), "From 169.254.0.1 ", "Host Unreachable")?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(
        exchanged(&stats)? == (0, 0) && stats.drops()? == 0,
        "it reached the VTEP: {stats:?}"
    );
    Ok(())
}

/// The host's message comes from the VTEP's address and crosses the overlay as any packet.
fn remote_hears(lab: &mut Lab) -> Result {
    let from = format!("From {} ", lab.cells[0].site.vtep);
    let b = &lab.cells[1].container()?.namespace;
    hears(b, ABSENT.into(), &from, "Host Unreachable")?;
    both_exchanged_one(lab)
}

/// IPv6 has no "host unreachable"; for an unreachable route the kernel says "no route" (RFC 4443 section 3.1, code 0).
fn remote_hears_v6(lab: &mut Lab) -> Result {
    let vtep = lab.cells[0].site.vtep_v6();
    let absent = std::net::Ipv6Addr::from(u128::from(vtep) + 9);
    let from = format!("From {vtep} ");
    hears(&lab.cells[1].host, absent.into(), &from, "No route")?;
    both_exchanged_one(lab)
}

/// What else a VTEP sends is multicast, by which the kernel announces a device that has IPv6.
fn both_exchanged_one(lab: &mut Lab) -> Result {
    for cell in &mut lab.cells {
        exchanges_one(cell.daemon()?, |stats| stats.dropped("no-flood-entry"))?;
    }
    Ok(())
}

/// One packet each way, and drops as `expected` has them. A lane counts what it has sent or written, so that who hears of it may look
/// before.
fn exchanges_one(daemon: &Daemon, expected: impl Fn(&Stats) -> u64) -> Result {
    wait_until("one packet each way is counted", || {
        let stats = Stats::read(daemon)?;
        let holds = exchanged(&stats)? == (1, 1) && stats.drops()? == expected(&stats);
        Ok(Wait::unless(holds, || format!("{stats:?}")))
    })
}

/// A rule that comes before the host's own routes leads such packets to the TAP all the same.
fn counted_at_the_tap(lab: &mut Lab) -> Result {
    let host = &lab.cells[0].host;
    host.ip(&format!(
        "route add {ABSENT} via 169.254.0.2 dev {VTEP_NAME} onlink table 100"
    ))?;
    host.ip(&format!("rule add to {ABSENT} lookup 100"))?;
    for (cell, count) in [(0, 1), (1, 2)] {
        let said = ping_once(&lab.cells[cell].container()?.namespace, ABSENT.into(), "")?;
        ensure!(said.contains("0 received"), "somebody answered:\n{said}");
        let stats = Stats::read(lab.cells[0].daemon()?)?;
        ensure!(
            stats.dropped("absent-container") == count && stats.drops()? == count,
            "not {count} drops: {stats:?}"
        );
    }
    let (sent, received) = exchanged(&Stats::read(lab.cells[0].daemon()?)?)?;
    ensure!(
        (sent, received) == (0, 1),
        "it sent {sent} and received {received}"
    );
    Ok(())
}

/// The kernel looks at each container's link (rp_filter, which `container add` sets): the VTEP sees only that a packet is of this cell.
fn nobody_speaks_as_an_absent_one(lab: &mut Lab) -> Result {
    let to = IpAddr::from(lab.cells[1].container()?.address);
    let a = &lab.cells[0].container()?.namespace;
    a.ip(&format!("addr add {ABSENT}/32 dev eth0"))?;
    let said = ping_once(a, to, &format!("-I {ABSENT}"))?;
    ensure!(said.contains("0 received"), "somebody answered:\n{said}");
    ping(a, to, 1, "")?;
    // No more than the ping of its own address reached the VTEP.
    exchanges_one(lab.cells[0].daemon()?, |_| 0)
}

fn unregistered_is_there(lab: &mut Lab) -> Result {
    let site = Site {
        container: ABSENT,
        ..lab.cells[0].site
    };
    let by_hand = Container::by_hand(&lab.cells[0].host, &site, lab.cells[0].mtu()?)?;
    let registered = lab.cells[0].daemon()?.ctl("container list")?;
    ensure!(
        !registered.contains(&ABSENT.to_string()),
        "somebody registered it:\n{registered}"
    );
    let b = lab.cells[1].container()?;
    ping(&b.namespace, by_hand.address, 3, "")?;
    ping(&by_hand.namespace, b.address, 3, "")?;
    ping(&by_hand.namespace, lab.cells[0].container()?.address, 3, "")
}

fn hears(from: &Namespace, to: IpAddr, who: &str, what: &str) -> Result {
    let said = ping_once(from, to, "")?;
    let told = said
        .lines()
        .any(|line| line.contains(who) && line.contains(what));
    ensure!(told, "no word of {who:?} that {what:?}:\n{said}");
    Ok(())
}

/// What ping says of one packet that nobody answers. A second would be told of no sooner than icmp_ratelimit allows.
fn ping_once(from: &Namespace, to: IpAddr, arguments: &str) -> Result<String> {
    let words = format!("-n -c 1 -W 1 {arguments} {to}");
    let output = from
        .command("ping")
        .args(words.split_whitespace())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Packets sent to the underlay and delivered from it.
fn exchanged(stats: &Stats) -> Result<(u64, u64)> {
    let lanes = stats.lanes()?;
    Ok(lanes
        .into_iter()
        .fold((0, 0), |(tx, rx), (t, r)| (tx + t, rx + r)))
}
