//! What is to be written, and from where.

use std::ops::Range;

use crate::wire::vnet::VnetHeader;

/// Bytes in one of the caller's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The buffer's number; means nothing to the coalescer.
    pub buffer: usize,
    /// The first byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl Slice {
    /// As a range, to index the buffer with.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// How many bytes; 0 if `end` is before `start`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One packet for the TAP: `header`, then `headers`, then the bytes of each of `slices`.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    header: VnetHeader,
    headers: &'a [u8],
    slices: &'a [Slice],
}

impl<'a> Merged<'a> {
    /// A frame as it came.
    pub(super) fn alone(frame: &'a Slice, header: VnetHeader) -> Self {
        Self {
            header,
            headers: &[],
            slices: std::slice::from_ref(frame),
        }
    }

    /// A super-frame of the payloads at `slices`, before each of which stands a frame's header of the length of `headers`.
    pub(super) fn joined(header: VnetHeader, headers: &'a [u8], slices: &'a [Slice]) -> Self {
        Self {
            header,
            headers,
            slices,
        }
    }

    /// What to write before the frame.
    #[must_use]
    pub fn header(&self) -> &VnetHeader {
        &self.header
    }

    /// The super-frame's headers, Ethernet to transport; empty if a frame passes alone.
    #[must_use]
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }

    /// What follows: the payloads in order, or the one frame whole. Never empty, [`SLICES_MAX`](super::SLICES_MAX) at the most.
    #[must_use]
    pub fn slices(&self) -> &'a [Slice] {
        self.slices
    }

    /// True if this is more than one frame.
    #[must_use]
    pub fn is_super_frame(&self) -> bool {
        self.slices.len() > 1
    }

    /// True for a frame that came with a partial checksum (see [`vnet_header`](super::super::vnet_header)). One that was joined here came
    /// with complete ones.
    #[must_use]
    pub fn was_partial(&self) -> bool {
        self.header.needs_csum && self.headers.is_empty()
    }

    /// Bytes of the frame to write, without the `virtio_net_hdr`.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        let payload: usize = self.slices.iter().map(Slice::len).sum();
        self.headers.len() + payload
    }

    /// The frames it was made of, in order: to count them, or to write them one by one, each under the default header, should the
    /// TAP refuse a super-frame.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Slice> + use<'a> {
        let header_len = self.headers.len();
        self.slices.iter().map(move |slice| Slice {
            start: slice.start - header_len,
            ..*slice
        })
    }
}
