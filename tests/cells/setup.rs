//! Set-ups that cannot work: one line that says operation, object, cause and mend, and nothing left behind.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use socket2::{Domain, SockAddr, Socket, Type};

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{Cell, Daemon, Ended, Lab, Plan, Result, Snapshot, VTEP_NAME, ensure, ping};

/// A hurdle, and what the daemon must say about it.
struct Hurdle {
    name: &'static str,
    lanes: usize,
    /// Puts it up; what is returned keeps it standing.
    raise: fn(&Cell) -> Result<Box<dyn Any>>,
    /// Words before the daemon's command line.
    prefix: &'static [&'static str],
    /// All of these are in the line, in any case of letters.
    says: &'static [&'static str],
}

/// The daemon's own command follows as `$0 $@`.
const MASK_TUN: &str = "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\"";

const HURDLES: [Hurdle; 12] = [
    Hurdle::raised(
        "kernel_vxlan_device_on_the_port",
        kernel_vxlan,
        &["4789", "vxlan", "vx0"],
    ),
    Hurdle::raised("udp_port_taken", port_taken, &["4789", "process", "cells"]),
    Hurdle::raised(
        "udp_port_taken_by_a_sharing_socket",
        port_shared,
        &["4789", "process", "cells"],
    ),
    Hurdle::raised(
        "local_address_not_there",
        |cell| ip(cell, "-4 addr flush dev eth0"),
        &["10.0.32.12"],
    ),
    Hurdle::raised(
        "name_taken_by_a_veth",
        |cell| ip(cell, "link add silk-vtep type veth peer name other"),
        &[VTEP_NAME],
    ),
    Hurdle::raised(
        "name_taken_by_a_bridge",
        |cell| ip(cell, "link add silk-vtep type bridge"),
        &[VTEP_NAME],
    ),
    Hurdle::raised(
        "name_taken_by_a_tun",
        |cell| ip(cell, "tuntap add mode tun name silk-vtep"),
        &[VTEP_NAME, "tun"],
    ),
    Hurdle::raised(
        "name_taken_by_a_single_queue_tap",
        |cell| ip(cell, "tuntap add mode tap name silk-vtep"),
        &[VTEP_NAME, "tap"],
    ),
    Hurdle {
        lanes: 1,
        ..Hurdle::raised(
            "one_lane_and_name_taken_by_a_single_queue_tap",
            |cell| ip(cell, "tuntap add mode tap name silk-vtep"),
            &[VTEP_NAME, "tap"],
        )
    },
    Hurdle::raised(
        "name_taken_by_an_administrators_tap_of_our_form",
        |cell| {
            ip(
                cell,
                "tuntap add mode tap multi_queue vnet_hdr name silk-vtep",
            )
        },
        &["TAP whose alias is not", "ip link del", "makes it ours"],
    ),
    Hurdle::run_by(
        "no_cap_net_admin",
        &[
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
        ],
        &["CAP_NET_ADMIN"],
    ),
    Hurdle::run_by(
        "no_dev_net_tun",
        &["unshare", "-m", "sh", "-c", MASK_TUN],
        &["/dev/net/tun"],
    ),
];

impl Hurdle {
    const fn raised(
        name: &'static str,
        raise: fn(&Cell) -> Result<Box<dyn Any>>,
        says: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            lanes: 2,
            raise,
            prefix: &[],
            says,
        }
    }

    const fn run_by(
        name: &'static str,
        prefix: &'static [&'static str],
        says: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            lanes: 2,
            raise: |_| Ok(Box::new(())),
            prefix,
            says,
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let cold = || Plan::of(&[Silk]).cold();
    let mut cases: Vec<_> = HURDLES
        .into_iter()
        .map(|hurdle| {
            let name = format!("setup::{}_is_refused", hurdle.name);
            Case::new(name, cold().lanes(hurdle.lanes), move |lab| {
                is_refused(lab, &hurdle)
            })
        })
        .collect();
    cases.extend([
        Case::new(
            "setup::a_second_daemon_is_refused_and_the_first_goes_on",
            Plan::of(&[Silk, Silk]).lanes(2),
            second_daemon_is_refused,
        ),
        Case::new(
            "setup::every_configuration_error_is_told_at_once",
            cold(),
            configuration_errors_are_told,
        ),
        Case::new("setup::wrong_usage_exits_2", cold(), wrong_usage_exits_2),
        Case::new(
            "setup::a_want_of_descriptors_is_told_with_its_mend",
            cold(),
            want_of_descriptors_is_told,
        ),
    ]);
    cases
}

fn is_refused(lab: &mut Lab, hurdle: &Hurdle) -> Result {
    let _standing = (hurdle.raise)(&lab.cells[0])?;
    let host = lab.cells[0].host.clone();
    let before = Snapshot::of(&host)?;
    let daemon = lab.cells[0].daemon()?;
    let ended = daemon.run_to_its_end(hurdle.prefix)?;
    says_one_line(&ended, hurdle.says)?;
    before.same_as(&Snapshot::of(&host)?)?;
    left_nothing(daemon)
}

/// STYLE of a set-up error: `operation object: cause (mend)`.
fn says_one_line(ended: &Ended, words: &[&str]) -> Result {
    let said = &ended.stderr;
    ensure!(
        ended.status.code() == Some(1),
        "ended with {}: {said}",
        ended.status
    );
    ensure!(
        said.lines().count() == 1,
        "more or less than one line: {said:?}"
    );
    ensure!(
        said.contains(": ") && said.trim_end().ends_with(')'),
        "no cause or no mend: {said:?}"
    );
    for word in words {
        ensure!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "does not say {word:?}: {said:?}"
        );
    }
    Ok(())
}

fn left_nothing(daemon: &Daemon) -> Result {
    let leftovers = daemon.leftovers()?;
    ensure!(leftovers.is_empty(), "left files: {leftovers:?}");
    Ok(())
}

fn ip(cell: &Cell, arguments: &str) -> Result<Box<dyn Any>> {
    cell.host.ip(arguments)?;
    Ok(Box::new(()))
}

fn kernel_vxlan(cell: &Cell) -> Result<Box<dyn Any>> {
    cell.host.ip_batch(
        "link add vx0 type vxlan id 7 local 10.0.32.12 dstport 4789\nlink set vx0 addrgenmode none\nlink set vx0 up\n",
    )?;
    Ok(Box::new(()))
}

fn port_taken(cell: &Cell) -> Result<Box<dyn Any>> {
    hold_port(cell, false)
}

/// REUSEPORT lets sockets of one user share a port: without a probe the daemon would get half the datagrams.
fn port_shared(cell: &Cell) -> Result<Box<dyn Any>> {
    hold_port(cell, true)
}

fn hold_port(cell: &Cell, shared: bool) -> Result<Box<dyn Any>> {
    let socket = cell.host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&SockAddr::from(std::net::SocketAddr::new(
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            4789,
        )))?;
        Ok(socket)
    })?;
    Ok(Box::new(socket))
}

fn second_daemon_is_refused(lab: &mut Lab) -> Result {
    let host = lab.cells[0].host.clone();
    let config = lab.cells[0].daemon()?.config()?;
    let before = Snapshot::of(&host)?;
    let mut second = Daemon::new(&host, &config)?;
    says_one_line(&second.run_to_its_end(&[])?, &[VTEP_NAME])?;
    left_nothing(&second)?;
    before.same_as(&Snapshot::of(&host)?)?;
    ping(
        &lab.cells[0].container()?.namespace,
        lab.cells[1].site.container,
        5,
        "",
    )
}

/// With ever more descriptors set-up gets further, until it is ready.
fn want_of_descriptors_is_told(lab: &mut Lab) -> Result {
    /// With fewer the dynamic linker cannot open a library.
    const LEAST: u32 = 4;
    const ENOUGH: u32 = 200;
    let daemon = lab.cells[0].daemon()?;
    let mut said = String::new();
    for limit in LEAST..ENOUGH {
        let limit = format!("--nofile={limit}:{limit}");
        if daemon.start_under(&["prlimit", &limit]).is_ok() {
            daemon.terminate()?;
            break;
        }
        said.push_str(&daemon.wait_for_its_end()?.stderr);
        left_nothing(daemon)?;
    }
    let socket = format!("bind control socket {}", daemon.socket().display());
    for told in [
        "handle SIGTERM, SIGINT and SIGHUP",
        "lock silk-vtep",
        "open network namespace current",
        "open netlink socket: NETLINK_ROUTE",
        &socket,
        "watch silk-vtep: NETLINK_ROUTE",
        "watch silk-vtep",
        "start egress 0",
    ] {
        let line =
            format!("silk-vtep: {told}: EMFILE (raise the limit of open files (RLIMIT_NOFILE))");
        ensure!(
            said.lines().any(|said| said == line),
            "no {line:?} in\n{said}"
        );
    }
    Ok(())
}

/// A misspelt key, an MTU above what the underlay carries, a peer outside the overlay.
const BAD_CONFIG: &str = "[vtep]
local = \"10.0.32.12\"
address = \"10.255.108.0\"
overlay = [\"10.255.0.0/16\"]
mtu = 1451
lnaes = 2
[[peer]]
subnet = \"10.254.43.0/24\"
underlay = \"10.0.16.14\"
";

fn configuration_errors_are_told(lab: &mut Lab) -> Result {
    let daemon = lab.cells[0].daemon()?;
    daemon.write_config(BAD_CONFIG)?;
    let ended = daemon.run_to_its_end(&[])?;
    let said = &ended.stderr;
    ensure!(
        ended.status.code() == Some(1),
        "ended with {}: {said}",
        ended.status
    );
    for (key, line) in [
        ("mtu", "line 5:"),
        ("lnaes", "line 6:"),
        ("subnet", "line 8:"),
    ] {
        let told = said
            .lines()
            .any(|told| told.contains(key) && told.contains(line));
        ensure!(told, "no \"{line}\" about {key}:\n{said}");
    }
    left_nothing(daemon)
}

fn wrong_usage_exits_2(_: &mut Lab) -> Result {
    for arguments in [
        &["frobnicate"][..],
        &["run"],
        &["run", "--config"],
        &["run", "--config", "/dev/null", "--name", "vtep7"],
        &["run", "--config", "/dev/null", "-j"],
        &[],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_silk-vtep"))
            .args(arguments)
            .output()?;
        ensure!(
            output.status.code() == Some(2),
            "{arguments:?}: {}",
            output.status
        );
        ensure!(
            !output.stderr.is_empty(),
            "{arguments:?}: no word on standard error"
        );
    }
    Ok(())
}
