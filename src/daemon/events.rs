//! What the daemon's main thread waits for, and the threads that tell it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::thread::Thread;
use crate::error::SetupError;
use crate::io::LaneError;
use crate::netlink::{Departed, WatchEvent, Watcher};

/// Something the main thread acts on.
#[derive(Debug)]
pub(super) enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// The TAP, its addresses or routes may have changed.
    DeviceChanged,
    /// The TAP was deleted.
    DeviceGone,
    /// The TAP can no longer be watched.
    WatchFailed(SetupError),
    /// A lane ended by itself.
    LaneEnded(usize, LaneError),
}

/// Events waiting at once; senders wait when the main thread is this far behind.
const QUEUE: usize = 64;

/// The channel all events come through.
pub(super) fn channel() -> (Sender<Event>, Receiver<Event>) {
    crossbeam_channel::bounded(QUEUE)
}

/// The thread that turns signals into events; ends when dropped.
pub(super) struct SignalThread {
    thread: Thread,
    handle: Handle,
}

impl SignalThread {
    pub(super) fn start(events: Sender<Event>) -> Result<Self, SetupError> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|error| SetupError::system("handle", "SIGTERM, SIGINT and SIGHUP", &error))?;
        let handle = signals.handle();
        let thread = Thread::spawn("signals", move || {
            for signal in &mut signals {
                let event = if signal == SIGHUP {
                    Event::Reload
                } else {
                    Event::Stop
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { handle, thread })
    }
}

impl SignalThread {
    pub(super) fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The thread that watches the TAP by netlink; ends when dropped, or when the TAP is gone.
pub(super) struct WatchThread {
    /// Before the waker: closing that takes back a wake-up that was not heard yet.
    thread: Thread,
    waker: Waker,
}

const NETLINK: Token = Token(0);
const STOP: Token = Token(1);

impl WatchThread {
    /// `departed` is told to whom a way is gone.
    pub(super) fn start(
        watcher: Watcher,
        events: Sender<Event>,
        departed: impl FnMut(Departed) + Send + 'static,
    ) -> Result<Self, SetupError> {
        let (poll, waker) = registered(&watcher)
            .map_err(|error| SetupError::system("watch", watcher.name(), &error))?;
        let thread = Thread::spawn("watch", move || watch(watcher, poll, &events, departed))?;
        Ok(Self { waker, thread })
    }
}

fn registered(watcher: &Watcher) -> io::Result<(Poll, Waker)> {
    let poll = Poll::new()?;
    let fd = watcher.as_fd().as_raw_fd();
    poll.registry()
        .register(&mut SourceFd(&fd), NETLINK, Interest::READABLE)?;
    let waker = Waker::new(poll.registry(), STOP)?;
    Ok((poll, waker))
}

/// Reads until nothing is pending, then waits: events are edge-triggered.
fn watch(
    mut watcher: Watcher,
    mut poll: Poll,
    out: &Sender<Event>,
    mut departed: impl FnMut(Departed),
) {
    let mut events = Events::with_capacity(4);
    loop {
        let drained = watcher.drain();
        watcher.take_departed().into_iter().for_each(&mut departed);
        let event = match drained {
            Ok(WatchEvent::Nothing) => {
                if !wait(&mut poll, &mut events) {
                    return;
                }
                continue;
            }
            Ok(WatchEvent::Changed) => Event::DeviceChanged,
            Ok(WatchEvent::Gone) => Event::DeviceGone,
            Err(error) => Event::WatchFailed(error),
        };
        let Event::DeviceChanged = event else {
            // The last word; nobody to hear it only while the daemon ends anyway.
            let _ = out.send(event);
            return;
        };
        // A full queue already holds one of these.
        if let Err(TrySendError::Disconnected(_)) = out.try_send(event) {
            return;
        }
    }
}

/// Waits for readability; false to end.
fn wait(poll: &mut Poll, events: &mut Events) -> bool {
    match poll.poll(events, None) {
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
        Ok(()) => !events.iter().any(|event| event.token() == STOP),
    }
}

impl WatchThread {
    pub(super) fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        // If it cannot be woken it has already ended.
        let _ = self.waker.wake();
    }
}
