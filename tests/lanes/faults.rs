//! Devices that fail.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use silk_vtep::DropReason;
use silk_vtep::counters::Counters;
use silk_vtep::io::memory::MemoryUnderlay;
use silk_vtep::io::{Lane, LaneError, Progress, Tap};

use crate::cell::{LANES, compile, options, underlay_address};

/// A TAP whose reads fail with EINVAL so many times, and then have nothing.
struct BadFrames(usize);

impl Tap for BadFrames {
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let errno = match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                libc::EINVAL
            }
            None => libc::EAGAIN,
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    fn send(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads until nothing is left; returns how that ended and what was counted.
fn drain(bad_frames: usize) -> (Result<Progress, LaneError>, Vec<(DropReason, u64)>) {
    let tables = Arc::new(ArcSwap::from_pointee(compile(1, &[2])));
    let counters = Arc::new(Counters::new(LANES));
    let underlay = MemoryUnderlay::new(underlay_address(1));
    let tap = BadFrames(bad_frames);
    let mut lane = Lane::new(0, tap, underlay, tables, Arc::clone(&counters), &options());
    loop {
        match lane.egress_batch() {
            Ok(Progress::More) => {}
            end => return (end, counters.totals().drops().collect()),
        }
    }
}

#[test]
fn a_frame_the_tap_cannot_hand_over_is_a_counted_drop() {
    let (end, drops) = drain(3);
    assert_eq!(end.expect("the TAP is there"), Progress::Drained);
    assert_eq!(drops, [(DropReason::BadVnetHeader, 3)]);
}

#[test]
fn a_tap_that_hands_over_nothing_else_ends_the_lane() {
    let (end, _) = drain(usize::MAX);
    assert!(matches!(end, Err(LaneError::Tap(_))), "{end:?}");
}
