//! `[policy]`.

use silk_vtep::control::Config;
use silk_vtep::io::flows::FlowLimits;
use silk_vtep::tables::policy::{Action, Ports, Proto, Regime};
use silk_vtep::wire::{GroupId, Mark};

use crate::{LEAST, check_after_least, errors, parse};

#[test]
fn nothing_is_enforced_unless_said() {
    for text in ["", "[policy]\n", "[policy]\nenforce = false\n"] {
        let policy = parse(&format!("{LEAST}{text}")).policy;
        assert_eq!(policy.enforced(), None);
        assert_eq!(policy.flows, FlowLimits::default());
    }
    let policy = parse(&format!("{LEAST}[policy]\nenforce = true\n")).policy;
    assert_eq!(policy.enforced(), Some(Regime::default()));
    let regime = Regime::default();
    assert_eq!((regime.default, regime.router_mark), (Action::Deny, None));
    assert!(regime.reject && !regime.honour_applied);
}

#[test]
fn every_key_can_differ_from_its_default() {
    let policy = parse(&format!(
        r#"{LEAST}
[policy]
enforce = true
default = "allow"
router_mark = 0xffff0000
honour_applied = true
reject = false
log_per_second = 0
[policy.flows]
size = 64
tcp_s = 1
tcp_new_s = 2
tcp_closing_s = 3
udp_s = 4
udp_new_s = 5
icmp_s = 6
[[policy.rule]]
dst = "10.255.108.184"
group = 3
proto = "tcp"
ports = "8080-8090"
[[policy.rule]]
dst = "10.255.0.0/16"
group = 0xffff
proto = "udp"
ports = 53
action = "deny"
[[policy.rule]]
dst = "0.0.0.0/0"
group = 3
proto = "icmp"
action = "accept"
"#
    ))
    .policy;
    let regime = Regime {
        default: Action::Accept,
        router_mark: Some(Mark(0xffff_0000)),
        honour_applied: true,
        reject: false,
        log_per_second: 0,
    };
    assert_eq!(policy.enforced(), Some(regime));
    let flows = FlowLimits {
        size: 64,
        tcp_s: 1,
        tcp_new_s: 2,
        tcp_closing_s: 3,
        udp_s: 4,
        udp_new_s: 5,
        icmp_s: 6,
    };
    assert_eq!(policy.flows, flows);
    let rules: Vec<_> = (policy.rules.iter())
        .map(|rule| {
            (
                rule.destination.to_string(),
                rule.group,
                rule.proto,
                rule.ports,
                rule.action,
            )
        })
        .collect();
    let ports = |text: &str| text.parse().expect("ports");
    let rule = |dst: &str, group, proto, ports, action| {
        (dst.to_owned(), GroupId(group), proto, ports, action)
    };
    assert_eq!(
        rules,
        [
            rule(
                "10.255.108.184/32",
                3,
                Proto::Tcp,
                ports("8080-8090"),
                Action::Accept
            ),
            rule(
                "10.255.0.0/16",
                0xffff,
                Proto::Udp,
                ports("53"),
                Action::Deny
            ),
            rule("0.0.0.0/0", 3, Proto::Icmp, Ports::ALL, Action::Accept),
        ]
    );
}

/// A rule with other lines in place of some.
fn rule(lines: &str) -> String {
    let whole = [
        ("dst", "\"10.255.108.184\""),
        ("group", "3"),
        ("proto", "\"tcp\""),
    ];
    let mut text = "[[policy.rule]]\n".to_owned();
    for (key, value) in whole {
        let given = |line: &str| line.starts_with(&format!("{key} "));
        if !lines.lines().any(given) {
            text += &format!("{key} = {value}\n");
        }
    }
    text + lines
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    let ports =
        "a port or two with a dash such as \"8080\" or \"8080-8090\", lowest first, of 1 to 65535";
    for (lines, wrong) in [
        ("group = 0", "group: found 0; accepted: an integer from 1 to 65535 (0xffff)".to_owned()),
        ("group = 65536", "group: found 65536; accepted: an integer from 1 to 65535 (0xffff)".to_owned()),
        ("ports = \"90-80\"", format!("ports: found \"90-80\"; accepted: {ports}")),
        ("ports = 0", format!("ports: found 0; accepted: {ports}")),
        ("ports = \"80-65536\"", format!("ports: found \"80-65536\"; accepted: {ports}")),
        (
            "proto = \"icmp\"\nports = 80",
            "ports: icmp has no ports; accepted: no `ports`, or proto \"tcp\" or \"udp\"".to_owned(),
        ),
        (
            "proto = \"sctp\"",
            "proto: found \"sctp\"; accepted: \"tcp\", \"udp\" or \"icmp\" (which is ICMPv6 for IPv6)".to_owned(),
        ),
        (
            "action = \"reject\"",
            "action: found \"reject\"; accepted: \"accept\" or \"deny\"".to_owned(),
        ),
        (
            "dst = \"10.255.108.184/24\"",
            "dst: found \"10.255.108.184/24\", but it has host bits set (without them: 10.255.108.0/24); accepted: an address or a prefix without host bits such as \"10.255.108.184\" or \"10.255.108.0/24\"".to_owned(),
        ),
        (
            "dst = \"224.0.0.1\"",
            "dst: found \"224.0.0.1\", but this is multicast; accepted: an address or a prefix without host bits such as \"10.255.108.184\" or \"10.255.108.0/24\"".to_owned(),
        ),
    ] {
        let text = format!("{LEAST}{}", rule(lines));
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let (_, told) = found[0].split_once("policy.rule[0].").expect(&found[0]);
        assert_eq!(told, wrong, "{text}");
    }
    check_after_least(&[(
        "[[policy.rule]]\ndst = \"10.254.1.2\"\ngroup = 3\nproto = \"tcp\"",
        &[
            "line 5: policy.rule[0]: 10.254.1.2/32 has no address of an overlay; accepted: an address or a prefix of 10.255.0.0/16",
        ],
    )]);
}

#[test]
fn two_rules_for_the_same_are_refused_and_overlapping_ones_are_not() {
    let text = format!(
        "{LEAST}{}{}",
        rule("ports = 80\n"),
        rule("ports = \"80-80\"\naction = \"deny\"")
    );
    assert_eq!(
        errors(&text),
        [
            "line 10: policy.rule[1]: the same destination, group, proto and ports as policy.rule[0] (line 5); accepted: one rule for them"
        ]
    );
    let text = format!(
        "{LEAST}{}{}{}",
        rule("ports = 80\n"),
        rule("ports = \"80-90\"\naction = \"deny\"\n"),
        rule("dst = \"10.255.108.0/24\"\n"),
    );
    assert_eq!(parse(&text).policy.rules.len(), 3);
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let text = format!("{LEAST}gbp = false\n[policy]\nenforce = true\n");
    assert_eq!(
        errors(&text),
        [
            "line 7: policy.enforce: without gbp no packet has a group; accepted: false, or vtep.gbp = true"
        ]
    );
    let accepted = "a mark of 32 bits such as 0xffff0000, of which a VXLAN header carries something (bits 0 to 15, 19 and 22)";
    check_after_least(&[
        (
            "[policy]\nrouter_mark = 0x10000",
            &[&format!(
                "line 6: policy.router_mark: found 0x10000, but a VXLAN header carries nothing of it: it would be everybody's without a group; accepted: {accepted}"
            )],
        ),
        (
            "[policy]\nenfroce = true",
            &[
                "line 6: policy.enfroce: unknown key, did you mean `enforce`?; accepted: default, enforce, flows, honour_applied, log_per_second, reject, router_mark, rule",
            ],
        ),
        (
            "[policy]\ndefault = \"drop\"\n[policy.flows]\nsize = 1",
            &[
                "line 6: policy.default: found \"drop\"; accepted: \"deny\" or \"allow\"",
                "line 8: policy.flows.size: found 1; accepted: entries, an integer from 64 to 16777216",
            ],
        ),
    ]);
}

#[test]
fn tens_of_thousands_of_rules_are_read() {
    let mut text = LEAST.to_owned();
    for n in 0..20_000_u32 {
        text += &format!(
            "[[policy.rule]]\ndst = \"10.255.{}.{}\"\ngroup = 3\nproto = \"tcp\"\nports = {}\n",
            n >> 8 & 0xff,
            n & 0xff,
            1 + n / 65_536
        );
    }
    let config = Config::parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.policy.rules.len(), 20_000);
}
