//! Values that are refused for what another value is.

use std::fmt::Write;

use silk_vtep::control::config::Config;
use silk_vtep::netlink::Underlay;

use crate::{LEAST, check, check_after_least, errors};

#[test]
fn overlays_are_prefixes_that_do_not_overlap() {
    let accepted =
        "accepted: a prefix without host bits such as \"10.255.0.0/16\", or a list of them";
    for (overlay, wrong) in [
        ("10.255.0.0", ""),
        ("10.255.0.0/33", ""),
        (
            "10.255.1.0/16",
            ", but it has host bits set (without them: 10.255.0.0/16)",
        ),
        (
            "0.0.0.0/0",
            ", but it overlaps 169.254.0.0/16, which is link-local",
        ),
        (
            "169.254.3.0/24",
            ", but it overlaps 169.254.0.0/16, which is link-local",
        ),
        (
            "127.0.0.0/24",
            ", but it overlaps 127.0.0.0/8, which is loopback",
        ),
        (
            "225.0.0.0/8",
            ", but it overlaps 224.0.0.0/4, which is multicast",
        ),
        (
            "fe80::/64",
            ", but it overlaps fe80::/10, which is link-local",
        ),
        (
            "ff05::/16",
            ", but it overlaps ff00::/8, which is multicast",
        ),
    ] {
        // What the overlay holds is unknown then: nothing is said about `address` and the peer.
        let text = format!(
            "[vtep]\nlocal = \"10.0.0.1\"\naddress = \"10.255.1.0\"\noverlay = {overlay:?}\n[[peer]]\nsubnet = \"10.255.2.0/24\"\nunderlay = \"10.0.0.2\""
        );
        let expected = format!("line 4: vtep.overlay: found {overlay:?}{wrong}; {accepted}");
        assert_eq!(errors(&text), [expected], "{text}");
    }
    check(&[(
        "[vtep]\nlocal = \"10.0.0.1\"\naddress = \"10.255.1.0\"\noverlay = [\"10.255.0.0/16\",\n\"10.0.0.0/24\",\n\"10.255.1.0/24\", 7]",
        &[
            "line 2: vtep.local: 10.0.0.1 is inside the overlay 10.0.0.0/24, so the tunnel would carry itself; accepted: an address outside every overlay",
            "line 6: vtep.overlay[3]: found 7; accepted: a prefix without host bits such as \"10.255.0.0/16\", or a list of them",
            "line 6: vtep.overlay[2]: 10.255.1.0/24 overlaps 10.255.0.0/16; accepted: overlays that do not overlap",
        ],
    )]);
}

#[test]
fn without_gbp_nothing_says_where_groups_come_from() {
    for marks in ["bpf", "table"] {
        let text = format!("{LEAST}marks = {marks:?}\ngbp = false\n");
        let told = errors(&text);
        let wrong = "vtep.marks: with gbp = false no group is ever sent; accepted: \"auto\" or \"off\", or gbp = true";
        assert!(told.len() == 1 && told[0].ends_with(wrong), "{told:?}");
    }
    for marks in ["auto", "off"] {
        Config::parse(&format!("{LEAST}marks = {marks:?}\ngbp = false\n")).expect(marks);
    }
}

#[test]
fn own_addresses_and_subnets_must_be_in_the_overlay() {
    let text = |local: &str, address: &str, overlay: &str, more: &str| {
        format!("[vtep]\nlocal = {local:?}\naddress = {address}\noverlay = {overlay}\n{more}")
    };
    let v4 = r#""10.255.0.0/16""#;
    check(&[
        (
            &text("10.255.3.1", r#""10.255.1.0""#, v4, ""),
            &[
                "line 2: vtep.local: 10.255.3.1 is inside the overlay 10.255.0.0/16, so the tunnel would carry itself; accepted: an address outside every overlay",
            ],
        ),
        (
            &text("10.0.0.1", r#""10.254.1.0""#, v4, ""),
            &[
                "line 3: vtep.address: 10.254.1.0 is in no overlay; accepted: an address inside 10.255.0.0/16",
            ],
        ),
        (
            &text(
                "10.0.0.1",
                r#""10.9.1.0""#,
                r#"["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"]"#,
                "",
            ),
            &[
                "line 3: vtep.address: 10.9.1.0 is in no overlay; accepted: an address inside 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, ...",
            ],
        ),
        (
            &text(
                "10.0.0.1",
                r#"["10.255.1.0",
            "10.255.2.0"]"#,
                v4,
                "",
            ),
            &[
                "line 4: vtep.address[1]: 10.255.2.0 is of the same family as 10.255.1.0; accepted: one for each family",
            ],
        ),
        (
            &text(
                "10.0.0.1",
                r#""10.255.1.0""#,
                v4,
                "subnet_prefix_length = 15",
            ),
            &[
                "line 5: vtep.subnet_prefix_length: our subnet 10.254.0.0/15 reaches out of the overlay 10.255.0.0/16; accepted: a subnet inside 10.255.0.0/16",
            ],
        ),
        (
            &text("10.0.0.1", r#""10.255.1.0""#, r#""10.255.1.0/25""#, ""),
            &[
                "line 3: vtep.address: our subnet 10.255.1.0/24 reaches out of the overlay 10.255.1.0/25; accepted: a subnet inside 10.255.1.0/25",
            ],
        ),
        (
            &text(
                "10.0.0.1",
                r#"["10.255.1.0", "fd00::1"]"#,
                r#"["10.255.0.0/16", "fd00::/80"]"#,
                "",
            ),
            &[
                "line 3: vtep.address[1]: our subnet fd00::/64 reaches out of the overlay fd00::/80; accepted: a subnet inside fd00::/80",
            ],
        ),
        (
            &text("10.0.0.1", r#""fd00::1""#, r#""fd00::/48""#, "mtu = 1279"),
            &[
                "line 1: vtep.mac: missing; accepted: a unicast MAC address such as \"ee:ee:0a:ff:2b:00\" (there is no IPv4 address that it could follow from)",
                "line 5: vtep.mtu: 1279 is too small for the IPv6 overlay; accepted: an integer from 1280",
            ],
        ),
        (
            &text(
                "10.0.0.1",
                r#""fd00::1""#,
                r#""fd00::/48""#,
                "mtu = 1280\nmac = \"02:00:00:00:00:01\"",
            ),
            &[],
        ),
    ]);
}

#[test]
fn mtu_is_held_against_the_underlay_among_all_other_errors() {
    let eth0 = |_| {
        Some(Underlay {
            ifindex: 2,
            name: "eth0".to_owned(),
            mtu_bytes: 1500,
        })
    };
    let told = |text: &str| match Config::parse_on(text, &eth0) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    let above = |mtu, carried, overhead| {
        format!(
            "line 5: vtep.mtu: {mtu} is above what eth0 carries; accepted: an integer to {carried} (1500 - {overhead})"
        )
    };
    assert_eq!(
        told(&format!("{LEAST}mtu = 1451\nlnaes = 2"))
            .lines()
            .next(),
        Some(&*above(1451, 1450, 50))
    );
    assert!(told(&format!("{LEAST}mtu = 1451\nlnaes = 2")).contains("line 6: vtep.lnaes: "));
    assert_eq!(told(&format!("{LEAST}mtu = 1450")), "");
    let v6 = LEAST.replace("10.0.32.12", "2001:db8::1");
    assert_eq!(told(&format!("{v6}mtu = 1431")), above(1431, 1430, 70));
    // Nothing can be said of an underlay that is not known.
    assert_eq!(errors(&format!("{LEAST}mtu = 1451")), [""; 0]);
}

#[test]
fn peers_are_held_against_the_vtep() {
    let peer = |subnet: &str, underlay: &str| {
        format!("[[peer]]\nsubnet = {subnet:?}\nunderlay = {underlay:?}\n")
    };
    check_after_least(&[
        (
            &peer("10.254.1.0/24", "10.0.0.2"),
            &[
                "line 6: peer[0].subnet: 10.254.1.0/24 is inside no overlay; accepted: a prefix inside 10.255.0.0/16",
            ],
        ),
        (
            &peer("10.0.0.1/8", "11.0.0.2"),
            &[
                "line 6: peer[0].subnet: 10.0.0.1/8 is inside no overlay; accepted: a prefix inside 10.255.0.0/16",
                "line 6: peer[0].subnet: 10.0.0.1/8 overlaps 10.255.108.0/24 of vtep.address (line 3); accepted: a subnet of its own",
            ],
        ),
        (
            &peer("10.255.1.0/24", "10.255.2.1"),
            &[
                "line 7: peer[0].underlay: 10.255.2.1 is inside the overlay 10.255.0.0/16, so the tunnel would carry itself; accepted: an address outside every overlay",
            ],
        ),
        (
            &peer("10.255.108.0/24", "10.0.0.2"),
            &[
                "line 6: peer[0].subnet: 10.255.108.0/24 overlaps 10.255.108.0/24 of vtep.address (line 3); accepted: a subnet of its own",
            ],
        ),
        (
            &peer("10.255.1.0/24", "10.0.32.12"),
            &[
                "line 7: peer[0].underlay: 10.0.32.12 is taken by vtep.local (line 2); accepted: an underlay address of its own",
            ],
        ),
        (
            &peer("10.255.1.0/24", "2001:db8::1"),
            &[
                "line 7: peer[0].underlay: 2001:db8::1 and vtep.local (line 2) are of different families; accepted: an address of the family of 10.0.32.12",
            ],
        ),
        (
            &format!(
                "{}mac = \"ee:ee:0a:ff:6c:00\"",
                peer("10.255.1.0/24", "10.0.0.2")
            ),
            &[
                "line 8: peer[0].mac: MAC ee:ee:0a:ff:6c:00 is taken by vtep.address (line 3); accepted: a MAC of its own",
            ],
        ),
        (
            &peer("10.255.1.0", "10.0.0.2"),
            &[
                r#"line 6: peer[0].subnet: found "10.255.1.0"; accepted: a prefix such as "10.255.43.0/24", or a list of one for each family"#,
            ],
        ),
        (
            &peer("0.0.0.0/0", "10.0.0.2"),
            &[
                r#"line 6: peer[0].subnet: found "0.0.0.0/0", but this is the unspecified address; accepted: a prefix such as "10.255.43.0/24", or a list of one for each family"#,
            ],
        ),
    ]);
}

#[test]
fn peers_are_held_against_each_other() {
    let peers = |entries: &[(&str, &str, &str)]| {
        entries
            .iter()
            .fold(String::new(), |mut text, (subnet, underlay, more)| {
                writeln!(
                    text,
                    "[[peer]]\nsubnet = {subnet}\nunderlay = {underlay:?}\n{more}"
                )
                .unwrap();
                text
            })
    };
    let two = |first, second| peers(&[first, second]);
    check_after_least(&[
        (
            &two(
                (r#""10.255.1.0/24""#, "10.0.0.1", ""),
                (r#""10.255.1.128/25""#, "10.0.0.2", ""),
            ),
            &[
                "line 10: peer[1].subnet: 10.255.1.128/25 overlaps 10.255.1.0/24 of peer[0].subnet (line 6); accepted: a subnet of its own",
            ],
        ),
        (
            &two(
                (r#""10.255.1.0/24""#, "10.0.0.1", ""),
                (r#""10.255.1.0/24""#, "10.0.0.2", ""),
            ),
            &[
                "line 10: peer[1].subnet: 10.255.1.0/24 overlaps 10.255.1.0/24 of peer[0].subnet (line 6); accepted: a subnet of its own",
            ],
        ),
        (
            &two(
                (r#""10.255.1.0/24""#, "10.0.0.1", ""),
                (r#""10.255.2.0/24""#, "10.0.0.1", ""),
            ),
            &[
                "line 11: peer[1].underlay: 10.0.0.1 is taken by peer[0].underlay (line 7); accepted: an underlay address of its own",
            ],
        ),
        (
            &two(
                (
                    r#""10.255.1.0/24""#,
                    "10.0.0.1",
                    "mac = \"02:00:00:00:00:01\"",
                ),
                (
                    r#""10.255.2.0/24""#,
                    "10.0.0.2",
                    "mac = \"02-00-00-00-00-01\"",
                ),
            ),
            &[
                "line 12: peer[1].mac: MAC 02:00:00:00:00:01 is taken by peer[0].mac (line 8); accepted: a MAC of its own",
            ],
        ),
        (
            &two(
                (
                    r#""10.255.1.0/24""#,
                    "10.0.0.1",
                    "mac = \"ee:ee:0a:ff:02:00\"",
                ),
                (r#""10.255.2.0/24""#, "10.0.0.2", ""),
            ),
            &[
                "line 10: peer[1].subnet: MAC ee:ee:0a:ff:02:00, which follows from the address, is taken by peer[0].mac (line 8); accepted: a MAC of its own",
            ],
        ),
        (
            &peers(&[(r#"["10.255.1.0/24", "10.255.2.0/24"]"#, "10.0.0.1", "")]),
            &[
                "line 6: peer[0].subnet[1]: 10.255.2.0/24 is of the same family as 10.255.1.0/24; accepted: one for each family",
            ],
        ),
    ]);
}

#[test]
fn a_peer_without_ipv4_needs_a_mac() {
    let text = |more: &str| {
        format!(
            "[vtep]\nlocal = \"10.0.0.1\"\naddress = \"10.255.1.0\"\noverlay = [\"10.255.0.0/16\", \"fd00::/48\"]\n[[peer]]\nsubnet = \"fd00:0:0:2::/64\"\nunderlay = \"10.0.0.2\"\n{more}"
        )
    };
    check(&[
        (
            &text(""),
            &[
                "line 5: peer[0].mac: missing; accepted: a unicast MAC address such as \"ee:ee:0a:ff:2b:00\" (there is no IPv4 address that it could follow from)",
            ],
        ),
        (
            &text("mac = 1"),
            &[
                "line 8: peer[0].mac: found 1; accepted: a unicast MAC address such as \"ee:ee:0a:ff:2b:00\"",
            ],
        ),
        (&text("mac = \"02:00:00:00:00:01\""), &[]),
    ]);
}

#[test]
fn groups_have_an_id_and_an_address_of_the_overlay_each() {
    let group = |address: &str, id: &str| format!("[[group]]\naddress = {address:?}\nid = {id}\n");
    for id in ["0", "0x10000", "-1", "\"3\""] {
        let text = format!("{LEAST}{}", group("10.255.108.1", id));
        let expected = format!(
            "line 7: group[0].id: found {id}; accepted: an integer from 1 to 65535 (0xffff)"
        );
        assert_eq!(errors(&text), [expected]);
    }
    check_after_least(&[
        (
            &(group("10.255.108.1", "1") + &group("10.255.108.1", "2")),
            &[
                "line 9: group[1].address: 10.255.108.1 has a group already at group[0].address (line 6); accepted: one group for each address",
            ],
        ),
        (
            &group("10.254.108.1", "1"),
            &[
                "line 6: group[0].address: 10.254.108.1 is in no overlay; accepted: an address inside 10.255.0.0/16",
            ],
        ),
    ]);
}
