//! Whether marks cross the TAP now.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether the programs of [`bpf::marks`](crate::bpf::marks) are attached, as far as is known: read by all lanes, written by who
/// attaches and watches them. While they are not, no mark is read from a frame and none is written.
#[derive(Debug, Default)]
pub struct MarkTags(AtomicBool);

impl MarkTags {
    /// As the programs are.
    #[must_use]
    pub fn new(attached: bool) -> Self {
        Self(AtomicBool::new(attached))
    }

    /// Whether they are attached.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// They were attached, or are gone.
    pub fn set(&self, attached: bool) {
        self.0.store(attached, Relaxed);
    }
}
