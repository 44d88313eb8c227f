//! A coalescer with buffers around it, as a lane has them.

use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use silk_vtep::offload::{
    self, BadSuperFrame, CoalesceOptions, Coalescer, HEADER_LEN_MAX, MergeKey, Merged, Segmenter,
    Slice,
};
use silk_vtep::wire::vnet::VnetHeader;

use super::frames::{Packet, checksum_is_partial, checksums_are_right, finish_checksum};

pub(crate) const OPTIONS: CoalesceOptions = CoalesceOptions {
    mtu_bytes: 1500,
    tcp: true,
    udp: true,
};

/// The frames a segmenter makes, put together.
pub(crate) fn cut(frame: &[u8], header: &VnetHeader) -> Result<Vec<Vec<u8>>, BadSuperFrame> {
    let segmenter = Segmenter::new(frame, header)?;
    let emit = |index| {
        let mut slot = [0xaa; HEADER_LEN_MAX];
        let payload = segmenter.emit(index, &mut slot);
        let (headers, rest) = slot.split_at(segmenter.header_len());
        assert!(
            rest.iter().all(|byte| *byte == 0xaa),
            "wrote past the headers"
        );
        [headers, &frame[payload]].concat()
    };
    Ok((0..segmenter.segments()).map(emit).collect())
}

/// A frame as a lane pushes it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) key: MergeKey,
    pub(crate) frame: Vec<u8>,
}

impl Arrival {
    pub(crate) fn new(frame: Vec<u8>) -> Self {
        let key = MergeKey {
            source: [10, 0, 32, 12].into(),
            tos: 0,
            header: [0x88, 0, 0, 3, 0, 0, 1, 0],
        };
        Self { key, frame }
    }
}

impl From<&Packet> for Arrival {
    fn from(packet: &Packet) -> Self {
        Self::new(packet.frame())
    }
}

/// One packet as the TAP would see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) header: VnetHeader,
    pub(crate) frame: Vec<u8>,
    /// Which arrivals it was made of.
    pub(crate) arrivals: Vec<usize>,
    /// What each would be written under alone.
    pub(crate) headers: Vec<VnetHeader>,
    /// How many of them are said to be partial.
    pub(crate) partial: u32,
}

/// Received frames, some to a buffer, each behind a VXLAN header.
struct Pool {
    buffers: Vec<Vec<u8>>,
    frames: Vec<Slice>,
}

impl Pool {
    const FRAMES_PER_BUFFER: usize = 5;

    fn new<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut pool = Self {
            buffers: Vec::new(),
            frames: Vec::new(),
        };
        for (index, frame) in frames.enumerate() {
            if index % Self::FRAMES_PER_BUFFER == 0 {
                pool.buffers.push(Vec::new());
            }
            let buffer = pool.buffers.last_mut().unwrap();
            buffer.extend([0xcc; 8]);
            let start = buffer.len();
            buffer.extend(frame);
            pool.frames.push(Slice {
                buffer: index / Self::FRAMES_PER_BUFFER,
                start,
                end: start + frame.len(),
            });
        }
        pool
    }

    fn bytes(&self, slice: &Slice) -> &[u8] {
        &self.buffers[slice.buffer][slice.range()]
    }

    fn written(&self, merged: &Merged<'_>) -> Written {
        let payload = merged.slices().iter().map(|slice| self.bytes(slice));
        let frame: Vec<u8> = std::iter::once(merged.headers())
            .chain(payload)
            .flatten()
            .copied()
            .collect();
        assert_eq!(merged.frame_len(), frame.len());
        assert_eq!(merged.is_super_frame(), merged.slices().len() > 1);
        let index = |frame| self.frames.iter().position(|pushed| *pushed == frame);
        let arrivals = merged.frames().map(index).collect::<Option<_>>();
        Written {
            header: *merged.header(),
            frame,
            arrivals: arrivals.expect("every frame merged was pushed"),
            headers: merged.frame_headers().collect(),
            partial: merged.partial_checksums(),
        }
    }
}

/// What is written of `batches`, in order. Arrivals are counted over all of them.
pub(crate) fn coalesce(options: CoalesceOptions, batches: &[Vec<Arrival>]) -> Vec<Written> {
    let arrivals = || batches.iter().flatten();
    let pool = Pool::new(arrivals().map(|arrival| &arrival.frame[..]));
    let mut slices = pool.frames.iter();
    let mut coalescer = Coalescer::new(options);
    let mut written = Vec::new();
    let mut out = |merged: &Merged<'_>| written.push(pool.written(merged));
    for batch in batches {
        for arrival in batch {
            let at = *slices.next().unwrap();
            coalescer.push(&arrival.key, at, pool.bytes(&at), &mut out);
        }
        coalescer.flush(&mut out);
    }
    written
}

/// Which arrivals of one batch were written together.
pub(crate) fn groups(options: CoalesceOptions, arrivals: &[Arrival]) -> Vec<Vec<usize>> {
    let written = coalesce(options, &[arrivals.to_vec()]);
    assert_faithful(options, arrivals, &written);
    written
        .into_iter()
        .map(|written| written.arrivals)
        .collect()
}

/// What must hold whatever arrived: every frame is written once, in its flow's order, and as it came or in a super-frame of which a
/// card makes the very frames that came, those with their checksum finished that were partial.
pub(crate) fn assert_faithful(options: CoalesceOptions, arrivals: &[Arrival], written: &[Written]) {
    let mut order: Vec<usize> = Vec::new();
    for packet in written {
        order.extend(&packet.arrivals);
        let partial = packet.headers.iter().filter(|header| header.needs_csum);
        assert_eq!(partial.count(), packet.partial as usize);
        if let [arrival] = packet.arrivals[..] {
            let frame = &arrivals[arrival].frame;
            assert_eq!(&packet.frame, frame);
            assert_eq!(packet.headers, [packet.header]);
            // A complete checksum that looks partial by chance may be finished once more: that gives the same again.
            let header = offload::vnet_header(frame, options.mtu_bytes);
            if packet.header != header {
                assert_eq!(packet.header, VnetHeader::default());
                assert!(checksums_are_right(frame));
            }
        } else {
            assert!(packet.frame.len() <= usize::from(u16::MAX));
            let frames = cut(&packet.frame, &packet.header).unwrap();
            let frames: Vec<_> = frames.into_iter().map(without_atomic_id).collect();
            let pushed = packet.arrivals.iter().map(|index| &arrivals[*index]);
            let pushed: Vec<_> = pushed
                .zip(&packet.headers)
                .map(|(arrival, header)| {
                    let mut frame = arrival.frame.clone();
                    assert_eq!(*header, offload::vnet_header(&frame, options.mtu_bytes));
                    assert_eq!(header.needs_csum, checksum_is_partial(&frame));
                    if header.needs_csum {
                        finish_checksum(&mut frame);
                    }
                    without_atomic_id(frame)
                })
                .collect();
            assert!(frames == pushed, "{:?} changed on the way", packet.arrivals);
        }
    }
    let mut once = order.clone();
    once.sort_unstable();
    assert!(
        once.into_iter().eq(0..arrivals.len()),
        "lost or doubled: {order:?}"
    );
    assert_flows_in_order(arrivals, &order);
}

fn assert_flows_in_order(arrivals: &[Arrival], order: &[usize]) {
    let mut last = std::collections::HashMap::new();
    for index in order {
        if let Some(flow) = flow(&arrivals[*index].frame) {
            let before = last.insert(flow, *index);
            assert!(before < Some(*index), "{flow:?}: {before:?} before {index}");
        }
    }
}

/// Protocol, addresses and ports.
pub(crate) type Flow = (bool, IpAddr, IpAddr, u16, u16);

/// The TCP or UDP flow of a frame, in etherparse's opinion.
pub(crate) fn flow(frame: &[u8]) -> Option<Flow> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination) = addresses(&packet)?;
    match packet.transport? {
        TransportSlice::Tcp(tcp) => Some((
            true,
            source,
            destination,
            tcp.source_port(),
            tcp.destination_port(),
        )),
        TransportSlice::Udp(udp) => Some((
            false,
            source,
            destination,
            udp.source_port(),
            udp.destination_port(),
        )),
        _ => None,
    }
}

/// Source and destination of a sliced packet.
pub(crate) fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Arp(_) => None,
    }
}

/// With DF an identification means nothing (RFC 6864 section 4.1), and a card counts it up; IPv4 directly behind Ethernet only.
fn without_atomic_id(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] && frame[20] & 0x40 != 0 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}
