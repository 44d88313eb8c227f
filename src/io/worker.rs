//! The threads that drive a lane over kernel devices: one for each direction, woken by edge-triggered events.
//!
//! Two threads, since what goes out need not wait for what comes in; and before a thread sleeps it yields once and looks again: on a
//! busy machine there is work by then, and whoever brought it was spared a wake-up. Both were decided with `bench`, two cores, super
//! wire, medians of four short runs in turn (the kernel's device: 7.6 and 16 Gbit/s, 30 us):
//!
//! | threads a lane | yields | TCP, 1 stream | 4 streams | round trip beside TCP, p50 |
//! |---|---|---|---|---|
//! | one | no | 5.4 Gbit/s | 5.7 | 1.6-2.0 ms |
//! | one | once | 5.5 | 6.2 | 0.2-2.0 |
//! | one | up to 4 times | 5.2 | 6.4 | |
//! | two | no | 5.3 | 5.4 | 0.1-1.2 |
//! | two | once | 6.9 | 7.5 | 0.1-1.8 |
//!
//! On a wire of MTU-sized packets and for small UDP the differences are below the noise.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::prctl::set_timerslack;

use super::moderation::Moderation;
use super::{Lane, LaneError, Progress, TapQueue, UdpPort};

const DEVICE: Token = Token(0);
const STOP: Token = Token(1);

/// By how much the kernel may delay the end of a rest.
const TIMER_SLACK_NS: u64 = 1000;

/// One of a lane's two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the overlay to the underlay.
    Egress,
    /// From the underlay to the overlay.
    Ingress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    /// As a thread is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

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

/// When a thread of a lane sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rhythm {
    /// How long it looks for more work before it sleeps; zero: not at all.
    pub busy_poll: Duration,
    /// Under load, how long it leaves packets to gather at the least: one wake-up serves them all. Zero: not at all, as where it
    /// looks for more.
    pub moderation: Duration,
}

/// One direction of a lane with its event queue, to be moved to the thread that [`run`](Worker::run)s it.
#[derive(Debug)]
pub struct Worker {
    lane: Lane<TapQueue, UdpPort>,
    direction: Direction,
    busy_poll: Duration,
    moderation: Moderation,
    poll: Poll,
    stop: Stop,
}

impl Worker {
    /// Registers the descriptor that `direction` reads.
    ///
    /// # Errors
    /// No descriptors or memory are left for the event queue.
    pub fn new(
        mut lane: Lane<TapQueue, UdpPort>,
        direction: Direction,
        rhythm: Rhythm,
    ) -> io::Result<Self> {
        let Rhythm {
            busy_poll,
            moderation,
        } = rhythm;
        let moderation = if busy_poll.is_zero() {
            moderation
        } else {
            Duration::ZERO
        };
        let poll = Poll::new()?;
        let registry = poll.registry();
        let fd = match direction {
            Direction::Egress => lane.tap().as_raw_fd(),
            Direction::Ingress => lane.underlay().as_raw_fd(),
        };
        registry.register(&mut SourceFd(&fd), DEVICE, Interest::READABLE)?;
        let stop = Stop {
            flag: Arc::default(),
            waker: Arc::new(Waker::new(registry, STOP)?),
        };
        Ok(Self {
            lane,
            direction,
            busy_poll,
            moderation: Moderation::new(moderation),
            poll,
            stop,
        })
    }

    /// A handle that ends this worker.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Forwards until told to stop.
    ///
    /// # Errors
    /// A device is gone for good. Every wake-up ends in a read that drains, fails for good, or fills a batch, so no state of a
    /// descriptor makes this spin.
    pub fn run(mut self) -> Result<(), LaneError> {
        let mut events = Events::with_capacity(2);
        // Rests are shorter than the 50 us that the kernel may add to a sleep; one that it will not cut short is only longer.
        let _ = set_timerslack(TIMER_SLACK_NS);
        while !self.is_stopped() {
            match self.batch()? {
                Progress::More => {}
                Progress::Drained => self.pause(),
                Progress::Idle => match self.moderation.rest_again() {
                    Some(rest) => thread::sleep(rest),
                    None if self.finds_more()? => {}
                    None => wait(&mut self.poll, &mut events)?,
                },
            }
        }
        Ok(())
    }

    /// Lets others work before it looks again: they may bring more, and are spared the wake-up.
    fn pause(&mut self) {
        let rest = match self.moderation.is_on() {
            true => self.moderation.rest(Instant::now()),
            false => Duration::ZERO,
        };
        if rest.is_zero() {
            thread::yield_now();
        } else {
            thread::sleep(rest);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.flag.load(Ordering::Acquire)
    }

    fn batch(&mut self) -> Result<Progress, LaneError> {
        match self.direction {
            Direction::Egress => self.lane.egress_batch(),
            Direction::Ingress => self.lane.ingress_batch(),
        }
    }

    /// Polls for as long as it was told; false if nothing came.
    fn finds_more(&mut self) -> Result<bool, LaneError> {
        if self.busy_poll.is_zero() {
            return Ok(false);
        }
        let start = Instant::now();
        while start.elapsed() < self.busy_poll && !self.is_stopped() {
            if self.batch()? != Progress::Idle {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }
}

/// Waits for events; a signal is an event like any other.
fn wait(poll: &mut Poll, events: &mut Events) -> Result<(), LaneError> {
    match poll.poll(events, None) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(LaneError::Poll(error)),
        _ => Ok(()),
    }
}
