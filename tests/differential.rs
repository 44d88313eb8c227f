//! The kernel's vxlan device and our daemon, side by side: the same frames with the same marks into both, captured on the underlay; the
//! same underlay packets to both, captured on the device. They agree byte for byte, or both drop.
//!
//! What may differ is masked ([`differential::view`]) or written down with its reason ([`differential::difference`]). Cases are lines of
//! two tables, and as many more as one likes are generated:
//!
//! ```text
//! cargo test --test differential                                              every line, and 20,000 generated cases
//! cargo test --test differential -- generated --generated unbounded --seed 7  without end, but for a difference
//! cargo test --test differential -- --case rx/gbp/0..0200...                  one case, as a failure prints it
//! ```
//!
//! They need root, iproute2 and /dev/net/tun. Where those are missing they are reported as ignored, with the reason;
//! `SILK_VTEP_REQUIRE_NETNS=1` makes that a failure.
//!
//! `silk-vtep replay` judges the same lines, which needs nothing ([`differential::replay`]): its verdicts stand in `verdicts.txt`, and so
//! do those of our daemon.

#[allow(dead_code, unused_imports, reason = "each binary of tests uses a part")]
mod support;

mod differential {
    pub(crate) mod case;
    pub(crate) mod datagram;
    pub(crate) mod device;
    pub(crate) mod difference;
    pub(crate) mod flows;
    pub(crate) mod frames;
    pub(crate) mod generated;
    pub(crate) mod ground;
    pub(crate) mod host;
    pub(crate) mod options;
    pub(crate) mod packet_socket;
    pub(crate) mod pcap;
    pub(crate) mod receive;
    pub(crate) mod replay;
    pub(crate) mod row;
    pub(crate) mod run;
    pub(crate) mod setup;
    pub(crate) mod shared;
    pub(crate) mod side;
    pub(crate) mod sums;
    pub(crate) mod super_frame;
    pub(crate) mod tally;
    pub(crate) mod third_party;
    pub(crate) mod transmit;
    pub(crate) mod unplayable;
    pub(crate) mod verdict;
    pub(crate) mod view;
}

use std::process::ExitCode;

use differential::options::Options;
use differential::run::Run;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let (options, arguments) = match Options::from_args() {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let run = Run::new(options);
    let trials = match run.trials() {
        Ok(trials) => trials,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.list {
        return conclusion.exit_code();
    }
    println!("{}\n", run.summary());
    let is_whole = is_whole(&arguments) && run.is_whole();
    let unshown = if is_whole { run.unshown() } else { Vec::new() };
    if !unshown.is_empty() {
        eprintln!("intended differences that no case shows: {unshown:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Nothing is left out.
fn is_whole(arguments: &Arguments) -> bool {
    arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.ignored
}
