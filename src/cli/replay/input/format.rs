//! The two formats: what stands next in the bytes of a capture.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapParseError, PcapParser, PcapTsResolution, RawPcapPacket};
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};

use super::buffer::Buffer;
use super::{Damage, READABLE, RECORD_BYTES_MAX};
use crate::host::Link;

/// The largest packet of a pcap file whose header promises less (MAXIMUM_SNAPLEN of libpcap).
const SNAPLEN_MAX: usize = 262_144;

/// Where a packet stands in the bytes at hand.
pub(super) struct Found {
    pub(super) link: Link,
    pub(super) time: Duration,
    pub(super) snapped: bool,
    /// Bytes of its record, and which of them are the packet.
    pub(super) record_len: usize,
    pub(super) bytes: Range<usize>,
}

/// What stands next in the bytes at hand.
pub(super) enum Step {
    Packet(Found),
    /// A record of so many bytes that is no packet.
    Passed(usize),
    /// A record that is not all there; of about so many bytes.
    Short(usize),
    Damaged(String),
}

pub(super) enum Format {
    Pcap(PcapParser),
    PcapNg(PcapNgParser),
}

/// The first bytes of a pcapng section.
pub(super) const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// The first bytes of pcap, in both byte orders, with micro- and with nanoseconds.
pub(super) const PCAP_MAGICS: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];
/// The only pcap version there is in the wild.
const PCAP_VERSION: u16 = 2;

impl Format {
    pub(super) fn open(buffer: &mut Buffer, reads: fn(Link) -> bool) -> Result<Self, Damage> {
        while buffer.unread().len() < 4 && buffer.fill()? {}
        let Some(magic) = buffer.unread().first_chunk().copied() else {
            let cause = match buffer.unread() {
                [] => "it is empty",
                _ => "it is no capture: less than four bytes",
            };
            return Err(Damage::new(cause, "give a pcap or pcapng file"));
        };
        if PCAP_MAGICS.contains(&magic) {
            Self::open_pcap(buffer, reads)
        } else if magic == PCAPNG_MAGIC {
            Self::open_pcapng(buffer)
        } else {
            Err(no_capture(magic))
        }
    }

    fn open_pcap(buffer: &mut Buffer, reads: fn(Link) -> bool) -> Result<Self, Damage> {
        let parser = begin(buffer, |unread| match PcapParser::new(unread) {
            Ok((rest, parser)) => Begin::Done(unread.len() - rest.len(), parser),
            Err(PcapParseError::IncompleteBuffer(len, _)) => Begin::Short(len),
            Err(error) => Begin::Damaged(told(&error)),
        })?;
        let header = parser.header();
        if header.version_major != PCAP_VERSION {
            let cause = format!(
                "version {}.{} of the pcap format",
                header.version_major, header.version_minor
            );
            return Err(Damage::new(cause, "2.4 can be read"));
        }
        if !reads(link_of(header.datalink)) {
            let cause = format!("link type {}", name_of(header.datalink));
            return Err(Damage::new(cause, READABLE));
        }
        Ok(Self::Pcap(parser))
    }

    fn open_pcapng(buffer: &mut Buffer) -> Result<Self, Damage> {
        let parser = begin(buffer, |unread| match PcapNgParser::new(unread) {
            Ok((rest, parser)) => Begin::Done(unread.len() - rest.len(), parser),
            Err(PcapNgParseError::IncompleteBuffer(len, _)) => Begin::Short(len),
            Err(error) => Begin::Damaged(told(&error)),
        })?;
        Ok(Self::PcapNg(parser))
    }

    pub(super) fn step(&mut self, unread: &[u8]) -> Step {
        match self {
            Self::Pcap(parser) => step_pcap(parser, unread),
            Self::PcapNg(parser) => step_pcapng(parser, unread),
        }
    }
}

/// What stands at the beginning of a capture.
enum Begin<T> {
    /// Its header, of so many bytes.
    Done(usize, T),
    /// A part of it; it is of about so many bytes.
    Short(usize),
    Damaged(String),
}

fn begin<T>(buffer: &mut Buffer, parse: impl Fn(&[u8]) -> Begin<T>) -> Result<T, Damage> {
    loop {
        match parse(buffer.unread()) {
            Begin::Done(len, header) => {
                buffer.take(len);
                return Ok(header);
            }
            Begin::Short(len) if len > RECORD_BYTES_MAX => {
                let cause = format!("its header claims {len} bytes");
                return Err(Damage::new(cause, ""));
            }
            Begin::Short(_) => {
                if !buffer.fill()? {
                    return Err(Damage::new("the file ends inside its header", ""));
                }
            }
            Begin::Damaged(cause) => return Err(Damage::new(cause, "")),
        }
    }
}

/// Says what a file seems to be that is no capture.
fn no_capture(magic: [u8; 4]) -> Damage {
    let (what, mend) = match magic {
        [0x1f, 0x8b, ..] => ("is compressed (gzip)", "unpack it first: gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => ("is compressed (zstd)", "unpack it first: unzstd"),
        _ => ("is no capture", "give a pcap or pcapng file"),
    };
    let [a, b, c, d] = magic;
    let cause = format!("it {what}: it begins with {a:02x} {b:02x} {c:02x} {d:02x}");
    Damage::new(cause, mend)
}

fn step_pcap(parser: &PcapParser, unread: &[u8]) -> Step {
    let header = parser.header();
    let most = usize::try_from(header.snaplen).unwrap_or(usize::MAX);
    let most = most.clamp(SNAPLEN_MAX, RECORD_BYTES_MAX);
    match parser.next_raw_packet(unread) {
        Ok((_, packet)) if packet.data.len() > most => claims(packet.data.len()),
        Ok((rest, packet)) => {
            let record_len = unread.len() - rest.len();
            Step::Packet(Found {
                link: link_of(header.datalink),
                time: time(&packet, header.ts_resolution),
                snapped: packet.orig_len > packet.incl_len,
                record_len,
                bytes: record_len - packet.data.len()..record_len,
            })
        }
        Err(PcapParseError::IncompleteBuffer(len, _)) if len > most => claims(len),
        Err(PcapParseError::IncompleteBuffer(len, _)) => Step::Short(len),
        Err(error) => Step::Damaged(told(&error)),
    }
}

fn claims(len: usize) -> Step {
    Step::Damaged(format!("it claims {len} bytes"))
}

/// Fractions of a second that are one or more count on, as other readers let them.
fn time(packet: &RawPcapPacket<'_>, resolution: PcapTsResolution) -> Duration {
    let fraction = packet.ts_frac.into();
    let fraction = match resolution {
        PcapTsResolution::MicroSecond => Duration::from_micros(fraction),
        PcapTsResolution::NanoSecond => Duration::from_nanos(fraction),
    };
    Duration::from_secs(packet.ts_sec.into()) + fraction
}

/// Bytes of a block before the packet: type and length, then what each kind of block has.
const BLOCK_HEADER_LEN: usize = 8;
const ENHANCED_HEADER_LEN: usize = BLOCK_HEADER_LEN + 20;
const SIMPLE_HEADER_LEN: usize = BLOCK_HEADER_LEN + 4;

fn step_pcapng(parser: &mut PcapNgParser, unread: &[u8]) -> Step {
    let (rest, block) = match parser.next_block(unread) {
        Ok(next) => next,
        Err(PcapNgParseError::IncompleteBuffer(len, _)) => return Step::Short(len),
        Err(error) => return Step::Damaged(told(&error)),
    };
    let record_len = unread.len() - rest.len();
    let (interface, time, wire_len, start, len) = match &block {
        Block::EnhancedPacket(packet) => (
            packet.interface_id,
            packet.timestamp,
            packet.original_len,
            ENHANCED_HEADER_LEN,
            packet.data.len(),
        ),
        Block::Packet(packet) => (
            packet.interface_id.into(),
            packet.timestamp,
            packet.original_len,
            ENHANCED_HEADER_LEN,
            packet.data.len(),
        ),
        Block::SimplePacket(packet) => (
            0,
            Duration::ZERO,
            packet.original_len,
            SIMPLE_HEADER_LEN,
            packet.data.len(),
        ),
        Block::SectionHeader(_)
        | Block::InterfaceDescription(_)
        | Block::NameResolution(_)
        | Block::InterfaceStatistics(_)
        | Block::SystemdJournalExport(_)
        | Block::CustomCopiable(_)
        | Block::CustomNonCopiable(_)
        | Block::Unknown(_) => return Step::Passed(record_len),
    };
    let interface = parser.interfaces().get(interface as usize);
    let Some(interface) = interface else {
        return Step::Damaged("it is of an interface that the file does not describe".to_owned());
    };
    Step::Packet(Found {
        link: link_of(interface.linktype),
        time,
        snapped: usize::try_from(wire_len).is_ok_and(|wire_len| wire_len > len),
        record_len,
        bytes: start..start + len,
    })
}

fn link_of(link: DataLink) -> Link {
    Link::from_number(link.into())
}

fn name_of(link: DataLink) -> String {
    match link {
        DataLink::Unknown(number) => number.to_string(),
        known => format!("{known:?} ({})", u32::from(known)),
    }
}

/// An error and what it came from, in one line.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
