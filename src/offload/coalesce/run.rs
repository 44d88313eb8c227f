//! Frames of one flow that become one.

use super::super::partial::Checksum;
use super::candidate::{Candidate, Flow};
use super::headers::Headers;
use super::{MergeKey, Merged, SLICES_MAX, SUPER_FRAME_LEN_MAX, Slice};
use crate::wire::vnet::VnetHeader;
use crate::wire::vxlan;

/// An open run, or the room for one. Closed ones keep what they last held.
#[derive(Debug)]
pub(super) struct Run {
    key: MergeKey,
    flow: Flow,
    headers: Headers,
    /// Payload bytes of every frame but the last.
    gso_size: usize,
    /// Bytes of the super-frame.
    frame_len: usize,
    /// Where the next TCP segment begins; `None` for UDP, where the order of arrival is all.
    next_sequence: Option<u32>,
    /// Whether the last frame has PSH.
    has_push: bool,
    /// Whether nothing may follow.
    is_sealed: bool,
    /// The payloads.
    slices: Vec<Slice>,
    /// A bit for each that came under a partial checksum, the first frame's lowest.
    partial: u64,
}

const _: () = assert!(SLICES_MAX <= u64::BITS as usize);

impl Run {
    /// Room for a run.
    pub(super) fn vacant() -> Self {
        Self {
            key: MergeKey {
                source: [0; 4].into(),
                tos: 0,
                header: [0; vxlan::HEADER_LEN],
            },
            flow: Flow::none(),
            headers: Headers::none(),
            gso_size: 0,
            frame_len: 0,
            next_sequence: None,
            has_push: false,
            is_sealed: false,
            slices: Vec::with_capacity(SLICES_MAX),
            partial: 0,
        }
    }

    pub(super) fn flow(&self) -> &Flow {
        &self.flow
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Starts over with a frame that stands at `at`.
    pub(super) fn begin(
        &mut self,
        key: &MergeKey,
        flow: &Flow,
        candidate: &Candidate<'_>,
        at: Slice,
    ) {
        self.key = *key;
        self.flow = *flow;
        self.headers.set(candidate);
        self.gso_size = candidate.frame().len() - self.headers.len();
        self.frame_len = self.headers.len();
        self.slices.clear();
        self.partial = 0;
        self.append(candidate.frame(), candidate.checksum(), at);
    }

    /// What the checksum field of `frame` holds, if the frame, perhaps of another flow, continues the run, which is not sealed. The
    /// payload is read last.
    pub(super) fn continued_by(&self, key: &MergeKey, frame: &[u8]) -> Option<Checksum> {
        let (headers, payload) = frame.split_at_checked(self.headers.len())?;
        let continues = self.headers.are_like(headers)
            && self.key == *key
            && self.headers.sequence_of(headers) == self.next_sequence
            && (1..=self.gso_size).contains(&payload.len())
            && self.frame_len + payload.len() <= SUPER_FRAME_LEN_MAX
            && self.headers.is_id_at(self.slices.len(), headers);
        if !continues {
            return None;
        }
        self.headers.checksum_held(frame)
    }

    /// Adds a frame that stands at `at`: the first one or one that continues the run.
    pub(super) fn append(&mut self, frame: &[u8], checksum: Checksum, at: Slice) {
        let (headers, payload) = frame.split_at(self.headers.len());
        self.partial |= u64::from(checksum == Checksum::Partial) << self.slices.len();
        self.slices.push(Slice {
            start: at.start + headers.len(),
            ..at
        });
        self.frame_len += payload.len();
        let sequence = self.headers.sequence_of(headers);
        // Sequence numbers wrap; a frame's payload does not come near 2^32.
        self.next_sequence = sequence.map(|start| start.wrapping_add(payload.len() as u32));
        self.has_push = self.headers.has_push(headers);
        self.is_sealed =
            self.has_push || payload.len() < self.gso_size || self.slices.len() == SLICES_MAX;
    }

    /// What to write, once. A single frame is untouched.
    pub(super) fn finish(&mut self) -> Merged<'_> {
        if self.slices.len() == 1 {
            let frame = &mut self.slices[0];
            frame.start -= self.headers.len();
            let header = match self.partial {
                0 => VnetHeader::default(),
                _ => self.headers.unfinished(),
            };
            return Merged::alone(frame, header);
        }
        let payload_len = self.frame_len - self.headers.len();
        let header = self
            .headers
            .patch(payload_len, self.gso_size, self.has_push);
        Merged::joined(header, self.headers.bytes(), &self.slices, self.partial)
    }
}
