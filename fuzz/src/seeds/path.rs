//! Paths that are too narrow: frames that do not fit, what their senders are told, what routers say.

use super::super::repair::{Checksum, repair};
use super::super::world::{DF, INHERIT};
use super::Seed;
use super::packets::{OWN, OWN_V4, OWN_V6, PEER, PEER_V4, PEER_V6, icmp as ping, tagged, udp};

/// The packet made so long.
fn long(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.resize(len, 7);
    repair(&mut frame, Checksum::Complete);
    frame
}

fn with_df(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] |= 0x40;
    repair(&mut frame, Checksum::Complete);
    frame
}

/// IPv6 with these headers between its own and what it carries.
fn extended(mut frame: Vec<u8>, first: u8, extensions: &[u8]) -> Vec<u8> {
    frame.splice(54..54, extensions.iter().copied());
    let len = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame[20] = first;
    frame
}

pub(super) fn encap() -> Vec<Seed> {
    let to = |destination| long(udp((OWN, OWN), (OWN_V4, destination), 0xb9), 700);
    let fragmentable = to("10.255.44.1");
    let whole = with_df(fragmentable.clone());
    let over_v6 = udp((OWN, OWN), (OWN_V6, "fd00:0:0:2f::5"), 0xb9);
    [
        ("inherit-v4", INHERIT, with_df(to(PEER_V4))),
        ("inherit-v6", INHERIT, over_v6.clone()),
        ("inherit-tagged", INHERIT, tagged(&whole, &[0x8100])),
        ("narrow-df", INHERIT, whole.clone()),
        ("narrow-no-df", INHERIT, fragmentable.clone()),
        ("narrow-no-df-set", DF, fragmentable),
        ("narrow-tagged-set", DF, tagged(&whole, &[0x8100])),
        ("narrow-over-v6", 0, long(over_v6, 300)),
    ]
    .map(|(name, setting, frame)| {
        let bytes = [&[setting, 0, 0, 0, 0], &frame[..]].concat();
        Seed::new("encap", format!("{name}.bin"), bytes)
    })
    .into()
}

pub(super) fn icmp() -> Vec<Seed> {
    let v4 = with_df(long(udp((OWN, PEER), (OWN_V4, PEER_V4), 0), 800));
    let v6 = long(udp((OWN, PEER), (OWN_V6, PEER_V6), 0), 1500);
    let mut unreachable = with_df(ping());
    unreachable[34] = 3;
    let mut to_many = v6.clone();
    to_many[38] = 0xff;
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    let mut error = v6.clone();
    error[54] = 1;
    let behind = |fragment: [u8; 8]| extended(error.clone(), 44, &[fragment, options].concat());
    let first = behind([60, 0, 0, 1, 0, 0, 0, 5]);
    let later = behind([60, 0, 0, 9, 0, 0, 0, 5]);
    let messages = [
        ("told-v4", 700_u32, v4.clone()),
        ("told-v4-below", 575, v4),
        ("told-v6", 1400, v6.clone()),
        ("told-v6-below", 1279, v6),
        ("ping", 600, with_df(ping())),
        ("unreachable", 600, unreachable),
        ("to-many", 1400, to_many),
        ("first-fragment-of-an-error", 1400, first),
        ("later-fragment", 1400, later),
    ]
    .map(|(name, mtu, frame)| (name, [&[0], &mtu.to_be_bytes()[..], &frame].concat()));
    let answer = |how: u8, family: u8, mtu: u32, quoted: &[u8]| {
        let bytes = 1500_u16.to_be_bytes();
        [
            &[1 | how, family],
            &mtu.to_be_bytes()[..],
            &bytes,
            &[8; 8],
            quoted,
        ]
        .concat()
    };
    let answers = [
        ("answer-whole", answer(4, 0, 1400, &[0; 40])),
        ("answer-short", answer(4, 0, 600, &[0; 8])),
        ("answer-empty", answer(4, 1, 1300, &[])),
        ("answer-of-another", answer(0, 0, 1400, &[0; 40])),
        ("answer-of-the-host", answer(0, 2, 600, &[])),
        ("answer-v6", answer(4, 1, 1280, &[0; 16])),
    ];
    messages
        .into_iter()
        .chain(answers)
        .map(|(name, bytes)| Seed::new("icmp", format!("{name}.bin"), bytes))
        .collect()
}
