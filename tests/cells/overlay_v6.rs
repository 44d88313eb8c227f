//! An overlay of both families: VTEPs with two addresses, packets routed by IPv6 prefix, no neighbour ever asked for.
//!
//! Containers get IPv4 only so far, so each cell's host speaks for its IPv6 subnet.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;

use super::super::Case;
use crate::support::Kind::Silk;
use crate::support::{BOUND, Cell, Container, Lab, Noise, Plan, Result, Site, ensure, ping};

/// Bytes of the transfer.
const TRANSFER_BYTES: usize = 2_000_000;

pub(crate) fn cases() -> Vec<Case> {
    let cold = Plan::of(&[Silk, Silk]).cold();
    vec![
        Case::new(
            "overlay_v6::over_v4_underlay",
            cold.clone(),
            both_families_cross,
        ),
        Case::new(
            "overlay_v6::over_v6_underlay",
            cold.v6(),
            both_families_cross,
        ),
    ]
}

fn both_families_cross(lab: &mut Lab) -> Result {
    let containers = lab
        .cells
        .iter_mut()
        .map(start)
        .collect::<Result<Vec<_>>>()?;
    let (a, b) = (&lab.cells[0], &lab.cells[1]);
    let inhabitant = inhabitant(&b.site);
    b.host.ip(&format!("-6 addr add {inhabitant}/128 dev lo"))?;
    for to in [vtep(&b.site), inhabitant] {
        ping(&a.host, to, 20, "")?;
        // 40 bytes of IPv6 header and 8 of ICMPv6 fill the MTU.
        ping(&a.host, to, 5, &format!("-M do -s {}", a.mtu()? - 48))?;
    }
    transfer(a, b, inhabitant)?;
    ping(&containers[0].namespace, containers[1].address, 5, "")?;
    let neighbors = a
        .host
        .ip("-6 neigh show dev silk-vtep nud reachable nud stale nud delay")?;
    ensure!(
        neighbors.is_empty(),
        "the kernel asked for neighbours:\n{neighbors}"
    );
    Ok(())
}

/// Adds IPv6 to the cell's configuration and starts its daemon; its container has IPv4 all the same.
fn start(cell: &mut Cell) -> Result<Container> {
    let site = cell.site;
    let daemon = cell.daemon()?;
    let lines = daemon
        .config()?
        .lines()
        .map(|line| with_v6(line, &site))
        .collect::<String>();
    daemon.write_config(&lines)?;
    daemon.start()?;
    Container::by_daemon(daemon, &site)
}

fn with_v6(line: &str, site: &Site) -> String {
    match line.split_once(" = ") {
        Some(("address", v4)) => format!("address = [{v4}, \"{}\"]\n", vtep(site)),
        Some(("overlay", _)) => "overlay = [\"10.255.0.0/16\", \"fd00:a::/32\"]\n".to_owned(),
        Some(("subnet", v4)) => {
            let third_octet: u16 = v4
                .split('.')
                .nth(2)
                .and_then(|octet| octet.parse().ok())
                .unwrap_or(0);
            format!("subnet = [{v4}, \"{}/64\"]\n", subnet(third_octet))
        }
        _ => format!("{line}\n"),
    }
}

fn subnet(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xa, 0, number, 0, 0, 0, 0)
}

fn vtep(site: &Site) -> Ipv6Addr {
    subnet(site.vtep.octets()[2].into())
}

/// Somebody in the cell's subnet who is not the VTEP.
fn inhabitant(site: &Site) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(vtep(site)) + 6)
}

/// A stream from `a`'s host to `to` on `b`'s, compared byte for byte.
fn transfer(a: &Cell, b: &Cell, to: Ipv6Addr) -> Result {
    let listener = b.host.run(|| Ok(TcpListener::bind((to, 0))?))?;
    let address = listener.local_addr()?;
    let mut client = a
        .host
        .run(|| Ok(TcpStream::connect_timeout(&address, BOUND)?))?;
    let (mut server, _) = listener.accept()?;
    let sent = Noise::new(6).bytes(TRANSFER_BYTES);
    let expected = sent.clone();
    let sender = thread::spawn(move || client.write_all(&sent));
    let mut received = Vec::new();
    server.read_to_end(&mut received)?;
    sender.join().map_err(|_| "the sender panicked")??;
    ensure!(
        received == expected,
        "{} of {TRANSFER_BYTES} bytes, or others",
        received.len()
    );
    Ok(())
}
