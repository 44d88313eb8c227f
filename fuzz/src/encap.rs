//! Raw frames of the host through the sending side of the core.
//!
//! ```text
//! | setting | mark (4) | Ethernet frame ...
//! ```
//! `setting` is [`world`](super::world)'s.

use silk_vtep::DropReason;
use silk_vtep::vtep::{self, Egress, Encap};
use silk_vtep::wire::ethernet::Frame;
use silk_vtep::wire::vxlan::Header;
use silk_vtep::wire::{Mark, flow};

use super::naive::{Naive, Outgoing, path};
use super::world::world;

/// The verdict is the naive one, the header parses back, and the flow's hash is what it may depend on.
pub fn target(data: &[u8]) {
    let Some((&[setting, a, b, c, d], frame)) = data.split_first_chunk() else {
        return;
    };
    let (world, mark) = (world(setting), u32::from_be_bytes([a, b, c, d]));
    let expected = world.naive.outgoing(frame, mark);
    match vtep::egress(&world.tables, frame, Mark(mark)) {
        Egress::Encap(encap) => {
            assert_eq!(Ok(outgoing(&encap)), expected);
            assert_eq!(exceeded(&world.naive, &expected, frame.len()), None);
            check_headers(&encap, world.naive.local.gbp);
            check_hash(frame, encap.flow_hash);
        }
        Egress::Reply(reply) => {
            assert_eq!(Ok(Outgoing::Reply(reply.frame().to_vec())), expected);
        }
        Egress::Fragment { encap, mtu } => {
            assert_eq!(Ok(outgoing(&encap)), expected);
            let exceeded = exceeded(&world.naive, &expected, frame.len());
            assert!(exceeded == Some(mtu) && path::may_be_fragmented(frame));
        }
        Egress::TooBig(too_big) => {
            let exceeded = exceeded(&world.naive, &expected, frame.len());
            assert!(exceeded == Some(too_big.mtu) && !path::may_be_fragmented(frame));
            assert_eq!(too_big.reason(frame), path::reason(frame, too_big.mtu));
        }
        Egress::Drop(reason) => assert_eq!(Err(reason), expected),
    }
}

fn outgoing(encap: &Encap<'_>) -> Outgoing {
    let copies = encap.destinations.iter();
    Outgoing::Encap {
        mac: encap.destination_mac,
        outer: encap.outer,
        copies: copies.map(|to| (to.underlay, encap.header(to))).collect(),
    }
}

/// What the path of the only copy carries, if that is less.
fn exceeded(naive: &Naive, outgoing: &Result<Outgoing, DropReason>, len: usize) -> Option<u32> {
    match outgoing {
        Ok(Outgoing::Encap { outer, copies, .. }) => match copies.as_slice() {
            [(only, _)] => naive.exceeded(outer, only, len),
            _ => None,
        },
        Ok(Outgoing::Reply(_)) | Err(_) => None,
    }
}

fn check_headers(encap: &Encap<'_>, gbp: bool) {
    assert!(!encap.destinations.is_empty());
    for to in encap.destinations {
        let header = encap.header(to);
        let parsed = Header::parse(&header, gbp).expect("what we send we would take");
        assert_eq!(parsed.vni, to.vni);
        let kept = |mark: Mark| Mark(mark.0 & 0x0048_ffff);
        assert_eq!(parsed.mark, encap.mark.filter(|mark| mark.0 != 0).map(kept));
        assert_eq!(to.peer.underlay, to.underlay.ip());
    }
}

/// MACs, TOS and TTL are no inputs of the hash, and the way back hashes alike.
fn check_hash(frame: &[u8], hash: u32) {
    let hash_of = |frame: &[u8]| flow::hash(Frame::new_checked(frame).expect("as long as before"));
    assert_eq!(hash_of(frame), hash);
    let mut other = frame.to_vec();
    other[..12].fill(2);
    let Some(addresses) = addresses(frame) else {
        return assert_eq!(hash_of(&other), hash);
    };
    match frame[12] {
        0x08 => {
            other[15] ^= 0xff;
            other[22] ^= 0xff;
        }
        _ => other[21] ^= 0xff,
    }
    assert_eq!(hash_of(&other), hash);
    if has_extension_headers(frame) {
        return;
    }
    let half = addresses.len() / 2;
    other[addresses].rotate_left(half);
    if let Some(ports) = ports(frame) {
        other[ports..ports + 4].rotate_left(2);
    }
    assert_eq!(hash_of(&other), hash, "the way back");
}

/// Where both addresses of an IP packet are.
fn addresses(frame: &[u8]) -> Option<std::ops::Range<usize>> {
    match frame[12..14] {
        [0x08, 0x00] => Some(26..34),
        [0x86, 0xdd] => Some(22..54),
        _ => None,
    }
}

/// Ports are behind them, who knows where.
fn has_extension_headers(frame: &[u8]) -> bool {
    frame[12] == 0x86 && matches!(frame[20], 0 | 43 | 44 | 50 | 51 | 60 | 135 | 139 | 140)
}

/// Where the ports are, if there are any. Whether they count is the hash's to know: swapped, they
/// count as before.
fn ports(frame: &[u8]) -> Option<usize> {
    let (protocol, at) = match frame[12] {
        0x08 => (frame[23], 14 + 4 * usize::from(frame[14] & 15)),
        _ => (frame[20], 54),
    };
    let has_ports = matches!(protocol, 6 | 17 | 132) && at >= 34;
    (has_ports && at + 4 <= frame.len()).then_some(at)
}
