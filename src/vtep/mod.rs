//! The core: a frame or datagram and a [`Tables`](crate::tables::Tables) in, a verdict out.
//!
//! [`egress`] judges a frame the host sent, [`ingress`] a datagram a peer sent. Neither reads a clock, opens a descriptor, allocates or
//! changes the packet: a verdict says what to write, and whoever owns the buffer writes it ([`Encap::header`], [`Deliver::ecn`]). So one
//! decision can serve a super-frame as well as a single packet, and replay, fuzzers and the daemon run the same code.
//!
//! What is left to the caller:
//!
//! | verdict | what it asks for |
//! |---|---|
//! | [`Egress::Encap`] | write [`destination_mac`](Encap::destination_mac) into the frame, if there is one; then, for each destination, send [`header`](Encap::header) and frame to its `underlay` address, under `tos`, from a port that `flow_hash` chooses |
//! | [`Egress::Reply`] | give the frame back to the host |
//! | [`Egress::Fragment`] | as for `Encap`, each packet cut into [fragments](crate::wire::ip::Fragmenter) that fit |
//! | [`Egress::TooBig`] | count the drop; give the host [`message`](TooBig::message), as often as is fit |
//! | [`Ingress::Deliver`] | write [`ecn`](Deliver::ecn) into the inner header, if there is one ([`write_ecn`](crate::wire::ip::write_ecn)); give the inner frame to the host |
//! | [`Ingress::Unsolicited`] | deliver it if it is part of a flow that the host began, which whoever keeps flows knows; else count `policy-denied` |
//! | [`Ingress::Reply`] | judge the frame as if the host had sent it |
//! | [`Egress::Drop`], [`Ingress::Drop`] | count the reason |
//!
//! A [`Lane`](crate::io::Lane) does all of it; who has no devices has [`MemoryCell`](crate::io::memory::MemoryCell).
//!
//! Called by the lanes in `io`, by examples and by tests.

mod egress;
mod encap;
mod fate;
#[cfg(test)]
pub(crate) mod fixture;
mod forward;
mod ingress;
mod outer;
pub mod policy;
mod reply;
mod source;

pub use egress::{Egress, egress, egress_super_frame};
pub use encap::{Encap, TooBig};
pub use fate::Fate;
pub use ingress::{Deliver, Ingress, Received, ingress};
pub use outer::Outer;
pub use policy::{FlowKey, Step, Subject};
pub use reply::Reply;
