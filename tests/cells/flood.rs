//! Policy under floods: what they cost in memory, in flows and in lines of the log.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

use etherparse::{PacketBuilder, TcpHeader};
use serde_json::Value;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Connection, Daemon, Injector, Lab, Plan, Result, Site, Stats, Tunnel, Wait, ensure, vtep_mac,
    wait_until,
};

/// A small table, so that what does not stay in it shows.
const ENFORCED: &str =
    "[policy]\nenforce = true\nlog_per_second = 1\n[policy.flows]\nsize = 4096\n";
const TABLE_SIZE: u64 = 4096;
/// Different senders, by address and port, of the peer's flood.
const SENDERS: usize = 1_000_000;
/// Of so many one asks for what a rule lets it have.
const ADMITTED_EACH: usize = 8;
/// Sent before memory is measured for the first time: every buffer has been used.
const WARM_UP: usize = 50_000;
/// On their way at once: fewer than the daemon's receive buffer holds.
const BURST: usize = 10_000;
/// Of these senders' bytes 4 each would show.
const GROWTH_BYTES_MAX: u64 = 4 << 20;
/// Flows that made room for others before our own container's flood is over.
const EVICTED: u64 = 50_000;
/// A rule lets the group in there.
const OPEN_PORT: u16 = 80;
const CLOSED_PORT: u16 = 81;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).group(3).vtep_lines(ENFORCED);
        Case::new(format!("flood::{name}"), plan, body)
    };
    vec![
        case(
            "a_million_senders_cost_no_memory_and_no_established_flow",
            million_senders,
        ),
        case(
            "a_container_that_floods_pushes_out_what_it_began_itself",
            own_container_floods,
        ),
        case(
            "refusals_are_told_in_few_lines_and_a_bounded_table",
            refusals_are_bounded,
        ),
    ]
}

/// The second cell's container has a connection to the first one's, where a rule lets it in; what comes back only the flow lets in.
fn established(lab: &mut Lab) -> Result<Connection> {
    let to = lab.cells[0].site.container;
    let daemon = lab.cells[0].daemon()?;
    daemon.ctl(&format!("policy add {to} group 3 proto tcp"))?;
    let [ours, theirs] = [lab.cells[1].container()?, lab.cells[0].container()?];
    let connection = Connection::open(ours, theirs)?;
    goes_on(&connection)?;
    Ok(connection)
}

fn goes_on(connection: &Connection) -> Result {
    connection.upload(200_000)?;
    connection.download(200_000)
}

fn million_senders(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    let tunnel = Tunnel::between(&lab.cells[0], &lab.cells[1])?;
    // Some of them are answered.
    let server = lab.cells[1].container()?;
    let _listener = server
        .namespace
        .run(|| Ok(TcpListener::bind((server.address, OPEN_PORT))?))?;
    let rule = format!("{} group 3 proto tcp ports {OPEN_PORT}", server.address);
    let senders = Senders::new(lab.cells[0].site, lab.cells[1].site)?;
    let daemon = lab.cells[1].daemon()?;
    daemon.ctl(&format!("policy add {rule}"))?;
    let mut resident = 0;
    for first in (0..SENDERS).step_by(BURST) {
        tunnel.send_runs((first..first + BURST).map(|number| (3, senders.syn(number))))?;
        wait_until("every SYN was judged", || {
            let stats = Stats::read(daemon)?;
            let judged = stats.peers()?[0].1 + stats.dropped("policy-denied");
            Ok(Wait::unless(judged >= (first + BURST) as u64, || {
                format!("{judged} of {}: {stats:?}", first + BURST)
            }))
        })?;
        if first + BURST == WARM_UP {
            resident = daemon.process()?.resident_bytes()?;
        }
        if first % (10 * BURST) == 0 {
            goes_on(&connection)?;
        }
    }
    // The connection's packets were among them.
    let refused = (SENDERS - SENDERS / ADMITTED_EACH) as u64;
    wait_until("all that no rule lets in were refused", || {
        let stats = Stats::read(daemon)?;
        let done = stats.dropped("policy-denied") >= refused;
        Ok(Wait::unless(done, || format!("{stats:?}")))
    })?;
    let grown = daemon.process()?.resident_bytes()?.saturating_sub(resident);
    ensure!(
        grown <= GROWTH_BYTES_MAX,
        "{grown} bytes more than after {WARM_UP} senders, {resident}"
    );
    let stats = Stats::read(daemon)?;
    ensure!(stats.flows("evicted")? == 0, "{stats:?}");
    goes_on(&connection)
}

/// Addresses of the peer's subnet by ports, each once. Building a million frames would take longer than to judge them, so one for each
/// address is built and its port written in.
struct Senders(Vec<Vec<u8>>);

impl Senders {
    const HOSTS: usize = 256;
    /// Where an Ethernet frame has TCP's source port and checksum behind IPv4.
    const PORT: usize = 34;
    const CHECKSUM: usize = 50;

    fn new(from: Site, to: Site) -> Result<Self> {
        let macs = [from.vtep, to.vtep].map(vtep_mac);
        let frames = (0..Self::HOSTS).map(|host| {
            let source = Ipv4Addr::from(u32::from(from.vtep) + host as u32);
            let is_admitted = host % ADMITTED_EACH == 0;
            let asked = if is_admitted { OPEN_PORT } else { CLOSED_PORT };
            syn_frame(macs, [source, to.container], [0, asked])
        });
        Ok(Self(frames.collect::<Result<_>>()?))
    }

    fn syn(&self, number: usize) -> Vec<u8> {
        let mut frame = self.0[number % Self::HOSTS].clone();
        let port = (1024 + number / Self::HOSTS) as u16;
        frame[Self::PORT..][..2].copy_from_slice(&port.to_be_bytes());
        // RFC 1624: the port was 0.
        let checksum = u16::from_be_bytes([frame[Self::CHECKSUM], frame[Self::CHECKSUM + 1]]);
        let (sum, carry) = (!checksum).overflowing_add(port);
        let checksum = !(sum + u16::from(carry));
        frame[Self::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }
}

fn own_container_floods(lab: &mut Lab) -> Result {
    let connection = established(lab)?;
    let [from, to] = [lab.cells[1].site, lab.cells[0].site];
    let veth = vtep_mac(from.container);
    let to_host = [0xaa, 0xaa, veth[2], veth[3], veth[4], veth[5]];
    let container = Injector::new(&lab.cells[1].container()?.namespace, "eth0")?;
    let daemon = lab.cells[1].daemon()?;
    let mut number = 0_u32;
    let mut resident = 0;
    wait_until("flows made room for others", || {
        // Of a burst a TAP's queue holds 500.
        for _ in 0..2_000 {
            let ports = [1024 + number % 60_000, 1024 + number / 60_000].map(|port| port as u16);
            let ends = [from.container, to.container];
            container.send(&syn_frame([veth, to_host], ends, ports)?)?;
            number += 1;
        }
        let evicted = Stats::read(daemon)?.flows("evicted")?;
        if resident == 0 && evicted > 0 {
            resident = daemon.process()?.resident_bytes()?;
        }
        Ok(Wait::unless(evicted >= EVICTED, || {
            format!("{evicted}, of {number} sent")
        }))
    })?;
    let grown = daemon.process()?.resident_bytes()?.saturating_sub(resident);
    ensure!(grown <= GROWTH_BYTES_MAX, "{grown} bytes more");
    let stats = Stats::read(daemon)?;
    ensure!(
        stats.flows("size")? == TABLE_SIZE
            && stats.flows("entries")? <= TABLE_SIZE
            && stats.flows("established")? >= 1
            && stats.flows("evicted_established")? == 0,
        "{stats:?}"
    );
    goes_on(&connection)?;
    // And flows may still begin.
    let [ours, theirs] = [lab.cells[1].container()?, lab.cells[0].container()?];
    goes_on(&Connection::open(ours, theirs)?)
}

/// To every address of the cell, of as many groups as make ten times the rows that `policy denied` has.
fn refusals_are_bounded(lab: &mut Lab) -> Result {
    const GROUPS: u16 = 40;
    const PACKETS: u64 = 256 * GROUPS as u64;
    const ROWS_MAX: usize = 1024;
    let [from, to] = [lab.cells[0].site, lab.cells[1].site];
    let tunnel = Tunnel::between(&lab.cells[0], &lab.cells[1])?;
    let macs = [from.vtep, to.vtep].map(vtep_mac);
    let packet = |group: u16, host: u32| {
        let destination = Ipv4Addr::from(u32::from(to.vtep) + host);
        let frame = syn_frame(macs, [from.container, destination], [4000, CLOSED_PORT])?;
        Ok::<_, crate::support::Error>((group, frame))
    };
    let pairs = (1..=GROUPS).flat_map(|group| (0..256).map(move |host| (group, host)));
    let frames = pairs.map(|(group, host)| packet(group, host));
    tunnel.send_runs(frames.collect::<Result<Vec<_>>>()?)?;
    let daemon = lab.cells[1].daemon()?;
    wait_until("all were refused", || {
        let refused = Stats::read(daemon)?.dropped("policy-denied");
        Ok(Wait::unless(refused == PACKETS, || refused.to_string()))
    })?;
    every_refusal_is_in_the_table(daemon, PACKETS, ROWS_MAX)?;
    // What a line did not tell is told with the next that may be written: so one more packet, until it has brought one.
    let mut sent = PACKETS;
    wait_until("every refusal was told", || {
        let told = Told::read(daemon)?;
        if told.packets < sent {
            let (group, frame) = packet(1, 0)?;
            tunnel.send(group, &frame)?;
            sent += 1;
        }
        Ok(Wait::unless(told.packets == sent, || format!("{told:?}")))
    })?;
    let told = Told::read(daemon)?;
    ensure!(told.untold_max > 1000 && told.lines < 100, "{told:?}");
    every_refusal_is_in_the_table(daemon, sent, ROWS_MAX)
}

/// `policy denied` has no more rows than that, and says how many packets it has no row for.
fn every_refusal_is_in_the_table(daemon: &Daemon, sent: u64, rows_max: usize) -> Result {
    let report: Value = serde_json::from_str(&daemon.ctl("policy denied -j")?)?;
    let rows = report["rows"].as_array().ok_or("no rows")?;
    let keys: BTreeSet<_> = rows
        .iter()
        .map(|row| (row["dst"].to_string(), row["group"].to_string()))
        .collect();
    let in_rows: u64 = rows.iter().filter_map(|row| row["packets"].as_u64()).sum();
    let forgotten = report["forgotten"].as_u64().ok_or("nothing forgotten")?;
    ensure!(
        keys.len() == rows.len() && (rows_max / 2..=rows_max).contains(&rows.len()),
        "{} rows of {} groups and destinations",
        rows.len(),
        keys.len()
    );
    ensure!(
        forgotten > 0 && in_rows + forgotten == sent,
        "{in_rows} packets in rows, {forgotten} forgotten, {sent} sent"
    );
    let text = daemon.ctl("policy denied")?;
    let last = format!("{forgotten} packets more, of rows that made room for others");
    ensure!(
        text.lines().last() == Some(&last) && text.lines().count() == rows.len() + 1,
        "{text}"
    );
    Ok(())
}

/// What the log says of refusals.
#[derive(Debug, Default)]
struct Told {
    lines: usize,
    /// Those of the lines, and those the lines say were not told.
    packets: u64,
    /// The most that one line says were not.
    untold_max: u64,
}

impl Told {
    fn read(daemon: &Daemon) -> Result<Self> {
        let said = daemon.stderr();
        let mut told = Self::default();
        for line in said.lines().filter(|line| line.contains("policy-denied: ")) {
            let untold = match line.split_once(" (") {
                None => 0,
                Some((_, rest)) => rest
                    .strip_suffix(" more since the last line)")
                    .ok_or_else(|| format!("an odd line: {line}"))?
                    .parse()?,
            };
            told.lines += 1;
            told.packets += 1 + untold;
            told.untold_max = told.untold_max.max(untold);
        }
        Ok(told)
    }
}

/// A SYN: 54 bytes, whoever it is from.
fn syn_frame(
    [from, to]: [[u8; 6]; 2],
    [source, destination]: [Ipv4Addr; 2],
    [from_port, to_port]: [u16; 2],
) -> Result<Vec<u8>> {
    let mut header = TcpHeader::new(from_port, to_port, 1, 1000);
    header.syn = true;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from, to)
        .ipv4(source.octets(), destination.octets(), 64)
        .tcp_header(header)
        .write(&mut frame, b"")?;
    Ok(frame)
}
