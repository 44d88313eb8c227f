//! What becomes of a packet, in one word.

use serde::{Deserialize, Serialize};

/// The words of `trace`, captures and `replay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It goes to the underlay.
    Encap,
    /// It goes to the host.
    Deliver,
    /// It is answered.
    Reply,
    /// Of `replay` alone, which plays the host: it is part of the datagram that a later fragment completes, whose fate is the datagram's.
    Fragment,
    /// It goes nowhere.
    Drop,
}

impl Fate {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Deliver => "deliver",
            Self::Reply => "reply",
            Self::Fragment => "fragment",
            Self::Drop => "drop",
        }
    }
}
