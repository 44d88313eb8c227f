//! CHECK, and the command line's `container check`, which is the same.

use std::fs;

use serde_json::{Value, json};

use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Namespace, Plan, Result, ensure};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk])
            .cold()
            .programs(&["/usr/lib/cni/host-local"]);
        Case::new(format!("check::{name}"), plan, body)
    };
    vec![
        case("every_deviation_is_named", every_deviation_is_named),
        case(
            "what_it_needs_beside_the_links_is_named",
            surroundings_are_named,
        ),
        case("more_than_was_made_is_no_deviation", more_is_no_deviation),
        case("all_deviations_are_named_at_once", all_at_once),
    ]
}

/// Where something is broken.
#[derive(Clone, Copy)]
enum At {
    Host,
    Container,
}

/// What is done by iproute2, and what is then said.
const BROKEN: &[(At, &str, &str)] = &[
    (
        At::Host,
        "link set s-010255108002 down",
        "s-010255108002 is down",
    ),
    (At::Container, "link set eth0 down", "eth0 is down"),
    (
        At::Container,
        "link set eth0 down",
        "s-010255108002 has no carrier",
    ),
    (
        At::Host,
        "link set s-010255108002 mtu 1400",
        "s-010255108002 has MTU 1400, not 1450",
    ),
    (
        At::Container,
        "link set eth0 mtu 1300",
        "eth0 has MTU 1300, not 1450",
    ),
    (
        At::Container,
        "link set eth0 address 02:00:00:00:00:01",
        "eth0 has MAC 02:00:00:00:00:01, not ee:ee:0a:ff:6c:02",
    ),
    (
        At::Host,
        "link set s-010255108002 address 02:00:00:00:00:01",
        "s-010255108002 has MAC 02:00:00:00:00:01, not aa:aa:0a:ff:6c:02",
    ),
    (At::Container, "link set eth0 arp on", "eth0 is not NOARP"),
    (
        At::Container,
        "link set eth0 gso_max_segs 3",
        "eth0 has gso_max_segs 3, not 44",
    ),
    (
        At::Container,
        "link set eth0 gso_max_size 30000",
        "eth0 has gso_max_size 30000, not 64312",
    ),
    (
        At::Container,
        "addr del 10.255.108.2/32 peer 169.254.0.1/32 dev eth0",
        "eth0 lacks address 10.255.108.2",
    ),
    (
        At::Host,
        "addr del 169.254.0.1/32 peer 10.255.108.2/32 dev s-010255108002",
        "s-010255108002 lacks address 169.254.0.1",
    ),
    (
        At::Container,
        "neigh del 169.254.0.1 dev eth0",
        "eth0 lacks permanent neighbor 169.254.0.1 lladdr aa:aa:0a:ff:6c:02",
    ),
    (
        At::Host,
        "neigh del 10.255.108.2 dev s-010255108002",
        "s-010255108002 lacks permanent neighbor 10.255.108.2 lladdr ee:ee:0a:ff:6c:02",
    ),
    (
        At::Host,
        "neigh replace 10.255.108.2 lladdr 02:00:00:00:00:02 dev s-010255108002 nud permanent",
        "has neighbor 10.255.108.2 lladdr 02:00:00:00:00:02, not ee:ee:0a:ff:6c:02",
    ),
    (
        At::Host,
        "neigh replace 10.255.108.2 lladdr ee:ee:0a:ff:6c:02 dev s-010255108002 nud reachable",
        "s-010255108002 lacks permanent neighbor 10.255.108.2",
    ),
    (
        At::Container,
        "route del default",
        "eth0 lacks the default route of IPv4",
    ),
    (
        At::Container,
        "route replace default dev eth0",
        "eth0 lacks the default route of IPv4",
    ),
    (
        At::Container,
        "route del 169.254.0.1/32 dev eth0",
        "eth0 lacks route 169.254.0.1/32",
    ),
    (
        At::Host,
        "route del 10.255.108.2/32 dev s-010255108002",
        "s-010255108002 lacks route 10.255.108.2/32",
    ),
    (
        At::Container,
        "link set eth0 name eth7",
        "link eth0 is missing",
    ),
    (
        At::Host,
        "link del s-010255108002",
        "link s-010255108002 is missing",
    ),
    (At::Container, "link del eth0", "link eth0 is missing"),
];

/// Switches, and what is then said.
const SWITCHED: &[(At, &str, &str, &str)] = &[
    (
        At::Host,
        "ipv4/conf/s-010255108002/rp_filter",
        "0",
        "net.ipv4.conf.s-010255108002.rp_filter is 0, not 1",
    ),
    (
        At::Container,
        "ipv4/conf/eth0/rp_filter",
        "2",
        "net.ipv4.conf.eth0.rp_filter is 2, not 1",
    ),
    (
        At::Host,
        "ipv6/conf/s-010255108002/disable_ipv6",
        "0",
        "net.ipv6.conf.s-010255108002.disable_ipv6 is 0, not 1",
    ),
    (
        At::Container,
        "ipv6/conf/eth0/disable_ipv6",
        "0",
        "net.ipv6.conf.eth0.disable_ipv6 is 0, not 1",
    ),
    (
        At::Host,
        "ipv4/ip_forward",
        "0",
        "net.ipv4.ip_forward is 0, not 1",
    ),
];

fn every_deviation_is_named(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.args = "IP=10.255.108.2".to_owned();
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let place = |at| match at {
        At::Host => &*host,
        At::Container => &web.namespace,
    };
    for &(at, command, said) in BROKEN {
        let breaking = || place(at).ip(command).map(drop);
        named(lab, &plugin, &web, &breaking, said)
            .map_err(|error| format!("{command}: {error}"))?;
        // What a rename leaves is not the plugin's to find by its name.
        let _ = web.namespace.ip("link del eth7");
        plugin.del(&web)?;
        plugin.left_no_trace(&[&web])?;
    }
    for &(at, switch, value, said) in SWITCHED {
        let breaking = || set(place(at), switch, value);
        named(lab, &plugin, &web, &breaking, said)?;
        set(&host, "ipv4/ip_forward", "1")?;
        plugin.del(&web)?;
    }
    Ok(())
}

fn set(namespace: &Namespace, switch: &str, value: &str) -> Result {
    namespace.run(|| Ok(fs::write(format!("/proc/sys/net/{switch}"), value)?))
}

/// Both ways to ask are silent before `breaking`, and say `said` after it.
fn named(
    lab: &mut Lab,
    plugin: &Plugin,
    web: &Sandbox,
    breaking: &dyn Fn() -> Result,
    said: &str,
) -> Result {
    let result = plugin.add(web)?;
    plugin.call_after("CHECK", web, &result)?.silent("CHECK")?;
    let command = format!(
        "container check --address 10.255.108.2 --netns {}",
        web.netns
    );
    let silent = lab.cells[0].daemon()?.ctl(&command)?;
    ensure!(silent.is_empty(), "container check: {silent}");
    breaking()?;
    let answer = plugin.call_after("CHECK", web, &result)?;
    answer.refused(100, said)?;
    ensure!(answer.text("msg") == "check container", "{answer:?}");
    let told = lab.cells[0].daemon()?.ctl(&command);
    let told = told
        .err()
        .ok_or("container check found nothing")?
        .to_string();
    ensure!(told.contains(said), "no `{said}` in `{told}`");
    Ok(())
}

fn surroundings_are_named(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let web = Sandbox::new("web")?;
    let result = plugin.add(&web)?;
    for path in [both, ours] {
        plugin.path = path;
        plugin.call_after("CHECK", &web, &result)?.silent("CHECK")?;
        let reservation = plugin.ipam_dir().join("10.255.108.2");
        fs::rename(&reservation, plugin.directory().join("aside"))?;
        let check = plugin.call_after("CHECK", &web, &result)?;
        check.refused(
            100,
            "10.255.108.2 is not reserved for eth0 of container web",
        )?;
        fs::rename(plugin.directory().join("aside"), &reservation)?;
    }
    // DEL goes by what the link says of whose it is.
    let host = lab.cells[0].host.clone();
    host.ip("link set s-010255108002 alias others")?;
    let check = plugin.call_after("CHECK", &web, &result)?;
    check.refused(
        100,
        "s-010255108002 has alias others, not silk-vtep cni silk/web/eth0",
    )?;
    let mut mend = host.command("ip");
    mend.args(["link", "set", "s-010255108002", "alias"]);
    let mended = mend.arg("silk-vtep cni silk/web/eth0").status()?;
    ensure!(mended.success(), "{mended}");
    plugin.call_after("CHECK", &web, &result)?.silent("CHECK")?;
    let store = fs::read(plugin.store())?;
    fs::write(plugin.store(), "{}\n")?;
    let check = plugin.call_after("CHECK", &web, &result)?;
    check.refused(100, "datastore has no entry for 10.255.108.2")?;
    fs::write(plugin.store(), store)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.request(&json!({ "container": { "del": { "address": "10.255.108.2" } } }))?;
    let check = plugin.call_after("CHECK", &web, &result)?;
    check.refused(100, "the daemon does not know 10.255.108.2")?;
    lab.cells[0].daemon()?.terminate()?;
    let check = plugin.call_after("CHECK", &web, &result)?;
    check.refused(100, "discover network info")?;
    plugin.del(&web)
}

fn more_is_no_deviation(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    let result = plugin.add(&web)?;
    web.namespace.ip_batch(
        "addr add 10.99.0.1/24 dev eth0\n\
         route add 10.98.0.0/16 via 169.254.0.1 dev eth0\n\
         neigh add 10.99.0.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
         link add more type veth peer name less\n",
    )?;
    plugin.call_after("CHECK", &web, &result)?.silent("CHECK")?;
    // A chained plugin adds an interface of its own to the result.
    let mut more = result.clone();
    let interfaces = more["interfaces"].as_array_mut().ok_or("no interfaces")?;
    interfaces.push(json!({ "name": "bwp0", "mac": "02:00:00:00:00:01" }));
    plugin.call_after("CHECK", &web, &more)?.silent("CHECK")?;
    plugin.del(&web)
}

fn all_at_once(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    let result: Value = plugin.add(&web)?;
    web.namespace.ip("route del default")?;
    web.namespace.ip("link set eth0 mtu 1300")?;
    let check = plugin.call_after("CHECK", &web, &result)?;
    check.refused(
        100,
        "eth0 has MTU 1300, not 1450; eth0 lacks the default route of IPv4",
    )?;
    // In JSON, each by itself.
    let daemon = lab.cells[0].daemon()?;
    let command = format!(
        "-j container check --address 10.255.108.2 --netns {}",
        web.netns
    );
    let told = daemon
        .ctl(&command)
        .err()
        .ok_or("nothing found")?
        .to_string();
    let list = r#"["eth0 has MTU 1300, not 1450","eth0 lacks the default route of IPv4"]"#;
    ensure!(told.contains(list), "{told}");
    plugin.del(&web)
}
