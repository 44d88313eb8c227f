//! Marks carried through (`marks = "bpf"`): rules written for Silk, with iptables on both cells, and kernel devices in either role.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use silk_vtep::bpf::{Assembler, Register};
use silk_vtep::sys::bpf::{ProgramType, load};
use silk_vtep::sys::tcx::{self, Side};

use super::super::Case;
use super::offload::streams_cross;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Cell, Connection, Injector, Kind, Lab, Namespace, NumberedStream, Outer, Plan, Result, Sniffer,
    Stats, VTEP_NAME, Wait, ensure, mac_text, ping, vtep_mac, wait_until,
};

/// VXLAN header, VNI 1: I alone, and with group 3.
pub(super) const PLAIN_HEADER: [u8; 8] = [0x08, 0, 0, 0, 0, 0, 1, 0];
pub(super) const GROUP_3_HEADER: [u8; 8] = [0x88, 0, 0, 3, 0, 0, 1, 0];
/// Datagrams that flow while a program is detached, and how fast: enough for several looks at the programs.
const DATAGRAMS: u32 = 2_000;
const INTERVAL: Duration = Duration::from_millis(4);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kinds in [[Silk, Silk], [Silk, Kernel], [Kernel, Silk]] {
        let [from, to] = kinds.map(|kind| format!("{kind:?}").to_lowercase());
        let plan = bpf(&kinds);
        cases.push(Case::new(
            format!("marks::silks_rules_hold_from_{from}_to_{to}"),
            plan.clone(),
            silks_rules_hold,
        ));
        cases.push(Case::new(
            format!("marks::rules_of_nftables_hold_from_{from}_to_{to}"),
            Plan::of(&kinds).marks("bpf").nftables(),
            nftables_rules_hold,
        ));
        cases.push(Case::new(
            format!("marks::super_frames_keep_their_mark_from_{from}_to_{to}"),
            plan.clone(),
            super_frames_keep_their_mark,
        ));
        cases.push(Case::new(
            format!("marks::the_header_is_the_kernels_from_{from}_to_{to}"),
            plan,
            header_is_the_kernels,
        ));
    }
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("marks::{name}"), plan, body)
    };
    let pair = || bpf(&[Silk, Silk]);
    cases.extend([
        case(
            "an_egress_program_detached_under_load_means_group_0_until_it_is_back",
            pair(),
            egress_detached_means_group_0,
        ),
        case(
            "an_ingress_program_detached_means_mark_0_until_it_is_back",
            pair(),
            ingress_detached_means_mark_0,
        ),
        case(
            "a_program_of_others_before_ours_is_told_by_link_show_and_doctor",
            pair(),
            others_before_ours,
        ),
        case("programs_outlive_kill_9_and_are_replaced", pair(), kill_9),
        case(
            "a_killed_daemons_programs_go_when_marks_come_from_elsewhere",
            pair(),
            programs_go_with_their_use,
        ),
        case("programs_go_with_the_tap", pair(), programs_go_with_the_tap),
        case("a_forged_mark_is_dropped_and_counted", pair(), forged),
        case(
            "a_bridged_frame_keeps_its_mac_and_has_no_mark",
            // Of one size and one port, they would share a send.
            pair().without_offloads(),
            bridged,
        ),
        case(
            "without_bpf_auto_is_the_table_and_bpf_an_error",
            Plan::of(&[Silk]).cold().marks("auto"),
            without_bpf,
        ),
        case(
            "what_a_killed_daemon_left_and_cannot_be_told_apart_carries_nothing",
            bpf(&[Silk, Silk]).marks("auto"),
            left_and_not_told,
        ),
        case(
            "auto_is_bpf_unless_the_file_has_groups",
            Plan::of(&[Silk]).cold().marks("auto"),
            auto_decides,
        ),
    ]);
    cases
}

fn bpf(kinds: &[Kind]) -> Plan {
    Plan::of(kinds).marks("bpf").iptables()
}

/// What the policy agent of the source cell adds for an application's container (facts: group policy).
pub(super) fn mark(cell: &Cell, mark: &str) -> Result {
    iptables(
        &cell.host,
        &format!(
            "-t mangle -A FORWARD -s {} -j MARK --set-xmark {mark}",
            cell.site.container
        ),
    )
}

/// The destination cell's: TCP from group 3 and replies are let in, the rest is rejected.
fn admit_group_3(cell: &Cell) -> Result {
    let to = cell.site.container;
    for rule in [
        format!("-d {to} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-d {to} -p tcp --dport 1024:65535 -m mark --mark 0x3 -j ACCEPT"),
        format!("-d {to} -j REJECT --reject-with icmp-port-unreachable"),
    ] {
        iptables(&cell.host, &format!("-A FORWARD -i {VTEP_NAME} {rule}"))?;
    }
    Ok(())
}

fn unmark(cell: &Cell) -> Result {
    iptables(&cell.host, "-t mangle -F FORWARD")
}

pub(super) fn iptables(host: &Namespace, arguments: &str) -> Result {
    host.exec(&format!("iptables -w {arguments}")).map(drop)
}

pub(super) fn silks_rules_hold(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    let (client, server) = (a.container()?, b.container()?);
    admit_group_3(b)?;
    refused(lab, "without a mark")?;
    mark(a, "0x3")?;
    let connection = Connection::open(client, server)?;
    connection.upload(100_000)?;
    connection.download(100_000)?;
    // An exact match of 32 bits: another group, a bit more, and the ingress router's mark, whose group is 0.
    for other in ["0x4", "0x80003", "0xffff0000"] {
        unmark(a)?;
        mark(a, other)?;
        refused(lab, other)?;
    }
    // What began may go on.
    connection.upload(100_000)?;
    unmark(a)?;
    mark(a, "0x3")?;
    Connection::open(client, server)?.upload(100_000)?;
    // The other way round nobody asks for marks.
    Connection::open(server, client)?.upload(100_000)
}

/// [`silks_rules_hold`] in the words of nftables.
fn nftables_rules_hold(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    let (client, server) = (a.container()?, b.container()?);
    let nft = |cell: &Cell, words: &str| cell.host.exec(&format!("nft {words}")).map(drop);
    for (cell, priority) in [(a, "mangle"), (b, "filter")] {
        nft(cell, "add table ip silk")?;
        let hook = format!("{{ type filter hook forward priority {priority} ; }}");
        nft(cell, &format!("add chain ip silk forward {hook}"))?;
    }
    let mark = |mark: &str| {
        nft(a, "flush chain ip silk forward")?;
        let from = a.site.container;
        nft(
            a,
            &format!("add rule ip silk forward ip saddr {from} meta mark set {mark}"),
        )
    };
    let to = format!("iifname {VTEP_NAME} ip daddr {}", b.site.container);
    for rule in [
        "ct state established,related accept",
        "tcp dport 1024-65535 meta mark 0x3 accept",
        "reject with icmp type port-unreachable",
    ] {
        nft(b, &format!("add rule ip silk forward {to} {rule}"))?;
    }
    refused(lab, "without a mark")?;
    mark("0x3")?;
    let connection = Connection::open(client, server)?;
    connection.upload(100_000)?;
    connection.download(100_000)?;
    for other in ["0x4", "0x80003", "0xffff0000"] {
        mark(other)?;
        refused(lab, other)?;
    }
    connection.upload(100_000)?;
    mark("0x3")?;
    Connection::open(client, server)?.upload(100_000)?;
    Connection::open(server, client)?.upload(100_000)
}

/// The destination cell rejects a connection with port unreachable.
fn refused(lab: &Lab, what: &str) -> Result {
    let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
    let listener = server
        .namespace
        .run(|| Ok(TcpListener::bind((server.address, 0))?))?;
    let to: SocketAddr = listener.local_addr()?;
    let connected = client
        .namespace
        .run(|| Ok(TcpStream::connect(to).map(drop)))?;
    let kind = connected.err().map(|error| error.kind());
    ensure!(
        kind == Some(std::io::ErrorKind::ConnectionRefused),
        "{what}: a connection ended with {kind:?}"
    );
    Ok(())
}

/// Every packet is marked and every packet must have its mark: nothing is let in for being established.
pub(super) fn super_frames_keep_their_mark(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    for (here, there) in [(a, b), (b, a)] {
        mark(here, "0x3")?;
        let to = there.site.container;
        let rule = format!("-A FORWARD -i {VTEP_NAME} -d {to} -m mark ! --mark 0x3 -j DROP");
        iptables(&there.host, &rule)?;
    }
    let (client, server) = (a.container()?, b.container()?);
    ping(&client.namespace, server.address, 3, "")?;
    streams_cross([client.end(), server.end()])?;
    for cell in &mut lab.cells {
        if let Ok(daemon) = cell.daemon() {
            let stats = Stats::read(daemon)?;
            ensure!(stats.drops()? == 0, "{stats:?}");
        }
    }
    Ok(())
}

/// What the header says of a mark, on the wire, whichever device sends: G iff the mark is not 0, D, A, low 16 bits; and the inner source
/// MAC is the VTEP's.
fn header_is_the_kernels(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    let sniffer = Sniffer::start(&a.host)?;
    for (marked, word) in [
        ("0x0", 0x0800_0000_u32),
        ("0x1234", 0x8800_1234),
        ("0xffff", 0x8800_ffff),
        ("0x401234", 0x8840_1234),
        ("0x81234", 0x8808_1234),
        ("0x48abcd", 0x8848_abcd),
        ("0x10000", 0x8800_0000),
        ("0xff000000", 0x8800_0000),
        ("0xdeadbeef", 0x8808_beef),
    ] {
        unmark(a)?;
        mark(a, marked)?;
        ping(&a.container()?.namespace, b.site.container, 1, "")?;
        let local = a.site.underlay(false);
        let outers = sniffer.outers(1, |outer| outer.source == local)?;
        for outer in outers {
            let seen = u32::from_be_bytes([
                outer.vxlan[0],
                outer.vxlan[1],
                outer.vxlan[2],
                outer.vxlan[3],
            ]);
            ensure!(seen == word, "{marked}: {:02x?}", outer.vxlan);
            ensure!(
                outer.inner[6..12] == vtep_mac(a.site.vtep),
                "{marked}: inner source {:02x?}",
                &outer.inner[6..12]
            );
        }
    }
    Ok(())
}

/// Takes our program on one side of a cell's TAP away, as another's `tc` would.
pub(super) fn detach(cell: &Cell, side: Side) -> Result {
    cell.host.run(|| {
        let index = index(cell)?;
        let ids = tcx::attached(index, side)?;
        let id = ids.first().ok_or("no program is attached")?;
        Ok(tcx::detach(index, side, tcx::program(*id)?)?)
    })
}

fn index(cell: &Cell) -> Result<u32> {
    let line = cell.host.ip(&format!("-o link show {VTEP_NAME}"))?;
    Ok(line.split(':').next().ok_or("an empty line")?.parse()?)
}

/// The numbers of the programs on a cell's TAP, by side.
pub(super) fn programs(cell: &Cell) -> Result<[Vec<u32>; 2]> {
    let index = index(cell)?;
    let of = |side| cell.host.run(move || Ok(tcx::attached(index, side)?));
    Ok([of(Side::Ingress)?, of(Side::Egress)?])
}

fn egress_detached_means_group_0(lab: &mut Lab) -> Result {
    mark(&lab.cells[0], "0x3")?;
    let before = programs(&lab.cells[0])?;
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    let sniffer = Sniffer::start(&a.host)?;
    let stream = NumberedStream::start(a.container()?, b.container()?, DATAGRAMS, INTERVAL)?;
    let local = a.site.underlay(false);
    let is_ours = |outer: &Outer| outer.source == local && outer.inner_udp_source().is_some();
    let mut seen = sniffer.outers(1, is_ours)?;
    detach(a, Side::Egress)?;
    let is = |header| move |outer: &Outer| is_ours(outer) && outer.vxlan == header;
    wait_for(&sniffer, &mut seen, is(PLAIN_HEADER))?;
    wait_for(&sniffer, &mut seen, is(GROUP_3_HEADER))?;
    stream.finish()?;
    seen.extend(sniffer.so_far(Outer::parse)?);
    let own = vtep_mac(a.site.vtep);
    for outer in seen.iter().filter(|outer| is_ours(outer)) {
        ensure!(
            [PLAIN_HEADER, GROUP_3_HEADER].contains(&outer.vxlan),
            "VXLAN header {:02x?}",
            outer.vxlan
        );
        ensure!(
            outer.inner[6..12] == own,
            "inner source {}",
            mac_text(outer.inner[6..12].try_into()?)
        );
    }
    ensure!(programs(a)? == before, "other programs are there");
    let said = lab.cells[0].daemon()?.stderr();
    ensure!(
        said.contains("a program that carries marks was detached"),
        "{said}"
    );
    Ok(())
}

/// Looks on until a datagram of a kind passed.
fn wait_for(sniffer: &Sniffer, seen: &mut Vec<Outer>, wanted: impl Fn(&Outer) -> bool) -> Result {
    wait_until("a datagram of a kind passed", || {
        let fresh = sniffer.so_far(Outer::parse)?;
        let found = fresh.iter().any(&wanted);
        seen.extend(fresh);
        Ok(Wait::unless(found, || "others".to_owned()))
    })
}

fn ingress_detached_means_mark_0(lab: &mut Lab) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    mark(a, "0x3")?;
    admit_group_3(b)?;
    let (client, server) = (a.container()?, b.container()?);
    let connection = Connection::open(client, server)?;
    detach(b, Side::Ingress)?;
    refused(lab, "detached")?;
    connection.upload(100_000)?;
    wait_until("the program is attached again", || {
        let [ingress, _] = programs(b)?;
        Ok(Wait::unless(!ingress.is_empty(), || "it is not".to_owned()))
    })?;
    Connection::open(client, server)?.upload(100_000)
}

/// One that ends the chain, so that marks are lost on the way out.
fn others_before_ours(lab: &mut Lab) -> Result {
    const TC_ACT_OK: i32 = 0;
    mark(&lab.cells[0], "0x3")?;
    is_sent(lab, GROUP_3_HEADER)?;
    let a = &lab.cells[0];
    let mut code = Assembler::new();
    code.mov(Register::R0, TC_ACT_OK);
    code.exit();
    let others = load(ProgramType::SchedCls, "others", &code.finish())?;
    let index = index(a)?;
    a.host
        .run(|| Ok(tcx::attach(index, Side::Egress, &others, None)?))?;
    is_sent(lab, PLAIN_HEADER)?;
    let told = "(others) on the way out; packets for which one ends the chain";
    let host = lab.cells[0].host.clone();
    let daemon = lab.cells[0].daemon()?;
    let shows = |expected: bool| {
        wait_until("link show tells", || {
            let text = daemon.ctl("link show")?;
            Ok(Wait::unless(text.contains(told) == expected, || text))
        })
    };
    shows(true)?;
    ensure!(daemon.stderr().contains(told), "{}", daemon.stderr());
    let doctors = daemon.ctl("doctor")?;
    let line = doctors
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("marks"));
    let line = line.ok_or("no line of marks")?;
    ensure!(line.starts_with("off ") && line.contains(told), "{line}");
    host.run(|| Ok(tcx::detach(index, Side::Egress, &others)?))?;
    shows(false)?;
    let doctors = daemon.ctl("doctor")?;
    ensure!(
        doctors.contains("; the daemon that runs uses bpf: the packets' own, by tcx"),
        "{doctors}"
    );
    is_sent(lab, GROUP_3_HEADER)
}

fn kill_9(lab: &mut Lab) -> Result {
    mark(&lab.cells[0], "0x3")?;
    let before = programs(&lab.cells[0])?;
    lab.cells[0].daemon()?.kill9()?;
    ensure!(
        programs(&lab.cells[0])? == before,
        "they went with the daemon"
    );
    lab.cells[0].daemon()?.start()?;
    let after = programs(&lab.cells[0])?;
    for (old, new) in before.iter().zip(&after) {
        ensure!(
            new.len() == 1 && old.len() == 1 && old != new,
            "programs {before:?}, then {after:?}"
        );
    }
    is_sent(lab, GROUP_3_HEADER)
}

/// One ping of the first container is sent under `header`.
pub(super) fn is_sent(lab: &Lab, header: [u8; 8]) -> Result {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    let sniffer = Sniffer::start(&a.host)?;
    ping(&a.container()?.namespace, b.site.container, 1, "")?;
    let local = a.site.underlay(false);
    let outer = sniffer.outers(1, |outer| outer.source == local)?.remove(0);
    ensure!(outer.vxlan == header, "VXLAN header {:02x?}", outer.vxlan);
    ensure!(
        outer.inner[6..12] == vtep_mac(a.site.vtep),
        "inner source {:02x?}",
        &outer.inner[6..12]
    );
    Ok(())
}

fn programs_go_with_their_use(lab: &mut Lab) -> Result {
    mark(&lab.cells[0], "0x3")?;
    is_sent(lab, GROUP_3_HEADER)?;
    let daemon = lab.cells[0].daemon()?;
    daemon.kill9()?;
    let config = daemon.config()?;
    daemon.write_config(&config.replace("marks = \"bpf\"", "marks = \"table\""))?;
    daemon.start()?;
    let left = programs(&lab.cells[0])?;
    ensure!(left.iter().all(Vec::is_empty), "left: {left:?}");
    is_sent(lab, PLAIN_HEADER)
}

/// A TAP of that name has no programs once the daemon has ended in order.
fn programs_go_with_the_tap(lab: &mut Lab) -> Result {
    ensure!(
        programs(&lab.cells[0])?.iter().all(|ids| ids.len() == 1),
        "not attached"
    );
    lab.cells[0].daemon()?.terminate()?;
    let host = &lab.cells[0].host;
    host.ip(&format!(
        "tuntap add mode tap multi_queue vnet_hdr name {VTEP_NAME}"
    ))?;
    let left = programs(&lab.cells[0])?;
    ensure!(left.iter().all(Vec::is_empty), "left: {left:?}");
    Ok(())
}

/// A frame of the first container to the second as the host sends it, but for its source MAC.
fn frame(lab: &Lab, source: [u8; 6]) -> Result<Vec<u8>> {
    let [here, there] = [lab.cells[0].site, lab.cells[1].site];
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(source, vtep_mac(here.vtep))
        .ipv4(here.container.octets(), there.container.octets(), 64)
        .udp(4000, 4001)
        .write(&mut frame, b"who is it?")?;
    Ok(frame)
}

/// Somebody who may send raw frames writes a mark as our program would.
fn forged(lab: &mut Lab) -> Result {
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let injector = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    for mark in 1..=3 {
        injector.send(&frame(lab, [0x03, 0x01, 0, 0, 0, mark])?)?;
    }
    let daemon = lab.cells[0].daemon()?;
    wait_until("forged frames were dropped", || {
        let stats = Stats::read(daemon)?;
        Ok(Wait::unless(stats.dropped("forged-mark") == 3, || {
            format!("{stats:?}")
        }))
    })?;
    is_sent(lab, PLAIN_HEADER)?;
    let sent = sniffer.so_far(|frame| Outer::parse(frame)?.inner_udp_source())?;
    ensure!(sent.is_empty(), "a forged frame was sent");
    Ok(())
}

/// Whose MAC it was would be lost to the mark.
fn bridged(lab: &mut Lab) -> Result {
    let container = [2, 0, 0, 0, 0, 7];
    // Locally sent packets pass OUTPUT, those of packet sockets pass no table: the mark is the socket's.
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let injector = Injector::new(&lab.cells[0].host, VTEP_NAME)?;
    injector.set_mark(3)?;
    injector.send(&frame(lab, container)?)?;
    injector.send(&frame(lab, vtep_mac(lab.cells[0].site.vtep))?)?;
    let local = lab.cells[0].site.underlay(false);
    let outers = sniffer.outers(2, |outer| {
        outer.source == local && outer.inner_udp_source().is_some()
    })?;
    let seen: Vec<_> = outers
        .iter()
        .map(|outer| (outer.vxlan, outer.inner[6..12].to_vec()))
        .collect();
    let expected = [
        (PLAIN_HEADER, container.to_vec()),
        (GROUP_3_HEADER, vtep_mac(lab.cells[0].site.vtep).to_vec()),
    ];
    ensure!(seen == expected, "sent: {seen:02x?}");
    Ok(())
}

const WITHOUT_SYS_ADMIN: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin"];

/// Whose program that is on the TAP, only CAP_SYS_ADMIN is told. It runs on, and what it writes is taken out again.
fn left_and_not_told(lab: &mut Lab) -> Result {
    mark(&lab.cells[0], "0x3")?;
    let daemon = lab.cells[0].daemon()?;
    daemon.terminate()?;
    daemon.start_under(&WITHOUT_SYS_ADMIN)?;
    let (marks, why) = shown(lab)?;
    ensure!(marks == "bpf", "on a fresh TAP: {marks}: {why}");
    is_sent(lab, GROUP_3_HEADER)?;
    let left = programs(&lab.cells[0])?;
    let daemon = lab.cells[0].daemon()?;
    daemon.kill9()?;
    daemon.start_under(&WITHOUT_SYS_ADMIN)?;
    let (marks, why) = shown(lab)?;
    ensure!(
        marks == "table" && why.contains("CAP_SYS_ADMIN") && why.contains("ip link del"),
        "{marks}: {why}"
    );
    ensure!(programs(&lab.cells[0])? == left, "they are gone");
    is_sent(lab, PLAIN_HEADER)
}

const WITHOUT_BPF: [&str; 3] = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];

fn without_bpf(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    daemon.start_under(&WITHOUT_BPF)?;
    let said = daemon.stderr();
    ensure!(
        said.contains("carry marks over silk-vtep: BPF_PROG_LOAD: EPERM")
            && said.contains("groups come from the group table instead"),
        "{said}"
    );
    let (marks, why) = shown(lab)?;
    ensure!(marks == "table" && why.contains("EPERM"), "{marks}: {why}");
    let daemon = lab.cells[0].daemon()?;
    daemon.terminate()?;
    let config = daemon.config()?;
    daemon.write_config(&config.replace("marks = \"auto\"", "marks = \"bpf\""))?;
    let ended = daemon.run_to_its_end(&WITHOUT_BPF)?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains("(needs CAP_BPF"),
        "{}: {}",
        ended.status,
        ended.stderr
    );
    let links = lab.cells[0].host.ip("-o link show")?;
    ensure!(!links.contains(VTEP_NAME), "the TAP is left: {links}");
    Ok(())
}

fn auto_decides(lab: &mut Lab) -> Result {
    lab.cells[0].daemon()?.start()?;
    let (marks, why) = shown(lab)?;
    ensure!(marks == "bpf" && why.contains("tcx"), "{marks}: {why}");
    let daemon = lab.cells[0].daemon()?;
    let text = daemon.ctl("link show")?;
    ensure!(text.contains("    marks bpf: "), "{text}");
    // A group that nobody looks up is told, live and from the file.
    let site = lab.cells[0].site;
    let group = format!("[[group]]\naddress = \"{}\"\nid = 3\n", site.container);
    let daemon = lab.cells[0].daemon()?;
    let config = daemon.config()? + &group;
    daemon.write_config(&config)?;
    let reloaded = daemon.request(&serde_json::json!("reload"))?;
    let warned = reloaded["warnings"].to_string();
    ensure!(
        warned.contains("the group table is without effect"),
        "{reloaded}"
    );
    daemon.terminate()?;
    daemon.start()?;
    let (marks, why) = shown(lab)?;
    ensure!(marks == "table" && why.contains("groups"), "{marks}: {why}");
    Ok(())
}

/// `marks` of `link show -j`, and why.
pub(super) fn shown(lab: &mut Lab) -> Result<(String, String)> {
    let links: Value = serde_json::from_str(&lab.cells[0].daemon()?.ctl("link show -j")?)?;
    let ours = &links[0]["silk_vtep"];
    let text = |key: &str| ours[key].as_str().unwrap_or_default().to_owned();
    Ok((text("marks"), text("marks_why")))
}
