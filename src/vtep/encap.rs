//! How a frame goes to the underlay, and when it does not fit.

use std::net::IpAddr;
use std::sync::Arc;

use super::Outer;
use crate::drop_reason::DropReason;
use crate::tables::{Destination, Peer};
use crate::wire::ethernet::{self, Frame};
use crate::wire::icmp;
use crate::wire::ip::Network;
use crate::wire::vxlan::{self, Header};
use crate::wire::{MacAddr, Mark};

/// How a frame is encapsulated.
#[derive(Debug, Clone)]
pub struct Encap<'t> {
    /// Where it goes: one destination, or several for head-end replication; never none. Their order is the FDB's; [`copies`](Self::copies)
    /// has the order in which they are sent.
    pub destinations: &'t [Destination],
    /// The inner destination MAC to write, if routing changed it.
    pub destination_mac: Option<MacAddr>,
    /// Who is speaking; `None`: no group is sent.
    pub mark: Option<Mark>,
    /// The outer IP header.
    pub outer: Outer,
    /// Chooses the outer source port.
    pub flow_hash: u32,
}

/// A frame that does not fit the path to its peer and must not be fragmented.
#[derive(Debug, Clone)]
pub struct TooBig<'t> {
    /// Whom it was for.
    pub peer: &'t Arc<Peer>,
    /// The largest packet that fits, in bytes behind the Ethernet header.
    pub mtu: u32,
}

impl TooBig<'_> {
    /// Who would be told of `frame`, the one that was judged: it bounds how often. `None`: nobody.
    #[must_use]
    pub fn listener(&self, frame: &[u8]) -> Option<IpAddr> {
        let network = Network::parse(Frame::new_checked(frame)?).ok()?;
        network.addresses().map(|(source, _)| source)
    }

    /// Why `frame`, the one that was judged, is dropped: whether there is a word for it that its sender could be told.
    #[must_use]
    pub fn reason(&self, frame: &[u8]) -> DropReason {
        let least = match Frame::new_checked(frame).map(Network::parse) {
            Some(Ok(Network::V4(_))) => icmp::IPV4_MTU_MIN,
            Some(Ok(Network::V6(_))) => icmp::IPV6_MTU_MIN,
            Some(Ok(Network::Other) | Err(_)) | None => 0,
        };
        if self.mtu < least {
            DropReason::PathBelowMinimum
        } else {
            DropReason::PathMtu
        }
    }

    /// The frame that tells the sender of `frame`, the one that was judged. It goes back to the host, as often as the caller thinks fit;
    /// `None` if nobody may be told ([`icmp::write_too_big`]).
    #[must_use]
    pub fn message<'a>(&self, frame: &[u8], out: &'a mut [u8; icmp::LEN_MAX]) -> Option<&'a [u8]> {
        icmp::write_too_big(Frame::new_checked(frame)?, self.mtu, out)
    }
}

impl<'t> Encap<'t> {
    /// Whether a frame of `frame_len` bytes gets to `destination`: a copy of the frame, or a segment of a super-frame.
    #[must_use]
    #[inline]
    pub fn carries(&self, destination: &Destination, frame_len: usize) -> bool {
        self.limit(destination)
            .is_none_or(|mtu| frame_len <= ethernet::HEADER_LEN + mtu as usize)
    }

    /// The largest packet that gets to `destination` in one piece, if it must and a bound is known.
    #[inline]
    fn limit(&self, destination: &Destination) -> Option<u32> {
        let must_be_whole = self.outer.df || destination.underlay.is_ipv6();
        must_be_whole
            .then(|| destination.peer.path_mtu.limit())
            .flatten()
    }

    /// The bound that a frame of this length does not keep, or each segment of a super-frame, and whose it is. Copies for several are
    /// each a matter of its own, and nobody is told of them.
    #[inline]
    pub(super) fn exceeds(&self, frame_len: impl FnOnce() -> usize) -> Option<TooBig<'t>> {
        let [only] = self.destinations else {
            return None;
        };
        let mtu = self.limit(only)?;
        (!self.carries(only, frame_len())).then_some(TooBig {
            peer: &only.peer,
            mtu,
        })
    }

    /// The destinations in the order in which the kernel's device sends its copies: the first one's goes last (`vxlan_xmit`).
    pub fn copies(&self) -> impl Iterator<Item = &'t Destination> + use<'t> {
        let (first, others) = self.destinations.split_at(self.destinations.len().min(1));
        others.iter().chain(first)
    }

    /// The VXLAN header of the copy for `destination`.
    #[must_use]
    pub fn header(&self, destination: &Destination) -> [u8; vxlan::HEADER_LEN] {
        Header {
            vni: destination.vni,
            mark: self.mark,
        }
        .emit()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tables::{Df, Local, OuterRules, Tables};
    use crate::vtep::fixture::*;
    use crate::vtep::{Egress, egress, egress_super_frame};

    fn with_df(df: Df) -> Tables {
        let outer = OuterRules {
            df,
            ..OuterRules::default()
        };
        compile(Local { outer, ..local() }, &spec())
    }

    /// What the host sends, DF set, in a frame of `len` bytes.
    fn frame_of(len: usize) -> Vec<u8> {
        let mut frame = from_host(0);
        frame.resize(len, 0);
        frame[20] = 0x40;
        frame
    }

    fn limit(tables: &Tables, mtu: u32) {
        let peer = tables.peers.lookup(PEER_UNDERLAY).unwrap();
        peer.path_mtu.set_limit(Some(mtu));
    }

    #[test]
    fn what_does_not_fit_the_path_is_too_big_and_its_sender_can_be_told() {
        let tables = with_df(Df::Inherit);
        let (fits, too_big) = (frame_of(14 + 1000), frame_of(14 + 1001));
        encap(&tables, &too_big);
        limit(&tables, 1000);
        encap(&tables, &fits);
        let Egress::TooBig(verdict) = egress(&tables, &too_big, Mark(0)) else {
            panic!("it fits");
        };
        assert_eq!((verdict.peer.underlay, verdict.mtu), (PEER_UNDERLAY, 1000));
        assert_eq!(verdict.listener(&too_big), Some(OWN_CONTAINER.into()));
        let mut out = [0; icmp::LEN_MAX];
        let message = verdict.message(&too_big, &mut out).unwrap();
        assert_eq!(message[..6], OWN_MAC.octets());
        assert_eq!(message[26..30], PEER_CONTAINER.octets());
        assert_eq!(message[30..34], OWN_CONTAINER.octets());
        assert_eq!(message[34..36], [3, 4]);
        assert_eq!(message[40..42], [0x03, 0xe8]);
    }

    #[test]
    fn what_may_be_fragmented_on_its_way_fits_every_path() {
        let tables = with_df(Df::Unset);
        limit(&tables, 1000);
        encap(&tables, &frame_of(1500));
        let tables = with_df(Df::Inherit);
        limit(&tables, 1000);
        let mut frame = frame_of(1500);
        frame[20] = 0;
        encap(&tables, &frame);
        let mut tagged = frame_of(1500);
        tagged.splice(..12, [PEER_MAC.octets(), OWN_MAC.octets()].concat());
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        encap(&tables, &tagged);
    }

    #[test]
    fn over_ipv6_everything_must_fit_the_path() {
        let underlay: IpAddr = "2001:db8::2".parse().unwrap();
        let mut spec = spec();
        spec.fdb = vec![fdb_entry(PEER_MAC, underlay)];
        let tables = compile(local(), &spec);
        let peer = tables.peers.lookup(underlay).unwrap();
        peer.path_mtu.set_limit(Some(1210));
        let mut frame = frame_of(14 + 1211);
        assert!(matches!(
            egress(&tables, &frame, Mark(0)),
            Egress::TooBig(_)
        ));
        frame[20] = 0;
        let judged = egress(&tables, &frame, Mark(0));
        assert!(matches!(judged, Egress::Fragment { mtu: 1210, .. }));
        frame.pop();
        encap(&tables, &frame);
    }

    #[test]
    fn of_a_super_frame_the_segments_must_fit() {
        let tables = with_df(Df::Set);
        let frame = frame_of(20_000);
        let untouched =
            egress_super_frame(&tables, &frame, Mark(0), || panic!("no bound is known"));
        assert!(matches!(untouched, Egress::Encap(_)));
        limit(&tables, 1000);
        let judged = |len| egress_super_frame(&tables, &frame, Mark(0), || len);
        assert!(matches!(judged(1014), Egress::Encap(_)));
        assert!(matches!(judged(1015), Egress::TooBig(_)));
        let mut without_df = frame.clone();
        without_df[20] = 0;
        let judged = egress_super_frame(&tables, &without_df, Mark(0), || 1015);
        assert!(matches!(judged, Egress::Fragment { mtu: 1000, .. }));
    }

    #[test]
    fn of_several_copies_each_has_a_path_of_its_own() {
        let other: IpAddr = Ipv4Addr::new(10, 0, 16, 15).into();
        let mut spec = spec();
        for underlay in [PEER_UNDERLAY, other] {
            spec.fdb.push(fdb_entry(MacAddr::BROADCAST, underlay));
        }
        let outer = OuterRules {
            df: Df::Set,
            ..OuterRules::default()
        };
        let tables = compile(Local { outer, ..local() }, &spec);
        limit(&tables, 1000);
        let mut frame = frame_of(1500);
        frame[..6].fill(0xff);
        let encap = encap(&tables, &frame);
        let carried: Vec<_> = encap.copies().map(|to| encap.carries(to, 1500)).collect();
        assert_eq!(carried, [true, false]);
    }
}
