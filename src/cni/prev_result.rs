//! `prevResult`: what ADD answered, and chained plugins may have added to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;

use super::config::Config;
use super::error::CniError;
use super::version::Version;
use crate::netlink::ContainerLinks;
use crate::netlink::container::host_name;
use crate::wire::MacAddr;

/// What of it is ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PrevResult {
    pub(super) address: Ipv4Addr,
    pub(super) address_v6: Option<Ipv6Addr>,
    /// Names and MACs of both ends; a chained plugin may have set another MAC.
    pub(super) links: ContainerLinks,
    /// Since 1.1.0.
    pub(super) mtu_bytes: Option<u32>,
}

impl PrevResult {
    /// Reads the configuration's, about the link called `ifname`.
    ///
    /// # Errors
    /// There is none, or it is not of the configuration's version.
    pub(super) fn of(config: &Config, ifname: &str) -> Result<Self, CniError> {
        let value = config.prev_result.as_ref();
        let value = value.ok_or_else(|| CniError::config("`prevResult` is missing"))?;
        parse(value, config.version, ifname)
            .map_err(|error| CniError::config(format!("`prevResult`: {error}")))
    }
}

fn parse(value: &Value, version: Version, ifname: &str) -> Result<PrevResult, String> {
    if !value.is_object() {
        return Err(format!("{value} is no object"));
    }
    let list = |key: &str| {
        let list = value[key].as_array();
        list.ok_or_else(|| format!("`{key}` is missing, or no list"))
    };
    let interfaces = list("interfaces")?;
    let in_container = |interface: &&Value| {
        let sandbox = interface["sandbox"].as_str().unwrap_or_default();
        interface["name"] == ifname && !sandbox.is_empty()
    };
    let place = interfaces
        .iter()
        .position(|interface| in_container(&interface));
    let place = place.ok_or_else(|| format!("`interfaces` has no {ifname} in a sandbox"))?;
    let mut addresses = Vec::new();
    for ip in list("ips")? {
        if ip["interface"].as_u64().is_none_or(|at| at == place as u64) {
            addresses.push(address_of(ip, version)?);
        }
    }
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let address = v4.ok_or_else(|| format!("`ips` has no IPv4 address of {ifname}"))?;
    let address_v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let host = host_name(address);
    let host = interfaces
        .iter()
        .find(|interface| interface["name"] == *host);
    let host = host.ok_or_else(|| format!("`interfaces` has no {}", host_name(address)))?;
    Ok(PrevResult {
        address,
        address_v6,
        links: ContainerLinks {
            host_name: host_name(address),
            host_mac: mac_of(host)?,
            container_name: ifname.to_owned(),
            container_mac: mac_of(&interfaces[place])?,
        },
        mtu_bytes: mtu_of(&interfaces[place])?,
    })
}

fn address_of(ip: &Value, version: Version) -> Result<IpAddr, String> {
    let text = ip["address"].as_str().unwrap_or_default();
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("`ips` has {ip}, without an address/prefix"))?;
    let family = match net {
        IpNet::V4(_) => "4",
        IpNet::V6(_) => "6",
    };
    // Before 1.0.0 each address says its family.
    if version < Version::V1_0_0 && ip["version"] != family {
        return Err(format!("`ips` has {text} with version {}", ip["version"]));
    }
    Ok(net.addr())
}

fn mac_of(interface: &Value) -> Result<MacAddr, String> {
    let text = interface["mac"].as_str().unwrap_or_default();
    text.parse()
        .map_err(|_| format!("`interfaces` has {interface}, without a MAC"))
}

fn mtu_of(interface: &Value) -> Result<Option<u32>, String> {
    let mtu = &interface["mtu"];
    if mtu.is_null() {
        return Ok(None);
    }
    let number = mtu.as_u64().and_then(|mtu| u32::try_from(mtu).ok());
    match number {
        Some(0) => Ok(None),
        Some(mtu) => Ok(Some(mtu)),
        None => Err(format!("`interfaces` has mtu {mtu}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "s-010255030002", "mac": "aa:aa:0a:ff:1e:02", "mtu": 1410 },
                { "name": "eth0", "mac": "ee:ee:0a:ff:1e:02", "mtu": 1410, "sandbox": "/run/netns/web" },
                { "name": "bwp0", "mac": "02:00:00:00:00:01" },
            ],
            "ips": [{ "address": "10.255.30.2/32", "gateway": "169.254.0.1", "interface": 1 }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.0.1" }],
        })
    }

    #[test]
    fn a_result_of_ours_is_understood() {
        let address = Ipv4Addr::new(10, 255, 30, 2);
        let expected = PrevResult {
            address,
            address_v6: None,
            links: ContainerLinks::of(address, "eth0"),
            mtu_bytes: Some(1410),
        };
        assert_eq!(parse(&result(), Version::V1_1_0, "eth0"), Ok(expected));
    }

    #[test]
    fn another_shape_is_named() {
        let with = |pointer: &str, value: Value| {
            let mut result = result();
            *result.pointer_mut(pointer).expect("it is there") = value;
            result
        };
        for (value, version, said) in [
            (json!([]), Version::V1_0_0, "is no object"),
            (
                json!({ "ip4": {} }),
                Version::V1_0_0,
                "`interfaces` is missing",
            ),
            (
                with("/ips", json!({})),
                Version::V1_0_0,
                "`ips` is missing, or no list",
            ),
            (
                with("/ips", json!([])),
                Version::V1_0_0,
                "no IPv4 address of eth0",
            ),
            (
                with("/ips/0/address", json!("10.255.30.2")),
                Version::V1_0_0,
                "without an address/prefix",
            ),
            (
                with("/ips/0/address", json!("fd00::2/128")),
                Version::V1_0_0,
                "no IPv4 address",
            ),
            (
                with("/ips/0/address", json!("10.255.30.3/32")),
                Version::V1_0_0,
                "has no s-010255030003",
            ),
            (
                with("/ips/0/interface", json!(0)),
                Version::V1_0_0,
                "no IPv4 address of eth0",
            ),
            (
                with("/interfaces/1/sandbox", json!("")),
                Version::V1_0_0,
                "no eth0 in a sandbox",
            ),
            (
                with("/interfaces/1/mac", json!("ee")),
                Version::V1_0_0,
                "without a MAC",
            ),
            (
                with("/interfaces/1/mtu", json!("big")),
                Version::V1_1_0,
                "has mtu \"big\"",
            ),
            // The family goes without saying only since 1.0.0.
            (result(), Version::V0_4_0, "with version null"),
            (
                with(
                    "/ips/0",
                    json!({ "version": "6", "address": "10.255.30.2/32" }),
                ),
                Version::V0_3_1,
                "with version \"6\"",
            ),
        ] {
            let error = parse(&value, version, "eth0").expect_err(said);
            assert!(error.contains(said), "{error}");
        }
    }
}
