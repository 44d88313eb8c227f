//! The pieces of one packet, as `inet_frag_queue_insert` keeps them.

use std::ops::Range;

use super::Settled;
use crate::host::HostDrop;
use crate::host::ip::Fragment;
use crate::wire::Ecn;

/// The largest IP packet with its headers; for IPv6 without the fixed one.
const MAX_PACKET_BYTES: usize = 65_535;

/// One incomplete packet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) born: u64,
    /// The fragments that are in it.
    pub(super) packets: Vec<u64>,
    /// The payload so far, holes included.
    pub(super) bytes: Vec<u8>,
    /// Stretches of it that came in order, sorted. As in Linux only the last one grows: bytes that cover two are an overlap.
    runs: Vec<Range<usize>>,
    /// Bytes there are.
    filled: usize,
    /// Where the packet ends, as far as is known.
    len: usize,
    /// The fragment without MF is there.
    last_in: bool,
    /// Set by the first fragment.
    first: Option<First>,
    /// A bit for each value of the ECN field that a fragment had.
    ecn_seen: u8,
}

/// What the first fragment decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) protocol: u8,
    tos: u8,
    header_len: usize,
}

/// How a fragment was refused.
pub(super) enum Refusal {
    /// It alone is dropped.
    Alone(HostDrop),
    /// Its whole packet is.
    Packet(HostDrop),
}

impl Queue {
    /// An empty one that packet `packet` begins.
    pub(super) fn born_at(packet: u64) -> Self {
        Self {
            born: packet,
            ..Self::default()
        }
    }

    pub(super) fn insert(
        &mut self,
        packet: u64,
        tos: u8,
        fragment: &Fragment<'_>,
        is_v4: bool,
    ) -> Result<(), Refusal> {
        let start = fragment.offset;
        let len = whole_units(fragment, is_v4)?;
        let end = start + len;
        self.check_end(end, fragment.more)?;
        if len == 0 {
            return Err(Refusal::Packet(HostDrop::FragmentMalformed));
        }
        self.add_run(start..end)?;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(&fragment.bytes[..len]);
        self.filled += len;
        self.packets.push(packet);
        self.ecn_seen |= 1 << (Ecn::from_tos(tos) as u8);
        if start == 0 {
            self.first = Some(First {
                protocol: fragment.protocol,
                tos,
                header_len: fragment.header_len,
            });
        }
        Ok(())
    }

    /// Holds the fragment's end against the packet's, and learns from it.
    fn check_end(&mut self, end: usize, more: bool) -> Result<(), Refusal> {
        let malformed = Err(Refusal::Packet(HostDrop::FragmentMalformed));
        if !more {
            if end < self.len || self.last_in && end != self.len {
                return malformed;
            }
            self.last_in = true;
            self.len = end;
        } else if end > self.len {
            if self.last_in {
                return malformed;
            }
            self.len = end;
        }
        Ok(())
    }

    fn add_run(&mut self, run: Range<usize>) -> Result<(), Refusal> {
        let at = self.runs.partition_point(|other| other.end <= run.start);
        match self.runs.get(at) {
            Some(other) if other.start <= run.start && run.end <= other.end => {
                return Err(Refusal::Alone(HostDrop::FragmentDuplicate));
            }
            Some(other) if other.start < run.end => {
                return Err(Refusal::Packet(HostDrop::FragmentOverlap));
            }
            Some(_) => self.runs.insert(at, run),
            None => match self.runs.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => self.runs.push(run),
            },
        }
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.first.is_some() && self.last_in && self.filled == self.len
    }

    /// What the first fragment decided, and the TOS of the whole packet.
    pub(super) fn tos(&self) -> Result<(First, u8), HostDrop> {
        let first = self.first.ok_or(HostDrop::FragmentIncomplete)?;
        if first.header_len + self.len > MAX_PACKET_BYTES {
            return Err(HostDrop::FragmentMalformed);
        }
        let ecn = joined_ecn(self.ecn_seen).ok_or(HostDrop::FragmentEcn)?;
        Ok((first, first.tos | ecn))
    }

    pub(super) fn settle(&self, fate: Result<(), HostDrop>, settled: &mut Vec<Settled>) {
        let packets = self.packets.iter();
        settled.extend(packets.map(|&packet| Settled { packet, fate }));
    }
}

/// The fragment's bytes that count. Every piece but the last must be a multiple of eight bytes: IPv4 cuts off what is over, IPv6
/// refuses it, and what would end past the largest packet.
fn whole_units(fragment: &Fragment<'_>, is_v4: bool) -> Result<usize, Refusal> {
    let len = fragment.bytes.len();
    let ragged = fragment.more && !len.is_multiple_of(8);
    if is_v4 {
        return Ok(if ragged { len & !7 } else { len });
    }
    if ragged || fragment.offset + len > MAX_PACKET_BYTES {
        return Err(Refusal::Alone(HostDrop::FragmentMalformed));
    }
    Ok(len)
}

/// The ECN bits to add to the first fragment's (`ip_frag_ecn_table`): CE if any had it, and nothing if some say that they are not
/// ECN-capable and others that they are.
fn joined_ecn(seen: u8) -> Option<u8> {
    const NOT_ECT: u8 = 1 << Ecn::NotEct as u8;
    const CE: u8 = 1 << Ecn::Ce as u8;
    if seen & NOT_ECT != 0 && seen != NOT_ECT {
        None
    } else if seen & CE != 0 {
        Some(Ecn::Ce as u8)
    } else {
        Some(0)
    }
}
