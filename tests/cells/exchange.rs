//! Containers of two cells reach each other: pings, TCP both ways, frames that fill the underlay's MTU.

use std::fs;
use std::time::Duration;

use super::super::Case;
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Connection, EchoServer, Kind, Lab, Namespace, Noise, NumberedStream, Plan, Result, ensure, ping,
};

/// Bytes of each long transfer.
const TRANSFER_BYTES: usize = 20_000_000;
/// Bytes the other way on the same connection.
const BACK_BYTES: usize = 2_000_000;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("kernel_to_kernel_v4", Plan::of(&[Kernel, Kernel])),
        case("kernel_to_kernel_v6", Plan::of(&[Kernel, Kernel]).v6()),
        case("silk_to_kernel_v4", Plan::of(&[Silk, Kernel])),
        case("silk_to_kernel_v6", Plan::of(&[Silk, Kernel]).v6()),
        case(
            "silk_to_kernel_two_lanes",
            Plan::of(&[Silk, Kernel]).lanes(2),
        ),
        case(
            "silk_to_kernel_without_offloads",
            Plan::of(&[Silk, Kernel]).without_offloads(),
        ),
        case(
            "silk_to_silk_without_offloads",
            Plan::of(&[Silk, Silk]).without_offloads(),
        ),
    ];
    for lanes in [1, 2] {
        let plan = Plan::of(&[Silk, Silk]).lanes(lanes);
        cases.push(case(
            &format!("silk_to_silk_v4_lanes_{lanes}"),
            plan.clone(),
        ));
        cases.push(case(&format!("silk_to_silk_v6_lanes_{lanes}"), plan.v6()));
    }
    for kind in [Kernel, Silk] {
        let name = format!("exchange::udp_answers_and_streams_{kind:?}").to_lowercase();
        cases.push(Case::new(
            name,
            Plan::of(&[kind, kind]),
            udp_answers_and_streams,
        ));
    }
    for kinds in [[Kernel, Kernel], [Silk, Kernel], [Silk, Silk]] {
        cases.push(full_size_case(kinds, "v4", Plan::of(&kinds)));
        cases.push(full_size_case(kinds, "v6", Plan::of(&kinds).v6()));
    }
    cases
}

fn case(name: &str, plan: Plan) -> Case {
    Case::new(format!("exchange::{name}"), plan, pings_and_tcp_cross)
}

fn full_size_case([a, b]: [Kind; 2], family: &str, plan: Plan) -> Case {
    let name = format!("exchange::full_size_frames_{a:?}_to_{b:?}_{family}").to_lowercase();
    Case::new(name, plan, full_size_frames_cross_whole)
}

fn pings_and_tcp_cross(lab: &mut Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    for (client, server) in [(a, b), (b, a)] {
        ping(&client.namespace, server.address, 20, "")?;
        let connection = Connection::open(client, server)?;
        connection.upload(TRANSFER_BYTES)?;
        connection.download(BACK_BYTES)?;
    }
    Ok(())
}

fn udp_answers_and_streams(lab: &mut Lab) -> Result {
    let (a, b) = (lab.cells[0].container()?, lab.cells[1].container()?);
    let echo = EchoServer::start(b)?;
    let socket = a.udp()?;
    for len in [0, 1, 17, 1400] {
        let (request, mut answer) = (Noise::new(7).bytes(len), [0; 2048]);
        socket.send_to(&request, echo.address)?;
        let received = socket
            .recv(&mut answer)
            .map_err(|error| format!("no answer to {len} bytes: {error}"))?;
        ensure!(
            answer[..received] == request,
            "another answer to {len} bytes"
        );
    }
    NumberedStream::start(b, a, 500, Duration::from_millis(1))?.finish()
}

/// The tightest fit: the MTU that follows from the underlay's, filled to the last byte, and DF inside so that nobody hides a mistake.
fn full_size_frames_cross_whole(lab: &mut Lab) -> Result {
    let before = fragments_made(lab)?;
    let (a, b) = (&lab.cells[0], &lab.cells[1]);
    for (from, to) in [(a, b), (b, a)] {
        // 20 bytes of IPv4 header and 8 of ICMP.
        let payload = from.mtu()? - 28;
        let (from, to) = (from.container()?, to.container()?);
        ping(
            &from.namespace,
            to.address,
            20,
            &format!("-M do -s {payload}"),
        )?;
    }
    let after = fragments_made(lab)?;
    ensure!(
        before == after,
        "the cells made fragments: {before:?}, then {after:?}"
    );
    Ok(())
}

/// FragCreates of IPv4 and of IPv6, cell by cell.
fn fragments_made(lab: &Lab) -> Result<Vec<(u64, u64)>> {
    lab.cells
        .iter()
        .map(|cell| Ok((ipv4_fragments(&cell.host)?, ipv6_fragments(&cell.host)?)))
        .collect()
}

/// /proc/net/snmp has a line of names and a line of values for each protocol.
fn ipv4_fragments(host: &Namespace) -> Result<u64> {
    let text = host.run(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut lines = text
        .lines()
        .filter(|line| line.starts_with("Ip: "))
        .map(str::split_whitespace);
    let (names, values) = lines.next().zip(lines.next()).ok_or("no Ip lines")?;
    let value = names
        .zip(values)
        .find(|(name, _)| *name == "FragCreates")
        .ok_or("no FragCreates")?
        .1;
    Ok(value.parse()?)
}

fn ipv6_fragments(host: &Namespace) -> Result<u64> {
    let text = host.run(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp6")?))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Ip6FragCreates"))
        .ok_or("no Ip6FragCreates")?;
    Ok(line.trim().parse()?)
}
