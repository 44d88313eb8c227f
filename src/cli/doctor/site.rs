//! What a daemon takes for itself on a host: a name, a port, a socket.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess};

use super::check::Check;
use crate::daemon::port_holder::Host;
use crate::daemon::setup::check_ours;
use crate::error::errno;
use crate::io::PortHolder;
use crate::netlink::{Link, LinkKind, Netlink, existing};

/// What our own processes are called (`comm` of /proc).
const OURS: &str = "(silk-vtep)";

/// The TAP's name.
pub(super) fn name(name: &str) -> Check {
    const NAME: &str = "name";
    let link = Netlink::open().and_then(|mut netlink| existing(&mut netlink, name));
    let check = match link {
        Ok(None) => Check::ok(NAME, format!("no link is called {name}")),
        Ok(Some(link)) => taken(NAME, &link),
        Err(error) => Check::unknown(NAME, format!("look up {name}: {}", error.cause)),
    };
    check.needed()
}

/// By a TAP that the daemon would take over, or by something else.
fn taken(name: &'static str, link: &Link) -> Check {
    match check_ours(link) {
        Ok(()) => Check::ok(name, format!("{} is a TAP that a daemon left", link.name)),
        Err(_) if is_held(link) => {
            Check::ok(name, format!("{} is a TAP that a daemon holds", link.name))
        }
        Err(error) => {
            Check::missing(name, format!("{}: {}", link.name, error.cause)).mend(error.mend)
        }
    }
}

/// It would be ours but for the process that holds it: as good as certainly a daemon.
fn is_held(link: &Link) -> bool {
    let mut free = link.clone();
    if let LinkKind::Tun(tun) = &mut free.kind {
        tun.queues = None;
    }
    check_ours(&free).is_ok()
}

/// The VXLAN port; a daemon of ours may hold it.
pub(super) fn udp_port(port: u16) -> Check {
    const NAME: &str = "udp-port";
    let check = match bind(port) {
        Ok(_) => Check::ok(NAME, format!("UDP {port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => held(NAME, port, Host.holder(port)),
        Err(error) => Check::missing(NAME, format!("bind UDP {port}: {}", errno(&error))),
    };
    check.needed()
}

/// Of both families at once, where there are two.
fn bind(port: u16) -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        bound => bound,
    }
}

fn held(name: &'static str, port: u16, holder: Option<String>) -> Check {
    match holder {
        Some(holder) if holder.ends_with(OURS) => {
            Check::ok(name, format!("UDP {port} is held by {holder}"))
        }
        Some(holder) => Check::missing(name, format!("UDP {port}: EADDRINUSE: held by {holder}"))
            .mend("stop whoever holds it, or give another `port`"),
        None => Check::missing(name, format!("UDP {port}: EADDRINUSE"))
            .mend("only root is told who holds it; stop it, or give another `port`"),
    }
}

/// Where the command line reaches the daemon.
pub(super) fn control_socket(path: &Path) -> Check {
    const NAME: &str = "control-socket";
    // What is not there yet is made, from the nearest directory that is.
    let directory = path
        .ancestors()
        .skip(1)
        .find(|directory| directory.exists());
    let directory = directory.unwrap_or(Path::new("/"));
    let check = match eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::ok(NAME, format!("{} can be made", path.display())),
        Err(errno) => Check::missing(NAME, format!("make {}: {errno:?}", path.display()))
            .mend("run as root, or give --socket a path that this user may write"),
    };
    check.needed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_held_by_a_daemon_of_ours_is_no_hindrance() {
        let held =
            |holder: Option<&str>| held("udp-port", 4789, holder.map(str::to_owned)).needed();
        assert_eq!(held(Some("process 7 (silk-vtep)")).hindrance(), None);
        for holder in [Some("process 7 (openvswitch)"), None] {
            assert_eq!(held(holder).hindrance(), Some("udp-port"));
        }
    }

    #[test]
    fn a_taken_port_is_told_of_either_family() {
        for any in ["0.0.0.0:0", "[::]:0"] {
            let Ok(socket) = UdpSocket::bind(any) else {
                continue; // a host without IPv6
            };
            let port = socket.local_addr().expect("bound").port();
            let line = udp_port(port).to_string();
            assert!(line.contains("EADDRINUSE"), "{line}");
            assert!(line.contains(&std::process::id().to_string()), "{line}");
        }
    }

    #[test]
    fn a_socket_is_made_where_its_directory_is_or_can_be() {
        let directory = std::env::temp_dir();
        let deep = directory.join("sv-there-is-none/deeper/a.sock");
        assert_eq!(control_socket(&deep).hindrance(), None);
        let nowhere = Path::new("/dev/null/a.sock");
        assert_eq!(control_socket(nowhere).hindrance(), Some("control-socket"));
    }
}
