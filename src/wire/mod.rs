//! Codecs: bytes to fields and back. No allocation, no I/O, no policy.

pub mod arp;
pub mod checksum;
pub mod claim;
pub mod ecn;
pub mod ethernet;
pub mod flow;
pub mod icmp;
pub mod ip;
mod mac;
pub mod mark_tag;
pub mod ndisc;
pub mod vnet;
pub mod vxlan;

pub use ecn::Ecn;
pub use mac::{MacAddr, ParseMacError};
pub use vxlan::{GroupId, Mark, Vni};

use std::ops::Range;

/// The bytes of one header field. On a header of known size with a constant range the bounds check compiles away.
///
/// # Panics
/// If `range` is not `N` bytes inside `header`; both are constants of this module wherever it is called.
#[inline]
fn field<const N: usize>(header: &[u8], range: Range<usize>) -> [u8; N] {
    header[range].try_into().expect("the range is N bytes long")
}
