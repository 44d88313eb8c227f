//! A TCP stream from one container to the other, its content checked at both ends.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::DemoError;
use crate::cli::lab::connection;
use crate::cli::lab::ground::End;
use crate::cli::lab::interrupt::Interrupt;
use crate::cli::lab::joined;

/// A stream that moves nothing for so long is stalled.
const STALL_PATIENCE: Duration = Duration::from_secs(5);
/// How often the caller hears how far it is.
const PROGRESS_TICK: Duration = Duration::from_millis(100);
/// Written and read at a time.
const BLOCK_LEN: usize = 64 << 10;
const WORD_LEN: usize = 8;

/// One finished stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Transfer {
    /// Who sent.
    pub(super) from: Ipv4Addr,
    /// Who received.
    pub(super) to: Ipv4Addr,
    /// Received.
    pub(super) bytes: u64,
    /// From the accepted connection to the last byte.
    pub(super) seconds: f64,
    /// 10^9 bits of payload a second.
    pub(super) gbit_per_s: f64,
    /// What came was what went, byte for byte.
    pub(super) verified: bool,
}

/// Gbit/s of `bytes` in `elapsed`.
pub(super) fn gbit_per_s(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e9 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Sends for as long as `duration` and waits until all is received. `progress` hears of the bytes received so far and
/// the time they took.
///
/// # Errors
/// If the containers cannot connect, the stream breaks or stalls; as `progress`; when interrupted.
pub(super) fn run(
    from: End<'_>,
    to: End<'_>,
    duration: Duration,
    interrupt: &Interrupt,
    progress: impl FnMut(u64, Duration) -> Result<(), DemoError>,
) -> Result<Transfer, DemoError> {
    let failed = |step: &str, error: &io::Error| connection::failed((from, to), step, error);
    let (sender, receiver) = connection::open(from, to)?;
    let stream = Stream {
        received: AtomicU64::new(0),
        cancelled: AtomicBool::new(false),
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(|| stream.send(sender, started + duration));
        let receiving = scope.spawn(|| stream.receive(receiver));
        let both_done = || sending.is_finished() && receiving.is_finished();
        let watched = stream.watch(started, both_done, interrupt, progress);
        let sent = joined(sending).map_err(|error| failed("send", &error));
        let received = joined(receiving).map_err(|error| failed("receive", &error));
        watched?;
        let ((arrived, ended), sent) = (received?, sent?);
        Ok(Transfer::of(
            from.address,
            to.address,
            ended - started,
            (&sent, &arrived),
        ))
    })
}

impl Transfer {
    fn of(
        from: Ipv4Addr,
        to: Ipv4Addr,
        took: Duration,
        (sent, received): (&Digest, &Digest),
    ) -> Self {
        Self {
            from,
            to,
            bytes: received.bytes,
            seconds: took.as_secs_f64(),
            gbit_per_s: gbit_per_s(received.bytes, took),
            verified: sent == received,
        }
    }
}

/// What the threads of one stream share.
struct Stream {
    received: AtomicU64,
    cancelled: AtomicBool,
}

impl Stream {
    fn send(&self, mut socket: TcpStream, deadline: Instant) -> io::Result<Digest> {
        let (mut block, mut digest) = (Block::new(), Digest::default());
        while Instant::now() < deadline && !self.cancelled.load(Relaxed) {
            let bytes = block.next();
            digest.add(bytes);
            let mut rest = bytes;
            while !rest.is_empty() {
                let written = self.patiently(|| socket.write(rest))?;
                rest = &rest[written..];
            }
        }
        socket.shutdown(Shutdown::Write)?;
        Ok(digest)
    }

    /// What arrived, and when the last of it did.
    fn receive(&self, mut socket: TcpStream) -> io::Result<(Digest, Instant)> {
        let (mut block, mut digest) = (vec![0; BLOCK_LEN], Digest::default());
        loop {
            let len = self.fill(&mut socket, &mut block)?;
            digest.add(&block[..len]);
            if len < block.len() {
                return Ok((digest, Instant::now()));
            }
        }
    }

    /// Fills `block`, so that both ends digest the same pieces; less only at the stream's end.
    fn fill(&self, socket: &mut TcpStream, block: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < block.len() {
            match self.patiently(|| socket.read(&mut block[filled..]))? {
                0 => break,
                len => filled += len,
            }
        }
        self.received.fetch_add(filled as u64, Relaxed);
        Ok(filled)
    }

    /// Tries again while nothing moves, up to a limit or until the stream is cancelled.
    fn patiently(&self, mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let deadline = Instant::now() + STALL_PATIENCE;
        loop {
            match attempt() {
                Err(error) if is_transient(&error) => {}
                other => return other,
            }
            if self.cancelled.load(Relaxed) || Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "nothing moved for {} s",
                    STALL_PATIENCE.as_secs()
                )));
            }
        }
    }

    /// Reports until both threads are done; cancels them if they are no longer wanted.
    fn watch(
        &self,
        started: Instant,
        done: impl Fn() -> bool,
        interrupt: &Interrupt,
        mut progress: impl FnMut(u64, Duration) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        while !done() {
            let told = interrupt
                .check()
                .map_err(DemoError::from)
                .and_then(|()| progress(self.received.load(Relaxed), started.elapsed()));
            if told.is_err() {
                self.cancelled.store(true, Relaxed);
                return told;
            }
            thread::sleep(PROGRESS_TICK);
        }
        Ok(())
    }
}

/// The socket's tick passed, or a signal came: neither says anything about the stream.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// The content: one block of noise, each time with another number in front, so that no two blocks are alike.
struct Block {
    bytes: Vec<u8>,
    number: u64,
}

impl Block {
    fn new() -> Self {
        // Xorshift64 (Marsaglia 2003), from any seed but zero.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self {
            bytes: noise.take(BLOCK_LEN / WORD_LEN).flatten().collect(),
            number: 0,
        }
    }

    fn next(&mut self) -> &[u8] {
        self.number += 1;
        self.bytes[..WORD_LEN].copy_from_slice(&self.number.to_le_bytes());
        &self.bytes
    }
}

/// Fletcher's checksum over 64-bit words: it tells changed, lost, doubled and exchanged bytes, at the speed of memory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Digest {
    bytes: u64,
    sum: u64,
    sum_of_sums: u64,
}

impl Digest {
    /// Adds a piece of the stream. All but the last must be of a multiple of eight bytes.
    fn add(&mut self, piece: &[u8]) {
        let (words, rest) = piece.as_chunks::<WORD_LEN>();
        let mut last = [0; WORD_LEN];
        last[..rest.len()].copy_from_slice(rest);
        for word in words
            .iter()
            .chain([&last].into_iter().filter(|_| !rest.is_empty()))
        {
            self.sum = self.sum.wrapping_add(u64::from_le_bytes(*word));
            self.sum_of_sums = self.sum_of_sums.wrapping_add(self.sum);
        }
        self.bytes += piece.len() as u64;
    }
}

const _: () = assert!(BLOCK_LEN.is_multiple_of(WORD_LEN));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::lab::LabError;
    use crate::netlink::Namespace;

    fn digest(bytes: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.add(bytes);
        digest
    }

    #[test]
    fn the_digest_does_not_depend_on_the_pieces() {
        let bytes = Block::new().bytes;
        let mut pieces = Digest::default();
        for piece in bytes.chunks(24 * WORD_LEN) {
            pieces.add(piece);
        }
        assert_eq!(pieces, digest(&bytes));
    }

    #[test]
    fn the_digest_tells_changed_lost_doubled_and_exchanged_bytes() {
        let bytes = Block::new().bytes;
        let whole = digest(&bytes);
        let mut changed = bytes.clone();
        changed[1000] ^= 1;
        assert_ne!(digest(&changed), whole);
        assert_ne!(digest(&[&bytes[..1000], &bytes[1001..]].concat()), whole);
        assert_ne!(digest(&[&bytes[..1000], &bytes[992..]].concat()), whole);
        let mut exchanged = bytes.clone();
        exchanged[0..16].rotate_left(WORD_LEN);
        assert_ne!(digest(&exchanged), whole);
    }

    #[test]
    fn no_two_blocks_are_alike() {
        let mut block = Block::new();
        let first = block.next().to_vec();
        assert_ne!(first, block.next());
    }

    #[test]
    fn a_stream_within_one_namespace_arrives_whole() {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        let mut heard = 0;
        let transfer = run(
            end,
            end,
            Duration::from_millis(50),
            &Interrupt::default(),
            |_, _| {
                heard += 1;
                Ok(())
            },
        );
        let transfer = transfer.expect("loopback");
        assert!(transfer.verified && transfer.bytes > 0 && heard > 0);
    }

    #[test]
    fn a_stream_ends_when_nobody_wants_to_hear_of_it() {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        let hour = Duration::from_secs(3600);
        let cut = run(end, end, hour, &Interrupt::default(), |_, _| {
            Err(DemoError::Lab(LabError::Interrupted))
        });
        assert!(matches!(cut, Err(DemoError::Lab(LabError::Interrupted))));
    }
}
