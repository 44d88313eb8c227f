//! How answers look: the lines of iproute2 for what iproute2 shows, aligned columns for the rest.

mod columns;
mod stats;

use columns::put;
pub(super) use columns::{Align, columns};
use ipnet::IpNet;
pub use stats::stats;

use crate::control::policy::{DeniedReport, PolicyRow};
use crate::control::rows::{FdbRow, GroupRow, LinkRow, NeighRow, PeerRow, RouteRow, VxlanInfo};
use crate::tables::DEFAULT_TTL;
use crate::wire::icmp::{IPV4_MTU_MIN, IPV6_MTU_MIN};

/// One line, as `ip route show`.
#[must_use]
pub fn route(row: &RouteRow) -> String {
    let mut line = row.dst.clone();
    if let Some(gateway) = row.gateway {
        put(&mut line, format_args!(" via {gateway}"));
    }
    put(&mut line, format_args!(" dev {}", row.dev));
    if let Some(source) = row.prefsrc {
        put(&mut line, format_args!(" src {source}"));
    }
    line.push('\n');
    line
}

/// One line, as `ip neigh show`.
#[must_use]
pub fn neigh(row: &NeighRow) -> String {
    format!(
        "{} dev {} lladdr {} {}\n",
        row.dst,
        row.dev,
        row.lladdr,
        row.state.join(",")
    )
}

/// One line, as `bridge fdb show`.
#[must_use]
pub fn fdb(row: &FdbRow) -> String {
    let mut line = format!("{} dev {} dst {}", row.mac, row.ifname, row.dst);
    if let Some(port) = row.port {
        put(&mut line, format_args!(" port {port}"));
    }
    if let Some(vni) = row.vni {
        put(&mut line, format_args!(" vni {vni}"));
    }
    put(
        &mut line,
        format_args!(" {} {}\n", row.flags.join(" "), row.state),
    );
    line
}

/// Three lines, as `ip -d link show` of a kernel vxlan device.
#[must_use]
pub fn link(row: &LinkRow) -> String {
    let vxlan = &row.linkinfo.info_data;
    let mut text = format!(
        "{}: {}: <{}> mtu {} qdisc {} state {}\n    link/{} {} brd {}\n    vxlan id {}",
        row.ifindex,
        row.ifname,
        row.flags.join(","),
        row.mtu,
        row.qdisc,
        row.operstate,
        row.link_type,
        row.address,
        row.broadcast,
        vxlan.id,
    );
    if let Some(local) = vxlan.local.or(vxlan.local6) {
        put(&mut text, format_args!(" local {local}"));
    }
    if let Some(device) = &vxlan.link {
        put(&mut text, format_args!(" dev {device}"));
    }
    put(
        &mut text,
        format_args!(
            " srcport {} {} dstport {} nolearning{} ageing {} {}{}\n",
            vxlan.port_range.low,
            vxlan.port_range.high,
            vxlan.port,
            outer_fields(vxlan),
            vxlan.ageing,
            checksums(vxlan),
            if vxlan.gbp { " gbp" } else { "" },
        ),
    );
    let ours = &row.silk_vtep;
    put(
        &mut text,
        format_args!("    marks {}: {}\n", ours.marks, ours.marks_why),
    );
    if let Some(trouble) = &ours.marks_trouble {
        put(&mut text, format_args!("    marks trouble: {trouble}\n"));
    }
    if !matches!(&*ours.policy, "" | "off") {
        put(&mut text, format_args!("    policy {}\n", ours.policy));
    }
    text
}

/// What differs from the defaults.
fn outer_fields(vxlan: &VxlanInfo) -> String {
    let mut words = String::new();
    match vxlan.tos {
        None => {}
        Some(1) => words.push_str(" tos inherit"),
        Some(tos) => put(&mut words, format_args!(" tos {tos:#x}")),
    }
    match vxlan.ttl {
        None => words.push_str(" ttl inherit"),
        Some(DEFAULT_TTL) => {}
        Some(ttl) => put(&mut words, format_args!(" ttl {ttl}")),
    }
    if let Some(df @ ("set" | "inherit")) = vxlan.df.as_deref() {
        put(&mut words, format_args!(" df {df}"));
    }
    words
}

fn checksums(vxlan: &VxlanInfo) -> String {
    let words = [
        (vxlan.udp_csum, "udpcsum"),
        (vxlan.udp_zero_csum6_tx, "udp6zerocsumtx"),
        (vxlan.udp_zero_csum6_rx, "udp6zerocsumrx"),
    ];
    let words = words.map(|(on, word)| format!("{}{word}", if on { "" } else { "no" }));
    words.join(" ")
}

/// One line a peer, the words in the order in which `peer add` takes them; at the end the MTU, where a path carries less than the device.
#[must_use]
pub fn peers(rows: &[PeerRow]) -> String {
    let cells = rows.iter().map(|row| {
        let subnets: Vec<_> = row.subnets.iter().map(ToString::to_string).collect();
        [
            subnets.join(","),
            format!("underlay {}", row.underlay),
            format!("mac {}", row.mac),
            row.origin.to_string(),
            row.mtu.map_or_else(String::new, |mtu| path(row, mtu)),
        ]
    });
    columns(&cells.collect::<Vec<_>>(), [Align::Left; 5])
}

/// What the path to a peer carries, and whether that is less than its senders can be told.
fn path(row: &PeerRow, mtu: u32) -> String {
    let has_v6 = row.subnets.iter().any(|subnet| subnet.addr().is_ipv6());
    if mtu < IPV4_MTU_MIN {
        format!("mtu {mtu} (below IPv4's {IPV4_MTU_MIN})")
    } else if mtu < IPV6_MTU_MIN && has_v6 {
        format!("mtu {mtu} (below IPv6's {IPV6_MTU_MIN})")
    } else {
        format!("mtu {mtu}")
    }
}

/// One line a rule, the words in the order in which `policy add` takes them.
#[must_use]
pub fn policy(rows: &[PolicyRow]) -> String {
    let cells = rows.iter().map(|row| {
        let ports = match row.ports.is_all() {
            true => String::new(),
            false => format!("ports {}", row.ports),
        };
        [
            prefix(row.dst),
            format!("group {}", row.group),
            format!("proto {}", row.proto),
            ports,
            format!("action {}", row.action),
            row.origin.to_string(),
        ]
    });
    columns(&cells.collect::<Vec<_>>(), [Align::Left; 6])
}

/// A host without its length.
fn prefix(net: IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

/// One line for each group at each destination.
#[must_use]
pub fn denied(report: &DeniedReport) -> String {
    let cells = report.rows.iter().map(|row| {
        let proto = row.proto.as_deref().unwrap_or("unreadable");
        let port = row
            .port
            .map_or_else(String::new, |port| format!(" port {port}"));
        [
            row.dst.to_string(),
            format!("group {}", row.group),
            format!("packets {}", row.packets),
            format!("latest {proto}{port} from {}", row.src),
            format!("{} s ago", row.seconds_ago),
        ]
    });
    let mut text = columns(&cells.collect::<Vec<_>>(), [Align::Left; 5]);
    if report.forgotten > 0 {
        put(
            &mut text,
            format_args!(
                "{} packets more, of rows that made room for others\n",
                report.forgotten
            ),
        );
    }
    match (report.policy.as_str(), text.is_empty()) {
        ("off", _) => text.push_str(
            "no policy is enforced: nobody is refused (set enforce = true in [policy] and reload to have one)\n",
        ),
        (_, true) => text.push_str("nobody was refused\n"),
        (_, false) => {}
    }
    text
}

/// One line a group, the words in the order in which `group add` takes them.
#[must_use]
pub fn groups(rows: &[GroupRow]) -> String {
    let cells = rows.iter().map(|row| {
        [
            row.address.to_string(),
            format!("id {}", row.id),
            row.origin.to_string(),
        ]
    });
    columns(&cells.collect::<Vec<_>>(), [Align::Left; 3])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn row<T: serde::de::DeserializeOwned>(value: Value) -> T {
        from_value(value).expect("the JSON of a row")
    }

    #[test]
    fn route_prints_iproute2s_line() {
        let v4 = json!({"dst": "10.255.43.0/24", "gateway": "10.255.43.0", "dev": "silk-vtep", "prefsrc": "10.255.108.0",
            "flags": [], "origin": "config", "peer": "10.0.16.14"});
        assert_eq!(
            route(&row(v4)),
            "10.255.43.0/24 via 10.255.43.0 dev silk-vtep src 10.255.108.0\n"
        );
        let onlink =
            json!({"dst": "fd00:43::/64", "dev": "silk-vtep", "flags": [], "origin": "live"});
        assert_eq!(route(&row(onlink)), "fd00:43::/64 dev silk-vtep\n");
    }

    #[test]
    fn neigh_prints_iproute2s_line() {
        let value = json!({"dst": "10.255.43.0", "dev": "silk-vtep", "lladdr": "ee:ee:0a:ff:2b:00", "state": ["PERMANENT"],
            "origin": "config"});
        assert_eq!(
            neigh(&row(value)),
            "10.255.43.0 dev silk-vtep lladdr ee:ee:0a:ff:2b:00 PERMANENT\n"
        );
    }

    #[test]
    fn fdb_prints_bridges_line() {
        let mut value = json!({"mac": "ee:ee:0a:ff:2b:00", "ifname": "silk-vtep", "dst": "10.0.16.14", "flags": ["self"],
            "state": "permanent", "origin": "config"});
        assert_eq!(
            fdb(&row(value.clone())),
            "ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 self permanent\n"
        );
        value["port"] = json!(4790);
        value["vni"] = json!(7);
        assert_eq!(
            fdb(&row(value)),
            "ee:ee:0a:ff:2b:00 dev silk-vtep dst 10.0.16.14 port 4790 vni 7 self permanent\n"
        );
    }

    fn link_json() -> Value {
        json!({"ifindex": 865, "ifname": "silk-vtep", "flags": ["BROADCAST", "MULTICAST", "NOARP", "UP", "LOWER_UP"],
            "mtu": 1410, "qdisc": "mq", "operstate": "UNKNOWN", "link_type": "ether", "address": "ee:ee:0a:ff:6c:00",
            "broadcast": "ff:ff:ff:ff:ff:ff",
            "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 1, "local": "10.0.32.12", "link": "eth0",
                "port_range": {"low": 32768, "high": 60999}, "port": 4789, "learning": false, "ttl": 64, "ageing": 300,
                "udp_csum": true, "gbp": true}},
            "silk_vtep": {"lanes": 2, "addresses": ["10.255.108.0"], "overlays": ["10.255.0.0/16"], "routing": true,
                "strict_source": true, "marks": "table", "marks_why": "the configuration has groups", "features": {"udp-gso": "on"}}})
    }

    #[test]
    fn link_prints_iproute2s_lines() {
        assert_eq!(
            link(&row(link_json())),
            "865: silk-vtep: <BROADCAST,MULTICAST,NOARP,UP,LOWER_UP> mtu 1410 qdisc mq state UNKNOWN
    link/ether ee:ee:0a:ff:6c:00 brd ff:ff:ff:ff:ff:ff
    vxlan id 1 local 10.0.32.12 dev eth0 srcport 32768 60999 dstport 4789 nolearning ageing 300 udpcsum noudp6zerocsumtx noudp6zerocsumrx gbp
    marks table: the configuration has groups
"
        );
    }

    #[test]
    fn link_says_what_is_off_and_leaves_out_what_is_not_known() {
        let mut value = link_json();
        let data = value["linkinfo"]["info_data"]
            .as_object_mut()
            .expect("an object");
        data.remove("link");
        data.remove("local");
        data.insert("local6".to_owned(), json!("2001:db8::1"));
        data.insert("gbp".to_owned(), json!(false));
        data.insert("udp_csum".to_owned(), json!(false));
        data.insert("udp_zero_csum6_tx".to_owned(), json!(true));
        data.insert("udp_zero_csum6_rx".to_owned(), json!(true));
        assert!(link(&row(value)).contains(
            "    vxlan id 1 local 2001:db8::1 srcport 32768 60999 dstport 4789 nolearning ageing 300 noudpcsum udp6zerocsumtx udp6zerocsumrx\n"
        ));
    }

    #[test]
    fn link_prints_outer_fields_that_are_not_the_defaults() {
        let printed = |ttl: Value, tos: Value, df: &str| {
            let mut value = link_json();
            let data = &mut value["linkinfo"]["info_data"];
            (data["ttl"], data["tos"], data["df"]) = (ttl, tos, json!(df));
            let text = link(&row(value));
            let (_, words) = text.split_once("nolearning").expect("it is there");
            let (words, _) = words
                .split_once(" ageing 300 udpcsum")
                .expect("it is there");
            words.to_owned()
        };
        assert_eq!(printed(json!(64), Value::Null, "unset"), "");
        assert_eq!(
            printed(json!(9), json!(0xb8), "set"),
            " tos 0xb8 ttl 9 df set"
        );
        assert_eq!(
            printed(Value::Null, json!(1), "inherit"),
            " tos inherit ttl inherit df inherit"
        );
    }

    #[test]
    fn peers_and_groups_are_aligned() {
        let rows = [
            json!({"subnets": ["10.255.43.0/24"], "underlay": "10.0.16.14", "mac": "ee:ee:0a:ff:2b:00", "origin": "config"}),
            json!({"subnets": ["10.255.4.0/24"], "underlay": "10.0.16.5", "mac": "ee:ee:0a:ff:04:00", "origin": "live", "mtu": 1350}),
        ];
        assert_eq!(
            peers(&rows.map(row)),
            "10.255.43.0/24  underlay 10.0.16.14  mac ee:ee:0a:ff:2b:00  config
10.255.4.0/24   underlay 10.0.16.5   mac ee:ee:0a:ff:04:00  live    mtu 1350\n"
        );
        let shown = |subnet: &str, mtu: u32| {
            let subnets = ["10.255.4.0/24", subnet];
            let row = row(
                json!({"subnets": subnets, "underlay": "10.0.16.5", "mac": "ee:ee:0a:ff:04:00", "origin": "live", "mtu": mtu}),
            );
            let text = peers(&[row]);
            text.trim_end()
                .split_once("mtu ")
                .map(|(_, mtu)| mtu.to_owned())
        };
        assert_eq!(shown("fd00:4::/64", 1280).as_deref(), Some("1280"));
        assert_eq!(
            shown("fd00:4::/64", 1230).as_deref(),
            Some("1230 (below IPv6's 1280)")
        );
        assert_eq!(shown("10.255.5.0/24", 1230).as_deref(), Some("1230"));
        assert_eq!(
            shown("10.255.5.0/24", 526).as_deref(),
            Some("526 (below IPv4's 576)")
        );
        let rows = [json!({"address": "10.255.108.184", "id": 3, "origin": "config"})];
        assert_eq!(
            groups(&rows.map(row)),
            "10.255.108.184  id 0x0003  config\n"
        );
    }

    #[test]
    fn rules_are_aligned_and_can_be_given_back() {
        let rows = [
            json!({"dst": "10.255.108.184/32", "group": 3, "proto": "tcp", "ports": "8080-8090", "action": "accept", "origin": "config"}),
            json!({"dst": "10.255.108.0/24", "group": 4, "proto": "icmp", "action": "deny", "origin": "live"}),
        ];
        assert_eq!(
            policy(&rows.map(row)),
            "10.255.108.184   group 0x0003  proto tcp   ports 8080-8090  action accept  config
10.255.108.0/24  group 0x0004  proto icmp                   action deny    live\n"
        );
    }

    #[test]
    fn the_refused_are_told_by_destination_and_group() {
        let report = json!({"rows": [
            {"dst": "10.255.108.184", "group": 3, "packets": 12, "src": "10.255.43.6", "proto": "tcp", "port": 80, "seconds_ago": 2},
            {"dst": "10.255.108.185", "group": 0, "packets": 1, "src": "10.255.43.6", "seconds_ago": 30},
        ], "forgotten": 7});
        assert_eq!(
            denied(&row(report)),
            "10.255.108.184  group 0x0003  packets 12  latest tcp port 80 from 10.255.43.6  2 s ago
10.255.108.185  group 0x0000  packets 1   latest unreadable from 10.255.43.6   30 s ago
7 packets more, of rows that made room for others\n"
        );
        let empty = |policy: &str| {
            denied(&DeniedReport {
                policy: policy.to_owned(),
                ..DeniedReport::default()
            })
        };
        assert_eq!(empty("default deny reject"), "nobody was refused\n");
        // A daemon that does not tell.
        assert_eq!(empty(""), "nobody was refused\n");
        assert!(empty("off").starts_with("no policy is enforced: nobody is refused ("));
        // Those that were refused before it was switched off are still told.
        let report = json!({"rows": [{"dst": "10.255.108.184", "group": 3, "packets": 12, "src": "10.255.43.6", "seconds_ago": 2}],
            "forgotten": 0, "policy": "off"});
        let text = denied(&row(report));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("10.255.108.184") && lines[1].starts_with("no policy"));
    }

    #[test]
    fn link_tells_of_a_policy_that_is_enforced() {
        let mut value = link_json();
        value["silk_vtep"]["policy"] = json!("off");
        assert!(!link(&row(value.clone())).contains("policy"));
        value["silk_vtep"]["policy"] = json!("default deny reject");
        assert!(link(&row(value)).ends_with("\n    policy default deny reject\n"));
    }
}
