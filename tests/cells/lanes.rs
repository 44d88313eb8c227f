//! Lanes: nothing may depend on which one carries what, and a flow's packets do not overtake each other.

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;

use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Arrivals, EchoServer, Lab, Plan, Result, Stats, Wait, burst_with_replies, ensure, receive_one,
    wait_until,
};

/// Fresh flows, one after the other. That all of them have both directions on one of two lanes by chance happens once in 2^32.
const FLOWS: usize = 32;
/// That so many leave one of four lanes unused by chance happens once in 25 million.
const STEERED_FLOWS: usize = 64;
/// Flows of the reordering test, and datagrams of each. That no reply of so many comes on another lane happens once in 2^48.
const BURSTS: usize = 24;
const DATAGRAMS_PER_BURST: u32 = 1000;
/// Of the datagrams of all bursts: a machine that is busy with something else may let a queue run over.
const LOST_PERCENT_MAX: u32 = 10;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, lanes, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).lanes(lanes);
        Case::new(format!("lanes::{name}"), plan, body)
    };
    vec![
        case(
            "the_two_directions_of_a_flow_may_use_different_lanes",
            2,
            directions_cross_lanes,
        ),
        case(
            "a_flow_stays_on_its_lane_whatever_lane_its_reply_comes_on",
            4,
            flows_stay_on_their_lanes,
        ),
        case(
            "a_flow_stays_on_its_lane_after_kill_9",
            4,
            flows_stay_after_kill_9,
        ),
        case(
            "packets_of_a_flow_do_not_overtake_each_other_when_replies_come_in_mid_burst",
            4,
            nobody_overtakes,
        ),
        case("one_lane_needs_no_steering", 1, one_lane_needs_no_steering),
        case(
            "without_bpf_the_kernel_steers_and_the_daemon_says_so",
            4,
            without_bpf_the_kernel_steers,
        ),
    ]
}

fn directions_cross_lanes(lab: &mut Lab) -> Result {
    let echo = EchoServer::start(lab.cells[1].container()?)?;
    let mut crossed = 0;
    for _ in 0..FLOWS {
        let flow = Flow::new(lab, &echo)?;
        let (egress, ingress) = flow.exchange(lab)?;
        crossed += usize::from(egress != ingress);
    }
    ensure!(
        crossed > 0,
        "each of {FLOWS} flows had its answer on the lane of its request"
    );
    Ok(())
}

/// Left to itself the kernel moves each of these flows to the lane of its reply.
pub(super) fn flows_stay_on_their_lanes(lab: &mut Lab) -> Result {
    let steering = steering(lab)?;
    ensure!(steering == "program", "steering: {steering}");
    let echo = EchoServer::start(lab.cells[1].container()?)?;
    let (mut used, mut crossed) = (BTreeSet::new(), 0);
    for _ in 0..STEERED_FLOWS {
        let flow = Flow::new(lab, &echo)?;
        let (first, reply) = flow.exchange(lab)?;
        let (second, _) = flow.exchange(lab)?;
        ensure!(
            first == second,
            "a flow went from lane {first} to {second}, having its reply on {reply}"
        );
        used.insert(first);
        crossed += usize::from(first != reply);
    }
    ensure!(used.len() == 4, "of four lanes only {used:?} had flows");
    ensure!(crossed > 0, "no reply came on another lane");
    Ok(())
}

/// The TAP outlives the daemon, and what was attached to it.
fn flows_stay_after_kill_9(lab: &mut Lab) -> Result {
    lab.cells[0].daemon()?.kill9()?;
    lab.cells[0].daemon()?.start()?;
    flows_stay_on_their_lanes(lab)
}

fn nobody_overtakes(lab: &mut Lab) -> Result {
    let mut crossed = 0;
    let (mut datagrams, mut replies) = (Arrivals::default(), Arrivals::default());
    for _ in 0..BURSTS {
        let before = lanes(lab)?;
        let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
        let (of_burst, of_replies) = burst_with_replies(a, b, DATAGRAMS_PER_BURST)?;
        let (egress, ingress) = lanes_used_since(lab, &before)?;
        crossed += usize::from(egress != ingress);
        datagrams = datagrams.and(of_burst);
        replies = replies.and(of_replies);
    }
    let sent = BURSTS as u32 * DATAGRAMS_PER_BURST;
    let seen = format!(
        "{sent} datagrams sent in {BURSTS} bursts, {crossed} of them with replies on another lane: {datagrams:?}, {replies:?}"
    );
    ensure!(crossed > 0, "no reply came on another lane: {seen}");
    ensure!(
        datagrams.reordered == 0 && replies.reordered == 0,
        "some overtook others: {seen}"
    );
    ensure!(
        (sent - datagrams.count) * 100 <= sent * LOST_PERCENT_MAX,
        "too many were lost: {seen}"
    );
    Ok(())
}

fn one_lane_needs_no_steering(lab: &mut Lab) -> Result {
    let steering = steering(lab)?;
    ensure!(steering == "one-queue", "steering: {steering}");
    Ok(())
}

fn without_bpf_the_kernel_steers(lab: &mut Lab) -> Result {
    // Where anyone may load a socket filter, nothing is left to take away.
    let unprivileged = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    if unprivileged.is_ok_and(|switch| switch.trim() == "0") {
        return Ok(());
    }
    // The TAP stays, and the program with it.
    let daemon = lab.cells[0].daemon()?;
    daemon.kill9()?;
    daemon.start_under(&["setpriv", "--bounding-set", "-bpf,-sys_admin"])?;
    let said = daemon.stderr();
    ensure!(
        said.matches("BPF_PROG_LOAD: EPERM").count() == 1,
        "it is not said once: {said}"
    );
    let steering = steering(lab)?;
    ensure!(
        steering.starts_with("automatic: ") && steering.contains("EPERM"),
        "steering: {steering}"
    );
    let echo = EchoServer::start(lab.cells[1].container()?)?;
    let mut moved = 0;
    for _ in 0..FLOWS {
        let flow = Flow::new(lab, &echo)?;
        moved += usize::from(flow.exchange(lab)?.0 != flow.exchange(lab)?.0);
    }
    ensure!(moved > 0, "the program of the daemon before still steers");
    Ok(())
}

/// A fresh flow between the first cell's container and an echo server.
struct Flow(UdpSocket);

impl Flow {
    fn new(lab: &Lab, echo: &EchoServer) -> Result<Self> {
        let socket = lab.cells[0].container()?.udp()?;
        socket.connect(echo.address)?;
        Ok(Self(socket))
    }

    /// The lane of a request and the lane of its reply, in the first cell.
    fn exchange(&self, lab: &mut Lab) -> Result<(usize, usize)> {
        let before = lanes(lab)?;
        self.0.send(b"request")?;
        receive_one(&self.0, &mut [0; 16])
            .map_err(|error| format!("a request had no answer: {error}"))?;
        lanes_used_since(lab, &before)
    }
}

/// As the daemon of the first cell says.
fn steering(lab: &mut Lab) -> Result<String> {
    let links: Value = serde_json::from_str(&lab.cells[0].daemon()?.ctl("link show -j")?)?;
    let steering = links[0]["silk_vtep"]["features"]["steering"].as_str();
    Ok(steering
        .ok_or_else(|| format!("no steering in {links}"))?
        .to_owned())
}

fn lanes(lab: &mut Lab) -> Result<Vec<(u64, u64)>> {
    Stats::read(lab.cells[0].daemon()?)?.lanes()
}

/// The lane that sent and the lane that delivered, of those that did. A packet may arrive before its lane has counted it.
fn lanes_used_since(lab: &mut Lab, before: &[(u64, u64)]) -> Result<(usize, usize)> {
    let mut used = None;
    wait_until("one packet was counted each way", || {
        let now = lanes(lab)?;
        let rises = || now.iter().zip(before).enumerate();
        let egress = rises().find(|(_, (now, before))| now.0 > before.0);
        let ingress = rises().find(|(_, (now, before))| now.1 > before.1);
        used = egress
            .map(|(lane, _)| lane)
            .zip(ingress.map(|(lane, _)| lane));
        Ok(Wait::unless(used.is_some(), || {
            format!("lanes {before:?}, then {now:?}")
        }))
    })?;
    Ok(used.ok_or("waited for above")?)
}
