//! Single values that are refused.

use crate::{LEAST, check, check_after_least, check_key, errors, parse};

#[test]
fn wrong_types_say_what_was_found() {
    check_key(
        "vni",
        "an integer from 0 to 16777215 (2^24-1)",
        &[
            ("\"1\"", "found \"1\""),
            ("1.5", "found 1.5"),
            ("true", "found true"),
            ("1979-05-27", "found 1979-05-27"),
            (
                "[1, \"a\", [], {}, 5]",
                "found [1, \"a\", a list, a table, ...]",
            ),
            ("{ a = 1 }", "found a table"),
            ("\"\"\"\na\nb\"\"\"", "found \"a\\nb\""),
        ],
    );
    let long = format!("\"{}\"", "é".repeat(1000));
    let cut = format!("found \"{}...\"", "é".repeat(60));
    check_key("gbp", "true or false", &[("1", "found 1"), (&long, &cut)]);
    let digits = "9".repeat(1000);
    let cut = format!("found {}...", "9".repeat(60));
    check_key("port", "an integer from 1 to 65535", &[(&digits, &cut)]);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let keys: [(&str, &str, &[&str]); 10] = [
        (
            "vni",
            "an integer from 0 to 16777215 (2^24-1)",
            &["16777216", "-1", "4294967296"],
        ),
        ("port", "an integer from 1 to 65535", &["0", "65536", "-1"]),
        (
            "subnet_prefix_length",
            "an integer from 1 to 32",
            &["0", "33"],
        ),
        (
            "mtu",
            "an integer from 576 to 65485, and no more than the underlay carries",
            &["575", "0", "-1", "65486"],
        ),
        (
            "lanes",
            "an integer from 0 to 256 (0: one lane for each core)",
            &["-1", "257"],
        ),
        (
            "ttl",
            "an integer from 1 to 255, or \"inherit\"",
            &["0", "256", "\"auto\""],
        ),
        (
            "tos",
            "a multiple of 4 from 0 to 252 (the two ECN bits come from the inner packet), or \"inherit\"",
            &["256", "-4", "\"auto\""],
        ),
        (
            "busy_poll_us",
            "microseconds, an integer from 0 (not at all) to 100000",
            &["100001", "-1"],
        ),
        (
            "moderation_us",
            "microseconds, an integer from 0 (not at all) to 1000",
            &["1001", "-1"],
        ),
        (
            "cpus",
            "an integer from 0 to 1023, or a list of them",
            &["-1", "1024"],
        ),
    ];
    for (key, accepted, values) in keys {
        for value in values {
            check_key(key, accepted, &[(value, &format!("found {value}"))]);
        }
    }
    check_key(
        "tos",
        "a multiple of 4 from 0 to 252 (the two ECN bits come from the inner packet), or \"inherit\"",
        &[
            ("3", "found 3, but it has ECN bits set"),
            ("0xb9", "found 0xb9, but it has ECN bits set"),
        ],
    );
    check_after_least(&[(
        "cpus = [0,\n-1]",
        &["line 6: vtep.cpus[1]: found -1; accepted: an integer from 0 to 1023, or a list of them"],
    )]);
}

#[test]
fn words_that_are_not_there_yet_are_refused_as_such() {
    check_key(
        "df",
        "\"unset\", \"set\" or \"inherit\"",
        &[("\"on\"", "found \"on\""), ("false", "found false")],
    );
    check_key(
        "marks",
        "\"auto\", \"bpf\", \"table\" or \"off\"",
        &[("\"on\"", "found \"on\""), ("false", "found false")],
    );
    check_key(
        "bind",
        "\"any\" or \"local\"",
        &[("\"all\"", "found \"all\"")],
    );
    check_key(
        "state_dir",
        "the path of a directory",
        &[("\"\"", "found \"\""), ("\"a\\u0000\"", "found \"a\\0\"")],
    );
    check_key("datastore", "the path of a file", &[("\"\"", "found \"\"")]);
    check_key(
        "health_check",
        "an address and a port such as \"127.0.0.1:23954\" or \"[::1]:23954\"",
        &[
            ("true", "found true"),
            ("23954", "found 23954"),
            ("\"localhost:23954\"", "found \"localhost:23954\""),
            ("\"127.0.0.1\"", "found \"127.0.0.1\""),
            ("\"127.0.0.1:0\"", "found \"127.0.0.1:0\""),
            ("\"127.0.0.1:65536\"", "found \"127.0.0.1:65536\""),
        ],
    );
}

#[test]
fn names_the_kernel_would_refuse_are_refused() {
    let accepted = "an interface name of 1 to 15 printable ASCII characters but `/`, `:` and `%`, and none of `.`, `..`, `all` and `default`";
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a:1",
        "vx%d",
        "all",
        "default",
        "é",
        "sixteen-bytes-xx",
    ] {
        let value = format!("{name:?}");
        check_key("name", accepted, &[(&value, &format!("found {value}"))]);
    }
    check_key(
        "name",
        accepted,
        &[
            ("\"a\\tb\"", "found \"a\\tb\""),
            ("\"a\\u0007\"", "found \"a\\u{7}\""),
        ],
    );
    assert_eq!(
        parse(&format!("{LEAST}name = \"fifteen-bytes-x\""))
            .vtep
            .name
            .len(),
        15
    );
}

#[test]
fn source_ports_are_a_range_that_holds_a_port() {
    check_key(
        "srcport",
        "two ports [min, max], min from 1 and less than max, max to 65535 and itself never used",
        &[
            ("[60999, 32768]", "found [60999, 32768]"),
            ("[5, 5]", "found [5, 5]"),
            ("[0, 5]", "found [0, 5]"),
            ("[1, 65536]", "found [1, 65536]"),
            ("[1]", "found [1]"),
            ("[]", "found []"),
            ("[1, 2, 3]", "found [1, 2, 3]"),
            ("[\"1\", 2]", "found [\"1\", 2]"),
            ("1", "found 1"),
        ],
    );
}

#[test]
fn macs_must_be_unicast() {
    check_key(
        "mac",
        "a unicast MAC address such as \"ee:ee:0a:ff:2b:00\"",
        &[
            (
                "\"00:00:00:00:00:00\"",
                "found \"00:00:00:00:00:00\", but this is the zero address",
            ),
            (
                "\"01:00:5e:00:00:01\"",
                "found \"01:00:5e:00:00:01\", but this is multicast",
            ),
            (
                "\"ff:ff:ff:ff:ff:ff\"",
                "found \"ff:ff:ff:ff:ff:ff\", but this is multicast",
            ),
            ("\"ee:ee\"", "found \"ee:ee\""),
        ],
    );
}

#[test]
fn addresses_must_be_unicast() {
    for (value, wrong) in [
        ("0.0.0.0", ", but this is the unspecified address"),
        ("::", ", but this is the unspecified address"),
        ("224.0.0.1", ", but this is multicast"),
        ("ff02::1", ", but this is multicast"),
        ("255.255.255.255", ", but this is broadcast"),
        ("::ffff:10.0.0.1", ", but this is IPv4 written as IPv6"),
        ("10.0.0", ""),
        ("cell-1", ""),
    ] {
        let text = format!(
            "[vtep]\nlocal = {value:?}\naddress = {value:?}\noverlay = \"10.255.0.0/16\"\n[[group]]\naddress = {value:?}\nid = 1\n[[peer]]\nsubnet = \"10.255.1.0/24\"\nunderlay = {value:?}"
        );
        let underlay = r#"a unicast underlay address such as "10.0.32.12" or "2001:db8::1""#;
        let expected = [
            format!("line 2: vtep.local: found {value:?}{wrong}; accepted: {underlay}"),
            format!(
                "line 3: vtep.address: found {value:?}{wrong}; accepted: a unicast overlay address such as \"10.255.108.0\", or a list of one for each family"
            ),
            format!(
                "line 6: group[0].address: found {value:?}{wrong}; accepted: a container's unicast address such as \"10.255.108.184\""
            ),
            format!("line 10: peer[0].underlay: found {value:?}{wrong}; accepted: {underlay}"),
        ];
        assert_eq!(errors(&text), expected, "{text}");
    }
    check(&[(
        "[vtep]\nlocal = \"fe80::1\"\naddress = \"10.255.0.1\"\noverlay = \"10.255.0.0/16\"",
        &[
            r#"line 2: vtep.local: found "fe80::1", but a link-local address needs an interface with it; accepted: a unicast underlay address such as "10.0.32.12" or "2001:db8::1""#,
        ],
    )]);
}
