//! The Internet checksum, bytes per second: `sum`, which the packet path uses, and `scalar`, the definition in RFC 1071 section 4.1 word
//! by word, over a header, a full segment and a super-frame's payload.
//!
//! ```text
//! cargo bench --bench checksum
//! ```

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use silk_vtep::wire::checksum;

const LENS: [usize; 4] = [20, 64, 1_448, 61_650];

criterion_group!(benches, sums);
criterion_main!(benches);

fn sums(c: &mut Criterion) {
    for len in LENS {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 31) as u8).collect();
        assert_eq!(fast(&bytes), scalar(&bytes));
        let mut group = c.benchmark_group(format!("checksum {len} B"));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("sum", |b| b.iter(|| fast(black_box(&bytes))));
        group.bench_function("scalar", |b| b.iter(|| scalar(black_box(&bytes))));
    }
}

fn fast(bytes: &[u8]) -> u16 {
    checksum::fold(checksum::sum(0, bytes))
}

/// A carry after each word keeps the compiler from making vectors of it.
fn scalar(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
