//! The CNI plugin, called as a runtime calls it: in namespaces of this machine, beside a real daemon, with iproute2 as the judge.
//!
//! They need root, iproute2 and /dev/net/tun; some of them Debian's containernetworking-plugins, podman with runc and busybox-static, or
//! a C compiler. Where those are missing they are reported as ignored, with the reason; `SILK_VTEP_REQUIRE_NETNS=1` makes that a failure.

#[allow(dead_code, unused_imports, reason = "each binary of tests uses a part")]
mod support;

mod cni {
    pub(crate) mod address;
    pub(crate) mod bad_input;
    pub(crate) mod busy;
    pub(crate) mod chain;
    pub(crate) mod check;
    pub(crate) mod collect;
    pub(crate) mod daemon;
    pub(crate) mod faults;
    pub(crate) mod lifecycle;
    pub(crate) mod ownership;
    pub(crate) mod plugin;
    pub(crate) mod podman;
    pub(crate) mod preload;
    pub(crate) mod result;
    pub(crate) mod sandbox;
    pub(crate) mod taken;
    pub(crate) mod witness;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        cni::lifecycle::cases(),
        cni::result::cases(),
        cni::address::cases(),
        cni::taken::cases(),
        cni::ownership::cases(),
        cni::bad_input::cases(),
        cni::check::cases(),
        cni::collect::cases(),
        cni::daemon::cases(),
        cni::faults::cases(),
        cni::busy::cases(),
        cni::witness::cases(),
        cni::chain::cases(),
        cni::podman::cases(),
    ];
    support::run_cases(cases.into_iter().flatten())
}
