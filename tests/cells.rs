//! Namespace tests: real `silk-vtep` processes and the kernel's own vxlan device, joined by veth pairs on this machine.
//!
//! They need root, iproute2, ping and /dev/net/tun; some of them iptables. Where those are missing they are reported as ignored, with the
//! reason; `SILK_VTEP_REQUIRE_NETNS=1` makes that a failure.

#[allow(dead_code, unused_imports, reason = "each binary of tests uses a part")]
mod support;

mod cells {
    pub(crate) mod absent;
    pub(crate) mod capture;
    pub(crate) mod capture_live;
    pub(crate) mod containers;
    pub(crate) mod doctor;
    pub(crate) mod exchange;
    pub(crate) mod express;
    pub(crate) mod flood;
    pub(crate) mod garbage;
    pub(crate) mod gone;
    pub(crate) mod health;
    pub(crate) mod kernel_peer;
    pub(crate) mod lanes;
    pub(crate) mod marks;
    pub(crate) mod marks_detached;
    pub(crate) mod marks_off;
    pub(crate) mod offload;
    pub(crate) mod overlay_v6;
    pub(crate) mod path_mtu;
    pub(crate) mod policy;
    pub(crate) mod policy_packets;
    pub(crate) mod policy_rules;
    pub(crate) mod readme;
    pub(crate) mod reconfigure;
    pub(crate) mod registry;
    pub(crate) mod repair;
    pub(crate) mod restart;
    pub(crate) mod setup;
    pub(crate) mod spoof;
    pub(crate) mod spoof_solicitation;
    pub(crate) mod stepdown;
    pub(crate) mod tables;
    pub(crate) mod trace;
    pub(crate) mod wire;
}

use std::process::ExitCode;

use support::Case;

fn main() -> ExitCode {
    let cases = [
        cells::exchange::cases(),
        cells::express::cases(),
        cells::wire::cases(),
        cells::lanes::cases(),
        cells::marks::cases(),
        cells::marks_detached::cases(),
        cells::marks_off::cases(),
        cells::offload::cases(),
        cells::kernel_peer::cases(),
        cells::stepdown::cases(),
        cells::overlay_v6::cases(),
        cells::path_mtu::cases(),
        cells::policy::cases(),
        cells::gone::cases(),
        cells::flood::cases(),
        cells::policy_packets::cases(),
        cells::policy_rules::cases(),
        cells::tables::cases(),
        cells::containers::cases(),
        cells::registry::cases(),
        cells::absent::cases(),
        cells::health::cases(),
        cells::readme::cases(),
        cells::reconfigure::cases(),
        cells::restart::cases(),
        cells::repair::cases(),
        cells::setup::cases(),
        cells::doctor::cases(),
        cells::garbage::cases(),
        cells::spoof::cases(),
        cells::spoof_solicitation::cases(),
        cells::trace::cases(),
        cells::capture::cases(),
        cells::capture_live::cases(),
    ];
    support::run_cases(cases.into_iter().flatten())
}
