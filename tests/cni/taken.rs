//! Addresses that are reserved for nobody, and taken all the same: ADD gives the next.

use std::path::Path;

use super::plugin::{Plugin, address_of};
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Namespace, Plan, Result, Snapshot, ensure, ping};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk])
            .cold()
            .programs(&["/usr/lib/cni/host-local"]);
        Case::new(format!("taken::{name}"), plan, body)
    };
    vec![
        case("add_passes_over_what_others_have", passed_over),
        case(
            "one_that_is_asked_for_is_refused_with_its_holder",
            asked_for,
        ),
        case("host_locals_attempts_have_an_end", attempts_end),
        case("status_counts_what_is_taken", status_counts),
    ]
}

fn by_hand(lab: &mut Lab, inside: &Namespace, last: u8) -> Result {
    let added = format!("container add --address 10.255.108.{last} --netns {inside}");
    lab.cells[0].daemon()?.ctl(&added).map(drop)
}

fn passed_over(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of(&host)?;
    let inside = Namespace::new()?;
    by_hand(lab, &inside, 2)?;
    // Of another network on the same subnet, whose reservations are in a directory of its own.
    let (other, web) = (Sandbox::new("other")?, Sandbox::new("web")?);
    plugin.set("name", "other");
    plugin.args = "IP=10.255.108.3".to_owned();
    plugin.add(&other)?;
    plugin.args.clear();
    plugin.set("name", "silk");
    // By iproute2, under a name of its own; and one that the host has itself.
    host.ip_batch(
        "link add hand type veth peer name hand-p\n\
         addr add 169.254.0.1/32 peer 10.255.108.4/32 dev hand\n\
         addr add 10.255.108.5/32 dev hand\n",
    )?;
    let with_these = Snapshot::of(&host)?;
    for path in [&ours, &both] {
        plugin.path.clone_from(path);
        let address = address_of(&plugin.add(&web)?)?;
        ensure!(address.octets()[3] == 6, "it got {address}");
        ping(&web.namespace, lab.cells[0].site.vtep, 3, "")?;
        let reserved = plugin.reserved()?;
        ensure!(reserved == ["10.255.108.6"], "{reserved:?}");
        plugin.del(&web)?;
        with_these.same_as(&Snapshot::of(&host)?)?;
        // From the beginning again.
        std::fs::remove_file(plugin.ipam_dir().join("last_reserved_ip.0"))?;
    }
    host.ip("link del hand")?;
    let daemon = lab.cells[0].daemon()?;
    daemon.ctl("container del --address 10.255.108.2")?;
    plugin.set("name", "other");
    plugin.del(&other)?;
    plugin.set("name", "silk");
    plugin.left_nothing(&before, &[&web, &other])
}

fn asked_for(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let host = lab.cells[0].host.clone();
    let (inside, web) = (Namespace::new()?, Sandbox::new("web")?);
    by_hand(lab, &inside, 77)?;
    let before = Snapshot::of(&host)?;
    plugin.args = "IP=10.255.108.77".to_owned();
    for path in [&ours, &both] {
        plugin.path.clone_from(path);
        let answer = plugin.call("ADD", &web)?;
        answer.refused(100, "link s-010255108077 exists")?;
        ensure!(answer.text("msg") == "run ipam plugin", "{answer:?}");
        ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
        ensure!(web.links()? == ["lo"], "{:?}", web.links()?);
        before.same_as(&Snapshot::of(&host)?)?;
    }
    Ok(())
}

/// A host with more links of others than host-local is asked about in one ADD: it is told, and the next ADD goes on from there.
fn attempts_end(lab: &mut Lab) -> Result {
    const FIRST: u8 = 2;
    const LINKS: u8 = 18;
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let links: String = (FIRST..FIRST + LINKS)
        .map(|last| format!("link add s-010255108{last:03} type veth peer name p{last}\n"))
        .collect();
    host.ip_batch(&links)?;
    plugin.path = both;
    let answer = plugin.call("ADD", &web)?;
    answer.refused(100, "host-local gives addresses that are taken without")?;
    for last in ["2", "17"] {
        let named = format!("10.255.108.{last} (link s-");
        ensure!(answer.text("details").contains(&named), "{answer:?}");
    }
    ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
    let address = address_of(&plugin.add(&web)?)?;
    ensure!(address.octets()[3] == FIRST + LINKS, "it got {address}");
    plugin.del(&web)?;
    // The plugin itself finds it at once.
    plugin.path = ours;
    std::fs::remove_file(plugin.ipam_dir().join("last_reserved_ip.0"))?;
    let address = address_of(&plugin.add(&web)?)?;
    ensure!(address.octets()[3] == FIRST + LINKS, "it got {address}");
    plugin.del(&web)
}

fn status_counts(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    plugin.set("subnet", "10.255.108.0/30");
    let (inside, web) = (Namespace::new()?, Sandbox::new("web")?);
    plugin.call_network("STATUS")?.silent("STATUS")?;
    by_hand(lab, &inside, 2)?;
    let said = "1 are taken without a reservation, the first 10.255.108.2: link s-010255108002";
    plugin.call_network("STATUS")?.refused(50, said)?;
    plugin.call("ADD", &web)?.refused(100, said)?;
    ensure!(!Path::new(&plugin.store()).exists(), "a store was written");
    Ok(())
}
