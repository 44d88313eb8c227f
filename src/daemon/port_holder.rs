//! Who holds a port, as far as the kernel tells: a vxlan device, or a process with a socket on it.

use std::fs;
use std::path::Path;

use crate::io::PortHolder;
use crate::netlink::{Netlink, vxlan_on_port};

/// Asks netlink for vxlan devices, then /proc for processes.
pub(crate) struct Host;

impl PortHolder for Host {
    fn holder(&self, port: u16) -> Option<String> {
        vxlan_device(port).or_else(|| process(UDP, port))
    }
}

/// The process that has a TCP socket on `port`.
pub(super) fn tcp_port_holder(port: u16) -> Option<String> {
    process(TCP, port)
}

/// The kernel's tables of sockets, of this thread's namespace.
const UDP: [&str; 2] = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
const TCP: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

fn vxlan_device(port: u16) -> Option<String> {
    let mut netlink = Netlink::open().ok()?;
    let link = vxlan_on_port(&mut netlink, port).ok()??;
    Some(format!(
        "the kernel's vxlan device {} (ip link del {})",
        link.name, link.name
    ))
}

/// The first process that has a socket on the port open.
fn process(tables: [&str; 2], port: u16) -> Option<String> {
    let inodes: Vec<String> = tables
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| socket_inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter(|entry| holds_any(&entry.path(), &inodes))
        .find_map(|entry| describe(&entry.path()))
}

/// Inodes of the sockets bound to `port` in the text of /proc/net/udp or tcp, which have them in one place.
fn socket_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let local = fields.nth(1)?;
            let inode = fields.nth(7)?;
            (local.ends_with(&suffix) && inode != "0").then(|| inode.to_owned())
        })
        .collect()
}

fn holds_any(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| {
            sockets
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
        })
}

fn describe(process: &Path) -> Option<String> {
    let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
    let command = fs::read_to_string(process.join("comm")).ok()?;
    Some(format!("process {pid} ({})", command.trim()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn finds_the_process_behind_a_port() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let tcp_port = listener.local_addr().expect("bound").port();
        for holder in [process(UDP, port), tcp_port_holder(tcp_port)] {
            let holder = holder.expect("this process");
            assert!(
                holder.starts_with(&format!("process {} (", std::process::id())),
                "{holder}"
            );
        }
    }

    #[test]
    fn reads_ports_and_inodes_and_skips_the_kernels_sockets() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n\
            2: 00000000:12B5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0 0\n\
            3: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n";
        assert_eq!(socket_inodes(table, 4789), ["4711"]);
    }
}
