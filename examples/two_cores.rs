//! Two VTEPs and a bad wire, all in memory. Each host sends datagrams of several flows and a TCP stream in super-frames to the other; the
//! wire loses, doubles and reorders what the VTEPs make of them; and whatever arrives is, byte for byte, what was sent. No root, no
//! device, no clock: the seed decides everything.
//!
//! ```text
//! cargo run --example two_cores -- [SEED]
//! ```

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use silk_vtep::control::PeerSpec;
use silk_vtep::io::LaneOptions;
use silk_vtep::io::memory::{Damage, Faults, MemoryCell, Wire};
use silk_vtep::tables::{Local, TableSpec};
use silk_vtep::wire::MacAddr;
use silk_vtep::wire::vnet::{self, GsoType, VnetHeader};

/// One cell: its VTEP's overlay address, its underlay address.
struct Site {
    vtep: Ipv4Addr,
    underlay: IpAddr,
}

const A: Site = Site {
    vtep: Ipv4Addr::new(10, 255, 108, 0),
    underlay: IpAddr::V4(Ipv4Addr::new(10, 0, 32, 12)),
};
const B: Site = Site {
    vtep: Ipv4Addr::new(10, 255, 43, 0),
    underlay: IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14)),
};

const MTU_BYTES: u32 = 1450;
const FAULTS: Faults = Faults {
    lost_percent: 5,
    doubled_percent: 3,
    reordered_percent: 10,
};

const ROUNDS: usize = 30;
/// Flows of datagrams, by port.
const PORTS: std::ops::Range<u16> = 5000..5008;
const STREAM_PORT: u16 = 80;
/// Bytes of the stream in one super-frame, and in each segment that the VTEP cuts it into.
const CHUNK: usize = 10_000;
const MSS: u16 = 1000;

#[allow(dead_code, reason = "the tests include this file and call `exchange`")]
fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1);
    let seed = seed.map_or(Ok(1), |text| text.parse())?;
    let outcome = exchange(seed)?;
    let Damage {
        sent,
        lost,
        doubled,
        reordered,
    } = outcome.damage;
    println!("the wire: {sent} datagrams, {lost} lost, {doubled} doubled, {reordered} reordered");
    for (way, received) in [("A to B", &outcome.at_b), ("B to A", &outcome.at_a)] {
        let Received {
            datagrams,
            stream_bytes,
            packets,
        } = received;
        println!(
            "{way}: {datagrams} datagrams and {stream_bytes} bytes of the stream, in {packets} packets of the TAP"
        );
    }
    println!("all of it as it was sent");
    Ok(())
}

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the wire did.
    pub damage: Damage,
    /// What A's host received.
    pub at_a: Received,
    /// What B's host received.
    pub at_b: Received,
}

/// What a host received, doubles included.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes of the stream.
    pub stream_bytes: usize,
    /// Packets of the TAP that they came in: fewer, since the VTEP joins what follows one another.
    pub packets: usize,
}

/// Lets two cells talk over a wire that `seed` chooses.
///
/// # Errors
/// A packet could not be built.
///
/// # Panics
/// Something arrived that was not sent, or was counted wrongly.
pub fn exchange(seed: u64) -> Result<Outcome, Box<dyn Error>> {
    let (mut a, mut b) = (cell(&A, &B)?, cell(&B, &A)?);
    let (mut sent_by_a, mut sent_by_b) = (Sent::new(&A, &B), Sent::new(&B, &A));
    let (mut at_a, mut at_b) = (Received::default(), Received::default());
    let mut wire = Wire::new(FAULTS, seed);
    for _ in 0..ROUNDS {
        sent_by_a.round(&mut a)?;
        sent_by_b.round(&mut b)?;
        for cell in [&mut a, &mut b] {
            cell.forward();
            wire.take_from(cell.underlay());
        }
        for cell in [&mut a, &mut b] {
            wire.give_to(cell.underlay());
            cell.forward();
        }
        at_a.take(&mut a, &sent_by_b)?;
        at_b.take(&mut b, &sent_by_a)?;
    }
    let damage = wire.damage();
    let (a, b) = (a.totals(), b.totals());
    assert_eq!(a.tx_packets + b.tx_packets, damage.sent);
    let arrived = damage.sent - damage.lost + damage.doubled;
    assert_eq!(a.rx_packets + b.rx_packets, arrived, "nothing was dropped");
    Ok(Outcome { damage, at_a, at_b })
}

/// A VTEP with one peer.
fn cell(own: &Site, peer: &Site) -> Result<MemoryCell, Box<dyn Error>> {
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
        ..TableSpec::default()
    };
    let options = LaneOptions::with_all_offloads(MTU_BYTES);
    Ok(MemoryCell::new(local, &spec, own.underlay, &options))
}

/// What one host sends to a container of the other's.
struct Sent {
    from: &'static Site,
    to: &'static Site,
    /// Each names its place in this list.
    datagrams: Vec<Vec<u8>>,
    stream: Vec<u8>,
}

impl Sent {
    fn new(from: &'static Site, to: &'static Site) -> Self {
        Self {
            from,
            to,
            datagrams: Vec::new(),
            stream: Vec::new(),
        }
    }

    /// Two datagrams of each flow, then a super-frame.
    fn round(&mut self, cell: &mut MemoryCell) -> Result<(), Box<dyn Error>> {
        for port in PORTS.chain(PORTS) {
            let payload = self.next_datagram()?;
            let mut frame = Vec::new();
            self.packet().udp(port, port).write(&mut frame, &payload)?;
            cell.tap().host_sends(&frame);
            self.datagrams.push(payload);
        }
        let sequence = u32::try_from(self.stream.len())?;
        let chunk = bytes(self.stream.len(), CHUNK);
        let tcp = self.packet().tcp(40_000, STREAM_PORT, sequence, 1000);
        let mut frame = Vec::new();
        tcp.ack(1).write(&mut frame, &chunk)?;
        let header = VnetHeader {
            gso_type: GsoType::TcpV4,
            gso_size: MSS,
            ..VnetHeader::default()
        };
        let packet = [&header.emit()[..], &frame].concat();
        cell.tap().host_sends_packet(packet.into());
        self.stream.extend(chunk);
        Ok(())
    }

    fn next_datagram(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let number = self.datagrams.len();
        let len = 100 + number * 7 % 900;
        let number = u32::try_from(number)?.to_be_bytes();
        Ok([&number[..], &bytes(len, len)].concat())
    }

    /// From container 2 of the one to container 2 of the other, by way of the VTEP's own MAC.
    fn packet(&self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let container = |site: &Site| {
            let [a, b, c, _] = site.vtep.octets();
            [a, b, c, 2]
        };
        let mac = MacAddr::overlay(self.from.vtep).octets();
        PacketBuilder::ethernet2(mac, mac).ipv4(container(self.from), container(self.to), 64)
    }
}

impl Received {
    /// Takes all that the host of `cell` got and holds it against what was `sent`.
    fn take(&mut self, cell: &mut MemoryCell, sent: &Sent) -> Result<(), Box<dyn Error>> {
        while let Some(packet) = cell.tap().host_receives() {
            self.packets += 1;
            let (header, frame) = packet.split_at(vnet::HEADER_LEN);
            let header = header.first_chunk().and_then(VnetHeader::parse);
            let header = header.ok_or("no virtio_net_hdr of ours")?;
            match SlicedPacket::from_ethernet(frame)?.transport {
                Some(TransportSlice::Udp(udp)) => {
                    // One datagram, or several of one length that the VTEP joined.
                    let each = match header.gso_type {
                        GsoType::None => udp.payload().len(),
                        _ => header.gso_size.into(),
                    };
                    for datagram in udp.payload().chunks(each) {
                        let number = datagram.first_chunk().ok_or("no number")?;
                        let number = u32::from_be_bytes(*number) as usize;
                        assert_eq!(datagram, sent.datagrams[number], "datagram {number}");
                        self.datagrams += 1;
                    }
                }
                Some(TransportSlice::Tcp(tcp)) => {
                    let offset = tcp.sequence_number() as usize;
                    let len = tcp.payload().len();
                    assert_eq!(tcp.payload(), &sent.stream[offset..][..len], "at {offset}");
                    self.stream_bytes += len;
                }
                other => return Err(format!("nobody sent {other:?}").into()),
            }
        }
        Ok(())
    }
}

/// `len` bytes that tell where they were.
fn bytes(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|n| (n * 31 % 251) as u8).collect()
}
