//! What one cell sends, the other receives.

use crate::bench::{A, B, Bench};
use crate::captures::{frames, pcap, read_pcap};
use crate::packets::*;

#[test]
fn what_a_encapsulates_b_delivers() {
    let packets: Vec<_> = (0..500_u16)
        .map(|i| {
            let mut frame = from_a(if i % 2 == 0 { 0 } else { 2 }, 1000 + i);
            frame.extend(vec![i as u8; usize::from(i) * 3]);
            frame
        })
        .collect();
    let at_a = Bench::new(A, "");
    let sent = at_a.verdicts("--from-overlay", &pcap(&packets));
    assert!(sent.iter().all(|line| line["verdict"] == "encap"));
    let underlay = at_a.read("out.pcap");

    let at_b = Bench::new(B, "");
    let received = at_b.verdicts("--from-underlay", &underlay);
    assert!(
        received
            .iter()
            .all(|line| line["verdict"] == "deliver" && line["group"] == 3)
    );
    let delivered = read_pcap(&at_b.read("out.pcap"));
    assert_eq!(delivered.len(), packets.len());
    for (i, ((seconds, nanos, inner), packet)) in delivered.iter().zip(&packets).enumerate() {
        assert_eq!((*seconds, *nanos), (1000, i as u32 * 1_000_000));
        assert_eq!(inner[..6], B_MAC);
        assert_eq!(inner[6..], packet[6..]);
    }
}

#[test]
fn what_the_underlay_cut_into_fragments_arrives_whole() {
    let mut large = from_a(0, 1);
    large.resize(8000, 7);
    let at_a = Bench::new(A, "");
    at_a.verdicts("--from-overlay", &pcap(&[large.clone()]));
    let pieces = fragments(&frames(&at_a.read("out.pcap"))[0], 1480);
    let at_b = Bench::new(B, "");
    let received = at_b.verdicts("--from-underlay", &pcap(&pieces));
    assert_eq!(received.last().expect("lines")["verdict"], "deliver");
    assert_eq!(frames(&at_b.read("out.pcap"))[0][6..], large[6..]);
}
