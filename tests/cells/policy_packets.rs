//! Packets that no stack sends, put into the tunnel as a peer's: errors about others' flows, fragments, headers cut off. Each is let in
//! or refused as the README has it, and counted under its reason; what is honest goes on.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, UdpHeader};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{
    Connection, End, Lab, Plan, Result, Stats, Tunnel, Wait, ensure, ping, receive_one, vtep_mac,
    wait_until,
};

/// None is answered, so that nothing but what is sent here is counted.
const SILENT: &str = "[policy]\nenforce = true\nreject = false\n";
const GROUP: u16 = 3;
const REFUSED: Option<&str> = Some("policy-denied");
const LET_IN: Option<&str> = None;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT_V6: u8 = 44;
const DESTINATION_OPTIONS_V6: u8 = 60;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        let plan = Plan::of(&[Silk, Silk]).group(GROUP).overlay_v6();
        Case::new(
            format!("policy_packets::{name}"),
            plan.vtep_lines(SILENT),
            body,
        )
    };
    vec![
        case("icmp_errors_are_let_in_about_own_flows_alone", |lab| {
            errors(lab, false)
        }),
        case("icmpv6_errors_are_let_in_about_own_flows_alone", |lab| {
            errors(lab, true)
        }),
        case("fragments_follow_their_first_and_nothing_else", |lab| {
            fragments(lab, false)
        }),
        case(
            "ipv6_fragments_follow_their_first_and_nothing_else",
            |lab| fragments(lab, true),
        ),
        case("what_is_cut_off_or_lies_is_refused", |lab| {
            cut_off(lab, false)
        }),
        case("what_is_cut_off_or_lies_is_refused_over_ipv6", |lab| {
            cut_off(lab, true)
        }),
    ]
}

/// What a peer sends, and the reason for which it is not let in.
struct Probe {
    what: String,
    packet: Vec<u8>,
    reason: Option<&'static str>,
}

impl Probe {
    fn new(what: impl Into<String>, packet: Vec<u8>, reason: Option<&'static str>) -> Self {
        Self {
            what: what.into(),
            packet,
            reason,
        }
    }
}

/// Sends each from the second cell to the first, and wants it counted as one of the peer's that were let in, or under its reason, and
/// nothing else counted.
fn judge(lab: &mut Lab, v6: bool, probes: &[Probe]) -> Result {
    let tunnel = Tunnel::between(&lab.cells[1], &lab.cells[0])?;
    let [here, there] = [lab.cells[1].site, lab.cells[0].site];
    let daemon = lab.cells[0].daemon()?;
    let mut expected = Counts::read(&Stats::read(daemon)?)?;
    for Probe {
        what,
        packet,
        reason,
    } in probes
    {
        let frame = frame([here.vtep, there.vtep].map(vtep_mac), v6, packet);
        match reason {
            None => expected.let_in += 1,
            Some(reason) => *expected.drops.entry((*reason).to_owned()).or_default() += 1,
        }
        tunnel.send(GROUP, &frame)?;
        wait_until(what, || {
            let now = Counts::read(&Stats::read(daemon)?)?;
            Ok(Wait::unless(now == expected, || {
                format!("{now:?}, expected {expected:?}")
            }))
        })?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    let_in: u64,
    drops: BTreeMap<String, u64>,
}

impl Counts {
    fn read(stats: &Stats) -> Result<Self> {
        Ok(Self {
            let_in: stats.peers()?[0].1,
            drops: stats.peer_drops(0)?,
        })
    }
}

/// Who speaks to whom, of the first cell and the second: containers over IPv4, hosts over IPv6.
fn ends(lab: &Lab, v6: bool) -> Result<[End<'_>; 2]> {
    let [a, b] = [&lab.cells[0], &lab.cells[1]];
    Ok(match v6 {
        false => [a.container()?.end(), b.container()?.end()],
        true => [a.end_v6(), b.end_v6()],
    })
}

fn errors(lab: &mut Lab, v6: bool) -> Result {
    let [ours, theirs] = ends(lab, v6)?;
    let (local, remote) = (ours.address, theirs.address);
    let (client, sink) = (ours.udp()?, theirs.udp()?);
    let ports = [client.local_addr()?.port(), sink.local_addr()?.port()];
    let sites = [lab.cells[0].site, lab.cells[1].site];
    let vteps = sites.map(|site| -> IpAddr {
        match v6 {
            false => site.vtep.into(),
            true => IpAddr::V6(u128::from(site.vtep_v6()).wrapping_add(7).into()),
        }
    });
    let probes = about_flows([local, remote], ports, vteps)?;

    // Nothing is ours yet.
    let unknown: Vec<_> = (probes.iter())
        .map(|probe| {
            let reason = probe.reason.or(REFUSED);
            Probe::new(probe.what.as_str(), probe.packet.clone(), reason)
        })
        .collect();
    judge(lab, v6, &unknown)?;
    client.connect(sink.local_addr()?)?;
    client.send(b"request")?;
    is_noted(lab)?;
    judge(lab, v6, &probes)?;
    heard_by(&client, lab, v6, &probes[0])
}

/// The first flow of the first cell is in its table.
fn is_noted(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    wait_until("the flow is known", || {
        let entries = Stats::read(daemon)?.flows("entries")?;
        Ok(Wait::unless(entries > 0, || "it is not".into()))
    })
}

/// The client's own kernel takes what was let in: that nobody listens there.
fn heard_by(client: &UdpSocket, lab: &mut Lab, v6: bool, port_unreachable: &Probe) -> Result {
    // Of those before it too.
    while client.take_error()?.is_some() {}
    let again = Probe::new("once more", port_unreachable.packet.clone(), LET_IN);
    judge(lab, v6, &[again])?;
    let heard = receive_one(client, &mut [0; 16]).map_err(|error| error.kind());
    ensure!(heard == Err(ErrorKind::ConnectionRefused), "{heard:?}");
    Ok(())
}

/// Errors that quote a UDP flow from `local` to `remote`, and what is only like it; the first one says that nobody listens.
fn about_flows(
    [local, remote]: [IpAddr; 2],
    [ours, theirs]: [u16; 2],
    [our_other, their_other]: [IpAddr; 2],
) -> Result<Vec<Probe>> {
    let quote = |[source, destination]: [IpAddr; 2], [from, to]: [u16; 2]| {
        let datagram = udp([source, destination], [from, to], b"request")?;
        packet([source, destination], UDP, None, &datagram)
    };
    let own = quote([local, remote], [ours, theirs])?;
    let unreachable = kinds(local)[0].1;
    let answer = |quoted: &[u8]| error([remote, local], unreachable, quoted);
    let mut probes = Vec::new();
    for (what, kind, reason) in kinds(local) {
        let quoting = error([remote, local], kind, &own)?;
        probes.push(Probe::new(what, quoting, reason));
    }
    let router = error([their_other, local], unreachable, &own)?;
    probes.push(Probe::new("a router of theirs tells", router, LET_IN));
    let header_len = own.len() - UdpHeader::LEN - b"request".len();
    let eight = answer(&own[..header_len + 8])?;
    probes.push(Probe::new("eight bytes are quoted", eight, LET_IN));
    for (what, ends, ports) in [
        ("another port of ours", [local, remote], [ours ^ 1, theirs]),
        (
            "another port of theirs",
            [local, remote],
            [ours, theirs ^ 1],
        ),
        ("another of theirs", [local, their_other], [ours, theirs]),
        ("another of ours", [our_other, remote], [ours, theirs]),
        ("what they sent", [remote, local], [theirs, ours]),
        ("among themselves", [their_other, remote], [ours, theirs]),
    ] {
        probes.push(Probe::new(what, answer(&quote(ends, ports)?)?, REFUSED));
    }
    let to_another = error([remote, our_other], unreachable, &own)?;
    probes.push(Probe::new("to another of ours", to_another, REFUSED));
    let tcp = packet([local, remote], TCP, None, &tcp(ours, theirs))?;
    probes.push(Probe::new("a TCP flow", answer(&tcp)?, REFUSED));
    let later = Some(Piece::later(1, 1));
    let datagram = udp([local, remote], [ours, theirs], b"request")?;
    let fragment = packet([local, remote], UDP, later, &datagram)?;
    probes.push(Probe::new("a later fragment", answer(&fragment)?, REFUSED));
    for (what, len) in [
        ("three bytes are quoted", header_len + 3),
        ("half a header is quoted", header_len / 2),
        ("nothing is quoted", 0),
    ] {
        probes.push(Probe::new(what, answer(&own[..len])?, REFUSED));
    }
    Ok(probes)
}

/// ICMP of the address's family that tells of a packet: type and code. The last of each is for routers of the link alone.
fn kinds(local: IpAddr) -> [(&'static str, [u8; 2], Option<&'static str>); 6] {
    match local {
        IpAddr::V4(_) => [
            ("port unreachable", [3, 3], LET_IN),
            ("host unreachable", [3, 1], LET_IN),
            ("fragmentation needed", [3, 4], LET_IN),
            ("time exceeded", [11, 0], LET_IN),
            ("parameter problem", [12, 0], LET_IN),
            ("redirect", [5, 1], REFUSED),
        ],
        IpAddr::V6(_) => [
            ("port unreachable", [1, 4], LET_IN),
            ("no route", [1, 0], LET_IN),
            ("packet too big", [2, 0], LET_IN),
            ("time exceeded", [3, 0], LET_IN),
            ("parameter problem", [4, 0], LET_IN),
            // What it quotes stands where its target would, and is no address of the peer's: sources come before policy.
            ("redirect", [137, 0], Some("source-not-peers")),
        ],
    }
}

fn fragments(lab: &mut Lab, v6: bool) -> Result {
    let [ours, theirs] = ends(lab, v6)?;
    let sink = ours.udp()?;
    let open = sink.local_addr()?.port();
    let (local, ends) = (ours.address, [theirs.address, ours.address]);
    let daemon = lab.cells[0].daemon()?;
    daemon.ctl(&format!(
        "policy add {local} group 3 proto udp ports {open}"
    ))?;

    let whole = udp(ends, [4000, open], &PAYLOAD)?;
    let refused = udp(ends, [4000, open ^ 1], &PAYLOAD)?;
    let [first, later] = [&whole[..CUT], &whole[CUT..]];
    let begin = |id, bytes: &[u8]| packet(ends, UDP, Some(Piece::first(id)), bytes);
    let end = |id, bytes: &[u8]| packet(ends, UDP, Some(Piece::last(id)), bytes);
    let probe = |what: &str, packet: Result<Vec<u8>>, reason| {
        Ok::<_, crate::support::Error>(Probe::new(what, packet?, reason))
    };
    let mut probes = vec![
        probe("a whole one", packet(ends, UDP, None, &whole), LET_IN)?,
        probe("a later one alone", end(1, later), REFUSED)?,
        probe("a first one", begin(2, first), LET_IN)?,
        probe("of another packet", end(3, later), REFUSED)?,
        probe("its later one", end(2, later), LET_IN)?,
        probe("a refused first one", begin(4, &refused[..CUT]), REFUSED)?,
        probe("its later one", end(4, later), REFUSED)?,
        probe("one before its first", end(5, later), REFUSED)?,
        probe("its first", begin(5, first), LET_IN)?,
        probe("the later one again", end(5, later), LET_IN)?,
        probe("a first one without ports", begin(6, &[]), REFUSED)?,
        probe("its later one", end(6, later), REFUSED)?,
    ];
    if !v6 {
        // The identification is one protocol's.
        let other = packet(ends, TCP, Some(Piece::last(2)), later);
        probes.push(probe("of another protocol", other, REFUSED)?);
    } else {
        // RFC 6946: a fragment header and no fragment.
        let atomic = Some(Piece::atomic(7));
        let packet = |bytes: &[u8]| packet(ends, UDP, atomic, bytes);
        probes.push(probe("an atomic fragment", packet(&whole), LET_IN)?);
        probes.push(probe("a refused one", packet(&refused), REFUSED)?);
    }
    judge(lab, v6, &probes)?;
    // The whole one, the two that were put together, and the atomic one.
    let mut received = [0; 2 * PAYLOAD.len()];
    for n in 0..if v6 { 4 } else { 3 } {
        let len = receive_one(&sink, &mut received)?;
        ensure!(received[..len] == PAYLOAD, "datagram {n}: {len} bytes");
    }
    goes_on(lab)
}

/// Of a datagram, and the part of it with its header that the first fragment has.
const PAYLOAD: [u8; 1000] = [7; 1000];
const CUT: usize = 512;

const FOLLOWS_A_REFUSED_ONE: &str = "its later one";

fn cut_off(lab: &mut Lab, v6: bool) -> Result {
    let [ours, theirs] = ends(lab, v6)?;
    let sink = ours.udp()?;
    let open = sink.local_addr()?.port();
    let (local, ends) = (ours.address, [theirs.address, ours.address]);
    let daemon = lab.cells[0].daemon()?;
    // Everything that can be read is let in.
    for proto in ["tcp", "udp", "icmp"] {
        daemon.ctl(&format!("policy add {local} group 3 proto {proto}"))?;
    }
    let whole = packet(ends, UDP, None, &udp(ends, [4000, open], b"honest")?)?;
    let mut probes = vec![Probe::new("an honest one", whole.clone(), LET_IN)];
    probes.extend(cut_transport(ends)?);
    probes.extend(match v6 {
        false => lying_v4(ends, &whole)?,
        true => lying_v6(ends, &whole)?,
    });
    judge(lab, v6, &probes)?;
    // Whatever the default, what cannot be read is refused.
    let daemon = lab.cells[0].daemon()?;
    let config = daemon.config()?;
    daemon
        .write_config(&config.replace("enforce = true", "enforce = true\ndefault = \"allow\""))?;
    daemon.ctl("reload")?;
    for probe in &mut probes {
        // Without its first no host makes a packet of it.
        if probe.what == FOLLOWS_A_REFUSED_ONE {
            probe.reason = LET_IN;
        }
    }
    judge(lab, v6, &probes)?;
    for _ in 0..2 {
        let mut received = [0; 16];
        let len = receive_one(&sink, &mut received)?;
        ensure!(&received[..len] == b"honest", "{len} bytes");
    }
    goes_on(lab)
}

/// Less than a whole header of what it says it is.
fn cut_transport(ends: [IpAddr; 2]) -> Result<Vec<Probe>> {
    let tcp = tcp(4000, 80);
    let mut flagless = tcp.clone();
    flagless[13] = 0;
    let datagram = udp(ends, [4000, 80], b"")?;
    let icmp = if ends[0].is_ipv4() { 1 } else { 58 };
    let mut probes = Vec::new();
    for (what, protocol, piece, bytes) in [
        ("19 bytes of TCP", TCP, None, &tcp[..19]),
        ("no byte of TCP", TCP, None, &[]),
        ("TCP without flags", TCP, None, &flagless),
        ("7 bytes of UDP", UDP, None, &datagram[..7]),
        ("7 bytes of ICMP", icmp, None, &[8, 0, 0, 0, 0, 0, 0][..]),
        ("a tiny first", TCP, Some(Piece::first(8)), &tcp[..8]),
        ("a small first", TCP, Some(Piece::first(9)), &tcp[..16]),
        (
            FOLLOWS_A_REFUSED_ONE,
            TCP,
            Some(Piece::later(9, 2)),
            &[0; 8],
        ),
    ] {
        let packet = packet(ends, protocol, piece, bytes)?;
        probes.push(Probe::new(what, packet, REFUSED));
    }
    Ok(probes)
}

fn lying_v4(ends: [IpAddr; 2], whole: &[u8]) -> Result<Vec<Probe>> {
    let with = |at: usize, byte: u8| {
        let mut packet = whole.to_vec();
        packet[at] = byte;
        packet
    };
    let first = packet(
        ends,
        TCP,
        Some(Piece::first(10)),
        &[&tcp(4000, 80)[..], &[0; 4]].concat(),
    )?;
    let over_flags = packet(ends, TCP, Some(Piece::later(10, 1)), &[0xff; 8])?;
    Ok(vec![
        Probe::new(
            "a header of 19 bytes",
            whole[..19].to_vec(),
            Some("truncated-inner-ip"),
        ),
        Probe::new("a version 5", with(0, 0x55), REFUSED),
        Probe::new("a header length of 16", with(0, 0x44), REFUSED),
        Probe::new("a header longer than all", with(0, 0x4f), REFUSED),
        Probe::new("longer than its frame", with(3, 200), REFUSED),
        Probe::new("shorter than its header", with(3, 19), REFUSED),
        Probe::new("a first fragment", first, LET_IN),
        Probe::new("a fragment over its flags", over_flags, REFUSED),
    ])
}

fn lying_v6(ends: [IpAddr; 2], whole: &[u8]) -> Result<Vec<Probe>> {
    let with = |at: usize, byte: u8| {
        let mut packet = whole.to_vec();
        packet[at] = byte;
        packet
    };
    let datagram = udp(ends, [4000, 80], b"")?;
    let behind_options = |count: usize| {
        let mut bytes = Vec::new();
        for left in (0..count).rev() {
            let next = if left > 0 {
                DESTINATION_OPTIONS_V6
            } else {
                UDP
            };
            bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        bytes.extend(&datagram);
        packet(ends, DESTINATION_OPTIONS_V6, None, &bytes)
    };
    let options_alone = packet(
        ends,
        DESTINATION_OPTIONS_V6,
        Some(Piece::first(11)),
        &[UDP, 0, 1, 4, 0, 0, 0, 0],
    )?;
    Ok(vec![
        Probe::new(
            "a header of 39 bytes",
            whole[..39].to_vec(),
            Some("truncated-inner-ip"),
        ),
        Probe::new("a version 4", with(0, 0x40), REFUSED),
        Probe::new("longer than its frame", with(5, 200), REFUSED),
        Probe::new("no length", with(5, 0), REFUSED),
        Probe::new(
            "options longer than all",
            packet(
                ends,
                DESTINATION_OPTIONS_V6,
                None,
                &[UDP, 9, 0, 0, 0, 0, 0, 0],
            )?,
            REFUSED,
        ),
        Probe::new(
            "half a fragment header",
            packet(ends, FRAGMENT_V6, None, &[UDP, 0, 0, 1])?,
            REFUSED,
        ),
        Probe::new("behind eight headers", behind_options(8)?, LET_IN),
        // What it says of its sender is not to be found either, and that is asked first.
        Probe::new(
            "behind nine headers",
            behind_options(9)?,
            Some("source-not-peers"),
        ),
        Probe::new("a first fragment of options alone", options_alone, REFUSED),
    ])
}

/// What is honest is let in as before.
fn goes_on(lab: &mut Lab) -> Result {
    for cell in [0, 1] {
        let to = lab.cells[cell].site.container;
        let daemon = lab.cells[cell].daemon()?;
        // Some of them are there.
        for proto in ["tcp", "icmp"] {
            daemon.ctl(&format!("policy replace {to} group 3 proto {proto}"))?;
        }
    }
    let [a, b] = [lab.cells[0].container()?, lab.cells[1].container()?];
    ping(&b.namespace, a.address, 3, "")?;
    let connection = Connection::open(b, a)?;
    connection.upload(100_000)?;
    connection.download(100_000)
}

/// Which part of a packet it is.
#[derive(Clone, Copy)]
struct Piece {
    id: u16,
    /// In units of eight bytes.
    offset: u16,
    more: bool,
}

impl Piece {
    fn first(id: u16) -> Self {
        let (offset, more) = (0, true);
        Self { id, offset, more }
    }

    /// Not the last one either.
    fn later(id: u16, offset: u16) -> Self {
        let more = true;
        Self { id, offset, more }
    }

    /// What follows [`CUT`] bytes.
    fn last(id: u16) -> Self {
        let (offset, more) = (CUT as u16 / 8, false);
        Self { id, offset, more }
    }

    fn atomic(id: u16) -> Self {
        let (offset, more) = (0, false);
        Self { id, offset, more }
    }
}

fn frame([from, to]: [[u8; 6]; 2], v6: bool, packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&to[..], &from, &ethertype, packet].concat()
}

/// An IP packet, or a piece of one.
fn packet(
    [source, destination]: [IpAddr; 2],
    protocol: u8,
    piece: Option<Piece>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = u16::try_from(payload.len())?;
            let (source, destination) = (source.octets(), destination.octets());
            let mut header = Ipv4Header::new(len, 64, IpNumber(protocol), source, destination)?;
            if let Some(Piece { id, offset, more }) = piece {
                header.identification = id;
                (header.dont_fragment, header.more_fragments) = (false, more);
                header.fragment_offset = offset.try_into()?;
            }
            header.write(&mut packet)?;
            packet.extend(payload);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (mut next, mut payload) = (protocol, payload.to_vec());
            if let Some(Piece { id, offset, more }) = piece {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [id_high, id_low] = id.to_be_bytes();
                let header = [protocol, 0, high, low, 0, 0, id_high, id_low];
                (next, payload) = (FRAGMENT_V6, [&header[..], &payload].concat());
            }
            let header = Ipv6Header {
                payload_length: u16::try_from(payload.len())?,
                next_header: IpNumber(next),
                source: source.octets(),
                destination: destination.octets(),
                hop_limit: 64,
                ..Ipv6Header::default()
            };
            header.write(&mut packet)?;
            packet.extend(payload);
        }
        _ => return Err("of two families".into()),
    }
    Ok(packet)
}

/// ICMP of this type and code, quoting a packet.
fn error(
    [source, destination]: [IpAddr; 2],
    [kind, code]: [u8; 2],
    quoted: &[u8],
) -> Result<Vec<u8>> {
    // An MTU where there is one; a pointer to the first byte where there is that.
    let rest = match (kind, code) {
        (3, 4) | (2, 0) => [0, 0, 5, 0x78],
        _ => [0; 4],
    };
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
                .icmpv4_raw(kind, code, rest)
                .write(&mut packet, quoted)?;
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
                .icmpv6_raw(kind, code, rest)
                .write(&mut packet, quoted)?;
        }
        _ => return Err("of two families".into()),
    }
    Ok(packet)
}

/// A datagram's header and payload.
fn udp(
    [source, destination]: [IpAddr; 2],
    [from, to]: [u16; 2],
    payload: &[u8],
) -> Result<Vec<u8>> {
    let header = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            UdpHeader::with_ipv4_checksum(
                from,
                to,
                &Ipv4Header::new(0, 64, IpNumber(UDP), source, destination)?,
                payload,
            )?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                next_header: IpNumber(UDP),
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            UdpHeader::with_ipv6_checksum(from, to, &header, payload)?
        }
        _ => return Err("of two families".into()),
    };
    Ok([&header.to_bytes()[..], payload].concat())
}

/// The header of a segment that is under way.
fn tcp(from: u16, to: u16) -> Vec<u8> {
    let mut header = TcpHeader::new(from, to, 1, 1000);
    header.ack = true;
    header.to_bytes().to_vec()
}
