//! The watcher, with changes made by others.

use std::net::IpAddr;

use silk_vtep::netlink::{Route, WatchEvent, Watcher};

use crate::fixture::{Ns, Outcome, same, tap};

pub(crate) fn sees_our_link_and_no_other() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    host.pair("other")?;
    let mut watcher = host.namespace.run(|| Watcher::open(index, "silk-vtep"))??;
    same(watcher.drain()?, WatchEvent::Nothing, "at first")?;
    // The kernel has queued a change's notifications when the change is acknowledged.
    for ours in [
        "link set silk-vtep up",
        "link set silk-vtep mtu 1400",
        "address add 10.255.108.0/16 dev silk-vtep",
        "route add 10.254.0.0/16 dev silk-vtep",
        "route del 10.254.0.0/16",
        "route add unreachable 10.255.1.0/24",
        "address del 10.255.108.0/16 dev silk-vtep",
    ] {
        host.ip(ours)?;
        same(watcher.drain()?, WatchEvent::Changed, ours)?;
        same(watcher.drain()?, WatchEvent::Nothing, "then")?;
    }
    for others in [
        "link set other mtu 1400",
        "address add 10.1.0.1/24 dev other",
        "route add 10.2.0.0/16 dev other",
        "link del other",
    ] {
        host.ip(others)?;
        same(watcher.drain()?, WatchEvent::Nothing, others)?;
    }
    overflow(&host, &mut watcher)?;
    host.ip("link del silk-vtep")?;
    same(watcher.drain()?, WatchEvent::Gone, "deletion")
}

/// A container's link, as Silk wires it, and its host route of IPv6.
pub(crate) fn sees_containers_go() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    host.pair("other")?;
    for wired in [
        "link set other up",
        "address add 169.254.0.1/32 peer 10.255.108.2/32 dev other scope link",
        "route add fd00::2/128 dev other",
    ] {
        host.ip(wired)?;
    }
    let mut watcher = host.namespace.run(|| Watcher::open(index, "silk-vtep"))??;
    host.ip("link del other")?;
    same(watcher.drain()?, WatchEvent::Nothing, "deletion")?;
    let mut netlink = host.netlink()?;
    let mut gone = Vec::new();
    for departed in watcher.take_departed() {
        same(departed.is_reached(&mut netlink)?, false, "what is left")?;
        gone.push(departed.address);
    }
    gone.sort_unstable();
    gone.dedup();
    let containers: [IpAddr; 2] = [[10, 255, 108, 2].into(), "fd00::2".parse()?];
    same(gone, containers.to_vec(), "who is gone")?;
    same(watcher.take_departed(), Vec::new(), "told once")
}

/// Two ways to each of two, over one link; one way goes, then the other.
pub(crate) fn sees_that_another_way_is_left() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    host.pair("other")?;
    host.pair("third")?;
    for wired in [
        "link set other up",
        "link set third up",
        "address add 169.254.0.1/32 peer 10.255.108.2/32 dev other scope link",
        // With its last address a link loses its routes (`fib_inetaddr_event`).
        "address add 169.254.0.9/32 dev other",
        "route add 10.255.108.2/32 dev other metric 50",
        "route add 10.255.108.2/32 dev third metric 60",
        "route add fd00::2/128 dev other metric 50",
        "route add fd00::2/128 dev other metric 60",
    ] {
        host.ip(wired)?;
    }
    let mut watcher = host.namespace.run(|| Watcher::open(index, "silk-vtep"))??;
    let mut netlink = host.netlink()?;
    let v4 = IpAddr::from([10, 255, 108, 2]);
    let v6 = "fd00::2".parse()?;
    for (change, address, is_left) in [
        ("route del fd00::2/128 dev other metric 60", v6, true),
        ("route del fd00::2/128 dev other metric 50", v6, false),
        (
            "address del 169.254.0.1/32 peer 10.255.108.2/32 dev other",
            v4,
            true,
        ),
        // Another link's is no word of who was behind this one.
        ("route del 10.255.108.2/32 dev other metric 50", v4, false),
        ("route del 10.255.108.2/32 dev third metric 60", v4, false),
    ] {
        host.ip(change)?;
        same(watcher.drain()?, WatchEvent::Nothing, change)?;
        let told = watcher.take_departed();
        same(told.is_empty(), false, change)?;
        for departed in told {
            same(departed.address, address, change)?;
            same(departed.is_reached(&mut netlink)?, is_left, change)?;
        }
    }
    Ok(())
}

/// More foreign changes than the socket holds: something of ours may be among the lost.
fn overflow(host: &Ns, watcher: &mut Watcher) -> Outcome {
    host.pair("other")?;
    let mut netlink = host.netlink()?;
    let other = netlink.link_named("other")?.ok_or("no link")?.index;
    same(watcher.drain()?, WatchEvent::Nothing, "before the flood")?;
    for third in 0..20_u8 {
        for fourth in 0..=255_u8 {
            let to = IpAddr::from([10, 3, third, fourth]).into();
            netlink.add_route(&Route::connected(to, other))?;
        }
    }
    same(watcher.drain()?, WatchEvent::Changed, "overflow")?;
    same(watcher.drain()?, WatchEvent::Nothing, "after the flood")
}
