//! Results against the specification's text: "Success" in SPEC.md at each tag (`spec-v0.3.1` to `spec-v1.1.0`), which publishes no schema.
//!
//! Each version's shape is written down here once more, with every key that it has and no other.

use std::net::IpAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::plugin::Plugin;
use super::sandbox::Sandbox;
use crate::support::Kind::Silk;
use crate::support::{Case, Lab, Plan, Result, ensure};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("result::{name}"), Plan::of(&[Silk]).cold(), body)
    };
    vec![
        case("each_version_has_its_schema", each_version_has_its_schema),
        case("version_lists_them", version_lists_them),
        case("the_command_line_is_the_plugin_too", by_command_line),
    ]
}

/// Up to 0.4.0: each address has a `version`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Early {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<Interface>,
    ips: Vec<EarlyIp>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Option<Dns>,
}

/// 1.0.0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct One {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Option<Dns>,
}

/// 1.1.0: more of interfaces and routes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OneOne {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<InterfaceOneOne>,
    ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<RouteOneOne>,
    #[serde(default)]
    dns: Option<Dns>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Interface {
    name: String,
    mac: String,
    sandbox: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InterfaceOneOne {
    name: String,
    mac: String,
    mtu: Option<u32>,
    sandbox: Option<String>,
    socket_path: Option<String>,
    #[serde(rename = "pciID")]
    pci_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EarlyIp {
    version: String,
    address: String,
    gateway: Option<IpAddr>,
    interface: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ip {
    address: String,
    gateway: Option<IpAddr>,
    interface: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    dst: String,
    gw: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "their being of these types is the test")]
struct RouteOneOne {
    dst: String,
    gw: Option<IpAddr>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    priority: Option<u32>,
    table: Option<u32>,
    scope: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "their being of these types is the test")]
struct Dns {
    #[serde(default)]
    nameservers: Vec<String>,
    domain: Option<String>,
    #[serde(default)]
    search: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
}

/// What every version says: version, interfaces (name, MAC, sandbox), addresses with gateway and interface, routes.
#[derive(Debug, PartialEq)]
struct Said {
    version: String,
    interfaces: Vec<(String, String, Option<String>)>,
    ips: Vec<(String, Option<IpAddr>, Option<usize>)>,
    routes: Vec<(String, Option<IpAddr>)>,
}

impl From<Early> for Said {
    fn from(result: Early) -> Self {
        assert!(result.dns.is_none());
        assert!(result.ips.iter().all(|ip| ip.version == "4"));
        Self {
            version: result.cni_version,
            interfaces: result.interfaces.into_iter().map(of_interface).collect(),
            ips: (result.ips.into_iter())
                .map(|ip| (ip.address, ip.gateway, ip.interface))
                .collect(),
            routes: result
                .routes
                .into_iter()
                .map(|it| (it.dst, it.gw))
                .collect(),
        }
    }
}

impl From<One> for Said {
    fn from(result: One) -> Self {
        assert!(result.dns.is_none());
        Self {
            version: result.cni_version,
            interfaces: result.interfaces.into_iter().map(of_interface).collect(),
            ips: result.ips.into_iter().map(of_ip).collect(),
            routes: result
                .routes
                .into_iter()
                .map(|it| (it.dst, it.gw))
                .collect(),
        }
    }
}

impl From<OneOne> for Said {
    fn from(result: OneOne) -> Self {
        assert!(result.dns.is_none());
        let interfaces = result.interfaces.into_iter().map(|interface| {
            assert_eq!(interface.mtu, Some(1450));
            assert_eq!((interface.socket_path, interface.pci_id), (None, None));
            (interface.name, interface.mac, interface.sandbox)
        });
        Self {
            version: result.cni_version,
            interfaces: interfaces.collect(),
            ips: result.ips.into_iter().map(of_ip).collect(),
            routes: result
                .routes
                .into_iter()
                .map(|it| (it.dst, it.gw))
                .collect(),
        }
    }
}

fn of_interface(interface: Interface) -> (String, String, Option<String>) {
    (interface.name, interface.mac, interface.sandbox)
}

fn of_ip(ip: Ip) -> (String, Option<IpAddr>, Option<usize>) {
    (ip.address, ip.gateway, ip.interface)
}

fn read<T: DeserializeOwned + Into<Said>>(text: &str) -> Result<Said> {
    let result: T = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    Ok(result.into())
}

fn each_version_has_its_schema(lab: &mut Lab) -> Result {
    type Reader = fn(&str) -> Result<Said>;
    let versions: [(&str, Reader); 5] = [
        ("0.3.0", read::<Early>),
        ("0.3.1", read::<Early>),
        ("0.4.0", read::<Early>),
        ("1.0.0", read::<One>),
        ("1.1.0", read::<OneOne>),
    ];
    let mut plugin = Plugin::new(lab, 0)?;
    plugin.args = "IP=10.255.108.9".to_owned();
    let web = Sandbox::new("web")?;
    let gateway = Some("169.254.0.1".parse()?);
    for (version, reader) in versions {
        plugin.set("cniVersion", version);
        let answer = plugin.call("ADD", &web)?;
        ensure!(answer.status.success(), "{version}: {answer:?}");
        let expected = Said {
            version: version.to_owned(),
            interfaces: vec![
                (
                    "s-010255108009".to_owned(),
                    "aa:aa:0a:ff:6c:09".to_owned(),
                    None,
                ),
                (
                    "eth0".to_owned(),
                    "ee:ee:0a:ff:6c:09".to_owned(),
                    Some(web.netns.clone()),
                ),
            ],
            ips: vec![("10.255.108.9/32".to_owned(), gateway, Some(1))],
            routes: vec![("0.0.0.0/0".to_owned(), gateway)],
        };
        let said = reader(&answer.stdout)?;
        ensure!(said == expected, "{version}: {said:?}");
        for (other, other_reader) in versions {
            // The shapes do tell the versions apart.
            let apart =
                (version < "1") != (other < "1") || (version == "1.1.0" && other != version);
            ensure!(
                !apart || other_reader(&answer.stdout).is_err(),
                "{version} passes for {other}"
            );
        }
        plugin.del(&web)?;
    }
    Ok(())
}

fn version_lists_them(lab: &mut Lab) -> Result {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Versions {
        cni_version: String,
        supported_versions: Vec<String>,
    }
    let plugin = Plugin::new(lab, 0)?;
    let answer = plugin.call_network("VERSION")?;
    let versions: Versions = serde_json::from_str(&answer.stdout)?;
    ensure!(versions.cni_version == "1.0.0", "{answer:?}");
    let expected = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    ensure!(versions.supported_versions == expected, "{answer:?}");
    Ok(())
}

fn by_command_line(lab: &mut Lab) -> Result {
    let plugin = Plugin::new(lab, 0)?;
    let web = Sandbox::new("web")?;
    let silk_vtep = env!("CARGO_BIN_EXE_silk-vtep");
    let call = |command: &str| {
        let mut process = lab.cells[0].host.command(silk_vtep);
        process.arg("cni").env("CNI_COMMAND", command);
        process
            .env("CNI_CONTAINERID", &web.id)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", &web.netns);
        super::plugin::answer_of(process, &plugin.config.to_string())
    };
    ensure!(
        call("ADD")?.json["ips"][0]["address"] == "10.255.108.2/32",
        "no result"
    );
    let again = call("ADD")?;
    again.refused(100, "duplicate allocation")?;
    ensure!(
        again.status.code() == Some(1) && again.stderr.is_empty(),
        "{again:?}"
    );
    call("DEL")?.silent("DEL")?;
    // What says which daemon is in the configuration: an option would have no effect.
    for option in ["--socket=/tmp/x", "--name=vtep7", "-j"] {
        let mut process = lab.cells[0].host.command(silk_vtep);
        process.args(["cni", option]).env("CNI_COMMAND", "VERSION");
        let answer = super::plugin::answer_of(process, "")?;
        let wrong = answer.status.code() == Some(2)
            && answer.stdout.is_empty()
            && answer.stderr.contains("usage: silk-vtep cni");
        ensure!(wrong, "{option}: {answer:?}");
    }
    plugin.left_no_trace(&[&web])
}
