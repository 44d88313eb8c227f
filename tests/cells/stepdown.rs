//! Offloads that go away while they are in use: the daemon steps down and loses nothing.
//!
//! What refuses a TAP's super-frames on a kernel that took one at the start has not been found; `tests/lanes` has that case in memory.

use std::fs;
use std::thread;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::{Value, json};
use silk_vtep::sys;
use socket2::Socket;

use super::super::Case;
use super::offload::{containers, features, payload_max, streams_cross, super_bursts};
use crate::support::Kind::Silk;
use crate::support::{Connection, Daemon, Datagrams, Lab, Plan, Result, ensure};

/// Where the daemon receives.
const VXLAN_PORT: u16 = 4789;
/// Long enough for the card to change in the middle.
const STREAM_BYTES: usize = 20_000_000;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, body: fn(&mut Lab) -> Result| {
        Case::new(format!("stepdown::{name}"), Plan::of(&[Silk, Silk]), body)
    };
    vec![
        case(
            "runs_that_the_kernel_refuses_are_sent_one_by_one",
            refused_runs_arrive,
        ),
        case(
            "a_card_that_stops_segmenting_costs_nothing",
            card_stops_segmenting,
        ),
    ]
}

/// The kernel segments nothing for a socket that sends without checksums: EINVAL (`udp_send_skb`).
fn refused_runs_arrive(lab: &mut Lab) -> Result {
    let mut before = features(lab.cells[0].daemon()?)?;
    send_super_bursts(lab)?;
    ensure!(!refuses_peer(lab)?, "refused before it was");
    refuse_segmentation(lab.cells[0].daemon()?)?;
    send_super_bursts(lab)?;
    // Of one peer alone, and not for good: nothing is said of others.
    before["offload-refusals"] = json!("1");
    let after = features(lab.cells[0].daemon()?)?;
    ensure!(after == before, "shows {after}, expected {before}");
    ensure!(refuses_peer(lab)?, "`stats` does not tell");
    streams_cross(containers(lab)?)
}

/// Whether the first cell sends runs to the second one by one.
fn refuses_peer(lab: &mut Lab) -> Result<bool> {
    let stats: Value = serde_json::from_str(&lab.cells[0].daemon()?.ctl("stats -j")?)?;
    let refused = stats["peers"][0]["udp_gso_refused"].as_bool();
    Ok(refused.ok_or_else(|| format!("not told: {stats}"))?)
}

fn send_super_bursts(lab: &Lab) -> Result {
    let [a, b] = containers(lab)?;
    super_bursts(&mut Datagrams::between(a, b)?, payload_max(lab, a)?)
}

/// As if the kernel had changed its mind about every socket that `daemon` sends on.
fn refuse_segmentation(daemon: &mut Daemon) -> Result {
    let pid = i32::try_from(daemon.process()?.pid())?;
    let process = Pid::from_raw(pid).ok_or("a process has a number")?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let mut senders = 0;
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = descriptor?.path();
        if !fs::read_link(&path)?
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(b"socket:")
        {
            continue;
        }
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let number = number.ok_or("descriptors are numbers")?;
        let socket = Socket::from(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?);
        if is_sender(&socket) {
            sys::udp::set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
            senders += 1;
        }
    }
    ensure!(senders > 0, "the daemon has no sending socket");
    Ok(())
}

/// The others are Unix sockets, netlink, and the one on the VXLAN port.
fn is_sender(socket: &Socket) -> bool {
    let address = socket.local_addr().ok();
    let address = address.and_then(|address| address.as_socket());
    address.is_some_and(|address| address.port() != VXLAN_PORT)
}

/// The kernel segments then, since Linux 6.11; before, it refuses.
fn card_stops_segmenting(lab: &mut Lab) -> Result {
    let [a, b] = containers(lab)?;
    let connection = Connection::between(a, b, 0)?;
    thread::scope(|scope| -> Result {
        let upload = scope.spawn(|| connection.upload(STREAM_BYTES));
        for cell in &lab.cells {
            cell.host.exec("ethtool -K eth0 tx off")?;
        }
        upload.join().map_err(|_| "the stream panicked")?
    })?;
    send_super_bursts(lab)
}
