//! Keys that are missing, unknown or of another shape, and several errors at once.

use crate::{LEAST, check, check_after_least, errors};

#[test]
fn missing_keys_are_named_at_their_table() {
    check(&[
        (
            "",
            &[
                r#"vtep.local: missing; accepted: a unicast underlay address such as "10.0.32.12" or "2001:db8::1""#,
                r#"vtep.address: missing; accepted: a unicast overlay address such as "10.255.108.0", or a list of one for each family"#,
                r#"vtep.overlay: missing; accepted: a prefix without host bits such as "10.255.0.0/16", or a list of them"#,
            ],
        ),
        (
            "\n[vtep]\noverlay = []\naddress = []",
            &[
                r#"line 2: vtep.local: missing; accepted: a unicast underlay address such as "10.0.32.12" or "2001:db8::1""#,
                r#"line 3: vtep.overlay: found []; accepted: a prefix without host bits such as "10.255.0.0/16", or a list of them"#,
                r#"line 4: vtep.address: found []; accepted: a unicast overlay address such as "10.255.108.0", or a list of one for each family"#,
            ],
        ),
    ]);
    check_after_least(&[
        (
            "[[peer]]\n[[group]]",
            &[
                r#"line 5: peer[0].subnet: missing; accepted: a prefix such as "10.255.43.0/24", or a list of one for each family"#,
                r#"line 5: peer[0].underlay: missing; accepted: a unicast underlay address such as "10.0.32.12" or "2001:db8::1""#,
                r#"line 6: group[0].address: missing; accepted: a container's unicast address such as "10.255.108.184""#,
                "line 6: group[0].id: missing; accepted: an integer from 1 to 65535 (0xffff)",
            ],
        ),
        (
            "[[peer]]\nsubnet = []\nunderlay = \"10.0.0.2\"",
            &[
                r#"line 6: peer[0].subnet: found []; accepted: a prefix such as "10.255.43.0/24", or a list of one for each family"#,
            ],
        ),
    ]);
}

#[test]
fn unknown_keys_are_named_with_the_nearest() {
    const VTEP: &str = "address, bind, busy_poll_us, cpus, datastore, df, express, gbp, health_check, lanes, local, mac, marks, moderation_us, mtu, name, offload, overlay, persist, port, routing, \
                        silk_routes, srcport, state_dir, strict_source, subnet_prefix_length, tos, ttl, udp6_zero_checksum_rx, udp_checksum, vni";
    let vtep = |rest: &str| vec![format!("line 5: vtep.{rest}; accepted: {VTEP}")];
    for (text, expected) in [
        ("mut = 1400", vtep("mut: unknown key, did you mean `mtu`?")),
        (
            "strict-source = 1",
            vtep("strict-source: unknown key, did you mean `strict_source`?"),
        ),
        ("colour = 1", vtep("colour: unknown key")),
        ("\"a\\nb\" = 1", vtep("\"a\\nb\": unknown key")),
        ("colour.red = 1", vtep("colour: unknown key")),
    ] {
        assert_eq!(errors(&format!("{LEAST}{text}")), expected, "{text}");
    }
    check_after_least(&[
        (
            "[vtep.offload]\ngso = false",
            &[
                "line 6: vtep.offload.gso: unknown key, did you mean `tso`?; accepted: tap_coalescing, tso, udp_gro, udp_gso, uso",
            ],
        ),
        (
            "[[peers]]\nsubnet = 1",
            &[
                "line 5: peers: unknown key, did you mean `peer`?; accepted: group, peer, policy, vtep",
            ],
        ),
        (
            "[[peer]]\nsubnet = \"10.255.1.0/24\"\nunderlay = \"10.0.0.2\"\nport = 4789\n[[group]]\naddress = \"10.255.108.1\"\nid = 1\nids = 1",
            &[
                "line 8: peer[0].port: unknown key; accepted: mac, subnet, underlay",
                "line 12: group[0].ids: unknown key, did you mean `id`?; accepted: address, id",
            ],
        ),
    ]);
}

#[test]
fn tables_of_another_shape_are_refused_without_echoes() {
    check(&[
        (
            "vtep = 3",
            &["line 1: vtep: found 3; accepted: a table [vtep]"],
        ),
        (
            "[[vtep]]",
            &["line 1: vtep: found [a table]; accepted: a table [vtep]"],
        ),
        (
            "vtep = 3\n[[peer]]\nsubnet = \"10.0.0.0/8\"\nunderlay = \"10.0.0.1\"\n[[group]]\naddress = \"1.1.1.1\"\nid = 1",
            &["line 1: vtep: found 3; accepted: a table [vtep]"],
        ),
    ]);
    check_after_least(&[
        (
            "offload = \"off\"",
            &["line 5: vtep.offload: found \"off\"; accepted: a table [offload]"],
        ),
        (
            "[peer]",
            &["line 5: peer: found a table; accepted: tables [[peer]]"],
        ),
        (
            "[group]",
            &["line 5: group: found a table; accepted: tables [[group]]"],
        ),
    ]);
    check(&[(
        &format!("peer = [\n1,\n]\n{LEAST}"),
        &["line 2: peer[0]: found 1; accepted: tables [[peer]]"],
    )]);
}

#[test]
fn a_text_that_is_no_toml_is_one_error_with_its_line() {
    check(&[
        (
            "[vtep]\nname = \n",
            &["line 2: string values must be quoted, expected literal string"],
        ),
        (
            "[vtep]\nvni = 1\nvni = 2",
            &["line 3: duplicate key, at \"vni\""],
        ),
        ("[vtep]\n[vtep]", &["line 2: duplicate key, at \"vtep\""]),
        ("[vtep\n", &["line 1: unclosed table, expected `]`"]),
    ]);
}

#[test]
fn ten_errors_are_reported_at_once_in_the_order_of_their_lines() {
    let text = r#"[vtep]
vni = 16777216
local = "10.255.0.1"
address = "10.254.0.1"
overlay = "10.255.0.0/16"
mtu = 575
colour = "red"
[[peer]]
subnet = "10.255.1.0/24"
[[peer]]
subnet = "10.255.1.0/25"
underlay = "10.255.9.9"
mac = "01:00:00:00:00:00"
[[group]]
address = "10.255.1.1"
id = 0
"#;
    let starts: Vec<String> = (errors(text).iter())
        .map(|line| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(
        starts,
        [
            "line 2: vtep.vni",
            "line 3: vtep.local",
            "line 4: vtep.address",
            "line 6: vtep.mtu",
            "line 7: vtep.colour",
            "line 8: peer[0].underlay",
            "line 11: peer[1].subnet",
            "line 12: peer[1].underlay",
            "line 13: peer[1].mac",
            "line 16: group[0].id",
        ]
    );
}

#[test]
fn broken_values_have_no_echo() {
    check(&[(
        "[vtep]\nlocal = 1\naddress = 2\noverlay = 3\nsubnet_prefix_length = 4.0\nmac = 5\n[[peer]]\nsubnet = 6\nunderlay = 7\n[[group]]\naddress = 8\nid = 1\n",
        &[
            "line 2: vtep.local: found 1; accepted: a unicast underlay address such as \"10.0.32.12\" or \"2001:db8::1\"",
            "line 3: vtep.address: found 2; accepted: a unicast overlay address such as \"10.255.108.0\", or a list of one for each family",
            "line 4: vtep.overlay: found 3; accepted: a prefix without host bits such as \"10.255.0.0/16\", or a list of them",
            "line 5: vtep.subnet_prefix_length: found 4.0; accepted: an integer from 1 to 32",
            "line 6: vtep.mac: found 5; accepted: a unicast MAC address such as \"ee:ee:0a:ff:2b:00\"",
            "line 8: peer[0].subnet: found 6; accepted: a prefix such as \"10.255.43.0/24\", or a list of one for each family",
            "line 9: peer[0].underlay: found 7; accepted: a unicast underlay address such as \"10.0.32.12\" or \"2001:db8::1\"",
            "line 11: group[0].address: found 8; accepted: a container's unicast address such as \"10.255.108.184\"",
        ],
    )]);
}
