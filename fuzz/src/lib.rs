//! What the fuzz targets do, one function each: any bytes in, a panic if something is wrong.
//!
//! Each target asks for more than that nothing panics: what the core decides is compared with [`naive`], which scans lists and copies
//! frames; what is cut must join again; what is parsed must print and parse again. The binaries in `fuzz_targets` hand the functions to
//! libFuzzer; `tests/corpus.rs` of the crate includes this file and replays the seeds and every crash found so far.

pub mod arp_nd;
pub mod capture;
pub mod coalesce;
pub mod configuration;
pub mod control_protocol;
pub mod decap;
pub mod encap;
pub mod icmp;
pub mod naive;
pub mod netlink;
mod offload;
mod repair;
pub mod seeds;
pub mod segment;
pub mod two_cores;
pub mod world;

/// A target's name, that of its binary and its folders, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 11] = [
    ("decap", decap::target),
    ("encap", encap::target),
    ("segment", segment::target),
    ("coalesce", coalesce::target),
    ("arp_nd", arp_nd::target),
    ("icmp", icmp::target),
    ("capture", capture::target),
    ("control_protocol", control_protocol::target),
    ("configuration", configuration::target),
    ("netlink", netlink::target),
    ("two_cores", two_cores::target),
];
