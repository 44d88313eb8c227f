//! Answers the core writes itself: ARP replies and neighbour advertisements.

use std::net::{IpAddr, Ipv6Addr};

use crate::wire::MacAddr;
use crate::wire::arp;
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::ndisc;

/// A whole Ethernet frame, inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; ndisc::ADVERTISEMENT_LEN],
    len: usize,
}

impl Reply {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn new(frame: &[u8]) -> Self {
        let mut bytes = [0; ndisc::ADVERTISEMENT_LEN];
        bytes[..frame.len()].copy_from_slice(frame);
        Self {
            bytes,
            len: frame.len(),
        }
    }
}

const _: () = assert!(arp::FRAME_LEN <= ndisc::ADVERTISEMENT_LEN);

/// A question about an overlay address: an ARP request or a neighbour solicitation.
pub(super) enum Question {
    Arp(arp::Request),
    Ndisc(ndisc::Solicitation),
}

impl Question {
    /// The question in `frame`, if it asks one. Nobody is asking from a multicast address: the answer would be flooded.
    pub(super) fn parse(frame: Frame<'_>) -> Option<Self> {
        let question = match frame.ethertype() {
            EtherType::ARP => arp::Request::parse(frame).map(Self::Arp),
            EtherType::IPV6 => ndisc::Solicitation::parse(frame).map(Self::Ndisc),
            _ => None,
        };
        question.filter(|question| !question.asker().is_multicast())
    }

    fn asker(&self) -> MacAddr {
        match self {
            Self::Arp(request) => request.sender_mac,
            Self::Ndisc(solicitation) => solicitation.sender_mac,
        }
    }

    /// The address asked for.
    pub(super) fn target(&self) -> IpAddr {
        match self {
            Self::Arp(request) => request.target_ip.into(),
            Self::Ndisc(solicitation) => solicitation.target.into(),
        }
    }

    /// True for a solicitation from the unspecified address.
    pub(super) fn is_duplicate_detection(&self) -> bool {
        match self {
            Self::Arp(_) => false,
            Self::Ndisc(solicitation) => solicitation.sender_ip == Ipv6Addr::UNSPECIFIED,
        }
    }

    /// The answer: the target is at `mac`.
    pub(super) fn answer(&self, mac: MacAddr) -> Reply {
        match self {
            Self::Arp(request) => Reply::new(&request.reply(mac)),
            Self::Ndisc(solicitation) => Reply::new(&solicitation.advertisement(mac, false)),
        }
    }
}
