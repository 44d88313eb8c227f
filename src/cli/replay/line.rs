//! What is said of one packet.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::DropReason;
use crate::control::Verdict;
use crate::host::HostDrop;
use crate::tables::Destination;
use crate::vtep::Fate;
use crate::wire::{Mark, Vni};

/// One packet's verdict; in JSON an object with these keys, those that do not apply left out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line<'t> {
    /// The packet's number, from 1.
    n: u64,
    #[serde(flatten)]
    pub(super) verdict: Verdict<Reason>,
    /// To whom it goes, from whom it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    underlay: Option<Underlay<'t>>,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// By the daemon.
    Daemon(DropReason),
    /// By the host, before the daemon.
    Host(HostDrop),
}

/// The other end on the underlay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Underlay<'t> {
    One(IpAddr),
    /// Of each copy of a frame, with commas between.
    Each(&'t [Destination]),
}

impl<'t> Line<'t> {
    pub(super) fn new(n: u64, fate: Fate) -> Self {
        Self::of(n, Verdict::new(fate))
    }

    pub(super) fn drop(n: u64, reason: Reason) -> Self {
        Self::of(n, Verdict::drop(reason))
    }

    fn of(n: u64, verdict: Verdict<Reason>) -> Self {
        Self {
            n,
            verdict,
            underlay: None,
        }
    }

    pub(super) fn vni(self, vni: Option<Vni>) -> Self {
        Self {
            verdict: self.verdict.vni(vni),
            ..self
        }
    }

    pub(super) fn mark(self, mark: Option<Mark>) -> Self {
        Self {
            verdict: self.verdict.marked(mark),
            ..self
        }
    }

    pub(super) fn underlay(self, underlay: Underlay<'t>) -> Self {
        Self {
            underlay: Some(underlay),
            ..self
        }
    }
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Daemon(reason) => reason.name(),
            Self::Host(reason) => reason.name(),
        }
    }

    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Daemon(reason) => reason.meaning(),
            Self::Host(reason) => reason.meaning(),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for Underlay<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Underlay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            Self::Each(destinations) => {
                let mut comma = "";
                destinations.iter().try_for_each(|destination| {
                    write!(f, "{comma}{}", destination.underlay.ip())?;
                    comma = ",";
                    Ok(())
                })
            }
        }
    }
}

/// One line of text.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        write!(f, "{} {}", self.n, verdict.fate.name())?;
        if let Some(reason) = verdict.reason {
            write!(f, " {}", reason.name())?;
        }
        if let Some(vni) = verdict.vni {
            write!(f, " vni {vni}")?;
        }
        if let (Some(group), Some(mark)) = (verdict.group, verdict.mark) {
            write!(f, " group {group} mark {mark:#x}")?;
        }
        if let Some(underlay) = self.underlay {
            write!(f, " underlay {underlay}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_do_not_apply_are_left_out() {
        let full = Line::new(1, Fate::Encap)
            .vni(Some(Vni::SILK))
            .mark(Some(Mark(0x40_0003)))
            .underlay(Underlay::One([10, 0, 16, 14].into()));
        let drop = Line::drop(2, Reason::Daemon(DropReason::UnknownVni));
        let [json, dropped] = [&full, &drop].map(|line| serde_json::to_string(line).unwrap());
        assert_eq!(
            json,
            r#"{"n":1,"verdict":"encap","vni":1,"group":3,"mark":4194307,"underlay":"10.0.16.14"}"#
        );
        assert_eq!(
            dropped,
            r#"{"n":2,"verdict":"drop","reason":"unknown-vni"}"#
        );
        assert_eq!(
            full.to_string(),
            "1 encap vni 1 group 0x0003 mark 0x400003 underlay 10.0.16.14"
        );
        assert_eq!(drop.to_string(), "2 drop unknown-vni");
    }
}
