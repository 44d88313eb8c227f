//! Streams of frames through the coalescer, beside the reference model of the crate's tests.
//!
//! ```text
//! | options | MTU | then, for each frame, 8 bytes:
//! | flow | what | payload | TOS | sequence | id | at | value
//! ```

use silk_vtep::offload::CoalesceOptions;

use super::offload::frames::{ACK, PSH, Packet, noise};
use super::offload::harness::{Arrival, assert_faithful, coalesce};
use super::offload::model;

/// Frames of one input: more than two full runs of all flows.
const FRAMES_MAX: usize = 400;

const NO_TCP: u8 = 1;
const NO_UDP: u8 = 2;

// `what`: the low bits choose a mishap, these the rest.
const PUSH: u8 = 0x20;
const FRAGMENTABLE: u8 = 0x40;
const BATCH_ENDS: u8 = 0x80;

/// Groups are the model's. If a frame's bytes were spoilt, the two may read it differently; then all that must hold is that every frame
/// comes out once, unchanged and in its flow's order.
pub fn target(data: &[u8]) {
    let Some((&[options, mtu], pieces)) = data.split_first_chunk() else {
        return;
    };
    let options = CoalesceOptions {
        mtu_bytes: 40 + 12 * u32::from(mtu),
        tcp: options & NO_TCP == 0,
        udp: options & NO_UDP == 0,
    };
    let mut streams = Streams::default();
    for piece in pieces.as_chunks().0.iter().take(FRAMES_MAX) {
        streams.push(*piece);
    }
    let Streams {
        batches, spoilt, ..
    } = streams;
    let written = coalesce(options, &batches);
    assert_faithful(options, &batches.concat(), &written);
    if spoilt {
        return;
    }
    let mut expected = Vec::new();
    let mut base = 0;
    for batch in &batches {
        let groups = model::groups(options, batch).into_iter();
        expected
            .extend(groups.map(|group| group.into_iter().map(|n| base + n).collect::<Vec<_>>()));
        base += batch.len();
    }
    let groups: Vec<_> = written.into_iter().map(|one| one.arrivals).collect();
    assert_eq!(groups, expected);
}

/// Flows that go on where they were, unless a piece says otherwise.
struct Streams {
    batches: Vec<Vec<Arrival>>,
    /// The next packet of each flow.
    flows: Vec<Packet>,
    spoilt: bool,
}

impl Default for Streams {
    fn default() -> Self {
        let flow = |number: u8| Packet {
            host: number >> 2,
            ..Packet::new(number & 1 != 0, number & 2 != 0, Vec::new())
        };
        Self {
            batches: vec![Vec::new()],
            flows: (0..=u8::MAX >> 2).map(flow).collect(),
            spoilt: false,
        }
    }
}

impl Streams {
    fn push(&mut self, piece: [u8; 8]) {
        let [flow, what, payload, tos, sequence, id, at, value] = piece;
        let next = &mut self.flows[usize::from(flow) % (usize::from(u8::MAX >> 2) + 1)];
        let mut packet = next.clone();
        packet.payload = noise(payload.into(), payload_len(payload));
        packet.tos = tos;
        packet.flags = ACK | if what & PUSH != 0 { PSH } else { 0 };
        packet.dont_fragment = what & FRAGMENTABLE == 0;
        packet.sequence = packet
            .sequence
            .wrapping_add_signed(i8::from_ne_bytes([sequence]).into());
        packet.id = packet
            .id
            .wrapping_add_signed(i8::from_ne_bytes([id]).into());
        *next = Packet {
            sequence: packet.sequence.wrapping_add(packet.payload.len() as u32),
            id: packet.id.wrapping_add(1),
            ..packet.clone()
        };
        let arrival = self.befall(packet, what & 0x1f, at, value);
        let batch = self.batches.last_mut().expect("there is always one");
        batch.push(arrival);
        if what & BATCH_ENDS != 0 {
            self.batches.push(Vec::new());
        }
    }

    /// What happened to the frame on the way here.
    fn befall(&mut self, mut packet: Packet, mishap: u8, at: u8, value: u8) -> Arrival {
        match mishap {
            1 => packet.flags ^= value,
            2 => packet.ttl = value,
            3 => packet.window ^= value as u16,
            4 => packet.acknowledgment ^= u32::from(value),
            5 => packet.payload.clear(),
            6 => packet.udp_checksum = false,
            7 => packet.vlans = vec![value.into(); usize::from(at % 3)],
            8 => packet.ip_options = vec![1; 4 * usize::from(at % 3)],
            9 => packet.tcp_options = vec![1; 4 * usize::from(at % 11)],
            10 => packet.flow_label ^= u32::from(value),
            11 => packet.source_mac[5] ^= value,
            12 => packet.port ^= u16::from(value),
            _ => {}
        }
        let mut arrival = Arrival::from(&packet);
        match mishap {
            13 => arrival.key.header[usize::from(at % 8)] ^= value,
            14 => arrival.key.tos ^= value,
            15 => arrival.frame.extend(vec![0; usize::from(value % 32)]),
            16 => arrival.frame = packet.super_frame(0).1,
            17 => arrival.key.source = [10, 0, 16, value].into(),
            18..=24 => {
                let at = usize::from(at) % arrival.frame.len();
                arrival.frame[at] ^= value;
                self.spoilt = true;
            }
            26 => {
                let (header, _) = packet.super_frame(0);
                arrival.frame[usize::from(header.csum_start + header.csum_offset)] ^= value;
            }
            25 => {
                arrival.frame.truncate(usize::from(at));
                self.spoilt = true;
            }
            _ => {}
        }
        arrival
    }
}

/// Mostly the same length, so that frames can join.
fn payload_len(byte: u8) -> usize {
    match byte {
        0..=127 => 64,
        128..=191 => usize::from(byte - 127),
        192..=254 => 22 * usize::from(byte - 127),
        255 => 0,
    }
}
