//! Tens of thousands of rules in a running daemon: given, shown, given back; and after each change packets fare as a naive reading of the
//! rules says.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use ipnet::IpNet;
use serde_json::Value;
use tempfile::TempDir;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Daemon, Lab, Noise, Plan, Result, Site, Sniffer, Stats, Tunnel, Wait, ensure, vtep_mac,
    wait_until,
};

const RULES: usize = 30_000;
/// Packets after each change.
const SAMPLE: usize = 500;
/// So few that many rules are about one.
const GROUPS: usize = 20;
/// None is answered, so that nothing but the sample is counted.
const SILENT: &str = "[policy]\nenforce = true\nreject = false\nlog_per_second = 0\n";

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Silk]).overlay_v6().vtep_lines(SILENT);
    vec![Case::new(
        "policy_rules::tens_of_thousands_are_given_shown_and_taken_back",
        plan,
        tens_of_thousands,
    )]
}

fn tens_of_thousands(lab: &mut Lab) -> Result {
    let mut noise = Noise::new(0x0090_11c7);
    let rules = some_rules(&mut noise, &lab.cells[1].site)?;
    let [kept, moved] = [&rules[..RULES / 2], &rules[RULES / 2..]];
    let daemon = lab.cells[1].daemon()?;
    batch(
        daemon,
        rules
            .iter()
            .map(|rule| format!("policy add {}", rule.words())),
    )?;
    packets_fare_as(lab, &rules, &mut noise)?;

    let daemon = lab.cells[1].daemon()?;
    daemon.ctl("reload")?;
    are_shown(daemon, &rules)?;
    are_shown_otherwise(daemon, &rules)?;
    packets_fare_as(lab, &rules, &mut noise)?;

    // Half of them are the file's from now on. What is shown may be given back.
    let daemon = lab.cells[1].daemon()?;
    let words: BTreeSet<String> = moved.iter().map(Rule::words).collect();
    let shown = shown(daemon)?;
    let given_back = shown
        .iter()
        .filter(|line| words.contains(&line.replace(" live", "")));
    batch(daemon, given_back.map(|line| format!("policy del {line}")))?;
    are_shown(daemon, kept)?;
    packets_fare_as(lab, kept, &mut noise)?;
    let daemon = lab.cells[1].daemon()?;
    let config = daemon.config()?;
    let tables: String = moved.iter().map(Rule::toml).collect();
    daemon.write_config(&(config.clone() + &tables))?;
    let said = daemon.ctl("reload")?;
    let told = format!(" {} rules in the configuration", moved.len());
    ensure!(said.contains(&told), "{said}");
    are_shown(daemon, &rules)?;
    packets_fare_as(lab, &rules, &mut noise)?;

    let daemon = lab.cells[1].daemon()?;
    daemon.write_config(&config)?;
    daemon.ctl("reload")?;
    batch(
        daemon,
        kept.iter()
            .map(|rule| format!("policy del {}", rule.words())),
    )?;
    are_shown(daemon, &[])?;
    packets_fare_as(lab, &[], &mut noise)
}

/// Many changes, all or none, by the command line.
fn batch(daemon: &Daemon, lines: impl Iterator<Item = String>) -> Result {
    let directory = TempDir::new()?;
    let file = directory.path().join("batch");
    fs::write(&file, lines.map(|line| line + "\n").collect::<String>())?;
    daemon.ctl(&format!("batch {}", file.display())).map(drop)
}

/// `policy show`, one space between words.
fn shown(daemon: &Daemon) -> Result<Vec<String>> {
    let text = daemon.ctl("policy show")?;
    let lines = text.lines();
    Ok(lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect())
}

/// All of them, each once, and no other.
fn are_shown(daemon: &Daemon, rules: &[Rule]) -> Result {
    let lines = shown(daemon)?;
    let found: BTreeSet<String> = (lines.iter())
        .map(|line| line.replace(" live", "").replace(" config", ""))
        .collect();
    let expected: BTreeSet<String> = rules.iter().map(Rule::words).collect();
    let missing: Vec<_> = expected.difference(&found).take(3).collect();
    let others: Vec<_> = found.difference(&expected).take(3).collect();
    ensure!(
        lines.len() == rules.len() && missing.is_empty() && others.is_empty(),
        "{} lines for {} rules; missing {missing:?}, others {others:?}",
        lines.len(),
        rules.len()
    );
    Ok(())
}

/// As JSON, and in part.
fn are_shown_otherwise(daemon: &Daemon, rules: &[Rule]) -> Result {
    let rows: Value = serde_json::from_str(&daemon.ctl("policy show -j")?)?;
    let rows = rows.as_array().ok_or("no rows")?.len();
    ensure!(rows == rules.len(), "{rows} rows for {} rules", rules.len());
    // Of one destination and what is in it.
    let rule = rules.first().ok_or("no rules")?;
    let expected = rules
        .iter()
        .filter(|other| rule.to.contains(&other.to))
        .count();
    let lines = daemon
        .ctl(&format!("policy show {}", rule.to))?
        .lines()
        .count();
    ensure!(
        lines == expected,
        "{lines} lines of {}, not {expected}",
        rule.to
    );
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Proto {
    Tcp,
    Udp,
    Icmp,
}

/// A rule, as the command line has it.
#[derive(Clone, Debug)]
struct Rule {
    to: IpNet,
    group: u16,
    proto: Proto,
    ports: Option<[u16; 2]>,
    accepts: bool,
}

impl Rule {
    fn words(&self) -> String {
        let to = if self.to.prefix_len() == self.to.max_prefix_len() {
            self.to.addr().to_string()
        } else {
            self.to.to_string()
        };
        let ports = match self.ports {
            None => String::new(),
            Some([first, last]) if first == last => format!(" ports {first}"),
            Some([first, last]) => format!(" ports {first}-{last}"),
        };
        let action = if self.accepts { "accept" } else { "deny" };
        let proto = format!("{:?}", self.proto).to_lowercase();
        format!(
            "{to} group {:#06x} proto {proto}{ports} action {action}",
            self.group
        )
    }

    fn toml(&self) -> String {
        let mut text = "[[policy.rule]]\n".to_owned();
        let words = self.words();
        let mut words = words.split(' ');
        let to = words.next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "dst = \"{to}\"");
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            let _ = match key {
                "group" => writeln!(text, "{key} = {value}"),
                _ => writeln!(text, "{key} = \"{value}\""),
            };
        }
        text
    }

    fn is_about(&self, packet: &Packet) -> bool {
        self.group == packet.group
            && self.proto == packet.proto
            && self.to.contains(&packet.to)
            && self
                .ports
                .is_none_or(|[first, last]| (first..=last).contains(&packet.port))
    }
}

/// The README's sentence: of the rules that match those of the longest prefix decide, among them a denial before an acceptance; where
/// none matches, nobody is let in.
fn is_let_in(rules: &[Rule], packet: &Packet) -> bool {
    let matching: Vec<_> = rules.iter().filter(|rule| rule.is_about(packet)).collect();
    let longest = matching.iter().map(|rule| rule.to.prefix_len()).max();
    let mut deciding = matching
        .iter()
        .filter(|rule| Some(rule.to.prefix_len()) == longest);
    longest.is_some() && deciding.all(|rule| rule.accepts)
}

/// Of both families, most for one address; no two for the same.
fn some_rules(noise: &mut Noise, site: &Site) -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(RULES);
    let mut keys = BTreeSet::new();
    while rules.len() < RULES {
        let rule = some_rule(noise, site)?;
        if keys.insert((rule.to, rule.group, rule.proto, rule.ports)) {
            rules.push(rule);
        }
    }
    Ok(rules)
}

fn some_rule(noise: &mut Noise, site: &Site) -> Result<Rule> {
    let host = noise.below(256) as u32;
    let shorter = [0, 0, 0, 1, 2, 4, 8][noise.below(7)];
    let to = if noise.below(3) > 0 {
        let address: IpAddr = std::net::Ipv4Addr::from(u32::from(site.vtep) + host).into();
        IpNet::new(address, 32 - shorter)?
    } else {
        let address = std::net::Ipv6Addr::from(u128::from(site.vtep_v6()) + u128::from(host));
        IpNet::new(address.into(), 128 - shorter)?
    };
    let proto = [Proto::Tcp, Proto::Udp, Proto::Icmp][noise.below(3)];
    let first = 1 + noise.below(1000) as u16;
    let ports = [first, first + noise.below(200) as u16];
    let has_ports = proto != Proto::Icmp && noise.below(4) > 0;
    Ok(Rule {
        to: to.trunc(),
        group: 1 + noise.below(GROUPS) as u16,
        proto,
        ports: has_ports.then_some(ports),
        accepts: noise.below(3) > 0,
    })
}

#[derive(Debug)]
struct Packet {
    to: IpAddr,
    group: u16,
    proto: Proto,
    port: u16,
}

/// A packet that some rule may be about.
fn some_packet(noise: &mut Noise, site: &Site) -> Result<Packet> {
    let like = some_rule(noise, site)?;
    let [first, last] = like.ports.unwrap_or([1, 1200]);
    Ok(Packet {
        to: like.to.hosts().next().unwrap_or(like.to.addr()),
        group: like.group,
        proto: like.proto,
        port: first + noise.below(usize::from(last - first) + 1) as u16,
    })
}

/// Sends packets of the first cell's to the second, and wants those on its TAP that the rules let in.
fn packets_fare_as(lab: &mut Lab, rules: &[Rule], noise: &mut Noise) -> Result {
    let tunnel = Tunnel::between(&lab.cells[0], &lab.cells[1])?;
    let [from, to] = [lab.cells[0].site, lab.cells[1].site];
    let sniffer = Sniffer::start(&lab.cells[1].host)?;
    let daemon = lab.cells[1].daemon()?;
    let judged = || -> Result<u64> {
        let stats = Stats::read(daemon)?;
        Ok(stats.peers()?[0].1 + stats.dropped("policy-denied"))
    };
    let before = judged()?;
    let packets: Vec<Packet> = (0..SAMPLE)
        .map(|_| some_packet(noise, &to))
        .collect::<Result<_>>()?;
    for (number, packet) in (0..).zip(&packets) {
        tunnel.send(packet.group, &frame(number, packet, [from, to])?)?;
    }
    wait_until("every packet was judged", || {
        let now = judged()? - before;
        Ok(Wait::unless(now == SAMPLE as u64, || now.to_string()))
    })?;
    let sources = [IpAddr::from(from.container), from.vtep_v6().into()];
    let seen: BTreeSet<u16> = sniffer
        .so_far(|frame| number_of(frame, sources))?
        .into_iter()
        .collect();
    let (mut let_in, mut refused) = (0, 0);
    for (number, packet) in (0..).zip(&packets) {
        let expected = is_let_in(rules, packet);
        ensure!(
            seen.contains(&number) == expected,
            "let in {}, and should be {expected}: {packet:?}, {:?}",
            !expected,
            rules
                .iter()
                .filter(|rule| rule.is_about(packet))
                .collect::<Vec<_>>()
        );
        *if expected { &mut let_in } else { &mut refused } += 1;
    }
    let is_telling = rules.is_empty() || (let_in > SAMPLE / 10 && refused > SAMPLE / 10);
    ensure!(
        is_telling,
        "{let_in} let in, {refused} refused: it tells little"
    );
    Ok(())
}

/// What the number is in: a source port, or an echo's identifier.
const FIRST_NUMBER: u16 = 20_000;

fn frame(number: u16, packet: &Packet, [from, to]: [Site; 2]) -> Result<Vec<u8>> {
    let [source_mac, own_mac] = [from.vtep, to.vtep].map(vtep_mac);
    let builder = PacketBuilder::ethernet2(source_mac, own_mac);
    let number = FIRST_NUMBER + number;
    let builder = match packet.to {
        IpAddr::V4(to) => builder.ipv4(from.container.octets(), to.octets(), 64),
        IpAddr::V6(to) => builder.ipv6(from.vtep_v6().octets(), to.octets(), 64),
    };
    let mut frame = Vec::new();
    match (packet.proto, packet.to) {
        (Proto::Tcp, _) => builder
            .tcp(number, packet.port, 1, 1000)
            .syn()
            .write(&mut frame, b"")?,
        (Proto::Udp, _) => builder.udp(number, packet.port).write(&mut frame, b"")?,
        (Proto::Icmp, IpAddr::V4(_)) => builder
            .icmpv4_echo_request(number, 1)
            .write(&mut frame, b"")?,
        (Proto::Icmp, IpAddr::V6(_)) => builder
            .icmpv6_echo_request(number, 1)
            .write(&mut frame, b"")?,
    }
    Ok(frame)
}

/// The number of a packet of the sample, on its way to or through the host.
fn number_of(frame: &[u8], sources: [IpAddr; 2]) -> Option<u16> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let source: IpAddr = match packet.net.as_ref()? {
        etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Arp(_) => return None,
    };
    let identifier = |bytes: [u8; 4]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let number = match packet.transport? {
        TransportSlice::Tcp(tcp) => tcp.source_port(),
        TransportSlice::Udp(udp) => udp.source_port(),
        TransportSlice::Icmpv4(icmp) => identifier(icmp.bytes5to8()),
        TransportSlice::Icmpv6(icmp) => identifier(icmp.bytes5to8()),
        TransportSlice::Igmp(_) => return None,
    };
    let is_of_sample = sources.contains(&source);
    is_of_sample.then(|| number.checked_sub(FIRST_NUMBER))?
}
