//! Containers of a real runtime: podman calls the plugin through CNI, on two cells, and the containers talk TCP across the overlay.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::plugin::{PLUGINS, Plugin};
use crate::support::Kind::Silk;
use crate::support::{
    BOUND, Case, Lab, Namespace, Plan, Result, Snapshot, Stats, Wait, ensure, wait_until,
};

const PROGRAMS: &[&str] = &[
    "podman",
    "runc",
    "/bin/busybox",
    "/usr/lib/cni/bandwidth",
    "/usr/lib/cni/portmap",
    "iptables",
];
/// What containers are made of.
const BUSYBOX: &str = "/bin/busybox";
/// Bytes of one transfer.
const TRANSFER_BYTES: usize = 3_000_000;
/// The bandwidth plugin's limit, in bits a second, and the burst that goes by it, in bits.
const RATE: usize = 8_000_000;
const BURST: usize = 800_000;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).cold().programs(PROGRAMS);
        Case::new(format!("podman::{name}"), plan, body)
    };
    vec![
        case(
            "containers_of_two_cells_talk_and_leave_nothing",
            two_cells_talk,
        ),
        case("a_chained_bandwidth_limit_holds", bandwidth_holds),
        case("the_readmes_network_publishes_a_port", readmes_network),
        case(
            "a_network_without_a_daemon_starts_no_container",
            no_daemon_no_container,
        ),
    ]
}

/// podman on one cell, with storage, networks and containers of its own.
struct Podman<'a> {
    host: &'a Namespace,
    plugin: &'a Plugin,
}

impl<'a> Podman<'a> {
    /// With a network of our plugin, and `chained` behind it.
    fn new(host: &'a Namespace, plugin: &'a Plugin, chained: &[Value]) -> Result<Self> {
        let plugins: Vec<_> = [&plugin.config].into_iter().chain(chained).collect();
        let list = json!({ "cniVersion": "1.0.0", "name": "silk", "plugins": plugins });
        Self::with_network(host, plugin, &list)
    }

    /// With the network `list`, which is called `silk`.
    fn with_network(host: &'a Namespace, plugin: &'a Plugin, list: &Value) -> Result<Self> {
        let podman = Self { host, plugin };
        let networks = podman.path("networks");
        fs::create_dir_all(&networks)?;
        fs::write(networks.join("silk.conflist"), list.to_string())?;
        let bin = plugin.directory().join("bin");
        let conf = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{PLUGINS}\", \"{}\"]\nnetwork_config_dir = \"{}\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
            bin.display(),
            networks.display()
        );
        fs::write(podman.path("containers.conf"), conf)?;
        Ok(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.plugin.directory().join(name)
    }

    /// Runs `podman ARGUMENTS` and returns what it says.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        // `ip netns exec` would hide the cgroups, since it mounts a /sys of its own.
        let mut process = Command::new("nsenter");
        process
            .arg(format!("--net=/run/netns/{}", self.host))
            .arg("podman");
        process.arg("--root").arg(self.path("storage"));
        process.arg("--runroot").arg(self.path("run"));
        process.args(["--storage-driver", "vfs", "--runtime", "runc"]);
        process
            .args(arguments)
            .env("CONTAINERS_CONF", self.path("containers.conf"));
        let output = process.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "podman {arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts a container called `name` that runs a shell line, and gives its root directory.
    fn start(&self, name: &str, line: &str) -> Result<PathBuf> {
        self.start_with(name, line, &[])
    }

    /// The same, with more options.
    fn start_with(&self, name: &str, line: &str, options: &[&str]) -> Result<PathBuf> {
        let root = self.path(name);
        make_root(&root)?;
        let path = root.display().to_string();
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        let mut arguments = vec!["run", "-d", "--name", name];
        arguments.extend(limits);
        arguments.extend(options);
        arguments.extend([
            "--network",
            "silk",
            "--rootfs",
            &path,
            "/bin/sh",
            "-c",
            line,
        ]);
        self.run(&arguments)?;
        Ok(root)
    }

    /// Its address, as podman had it from the plugin.
    fn address(&self, name: &str) -> Result<Ipv4Addr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        Ok(self.run(&["inspect", "-f", format, name])?.parse()?)
    }

    /// Stops and removes it.
    fn remove(&self, name: &str) -> Result {
        self.run(&["rm", "-f", "-t", "0", name]).map(drop)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // What a failed test leaves running would outlive its directories.
        drop(self.run(&["rm", "-f", "-a", "-t", "0"]));
    }
}

/// A root file system of one static program under many names.
fn make_root(root: &Path) -> Result {
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox"))?;
    for name in ["sh", "nc", "cat", "sleep", "ip"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    Ok(())
}

/// Sends what is in `from`'s /tmp/sent to `to`, and waits until it is in that one's /tmp/received.
fn transfer(a: &Podman<'_>, b: &Podman<'_>) -> Result<Duration> {
    let root_b = b.start(
        "server", // The first that hears the end of its input or of the other ends.
        "sleep 1000 | nc -l -p 5000 > /tmp/received; sleep 1000",
    )?;
    let address = b.address("server")?;
    let root_a = a.start("client", "sleep 1000")?;
    let bytes: Vec<u8> = (0..TRANSFER_BYTES).map(|at| (at * 7 / 13) as u8).collect();
    fs::write(root_a.join("tmp/sent"), &bytes)?;
    let line = format!("nc {address} 5000 < /tmp/sent");
    let start = Instant::now();
    // The server may not listen yet.
    wait_until("the client is connected", || {
        let sent = a.run(&["exec", "client", "/bin/sh", "-c", &line]);
        Ok(Wait::unless(sent.is_ok(), || format!("{sent:?}")))
    })?;
    wait_until("all has arrived", || {
        let received = fs::read(root_b.join("tmp/received"))?;
        Ok(Wait::unless(received == bytes, || {
            format!("{} bytes", received.len())
        }))
    })?;
    Ok(start.elapsed())
}

fn two_cells_talk(lab: &mut Lab) -> Result {
    let (plugin_a, plugin_b) = (Plugin::new(lab, 0)?, Plugin::new(lab, 1)?);
    let hosts = [lab.cells[0].host.clone(), lab.cells[1].host.clone()];
    let before = [Snapshot::of(&hosts[0])?, Snapshot::of(&hosts[1])?];
    let a = Podman::new(&hosts[0], &plugin_a, &[])?;
    let b = Podman::new(&hosts[1], &plugin_b, &[])?;
    transfer(&a, &b)?;
    let routes = a.run(&["exec", "client", "/bin/ip", "route"])?;
    ensure!(
        routes.contains("default via 169.254.0.1 dev eth0"),
        "{routes}"
    );
    let stored = plugin_a.stored()?;
    ensure!(
        stored.as_object().is_some_and(|all| all.len() == 1),
        "{stored}"
    );
    let sent = Stats::read(lab.cells[0].daemon()?)?.peers()?;
    let least = (TRANSFER_BYTES / 1450) as u64;
    ensure!(sent[0].0 >= least, "the tunnel carried {sent:?}");
    a.remove("client")?;
    b.remove("server")?;
    plugin_a.left_nothing(&before[0], &[])?;
    plugin_b.left_nothing(&before[1], &[])
}

fn bandwidth_holds(lab: &mut Lab) -> Result {
    let (plugin_a, plugin_b) = (Plugin::new(lab, 0)?, Plugin::new(lab, 1)?);
    let hosts = [lab.cells[0].host.clone(), lab.cells[1].host.clone()];
    let before = [Snapshot::of(&hosts[0])?, Snapshot::of(&hosts[1])?];
    let limit = json!({
        "type": "bandwidth",
        "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST,
    });
    let a = Podman::new(&hosts[0], &plugin_a, &[limit])?;
    let b = Podman::new(&hosts[1], &plugin_b, &[])?;
    let took = transfer(&a, &b)?;
    let shaped = hosts[0].exec("tc qdisc show dev s-010255108002")?;
    ensure!(
        shaped.contains("tbf") && shaped.contains("rate 8Mbit"),
        "{shaped}"
    );
    // A limit holds however slow the machine is: in less time there is no way for so many bits.
    let least = Duration::from_secs_f64((TRANSFER_BYTES * 8 - 2 * BURST) as f64 / RATE as f64);
    ensure!(
        took >= least * 9 / 10,
        "{took:?} for what takes {least:?} at least"
    );

    a.remove("client")?;
    b.remove("server")?;
    plugin_a.left_nothing(&before[0], &[])?;
    plugin_b.left_nothing(&before[1], &[])
}

fn no_daemon_no_container(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let host = lab.cells[0].host.clone();
    lab.cells[0].daemon()?.terminate()?;
    let before = Snapshot::of(&host)?;
    let podman = Podman::new(&host, &plugin, &[])?;
    let started = podman.start("client", "sleep 1000");
    let error = started.err().ok_or("it started")?.to_string();
    ensure!(error.contains("discover network info"), "{error}");
    podman.remove("client")?;
    plugin.left_nothing(&before, &[])
}

/// The list as it stands in the README, but for where this cell's daemon and directories are.
fn readmes_network(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let (host, site) = (lab.cells[0].host.clone(), lab.cells[0].site);
    let readme = include_str!("../../README.md");
    let start = readme
        .find("    {\n      \"cniVersion\"")
        .ok_or("no list")?;
    let mut lists = serde_json::Deserializer::from_str(&readme[start..]).into_iter();
    let mut list: Value = lists.next().ok_or("no list")??;
    let plugins = list["plugins"].as_array().ok_or("no plugins")?;
    let kinds: Vec<_> = plugins.iter().map(|it| it["type"].clone()).collect();
    ensure!(
        kinds == ["silk-vtep-cni", "portmap", "bandwidth"],
        "{kinds:?}"
    );
    for key in ["socket", "dataDir", "datastore"] {
        list["plugins"][0][key] = plugin.config[key].clone();
    }
    let podman = Podman::with_network(&host, &plugin, &list)?;
    let line = "while true; do echo here | nc -l -p 80; done";
    podman.start_with("web", line, &["-p", "8080:80"])?;
    let to = (site.underlay_v4, 8080).into();
    let peer = &lab.cells[1].host;
    wait_until("the port is served", || {
        let said = peer.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, BOUND)?;
            stream.set_read_timeout(Some(BOUND))?;
            let mut said = [0; 5];
            stream.read_exact(&mut said)?;
            Ok(said)
        });
        let is_there = said.as_ref().is_ok_and(|said| said == b"here\n");
        Ok(Wait::unless(is_there, || format!("{said:?}")))
    })?;
    podman.remove("web")?;
    let rules = host.exec("iptables -w -t nat -S")?;
    ensure!(!rules.contains("8080"), "{rules}");
    plugin.left_no_trace(&[])
}
