//! A harness for a fuzzer of your own: bytes in, verdicts and counters out. No root, no clock, no threads, and nothing but the library.
//!
//! ```text
//! cargo run --example fuzz_harness -- [--frames] [FILE...]       each file is one input; without one, standard input is
//! afl-fuzz -n -i inputs -o found -- target/release/examples/fuzz_harness @@
//! ```
//!
//! An input is the UDP payload of a datagram that the peer 10.0.16.14 sends; with `--frames`, an Ethernet frame of the host. It is judged
//! by the core alone, whose verdict is printed, and then carried by the daemon's own loop over devices in memory, whose counters are.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};

use silk_vtep::DropReason;
use silk_vtep::control::PeerSpec;
use silk_vtep::io::LaneOptions;
use silk_vtep::io::memory::{MemoryCell, WireDatagram};
use silk_vtep::tables::{Local, TableSpec, Tables};
use silk_vtep::vtep::{self, Egress, Ingress, Outer, Received};
use silk_vtep::wire::{MacAddr, Mark, vxlan};

const OWN_UNDERLAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 32, 12));
const PEER_UNDERLAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 16, 14));

#[allow(dead_code, reason = "the tests include this file and call `Harness`")]
fn main() -> Result<(), Box<dyn Error>> {
    let (flags, files): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|arg| arg == "--frames");
    let mut harness = Harness::new()?;
    let mut take = |name: &str, input: &[u8]| {
        let verdict = match flags.is_empty() {
            true => harness.datagram(input),
            false => harness.frame(input),
        };
        println!("{name}: {verdict}");
    };
    for file in &files {
        take(file, &fs::read(file)?);
    }
    if files.is_empty() {
        let mut input = Vec::new();
        io::stdin().read_to_end(&mut input)?;
        take("standard input", &input);
    }
    harness.print_counters();
    Ok(())
}

/// A VTEP of 10.255.108.0/24 that knows one peer.
pub struct Harness {
    cell: MemoryCell,
}

impl Harness {
    /// Nothing is counted yet.
    ///
    /// # Errors
    /// None: the prefixes parse.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let peer = PeerSpec {
            subnets: vec!["10.255.43.0/24".parse()?],
            underlay: PEER_UNDERLAY,
            mac: MacAddr::new([0xee, 0xee, 10, 255, 43, 0]),
        };
        let spec = TableSpec {
            routes: peer.routes().collect(),
            neighbors: peer.neighbors().collect(),
            fdb: vec![peer.fdb_entry()],
            ..TableSpec::default()
        };
        let local = Local::silk("10.255.108.0/24".parse()?);
        let options = LaneOptions::with_all_offloads(1450);
        let cell = MemoryCell::new(local, &spec, OWN_UNDERLAY, &options);
        Ok(Self { cell })
    }

    /// What the core says to a datagram of the peer's. What follows from it happens too.
    ///
    /// # Panics
    /// The input was not counted once.
    pub fn datagram(&mut self, input: &[u8]) -> String {
        let verdict = judge_datagram(&self.cell.tables(), input);
        self.counted_once(|cell| {
            cell.underlay().arrive(WireDatagram {
                source: (PEER_UNDERLAY, 40_000).into(),
                destination: (OWN_UNDERLAY, vxlan::PORT).into(),
                outer: Outer::of_tos(0),
                payload: input.to_vec().into(),
            });
        });
        verdict
    }

    /// What the core says to a frame of the host's. What follows from it happens too.
    ///
    /// # Panics
    /// The input was not counted once.
    pub fn frame(&mut self, input: &[u8]) -> String {
        let verdict = judge_frame(&self.cell.tables(), input);
        self.counted_once(|cell| cell.tap().host_sends(input));
        verdict
    }

    /// Packets and drops.
    pub fn print_counters(&self) {
        let totals = self.cell.totals();
        println!("to the wire {}", totals.tx_packets);
        println!("to the host {}", totals.rx_packets);
        println!("replies {}", totals.replies);
        for (reason, count) in totals.drops() {
            println!("dropped {count} {reason}: {}", reason.meaning().trim());
        }
    }

    fn counted_once(&mut self, input: impl FnOnce(&mut MemoryCell)) {
        let before = self.counted();
        input(&mut self.cell);
        self.cell.forward();
        // An answer to a peer is a frame sent besides.
        let counted = self.counted() - before;
        assert!((1..=2).contains(&counted), "counted {counted} times");
    }

    fn counted(&self) -> u64 {
        let totals = self.cell.totals();
        let drops: u64 = totals.drops().map(|(_, count)| count).sum();
        totals.tx_packets + totals.rx_packets + totals.replies + drops
    }
}

fn judge_datagram(tables: &Tables, input: &[u8]) -> String {
    let received = Received {
        source: PEER_UNDERLAY,
        tos: 0,
    };
    match vtep::ingress(tables, input, received) {
        Ingress::Deliver(deliver) => {
            let mark = deliver.mark.map(|mark| mark.0);
            format!("deliver, mark {mark:?}")
        }
        Ingress::Unsolicited { .. } => "drop, unless it is part of a flow".to_owned(),
        Ingress::Reply { reply, .. } => format!("reply {:02x?}", reply.frame()),
        Ingress::Drop { reason, .. } => format!("drop, {reason}"),
    }
}

fn judge_frame(tables: &Tables, input: &[u8]) -> String {
    match vtep::egress(tables, input, Mark::NONE) {
        Egress::Encap(encap) => {
            let headers = encap.destinations.iter().map(|to| encap.header(to));
            format!("encap, {:02x?}", headers.collect::<Vec<_>>())
        }
        Egress::Reply(reply) => format!("reply {:02x?}", reply.frame()),
        Egress::Fragment { mtu, .. } => format!("encap in fragments of {mtu} bytes"),
        Egress::TooBig(too_big) => {
            format!("drop, {}, of {} bytes", DropReason::PathMtu, too_big.mtu)
        }
        Egress::Drop(reason) => format!("drop, {reason}"),
    }
}
