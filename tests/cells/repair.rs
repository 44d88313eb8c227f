//! What others do to the device while we run: mended, or ended with a name. Never a spin.

use std::thread;
use std::time::Duration;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Daemon, Lab, Plan, Result, Snapshot, VTEP_NAME, Wait, ensure, ping, wait_until,
};

/// How long a broken state is watched for a spin, and how much CPU time it may cost in all threads. A spinning thread takes all of it.
const WATCH: Duration = Duration::from_secs(1);
const CPU_ALLOWED: Duration = Duration::from_millis(300);

pub(crate) fn cases() -> Vec<Case> {
    let damages = [
        ("link_down", "link set silk-vtep down"),
        (
            "mac_changed",
            "link set silk-vtep address 02:00:00:00:00:01",
        ),
        (
            "overlay_route_deleted",
            "route del 10.255.0.0/16 dev silk-vtep",
        ),
        ("address_removed", "-4 addr flush dev silk-vtep"),
        ("mtu_changed", "link set silk-vtep mtu 600"),
        ("arp_switched_on", "link set silk-vtep arp on"),
    ];
    let mut cases: Vec<_> = damages
        .into_iter()
        .map(|(name, damage)| {
            case(&format!("{name}_is_mended"), move |lab| {
                is_mended(lab, damage)
            })
        })
        .collect();
    cases.push(case(
        "tap_deleted_ends_the_process_with_a_named_error",
        tap_deleted_ends_the_process,
    ));
    cases.push(case(
        "underlay_down_is_waited_out",
        underlay_down_is_waited_out,
    ));
    cases
}

fn case(name: &str, body: impl FnOnce(&mut Lab) -> Result + Send + 'static) -> Case {
    Case::new(
        format!("repair::{name}"),
        Plan::of(&[Silk, Silk]).lanes(2),
        body,
    )
}

fn is_mended(lab: &mut Lab, damage: &str) -> Result {
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of_device(&host, VTEP_NAME)?;
    host.ip(damage)?;
    does_not_spin(lab.cells[0].daemon()?)?;
    before.wait_until_again(&host, VTEP_NAME)?;
    ping_both_ways(lab)
}

fn tap_deleted_ends_the_process(lab: &mut Lab) -> Result {
    lab.cells[0].host.ip(&format!("link del {VTEP_NAME}"))?;
    let daemon = lab.cells[0].daemon()?;
    let ended = daemon.wait_for_its_end()?;
    ensure!(
        ended.status.code() == Some(1),
        "ended with {}",
        ended.status
    );
    ensure!(
        ended.stderr.contains(VTEP_NAME),
        "does not name the device: {:?}",
        ended.stderr
    );
    ensure!(
        !daemon.socket().exists(),
        "the control socket is still there"
    );
    Ok(())
}

fn underlay_down_is_waited_out(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    host.ip("link set eth0 down")?;
    let to = lab.cells[1].site.container;
    let unreached = ping(&lab.cells[0].container()?.namespace, to, 5, "-w 1");
    ensure!(
        unreached.is_err(),
        "a ping crossed an underlay that is down"
    );
    does_not_spin(lab.cells[0].daemon()?)?;
    host.ip("link set eth0 up")?;
    ping_both_ways(lab)
}

/// Waits for the first answer, then wants all.
fn ping_both_ways(lab: &Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    for (from, to) in [(a, b), (b, a)] {
        wait_until("a ping crosses", || {
            match ping(&from.namespace, to.address, 1, "-w 1") {
                Ok(()) => Ok(Wait::Done),
                Err(error) => Ok(Wait::NotYet(error.to_string())),
            }
        })?;
        ping(&from.namespace, to.address, 5, "")?;
    }
    Ok(())
}

fn does_not_spin(daemon: &mut Daemon) -> Result {
    let process = daemon.process()?;
    let before = process.cpu_time()?;
    thread::sleep(WATCH);
    let used = process.cpu_time()? - before;
    ensure!(
        used < CPU_ALLOWED,
        "used {used:?} of CPU time in {WATCH:?} without traffic"
    );
    Ok(())
}
