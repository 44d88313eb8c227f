//! Capture files.

use super::Seed;
use super::packets::{OWN, OWN_V4, PEER, PEER_V4, udp};

/// Numbers of a file in one byte order.
#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Big => value.to_be_bytes(),
            Self::Little => value.to_le_bytes(),
        }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Self::Big => value.to_be_bytes(),
            Self::Little => value.to_le_bytes(),
        }
    }

    fn words(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }
}

fn pcap(order: Order, magic: u32, link: u32, packets: &[&[u8]]) -> Vec<u8> {
    let mut file = order.u32(magic).to_vec();
    file.extend([order.u16(2), order.u16(4)].concat());
    file.extend(order.words(&[0, 0, 65_535, link]));
    for (number, packet) in (1..).zip(packets) {
        let len = packet.len() as u32;
        file.extend(order.words(&[number, 7, len, len + number - 1]));
        file.extend(*packet);
    }
    file
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = order.u32(padded as u32 + 12);
    let padding = vec![0; padded - body.len()];
    [&order.u32(kind), &len, body, &padding, &len].concat()
}

fn section(order: Order) -> Vec<u8> {
    let version = [order.u16(1), order.u16(0)].concat();
    let body = [&order.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
    block(order, 0x0a0d_0d0a, &body)
}

fn interface(order: Order, link: u16, snaplen: u32) -> Vec<u8> {
    let body = [&order.u16(link)[..], &[0; 2], &order.u32(snaplen)].concat();
    block(order, 1, &body)
}

fn packet(order: Order, kind: u32, interface: u32, bytes: &[u8]) -> Vec<u8> {
    let len = bytes.len() as u32;
    let head = match kind {
        3 => order.u32(len).to_vec(),
        2 => {
            let interface = [order.u16(interface as u16), [0; 2]].concat();
            [interface, order.words(&[0, 9, len, len])].concat()
        }
        _ => order.words(&[interface, 0, 9, len, len + 1]),
    };
    block(order, kind, &[&head, bytes].concat())
}

/// The frame as an underlay would carry it.
fn underlay(inner: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let payload = [&[0x88, 0, 0, 3, 0, 0, 1, 0], inner].concat();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 16, 14], [10, 0, 32, 12], 64)
        .udp(40_000, 4789)
        .write(&mut frame, &payload)
        .expect("a Vec takes all");
    frame
}

pub(super) fn capture() -> Vec<Seed> {
    let inner = udp((OWN, PEER), (OWN_V4, PEER_V4), 0);
    let outer = underlay(&inner);
    let mut fragment = outer.clone();
    fragment[20] = 0x20;
    let packets = [&outer[..], &fragment, &inner[..20]];
    let raw = [&outer[14..]];
    let all_kinds = |order| {
        [
            section(order),
            interface(order, 1, 0),
            interface(order, 101, 100),
            packet(order, 6, 0, &outer),
            block(order, 5, &[0; 12]),
            packet(order, 6, 1, &outer[14..]),
            packet(order, 2, 0, &outer),
            packet(order, 3, 0, &outer),
            block(order, 0x4321, b"whatever"),
        ]
        .concat()
    };
    let two_sections = [all_kinds(Order::Big), all_kinds(Order::Little)].concat();
    let whole = pcap(Order::Little, 0xa1b2_c3d4, 1, &packets);
    let cut = whole[..whole.len() - 3].to_vec();
    let no_interface = [section(Order::Big), packet(Order::Big, 6, 0, &outer)].concat();
    [
        ("pcap", 0, whole),
        (
            "pcap-in-pieces",
            7,
            pcap(Order::Little, 0xa1b2_c3d4, 1, &packets),
        ),
        ("pcap-big-nano", 0, pcap(Order::Big, 0xa1b2_3c4d, 101, &raw)),
        (
            "pcap-foreign",
            0,
            pcap(Order::Big, 0xa1b2_c3d4, 127, &packets),
        ),
        ("pcap-cut", 1, cut),
        ("pcapng-big", 0, all_kinds(Order::Big)),
        ("pcapng-little", 5, all_kinds(Order::Little)),
        ("pcapng-two-sections", 200, two_sections),
        ("pcapng-no-interface", 0, no_interface),
        ("gzip", 0, vec![0x1f, 0x8b, 8, 0]),
        ("short", 1, vec![0xa1, 0xb2]),
    ]
    .map(|(name, pieces, file)| {
        let bytes = [&[pieces], &file[..]].concat();
        Seed::new("capture", format!("{name}.bin"), bytes)
    })
    .into()
}
