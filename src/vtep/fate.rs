//! What becomes of a packet, in one word.

use serde::{Deserialize, Serialize};

/// The words of `trace` and of captures; `replay` has one more, for fragments that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It goes to the underlay.
    Encap,
    /// It goes to the host.
    Deliver,
    /// It is answered.
    Reply,
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
            Self::Drop => "drop",
        }
    }
}
