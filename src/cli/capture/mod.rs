//! `silk-vtep capture`: live packets of a running daemon as a pcapng file, what became of each as its comment.
//!
//! The daemon streams packets ([`control::capture`](crate::control::capture)); here they become a [`file`]. On Ctrl-C or SIGTERM the
//! daemon is asked for the end, what was on its way is still written, and the statistics are last.

mod file;
mod outer;
mod outlet;
mod stream;

use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::time::{Duration, Instant};

use self::file::File;
use self::stream::{Event, Stream};
use super::args::{CaptureArgs, Global};
use super::lab::interrupt::Interrupt;
use super::words::UsageError;
use super::{CliError, warn};
use crate::control::Client;
use crate::control::capture::{CaptureCount, CaptureStarted};
use crate::control::protocol::Request;
use crate::error::{SetupError, errno};

/// How late a signal may be noticed.
const TICK: Duration = Duration::from_millis(100);
/// How long the daemon may say nothing when it was asked for the end. What is on its way before that may take longer.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Captures until interrupted, or until as many packets are written as were asked for.
///
/// # Errors
/// Wrong usage, a daemon that cannot be reached, refuses or goes away, or a file that cannot be written. What was captured by then is in it.
pub fn run(args: &CaptureArgs, global: &Global) -> Result<(), CliError> {
    if global.json {
        return Err(UsageError {
            wrong: "capture: it writes packets, no JSON (`-j`)".to_owned(),
            usage: "usage: silk-vtep capture -w FILE [--drops] [--peer UNDERLAY] [--address ADDRESS] [-c PACKETS] [-s BYTES]",
        }
        .into());
    }
    let interrupt = Interrupt::on_signals()?;
    let client = Client::connect(&global.socket_path())?;
    let request = Request::Capture(args.request());
    let (started, stream) = client.stream::<CaptureStarted>(&request)?;
    let failed = |error: &io::Error| write_failed(&args.output, error);
    let file = File::create(&args.output, &started, &interrupt).map_err(|error| failed(&error))?;
    let mut capture = Capture {
        stream: Stream::new(stream, TICK).map_err(broken)?,
        file,
        limit: args.count,
        count: CaptureCount::default(),
    };
    let ended = capture.run(&interrupt, failed);
    let finished = capture.finish().map_err(|error| failed(&error));
    ended.and(finished)
}

/// One capture on its way into its file.
struct Capture {
    stream: Stream,
    file: File,
    limit: Option<u64>,
    count: CaptureCount,
}

impl Capture {
    fn run(
        &mut self,
        interrupt: &Interrupt,
        failed: impl Fn(&io::Error) -> CliError,
    ) -> Result<(), CliError> {
        let mut ending: Option<Instant> = None;
        loop {
            let is_enough = self.limit.is_some_and(|limit| self.file.packets() >= limit);
            if ending.is_none() && (is_enough || interrupt.check().is_err()) {
                ending = Some(Instant::now());
                // A daemon that is gone says so by its end.
                drop(self.stream.socket().shutdown(Shutdown::Write));
            }
            if ending.is_some_and(|since| since.elapsed() > END_PATIENCE) {
                return Err(CliError::Failed(format!(
                    "end the capture: no answer within {END_PATIENCE:?}"
                )));
            }
            let event = self.stream.next().map_err(broken)?;
            if !matches!(event, Event::Nothing) {
                ending = ending.map(|_| Instant::now());
            }
            match event {
                Event::Packet(_, _) if is_enough => {}
                Event::Packet(packet, bytes) => {
                    let written = self.file.packet(&packet, bytes);
                    written.map_err(|error| failed(&error))?;
                }
                Event::Count(count) => self.count = count,
                Event::End(count) => {
                    self.count = count;
                    return Ok(());
                }
                // Whoever looks at the file meanwhile sees all that is there.
                Event::Nothing => self.file.flush().map_err(|error| failed(&error))?,
                Event::HungUp => {
                    return Err(CliError::Failed(
                        "capture: silk-vtep hung up: it has ended, or nobody read for a minute"
                            .to_owned(),
                    ));
                }
            }
        }
    }

    fn finish(self) -> io::Result<()> {
        let packets = self.file.packets();
        self.file.finish(&self.count)?;
        let plural = if packets == 1 { "" } else { "s" };
        let missed = match self.count.missed() {
            0 => String::new(),
            missed => format!(", {missed} left out because they came faster than they were read"),
        };
        warn(format_args!("{packets} packet{plural} captured{missed}"));
        Ok(())
    }
}

fn broken(error: io::Error) -> CliError {
    CliError::Failed(format!("read the capture: {}", errno(&error)))
}

fn write_failed(path: &Path, error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError::ClosedPipe;
    }
    let told = SetupError::system("write capture", path.display().to_string(), error);
    let mend = match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem => "give a file in a directory that may be written to",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "there is no room for more: what was captured before is in it"
        }
        io::ErrorKind::FileTooLarge => {
            "no file may be larger here (RLIMIT_FSIZE): what was captured before is in it"
        }
        _ => "",
    };
    told.or_mend(mend).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mends_a_write_depends_on_what_failed() {
        for (errno, expected) in [
            (libc::EACCES, "EACCES (give a file in a directory that may"),
            (libc::ENOENT, "ENOENT (give a file in a directory that may"),
            (libc::ENOSPC, "ENOSPC (there is no room for more: what was"),
            (libc::EDQUOT, "EDQUOT (there is no room for more: what was"),
            (libc::EIO, "EIO"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let told = write_failed(Path::new("live.pcapng"), &error).to_string();
            let expected = format!("write capture live.pcapng: {expected}");
            assert!(told.starts_with(&expected), "{told}");
            assert_eq!(told == expected, errno == libc::EIO, "{told}");
        }
    }
}
