//! The core: a frame or datagram and a [`Tables`](crate::tables::Tables) in, a verdict out.
//!
//! [`egress`] judges a frame the host sent, [`ingress`] a datagram a peer sent. Neither reads a clock, opens a descriptor, allocates or
//! changes the packet: a verdict says what to write, and whoever owns the buffer writes it ([`Encap::header`], [`Deliver::ecn`]). So one
//! decision can serve a super-frame as well as a single packet, and replay, fuzzers and the daemon run the same code.
//!
//! Called by the lanes in `io`, by examples and by tests.

mod egress;
#[cfg(test)]
pub(crate) mod fixture;
mod ingress;
mod outer;
mod reply;

pub use egress::{Egress, Encap, TooBig, egress, egress_super_frame};
pub use ingress::{Deliver, Ingress, Received, ingress};
pub use outer::Outer;
pub use reply::Reply;
