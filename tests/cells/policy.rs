//! Group policy enforced by the daemon, on hosts without a rule of their own.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use etherparse::{Icmpv4Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use serde_json::{Value, json};

use super::super::Case;
use super::lanes;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Cell, Connection, EchoServer, End, Injector, Lab, Plan, Result, Stats, VTEP_NAME, Wait, ensure,
    ping, receive_one, vtep_mac, wait_until,
};

const ENFORCED: &str = "[policy]\nenforce = true\n";
/// So that all refusals are counted and none is answered.
const SILENT: &str = "[policy]\nenforce = true\nreject = false\n";

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, plan: Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("policy::{name}"), plan, body)
    };
    let pair = || Plan::of(&[Silk, Silk]).group(3).vtep_lines(ENFORCED);
    vec![
        case("a_rule_lets_a_group_in_and_no_other", pair(), rules_hold),
        case(
            "a_rule_lets_a_group_in_over_an_mtu_sized_wire",
            pair().without_offloads(),
            rules_hold,
        ),
        case(
            "replies_are_let_in_whatever_lane_they_come_on",
            pair().lanes(4),
            replies_cross_lanes,
        ),
        case(
            "icmp_errors_are_let_in_about_own_flows_alone",
            Plan::of(&[Silk, Silk]).group(3).vtep_lines(SILENT),
            errors_about_own_flows,
        ),
        case(
            "fragments_follow_their_first",
            pair(),
            fragments_follow_their_first,
        ),
        case("ipv6_is_judged_alike", pair().overlay_v6(), ipv6),
        case("rules_change_live", pair(), live_changes),
        case("a_reload_turns_it_on_and_off", pair(), reloads),
        case("what_is_wrong_is_told", pair(), bad_input),
        case(
            "a_kernel_peer_is_heard_by_its_marks",
            Plan::of(&[Kernel, Silk]).iptables().vtep_lines(ENFORCED),
            |lab| kernel_peer(lab, marked_by_iptables),
        ),
        case(
            "a_kernel_peer_is_heard_by_its_marks_of_nftables",
            Plan::of(&[Kernel, Silk]).nftables().vtep_lines(ENFORCED),
            |lab| kernel_peer(lab, marked_by_nftables),
        ),
        case(
            "a_restart_keeps_rules_and_takes_flows_up_again",
            pair(),
            restart,
        ),
    ]
}

/// Runs `policy ...` on a cell's daemon.
fn policy(cell: &mut Cell, words: &str) -> Result<String> {
    cell.daemon()?.ctl(&format!("policy {words}"))
}

/// A rule for a cell's container.
fn admit(cell: &mut Cell, words: &str) -> Result {
    let to = cell.site.container;
    policy(cell, &format!("add {to} {words}")).map(drop)
}

/// How a connection from one end to another ends; `None`: it is there.
fn connect(from: End<'_>, to: End<'_>) -> Result<Option<ErrorKind>> {
    let listener = to
        .namespace
        .run(|| Ok(TcpListener::bind((to.address, 0))?))?;
    let address: SocketAddr = listener.local_addr()?;
    let connected = from
        .namespace
        .run(|| Ok(TcpStream::connect(address).map(drop)))?;
    Ok(connected.err().map(|error| error.kind()))
}

/// A connection of the first container to the second is rejected.
fn is_rejected(lab: &Lab, what: &str) -> Result {
    let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
    let ended = connect(client.end(), server.end())?;
    ensure!(
        ended == Some(ErrorKind::ConnectionRefused),
        "{what}: a connection ended with {ended:?}"
    );
    Ok(())
}

fn rules_hold(lab: &mut Lab) -> Result {
    is_rejected(lab, "without a rule")?;
    is_rejected(lab, "without a rule")?;
    let from = lab.cells[0].site.container;
    let to = lab.cells[1].site.container;
    let denied: Value = serde_json::from_str(&policy(&mut lab.cells[1], "denied -j")?)?;
    let row = &denied["rows"][0];
    ensure!(
        row["dst"] == json!(to)
            && row["group"] == json!(3)
            && row["src"] == json!(from)
            && row["proto"] == json!("tcp")
            && row["packets"].as_u64() >= Some(2),
        "{denied}"
    );
    let said = lab.cells[1].daemon()?.stderr();
    let line = format!("policy-denied: group 0x0003 {from} to {to} tcp ports ");
    ensure!(said.contains(&line), "{said}");
    admit(&mut lab.cells[1], "group 3 proto tcp ports 1024-65535")?;
    {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        let connection = Connection::open(client, server)?;
        connection.upload(2_000_000)?;
        connection.download(2_000_000)?;
        // The other way round nobody has a rule.
        let ended = connect(server.end(), client.end())?;
        ensure!(ended == Some(ErrorKind::ConnectionRefused), "{ended:?}");
    }
    lab.cells[0]
        .daemon()?
        .ctl(&format!("group replace {from} id 4"))?;
    is_rejected(lab, "another group")?;
    lab.cells[0].daemon()?.ctl(&format!("group del {from}"))?;
    is_rejected(lab, "no group")?;
    lab.cells[0]
        .daemon()?
        .ctl(&format!("group add {from} id 3"))?;
    udp_and_icmp(lab)
}

/// UDP and ICMP have rules of their own.
fn udp_and_icmp(lab: &mut Lab) -> Result {
    let echo = EchoServer::start(lab.cells[1].container()?)?;
    let client = lab.cells[0].container()?.udp()?;
    client.connect(echo.address)?;
    let asked = ask(&client);
    ensure!(
        asked.as_ref().err().map(std::io::Error::kind) == Some(ErrorKind::ConnectionRefused),
        "UDP without a rule: {asked:?}"
    );
    let port = echo.address.port();
    admit(
        &mut lab.cells[1],
        &format!("group 3 proto udp ports {port}"),
    )?;
    ask(&client)?;
    let to = lab.cells[1].site.container;
    let pinged = lab.cells[0]
        .container()?
        .namespace
        .exec(&format!("ping -n -c 1 -w 5 {to}"));
    let said = pinged.unwrap_or_else(|error| error.to_string());
    ensure!(
        said.contains("Destination Port Unreachable"),
        "a ping without a rule: {said}"
    );
    admit(&mut lab.cells[1], "group 3 proto icmp")?;
    ping(&lab.cells[0].container()?.namespace, to, 5, "")
}

/// One request and its answer.
fn ask(socket: &UdpSocket) -> std::io::Result<usize> {
    socket.send(b"request")?;
    receive_one(socket, &mut [0; 16])
}

fn replies_cross_lanes(lab: &mut Lab) -> Result {
    admit(&mut lab.cells[1], "group 3 proto udp")?;
    lanes::flows_stay_on_their_lanes(lab)?;
    let stats = lab.cells[0].daemon()?.request(&json!("stats"))?;
    ensure!(
        stats["flows"]["established"].as_u64() >= Some(64),
        "{}",
        stats["flows"]
    );
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(stats.dropped("policy-denied") == 0, "{stats:?}");
    Ok(())
}

fn errors_about_own_flows(lab: &mut Lab) -> Result {
    admit(&mut lab.cells[1], "group 3 proto udp")?;
    // Nobody listens there: the container's own kernel says so.
    let closed = {
        let socket = lab.cells[1].container()?.udp()?;
        socket.local_addr()?
    };
    let client = lab.cells[0].container()?.udp()?;
    client.connect(closed)?;
    let asked = ask(&client);
    ensure!(
        asked.as_ref().err().map(std::io::Error::kind) == Some(ErrorKind::ConnectionRefused),
        "a closed port: {asked:?}"
    );
    let before = Stats::read(lab.cells[0].daemon()?)?.dropped("policy-denied");
    ensure!(before == 0, "policy-denied {before}");
    // One that quotes what was never sent, or was sent by somebody else.
    let injector = Injector::new(&lab.cells[1].host, VTEP_NAME)?;
    let ours = client.local_addr()?.port();
    for (quoted_source, port) in [
        (lab.cells[0].site.container, ours ^ 1),
        (lab.cells[0].site.vtep, ours),
    ] {
        let frame = port_unreachable(lab, quoted_source.octets(), (port, closed.port()))?;
        injector.send(&frame)?;
    }
    let daemon = lab.cells[0].daemon()?;
    wait_until("errors about foreign flows were refused", || {
        let refused = Stats::read(daemon)?.dropped("policy-denied");
        Ok(Wait::unless(refused == 2, || format!("{refused}")))
    })?;
    // And one that quotes what was: the client hears of it once more.
    let frame = port_unreachable(
        lab,
        lab.cells[0].site.container.octets(),
        (ours, closed.port()),
    )?;
    injector.send(&frame)?;
    let heard = receive_one(&client, &mut [0; 16]).map_err(|error| error.kind());
    ensure!(heard == Err(ErrorKind::ConnectionRefused), "{heard:?}");
    Ok(())
}

/// What the host of the second cell sends to the first container: that nobody listens at a port of its own container.
fn port_unreachable(lab: &Lab, quoted_source: [u8; 4], ports: (u16, u16)) -> Result<Vec<u8>> {
    let [here, there] = [lab.cells[1].site, lab.cells[0].site];
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(quoted_source, here.container.octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut quoted, b"request")?;
    let mut frame = Vec::new();
    let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    PacketBuilder::ethernet2(vtep_mac(here.vtep), vtep_mac(here.vtep))
        .ipv4(here.container.octets(), there.container.octets(), 64)
        .icmpv4(kind)
        .write(&mut frame, &quoted)?;
    Ok(frame)
}

/// Datagrams that the container's own kernel cuts, both ways.
fn fragments_follow_their_first(lab: &mut Lab) -> Result {
    const DATAGRAM_BYTES: usize = 9_000;
    let server = lab.cells[1].container()?.udp()?;
    let client = lab.cells[0].container()?.udp()?;
    client.connect(server.local_addr()?)?;
    let port = server.local_addr()?.port();
    client.send(&[1; DATAGRAM_BYTES])?;
    let daemon = lab.cells[1].daemon()?;
    wait_until("every fragment was refused", || {
        let refused = Stats::read(daemon)?.dropped("policy-denied");
        Ok(Wait::unless(refused >= 7, || format!("{refused}")))
    })?;
    admit(
        &mut lab.cells[1],
        &format!("group 3 proto udp ports {port}"),
    )?;
    // What was told of the first is not this one's fault.
    let _ = client.take_error();
    let mut received = vec![0; DATAGRAM_BYTES + 1];
    for n in 0..10 {
        client.send(&[n; DATAGRAM_BYTES])?;
        let (len, from) = server.recv_from(&mut received)?;
        ensure!(
            received[..len] == [n; DATAGRAM_BYTES],
            "datagram {n}: {len} bytes arrived"
        );
        server.send_to(&received[..len], from)?;
        let len = receive_one(&client, &mut received)?;
        ensure!(len == DATAGRAM_BYTES, "reply {n}: {len} bytes");
    }
    Ok(())
}

fn ipv6(lab: &mut Lab) -> Result {
    let [a, b] = [lab.cells[0].site.vtep_v6(), lab.cells[1].site.vtep_v6()];
    lab.cells[0].daemon()?.ctl(&format!("group add {a} id 3"))?;
    let between = |lab: &Lab| connect(lab.cells[0].end_v6(), lab.cells[1].end_v6());
    let ended = between(lab)?;
    ensure!(
        ended == Some(ErrorKind::ConnectionRefused),
        "without a rule: {ended:?}"
    );
    let subnet = lab.cells[1].site.subnet_v6();
    policy(
        &mut lab.cells[1],
        &format!("add {subnet} group 3 proto tcp"),
    )?;
    Connection::between(lab.cells[0].end_v6(), lab.cells[1].end_v6(), 6)?.upload(500_000)?;
    let pinged = lab.cells[0].host.exec(&format!("ping -n -c 1 -w 2 {b}"));
    ensure!(pinged.is_err(), "a ping without a rule: {pinged:?}");
    policy(&mut lab.cells[1], &format!("add {b} group 3 proto icmp"))?;
    // Fragments too: what does not fit is cut by its sender.
    ping(&lab.cells[0].host, b, 5, "-s 4000")
}

fn live_changes(lab: &mut Lab) -> Result {
    let to = lab.cells[1].site.container;
    admit(&mut lab.cells[1], "group 3 proto tcp")?;
    let connection = {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Connection::open(client, server)?
    };
    connection.upload(100_000)?;
    connection.download(100_000)?;
    policy(&mut lab.cells[1], &format!("del {to} group 3 proto tcp"))?;
    is_rejected(lab, "the rule was taken away")?;
    // What began may go on, as with connection tracking.
    connection.upload(100_000)?;
    connection.download(100_000)?;
    // The longest prefix decides, and a denial before an acceptance.
    let subnet = lab.cells[1].site.subnet();
    policy(
        &mut lab.cells[1],
        &format!("add {subnet} group 3 proto tcp"),
    )?;
    {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Connection::open(client, server)?.upload(1_000)?;
    }
    admit(&mut lab.cells[1], "group 3 proto tcp action deny")?;
    is_rejected(lab, "a denial of a longer prefix")?;
    let shown = policy(&mut lab.cells[1], "show")?;
    let lines: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = format!("{to} group 0x0003 proto tcp action deny live");
    ensure!(
        lines.len() == 2 && lines[1].join(" ") == expected,
        "{shown}"
    );
    // What is shown may be given back.
    policy(&mut lab.cells[1], &format!("del {expected}"))?;
    let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
    Connection::open(client, server)?.upload(1_000)
}

fn reloads(lab: &mut Lab) -> Result {
    let is_open = |lab: &Lab| -> Result<bool> {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Ok(connect(client.end(), server.end())?.is_none())
    };
    ensure!(!is_open(lab)?, "it is enforced");
    let to = lab.cells[1].site.container;
    let rule = format!("[[policy.rule]]\ndst = \"{to}\"\ngroup = 3\nproto = \"tcp\"\n");
    let config = lab.cells[1].daemon()?.config()?;
    for (text, expected) in [
        (config.replace("enforce = true", "enforce = false"), true),
        (config.clone(), false),
        (config.clone() + &rule, true),
        (
            config.replace("enforce = true", "enforce = true\ndefault = \"allow\""),
            true,
        ),
        (config, false),
    ] {
        let daemon = lab.cells[1].daemon()?;
        daemon.write_config(&text)?;
        daemon.ctl("reload")?;
        ensure!(is_open(lab)? == expected, "with\n{text}");
    }
    Ok(())
}

fn bad_input(lab: &mut Lab) -> Result {
    let to = lab.cells[1].site.container;
    for (words, told) in [
        (
            "group 0 proto tcp",
            "`group` takes a group id of 0x0001 to 0xffff, not `0`",
        ),
        (
            "group 65536 proto tcp",
            "`group` takes a group id of 0x0001 to 0xffff",
        ),
        (
            "group 3 proto tcp ports 90-80",
            "`90-80` is reversed (accepted: 80-90)",
        ),
        ("group 3 proto icmp ports 80", "icmp has no ports"),
        ("group 3 ports 80", "`proto` is wanted"),
        ("group 3 proto sctp", "`proto` takes tcp, udp or icmp"),
    ] {
        let refused = admit(&mut lab.cells[1], words);
        let said = refused
            .err()
            .map_or_else(String::new, |error| error.to_string());
        ensure!(said.contains(told), "{words}: {said}");
    }
    let refused = policy(&mut lab.cells[1], "add 192.0.2.1 group 3 proto tcp");
    let said = refused
        .err()
        .map_or_else(String::new, |error| error.to_string());
    ensure!(said.contains("has no address of an overlay"), "{said}");
    // Of no container yet, and of no container here at all: taken, and the latter told.
    admit(&mut lab.cells[1], "group 3 proto tcp ports 80")?;
    let elsewhere = lab.cells[0].site.container;
    let add = json!({"change": [{"add": {"policy": {"dst": format!("{elsewhere}/32"), "group": 3, "proto": "tcp"}}}]});
    let applied = lab.cells[1].daemon()?.request(&add)?;
    ensure!(
        applied["warnings"]
            .to_string()
            .contains("for no address of this cell"),
        "{applied}"
    );
    let refused = policy(
        &mut lab.cells[1],
        &format!("add {to} group 3 proto tcp ports 80"),
    );
    let said = refused
        .err()
        .map_or_else(String::new, |error| error.to_string());
    ensure!(said.contains("exists already (live)"), "{said}");
    let link = lab.cells[1].daemon()?.ctl("link show")?;
    ensure!(link.contains("    policy default deny reject\n"), "{link}");
    Ok(())
}

fn marked_by_iptables(cell: &Cell, mark: &str) -> Result {
    let from = cell.site.container;
    cell.host.exec("iptables -w -t mangle -F FORWARD")?;
    cell.host.exec(&format!(
        "iptables -w -t mangle -A FORWARD -s {from} -j MARK --set-xmark {mark}"
    ))?;
    Ok(())
}

fn marked_by_nftables(cell: &Cell, mark: &str) -> Result {
    let from = cell.site.container;
    for words in [
        "add table ip silk".to_owned(),
        "add chain ip silk forward { type filter hook forward priority mangle ; }".to_owned(),
        "flush chain ip silk forward".to_owned(),
        format!("add rule ip silk forward ip saddr {from} meta mark set {mark}"),
    ] {
        cell.host.exec(&format!("nft {words}"))?;
    }
    Ok(())
}

fn kernel_peer(lab: &mut Lab, marked_by: fn(&Cell, &str) -> Result) -> Result {
    let mark = |lab: &Lab, mark: &str| marked_by(&lab.cells[0], mark);
    admit(&mut lab.cells[1], "group 3 proto tcp")?;
    is_rejected(lab, "without a mark")?;
    // The A and D bits do not change who speaks.
    for accepted in ["0x3", "0x80003", "0x400003"] {
        mark(lab, accepted)?;
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        let connection = Connection::open(client, server)?;
        connection.upload(3_000_000)?;
        connection.download(3_000_000)?;
    }
    for refused in ["0x4", "0xffff0000", "0x80004"] {
        mark(lab, refused)?;
        is_rejected(lab, refused)?;
    }
    let config = lab.cells[1].daemon()?.config()?;
    for (line, mark_of, other) in [
        ("router_mark = 0xffff0000", "0xffff0000", "0xffff0004"),
        ("honour_applied = true", "0x80004", "0x4"),
    ] {
        let daemon = lab.cells[1].daemon()?;
        let line = format!("enforce = true\n{line}");
        daemon.write_config(&config.replace("enforce = true", &line))?;
        daemon.ctl("reload")?;
        mark(lab, mark_of)?;
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Connection::open(client, server)?.upload(1_000)?;
        mark(lab, other)?;
        // What 0xffff0004 makes of a header has the A bit too.
        is_rejected(lab, other)?;
    }
    // The other way round the kernel device asks nobody, and its answers are let in.
    let [client, server] = [lab.cells[1].container()?, lab.cells[0].container()?];
    ping(&client.namespace, IpAddr::from(server.address), 5, "")?;
    Connection::open(client, server)?.download(3_000_000)
}

fn restart(lab: &mut Lab) -> Result {
    admit(&mut lab.cells[1], "group 3 proto tcp")?;
    let connection = {
        let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
        Connection::open(client, server)?
    };
    connection.upload(100_000)?;
    for cell in [0, 1] {
        let daemon = lab.cells[cell].daemon()?;
        daemon.kill9()?;
        daemon.start()?;
        // Our side speaks, and is answered.
        connection.upload(100_000)?;
        connection.download(100_000)?;
    }
    let [client, server] = [lab.cells[0].container()?, lab.cells[1].container()?];
    Connection::open(client, server)?.upload(1_000)?;
    let ended = connect(server.end(), client.end())?;
    ensure!(ended == Some(ErrorKind::ConnectionRefused), "{ended:?}");
    Ok(())
}
