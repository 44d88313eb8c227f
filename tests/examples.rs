//! The examples do what they say.

#[path = "../examples/fuzz_harness.rs"]
#[allow(unreachable_pub, reason = "a program of its own elsewhere")]
mod fuzz_harness;
#[path = "../examples/two_cores.rs"]
#[allow(unreachable_pub, reason = "a program of its own elsewhere")]
mod two_cores;

use fuzz_harness::Harness;
use two_cores::exchange;

#[test]
fn what_arrives_over_a_bad_wire_is_what_was_sent_whatever_the_seed() {
    for seed in 0..5 {
        let outcome = exchange(seed).expect("its packets can be built");
        let damage = outcome.damage;
        assert!(damage.lost > 0 && damage.doubled > 0 && damage.reordered > 0);
        for received in [&outcome.at_a, &outcome.at_b] {
            assert!(
                received.datagrams > 300 && received.stream_bytes > 200_000,
                "{received:?}"
            );
            assert!(received.packets < received.datagrams + received.stream_bytes / 1000);
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let [one, same, other] =
        [1, 1, 2].map(|seed| exchange(seed).expect("its packets can be built"));
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn the_harness_gives_a_verdict_on_any_bytes() {
    let mut harness = Harness::new().expect("its prefixes parse");
    assert_eq!(harness.datagram(b""), "drop, short-datagram");
    assert_eq!(
        harness.datagram(&[0x08, 0, 0, 0, 0, 0, 2, 0]),
        "drop, unknown-vni"
    );
    let delivered = [&[0x88, 0, 0, 7, 0, 0, 1, 0][..], &[2; 12], &[0x88, 0xb5]].concat();
    assert_eq!(harness.datagram(&delivered), "deliver, mark Some(7)");
    assert_eq!(harness.frame(b""), "drop, short-frame");
    let bridged = [&[0xee, 0xee, 10, 255, 43, 0][..], &[2; 6], &[0x88, 0xb5]].concat();
    assert_eq!(
        harness.frame(&bridged),
        "encap, [[08, 00, 00, 00, 00, 00, 01, 00]]"
    );
}
