//! Whether the host cuts a run of datagrams to one peer into those datagrams (UDP_SEGMENT), as far as it has shown.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Runs that go one by one before the host is asked again. What it refuses then costs one system call in so many runs, and a path that
/// has changed back is noticed within seconds where it matters.
const RUNS_BETWEEN_TRIES: u32 = 1024;

/// Whether the host segments runs to one peer. It decides by the route: none that goes through IPsec, on older kernels none over a card
/// that puts no checksums on, and never a segment larger than the path's MTU (`udp_send_skb`). So a refusal says nothing of other peers,
/// and nothing for good.
///
/// All lanes read and write it; what they miss of each other costs a refused send.
#[derive(Debug, Default)]
pub struct Segmentation {
    /// Runs until the host is asked again; 0: none is refused.
    left: AtomicU32,
}

impl Segmentation {
    /// Whether the next run is to be offered whole: if none is refused, or it is time to ask again.
    #[inline]
    pub fn takes_next(&self) -> bool {
        let left = self.left.load(Relaxed);
        if left > 0 {
            self.left.store(left - 1, Relaxed);
        }
        left <= 1
    }

    /// The host refused a run and took its datagrams.
    pub fn refused(&self) {
        self.left.store(RUNS_BETWEEN_TRIES, Relaxed);
    }

    /// Whether runs go one by one for now.
    #[must_use]
    #[inline]
    pub fn is_refused(&self) -> bool {
        self.left.load(Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_a_bounded_number_of_runs() {
        let segmentation = Segmentation::default();
        assert!(segmentation.takes_next() && !segmentation.is_refused());
        segmentation.refused();
        for run in 1..RUNS_BETWEEN_TRIES {
            assert!(!segmentation.takes_next(), "run {run}");
        }
        assert!(segmentation.takes_next() && !segmentation.is_refused());
    }
}
