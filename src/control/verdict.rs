//! What became of a packet, as `trace`, `capture` and `replay` tell it: with the same keys, in the same order.

use serde::{Deserialize, Serialize};

use crate::drop_reason::DropReason;
use crate::vtep::Fate;
use crate::wire::{GroupId, Mark, Vni};

/// One packet's verdict; keys that do not apply are left out. Who tells more of a packet flattens it among that. `R` is the reason of a
/// drop: a name, where it comes over the socket from a daemon that may know more of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict<R = String> {
    /// In one word.
    #[serde(rename = "verdict")]
    pub fate: Fate,
    /// Why it was dropped.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub reason: Option<R>,
    /// What the reason means, where a person asked about this one packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
    /// In the VXLAN header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// The group policy id: the low 16 bits of the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// What the VXLAN header was made of, and what the kernel's device would leave in `skb->mark`: the group, A in bit 19, D in bit 22.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
}

/// `serde(default)` alone would want `R: Default`.
fn none<R>() -> Option<R> {
    None
}

impl<R> Verdict<R> {
    /// Nothing but the word.
    pub(crate) const fn new(fate: Fate) -> Self {
        Self {
            fate,
            reason: None,
            meaning: None,
            vni: None,
            group: None,
            mark: None,
        }
    }

    pub(crate) fn drop(reason: R) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(Fate::Drop)
        }
    }

    pub(crate) fn vni(self, vni: Option<Vni>) -> Self {
        Self { vni, ..self }
    }

    pub(crate) fn marked(self, mark: Option<Mark>) -> Self {
        Self {
            group: mark.map(Mark::group),
            mark: mark.map(|mark| mark.0),
            ..self
        }
    }
}

impl Verdict {
    /// A drop, explained.
    pub(super) fn explained(reason: DropReason) -> Self {
        Self {
            meaning: Some(reason.meaning().trim().to_owned()),
            ..Self::drop(reason.name().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_do_not_apply_are_left_out_and_come_back_so() {
        let sent = Verdict::new(Fate::Encap)
            .vni(Some(Vni::SILK))
            .marked(Some(Mark(0x40_0003)));
        let dropped = Verdict::explained(DropReason::UnknownVni);
        for (verdict, json) in [
            (
                sent,
                r#"{"verdict":"encap","vni":1,"group":3,"mark":4194307}"#,
            ),
            (
                dropped,
                r#"{"verdict":"drop","reason":"unknown-vni","meaning":"A VNI that is not ours."}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), json);
            assert_eq!(serde_json::from_str::<Verdict>(json).unwrap(), verdict);
        }
    }
}
