//! The daemon beside the plugin: asked, told, absent, Silk's.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Namespace, Plan, Result, Snapshot, ensure};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("daemon::{name}"), Plan::of(&[Silk]).cold(), body)
    };
    vec![
        case("it_knows_each_container", it_knows_each_container),
        case(
            "it_knows_a_container_until_its_link_is_gone",
            failed_del_is_not_told,
        ),
        case("silks_answer_over_http_will_do", silks_answer_will_do),
        case(
            "its_mtu_holds_unless_one_is_configured",
            mtu_may_be_configured,
        ),
        case("without_it_add_fails_and_leaves_nothing", without_it),
        Case::new(
            "daemon::a_refusal_takes_everything_back",
            Plan::of(&[Silk, Silk]).cold(),
            refusal_takes_back,
        ),
        case("status_says_whether_add_would_do", status_says_whether),
        case("a_lease_of_one_address_is_refused_clearly", single_address),
        Case::new(
            "daemon::an_ipv6_prefix_of_another_cell_is_refused_first",
            Plan::of(&[Silk]).overlay_v6().cold(),
            foreign_subnet6,
        ),
    ]
}

fn rows(lab: &mut Lab) -> Result<Vec<Value>> {
    let rows = lab.cells[0]
        .daemon()?
        .request(&json!({ "container": "list" }))?;
    Ok(rows.as_array().cloned().unwrap_or_default())
}

fn it_knows_each_container(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    let known = rows(lab)?;
    ensure!(known.len() == 1, "{known:?}");
    for (key, value) in [
        ("id", "web"),
        ("ifname", "eth0"),
        ("address", "10.255.108.2"),
        ("netns", &web.netns),
        ("host_link", "s-010255108002"),
    ] {
        ensure!(known[0][key] == value, "{key}: {known:?}");
    }
    plugin.del(&web)?;
    ensure!(rows(lab)?.is_empty(), "{:?}", rows(lab)?);
    // One that it found in the kernel after a restart is forgotten by its address.
    plugin.add(&web)?;
    lab.cells[0].daemon()?.terminate()?;
    lab.cells[0].daemon()?.start()?;
    ensure!(rows(lab)?.len() == 1, "{:?}", rows(lab)?);
    plugin.del(&web)?;
    ensure!(rows(lab)?.is_empty(), "{:?}", rows(lab)?);
    Ok(())
}

/// A DEL that fails has taken nothing from the daemon; the next one does.
fn failed_del_is_not_told(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    // What stands in the link's place is none of ours.
    host.ip("link del s-010255108002")?;
    host.ip("tuntap add dev s-010255108002 mode tap")?;
    plugin.call("DEL", &web)?.refused(100, "is no veth")?;
    ensure!(rows(lab)?.len() == 1, "{:?}", rows(lab)?);
    ensure!(plugin.reserved()?.len() == 1, "{:?}", plugin.reserved()?);
    host.ip("link del s-010255108002")?;
    plugin.del(&web)?;
    ensure!(rows(lab)?.is_empty(), "{:?}", rows(lab)?);
    plugin.left_no_trace(&[&web])
}

/// Answers like Silk's daemon on a port of the loopback in `host`, until its namespace's last socket goes.
pub(crate) fn silks_daemon(host: &Namespace, subnet: &str, mtu: u32) -> Result<u16> {
    let body = json!({ "overlay_subnet": subnet, "mtu": mtu }).to_string();
    http_server(host, move |_| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{body}"
        )
    })
}

fn http_server(host: &Namespace, answer: impl Fn(&str) -> String + Send + 'static) -> Result<u16> {
    let listener = host.run(|| Ok(TcpListener::bind(("127.0.0.1", 0))?))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            // A plugin that went away is the test's to notice.
            let _ = stream.write_all(answer(&request).as_bytes());
        }
    });
    Ok(port)
}

fn silks_answer_will_do(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    plugin.set("socket", Value::Null);
    plugin.set("daemonPort", silks_daemon(&host, "10.255.108.0/24", 1300)?);
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    plugin.add(&web)?;
    let link = web.namespace.ip("link show eth0")?;
    ensure!(link.contains("mtu 1300"), "{link}");
    // It may be Silk's, and is told nothing.
    ensure!(rows(lab)?.is_empty(), "{:?}", rows(lab)?);
    plugin.del(&web)?;
    // With the socket beside the port our daemon is told.
    let socket = plugin.socket().to_owned();
    plugin.set("socket", socket.to_str());
    plugin.add(&web)?;
    ensure!(rows(lab)?.len() == 1, "{:?}", rows(lab)?);
    plugin.del(&web)?;
    plugin.left_nothing(&before, &[&web])?;
    let port = http_server(&host, |_| "HTTP/1.1 503 Busy\r\n\r\n".to_owned())?;
    plugin.set("daemonPort", port);
    plugin
        .call("ADD", &web)?
        .refused(100, "discover network info")?;
    plugin.left_nothing(&before, &[&web])
}

fn mtu_may_be_configured(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    for (mtu, made) in [(0, 1450), (1280, 1280)] {
        plugin.set("mtu", mtu);
        let result = plugin.add(&web)?;
        let link = web.namespace.ip("link show eth0")?;
        ensure!(link.contains(&format!("mtu {made} ")), "{link}");
        plugin.call_after("CHECK", &web, &result)?.silent("CHECK")?;
        plugin.del(&web)?;
    }
    Ok(())
}

fn without_it(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    lab.cells[0].daemon()?.terminate()?;
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let answer = plugin.call("ADD", &web)?;
    answer.refused(100, "discover network info")?;
    ensure!(
        answer.text("details").contains(
            "nobody listens (is silk-vtep running? `socket` in the network's configuration"
        ),
        "{answer:?}"
    );
    plugin.left_nothing(&before, &[&web])
}

fn refusal_takes_back(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    // One daemon says what to wire with, and another, of the other cell, is told.
    plugin.set("daemonPort", silks_daemon(&host, "10.255.108.0/24", 1410)?);
    let other = Plugin::new(lab, 1)?;
    plugin.set("socket", other.socket().to_str());
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let answer = plugin.call("ADD", &web)?;
    answer.refused(100, "register container")?;
    ensure!(
        answer.text("details").contains("no link s-010255108002"),
        "{answer:?}"
    );
    plugin.left_nothing(&before, &[&web])
}

fn status_says_whether(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    plugin.call_network("STATUS")?.silent("STATUS")?;
    plugin.set("subnet", "10.255.108.0/30");
    let (only, more) = (Sandbox::new("only")?, Sandbox::new("more")?);
    plugin.add(&only)?;
    plugin
        .call_network("STATUS")?
        .refused(50, "no IP addresses available")?;
    plugin
        .call("ADD", &more)?
        .refused(100, "no IP addresses available")?;
    lab.cells[0].daemon()?.terminate()?;
    // Its containers are cut off from the other cells.
    plugin
        .call_network("STATUS")?
        .refused(51, "limited connectivity")?;
    // So are they where somebody else says what to wire with.
    let host = lab.cells[0].host.clone();
    let port = silks_daemon(&host, "10.255.108.0/24", 1450)?;
    plugin.set("daemonPort", port);
    plugin
        .call_network("STATUS")?
        .refused(51, "register container")?;
    plugin.del(&only)?;
    plugin
        .call_network("STATUS")?
        .refused(50, "register container")?;
    plugin.set("daemonPort", Value::Null);
    plugin
        .call_network("STATUS")?
        .refused(50, "is silk-vtep running?")
}

fn single_address(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    for (subnet, said) in [
        ("10.255.108.7/32", "the cell's only address"),
        ("10.255.108.6/31", "too small"),
        ("10.255.108.7/24", "has host bits"),
        ("fd00::/64", "not of IPv4"),
    ] {
        plugin.set("daemonPort", silks_daemon(&host, subnet, 1410)?);
        let answer = plugin.call("ADD", &web)?;
        answer.refused(100, said)?;
        ensure!(answer.text("msg") == "generate ipam config", "{answer:?}");
    }
    plugin.left_no_trace(&[&web])
}

/// Before anything is wired: nothing is reserved meanwhile, and the last address given is not moved on.
fn foreign_subnet6(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let host = lab.cells[0].host.clone();
    let subnet = lab.cells[0].site.subnet_v6();
    let network = lab.cells[0].daemon()?.request(&json!("network"))?;
    ensure!(network["overlay_subnet6"] == subnet, "{network}");
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let said = format!("`subnet6` fd00:b::/64 is not inside the cell's, {subnet}");
    let port = silks_daemon(&host, "10.255.108.0/24", 1450)?;
    for port in [Value::Null, port.into()] {
        plugin.set("daemonPort", port);
        plugin.set("subnet6", "fd00:b::/64");
        plugin.call("ADD", &web)?.refused(7, &said)?;
        plugin.call_network("STATUS")?.refused(50, &said)?;
        let touched = plugin.ipam_dir().exists();
        ensure!(!touched, "something was reserved");
        plugin.left_nothing(&before, &[&web])?;
    }
    plugin.set("subnet6", subnet);
    plugin.call_network("STATUS")?.silent("STATUS")?;
    plugin.add(&web)?;
    plugin.del(&web)
}
