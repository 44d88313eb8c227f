//! What is said of one packet.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::DropReason;
use crate::host::HostDrop;
use crate::tables::Destination;
use crate::wire::{Mark, Vni};

/// One packet's verdict; in JSON an object with these keys, those that do not apply left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Line<'t> {
    /// The packet's number, from 1.
    n: u64,
    pub(super) verdict: Verdict,
    /// Why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
    /// Of the VXLAN header.
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<Vni>,
    /// The group policy id: the low 16 bits of the mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u16>,
    /// What the header was made of; what the kernel's device would leave in `skb->mark`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    /// To whom it goes, from whom it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    underlay: Option<Underlay<'t>>,
}

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It went to the underlay.
    Encap,
    /// It went to the host.
    Deliver,
    /// It was answered.
    Reply,
    /// It is part of the datagram that a later fragment completed, and that one's verdict is the datagram's.
    Fragment,
    /// It went nowhere.
    Drop,
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
    pub(super) fn new(n: u64, verdict: Verdict) -> Self {
        Self {
            n,
            verdict,
            reason: None,
            vni: None,
            group: None,
            mark: None,
            underlay: None,
        }
    }

    pub(super) fn drop(n: u64, reason: Reason) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(n, Verdict::Drop)
        }
    }

    pub(super) fn vni(self, vni: Option<Vni>) -> Self {
        Self { vni, ..self }
    }

    pub(super) fn mark(self, mark: Option<Mark>) -> Self {
        Self {
            group: mark.map(|mark| mark.group().0),
            mark: mark.map(|mark| mark.0),
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

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Deliver => "deliver",
            Self::Reply => "reply",
            Self::Fragment => "fragment",
            Self::Drop => "drop",
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
        write!(f, "{} {}", self.n, self.verdict.name())?;
        if let Some(reason) = self.reason {
            write!(f, " {}", reason.name())?;
        }
        if let Some(vni) = self.vni {
            write!(f, " vni {vni}")?;
        }
        if let (Some(group), Some(mark)) = (self.group, self.mark) {
            write!(f, " group {group:#06x} mark {mark:#x}")?;
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
        let full = Line::new(1, Verdict::Encap)
            .vni(Some(Vni::SILK))
            .mark(Some(Mark(0x40_0003)))
            .underlay(Underlay::One([10, 0, 16, 14].into()));
        let drop = Line::drop(2, Reason::Daemon(DropReason::UnknownVni));
        let [json, dropped] = [full, drop].map(|line| serde_json::to_string(&line).unwrap());
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
