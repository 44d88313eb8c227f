//! Containers wired as Silk's CNI plugin wires them (as the real plugin was seen to do it), judged by iproute2.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use silk_vtep::error::SetupError;
use silk_vtep::netlink::{ContainerLinks, ContainerSpec, Namespace, Netlink, container};

use crate::fixture::{Ns, Outcome, holds, same};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 184);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 2);

fn spec(container: &Ns, address: Ipv4Addr) -> ContainerSpec {
    ContainerSpec {
        address,
        address_v6: None,
        namespace: Namespace::clone(&container.namespace),
        ifname: "eth0".to_owned(),
        mtu_bytes: 1410,
        gso_max_segs: Some(45),
        alias: Some("somebody's".to_owned()),
    }
}

fn add(host: &Ns, spec: &ContainerSpec) -> Result<ContainerLinks, SetupError> {
    host.namespace
        .run(|| container::add(&mut Netlink::open()?, spec))?
}

fn del(host: &Ns, address: Ipv4Addr) -> Result<bool, SetupError> {
    host.namespace
        .run(|| container::del(&mut Netlink::open()?, address))?
}

pub(crate) fn add_wires_both_ends_as_silk_does() -> Outcome {
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    let links = add(&host, &spec(&inside, ADDRESS))?;
    let expected = ContainerLinks {
        host_name: "s-010255108184".to_owned(),
        host_mac: "aa:aa:0a:ff:6c:b8".parse()?,
        container_name: "eth0".to_owned(),
        container_mac: "ee:ee:0a:ff:6c:b8".parse()?,
    };
    same(links, expected, "result")?;
    check_end(
        &host,
        "s-010255108184",
        "aa:aa:0a:ff:6c:b8",
        ("169.254.0.1", "10.255.108.184"),
        "ee:ee:0a:ff:6c:b8",
    )?;
    check_end(
        &inside,
        "eth0",
        "ee:ee:0a:ff:6c:b8",
        ("10.255.108.184", "169.254.0.1"),
        "aa:aa:0a:ff:6c:b8",
    )?;
    let link = host.link("s-010255108184")?.ok_or("no host link")?;
    same(&link["ifalias"], &json!("somebody's"), "alias")?;
    let routes = [
        "default via 169.254.0.1 dev eth0 src 10.255.108.184",
        "169.254.0.1 dev eth0 proto kernel scope link src 10.255.108.184",
    ];
    same(
        inside.ip_lines("route show"),
        routes.map(str::to_owned).to_vec(),
        "container's routes",
    )?;
    same(
        inside.ip_lines("-6 route show"),
        vec![],
        "container's IPv6 routes",
    )?;
    same(
        host.namespace.sysctl("net/ipv4/ip_forward")?,
        "1".to_owned(),
        "ip_forward",
    )?;
    same(del(&host, ADDRESS)?, true, "del")?;
    same(host.link("s-010255108184")?, None, "host link after del")?;
    same(inside.link("eth0")?, None, "container link after del")
}

/// Everything that the plugin sets of one end: MAC, MTU, flags, its only address, its only neighbour, sysctls.
fn check_end(
    ns: &Ns,
    name: &str,
    mac: &str,
    (local, peer): (&str, &str),
    peer_mac: &str,
) -> Outcome {
    let link = ns.settled_link(name)?;
    same(&link["address"], &json!(mac), "MAC")?;
    same(&link["mtu"], &json!(1410), "MTU")?;
    same(&link["linkinfo"]["info_kind"], &json!("veth"), "kind")?;
    let flags = json!(["BROADCAST", "MULTICAST", "NOARP", "UP", "LOWER_UP"]);
    same(&link["flags"], &flags, "flags")?;
    let addresses = ns.ip_lines(&format!("-o address show dev {name}"));
    same(
        addresses.len(),
        1,
        "number of addresses (IPv6 ones included)",
    )?;
    let address = format!("inet {local} peer {peer}/32 scope link {name}");
    holds(
        addresses[0].contains(&address),
        format_args!("{addresses:?} is not {address}"),
    )?;
    let neighbor = format!("{peer} dev {name} lladdr {peer_mac} PERMANENT");
    same(
        ns.ip_lines("neigh show nud all"),
        vec![neighbor],
        "neighbours",
    )?;
    for (sysctl, value) in [
        ("ipv4/conf/{}/rp_filter", "1"),
        ("ipv6/conf/{}/disable_ipv6", "1"),
    ] {
        let path = format!("net/{}", sysctl.replace("{}", name));
        same(ns.namespace.sysctl(&path)?, value.to_owned(), &path)?;
    }
    Ok(())
}

pub(crate) fn containers_reach_each_other_through_the_host() -> Outcome {
    let (host, first, second) = (Ns::new("host")?, Ns::new("ctr")?, Ns::new("ctr")?);
    add(&host, &spec(&first, ADDRESS))?;
    add(&host, &spec(&second, OTHER))?;
    for (from, to) in [(&first, OTHER), (&second, ADDRESS), (&host, OTHER)] {
        let ping = from.exec(&format!("ping -n -c 2 -i 0.2 -W 5 -M do -s 1382 {to}"))?;
        holds(ping.status.success(), format_args!("{ping:?}"))?;
    }
    same(del(&host, OTHER)?, true, "del")?;
    let still_there = host.exec(&format!("ping -n -c 1 -W 5 {ADDRESS}"))?;
    holds(
        still_there.status.success(),
        "the other container lost its link",
    )
}

pub(crate) fn add_undoes_a_failure_half_way() -> Outcome {
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    inside.pair("other")?;
    // With this one in the way the last step of all fails.
    inside.ip("route add default dev other")?;
    let error = add(&host, &spec(&inside, ADDRESS))
        .err()
        .ok_or("it was added")?;
    let said = error.to_string();
    let expected =
        "set up container 10.255.108.184: add default route via 169.254.0.1: RTM_NEWROUTE: EEXIST";
    holds(said.starts_with(expected), &said)?;
    same(host.link("s-010255108184")?, None, "host link")?;
    same(inside.link("eth0")?, None, "container link")?;
    same(
        inside.ip_lines("route show"),
        vec!["default dev other scope link".to_owned()],
        "routes",
    )?;
    let forwarding = || host.namespace.sysctl("net/ipv4/ip_forward");
    same(forwarding()?, "0".to_owned(), "ip_forward")?;
    inside.ip("route del default dev other")?;
    add(&host, &spec(&inside, ADDRESS))?;
    same(forwarding()?, "1".to_owned(), "ip_forward")
}

pub(crate) fn add_refuses_before_it_changes_anything() -> Outcome {
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    inside.pair("eth0")?;
    inside.pair("eth9")?;
    inside.ip("address add 10.255.108.2/24 dev eth9")?;
    let (links, before) = (
        host.ip_lines("-o link show"),
        inside.ip_lines("-o address show"),
    );
    let refuse = |spec: &ContainerSpec, expected: &str| -> Outcome {
        let error = add(&host, spec).err().ok_or("it was added")?;
        holds(error.to_string().contains(expected), &error)?;
        holds(!error.mend.is_empty(), "no mend")?;
        same(host.ip_lines("-o link show"), links.clone(), "host links")?;
        same(
            inside.ip_lines("-o address show"),
            before.clone(),
            "container addresses",
        )
    };
    let good = spec(&inside, ADDRESS);
    let named = |ifname: &str| ContainerSpec {
        ifname: ifname.to_owned(),
        ..good.clone()
    };
    refuse(&named("eth0"), "has a link eth0")?;
    refuse(&named(""), "interface name `` is empty")?;
    refuse(&named("sixteen-bytes-xx"), "longer than 15 bytes")?;
    refuse(&named("a/b"), "has a character")?;
    refuse(&named("a b"), "has white space")?;
    refuse(
        &ContainerSpec {
            address: OTHER,
            ..named("eth1")
        },
        "has that address already",
    )?;
    refuse(
        &ContainerSpec {
            address: Ipv4Addr::BROADCAST,
            ..named("eth1")
        },
        "not a container's address",
    )?;

    // A second container with the address of a living one.
    let second = Ns::new("ctr")?;
    add(&host, &spec(&second, ADDRESS))?;
    let before = second.ip_lines("-o address show");
    let error = add(&host, &named("eth1")).err().ok_or("it was added")?;
    holds(
        error.to_string().contains("link s-010255108184 exists"),
        &error,
    )?;
    same(
        second.ip_lines("-o address show"),
        before,
        "the living container",
    )
}

pub(crate) fn add_refuses_the_hosts_own_namespace() -> Outcome {
    let host = Ns::new("host")?;
    let error = add(&host, &spec(&host, ADDRESS))
        .err()
        .ok_or("it was added")?;
    holds(error.to_string().contains("is the host's own"), &error)?;
    same(host.ip_json("link show")?.len(), 1, "links")?;
    same(
        host.namespace.sysctl("net/ipv4/ip_forward")?,
        "0".to_owned(),
        "ip_forward",
    )
}

pub(crate) fn del_is_idempotent_and_spares_strangers() -> Outcome {
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    same(del(&host, ADDRESS)?, false, "del of an unknown container")?;
    add(&host, &spec(&inside, ADDRESS))?;
    same(del(&host, ADDRESS)?, true, "first del")?;
    same(del(&host, ADDRESS)?, false, "second del")?;
    host.ip("tuntap add dev s-010255108184 mode tap")?;
    let error = del(&host, ADDRESS).err().ok_or("it was deleted")?;
    holds(error.to_string().contains("is no veth"), &error)?;
    holds(
        host.link("s-010255108184")?.is_some(),
        "the stranger is gone",
    )
}

/// A /32 to a container beats every other route: with such an address it would take the host's own traffic, the tunnel's to a peer, or
/// that of another cell's container.
pub(crate) fn add_refuses_an_address_that_is_no_containers_here() -> Outcome {
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    host.pair("under")?;
    host.ip("address add 10.0.32.12/24 dev under")?;
    let refuse = |address: [u8; 4], expected: &str| -> Outcome {
        let error = add(&host, &spec(&inside, address.into()));
        let error = error.err().ok_or("it was added")?;
        holds(error.to_string().contains(expected), &error)?;
        holds(!error.mend.is_empty(), "no mend")?;
        same(inside.link("eth0")?, None, "container link")
    };
    refuse([10, 0, 32, 12], "it is an address of this host")?;
    refuse([169, 254, 0, 2], "not a container's address")?;

    // What a VTEP of 10.255.108.0/24 leaves in the main table.
    host.ip("route add unreachable 10.255.108.0/24 proto 83")?;
    let elsewhere = "it is not of this cell's subnet (give one inside 10.255.108.0/24)";
    refuse([10, 255, 43, 6], elsewhere)?;
    refuse([10, 0, 16, 14], elsewhere)?;
    refuse(
        [10, 255, 108, 0],
        "it is the first address of 10.255.108.0/24",
    )?;
    refuse(
        [10, 255, 108, 255],
        "it is the last address of 10.255.108.0/24",
    )?;
    // Wired by hand, under a name that is none of ours.
    host.pair("hand")?;
    host.ip("address add 169.254.0.1/32 peer 10.255.108.9/32 dev hand")?;
    refuse([10, 255, 108, 9], "link hand leads to it")?;
    host.ip("route add 10.255.108.10/32 dev hand")?;
    refuse([10, 255, 108, 10], "link hand leads to it")?;
    // A larger route is no container's, whether it leads somewhere or not.
    host.ip("route add 10.255.108.16/28 dev hand")?;
    let (inner, other) = (Ns::new("ctr")?, Ns::new("ctr")?);
    add(&host, &spec(&inner, Ipv4Addr::new(10, 255, 108, 20)))?;
    host.ip("route add default dev hand")?;
    add(&host, &spec(&other, Ipv4Addr::new(10, 255, 108, 40)))?;
    add(&host, &spec(&inside, ADDRESS))?;
    Ok(())
}

/// Without a wait this fails now and then: the end that was brought up first sends only once the kernel's linkwatch has run.
pub(crate) fn add_returns_once_the_host_can_send() -> Outcome {
    const ATTEMPTS: usize = 20;
    let (host, inside) = (Ns::new("host")?, Ns::new("ctr")?);
    let sender = host.namespace.run(|| UdpSocket::bind("0.0.0.0:0"))??;
    for attempt in 0..ATTEMPTS {
        let sink = inside.namespace.run(|| UdpSocket::bind("0.0.0.0:0"))??;
        sink.set_read_timeout(Some(Duration::from_secs(5)))?;
        add(&host, &spec(&inside, ADDRESS))?;
        sender.send_to(b"first", (ADDRESS, sink.local_addr()?.port()))?;
        sink.recv(&mut [0; 8])
            .map_err(|error| format!("first packet of attempt {attempt}: {error}"))?;
        del(&host, ADDRESS)?;
    }
    Ok(())
}
