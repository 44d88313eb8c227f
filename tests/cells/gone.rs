//! What is left of a container that is gone: no flow that whoever has its address next could be answered in.

use serde_json::{Value, json};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Cell, Connection, Lab, Plan, Result, Snapshot, VTEP_NAME, Wait, ensure, host_veth_name,
    wait_until,
};

pub(crate) fn cases() -> Vec<Case> {
    let plan = || {
        let lines = "[policy]\nenforce = true\n";
        Plan::of(&[Silk, Silk]).group(3).vtep_lines(lines)
    };
    let case =
        |name: &str, body: fn(&mut Lab) -> Result| Case::new(format!("gone::{name}"), plan(), body);
    vec![
        case("a_container_takes_its_flows_with_it", |lab| {
            let address = lab.cells[0].site.container;
            flows_go(lab, |cell| {
                let words = format!("container del --address {address}");
                cell.daemon()?.ctl(&words).map(drop)
            })
        }),
        // As Silk's own plugin does it.
        case("one_that_goes_without_a_word_does_too", |lab| {
            let link = host_veth_name(lab.cells[0].site.container);
            flows_go(lab, |cell| {
                cell.host.ip(&format!("link del {link}")).map(drop)
            })
        }),
        case("one_that_is_reached_all_the_same_keeps_them", flows_stay),
    ]
}

/// Of two routes to a container one goes.
fn flows_stay(lab: &mut Lab) -> Result {
    let connection = connected(lab)?;
    let container = lab.cells[0].site.container;
    let host = lab.cells[0].host.clone();
    let route = format!("{container}/32 dev {} metric 77", host_veth_name(container));
    host.ip(&format!("route add {route}"))?;
    host.ip(&format!("route del {route}"))?;
    // What the kernel told before this was heard before it is mended.
    let before = Snapshot::of_device(&host, VTEP_NAME)?;
    host.ip(&format!("link set {VTEP_NAME} arp on"))?;
    before.wait_until_again(&host, VTEP_NAME)?;
    let noted = flows(&mut lab.cells[0])?;
    ensure!(noted == 1, "{noted} flows are noted");
    connection.upload(1_000)
}

fn flows_go(lab: &mut Lab, unwire: impl FnOnce(&mut Cell) -> Result) -> Result {
    let connection = connected(lab)?;
    unwire(&mut lab.cells[0])?;
    // Open still, it would be known for five days.
    wait_until("its flows are gone", || {
        let noted = flows(&mut lab.cells[0])?;
        Ok(Wait::unless(noted == 0, || format!("{noted} are there")))
    })?;
    drop(connection);
    Ok(())
}

/// A connection from the first cell's container, which that cell has noted.
fn connected(lab: &mut Lab) -> Result<Connection> {
    let to = lab.cells[1].site.container;
    let rule = format!("policy add {to} group 3 proto tcp");
    lab.cells[1].daemon()?.ctl(&rule)?;
    let connection = {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Connection::open(client, server)?
    };
    connection.upload(1_000)?;
    let noted = flows(&mut lab.cells[0])?;
    ensure!(noted == 1, "{noted} flows are noted");
    Ok(connection)
}

fn flows(cell: &mut Cell) -> Result<u64> {
    let stats: Value = cell.daemon()?.request(&json!("stats"))?;
    let entries = stats["flows"]["entries"].as_u64();
    Ok(entries.ok_or_else(|| format!("no flows in {stats}"))?)
}
