//! Plugins of CNI's own collection chained behind ours: they read our result, add to it, and find what they need.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::plugin::{Answer, Plugin, address_of};
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{BOUND, Case, Lab, Plan, Result, Snapshot, ensure};

const PROGRAMS: &[&str] = &[
    "/usr/lib/cni/bandwidth",
    "/usr/lib/cni/portmap",
    "/usr/lib/cni/tuning",
    "/usr/lib/cni/host-local",
    "iptables",
    "tc",
];

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).cold().programs(PROGRAMS);
        Case::new(format!("chain::{name}"), plan, body)
    };
    vec![
        case(
            "every_version_is_read_by_the_next_plugin",
            every_version_is_read,
        ),
        case("portmap_forwards_to_a_container", portmap_forwards),
        case(
            "tuning_sets_switches_and_check_allows_them",
            tuning_sets_switches,
        ),
        case("bandwidth_limits_what_a_container_gets", bandwidth_limits),
    ]
}

/// A chain as libcni runs it: each plugin's result is the next one's `prevResult`; DEL goes the other way.
struct Chain<'a> {
    plugin: &'a Plugin,
    rest: Vec<Value>,
}

impl Chain<'_> {
    fn add(&self, sandbox: &Sandbox) -> Result<Value> {
        let mut result = self.plugin.add(sandbox)?;
        for config in &self.rest {
            let answer = self.call(config, "ADD", sandbox, &result)?;
            ensure!(answer.status.success(), "{config}: {answer:?}");
            result = answer.json;
        }
        Ok(result)
    }

    fn check(&self, sandbox: &Sandbox, result: &Value) -> Result {
        self.plugin
            .call_after("CHECK", sandbox, result)?
            .silent("CHECK")?;
        for config in &self.rest {
            self.call(config, "CHECK", sandbox, result)?
                .silent("CHECK")?;
        }
        Ok(())
    }

    fn del(&self, sandbox: &Sandbox, result: &Value) -> Result {
        for config in self.rest.iter().rev() {
            self.call(config, "DEL", sandbox, result)?.silent("DEL")?;
        }
        self.plugin
            .call_after("DEL", sandbox, result)?
            .silent("DEL")
    }

    fn call(
        &self,
        config: &Value,
        command: &str,
        sandbox: &Sandbox,
        previous: &Value,
    ) -> Result<Answer> {
        let mut config = config.clone();
        for key in ["cniVersion", "name"] {
            config[key] = self.plugin.config[key].clone();
        }
        config["prevResult"] = previous.clone();
        let variables = [
            ("CNI_CONTAINERID", sandbox.id.as_str()),
            ("CNI_NETNS", &sandbox.netns),
            ("CNI_IFNAME", &sandbox.ifname),
        ];
        let program = config["type"].as_str().unwrap_or_default();
        let program = self.plugin.program(program);
        self.plugin
            .run(&program, command, &variables, &config.to_string())
    }
}

fn every_version_is_read(lab: &mut Lab) -> Result {
    let mut plugin = Plugin::with_collection(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let before = Snapshot::of(&host)?;
    // Debian's collection knows 1.0.0 at the most.
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        plugin.set("cniVersion", version);
        let rest = vec![
            json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.log_martians": "1" } }),
            json!({ "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000 }),
        ];
        let chain = Chain {
            plugin: &plugin,
            rest,
        };
        let result = chain.add(&web)?;
        let address = result["ips"][0]["address"].as_str().unwrap_or_default();
        ensure!(address.starts_with("10.255.108."), "{version}: {result}");
        ensure!(
            result["ips"][0]["gateway"] == "169.254.0.1",
            "{version}: {result}"
        );
        ensure!(result["cniVersion"] == version, "{version}: {result}");
        if version >= "0.4.0" {
            chain.check(&web, &result)?;
        }
        chain.del(&web, &result)?;
        plugin.left_nothing(&before, &[&web])?;
    }
    Ok(())
}

fn portmap_forwards(lab: &mut Lab) -> Result {
    let plugin = Plugin::with_collection(lab, 0)?;
    let ours = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let mapping = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" });
    let portmap = json!({ "type": "portmap", "runtimeConfig": { "portMappings": [mapping] } });
    let chain = Chain {
        plugin: &plugin,
        rest: vec![portmap],
    };
    let result = chain.add(&web)?;
    let listener = web
        .namespace
        .run(|| Ok(TcpListener::bind(("0.0.0.0", 80))?))?;
    // From another host of the underlay, to this one's own address.
    let to = (lab.cells[0].site.underlay_v4, 8080).into();
    let client = lab.cells[1]
        .host
        .run(|| Ok(TcpStream::connect_timeout(&to, BOUND)?))?;
    let (mut server, from) = listener.accept()?;
    let expected = lab.cells[1].site.underlay_v4;
    ensure!(from.ip() == expected, "it came from {from}");
    drop(client);
    server.set_read_timeout(Some(BOUND))?;
    ensure!(server.read(&mut [0])? == 0, "there was something");
    // portmap's own CHECK, in Debian's version, wants rules of IPv6 for every container.
    plugin.call_after("CHECK", &web, &result)?.silent("CHECK")?;
    chain.del(&web, &result)?;
    let rules = ours.exec("iptables -w -t nat -S")?;
    ensure!(!rules.contains("8080"), "{rules}");
    plugin.left_no_trace(&[&web])
}

fn tuning_sets_switches(lab: &mut Lab) -> Result {
    let plugin = Plugin::with_collection(lab, 0)?;
    let web = Sandbox::new("web")?;
    let tuning =
        json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" }, "promisc": true });
    let chain = Chain {
        plugin: &plugin,
        rest: vec![tuning],
    };
    let result = chain.add(&web)?;
    let set = web
        .namespace
        .run(|| Ok(fs::read_to_string("/proc/sys/net/core/somaxconn")?))?;
    ensure!(set.trim() == "500", "somaxconn {set}");
    chain.check(&web, &result)?;
    chain.del(&web, &result)?;
    plugin.left_no_trace(&[&web])
}

/// Bits a second, and bits that go by the limit at first.
const RATE: usize = 8_000_000;
const BURST: usize = 800_000;
const SENT_BYTES: usize = 2_000_000;

fn bandwidth_limits(lab: &mut Lab) -> Result {
    let plugin = Plugin::with_collection(lab, 0)?;
    let host = lab.cells[0].host.clone();
    let web = Sandbox::new("web")?;
    let before = Snapshot::of(&host)?;
    let limit = json!({
        "type": "bandwidth",
        "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST,
    });
    let chain = Chain {
        plugin: &plugin,
        rest: vec![limit],
    };
    let result = chain.add(&web)?;
    let address = address_of(&result)?;
    let listener = web.namespace.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let to = listener.local_addr()?;
    let client = host.run(|| Ok(TcpStream::connect_timeout(&to, BOUND)?))?;
    let (server, _) = listener.accept()?;
    // The limit holds each way, however slow the machine is.
    let least = Duration::from_secs_f64((SENT_BYTES * 8 - 2 * BURST) as f64 / RATE as f64);
    for (from, to) in [(&client, &server), (&server, &client)] {
        let start = Instant::now();
        pump(from, to)?;
        let took = start.elapsed();
        ensure!(
            took >= least * 9 / 10,
            "{took:?} for what takes {least:?} at least"
        );
    }
    chain.check(&web, &result)?;
    chain.del(&web, &result)?;
    plugin.left_nothing(&before, &[&web])
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) -> Result {
    use std::io::Write;
    to.set_read_timeout(Some(BOUND))?;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || from.write_all(&vec![7; SENT_BYTES]));
        to.read_exact(&mut vec![0; SENT_BYTES])?;
        sender.join().map_err(|_| "the sender panicked")??;
        Ok(())
    })
}
