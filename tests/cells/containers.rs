//! `container add` and `del`: what the kernel then says about the wiring.

use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{Lab, Namespace, Plan, Result, Snapshot, ensure, host_veth_name};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("containers::{name}"), Plan::of(&[Silk]), body)
    };
    vec![
        case(
            "add_gives_two_routes_and_one_permanent_neighbor",
            add_wires_as_silk_does,
        ),
        case(
            "del_removes_the_pair_and_may_be_repeated",
            del_removes_the_pair,
        ),
        case("add_that_fails_leaves_nothing", failed_add_leaves_nothing),
    ]
}

fn add_wires_as_silk_does(lab: &mut Lab) -> Result {
    let container = lab.cells[0].container()?;
    let inside = &container.namespace;
    let routes = json(inside, "-j -4 route show")?;
    ensure!(
        routes.as_array().is_some_and(|routes| routes.len() == 2),
        "routes {routes}"
    );
    let gateway = routes
        .as_array()
        .and_then(|routes| routes.iter().find_map(|route| route["gateway"].as_str()));
    ensure!(gateway == Some("169.254.0.1"), "routes {routes}");
    let neighbors = json(inside, "-j neigh show")?;
    ensure!(
        neighbors
            .as_array()
            .is_some_and(|neighbors| neighbors.len() == 1),
        "neighbours {neighbors}"
    );
    ensure!(
        neighbors[0]["lladdr"] == "aa:aa:0a:ff:6c:b8",
        "neighbours {neighbors}"
    );
    ensure!(
        neighbors[0]["state"][0] == "PERMANENT",
        "neighbours {neighbors}"
    );
    let link = json(inside, "-j link show eth0")?;
    ensure!(link[0]["address"] == "ee:ee:0a:ff:6c:b8", "link {link}");
    ensure!(
        link[0]["flags"]
            .as_array()
            .is_some_and(|flags| flags.contains(&"NOARP".into())),
        "link {link}"
    );
    let host_link = json(
        &lab.cells[0].host,
        &format!("-j link show {}", host_veth_name(container.address)),
    )?;
    ensure!(
        host_link[0]["address"] == "aa:aa:0a:ff:6c:b8",
        "host's link {host_link}"
    );
    Ok(())
}

fn del_removes_the_pair(lab: &mut Lab) -> Result {
    let (address, netns) = {
        let container = lab.cells[0].container()?;
        (container.address, container.namespace.name().to_owned())
    };
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    for _ in 0..2 {
        daemon.ctl(&format!(
            "container del --address {address} --netns {netns}"
        ))?;
        let links = host.ip("link show")?;
        ensure!(
            !links.contains(&host_veth_name(address)),
            "the veth is still there:\n{links}"
        );
    }
    // A namespace that is given is looked into, as far as it is there.
    let (inside, other) = (Namespace::new()?, Namespace::new()?);
    daemon.ctl(&format!(
        "container add --address {address} --netns {inside}"
    ))?;
    let del = |netns: &str| {
        daemon.ctl(&format!(
            "container del --address {address} --netns {netns}"
        ))
    };
    let refused = del(other.name()).err().map(|error| error.to_string());
    let refused = refused.unwrap_or_default();
    let said = format!("s-010255108184 does not lead to namespace {other}");
    ensure!(refused.contains(&said), "{refused}");
    del("sv-there-is-none")?;
    let links = host.ip("link show")?;
    ensure!(!links.contains(&host_veth_name(address)), "{links}");
    Ok(())
}

fn failed_add_leaves_nothing(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of(&host)?;
    let daemon = lab.cells[0].daemon()?;
    let added = daemon.ctl("container add --address 10.255.108.9 --netns sv-there-is-none");
    ensure!(
        added.is_err(),
        "a container was added to a namespace that is not there"
    );
    before.same_as(&Snapshot::of(&host)?)
}

fn json(namespace: &Namespace, arguments: &str) -> Result<Value> {
    Ok(serde_json::from_str(&namespace.ip(arguments)?)?)
}
