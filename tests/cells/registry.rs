//! The registry of a cell's containers: who is in it, how it outlives a daemon, what `container list` tells.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{Daemon, Lab, Namespace, Plan, Result, ensure, host_veth_name, ping};

/// A container of the first cell that its tests wire themselves.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 7);

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: &Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("registry::{name}"), plan.clone(), body)
    };
    let (pair, one) = (Plan::of(&[Silk, Silk]).group(3), Plan::of(&[Silk]).group(3));
    let cold = Plan::of(&[Silk]).cold();
    let single = Plan::of(&[Silk, Silk]).cold();
    vec![
        case("list_tells_who_and_how_much", &pair, list_tells),
        case("del_takes_back", &one, del_takes_back),
        case("a_restart_finds_who_is_there", &one, restart_finds),
        case(
            "who_lost_his_link_is_forgotten_with_a_word",
            &one,
            linkless_is_forgotten,
        ),
        case("without_a_daemon_the_kernel_tells", &cold, kernel_tells),
        case(
            "a_start_asks_the_kernel_and_silks_datastore",
            &cold,
            datastore_tells,
        ),
        case(
            "another_namespaces_daemon_is_not_told",
            &one,
            other_daemon_is_not_told,
        ),
        case("a_lease_of_one_address_works", &single, single_address),
    ]
}

fn list_tells(lab: &mut Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    ping(&a.namespace, b.address, 7, "")?;
    let (address, netns) = (a.address, a.namespace.name().to_owned());
    // What the other end counts, by another tool.
    let inside: Value = serde_json::from_str(&a.namespace.ip("-j -s link show eth0")?)?;
    let traffic = |way: &str, unit: &str| inside[0]["stats64"][way][unit].clone();
    let expected = json!([{
        "address": address, "host_link": host_veth_name(address), "netns": netns, "ifname": "eth0", "group": 3, "mtu": 1450,
        "tx_packets": traffic("tx", "packets"), "tx_bytes": traffic("tx", "bytes"),
        "rx_packets": traffic("rx", "packets"), "rx_bytes": traffic("rx", "bytes"),
    }]);
    let daemon = lab.cells[0].daemon()?;
    let listed = list(daemon)?;
    ensure!(listed == expected, "{listed}\nand not {expected}");
    ensure!(
        expected[0]["tx_packets"].as_u64() >= Some(7),
        "pings were not counted: {expected}"
    );
    let text = daemon.ctl("container list")?;
    let first = format!(
        "{address} dev s-010255108184 mtu 1450 group 0x0003 netns {netns} ifname eth0\n    sent "
    );
    ensure!(text.starts_with(&first), "{text}\nand not {first}");
    Ok(())
}

fn del_takes_back(lab: &mut Lab) -> Result {
    let address = lab.cells[0].container()?.address;
    let daemon = lab.cells[0].daemon()?;
    daemon.ctl(&format!("container del --address {address}"))?;
    let listed = list(daemon)?;
    ensure!(listed == json!([]), "{listed}");
    let again = daemon.request(&json!({"container": {"del": {"address": address}}}))?;
    ensure!(again == json!({"removed": false}), "{again}");
    Ok(())
}

/// kill -9: what was told is on disk at once.
fn restart_finds(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    let before = who(daemon)?;
    daemon.kill9()?;
    daemon.start()?;
    let after = who(daemon)?;
    ensure!(before == after && after.len() == 1, "{before:?} {after:?}");
    daemon.terminate()?;
    daemon.start()?;
    let after = who(daemon)?;
    ensure!(before == after, "{before:?} {after:?}");
    Ok(())
}

fn linkless_is_forgotten(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    host.ip("link del s-010255108184")?;
    let text = daemon.ctl("container list")?;
    ensure!(text.contains(" gone "), "its link is not gone: {text}");
    daemon.terminate()?;
    daemon.start()?;
    ensure!(
        daemon
            .stderr()
            .contains("container 10.255.108.184 is forgotten: its link s-010255108184 is gone"),
        "no word of it: {}",
        daemon.stderr()
    );
    let listed = list(daemon)?;
    ensure!(listed == json!([]), "{listed}");
    Ok(())
}

fn kernel_tells(lab: &mut Lab) -> Result {
    let netns = Namespace::new()?;
    let daemon = lab.cells[0].daemon()?;
    wire(daemon, &netns)?;
    let listed = list(daemon)?;
    let row = &listed[0];
    let told = (&row["address"], &row["host_link"], &row["mtu"]);
    ensure!(
        told == (&json!(ADDRESS), &json!("s-010255108007"), &json!(1450))
            && row.get("netns").is_none()
            && row["tx_packets"].is_u64(),
        "{listed}"
    );
    let text = daemon.ctl("container list")?;
    ensure!(
        text.starts_with("10.255.108.7 dev s-010255108007 mtu 1450 group -\n"),
        "{text}"
    );
    Ok(())
}

fn datastore_tells(lab: &mut Lab) -> Result {
    let netns = Namespace::new()?;
    let daemon = lab.cells[0].daemon()?;
    wire(daemon, &netns)?;
    daemon.start()?;
    let known = who(daemon)?;
    ensure!(known == [json!([ADDRESS, null, null])], "{known:?}");
    daemon.terminate()?;

    let directory = tempfile::TempDir::new()?;
    let store = directory.path().join("store.json");
    let mut entries = json!({"gone": {"handle": "c2", "ip": "10.255.108.77", "metadata": null}});
    entries[netns.name()] = json!({"handle": "c1", "ip": ADDRESS, "metadata": null});
    std::fs::write(&store, format!("{entries}\n"))?;
    let datastore = format!("[vtep]\ndatastore = {store:?}");
    daemon.write_config(&daemon.config()?.replacen("[vtep]", &datastore, 1))?;
    daemon.start()?;
    let known = who(daemon)?;
    ensure!(known == [json!([ADDRESS, netns.name(), "c1"])], "{known:?}");
    let told =
        "left out: container 10.255.108.77: the datastore has it as gone, and it has no link";
    ensure!(daemon.stderr().contains(told), "{}", daemon.stderr());
    daemon.terminate()
}

/// Daemons of several network namespaces share one file system, and their containers may have the same addresses.
fn other_daemon_is_not_told(lab: &mut Lab) -> Result {
    let (host, netns) = (Namespace::new()?, Namespace::new()?);
    let daemon = lab.cells[0].daemon()?;
    let ctl = |arguments: &str| -> Result<String> {
        let socket = daemon.socket();
        let binary = env!("CARGO_BIN_EXE_silk-vtep");
        let said = host
            .command("sh")
            .args([
                "-c",
                &format!("{binary} {arguments} --socket {} 2>&1", socket.display()),
            ])
            .output()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(said.status.success(), "{arguments}: {text}");
        Ok(text)
    };
    let address = "10.255.108.184";
    let said = ctl(&format!(
        "container add --mtu 1400 --address {address} --netns {}",
        netns.name()
    ))?;
    ensure!(said.lines().count() == 1, "it complained: {said}");
    ctl(&format!("container del --address {address}"))?;
    let known = who(daemon)?;
    ensure!(known.len() == 1, "ours was taken back: {known:?}");
    Ok(())
}

/// `single_ip_only` of Silk: the whole lease is the VTEP's own address, which the host speaks with.
fn single_address(lab: &mut Lab) -> Result {
    let netns = Namespace::new()?;
    let (site_a, site_b) = (lab.cells[0].site, lab.cells[1].site);
    let a = lab.cells[0].daemon()?;
    let config = a
        .config()?
        .replacen("[vtep]", "[vtep]\nsubnet_prefix_length = 32", 1);
    a.write_config(&config)?;
    a.start()?;
    let network = a.request(&json!("network"))?;
    let expected = json!({"overlay_subnet": "10.255.108.0/32", "mtu": 1450, "gso_max_segs": 44});
    ensure!(network == expected, "{network}");
    for address in [site_a.vtep, site_a.container] {
        let added = a.ctl(&format!(
            "container add --address {address} --netns {}",
            netns.name()
        ));
        let error = added.err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        let cause = "this cell has no room for containers";
        ensure!(error.contains(cause), "{address}: {error:?}");
    }
    let b = lab.cells[1].daemon()?;
    let lease = format!("{}/32", site_a.vtep);
    b.write_config(&b.config()?.replace(&site_a.subnet(), &lease))?;
    b.start()?;
    b.ctl(&format!(
        "container add --address {} --netns {}",
        site_b.container,
        netns.name()
    ))?;
    ping(&lab.cells[0].host, site_b.container, 3, "")?;
    ping(&netns, site_a.vtep, 3, "")
}

fn wire(daemon: &Daemon, netns: &Namespace) -> Result {
    let netns = netns.name();
    daemon.ctl(&format!(
        "container add --mtu 1450 --address {ADDRESS} --netns {netns}"
    ))?;
    Ok(())
}

fn list(daemon: &Daemon) -> Result<Value> {
    Ok(serde_json::from_str(&daemon.ctl("container list -j")?)?)
}

/// Address, namespace and id of each.
fn who(daemon: &Daemon) -> Result<Vec<Value>> {
    let listed = list(daemon)?;
    let rows = listed.as_array().ok_or("no list")?;
    let who = rows
        .iter()
        .map(|row| json!([row["address"], row["netns"], row["id"]]));
    Ok(who.collect())
}
