//! ADD, DEL, and both again.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::json;

use super::plugin::{Plugin, address_of};
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure, host_veth_name, ping};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("lifecycle::{name}"), Plan::of(&[Silk]).cold(), body)
    };
    vec![
        case("add_wires_as_silk_does_and_del_leaves_nothing", add_and_del),
        case("containers_reach_each_other", containers_reach_each_other),
        case("add_twice_changes_nothing", add_twice_changes_nothing),
        case("del_may_be_repeated", del_may_be_repeated),
        case(
            "del_works_without_daemon_namespace_and_link",
            del_works_without,
        ),
        case(
            "del_finds_a_container_that_only_the_kernel_knows",
            del_by_the_kernel,
        ),
        case("del_removes_what_silks_plugin_made", del_of_silks),
        case(
            "del_spares_an_address_that_is_anothers_now",
            del_spares_others,
        ),
        case(
            "del_after_a_failed_add_spares_another_networks_link",
            del_spares_other_networks,
        ),
        case("namespaces_by_process_do_not_collide", by_process),
        case("a_container_may_have_ipv6", with_ipv6),
        Case::new(
            "lifecycle::both_families_cross_the_overlay",
            Plan::of(&[Silk, Silk]).overlay_v6().cold(),
            both_families_cross,
        ),
    ]
}

fn add_and_del(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (before, web) = (Snapshot::of(&host)?, Sandbox::new("web-1")?);
    let result = plugin.add(&web)?;
    let address = address_of(&result)?;
    ensure!(
        address == Ipv4Addr::new(10, 255, 108, 2),
        "address {address}"
    );
    let routes = web.namespace.ip("-4 route show")?;
    let expected = format!(
        "default via 169.254.0.1 dev eth0 src {address} \n169.254.0.1 dev eth0 proto kernel scope link src {address} \n"
    );
    ensure!(routes == expected, "routes {routes}");
    let neighbors = web.namespace.ip("neigh show nud all")?;
    ensure!(
        neighbors == "169.254.0.1 dev eth0 lladdr aa:aa:0a:ff:6c:02 PERMANENT \n",
        "neighbours {neighbors}"
    );
    let link = web.namespace.ip("-d link show eth0")?;
    for part in [
        "NOARP",
        "mtu 1450",
        "ee:ee:0a:ff:6c:02",
        "gso_max_segs 44",
        "gso_max_size 64312",
    ] {
        ensure!(link.contains(part), "no {part}: {link}");
    }
    let host_link = host.ip(&format!("-d link show {}", host_veth_name(address)))?;
    for part in ["NOARP", "mtu 1450", "aa:aa:0a:ff:6c:02"] {
        ensure!(host_link.contains(part), "no {part}: {host_link}");
    }
    let metadata = json!({
        "container_id": "web-1", "ifname": "eth0", "network": "silk", "netns": web.netns, "mtu": 1450,
    });
    let base = web.namespace.name();
    let expected = json!({ base: { "handle": "web-1", "ip": address, "metadata": metadata } });
    ensure!(plugin.stored()? == expected, "store {}", plugin.stored()?);
    let file = fs::read_to_string(plugin.ipam_dir().join("10.255.108.2"))?;
    ensure!(file == "web-1\r\neth0", "reservation {file:?}");
    ping(&web.namespace, lab.cells[0].site.vtep, 3, "")?;
    plugin.del(&web)?;
    plugin.left_nothing(&before, &[&web])
}

fn containers_reach_each_other(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let (first, second) = (Sandbox::new("a")?, Sandbox::new("b")?);
    plugin.add(&first)?;
    let address = address_of(&plugin.add(&second)?)?;
    ping(&first.namespace, address, 5, "-M do -s 1422")?;
    plugin.del(&first)?;
    ping(&lab.cells[0].host, address, 3, "")
}

fn add_twice_changes_nothing(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let (host, web) = (lab.cells[0].host.clone(), Sandbox::new("web")?);
    plugin.add(&web)?;
    let state = |plugin: &Plugin| -> Result<_> {
        Ok((
            Snapshot::of(&host)?,
            Snapshot::of(&web.namespace)?,
            plugin.reserved()?,
            plugin.stored()?,
        ))
    };
    let before = state(&plugin)?;
    let again = plugin.call("ADD", &web)?;
    again.refused(100, "duplicate allocation is not allowed")?;
    // Another address asked for is no way round.
    plugin.args = "IP=10.255.108.77".to_owned();
    let again = plugin.call("ADD", &web)?;
    again.refused(100, "duplicate allocation is not allowed")?;
    plugin.args.clear();
    // The same namespace and link, as if of another container.
    let id = Sandbox {
        id: "other".to_owned(),
        ifname: "eth0".to_owned(),
        netns: web.netns.clone(),
        namespace: crate::support::Namespace::new()?,
    };
    plugin.call("ADD", &id)?.refused(100, "has a link eth0")?;
    let after = state(&plugin)?;
    before.0.same_as(&after.0)?;
    before.1.same_as(&after.1)?;
    ensure!((&before.2, &before.3) == (&after.2, &after.3), "{after:?}");
    plugin.del(&web)
}

fn del_may_be_repeated(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (before, mut web) = (Snapshot::of(&host)?, Sandbox::new("web")?);
    plugin.del(&web)?;
    plugin.add(&web)?;
    plugin.del(&web)?;
    plugin.del(&web)?;
    // With an empty namespace, which DEL may have, and one that is not there.
    for netns in ["", "/var/run/netns/sv-there-is-none"] {
        let there = std::mem::replace(&mut web.netns, netns.to_owned());
        plugin.del(&web)?;
        web.netns = there;
        plugin.add(&web)?;
        let there = std::mem::replace(&mut web.netns, netns.to_owned());
        plugin.del(&web)?;
        web.netns = there;
        plugin.left_nothing(&before, &[&web])?;
    }
    Ok(())
}

fn del_works_without(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let sandboxes = [Sandbox::new("daemon")?, Sandbox::new("link")?];
    for sandbox in &sandboxes {
        plugin.add(sandbox)?;
    }
    let gone = Sandbox::new("namespace")?;
    plugin.add(&gone)?;
    let path = gone.netns.clone();
    drop(gone);
    let gone = Sandbox {
        netns: path,
        ..Sandbox::new("namespace")?
    };
    lab.cells[0].daemon()?.kill9()?;
    host.ip("link del s-010255108003")?;
    for sandbox in sandboxes.iter().chain([&gone]) {
        plugin.del(sandbox)?;
    }
    plugin.left_no_trace(&[&sandboxes[0], &sandboxes[1], &gone])
}

fn del_by_the_kernel(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    fs::remove_dir_all(plugin.directory().join("data"))?;
    plugin.del(&web)?;
    plugin.left_no_trace(&[&web])?;
    // A link by that name that is none of ours stays.
    web.namespace
        .ip("link add eth0 type veth peer name other")?;
    plugin.del(&web)?;
    ensure!(web.links()?.len() == 3, "links {:?}", web.links()?);
    Ok(())
}

/// What silk-cni leaves on disk and in the kernel, taken over in the middle of a container's life.
fn del_of_silks(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    let base = web.namespace.name();
    let silks = json!({
        base: { "handle": base, "ip": "10.255.108.2", "metadata": null },
        "other": { "handle": "other", "ip": "10.255.108.9", "metadata": null },
    });
    fs::write(plugin.store(), format!("{silks}\n"))?;
    plugin.del(&web)?;
    let left = json!({ "other": { "handle": "other", "ip": "10.255.108.9", "metadata": null } });
    ensure!(plugin.stored()? == left, "store {}", plugin.stored()?);
    ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
    ensure!(web.links()? == ["lo"], "links {:?}", web.links()?);
    Ok(())
}

fn del_spares_others(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let (old, new) = (Sandbox::new("old")?, Sandbox::new("new")?);
    plugin.add(&old)?;
    // The old container's reservation and link are lost, and its address is given out again.
    fs::remove_file(plugin.ipam_dir().join("10.255.108.2"))?;
    lab.cells[0].host.ip("link del s-010255108002")?;
    plugin.args = "IP=10.255.108.2".to_owned();
    plugin.add(&new)?;
    plugin.del(&old)?;
    ensure!(new.links()?.contains(&"eth0".to_owned()), "it is gone");
    ensure!(
        plugin.reserved()? == ["10.255.108.2"],
        "{:?}",
        plugin.reserved()?
    );
    ping(&new.namespace, lab.cells[0].site.vtep, 3, "")?;
    plugin.del(&new)?;
    plugin.left_no_trace(&[&old, &new])
}

/// The name is taken, and the runtime cleans up after the ADD that failed.
fn del_spares_other_networks(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    plugin.set("name", "other");
    plugin.args = "IP=10.255.108.9".to_owned();
    plugin.call("ADD", &web)?.refused(100, "has a link eth0")?;
    plugin.del(&web)?;
    ping(&web.namespace, lab.cells[0].site.vtep, 3, "")?;
    plugin.set("name", "silk");
    plugin.del(&web)?;
    plugin.left_no_trace(&[&web])
}

/// `/proc/PID/ns/net`, as most runtimes say it, has the same last part for all.
fn by_process(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let mut sandboxes = [Sandbox::new("a")?, Sandbox::new("b")?, Sandbox::new("c")?];
    let mut processes = Vec::new();
    for sandbox in &mut sandboxes {
        let process = sandbox.namespace.command("sleep").arg("1000").spawn()?;
        sandbox.netns = format!("/proc/{}/ns/net", process.id());
        processes.push(crate::support::Process::new(process));
    }
    for (sandbox, process) in sandboxes.iter().zip(&processes) {
        // `ip netns exec` has not entered it at once.
        crate::support::wait_until("it is in its namespace", || {
            let inside = fs::read_link(format!("/proc/{}/exe", process.pid()))?;
            Ok(crate::support::Wait::unless(
                inside.ends_with("sleep"),
                || format!("{inside:?}"),
            ))
        })?;
        plugin.add(sandbox)?;
    }
    let stored = plugin.stored()?;
    let keys: Vec<_> = stored
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    ensure!(keys == ["a", "b", "c"], "keys {keys:?}");
    for sandbox in &sandboxes {
        plugin.del(sandbox)?;
    }
    plugin.left_no_trace(&[&sandboxes[0], &sandboxes[1], &sandboxes[2]])
}

fn with_ipv6(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    host.run(|| Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?))?;
    // The lab's daemon has no IPv6 overlay, and would not register such an address.
    plugin.set("socket", serde_json::Value::Null);
    let port = super::daemon::silks_daemon(&host, "10.255.108.0/24", 1410)?;
    plugin.set("daemonPort", port);
    plugin.set("subnet6", "fd00:a:0:6c::/64");
    let (a, b) = (Sandbox::new("a")?, Sandbox::new("b")?);
    let before = Snapshot::of(&host)?;
    let result = plugin.add(&a)?;
    ensure!(
        result["ips"][1]["address"] == "fd00:a:0:6c::aff:6c02/128",
        "{result}"
    );
    ensure!(result["routes"][1]["dst"] == "::/0", "{result}");
    plugin.add(&b)?;
    let to: std::net::Ipv6Addr = "fd00:a:0:6c::aff:6c03".parse()?;
    ping(&a.namespace, to, 5, "-M do -s 1362")?;
    ping(&host, to, 3, "")?;
    let addresses = a.namespace.ip("-6 -o addr show dev eth0")?;
    ensure!(addresses.lines().count() == 1, "addresses {addresses}");
    plugin.call_after("CHECK", &a, &result)?.silent("CHECK")?;
    for (inside, switch, value, made) in [
        (false, "all/forwarding", "0", "1"),
        (false, "s-010255108002/disable_ipv6", "1", "0"),
        (false, "s-010255108002/addr_gen_mode", "0", "1"),
        (false, "s-010255108002/accept_ra", "2", "0"),
        (true, "eth0/disable_ipv6", "1", "0"),
        (true, "eth0/addr_gen_mode", "0", "1"),
        (true, "eth0/accept_ra", "2", "0"),
    ] {
        let place = if inside { &a.namespace } else { &*host };
        let path = format!("/proc/sys/net/ipv6/conf/{switch}");
        place.run(|| Ok(fs::write(&path, value)?))?;
        let switched = plugin.call_after("CHECK", &a, &result)?;
        let name = switch.replace('/', ".");
        switched.refused(100, &format!("net.ipv6.conf.{name} is {value}, not {made}"))?;
        plugin.del(&a)?;
        host.run(|| Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?))?;
        plugin.args = "IP=10.255.108.2".to_owned();
        plugin.add(&a)?;
        plugin.args.clear();
    }
    host.ip("-6 route del fd00:a:0:6c::aff:6c02/128")?;
    let lost = plugin.call_after("CHECK", &a, &result)?;
    lost.refused(100, "s-010255108002 lacks route fd00:a:0:6c::aff:6c02/128")?;
    plugin.del(&a)?;
    plugin.del(&b)?;
    plugin.left_nothing(&before, &[&a, &b])
}

fn both_families_cross(lab: &mut Lab) -> Result {
    let (mut here, mut there) = (Plugin::new(lab, 0)?, Plugin::new(lab, 1)?);
    here.set("subnet6", lab.cells[0].site.subnet_v6());
    there.set("subnet6", lab.cells[1].site.subnet_v6());
    let (a, b) = (Sandbox::new("a")?, Sandbox::new("b")?);
    here.add(&a)?;
    let result = there.add(&b)?;
    let to: std::net::Ipv6Addr = "fd00:a:0:2b::aff:2b02".parse()?;
    ensure!(
        result["ips"][1]["address"] == format!("{to}/128"),
        "{result}"
    );
    ping(&a.namespace, address_of(&result)?, 5, "-M do -s 1422")?;
    ping(&a.namespace, to, 5, "-M do -s 1402")?;
    // The daemon knows both of a container's addresses, and forgets both.
    let list = json!({ "container": "list" });
    let known = lab.cells[0].daemon()?.request(&list)?;
    ensure!(
        known.as_array().is_some_and(|rows| rows.len() == 2),
        "{known}"
    );
    // A daemon whose registry is lost finds both in the kernel.
    let daemon = lab.cells[0].daemon()?;
    daemon.terminate()?;
    let mut lost = 0;
    for entry in fs::read_dir(daemon.socket().parent().ok_or("no directory")?)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("containers") {
            fs::remove_file(entry.path())?;
            lost += 1;
        }
    }
    ensure!(lost == 1, "{lost} registries");
    daemon.start()?;
    let found = daemon.request(&list)?;
    let addresses = |rows: &serde_json::Value| {
        let rows = rows.as_array().cloned().unwrap_or_default();
        let addresses = rows.into_iter().map(|row| row["address"].to_string());
        addresses.collect::<Vec<_>>()
    };
    ensure!(addresses(&found) == addresses(&known), "{found}");
    here.del(&a)?;
    there.del(&b)?;
    let known = lab.cells[0].daemon()?.request(&list)?;
    ensure!(known == json!([]), "{known}");
    here.left_no_trace(&[&a])?;
    there.left_no_trace(&[&b])
}
