//! Ends and beginnings: what a daemon leaves behind, and what it finds.

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Connection, Lab, Namespace, Plan, Result, Snapshot, VTEP_NAME, ensure, ping, udp_port_is_free,
};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("restart::{name}"), plan, body)
    };
    let pair = Plan::of(&[Silk, Silk]).lanes(2);
    let cold = Plan::of(&[Silk]).lanes(2).cold();
    vec![
        case(
            "sigterm_leaves_the_host_as_it_was",
            cold.clone(),
            sigterm_leaves_the_host_as_it_was,
        ),
        case(
            "sigterm_leaves_a_v6_host_as_it_was",
            cold.clone().v6(),
            sigterm_leaves_the_host_as_it_was,
        ),
        case(
            "containers_live_on_after_sigterm_and_start",
            pair.clone(),
            containers_live_on,
        ),
        case(
            "a_connection_goes_on_after_kill_9",
            pair,
            a_connection_goes_on,
        ),
        case(
            "a_tap_given_to_us_by_its_alias_is_taken",
            cold.clone(),
            given_tap_is_taken,
        ),
        case(
            "persist_leaves_the_tap",
            cold.vtep_lines("persist = true"),
            persist_leaves_the_tap,
        ),
    ]
}

/// Twice, so that the second run starts from what the first left.
fn sigterm_leaves_the_host_as_it_was(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of(&host)?;
    let daemon = lab.cells[0].daemon()?;
    for _ in 0..2 {
        daemon.start()?;
        host.ip(&format!("link show {VTEP_NAME}"))?;
        ensure!(
            !udp_port_is_free(&host)?,
            "nobody listens on the VXLAN port"
        );
        ensure!(
            daemon.stdout().lines().count() == 1,
            "one line says ready, not {:?}",
            daemon.stdout()
        );
        daemon.terminate()?;
        before.same_as(&Snapshot::of(&host)?)?;
        ensure!(udp_port_is_free(&host)?, "the VXLAN port is still taken");
        ensure!(
            !daemon.socket().exists(),
            "the control socket is still there"
        );
    }
    Ok(())
}

fn containers_live_on(lab: &mut Lab) -> Result {
    lab.cells[0].daemon()?.terminate()?;
    lab.cells[0].daemon()?.start()?;
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, 5, "")?;
    ping(&b.namespace, a.address, 5, "")
}

fn a_connection_goes_on(lab: &mut Lab) -> Result {
    let connection = Connection::open(lab.cells[0].container()?, lab.cells[1].container()?)?;
    connection.upload(1_000_000)?;
    let device = Snapshot::of_device(&lab.cells[0].host, VTEP_NAME)?;
    lab.cells[0].daemon()?.kill9()?;
    lab.cells[0].daemon()?.start()?;
    device.wait_until_again(&lab.cells[0].host, VTEP_NAME)?;
    connection.upload(1_000_000)?;
    connection.download(1_000_000)
}

/// What the refusal of an administrator's TAP says can be done.
fn given_tap_is_taken(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    host.ip(&format!(
        "tuntap add mode tap multi_queue vnet_hdr name {VTEP_NAME}"
    ))?;
    host.ip(&format!("link set {VTEP_NAME} alias silk-vtep"))?;
    let given = device_index(&host)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.start()?;
    ensure!(device_index(&host)? == given, "the TAP was made anew");
    daemon.terminate()
}

fn persist_leaves_the_tap(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    daemon.start()?;
    let first = device_index(&host)?;
    daemon.terminate()?;
    ensure!(device_index(&host)? == first, "the TAP did not stay");
    daemon.start()?;
    ensure!(device_index(&host)? == first, "the TAP was made anew");
    daemon.terminate()
}

/// What `ip -o link` begins with.
fn device_index(host: &Namespace) -> Result<String> {
    let line = host.ip(&format!("-o link show {VTEP_NAME}"))?;
    let index = line.split(':').next().ok_or("an empty line")?;
    Ok(index.to_owned())
}
