//! Group policy: which groups may speak to which addresses, by protocol and port.
//!
//! A rule names a destination prefix, a group, a protocol and perhaps ports, and accepts or denies. Of all rules that match a packet,
//! those of the longest prefix decide; among these a denial comes before an acceptance. Where no rule matches, the default holds. So it
//! does not matter in which order rules were given, and two that overlap or contradict each other mean the same everywhere.

mod rule;
mod spans;

use ipnet::IpNet;

use super::Address;
use super::trie::Trie;
use crate::wire::{GroupId, Mark};

pub use rule::{Action, ParsePortsError, PolicyRule, Ports, Proto};
use spans::{Class, Span};

/// What a [`Policy`] is compiled from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySpec {
    /// What holds beside the rules.
    pub regime: Regime,
    /// In any order. Of two that differ in their action alone, the denial holds.
    pub rules: Vec<PolicyRule>,
}

/// What holds beside the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regime {
    /// Where no rule matches.
    pub default: Action,
    /// Packets whose header is the one that this mark makes are let in, whoever they are for: the ingress router's, 0xffff0000 in
    /// Silk. The header has room for [`Mark::carried`] only, so whoever sends that is taken for the router.
    pub router_mark: Option<Mark>,
    /// Packets with the A bit are let in: their sender says that it has applied the policy.
    pub honour_applied: bool,
    /// Tell senders of what is refused by ICMP port unreachable.
    pub reject: bool,
    /// Lines a second that tell of what is refused, at the most.
    pub log_per_second: u32,
}

impl Default for Regime {
    fn default() -> Self {
        Self {
            default: Action::Deny,
            router_mark: None,
            honour_applied: false,
            reject: true,
            log_per_second: 5,
        }
    }
}

/// Who decided on a packet that nothing else spoke for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'p> {
    /// This rule.
    Rule(&'p PolicyRule),
    /// It has the ingress router's mark: accepted.
    Router,
    /// It has the A bit, which is honoured: accepted.
    Applied,
    /// Rules cannot tell what it asks for, as they can of whatever a host would take: refused, whatever the default.
    Unreadable,
    /// No rule matches: the default.
    Default(Action),
}

impl Decision<'_> {
    /// What was decided.
    #[must_use]
    #[inline]
    pub fn action(&self) -> Action {
        match self {
            Self::Rule(rule) => rule.action,
            Self::Router | Self::Applied => Action::Accept,
            Self::Unreadable => Action::Deny,
            Self::Default(action) => *action,
        }
    }
}

/// A protocol that rules know, and the port asked for; of ICMP, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The protocol.
    pub proto: Proto,
    /// The destination port.
    pub port: u16,
}

/// All rules, compiled: a look-up takes no lock, allocates nothing and depends on the number of rules by its logarithm only.
#[derive(Debug, Default)]
pub struct Policy {
    regime: Regime,
    rules: Box<[PolicyRule]>,
    /// Each distinct destination, v4 before v6, by prefix.
    prefixes: Box<[Prefix]>,
    spans: Box<[Span]>,
    v4: Trie<u32>,
    v6: Trie<u128>,
}

/// What the rules of one destination prefix say.
#[derive(Debug)]
struct Prefix {
    /// Its part of the spans.
    first: u32,
    end: u32,
    /// The next longest prefix that covers this one.
    around: Option<u32>,
}

impl Policy {
    /// Compiles the rules; host bits of a prefix are cleared.
    ///
    /// # Panics
    /// If a family has more than 2^23 destinations, or there are more than 2^32 rules.
    #[must_use]
    pub fn compile(spec: &PolicySpec) -> Self {
        let mut rules: Vec<PolicyRule> = spec.rules.iter().map(PolicyRule::truncated).collect();
        rules.sort_unstable();
        let mut destinations: Vec<IpNet> = rules.iter().map(|rule| rule.destination).collect();
        destinations.dedup();
        let first_v6 = destinations.partition_point(|net| matches!(net, IpNet::V4(_)));
        let (of_v4, of_v6) = destinations.split_at(first_v6);
        let v4 = Trie::from_sorted(of_v4.iter().filter_map(v4_bits));
        let v6 = Trie::from_sorted(of_v6.iter().filter_map(v6_bits));
        let (prefixes, spans) = prefixes(&rules, &v4, &v6);
        Self {
            regime: spec.regime,
            rules: rules.into(),
            prefixes,
            spans,
            v4,
            v6,
        }
    }

    /// What holds beside the rules.
    #[must_use]
    #[inline]
    pub fn regime(&self) -> &Regime {
        &self.regime
    }

    /// All rules, by destination: v4 first, then by prefix.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &PolicyRule> {
        self.rules.iter()
    }

    /// Decides on a packet that came under `mark` for `destination`. Without a `service` that rules know, none matches.
    #[must_use]
    #[inline]
    pub fn decide(
        &self,
        mark: Option<Mark>,
        destination: impl Address,
        service: Option<Service>,
    ) -> Decision<'_> {
        let mark = mark.unwrap_or(Mark::NONE);
        if self.regime.honour_applied && mark.is_policy_applied() {
            return Decision::Applied;
        }
        if let Some(router) = self.regime.router_mark
            && router.carried() == mark
        {
            return Decision::Router;
        }
        let rule = service.and_then(|service| self.lookup(mark.group(), destination, service));
        rule.map_or(Decision::Default(self.regime.default), Decision::Rule)
    }

    /// The rule that decides, if one matches.
    #[must_use]
    #[inline]
    pub fn lookup(
        &self,
        group: GroupId,
        destination: impl Address,
        service: Service,
    ) -> Option<&PolicyRule> {
        let class = Class::of(group, service.proto);
        let mut position = destination.by_family(
            |bits| self.v4.lookup(bits),
            |bits| Some(self.v4.len() + self.v6.lookup(bits)?),
        );
        // As many steps as prefixes cover each other, one for each bit of an address at the most.
        while let Some(at) = position {
            let prefix = &self.prefixes[at];
            let spans = &self.spans[prefix.first as usize..prefix.end as usize];
            if let Some(span) = spans::find(spans, class, service.port) {
                return Some(&self.rules[span.rule as usize]);
            }
            position = prefix.around.map(|around| around as usize);
        }
        None
    }
}

/// The spans of each run of `rules` with one destination.
fn prefixes(rules: &[PolicyRule], v4: &Trie<u32>, v6: &Trie<u128>) -> (Box<[Prefix]>, Box<[Span]>) {
    let around = |position: usize| match position.checked_sub(v4.len()) {
        None => v4.around(position),
        Some(of_v6) => v6.around(of_v6).map(|around| v4.len() + around),
    };
    let mut prefixes = Vec::with_capacity(v4.len() + v6.len());
    let mut spans: Vec<Span> = Vec::with_capacity(rules.len());
    let mut first_rule = 0;
    for group in rules.chunk_by(|a, b| a.destination == b.destination) {
        let first = number(spans.len());
        spans::append(group, number(first_rule), &mut spans);
        first_rule += group.len();
        prefixes.push(Prefix {
            first,
            end: number(spans.len()),
            around: around(prefixes.len()).map(number),
        });
    }
    (prefixes.into(), spans.into())
}

/// # Panics
/// If there are more than 2^32 of something, as documented.
fn number(position: usize) -> u32 {
    u32::try_from(position).expect("no more than 2^32 rules")
}

fn v4_bits(net: &IpNet) -> Option<(u32, u8)> {
    match net {
        IpNet::V4(net) => Some((net.addr().to_bits(), net.prefix_len())),
        IpNet::V6(_) => None,
    }
}

fn v6_bits(net: &IpNet) -> Option<(u128, u8)> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some((net.addr().to_bits(), net.prefix_len())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn rule(
        destination: &str,
        group: u16,
        proto: Proto,
        ports: &str,
        action: Action,
    ) -> PolicyRule {
        PolicyRule {
            destination: destination.parse().unwrap(),
            group: GroupId(group),
            proto,
            ports: match ports {
                "" => Ports::ALL,
                ports => ports.parse().unwrap(),
            },
            action,
        }
    }

    fn policy(regime: Regime, rules: &[PolicyRule]) -> Policy {
        Policy::compile(&PolicySpec {
            regime,
            rules: rules.to_vec(),
        })
    }

    fn tcp(port: u16) -> Option<Service> {
        Some(Service {
            proto: Proto::Tcp,
            port,
        })
    }

    fn decide(policy: &Policy, mark: u32, destination: &str, service: Option<Service>) -> Action {
        let destination: IpAddr = destination.parse().unwrap();
        policy
            .decide(Some(Mark(mark)), destination, service)
            .action()
    }

    use Action::{Accept, Deny};

    #[test]
    fn silks_rules_accept_a_group_at_an_address_and_its_ports() {
        let policy = policy(
            Regime::default(),
            &[
                rule("10.255.1.2/32", 3, Proto::Tcp, "80-90", Accept),
                rule("10.255.1.2/32", 3, Proto::Icmp, "", Accept),
            ],
        );
        for (group, to, port, expected) in [
            (3, "10.255.1.2", 80, Accept),
            (3, "10.255.1.2", 90, Accept),
            (3, "10.255.1.2", 91, Deny),
            (3, "10.255.1.2", 79, Deny),
            (4, "10.255.1.2", 80, Deny),
            (0, "10.255.1.2", 80, Deny),
            (3, "10.255.1.3", 80, Deny),
            // D and A in the mark do not change the group.
            (0x48_0003, "10.255.1.2", 80, Accept),
        ] {
            assert_eq!(
                decide(&policy, group, to, tcp(port)),
                expected,
                "{group} {to} {port}"
            );
        }
        let service = |proto| Some(Service { proto, port: 0 });
        assert_eq!(
            decide(&policy, 3, "10.255.1.2", service(Proto::Icmp)),
            Accept
        );
        assert_eq!(decide(&policy, 3, "10.255.1.2", service(Proto::Udp)), Deny);
        assert_eq!(decide(&policy, 3, "10.255.1.2", None), Deny);
    }

    #[test]
    fn the_longest_prefix_decides_and_a_denial_before_an_acceptance() {
        let rules = [
            rule("10.255.0.0/16", 3, Proto::Tcp, "", Accept),
            rule("10.255.1.0/24", 3, Proto::Tcp, "22", Deny),
            rule("10.255.1.2/32", 3, Proto::Tcp, "20-30", Accept),
            rule("10.255.1.3/32", 3, Proto::Tcp, "20-30", Accept),
            rule("10.255.1.3/32", 3, Proto::Tcp, "25", Deny),
        ];
        let policy = policy(Regime::default(), &rules);
        for (to, port, expected) in [
            ("10.255.9.9", 22, Accept),
            ("10.255.1.9", 22, Deny),
            ("10.255.1.9", 23, Accept),
            ("10.255.1.2", 22, Accept),
            ("10.255.1.3", 24, Accept),
            ("10.255.1.3", 25, Deny),
            ("10.255.1.3", 26, Accept),
            // The rule of the longest prefix that matches: it is the one for all.
            ("10.255.1.3", 80, Accept),
        ] {
            assert_eq!(
                decide(&policy, 3, to, tcp(port)),
                expected,
                "{to} port {port}"
            );
        }
        let group = GroupId(3);
        let to: IpAddr = "10.255.1.3".parse().unwrap();
        assert_eq!(
            policy.lookup(group, to, tcp(25).unwrap()),
            Some(&rules[4]),
            "the rule that decided is told"
        );
    }

    #[test]
    fn exceptions_are_exact_as_far_as_a_header_can_be() {
        let regime = Regime {
            router_mark: Some(Mark(0xffff_0000)),
            ..Regime::default()
        };
        let router = policy(regime, &[]);
        // What a header carries of 0xffff0000: D, A and group 0.
        assert_eq!(decide(&router, 0x48_0000, "10.255.1.2", None), Accept);
        for other in [0, 0x08_0000, 0x40_0000, 0x48_0001, 3] {
            assert_eq!(
                decide(&router, other, "10.255.1.2", None),
                Deny,
                "{other:x}"
            );
        }
        let regime = Regime {
            honour_applied: true,
            ..Regime::default()
        };
        let applied = policy(regime, &[]);
        assert_eq!(decide(&applied, 0x08_0003, "10.255.1.2", None), Accept);
        assert_eq!(decide(&applied, 0x40_0003, "10.255.1.2", None), Deny);
    }

    #[test]
    fn the_default_holds_where_no_rule_matches() {
        let regime = Regime {
            default: Accept,
            ..Regime::default()
        };
        let policy = policy(regime, &[rule("fd00::/16", 3, Proto::Tcp, "22", Deny)]);
        assert_eq!(decide(&policy, 3, "fd00::1", tcp(22)), Deny);
        assert_eq!(decide(&policy, 3, "fd00::1", tcp(23)), Accept);
        assert_eq!(decide(&policy, 3, "10.255.1.2", tcp(22)), Accept);
    }

    /// Few values, so that rules overlap and contradict each other.
    fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..64).prop_map(|n| IpAddr::from((0x0aff_0100 | n).to_be_bytes())),
            (0_u128..64).prop_map(|n| IpAddr::from((0xfd << 120 | n).to_be_bytes())),
        ]
    }

    fn proto() -> impl Strategy<Value = Proto> {
        prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Icmp)]
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![Just(Accept), Just(Deny)]
    }

    fn any_rule() -> impl Strategy<Value = PolicyRule> {
        let ports = prop_oneof![
            Just(Ports::ALL),
            (1_u16..20, 0_u16..8)
                .prop_map(|(first, more)| Ports::new(first, first + more).unwrap()),
            (65_520_u16..=u16::MAX).prop_map(|first| Ports::new(first, u16::MAX).unwrap()),
        ];
        (address(), 0_u8..8, 1_u16..4, proto(), ports, action()).prop_map(
            |(address, host_bits, group, proto, ports, action)| {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                PolicyRule {
                    destination: IpNet::new(address, bits - host_bits).unwrap().trunc(),
                    group: GroupId(group),
                    proto,
                    ports: if proto == Proto::Icmp {
                        Ports::ALL
                    } else {
                        ports
                    },
                    action,
                }
            },
        )
    }

    fn regime() -> impl Strategy<Value = Regime> {
        let router = prop_oneof![Just(None), Just(Some(Mark(0xffff_0000)))];
        (action(), router, any::<bool>()).prop_map(|(default, router_mark, honour_applied)| {
            Regime {
                default,
                router_mark,
                honour_applied,
                ..Regime::default()
            }
        })
    }

    fn asked() -> impl Strategy<Value = (Option<Mark>, IpAddr, Option<Service>)> {
        let mark = prop_oneof![
            Just(None),
            (0_u32..4).prop_map(|group| Some(Mark(group))),
            (0_u32..4).prop_map(|group| Some(Mark(group | 0x08_0000))),
            Just(Some(Mark(0x48_0000))),
        ];
        let port = prop_oneof![0_u16..30, 65_500_u16..=u16::MAX];
        let service = proptest::option::of((proto(), port).prop_map(|(proto, port)| Service {
            proto,
            port: if proto == Proto::Icmp { 0 } else { port },
        }));
        (mark, address(), service)
    }

    /// By the definition: every rule looked at.
    fn naive(
        spec: &PolicySpec,
        mark: Option<Mark>,
        destination: IpAddr,
        service: Option<Service>,
    ) -> Action {
        let mark = mark.unwrap_or_default();
        if spec.regime.honour_applied && mark.0 >> 19 & 1 == 1 {
            return Action::Accept;
        }
        if spec.regime.router_mark.is_some_and(|router| {
            let [sent, came] = [router, mark].map(|Mark(bits)| bits & 0x0048_ffff);
            sent == came
        }) {
            return Action::Accept;
        }
        let matching = |rule: &&PolicyRule| {
            service.is_some_and(|service| {
                rule.destination.contains(&destination)
                    && rule.group == mark.group()
                    && rule.proto == service.proto
                    && rule.ports.first() <= service.port
                    && service.port <= rule.ports.last()
            })
        };
        let all = || spec.rules.iter().filter(matching);
        let Some(longest) = all().map(|rule| rule.destination.prefix_len()).max() else {
            return spec.regime.default;
        };
        let mut nearest = all().filter(|rule| rule.destination.prefix_len() == longest);
        match nearest.any(|rule| rule.action == Action::Deny) {
            true => Action::Deny,
            false => Action::Accept,
        }
    }

    proptest! {
        #[test]
        fn decides_as_looking_at_every_rule_does(
            regime in regime(),
            rules in vec(any_rule(), 0..40),
            asked in vec(asked(), 40),
        ) {
            let spec = PolicySpec { regime, rules };
            let policy = Policy::compile(&spec);
            for (mark, destination, service) in asked {
                let decision = policy.decide(mark, destination, service);
                let expected = naive(&spec, mark, destination, service);
                prop_assert_eq!(decision.action(), expected, "{:?}", decision);
                if let Decision::Rule(rule) = decision {
                    prop_assert!(rule.destination.contains(&destination));
                }
            }
        }

        #[test]
        fn the_order_in_which_rules_are_given_does_not_matter(rules in vec(any_rule(), 0..30), asked in vec(asked(), 20)) {
            let of = |rules| Policy::compile(&PolicySpec { regime: Regime::default(), rules });
            let reversed = of(rules.iter().rev().copied().collect());
            let policy = of(rules);
            for (mark, destination, service) in asked {
                prop_assert_eq!(
                    policy.decide(mark, destination, service),
                    reversed.decide(mark, destination, service)
                );
            }
        }
    }
}
