//! The bytes of a capture, looked at before they are taken.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::cli::lab::interrupt::Interrupt;

/// The buffer at first; it grows for records that need it.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// What may keep its reader waiting, a pipe or a terminal: at its end once somebody asked us to stop.
pub(super) struct Stream {
    pub(super) file: File,
    pub(super) interrupt: Interrupt,
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
pub(super) struct Buffer {
    reader: Box<dyn Read>,
    bytes: Vec<u8>,
    /// The bytes that were read and not taken.
    unread: Range<usize>,
    /// Bytes taken so far.
    pub(super) offset: u64,
    /// Bytes there are in all, if that is known.
    pub(super) len: Option<u64>,
}

impl Buffer {
    pub(super) fn new(reader: Box<dyn Read>, len: Option<u64>) -> Self {
        Self {
            reader,
            bytes: vec![0; BUFFER_BYTES],
            unread: 0..0,
            offset: 0,
            len,
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.unread.clone()]
    }

    /// Takes `len` of the unread bytes.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let start = self.unread.start;
        self.unread.start += len;
        self.offset += len as u64;
        &self.bytes[start..start + len]
    }

    /// Reads on; false at the end.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
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
