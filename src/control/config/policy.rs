//! `[policy]`: whether group policy is enforced, how, and its rules.

use std::collections::HashMap;

use super::PolicyConfig;
use super::form;
use super::reader::Reader;
use super::report::{Located, Place, Report, Reported};
use super::vtep::Own;
use crate::io::flows::FlowLimits;
use crate::tables::policy::{Action, PolicyRule, Ports, Regime};

/// `[policy]`, as far as it could be read.
pub(super) struct RawPolicy {
    enforce: Option<Located<bool>>,
    regime: Regime,
    flows: Result<FlowLimits, Reported>,
    rules: Vec<RawRule>,
}

/// One rule, as far as it could be read.
struct RawRule {
    rule: Result<PolicyRule, Reported>,
    place: Place,
}

/// Takes every key of `[policy]`.
pub(super) fn read(mut keys: Reader<'_, '_>) -> RawPolicy {
    let default = Regime::default();
    let policy = RawPolicy {
        enforce: keys.optional("enforce", &form::BOOL).ok().flatten(),
        regime: Regime {
            default: keys.or("default", &form::DEFAULT_ACTION, default.default),
            router_mark: keys.given("router_mark", &form::ROUTER_MARK),
            honour_applied: keys.or("honour_applied", &form::BOOL, default.honour_applied),
            reject: keys.or("reject", &form::BOOL, default.reject),
            log_per_second: keys.or("log_per_second", &form::LOG_RATE, default.log_per_second),
        },
        flows: keys.table("flows", read_flows),
        rules: keys.tables("rule", read_rule),
    };
    keys.finish();
    policy
}

fn read_flows(mut keys: Reader<'_, '_>) -> FlowLimits {
    let default = FlowLimits::default();
    let flows = FlowLimits {
        size: keys.or("size", &form::FLOWS, default.size),
        tcp_s: keys.or("tcp_s", &form::TIMEOUT, default.tcp_s),
        tcp_new_s: keys.or("tcp_new_s", &form::TIMEOUT, default.tcp_new_s),
        tcp_closing_s: keys.or("tcp_closing_s", &form::TIMEOUT, default.tcp_closing_s),
        udp_s: keys.or("udp_s", &form::TIMEOUT, default.udp_s),
        udp_new_s: keys.or("udp_new_s", &form::TIMEOUT, default.udp_new_s),
        icmp_s: keys.or("icmp_s", &form::TIMEOUT, default.icmp_s),
    };
    keys.finish();
    flows
}

fn read_rule(mut keys: Reader<'_, '_>) -> RawRule {
    let place = keys.place().clone();
    let destination = keys.required("dst", &form::POLICY_DESTINATION);
    let group = keys.required("group", &form::GROUP_ID);
    let proto = keys.required("proto", &form::PROTO);
    let ports = keys.optional("ports", &form::PORTS);
    let action = keys.or("action", &form::ACTION, Action::default());
    if let (Ok(proto), Ok(Some(ports))) = (&proto, &ports)
        && !proto.value.has_ports()
    {
        let wrong = format!("{} has no ports", proto.value);
        keys.report().refuse(
            &ports.place,
            wrong,
            "no `ports`, or proto \"tcp\" or \"udp\"",
        );
    }
    keys.finish();
    let rule = || {
        Ok(PolicyRule {
            destination: destination?.value,
            group: group?.value,
            proto: proto?.value,
            ports: ports?.map_or(Ports::ALL, |ports| ports.value),
            action,
        })
    };
    RawRule {
        rule: rule(),
        place,
    }
}

/// Holds the rules against `[vtep]` and each other. O(n) in their number.
pub(super) fn check(
    policy: RawPolicy,
    own: &Own,
    gbp: Option<bool>,
    report: &mut Report,
) -> Result<PolicyConfig, Reported> {
    let enforce = policy.enforce.as_ref().is_some_and(|enforce| enforce.value);
    if let Some(at) = &policy.enforce
        && enforce
        && gbp == Some(false)
    {
        let wrong = "without gbp no packet has a group";
        report.refuse(&at.place, wrong, "false, or vtep.gbp = true");
    }
    let mut claims = HashMap::new();
    for RawRule { rule, place } in &policy.rules {
        let Ok(rule) = rule else { continue };
        if own.has_no_part_in(rule.destination) {
            let wrong = format!("{} has no address of an overlay", rule.destination);
            let accepted = format!("an address or a prefix of {}", own.overlays_shown());
            report.refuse(place, wrong, accepted);
        }
        let key = (rule.destination, rule.group, rule.proto, rule.ports);
        if let Some(first) = claims.insert(key, place) {
            let wrong = format!("the same destination, group, proto and ports as {first}");
            report.refuse(place, wrong, "one rule for them");
        }
    }
    Ok(PolicyConfig {
        enforce,
        regime: policy.regime,
        flows: policy.flows?,
        rules: (policy.rules.into_iter())
            .map(|raw| raw.rule)
            .collect::<Result<_, _>>()?,
    })
}
