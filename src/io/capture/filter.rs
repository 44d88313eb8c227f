//! Which packets are wanted: decided in the lane, before anything is copied.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Seen;
use crate::vtep::Fate;
use crate::wire::arp;
use crate::wire::ethernet::{EtherType, Frame};
use crate::wire::ip::Network;

/// All that is said must be so; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// It was dropped.
    pub drops: bool,
    /// It goes to this underlay address, or came from it, a peer's or a stranger's.
    pub peer: Option<IpAddr>,
    /// Its inner source or destination is in this, behind VLAN tags and in ARP too.
    pub address: Option<IpNet>,
}

impl Filter {
    /// `frame` is the inner one.
    pub(super) fn wants(&self, seen: &Seen<'_>, frame: &[u8]) -> bool {
        (!self.drops || seen.fate == Fate::Drop)
            && self.peer.is_none_or(|peer| seen.is_of(peer))
            && self.address.is_none_or(|net| is_about(frame, net))
    }
}

fn is_about(frame: &[u8], net: IpNet) -> bool {
    ends(frame).is_some_and(|ends| ends.iter().any(|end| net.contains(end)))
}

/// Who speaks to whom.
fn ends(frame: &[u8]) -> Option<[IpAddr; 2]> {
    let frame = Frame::new_checked(frame)?;
    if let Some((source, destination)) = Network::parse_untagged(frame).ok()?.addresses() {
        return Some([source, destination]);
    }
    let (ethertype, payload) = frame.untagged();
    if ethertype != EtherType::ARP {
        return None;
    }
    arp::ends(payload).map(|ends| ends.map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vtep::fixture::*;

    fn wants(filter: &Filter, frame: &[u8]) -> bool {
        filter.wants(&Seen::dropped(crate::DropReason::NoRoute, None), frame)
    }

    fn about(net: &str) -> Filter {
        Filter {
            address: Some(net.parse().unwrap()),
            ..Filter::default()
        }
    }

    #[test]
    fn an_address_is_either_end_behind_tags_and_in_arp() {
        let packet = from_host(0);
        let tagged = [&packet[..12], &[0x81, 0, 0, 5], &packet[12..]].concat();
        let arp = arp_request(OWN_MAC, OWN_CONTAINER, PEER_CONTAINER);
        for frame in [packet, tagged, arp] {
            assert!(wants(&about("10.255.108.184/32"), &frame));
            assert!(wants(&about("10.255.43.0/24"), &frame));
            assert!(!wants(&about("10.255.44.0/24"), &frame));
            assert!(!wants(&about("fd00::/16"), &frame));
        }
        assert!(wants(
            &about("fd00::12:3456/8"),
            &solicitation("fd00::1".parse().unwrap())
        ));
        assert!(!wants(&about("0.0.0.0/0"), b"no frame"));
        assert!(wants(&Filter::default(), b"no frame"));
    }
}
