//! Capture files as `replay` reads them, and what the host makes of their packets.
//!
//! ```text
//! | pieces | a pcap or pcapng file ...
//! ```
//! `pieces`: how many bytes the file gives at a time; 0: as many as are asked for.

use std::io::{self, Cursor, Read};
use std::net::{IpAddr, Ipv4Addr};

use silk_vtep::cli::replay::each_packet;
use silk_vtep::host::{Addresses, Captured, Host, Link, Outcome, Rules};

/// A packet: its link, whether the wire had more, and its bytes.
type Packet = (Link, bool, Vec<u8>);

/// A file that gives its bytes in pieces.
struct Pieces {
    file: Cursor<Vec<u8>>,
    most: usize,
}

impl Read for Pieces {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let most = self.most.min(room.len());
        self.file.read(&mut room[..most])
    }
}

/// However the file is read, the packets are those that a reader of the format's text finds, all of them unless there is damage; and
/// the host takes them.
pub fn target(data: &[u8]) {
    let Some((&pieces, file)) = data.split_first() else {
        return;
    };
    let (whole, error) = read(file, usize::MAX);
    if pieces > 0 {
        assert_eq!(read(file, pieces.into()), (whole.clone(), error.clone()));
    }
    let expected = packets(file);
    match error {
        // All were read, but that a capture of nothing that can be read is an error.
        None => assert_eq!(Some(&whole), expected.as_ref()),
        Some(_) => assert!(
            expected
                .unwrap_or_else(|| whole.clone())
                .starts_with(&whole)
        ),
    }
    let mut host = Host::new(Rules {
        local: IpAddr::V4(Ipv4Addr::new(10, 0, 32, 12)),
        port: 4789,
        addresses: Addresses::AllBut(Default::default()),
        zero_checksum_v6: false,
    });
    let mut settled = 0;
    let mut kept = 0;
    for (link, snapped, bytes) in &whole {
        let captured = Captured {
            link: *link,
            bytes,
            snapped: *snapped,
        };
        match host.receive(captured) {
            Outcome::Kept => kept += 1,
            Outcome::Datagram(datagram) => assert!(datagram.payload.len() <= 65_527),
            Outcome::Drop(_) => {}
        }
        settled += host.settled().count();
    }
    host.finish();
    settled += host.settled().count();
    assert_eq!(settled, kept, "every fragment is settled once");
}

fn read(file: &[u8], most: usize) -> (Vec<Packet>, Option<String>) {
    let reader = Pieces {
        file: Cursor::new(file.to_vec()),
        most,
    };
    let mut packets = Vec::new();
    let read = each_packet(Box::new(reader), |captured| {
        packets.push((captured.link, captured.snapped, captured.bytes.to_vec()));
    });
    (packets, read.err().map(|error| error.to_string()))
}

/// The packets that stand in a file before anything in it is wrong; `None`: it is of neither format.
fn packets(file: &[u8]) -> Option<Vec<Packet>> {
    let magic = file.first_chunk::<4>()?;
    match magic {
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => {
            Some(pcap(&Words { file, big: true }))
        }
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => {
            Some(pcap(&Words { file, big: false }))
        }
        [0x0a, 0x0d, 0x0d, 0x0a] => Some(pcapng(file)),
        _ => None,
    }
}

/// Numbers of a file in one byte order.
struct Words<'a> {
    file: &'a [u8],
    big: bool,
}

impl Words<'_> {
    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.file.get(at..)?.first_chunk()?;
        Some(if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.file.get(at..)?.first_chunk()?;
        Some(if self.big {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    /// As an index.
    fn len(&self, at: usize) -> Option<usize> {
        self.u32(at).map(|len| len as usize)
    }
}

/// draft-ietf-opsawg-pcap: a header of 24 bytes, its last word the link type, and records.
fn pcap(words: &Words<'_>) -> Vec<Packet> {
    let mut packets = Vec::new();
    let Some(link) = words.u32(20) else {
        return packets;
    };
    let mut at = 24;
    while let (Some(len), Some(wire_len)) = (words.len(at + 8), words.len(at + 12)) {
        let start = at + 16;
        let Some(bytes) = words.file.get(start..start + len) else {
            break;
        };
        packets.push((Link::from_number(link), wire_len > len, bytes.to_vec()));
        at = start + len;
    }
    packets
}

/// draft-ietf-opsawg-pcapng: blocks, each with its type and length in front and its length behind. A section begins anew with its byte order
/// and its interfaces.
fn pcapng(file: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut words = Words { file, big: true };
    let mut interfaces: Vec<(u16, u32)> = Vec::new();
    let mut at = 0;
    while let Some(kind) = words.u32(at) {
        if kind == 0x0a0d_0d0a {
            match file.get(at + 8..at + 12) {
                Some([0x1a, 0x2b, 0x3c, 0x4d]) => words.big = true,
                Some([0x4d, 0x3c, 0x2b, 0x1a]) => words.big = false,
                _ => break,
            }
            interfaces.clear();
        }
        let Some(end) = words.len(at + 4).map(|len| at + len) else {
            break;
        };
        if end < at + 12 || end > file.len() || words.u32(end - 4) != words.u32(at + 4) {
            break;
        }
        let body = at + 8;
        let packet = match kind {
            1 => {
                let (Some(link), Some(snaplen)) = (words.u16(body), words.u32(body + 4)) else {
                    break;
                };
                interfaces.push((link, snaplen));
                at = end;
                continue;
            }
            2 => words.u16(body).map(|interface| {
                let (len, wire_len) = (words.len(body + 12), words.len(body + 16));
                (usize::from(interface), len, wire_len, body + 20)
            }),
            3 => interfaces.first().map(|&(_, snaplen)| {
                let wire_len = words.len(body);
                let most = if snaplen == 0 { u32::MAX } else { snaplen };
                let len = wire_len.map(|len| len.min(most as usize));
                (0, len, wire_len, body + 4)
            }),
            6 => words.len(body).map(|interface| {
                let (len, wire_len) = (words.len(body + 12), words.len(body + 16));
                (interface, len, wire_len, body + 20)
            }),
            _ => {
                at = end;
                continue;
            }
        };
        let Some((interface, Some(len), Some(wire_len), start)) = packet else {
            break;
        };
        let (Some((link, _)), Some(bytes)) = (
            interfaces.get(interface),
            file[..end - 4].get(start..start + len),
        ) else {
            break;
        };
        let link = Link::from_number((*link).into());
        packets.push((link, wire_len > len, bytes.to_vec()));
        at = end;
    }
    packets
}
