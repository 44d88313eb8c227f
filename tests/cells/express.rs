//! `express = true`: what the kernel forwards by the daemon's decisions is what the daemon would have sent, and ends with them.

use std::thread;
use std::time::Duration;

use super::super::Case;
use super::capture::Running;
use super::marks;
use super::offload::{containers, features, streams_cross};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Connection, Lab, Plan, Result, Stats, VTEP_NAME, Wait, ensure, wait_until};

/// Enough for any flow to have become the kernel's.
const STREAM_BYTES: usize = 20_000_000;
/// A second's look at what did not happen.
const GLANCE: Duration = Duration::from_secs(1);

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        let plan = plan.vtep_lines("express = true");
        Case::new(format!("express::{name}"), plan, body)
    };
    let pair = || Plan::of(&[Silk, Silk]).lanes(2).marks("bpf");
    let marked = || pair().iptables();
    vec![
        case("streams_cross", pair(), all_take_it),
        case(
            "streams_cross_to_a_kernel_peer",
            Plan::of(&[Silk, Kernel]).marks("bpf"),
            all_take_it,
        ),
        case(
            "streams_cross_where_they_are_cut",
            pair().without_offloads(),
            all_take_it,
        ),
        case(
            "a_device_without_tunnel_segmentation_has_none_of_it",
            pair(),
            device_decides,
        ),
        case("silks_rules_hold", marked(), marks::silks_rules_hold),
        case("super_frames_keep_their_mark", marked(), |lab| {
            marks::super_frames_keep_their_mark(lab)?;
            took_it(lab)
        }),
        case("a_deleted_peer_gets_nothing_more", pair(), deleted_peer),
        case("a_capture_sees_every_packet", pair(), capture_sees_all),
        case("a_policy_sees_every_packet", pair(), policy_sees_all),
        case("every_byte_is_counted_once", pair(), bytes_are_counted),
        case("a_daemon_that_ends_leaves_nothing_of_it", pair(), ends),
        case(
            "a_killed_daemons_decisions_end_with_the_next_daemon",
            pair(),
            killed,
        ),
        case(
            "marks_by_the_table_do_without",
            pair().marks("table"),
            marks_by_the_table,
        ),
    ]
}

fn all_take_it(lab: &mut Lab) -> Result {
    let [a, b] = containers(lab)?;
    streams_cross([a, b])?;
    took_it(lab)
}

/// Nearly all of it: what was sent before a flow was handed over, and after a new generation, went through the lanes.
fn took_it(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    let stats = Stats::read(daemon)?;
    let (express, all) = (stats.express()?, stats.peers()?[0].0);
    ensure!(express > all / 2, "{express} of {all} took it: {stats:?}");
    ensure!(stats.drops()? == 0, "{stats:?}");
    let shown = features(daemon)?;
    ensure!(shown["express"] == "on", "shows {shown}");
    Ok(())
}

/// Whatever the device is told while flows are under way.
fn device_decides(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    for (state, goes_on) in [("off", false), ("on", true)] {
        let host = &lab.cells[0].host;
        host.exec(&format!("ethtool -K eth0 tx-udp_tnl-segmentation {state}"))?;
        wait_until("the daemon has seen it", || {
            let before = forwarded(lab)?;
            connection.upload(STREAM_BYTES / 10)?;
            let more = forwarded(lab)? - before;
            Ok(Wait::unless((more > 0) == goes_on, || {
                format!("{state}: {more} packets were forwarded")
            }))
        })?;
    }
    Ok(())
}

/// Packets the kernel has forwarded for the first cell.
fn forwarded(lab: &mut Lab) -> Result<u64> {
    Stats::read(lab.cells[0].daemon()?)?.express()
}

/// The first cell's flows are the kernel's; the connection is one of them.
fn established(lab: &mut Lab) -> Result<Connection> {
    let [a, b] = containers(lab)?;
    let connection = Connection::between(a, b, 1)?;
    connection.upload(STREAM_BYTES)?;
    ensure!(forwarded(lab)? > 0, "the kernel forwards nothing");
    Ok(connection)
}

fn deleted_peer(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    let there = lab.cells[1].site;
    let daemon = lab.cells[0].daemon()?;
    daemon.ctl(&format!("peer del {}", there.underlay_v4))?;
    let before = forwarded(lab)?;
    connection.write(b"into the void")?;
    thread::sleep(GLANCE);
    let after = forwarded(lab)?;
    ensure!(after == before, "{} packets more", after - before);
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("no-route") > 0, "{stats:?}");
    Ok(())
}

fn capture_sees_all(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    lab.cells.swap(0, 1);
    let running = Running::start(lab, "-s 100");
    lab.cells.swap(0, 1);
    let mut running = running?;
    let before = forwarded(lab)?;
    connection.upload(STREAM_BYTES / 10)?;
    let after = forwarded(lab)?;
    ensure!(after == before, "{} packets passed by", after - before);
    let shown = features(lab.cells[0].daemon()?)?;
    ensure!(shown["express"] == "off: a capture runs", "shows {shown}");
    running.end()?;
    wait_until("the kernel forwards again", || {
        connection.upload(STREAM_BYTES / 10)?;
        let again = forwarded(lab)?;
        Ok(Wait::unless(again > after, || "nothing".to_owned()))
    })
}

fn policy_sees_all(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    let daemon = lab.cells[0].daemon()?;
    let config = daemon.config()?;
    daemon.write_config(&format!("{config}\n[policy]\nenforce = true\n"))?;
    daemon.ctl("reload")?;
    let shown = features(daemon)?;
    ensure!(
        shown["express"] == "off: a policy is enforced",
        "shows {shown}"
    );
    let before = forwarded(lab)?;
    connection.upload(STREAM_BYTES / 10)?;
    let after = forwarded(lab)?;
    ensure!(after == before, "{} packets passed by", after - before);
    Ok(())
}

/// The lanes' bytes and the kernel's are those of all inner frames, whoever sent them: what the container's link took in.
fn bytes_are_counted(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    connection.download(STREAM_BYTES)?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    let there = Stats::read(lab.cells[1].daemon()?)?;
    for (from, to) in [(&stats, &there), (&there, &stats)] {
        let (sent, received) = (from.tx_bytes()?, to.rx_bytes()?);
        // A super-frame that the wire took whole has its headers once there.
        ensure!(
            sent >= received && received >= STREAM_BYTES as u64,
            "{sent} bytes sent, {received} received"
        );
        let headers = from.express()? * 66;
        ensure!(
            sent <= received + headers,
            "{sent} bytes sent, {received} received, {headers} of headers at the most"
        );
    }
    Ok(())
}

/// The TAP goes, and the programs and maps with it; a new daemon begins anew.
fn ends(lab: &mut Lab) -> Result {
    established(lab)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.terminate()?;
    let links = lab.cells[0].host.exec("ip -br link")?;
    ensure!(!links.contains(VTEP_NAME), "{links}");
    lab.cells[0].daemon()?.start()?;
    established(lab).map(drop)
}

/// The program stays with the TAP until the next daemon puts its own in its place, with maps of its own.
fn killed(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.kill9()?;
    daemon.start()?;
    ensure!(forwarded(lab)? == 0, "it counts what went before it");
    connection.upload(STREAM_BYTES)?;
    connection.download(STREAM_BYTES)?;
    took_it(lab)
}

fn marks_by_the_table(lab: &mut Lab) -> Result {
    let [a, b] = containers(lab)?;
    streams_cross([a, b])?;
    let shown = features(lab.cells[0].daemon()?)?;
    let told = shown["express"].as_str().unwrap_or_default();
    ensure!(told.starts_with("unsupported: "), "shows {shown}");
    Ok(())
}
