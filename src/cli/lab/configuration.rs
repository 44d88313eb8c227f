//! The configuration file of one cell's daemon.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::ground::CellPlan;
use crate::cli::args::VtepSetting;
use crate::control::Config;
use crate::control::config::ConfigError;

/// Keys of `[vtep]` that the lab sets, or relies on: they differ from cell to cell, or it finds its way by them.
const OWN: [&str; 7] = [
    "address",
    "local",
    "mac",
    "name",
    "overlay",
    "persist",
    "state_dir",
];

/// What looks like a key of `[vtep]` and is the lab's own: enforce a policy of so many rules, and of one for all that is measured.
const POLICY_RULES: &str = "policy_rules";
const POLICY_RULES_MAX: u32 = 100_000;
/// The group of containers where a policy is enforced.
const POLICY_GROUP: u16 = 3;

/// The file for `cell`, whose one peer is `peer`, with `settings` in its `[vtep]`.
pub(in crate::cli) fn text(cell: &CellPlan, peer: &CellPlan, settings: &[VtepSetting]) -> String {
    let (policy, settings): (Vec<_>, Vec<_>) = settings
        .iter()
        .partition(|setting| setting.key == POLICY_RULES);
    let mut text = format!(
        r#"[vtep]
local = "{}"
address = "{}"
overlay = ["{}"]
"#,
        cell.underlay,
        cell.vtep,
        CellPlan::OVERLAY,
    );
    // Writing to a String cannot fail; so below.
    for setting in settings {
        let _ = writeln!(text, "{setting}");
    }
    let _ = write!(
        text,
        "\n[[peer]]\nsubnet = \"{}\"\nunderlay = \"{}\"\n",
        peer.subnet(),
        peer.underlay,
    );
    let rules = policy.first().and_then(|setting| rules(setting));
    let policy_group = rules.map(|_| POLICY_GROUP);
    if let Some(group) = cell.group.or(policy_group) {
        let _ = write!(
            text,
            "\n[[group]]\naddress = \"{}\"\nid = {group:#06x}\n",
            IpAddr::from(cell.container)
        );
    }
    if let Some(rules) = rules {
        write_policy(cell, rules, &mut text);
    }
    text
}

/// The container of the cell, then others.
fn container(cell: &CellPlan, n: u32) -> Ipv4Addr {
    let [a, b, c, last] = cell.container.octets();
    // No more than 51 of them, so that none comes again.
    Ipv4Addr::new(a, b, c, last.wrapping_add(n as u8))
}

fn rules(setting: &VtepSetting) -> Option<u32> {
    let rules = setting.value.as_integer()?;
    u32::try_from(rules)
        .ok()
        .filter(|&rules| rules <= POLICY_RULES_MAX)
}

/// All that is measured is let in by the rules for the subnet; those for the container's own address are looked at before.
fn write_policy(cell: &CellPlan, rules: u32, text: &mut String) {
    text.push_str("\n[policy]\nenforce = true\n");
    let mut rule = |dst: &str, proto: &str, ports: &str| {
        let _ = write!(
            text,
            "[[policy.rule]]\ndst = \"{dst}\"\ngroup = {POLICY_GROUP}\nproto = \"{proto}\"\n{ports}"
        );
    };
    for proto in ["tcp", "udp", "icmp"] {
        rule(&cell.subnet().to_string(), proto, "");
    }
    // Two thousand for each address, below the ports that a test's sockets have.
    for n in 0..rules {
        let proto = if n % 2 == 0 { "tcp" } else { "udp" };
        let ports = format!("ports = {}\n", 1 + n / 2 % 1_000);
        rule(&container(cell, n / 2_000).to_string(), proto, &ports);
    }
}

/// Whether both cells' daemons would accept `settings`: looked at before anything is made.
///
/// # Errors
/// All that is wrong with them, one line each.
pub(in crate::cli) fn check(settings: &[VtepSetting]) -> Result<(), String> {
    let own = settings
        .iter()
        .filter(|setting| OWN.contains(&setting.key.as_str()))
        .map(|VtepSetting { key, .. }| format!("vtep.{key}: the cells have their own"));
    let own: BTreeSet<_> = own.collect();
    if !own.is_empty() {
        return Err(lines(own));
    }
    let unfit = |setting: &&VtepSetting| setting.key == POLICY_RULES && rules(setting).is_none();
    if let Some(setting) = settings.iter().find(unfit) {
        return Err(format!(
            "{POLICY_RULES}: found {}; accepted: an integer from 0 to {POLICY_RULES_MAX}",
            setting.value
        ));
    }
    let [a, b] = &CellPlan::BOTH;
    let mut errors = BTreeSet::new();
    for (cell, peer) in [(a, b), (b, a)] {
        if let Err(refused) = Config::parse(&text(cell, peer, settings)) {
            errors.extend(refused.0.iter().map(without_line));
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(lines(errors)),
    }
}

/// The file is ours: its lines say nothing to whoever typed a setting.
fn without_line(error: &ConfigError) -> String {
    ConfigError {
        line: None,
        ..error.clone()
    }
    .to_string()
}

fn lines(errors: BTreeSet<String>) -> String {
    errors.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> Vec<VtepSetting> {
        texts
            .iter()
            .map(|text| text.parse().expect("a setting"))
            .collect()
    }

    #[test]
    fn the_configurations_of_both_cells_are_accepted() {
        let [a, b] = &CellPlan::BOTH;
        for (cell, peer) in [(a, b), (b, a)] {
            let config = Config::parse(&text(cell, peer, &[])).expect("accepted");
            assert_eq!(config.vtep.local, IpAddr::from(cell.underlay));
            assert_eq!(config.peers.len(), 1);
            assert_eq!(config.groups.len(), usize::from(cell.group.is_some()));
        }
    }

    #[test]
    fn settings_stand_in_the_table_of_the_vtep() {
        let [a, b] = &CellPlan::BOTH;
        let settings = settings(&["lanes=3", "bind=local", "udp_checksum=false"]);
        assert_eq!(check(&settings), Ok(()));
        let vtep = Config::parse(&text(a, b, &settings))
            .expect("accepted")
            .vtep;
        assert_eq!((vtep.lanes.get(), vtep.udp_checksum), (3, false));
    }

    #[test]
    fn what_a_daemon_would_refuse_is_told_once_and_without_a_line() {
        let wrong = check(&settings(&["lanes=1000", "lans=1"])).expect_err("refused");
        assert!(wrong.contains("vtep.lanes: found 1000"), "{wrong}");
        assert!(wrong.contains("did you mean `lanes`"), "{wrong}");
        assert!(!wrong.contains("line "), "{wrong}");
        assert_eq!(wrong.lines().count(), 2, "{wrong}");
        assert!(check(&settings(&["lanes=1", "lanes=2"])).is_err());
        let wrong = check(&settings(&["expres=true"])).expect_err("refused");
        assert!(wrong.contains("did you mean `express`"), "{wrong}");
        assert!(check(&settings(&["express=true"])).is_ok());
    }

    #[test]
    fn a_policy_of_so_many_rules_can_be_set() {
        let [a, b] = &CellPlan::BOTH;
        for (rules, count) in [("policy_rules=0", 3), ("policy_rules=10000", 10_003)] {
            let settings = settings(&[rules, "lanes=1"]);
            assert_eq!(check(&settings), Ok(()));
            let config = Config::parse(&text(b, a, &settings)).expect("accepted");
            assert!(config.policy.enforce);
            assert_eq!((config.policy.rules.len(), config.groups.len()), (count, 1));
        }
        let wrong = check(&settings(&["policy_rules=many"])).expect_err("refused");
        assert!(wrong.starts_with("policy_rules: found \"many\""), "{wrong}");
    }

    #[test]
    fn what_the_cells_have_of_their_own_is_not_set() {
        let wrong = check(&settings(&["name=x", "lanes=1", "mac=ee:ee:00:00:00:01"]));
        let expected = "vtep.mac: the cells have their own\nvtep.name: the cells have their own";
        assert_eq!(wrong, Err(expected.to_owned()));
    }
}
