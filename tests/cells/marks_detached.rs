//! A program that carries marks is detached while TCP flows as fast as it can: what is sent meanwhile has no group, and never a MAC's
//! bytes for one.

use std::collections::BTreeMap;

use silk_vtep::sys::tcx::Side;

use super::super::Case;
use super::marks::{GROUP_3_HEADER, PLAIN_HEADER, detach, mark};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Connection, Kind, Lab, Outer, Plan, Result, Sniffer, Wait, ensure, vtep_mac, wait_until,
};

/// Bytes between two looks at what passed.
const CHUNK_BYTES: usize = 500_000;
/// Frames longer than the MTU: they crossed the TAP whole.
const SUPER_FRAME_BYTES: usize = 3_000;

pub(crate) fn cases() -> Vec<Case> {
    [Silk, Kernel]
        .map(|to| {
            let name = format!("{to:?}").to_lowercase();
            Case::new(
                format!("marks_detached::super_frames_have_group_0_until_it_is_back_to_{name}"),
                plan(to),
                super_frames,
            )
        })
        .into()
}

fn plan(to: Kind) -> Plan {
    Plan::of(&[Silk, to]).marks("bpf").iptables()
}

fn super_frames(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    mark(a, "0x3")?;
    let (local, own_mac) = (a.site.underlay(false), vtep_mac(a.site.vtep));
    let connection = Connection::open(a.container()?, b.container()?)?;
    let sniffer = Sniffer::start(&a.host)?;
    // In the order in which they were sent, those of one header after another as one.
    let mut headers: Vec<[u8; 8]> = Vec::new();
    let mut super_frames: BTreeMap<[u8; 8], usize> = BTreeMap::new();
    let mut look = |headers: &mut Vec<_>| -> Result {
        connection.upload(CHUNK_BYTES)?;
        let sent = sniffer.so_far(|frame| {
            let outer = Outer::parse(frame)?;
            (outer.source == local).then_some((frame.len(), outer))
        })?;
        for (len, outer) in sent {
            let Outer { vxlan, inner, .. } = outer;
            ensure!(
                inner[6..12] == own_mac,
                "inner source {:02x?}",
                &inner[6..12]
            );
            if headers.last() != Some(&vxlan) {
                headers.push(vxlan);
            }
            *super_frames.entry(vxlan).or_default() += usize::from(len > SUPER_FRAME_BYTES);
        }
        Ok(())
    };
    look(&mut headers)?;
    ensure!(headers == [GROUP_3_HEADER], "before: {headers:02x?}");
    detach(a, Side::Egress)?;
    wait_until("marks are carried again", || {
        look(&mut headers)?;
        if headers == [GROUP_3_HEADER] {
            // It was missed at once: before anything was sent without it. The next time that takes longer.
            detach(a, Side::Egress)?;
        }
        let is_back = headers.len() > 1 && headers.last() == Some(&GROUP_3_HEADER);
        Ok(Wait::unless(is_back, || format!("{headers:02x?}")))
    })?;
    ensure!(
        headers == [GROUP_3_HEADER, PLAIN_HEADER, GROUP_3_HEADER],
        "{headers:02x?}"
    );
    ensure!(
        super_frames.values().all(|count| *count > 0),
        "super-frames: {super_frames:02x?}"
    );
    Ok(())
}
