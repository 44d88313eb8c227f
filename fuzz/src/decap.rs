//! Raw datagrams through the receiving side of the core.
//!
//! ```text
//! | setting | sender | outer TOS | UDP payload ...
//! ```
//! `setting` is [`world`](super::world)'s.

use silk_vtep::vtep::{self, Deliver, Ingress, Received};
use silk_vtep::wire::{ip, vxlan};

use super::naive::Incoming;
use super::repair::{fold, sum};
use super::world::{sender, world};

/// The verdict is the naive one, and what it has written changes two fields of the inner header and leaves its sum as it was.
pub fn target(data: &[u8]) {
    let Some((&[setting, number, tos], payload)) = data.split_first_chunk() else {
        return;
    };
    let (world, source) = (world(setting), sender(number));
    let expected = world.naive.incoming(payload, source, tos);
    let peer = world.tables.peers.lookup(source).is_some();
    match vtep::ingress(&world.tables, payload, Received { source, tos }) {
        Ingress::Deliver(deliver) => {
            assert_eq!(deliver.peer.is_some(), peer);
            let ecn = deliver.ecn.map(|ecn| ecn as u8);
            let mark = deliver.mark.map(|mark| mark.0);
            assert_eq!(Ok(Incoming::Deliver { mark, ecn }), expected);
            check_ecn(&payload[vxlan::HEADER_LEN..], &deliver);
        }
        Ingress::Unsolicited { .. } => panic!("the world has no policy"),
        Ingress::Reply { reply, peer: asker } => {
            assert_eq!(asker.is_some(), peer);
            assert_eq!(Ok(Incoming::Reply(reply.frame().to_vec())), expected);
        }
        Ingress::Drop { reason, peer: from } => {
            assert_eq!(from.is_some(), peer);
            assert_eq!(Err(reason), expected);
        }
    }
}

fn check_ecn(inner: &[u8], deliver: &Deliver<'_>) {
    let Some(ecn) = deliver.ecn else { return };
    let mut written = inner.to_vec();
    ip::write_ecn(&mut written, ecn);
    let is_v4 = inner[12..14] == [0x08, 0x00];
    let changed: Vec<usize> = (0..inner.len())
        .filter(|&at| inner[at] != written[at])
        .collect();
    let may_change = if is_v4 {
        [15, 24, 25].as_slice()
    } else {
        [15].as_slice()
    };
    assert!(changed.iter().all(|at| may_change.contains(at)));
    let (bits, shift) = if is_v4 { (3, 0) } else { (0x30, 4) };
    assert_eq!((written[15] & bits) >> shift, ecn as u8);
    assert_eq!(inner[15] & !bits, written[15] & !bits, "the rest stays");
    if is_v4 {
        let [before, after] = [inner, &written].map(|frame| fold(sum(&frame[14..34])) % 0xffff);
        assert_eq!(before, after);
    }
}
