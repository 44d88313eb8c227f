//! The result of ADD, in the shape of each version of the specification.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::version::{Version, print};
use crate::netlink::ContainerLinks;
use crate::netlink::container::{HOST_ADDRESS, HOST_ADDRESS_V6};

/// What was made.
#[derive(Debug)]
pub(super) struct AddResult<'a> {
    pub(super) links: &'a ContainerLinks,
    /// CNI_NETNS.
    pub(super) sandbox: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) address_v6: Option<Ipv6Addr>,
    pub(super) mtu_bytes: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    cni_version: &'static str,
    interfaces: [Interface<'a>; 2],
    ips: Vec<Ip>,
    routes: Vec<Route>,
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mac: String,
    /// Since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
}

#[derive(Serialize)]
struct Ip {
    /// Before 1.0.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: String,
    gateway: IpAddr,
    /// The place in `interfaces`.
    interface: usize,
}

#[derive(Serialize)]
struct Route {
    dst: &'static str,
    gw: IpAddr,
}

/// The container's interface is the second.
const CONTAINER: usize = 1;

impl AddResult<'_> {
    /// Writes it in the shape of `version`.
    pub(super) fn write(&self, version: Version, out: &mut dyn Write) -> Result<(), String> {
        print(&self.object(version), out)
    }

    fn object(&self, version: Version) -> Object<'_> {
        let mtu = (version >= Version::V1_1_0).then_some(self.mtu_bytes);
        let host = Interface {
            name: &self.links.host_name,
            mac: self.links.host_mac.to_string(),
            mtu,
            sandbox: None,
        };
        let container = Interface {
            name: &self.links.container_name,
            mac: self.links.container_mac.to_string(),
            mtu,
            sandbox: Some(self.sandbox),
        };
        let with_version = version < Version::V1_0_0;
        let ip = |address: IpAddr, gateway: IpAddr| {
            let (family, length) = match address {
                IpAddr::V4(_) => ("4", 32),
                IpAddr::V6(_) => ("6", 128),
            };
            Ip {
                version: with_version.then_some(family),
                address: format!("{address}/{length}"),
                gateway,
                interface: CONTAINER,
            }
        };
        let route = |dst, gw| Route { dst, gw };
        let mut ips = vec![ip(self.address.into(), HOST_ADDRESS.into())];
        let mut routes = vec![route("0.0.0.0/0", HOST_ADDRESS.into())];
        if let Some(address) = self.address_v6 {
            ips.push(ip(address.into(), HOST_ADDRESS_V6.into()));
            routes.push(route("::/0", HOST_ADDRESS_V6.into()));
        }
        Object {
            cni_version: version.name(),
            interfaces: [host, container],
            ips,
            routes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(version: &str, address_v6: Option<Ipv6Addr>) -> String {
        let address = Ipv4Addr::new(10, 255, 30, 2);
        let links = ContainerLinks::of(address, "eth0");
        let result = AddResult {
            links: &links,
            sandbox: "/var/run/netns/web",
            address,
            address_v6,
            mtu_bytes: 1410,
        };
        let mut out = Vec::new();
        let version = Version::named(version).expect("it is spoken");
        result.write(version, &mut out).expect("a Vec takes all");
        String::from_utf8(out).expect("JSON")
    }

    #[test]
    fn the_result_is_silks() {
        let expected = r#"{
    "cniVersion": "1.0.0",
    "interfaces": [
        {
            "name": "s-010255030002",
            "mac": "aa:aa:0a:ff:1e:02"
        },
        {
            "name": "eth0",
            "mac": "ee:ee:0a:ff:1e:02",
            "sandbox": "/var/run/netns/web"
        }
    ],
    "ips": [
        {
            "address": "10.255.30.2/32",
            "gateway": "169.254.0.1",
            "interface": 1
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0",
            "gw": "169.254.0.1"
        }
    ]
}
"#;
        assert_eq!(written("1.0.0", None), expected);
    }

    #[test]
    fn each_version_has_its_shape() {
        for (version, has_version, has_mtu) in [
            ("0.3.0", true, false),
            ("0.3.1", true, false),
            ("0.4.0", true, false),
            ("1.0.0", false, false),
            ("1.1.0", false, true),
        ] {
            let text = written(version, None);
            assert!(text.contains(&format!("\"cniVersion\": \"{version}\"")));
            assert_eq!(
                text.contains("\"version\": \"4\""),
                has_version,
                "{version}"
            );
            assert_eq!(text.contains("\"mtu\": 1410"), has_mtu, "{version}");
        }
    }

    #[test]
    fn an_ipv6_address_comes_second() {
        let text = written("0.4.0", Some("fd00::a".parse().expect("right")));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["ips"][1]["version"], "6");
        assert_eq!(value["ips"][1]["address"], "fd00::a/128");
        assert_eq!(value["ips"][1]["gateway"], "fe80::1");
        assert_eq!(value["routes"][1]["dst"], "::/0");
    }
}
