//! The thread that drives one lane over kernel devices.
//!
//! One thread serves both directions of a lane, woken by edge-triggered events. A direction stays *ready* until it has been drained, so
//! no event is needed for what was already there when a batch filled up.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::{Lane, LaneError, Progress, TapQueue, UdpPort};

const TAP: Token = Token(0);
const UNDERLAY: Token = Token(1);
const STOP: Token = Token(2);

/// Ends a worker from another thread.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stop {
    /// Asks the worker to end after the batch it is in.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
        // A worker that cannot be woken is already gone.
        let _ = self.waker.wake();
    }
}

/// One lane with its event queue, to be moved to the thread that [`run`](Worker::run)s it.
#[derive(Debug)]
pub struct Worker {
    lane: Lane<TapQueue, UdpPort>,
    busy_poll: Duration,
    poll: Poll,
    stop: Stop,
}

impl Worker {
    /// Registers the lane's descriptors. Out of work, the lane looks for more for as long as `busy_poll` before it sleeps.
    ///
    /// # Errors
    /// No descriptors or memory are left for the event queue.
    pub fn new(mut lane: Lane<TapQueue, UdpPort>, busy_poll: Duration) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(
            &mut SourceFd(&lane.tap().as_raw_fd()),
            TAP,
            Interest::READABLE,
        )?;
        registry.register(
            &mut SourceFd(&lane.underlay().as_raw_fd()),
            UNDERLAY,
            Interest::READABLE,
        )?;
        let stop = Stop {
            flag: Arc::default(),
            waker: Arc::new(Waker::new(registry, STOP)?),
        };
        Ok(Self {
            lane,
            busy_poll,
            poll,
            stop,
        })
    }

    /// A handle that ends this worker.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Forwards both ways until told to stop.
    ///
    /// # Errors
    /// A device is gone for good. Every wake-up ends in a read that drains, fails for good, or fills a batch, so no state of a
    /// descriptor makes this spin.
    pub fn run(mut self) -> Result<(), LaneError> {
        let mut events = Events::with_capacity(8);
        let (mut tap, mut underlay) = (Progress::More, Progress::More);
        while !self.stop.flag.load(Ordering::Acquire) {
            if tap == Progress::More {
                tap = self.lane.egress_batch()?;
            }
            if underlay == Progress::More {
                underlay = self.lane.ingress_batch()?;
            }
            if tap == Progress::More || underlay == Progress::More {
                wait(&mut self.poll, &mut events, Some(Duration::ZERO))?;
            } else if self.finds_work()? {
                (tap, underlay) = (Progress::More, Progress::More);
                continue;
            } else {
                wait(&mut self.poll, &mut events, None)?;
            }
            for event in &events {
                match event.token() {
                    TAP => tap = Progress::More,
                    UNDERLAY => underlay = Progress::More,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Polls both devices for as long as it was told; false if nothing came.
    fn finds_work(&mut self) -> Result<bool, LaneError> {
        if self.busy_poll.is_zero() {
            return Ok(false);
        }
        let start = Instant::now();
        while start.elapsed() < self.busy_poll && !self.stop.flag.load(Ordering::Acquire) {
            if self.lane.egress_batch()? != Progress::Idle
                || self.lane.ingress_batch()? != Progress::Idle
            {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }
}

/// Waits for events; a signal is an event like any other.
fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> Result<(), LaneError> {
    match poll.poll(events, timeout) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(LaneError::Poll(error)),
        _ => Ok(()),
    }
}
