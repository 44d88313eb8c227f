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
    /// A bit for each frame that came under a partial checksum, the first one's lowest.
    partial: u64,
}

impl<'a> Merged<'a> {
    /// A frame as it came.
    pub(super) fn alone(frame: &'a Slice, header: VnetHeader) -> Self {
        Self {
            header,
            headers: &[],
            slices: std::slice::from_ref(frame),
            partial: header.needs_csum.into(),
        }
    }

    /// A super-frame of the payloads at `slices`, before each of which stands a frame's header of the length of `headers`.
    /// `partial` has a bit for each that came under a partial checksum.
    pub(super) fn joined(
        header: VnetHeader,
        headers: &'a [u8],
        slices: &'a [Slice],
        partial: u64,
    ) -> Self {
        Self {
            header,
            headers,
            slices,
            partial,
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

    /// How many of [`frames`](Self::frames) came with a partial checksum (see [`vnet_header`](super::super::vnet_header)).
    #[must_use]
    pub fn partial_checksums(&self) -> u32 {
        self.partial.count_ones()
    }

    /// Bytes of the frame to write, without the `virtio_net_hdr`.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        let payload: usize = self.slices.iter().map(Slice::len).sum();
        self.headers.len() + payload
    }

    /// The frames it was made of, in order: to count them, or to write them one by one, each under its own of
    /// [`frame_headers`](Self::frame_headers), should the TAP refuse a super-frame.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Slice> + use<'a> {
        let header_len = self.headers.len();
        self.slices.iter().map(move |slice| Slice {
            start: slice.start - header_len,
            ..*slice
        })
    }

    /// What to write before each of [`frames`](Self::frames) that were joined here, should they be written one by one; of a frame that
    /// passes alone, its header.
    pub fn frame_headers(&self) -> impl Iterator<Item = VnetHeader> + use<> {
        let (header, partial) = (self.header, self.partial);
        let is_joined = !self.headers.is_empty();
        let unfinished = VnetHeader {
            needs_csum: true,
            csum_start: header.csum_start,
            csum_offset: header.csum_offset,
            ..VnetHeader::default()
        };
        (0..self.slices.len()).map(move |place| match partial >> place & 1 {
            _ if !is_joined => header,
            0 => VnetHeader::default(),
            _ => unfinished,
        })
    }
}
