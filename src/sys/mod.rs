//! The only `unsafe`: one thin function per system call, descriptors borrowed in and owned out, no logic.
//!
//! Called by `io` and `netlink`. What `nix`, `socket2` or the standard library offer safely is not wrapped again.
#![allow(unsafe_code)]

pub mod bpf;
#[cfg(test)]
pub(crate) mod bpf_machine;
pub mod bpf_map;
pub mod error_queue;
pub mod ethtool;
pub mod namespace;
pub mod tcx;
#[cfg(test)]
pub(crate) mod thread;
pub mod tun;
pub mod udp;
