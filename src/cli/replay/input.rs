//! The capture that is read: pcap or pcapng, packet by packet, without holding more of it than one buffer.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapParseError, PcapParser, PcapTsResolution, RawPcapPacket};
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};

use crate::cli::lab::interrupt::Interrupt;
use crate::error::{SetupError, errno};
use crate::host::{Captured, Link};

/// The buffer at first; it grows for records that need it.
const BUFFER_BYTES: usize = 1 << 20;
/// The largest record: what is larger is no capture of a network but a length that was damaged.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// The largest packet of a pcap file whose header promises less (MAXIMUM_SNAPLEN of libpcap).
const SNAPLEN_MAX: usize = 262_144;

/// A capture, open for reading.
pub(super) struct Capture {
    name: String,
    buffer: Buffer,
    format: Format,
    packets: u64,
    /// Packets of link types that cannot be read.
    foreign: u64,
    interrupt: Interrupt,
}

/// One packet of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) link: Link,
    /// Since 1970.
    pub(super) time: Duration,
    /// The wire had more bytes.
    pub(super) snapped: bool,
    pub(super) bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// As the host takes it.
    pub(super) fn captured(&self) -> Captured<'a> {
        Captured {
            link: self.link,
            bytes: self.bytes,
            snapped: self.snapped,
        }
    }
}

impl Capture {
    /// Opens `path`, of which `-` is standard input. `reads`: the links that whoever asks can read.
    pub(super) fn open(
        path: &Path,
        reads: fn(Link) -> bool,
        interrupt: &Interrupt,
    ) -> Result<Self, SetupError> {
        let name = path.display().to_string();
        let open = || {
            let file = if path.as_os_str() == "-" {
                File::from(io::stdin().as_fd().try_clone_to_owned()?)
            } else {
                File::open(path)?
            };
            Ok((file.metadata()?, file))
        };
        let (metadata, file) = open().map_err(|error: io::Error| {
            SetupError::system("read capture", name.as_str(), &error)
                .or_mend("give a file that is there and may be read")
        })?;
        let (reader, len): (Box<dyn Read>, _) = if metadata.is_file() {
            (Box::new(file), Some(metadata.len()))
        } else {
            let interrupt = interrupt.clone();
            (Box::new(Stream { file, interrupt }), None)
        };
        Self::begin(name, Buffer::new(reader, len), reads, interrupt)
    }

    /// What `reader` gives, of whatever links.
    pub(super) fn of(reader: Box<dyn Read>) -> Result<Self, SetupError> {
        let buffer = Buffer::new(reader, None);
        Self::begin("bytes".to_owned(), buffer, |_| true, &Interrupt::default())
    }

    fn begin(
        name: String,
        mut buffer: Buffer,
        reads: fn(Link) -> bool,
        interrupt: &Interrupt,
    ) -> Result<Self, SetupError> {
        let format = Format::open(&mut buffer, reads).map_err(|damage| damage.of(&name))?;
        Ok(Self {
            name,
            buffer,
            format,
            packets: 0,
            foreign: 0,
            interrupt: interrupt.clone(),
        })
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// The capture is damaged here, or cannot be read on, or somebody asked us to stop.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, SetupError> {
        let found = self.find();
        if self.interrupt.is_asked() {
            let mend = format!("{} packets were replayed", self.packets);
            return Err(Damage::new("interrupted", mend).of(&self.name));
        }
        match found {
            Err(damage) => {
                let at = format_args!("packet {} at byte {}", self.packets + 1, self.buffer.offset);
                let told = damage.at(at).of(&self.name);
                Err(told.or_mend(format!("{} before it were replayed", self.packets)))
            }
            Ok(None) if self.foreign > 0 && self.foreign == self.packets => {
                let cause = "none of its packets is of a link type that can be read here";
                Err(Damage::new(cause, READABLE).of(&self.name))
            }
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                self.packets += 1;
                self.foreign += u64::from(matches!(found.link, Link::Other(_)));
                let record = self.buffer.take(found.record_len);
                Ok(Some(Packet {
                    link: found.link,
                    time: found.time,
                    snapped: found.snapped,
                    bytes: &record[found.bytes],
                }))
            }
        }
    }

    /// Bytes read of it, and its length if that is known.
    pub(super) fn position(&self) -> (u64, Option<u64>) {
        (self.buffer.offset, self.buffer.len)
    }

    fn find(&mut self) -> Result<Option<Found>, Damage> {
        loop {
            if self.buffer.unread().is_empty() && !self.buffer.fill()? {
                return Ok(None);
            }
            match self.format.step(self.buffer.unread()) {
                Step::Packet(found) => return Ok(Some(found)),
                Step::Passed(len) => {
                    self.buffer.take(len);
                }
                Step::Short(len) if len > RECORD_BYTES_MAX => {
                    let cause = format!("it claims {len} bytes");
                    return Err(Damage::new(cause, ""));
                }
                Step::Short(_) => {
                    if !self.buffer.fill()? {
                        return Err(Damage::new("the file ends inside it", ""));
                    }
                }
                Step::Damaged(cause) => return Err(Damage::new(cause, "")),
            }
        }
    }
}

/// What can be read.
const READABLE: &str = "Ethernet (1) from the overlay; Ethernet, raw IP (101, 228, 229) and Linux cooked (113, 276) from the underlay";

/// What is wrong with a capture.
struct Damage {
    cause: String,
    mend: String,
}

impl Damage {
    fn new(cause: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            mend: mend.into(),
        }
    }

    fn at(self, place: std::fmt::Arguments<'_>) -> Self {
        Self {
            cause: format!("{place}: {}", self.cause),
            ..self
        }
    }

    fn of(self, name: &str) -> SetupError {
        SetupError::new("read capture", name, self.cause).mend(self.mend)
    }
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::new(errno(&error), "")
    }
}

/// Where a packet stands in the bytes at hand.
struct Found {
    link: Link,
    time: Duration,
    snapped: bool,
    /// Bytes of its record, and which of them are the packet.
    record_len: usize,
    bytes: Range<usize>,
}

/// What stands next in the bytes at hand.
enum Step {
    Packet(Found),
    /// A record of so many bytes that is no packet.
    Passed(usize),
    /// A record that is not all there; of about so many bytes.
    Short(usize),
    Damaged(String),
}

enum Format {
    Pcap(PcapParser),
    PcapNg(PcapNgParser),
}

/// The first bytes of a pcapng section.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// The first bytes of pcap, in both byte orders, with micro- and with nanoseconds.
const PCAP_MAGICS: [[u8; 4]; 4] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];
/// The only pcap version there is in the wild.
const PCAP_VERSION: u16 = 2;

impl Format {
    fn open(buffer: &mut Buffer, reads: fn(Link) -> bool) -> Result<Self, Damage> {
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

    fn step(&mut self, unread: &[u8]) -> Step {
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

/// What may keep its reader waiting, a pipe or a terminal: at its end once somebody asked us to stop.
struct Stream {
    file: File,
    interrupt: Interrupt,
}

/// How late a wait may notice a signal that came just before it, in milliseconds.
const TICK_MS: u8 = 100;

impl Read for Stream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        while !self.interrupt.is_asked() {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, TICK_MS) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.file.read(room),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }
}

/// Bytes of a reader that are looked at before they are taken.
struct Buffer {
    reader: Box<dyn Read>,
    bytes: Vec<u8>,
    /// The bytes that were read and not taken.
    unread: Range<usize>,
    /// Bytes taken so far.
    offset: u64,
    /// Bytes there are in all, if that is known.
    len: Option<u64>,
}

impl Buffer {
    fn new(reader: Box<dyn Read>, len: Option<u64>) -> Self {
        Self {
            reader,
            bytes: vec![0; BUFFER_BYTES],
            unread: 0..0,
            offset: 0,
            len,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.unread.clone()]
    }

    /// Takes `len` of the unread bytes.
    fn take(&mut self, len: usize) -> &[u8] {
        let start = self.unread.start;
        self.unread.start += len;
        self.offset += len as u64;
        &self.bytes[start..start + len]
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.bytes.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.unread.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        loop {
            match self.reader.read(&mut self.bytes[self.unread.end..]) {
                Ok(read) => {
                    self.unread.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Gives its bytes in pieces of these lengths, then the rest.
    struct Pieces(VecDeque<u8>, Vec<usize>);

    impl Read for Pieces {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let most = self.1.pop().unwrap_or(usize::MAX).max(1);
            let most = most.min(room.len());
            self.0.read(&mut room[..most])
        }
    }

    /// What is found: links, times, bytes of each packet, and how it ends.
    type Found = (Vec<(Link, Duration, Vec<u8>)>, Option<String>);

    fn read(file: &[u8], pieces: Vec<usize>) -> Found {
        let reader = Pieces(file.iter().copied().collect(), pieces);
        let buffer = Buffer::new(Box::new(reader), None);
        let mut packets = Vec::new();
        let mut capture =
            match Capture::begin("a file".to_owned(), buffer, |_| true, &Interrupt::default()) {
                Ok(capture) => capture,
                Err(error) => return (packets, Some(error.to_string())),
            };
        loop {
            match capture.next() {
                Ok(Some(packet)) => packets.push((packet.link, packet.time, packet.bytes.to_vec())),
                Ok(None) => return (packets, None),
                Err(error) => return (packets, Some(error.to_string())),
            }
        }
    }

    fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
        let header = PcapHeader {
            endianness: pcap_file::Endianness::Little,
            ..PcapHeader::default()
        };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        for packet in packets {
            let packet = PcapPacket::new(Duration::ZERO, packet.len() as u32, &packet[..]).unwrap();
            writer.write_packet(&packet).unwrap();
        }
        writer.into_inner()
    }

    fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![],
        };
        writer.write_pcapng_block(interface).unwrap();
        for packet in packets {
            let block = EnhancedPacketBlock {
                original_len: packet.len() as u32,
                data: packet.into(),
                ..EnhancedPacketBlock::default()
            };
            writer.write_pcapng_block(block).unwrap();
        }
        writer.into_inner()
    }

    #[test]
    fn records_larger_than_the_buffer_are_read() {
        let packets = vec![vec![7; 100], vec![8; BUFFER_BYTES + 1], vec![9; 100]];
        let (read, error) = read(&pcapng(&packets), Vec::new());
        assert_eq!(error, None);
        assert!(read.into_iter().map(|(_, _, bytes)| bytes).eq(packets));
    }

    proptest! {
        #[test]
        fn packets_are_what_was_written_however_they_are_read(packets in vec(vec(any::<u8>(), 0..100), 0..20), pieces in vec(1_usize..50, 0..100), ng: bool) {
            let (link, file) = if ng { (Link::Raw, pcapng(&packets)) } else { (Link::Ethernet, pcap(&packets)) };
            let (read, error) = read(&file, pieces);
            prop_assert_eq!(error, None);
            let expected = packets.into_iter().map(|packet| (link, Duration::ZERO, packet));
            prop_assert!(read.into_iter().eq(expected));
        }

        #[test]
        fn damage_ends_in_an_error_and_never_in_a_panic(changes in vec((any::<Index>(), any::<u8>()), 0..12), cut: Option<Index>, ng: bool) {
            let packets = vec![vec![7; 30]; 4];
            let mut file = if ng { pcapng(&packets) } else { pcap(&packets) };
            for (at, value) in changes {
                let at = at.index(file.len());
                file[at] = value;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            let whole = read(&file, Vec::new());
            prop_assert_eq!(read(&file, vec![3; 200]), whole);
        }

        #[test]
        fn no_bytes_behind_a_magic_make_it_panic(bytes in vec(any::<u8>(), 0..200), magic in 0_usize..5) {
            let magics = [&PCAP_MAGICS[..], &[PCAPNG_MAGIC]].concat();
            let _ = read(&[&magics[magic], &bytes[..]].concat(), Vec::new());
        }
    }
}
