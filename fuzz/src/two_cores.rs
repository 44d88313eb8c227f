//! Two VTEPs, each the daemon's own loop over devices in memory, and a sequence of what may happen to them: the hosts send frames and
//! super-frames, datagrams are carried, lost, doubled, overtaken and spoilt, strangers send whatever they like, tables change, and the
//! hosts refuse an offload.
//!
//! What each cell is given and what it makes of it is held against [`naive`](super::naive), byte for byte, in order within each flow, and
//! with every packet counted once; so what is delivered is what was sent.

mod cell;
mod expectation;
mod step;
mod traffic;

use arbitrary::Unstructured;
use silk_vtep::io::memory::WireDatagram;
use silk_vtep::vtep::Outer;

use cell::Cell;
use step::{Fate, Refusal};
pub use step::{NARROW, Step, count, kind};
use traffic::Traffic;

/// Steps of one input.
const STEPS_MAX: usize = 80;
/// Datagrams on the wire; what comes on top is lost.
const WIRE_MAX: usize = 512;

/// A byte of settings for each cell, then steps, see [`Step`].
pub fn target(data: &[u8]) {
    let Some((settings, steps)) = data.split_first_chunk() else {
        return;
    };
    let mut pair = Pair::new(*settings);
    let mut bytes = Unstructured::new(steps);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let Ok(step) = bytes.arbitrary() else { break };
        pair.take(step);
    }
    pair.settle();
}

/// Both cells and the wire between them.
struct Pair {
    cells: [Cell; 2],
    wire: Vec<WireDatagram>,
    traffic: Traffic,
}

impl Pair {
    fn new([a, b]: [u8; 2]) -> Self {
        Self {
            cells: [Cell::new(0, a), Cell::new(1, b)],
            wire: Vec::new(),
            traffic: Traffic::default(),
        }
    }

    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Send { from, frame } => {
                let from = &mut self.cells[usize::from(from & 1)];
                for packet in self.traffic.packets(&frame, from.macs()) {
                    from.host_sends(packet);
                }
            }
            Step::HostBytes { from, packet } => {
                self.cells[usize::from(from & 1)].host_sends(packet);
            }
            Step::Datagram {
                to,
                source,
                tos,
                payload,
            } => {
                let to = &mut self.cells[usize::from(to & 1)];
                let datagram = to.datagram_from(source, tos, payload);
                to.arrive(datagram);
            }
            Step::Carry { to, count, fate } => self.carry(to, count, fate),
            Step::Forward { at } => self.forward(at),
            Step::Change { at, change } => self.cells[usize::from(at & 1)].change(&change),
            Step::Refuse { at, what } => self.refuse(at, what),
        }
    }

    /// What is on its way arrives, and what waits is forwarded.
    fn settle(&mut self) {
        for at in [0, 1, 0, 1] {
            self.forward(at);
            self.carry(0, u8::MAX, Fate::Arrives);
            self.carry(1, u8::MAX, Fate::Arrives);
        }
    }

    fn forward(&mut self, at: u8) {
        let sent = self.cells[usize::from(at & 1)].forward();
        self.wire.extend(sent);
        self.wire.truncate(WIRE_MAX);
    }

    fn carry(&mut self, to: u8, count: u8, fate: Fate) {
        let to = &mut self.cells[usize::from(to & 1)];
        let address = to.underlay;
        let mut left = usize::from(count);
        let mut late = Vec::new();
        self.wire.retain(|datagram| {
            if left == 0 || datagram.destination.ip() != address {
                return true;
            }
            left -= 1;
            let datagram = datagram.clone();
            match fate {
                Fate::Arrives => to.arrive(datagram),
                Fate::Lost => {}
                Fate::Doubled => {
                    to.arrive(datagram.clone());
                    to.arrive(datagram);
                }
                Fate::Late => late.push(datagram),
                Fate::Spoilt { at, bits } => {
                    let mut payload = datagram.payload.to_vec();
                    let at = usize::from(at) % payload.len();
                    payload[at] ^= bits;
                    let payload = payload.into();
                    to.arrive(WireDatagram {
                        payload,
                        ..datagram
                    });
                }
                Fate::OtherTos(tos) => to.arrive(WireDatagram {
                    outer: Outer::of_tos(tos),
                    ..datagram
                }),
                Fate::Cut(len) => {
                    let mut datagram = datagram;
                    datagram.payload.truncate(len.into());
                    to.arrive(datagram);
                }
            }
            false
        });
        self.wire.extend(late);
    }

    fn refuse(&mut self, at: u8, what: Refusal) {
        self.cells[usize::from(at & 1)].refuse(what);
    }
}
