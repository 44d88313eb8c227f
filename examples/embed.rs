//! The core as a library: two cells' tables, one frame encapsulated on the first and decapsulated on the second. No root, no device.
//!
//! ```text
//! cargo run --example embed
//! ```

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket};
use silk_vtep::control::PeerSpec;
use silk_vtep::tables::{CounterRegistry, GroupEntry, Local, TableSpec, Tables};
use silk_vtep::vtep::{self, Egress, Ingress, Received};
use silk_vtep::wire::{GroupId, MacAddr, Mark, ethernet, vxlan};

/// One cell: its VTEP's overlay address, its underlay address.
struct Cell {
    vtep: Ipv4Addr,
    underlay: IpAddr,
}

const A: Cell = Cell {
    vtep: Ipv4Addr::new(10, 255, 108, 0),
    underlay: IpAddr::V4(Ipv4Addr::new(10, 0, 32, 12)),
};
const B: Cell = Cell {
    vtep: Ipv4Addr::new(10, 255, 43, 0),
    underlay: IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14)),
};
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 255, 108, 184);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 43, 6);

fn main() -> Result<(), Box<dyn Error>> {
    let on_a = tables(&A, &B, &[(CLIENT, 0x0003)])?;
    let on_b = tables(&B, &A, &[])?;

    let mut frame = frame_from_host()?;
    println!("on A, from the host:   {}", describe(&frame));

    let encap = match vtep::egress(&on_a, &frame, Mark::NONE) {
        Egress::Encap(encap) => encap,
        other => return Err(format!("A does not encapsulate it: {other:?}").into()),
    };
    if let Some(mac) = encap.destination_mac {
        ethernet::write_destination(&mut frame, mac);
    }
    let destination = &encap.destinations[0];
    let header = encap.header(destination);
    let datagram = [&header[..], &frame].concat();
    println!(
        "on the wire, to {}: VXLAN {header:02x?} + {}",
        destination.underlay,
        describe(&frame)
    );

    let received = Received {
        source: A.underlay,
        tos: encap.outer.tos,
    };
    match vtep::ingress(&on_b, &datagram, received) {
        Ingress::Deliver(deliver) => {
            let inner = &datagram[vxlan::HEADER_LEN..];
            println!(
                "on B, to the host:     {} mark {:?}",
                describe(inner),
                deliver.mark
            );
            Ok(())
        }
        other => Err(format!("B does not deliver it: {other:?}").into()),
    }
}

/// The tables of `own`, with one peer and the groups of its containers.
fn tables(own: &Cell, peer: &Cell, groups: &[(Ipv4Addr, u16)]) -> Result<Tables, Box<dyn Error>> {
    let local = Local::silk(format!("{}/24", own.vtep).parse()?);
    let peer = PeerSpec {
        subnets: vec![format!("{}/24", peer.vtep).parse()?],
        underlay: peer.underlay,
        mac: MacAddr::overlay(peer.vtep),
    };
    let spec = TableSpec {
        routes: peer.routes().collect(),
        neighbors: peer.neighbors().collect(),
        fdb: vec![peer.fdb_entry()],
        groups: groups
            .iter()
            .map(|&(address, id)| GroupEntry {
                address: address.into(),
                id: GroupId(id),
            })
            .collect(),
        policy: None,
    };
    Ok(Tables::compile(
        Arc::new(local),
        &spec,
        &mut CounterRegistry::new(1),
    ))
}

/// What A's host hands to the TAP: a packet between two containers, addressed to the VTEP's own MAC.
fn frame_from_host() -> Result<Vec<u8>, Box<dyn Error>> {
    let own_mac = MacAddr::overlay(A.vtep).octets();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(own_mac, own_mac)
        .ipv4(CLIENT.octets(), SERVER.octets(), 64)
        .udp(40000, 53)
        .write(&mut frame, b"hello, overlay")?;
    Ok(frame)
}

fn describe(frame: &[u8]) -> String {
    let Some(ethernet) = ethernet::Frame::new_checked(frame) else {
        return "no Ethernet frame".to_owned();
    };
    let macs = format!("{} > {}", ethernet.source(), ethernet.destination());
    match SlicedPacket::from_ethernet(frame).map(|packet| packet.net) {
        Ok(Some(NetSlice::Ipv4(ip))) => {
            let header = ip.header();
            format!(
                "{macs}, {} > {}",
                header.source_addr(),
                header.destination_addr()
            )
        }
        _ => macs,
    }
}
