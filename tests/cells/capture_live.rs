//! `capture` beside live traffic: its filters by peer and address, and a reader that does not read.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;

use etherparse::PacketBuilder;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::super::Case;
use super::capture::{Running, statistics};
use crate::support::Kind::Silk;
use crate::support::{
    Daemon, Lab, Plan, Result, Stats, Tunnel, Wait, ensure, ping, vtep_mac, wait_until,
};

const PINGS: u32 = 5;
/// An address on the underlay that no peer has.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 99, 99);
/// More small packets than a lane, a socket and a pipe hold.
const PACKETS: usize = 150_000;
/// On their way at once: fewer than the daemon's receive buffer holds.
const BURST: usize = 10_000;
/// What the daemon keeps for a lane's reader, and what the rest of it may come to need.
const GROWTH_BYTES_MAX: u64 = (8 + 4) << 20;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("capture_live::{name}"), plan, body)
    };
    vec![
        case(
            "a_filter_wants_a_peer_an_address_or_both",
            Plan::of(&[Silk, Silk, Silk]).programs(&["tshark"]),
            filters,
        ),
        case(
            "a_pipe_that_nobody_reads_costs_bounded_memory_and_no_packet",
            Plan::of(&[Silk, Silk]),
            pipe_that_nobody_reads,
        ),
    ]
}

/// The second cell hears both others and a stranger.
fn filters(lab: &mut Lab) -> Result {
    let [first, here, third] = [0, 1, 2].map(|index| lab.cells[index].site);
    let [one, other] = [first, third].map(|site| site.underlay_v4);
    let third_container = third.container;
    // As many as may run at once.
    let mut by_peer = Running::start(lab, &format!("--peer {one}"))?;
    let mut by_both = Running::start(lab, &format!("--peer {other} --address {third_container}"))?;
    let mut by_neither = Running::start(lab, &format!("--peer {one} --address {third_container}"))?;
    let mut by_stranger = Running::start(lab, &format!("--peer {STRANGER} --drops"))?;
    for cell in [0, 2] {
        let to = here.container;
        ping(&lab.cells[cell].container()?.namespace, to, PINGS, "")?;
        // From the third cell, and not from its container.
        ping(&lab.cells[cell].host, to, PINGS, "")?;
    }
    strangers_datagram(lab)?;
    for running in [
        &mut by_peer,
        &mut by_both,
        &mut by_neither,
        &mut by_stranger,
    ] {
        running.end()?;
    }

    let fields = ["frame.comment"];
    let requests_and_replies = |running: &Running, hosts: u32| -> Result<Vec<String>> {
        for kind in [8, 0] {
            let seen = running.fields(&format!("icmp.type == {kind}"), &fields)?;
            ensure!(
                seen.len() >= (hosts * PINGS) as usize,
                "{} of type {kind}",
                seen.len()
            );
        }
        running.fields("frame", &fields)
    };
    for (running, hosts, peer) in [(&by_peer, 2, one), (&by_both, 1, other)] {
        let comments = requests_and_replies(running, hosts)?;
        let is_of_peer = |comment: &String| {
            comment
                .split(' ')
                .any(|word| word == format!("peer={peer}"))
        };
        ensure!(comments.iter().all(is_of_peer), "of {peer}: {comments:#?}");
    }
    let others = format!("icmp && !(ip.addr == {third_container})");
    let others = by_both.fields(&others, &fields)?;
    ensure!(others.is_empty(), "not of {third_container}: {others:?}");
    let nobodys = by_neither.fields("frame", &fields)?;
    ensure!(nobodys.is_empty(), "of neither: {nobodys:?}");
    let strangers = by_stranger.fields("frame", &["frame.comment", "ip.src"])?;
    ensure!(
        strangers.len() == 1
            && strangers[0].contains("drop reason=unknown-peer direction=ingress")
            && strangers[0].contains(&STRANGER.to_string()),
        "{strangers:?}"
    );
    for running in [&by_neither, &by_stranger] {
        let said = running.stderr();
        ensure!(!said.contains("left out"), "{said}");
    }
    Ok(())
}

/// From the third cell's host to the second, as nobody's peer.
fn strangers_datagram(lab: &mut Lab) -> Result {
    let host = &lab.cells[2].host;
    host.ip(&format!("addr add {STRANGER}/16 dev eth0"))?;
    let socket = host.run(|| Ok(UdpSocket::bind((STRANGER, 0))?))?;
    let datagram = [&[0x08, 0, 0, 0, 0, 0, 1, 0][..], &[0; 60]].concat();
    socket.send_to(&datagram, (lab.cells[1].site.underlay_v4, 4789))?;
    let daemon = lab.cells[1].daemon()?;
    wait_until("the stranger's datagram is counted", || {
        let dropped = Stats::read(daemon)?.dropped("unknown-peer");
        Ok(Wait::unless(dropped == 1, || dropped.to_string()))
    })
}

fn pipe_that_nobody_reads(lab: &mut Lab) -> Result {
    let directory = TempDir::new()?;
    let (pipe, errors) = (
        directory.path().join("pipe"),
        directory.path().join("stderr"),
    );
    mkfifo(&pipe, Mode::S_IRWXU)?;
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)?;
    let tunnel = Tunnel::between(&lab.cells[0], &lab.cells[1])?;
    let frame = spoofed(lab)?;
    let daemon = lab.cells[1].daemon()?;
    // What it needs for any traffic, it has then.
    burst(&tunnel, &frame, daemon, BURST)?;
    let resident = daemon.process()?.resident_bytes()?;
    let words = format!("capture -w {}", pipe.display());
    let mut capture = daemon.start_ctl(&words, &errors)?;
    // Its head says that it runs.
    let mut written = Vec::new();
    wait_until("the capture runs", || {
        read_what_is_there(&mut reader, &mut written)?;
        Ok(Wait::unless(!written.is_empty(), || "no head".into()))
    })?;
    // And now nobody reads.
    for sent in (2 * BURST..=BURST + PACKETS).step_by(BURST) {
        burst(&tunnel, &frame, daemon, sent)?;
    }
    let grown = daemon.process()?.resident_bytes()?.saturating_sub(resident);
    ensure!(
        grown <= GROWTH_BYTES_MAX,
        "{grown} bytes more than {resident}"
    );
    let [a, b] = [lab.cells[0].container()?, lab.cells[1].container()?];
    ping(&a.namespace, b.address, PINGS, "")?;

    capture.signal(Signal::SIGTERM)?;
    let mut status = None;
    wait_until("the capture ends once it is read", || {
        read_what_is_there(&mut reader, &mut written)?;
        status = capture.ended()?;
        Ok(Wait::unless(status.is_some(), || {
            format!("{} bytes", written.len())
        }))
    })?;
    read_what_is_there(&mut reader, &mut written)?;
    let said = fs::read_to_string(&errors)?;
    ensure!(
        status.is_some_and(|status| status.success()),
        "{status:?}: {said}"
    );
    let counts = statistics(&written)?;
    let sum = |index: usize| counts.iter().map(|counts| counts[index]).sum::<u64>();
    let (wanted, missed, delivered) = (sum(0), sum(1), sum(2));
    ensure!(
        wanted >= PACKETS as u64 && missed > 0 && wanted == missed + delivered,
        "wanted {wanted}, missed {missed}, written {delivered}"
    );
    let expected = format!(
        "silk-vtep: {delivered} packets captured, {missed} left out because they came faster than they were read\n"
    );
    ensure!(said == expected, "{said}");
    Ok(())
}

/// Sends some, and waits until `sent` in all are judged.
fn burst(tunnel: &Tunnel, frame: &[u8], daemon: &Daemon, sent: usize) -> Result {
    tunnel.send_runs((0..BURST).map(|_| (0, frame.to_vec())))?;
    wait_until("every packet was judged", || {
        let dropped = Stats::read(daemon)?.dropped("source-not-peers");
        Ok(Wait::unless(dropped == sent as u64, || {
            format!("{dropped} of {sent}")
        }))
    })
}

/// A packet of the first cell's in a stranger's name: the least work for who refuses it.
fn spoofed(lab: &Lab) -> Result<Vec<u8>> {
    let [from, to] = [lab.cells[0].site, lab.cells[1].site];
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(vtep_mac(from.vtep), vtep_mac(to.vtep))
        .ipv4([192, 0, 2, 1], to.container.octets(), 64)
        .udp(4000, 9)
        .write(&mut frame, b"spoofed")?;
    Ok(frame)
}

/// Until there is no more, or the other end is closed.
fn read_what_is_there(mut pipe: impl Read, into: &mut Vec<u8>) -> Result {
    match pipe.read_to_end(into) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}
