//! Where packets go: a file, or standard output. That may be a pipe whose reader stands still, and a signal is to end the capture all
//! the same: a write to it would go on waiting, so it is not begun before there is room.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::lab::interrupt::Interrupt;

/// How late a signal may be noticed, in milliseconds.
const TICK_MS: u16 = 100;
/// How long the reader may stand still once a signal came.
const PATIENCE: Duration = Duration::from_secs(2);
/// A pipe that has room has room for so much (PIPE_BUF, pipe(7)).
const PIECE_BYTES: usize = 4096;

/// A file, or standard output.
pub(super) struct Outlet {
    file: File,
    /// It is no file, so that a write may wait for a reader.
    may_wait: bool,
    interrupt: Interrupt,
    patience: Duration,
    is_given_up: bool,
}

impl Outlet {
    /// Creates the file, or replaces what was there; `-` is standard output.
    pub(super) fn open(path: &Path, interrupt: &Interrupt) -> io::Result<Self> {
        let file = match path == Path::new("-") {
            true => io::stdout().as_fd().try_clone_to_owned()?.into(),
            false => File::create(path)?,
        };
        Self::new(file, interrupt, PATIENCE)
    }

    fn new(file: File, interrupt: &Interrupt, patience: Duration) -> io::Result<Self> {
        Ok(Self {
            may_wait: !file.metadata()?.is_file(),
            file,
            interrupt: interrupt.clone(),
            patience,
            is_given_up: false,
        })
    }

    /// Waits until there is room, or the reader is gone.
    fn wait(&mut self) -> io::Result<()> {
        let mut asked: Option<Instant> = None;
        while !self.is_given_up {
            if has_room(&self.file)? {
                return Ok(());
            }
            if self.interrupt.is_asked() {
                let since = *asked.get_or_insert_with(Instant::now);
                self.is_given_up = since.elapsed() >= self.patience;
            }
        }
        let told = "whoever reads it stands still: what was not read is lost";
        Err(io::Error::new(io::ErrorKind::TimedOut, told))
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.may_wait {
            return self.file.write(bytes);
        }
        self.wait()?;
        self.file.write(&bytes[..bytes.len().min(PIECE_BYTES)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// False if it has none for a tick, or a signal came.
fn has_room(file: &File) -> io::Result<bool> {
    let mut wanted = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut wanted, PollTimeout::from(TICK_MS)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::thread;

    use super::*;

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().expect("descriptors are free");
        (reader, OwnedFd::from(writer).into())
    }

    #[test]
    fn a_signal_ends_it_though_nobody_reads_and_at_once_the_second_time() {
        let (_reader, writer) = pipe();
        let interrupt = Interrupt::asked();
        let mut outlet = Outlet::new(writer, &interrupt, Duration::ZERO).expect("it is open");
        // More than a pipe holds.
        let error = outlet.write_all(&[7; 1 << 21]).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        outlet.patience = Duration::MAX;
        assert!(outlet.write_all(b"more").is_err());
    }

    #[test]
    fn a_slow_reader_gets_all_of_it_after_a_signal_too() {
        let (mut reader, writer) = pipe();
        let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 7) as u8).collect();
        let expected = sent.clone();
        let writing = thread::spawn(move || {
            let interrupt = Interrupt::asked();
            let patience = Duration::from_secs(600);
            let mut outlet = Outlet::new(writer, &interrupt, patience).expect("it is open");
            outlet.write_all(&sent)
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("it is open");
        assert!(writing.join().expect("no panic").is_ok());
        assert!(read == expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_of_its_own() {
        let (reader, writer) = pipe();
        drop(reader);
        let interrupt = Interrupt::default();
        let mut outlet = Outlet::new(writer, &interrupt, PATIENCE).expect("it is open");
        let error = outlet.write_all(b"packet").expect_err("nobody is there");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
