//! What one read of the underlay gave.

use crate::sys::udp::Datagram;

/// The largest datagram, and all that UDP_GRO joins, in whole cache lines.
const SLOT_BYTES: usize = 1 << 16;

/// Messages of one read at the most. Each may be many datagrams. With 1, 2 and 8 `bench` shows the same within its noise; 8 spare small
/// datagrams seven system calls in eight.
const SLOTS: usize = 8;

/// Room for some messages, each a datagram or several of one sender that the host joined.
#[derive(Debug)]
pub struct Arrivals {
    bytes: Box<[u8]>,
    messages: Vec<Datagram>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            bytes: vec![0; SLOTS * SLOT_BYTES].into(),
            messages: Vec::with_capacity(SLOTS),
        }
    }
}

impl Arrivals {
    /// What was read: message `i` is in slot `i`.
    #[must_use]
    pub fn messages(&self) -> &[Datagram] {
        &self.messages
    }

    /// The bytes of slot `index`.
    ///
    /// # Panics
    /// If there is no such slot.
    #[must_use]
    pub fn slot(&self, index: usize) -> &[u8] {
        &self.bytes[index * SLOT_BYTES..][..SLOT_BYTES]
    }

    /// As [`slot`](Self::slot), to be changed in place.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn slot_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * SLOT_BYTES..][..SLOT_BYTES]
    }

    /// Whether the read filled all slots: there may be more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.messages.len() == SLOTS
    }

    /// For an [`Underlay`](super::Underlay) to fill: the slots one behind the other, the bytes of each, and the list of messages,
    /// which has room for as many.
    pub fn parts(&mut self) -> (&mut [u8], usize, &mut Vec<Datagram>) {
        self.messages.clear();
        (&mut self.bytes, SLOT_BYTES, &mut self.messages)
    }
}
