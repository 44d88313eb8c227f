//! The coalescer the naive way: frames taken apart by etherparse, everything in vectors, no thought of speed.

use etherparse::SlicedPacket;
use silk_vtep::offload::{CoalesceOptions, MergeKey, RUNS_MAX, SLICES_MAX};

use super::frames::{ACK, ECE, PSH, checksum_is_partial, checksums_are_right};
use super::harness::{Arrival, Flow, addresses, flow};

/// Frames to be written together.
struct Run {
    flow: Flow,
    key: MergeKey,
    arrivals: Vec<usize>,
    first: Plain,
    last: Plain,
    frame_len: usize,
}

impl Run {
    fn is_sealed(&self) -> bool {
        self.last.push
            || self.last.payload_len < self.first.payload_len
            || self.arrivals.len() == SLICES_MAX
    }

    fn continues(&self, key: MergeKey, next: &Plain) -> bool {
        let id = |plain: &Plain| plain.id.map(u32::from);
        let counts_up = match (id(&self.last), id(next)) {
            (Some(last), Some(next)) => (last + 1) % 0x1_0000 == next,
            _ => true,
        };
        self.key == key
            && counts_up
            && self.first.alike == next.alike
            && self.last.next_sequence == next.sequence
            && next.payload_len <= self.first.payload_len
            && self.frame_len + next.payload_len <= 65_535
    }
}

/// A frame that may merge.
#[derive(Clone, Debug)]
struct Plain {
    /// The headers with zeros for all that may differ.
    alike: Vec<u8>,
    /// The identification of IPv4 without DF.
    id: Option<u16>,
    sequence: Option<u32>,
    next_sequence: Option<u32>,
    push: bool,
    payload_len: usize,
}

/// Which arrivals of a batch are written together, in order.
pub(crate) fn groups(options: CoalesceOptions, batch: &[Arrival]) -> Vec<Vec<usize>> {
    let mut model = Model::default();
    for (index, arrival) in batch.iter().enumerate() {
        let flow = flow(&arrival.frame);
        match flow.zip(plain(options, &arrival.frame)) {
            Some((flow, plain)) => model.join(index, arrival.key, flow, plain),
            None => {
                model.end(|run| match flow {
                    Some(flow) => run.flow == flow,
                    None => may_be_of(&arrival.frame, run.flow),
                });
                model.written.push(vec![index]);
            }
        }
        model.end(Run::is_sealed);
    }
    model.end(|_| true);
    model.written
}

#[derive(Default)]
struct Model {
    /// The oldest first.
    open: Vec<Run>,
    written: Vec<Vec<usize>>,
}

impl Model {
    fn end(&mut self, which: impl Fn(&Run) -> bool) {
        let ended = self.open.extract_if(.., |run| which(run));
        self.written.extend(ended.map(|run| run.arrivals));
    }

    fn join(&mut self, index: usize, key: MergeKey, flow: Flow, plain: Plain) {
        let mut runs = self.open.iter_mut();
        if let Some(run) = runs.find(|run| run.flow == flow && run.continues(key, &plain)) {
            run.arrivals.push(index);
            run.frame_len += plain.payload_len;
            run.last = plain;
            return;
        }
        self.end(|run| run.flow == flow);
        if self.open.len() == RUNS_MAX {
            self.written.push(self.open.remove(0).arrivals);
        }
        self.open.push(Run {
            flow,
            key,
            arrivals: vec![index],
            frame_len: plain.alike.len() + plain.payload_len,
            first: plain.clone(),
            last: plain,
        });
    }
}

/// Whether a frame of no known flow may belong to this one.
fn may_be_of(frame: &[u8], (_, source, destination, ..): Flow) -> bool {
    let packet = SlicedPacket::from_ethernet(frame);
    let addresses = packet.ok().as_ref().and_then(addresses);
    addresses == Some((source, destination))
}

/// What a TCP or UDP frame merges by, if it may.
fn plain(options: CoalesceOptions, frame: &[u8]) -> Option<Plain> {
    let (tcp, source, ..) = flow(frame)?;
    let enabled = if tcp { options.tcp } else { options.udp };
    let fits = u32::try_from(frame.len() - 14).unwrap() <= options.mtu_bytes;
    let is_sound = || checksums_are_right(frame) || checksum_is_partial(frame);
    if !(enabled && fits && has_plain_network(frame) && is_sound()) {
        return None;
    }
    let offset = if source.is_ipv4() { 34 } else { 54 };
    let mut alike = frame[..offset].to_vec();
    let mut id = None;
    if source.is_ipv4() {
        let counts = frame[20] & 0x40 == 0;
        id = counts.then(|| u16::from_be_bytes([frame[18], frame[19]]));
        alike[16..20].fill(0);
        alike[24..26].fill(0);
    } else {
        alike[18..20].fill(0);
    }
    let transport = &frame[offset..];
    let mut plain = if tcp {
        tcp_part(transport)
    } else {
        udp_part(transport)
    }?;
    alike.append(&mut plain.alike);
    (plain.payload_len > 0).then_some(Plain { alike, id, ..plain })
}

/// Right behind Ethernet, nothing behind or in the header, no fragment.
fn has_plain_network(frame: &[u8]) -> bool {
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame[12..15] {
        [0x08, 0x00, 0x45] => 14 + len(16) == frame.len() && len(20) & !0x4000 == 0,
        [0x86, 0xdd, _] => 54 + len(18) == frame.len() && matches!(frame[20], 6 | 17),
        _ => false,
    }
}

fn tcp_part(segment: &[u8]) -> Option<Plain> {
    let header_len = usize::from(segment[12] >> 4) * 4;
    let payload_len = segment.len() - header_len;
    let flags = segment[13];
    let sequence = u32::from_be_bytes(segment[4..8].try_into().unwrap());
    let mut alike = segment[..header_len].to_vec();
    alike[4..8].fill(0);
    alike[13] &= !PSH;
    alike[16..18].fill(0);
    (flags & !(ACK | PSH | ECE) == 0).then(|| Plain {
        alike,
        id: None,
        sequence: Some(sequence),
        next_sequence: Some(sequence.wrapping_add(u32::try_from(payload_len).unwrap())),
        push: flags & PSH != 0,
        payload_len,
    })
}

fn udp_part(segment: &[u8]) -> Option<Plain> {
    let has_checksum = segment[6..8] != [0, 0];
    let alike = [&segment[..4], &[0; 4]].concat();
    has_checksum.then(|| Plain {
        alike,
        id: None,
        sequence: None,
        next_sequence: None,
        push: false,
        payload_len: segment.len() - 8,
    })
}
