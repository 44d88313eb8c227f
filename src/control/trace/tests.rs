use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::control::fixtures::{self, CONFIG, ip};
use crate::control::{Change, Control, Entry, Origin, PeerSpec};
use crate::io::source_ports::pick;
use crate::tables::Tables;
use crate::tables::policy::{self, Action};
use crate::vtep::{self, Egress, Fate, Ingress, Received};
use crate::wire::vxlan::Header;
use crate::wire::{GroupId, MacAddr};

fn control_of(text: &str) -> (tempfile::TempDir, Arc<Control>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (control, _) = fixtures::control_of(text, directory.path());
    (directory, control)
}

fn request(src: &str, dst: &str) -> TraceRequest {
    TraceRequest::new(ip(src), ip(dst))
}

#[test]
fn a_drop_ends_the_walk_where_it_happens_and_is_explained() {
    let (_directory, control) = control_of(CONFIG);
    let ends = |request: &TraceRequest| {
        let trace = control.trace(request).expect("it can be imagined");
        let last = trace.steps.last().expect("a packet at the least");
        assert_eq!(last.reason, trace.verdict.reason);
        assert!(
            trace
                .verdict
                .meaning
                .is_some_and(|meaning| meaning.len() > 10)
        );
        (last.step, last.reason.clone().expect("it is dropped"))
    };
    let own = "10.255.108.184";
    let spoofed = TraceRequest {
        ingress: true,
        from: Some(ip("10.0.16.14")),
        ..request(own, own)
    };
    let stranger = TraceRequest {
        from: Some(ip("192.0.2.1")),
        ..spoofed.clone()
    };
    let lost = TraceRequest {
        mac: Some(MacAddr::BROADCAST),
        ..request(own, "10.255.43.6")
    };
    for (request, step, reason) in [
        (
            request(own, "10.255.108.9"),
            Stage::Destination,
            "absent-container",
        ),
        (request(own, "10.255.44.1"), Stage::Route, "no-route"),
        (
            request("192.0.2.1", "10.255.43.6"),
            Stage::Source,
            "source-not-local",
        ),
        (
            request("10.0.32.12", "10.255.43.6"),
            Stage::Source,
            "source-is-underlay",
        ),
        (spoofed, Stage::Source, "own-source-address"),
        (stranger, Stage::Peer, "unknown-peer"),
        (lost, Stage::Fdb, "no-flood-entry"),
    ] {
        assert_eq!(ends(&request), (step, reason.to_owned()));
    }
}

#[test]
fn only_a_cells_address_is_said_to_be_a_cells() {
    let (_directory, control) = control_of(CONFIG);
    for (dst, whose) in [
        ("10.255.43.6", "of another cell"),
        ("224.0.0.1", "a group's, of no cell (multicast)"),
        ("255.255.255.255", "everybody's, of no cell (broadcast)"),
        ("0.0.0.0", "nobody's (unspecified)"),
    ] {
        let trace = control.trace(&request("10.255.108.184", dst));
        let trace = trace.expect("it can be imagined");
        assert_eq!(destination(&trace), format!("{dst} is {whose}"));
    }
}

fn destination(trace: &Trace) -> &str {
    let mut steps = trace.steps.iter();
    let step = steps.find(|step| step.step == Stage::Destination);
    &step.expect("every walk outward begins so").says
}

#[test]
fn a_container_that_is_here_is_said_to_be_reached_past_us() {
    let (_directory, control) = control_of(CONFIG);
    let (here, absent) = ("10.255.108.3", "10.255.108.9");
    let tables = control.tables().load_full();
    let containers = [ip(here)].into_iter().collect();
    let with = tables.with_containers(containers);
    control.tables().store(Arc::new(with));
    let told = |dst| {
        let trace = control.trace(&request("10.255.108.184", dst));
        let trace = trace.expect("it can be imagined");
        assert_eq!(trace.verdict.reason.as_deref(), Some("absent-container"));
        destination(&trace).to_owned()
    };
    let past_us = "is a container's of this cell: the host takes it to its link, past us";
    assert_eq!(told(here), format!("{here} {past_us}"));
    assert!(told(absent).contains("is of this cell's own 10.255.108.0/24"));
}

#[test]
fn a_narrow_path_is_told_with_what_it_carries() {
    let (_directory, control) = control_of(&CONFIG.replace("lanes", "df = \"inherit\"\nlanes"));
    let tables = control.tables().load_full();
    let peer = tables.peers.lookup(ip("10.0.16.14")).expect("configured");
    peer.path_mtu.set_limit(Some(1300));
    let large = |df, len| TraceRequest {
        len: Some(len),
        df,
        ..request("10.255.108.184", "10.255.43.6")
    };
    let told = |request: &TraceRequest| {
        let trace = control.trace(request).expect("it can be imagined");
        let last = trace.steps.last().expect("a packet at the least");
        assert_eq!(last.step, Stage::Mtu);
        (trace.verdict.fate, trace.verdict.reason, last.says.clone())
    };
    let (fate, reason, says) = told(&large(true, 1301));
    assert_eq!((fate, reason.as_deref()), (Fate::Drop, Some("path-mtu")));
    assert!(says == "1301 bytes, and the path to 10.0.16.14 carries 1300");
    let (fate, reason, says) = told(&large(true, 1300));
    assert_eq!((fate, reason), (Fate::Encap, None));
    assert_eq!(
        says,
        "1300 bytes of 1410; the path to 10.0.16.14 carries 1300"
    );
    let refused = control
        .trace(&large(true, 1411))
        .expect_err("the host does not send it");
    assert!(
        refused.message.contains("do not fit silk-vtep (mtu 1410)"),
        "{refused}"
    );
}

#[test]
fn marks_are_told_as_they_are_taken() {
    let bpf = CONFIG.replace("lanes", "marks = \"bpf\"\nlanes");
    let (_directory, control) = control_of(&bpf);
    let asked = TraceRequest {
        mark: Some(0x40_0003),
        ..request("10.255.108.184", "10.255.43.6")
    };
    let trace = control.trace(&asked).expect("it can be imagined");
    let group = trace.steps.iter().find(|step| step.step == Stage::Group);
    let says = &group.expect("it is sent").says;
    assert_eq!(says, "the packet's own mark 0x400003: group 0x0003 D 1 A 0");
    assert_eq!(trace.verdict.mark, Some(0x40_0003));
    for (text, expected) in [
        (CONFIG.to_owned(), "marks = \"table\""),
        (
            CONFIG.replace("lanes", "marks = \"off\"\nlanes"),
            "marks = \"off\"",
        ),
        (CONFIG.replace("lanes", "gbp = false\nlanes"), "gbp = false"),
    ] {
        let (_directory, control) = control_of(&text);
        let refused = control
            .trace(&asked)
            .expect_err("the mark would say nothing");
        assert!(refused.message.contains(expected), "{refused}");
        assert!(refused.message.contains("leave `--group` and `--mark` out"));
    }
}

#[test]
fn who_sends_it_must_be_said_where_the_tables_do_not() {
    let (_directory, control) = control_of(CONFIG);
    let asked = TraceRequest {
        ingress: true,
        ..request("192.0.2.1", "10.255.108.184")
    };
    let refused = control.trace(&asked).expect_err("anybody could");
    assert!(refused.message.contains("--from UNDERLAY"), "{refused}");
}

#[test]
fn a_refusal_says_what_was_to_be_walked() {
    let (_directory, control) = control_of(CONFIG);
    let contradictory = TraceRequest {
        dport: Some(80),
        ..request("10.255.108.184", "10.255.43.6")
    };
    let too_large = TraceRequest {
        len: Some(9000),
        ..request("10.255.108.184", "10.255.43.6")
    };
    for asked in [contradictory, too_large] {
        let refused = control.trace(&asked).expect_err("there is no such packet");
        let begins = refused
            .message
            .starts_with("trace 10.255.108.184 -> 10.255.43.6: ");
        assert!(begins, "{refused}");
    }
}

/// Few enough that tables and packets meet.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..3).prop_map(|(net, host)| [10, 255, 43 + net, host].into()),
        (0_u8..3).prop_map(|host| [10, 255, 108, host].into()),
        Just(ip("10.0.32.12")),
        Just(ip("192.0.2.1")),
        (0_u16..3, 0_u16..3).prop_map(|(net, host)| [0xfd00, net, 0, 0, 0, 0, 0, host].into()),
    ]
}

fn mac() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        (0_u8..4).prop_map(|net| MacAddr::overlay([10, 255, 43 + net, 0].into())),
        Just(MacAddr::overlay([10, 255, 108, 0].into())),
        Just(MacAddr::BROADCAST),
        Just(MacAddr::ZERO),
    ]
}

fn underlay() -> impl Strategy<Value = IpAddr> {
    (14_u8..18).prop_map(|host| [10, 0, 16, host].into())
}

fn entry() -> impl Strategy<Value = Entry> {
    let peer = (0_u8..4, underlay()).prop_map(|(net, underlay)| {
        let address = Ipv4Addr::from([10, 255, 43 + net, 0]);
        Entry::Peer(PeerSpec {
            subnets: vec![format!("{address}/24").parse().expect("a prefix")],
            underlay,
            mac: MacAddr::overlay(address),
        })
    });
    let route = (address(), 8_u8..=32, prop::option::of(address())).prop_map(|(dst, len, via)| {
        let len = if dst.is_ipv4() { len } else { 2 * len };
        Entry::Route {
            dst: ipnet::IpNet::new(dst, len).expect("at most 64").trunc(),
            via,
        }
    });
    prop_oneof![
        peer,
        route,
        (address(), mac()).prop_map(|(dst, lladdr)| Entry::Neigh { dst, lladdr }),
        (mac(), underlay()).prop_map(|(mac, dst)| Entry::Fdb {
            mac,
            dst,
            port: None,
            vni: None,
        }),
        (address(), 1_u16..4).prop_map(|(address, id)| Entry::Group {
            address,
            id: GroupId(id),
        }),
        (address(), 8_u8..=32, 1_u16..4, any::<bool>(), any::<bool>()).prop_map(
            |(dst, len, group, tcp, accept)| {
                let len = if dst.is_ipv4() { len } else { 4 * len };
                Entry::Policy {
                    dst: ipnet::IpNet::new(dst, len).expect("at most 128").trunc(),
                    group: GroupId(group),
                    proto: if tcp {
                        policy::Proto::Tcp
                    } else {
                        policy::Proto::Udp
                    },
                    ports: policy::Ports::ALL,
                    action: if accept { Action::Accept } else { Action::Deny },
                }
            }
        ),
    ]
}

fn any_request() -> impl Strategy<Value = TraceRequest> {
    let proto = prop::option::of(prop_oneof![
        Just(Proto::Tcp),
        Just(Proto::Udp),
        Just(Proto::Icmp)
    ]);
    let ports = (any::<u16>(), any::<u16>());
    let mark = prop::option::of(prop_oneof![1_u32..4, any::<u32>()]);
    let from = prop::option::of(underlay());
    (
        (address(), address(), proto, ports),
        (
            mark,
            any::<bool>(),
            from,
            prop::option::weighted(0.3, mac()),
        ),
        (any::<bool>(), prop::option::of(48_u16..1420)),
    )
        .prop_map(
            |((src, dst, proto, (sport, dport)), (mark, ingress, from, mac), (df, len))| {
                let has_ports = matches!(proto, Some(Proto::Tcp | Proto::Udp));
                TraceRequest {
                    src,
                    dst,
                    proto,
                    sport: has_ports.then_some(sport),
                    dport: has_ports.then_some(dport),
                    mark,
                    len,
                    df: df && src.is_ipv4(),
                    ingress,
                    from: from.filter(|_| ingress),
                    mac,
                }
            },
        )
}

/// Lines of `[vtep]`.
fn settings() -> impl Strategy<Value = String> {
    let marks = prop_oneof![Just("bpf"), Just("table"), Just("off")];
    let df = prop_oneof![Just("unset"), Just("inherit")];
    (any::<[bool; 3]>(), marks, df).prop_map(|([strict, routing, gbp], marks, df)| {
        // Without it there are no groups for anybody to give.
        let marks = if gbp { marks } else { "off" };
        format!("strict_source = {strict}\nrouting = {routing}\ngbp = {gbp}\nmarks = \"{marks}\"\ndf = \"{df}\"\n")
    })
}

/// The packet as another builder has it.
fn frame(asked: &TraceRequest, macs: [MacAddr; 2]) -> Vec<u8> {
    let [destination, source] = macs.map(MacAddr::octets);
    let builder = PacketBuilder::ethernet2(source, destination);
    let builder = match (asked.src, asked.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = etherparse::Ipv4Header::new(
                0,
                64,
                etherparse::IpNumber::UDP,
                src.octets(),
                dst.octets(),
            )
            .expect("an empty payload fits");
            header.dont_fragment = asked.df;
            builder.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => builder.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("of two families"),
    };
    let network = if asked.src.is_ipv4() { 20 } else { 40 };
    let payload = |headers: usize| {
        let len = asked.len.map_or(network + headers, usize::from);
        vec![0; len - network - headers]
    };
    let ports = (asked.sport.unwrap_or(0), asked.dport.unwrap_or(0));
    let mut frame = Vec::new();
    let written = match asked.proto.unwrap_or(Proto::Icmp) {
        Proto::Tcp => builder
            .tcp(ports.0, ports.1, 0, u16::MAX)
            .syn()
            .write(&mut frame, &payload(20)),
        Proto::Udp => builder.udp(ports.0, ports.1).write(&mut frame, &payload(8)),
        Proto::Icmp if asked.src.is_ipv4() => builder
            .icmpv4_echo_request(1, 1)
            .write(&mut frame, &payload(8)),
        Proto::Icmp => builder
            .icmpv6_echo_request(1, 1)
            .write(&mut frame, &payload(8)),
    };
    written.expect("a Vec takes all");
    frame
}

/// What the core says of the packet when it really comes.
fn judged_outward(tables: &Tables, asked: &TraceRequest) -> (Verdict, Way) {
    let own = tables.local.mac;
    let mac = asked.mac.unwrap_or_else(|| match tables.local.routing {
        true => own,
        false => tables.neighbors.lookup(asked.dst).expect("it was walked"),
    });
    let mark = asked.mark.map_or(Mark::NONE, Mark);
    let bytes = frame(asked, [mac, own]);
    let verdict = match vtep::egress(tables, &bytes, mark) {
        Egress::Encap(encap) | Egress::Fragment { encap, .. } => {
            let ports = fixtures::sending().source_ports;
            let way = Way {
                underlay: encap
                    .destinations
                    .iter()
                    .map(|to| to.underlay.ip())
                    .collect(),
                source_port: Some(ports[pick(encap.flow_hash, ports.len())]),
                ttl: Some(encap.outer.ttl),
                tos: Some(encap.outer.tos),
                df: Some(encap.outer.df),
            };
            let verdict = Verdict {
                vni: Some(encap.destinations[0].vni),
                ..Verdict::new(Fate::Encap).marked(encap.mark)
            };
            return (verdict, way);
        }
        Egress::Reply(_) => Verdict::new(Fate::Reply),
        Egress::TooBig(too_big) => Verdict::explained(too_big.reason(&bytes)),
        Egress::Drop(reason) => Verdict::explained(reason),
    };
    (verdict, Way::default())
}

fn judged_inward(tables: &Tables, asked: &TraceRequest, from: IpAddr) -> (Verdict, Way) {
    let macs = tables.resolve(asked.src).ok().map(|found| found.mac);
    let mac = asked.mac.or(macs);
    // Where nobody says, any MAC that the sender has: of those the tables have but one.
    let mac = mac.unwrap_or_else(|| {
        let mut macs = (0..4).map(|net| MacAddr::overlay([10, 255, 43 + net, 0].into()));
        let is_its = |mac: &MacAddr| {
            let to = tables.fdb.lookup(*mac).first();
            to.is_some_and(|to| to.underlay.ip() == from)
        };
        macs.find(is_its)
            .unwrap_or(crate::wire::mark_tag::LOST_SOURCE)
    });
    let header = Header {
        vni: tables.local.vni,
        mark: asked.mark.map(Mark),
    };
    let bytes = [&header.emit()[..], &frame(asked, [tables.local.mac, mac])].concat();
    let received = Received {
        source: from,
        tos: 0,
    };
    let verdict = match vtep::ingress(tables, &bytes, received) {
        Ingress::Deliver(deliver) => Verdict::new(Fate::Deliver).marked(deliver.mark),
        Ingress::Unsolicited { deliver, .. } => {
            Verdict::explained(DropReason::PolicyDenied).marked(deliver.mark)
        }
        Ingress::Reply { .. } => Verdict::new(Fate::Reply),
        Ingress::Drop { reason, .. } => Verdict::explained(reason),
    };
    let way = Way {
        underlay: vec![from],
        ..Way::default()
    };
    (verdict.vni(Some(tables.local.vni)), way)
}

#[test]
fn a_rule_that_decides_is_shown() {
    let rule = |action| Entry::Policy {
        dst: "10.255.108.184/32".parse().expect("a prefix"),
        group: GroupId(3),
        proto: policy::Proto::Tcp,
        ports: "80-90".parse().expect("ports"),
        action,
    };
    let (_directory, control) = control_of(&format!("{CONFIG}[policy]\nenforce = true\n"));
    let asked = TraceRequest {
        ingress: true,
        proto: Some(Proto::Tcp),
        sport: Some(4000),
        dport: Some(80),
        mark: Some(3),
        ..request("10.255.43.6", "10.255.108.184")
    };
    let judged = || {
        let trace = control.trace(&asked).expect("it can be imagined");
        let tables = control.tables().load_full();
        let (verdict, _) = judged_inward(&tables, &asked, trace.way.underlay[0]);
        assert_eq!(trace.verdict, verdict);
        let of_policy = |step: &&Step| step.step == Stage::Policy;
        let step = trace.steps.iter().find(of_policy).expect("it gets there");
        (
            step.says.clone(),
            step.lines.len(),
            trace.verdict.reason.clone(),
        )
    };
    let denied = Some("policy-denied".to_owned());
    let unless = "unless it is part of a flow that began here";
    let expected = format!("no rule matches: refused by default, {unless}");
    assert_eq!(judged(), (expected, 0, denied.clone()));
    for (action, says, reason) in [
        (Action::Accept, "let in by a rule".to_owned(), None),
        (Action::Deny, format!("refused by a rule, {unless}"), denied),
    ] {
        let change = Change::Replace(rule(action));
        control.apply(&[change], Origin::Live).expect("taken");
        assert_eq!(judged(), (says, 1, reason));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn the_verdict_is_the_dataplanes(
        settings in settings(),
        enforce in any::<bool>(),
        entries in vec(entry(), 0..24),
        limit in prop::option::of(500_u32..1400),
        requests in vec(any_request(), 24),
    ) {
        let enforce = enforce && settings.contains("gbp = true");
        let policy = format!("[policy]\nenforce = {enforce}\n");
        let (_directory, control) = control_of(&(CONFIG.replace("lanes", &(settings + "lanes")) + &policy));
        for entry in entries {
            // Those that collide are left out.
            let _ = control.apply(&[Change::Add(entry)], Origin::Live);
        }
        let tables = control.tables().load_full();
        tables.peers.iter().for_each(|peer| peer.path_mtu.set_limit(limit));
        for asked in requests {
            let Ok(trace) = control.trace(&asked) else {
                continue;
            };
            let (verdict, way) = if asked.ingress {
                judged_inward(&tables, &asked, trace.way.underlay[0])
            } else {
                judged_outward(&tables, &asked)
            };
            let told = Way {
                underlay: if way.underlay.is_empty() { Vec::new() } else { trace.way.underlay.clone() },
                ..trace.way.clone()
            };
            prop_assert_eq!((&trace.verdict, &told), (&verdict, &way), "{:?}", asked);
            check_steps(&trace, &asked, &tables)?;
        }
    }
}

/// Only the last step has a reason, the verdict's, and the lines are those that the tables hold.
fn check_steps(trace: &Trace, asked: &TraceRequest, tables: &Tables) -> Result<(), TestCaseError> {
    let (last, before) = trace.steps.split_last().expect("a packet at the least");
    prop_assert!(before.iter().all(|step| step.reason.is_none()));
    prop_assert_eq!(&last.reason, &trace.verdict.reason);
    for step in &trace.steps {
        for line in &step.lines {
            match line {
                Line::Route(row) => {
                    let of = if asked.ingress { asked.src } else { asked.dst };
                    let route = tables.routes.lookup(of).expect("it is shown");
                    prop_assert_eq!(row.gateway, route.via);
                }
                Line::Neigh(row) => {
                    prop_assert_eq!(tables.neighbors.lookup(row.dst), Some(row.lladdr));
                }
                Line::Fdb(row) => {
                    let to = tables.fdb.lookup(row.mac);
                    prop_assert!(to.iter().any(|to| to.underlay.ip() == row.dst));
                }
                Line::Peer(row) => prop_assert_eq!(row.underlay, trace.way.underlay[0]),
                Line::Group(row) => {
                    prop_assert_eq!(tables.groups.lookup(row.address), Some(row.id));
                    prop_assert_eq!(trace.verdict.group, Some(row.id));
                }
                Line::Policy(row) => {
                    prop_assert!(row.dst.contains(&asked.dst));
                    prop_assert_eq!(trace.verdict.group, Some(row.group));
                    let is_let_in = trace.verdict.reason.is_none();
                    prop_assert_eq!(is_let_in, row.action == Action::Accept);
                }
            }
        }
    }
    Ok(())
}
