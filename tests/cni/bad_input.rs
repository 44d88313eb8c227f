//! What no runtime should say, and disks that do not do their part: the right error, nothing half done, nothing lost.

use std::fs;

use serde_json::{Value, json};

use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, Snapshot, ensure, ping};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk])
            .cold()
            .programs(&["/usr/lib/cni/host-local"]);
        Case::new(format!("bad_input::{name}"), plan, body)
    };
    vec![
        case("configurations", configurations),
        case(
            "a_configuration_that_was_spoilt_since",
            spoilt_configuration,
        ),
        case("variables", variables),
        case("names_that_are_taken", names_that_are_taken),
        case("previous_results", previous_results),
        case("a_full_disk", full_disk),
        case("a_read_only_disk", read_only_disk),
        case("a_datastore_cut_off", datastore_cut_off),
        case("a_datastore_that_is_no_file", datastore_no_file),
        case("standard_output_closed", output_closed),
    ]
}

fn configurations(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let with = |key: &str, value: Value| {
        let mut config = plugin.config.clone();
        config[key] = value;
        config.to_string()
    };
    let without = |key: &str| {
        let mut config = plugin.config.clone();
        config.as_object_mut().map(|config| config.remove(key));
        config.to_string()
    };
    let whole = plugin.config.to_string();
    for (stdin, code) in [
        (String::new(), 6),
        ("{".to_owned(), 6),
        (whole[..whole.len() - 1].to_owned(), 6),
        (format!("{whole}{whole}"), 6),
        ("[]".to_owned(), 6),
        (without("name"), 7),
        (with("name", json!("../x")), 7),
        (with("name", json!(7)), 6),
        (without("cniVersion"), 1),
        (with("cniVersion", json!("0.2.0")), 1),
        (with("cniVersion", json!("1.2.0")), 1),
        (with("cniVersion", json!(1.0)), 6),
        (with("mtu", json!("1410")), 7),
        (with("mtu", json!(-5)), 7),
        (with("daemonPort", json!("23954")), 7),
        (with("dataDir", json!(["/x"])), 7),
        (with("dataDir", json!("data")), 7),
        (with("datastore", json!("store.json")), 7),
        (with("subnet", json!("10.255.108.0")), 7),
        (with("subnet", json!("fd00::/64")), 7),
        (with("subnet", json!("10.255.43.0/24")), 7),
        (with("subnet6", json!("10.255.108.0/24")), 7),
        (with("subnet6", json!("fd00:a:0:6c::/64")), 7),
        (with("runtimeConfig", json!("x")), 7),
        (with("args", json!({ "cni": { "ips": ["x"] } })), 7),
    ] {
        let answer = plugin.call_with("ADD", &web, &stdin)?;
        answer
            .refused(code, "")
            .map_err(|error| format!("{stdin}: {error}"))?;
        ensure!(!answer.text("details").is_empty(), "{answer:?}");
    }
    plugin.left_nothing(&before, &[&web])
}

/// What containers were made with was edited, and the mistake keeps none of them.
fn spoilt_configuration(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    plugin.set("cniVersion", "1.1.0");
    let good = plugin.config.clone();
    let before = Snapshot::of(&lab.cells[0].host)?;
    let (both, ours) = plugin.paths();
    let web = Sandbox::new("web")?;
    for path in [both, ours] {
        plugin.path = path;
        for (key, bad) in [
            ("mtu", json!("big")),
            ("subnet", json!("10.255.108.0")),
            ("subnet6", json!(7)),
            ("args", json!([])),
            ("runtimeConfig", json!("x")),
            ("daemonPort", json!(-1)),
        ] {
            for command in ["DEL", "GC"] {
                plugin.config = good.clone();
                plugin.add(&web)?;
                plugin.set(key, bad.clone());
                plugin.call("ADD", &web)?.refused(7, key)?;
                plugin.set("cni.dev/valid-attachments", json!([]));
                let answer = plugin.call(command, &web)?;
                answer.silent(&format!("{command} with {key} {bad}"))?;
                let said = format!("{command} passes over it");
                let is_said = answer.stderr.contains(key) && answer.stderr.contains(&said);
                ensure!(is_said, "{answer:?}");
                plugin.left_no_trace(&[&web])?;
                let rows = lab.cells[0]
                    .daemon()?
                    .request(&json!({ "container": "list" }))?;
                ensure!(rows == json!([]), "the daemon has {rows}");
            }
        }
    }
    plugin.left_nothing(&before, &[&web])
}

fn variables(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (mut web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let file = plugin.directory().join("file");
    fs::write(&file, "no namespace")?;
    let file = file.display().to_string();
    let good = web.netns.clone();
    for (netns, code, said) in [
        ("", 4, "CNI_NETNS"),
        ("/var/run/netns/sv-there-is-none", 4, "CNI_NETNS"),
        (file.as_str(), 4, "CNI_NETNS"),
        ("/proc/self/ns/mnt", 4, "CNI_NETNS"),
        ("/proc/self/ns", 4, "CNI_NETNS"),
        (web.namespace.name(), 4, "CNI_NETNS"),
        ("/proc/self/ns/net", 8, "should not be the same"),
    ] {
        netns.clone_into(&mut web.netns);
        plugin.call("ADD", &web)?.refused(code, said)?;
    }
    web.netns = good;
    for ifname in [
        "",
        "sixteen-bytes-xx",
        "a/b",
        "a:b",
        "a b",
        ".",
        "..",
        "all",
        "eth%d",
    ] {
        ifname.clone_into(&mut web.ifname);
        plugin.call("ADD", &web)?.refused(4, "CNI_IFNAME")?;
        plugin.call("DEL", &web)?.refused(4, "CNI_IFNAME")?;
    }
    "eth0".clone_into(&mut web.ifname);
    for id in ["", "-web", "a/b", "../../etc/x", "web\n"] {
        id.clone_into(&mut web.id);
        plugin.call("ADD", &web)?.refused(4, "CNI_CONTAINERID")?;
    }
    "web".clone_into(&mut web.id);
    for command in ["", "add", "JUMP"] {
        plugin.call(command, &web)?.refused(4, "CNI_COMMAND")?;
    }
    plugin.left_nothing(&before, &[&web])
}

fn names_that_are_taken(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let before = Snapshot::of(&host)?;
    web.namespace
        .ip("link add eth0 type veth peer name other")?;
    let inside = Snapshot::of(&web.namespace)?;
    plugin.call("ADD", &web)?.refused(100, "has a link eth0")?;
    inside.same_as(&Snapshot::of(&web.namespace)?)?;
    web.namespace.ip("link del eth0")?;
    plugin.left_nothing(&before, &[&web])?;
    // A default route, set by whoever made the namespace.
    web.namespace
        .ip("link add other type veth peer name another")?;
    web.namespace
        .ip_batch("link set other up\nlink set another up\nroute add default dev other\n")?;
    let inside = Snapshot::of(&web.namespace)?;
    let answer = plugin.call("ADD", &web)?;
    answer.refused(
        100,
        "add default route via 169.254.0.1: RTM_NEWROUTE: EEXIST",
    )?;
    ensure!(answer.text("msg") == "set up container", "{answer:?}");
    inside.same_as(&Snapshot::of(&web.namespace)?)?;
    before.same_as(&Snapshot::of(&host)?)?;
    ensure!(plugin.reserved()?.is_empty(), "{:?}", plugin.reserved()?);
    ensure!(plugin.stored()? == json!({}), "{}", plugin.stored()?);
    Ok(())
}

fn previous_results(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    // ADD and DEL pass over it, as Silk's plugin does.
    plugin.set("prevResult", json!({ "ip4": { "ip": "10.1.0.1/24" } }));
    let result = plugin.add(&web)?;
    plugin
        .config
        .as_object_mut()
        .map(|config| config.remove("prevResult"));
    plugin
        .call("CHECK", &web)?
        .refused(7, "`prevResult` is missing")?;
    let with = |pointer: &str, value: Value| {
        let mut result = result.clone();
        if let Some(place) = result.pointer_mut(pointer) {
            *place = value;
        }
        result
    };
    for previous in [
        json!(7),
        json!({ "ip4": { "ip": "10.1.0.1/24" } }),
        with("/ips", json!([])),
        with("/ips/0/address", json!("fd00::2/128")),
        with("/ips/0/address", json!("10.255.108.2")),
        with("/interfaces", json!([])),
        with("/interfaces/1/name", json!("eth7")),
        with("/interfaces/1/mac", json!("x")),
    ] {
        let answer = plugin.call_after("CHECK", &web, &previous)?;
        answer
            .refused(7, "`prevResult`")
            .map_err(|error| format!("{previous}: {error}"))?;
    }
    // Another container's, in all its parts.
    let other = Sandbox::new("other")?;
    let of_other = plugin.add(&other)?;
    let answer = plugin.call_after("CHECK", &web, &of_other)?;
    answer.refused(100, "eth0 is not the other end of s-010255108003")?;
    ensure!(
        answer
            .text("details")
            .contains("is not reserved for eth0 of container web"),
        "{answer:?}"
    );
    plugin.set("prevResult", json!("nonsense"));
    plugin.del(&web)?;
    plugin.del(&other)?;
    plugin.left_no_trace(&[&web, &other])
}

/// A file system of a few pages, mounted while this lives.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(plugin: &Plugin, options: &str) -> Result<Self> {
        let path = plugin.directory().join("disk");
        fs::create_dir_all(&path)?;
        let options: Option<&str> = Some(options);
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), flags, options)?;
        Ok(Self(path))
    }

    fn read_only(&self, on: bool) -> Result {
        let mut flags = nix::mount::MsFlags::MS_REMOUNT;
        flags.set(nix::mount::MsFlags::MS_RDONLY, on);
        Ok(nix::mount::mount(
            None::<&str>,
            &self.0,
            None::<&str>,
            flags,
            None::<&str>,
        )?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn full_disk(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (both, ours) = plugin.paths();
    let disk = Disk::new(&plugin, "size=64k")?;
    let (first, web) = (Sandbox::new("first")?, Sandbox::new("web")?);
    // The reservations on it, then the datastore.
    for (key, file, msg) in [
        ("dataDir", "data", "run ipam plugin"),
        ("datastore", "store.json", "write container metadata"),
    ] {
        let config = plugin.config.clone();
        plugin.set(key, disk.0.join(file).to_str());
        for path in [&ours, &both] {
            plugin.path.clone_from(path);
            plugin.add(&first)?;
            let (before, stored, reserved) =
                (Snapshot::of(&host)?, plugin.stored()?, plugin.reserved()?);
            fill(&disk)?;
            let answer = plugin.call("ADD", &web)?;
            answer.refused(100, "")?;
            ensure!(answer.text("msg") == msg, "{answer:?}");
            before.same_as(&Snapshot::of(&host)?)?;
            ensure!(web.links()? == ["lo"], "{:?}", web.links()?);
            ensure!(plugin.stored()? == stored, "{}", plugin.stored()?);
            ensure!(plugin.reserved()? == reserved, "{:?}", plugin.reserved()?);
            ping(&first.namespace, lab.cells[0].site.vtep, 1, "")?;
            fs::remove_file(disk.0.join("full"))?;
            plugin.add(&web)?;
            plugin.del(&web)?;
            plugin.del(&first)?;
            plugin.left_no_trace(&[&first, &web])?;
        }
        plugin.config = config;
    }
    Ok(())
}

/// Writes until nothing more fits.
fn fill(disk: &Disk) -> Result {
    use std::io::Write;
    let mut file = fs::File::create(disk.0.join("full"))?;
    while file.write_all(&[0; 4096]).is_ok() {}
    Ok(())
}

fn read_only_disk(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (both, ours) = plugin.paths();
    let disk = Disk::new(&plugin, "size=256k")?;
    plugin.set("cniVersion", "1.1.0");
    let (first, web) = (Sandbox::new("first")?, Sandbox::new("web")?);
    for (key, file, msg) in [
        ("dataDir", "data", "run ipam plugin"),
        ("datastore", "store.json", "write container metadata"),
    ] {
        let config = plugin.config.clone();
        plugin.set(key, disk.0.join(file).to_str());
        for path in [&ours, &both] {
            plugin.path.clone_from(path);
            plugin.add(&first)?;
            disk.read_only(true)?;
            let before = Snapshot::of(&host)?;
            let answer = plugin.call("ADD", &web)?;
            answer.refused(100, "")?;
            ensure!(answer.text("msg") == msg, "{answer:?}");
            plugin.call_network("STATUS")?.refused(50, key)?;
            before.same_as(&Snapshot::of(&host)?)?;
            ensure!(web.links()? == ["lo"], "{:?}", web.links()?);
            // What cannot be written cannot be given back, and is there for the next DEL.
            let refused = plugin.call("DEL", &first)?;
            refused.refused(100, "EROFS")?;
            disk.read_only(false)?;
            plugin.del(&first)?;
            plugin.left_no_trace(&[&first, &web])?;
        }
        plugin.config = config;
    }
    Ok(())
}

fn datastore_cut_off(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let (a, b, c) = (Sandbox::new("a")?, Sandbox::new("b")?, Sandbox::new("c")?);
    plugin.add(&a)?;
    plugin.add(&b)?;
    let whole = fs::read(plugin.store())?;
    // Of the second entry half is there.
    let cut = &whole[..whole.len() - 30];
    fs::write(plugin.store(), cut)?;
    plugin.add(&c)?;
    let stored = plugin.stored()?;
    ensure!(
        stored.as_object().is_some_and(|all| all.len() == 2),
        "{stored}"
    );
    let kept = fs::read(plugin.store().with_file_name("store.json.corrupt"))?;
    ensure!(kept == cut, "another file was kept");
    // Whom the store lost, the reservations have.
    for sandbox in [&a, &b, &c] {
        plugin.del(sandbox)?;
    }
    plugin.left_no_trace(&[&a, &b, &c])?;
    for text in ["null\n", "", "[]", "{\"x\":"] {
        fs::write(plugin.store(), text)?;
        plugin.add(&a)?;
        fs::write(plugin.store(), text)?;
        plugin.del(&a)?;
        ensure!(
            plugin.reserved()?.is_empty() && a.links()? == ["lo"],
            "{text}: it is there"
        );
    }
    Ok(())
}

/// Nothing was written, and so nothing is said to be left behind.
fn datastore_no_file(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let directory = plugin.directory().to_owned();
    plugin.set("datastore", directory.to_str());
    let answer = plugin.call("ADD", &web)?;
    answer.refused(100, "EISDIR")?;
    let left = answer.text("details").contains("left behind");
    ensure!(!left, "{answer:?}");
    plugin.left_nothing(&before, &[&web])
}

/// The runtime went away and will not know of the container.
fn output_closed(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let (web, before) = (Sandbox::new("web")?, Snapshot::of(&host)?);
    let config = plugin.directory().join("config.json");
    fs::write(&config, plugin.config.to_string())?;
    let (program, config) = (
        plugin.program("silk-vtep-cni"),
        config.display().to_string(),
    );
    let program = program.display();
    let mut shell = host.command("sh");
    shell
        .arg("-c")
        .arg(format!("{program} < {config} > /dev/full"));
    shell
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", &web.id);
    shell
        .env("CNI_NETNS", &web.netns)
        .env("CNI_IFNAME", &web.ifname);
    ensure!(!shell.status()?.success(), "it succeeded");
    plugin.left_nothing(&before, &[&web])
}
