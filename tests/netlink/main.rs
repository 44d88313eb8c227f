//! The netlink module against the real kernel, in namespaces of its own, with iproute2 as the judge.
//!
//! Needs root and /dev/net/tun; without them every test is reported as ignored with the reason, or as failed if
//! `SILK_VTEP_REQUIRE_NETNS=1`.

mod container;
mod container_source;
mod device;
mod express;
mod fixture;
mod kernel;
mod marks;
mod watch;

use std::process::{Command, ExitCode};

use fixture::{Outcome, random_name};
use libtest_mimic::{Arguments, Trial};
use silk_vtep::netlink::NamedNamespace;

type Test = (&'static str, fn() -> Outcome);

macro_rules! tests {
    ($($module:ident::$name:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name)),*]
    };
}

const TESTS: &[Test] = tests![
    container::add_wires_both_ends_as_silk_does,
    container::containers_reach_each_other_through_the_host,
    container::add_returns_once_the_host_can_send,
    container::add_undoes_a_failure_half_way,
    container::add_refuses_before_it_changes_anything,
    container::add_refuses_the_hosts_own_namespace,
    container::add_refuses_an_address_that_is_no_containers_here,
    container::del_is_idempotent_and_spares_strangers,
    container_source::a_container_speaks_with_its_own_addresses_alone,
    device::configure_sets_up_a_fresh_tap,
    device::configure_mends_what_others_change,
    device::configure_takes_over_a_tap_set_up_silks_way,
    device::configure_clears_away_an_earlier_configuration,
    device::configure_sets_up_an_ipv6_overlay,
    device::configure_leaves_another_devices_route_alone,
    device::remove_leaves_nothing_but_what_was_there,
    device::tells_a_deleted_link_from_other_errors,
    watch::sees_our_link_and_no_other,
    watch::sees_containers_go,
    watch::sees_that_another_way_is_left,
    marks::tcx_programs_carry_marks_and_are_found_again,
    marks::clsact_filters_carry_marks_and_are_found_again,
    marks::a_program_detached_by_others_is_missed,
    marks::programs_on_the_other_hook_are_removed,
    marks::programs_of_others_run_and_stay,
    marks::programs_of_others_before_ours_are_told,
    marks::filters_of_others_before_ours_are_told,
    express::what_is_cut_has_right_checksums_or_none,
    express::a_wire_that_carries_super_frames_gets_them_whole,
    express::what_is_not_taken_reaches_the_tap_as_it_was,
    kernel::links_are_told_apart,
    kernel::long_listings_are_read_whole,
    kernel::refusals_carry_errno_and_the_kernels_words,
    kernel::named_namespaces_are_iproute2s,
    kernel::a_vxlan_device_is_as_iproute2_would_make_it,
    kernel::sysctls_are_those_of_the_namespace,
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let lacking = lacking();
    let required = std::env::var_os("SILK_VTEP_REQUIRE_NETNS").is_some_and(|value| value == "1");
    let trial = |&(name, test): &Test| match lacking.clone() {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, move || Err(reason.into()))
            .with_kind(lacking.clone().unwrap_or_default())
            .with_ignored_flag(!required),
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}

/// What the tests need and this machine lacks.
fn lacking() -> Option<String> {
    if let Err(error) = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        return Some(format!("/dev/net/tun: {error}"));
    }
    if let Err(error) = Command::new("ip").arg("-V").output() {
        return Some(format!("iproute2: {error}"));
    }
    NamedNamespace::create(&random_name("probe"))
        .err()
        .map(|error| error.to_string())
}
