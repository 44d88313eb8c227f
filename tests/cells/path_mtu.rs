//! Two cells with a router between them whose second link can be made narrower.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;

use etherparse::PacketBuilder;
use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Cell, Connection, Daemon, Injector, Lab, Namespace, Outer, Plan, ROUTERS_LINK, Result, Sniffer,
    Stats, Wait, ensure, ping, router_link, wait_until,
};

/// What the second link carries once it is narrow.
const NARROW: u32 = 1400;
/// ICMP echo without options: what ping's `-s` leaves out.
const PING_HEADERS: u32 = 28;

pub(crate) fn cases() -> Vec<Case> {
    let df_set = || Plan::of(&[Silk, Silk]).routed().vtep_lines("df = \"set\"");
    let over_v6 = || Plan::of(&[Silk, Silk]).routed().v6();
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("path_mtu::{name}"), plan, body)
    };
    vec![
        case(
            "a_narrow_path_is_learned_told_and_forgotten",
            df_set(),
            |lab| narrow_path(lab, 50),
        ),
        case(
            "a_narrow_path_is_learned_told_and_forgotten_over_v6",
            over_v6(),
            |lab| narrow_path(lab, 70),
        ),
        case(
            "a_narrow_path_is_learned_where_df_is_inherited",
            Plan::of(&[Silk, Silk])
                .routed()
                .lanes(2)
                .vtep_lines("df = \"inherit\""),
            |lab| {
                narrow(lab, NARROW)?;
                provoke(lab)?;
                await_mtu(lab, 0, Some(NARROW - 50))?;
                told(lab, NARROW - 50)?;
                without_df_is_fragmented(lab)
            },
        ),
        case(
            "a_narrow_path_fragments_what_has_no_df",
            Plan::of(&[Silk, Silk]).routed(),
            fragments_without_df,
        ),
        case(
            "ipv6_inside_is_told_that_its_packet_is_too_big",
            Plan::of(&[Silk, Silk])
                .routed()
                .overlay_v6()
                .vtep_lines("df = \"inherit\""),
            ipv6_inside_is_told,
        ),
        case(
            "super_frames_without_df_arrive_whole_through_a_narrow_path",
            df_set(),
            super_frames_without_df,
        ),
        case(
            "the_narrower_of_two_links_in_a_row_is_learned_and_stays",
            df_set().second_router(),
            |lab| two_narrow_links(lab, 50),
        ),
        case(
            "the_narrower_of_two_links_in_a_row_is_learned_and_stays_over_v6",
            over_v6().second_router(),
            |lab| two_narrow_links(lab, 70),
        ),
        case("streams_fit_a_narrow_path", df_set(), streams_fit),
        case("a_forged_message_changes_nothing", df_set(), |lab| {
            forged(lab, true)
        }),
        case(
            "a_forged_message_changes_nothing_without_df",
            Plan::of(&[Silk, Silk]).routed(),
            |lab| forged(lab, false),
        ),
        case(
            "a_link_made_narrow_beneath_us_is_learned_too",
            df_set(),
            own_link_narrows,
        ),
        case(
            "a_link_made_narrow_beneath_us_fragments_what_has_no_df",
            Plan::of(&[Silk, Silk]),
            own_link_fragments,
        ),
    ]
}

/// Learned after the first loss, told to senders, shown, and gone when the link is wide again.
fn narrow_path(lab: &mut Lab, overhead: u32) -> Result {
    let wide = lab.cells[0].mtu()?;
    ping_of(lab, wide)?;
    narrow(lab, NARROW)?;
    provoke(lab)?;
    let mtu = NARROW - overhead;
    await_mtu(lab, 0, Some(mtu))?;
    let printed = lab.cells[0].daemon()?.ctl("peer show")?;
    ensure!(printed.contains(&format!("mtu {mtu}")), "{printed}");
    told(lab, mtu)?;
    // What fits still gets through whole, without a word from anybody.
    let before = Stats::read(lab.cells[0].daemon()?)?.dropped("path-mtu");
    ping_of(lab, mtu)?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("path-mtu") == before, "{stats:?}");
    without_df_is_fragmented(lab)?;
    narrow(lab, 1500)?;
    for index in [0, 1] {
        // The other's answers were as large.
        await_mtu(lab, index, None)?;
        forget_routes(&lab.cells[index].container()?.namespace)?;
    }
    ping_of(lab, wide)
}

/// The container that sends what does not fit learns the MTU from us.
fn told(lab: &mut Lab, mtu: u32) -> Result {
    let to = lab.cells[1].site.container;
    let from = &lab.cells[0].container()?.namespace;
    forget_routes(from)?;
    let said = from.exec(&format!(
        "ping -n -c 1 -W 1 -M do -s {} {to}",
        mtu + 1 - PING_HEADERS
    ));
    ensure!(said.is_err(), "a packet of {} bytes got through", mtu + 1);
    let route = from.ip(&format!("route get {to}"))?;
    ensure!(
        route.contains(&format!("mtu {mtu}")),
        "the container was told {route}"
    );
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("path-mtu") > 0, "not counted: {stats:?}");
    Ok(())
}

/// What the containers' kernel learned is forgotten.
fn forget_routes(namespace: &Namespace) -> Result {
    namespace.ip("route flush cache").map(drop)
}

/// A ping of exactly `mtu` bytes with DF.
fn ping_of(lab: &Lab, mtu: u32) -> Result {
    let to = lab.cells[1].site.container;
    let arguments = format!("-M do -s {}", mtu - PING_HEADERS);
    ping(&lab.cells[0].container()?.namespace, to, 1, &arguments)
}

/// Sends what does not fit, so that the router complains. Lost, or not: nobody knows of the narrow link yet.
fn provoke(lab: &Lab) -> Result {
    let to = lab.cells[1].site.container;
    let size = lab.cells[0].mtu()? - PING_HEADERS;
    let from = &lab.cells[0].container()?.namespace;
    let said = from.exec(&format!("ping -n -c 2 -i 0.2 -W 1 -M do -s {size} {to}"));
    ensure!(said.is_err(), "it got through: {said:?}");
    Ok(())
}

/// Makes the second link carry `mtu` bytes, both ends alike.
fn narrow(lab: &Lab, mtu: u32) -> Result {
    let router = lab.router()?;
    router.ip(&format!("link set {} mtu {mtu}", router_link(1)))?;
    lab.cells[1].host.ip(&format!("link set eth0 mtu {mtu}"))?;
    Ok(())
}

/// Waits until `peer show -j` of a cell has this MTU for the other.
fn await_mtu(lab: &mut Lab, index: usize, mtu: Option<u32>) -> Result {
    let daemon = lab.cells[index].daemon()?;
    wait_until(&format!("the peer's MTU is {mtu:?}"), || {
        let shown: Value = serde_json::from_str(&daemon.ctl("-j peer show")?)?;
        let found = shown[0]["mtu"].as_u64();
        Ok(Wait::unless(found == mtu.map(u64::from), || {
            shown.to_string()
        }))
    })
}

/// A packet without DF reaches the other end in fragments: made by routers where DF is inherited, by us where it is set. The other end may
/// have to find out first that its answers do not fit.
fn without_df_is_fragmented(lab: &mut Lab) -> Result {
    let to = lab.cells[1].site.container;
    let from = &lab.cells[0].container()?.namespace;
    forget_routes(from)?;
    let size = lab.cells[0].mtu()? - PING_HEADERS;
    // The answer has DF 0 like the request.
    wait_until("a packet without DF crosses", || {
        let said = from.exec(&format!("ping -n -c 1 -W 1 -M dont -s {size} {to}"));
        Ok(Wait::unless(said.is_ok(), || format!("{said:?}")))
    })
}

fn fragments_without_df(lab: &mut Lab) -> Result {
    let wide = lab.cells[0].mtu()?;
    narrow(lab, NARROW)?;
    ping_of(lab, wide)?;
    let connection = Connection::open(lab.cells[0].container()?, lab.cells[1].container()?)?;
    connection.upload(1_000_000)?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    let too_big = stats.dropped("path-mtu") + stats.dropped("too-big");
    ensure!(too_big == 0, "{stats:?}");
    await_mtu(lab, 0, None)
}

/// The host speaks for its IPv6 subnet, and never fragments on the way.
fn ipv6_inside_is_told(lab: &mut Lab) -> Result {
    const HEADERS: u32 = 40 + 8;
    let wide = lab.cells[0].mtu()?;
    let from = Arc::clone(&lab.cells[0].host);
    let to = lab.cells[1].end_v6().address;
    let ping_of = |mtu: u32| ping(&from, to, 1, &format!("-M do -s {}", mtu - HEADERS));
    ping_of(wide)?;
    narrow(lab, NARROW)?;
    let size = wide - HEADERS;
    let lost = from.exec(&format!("ping -n -c 2 -i 0.2 -W 1 -M do -s {size} {to}"));
    ensure!(lost.is_err(), "it got through: {lost:?}");
    await_mtu(lab, 0, Some(NARROW - 50))?;
    let lost = from.exec(&format!("ping -n -c 1 -W 1 -M do -s {size} {to}"));
    ensure!(lost.is_err(), "it got through: {lost:?}");
    let route = from.ip(&format!("route get {to}"))?;
    let told = format!("mtu {}", NARROW - 50);
    ensure!(route.contains(&told), "the host was told {route}");
    ping_of(NARROW - 50)
}

/// TCP both ways: super-frames whose segments do not fit are told of too.
fn streams_fit(lab: &mut Lab) -> Result {
    let connection = Connection::open(lab.cells[0].container()?, lab.cells[1].container()?)?;
    connection.upload(1_000_000)?;
    narrow(lab, NARROW)?;
    connection.upload(1_000_000)?;
    connection.download(1_000_000)?;
    await_mtu(lab, 0, Some(NARROW - 50))?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("path-mtu") > 0, "{stats:?}");
    Ok(())
}

/// Containers that do not ask what a path carries (`ip_no_pmtu_disc`) send TCP without DF, by super-frames like everybody.
fn super_frames_without_df(lab: &mut Lab) -> Result {
    const BYTES: usize = 3_000_000;
    narrow(lab, NARROW)?;
    provoke(lab)?;
    await_mtu(lab, 0, Some(NARROW - 50))?;
    for cell in &lab.cells {
        let namespace = &cell.container()?.namespace;
        forget_routes(namespace)?;
        namespace.run(|| Ok(fs::write("/proc/sys/net/ipv4/ip_no_pmtu_disc", "1")?))?;
    }
    let segment = lab.cells[0].mtu()? as usize - 52;
    let connection = Connection::open(lab.cells[0].container()?, lab.cells[1].container()?)?;
    let before = Stats::read(lab.cells[0].daemon()?)?;
    connection.upload(BYTES)?;
    let after = Stats::read(lab.cells[0].daemon()?)?;
    for reason in ["path-mtu", "too-big"] {
        let dropped = after.dropped(reason) - before.dropped(reason);
        ensure!(dropped == 0, "{dropped} {reason}");
    }
    // Two fragments for each segment, or the segments were smaller and nothing was tested.
    let sent = after.peers()?[0].0 - before.peers()?[0].0;
    let least = 2 * (BYTES / segment) as u64;
    ensure!(sent >= least, "{sent} packets of {least} at the least");
    Ok(())
}

/// The first link that does not carry a packet answers: behind it, another is narrower.
fn two_narrow_links(lab: &mut Lab, overhead: u32) -> Result {
    const NEAR: u32 = 1450;
    let wide = lab.cells[0].mtu()?;
    ping_of(lab, wide)?;
    for router in [lab.router()?, lab.second_router()?] {
        router.ip(&format!("link set {ROUTERS_LINK} mtu {NEAR}"))?;
    }
    let second = lab.second_router()?;
    second.ip(&format!("link set {} mtu {NARROW}", router_link(1)))?;
    lab.cells[1]
        .host
        .ip(&format!("link set eth0 mtu {NARROW}"))?;
    let to = lab.cells[1].site.container;
    let mtu = NARROW - overhead;
    wait_until("the narrower link is learned", || {
        let from = &lab.cells[0].container()?.namespace;
        let size = wide - PING_HEADERS;
        // Told by us, it would send no more of that size.
        forget_routes(from)?;
        let _ = from.exec(&format!("ping -n -c 1 -W 1 -M do -s {size} {to}"));
        // What the nearer link carries goes on, as containers send it that were told of that one.
        let size = NEAR - overhead - PING_HEADERS;
        let _ = from.exec(&format!("ping -n -c 1 -W 1 -M do -s {size} {to}"));
        let shown = peer_mtu(lab.cells[0].daemon()?)?;
        Ok(Wait::unless(shown == Some(mtu.into()), || {
            format!("{shown:?}")
        }))
    })?;
    told(lab, mtu)?;
    // Probes go on, and the nearer link answers them too.
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        ping_of(lab, mtu)?;
        let shown = peer_mtu(lab.cells[0].daemon()?)?;
        ensure!(shown == Some(mtu.into()), "it did not stay: {shown:?}");
    }
    let stats = Stats::read(lab.cells[1].daemon()?)?;
    ensure!(
        stats.dropped("path-probe") == 0,
        "probes crossed: {stats:?}"
    );
    Ok(())
}

/// The MTU that `peer show -j` has for the other cell.
fn peer_mtu(daemon: &Daemon) -> Result<Option<u64>> {
    let shown: Value = serde_json::from_str(&daemon.ctl("-j peer show")?)?;
    Ok(shown[0]["mtu"].as_u64())
}

/// Claims that the path is narrower than any, in answer to a datagram that was really sent.
fn forged(lab: &mut Lab, kernel_is_fooled: bool) -> Result {
    const CLAIM: u16 = 1000;
    let wide = lab.cells[0].mtu()?;
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    ping_of(lab, wide)?;
    let local = lab.cells[0].site.underlay(false);
    let seen = sniffer.outers(1, |outer| outer.source == local)?.remove(0);
    let forger = Injector::new(lab.router()?, &router_link(0))?;
    let message = fragmentation_needed(&lab.cells[0], &lab.cells[1], &seen, CLAIM)?;
    for _ in 0..3 {
        forger.send(&message)?;
    }
    let host = &lab.cells[0].host;
    let route = || host.ip(&format!("route get {}", lab.cells[1].site.underlay_v4));
    if kernel_is_fooled {
        wait_until("the kernel believes it", || {
            let route = route()?;
            Ok(Wait::unless(
                route.contains(&format!("mtu {CLAIM}")),
                || route,
            ))
        })?;
    }
    // Long enough to be believed, were it believed.
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(800));
        ping_of(lab, wide)?;
    }
    ensure!(
        route()?.contains(&format!("mtu {CLAIM}")) == kernel_is_fooled,
        "the kernel's route is {}",
        route()?
    );
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    let too_big = stats.dropped("path-mtu") + stats.dropped("too-big");
    ensure!(too_big == 0, "{stats:?}");
    await_mtu(lab, 0, None)
}

/// An ICMP message from the router's address about `seen`, which `from` sent to `to`.
fn fragmentation_needed(from: &Cell, to: &Cell, seen: &Outer, mtu: u16) -> Result<Vec<u8>> {
    let (source, destination) = (from.site.underlay_v4, to.site.underlay_v4);
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        .udp(seen.source_port, 4789)
        .write(&mut quoted, &seen.vxlan)?;
    quoted[6] = 0x40;
    let [a, b, c, _] = source.octets();
    let router = Ipv4Addr::new(a, b, c, 1);
    let mac = mac_of(&from.host)?;
    let next_hop_mtu = mtu;
    let needed = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], mac)
        .ipv4(router.octets(), source.octets(), 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(needed))
        .write(&mut frame, &quoted)?;
    Ok(frame)
}

fn mac_of(host: &Namespace) -> Result<[u8; 6]> {
    let links: Value = serde_json::from_str(&host.ip("-j link show eth0")?)?;
    let text = links[0]["address"].as_str().ok_or("eth0 has a MAC")?;
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<std::result::Result<_, _>>()?;
    Ok(octets.try_into().map_err(|_| "six octets")?)
}

/// The first link of the path is this host's own.
fn own_link_narrows(lab: &mut Lab) -> Result {
    lab.cells[0]
        .host
        .ip(&format!("link set eth0 mtu {NARROW}"))?;
    provoke(lab)?;
    await_mtu(lab, 0, Some(NARROW - 50))?;
    told(lab, NARROW - 50)?;
    lab.cells[0].host.ip("link set eth0 mtu 1500")?;
    await_mtu(lab, 0, None)
}

/// UDP_SEGMENT refuses what single datagrams are fragmented for.
fn own_link_fragments(lab: &mut Lab) -> Result {
    lab.cells[0]
        .host
        .ip(&format!("link set eth0 mtu {NARROW}"))?;
    let connection = Connection::open(lab.cells[0].container()?, lab.cells[1].container()?)?;
    connection.upload(1_000_000)?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("too-big") == 0, "{stats:?}");
    await_mtu(lab, 0, None)
}
