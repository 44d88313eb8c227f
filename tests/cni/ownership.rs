//! DEL and GC remove what is theirs, by whichever record is left, and nothing else.

use std::fs;

use serde_json::{Value, json};

use super::plugin::{Plugin, address_of};
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("ownership::{name}"), Plan::of(&[Silk]).cold(), body)
    };
    vec![
        case(
            "a_container_wired_by_hand_outlives_a_failed_add",
            by_hand_stays,
        ),
        case(
            "a_reservation_does_not_outweigh_what_a_link_says",
            link_wins,
        ),
        case(
            "a_link_that_says_nothing_must_lead_to_the_container",
            unsaid,
        ),
        case("ours_goes_by_what_its_link_says_alone", ours_goes),
        case("gc_goes_by_what_links_say_alone", gc_by_links),
        case(
            "another_networks_container_stays_registered",
            stays_registered,
        ),
    ]
}

fn rows(lab: &mut Lab) -> Result<Value> {
    let list = json!({ "container": "list" });
    lab.cells[0].daemon()?.request(&list)
}

fn add_by_hand(lab: &mut Lab, sandbox: &Sandbox, last: u8) -> Result {
    let (netns, ifname) = (&sandbox.netns, &sandbox.ifname);
    let add =
        format!("container add --address 10.255.108.{last} --netns {netns} --ifname {ifname}");
    lab.cells[0].daemon()?.ctl(&add).map(drop)
}

/// The name is taken, then the address: runtimes call DEL after either.
fn by_hand_stays(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    add_by_hand(lab, &web, 9)?;
    let link = host.ip("link show s-010255108009")?;
    ensure!(link.contains("alias silk-vtep container"), "{link}");
    let (before, inside) = (Snapshot::of(&host)?, Snapshot::of(&web.namespace)?);
    let known = rows(lab)?;
    let mut same_name = |lab: &mut Lab, ifname: &str, args: &str, said: &str| -> Result {
        let runtimes = Sandbox {
            id: "web".to_owned(),
            ifname: ifname.to_owned(),
            netns: web.netns.clone(),
            namespace: crate::support::Namespace::new()?,
        };
        plugin.args = args.to_owned();
        plugin.call("ADD", &runtimes)?.refused(100, said)?;
        plugin.args.clear();
        plugin.del(&runtimes)?;
        before.same_as(&Snapshot::of(&host)?)?;
        inside.same_as(&Snapshot::of(&web.namespace)?)?;
        ensure!(rows(lab)? == known, "{} and not {known}", rows(lab)?);
        Ok(())
    };
    same_name(lab, "eth0", "", "has a link eth0")?;
    same_name(lab, "eth1", "IP=10.255.108.9", "link s-010255108009 exists")
}

/// As an ADD leaves it that was killed before it saw that the address is taken.
fn link_wins(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let host = lab.cells[0].host.clone();
    let (by_hand, web) = (Sandbox::new("by-hand")?, Sandbox::new("web")?);
    add_by_hand(lab, &by_hand, 9)?;
    let (before, known) = (Snapshot::of(&host)?, rows(lab)?);
    let reserve = || -> Result {
        fs::create_dir_all(plugin.ipam_dir())?;
        Ok(fs::write(
            plugin.ipam_dir().join("10.255.108.9"),
            "web\r\neth0",
        )?)
    };
    let spared = |lab: &mut Lab| -> Result {
        before.same_as(&Snapshot::of(&host)?)?;
        ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
        ensure!(rows(lab)? == known, "{} and not {known}", rows(lab)?);
        Ok(())
    };
    reserve()?;
    plugin.del(&web)?;
    spared(lab)?;
    reserve()?;
    let mut config = plugin.config.clone();
    config["cni.dev/valid-attachments"] = json!([]);
    plugin
        .call_with("GC", &web, &config.to_string())?
        .silent("GC")?;
    spared(lab)
}

/// Links of silk-cni and of earlier versions say nothing, and nor do those that iproute2 made.
fn unsaid(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    clear_alias(&host, "s-010255108002")?;
    plugin.del(&web)?;
    plugin.left_no_trace(&[&web])?;
    // The reservation says web, and the link leads elsewhere.
    let elsewhere = Sandbox::new("elsewhere")?;
    add_by_hand(lab, &elsewhere, 9)?;
    clear_alias(&host, "s-010255108009")?;
    fs::write(plugin.ipam_dir().join("10.255.108.9"), "web\r\neth0")?;
    plugin.del(&web)?;
    ensure!(
        elsewhere.links()?.contains(&"eth0".to_owned()),
        "it is gone: {:?}",
        elsewhere.links()?
    );
    ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
    Ok(())
}

fn clear_alias(host: &crate::support::Namespace, link: &str) -> Result {
    let status = host
        .command("ip")
        .args(["link", "set", link, "alias", ""])
        .status()?;
    let shown = host.ip(&format!("link show {link}"))?;
    ensure!(status.success() && !shown.contains("alias"), "{shown}");
    Ok(())
}

/// The daemon is down, the disk forgot everything, and the runtime names no namespace.
fn ours_goes(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (mut web, other) = (Sandbox::new("web")?, Sandbox::new("other")?);
    plugin.add(&web)?;
    let address = address_of(&plugin.add(&other)?)?;
    let link = host.ip("link show s-010255108002")?;
    ensure!(link.contains("alias silk-vtep cni silk/web/eth0"), "{link}");
    fs::remove_dir_all(plugin.directory().join("data"))?;
    lab.cells[0].daemon()?.terminate()?;
    web.netns.clear();
    plugin.del(&web)?;
    ensure!(web.links()? == ["lo"], "{:?}", web.links()?);
    crate::support::ping(&host, address, 3, "")?;
    plugin.del(&other)?;
    plugin.left_no_trace(&[&web, &other])
}

/// The disk forgot everything; the list has one of two, and another network and `container add` have one each.
fn gc_by_links(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let names = ["gone", "kept", "other", "by-hand"];
    let [gone, kept, other, by_hand] = names.map(Sandbox::new);
    let (gone, kept, other, by_hand) = (gone?, kept?, other?, by_hand?);
    plugin.add(&gone)?;
    plugin.add(&kept)?;
    plugin.set("name", "other");
    plugin.add(&other)?;
    plugin.set("name", "silk");
    add_by_hand(lab, &by_hand, 9)?;
    fs::remove_dir_all(plugin.directory().join("data"))?;
    let listed = json!([{ "containerID": "kept", "ifname": "eth0" }]);
    plugin.set("cni.dev/valid-attachments", listed);
    plugin.call_network("GC")?.silent("GC")?;
    ensure!(gone.links()? == ["lo"], "{:?}", gone.links()?);
    for sandbox in [&kept, &other, &by_hand] {
        ensure!(sandbox.links()? != ["lo"], "{} is gone", sandbox.id);
    }
    let known = rows(lab)?;
    ensure!(
        known.as_array().is_some_and(|rows| rows.len() == 3),
        "{known}"
    );
    plugin.del(&kept)?;
    plugin.set("name", "other");
    plugin.del(&other)?;
    let del = "container del --address 10.255.108.9";
    lab.cells[0].daemon()?.ctl(del)?;
    plugin.set("name", "silk");
    plugin.left_no_trace(&[&gone, &kept, &other, &by_hand])
}

/// One container id and link name in two networks: a runtime's, after an ADD that failed.
fn stays_registered(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    let known = rows(lab)?;
    plugin.set("name", "other");
    plugin.call("ADD", &web)?.refused(100, "has a link eth0")?;
    plugin.del(&web)?;
    ensure!(rows(lab)? == known, "{} and not {known}", rows(lab)?);
    plugin.set("name", "silk");
    plugin.del(&web)?;
    ensure!(rows(lab)? == json!([]), "{}", rows(lab)?);
    plugin.left_no_trace(&[&web])
}
