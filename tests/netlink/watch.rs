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
    let mut gone = watcher.take_departed();
    gone.sort_unstable();
    gone.dedup();
    let containers: [IpAddr; 2] = [[10, 255, 108, 2].into(), "fd00::2".parse()?];
    same(gone, containers.to_vec(), "who is gone")?;
    same(watcher.take_departed(), Vec::new(), "told once")
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
