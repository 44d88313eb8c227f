//! The capture that is written.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapTsResolution, PcapWriteError, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness};

use crate::error::SetupError;

/// Of the file's header: more than any packet.
const SNAPLEN: u32 = 262_144;
const BUFFER_BYTES: usize = 1 << 18;

/// A pcap file of Ethernet frames. It has its name only once it is whole; until then it is beside it, named `.NAME.PID.part`. What is
/// there already and no regular file (a pipe, `/dev/null`) is written to directly.
pub(super) struct Output {
    path: PathBuf,
    part: Option<PathBuf>,
    writer: PcapWriter<BufWriter<File>>,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, SetupError> {
        // Not to replace a link by a file.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (part, file) = open(&path).map_err(|error| {
            failed(&path, &error).or_mend("give a file in a directory that may be written to")
        })?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: PcapTsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = PcapWriter::with_header(writer, header);
        match writer {
            Ok(writer) => Ok(Self { path, part, writer }),
            Err(error) => {
                remove(part.as_deref());
                Err(failed(&path, &io_error(error)))
            }
        }
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

    /// The file is whole.
    pub(super) fn finish(mut self) -> Result<(), SetupError> {
        let flushed = self.writer.flush();
        flushed.map_err(|error| failed(&self.path, &io_error(error)))?;
        if let Some(part) = self.part.take() {
            fs::rename(&part, &self.path).map_err(|error| {
                remove(Some(&part));
                failed(&self.path, &error)
            })?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        remove(self.part.as_deref());
    }
}

fn open(path: &Path) -> io::Result<(Option<PathBuf>, File)> {
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        let file = OpenOptions::new().write(true).open(path)?;
        return Ok((None, file));
    }
    let Some(name) = path.file_name() else {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    };
    let name = format!(".{}.{}.part", name.display(), std::process::id());
    let part = path.with_file_name(name);
    let file = File::create_new(&part)?;
    Ok((Some(part), file))
}

fn remove(part: Option<&Path>) {
    if let Some(part) = part {
        // What else could be done with it?
        let _ = fs::remove_file(part);
    }
}

fn failed(path: &Path, error: &io::Error) -> SetupError {
    let told = SetupError::system("write capture", path.display().to_string(), error);
    match error.raw_os_error() {
        Some(libc::ENOSPC) => told.mend("make room; nothing was left there"),
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
