//! A kernel peer on the same machine: over veth its device sends what no card has finished or cut, super-frames encapsulated whole.

use super::super::Case;
use super::offload::{UDP_GRO_OFF, bursts, containers, payload_max, streams_cross, super_bursts};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{Datagrams, Lab, Plan, Result};

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Kernel]);
    let mut cases = over("v4", &plan);
    cases.extend(over("v6", &plan.v6()));
    cases
}

fn over(family: &str, plan: &Plan) -> Vec<Case> {
    let case = |name: &str, plan: &Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("kernel_peer::{name}_{family}"), plan.clone(), body)
    };
    let gro_off = plan.clone().vtep_lines(UDP_GRO_OFF.lines);
    vec![
        case("streams_and_datagrams_cross", plan, all_cross),
        case(
            "udp_super_frames_arrive_without_gro",
            &gro_off,
            super_frames_arrive,
        ),
    ]
}

fn all_cross(lab: &mut Lab) -> Result {
    let [silk, kernel] = containers(lab)?;
    streams_cross([silk, kernel])?;
    let max = payload_max(lab, silk)?;
    let mut there = Datagrams::between(silk, kernel)?;
    super_bursts(&mut there, max)?;
    bursts(&mut there, max)?;
    bursts(&mut Datagrams::between(kernel, silk)?, max)
}

/// They come encapsulated once and whole, with the segment size of what is inside.
fn super_frames_arrive(lab: &mut Lab) -> Result {
    let [silk, kernel] = containers(lab)?;
    super_bursts(
        &mut Datagrams::between(kernel, silk)?,
        payload_max(lab, silk)?,
    )
}
