//! What a network card does for the kernel's tunnel device and nobody does for ours: work on transport headers between the
//! TAP, which speaks `virtio_net_hdr`, and the underlay, which does not.
//!
//! A checksum is partial while it holds the pseudo-header's sum only: [`complete`] finishes those the TAP hands out,
//! [`vnet_header`] tells the TAP of those a kernel peer left for its card. No I/O, no allocation.

mod fields;
mod partial;
mod transport;

pub use partial::{BadVnetHeader, complete, vnet_header};
