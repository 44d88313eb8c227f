//! The VTEP's device: set up, kept, taken over and removed.

use serde_json::json;
use silk_vtep::error::SetupError;
use silk_vtep::netlink::{Device, DeviceError, DeviceSpec, Mended};
use silk_vtep::wire::MacAddr;

use crate::fixture::{Ns, Outcome, holds, same, tap};

fn device_spec() -> DeviceSpec {
    let net = |text: &str| text.parse().expect("a literal");
    DeviceSpec {
        name: "silk-vtep".to_owned(),
        mac: "ee:ee:0a:ff:6c:00".parse().expect("a literal"),
        mtu_bytes: 1410,
        addresses: vec![net("10.255.108.0/16")],
        overlays: vec![net("10.255.0.0/16")],
        own_subnets: vec![net("10.255.108.0/24")],
        routing: true,
        silk_routes: false,
    }
}

fn device(host: &Ns, index: u32, spec: DeviceSpec) -> Result<Device, SetupError> {
    Ok(Device::new(host.netlink()?, index, spec))
}

fn routes(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Routes as iproute2 shows them, without what a TAP nobody reads adds.
fn shown_routes(host: &Ns) -> Vec<String> {
    let clean = |line: String| {
        line.replace(" linkdown", "")
            .replace("  ", " ")
            .trim()
            .to_owned()
    };
    host.ip_lines("route show").into_iter().map(clean).collect()
}

const CONFIGURED: [&str; 2] = [
    "10.255.0.0/16 via 169.254.0.2 dev silk-vtep src 10.255.108.0 onlink",
    "unreachable 10.255.108.0/24 proto 83",
];

fn check_configured(host: &Ns) -> Outcome {
    same(shown_routes(host), routes(&CONFIGURED), "routes")?;
    let link = host.link("silk-vtep")?.ok_or("no link")?;
    same(&link["address"], &json!("ee:ee:0a:ff:6c:00"), "MAC")?;
    same(&link["mtu"], &json!(1410), "MTU")?;
    for flag in ["NOARP", "UP"] {
        let flags = link["flags"].as_array().ok_or("no flags")?;
        holds(
            flags.contains(&json!(flag)),
            format_args!("{flag} is not in {flags:?}"),
        )?;
    }
    let addresses = host.ip_json("address show dev silk-vtep")?;
    let addresses = addresses[0]["addr_info"].as_array().ok_or("no addresses")?;
    same(addresses.len(), 1, "number of addresses")?;
    for (key, value) in [
        ("local", json!("10.255.108.0")),
        ("prefixlen", json!(16)),
        ("scope", json!("link")),
        ("noprefixroute", json!(true)),
    ] {
        same(&addresses[0][key], &value, key)?;
    }
    let disabled = host
        .namespace
        .sysctl("net/ipv6/conf/silk-vtep/disable_ipv6")?;
    same(disabled, "1".to_owned(), "disable_ipv6")
}

pub(crate) fn configure_sets_up_a_fresh_tap() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    let mut device = device(&host, index, device_spec())?;
    let mended = device.configure()?;
    let kinds = [
        mended[0] == Mended::Alias,
        matches!(mended[1], Mended::Mac(Some(_))),
        mended[2] == Mended::Arp,
        mended[3] == Mended::Mtu(1500),
        mended[4] == Mended::Ipv6 { was_on: true },
        mended[5] == Mended::Down,
        matches!(mended[6], Mended::Address(_)),
        matches!(mended[7], Mended::Route(_)),
        matches!(mended[8], Mended::Unreachable(_)),
    ];
    holds(
        mended.len() == 9 && kinds.iter().all(|kind| *kind),
        format_args!("{mended:?}"),
    )?;
    check_configured(&host)?;
    same(device.configure()?, vec![], "the second time")
}

pub(crate) fn configure_mends_what_others_change() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    let mut device = device(&host, index, device_spec())?;
    device.configure()?;
    let to = |text: &str| text.parse().expect("a literal");
    let (address, route) = (
        Mended::Address(to("10.255.108.0/16")),
        Mended::Route(to("10.255.0.0/16")),
    );
    let unreachable = Mended::Unreachable(to("10.255.108.0/24"));
    let broken = MacAddr::new([2, 0, 0, 0, 0, 1]);
    for (change, expected) in [
        ("link set silk-vtep down", vec![Mended::Down, route]),
        (
            "link set silk-vtep address 02:00:00:00:00:01",
            vec![Mended::Mac(Some(broken))],
        ),
        ("link set silk-vtep arp on", vec![Mended::Arp]),
        ("link set silk-vtep alias lab", vec![Mended::Alias]),
        ("link set silk-vtep mtu 1300", vec![Mended::Mtu(1300)]),
        ("route del 10.255.0.0/16", vec![route]),
        (
            "route replace 10.255.0.0/16 via 169.254.0.9 dev silk-vtep onlink",
            vec![route],
        ),
        ("route del unreachable 10.255.108.0/24", vec![unreachable]),
        (
            "address del 10.255.108.0/16 dev silk-vtep",
            vec![address, route],
        ),
        (
            "route replace 10.255.0.0/16 via 169.254.0.2 dev silk-vtep src 10.255.108.0 onlink proto static",
            vec![],
        ),
    ] {
        host.ip(change)?;
        same(device.configure()?, expected, change)?;
        if !change.contains("proto static") {
            check_configured(&host)?;
        }
    }
    host.namespace
        .set_sysctl("net/ipv6/conf/silk-vtep/disable_ipv6", "0")?;
    same(
        device.configure()?,
        vec![Mended::Ipv6 { was_on: true }],
        "disable_ipv6",
    )?;
    same(device.configure()?, vec![], "at the end")
}

pub(crate) fn configure_takes_over_a_tap_set_up_silks_way() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    host.ip("link set silk-vtep up")?;
    host.ip("address add 10.255.108.0/16 scope link dev silk-vtep")?;
    let before = shown_routes(&host);
    same(
        before,
        routes(&["10.255.0.0/16 dev silk-vtep proto kernel scope link src 10.255.108.0"]),
        "Silk's route",
    )?;
    let mut spec = device_spec();
    let mut device = device(&host, index, spec.clone())?;
    device.configure()?;
    check_configured(&host)?;
    same(device.configure()?, vec![], "the second time")?;

    spec.silk_routes = true;
    let mut device = Device::new(host.netlink()?, index, spec);
    same(device.configure()?.len(), 1, "what silk_routes adds")?;
    same(
        device.configure()?,
        vec![],
        "the second time, with silk_routes",
    )?;
    let connected = "10.255.0.0/16 dev silk-vtep scope link src 10.255.108.0 metric 100";
    same(
        shown_routes(&host),
        routes(&[CONFIGURED[0], connected, CONFIGURED[1]]),
        "routes",
    )
}

pub(crate) fn configure_clears_away_an_earlier_configuration() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    let mut old = device_spec();
    // The second of 10.255.0.0/16 is a secondary: deleting the first takes it along.
    old.addresses = vec![
        "10.254.7.0/16".parse()?,
        "10.255.107.0/16".parse()?,
        "10.255.108.0/16".parse()?,
    ];
    old.overlays.push("10.254.0.0/16".parse()?);
    old.overlays.push("fd00::/16".parse()?);
    old.addresses.push("fd00:1::1/16".parse()?);
    old.own_subnets = vec![
        "10.254.7.0/24".parse()?,
        "10.255.107.0/24".parse()?,
        "10.255.108.0/25".parse()?,
        "fd00:1::/64".parse()?,
    ];
    old.silk_routes = true;
    device(&host, index, old)?.configure()?;
    // Another daemon's in this namespace.
    host.ip("route add unreachable 10.200.1.0/24 proto 83")?;
    host.ip("address add 192.0.2.1/24 dev silk-vtep")?;
    let mut device = device(&host, index, device_spec())?;
    let mended = device.configure()?;
    for old in ["10.254.7.0/16", "10.255.107.0/16"] {
        holds(
            mended.contains(&Mended::OldAddress(old.parse()?)),
            format_args!("{mended:?}"),
        )?;
    }
    same(device.configure()?, vec![], "the second time")?;
    host.ip("address del 192.0.2.1/24 dev silk-vtep")?;
    host.ip("route del unreachable 10.200.1.0/24 proto 83")?;
    same(host.ip_lines("-6 route show"), vec![], "IPv6 routes")?;
    check_configured(&host)
}

pub(crate) fn configure_sets_up_an_ipv6_overlay() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    let mut spec = device_spec();
    spec.addresses.push("fd00:1::1/32".parse()?);
    spec.overlays.push("fd00::/16".parse()?);
    spec.own_subnets.push("fd00:1::/64".parse()?);
    let mut device = device(&host, index, spec)?;
    let mended = device.configure()?;
    holds(
        !mended.contains(&Mended::Ipv6 { was_on: true }),
        "IPv6 was switched off",
    )?;
    same(device.configure()?, vec![], "the second time")?;
    let shown = host.ip_json("-6 route show")?;
    let overlay = shown
        .iter()
        .find(|route| route["dst"] == "fd00::/16")
        .ok_or("no overlay route")?;
    same(&overlay["gateway"], &json!("fe80::2"), "gateway")?;
    same(&overlay["prefsrc"], &json!("fd00:1::1"), "source")?;
    let own = shown
        .iter()
        .find(|route| route["dst"] == "fd00:1::/64")
        .ok_or("no own route")?;
    same(&own["type"], &json!("unreachable"), "own subnet")?;
    let connected = shown.iter().find(|route| route["dst"] == "fd00::/32");
    same(connected, None, "prefix route")?;
    let address = host.ip_lines("-6 -o address show dev silk-vtep to fd00::/16");
    holds(
        address[0].contains("nodad") && !address[0].contains("tentative"),
        format_args!("{address:?}"),
    )?;
    host.namespace
        .set_sysctl("net/ipv6/conf/silk-vtep/disable_ipv6", "1")?;
    same(
        device.configure()?.len(),
        3,
        "IPv6 on, address and route again",
    )?;
    device.remove()?;
    same(
        host.ip_lines("-6 route show"),
        vec![],
        "IPv6 routes after removal",
    )
}

pub(crate) fn configure_leaves_another_devices_route_alone() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    host.pair("other")?;
    host.ip("route add 10.255.0.0/16 dev other")?;
    let mut device = device(&host, index, device_spec())?;
    let error = device
        .configure()
        .err()
        .ok_or("it was configured")?
        .to_string();
    let expected = "configure silk-vtep: add route 10.255.0.0/16: RTM_NEWROUTE: EEXIST";
    holds(error.starts_with(expected), &error)?;
    let others = "10.255.0.0/16 dev other scope link".to_owned();
    holds(
        shown_routes(&host).contains(&others),
        "the other route is gone",
    )
}

pub(crate) fn remove_leaves_nothing_but_what_was_there() -> Outcome {
    let host = Ns::new("host")?;
    host.ip("route add unreachable 10.255.109.0/24")?;
    let before = (shown_routes(&host), host.ip_lines("-o link show"));
    let index = tap(&host)?;
    let mut spec = device_spec();
    spec.own_subnets.push("10.255.109.0/24".parse()?);
    device(&host, index, spec.clone())?.configure()?;
    // Another process, after a crash, knows ours from the administrator's.
    let mut device = device(&host, index, spec)?;
    same(device.configure()?, vec![], "after a restart")?;
    device.remove()?;
    same(
        (shown_routes(&host), host.ip_lines("-o link show")),
        before,
        "the host",
    )?;
    device.remove()?;
    Ok(())
}

pub(crate) fn tells_a_deleted_link_from_other_errors() -> Outcome {
    let host = Ns::new("host")?;
    let index = tap(&host)?;
    let mut device = device(&host, index, device_spec())?;
    device.configure()?;
    host.ip("link del silk-vtep")?;
    let gone = Err(DeviceError::Gone("silk-vtep".to_owned()));
    same(device.configure(), gone, "after deletion")?;
    device.remove()?;
    same(shown_routes(&host), vec![], "routes after removal")?;

    let index = tap(&host)?;
    let mut spec = device_spec();
    spec.mtu_bytes = 1 << 20;
    let mut device = Device::new(host.netlink()?, index, spec);
    match device.configure() {
        Err(DeviceError::Setup(error)) => holds(error.cause.contains("set MTU 1048576"), &error),
        other => Err(format!("{other:?}").into()),
    }
}
