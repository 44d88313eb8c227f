//! What is accepted, and what becomes of it.

use std::net::IpAddr;
use std::path::PathBuf;

use silk_vtep::control::config::{Bind, Marks};
use silk_vtep::control::{Entry, PeerSpec};
use silk_vtep::tables::{Df, MarkSource, OuterField, OuterRules};
use silk_vtep::wire::{GroupId, Vni};

use crate::{EXAMPLE, LEAST, mac, parse};

#[test]
fn example_gives_the_expected_values() {
    let config = parse(EXAMPLE);
    let vtep = &config.vtep;
    assert_eq!(vtep.name, "silk-vtep");
    assert_eq!(vtep.vni.value(), 1);
    assert_eq!(vtep.port, 4789);
    assert_eq!(vtep.local.to_string(), "10.0.32.12");
    assert_eq!(vtep.addresses, ["10.255.108.0".parse::<IpAddr>().unwrap()]);
    assert_eq!(vtep.overlays, ["10.255.0.0/16".parse().unwrap()]);
    assert_eq!(vtep.subnets, ["10.255.108.0/24".parse().unwrap()]);
    assert_eq!(vtep.mac, mac("ee:ee:0a:ff:6c:00"));
    assert_eq!(vtep.mtu_bytes, Some(1410));
    assert_eq!(vtep.marks, Marks::Auto);
    assert_eq!(
        config.peers,
        [PeerSpec {
            subnets: vec!["10.255.43.0/24".parse().unwrap()],
            underlay: "10.0.16.14".parse().unwrap(),
            mac: mac("ee:ee:0a:ff:2b:00"),
        }]
    );
    let groups: Vec<Entry> = config.groups.into_iter().map(Entry::from).collect();
    let container = Entry::Group {
        address: "10.255.108.184".parse().unwrap(),
        id: GroupId(3),
    };
    assert_eq!(groups, [container]);
}

#[test]
fn keys_left_out_are_the_example_but_for_mtu_peers_and_groups() {
    let mut example = parse(EXAMPLE);
    example.vtep.mtu_bytes = None;
    example.peers.clear();
    example.groups.clear();
    assert_eq!(parse(LEAST), example);
    let vtep = example.vtep;
    assert!(vtep.gbp && vtep.strict_source && vtep.udp_checksum && vtep.routing);
    assert!(!vtep.silk_routes && !vtep.persist);
    assert_eq!(
        (vtep.outer, vtep.source_ports),
        (OuterRules::default(), None)
    );
    assert!(!vtep.zero_checksum_rx);
    assert_eq!(
        (vtep.bind, vtep.state_dir, vtep.cpus),
        (Bind::Any, None, vec![])
    );
    assert_eq!((vtep.datastore, vtep.health_check), (None, None));
}

#[test]
fn every_key_can_differ_from_its_default() {
    let vtep = parse(&format!(
        r#"{LEAST}
name = "vx0"
vni = 0xffffff
port = 8472
subnet_prefix_length = 32
mac = "02-00-00-00-00-01"
mtu = 576
gbp = false
lanes = 256
strict_source = false
marks = "off"
udp_checksum = false
udp6_zero_checksum_rx = false
ttl = 255
tos = 0xb8
df = "set"
srcport = [1024, 65535]
routing = false
silk_routes = true
bind = "local"
persist = true
state_dir = "/var/lib/silk-vtep"
datastore = "/var/vcap/data/silk/store.json"
health_check = "[::1]:23954"
busy_poll_us = 50
moderation_us = 0
express = true
cpus = [3, 1]
[vtep.offload]
tso = false
uso = false
tap_coalescing = false
udp_gso = false
udp_gro = false
"#
    ))
    .vtep;
    assert_eq!(vtep.name, "vx0");
    assert_eq!(Ok(vtep.vni), Vni::new(0xff_ffff));
    assert_eq!(vtep.port, 8472);
    assert_eq!(vtep.subnets, ["10.255.108.0/32".parse().unwrap()]);
    assert_eq!(vtep.mac, mac("02:00:00:00:00:01"));
    assert_eq!(vtep.mtu_bytes, Some(576));
    assert_eq!(vtep.lanes.get(), 256);
    assert_eq!(vtep.marks, Marks::Off);
    let outer = OuterRules {
        ttl: OuterField::Fixed(255),
        tos: OuterField::Fixed(0xb8),
        df: Df::Set,
    };
    assert_eq!((vtep.outer, vtep.zero_checksum_rx), (outer, false));
    assert_eq!(vtep.source_ports, Some((1024, 65535)));
    assert_eq!(vtep.bind, Bind::Local);
    assert_eq!(vtep.state_dir, Some(PathBuf::from("/var/lib/silk-vtep")));
    let datastore = PathBuf::from("/var/vcap/data/silk/store.json");
    assert_eq!(vtep.datastore, Some(datastore));
    assert_eq!(vtep.health_check, "[::1]:23954".parse().ok());
    assert_eq!(vtep.cpus, [3, 1]);
    assert!(!(vtep.gbp || vtep.strict_source || vtep.udp_checksum || vtep.routing));
    assert!(vtep.silk_routes && vtep.persist && vtep.express);
    assert_eq!((vtep.busy_poll_us, vtep.moderation_us), (50, 0));
    let off = vtep.offload;
    assert!(!(off.tso || off.uso || off.tap_coalescing || off.udp_gso || off.udp_gro));
}

#[test]
fn offloads_are_on_unless_switched_off() {
    let all = parse(LEAST).vtep.offload;
    assert!(all.tso && all.uso && all.tap_coalescing && all.udp_gso && all.udp_gro);
    let one_off = parse(&format!("{LEAST}[vtep.offload]\nudp_gso = false"))
        .vtep
        .offload;
    assert!(!one_off.udp_gso && one_off.udp_gro && one_off.tso);
}

#[test]
fn outer_fields_can_be_inherited() {
    let vtep = parse(&format!(
        "{LEAST}ttl = \"inherit\"\ntos = \"inherit\"\ndf = \"inherit\"\n"
    ))
    .vtep;
    let outer = OuterRules {
        ttl: OuterField::Inherit,
        tos: OuterField::Inherit,
        df: Df::Inherit,
    };
    assert_eq!(vtep.outer, outer);
}

#[test]
fn zero_checksums_are_taken_over_ipv6_as_they_are_sent_unless_told_otherwise() {
    for (lines, taken) in [
        ("", false),
        ("udp_checksum = false", true),
        ("udp6_zero_checksum_rx = true", true),
        ("udp_checksum = false\nudp6_zero_checksum_rx = false", false),
    ] {
        let vtep = parse(&format!("{LEAST}{lines}\n")).vtep;
        assert_eq!(vtep.zero_checksum_rx, taken, "{lines}");
    }
}

#[test]
fn zero_lanes_are_one_for_each_core() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(parse(LEAST).vtep.lanes.get(), cores.min(256));
}

#[test]
fn local_carries_what_the_core_needs() {
    let config = parse(&format!(
        "{LEAST}vni = 7\ntos = 8\nport = 99\ngbp = false\nmarks = \"off\"\n"
    ));
    let local = config.local();
    assert_eq!((local.vni.value(), local.port), (7, 99));
    assert_eq!(local.outer, config.vtep.outer);
    assert_eq!(local.outer.tos, OuterField::Fixed(8));
    assert_eq!(local.mac, config.vtep.mac);
    assert_eq!(local.addresses, config.vtep.addresses);
    assert_eq!(local.subnets, config.vtep.subnets);
    assert!(local.routing && local.strict_source && !local.gbp);
    assert_eq!(local.marks, MarkSource::Off);
}

#[test]
fn groups_in_the_file_are_what_auto_uses() {
    const GROUP: &str = "[[group]]\naddress = \"10.255.108.184\"\nid = 3\n";
    for (marks, alone, with_groups) in [
        ("auto", MarkSource::Packet, MarkSource::Table),
        ("bpf", MarkSource::Packet, MarkSource::Packet),
        ("table", MarkSource::Table, MarkSource::Table),
        ("off", MarkSource::Off, MarkSource::Off),
    ] {
        let text = format!("{LEAST}marks = \"{marks}\"\n");
        assert_eq!(parse(&text).local().marks, alone, "{marks}");
        assert_eq!(parse(&(text + GROUP)).local().marks, with_groups, "{marks}");
    }
    assert_eq!(parse(LEAST).local().marks, MarkSource::Packet);
    let without_gbp = parse(&format!("{LEAST}gbp = false\n"));
    assert_eq!(without_gbp.local().marks, MarkSource::Off);
}

#[test]
fn takes_a_v6_underlay() {
    let config = parse(
        r#"
        [vtep]
        local = "2001:db8::1"
        address = "10.255.1.0"
        overlay = "10.255.0.0/16"
        [[peer]]
        subnet = "10.255.2.0/24"
        underlay = "2001:db8::2"
        "#,
    );
    assert!(config.vtep.local.is_ipv6() && config.peers[0].underlay.is_ipv6());
}

#[test]
fn takes_both_families_in_the_overlay() {
    let config = parse(
        r#"
        [vtep]
        local = "10.0.0.1"
        address = ["fd00:0:0:1::5", "10.255.1.0"]
        overlay = ["10.255.0.0/16", "fd00::/48"]
        [[peer]]
        subnet = ["fd00:0:0:2::/64", "10.255.2.7/24"]
        underlay = "10.0.0.2"
        [[peer]]
        subnet = "fd00:0:0:3::1/64"
        mac = "ee:ee:00:00:00:03"
        underlay = "10.0.0.3"
        "#,
    );
    let subnets = ["fd00:0:0:1::/64", "10.255.1.0/24"].map(|net| net.parse().unwrap());
    assert_eq!(config.vtep.subnets, subnets);
    assert_eq!(config.vtep.mac, mac("ee:ee:0a:ff:01:00"));
    let peer = &config.peers[0];
    assert_eq!(peer.mac, mac("ee:ee:0a:ff:02:07"));
    let vias: Vec<String> = (peer.routes())
        .map(|route| format!("{} {:?}", route.prefix, route.via.unwrap()))
        .collect();
    assert_eq!(
        vias,
        ["fd00:0:0:2::/64 fd00:0:0:2::", "10.255.2.0/24 10.255.2.7"]
    );
    assert_eq!(config.peers[1].mac, mac("ee:ee:00:00:00:03"));
}

#[test]
fn takes_several_overlays_and_cells_of_one_address() {
    let config = parse(
        r#"
        peer = [
            { subnet = "10.254.2.1/32", underlay = "10.0.0.2" },
            { subnet = "10.254.2.2/32", underlay = "10.0.0.3" },
        ]
        [vtep]
        local = "10.0.0.1"
        address = "10.255.1.9"
        subnet_prefix_length = 32
        overlay = ["10.255.0.0/16", "10.254.0.0/16"]
        "#,
    );
    assert_eq!(config.vtep.overlays.len(), 2);
    assert_eq!(config.peers.len(), 2);
}
