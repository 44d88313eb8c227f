//! The fixture: cells and containers as network namespaces of this machine, and small programs that run in them.
//!
//! A [`Lab`] is built from a [`Plan`] and handed to a test; it removes itself when the test ends, however it ends. Tools that share no
//! code with the daemon are the oracles: iproute2, ping, the kernel's own vxlan device, and sockets opened inside a namespace.

mod burst;
mod capture;
mod case;
mod cell;
mod container;
mod daemon;
mod datagrams;
mod end;
mod kernel_vtep;
mod lab;
mod namespace;
mod noise;
mod obstacles;
mod process;
mod site;
mod snapshot;
mod stats;
mod traffic;
mod tunnel;
mod underlay;

pub(crate) use burst::{Arrivals, burst_with_replies};
pub(crate) use capture::{Injector, Outer, Sniffer};
pub(crate) use case::{Case, run_cases};
pub(crate) use cell::Cell;
pub(crate) use container::{Container, host_veth_name};
pub(crate) use daemon::{Daemon, Ended};
pub(crate) use datagrams::Datagrams;
pub(crate) use end::{End, receive_one};
pub(crate) use kernel_vtep::KernelVtep;
pub(crate) use lab::{Kind, Lab, Plan};
pub(crate) use namespace::{Namespace, udp_port_is_free};
pub(crate) use noise::Noise;
pub(crate) use obstacles::Obstacles;
pub(crate) use process::Process;
pub(crate) use site::{OVERLAY, OVERLAY_V6, SITES, Site, VTEP_NAME, mac_text, vtep_mac};
pub(crate) use snapshot::Snapshot;
pub(crate) use stats::Stats;
pub(crate) use traffic::{Connection, EchoServer, NumberedStream, ping};
pub(crate) use tunnel::Tunnel;
pub(crate) use underlay::{ROUTERS_LINK, Underlay, router_link};

use std::thread;
use std::time::{Duration, Instant};

/// Anything a test can fail with; its text is what a person reads.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// What tests and fixture return.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// How long anything may take that takes milliseconds on an idle machine.
pub(crate) const BOUND: Duration = Duration::from_secs(15);

/// How often a condition is looked at while we wait for it.
const POLL: Duration = Duration::from_millis(20);

/// Fails the test with a formatted message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+).into());
        }
    };
}
pub(crate) use ensure;

/// Polls until `done` says yes.
///
/// # Errors
/// The error of `done`, or `what` with the text of the last look when [`BOUND`] has passed.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> Result<Wait>) -> Result {
    let deadline = Instant::now() + BOUND;
    loop {
        match done()? {
            Wait::Done => return Ok(()),
            Wait::NotYet(seen) => {
                ensure!(
                    Instant::now() < deadline,
                    "waited {BOUND:?} until {what}; last seen: {seen}"
                );
            }
        }
        thread::sleep(POLL);
    }
}

/// One look at a condition.
pub(crate) enum Wait {
    /// It holds.
    Done,
    /// It does not; what was seen instead.
    NotYet(String),
}

impl Wait {
    /// Done if `holds`, else what `seen` says.
    pub(crate) fn unless(holds: bool, seen: impl FnOnce() -> String) -> Self {
        if holds {
            Self::Done
        } else {
            Self::NotYet(seen())
        }
    }
}
