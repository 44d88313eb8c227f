//! The capture that is written.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapTsResolution, PcapWriteError, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness};

use crate::error::SetupError;

/// Of the file's header: more than any packet.
const SNAPLEN: u32 = 262_144;
const BUFFER_BYTES: usize = 1 << 18;

/// A pcap file of Ethernet frames, written in place as tcpdump does: a file that was there keeps its owner and mode, and whatever ends the
/// replay early, what was judged until then is there.
pub(super) struct Output {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl Output {
    /// Opens `path`, which must not be `input` (`-`: standard input).
    pub(super) fn create(path: &Path, input: &Path) -> Result<Self, SetupError> {
        let told = |error: &io::Error| {
            failed(path, error).or_mend("give a file in a directory that may be written to")
        };
        if is_same(path, input) {
            let name = path.display().to_string();
            return Err(SetupError::new("write capture", name, "it is the input")
                .mend("give another name: nothing was read or written"));
        }
        let file = File::create(path).map_err(|error| told(&error))?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: PcapTsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = PcapWriter::with_header(writer, header);
        let writer = writer.map_err(|error| told(&io_error(error)))?;
        Ok(Self {
            path: path.to_owned(),
            writer,
        })
    }

    /// Appends a frame.
    pub(super) fn write(&mut self, time: Duration, frame: &[u8]) -> Result<(), SetupError> {
        let len = frame.len() as u32;
        let packet = RawPcapPacket {
            // The format ends in 2106.
            ts_sec: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            ts_frac: time.subsec_nanos(),
            incl_len: len,
            orig_len: len,
            data: Cow::Borrowed(frame),
        };
        let written = self.writer.write_raw_packet(&packet);
        written.map_err(|error| failed(&self.path, &io_error(error)))?;
        Ok(())
    }

    /// Everything is written.
    pub(super) fn finish(mut self) -> Result<PathBuf, SetupError> {
        let flushed = self.writer.flush();
        flushed.map_err(|error| failed(&self.path, &io_error(error)))?;
        Ok(self.path)
    }
}

/// True if the two are one file, by whatever names.
fn is_same(output: &Path, input: &Path) -> bool {
    let input = if input.as_os_str() == "-" {
        Path::new("/dev/stdin")
    } else {
        input
    };
    let identity = |path| {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(output).is_some_and(|output| identity(input) == Some(output))
}

fn failed(path: &Path, error: &io::Error) -> SetupError {
    let told = SetupError::system("write capture", path.display().to_string(), error);
    match error.raw_os_error() {
        Some(libc::ENOSPC) => told.mend("make room; the file is cut short"),
        Some(libc::EPIPE) => told.mend("whoever read it is gone"),
        _ => told,
    }
}

fn io_error(error: PcapWriteError) -> io::Error {
    match error {
        PcapWriteError::Io(error) | PcapWriteError::FieldWriteFailed(_, error) => error,
        PcapWriteError::Validation(error) => io::Error::other(error),
    }
}
