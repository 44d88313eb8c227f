//! Addresses: by host-local, by ourselves, by both in turn.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use super::plugin::{Plugin, address_of};
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, ensure};

const HOST_LOCAL: &str = "/usr/lib/cni/host-local";

/// Attached at once.
const MANY: usize = 200;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk]).cold().programs(&[HOST_LOCAL]);
        Case::new(format!("address::{name}"), plan, body)
    };
    vec![
        case("both_follow_each_other_on_one_directory", follow_each_other),
        case("files_are_those_of_host_local", files_are_the_same),
        case("two_hundred_at_once_get_two_hundred", many_at_once),
        case("one_may_be_asked_for", one_may_be_asked_for),
        case("none_left_is_said", none_left_is_said),
        case("host_local_that_fails_leaves_nothing", host_local_fails),
    ]
}

fn last_octet(result: &Value) -> Result<u8> {
    Ok(address_of(result)?.octets()[3])
}

fn follow_each_other(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let mut sandboxes = Vec::new();
    for (id, path, expected) in [
        ("a", &both, 2),
        ("b", &ours, 3),
        ("c", &both, 4),
        ("d", &ours, 5),
    ] {
        plugin.path = path.clone();
        let sandbox = Sandbox::new(id)?;
        let last = last_octet(&plugin.add(&sandbox)?)?;
        ensure!(last == expected, "{id} got {last}");
        sandboxes.push(sandbox);
    }
    // Each removes what the other made, and knows what the other has.
    for (sandbox, path) in sandboxes.iter().zip([&ours, &both, &both, &ours]) {
        plugin.path = path.clone();
        plugin
            .call("ADD", sandbox)?
            .refused(100, "duplicate allocation")?;
        plugin.del(sandbox)?;
    }
    plugin.left_no_trace(&sandboxes.iter().collect::<Vec<_>>())
}

/// The same containers come and go in two directories, one with host-local, one without.
fn files_are_the_same(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let sandboxes = ["a", "b", "c"].map(Sandbox::new);
    let mut seen = Vec::new();
    for (path, directory) in [(both, "theirs"), (ours, "ours")] {
        plugin.path = path;
        let data_dir = plugin.directory().join(directory);
        plugin.set("dataDir", data_dir.to_str());
        for sandbox in &sandboxes {
            plugin.add(sandbox.as_ref().map_err(ToString::to_string)?)?;
        }
        plugin.del(sandboxes[1].as_ref().map_err(ToString::to_string)?)?;
        seen.push(files(&plugin.ipam_dir())?);
        for sandbox in &sandboxes {
            plugin.del(sandbox.as_ref().map_err(ToString::to_string)?)?;
        }
        seen.push(files(&plugin.ipam_dir())?);
    }
    ensure!(
        seen[0] == seen[2],
        "theirs {:?}\nours {:?}",
        seen[0],
        seen[2]
    );
    ensure!(
        seen[1] == seen[3],
        "theirs {:?}\nours {:?}",
        seen[1],
        seen[3]
    );
    ensure!(seen[0].len() == 4, "{:?}", seen[0]);
    Ok(())
}

/// Name, mode and content of each file, and the directory's mode.
fn files(directory: &Path) -> Result<Vec<(String, u32, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata()?.permissions().mode();
        files.push((name, mode, fs::read_to_string(entry.path())?));
    }
    files.sort();
    Ok(files)
}

fn many_at_once(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let sandboxes: Vec<_> = (0..MANY)
        .map(|number| Sandbox::new(&format!("c{number}")))
        .collect::<Result<_>>()?;
    for path in [ours, both] {
        plugin.path = path;
        let results = at_once(&sandboxes, |sandbox| {
            let result = plugin.add(sandbox)?;
            address_of(&result)
        })?;
        let addresses: BTreeSet<_> = results.iter().collect();
        ensure!(addresses.len() == MANY, "{} addresses", addresses.len());
        let stored = plugin.stored()?.as_object().map_or(0, serde_json::Map::len);
        ensure!(stored == MANY, "{stored} in the store");
        let known = lab.cells[0]
            .daemon()?
            .request(&json!({ "container": "list" }))?;
        let known = known.as_array().map_or(0, Vec::len);
        ensure!(known == MANY, "the daemon knows {known}");
        at_once(&sandboxes, |sandbox| plugin.del(sandbox))?;
        plugin.left_no_trace(&[])?;
    }
    Ok(())
}

fn at_once<T: Send>(
    sandboxes: &[Sandbox],
    work: impl Fn(&Sandbox) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| scope.spawn(move || work(sandbox)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| "a thread panicked".into())
                .and_then(|result| result)
        });
        joined.collect()
    })
}

fn one_may_be_asked_for(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let (both, ours) = plugin.paths();
    let (web, other) = (Sandbox::new("web")?, Sandbox::new("other")?);
    for path in [ours, both] {
        plugin.path = path;
        let asked = [
            ("IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.255.108.77", json!({})),
            (
                "",
                json!({ "args": { "cni": { "ips": ["10.255.108.77"] } } }),
            ),
            (
                "",
                json!({ "runtimeConfig": { "ips": ["10.255.108.77/24"] } }),
            ),
        ];
        for (args, more) in asked {
            let before = plugin.config.clone();
            plugin.args = args.to_owned();
            for (key, value) in more.as_object().into_iter().flatten() {
                plugin.set(key, value.clone());
            }
            let last = last_octet(&plugin.add(&web)?)?;
            ensure!(last == 77, "{args} {more}: {last}");
            let taken = plugin.call("ADD", &other)?;
            taken.refused(100, "requested IP address 10.255.108.77 is not available")?;
            plugin.del(&web)?;
            plugin.config = before;
        }
        for (args, said) in [
            ("IP=10.255.43.5", "failed to allocate all requested IPs"),
            ("IP=fd00::5", "failed to allocate all requested IPs"),
            ("IP=10.255.108.1", "is subnet's gateway"),
        ] {
            plugin.args = args.to_owned();
            plugin.call("ADD", &web)?.refused(100, said)?;
        }
        plugin.args.clear();
        plugin.left_no_trace(&[&web, &other])?;
    }
    Ok(())
}

fn none_left_is_said(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    plugin.set("subnet", "10.255.108.8/29");
    let (both, ours) = plugin.paths();
    for path in [ours, both] {
        plugin.path = path;
        let sandboxes = ["a", "b", "c", "d", "e"].map(Sandbox::new);
        let mut kept = Vec::new();
        for sandbox in sandboxes {
            let sandbox = sandbox?;
            plugin.add(&sandbox)?;
            kept.push(sandbox);
        }
        let late = Sandbox::new("late")?;
        let refused = plugin.call("ADD", &late)?;
        refused.refused(
            100,
            "no IP addresses available in range set: 10.255.108.9-10.255.108.14",
        )?;
        ensure!(refused.text("msg") == "run ipam plugin", "{refused:?}");
        ensure!(late.links()? == ["lo"], "{:?}", late.links()?);
        plugin.del(&kept[2])?;
        plugin.add(&late)?;
        kept.push(late);
        for sandbox in &kept {
            plugin.del(sandbox)?;
        }
        plugin.left_no_trace(&kept.iter().collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A plugin in host-local's place that does what it should not.
fn host_local_fails(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let program = plugin.directory().join("bin/host-local");
    let web = Sandbox::new("web")?;
    let reserve = format!(
        "mkdir -p {0}; printf 'web\\r\\neth0' >{0}/10.255.108.2",
        plugin.ipam_dir().display()
    );
    let killed = format!("{reserve}; kill -9 $$");
    for (script, said) in [
        (killed.as_str(), "signal: 9"),
        ("exit 3", "exit status: 3"),
        ("echo nonsense", "cannot be read"),
        ("echo '{\"ips\":[]}'", "has no IPv4 address"),
        (
            "echo '{\"ips\":[{\"address\":\"fd00::2/64\"}]}'",
            "has no IPv4 address",
        ),
        ("echo '{\"code\":999,\"msg\":\"no way\"}'; exit 1", "no way"),
        // Of another cell, or the host's: what a route of a container's would take away.
        (
            "echo '{\"ips\":[{\"address\":\"10.255.43.2/24\"}]}'",
            "not of this cell's subnet",
        ),
        (
            "echo '{\"ips\":[{\"address\":\"10.255.108.0/24\"}]}'",
            "an address of this host",
        ),
    ] {
        fs::write(&program, format!("#!/bin/sh\ncat >/dev/null\n{script}\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        plugin.call("ADD", &web)?.refused(100, said)?;
        plugin.left_no_trace(&[&web])?;
    }
    // Without the right to run it, it is not there.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644))?;
    plugin.path = plugin.directory().join("bin").display().to_string();
    plugin.add(&web)?;
    plugin.del(&web)
}
