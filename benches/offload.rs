//! Cutting super-frames and joining frames, payload bytes per second and packets per second: a batch of one TCP stream, of four
//! interleaved ones, and of equal-size datagrams. What a lane pays in between, sends and writes, is not in it. No I/O, no allocation.
//!
//! ```text
//! cargo bench --bench offload
//! ```

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use silk_vtep::offload::{
    CoalesceOptions, Coalescer, HEADER_LEN_MAX, MergeKey, Merged, Segmenter, Slice,
};
use silk_vtep::wire::vnet::{GsoType, VnetHeader};

/// TCP payload of a frame under an overlay's MTU of 1,410 bytes.
const MSS: u16 = 1370;
/// What a container sends in one go (`gso_max_size`): 45 segments.
const SUPER_PAYLOAD_LEN: usize = 45 * MSS as usize;
/// Small datagrams, as many as one send holds.
const DATAGRAM_LEN: u16 = 64;
const DATAGRAMS: usize = 64;

/// A super-frame of stream `n`.
fn super_frame(tcp: bool, n: u16) -> (VnetHeader, Vec<u8>) {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 1, 1], 64);
    let mut frame = Vec::new();
    let written = if tcp {
        let payload = vec![7; SUPER_PAYLOAD_LEN];
        let builder = builder.tcp(40_000 + n, 80, 1, 1000).ack(7);
        builder.write(&mut frame, &payload)
    } else {
        let payload = vec![7; usize::from(DATAGRAM_LEN) * DATAGRAMS];
        builder.udp(40_000 + n, 53).write(&mut frame, &payload)
    };
    written.expect("a Vec takes all");
    // Without NEEDS_CSUM the addresses give the pseudo-header's sum; the rest of the work is the same.
    let header = VnetHeader {
        gso_type: if tcp { GsoType::TcpV4 } else { GsoType::UdpL4 },
        gso_size: if tcp { MSS } else { DATAGRAM_LEN },
        ..VnetHeader::default()
    };
    (header, frame)
}

/// Its frames in one buffer, and where they are.
fn cut(header: &VnetHeader, frame: &[u8], buffer: &mut Vec<u8>) -> Vec<Slice> {
    let segmenter = Segmenter::new(frame, header).expect("an honest super-frame");
    let append = |index| {
        let mut slot = [0; HEADER_LEN_MAX];
        let payload = segmenter.emit(index, &mut slot);
        let start = buffer.len();
        buffer.extend_from_slice(&slot[..segmenter.header_len()]);
        buffer.extend_from_slice(&frame[payload]);
        Slice {
            buffer: 0,
            start,
            end: buffer.len(),
        }
    };
    (0..segmenter.segments()).map(append).collect()
}

fn throughput(frames: &[Slice]) -> Throughput {
    let bytes: usize = frames.iter().map(Slice::len).sum();
    Throughput::ElementsAndBytes {
        elements: frames.len() as u64,
        bytes: bytes as u64,
    }
}

fn segment(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for (name, tcp) in [("tcp 1370", true), ("udp 64", false)] {
        let (header, frame) = super_frame(tcp, 0);
        group.throughput(throughput(&cut(&header, &frame, &mut Vec::new())));
        let mut slots = vec![[0; HEADER_LEN_MAX]; DATAGRAMS];
        group.bench_function(name, |b| {
            b.iter(|| {
                let segmenter = Segmenter::new(black_box(&frame), &header);
                let segmenter = segmenter.expect("an honest super-frame");
                for (index, slot) in slots.iter_mut().take(segmenter.segments()).enumerate() {
                    black_box(segmenter.emit(index, slot));
                }
            });
        });
    }
    group.finish();
}

fn coalesce(c: &mut Criterion) {
    let mut group = c.benchmark_group("coalesce");
    for (name, tcp, streams) in [
        ("tcp 1370, 1 stream", true, 1),
        ("tcp 1370, 4 streams", true, 4),
        ("udp 64", false, 1),
    ] {
        let mut buffer = Vec::new();
        let mut flows = Vec::new();
        for n in 0..streams {
            let (header, frame) = super_frame(tcp, n);
            flows.push(cut(&header, &frame, &mut buffer));
        }
        let batch: Vec<Slice> = (0..flows[0].len())
            .flat_map(|index| flows.iter().map(move |flow| flow[index]))
            .collect();
        group.throughput(throughput(&batch));
        group.bench_function(name, |b| {
            let mut coalescer = coalescer();
            b.iter(|| join(&mut coalescer, black_box(&buffer), &batch));
        });
    }
    group.finish();
}

fn coalescer() -> Coalescer {
    Coalescer::new(CoalesceOptions {
        mtu_bytes: 1410,
        tcp: true,
        udp: true,
    })
}

fn join(coalescer: &mut Coalescer, buffer: &[u8], batch: &[Slice]) {
    let key = MergeKey {
        source: [10, 0, 32, 12].into(),
        tos: 0,
        header: [0x88, 0, 0, 3, 0, 0, 1, 0],
    };
    let mut out = |merged: &Merged<'_>| {
        black_box(merged.frame_len());
    };
    for at in batch {
        coalescer.push(&key, *at, &buffer[at.range()], &mut out);
    }
    coalescer.flush(&mut out);
}

criterion_group!(benches, segment, coalesce);
criterion_main!(benches);
