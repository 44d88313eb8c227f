//! A kernel peer on the same machine: over veth its device sends what no card has finished or cut, super-frames encapsulated whole.

use etherparse::PacketBuilder;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::super::Case;
use super::offload::{
    MORE_THAN_QUEUED, UDP_GRO_OFF, bursts, containers, payload_max, streams_cross, super_bursts,
    tcp_to_tap,
};
use crate::support::Kind::{Kernel, Silk};
use crate::support::{
    Connection, Datagrams, Lab, Plan, Result, Sniffer, Stats, Wait, ensure, vtep_mac, wait_until,
};

/// Headers before the payload of a datagram inside: VXLAN, Ethernet, IPv4, UDP.
const HEADERS_BYTES: usize = 8 + 14 + 20 + 8;

/// Enough for many super-frames, and few enough for a sniffer to keep.
const STREAM_BYTES: usize = 1_000_000;

/// A wire that cuts what it carries to its MTU and leaves checksums as they are.
const MTU_WIRE: &str = "ethtool -K eth0 tso off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off \
                        tx-udp-segmentation off gro on";

pub(crate) fn cases() -> Vec<Case> {
    let plan = Plan::of(&[Silk, Kernel]);
    let mut cases = over("v4", &plan);
    cases.extend(over("v6", &plan.v6()));
    cases
}

fn over(family: &str, plan: &Plan) -> Vec<Case> {
    let case = |name: &str, plan: &Plan, body: fn(&mut Lab) -> Result| {
        Case::new(format!("kernel_peer::{name}_{family}"), plan.clone(), body)
    };
    let gro_off = plan.clone().vtep_lines(UDP_GRO_OFF.lines);
    vec![
        case("streams_and_datagrams_cross", plan, all_cross),
        case(
            "udp_super_frames_arrive_without_gro",
            &gro_off,
            super_frames_arrive,
        ),
        case("udp_super_frames_arrive", plan, super_frames_arrive),
        case("payload_is_no_packet", plan, payload_is_no_packet),
        case(
            "tcp_is_read_after_the_queue_overflowed",
            plan,
            tcp_after_overflow,
        ),
        case(
            "segments_with_partial_checksums_are_merged",
            plan,
            partial_segments_are_merged,
        ),
    ]
}

fn all_cross(lab: &mut Lab) -> Result {
    let [silk, kernel] = containers(lab)?;
    streams_cross([silk, kernel])?;
    let max = payload_max(lab, silk)?;
    let mut there = Datagrams::between(silk, kernel)?;
    super_bursts(&mut there, max)?;
    bursts(&mut there, max)?;
    bursts(&mut Datagrams::between(kernel, silk)?, max)?;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    ensure!(
        stats.partial_checksums()? > 0,
        "no partial checksum was counted: {stats:?}"
    );
    Ok(())
}

/// What the peer's device cuts to the wire's MTU, each segment with the pseudo-header's sum alone, reaches the host in super-frames.
fn partial_segments_are_merged(lab: &mut Lab) -> Result {
    for cell in &lab.cells {
        cell.host.exec(MTU_WIRE)?;
    }
    let sniffer = Sniffer::start(&lab.cells[0].host)?;
    let [silk, kernel] = containers(lab)?;
    Connection::between(kernel, silk, 0)?.upload(STREAM_BYTES)?;
    let merged = tcp_to_tap(&sniffer, lab)?;
    let segments = (STREAM_BYTES / lab.cells[0].mtu()? as usize) as u64;
    let stats = Stats::read(lab.cells[0].daemon()?)?;
    let partial = stats.partial_checksums()?;
    ensure!(
        partial >= segments,
        "{partial} of at least {segments} segments were counted as partial: {stats:?}"
    );
    let delivered = stats.peers()?[0].1;
    ensure!(
        partial <= delivered,
        "{partial} partial checksums of {delivered} frames"
    );
    ensure!(merged > 0, "no super-frame went to the TAP: {stats:?}");
    Ok(())
}

/// They come encapsulated once and whole, with the segment size of what is inside.
fn super_frames_arrive(lab: &mut Lab) -> Result {
    let [silk, kernel] = containers(lab)?;
    super_bursts(
        &mut Datagrams::between(kernel, silk)?,
        payload_max(lab, silk)?,
    )
}

/// Of what a kernel peer's container sends in one piece, every byte is that container's payload, whatever it looks like.
fn payload_is_no_packet(lab: &mut Lab) -> Result {
    const SEGMENT_BYTES: usize = 200;
    let [silk, kernel] = containers(lab)?;
    let (to, from) = (silk.udp()?, kernel.udp()?);
    from.connect(to.local_addr()?)?;
    let forged = forged_datagram(lab, to.local_addr()?.port())?;
    let mut payload = vec![0; 4 * SEGMENT_BYTES];
    // Where a second datagram would begin if the segment size were the outer one's.
    payload[SEGMENT_BYTES - HEADERS_BYTES..][..forged.len()].copy_from_slice(&forged);
    setsockopt(&from, sockopt::UdpGsoSegment, &SEGMENT_BYTES.try_into()?)?;
    from.send(&payload)?;
    setsockopt(&from, sockopt::UdpGsoSegment, &0)?;
    from.send(b"last")?;
    let mut buffer = [0; 2048];
    loop {
        let (len, sender) = to.recv_from(&mut buffer)?;
        ensure!(
            sender == from.local_addr()?,
            "payload became a packet of {sender}"
        );
        if &buffer[..len] == b"last" {
            return Ok(());
        }
    }
}

/// Once a socket has dropped something, the kernel must not be asked to tell it with each datagram: of TCP that its own device has
/// encapsulated it cannot (`sys::udp::dropped`), and ends the thread that asked.
fn tcp_after_overflow(lab: &mut Lab) -> Result {
    lab.cells[0].daemon()?.process()?.signal(Signal::SIGSTOP)?;
    let [silk, kernel] = containers(lab)?;
    let (from, to) = (kernel.udp()?, silk.udp()?);
    from.connect(to.local_addr()?)?;
    for _ in 0..MORE_THAN_QUEUED {
        from.send(&[7; 1400])?;
    }
    let daemon = lab.cells[0].daemon()?;
    daemon.process()?.signal(Signal::SIGCONT)?;
    wait_until("what was lost is counted", || {
        let stats = Stats::read(daemon)?;
        match stats.dropped("receive-queue-full") {
            0 => Ok(Wait::NotYet(format!("{stats:?}"))),
            _ => Ok(Wait::Done),
        }
    })?;
    let [silk, kernel] = containers(lab)?;
    // More connections than one, so that every lane reads of them.
    for _ in 0..4 {
        streams_cross([silk, kernel])?;
    }
    Ok(())
}

/// What the second cell would send for a container of its own that is not there.
fn forged_datagram(lab: &Lab, port: u16) -> Result<Vec<u8>> {
    let [here, there] = [0, 1].map(|cell| lab.cells[cell].site);
    let [a, b, c, d] = there.container.octets();
    let absent = [a, b, c, d + 1];
    let mut datagram = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    PacketBuilder::ethernet2(vtep_mac(there.vtep), vtep_mac(here.vtep))
        .ipv4(absent, here.container.octets(), 64)
        .udp(4000, port)
        .write(&mut datagram, b"forged")?;
    Ok(datagram)
}
