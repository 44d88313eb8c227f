//! The capture that is read: pcap or pcapng, packet by packet, without holding more of it than one buffer.

mod buffer;
mod format;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use buffer::{Buffer, Stream};
use format::{Format, Found, Step};

use crate::cli::lab::interrupt::Interrupt;
use crate::error::{SetupError, errno};
use crate::host::{Captured, Link};

/// The largest record: what is larger is no capture of a network but a length that was damaged.
const RECORD_BYTES_MAX: usize = 16 << 20;

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
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                // It opens, and only reading it fails.
                return Err(io::Error::from_raw_os_error(libc::EISDIR));
            }
            Ok((metadata, file))
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pcap_file::DataLink;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::buffer::BUFFER_BYTES;
    use super::format::{PCAP_MAGICS, PCAPNG_MAGIC};
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
