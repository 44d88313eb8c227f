//! Live packets, copied out of the lanes with what became of them.
//!
//! ```text
//! lane 0 --+-- filter, copy --> queue 0 --+
//! lane 1 --+-- filter, copy --> queue 1 --+--> Capture::drain, on whose thread likes
//! ```
//!
//! A lane looks once a batch whether anybody captures; if nobody does, that is one branch a packet. If somebody does, a packet that the
//! filter wants is copied into a [`Record`] that was allocated when the capture began; where none is free, because the reader is slow, the
//! packet is left out and counted. No lane ever waits, allocates, or wakes somebody up.
//!
//! Called by the lanes, and by [`control`](crate::control) for whoever asked.

mod filter;
mod record;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

pub use filter::Filter;
pub use record::{Record, Sender};
pub(super) use session::Seen;
use session::Session;
pub use session::{Count, SNAP_BYTES, SNAP_BYTES_MAX};

use super::worker::Direction;

/// Captures at once. Each costs the lanes a copy of a packet.
pub const CAPTURES_MAX: usize = 4;

/// All captures of one daemon: none, as a rule.
#[derive(Debug, Default)]
pub struct Captures {
    /// Whether `sessions` has any.
    on: AtomicBool,
    sessions: ArcSwap<Sessions>,
    /// Held while the list changes.
    changing: Mutex<()>,
}

/// Those that run.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Arc<Session>>);

impl Captures {
    /// Begins to capture what `filter` wants of `lanes` lanes, up to `snap_bytes` of each packet. It ends when it is dropped.
    ///
    /// # Errors
    /// As many run as may.
    pub fn start(
        self: &Arc<Self>,
        lanes: usize,
        filter: Filter,
        snap_bytes: usize,
    ) -> Result<Capture, TooMany> {
        let session = Arc::new(Session::new(lanes, filter, snap_bytes));
        let _changing = self.changing.lock();
        let mut sessions = self.sessions.load().0.clone();
        if sessions.len() >= CAPTURES_MAX {
            return Err(TooMany);
        }
        sessions.push(Arc::clone(&session));
        self.set(sessions);
        Ok(Capture {
            session,
            captures: Arc::clone(self),
        })
    }

    /// Whether any runs.
    pub(super) fn are_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Those that run, for the time of a batch.
    pub(super) fn load(&self) -> Option<Guard<Arc<Sessions>>> {
        self.are_on().then(|| self.sessions.load())
    }

    fn end(&self, session: &Arc<Session>) {
        let _changing = self.changing.lock();
        let mut sessions = self.sessions.load().0.clone();
        sessions.retain(|other| !Arc::ptr_eq(other, session));
        self.set(sessions);
    }

    /// `changing` is held.
    fn set(&self, sessions: Vec<Arc<Session>>) {
        let on = !sessions.is_empty();
        self.sessions.store(Arc::new(Sessions(sessions)));
        self.on.store(on, Relaxed);
    }
}

impl Sessions {
    /// Offers a packet of lane `lane`: `first` begins it, `rest` follows.
    #[cold]
    pub(super) fn offer<'p>(
        &self,
        lane: usize,
        seen: &Seen<'_>,
        first: &'p [u8],
        rest: impl Iterator<Item = &'p [u8]> + Clone,
    ) {
        for session in &self.0 {
            session.offer(lane, seen, first, rest.clone());
        }
    }
}

/// [`CAPTURES_MAX`] captures run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CAPTURES_MAX} captures run already")]
pub struct TooMany;

/// The reading end of one capture.
#[derive(Debug)]
pub struct Capture {
    session: Arc<Session>,
    captures: Arc<Captures>,
}

impl Capture {
    /// Takes what the lanes have copied so far, at the most what their queues hold, in the order of time as far as it is there.
    pub fn drain(&mut self, each: impl FnMut(&Record)) {
        self.session.drain(each);
    }

    /// What was wanted so far of one direction, and left out.
    #[must_use]
    pub fn count(&self, direction: Direction) -> Count {
        self.session.count(direction)
    }

    /// Bytes of each packet that are kept.
    #[must_use]
    pub fn snap_bytes(&self) -> usize {
        self.session.snap_bytes()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.captures.end(&self.session);
    }
}

#[cfg(test)]
mod tests;
