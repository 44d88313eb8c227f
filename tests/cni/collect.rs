//! GC: what is left of containers that are gone.

use serde_json::json;

use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure, ping};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk])
            .cold()
            .programs(&["/usr/lib/cni/host-local"]);
        Case::new(format!("collect::{name}"), plan, body)
    };
    vec![
        case("what_is_not_listed_goes", what_is_not_listed_goes),
        case("what_host_local_reserved_goes_too", host_locals_goes),
        case("without_a_list_nothing_goes", nothing_without_a_list),
    ]
}

const LIST: &str = "cni.dev/valid-attachments";

fn what_is_not_listed_goes(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of(&host)?;
    let sandboxes = ["kept", "gone", "linkless"].map(Sandbox::new);
    let [kept, gone, linkless] = sandboxes;
    let (kept, gone, linkless) = (kept?, gone?, linkless?);
    for sandbox in [&kept, &gone, &linkless] {
        plugin.add(sandbox)?;
    }
    host.ip("link del s-010255108004")?;
    // Of another network on the same directories.
    plugin.set("name", "other");
    let other = Sandbox::new("other")?;
    plugin.args = "IP=10.255.108.99".to_owned();
    plugin.add(&other)?;
    plugin.args.clear();
    plugin.set("name", "silk");

    plugin.set(LIST, json!([{ "containerID": "kept", "ifname": "eth0" }, { "containerID": "gone", "ifname": "eth7" }]));
    plugin.call_network("GC")?.silent("GC")?;
    plugin.call_network("GC")?.silent("GC")?;
    ensure!(
        plugin.reserved()? == ["10.255.108.2"],
        "{:?}",
        plugin.reserved()?
    );
    let stored = plugin.stored()?;
    ensure!(
        stored.as_object().is_some_and(|all| all.len() == 2),
        "{stored}"
    );
    ensure!(gone.links()? == ["lo"], "{:?}", gone.links()?);
    ping(&kept.namespace, lab.cells[0].site.vtep, 3, "")?;
    ping(&other.namespace, lab.cells[0].site.vtep, 3, "")?;
    let known = lab.cells[0]
        .daemon()?
        .request(&json!({ "container": "list" }))?;
    ensure!(
        known.as_array().is_some_and(|all| all.len() == 2),
        "{known}"
    );

    plugin.set(LIST, json!([]));
    plugin.call_network("GC")?.silent("GC")?;
    plugin.set("name", "other");
    plugin.call_network("GC")?.silent("GC")?;
    plugin.set("name", "silk");
    plugin.left_nothing(&before, &[&kept, &gone, &linkless, &other])
}

fn host_locals_goes(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    // Killed before it had made a link.
    std::fs::write(plugin.ipam_dir().join("10.255.108.50"), "killed\r\neth0")?;
    // As an older host-local wrote it; its container has a link by another name.
    std::fs::write(plugin.ipam_dir().join("10.255.108.51"), "older")?;
    plugin.set(LIST, json!([{ "containerID": "older", "ifname": "net1" }]));
    plugin.call_network("GC")?.silent("GC")?;
    ensure!(
        plugin.reserved()? == ["10.255.108.51"],
        "{:?}",
        plugin.reserved()?
    );
    plugin.set(LIST, json!([]));
    plugin.call_network("GC")?.silent("GC")?;
    plugin.left_no_trace(&[&web])
}

fn nothing_without_a_list(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let web = Sandbox::new("web")?;
    plugin.add(&web)?;
    plugin.call_network("GC")?.refused(7, LIST)?;
    plugin.set(LIST, json!([{ "containerID": "web" }]));
    plugin
        .call_network("GC")?
        .refused(7, "without `containerID` or `ifname`")?;
    ping(&web.namespace, lab.cells[0].site.vtep, 3, "")?;
    plugin.del(&web)
}
