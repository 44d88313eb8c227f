//! Netlink messages as the kernel writes them.

use super::Seed;

const NUMBER: u32 = 7;
const OURS: u32 = 7;

/// Attribute bytes: kind, value.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, body: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = u32::try_from(16 + body.len() + attributes.len()).expect("short");
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &NUMBER.to_ne_bytes(),
        &[0; 4],
        body,
        &attributes,
    ]
    .concat()
}

/// RTM_NEWLINK or RTM_DELLINK of a TAP.
fn link(kind: u16, family: u8) -> Vec<u8> {
    let body = [
        &[family, 0, 1, 0],
        &OURS.to_ne_bytes()[..],
        &[0x43, 0x10, 1, 0],
        &[0; 4],
    ]
    .concat();
    let tun = [
        attribute(3, &[2]),
        attribute(5, &[1]),
        attribute(7, &[1]),
        attribute(8, &2_u32.to_ne_bytes()),
    ];
    let info = [attribute(1, b"tun\0"), attribute(2, &tun.concat())];
    message(
        kind,
        0,
        &body,
        &[
            attribute(3, b"silk-vtep\0"),
            attribute(4, &1410_u32.to_ne_bytes()),
            attribute(1, &[0xee, 0xee, 10, 255, 108, 0]),
            attribute(6, b"mq\0"),
            attribute(16, &[6]),
            attribute(20, b"silk-vtep\0"),
            attribute(18, &info.concat()),
        ],
    )
}

/// The kernel's own device.
fn vxlan() -> Vec<u8> {
    let body = [&[0, 0, 1, 0], &9_u32.to_ne_bytes()[..], &[0; 8]].concat();
    let data = [
        attribute(1, &100_u32.to_ne_bytes()),
        attribute(15, &4789_u16.to_be_bytes()),
        attribute(23, &[]),
    ];
    let info = [attribute(1, b"vxlan\0"), attribute(2, &data.concat())];
    let attributes = [attribute(3, b"vxlan0\0"), attribute(18, &info.concat())];
    message(16, 0, &body, &attributes)
}

fn address(kind: u16, v6: bool) -> Vec<u8> {
    let (family, prefix, octets) = if v6 {
        (
            10,
            64,
            vec![0xfd, 0, 0, 0, 0, 0, 0, 0x6c, 0, 0, 0, 0, 0, 0, 0, 0],
        )
    } else {
        (2, 32, vec![10, 255, 108, 0])
    };
    let body = [&[family, prefix, 0x80, 0], &OURS.to_ne_bytes()[..]].concat();
    let flags = attribute(8, &0x200_u32.to_ne_bytes());
    message(
        kind,
        0,
        &body,
        &[attribute(1, &octets), attribute(2, &octets), flags],
    )
}

fn route(kind: u16, route_type: u8, v6: bool) -> Vec<u8> {
    let (family, length, to, via) = if v6 {
        let mut to = vec![0; 16];
        to[0] = 0xfd;
        (10, 16, to.clone(), to)
    } else {
        (2, 16, vec![10, 255, 0, 0], vec![169, 254, 0, 2])
    };
    let body = [family, length, 0, 0, 254, 3, 0, route_type, 4, 0, 0, 0];
    let mut attributes = vec![attribute(15, &254_u32.to_ne_bytes()), attribute(1, &to)];
    if route_type == 1 {
        attributes.push(attribute(5, &via));
        attributes.push(attribute(4, &OURS.to_ne_bytes()));
        attributes.push(attribute(6, &100_u32.to_ne_bytes()));
    }
    message(kind, 0, &body, &attributes)
}

fn neighbor() -> Vec<u8> {
    let body = [&[2, 0, 0, 0], &OURS.to_ne_bytes()[..], &[0x80, 0, 0, 1]].concat();
    let attributes = [
        attribute(1, &[169, 254, 0, 2]),
        attribute(2, &[0xee, 0xee, 10, 255, 108, 0]),
    ];
    message(28, 0, &body, &attributes)
}

/// NLMSG_ERROR with the kernel's text, as it is with and without NLM_F_CAPPED.
fn refusal(capped: bool) -> Vec<u8> {
    let quoted = message(24, 5, &[0; 12], &[]);
    let quoted = if capped { &quoted[..16] } else { &quoted[..] };
    let body = [&(-22_i32).to_ne_bytes()[..], quoted].concat();
    let flags = if capped { 0x300 } else { 0x200 };
    message(2, flags, &body, &[attribute(1, b"oops\0")])
}

pub(super) fn netlink() -> Vec<Seed> {
    let acknowledged = message(2, 0, &[0; 20], &[]);
    let done = message(3, 2, &[0; 4], &[]);
    [
        ("link", link(16, 0)),
        ("link-gone", link(17, 0)),
        ("link-left-bridge", link(17, 7)),
        ("vxlan", vxlan()),
        ("address", address(20, false)),
        ("address-v6", address(20, true)),
        ("address-gone", address(21, false)),
        ("route", route(24, 1, false)),
        ("route-v6", route(24, 1, true)),
        ("route-unreachable-gone", route(25, 7, false)),
        ("neighbor", neighbor()),
        ("dump", [link(16, 0), vxlan(), done.clone()].concat()),
        (
            "dump-of-all",
            [address(20, false), route(24, 1, true), neighbor(), done].concat(),
        ),
        ("acknowledgement", acknowledged),
        ("refusal", refusal(false)),
        ("refusal-capped", refusal(true)),
        ("interrupted", message(3, 0x12, &[0; 4], &[])),
        ("overrun", message(4, 0, &[], &[])),
        ("nothing", message(1, 0, &[], &[])),
    ]
    .map(|(name, bytes)| Seed::new("netlink", format!("{name}.bin"), bytes))
    .into()
}
