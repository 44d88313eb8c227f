//! Lanes: nothing may depend on which one carries what.

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{EchoServer, Lab, Plan, Result, Stats, Wait, ensure, wait_until};

/// Fresh flows, one after the other. That all of them have both directions on one lane by chance happens once in 2^32.
const FLOWS: usize = 32;

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Silk]).lanes(2);
    vec![Case::new(
        "lanes::the_two_directions_of_a_flow_may_use_different_lanes",
        plan,
        directions_cross_lanes,
    )]
}

fn directions_cross_lanes(lab: &mut Lab) -> Result {
    let echo = EchoServer::start(lab.cells[1].container()?)?;
    let mut crossed = 0;
    for flow in 0..FLOWS {
        let before = lanes(lab)?;
        let socket = lab.cells[0].container()?.udp()?;
        socket.send_to(b"request", echo.address)?;
        socket
            .recv(&mut [0; 16])
            .map_err(|error| format!("flow {flow} had no answer: {error}"))?;
        let (egress, ingress) = lanes_used_since(lab, &before)?;
        crossed += usize::from(egress != ingress);
    }
    ensure!(
        crossed > 0,
        "each of {FLOWS} flows had its answer on the lane of its request"
    );
    Ok(())
}

fn lanes(lab: &mut Lab) -> Result<Vec<(u64, u64)>> {
    Stats::read(lab.cells[0].daemon()?)?.lanes()
}

/// The lane that sent one packet and the lane that delivered one. A packet may arrive before its lane has counted it.
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
