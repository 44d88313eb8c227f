//! What a network card does for the kernel's tunnel device and nobody does for ours: work on transport headers between the
//! TAP, which speaks `virtio_net_hdr`, and the underlay, which does not.
//!
//! | from the TAP | to the TAP |
//! |---|---|
//! | [`complete`] finishes a partial checksum | [`vnet_header`] tells of one a kernel peer left for its card |
//! | [`Segmenter`] cuts a super-frame | [`Coalescer`] joins the frames of a batch into super-frames |
//!
//! A checksum is partial while its field holds the pseudo-header's sum only. No I/O, no clock, no allocation per packet, and no byte
//! of payload is copied.

mod coalesce;
mod fields;
mod partial;
mod segment;
mod transport;

pub use coalesce::{
    CoalesceOptions, Coalescer, MergeKey, Merged, RUNS_MAX, SLICES_MAX, SUPER_FRAME_LEN_MAX, Slice,
};
pub use partial::{BadVnetHeader, complete, is_filled, udp_vnet_header, vnet_header};
pub use segment::{BadSuperFrame, HEADER_LEN_MAX, SEGMENTS_MAX, Segmenter};
