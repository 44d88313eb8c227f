//! TCP streams from one container to the other, as fast as they go.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use crossbeam_utils::CachePadded;

use crate::cli::lab::LabError;
use crate::cli::lab::connection;
use crate::cli::lab::ground::End;
use crate::cli::lab::joined;
use crate::error::SetupError;

/// Written and read at a time, as iperf3 does.
const BLOCK_LEN: usize = 128 << 10;

/// Connected streams, all the same way.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    ends: (End<'a>, End<'a>),
    streams: Vec<Stream>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct Stream {
    sender: TcpStream,
    receiver: TcpStream,
    /// Its own cache line: the receivers write theirs all the time.
    received: CachePadded<AtomicU64>,
}

impl<'a> Streams<'a> {
    /// Connects `count` streams.
    ///
    /// # Errors
    /// If the containers cannot connect.
    pub(super) fn connect(from: End<'a>, to: End<'a>, count: usize) -> Result<Self, SetupError> {
        let stream = |_| {
            let (sender, receiver) = connection::open(from, to)?;
            Ok(Stream {
                sender,
                receiver,
                received: CachePadded::default(),
            })
        };
        Ok(Self {
            ends: (from, to),
            streams: (0..count).map(stream).collect::<Result<_, SetupError>>()?,
            stopped: AtomicBool::new(false),
        })
    }

    /// Bytes received so far, by all.
    pub(super) fn received(&self) -> u64 {
        self.streams
            .iter()
            .map(|stream| stream.received.load(Relaxed))
            .sum()
    }

    /// Does `work` while the streams run, two threads each, and then ends them.
    ///
    /// # Errors
    /// If a stream breaks before; as `work`.
    pub(super) fn run<T>(
        self,
        work: impl FnOnce(&Self) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let streams = &self;
        thread::scope(|scope| {
            let threads: Vec<_> = streams
                .streams
                .iter()
                .flat_map(|stream| {
                    [
                        scope
                            .spawn(move || streams.until_stopped(|| stream.send(&streams.stopped))),
                        scope.spawn(move || {
                            streams.until_stopped(|| stream.receive(&streams.stopped))
                        }),
                    ]
                })
                .collect();
            // Streams that a panic of `work` left running would keep the scope waiting for ever.
            let stopping = StopOnDrop(streams);
            let done = work(streams);
            drop(stopping);
            let ended = threads.into_iter().map(joined).fold(Ok(()), Result::and);
            let done = done?;
            ended.map_err(|error| connection::failed(streams.ends, "stream", &error))?;
            Ok(done)
        })
    }

    /// What a thread says after the streams were cut off is no news.
    fn until_stopped(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match work() {
            Err(error) if !self.stopped.load(Relaxed) => Err(error),
            _ => Ok(()),
        }
    }
}

struct StopOnDrop<'a, 'b>(&'a Streams<'b>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Relaxed);
        for stream in &self.0.streams {
            // Wakes whoever waits in it; one that is broken already needs no waking.
            let _ = stream.sender.shutdown(Shutdown::Both);
            let _ = stream.receiver.shutdown(Shutdown::Both);
        }
    }
}

impl Stream {
    fn send(&self, stopped: &AtomicBool) -> io::Result<()> {
        let block = vec![0x5a; BLOCK_LEN];
        while !stopped.load(Relaxed) {
            transient_is_zero((&self.sender).write(&block))?;
        }
        Ok(())
    }

    fn receive(&self, stopped: &AtomicBool) -> io::Result<()> {
        let mut block = vec![0; BLOCK_LEN];
        while !stopped.load(Relaxed) {
            let len = transient_is_zero((&self.receiver).read(&mut block))?;
            self.received.fetch_add(len as u64, Relaxed);
        }
        Ok(())
    }
}

/// The socket's tick passed, or a signal came: neither says anything about the stream.
fn transient_is_zero(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(0)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::Namespace;

    #[test]
    fn streams_run_as_long_as_the_work_and_no_longer() {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        let streams = Streams::connect(end, end, 2).expect("loopback");
        let received = streams.run(|streams| {
            while streams.received() < 1 << 20 {
                thread::yield_now();
            }
            Ok(streams.received())
        });
        assert!(matches!(received, Ok(1_048_576..)));
    }

    #[test]
    fn streams_end_when_the_work_fails() {
        let here = Namespace::current().expect("/proc is mounted");
        let end = End {
            namespace: &here,
            address: Ipv4Addr::LOCALHOST,
        };
        let streams = Streams::connect(end, end, 1).expect("loopback");
        let ended = streams.run(|_| Err::<(), _>(LabError::Interrupted));
        assert!(matches!(ended, Err(LabError::Interrupted)));
    }
}
