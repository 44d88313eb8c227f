//! What the underlay was found to carry to one peer. Lanes read it for each packet and leave word of what was refused; control finds out
//! and writes what it found.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// No bound is known.
const UNBOUNDED: u32 = u32::MAX;

/// Bounds that differ from what the device's MTU promises. None of them is known at first.
#[derive(Debug)]
pub struct PathMtu {
    limit_bytes: AtomicU32,
    was_refused: AtomicBool,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self {
            limit_bytes: AtomicU32::new(UNBOUNDED),
            was_refused: AtomicBool::new(false),
        }
    }
}

impl PathMtu {
    /// The largest inner packet that reaches the peer in one piece, in bytes behind the Ethernet header; `None`: as large as the device takes.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        known(self.limit_bytes.load(Relaxed))
    }

    /// Sets what [`limit`](Self::limit) tells.
    pub fn set_limit(&self, limit_bytes: Option<u32>) {
        self.limit_bytes
            .store(limit_bytes.unwrap_or(UNBOUNDED), Relaxed);
    }

    /// The host refused a datagram, or a run of them, as larger than the link's MTU.
    pub fn note_refused(&self) {
        if !self.was_refused.load(Relaxed) {
            self.was_refused.store(true, Relaxed);
        }
    }

    /// Whether the host refused something since this was asked last.
    pub fn take_refused(&self) -> bool {
        self.was_refused.load(Relaxed) && self.was_refused.swap(false, Relaxed)
    }
}

fn known(bytes: u32) -> Option<u32> {
    (bytes != UNBOUNDED).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once() {
        let path = PathMtu::default();
        assert!(!path.take_refused());
        path.note_refused();
        path.note_refused();
        assert!(path.take_refused() && !path.take_refused());
    }

    #[test]
    fn a_limit_is_there_until_it_is_taken_away() {
        let path = PathMtu::default();
        assert_eq!(path.limit(), None);
        path.set_limit(Some(1350));
        assert_eq!(path.limit(), Some(1350));
        path.set_limit(None);
        assert_eq!(path.limit(), None);
    }
}
