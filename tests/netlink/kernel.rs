//! What the rest stands on: links, listings, refusals, namespaces, sysctls.

use std::net::IpAddr;
use std::process::Command;

use libtest_mimic::Failed;
use serde_json::json;
use silk_vtep::netlink::{
    LinkKind, NamedNamespace, Namespace, Netlink, Route, RouteFilter, TunMode, VxlanSpec, existing,
    underlay, vxlan_on_port,
};

use crate::fixture::{Ns, Outcome, holds, same, tap};

pub(crate) fn links_are_told_apart() -> Outcome {
    let host = Ns::new("host")?;
    tap(&host)?;
    host.ip("tuntap add dev tun0 mode tun")?;
    host.ip("link add vx type vxlan id 7 dstport 4789 gbp nolearning external local 10.0.0.1")
        .or_else(|_| host.ip("link add vx type vxlan id 7 dstport 4789 gbp nolearning"))?;
    host.ip("link add br0 type bridge")?;
    host.ip("link set vx master br0")?;
    host.ip("address add 10.0.32.12/24 dev br0")?;
    host.ip("-6 address add fd77::1/64 dev br0 nodad")?;
    let mut netlink = host.netlink()?;
    same(existing(&mut netlink, "nobody")?, None, "a free name")?;
    let tap = existing(&mut netlink, "silk-vtep")?.ok_or("no TAP")?;
    match &tap.kind {
        LinkKind::Tun(tun) => {
            same(tun.mode, TunMode::Tap, "mode")?;
            holds(
                tun.multi_queue && tun.vnet_hdr && tun.persist,
                format_args!("{tun:?}"),
            )?;
            same(tun.queues, Some(0), "queues")?;
        }
        other => return Err(format!("{other:?}").into()),
    }
    same(tap.alias, None, "alias")?;
    netlink.set_alias(tap.index, "a TAP")?;
    let tap = netlink.link(tap.index)?.ok_or("no TAP")?;
    same(tap.alias.as_deref(), Some("a TAP"), "alias")?;
    let tun = existing(&mut netlink, "tun0")?.ok_or("no TUN")?;
    holds(
        matches!(&tun.kind, LinkKind::Tun(tun) if tun.mode == TunMode::Tun && !tun.multi_queue),
        format_args!("{tun:?}"),
    )?;
    let vxlan = vxlan_on_port(&mut netlink, 4789)?.ok_or("no VXLAN device")?;
    same(vxlan.name.as_str(), "vx", "VXLAN device")?;
    holds(
        matches!(&vxlan.kind, LinkKind::Vxlan(vxlan) if vxlan.gbp),
        format_args!("{vxlan:?}"),
    )?;
    same(vxlan_on_port(&mut netlink, 8472)?, None, "another port")?;
    let bridge = existing(&mut netlink, "br0")?.ok_or("no bridge")?;
    same(
        bridge.kind,
        LinkKind::Other(Some("bridge".to_owned())),
        "kind",
    )?;
    same(vxlan.master, Some(bridge.index), "master")?;
    for local in ["10.0.32.12", "fd77::1"] {
        let found = underlay(&mut netlink, local.parse()?)?.ok_or("no underlay")?;
        same(
            (found.ifindex, found.name.as_str()),
            (bridge.index, "br0"),
            local,
        )?;
    }
    same(
        underlay(&mut netlink, "10.0.32.13".parse()?)?,
        None,
        "an address of nobody's",
    )?;
    check_listing(&host, &mut netlink)
}

/// Every link as iproute2 lists it.
fn check_listing(host: &Ns, netlink: &mut Netlink) -> Outcome {
    let expected = host.ip_json("link show")?;
    let links = netlink.links()?;
    same(links.len(), expected.len(), "number of links")?;
    for (link, shown) in links.iter().zip(&expected) {
        same(&json!(link.index), &shown["ifindex"], "index")?;
        same(&json!(link.name), &shown["ifname"], "name")?;
        same(&json!(link.mtu_bytes), &shown["mtu"], "MTU")?;
        same(&json!(link.operstate), &shown["operstate"], "state")?;
        same(&json!(link.qdisc), &shown["qdisc"], "qdisc")?;
        let flags: Vec<_> = shown["flags"].as_array().ok_or("no flags")?.clone();
        let ours: Vec<_> = link
            .flags
            .to_string()
            .split(',')
            .map(|flag| json!(flag))
            .collect();
        same(ours, flags, "flags")?;
        if shown["link_type"] == "ether" {
            let mac = link.mac.ok_or("no MAC")?.to_string();
            same(&json!(mac), &shown["address"], "MAC")?;
        }
    }
    Ok(())
}

pub(crate) fn long_listings_are_read_whole() -> Outcome {
    let host = Ns::new("host")?;
    let mut netlink = host.netlink()?;
    let routes: Vec<_> = (0..2000_u16)
        .map(|n| IpAddr::from([10, 9, n.to_be_bytes()[0], n.to_be_bytes()[1]]))
        .map(|to| Route::unreachable(to.into(), 4))
        .collect();
    for route in &routes {
        netlink.add_route(route)?;
    }
    let mut listed = netlink.routes(RouteFilter::default())?;
    listed.sort_by_key(|route| route.destination);
    holds(listed == routes, "the listing is not what was added")?;
    for route in &routes {
        same(netlink.delete_route(route)?, true, "deleted")?;
    }
    same(netlink.delete_route(&routes[0])?, false, "deleted again")?;
    same(
        netlink.routes(RouteFilter::default())?,
        vec![],
        "at the end",
    )
}

pub(crate) fn refusals_carry_errno_and_the_kernels_words() -> Outcome {
    let host = Ns::new("host")?;
    let mut netlink = host.netlink()?;
    let to = "10.8.0.0/16".parse()?;
    let error = netlink
        .add_route(&Route::via(to, "10.7.0.1".parse()?, 1))
        .err()
        .ok_or("it was added")?
        .to_string();
    // fib_check_nh: the gateway is on no link of ours.
    same(
        error.as_str(),
        "RTM_NEWROUTE: ENETUNREACH, \"Nexthop has invalid gateway\"",
        "error",
    )?;
    let error = netlink.set_mtu(4_000_000, 1400).err().ok_or("it was set")?;
    let said = error.setup("set MTU of", "link 4000000").to_string();
    holds(
        said.contains("RTM_SETLINK: ENODEV (the link is not there"),
        &said,
    )
}

pub(crate) fn named_namespaces_are_iproute2s() -> Outcome {
    let ns = Ns::new("name")?;
    let listed = || -> Result<String, Failed> {
        let output = Command::new("ip").args(["netns", "list"]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    holds(listed()?.contains(&ns.name), "not listed")?;
    let exec = ns.exec("readlink /proc/self/ns/net")?;
    let expected = format!("net:[{}]\n", ns.namespace.id().inode);
    same(
        String::from_utf8(exec.stdout)?,
        expected,
        "the namespace of ip netns exec",
    )?;
    let lo = ns.link("lo")?.ok_or("no lo")?;
    holds(
        lo["flags"]
            .as_array()
            .is_some_and(|flags| flags.contains(&json!("UP"))),
        "lo is down",
    )?;
    let error = NamedNamespace::create(&ns.name)
        .err()
        .ok_or("it was made twice")?;
    same(error.cause.as_str(), "EEXIST", "cause")?;
    same(
        Namespace::open(&ns.name)?,
        Namespace::clone(&ns.namespace),
        "the first one",
    )?;
    for unfit in ["", ".", "..", "a/b"] {
        holds(NamedNamespace::create(unfit).is_err(), unfit)?;
    }
    let name = ns.name.clone();
    drop(ns);
    holds(!listed()?.contains(&name), "still listed")?;
    let error = Namespace::open(&name).err().ok_or("still there")?;
    same(error.cause.as_str(), "ENOENT", "cause")
}

pub(crate) fn sysctls_are_those_of_the_namespace() -> Outcome {
    let (one, two) = (Ns::new("one")?, Ns::new("two")?);
    let path = "net/ipv4/ip_forward";
    same(one.namespace.set_sysctl(path, "1")?, true, "changed")?;
    same(one.namespace.set_sysctl(path, "1")?, false, "unchanged")?;
    same(one.namespace.sysctl(path)?, "1".to_owned(), "one")?;
    same(two.namespace.sysctl(path)?, "0".to_owned(), "two")
}

pub(crate) fn a_vxlan_device_is_as_iproute2_would_make_it() -> Outcome {
    let host = Ns::new("host")?;
    let mut netlink = host.netlink()?;
    let mac = "ee:ee:0a:ff:6c:00".parse()?;
    netlink.create_vxlan(&VxlanSpec {
        name: "vx",
        mac,
        mtu_bytes: 1450,
        vni: 7,
        local: "10.0.32.12".parse()?,
        port: 4789,
    })?;
    let link = host.link("vx")?.ok_or("no VXLAN device")?;
    same(&link["address"], &json!("ee:ee:0a:ff:6c:00"), "MAC")?;
    same(&link["mtu"], &json!(1450), "MTU")?;
    let data = &link["linkinfo"]["info_data"];
    for (key, value) in [
        ("id", json!(7)),
        ("local", json!("10.0.32.12")),
        ("port", json!(4789)),
        ("learning", json!(false)),
        ("gbp", json!(true)),
    ] {
        same(&data[key], &value, key)?;
    }
    let index = netlink.link_named("vx")?.ok_or("no VXLAN device")?.index;
    let remote = "10.0.16.14".parse()?;
    netlink.append_fdb(index, "ee:ee:0a:ff:2b:00".parse()?, remote)?;
    let shown = Command::new("bridge")
        .args(["-n", &host.name, "fdb", "show", "dev", "vx"])
        .output()?;
    let shown = String::from_utf8(shown.stdout)?;
    same(
        shown.trim(),
        "ee:ee:0a:ff:2b:00 dst 10.0.16.14 self permanent",
        "FDB",
    )
}
