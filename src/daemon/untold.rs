//! Paths so narrow that senders cannot be told: ICMP names no MTU below what every host takes anyway. What does not fit them is lost
//! without a word to its sender, so the operator gets one, once for each peer.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::wire::icmp::{IPV4_MTU_MIN, IPV6_MTU_MIN};

/// The peers that were warned of; no more than there are.
#[derive(Debug)]
pub(super) struct Untold {
    /// The overlay has IPv6.
    has_v6: bool,
    warned: HashSet<IpAddr>,
}

impl Untold {
    pub(super) fn new(has_v6: bool) -> Self {
        Self {
            has_v6,
            warned: HashSet::new(),
        }
    }

    /// Peers that are no more.
    pub(super) fn retain(&mut self, is_peer: impl Fn(IpAddr) -> bool) {
        self.warned.retain(|&peer| is_peer(peer));
    }

    /// The path to `peer` carries packets of `limit` bytes inside: the warning, if it is worth one and there was none.
    pub(super) fn warning(&mut self, peer: IpAddr, limit: u32) -> Option<String> {
        let (family, least) = match (limit < IPV4_MTU_MIN, limit < IPV6_MTU_MIN && self.has_v6) {
            (true, _) => ("IPv4", IPV4_MTU_MIN),
            (false, true) => ("IPv6", IPV6_MTU_MIN),
            (false, false) => return None,
        };
        let is_new = self.warned.insert(peer);
        is_new.then(|| {
            format!(
                "the path to {peer} carries packets of {limit} bytes: larger {family} packets that must not be fragmented are lost, and \
                 their senders cannot be told of less than {least}; widen the underlay, or give the overlay a smaller mtu"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 16, 14));

    #[test]
    fn each_peer_is_warned_of_once() {
        let mut untold = Untold::new(true);
        let warning = untold.warning(PEER, 1279).expect("it is too narrow");
        assert!(warning.contains("10.0.16.14") && warning.contains("1279 bytes: larger IPv6"));
        assert_eq!(untold.warning(PEER, 570), None);
        let other = IpAddr::from([10, 0, 16, 15]);
        let warning = untold.warning(other, 575).expect("it is too narrow");
        assert!(warning.contains("larger IPv4") && warning.contains("less than 576"));
        untold.retain(|peer| peer == other);
        assert!(untold.warning(PEER, 1279).is_some(), "it came back");
    }

    #[test]
    fn what_senders_can_be_told_of_is_worth_no_warning() {
        assert_eq!(Untold::new(true).warning(PEER, 1280), None);
        let mut without_v6 = Untold::new(false);
        assert_eq!(without_v6.warning(PEER, 576), None);
        assert!(without_v6.warning(PEER, 575).is_some());
    }
}
