//! Why a packet was dropped. Every dropped packet has exactly one reason, counted once.
//!
//! The kebab-case names are part of the interface: `stats`, `replay`, captures and metrics print them, and they do not change.

use std::fmt;

/// An enum of reasons, each with its name and, in its documentation, its meaning.
macro_rules! reasons {
    ($(#[doc = $about:literal])+ $reason:ident; $($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $reason { $($(#[doc = $doc])+ $variant,)+ }

        impl $reason {
            /// Every reason, in order: `reason as usize` is its place.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];
            /// How many there are.
            pub const COUNT: usize = [$($name),+].len();

            /// The kebab-case name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for a person: what happened, and where to look.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

pub(crate) use reasons;

reasons! {
    /// One reason. `reason as usize` indexes counters and [`DropReason::ALL`].
    DropReason;

    // From the overlay.
    /// A frame from the host shorter than an Ethernet header.
    ShortFrame = "short-frame",
    /// A frame from the host that says IPv4 or IPv6, behind VLAN tags maybe, and is too short for the header.
    TruncatedIp = "truncated-ip",
    /// A frame for the VTEP's own MAC that is neither IPv4 nor IPv6: it cannot be routed.
    NotRoutable = "not-routable",
    /// The destination lies in this cell's own subnet: no such container here.
    AbsentContainer = "absent-container",
    /// A packet from the host whose source address is not of this cell, or that says so in its ARP or ND body (strict_source).
    SourceNotLocal = "source-not-local",
    /// A packet of a process of this host that speaks from the underlay address: to the overlay it must speak from the VTEP's address (strict_source).
    SourceIsUnderlay = "source-is-underlay",
    /// No route covers the destination.
    NoRoute = "no-route",
    /// No neighbour entry for the next hop, or for the address an ARP or ND request asks for.
    NoNeighbor = "no-neighbor",
    /// No FDB entry for the destination MAC.
    NoFdbEntry = "no-fdb-entry",
    /// Broadcast or multicast, and no zero-MAC FDB entry to send it to.
    NoFloodEntry = "no-flood-entry",
    /// A virtio_net_hdr of the TAP that contradicts its frame or was never asked for, or that the kernel could not make (EINVAL).
    BadVnetHeader = "bad-vnet-header",
    /// A frame from the host whose source MAC has the form in which marks cross the TAP (03:01:..), and was not written by our program.
    ForgedMark = "forged-mark",
    /// The encapsulated packet is larger than the underlay carries (EMSGSIZE).
    TooBig = "too-big",
    /// The packet does not fit the path to its peer and must not be fragmented. Its sender is told by ICMP, as often as a bound allows.
    PathMtu = "path-mtu",
    /// The packet does not fit the path to its peer and must not be fragmented, and its sender cannot be told: the path carries less than the 576 bytes (IPv4) or 1280 (IPv6) that every host relies on. See `peer show`, and widen the underlay.
    PathBelowMinimum = "path-below-minimum",
    /// The underlay's transmit queue is full (ENOBUFS, EAGAIN).
    UnderlayBusy = "underlay-busy",
    /// The host has no route to the peer's underlay address (ENETUNREACH, EHOSTUNREACH, ENETDOWN).
    UnderlayUnreachable = "underlay-unreachable",
    /// The host refused to send for another reason.
    UnderlaySendFailed = "underlay-send-failed",
    // From the underlay.
    /// A datagram whose source address is no peer and no FDB destination (strict_source).
    UnknownPeer = "unknown-peer",
    /// A datagram shorter than a VXLAN header.
    ShortDatagram = "short-datagram",
    /// A datagram cut off by the receive buffer.
    TruncatedDatagram = "truncated-datagram",
    /// The VXLAN header's I flag is clear.
    MissingVniFlag = "missing-vni-flag",
    /// A datagram by which a peer measures the path: nothing is lost.
    PathProbe = "path-probe",
    /// A VNI that is not ours.
    UnknownVni = "unknown-vni",
    /// A VXLAN header bit is set that the kernel's device would refuse too.
    ReservedBits = "reserved-bits",
    /// An inner frame shorter than an Ethernet header.
    ShortInnerFrame = "short-inner-frame",
    /// An inner frame whose source is our own MAC, or that says so in its ARP or ND body (that under strict_source): it looped, or is forged.
    OwnSourceMac = "own-source-mac",
    /// An inner frame that says IPv4 or IPv6 and is too short for the header.
    TruncatedInnerIp = "truncated-inner-ip",
    /// Congestion experienced outside, not ECN-capable inside (RFC 6040 section 4.2).
    EcnCeNotEct = "ecn-ce-not-ect",
    /// An inner source address that is this cell's own, in the IP header or in an ARP or ND body: it looped, or is forged (strict_source).
    OwnSourceAddress = "own-source-address",
    /// An inner source address that our tables do not place behind the sending peer (strict_source).
    SourceNotPeers = "source-not-peers",
    /// No rule of the group policy lets it in, and it is part of no flow that began here: `policy denied` tells which groups, and to whom.
    PolicyDenied = "policy-denied",
    /// The host's receive queue overflowed before we read it, or the UDP checksum was wrong: the socket tells both as one (SO_MEMINFO), and counts datagrams that UDP_GRO joined as one. Lanes ask when they have nothing to do, or have done much.
    ReceiveQueueFull = "receive-queue-full",
    /// The TAP is down (EIO).
    TapDown = "tap-down",
    /// The TAP refused this frame (EINVAL).
    TapRefused = "tap-refused",
    /// The TAP had no memory for the frame (ENOBUFS, ENOMEM, EAGAIN).
    TapBusy = "tap-busy",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl serde::Serialize for DropReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_kebab_case_and_differ() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{name}"
            );
        }
    }

    #[test]
    fn all_is_in_counter_order() {
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
