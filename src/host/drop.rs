//! Why the host's stack kept a packet from the daemon. Not the daemon's reasons ([`DropReason`](crate::DropReason)): on a live host these
//! packets are in the kernel's counters (`nstat`), and no daemon ever saw them.

use std::fmt;

use crate::drop_reason::reasons;

reasons! {
    /// One reason. The names all begin with `host-` and are part of the interface, as those of [`DropReason`](crate::DropReason).
    HostDrop;

    /// A packet that the capture holds only in part (snapped): what the host and the daemon would do with it cannot be known.
    TruncatedCapture = "host-truncated-capture",
    /// A packet of an interface whose link type cannot be read here.
    ForeignLink = "host-foreign-link",
    /// A frame shorter than its link's header.
    ShortFrame = "host-short-frame",
    /// Neither IPv4 nor IPv6.
    NotIp = "host-not-ip",
    /// An IP header that lies: another version than its frame says, or a header length under 20.
    IpHeader = "host-ip-header",
    /// An IP packet longer than its frame, or shorter than its header.
    IpLength = "host-ip-length",
    /// A wrong IPv4 header checksum.
    IpChecksum = "host-ip-checksum",
    /// IPv6 extension headers that run past the packet, are too many, or ask for another route.
    IpExtension = "host-ip-extension",
    /// Not addressed to this host: on its way to a peer, or to another address than `bind = "local"` takes.
    NotForUs = "host-not-for-us",
    /// A fragment of no bytes, of no whole number of eight bytes, past the largest packet, or at odds with its packet's last.
    FragmentMalformed = "host-fragment-malformed",
    /// Fragments that overlap: their packet is given up (RFC 5722, which Linux follows for IPv4 as well).
    FragmentOverlap = "host-fragment-overlap",
    /// A fragment whose bytes were there already: the first stay.
    FragmentDuplicate = "host-fragment-duplicate",
    /// Fragments of one packet of which some are ECN-capable and others not (RFC 3168 section 5.3).
    FragmentEcn = "host-fragment-ecn",
    /// A fragment that found the memory for incomplete packets full.
    FragmentMemory = "host-fragment-memory",
    /// A fragment whose packet was not complete when the capture ended, or too many packets later.
    FragmentIncomplete = "host-fragment-incomplete",
    /// IP, but not UDP.
    NotUdp = "host-not-udp",
    /// A UDP length under 8 or past the IP packet.
    UdpLength = "host-udp-length",
    /// A wrong UDP checksum.
    UdpChecksum = "host-udp-checksum",
    /// A UDP checksum that holds the pseudo-header's sum only: captured before a network card finished it, as on the sender or over veth.
    UdpPartialChecksum = "host-udp-partial-checksum",
    /// Several datagrams captured as one: the receiver had joined them (GRO), or the sender not cut them yet (GSO). Capture with `ethtool -K DEV gro off` on the receiver, or `tx-udp-segmentation off` on the sender.
    JoinedDatagrams = "host-joined-datagrams",
    /// UDP over IPv6 without a checksum, which the daemon takes with `udp6_zero_checksum_rx` only.
    UdpNoChecksum = "host-udp-no-checksum",
    /// UDP to a port, or of an address family, that the daemon has no socket for.
    NoSocket = "host-no-socket",
}

impl fmt::Display for HostDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::DropReason;

    #[test]
    fn names_are_the_hosts_own() {
        let names: BTreeSet<_> = HostDrop::ALL.iter().map(|drop| drop.name()).collect();
        assert_eq!(names.len(), HostDrop::COUNT);
        for name in names {
            assert!(name.starts_with("host-"), "{name}");
            let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            assert!(name.bytes().all(kebab), "{name}");
            assert!(DropReason::ALL.iter().all(|reason| reason.name() != name));
        }
    }
}
